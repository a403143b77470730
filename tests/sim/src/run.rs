//! One run from its beginning to its end, many of them, and making a failing one small.
//!
//! Invariant: a run leaves nothing behind on its thread: no planted bug, no script.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use counterfoil_proto::planted;

use crate::plan::Plan;
use crate::world::World;

/// Simulated milliseconds in which everything has to drain once it is healed: two rounds of everything that is seldom (hellos come every
/// ten minutes, a disk that failed is probed every five).
const DRAIN_MS_MAX: u64 = 25 * 60_000;
/// Between two looks whether it has.
const LOOK_MS: u64 = 1_000;
/// Runs that making a failing one small may take.
const SHRINK_RUNS_MAX: u32 = 80;

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// What is wrong; empty for a run that passed.
    pub findings: Vec<String>,
    /// The run's footprint.
    pub digest: String,
    /// Events that happened.
    pub events: u64,
    /// Documents that tills made.
    pub documents: u64,
    /// Simulated milliseconds until everything had drained.
    pub drained_ms: u64,
}

struct Planted;

impl Drop for Planted {
    fn drop(&mut self) {
        planted::plant(None);
    }
}

/// Runs a plan.
pub fn run(plan: &Plan) -> Ended {
    let _planted = Planted;
    planted::plant(plan.bug);
    match catch_unwind(AssertUnwindSafe(|| drive(*plan))) {
        Ok(ended) => ended,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no words");
            Ended {
                findings: vec![format!("panic: {text}")],
                digest: "panic".to_owned(),
                events: 0,
                documents: 0,
                drained_ms: 0,
            }
        }
    }
}

fn drive(plan: Plan) -> Ended {
    let mut world = World::new(plan);
    while world.step(plan.until_ms) {}
    world.heal();
    let (healed, limit) = (world.now, world.now + DRAIN_MS_MAX);
    let mut look_at = world.now;
    // Twice in a row, so that what was just appended is seen.
    let mut quiet = 0;
    while quiet < 3 && world.now < limit {
        look_at += LOOK_MS;
        while world.step(look_at) {}
        quiet = if world.is_drained() { quiet + 1 } else { 0 };
    }
    let drained_ms = world.now - healed;
    if quiet < 3 {
        let waits = world.what_waits();
        world.find(format!("liveness: not drained {} s after everything was healed: {waits}", drained_ms / 1_000));
    }
    while !world.hubs.is_idle() && world.now < limit + LOOK_MS {
        look_at += 1;
        while world.step(look_at) {}
    }
    world.judge();
    Ended {
        digest: world.trace.digest(),
        events: world.events,
        documents: world.tills.documents.len() as u64,
        findings: world.findings,
        drained_ms,
    }
}

/// Runs plans on `jobs` threads until `findings_max` of them failed; gives those, and how many passed.
pub fn run_all(
    plans: impl Iterator<Item = Plan> + Send,
    jobs: usize,
    findings_max: usize,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> (Vec<(Plan, Ended)>, u64) {
    let plans = Mutex::new(plans);
    let failed = Mutex::new(Vec::new());
    let (passed, broken) = (AtomicU64::new(0), AtomicU64::new(0));
    let work = || {
        loop {
            if failed.lock().is_ok_and(|failed| failed.len() >= findings_max) {
                return;
            }
            let next = plans.lock().ok().and_then(|mut plans| plans.next());
            let Some(plan) = next else { return };
            let ended = run(&plan);
            if ended.findings.is_empty() {
                passed.fetch_add(1, Ordering::Relaxed);
            } else if let Ok(mut failed) = failed.lock() {
                // At once: a long run may end before it reports.
                crate::say(&format!("seed {} fails: {}", plan.seed, ended.findings.join("; ")));
                broken.fetch_add(1, Ordering::Relaxed);
                failed.push((plan, ended));
            }
            progress(passed.load(Ordering::Relaxed), broken.load(Ordering::Relaxed));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(work);
        }
    });
    let mut failed = failed.into_inner().unwrap_or_default();
    failed.sort_by_key(|(plan, _)| plan.seed);
    (failed, passed.into_inner())
}

/// The smallest plan that was found to fail still: without faults that it does not need, and shorter.
pub fn shrink(plan: &Plan) -> (Plan, Ended) {
    let mut smallest = *plan;
    let mut ended = run(&smallest);
    let mut runs = 0;
    let mut attempt = |candidate: Plan, smallest: &mut Plan, ended: &mut Ended| {
        runs += 1;
        if runs > SHRINK_RUNS_MAX {
            return false;
        }
        let tried = run(&candidate);
        let fails = !tried.findings.is_empty();
        if fails {
            (*smallest, *ended) = (candidate, tried);
        }
        fails
    };
    for fault in smallest.faults.list() {
        let candidate = Plan { faults: smallest.faults.without(fault), ..smallest };
        attempt(candidate, &mut smallest, &mut ended);
    }
    for part in [2, 4, 8, 16] {
        loop {
            let until_ms = smallest.until_ms - smallest.until_ms / part;
            if until_ms < 1_000 || !attempt(Plan { until_ms, ..smallest }, &mut smallest, &mut ended) {
                break;
            }
        }
    }
    (smallest, ended)
}
