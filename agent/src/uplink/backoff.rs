//! How long to wait before the next connection: pure, from the number of failures and a random draw.
//!
//! Invariant: between half of and the whole exponential step, at most [`BACKOFF_MS_MAX`]; so a thousand stores that lost one
//! broker do not return in step.

/// The first step, in milliseconds.
pub const BACKOFF_MS_MIN: u64 = 1_000;

/// The longest wait, in milliseconds: a store is back within a minute of its broker.
pub const BACKOFF_MS_MAX: u64 = 60_000;

/// Milliseconds to wait after `failures` in a row, the first being 1; `draw` is any random number.
pub fn wait_ms(failures: u32, draw: u64) -> u64 {
    let step = BACKOFF_MS_MIN.checked_shl(failures.saturating_sub(1).min(16)).unwrap_or(BACKOFF_MS_MAX);
    let step = step.min(BACKOFF_MS_MAX);
    step / 2 + draw % (step / 2 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_minute_and_never_agree_on_a_moment() {
        assert!((500..=1_000).contains(&wait_ms(1, 12_345)));
        for failures in 7..100 {
            assert!((30_000..=60_000).contains(&wait_ms(failures, u64::from(failures) * 7_919)));
        }
        assert_ne!(wait_ms(5, 1), wait_ms(5, 2));
    }
}
