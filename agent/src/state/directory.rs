//! What is done with whole directories of state, whatever is in them.
//!
//! Invariant: damaged state is kept for people to look at, the newest few of it, and never in the way of a start.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::limits::QUARANTINED_MAX;

/// Moves damaged state out of the way and keeps the newest few for people to look at.
pub(super) fn quarantine(path: &Path, quarantine_dir: &Path) -> Option<PathBuf> {
    let numbers = || {
        let names = fs::read_dir(quarantine_dir)
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names.filter_map(|name| name.strip_prefix("state-")?.parse::<u64>().ok())
    };
    let named = |number: u64| quarantine_dir.join(format!("state-{number:04}"));
    let target = named(numbers().max().unwrap_or(0).saturating_add(1));
    let moved = fs::create_dir_all(quarantine_dir).and_then(|()| fs::rename(path, &target));
    let mut kept: Vec<u64> = numbers().collect();
    kept.sort_unstable();
    let surplus = kept.len().saturating_sub(QUARANTINED_MAX);
    let removed = kept.iter().take(surplus).try_for_each(|number| remove(&named(*number)));
    match moved.and(removed) {
        Ok(()) => Some(target),
        Err(error) => {
            // Left where it is, it is replaced by the next checkpoint all the same.
            tracing::warn!(path = %path.display(), %error, "damaged state could not be moved to quarantine");
            target.exists().then_some(target)
        }
    }
}

/// Removes a directory or file with all that is in it; one that is not there is no error.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) } {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Bytes of the files in a directory.
pub(super) fn directory_bytes(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    entries.filter_map(|entry| entry.ok()?.metadata().ok()).map(|metadata| metadata.len()).sum()
}
