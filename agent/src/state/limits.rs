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

/// Tills whose close of such a day is remembered by name; where more had closed it, it counts as closed for all.
pub const TILLS_GONE_MAX: usize = 24;

/// Tills with totals in one day. A further till's transactions are not counted here: `DAY_TOTALS_LIMIT`.
pub const TILLS_PER_DAY_MAX: usize = 512;

/// Currencies of one till in one day, and of one declared close. Further ones are not counted: `DAY_TOTALS_LIMIT`.
pub const CURRENCIES_PER_TILL_MAX: usize = 16;

/// Tax rates of one till, day and currency. Further ones are missing in `taxes`: `DAY_TOTALS_LIMIT`.
pub const TAXES_PER_TILL_MAX: usize = 32;

/// Tender types of one till, day and currency. Further ones are missing in `tenders`: `DAY_TOTALS_LIMIT`.
pub const TENDERS_PER_TILL_MAX: usize = 32;

/// Tender types of one declared close, all its currencies together. Further ones are not shown: `DAY_TOTALS_LIMIT`.
pub const TENDERS_PER_CLOSE_MAX: usize = 64;

/// Declared closes of one day. Further ones are not shown and do not close the day: `DAY_TOTALS_LIMIT`.
pub const CLOSES_PER_DAY_MAX: usize = 1_024;

/// Closes that wait for their control totals; further ones get none, and a finding says so.
pub const CLOSES_WAITING_MAX: usize = 1_024;

/// Currencies with perpetual totals.
pub const CURRENCIES_MAX: usize = 64;

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

/// Bytes of an item's or till's name: 64 characters of up to four bytes. Names in documents are bounded where they enter; a
/// longer one is treated as beyond the limit of its table.
pub const NAME_BYTES_MAX: usize = 4 * counterfoil_proto::limits::IDENTIFIER_CHARS_MAX;

/// Bytes of a word that something is counted under (unit, currency, tender type, tax category), of which one row holds many. A longer
/// one is treated as beyond the limit of its table.
pub const WORD_BYTES_MAX: usize = 64;

/// Receipts' items of which something was given back, about 2 MB: what a further return is judged by. Beyond it the one whose last
/// return is longest ago is forgotten, and a further return of it is judged by the receipt alone.
pub const RETURNS_MAX: usize = 20_000;

/// Lines of orders whose quantities are kept: some thousand orders under way and the finished ones of weeks, about 15 MB. Beyond it a
/// finished one goes, and where there is none the one that was touched longest ago: `ORDER_LINES_LIMIT`.
pub const ORDER_LINES_MAX: usize = 50_000;

/// Orders that one look names as lying ready for too long; the rest is named by the next.
pub const STALE_ORDERS_MAX: usize = 64;

/// Drawers (a till in a currency). The money in further ones is not followed: `DRAWERS_LIMIT`.
pub const DRAWERS_MAX: usize = 2_048;

/// Tills whose numbers are followed. Beyond it the one that was silent longest is forgotten.
pub const NUMBER_RUNS_MAX: usize = 1_024;

/// Gaps in one till's numbers. Beyond it the oldest is forgotten: `NUMBER_GAPS_LIMIT`.
pub const NUMBER_GAPS_MAX: usize = 64;

/// Epochs whose lane heads are remembered, so that a record is folded once even when it is met again. A replay may begin with a segment
/// that is folded already, and a box that restarts over and over puts an epoch every kilobyte into it: as many as a segment of
/// 16 MiB can hold. Beyond it the epoch that was live longest ago goes.
pub const EPOCHS_MAX: usize = 16_384;

/// Bytes of the smallest part that a snapshot is cut into: the largest row fits with room to spare.
pub const SNAPSHOT_PART_BYTES_MIN: usize = 64 * 1024;

/// Parts of one snapshot; a claim beyond it is not believed.
pub const SNAPSHOT_PARTS_MAX: u32 = 65_536;

/// Rows that one incremental checkpoint changes in one atomic batch, which is held in memory more than once. Beyond it the whole state
/// is written anew, so a checkpoint is due well before ([`super::State::is_checkpoint_due`]).
pub const CHECKPOINT_ROWS_MAX: usize = 4_096;

/// Rows after which writing the whole state anew waits for what it wrote.
pub const STORE_STEP_ROWS: usize = 256;

/// Bytes of one row's key and value, by the bounds above.
pub const ROW_BYTES_MAX: usize = 7 * 1024;

/// Bytes of the state's directory at which it is written anew: the store never gives space back by itself.
pub const STORE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// The directory may also grow to this many times its size after it was last written anew, so that a large state does not do so
/// at every checkpoint.
pub const STORE_GROWTH_MAX: u64 = 4;

/// Bytes of the store's page cache. All that is read often is in memory already.
pub const STORE_CACHE_BYTES: u64 = 256 * 1024;

/// Directories of damaged state that are kept for people to look at; beyond it the oldest goes, so that a crash loop does not fill the disk.
pub const QUARANTINED_MAX: usize = 4;

/// Bytes that an amount, a sequence number or a length takes at most, and an exact decimal with its scale.
const NUMBER_BYTES: usize = 10;
const DECIMAL_BYTES: usize = 21;

const _: () = {
    let word = WORD_BYTES_MAX + 2;
    let name = NAME_BYTES_MAX + 2;
    let tender = word + NUMBER_BYTES;
    let tax = word + DECIMAL_BYTES + 2 * NUMBER_BYTES;
    let key = 8 + name + word;
    let till = key + TAXES_PER_TILL_MAX * tax + TENDERS_PER_TILL_MAX * tender + 16 * NUMBER_BYTES;
    assert!(till < ROW_BYTES_MAX, "the totals of one till");
    let close = key + name + TENDERS_PER_CLOSE_MAX * tender + CURRENCIES_PER_TILL_MAX * (word + 3 * NUMBER_BYTES);
    assert!(close < ROW_BYTES_MAX, "a declared close");
    let item = key + UNITS_PER_ITEM_MAX * (word + 2 * DECIMAL_BYTES + 2 * NUMBER_BYTES);
    assert!(item < ROW_BYTES_MAX, "an item");
    assert!(6 * (TEXT_BYTES_MAX + 2) + 16 * NUMBER_BYTES < ROW_BYTES_MAX, "an exception");
    assert!(key + 2 * name + word + 5 * DECIMAL_BYTES + 4 * NUMBER_BYTES < ROW_BYTES_MAX, "an order line");
    assert!(key + TENDERS_PER_TILL_MAX * (word + 2 * NUMBER_BYTES + 1) < ROW_BYTES_MAX, "a drawer");
    assert!(key + TILLS_GONE_MAX * name + NUMBER_BYTES < ROW_BYTES_MAX, "a day whose totals were given up");
    assert!(key + name + 8 * NUMBER_BYTES + 64 < ROW_BYTES_MAX, "a close that waits");
    assert!(key + name + 4 * NUMBER_BYTES + NUMBER_GAPS_MAX * 7 * NUMBER_BYTES < ROW_BYTES_MAX, "a till's numbers");
    assert!(17 * ROW_BYTES_MAX < 125 * 1024, "a page of the store stays below what it puts into files of their own");
    assert!(2 * ROW_BYTES_MAX < SNAPSHOT_PART_BYTES_MIN);
    assert!(STORE_BYTES_MAX > 16 * STORE_CACHE_BYTES);
};
