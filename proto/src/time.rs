//! Time as the pure cores see it: a number that the caller passes in.
//!
//! Two notions that never mix: [`Moment`] orders timers and comes from a monotonic clock; [`WallTime`] is written into
//! records for people and never orders, deduplicates or expires anything.

use serde::{Deserialize, Serialize};

/// A point on the caller's monotonic clock, in milliseconds from an arbitrary start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Moment(pub u64);

impl Moment {
    /// This moment moved on by `duration_ms`.
    #[must_use]
    pub const fn plus_ms(self, duration_ms: u64) -> Self {
        Self(self.0.saturating_add(duration_ms))
    }

    /// Milliseconds since `earlier`; zero where it is later.
    pub const fn since_ms(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Milliseconds since 1970-01-01T00:00:00Z, as the box believed at the time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct WallTime(pub i64);

impl WallTime {
    /// RFC 3339 in UTC with milliseconds, as answers and logs show it.
    pub fn to_rfc3339(self) -> alloc::string::String {
        let text = jiff::Timestamp::from_millisecond(self.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        alloc::format!("{text:.3}")
    }
}

/// How far a wall time may be trusted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ClockQuality {
    /// The kernel says that the clock is synchronised.
    Synchronised,
    /// Nothing vouches for the clock.
    #[default]
    Unsynchronised,
    /// The clock stands before the time of the build or of the last journaled record: it is wrong.
    Behind,
}
