//! What the service manager hears of us, and what it hands over: systemd's notify protocol (`sd_notify(3)`) and its sockets
//! (`sd_listen_fds(3)`).
//!
//! Invariant: READY=1 is said after the recovery and a test commit, WATCHDOG=1 after each test commit that came back from the journal's
//! thread and its disk, and for nothing else, so that neither a hub nor a broker that is away ends the process. A recovery gets more time
//! for as long as it moves bytes. Without a service manager nothing is said, and nothing fails. Not known here: who restarts us, and when.

use std::fmt::Write as _;
use std::io;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval};

use crate::agent::AgentHandle;
use crate::answer::Status;

/// Between two words about a recovery.
const RECOVERING_EVERY: Duration = Duration::from_secs(5);

/// How long a recovery may go without moving a byte, in microseconds: a minute, as a worn card stalls for tens of seconds.
const STALL_US_MAX: u32 = 60_000_000;

/// Between two words about how it goes, where no watchdog asks for more.
const STATUS_EVERY: Duration = Duration::from_secs(5);

/// Between two test commits where nobody watches: what they cost is little, and one that fails ends a process that cannot do its work.
const UNWATCHED_EVERY: Duration = Duration::from_mins(1);

/// Tells the service manager; where there is none, nothing happens.
pub fn say(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager cannot be told how it goes");
    }
}

/// Says that tills are served from now on.
pub(crate) fn ready(status: &Status) {
    say(&[NotifyState::Ready, NotifyState::Status(&in_words(status))]);
}

/// Says that the end was asked for.
pub(crate) fn stopping() {
    say(&[NotifyState::Stopping, NotifyState::Status("Stopping: answering what is at work, closing the journal")]);
}

/// Says why it cannot go on.
pub fn failed(why: &str) {
    say(&[NotifyState::Status(&why.replace('\n', "; "))]);
}

/// How often the service manager wants to hear of us, if at all.
pub(crate) fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

/// The socket for tills that the service manager opened; `None` where it opened none.
pub(crate) fn inherited() -> io::Result<Option<UnixListener>> {
    let mut inherited = listenfd::ListenFd::from_env();
    match inherited.len() {
        0 => Ok(None),
        1 => inherited.take_unix_listener(0),
        count => Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{count} sockets"))),
    }
}

/// Asks for more time while the journal is read, for as long as `moved` grows; runs until it is aborted.
pub(crate) async fn recovering(moved: Arc<AtomicU64>, say: impl Fn(&[NotifyState<'_>])) {
    let mut every = interval(RECOVERING_EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = None;
    loop {
        every.tick().await;
        if let Some(words) = advanced(&mut seen, moved.load(Ordering::Relaxed)) {
            say(&[NotifyState::ExtendTimeoutUsec(STALL_US_MAX), NotifyState::Status(&words)]);
        }
    }
}

/// Words for a recovery that moved `bytes` so far; `None` for one that stands still.
fn advanced(seen: &mut Option<u64>, bytes: u64) -> Option<String> {
    let before = seen.replace(bytes);
    (before != Some(bytes)).then(|| format!("Reading the journal: {} MiB so far", bytes >> 20))
}

/// Feeds the watchdog with test commits, three for each `patience`, and says how it goes; until the owner is gone.
pub(crate) async fn attend(handle: AgentHandle, patience: Option<Duration>, say: impl Fn(&[NotifyState<'_>])) {
    let mut probes =
        interval(patience.map_or(UNWATCHED_EVERY, |patience| (patience / 3).max(Duration::from_millis(1))));
    let mut words = interval(STATUS_EVERY);
    for every in [&mut probes, &mut words] {
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first is at once, and what it would say was just said.
        every.tick().await;
    }
    let mut said = String::new();
    loop {
        tokio::select! {
            _ = probes.tick() => match handle.probe().await {
                Ok(()) => say(&[NotifyState::Watchdog]),
                Err(_) => return,
            },
            _ = words.tick() => {
                let now = in_words(&handle.status());
                if now != said {
                    say(&[NotifyState::Status(&now)]);
                    said = now;
                }
            }
        }
    }
}

/// How it goes, in a line for whoever asks `systemctl status`.
fn in_words(status: &Status) -> String {
    let mut words = match status.mode.as_str() {
        "full" => "DISK FULL, tills are told to come again".to_owned(),
        "drain_only" => "DISK FAILED repeatedly, only delivering what is there".to_owned(),
        _ => format!("Taking sales of store {}", status.store_id),
    };
    let certificate = status.certificate.as_ref().map_or("", |certificate| certificate.state.as_str());
    words.push_str(match (status.uplink.revoked, certificate) {
        (true, _) | (_, "revoked") => "; IDENTITY REVOKED by head office, enrol this box again",
        (_, "expired") => "; CERTIFICATE EXPIRED, a new one is being asked for",
        (_, "missing") => "; NO CERTIFICATE for the broker, enrol this box",
        _ => "",
    });
    words.push_str(match (status.uplink.connected, status.uplink.welcomed) {
        (_, true) => "; the hub answers",
        (true, false) => "; the broker is there, the hub does not answer",
        (false, false) => "; no connection to the broker",
    });
    let waiting: u64 = status.lanes.values().map(|lane| lane.waiting).sum();
    let oldest = status.lanes.values().filter_map(|lane| lane.oldest_unsent_age_s).max().unwrap_or(0);
    let written = match (waiting, oldest) {
        (0, _) => write!(words, "; nothing waits"),
        (waiting, 0..120) => write!(words, "; {waiting} records wait"),
        (waiting, 120..7_200) => write!(words, "; {waiting} records wait, the oldest for {} minutes", oldest / 60),
        (waiting, 7_200..172_800) => write!(words, "; {waiting} records wait, the oldest for {} hours", oldest / 3_600),
        (waiting, _) => write!(words, "; {waiting} records wait, the oldest for {} days", oldest / 86_400),
    };
    debug_assert!(written.is_ok(), "writing to a string does not fail");
    words
}

#[cfg(test)]
mod tests;
