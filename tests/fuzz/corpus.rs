//! The kept corpus of each fuzz target, replayed: no panic, no hang, bounded memory.
//!
//! Invariant: every directory of the corpus has a target and every target has inputs. New findings of the fuzzer are kept there.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops where it is")]

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use counterfoil_fuzz::TARGETS;

/// One input takes milliseconds.
const LIMIT: Duration = Duration::from_mins(1);

/// Resident memory of the whole test, in KiB.
const PEAK_KIB_MAX: u64 = 512 * 1024;

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn every_kept_input_is_survived_in_bounded_time_and_memory() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    assert_eq!(files(&corpus).len(), TARGETS.len(), "a directory for each target");
    for (name, target) in TARGETS {
        let inputs = files(&corpus.join(name));
        assert!(inputs.len() >= 3, "{name} has inputs");
        for input in inputs {
            let bytes = std::fs::read(&input).unwrap();
            let (done, is_done) = mpsc::channel();
            let worker = std::thread::spawn(move || {
                target(&bytes);
                done.send(()).unwrap();
            });
            let came = is_done.recv_timeout(LIMIT);
            assert!(came != Err(mpsc::RecvTimeoutError::Timeout), "{} takes too long", input.display());
            assert!(worker.join().is_ok() && came.is_ok(), "{} panics", input.display());
        }
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak_kib: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak_kib < PEAK_KIB_MAX, "{peak_kib} KiB");
}
