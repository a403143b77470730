//! Runs a program with one mutant switched on.
//!
//! Invariant: a mutant is caught by a test that fails, by a program that ends badly, or by one that does not end in time; it lives only where
//! the program ends well.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::Failed;

/// How a mutant ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Caught,
    /// It went on for too long, which somebody would notice.
    Endless,
    Lives,
}

/// Runs `program` in `directory` with the mutant of that number.
pub(crate) fn trial(
    program: &Path,
    arguments: &[&str],
    directory: &Path,
    number: usize,
    within: Duration,
) -> Result<Verdict, Failed> {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(directory).env("MUTANT", number.to_string()).env("RUST_BACKTRACE", "0");
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let (failed, lines) = mpsc::channel();
    if let Some(output) = child.stdout.take() {
        std::thread::spawn(move || {
            // The first test that fails decides; the rest of a long run tells nothing more.
            let lines = BufReader::new(output).lines().map_while(Result::ok);
            for _ in lines.filter(|line| line.starts_with("test ") && line.ends_with("FAILED")).take(1) {
                failed.send(()).ok();
            }
        });
    }
    wait(&mut child, &lines, Instant::now() + within)
}

fn wait(child: &mut Child, failed: &mpsc::Receiver<()>, until: Instant) -> Result<Verdict, Failed> {
    // The channel closes when the program's output does.
    let told = failed.recv_timeout(until.saturating_duration_since(Instant::now()));
    match told {
        Ok(()) => {
            child.kill()?;
            child.wait()?;
            Ok(Verdict::Caught)
        }
        Err(mpsc::RecvTimeoutError::Timeout) => {
            child.kill()?;
            child.wait()?;
            Ok(Verdict::Endless)
        }
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            Ok(if child.wait()?.success() { Verdict::Lives } else { Verdict::Caught })
        }
    }
}
