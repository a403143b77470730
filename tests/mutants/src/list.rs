//! What cargo-mutants would change, and which changes are known to live.
//!
//! Invariant: a mutant is named without its line, so that a name outlives the code above it; a name that stands twice stands for two.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;

use crate::Failed;

/// The release of cargo-mutants whose list is used.
const CARGO_MUTANTS: &str = "27.1.0";

/// A part of the code whose mutants are tried together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Area {
    pub(crate) name: &'static str,
    /// The package, and where it stands.
    pub(crate) package: &'static str,
    pub(crate) directory: &'static str,
    pub(crate) files: &'static [&'static str],
    /// Its unit tests by the beginning of their names.
    pub(crate) tests: &'static str,
    /// What reads differently in the copy: file, text, other text.
    pub(crate) altered: Option<[&'static str; 3]>,
}

/// All of them.
pub(crate) const AREAS: [Area; 3] = [
    Area {
        name: "sync",
        package: "counterfoil-proto",
        directory: "proto",
        files: &["proto/src/sync/**"],
        tests: "sync::",
        altered: None,
    },
    Area {
        name: "journal",
        package: "counterfoil",
        directory: "agent",
        files: &["agent/src/journal.rs", "agent/src/journal/**"],
        tests: "journal::",
        altered: None,
    },
    Area {
        name: "ledger",
        package: "counterfoil-hub",
        directory: "hub",
        // PostgreSQL's end is for the live tests.
        files: &["hub/src/ledger.rs", "hub/src/ledger/[!p]*.rs", "hub/src/ledger/posting.rs", "hub/src/receiver.rs"],
        tests: "",
        // A server that starts takes longer than all the tests on SQLite.
        altered: Some(["hub/src/ledger/tests/database.rs", "\"/usr/lib/postgresql\"", "\"/nowhere\""]),
    },
];

/// A change that cargo-mutants would make.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Mutant {
    name: String,
    pub(crate) file: String,
    pub(crate) genre: String,
    pub(crate) replacement: String,
    pub(crate) span: Span,
}

/// Where.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Span {
    pub(crate) start: Place,
}

/// Both count from one.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Place {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

impl Mutant {
    /// Its file and what it does there.
    pub(crate) fn name(&self) -> String {
        let (_, what) = self.name.split_once(": ").unwrap_or(("", &self.name));
        format!("{}: {}", self.file, what.replace('\n', " "))
    }

    /// Its name with its line.
    pub(crate) fn place(&self) -> String {
        self.name.replace('\n', " ")
    }
}

/// Asks cargo-mutants what it would change in `area`.
pub(crate) fn list(area: &Area, tree: &Path) -> Result<Vec<Mutant>, Failed> {
    let known = Command::new("cargo").args(["mutants", "--version"]).output()?;
    if !String::from_utf8_lossy(&known.stdout).contains(CARGO_MUTANTS) {
        return Err(Failed::Missing(format!("cargo install cargo-mutants@{CARGO_MUTANTS}")));
    }
    let mut command = Command::new("cargo");
    command.args(["mutants", "--list", "--json", "--package", area.package]);
    // Tests, and the disk that only tests have.
    let without = ["**/tests.rs", "**/tests/**", "**/edges.rs", "**/memory.rs", "**/memory/**"];
    command.args(without.iter().flat_map(|file| ["--exclude", file]));
    command.args(area.files.iter().flat_map(|file| ["--file", file])).current_dir(tree);
    let listed = command.output()?;
    if !listed.status.success() {
        return Err(Failed::Said(String::from_utf8_lossy(&listed.stderr).into_owned()));
    }
    Ok(serde_json::from_slice(&listed.stdout)?)
}

#[derive(Deserialize)]
struct Survivors {
    survivor: Vec<Survivor>,
}

#[derive(Deserialize)]
struct Survivor {
    area: String,
    mutant: String,
    reason: String,
}

/// How many mutants of `area` are known to live, by name.
pub(crate) fn survivors(area: &Area, tree: &Path) -> Result<BTreeMap<String, usize>, Failed> {
    let text = std::fs::read_to_string(tree.join("tests/mutants/survivors.toml"))?;
    let all: Survivors = toml::from_str(&text).map_err(|error| Failed::Said(error.to_string()))?;
    let mut names = BTreeMap::new();
    for survivor in all.survivor.iter().filter(|survivor| survivor.area == area.name && !survivor.reason.is_empty()) {
        *names.entry(survivor.mutant.clone()).or_default() += 1;
    }
    Ok(names)
}
