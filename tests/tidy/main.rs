//! The rules of the repository that a compiler does not know, as tests: style that is not tested drifts.
//!
//! Invariant: a rule holds for every file; an exception stands here by name, with its reason, or there is none. Needles are put together from
//! parts, so that this file does not find itself.

mod observed;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

/// Lines of a source file; a longer one has a seam somewhere.
const LINES_MAX: usize = 600;

/// Files above [`LINES_MAX`], with the lines that they may have. An entry only shrinks, and goes when its file fits.
const LONG_FILES: &[(&str, usize)] = &[];

/// The one place in the tests that may pause.
const PAUSE: &str = "tests/world/wait.rs";

#[derive(Debug)]
struct File {
    /// From the root of the repository.
    path: String,
    text: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are a member of a workspace").to_owned()
}

/// All text files of ours.
fn files() -> Vec<File> {
    let mut files = Vec::new();
    let mut directories = vec![root()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).expect("a directory of the repository is readable") {
            let path = entry.expect("an entry of a directory of the repository").path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if path.is_dir() {
                if !name.starts_with("target") && name != ".git" {
                    directories.push(path);
                }
            } else if name == ".git" {
                // A worktree has a file there, which names the repository that it belongs to.
            } else if let Ok(text) = std::fs::read_to_string(&path) {
                let path = path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned();
                files.push(File { path, text });
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

fn sources() -> Vec<File> {
    let is_source = |file: &File| Path::new(&file.path).extension().is_some_and(|extension| extension == "rs");
    let sources: Vec<File> = files().into_iter().filter(is_source).collect();
    assert!(sources.len() > 20, "the walk found the sources");
    sources
}

/// Fails with every finding.
#[track_caller]
fn none(rule: &str, findings: &[String]) {
    assert!(findings.is_empty(), "{rule}:\n  {}", findings.join("\n  "));
}

/// Where `needle` stands in a file, as `path:line`.
fn lines_with(file: &File, needle: &str) -> Vec<String> {
    let lines = file.text.lines().enumerate().filter(|(_, line)| line.contains(needle));
    lines.map(|(index, line)| format!("{}:{}: {}", file.path, index + 1, line.trim())).collect()
}

#[test]
fn every_source_opens_with_what_it_owns() {
    let without = sources().into_iter().filter(|file| !file.text.starts_with("//! ")).map(|file| file.path);
    none(
        "A source file opens with `//!`: what it owns, its invariant, what it does not know",
        &without.collect::<Vec<_>>(),
    );
}

#[test]
fn no_source_is_too_long() {
    let allowed: BTreeMap<&str, usize> = LONG_FILES.iter().copied().collect();
    let mut findings = Vec::new();
    for file in sources() {
        let lines = file.text.lines().count();
        let lines_max = allowed.get(file.path.as_str()).copied().unwrap_or(LINES_MAX);
        if lines > lines_max {
            findings.push(format!("{}: {lines} lines, at most {lines_max}", file.path));
        }
        if allowed.contains_key(file.path.as_str()) && lines < lines_max {
            findings.push(format!("{}: {lines} lines now; lower its entry in LONG_FILES from {lines_max}", file.path));
        }
    }
    none("A long file has a seam", &findings);
}

#[test]
fn nothing_is_left_behind() {
    let needles = [
        concat!("#[ig", "nore"),
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("todo", "!("),
        concat!("unimple", "mented!("),
        concat!("dbg", "!("),
    ];
    let sources = sources();
    let findings = sources.iter().flat_map(|file| needles.iter().flat_map(|needle| lines_with(file, needle)));
    none("Finish it, or leave it out", &findings.collect::<Vec<_>>());
}

#[test]
fn nothing_waits_for_a_time() {
    let sources = sources();
    let mut findings: Vec<String> =
        sources.iter().flat_map(|file| lines_with(file, concat!("thread::", "sleep"))).collect();
    let in_tests = sources.iter().filter(|file| file.path.starts_with("tests/") && file.path != PAUSE);
    findings.extend(in_tests.flat_map(|file| lines_with(file, concat!("time::", "sleep"))));
    none("Wait for a condition (world::wait), never for a time", &findings);
}

#[test]
fn no_file_knows_the_machine_it_was_written_on() {
    let needles = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];
    let files = files();
    let findings = files.iter().flat_map(|file| needles.iter().flat_map(|needle| lines_with(file, needle)));
    none("A path of somebody's machine", &findings.collect::<Vec<_>>());
}

#[test]
fn modules_are_files_beside_their_directory() {
    let findings =
        sources().into_iter().filter(|file| file.path.ends_with(concat!("/mod", ".rs"))).map(|file| file.path);
    none("foo.rs + foo/, never the other way", &findings.collect::<Vec<_>>());
}

fn manifest(path: &str) -> (String, Table) {
    let text = std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    let table = toml::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}"));
    (text, table)
}

fn members() -> Vec<String> {
    let (_, workspace) = manifest("Cargo.toml");
    let members = workspace.get("workspace").and_then(|table| table.get("members")).and_then(Value::as_array);
    members.expect("a workspace with members").iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

#[test]
fn every_dependency_stands_once_with_its_reason() {
    let (text, workspace) = manifest("Cargo.toml");
    let dependencies = workspace.get("workspace").and_then(|table| table.get("dependencies")).and_then(Value::as_table);
    let mut findings = Vec::new();
    for (name, value) in dependencies.expect("a workspace with dependencies") {
        if value.get("path").is_some() {
            continue;
        }
        let line = text.lines().find(|line| line.split([' ', '=']).next() == Some(name));
        let reason = line.and_then(|line| line.split_once(" # ")).map_or(0, |(_, reason)| reason.len());
        if reason < 10 {
            findings.push(format!("{name}: say behind it why it is there"));
        }
    }
    for member in members() {
        let (_, table) = manifest(&format!("{member}/Cargo.toml"));
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for (name, value) in table.get(section).and_then(Value::as_table).into_iter().flatten() {
                if value.get("workspace").and_then(Value::as_bool) != Some(true) {
                    findings.push(format!("{member}: {name} is not taken from the workspace"));
                }
            }
        }
    }
    none("Dependencies stand in [workspace.dependencies], each with its reason", &findings);
}

#[test]
fn every_member_has_the_lints_of_the_workspace_and_no_empty_test_binary() {
    let mut findings = Vec::new();
    for member in members() {
        let (_, table) = manifest(&format!("{member}/Cargo.toml"));
        let flag =
            |section: &str, key: &str| table.get(section).and_then(|section| section.get(key)).and_then(Value::as_bool);
        if flag("lints", "workspace") != Some(true) {
            findings.push(format!("{member}: [lints] workspace = true"));
        }
        if flag("lib", "doctest") != Some(false) {
            findings.push(format!("{member}: [lib] doctest = false, so that no empty run closes the tests' output"));
        }
        for bin in table.get("bin").and_then(Value::as_array).into_iter().flatten() {
            if bin.get("test").and_then(Value::as_bool) != Some(false) {
                findings.push(format!("{member}: [[bin]] test = false; what is worth testing is in the library"));
            }
        }
    }
    none("Manifests of the members", &findings);
}

#[test]
fn no_shipping_build_has_planted_bugs() {
    let mut findings = Vec::new();
    for member in members().into_iter().filter(|member| member != "tests/sim") {
        let (_, table) = manifest(&format!("{member}/Cargo.toml"));
        let default = table.get("features").and_then(|features| features.get("default")).and_then(Value::as_array);
        if default.is_some_and(|default| {
            default.iter().any(|name| name.as_str().is_some_and(|name| name.contains("planted")))
        }) {
            findings.push(format!("{member}: a default feature plants bugs"));
        }
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for (name, value) in table.get(section).and_then(Value::as_table).into_iter().flatten() {
                let features = value.get("features").and_then(Value::as_array).into_iter().flatten();
                if features.filter_map(Value::as_str).any(|feature| feature.contains("planted")) {
                    findings.push(format!("{member}: {name} is taken with planted bugs"));
                }
            }
        }
    }
    let (text, _) = manifest("Cargo.toml");
    if text.contains("planted") {
        findings.push("the workspace's dependencies plant bugs".to_owned());
    }
    none("Bugs are planted for the simulator alone", &findings);
}
