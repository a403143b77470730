//! Bugs that the simulator plants, one at a time, to see that its checkers catch them.
//!
//! Invariant: without the feature `planted`, which no shipping build has, [`is`] is the constant `false` and the bugs are compiled
//! away. With it a bug is there only on a thread that called [`plant`]. What a bug does stands where it is asked for.

/// A bug that can be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bug {
    /// A till is answered before its record is synced.
    AnswerBeforeSync,
    /// What was handed to the broker counts as safe.
    ReclaimOnSent,
    /// Segments are given back up to `stored`, not up to `safe`.
    ReclaimPastSafe,
    /// A restart goes on with the numbers of the epoch before.
    SequenceContinued,
    /// The identity alone decides that a document is a duplicate.
    DuplicateWithoutDigest,
    /// The duplicate index forgets by time.
    DuplicateExpires,
    /// Frames of a torn tail count, whatever their checksum says.
    TornTailReplayed,
    /// A sync that failed is tried again, and believed.
    RetryAfterFailedSync,
    /// The watermark is committed before the records that it covers.
    WatermarkApart,
    /// The watermark crosses a gap that nobody declared gone.
    GapClosed,
    /// The second record under a number is dropped.
    ForkDropped,
    /// A duplicate is answered before the first copy is synced.
    PendingAnswered,
    /// What a start finds in the page cache alone is served as proven.
    PageCacheServed,
    /// The watermark is read before the row is locked.
    WatermarkOutsideLock,
    /// Marks never go down, not even after a restore of the hub.
    MarksNeverLowered,
    /// Credit counts down and is only given back by acknowledgements.
    CreditLost,
    /// Positions are given in one transaction and become visible in another.
    PositionBelow,
    /// Checksums do not tell the segments that a file held apart.
    RecycledFrames,
    /// A mark counts, whosever records it is about.
    ChainNotCompared,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 19] = [
        Self::AnswerBeforeSync,
        Self::ReclaimOnSent,
        Self::ReclaimPastSafe,
        Self::SequenceContinued,
        Self::DuplicateWithoutDigest,
        Self::DuplicateExpires,
        Self::TornTailReplayed,
        Self::RetryAfterFailedSync,
        Self::WatermarkApart,
        Self::GapClosed,
        Self::ForkDropped,
        Self::PendingAnswered,
        Self::PageCacheServed,
        Self::WatermarkOutsideLock,
        Self::MarksNeverLowered,
        Self::CreditLost,
        Self::PositionBelow,
        Self::RecycledFrames,
        Self::ChainNotCompared,
    ];
}

#[cfg(feature = "planted")]
mod field {
    extern crate std;

    use super::Bug;
    use core::cell::Cell;

    std::thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Whether this bug is planted on this thread.
    pub fn is(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }

    /// Plants a bug on this thread, or pulls it out.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
    }
}

#[cfg(feature = "planted")]
pub use field::{is, plant};

/// Whether this bug is planted: never, in this build.
#[cfg(not(feature = "planted"))]
pub const fn is(_: Bug) -> bool {
    false
}
