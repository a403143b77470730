//! Where the rig stands: one directory for each run, one run at a time on a machine, and nothing left of runs that were killed.
//!
//! Invariant: whoever holds the lock is alone, so what lies below the common directory is left over and may be taken down: mounts, block
//! devices whose file was there, directories. Nothing of anybody else is touched.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;

use crate::needs;
use crate::wait::Deadline;

/// How long another run may take.
const TURN_LIMIT: Duration = Duration::from_hours(1);

/// A directory of our own while we are alone.
#[derive(Debug)]
pub(super) struct Place {
    directory: TempDir,
    _lock: File,
}

impl Place {
    /// Waits for its turn, and clears away what an earlier run left.
    pub(super) async fn take() -> Result<Self, String> {
        let base = std::env::temp_dir().join("counterfoil-power");
        let failed = |error: std::io::Error| format!("{}: {error}", base.display());
        std::fs::create_dir_all(&base).map_err(failed)?;
        let lock = File::create(base.join("lock")).map_err(failed)?;
        let deadline = Deadline::new(TURN_LIMIT);
        while flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            if !deadline.rest().await {
                return Err(format!("Waited an hour for another run of the power rig ({})", base.display()));
            }
        }
        clear(&base);
        let directory = tempfile::Builder::new().prefix("run-").tempdir_in(&base).map_err(failed)?;
        Ok(Self { directory, _lock: lock })
    }

    /// The directory.
    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A name that no other run has.
    pub(super) fn tag(&self) -> String {
        self.path().file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }
}

/// Takes down what earlier runs left below `base`.
fn clear(base: &Path) {
    let left: Vec<PathBuf> = std::fs::read_dir(base)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect();
    for run in left {
        take_down(&run);
        let _kept_where_still_in_use = std::fs::remove_dir_all(&run).is_err();
    }
}

/// Unmounts everything below `run` and detaches the block devices whose files were there. A step that has nothing to do, or fails, is
/// followed by the next.
pub(super) fn take_down(run: &Path) {
    let below = |path: &str| Path::new(path).starts_with(run);
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let targets: Vec<&str> =
        mounts.lines().filter_map(|line| line.split(' ').nth(1)).filter(|path| below(path)).collect();
    // The file system on the device before the one that holds the device's file.
    for target in targets.iter().rev() {
        quietly(needs::UMOUNT.find(), &["--lazy", target]);
    }
    let tag = run.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    for (device, file) in loop_devices() {
        if file.split('/').any(|part| part.strip_prefix(&tag).is_some_and(|rest| rest.starts_with('-'))) {
            quietly(needs::LOSETUP.find(), &["--detach", &device]);
        }
    }
}

/// The block devices that stand on files, and the files.
fn loop_devices() -> Vec<(String, String)> {
    let entries = std::fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let devices = entries.filter_map(|entry| {
        let file = std::fs::read_to_string(entry.path().join("loop/backing_file")).ok()?;
        Some((format!("/dev/{}", entry.file_name().to_string_lossy()), file.trim_end().to_owned()))
    });
    devices.collect()
}

fn quietly(program: Option<PathBuf>, arguments: &[&str]) {
    let Some(program) = program else { return };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _nothing_to_take_down = command.status().is_err();
}
