//! The simulator's command line. Invariant: it exits with 1 where a run failed, and prints how to have that run again.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::Parser;
use counterfoil_proto::planted::Bug;
use counterfoil_sim::plan::{Fault, Faults, Plan};
use counterfoil_sim::run::{run, run_all, shrink};
use counterfoil_sim::say;

#[derive(Debug, Parser)]
#[command(about = "Stores, broker, hubs, disks and clocks in one thread, from one seed")]
struct Arguments {
    /// One run.
    #[arg(long, alias = "case")]
    seed: Option<u64>,
    /// So many runs.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// From this seed on.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Threads.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Failing runs after which it stops.
    #[arg(long, default_value_t = 1)]
    findings: usize,
    /// Prints a failing run as it is.
    #[arg(long)]
    no_shrink: bool,
    /// Prints every event.
    #[arg(long)]
    trace: bool,
    /// Faults that do not happen, by name.
    #[arg(long, value_delimiter = ',')]
    without: Vec<String>,
    /// How long faults go on, in simulated milliseconds.
    #[arg(long)]
    until_ms: Option<u64>,
    /// A bug to plant.
    #[arg(long)]
    plant: Option<String>,
}

impl Arguments {
    fn plan(&self, seed: u64, bug: Option<Bug>) -> Plan {
        let own = Plan::of(seed);
        let is_without = |fault: &Fault| self.without.iter().any(|name| *name == fault.name());
        let faults = own.faults.list().into_iter().filter(is_without).fold(own.faults, Faults::without);
        Plan { faults, until_ms: self.until_ms.unwrap_or(own.until_ms), bug, trace: self.trace, ..own }
    }
}

fn report(plan: &Plan, findings: &[String]) {
    say(&format!("\nseed {} fails:", plan.seed));
    for finding in findings {
        say(&format!("  {finding}"));
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let named = |name: &String| Bug::ALL.into_iter().find(|bug| format!("{bug:?}") == *name);
    let bug = arguments.plant.as_ref().map(named);
    if bug == Some(None) {
        say(&format!("There is no such bug; there are {:?}", Bug::ALL));
        return ExitCode::from(64);
    }
    let bug = bug.flatten();
    if let Some(seed) = arguments.seed {
        let plan = arguments.plan(seed, bug);
        let ended = run(&plan);
        say(&format!(
            "seed {seed}: {} events, {} documents, drained after {} ms, footprint {}",
            ended.events, ended.documents, ended.drained_ms, ended.digest
        ));
        if ended.findings.is_empty() {
            return ExitCode::SUCCESS;
        }
        report(&plan, &ended.findings);
        if !arguments.no_shrink && !arguments.trace {
            let (small, ended) = shrink(&plan);
            report(&small, &ended.findings);
            say(&small.command());
        }
        return ExitCode::FAILURE;
    }
    let last_told = AtomicU64::new(0);
    let progress = |passed: u64, failed: u64| {
        let told = last_told.load(Ordering::Relaxed);
        if passed >= told + 500
            && last_told.compare_exchange(told, passed, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            say(&format!("{passed} passed, {failed} failed"));
        }
    };
    let plans = (arguments.from..arguments.from + arguments.seeds).map(|seed| arguments.plan(seed, bug));
    let (failed, passed) = run_all(plans, arguments.jobs, arguments.findings, &progress);
    say(&format!("{passed} passed, {} failed", failed.len()));
    for (plan, ended) in &failed {
        report(plan, &ended.findings);
        if arguments.no_shrink {
            say(&plan.command());
        } else {
            let (small, ended) = shrink(plan);
            report(&small, &ended.findings);
            say(&small.command());
        }
    }
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
