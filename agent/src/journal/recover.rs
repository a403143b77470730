//! Opening: what the files say, what of it can be relied on, and the order in which it is put right.
//!
//! Invariant: what a till was told (synced, hence proven by something written later) is never cut; what is served afterwards is on the
//! medium, not only in the page cache; each lost record that anything still names is named. Not known here: epochs to come.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use counterfoil_proto::id::{LaneKey, Source};
use counterfoil_proto::time::WallTime;

use super::catalog::Sealed;
use super::cursor::{Cursor, DamagedFile};
use super::damage::{QUARANTINE, quarantine};
use super::disk::{self, Disk, DiskFile, DiskLock};
use super::index;
use super::limits::{FORMAT_VERSION, JournalConfig};
use super::reclaim::{BALLAST, make_ballast};
use super::scan::{Content, Snapshots};
use super::segment::{self, DIR, HeaderFault, Made, Making, SegmentHeader, index_name, number_of, path, segment_name};
use super::table::{Entry, Table};
use super::types::{Damage, Gone, GoneReason, JournalError, OpenError, Opened, Position};
use super::writer::{is_full, to_u32};
use super::{Journal, Open};

mod sealed;
mod tail;
mod unsealed;

const LOCK: &str = "lock";
const BINDING: &str = "binding";
const BINDING_BYTES_MAX: usize = 4096;

fn failed(what: &'static str) -> impl Fn(io::Error) -> JournalError {
    move |source| if is_full(&source) { JournalError::Full } else { JournalError::Disk { what, source } }
}

/// The files that were found.
#[derive(Debug, Default)]
struct Files {
    segments: BTreeMap<u32, u64>,
    spares: Vec<(String, u64)>,
    ballast_bytes: u64,
}

/// A segment file opened and its header read.
#[derive(Debug)]
struct Found {
    number: u32,
    file: Box<dyn DiskFile>,
    bytes: u64,
    header: Option<(SegmentHeader, u32)>,
}

impl Found {
    /// So long was it made: as its header says in format 2, else as segments are made today.
    fn made_bytes(&self, today: u64) -> u64 {
        let making = self.header.as_ref().and_then(|(header, _)| header.making.as_ref());
        making.map_or(today, |making| u64::from(making.bytes))
    }
}

/// The work of one opening.
#[derive(Debug)]
struct Recovery {
    disk: Arc<dyn Disk>,
    config: JournalConfig,
    source: Source,
    nonce: u64,
    table: Table,
    sealed: Vec<Arc<Sealed>>,
    gone: Vec<Gone>,
    snapshots: Snapshots,
    cursor: Cursor,
    spares: Vec<(String, u64)>,
    ballast_bytes: u64,
    wall_last: Option<WallTime>,
    opened: Opened,
}

pub(super) fn open(
    disk: Arc<dyn Disk>,
    config: JournalConfig,
    source: &Source,
    nonce: u64,
) -> Result<(Journal, Opened), OpenError> {
    config.check().map_err(|rule| OpenError::Config { rule })?;
    let lock = take_lock(disk.as_ref())?;
    refuse_later(disk.as_ref())?;
    let files = survey(disk.as_ref()).map_err(failed("list the journal's files"))?;
    sync_names(disk.as_ref()).map_err(failed("sync the journal's directories"))?;
    let (cursor, damaged_cursors) = Cursor::load(disk.as_ref()).map_err(failed("read the cursor"))?;
    let mut recovery = Recovery {
        disk,
        config,
        source: source.clone(),
        nonce,
        table: Table::default(),
        sealed: Vec::new(),
        gone: Vec::new(),
        snapshots: Snapshots::default(),
        cursor,
        spares: files.spares.clone(),
        ballast_bytes: files.ballast_bytes,
        wall_last: None,
        opened: Opened::default(),
    };
    recovery.mend_cursor(&damaged_cursors)?;
    let binding = recovery.bind(&files)?;
    let open = recovery.segments(&files, binding)?;
    if binding != Binding::Whole {
        recovery.write_binding()?;
    }
    Ok(recovery.finish(open, lock))
}

fn take_lock(disk: &dyn Disk) -> Result<Box<dyn DiskLock>, OpenError> {
    for dir in [DIR, QUARANTINE] {
        disk.create_dir(dir).map_err(failed("make a directory"))?;
    }
    disk.lock(LOCK).map_err(|source| {
        if source.kind() == io::ErrorKind::WouldBlock {
            return OpenError::Locked { name: LOCK, source };
        }
        // Whoever restarts the process may hope for the disk, but not for another process to let go.
        failed("lock the data directory")(source).into()
    })
}

/// Looks at every header before anything is changed: what a later software wrote is left to that software, whole.
fn refuse_later(disk: &dyn Disk) -> Result<(), OpenError> {
    let listed = disk.list(DIR).map_err(failed("list the journal's files"))?;
    let segments = listed.iter().filter(|file| number_of(&file.name, "", ".seg").is_some());
    for name in segments.map(|file| path(&file.name)).chain([BINDING.to_owned()]) {
        // What cannot be read is seen to later.
        let header = disk.open_read(&name).and_then(|file| SegmentHeader::read(file.as_ref()));
        if let Ok(Err(HeaderFault::Version(found))) = header {
            return Err(OpenError::Version { name, found, known: FORMAT_VERSION });
        }
    }
    Ok(())
}

fn survey(disk: &dyn Disk) -> io::Result<Files> {
    let mut files = Files::default();
    let listed = disk.list(DIR)?;
    for file in &listed {
        if std::path::Path::new(&file.name).extension().is_some_and(|extension| extension == "new") {
            disk.remove(&path(&file.name))?;
        } else if let Some(number) = number_of(&file.name, "", ".seg") {
            files.segments.insert(number, file.bytes);
        } else if number_of(&file.name, "spare-", "").is_some() {
            files.spares.push((file.name.clone(), file.bytes));
        } else if path(&file.name) == BALLAST {
            files.ballast_bytes = file.bytes;
        }
    }
    for number in listed.iter().filter_map(|file| number_of(&file.name, "", ".idx")) {
        if !files.segments.contains_key(&number) {
            disk.remove(&path(&index_name(number)))?;
        }
    }
    Ok(files)
}

/// The process before may have died between giving a file its name and syncing the directory. What is taken over, and what will be
/// appended to it, must not lose that name with the power.
fn sync_names(disk: &dyn Disk) -> io::Result<()> {
    disk.sync_dir("")?;
    disk.sync_dir(DIR)
}

/// What became of the binding file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Binding {
    Whole,
    Missing,
    Damaged,
}

impl Recovery {
    fn note(&mut self, what: &'static str, segment: u32, bytes: u64, gone: Vec<Gone>) -> &mut Damage {
        self.opened.damage.push(Damage {
            segment,
            offset: 0,
            bytes,
            what,
            quarantined: Vec::new(),
            gone,
            end_unknown: false,
        });
        self.opened.damage.last_mut().expect("it was just pushed")
    }

    /// Keeps the bytes of damaged cursor files and writes both anew. On a full disk they stay, to be told again.
    fn mend_cursor(&mut self, damaged: &[DamagedFile]) -> Result<(), JournalError> {
        if damaged.is_empty() {
            return Ok(());
        }
        let disk = Arc::clone(&self.disk);
        let kept = damaged.iter().filter_map(|(file, bytes)| quarantine(disk.as_ref(), 0, *file, bytes)).collect();
        let bytes = damaged.iter().map(|(_, bytes)| bytes.len() as u64).sum();
        self.note("a cursor file is damaged", 0, bytes, Vec::new()).quarantined = kept;
        match self.cursor.save_both(disk.as_ref()) {
            Err(error) if !is_full(&error) => Err(failed("mend the cursor")(error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Checks whom the directory belongs to and learns the journal's nonce.
    fn bind(&mut self, files: &Files) -> Result<Binding, OpenError> {
        let binding = match disk::read_whole(self.disk.as_ref(), BINDING, BINDING_BYTES_MAX) {
            Ok(bytes) => match SegmentHeader::decode(&bytes) {
                Ok((header, _)) => {
                    self.check_source(&header)?;
                    self.nonce = header.nonce;
                    Binding::Whole
                }
                Err(HeaderFault::Version(found)) => return Err(version(BINDING, found)),
                Err(HeaderFault::Damaged) => Binding::Damaged,
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Binding::Missing,
            Err(error) => return Err(failed("read the binding")(error).into()),
        };
        if binding == Binding::Whole {
            return Ok(binding);
        }
        // Any whole header says as much.
        for number in files.segments.keys() {
            let found = self.find(*number)?;
            if let Some((header, _)) = found.header {
                self.nonce = header.nonce;
                self.note("the binding file is missing or damaged; it is written anew", 0, 0, Vec::new());
                break;
            }
        }
        Ok(binding)
    }

    fn write_binding(&self) -> Result<(), JournalError> {
        let header = SegmentHeader {
            number: 0,
            nonce: self.nonce,
            proven: 0,
            previous_end: 0,
            recycled: false,
            wall: WallTime(0),
            source: self.source.clone(),
            making: None,
            table: Vec::new(),
        };
        disk::replace(self.disk.as_ref(), "", BINDING, &header.encode(0)).map_err(failed("write the binding"))
    }

    fn check_source(&self, header: &SegmentHeader) -> Result<(), OpenError> {
        if header.source == self.source {
            return Ok(());
        }
        Err(OpenError::ForeignSource { found: header.source.to_string(), expected: self.source.to_string() })
    }

    fn find(&self, number: u32) -> Result<Found, OpenError> {
        let name = segment_name(number);
        let file = self.disk.open(&path(&name)).map_err(failed("open a segment"))?;
        let bytes = file.bytes().map_err(failed("ask for a segment's length"))?;
        // A header that cannot be read is a damaged one.
        let header = match SegmentHeader::read(file.as_ref()) {
            Ok(Ok((header, length))) if header.number == number => {
                self.check_source(&header)?;
                Some((header, length))
            }
            Ok(Err(HeaderFault::Version(found))) => return Err(version(&name, found)),
            Ok(Ok(_) | Err(HeaderFault::Damaged)) | Err(_) => None,
        };
        Ok(Found { number, file, bytes, header })
    }

    /// Goes through all segments, oldest first; ends with the one to append to.
    fn segments(&mut self, files: &Files, binding: Binding) -> Result<Open, OpenError> {
        let numbers: Vec<u32> = files.segments.keys().copied().collect();
        // The cursor is saved before a segment is given back: none from the one that it names on ever was.
        let oldest = self.cursor.segment.max(1);
        if numbers.first().is_some_and(|first| *first > oldest) {
            self.note("segment files are missing; what was in them cannot be named", oldest, 0, Vec::new())
                .end_unknown = true;
        }
        let mut previous: Option<u32> = None;
        for (index, &number) in numbers.iter().enumerate() {
            if let Some(before) = previous.filter(|before| before + 1 < number) {
                self.note("segment files are missing", before + 1, 0, Vec::new());
            }
            let found = self.find(number)?;
            let is_last = index + 1 == numbers.len();
            if let Some((header, _)) = &found.header {
                let table = header.table.clone();
                self.merge_table(&table, number, previous);
            }
            if is_last && !self.was_sealed(&found)? {
                return self.unsealed(found);
            }
            let next = numbers.get(index + 1).filter(|next| **next == number + 1);
            let next = next.map(|next| self.find(*next)).transpose()?.and_then(|next| next.header);
            self.seal(&found, next.map(|(header, _)| header))?;
            previous = Some(number);
        }
        self.fresh(&numbers, binding, files)
    }

    /// Whether the last segment file was sealed: then the one that followed it is missing. The cursor may know of a later one; and only
    /// after a later one was made is a segment cut to its end.
    fn was_sealed(&self, found: &Found) -> Result<bool, JournalError> {
        if self.cursor.segment > found.number {
            return Ok(true);
        }
        let index = index::read(self.disk.as_ref(), found.number, self.nonce).map_err(failed("read a side file"))?;
        Ok(index.is_some_and(|(meta, _, _)| u64::from(meta.end) == found.bytes))
    }

    /// Makes the segment to append to where there is none.
    fn fresh(&mut self, numbers: &[u32], binding: Binding, files: &Files) -> Result<Open, OpenError> {
        let known = numbers.last().copied().unwrap_or(0).max(self.cursor.segment);
        let spare = files.spares.iter().filter_map(|(name, _)| number_of(name, "spare-", "")).max().unwrap_or(0);
        self.opened.created = numbers.is_empty()
            && binding == Binding::Missing
            && self.cursor.places.is_empty()
            && self.cursor.segment == 0;
        let mut number = known.max(spare) + 1;
        if !self.opened.created {
            // The number after the last known one was in use and is lost.
            let lost = number;
            number += 1;
            self.note("the last segment file is missing; what was in it cannot be named", lost, 0, Vec::new())
                .end_unknown = true;
        }
        let header = self.header(number, 0, self.sealed.last().map_or(0, |sealed| sealed.end));
        let content = header.encode(0);
        let made = self.make(number, &content, to_u32(content.len()))?;
        Ok(Open::new(number, made, header.table))
    }

    fn header(&self, number: u32, proven: u32, previous_end: u32) -> SegmentHeader {
        SegmentHeader {
            number,
            nonce: self.nonce,
            proven,
            previous_end,
            recycled: false,
            wall: self.wall_last.unwrap_or_default(),
            source: self.source.clone(),
            making: Making::now(self.config.format_write, self.config.segment_bytes),
            table: self.table.entries.clone(),
        }
    }

    /// Makes a segment file; lets go of the ballast where there is no other room.
    fn make(&mut self, number: u32, content: &[u8], header_bytes: u32) -> Result<Made, JournalError> {
        let bytes = self.config.segment_bytes;
        match segment::make(self.disk.as_ref(), number, content, header_bytes, bytes, None) {
            Err(error) if is_full(&error) && self.ballast_bytes > 0 => {
                self.disk.remove(BALLAST).map_err(failed("let go of the ballast"))?;
                self.ballast_bytes = 0;
                segment::make(self.disk.as_ref(), number, content, header_bytes, bytes, None)
            }
            made => made,
        }
        .map_err(failed("make a segment"))
    }

    /// Takes over the heads that a segment's table states for the log before it; what they count beyond what was found is lost.
    fn merge_table(&mut self, entries: &[Entry], number: u32, previous: Option<u32>) {
        let is_next = previous.is_some_and(|previous| previous + 1 == number);
        let reason = if is_next { GoneReason::Damaged } else { GoneReason::Missing };
        let mut content = Content::default();
        content.state_entries(&mut self.table, &self.cursor, entries, 0, reason);
        if content.gone.is_empty() {
            return;
        }
        self.gone.extend(&content.gone);
        if previous.is_some()
            && !is_next
            && let Some(noted) = self.opened.damage.last_mut()
        {
            // The note of the missing files was just made.
            noted.gone.extend(&content.gone);
            return;
        }
        let what = if is_next { "the end of a segment is lost" } else { "segment files are missing" };
        let segment = number.saturating_sub(1);
        self.note(what, segment, 0, content.gone);
    }

    /// Drops epochs that tables still name but that the hub has for good and of which nothing is retained.
    fn forget_epochs(&mut self, open: &Open) {
        self.table.leave_out_unbegun();
        let runs = self.sealed.iter().flat_map(|sealed| &sealed.runs).chain(&open.content.runs);
        let retained: BTreeSet<_> = runs.map(|run| run.key.epoch).collect();
        let last = self.table.entries.last().map(|entry| entry.epoch);
        let cursor = &self.cursor;
        self.table.entries.retain(|entry| {
            let is_safe = entry
                .lanes()
                .all(|(lane, head)| head.last <= cursor.place(LaneKey { epoch: entry.epoch, lane }).marks.safe);
            Some(entry.epoch) == last || retained.contains(&entry.epoch) || !is_safe
        });
    }

    fn finish(mut self, open: Open, lock: Box<dyn DiskLock>) -> (Journal, Opened) {
        if self.ballast_bytes != self.config.ballast_bytes() {
            // Without a ballast the journal counts as full until it fits.
            let made = make_ballast(self.disk.as_ref(), &self.config);
            self.ballast_bytes = if made.is_ok() { self.config.ballast_bytes() } else { 0 };
        }
        self.gone.sort_by_key(|gone| (gone.key, gone.range.first));
        self.forget_epochs(&open);
        self.opened.behind_hub = self
            .table
            .entries
            .iter()
            .flat_map(|entry| counterfoil_proto::id::Lane::ALL.map(|lane| LaneKey { epoch: entry.epoch, lane }))
            .filter_map(|key| {
                let stored = self.cursor.place(key).marks.stored;
                (stored > self.table.head(key).last).then_some((key, stored))
            })
            .collect();
        self.opened.snapshot = self.snapshots.complete;
        self.opened.wall_last = self.wall_last;
        self.opened.end = Position::new(open.number, open.end);
        let journal = Journal::assemble(super::Parts {
            disk: self.disk,
            config: self.config,
            source: self.source,
            nonce: self.nonce,
            lock,
            sealed: self.sealed,
            open,
            table: self.table,
            gone: self.gone,
            snapshots: self.snapshots,
            cursor: self.cursor,
            spares: self.spares,
            ballast_bytes: self.ballast_bytes,
            wall_last: self.wall_last.unwrap_or_default(),
        });
        self.opened.parent = journal.parent().cloned();
        (journal, self.opened)
    }
}

fn version(name: &str, found: u16) -> OpenError {
    OpenError::Version { name: name.to_owned(), found, known: FORMAT_VERSION }
}
