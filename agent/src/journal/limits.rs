//! The journal's limits in one place: name, unit, default, reason, and what happens when one is reached.
//!
//! Invariant: a [`JournalConfig`] that passed [`JournalConfig::check`] lets the journal drain itself out of a full disk. This
//! module does not know what is written.

/// The latest format of segments. All up to it are read; a later one is refused, and nothing is changed.
pub const FORMAT_VERSION: u16 = 2;

/// The format of new segments unless the owner says otherwise: the one before the latest, which the release before reads as well, so that
/// it can be gone back to with a backlog on board.
pub const FORMAT_WRITE_DEFAULT: u16 = FORMAT_VERSION - 1;

/// Bytes of a frame before its payload.
pub const FRAME_HEADER_BYTES: usize = 40;

/// Frames begin at multiples of this many bytes, so that a scan for the next whole frame has few places to try.
pub const FRAME_ALIGN_BYTES: usize = 8;

/// What a medium writes whole or not at all, at the least: a power cut tears between two of these.
pub(crate) const SECTOR_BYTES: u32 = 512;

/// Bytes of one frame's payload: a record of the greatest length or a part of a state snapshot. More is refused when staged;
/// a length above it on disk is damage.
pub const PAYLOAD_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Bytes of one group. What does not fit is refused with `StageError::GroupFull`; the caller commits and goes on. Bounds the
/// memory of the writer and how far a segment may run over its length.
pub const GROUP_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Bytes of the header of a segment; the table of epochs is cut, oldest first, to keep it.
pub const SEGMENT_HEADER_BYTES_MAX: usize = 1024 * 1024;

/// Epochs in the table at the start of a segment. Epochs beyond it, oldest first, are left out: should their segment be lost
/// later, its ranges could not be named from here. A crash loop with a sale at each start has to run a thousand times while
/// the hub is away to get there.
pub const TABLE_EPOCHS_MAX: usize = 4096;

/// The highest number of a segment that is believed; a thousand a day get there in 5,000 years. Files of higher numbers are left alone.
pub const SEGMENTS_MAX: u32 = u32::MAX / 2;

/// The greatest segment length that positions can express.
pub const SEGMENT_BYTES_LIMIT: u64 = 1 << 31;

/// Bytes between two marks of a lane in the sparse index of a segment: how much a reader that jumps has to skip at most.
/// 64 marks of 24 bytes per lane and segment of the default length.
pub const MARK_BYTES: u32 = 256 * 1024;

/// Bytes that a sequential reader or a replay holds per lane.
pub const READ_BUFFER_BYTES: usize = 256 * 1024;

/// Lanes for which one reader keeps its place; the one used longest ago starts from a mark again.
pub const READER_PLACES_MAX: usize = 8;

/// Filter bits per identity: one lookup in a hundred reads a page of an identity file in vain, at 1.25 MB per million.
pub const FILTER_BITS_PER_KEY: usize = 10;

/// Probes of a filter, best for ten bits per key.
pub const FILTER_PROBES: u32 = 7;

/// Bytes of one page of the identity entries in a side file, checked by itself when it is read.
pub const PAGE_BYTES: usize = 4096;

/// Bytes of raw damaged data kept in `quarantine/`. What is found beyond is named but its bytes are not kept.
pub const QUARANTINE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What the owner of the journal may set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalConfig {
    /// Bytes of a segment. 16 MiB: about 35,000 sales; small enough to be given back soon, large enough that turning is rare.
    /// A segment may run over by at most one group.
    pub segment_bytes: u64,
    /// Bytes that the journal may take, with side files, spares and ballast. 4 GiB: months of a busy store. At the cap new
    /// records are refused until segments are given back.
    pub bytes_max: u64,
    /// Bytes of the file system that the journal leaves to others (logs, the state store). 64 MiB. Below it the disk counts as full.
    pub free_bytes_min: u64,
    /// Milliseconds that a wholly safe segment is kept, for questions about receipts and for the duplicate index. 7 days. Ignored
    /// while room is short.
    pub retain_ms: u64,
    /// Bytes of a worst-case checkpoint of the state store; with one segment it is the length of the ballast. 32 MiB: the state
    /// of 120,000 items and exceptions in sled.
    pub checkpoint_bytes_max: u64,
    /// Segments that must still fit for `ops` to be taken. 4.
    pub ops_shed_segments: u64,
    /// Emptied segments kept for reuse. 2: a reused file needs no metadata writes, so its syncs cost one flush, not two.
    pub spares_max: usize,
    /// The format of new segments; one that is begun keeps its own.
    pub format_write: u16,
}

impl Default for JournalConfig {
    fn default() -> Self {
        Self {
            segment_bytes: 16 * 1024 * 1024,
            bytes_max: 4 * 1024 * 1024 * 1024,
            free_bytes_min: 64 * 1024 * 1024,
            retain_ms: 7 * 24 * 3_600_000,
            checkpoint_bytes_max: 32 * 1024 * 1024,
            ops_shed_segments: 4,
            spares_max: 2,
            format_write: FORMAT_WRITE_DEFAULT,
        }
    }
}

impl JournalConfig {
    /// Bytes that one more segment may take, with its side file: 20 bytes and a few bits per identity.
    pub const fn turn_bytes_max(&self) -> u64 {
        self.segment_bytes.saturating_add(self.segment_bytes / 8).saturating_add(16 * 1024)
    }

    /// Bytes of the ballast: what draining a full disk may need, a checkpoint and a segment.
    pub const fn ballast_bytes(&self) -> u64 {
        self.checkpoint_bytes_max.saturating_add(self.turn_bytes_max())
    }

    /// Bytes before the end of a segment at which the next group goes into a new one.
    pub const fn turn_bytes(&self) -> u64 {
        self.segment_bytes / 16
    }

    /// Whether the limits fit each other; `Err` says which one does not.
    pub fn check(&self) -> Result<(), &'static str> {
        if self.segment_bytes < 4096 || self.segment_bytes > SEGMENT_BYTES_LIMIT {
            return Err("segment_bytes must lie between 4 KiB and 2 GiB");
        }
        if self.bytes_max < self.ballast_bytes().saturating_add(self.segment_bytes.saturating_mul(4)) {
            return Err("bytes_max must hold the ballast and four segments");
        }
        if !(1..=FORMAT_VERSION).contains(&self.format_write) {
            return Err("format_write must be a format that this software reads");
        }
        Ok(())
    }
}

const _: () = {
    assert!(counterfoil_proto::limits::RECORD_BYTES_MAX <= PAYLOAD_BYTES_MAX, "every record fits a frame");
    assert!(PAYLOAD_BYTES_MAX * 2 < GROUP_BYTES_MAX, "every frame fits a group");
    assert!(PAGE_BYTES.is_multiple_of(8));
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_do_not_fit_each_other_are_refused() {
        let whole = JournalConfig::default();
        assert_eq!(whole.check(), Ok(()));
        let of = |segment_bytes| JournalConfig { segment_bytes, bytes_max: u64::MAX, ..whole }.check().is_ok();
        assert_eq!([4_095, 4_096, SEGMENT_BYTES_LIMIT, SEGMENT_BYTES_LIMIT + 1].map(of), [false, true, true, false]);
        let of = |format_write| JournalConfig { format_write, ..whole }.check().is_ok();
        assert_eq!([0, 1, FORMAT_VERSION, FORMAT_VERSION + 1].map(of), [false, true, true, false]);
        let least = whole.ballast_bytes() + 4 * whole.segment_bytes;
        let of = |bytes_max| JournalConfig { bytes_max, ..whole }.check().is_ok();
        assert_eq!([least - 1, least].map(of), [false, true]);
    }

    #[test]
    fn the_ballast_holds_a_checkpoint_and_a_segment_with_its_side_file() {
        let config = JournalConfig { segment_bytes: 1 << 20, checkpoint_bytes_max: 5, ..JournalConfig::default() };
        assert_eq!(config.turn_bytes_max(), (1 << 20) + (1 << 17) + (1 << 14));
        assert_eq!(config.ballast_bytes(), config.turn_bytes_max() + 5);
        assert_eq!(config.turn_bytes(), 1 << 16);
    }
}
