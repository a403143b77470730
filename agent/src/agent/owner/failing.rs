//! The memory of failed syncs: three within an hour, and the agent only delivers what it has, looking for a way back. And the test commit,
//! which says that thread and disk are not what is at fault.
//!
//! Invariant: the word of a failed sync goes past the journal, which is closed by then, and may be lost without harm. Not known here: what a
//! failed sync left on the medium; the next opening finds that out.

use std::io;

use counterfoil_proto::time::Moment;
use tracing::{error, info, warn};

use super::{Mode, Owner, fatal};
use crate::error::ExitError;

/// Failed syncs within [`FAILED_SYNC_MS`] after which the agent only drains.
const FAILED_SYNCS_MAX: usize = 3;
const FAILED_SYNC_MS: i64 = 3_600_000;
/// Milliseconds between two probes for a way back.
const PROBE_MS: u64 = 300_000;
const FAILED_SYNCS_FILE: &str = "failed-syncs";
const PROBE_FILE: &str = "probe";
const TEST_COMMIT_FILE: &str = "test-commit";
/// Written over and over in one place, so that it takes no room after the first time and little of a card's life.
const TEST_COMMIT: &[u8] = b"test commit of the journal's disk";

impl Owner {
    /// Remembers that a sync failed, for the next start, though the disk takes nothing else any more; it may not take even that.
    pub(super) fn note_failed_sync(&self) {
        let mut times = self.failed_syncs();
        times.push(self.env.wall().0.to_string());
        let kept = times.len().saturating_sub(FAILED_SYNCS_MAX);
        let text = times.split_off(kept).join("\n");
        if let Err(failure) = self.disk.write_aside(FAILED_SYNCS_FILE, text.as_bytes()) {
            error!(%failure, "the failure could not be noted");
        }
    }

    fn failed_syncs(&self) -> Vec<String> {
        let bytes = crate::journal::disk::read_whole(&*self.disk, FAILED_SYNCS_FILE, 4096).unwrap_or_default();
        String::from_utf8_lossy(&bytes).lines().map(ToOwned::to_owned).collect()
    }

    pub(super) fn check_failed_syncs(&mut self) {
        let now = self.env.wall().0;
        let noted = self.failed_syncs();
        let recent = noted.iter().filter_map(|text| text.parse::<i64>().ok());
        let recent = recent.filter(|at| now.saturating_sub(*at).abs() <= FAILED_SYNC_MS).count();
        if recent >= FAILED_SYNCS_MAX {
            error!(
                recent,
                "the disk failed repeatedly: only delivering what is there, looking for a way back every five minutes"
            );
            self.mode = Mode::DrainOnly;
            self.probe_at = self.env.moment().plus_ms(PROBE_MS);
        }
    }

    pub(super) fn probe(&mut self, now: Moment) {
        if now < self.probe_at {
            return;
        }
        self.probe_at = now.plus_ms(PROBE_MS);
        match crate::journal::disk::replace(&*self.disk, "", PROBE_FILE, b"probe") {
            Ok(()) => {
                info!("the disk takes writes again: accepting");
                self.mode = Mode::Accepting;
            }
            Err(failure) => error!(%failure, "the disk still fails"),
        }
    }

    /// Writes and syncs something that is no record, on the journal's disk and as its commits do. A full disk is not a failed one, and one
    /// that failed repeatedly is not written to: there, that the owner's thread came by has to do.
    pub(super) fn test_commit(&self) -> Result<(), ExitError> {
        if self.mode == Mode::DrainOnly {
            return Ok(());
        }
        let committed = (|| {
            let file = match self.disk.open(TEST_COMMIT_FILE) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.disk.create(TEST_COMMIT_FILE)?,
                opened => opened?,
            };
            file.write_at(TEST_COMMIT, 0)?;
            file.sync_data()
        })();
        match committed {
            Err(full) if matches!(full.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                warn!("no room for a test commit");
                Ok(())
            }
            committed => committed.map_err(fatal),
        }
    }
}
