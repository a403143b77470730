//! The rows on disk: the one file that names sled.
//!
//! sled spares a restart the replay of the whole journal; it is never the only copy of anything. Its known holes are closed here:
//!
//! - `flush()` does not reach fsync: after it, our own handle on sled's file is synced. A failed sync is never repeated: the rows are
//!   then written anew, into fresh files.
//! - `conf` and directories are never synced: done after creation. A leftover `snap.*.generating` keeps sled from opening: removed before.
//! - It panics on some damaged files: caught. It opens others as if they were older, or empty: a fingerprint over all rows stands in the mark,
//!   in the same atomic batch as the rows, and is compared after opening.
//! - Values above some 128 KB, its own pages of up to 17 rows among them, go to files that it neither syncs nor finds again after a rename:
//!   rows are kept so small that there are none ([`super::limits::ROW_BYTES_MAX`]).
//! - It never gives space back: beyond a bound the rows are written into a fresh directory beside, synced, and swapped in by rename.
//!
//! ```text
//! dir/sled       the rows       dir/sled.new   being written; complete only once it is renamed, or while dir/sled.old is there
//! dir/sled.old   being replaced
//! ```
//!
//! Invariant: what opening returns is, row for row, what one checkpoint wrote. This file does not know what a row means.

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::directory::{directory_bytes, quarantine, remove};
use super::fingerprint::Fingerprint;
use super::limits::{STORE_BYTES_MAX, STORE_CACHE_BYTES, STORE_GROWTH_MAX, STORE_STEP_ROWS};
use super::rows::{Loader, ROWS_VERSION, ROWS_VERSION_OLDEST, RowError, Tables};

/// The key of the mark; no row's tag.
const MARK_KEY: &[u8] = &[0xff];
const DATABASE: &str = "sled";
const FRESH: &str = "sled.new";
const REPLACED: &str = "sled.old";

/// What the state's rows reflect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The journal's position.
    pub position: u64,
    /// The journal's chain there, to be compared with the recovered journal's.
    pub witness: [u8; 32],
}

/// A checkpoint that is not on the disk. The state in memory stays as it is, the position of the last checkpoint too.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// There is no directory to write to.
    #[error("The state is held in memory only")]
    InMemory,
    /// A sync failed; nothing is known of what reached the disk. The next checkpoint writes all rows into fresh files.
    #[error("Syncing the state in {dir} failed: {source}; check the disk")]
    Sync {
        /// Where.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file or directory could not be made, renamed or removed.
    #[error("Writing the state in {dir} failed: {source}; check the disk's room and the directory's permissions")]
    Files {
        /// Where.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// sled refused, or panicked. The next checkpoint writes all rows into fresh files.
    #[error("The state store in {dir} failed: {detail}; it is written anew at the next checkpoint")]
    Store {
        /// Where.
        dir: PathBuf,
        /// What it said.
        detail: String,
    },
}

/// Why a directory's state is not used.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    #[error("sled cannot open it: {0}")]
    Open(String),
    #[error("it holds no mark of a checkpoint")]
    Unmarked,
    #[error("its rows are of version {0}, this software reads up to {ROWS_VERSION}")]
    Version(u16),
    #[error("its rows are not those that the checkpoint wrote")]
    Fingerprint,
    #[error(transparent)]
    Row(#[from] RowError),
}

type Sync = dyn Fn(&File) -> io::Result<()> + Send + std::marker::Sync;

/// How files and directories are synced: the seam at which tests let it fail.
#[derive(Clone)]
pub struct SyncDoor(Arc<Sync>);

impl SyncDoor {
    /// Syncs with `sync` in place of the operating system.
    pub fn new(sync: impl Fn(&File) -> io::Result<()> + Send + std::marker::Sync + 'static) -> Self {
        Self(Arc::new(sync))
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        (self.0)(&File::open(path)?)
    }
}

impl Default for SyncDoor {
    fn default() -> Self {
        Self::new(File::sync_data)
    }
}

impl fmt::Debug for SyncDoor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SyncDoor")
    }
}

#[derive(Serialize, Deserialize)]
struct MarkRow {
    version: u16,
    mark: Mark,
    fingerprint: Fingerprint,
}

/// An open database whose rows are known.
struct Database {
    sled: sled::Db,
    fingerprint: Fingerprint,
    /// Bytes of its directory above which it is written anew.
    bytes_max: u64,
}

/// The directory with the database.
pub(super) struct Store {
    dir: PathBuf,
    sync: SyncDoor,
    /// `None` where there is none yet, or where it cannot be trusted any more.
    database: Option<Database>,
}

impl fmt::Debug for Store {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Store")
            .field("dir", &self.dir)
            .field("open", &self.database.is_some())
            .finish_non_exhaustive()
    }
}

/// What a directory held.
#[derive(Debug)]
pub(super) enum Found {
    /// What the mark's checkpoint wrote.
    State(Box<Tables>, Mark),
    /// No checkpoint yet.
    Nothing,
    /// Something that is not used; it was moved to the path, where that was possible.
    Damaged(LoadError, Option<PathBuf>),
}

impl Store {
    /// Opens the store in `dir`; damaged state goes to `quarantine_dir`. Never fails: what cannot be opened is written anew by the next checkpoint.
    pub(super) fn open(dir: &Path, quarantine_dir: &Path, sync: SyncDoor) -> (Self, Found) {
        let mut store = Self { dir: dir.to_owned(), sync, database: None };
        if let Err(error) = store.settle_swap() {
            tracing::warn!(dir = %dir.display(), %error, "leftovers beside the state could not be removed");
        }
        let path = dir.join(DATABASE);
        if !path.exists() {
            return (store, Found::Nothing);
        }
        let loaded = catch_unwind(AssertUnwindSafe(|| load(&path)));
        let error = match loaded {
            Ok(Ok((tables, mark, database))) => {
                store.database = Some(database);
                return (store, Found::State(tables, mark));
            }
            Ok(Err(error)) => error,
            Err(panic) => LoadError::Open(panic_text(&*panic)),
        };
        let moved = quarantine(&path, quarantine_dir);
        (store, Found::Damaged(error, moved))
    }

    /// Moves what is there out of the way; the next checkpoint writes all rows.
    pub(super) fn quarantine(&mut self, quarantine_dir: &Path) -> Option<PathBuf> {
        if let Some(database) = self.database.take() {
            close(database);
        }
        let path = self.dir.join(DATABASE);
        path.exists().then(|| quarantine(&path, quarantine_dir))?
    }

    /// Whether the next checkpoint has to write every row.
    pub(super) fn needs_all(&self) -> bool {
        match &self.database {
            Some(database) => directory_bytes(&self.dir.join(DATABASE)) > database.bytes_max,
            None => true,
        }
    }

    /// Writes changed rows, and removes those without a value, together with the mark that they make true.
    pub(super) fn write(
        &mut self,
        changes: impl Iterator<Item = (Vec<u8>, Option<Vec<u8>>)>,
        mark: Mark,
    ) -> Result<(), CheckpointError> {
        // Out of its place until all is well: a database that failed half-way is not written to again.
        let Some(mut database) = self.database.take() else {
            return Err(self.store_error("it is not open".to_owned()));
        };
        let written = catch_unwind(AssertUnwindSafe(|| database.apply(changes, mark)));
        let failed = match written {
            Ok(Ok(())) => match self.sync.sync(&self.dir.join(DATABASE).join("db")) {
                Ok(()) => {
                    self.database = Some(database);
                    return Ok(());
                }
                Err(source) => CheckpointError::Sync { dir: self.dir.clone(), source },
            },
            Ok(Err(error)) => self.store_error(error.to_string()),
            Err(panic) => self.store_error(panic_text(&*panic)),
        };
        close(database);
        Err(failed)
    }

    /// Writes all rows into fresh files beside, and swaps them in once they are synced.
    pub(super) fn write_all(
        &mut self,
        rows: impl Iterator<Item = (Vec<u8>, Vec<u8>)>,
        mark: Mark,
    ) -> Result<(), CheckpointError> {
        let files = |source| CheckpointError::Files { dir: self.dir.clone(), source };
        fs::create_dir_all(&self.dir).map_err(files)?;
        self.settle_swap().map_err(files)?;
        let fresh = self.dir.join(FRESH);
        let written = catch_unwind(AssertUnwindSafe(|| create(&fresh, rows, mark)));
        let mut database = match written {
            Ok(Ok(database)) => database,
            Ok(Err(error)) => return Err(self.store_error(error.to_string())),
            Err(panic) => return Err(self.store_error(panic_text(&*panic))),
        };
        let swapped = self.sync_fresh(&fresh).and_then(|()| self.swap());
        if let Err(error) = swapped {
            close(database);
            return Err(error);
        }
        let bytes = directory_bytes(&self.dir.join(DATABASE));
        database.bytes_max = bytes.saturating_mul(STORE_GROWTH_MAX).max(STORE_BYTES_MAX);
        self.database = Some(database);
        Ok(())
    }

    fn sync_fresh(&self, fresh: &Path) -> Result<(), CheckpointError> {
        for name in ["db", "conf", "blobs", "."] {
            let path = fresh.join(name);
            if name != "blobs" || path.exists() {
                self.sync.sync(&path).map_err(|source| CheckpointError::Sync { dir: self.dir.clone(), source })?;
            }
        }
        Ok(())
    }

    /// sled holds its file open and asks for paths only when it opens, so the open database moves with its directory.
    fn swap(&mut self) -> Result<(), CheckpointError> {
        if let Some(replaced) = self.database.take() {
            close(replaced);
        }
        let files = |source| CheckpointError::Files { dir: self.dir.clone(), source };
        let path = self.dir.join(DATABASE);
        if path.exists() {
            fs::rename(&path, self.dir.join(REPLACED)).map_err(files)?;
        }
        fs::rename(self.dir.join(FRESH), &path).map_err(files)?;
        let parent = self.dir.parent().filter(|parent| !parent.as_os_str().is_empty());
        for dir in [Some(self.dir.as_path()), parent].into_iter().flatten() {
            self.sync.sync(dir).map_err(|source| CheckpointError::Sync { dir: self.dir.clone(), source })?;
        }
        remove(&self.dir.join(REPLACED)).map_err(files)
    }

    /// Ends a swap that was cut off: either the old directory is in place, or the fresh one, which was synced before the first rename.
    fn settle_swap(&self) -> io::Result<()> {
        let [database, fresh, replaced] = [DATABASE, FRESH, REPLACED].map(|name| self.dir.join(name));
        if !database.exists() && replaced.exists() {
            fs::rename(if fresh.exists() { &fresh } else { &replaced }, &database)?;
        }
        remove(&fresh)?;
        remove(&replaced)
    }

    fn store_error(&self, detail: String) -> CheckpointError {
        CheckpointError::Store { dir: self.dir.clone(), detail }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Some(database) = self.database.take() {
            close(database);
        }
    }
}

impl Database {
    fn apply(&mut self, changes: impl Iterator<Item = (Vec<u8>, Option<Vec<u8>>)>, mark: Mark) -> sled::Result<()> {
        let mut fingerprint = self.fingerprint;
        let mut batch = sled::Batch::default();
        for (key, value) in changes {
            if let Some(replaced) = self.sled.get(&key)? {
                fingerprint.remove(&key, &replaced);
            }
            match value {
                Some(value) => {
                    fingerprint.add(&key, &value);
                    batch.insert(key, value);
                }
                None => batch.remove(key),
            }
        }
        batch.insert(MARK_KEY, mark_row(mark, fingerprint));
        self.sled.apply_batch(batch)?;
        self.sled.flush()?;
        self.fingerprint = fingerprint;
        Ok(())
    }
}

fn open_sled(path: &Path) -> sled::Result<sled::Db> {
    // No flusher thread: it would swallow the errors of its syncs.
    sled::Config::new().path(path).cache_capacity(STORE_CACHE_BYTES).flush_every_ms(None).open()
}

/// A directory is only ever swapped in with a mark in it: one without was opened as older or emptier than it is.
fn load(path: &Path) -> Result<(Box<Tables>, Mark, Database), LoadError> {
    remove_generating(path).and_then(|()| free_of_lock(path)).map_err(|error| LoadError::Open(error.to_string()))?;
    let open = |error: sled::Error| LoadError::Open(error.to_string());
    let sled = open_sled(path).map_err(open)?;
    let mut fingerprint = Fingerprint::default();
    let mut loader = Loader::default();
    let mut mark_value = None;
    for row in &*sled {
        let (key, value) = row.map_err(open)?;
        if key == MARK_KEY {
            mark_value = Some(value);
        } else {
            fingerprint.add(&key, &value);
            loader.row(&key, &value)?;
        }
    }
    let Some(mark_value) = mark_value else { return Err(LoadError::Unmarked) };
    let Ok((version, _)) = postcard::take_from_bytes::<u16>(&mark_value) else { return Err(LoadError::Unmarked) };
    if !(ROWS_VERSION_OLDEST..=ROWS_VERSION).contains(&version) {
        return Err(LoadError::Version(version));
    }
    let Ok(row) = postcard::from_bytes::<MarkRow>(&mark_value) else { return Err(LoadError::Unmarked) };
    if row.fingerprint != fingerprint {
        return Err(LoadError::Fingerprint);
    }
    let tables = Box::new(loader.finish()?);
    Ok((tables, row.mark, Database { sled, fingerprint, bytes_max: STORE_BYTES_MAX }))
}

fn create(path: &Path, rows: impl Iterator<Item = (Vec<u8>, Vec<u8>)>, mark: Mark) -> sled::Result<Database> {
    let sled = open_sled(path)?;
    let mut fingerprint = Fingerprint::default();
    let mut batch = sled::Batch::default();
    let mut batched = 0;
    for (key, value) in rows {
        fingerprint.add(&key, &value);
        batch.insert(key, value);
        batched += 1;
        if batched >= STORE_STEP_ROWS {
            sled.apply_batch(std::mem::take(&mut batch))?;
            // Or its write buffers pile up faster than its threads empty them: 100 MB instead of 20.
            sled.flush()?;
            batched = 0;
        }
    }
    batch.insert(MARK_KEY, mark_row(mark, fingerprint));
    sled.apply_batch(batch)?;
    sled.flush()?;
    Ok(Database { sled, fingerprint, bytes_max: STORE_BYTES_MAX })
}

fn mark_row(mark: Mark, fingerprint: Fingerprint) -> Vec<u8> {
    postcard::to_allocvec(&MarkRow { version: ROWS_VERSION, mark, fingerprint }).expect("numbers always encode")
}

/// sled syncs when it is dropped, and panics where that fails; there is nothing left to lose then.
fn close(database: Database) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(database))) {
        tracing::warn!(panic = panic_text(&*panic), "closing a state store failed");
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    format!("it panicked: {}", text.unwrap_or("without a text"))
}

fn remove_generating(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// sled frees what it holds some time after it was dropped, its lock on the file with it. No other process can have it, for the whole data
/// directory is locked: so a lock that is still there is a remnant of this very process, and a copy of the file is free of it.
fn free_of_lock(path: &Path) -> io::Result<()> {
    let database = path.join("db");
    let copy = path.join("db.copy");
    if database.is_file() && matches!(File::open(&database)?.try_lock(), Err(TryLockError::WouldBlock)) {
        fs::copy(&database, &copy)?;
        fs::rename(&copy, &database)?;
    }
    remove(&copy)
}

/// What tests do to a store behind its back.
#[cfg(test)]
impl Store {
    /// Drops a row as a sled that lost a write would, without a word.
    pub(super) fn lose_row(&mut self, key: &[u8]) {
        let database = self.database.as_mut().expect("the test opened it");
        database.sled.remove(key).expect("removed").expect("the row was there");
        database.sled.flush().expect("flushed");
    }

    /// Drops everything, as a sled that opens empty does.
    pub(super) fn lose_all(&mut self) {
        let database = self.database.as_mut().expect("the test opened it");
        database.sled.clear().expect("cleared");
        database.sled.flush().expect("flushed");
    }

    pub(super) fn set_bytes_max(&mut self, bytes_max: u64) {
        self.database.as_mut().expect("the test opened it").bytes_max = bytes_max;
    }
}
