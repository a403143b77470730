//! Giving segments back, and what happens when the disk fills up.
//!
//! Invariant: a segment goes only when the hub has every record in it for good, a durable checkpoint and a complete state snapshot lie
//! behind it, and the cursor that says so is on the disk. Not known here: how safety is learned.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use counterfoil_proto::id::{LaneKey, Seq};
use counterfoil_proto::planted::{self, Bug};
use counterfoil_proto::time::WallTime;

use super::Journal;
use super::catalog::Sealed;
use super::disk::Disk;
use super::limits::JournalConfig;
use super::segment::{DIR, index_name, path, segment_name, spare_name};
use super::types::{Figures, JournalError, Position, Reclaimed, Room};
use super::writer::is_full;

pub(super) const BALLAST: &str = "journal/ballast";

/// Allocates the ballast.
pub(super) fn make_ballast(disk: &dyn Disk, config: &JournalConfig) -> std::io::Result<()> {
    let made = (|| {
        let file = disk.create(BALLAST)?;
        file.preallocate(config.ballast_bytes())?;
        file.sync_data()?;
        disk.sync_dir(DIR)
    })();
    if made.is_err() {
        // Half a ballast only takes room from the rest.
        drop(disk.remove(BALLAST));
    }
    made
}

impl Journal {
    /// Bytes of the journal with side files, spares and ballast.
    pub(super) fn used_bytes(&self) -> u64 {
        let sealed: u64 = self.sealed.iter().map(|sealed| sealed.bytes).sum();
        let spares: u64 = self.spares.iter().map(|(_, bytes)| *bytes).sum();
        sealed + spares + self.open.allocated + self.ballast_bytes
    }

    /// Whether a segment's records are safe at the hub, all of them.
    fn segment_is_safe(&self, sealed: &Sealed) -> bool {
        sealed.runs.iter().all(|run| run.last <= self.safe(run.key))
    }

    fn safe(&self, key: LaneKey) -> Seq {
        let marks = self.cursor.place(key).marks;
        if planted::is(Bug::ReclaimPastSafe) { marks.stored } else { marks.safe }
    }

    /// How many segments, oldest first, could go but for the snapshot; and how many may go.
    fn reclaimable(&self, now: WallTime, checkpoint: Position) -> (usize, usize) {
        let is_short = self.is_short;
        let retain_ms = i64::try_from(self.config.retain_ms).unwrap_or(i64::MAX);
        let wanted = self
            .sealed
            .iter()
            .take_while(|sealed| {
                let is_old = now.0.saturating_sub(sealed.wall_last.0) >= retain_ms;
                (is_old || is_short) && sealed.number < checkpoint.segment() && self.segment_is_safe(sealed)
            })
            .count();
        let snapshot = self.snapshots.complete.map_or(0, Position::segment);
        let allowed = self.sealed.iter().take(wanted).take_while(|sealed| sealed.number < snapshot).count();
        (wanted, allowed)
    }

    /// Whether segments could be given back if a state snapshot were journaled.
    pub fn wants_snapshot(&self, now: WallTime, checkpoint: Position) -> bool {
        let (wanted, allowed) = self.reclaimable(now, checkpoint);
        wanted > allowed
    }

    /// Gives back the oldest segments that are wholly safe, older than `retain_ms` (or, while room is short, of any age), and before both
    /// `checkpoint` (durable, of the state store) and the newest complete state snapshot.
    ///
    /// # Panics
    /// Should it ever be about to give back what is not safe: a bug of this file, and the last thing to go on with.
    pub fn reclaim(&mut self, now: WallTime, checkpoint: Position) -> Result<Reclaimed, JournalError> {
        self.check()?;
        let (_, count) = self.reclaimable(now, checkpoint);
        if count == 0 {
            return Ok(Reclaimed::default());
        }
        let leaving: Vec<Arc<Sealed>> = self.sealed.iter().take(count).cloned().collect();
        for run in leaving.iter().flat_map(|sealed| &sealed.runs) {
            assert!(run.last <= self.safe(run.key), "only what is safe is given back");
            self.cursor.raise_floor(run.key, run.last);
        }
        self.forget_epochs(&leaving);
        self.cursor.segment = self.open.number;
        let disk = Arc::clone(&self.disk);
        self.cursor.save_both(disk.as_ref()).map_err(|error| self.failed("save the cursor", error))?;
        self.syncs += 4;
        // Readers let go of the files before their bytes change.
        Arc::make_mut(&mut self.sealed).drain(..count);
        self.rebuild_views();
        self.publish();
        let mut done = Reclaimed::default();
        for sealed in &leaving {
            self.give_back(sealed).map_err(|error| self.failed("give a segment back", error))?;
            done.segments += 1;
            done.bytes += sealed.bytes;
        }
        disk.sync_dir(DIR).map_err(|error| self.poison("sync the journal's directory", error))?;
        Ok(done)
    }

    fn give_back(&mut self, sealed: &Sealed) -> std::io::Result<()> {
        let name = path(&segment_name(sealed.number));
        if self.spares.len() < self.config.spares_max && !self.is_short {
            let spare = spare_name(sealed.number);
            self.disk.rename(&name, &path(&spare))?;
            self.spares.push((spare, u64::from(sealed.end)));
        } else {
            self.disk.remove(&name)?;
        }
        match self.disk.remove(&path(&index_name(sealed.number))) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Drops epochs that the hub has for good and of which nothing is retained, with their marks and lost ranges.
    fn forget_epochs(&mut self, leaving: &[Arc<Sealed>]) {
        let remaining = || self.sealed.iter().skip(leaving.len());
        let runs = remaining().flat_map(|sealed| &sealed.runs).chain(&self.open.content.runs);
        let retained: BTreeSet<_> = runs.map(|run| run.key.epoch).collect();
        let mut named: BTreeSet<_> = remaining().flat_map(|sealed| sealed.named.iter().copied()).collect();
        named.extend(self.open.table.iter().map(|entry| entry.epoch));
        named.extend(self.table.entries.iter().filter_map(|entry| entry.parent));
        let oldest = remaining().next().map_or(self.open.number, |sealed| sealed.number);
        let last = self.table.entries.last().map(|entry| entry.epoch);
        let kept: Vec<_> = self
            .table
            .entries
            .iter()
            .filter(|entry| Some(entry.epoch) == last || retained.contains(&entry.epoch) || !self.is_safe(entry))
            .cloned()
            .collect();
        self.table.entries = kept;
        let (table, forgotten, newest) = (&self.table, &mut self.forgotten, self.open.number);
        // As long as a header names an epoch, its marks tell that it is not lost: those of tables are known, those of groups may stand up to
        // where the log is now.
        self.cursor.places.retain(|key, _| {
            let is_named = named.contains(&key.epoch) || table.get(key.epoch).is_some();
            is_named || *forgotten.entry(key.epoch).or_insert(newest) >= oldest
        });
        let places = &self.cursor.places;
        forgotten.retain(|epoch, _| places.keys().any(|key| key.epoch == *epoch));
        let cursor = &self.cursor;
        Arc::make_mut(&mut self.gone)
            .retain(|gone| table.get(gone.key.epoch).is_some() && gone.range.last > cursor.place(gone.key).floor);
    }

    /// How much fits. Lets go of the ballast when the disk is full, and takes it back before it says otherwise again.
    pub fn room(&mut self) -> Result<Room, JournalError> {
        self.check()?;
        let free =
            self.disk.free_bytes().map_err(|source| JournalError::Disk { what: "ask for free space", source })?;
        let spares: u64 = self.spares.iter().map(|(_, bytes)| *bytes).sum();
        let left = |used: u64| {
            let below_cap = self.config.bytes_max.saturating_sub(used);
            below_cap.min(free.saturating_sub(self.config.free_bytes_min)) + spares
        };
        let segment = self.config.segment_bytes;
        let turn = self.config.turn_bytes_max();
        let left = left(self.used_bytes());
        if self.ballast_bytes == 0 {
            // Full until the ballast and a segment or two fit: accepting on the last byte would only bring it back at once.
            let fits = left >= self.config.ballast_bytes() + 2 * turn;
            let full = Err(io::ErrorKind::StorageFull.into());
            match if fits { make_ballast(self.disk.as_ref(), &self.config) } else { full } {
                Ok(()) => {}
                Err(error) if is_full(&error) => {
                    self.is_short = true;
                    return Ok(Room::Full);
                }
                // A disk that failed takes nothing more until the next start: waiting for room would be for ever.
                Err(error) => return Err(self.poison("make the ballast", error)),
            }
            self.ballast_bytes = self.config.ballast_bytes();
            self.is_short = false;
            return Ok(Room::OpsShed);
        }
        if left < turn {
            self.release_ballast()?;
            return Ok(Room::Full);
        }
        self.is_short = left < self.config.ops_shed_segments * segment;
        Ok(if self.is_short { Room::OpsShed } else { Room::Plenty })
    }

    fn release_ballast(&mut self) -> Result<(), JournalError> {
        self.is_short = true;
        let removed = self.disk.remove(BALLAST).and_then(|()| self.disk.sync_dir(DIR));
        removed.map_err(|error| self.failed("let go of the ballast", error))?;
        self.ballast_bytes = 0;
        Ok(())
    }

    /// Figures for status and metrics.
    pub fn figures(&self) -> Figures {
        let sealed: usize = self.sealed.iter().map(|sealed| sealed.filter.keys()).sum();
        Figures {
            journal_bytes: self.used_bytes(),
            segments: self.sealed.len() as u64 + 1,
            bytes_written: self.bytes_written,
            syncs: self.syncs,
            identities: (sealed + self.open.identities.len()) as u64,
        }
    }
}
