//! Damage: a real journal with every byte flipped, every length cut, every file removed or replaced by garbage, and each call to the disk
//! failing once and for ever.
//!
//! Invariant: after each of them the journal opens, at most the damaged record is lost, what is lost is named and its bytes are kept,
//! everything else is there byte for byte, it takes new records, and a second opening agrees. All in process, over the disk in memory; no sweep
//! leaves anything out. Not known here: power cuts in the middle of things (`tests/sim`, `tests/power`).

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops where it is")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

mod bytes;
mod calls;
mod disk;
mod judge;
mod layout;
mod sample;

/// Threads of a sweep.
const THREADS: usize = 2;

/// Findings that are enough to see what is wrong.
const FINDINGS_MAX: usize = 6;

/// Characters of a finding.
const FINDING_CHARS_MAX: usize = 500;

/// Tries everything of `trials`; fails with what was found, a panic included.
#[track_caller]
fn sweep<T: Sync>(trials: &[T], name: impl Fn(&T) -> String + Sync, trial: impl Fn(&T) -> Result<(), String> + Sync) {
    let next = AtomicUsize::new(0);
    let findings = Mutex::new(Vec::new());
    let work = || {
        while let Some(one) = trials.get(next.fetch_add(1, Ordering::Relaxed)) {
            let found = catch_unwind(AssertUnwindSafe(|| trial(one)));
            let found = found.unwrap_or_else(|_| Err("it panicked".to_owned()));
            let mut findings = findings.lock().unwrap();
            if let Err(finding) = found {
                findings.push(format!("{}: {finding:.FINDING_CHARS_MAX$}", name(one)));
            }
            if findings.len() >= FINDINGS_MAX {
                break;
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(work);
        }
    });
    let findings = findings.into_inner().unwrap();
    assert!(findings.is_empty(), "of {} trials:\n  {}", trials.len(), findings.join("\n  "));
}
