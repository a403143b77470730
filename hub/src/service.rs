//! What the service manager hears of the hub: systemd's notify protocol (`sd_notify(3)`).
//!
//! Invariant: READY=1 is said once the ledger took a commit (the process signs in) and the API listens; WATCHDOG=1 for as long as the receiver turns
//! or fails in good order, so that a ledger or a broker that is away ends nothing. Without a service manager nothing is said, and nothing
//! fails. Not known here: who restarts us, and when.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval};

use crate::api::Sources;
use crate::config::Config;
use crate::receiver::Counters;

/// Between two looks where nobody watches.
const UNWATCHED_EVERY: Duration = Duration::from_secs(10);

/// Tells the service manager; where there is none, nothing happens.
pub(crate) fn say(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "The service manager cannot be told how it goes");
    }
}

/// Says that agents and people are served from now on.
pub(crate) fn ready(config: &Config) {
    let words = format!("Serving at {}, going to the broker", config.api.listen);
    say(&[NotifyState::Ready, NotifyState::Status(&words)]);
}

/// Says that the ledger is waited for, at most for `patience`.
pub(crate) fn waiting(patience: Duration) {
    let patience_us = u32::try_from(patience.as_micros()).unwrap_or(u32::MAX);
    say(&[NotifyState::ExtendTimeoutUsec(patience_us), NotifyState::Status("Waiting for the ledger")]);
}

/// Says that the end was asked for.
pub(crate) fn stopping() {
    say(&[NotifyState::Stopping, NotifyState::Status("Stopping: committing what is at work")]);
}

/// Says why it cannot go on.
pub fn failed(why: &str) {
    say(&[NotifyState::Status(&why.replace('\n', "; "))]);
}

/// How often the service manager wants to hear of us, if at all.
pub(crate) fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

/// Feeds the watchdog while the receiver is alive, and says how it goes; runs until it is aborted.
pub(crate) async fn attend(sources: Arc<Sources>, patience: Option<Duration>, say: impl Fn(&[NotifyState<'_>])) {
    let mut every = interval(patience.map_or(UNWATCHED_EVERY, |patience| (patience / 4).max(Duration::from_millis(1))));
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut signs, mut said) = (Signs::default(), "");
    loop {
        every.tick().await;
        if signs.are_new(&sources.counters) {
            say(&[NotifyState::Watchdog]);
        }
        let words = in_words(sources.outlet.is_connected(), signs.failing);
        if words != said {
            say(&[NotifyState::Status(words)]);
            said = words;
        }
    }
}

/// Signs of life of the receiver, as they were last seen.
#[derive(Debug, Default)]
struct Signs {
    turns: u64,
    failures: u64,
    failing: bool,
}

impl Signs {
    /// Whether the receiver turned, or failed at the ledger and goes on trying, since the last look.
    fn are_new(&mut self, counters: &Counters) -> bool {
        let turns = counters.turns.load(Ordering::Relaxed);
        let failures = counters.ledger_failures.load(Ordering::Relaxed);
        self.failing = failures != self.failures;
        let are_new = self.failing || turns != self.turns;
        (self.turns, self.failures) = (turns, failures);
        are_new
    }
}

fn in_words(is_connected: bool, ledger_fails: bool) -> &'static str {
    match (is_connected, ledger_fails) {
        (true, false) => "Serving; the broker is connected",
        (false, false) => "Serving; NO CONNECTION to the broker, agents keep what they have",
        (true, true) => "The LEDGER FAILS, nothing is acknowledged; the broker is connected",
        (false, true) => "The LEDGER FAILS, and there is no connection to the broker; agents keep what they have",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_that_turns_or_fails_and_goes_on_is_alive_and_one_that_stands_is_not() {
        let (counters, mut signs) = (Counters::default(), Signs::default());
        assert!(!signs.are_new(&counters));
        counters.turns.fetch_add(1, Ordering::Relaxed);
        assert!(signs.are_new(&counters) && !signs.failing);
        assert!(!signs.are_new(&counters));
        counters.ledger_failures.fetch_add(1, Ordering::Relaxed);
        assert!(signs.are_new(&counters) && signs.failing);
        assert!(!signs.are_new(&counters) && !signs.failing);
    }
}
