//! Waiting: for a condition with a deadline, and the one pause that such a loop needs.
//!
//! Invariant: nothing else in the test world sleeps. A wait that runs into its deadline panics with what it waited for, so
//! that a test never goes on with a world that is not there.

use std::time::{Duration, Instant};

/// How long a poll loop rests between two looks.
const REST: Duration = Duration::from_millis(10);

/// Waits until `look` gives a value; panics after `limit`, naming `what`.
pub async fn until<T>(what: &str, limit: Duration, look: impl AsyncFnMut() -> Option<T>) -> T {
    match until_or_none(limit, look).await {
        Some(value) => value,
        None => panic!("Waited {} s in vain for {what}", limit.as_secs_f32()),
    }
}

/// Waits until `look` gives a value; `None` after `limit`.
pub async fn until_or_none<T>(limit: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = look().await {
            return Some(value);
        }
        if start.elapsed() >= limit {
            return None;
        }
        rest(REST).await;
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
    async fn a_condition_ends_the_wait_and_a_deadline_does_too() {
        let mut looks = 0;
        let seen = until("the third look", Duration::from_secs(5), async || {
            looks += 1;
            (looks == 3).then_some(looks)
        })
        .await;
        assert_eq!(seen, 3);
        assert_eq!(until_or_none(Duration::from_millis(30), async || None::<u8>).await, None);
    }
}
