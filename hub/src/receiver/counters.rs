//! What the receiver counts, for metrics. Invariant: counters only rise while the process lives, and nothing is decided by them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use counterfoil_telemetry::metrics::Durations;

/// What the receiver counts, for metrics.
#[derive(Debug, Default)]
pub struct Counters {
    /// Rounds of the receiver; it turns at least once a second while it is alive.
    pub turns: AtomicU64,
    /// Batches taken in.
    pub batches: AtomicU64,
    /// Records that were new.
    pub records: AtomicU64,
    /// Records that were there already.
    pub duplicates: AtomicU64,
    /// Records under a number that another has.
    pub forks: AtomicU64,
    /// Transactions.
    pub groups: AtomicU64,
    /// Hello pages answered.
    pub hellos: AtomicU64,
    /// Acks published.
    pub acks: AtomicU64,
    /// Batches refused.
    pub nacks: AtomicU64,
    /// Messages of agents whose identity was revoked.
    pub turned_away: AtomicU64,
    /// Messages that do not decode.
    pub undecodable: AtomicU64,
    /// Failed attempts at the ledger.
    pub ledger_failures: AtomicU64,
    /// Microseconds that the last transaction took.
    pub last_commit_us: AtomicU64,
    commits: Mutex<Durations>,
}

impl Counters {
    /// Counts a transaction that took so many microseconds.
    pub(super) fn committed(&self, took_us: u64) {
        self.last_commit_us.store(took_us, Ordering::Relaxed);
        self.commits.lock().unwrap_or_else(PoisonError::into_inner).add(Duration::from_micros(took_us));
    }

    /// How long transactions took.
    pub fn commits(&self) -> Durations {
        self.commits.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

pub(super) fn add(counter: &AtomicU64, number: u64) {
    counter.fetch_add(number, Ordering::Relaxed);
}
