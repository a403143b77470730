//! How long to wait before the next connection: pure, from the number of failures and a random draw.
//!
//! Invariant: between half of and the whole exponential step, at most what the configuration allows; so a thousand stores that lost one
//! broker do not return in step.

/// The first step, in milliseconds.
pub const BACKOFF_MS_MIN: u64 = 1_000;

/// Milliseconds to wait after `failures` in a row, the first being 1, and at most `wait_ms_max`; `draw` is any random number.
pub fn wait_ms(failures: u32, wait_ms_max: u64, draw: u64) -> u64 {
    let step = BACKOFF_MS_MIN.checked_shl(failures.saturating_sub(1).min(16)).unwrap_or(wait_ms_max);
    let step = step.min(wait_ms_max);
    step / 2 + draw % (step / 2 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_minute_and_never_agree_on_a_moment() {
        assert!((500..=1_000).contains(&wait_ms(1, 60_000, 12_345)));
        for failures in 7..100 {
            assert!((30_000..=60_000).contains(&wait_ms(failures, 60_000, u64::from(failures) * 7_919)));
        }
        assert_ne!(wait_ms(5, 60_000, 1), wait_ms(5, 60_000, 2));
    }
}
