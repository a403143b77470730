//! A copy of the sources in which mutants stand behind switches, and what is built of it.
//!
//! Invariant: the sources themselves are never touched. Files whose text is the same are not written again, so that cargo builds only what
//! changed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use crate::list::{Area, Mutant};
use crate::{Failed, say, switch};

/// The function that the switches ask; what is chosen stands in the environment.
const ASK: &str = "
extern crate std as std_of_mutants;
#[doc(hidden)]
pub fn mutant_is(number: usize) -> bool {
    static CHOSEN: std_of_mutants::sync::OnceLock<usize> = std_of_mutants::sync::OnceLock::new();
    let chosen = || std_of_mutants::env::var(\"MUTANT\").ok().and_then(|text| text.parse().ok());
    *CHOSEN.get_or_init(|| chosen().unwrap_or(usize::MAX)) == number
}
";

/// How often what does not compile is left out before something else must be wrong.
const TURNS_MAX: usize = 40;

/// Lines above an error, and below it, among which its switch is looked for.
const LINES_ABOVE: usize = 3;
const LINES_BELOW: usize = 24;

/// The copy.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) root: PathBuf,
    target: PathBuf,
}

/// The programs that mutants are tried with.
#[derive(Debug)]
pub(crate) struct Programs {
    pub(crate) tests: PathBuf,
    pub(crate) simulator: PathBuf,
}

#[derive(Deserialize)]
struct Said {
    reason: String,
    message: Option<Diagnostic>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Diagnostic {
    level: String,
    code: Option<Code>,
    spans: Vec<Where>,
}

#[derive(Deserialize)]
struct Code {
    code: String,
}

#[derive(Deserialize)]
struct Where {
    file_name: PathBuf,
    line_start: usize,
}

impl Tree {
    /// Copies what git knows of the sources in `from`.
    pub(crate) fn of(from: &Path, work: &Path) -> Result<Self, Failed> {
        let tree = Self { root: work.join("tree"), target: work.join("target") };
        let listed = Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(from)
            .output()?;
        for name in String::from_utf8_lossy(&listed.stdout).split_terminator('\0') {
            if from.join(name).is_file() {
                write(&tree.root.join(name), &std::fs::read(from.join(name))?)?;
            }
        }
        Ok(tree)
    }

    /// Puts `mutants` of `area` behind switches and builds; gives the numbers of those that have one.
    pub(crate) fn build(&self, area: &Area, mutants: &[Mutant]) -> Result<(BTreeSet<usize>, Programs), Failed> {
        let mut sources = BTreeMap::new();
        for file in mutants.iter().map(|mutant| &mutant.file) {
            sources.insert(file.clone(), std::fs::read_to_string(self.root.join(file))?);
        }
        if let Some([file, text, other]) = area.altered {
            let path = self.root.join(file);
            write(&path, std::fs::read_to_string(&path)?.replace(text, other).as_bytes())?;
        }
        let ask = self.root.join(area.directory).join("src/lib.rs");
        write(&ask, format!("{}{ASK}", std::fs::read_to_string(&ask)?).as_bytes())?;
        let mut left_out = BTreeSet::new();
        for _ in 0..TURNS_MAX {
            let mut switched = BTreeSet::new();
            for (file, source) in &sources {
                let of_file = |(number, mutant): &(usize, &Mutant)| mutant.file == *file && !left_out.contains(number);
                let own: Vec<_> = mutants.iter().enumerate().filter(of_file).collect();
                let done = switch::switch(source, &own).map_err(|error| Failed::Said(format!("{file}: {error}")))?;
                write(&self.root.join(file), done.text.as_bytes())?;
                switched.extend(done.mutants);
            }
            match self.compile(area)? {
                Ok(programs) => return Ok((switched, programs)),
                Err(numbers) => {
                    say(&format!("{} do not compile behind a switch", numbers.len()));
                    left_out.extend(numbers);
                }
            }
        }
        Err(Failed::Said("what is left out makes other errors, without end".to_owned()))
    }

    /// Builds the unit tests and the simulator, or gives the mutants at which that failed.
    fn compile(&self, area: &Area) -> Result<Result<Programs, BTreeSet<usize>>, Failed> {
        let mut programs = Vec::new();
        for what in [
            &["test", "--no-run", "--lib", "-p", area.package][..],
            &["build", "-p", "counterfoil-sim", "--bin", "sim"],
        ] {
            let mut command = Command::new("cargo");
            command.args(what).args(["--quiet", "--message-format=json"]).current_dir(&self.root);
            command.env("CARGO_TARGET_DIR", &self.target).env("CARGO_PROFILE_DEV_DEBUG", "0");
            let built = command.output()?;
            let said = String::from_utf8_lossy(&built.stdout);
            let said: Vec<Said> = said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
            if built.status.success() {
                programs.extend(said.into_iter().rev().find_map(|said| said.executable));
                continue;
            }
            let messages = said.into_iter().filter(|said| said.reason == "compiler-message");
            let errors = messages.filter_map(|said| said.message).filter(|message| message.level == "error");
            let numbers: BTreeSet<usize> = errors.flat_map(|error| self.switches_at(&error)).collect();
            return if numbers.is_empty() {
                Err(Failed::Said(String::from_utf8_lossy(&built.stderr).into_owned()))
            } else {
                Ok(Err(numbers))
            };
        }
        let missing = || Failed::Said("cargo named no program".to_owned());
        let simulator = programs.pop().ok_or_else(missing)?;
        let tests = programs.pop().ok_or_else(missing)?;
        Ok(Ok(Programs { tests, simulator }))
    }

    /// The switches at an error: in its line, in the nearest one above, or else below. Arms that a match lacks stand below.
    fn switches_at(&self, error: &Diagnostic) -> Vec<usize> {
        let lacks_arms = error.code.as_ref().is_some_and(|code| code.code == "E0004");
        error.spans.iter().flat_map(|place| self.switches_near(place, lacks_arms)).collect()
    }

    fn switches_near(&self, place: &Where, lacks_arms: bool) -> Vec<usize> {
        let text = std::fs::read_to_string(self.root.join(&place.file_name)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let (above, below) = lines.split_at(place.line_start.min(lines.len()));
        let above = above.iter().rev().take(if lacks_arms { 0 } else { LINES_ABOVE + 1 });
        let near = above.chain(below.iter().take(LINES_BELOW));
        let mut numbers = near.map(|line| {
            let asked = line.split(if lacks_arms { " if !crate::mutant_is(" } else { "crate::mutant_is(" }).skip(1);
            asked.filter_map(|rest| rest.split(')').next()?.parse().ok()).collect::<Vec<usize>>()
        });
        numbers.find(|numbers| !numbers.is_empty()).unwrap_or_default()
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failed> {
    if std::fs::read(path).is_ok_and(|known| known == bytes) {
        return Ok(());
    }
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    Ok(std::fs::write(path, bytes)?)
}
