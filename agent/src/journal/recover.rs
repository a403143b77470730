//! Opening: what the files say, what of it can be relied on, and the order in which it is put right.
//!
//! Invariant: what a till was told (synced, hence proven by something written later) is never cut; what is served afterwards is on the
//! medium, not only in the page cache; each lost record that anything still names is named. Not known here: epochs to come.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use counterfoil_proto::id::{LaneKey, RecordKey, Seq, Source};
use counterfoil_proto::time::WallTime;

use super::catalog::Sealed;
use super::damage::{QUARANTINE, check_segment, file_length, mend_header, punch, quarantine, read_tolerant};
use super::disk::{self, Disk, DiskFile, DiskLock};
use super::frame::{Kind, Seed};
use super::index::{self, Filter, Meta};
use super::limits::{FORMAT_VERSION, FRAME_HEADER_BYTES, JournalConfig};
use super::reclaim::{BALLAST, make_ballast};
use super::scan::{self, Content, Item, Snapshots};
use super::segment::{self, DIR, HeaderFault, Made, SegmentHeader, index_name, number_of, path, segment_name};
use super::table::{Entry, GroupHeader, Head, Table};
use super::types::{Damage, Gone, GoneReason, JournalError, OpenError, Opened, Position, TailCut};
use super::writer::{is_full, to_u32};
use super::{Journal, Open};
use crate::journal::cursor::Cursor;

const LOCK: &str = "lock";
const BINDING: &str = "binding";
const BINDING_BYTES_MAX: usize = 4096;
/// How far behind a group's start its first frame may stand when the group's header is damaged.
const GROUP_HEADER_BYTES_MAX: u32 = 4096;

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

pub(super) fn open(disk: Arc<dyn Disk>, config: JournalConfig, source: &Source, nonce: u64) -> Result<(Journal, Opened), OpenError> {
    config.check().map_err(|rule| OpenError::Config { rule })?;
    let lock = take_lock(disk.as_ref())?;
    let files = survey(disk.as_ref()).map_err(failed("list the journal's files"))?;
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
    if damaged_cursors > 0 {
        recovery.note("a cursor file is damaged", 0, 0, Vec::new());
    }
    let binding = recovery.bind(&files)?;
    let open = recovery.segments(&files, binding)?;
    if binding != Binding::Whole {
        recovery.write_binding()?;
    }
    recovery.finish(open, lock)
}

fn take_lock(disk: &dyn Disk) -> Result<Box<dyn DiskLock>, OpenError> {
    for dir in [DIR, QUARANTINE] {
        disk.create_dir(dir).map_err(failed("make a directory"))?;
    }
    disk.lock(LOCK).map_err(|source| OpenError::Locked { name: LOCK, source })
}

fn survey(disk: &dyn Disk) -> io::Result<Files> {
    let mut files = Files::default();
    let listed = disk.list(DIR)?;
    for file in &listed {
        if file.name.ends_with(".new") {
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

/// What became of the binding file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Binding {
    Whole,
    Missing,
    Damaged,
}

impl Recovery {
    fn note(&mut self, what: &'static str, segment: u32, bytes: u64, gone: Vec<Gone>) -> &mut Damage {
        self.opened.damage.push(Damage { segment, offset: 0, bytes, what, quarantined: Vec::new(), gone, end_unknown: false });
        self.opened.damage.last_mut().expect("it was just pushed")
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
            self.seal(found, next.map(|(header, _)| header))?;
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
        self.opened.created = numbers.is_empty() && binding == Binding::Missing && self.cursor.places.is_empty() && self.cursor.segment == 0;
        let mut number = known.max(spare) + 1;
        if !self.opened.created {
            // The number after the last known one was in use and is lost.
            let lost = number;
            number += 1;
            self.note("the last segment file is missing; what was in it cannot be named", lost, 0, Vec::new()).end_unknown = true;
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
        let noted = self.opened.damage.last_mut().filter(|damage| !is_next && previous.is_some_and(|before| damage.segment == before + 1));
        match noted {
            Some(damage) => damage.gone.extend(&content.gone),
            None => {
                let what = if is_next { "the end of a segment is lost" } else { "segment files are missing" };
                self.note(what, previous.map_or(number.saturating_sub(1), |before| before + u32::from(!is_next)), 0, content.gone);
            }
        }
    }

    /// Takes over a sealed segment: by its side file, or by a scan where that or the segment is damaged.
    fn seal(&mut self, found: Found, next: Option<SegmentHeader>) -> Result<(), OpenError> {
        let number = found.number;
        let nonce = found.header.as_ref().map_or(self.nonce, |(header, _)| header.nonce);
        let index = index::read(self.disk.as_ref(), number, nonce).map_err(failed("read a side file"))?;
        let known_end = index.as_ref().map(|(meta, _, _)| meta.end).or(next.as_ref().map(|next| next.previous_end).filter(|end| *end > 0));
        match index {
            Some((meta, filter, index_bytes)) if u64::from(meta.end) <= found.bytes && found.header.is_some() => {
                self.take_over(number, nonce, meta, filter, found.bytes + index_bytes);
                Ok(())
            }
            index => {
                let meta = index.map(|(meta, _, _)| meta);
                self.rescan(found, nonce, meta, known_end, next)
            }
        }
    }

    fn take_over(&mut self, number: u32, nonce: u64, meta: Meta, filter: Filter, bytes: u64) {
        for (epoch, parent) in &meta.parents {
            self.table.entry(*epoch, *parent);
        }
        for run in &meta.runs {
            self.table.set_head(run.key, Head { last: run.last, chain: run.after });
        }
        self.gone.extend(meta.gone());
        for local in &meta.locals {
            self.snapshots.add(Position::new(number, local.offset), local.part, local.parts);
        }
        self.wall_last = self.wall_last.max(Some(meta.wall_last));
        self.sealed.push(Arc::new(Sealed {
            named: meta.named(),
            number,
            nonce,
            header_bytes: meta.header_bytes,
            end: meta.end,
            bytes,
            wall_last: meta.wall_last,
            runs: meta.runs,
            marks: meta.marks,
            holes: meta.holes,
            filter,
        }));
    }

    /// Reads a whole sealed segment, mends it, and writes its side file anew.
    fn rescan(&mut self, found: Found, nonce: u64, meta: Option<Meta>, known_end: Option<u32>, next: Option<SegmentHeader>) -> Result<(), OpenError> {
        let number = found.number;
        let seed = Seed::new(nonce, number);
        let length = known_end.unwrap_or_else(|| file_length(found.bytes));
        let bytes = read_tolerant(found.file.as_ref(), length as usize);
        let items = scan::items(&bytes, seed, 0).items;
        let header_bytes = found
            .header
            .as_ref()
            .map(|(_, length)| *length)
            .or(meta.as_ref().map(|meta| meta.header_bytes))
            .or(items.first().map(|item| item.offset))
            .unwrap_or(0);
        let end = known_end.or(items.last().map(Item::end)).unwrap_or(header_bytes).max(header_bytes);
        let table = found.header.as_ref().map(|(header, _)| header.table.clone()).or(meta.as_ref().map(|meta| meta.table.clone()));
        let table = table.unwrap_or_else(|| self.table.entries.clone());
        if found.header.is_none() {
            self.merge_table(&table, number, self.sealed.last().map(|sealed| sealed.number).filter(|last| last + 1 == number));
        }
        let after = next.map(|next| next.table).unwrap_or_default();
        let checked = check_segment(&bytes, seed, (header_bytes, end), (&mut self.table, &self.cursor), &after);
        let (quarantined, holes) = punch(self.disk.as_ref(), found.file.as_ref(), seed, number, &bytes, &checked.bad);
        if found.header.is_none() && header_bytes > 0 {
            let header = SegmentHeader { table: table.clone(), nonce, ..self.header(number, 0, 0) };
            found.file.write_at(&mend_header(header, header_bytes), 0).map_err(failed("mend a header"))?;
        }
        if found.bytes < u64::from(end) {
            found.file.truncate(u64::from(end)).map_err(failed("mend a segment's length"))?;
        }
        found.file.sync_data().map_err(failed("sync a mended segment"))?;
        let meta = Meta::new(header_bytes, end, table, &checked.content, holes, &self.table);
        let written = index::write(self.disk.as_ref(), number, nonce, &meta, &checked.identities);
        let (filter, index_bytes) = written.map_err(failed("write a side file"))?;
        let gone = checked.content.gone.clone();
        if !checked.bad.is_empty() || found.header.is_none() || !gone.is_empty() {
            let bad_bytes = checked.bad.iter().map(|(start, end)| u64::from(end - start)).sum();
            let damage = self.note("bytes of a segment are damaged", number, bad_bytes, gone);
            damage.quarantined = quarantined;
            damage.offset = checked.bad.first().map_or(0, |(start, _)| *start);
        }
        self.take_over(number, nonce, meta, filter, u64::from(end) + index_bytes);
        Ok(())
    }

    /// Takes over the unsealed segment.
    fn unsealed(&mut self, found: Found) -> Result<Open, OpenError> {
        let number = found.number;
        let nonce = found.header.as_ref().map_or(self.nonce, |(header, _)| header.nonce);
        let seed = Seed::new(nonce, number);
        let bytes = read_tolerant(found.file.as_ref(), file_length(found.bytes) as usize);
        let known = found.header.as_ref().map(|(_, length)| *length);
        let items = scan::items(&bytes, seed, known.unwrap_or(0));
        let header_bytes = known.or(items.items.first().map(|item| item.offset));
        // Without a header nobody knows what the file held before.
        let recycled = found.header.as_ref().is_none_or(|(header, _)| header.recycled);
        let proven = found.header.as_ref().map_or(0, |(header, _)| header.proven).max(header_bytes.unwrap_or(0));
        let tail = Tail::find(&items, &bytes, (proven, recycled), (&self.table, &self.cursor));
        let table = found.header.as_ref().map_or_else(|| self.table.entries.clone(), |(header, _)| header.table.clone());
        let kept: Vec<Item> = items.items.iter().take(tail.kept).copied().collect();
        let content = scan::content(&bytes, &kept, &mut self.table, &self.cursor);
        self.gone.extend(&content.gone);
        self.opened.clean = tail.clean;
        let mut rot: Vec<(u32, u32)> =
            items.bad.iter().filter(|(start, _)| *start < tail.end && *start >= header_bytes.unwrap_or(0)).map(|&(start, end)| (start, end.min(tail.end))).collect();
        if let Some(short) = tail.proven_missing(&kept, header_bytes.unwrap_or(0)) {
            rot.push(short);
        }
        self.report(number, &bytes, &rot, &content, found.header.is_none(), &tail);
        let must_rewrite = !rot.is_empty() || found.header.is_none() || tail.end > tail.proven || tail.cut_end > tail.end;
        let made = if must_rewrite {
            let header = SegmentHeader { nonce, table: table.clone(), ..self.header(number, tail.end, self.sealed.last().map_or(0, |sealed| sealed.end)) };
            let content = self.mended(&header, header_bytes, &bytes, tail.end, &rot, seed);
            self.rewrite(number, &content, found, tail.cut_end)?
        } else {
            let (file, length) = (found.file, found.bytes.max(self.config.segment_bytes));
            let allocated = if file.preallocate(length).is_ok() { length } else { found.bytes };
            Made { file, bytes: allocated, header_bytes: header_bytes.unwrap_or(0) }
        };
        let mut open = Open::new(number, made, table);
        open.end = tail.end.max(open.header_bytes);
        open.identities = scan::identities(&bytes, &kept).into_iter().collect();
        for local in &content.locals {
            self.snapshots.add(Position::new(number, local.offset), local.part, local.parts);
        }
        self.wall_last = self.wall_last.max(content.wall_last);
        open.content = content;
        Ok(open)
    }

    /// Says what was found in the unsealed segment, and keeps the raw bytes.
    fn report(&mut self, number: u32, bytes: &[u8], rot: &[(u32, u32)], content: &Content, header_is_bad: bool, tail: &Tail) {
        let disk = Arc::clone(&self.disk);
        let keep = |start: u32, end: u32| quarantine(disk.as_ref(), number, start, bytes.get(start as usize..end as usize).unwrap_or(&[]));
        if !rot.is_empty() || header_is_bad || !content.gone.is_empty() {
            let bad_bytes = rot.iter().map(|(start, end)| u64::from(end - start)).sum();
            let damage = self.note("bytes of the last segment are damaged", number, bad_bytes, content.gone.clone());
            damage.quarantined = rot.iter().filter_map(|(start, end)| keep(*start, *end)).collect();
            damage.offset = rot.first().map_or(0, |(start, _)| *start);
            damage.end_unknown = header_is_bad && tail.kept == 0;
        }
        if tail.cut_end > tail.end {
            self.opened.tail_cut = Some(TailCut {
                position: Position::new(number, tail.end),
                bytes: u64::from(tail.cut_end - tail.end),
                quarantined: keep(tail.end, tail.cut_end),
                records: tail.cut_records.clone(),
            });
        }
    }

    /// What counts of the unsealed segment, byte for byte and at the same offsets, with holes where bytes are bad. Also says how long the
    /// header is.
    fn mended(&mut self, header: &SegmentHeader, header_bytes: Option<u32>, bytes: &[u8], end: u32, rot: &[(u32, u32)], seed: Seed) -> (Vec<u8>, u32) {
        let mut content = match header_bytes {
            Some(length) => mend_header(header.clone(), length),
            None => header.encode(0),
        };
        let length = to_u32(content.len());
        content.extend_from_slice(bytes.get(content.len()..end as usize).unwrap_or(&[]));
        for &(start, end) in rot {
            let hole = super::frame::hole(seed, start, end - start);
            if let Some(place) = content.get_mut(start as usize..start as usize + FRAME_HEADER_BYTES) {
                place.copy_from_slice(&hole);
            }
        }
        self.opened.rewritten_bytes = content.len() as u64;
        (content, length)
    }

    /// Puts the content into a fresh file of the same number. The old file, with what is cut off, vanishes when the fresh one, synced, takes
    /// its name: positions stay what they were, and a box that loses power over and over writes into one segment.
    fn rewrite(&mut self, number: u32, content: &(Vec<u8>, u32), old: Found, cut_end: u32) -> Result<Made, OpenError> {
        let (content, header_bytes) = content;
        match self.make(number, content, *header_bytes) {
            Err(JournalError::Full) => {}
            made => return Ok(made?),
        }
        // Not even one segment fits. Writing the same bytes to the same place proves them too, but for a medium that spoils a sector
        // whose write it does not finish; a box that cannot start helps nobody.
        let zeros = vec![0; (cut_end as usize).saturating_sub(content.len())];
        let written = old
            .file
            .write_at(content, 0)
            .and_then(|()| old.file.write_at(&zeros, content.len() as u64))
            .and_then(|()| old.file.sync_data());
        written.map_err(failed("write the last segment again"))?;
        Ok(Made { file: old.file, bytes: old.bytes, header_bytes: *header_bytes })
    }

    /// Drops epochs that tables still name but that the hub has for good and of which nothing is retained.
    fn forget_epochs(&mut self, open: &Open) {
        let runs = self.sealed.iter().flat_map(|sealed| &sealed.runs).chain(&open.content.runs);
        let retained: BTreeSet<_> = runs.map(|run| run.key.epoch).collect();
        let last = self.table.entries.last().map(|entry| entry.epoch);
        let cursor = &self.cursor;
        self.table.entries.retain(|entry| {
            let is_safe = entry.lanes().all(|(lane, head)| head.last <= cursor.place(LaneKey { epoch: entry.epoch, lane }).marks.safe);
            Some(entry.epoch) == last || retained.contains(&entry.epoch) || !is_safe
        });
    }

    fn finish(mut self, open: Open, lock: Box<dyn DiskLock>) -> Result<(Journal, Opened), OpenError> {
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
        Ok((journal, self.opened))
    }
}

fn version(name: &str, found: u16) -> OpenError {
    OpenError::Version { name: name.to_owned(), found, known: FORMAT_VERSION }
}

/// The end of the unsealed segment.
#[derive(Debug)]
struct Tail {
    /// Up to here something written later proves that everything was synced.
    proven: u32,
    /// Where the log ends.
    end: u32,
    /// How many of the whole frames count.
    kept: usize,
    /// Up to where bytes behind the end are cut; not above `end` where there are none.
    cut_end: u32,
    cut_records: Vec<RecordKey>,
    clean: bool,
}

impl Tail {
    /// `proven` is what the segment's header says. Each frame proves what stood before its group; the frames of the last group are kept
    /// as long as they follow each other without a hole.
    fn find(found: &scan::Items, bytes: &[u8], (proven, recycled): (u32, bool), (table, cursor): (&Table, &Cursor)) -> Self {
        let items = &found.items;
        let proven = items.iter().filter(|item| item.header.kind != Kind::Hole).map(|item| item.header.group).fold(proven, u32::max);
        let split = items.partition_point(|item| item.offset < proven);
        let mut heads = table.clone();
        scan::content(bytes, &items[..split.min(items.len())], &mut heads, cursor);
        let mut tail = Self { proven, end: proven, kept: split, cut_end: proven, cut_records: Vec::new(), clean: false };
        let mut group_end = proven;
        for item in &items[split..] {
            let follows = item.offset == tail.end
                || (tail.end == proven && item.header.group == proven && item.offset - proven <= GROUP_HEADER_BYTES_MAX);
            if !follows || tail.clean || !advance(&mut heads, cursor, item, bytes) {
                break;
            }
            tail.kept += 1;
            match item.header.kind {
                // The log goes on where the mark stands: it proves what is before it, and is written again.
                Kind::Closing => tail.clean = true,
                Kind::Group => {
                    let group = GroupHeader::decode(item.payload(bytes));
                    group_end = group.map_or(group_end, |group| item.offset.saturating_add(group.bytes));
                    tail.end = item.end();
                }
                Kind::Record | Kind::Local | Kind::Hole => tail.end = item.end(),
            }
        }
        tail.cut(&items[tail.kept..], group_end, bytes, recycled);
        tail
    }

    fn cut(&mut self, beyond: &[Item], group_end: u32, bytes: &[u8], recycled: bool) {
        if self.clean {
            return;
        }
        self.cut_end = beyond.last().map_or(self.end, Item::end).max(group_end);
        self.cut_records = beyond
            .iter()
            .filter(|item| item.header.kind == Kind::Record)
            .map(|item| RecordKey { epoch: item.header.epoch, lane: item.header.lane, seq: Seq(item.header.seq) })
            .collect();
        if !recycled {
            // A fresh file holds zeros behind the log.
            let rest = bytes.get(self.end as usize..).unwrap_or(&[]);
            let last = rest.iter().rposition(|byte| *byte != 0).map_or(0, |last| to_u32(last) + 1);
            self.cut_end = self.cut_end.max(self.end + last);
        }
    }

    /// The region between the last kept frame and the proven end, where frames are missing.
    fn proven_missing(&self, kept: &[Item], header_bytes: u32) -> Option<(u32, u32)> {
        let seen = kept.iter().rfind(|item| item.offset < self.proven).map_or(header_bytes, Item::end);
        let first_behind = kept.iter().find(|item| item.offset >= self.proven).map(|item| item.offset);
        // Regions before a later whole frame are known as bad already.
        (seen < self.proven && first_behind.is_none()).then_some((seen, self.proven))
    }
}

/// Whether a frame continues its lane; moves the lane on.
fn advance(heads: &mut Table, cursor: &Cursor, item: &Item, bytes: &[u8]) -> bool {
    let key = LaneKey { epoch: item.header.epoch, lane: item.header.lane };
    match item.header.kind {
        Kind::Record => {
            let known = heads.head(key);
            if Seq(item.header.seq) != known.last.next() {
                return false;
            }
            heads.set_head(key, Head { last: known.last.next(), chain: None });
            true
        }
        Kind::Group | Kind::Closing => {
            // It may tell of records lost before it: the numbers go on behind them.
            if let Some(group) = GroupHeader::decode(item.payload(bytes)) {
                Content::default().state_entries(heads, cursor, &group.entries, 0, GoneReason::Damaged);
            }
            true
        }
        Kind::Local | Kind::Hole => true,
    }
}
