//! Waiting: for a condition with a deadline, and the one pause that such a loop needs.
//!
//! Invariant: nothing else in the test world sleeps. A wait that runs into its deadline says so, so that a test never goes on with a
//! world that is not there.

use std::time::{Duration, Instant};

/// How long a poll loop rests between two looks.
const REST: Duration = Duration::from_millis(10);

/// Until when a condition is waited for: `loop { if … { break } if !deadline.rest().await { … } }`.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    start: Instant,
    limit: Duration,
}

impl Deadline {
    /// From now on.
    pub fn new(limit: Duration) -> Self {
        Self { start: Instant::now(), limit }
    }

    /// Rests before the next look; `false` without a rest once the deadline has passed.
    pub async fn rest(&self) -> bool {
        if self.start.elapsed() >= self.limit {
            return false;
        }
        rest(REST).await;
        true
    }

    /// Rests before the next look; panics, naming `what` was waited for, once the deadline has passed.
    pub async fn rest_for(&self, what: &str) {
        assert!(self.rest().await, "Waited {} s in vain for {what}", self.limit.as_secs_f32());
    }
}

/// Rests for `duration`: a till's back-off, or the random moment of a fault. Never to let something else happen first.
#[expect(clippy::disallowed_methods, reason = "the one place that the rule leaves")]
pub async fn rest(duration: Duration) {
    tokio::time::sleep(duration).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_deadline_that_has_passed_gives_no_rest() {
        assert!(Deadline::new(Duration::from_secs(5)).rest().await);
        assert!(!Deadline::new(Duration::ZERO).rest().await);
    }

    #[tokio::test]
    #[should_panic(expected = "in vain for the moon")]
    async fn what_was_waited_for_in_vain_is_named() {
        Deadline::new(Duration::ZERO).rest_for("the moon").await;
    }
}
