//! Many seeds, each a system with faults of its own: nothing that a till was told is lost, nothing is doubled, everything drains.
//!
//! A seed that failed once stays in `regressions.txt` for ever.

use counterfoil_sim::plan::Plan;
use counterfoil_sim::run::{run, run_all, shrink};
use counterfoil_sim::say;

/// Seeds of an ordinary run of the tests; `sim --seeds` runs more.
const SEEDS: u64 = 2_000;
const THREADS: usize = 2;

fn pass(plans: impl Iterator<Item = Plan> + Send, expected: u64) {
    let (failed, passed) = run_all(plans, THREADS, 1, &|_, _| {});
    if let Some((plan, ended)) = failed.first() {
        let (small, small_ended) = shrink(plan);
        panic!(
            "seed {} fails: {:?}\nmade small: {:?}\n{}",
            plan.seed,
            ended.findings,
            small_ended.findings,
            small.command()
        );
    }
    assert_eq!(passed, expected, "every seed was run");
}

#[test]
fn many_seeds_pass() {
    pass((0..SEEDS).map(Plan::of), SEEDS);
    say(&format!("{SEEDS} seeds passed"));
}

#[test]
fn seeds_that_failed_once_pass() {
    let text = include_str!("../regressions.txt");
    let numbers = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_whitespace().next());
    let seeds: Vec<u64> = numbers.map(|number| number.parse().expect("a line begins with a seed")).collect();
    assert!(!seeds.is_empty(), "seeds that failed are kept");
    let count = seeds.len().try_into().expect("a count");
    pass(seeds.into_iter().map(Plan::of), count);
}

#[test]
fn a_seed_decides_a_run_to_the_last_bit() {
    for seed in [3, 24, 131] {
        let footprints = [(), ()].map(|()| {
            let again = std::thread::spawn(move || run(&Plan::of(seed)));
            again.join().expect("a run ends")
        });
        let [one, other] = footprints;
        assert!(one.events > 100, "something happened");
        assert_eq!((one.digest, one.events), (other.digest, other.events), "seed {seed}");
    }
}
