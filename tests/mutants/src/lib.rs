//! Mutation testing: every change that cargo-mutants knows of is compiled once, each behind a switch, and met by the unit tests and, where
//! those let it live, by the simulator. What lives then stands in `survivors.toml` with its reason; one that does not stand there, or that
//! does and lives no more, is an error.
//!
//! A build for each mutant, which is what cargo-mutants itself does, takes hours for these areas; this takes minutes. What no switch can
//! express is counted and listed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use crate::list::{AREAS, Area, Mutant};
use crate::tree::Tree;
use crate::trial::{Verdict, trial};

mod list;
mod switch;
mod tree;
mod trial;

/// Tests that flip every byte or fail every call: they meet only what the others let live.
const SLOW: [&str; 8] = [
    "a_thousand_starts",
    "a_flipped_byte",
    "survives_every_power_cut",
    "is_full_for_one_call",
    "cut_at_any_length",
    "any_failed_",
    "groups_of_eight",
    "measured",
];

#[derive(Debug, Parser)]
#[command(about = "Changes the code that ships, one place at a time, and asks whether a test notices")]
struct Arguments {
    /// sync, journal, ledger; all of them when none is named.
    areas: Vec<String>,
    /// Only mutants whose name holds this.
    #[arg(long)]
    only: Option<String>,
    /// Runs of the simulator for a mutant that the unit tests let live.
    #[arg(long, default_value_t = 60)]
    seeds: u32,
    /// Seconds after which a program counts as endless.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

/// Why it ended early.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("not installed: {0}")]
    Missing(String),
    #[error("{0}")]
    Said(String),
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

#[expect(clippy::print_stdout, reason = "a command line talks")]
fn say(text: &str) {
    println!("{text}");
}

/// Reads the command line and judges: 0 where what lives is what is listed, 1 where it is not, 2 where it could not be found out, 64 for a
/// name that is no area's.
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    let is_named = |area: &&Area| arguments.areas.is_empty() || arguments.areas.iter().any(|name| name == area.name);
    if let Some(name) = arguments.areas.iter().find(|name| AREAS.iter().all(|area| area.name != **name)) {
        say(&format!("sync, journal or ledger, not {name}"));
        return ExitCode::from(64);
    }
    let mut is_right = true;
    for area in AREAS.iter().filter(is_named) {
        match judge(area, &arguments) {
            Ok(right) => is_right &= right,
            Err(failed) => {
                say(&format!("{}: {failed}", area.name));
                return ExitCode::from(2);
            }
        }
    }
    if is_right { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Tries the mutants of an area; says whether those that live are those that are known to.
fn judge(area: &Area, arguments: &Arguments) -> Result<bool, Failed> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| sources.join("target"), PathBuf::from);
    let tree = Tree::of(&sources, &target.join("mutants").join(area.name))?;
    let mutants = list::list(area, &tree.root)?;
    let (switched, programs) = tree.build(area, &mutants)?;
    say(&format!("{}: {} mutants, {} of them behind switches", area.name, mutants.len(), switched.len()));
    let is_meant = |name: &str| arguments.only.as_ref().is_none_or(|only| name.contains(only));
    let directory = tree.root.join(area.directory);
    let within = Duration::from_secs(arguments.seconds);
    let seeds = arguments.seeds.to_string();
    let skip: Vec<&str> = SLOW.iter().flat_map(|name| ["--skip", name]).collect();
    let quick = [&[area.tests][..], &skip].concat();
    let stages: [(&str, &Path, &[&str]); 3] = [
        ("quick tests", &programs.tests, &quick),
        ("simulator", &programs.simulator, &["--seeds", &seeds, "--jobs", "2", "--no-shrink"]),
        ("slow tests", &programs.tests, &[area.tests]),
    ];
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut alive: BTreeMap<String, usize> = BTreeMap::new();
    for (done, number) in switched.iter().enumerate() {
        let mutant = &mutants[*number];
        if !is_meant(&mutant.place()) {
            continue;
        }
        if done % 50 == 49 {
            say(&format!("{} of {}: {counts:?}", done + 1, switched.len()));
        }
        let mut verdict = "lives";
        for (stage, program, arguments) in stages {
            if trial(program, arguments, &directory, *number, within)? != Verdict::Lives {
                verdict = stage;
                break;
            }
        }
        *counts.entry(verdict).or_default() += 1;
        if verdict == "lives" {
            say(&format!("lives: {}", mutant.place()));
            *alive.entry(mutant.name()).or_default() += 1;
        }
    }
    say(&format!("{}: caught by {counts:?}", area.name));
    let unswitched = |(number, mutant): &(usize, &Mutant)| !switched.contains(number) && is_meant(&mutant.place());
    for (_, mutant) in mutants.iter().enumerate().filter(unswitched) {
        say(&format!("without a switch: {}", mutant.place()));
    }
    // What has no switch and stands in the list was tried by cargo-mutants itself.
    let apart: BTreeSet<String> =
        mutants.iter().enumerate().filter(unswitched).map(|(_, mutant)| mutant.name()).collect();
    let mut known = list::survivors(area, &sources)?;
    known.retain(|name, _| is_meant(name) && !apart.contains(name));
    for name in alive.keys().chain(known.keys()).collect::<BTreeSet<_>>() {
        match (alive.get(name).copied().unwrap_or(0), known.get(name).copied().unwrap_or(0)) {
            (lives, listed) if lives > listed => say(&format!("without a reason: {name}")),
            (lives, listed) if lives < listed => say(&format!("listed, and lives no more: {name}")),
            _ => {}
        }
    }
    Ok(alive == known)
}
