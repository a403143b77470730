//! What nobody sends: goods that nobody collects, numbers that tills left out.
//!
//! Invariant: each is told once, by a record, and what was told follows from the records alone. It works offline, and says nothing
//! while documents are refused, for then the missing ones may be among those.

use counterfoil_proto::time::{Moment, WallTime};

use super::{Mode, Owner};
use crate::agent::notes;

/// Milliseconds between two looks.
const WATCH_MS: u64 = 10_000;

impl Owner {
    /// Notes what has not come in time.
    pub(super) fn watch_for_what_is_missing(&mut self, now: Moment) {
        if self.mode != Mode::Accepting || self.watch_at > now || !self.notes.is_empty() {
            return;
        }
        self.watch_at = now.plus_ms(WATCH_MS);
        let wall = self.env.wall();
        let pickup_ms = i64::try_from(self.patience.pickup.as_millis()).unwrap_or(i64::MAX);
        let gap_ms = i64::try_from(self.patience.sequence_gap.as_millis()).unwrap_or(i64::MAX);
        for order in self.state.stale_orders(wall, pickup_ms) {
            self.note(notes::pickup_stale(&order));
        }
        for missing in self.state.missing_numbers(WallTime(wall.0.saturating_sub(gap_ms))) {
            self.note(notes::sequence_gap(&missing));
        }
    }
}
