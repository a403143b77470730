//! The bounds of the state, each with its unit, its reason, and what happens when it is reached.
//!
//! Invariant: a bound never refuses a record, for the record is already in the journal. What the state cannot take in becomes an
//! exception that counts it, and the hub, which reads the record itself, still has the whole truth.

/// Business days whose totals are kept: two months, so that every store has its last month in full when it closes the books. When one
/// more opens, the day that was touched longest ago goes. By use and not by date, because a till whose clock stands at
/// 1970 or 2099 must not push out the days that the store works on.
pub const DAYS_MAX: usize = 62;

/// Days that are remembered as gone, so that a late record of such a day is not shown as if it were the whole day. Beyond it the
/// oldest date is forgotten.
pub const DAYS_GONE_MAX: usize = 1_024;

/// Tills with totals in one day. A further till's transactions are not counted here: `DAY_TOTALS_LIMIT`.
pub const TILLS_PER_DAY_MAX: usize = 512;

/// Currencies of one till in one day, and of one declared close. Further ones are not counted: `DAY_TOTALS_LIMIT`.
pub const CURRENCIES_PER_TILL_MAX: usize = 16;

/// Tax rates of one till, day and currency. Further ones are missing in `taxes`: `DAY_TOTALS_LIMIT`.
pub const TAXES_PER_TILL_MAX: usize = 64;

/// Tender types of one till, day and currency, and of one declared currency. Further ones are missing in `tenders`: `DAY_TOTALS_LIMIT`.
pub const TENDERS_PER_TILL_MAX: usize = 64;

/// Declared closes of one day. Further ones are not shown and do not close the day: `DAY_TOTALS_LIMIT`.
pub const CLOSES_PER_DAY_MAX: usize = 1_024;

/// Items with stock: ten times a large supermarket's range, about 35 MB. Further items are not tracked: `STOCK_ITEMS_LIMIT`.
pub const ITEMS_MAX: usize = 200_000;

/// Units that one item is moved in. Movements in further units are not tracked: `STOCK_UNITS_LIMIT`.
pub const UNITS_PER_ITEM_MAX: usize = 16;

/// Open exceptions that are listed singly, about 6 MB. Beyond it there is one more per code, which counts.
pub const EXCEPTIONS_OPEN_MAX: usize = 20_000;

/// Counting exceptions, one per code. Findings of further codes are counted under `OTHER_FINDINGS`.
pub const EXCEPTIONS_COUNTING_MAX: usize = 256;

/// Resolved exceptions that can still be looked up; the hub keeps all of them. Beyond it the one that was resolved first goes.
pub const EXCEPTIONS_RESOLVED_MAX: usize = 1_000;

/// Bytes of a text that is kept for people (identity, pointer, correlation id, who, why); what is longer is cut at a character. The
/// record itself keeps the whole.
pub const TEXT_BYTES_MAX: usize = 512;

/// Bytes of a name that something is counted under (item, till, currency, unit, tender type, tax category): 64 characters of
/// up to four bytes. Names in documents are bounded where they enter; a longer one is treated as beyond the limit of its table.
pub const NAME_BYTES_MAX: usize = 4 * counterfoil_proto::limits::IDENTIFIER_CHARS_MAX;

/// Epochs whose lane heads are remembered, so that a record is folded once even when it is met again. One per start of the agent;
/// beyond it the epoch that was live longest ago goes.
pub const EPOCHS_MAX: usize = 64;

/// Bytes of the smallest part that a snapshot is cut into: the largest row fits with room to spare.
pub const SNAPSHOT_PART_BYTES_MIN: usize = 64 * 1024;

/// Parts of one snapshot; a claim beyond it is not believed.
pub const SNAPSHOT_PARTS_MAX: u32 = 65_536;

/// Rows that one incremental checkpoint changes; more, and the whole state is written anew in steps of this size, so that the
/// memory for it stays small.
pub const CHECKPOINT_ROWS_MAX: usize = 8_192;

/// Bytes of the state's directory at which it is written anew: the store never gives space back by itself.
pub const STORE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// The directory may also grow to this many times its size after it was last written anew, so that a large state does not do so
/// at every checkpoint.
pub const STORE_GROWTH_MAX: u64 = 4;

/// Bytes of the store's page cache. All that is read often is in memory already.
pub const STORE_CACHE_BYTES: u64 = 1024 * 1024;

/// Directories of damaged state that are kept for people to look at; beyond it the oldest goes, so that a crash loop does not fill the disk.
pub const QUARANTINED_MAX: usize = 4;

const _: () = {
    assert!(
        CHECKPOINT_ROWS_MAX > counterfoil_proto::limits::LINE_ITEMS_MAX,
        "one document fits an incremental checkpoint"
    );
    assert!(STORE_BYTES_MAX > 16 * STORE_CACHE_BYTES);
    assert!(
        TENDERS_PER_TILL_MAX * (NAME_BYTES_MAX + 12) + TAXES_PER_TILL_MAX * (NAME_BYTES_MAX + 48)
            < SNAPSHOT_PART_BYTES_MIN,
        "the totals of one till fit a part"
    );
    assert!(UNITS_PER_ITEM_MAX * (NAME_BYTES_MAX + 64) < SNAPSHOT_PART_BYTES_MIN, "an item fits a part");
    assert!(EPOCHS_MAX * 64 < SNAPSHOT_PART_BYTES_MIN, "the heads fit a part");
};
