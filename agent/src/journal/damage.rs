//! Damage: checking a segment, keeping its bad bytes, naming what is lost, and marking the place so that it is found in order next time.
//!
//! Invariant: bytes are quarantined before their place is overwritten by a hole; after that the log itself says what is lost (a hole in
//! the frames is a hole in the sequences), so that side files may be lost too. Not known here: who tells the hub.

use std::io;
use std::sync::Arc;

use counterfoil_proto::id::SeqRange;

use super::Journal;
use super::catalog::Sealed;
use super::cursor::Cursor;
use super::disk::{self, Disk, DiskFile};
use super::frame::{self, Seed};
use super::index::{self, Meta};
use super::limits::{FRAME_HEADER_BYTES, QUARANTINE_BYTES_MAX};
use super::scan::{self, Content, Items, Run};
use super::segment::{self, SegmentHeader, path, segment_name};
use super::table::{Entry, Head, Table};
use super::types::{Damage, Gone, GoneReason, IdentityKey, JournalError, Scrubbed};
use super::walk::{Step, Walk};
use super::writer::to_u32;

pub(super) const QUARANTINE: &str = "quarantine";
const PAGE_BYTES: usize = 4096;

/// Reads the first `length` bytes of a file; what lies behind its end is zeros, and so is a page that cannot be read while others can.
///
/// # Errors
/// The disk reads nothing, or nothing any more: that says nothing about the bytes, and nobody may give them up for it.
pub(super) fn read_tolerant(file: &dyn DiskFile, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    if file.read_at(&mut bytes, 0).is_ok() {
        return Ok(bytes);
    }
    let (mut readable, mut failure) = (None, None);
    for (index, page) in bytes.chunks_mut(PAGE_BYTES).enumerate() {
        let offset = (index * PAGE_BYTES) as u64;
        match file.read_at(page, offset) {
            Ok(_) => readable = Some(offset),
            Err(error) => {
                page.fill(0);
                failure = Some(error);
            }
        }
    }
    let still_reads = readable.is_some_and(|offset| file.read_at(&mut [0; PAGE_BYTES], offset).is_ok());
    match failure {
        Some(error) if !still_reads => Err(error),
        Some(_) | None => Ok(bytes),
    }
}

/// Keeps raw bytes below `quarantine/`. `None` where there are none, or no room for them: naming what is lost matters more.
pub(super) fn quarantine(disk: &dyn Disk, number: u32, offset: u32, bytes: &[u8]) -> Option<String> {
    let kept: Vec<_> = disk.list(QUARANTINE).ok()?;
    let used: u64 = kept.iter().map(|file| file.bytes).sum();
    if bytes.is_empty() || used + bytes.len() as u64 > QUARANTINE_BYTES_MAX {
        return None;
    }
    let name = (0..1000)
        .map(|turn| format!("{number:010}-{offset:010}-{turn}.bin"))
        .find(|name| kept.iter().all(|file| file.name != *name))?;
    disk::replace(disk, QUARANTINE, &name, bytes).ok()?;
    Some(name)
}

/// The heads before a segment and after it, as its runs tell; lanes without a run in it stand where they stand now.
fn edges(runs: &[Run], now: &Table) -> (Table, Vec<Entry>) {
    let mut start = now.clone();
    let mut after = Table::default();
    for run in runs {
        start.set_head(run.key, Head { last: run.first.previous(), chain: run.before });
        after.set_head(run.key, Head { last: run.last, chain: run.after });
    }
    (start, after.entries)
}

/// What a check of a segment found.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) content: Content,
    pub(super) identities: Vec<(IdentityKey, u32)>,
    /// Regions without frames that no hole covers.
    pub(super) bad: Vec<(u32, u32)>,
}

/// Checks a segment of which it is known where its frames begin and end. With a cursor, what it calls safe is not called gone; a running
/// journal names that too, since a hub that was restored may ask for it.
pub(super) fn check_segment(
    bytes: &[u8],
    seed: Seed,
    (header_bytes, end): (u32, u32),
    (table, cursor): (&mut Table, &Cursor),
    after: &[Entry],
) -> Checked {
    let bytes = bytes.get(..end as usize).unwrap_or(bytes);
    let Items { items, mut bad } = scan::items(bytes, seed, header_bytes);
    let reached = items.last().map_or(header_bytes, scan::Item::end);
    if reached < end {
        bad.push((reached, end));
    }
    let mut content = scan::content(bytes, &items, table, cursor);
    content.state_entries(table, cursor, after, end, GoneReason::Damaged);
    Checked { content, identities: scan::identities(bytes, &items), bad }
}

/// Quarantines bad regions of a segment and writes holes over them. Says which files keep the bytes, and which regions could not be
/// overwritten. The caller syncs.
pub(super) fn punch(
    disk: &dyn Disk,
    file: &dyn DiskFile,
    seed: Seed,
    number: u32,
    bytes: &[u8],
    bad: &[(u32, u32)],
) -> (Vec<String>, Vec<(u32, u32)>) {
    let mut kept = Vec::new();
    let mut left = Vec::new();
    for &(start, end) in bad {
        // A file that was cut ends before its last region does.
        let there = bytes.len().min(end as usize);
        kept.extend(quarantine(disk, number, start, bytes.get(start as usize..there).unwrap_or(&[])));
        let fits = (end - start) as usize >= FRAME_HEADER_BYTES;
        if !fits || file.write_at(&frame::hole(seed, start, end - start), u64::from(start)).is_err() {
            left.push((start, end));
        }
    }
    (kept, left)
}

/// A header for a segment whose own is damaged, exactly as long as the old one. What does not fit is left out: first what format 2 says
/// more, for one of format 1 stood there, then the oldest epochs.
pub(super) fn mend_header(mut header: SegmentHeader, header_bytes: u32) -> Vec<u8> {
    loop {
        let bytes = header.encode(header_bytes as usize);
        if bytes.len() <= header_bytes as usize || (header.making.is_none() && header.table.is_empty()) {
            return bytes;
        }
        if header.making.take().is_none() {
            header.table.remove(0);
        }
    }
}

impl Journal {
    /// Checks a segment again, keeps the raw bytes of what is bad, marks its records gone and their identities lost, durably. Empty where
    /// all is well by now.
    pub fn handle_damage(&mut self, segment: u32) -> Result<Vec<Damage>, JournalError> {
        self.check()?;
        let found = if segment == self.open.number { self.check_open()? } else { self.check_sealed(segment)? };
        if let Some(damage) = &found {
            if self.snapshots.complete.is_some_and(|snapshot| snapshot.segment() <= damage.segment) {
                // It may have lost a part; a new one is asked for before the next reclaim.
                self.snapshots = scan::Snapshots::default();
            }
            self.rebuild_views();
            self.publish();
        }
        Ok(found.into_iter().collect())
    }

    /// What `find` came upon and dealt with; to be journaled as `journal_damage`.
    pub fn take_damage(&mut self) -> Vec<Damage> {
        std::mem::take(&mut self.damage)
    }

    fn check_open(&mut self) -> Result<Option<Damage>, JournalError> {
        let (number, end) = (self.open.number, self.open.end);
        if let Some(damage) = self.name_open()? {
            return Ok(Some(damage));
        }
        let seed = Seed::new(self.nonce, number);
        let bytes = read_tolerant(self.open.file.as_ref(), end as usize)
            .map_err(|source| JournalError::Disk { what: "read a segment to check it", source })?;
        let (mut before, after) = edges(&self.open.content.runs, &self.table);
        let mut checked =
            check_segment(&bytes, seed, (self.open.header_bytes, end), (&mut before, &Cursor::default()), &after);
        checked.bad.retain(|bad| !self.open.holes.contains(bad));
        let header_is_bad = SegmentHeader::decode(&bytes).is_err();
        if checked.bad.is_empty() && !header_is_bad && self.names(&checked.content.gone) {
            return Ok(None);
        }
        let (quarantined, left) =
            punch(self.disk.as_ref(), self.open.file.as_ref(), seed, number, &bytes, &checked.bad);
        if header_is_bad {
            let header = self.header_of(number, self.open.table.clone());
            let mended = mend_header(header, self.open.header_bytes);
            self.open.file.write_at(&mended, 0).map_err(|error| self.failed("mend a header", error))?;
        }
        self.open.file.sync_data().map_err(|error| self.poison("sync a mended segment", error))?;
        self.open.holes.extend(left);
        let pending = self.group.iter().flat_map(|group| group.keys.iter().copied()).collect::<Vec<_>>();
        self.open.identities = checked.identities.into_iter().chain(pending).collect();
        checked.content.wall_last = self.open.content.wall_last;
        self.open.content = checked.content;
        let gone = self.add_gone(&self.open.content.gone.clone());
        Ok(Some(damage(number, &checked.bad, quarantined, gone, "bytes of a segment are damaged")))
    }

    /// Where somebody removed the file that is appended to, its bytes are still there for who has it open, and for nobody after: they are
    /// written into a file of that name again.
    fn name_open(&mut self) -> Result<Option<Damage>, JournalError> {
        let (number, end) = (self.open.number, self.open.end);
        match self.disk.open_read(&path(&segment_name(number))) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Ok(_) | Err(_) => return Ok(None),
        }
        let bytes = read_tolerant(self.open.file.as_ref(), end as usize)
            .map_err(|source| JournalError::Disk { what: "read the open segment", source })?;
        let disk = Arc::clone(&self.disk);
        let made = segment::make(disk.as_ref(), number, &bytes, self.open.header_bytes, self.open.allocated, None);
        let made = made.map_err(|error| self.poison("write the open segment again", error))?;
        self.open.file = made.file;
        self.open.allocated = made.bytes;
        Ok(Some(damage(
            number,
            &[],
            Vec::new(),
            Vec::new(),
            "the file of the open segment was gone; it was written again",
        )))
    }

    fn header_of(&self, number: u32, table: Vec<Entry>) -> SegmentHeader {
        let (nonce, source, wall) = (self.nonce, self.source.clone(), self.wall_last);
        // How the file was made is not kept.
        SegmentHeader { number, nonce, proven: 0, previous_end: 0, recycled: true, wall, source, making: None, table }
    }

    pub(super) fn poison(&mut self, what: &'static str, source: io::Error) -> JournalError {
        self.poisoned = true;
        JournalError::Disk { what, source }
    }

    fn check_sealed(&mut self, number: u32) -> Result<Option<Damage>, JournalError> {
        let Some(old) = self.sealed_at(number) else { return Ok(None) };
        let disk = Arc::clone(&self.disk);
        let file = match disk.open(&path(&segment_name(number))) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some(self.lose_segment(&old))),
            Err(source) => return Err(JournalError::Disk { what: "open a segment to check it", source }),
        };
        let seed = Seed::new(old.nonce, number);
        let bytes = read_tolerant(file.as_ref(), old.end as usize)
            .map_err(|source| JournalError::Disk { what: "read a segment to check it", source })?;
        let (mut before, after) = edges(&old.runs, &self.table);
        let table = self.table_of(&old, &bytes);
        let mut checked =
            check_segment(&bytes, seed, (old.header_bytes, old.end), (&mut before, &Cursor::default()), &after);
        checked.bad.retain(|bad| !old.holes.contains(bad));
        let header_is_bad = SegmentHeader::decode(&bytes).is_err();
        let index_is_bad = !self.side_is_whole(number) || !leads_to(&old, &checked.content);
        if checked.bad.is_empty() && !header_is_bad && !index_is_bad && self.names(&checked.content.gone) {
            return Ok(None);
        }
        let (quarantined, left) = punch(disk.as_ref(), file.as_ref(), seed, number, &bytes, &checked.bad);
        if header_is_bad {
            let mended = mend_header(self.header_of(number, table.clone()), old.header_bytes);
            file.write_at(&mended, 0).map_err(|error| self.failed("mend a header", error))?;
        }
        file.sync_data().map_err(|error| self.poison("sync a mended segment", error))?;
        let holes = old.holes.iter().copied().chain(left).collect();
        checked.content.wall_last = Some(old.wall_last);
        let meta = Meta::new(old.header_bytes, old.end, table, &checked.content, holes, &self.table);
        self.replace_sealed(&old, meta, &checked.identities)?;
        let gone = self.add_gone(&checked.content.gone);
        let what = if checked.bad.is_empty() {
            "a header or a side file is damaged"
        } else {
            "bytes of a segment are damaged"
        };
        Ok(Some(damage(number, &checked.bad, quarantined, gone, what)))
    }

    /// The table at the start of a segment: from its header, its side file, or as far as its runs tell.
    fn table_of(&self, old: &Sealed, bytes: &[u8]) -> Vec<Entry> {
        if let Ok((header, _)) = SegmentHeader::decode(bytes) {
            return header.table;
        }
        match index::read(self.disk.as_ref(), old.number, old.nonce) {
            Ok(Some((meta, _, _))) => meta.table,
            Ok(None) | Err(_) => edges(&old.runs, &Table::default()).0.entries,
        }
    }

    fn replace_sealed(&mut self, old: &Sealed, meta: Meta, keys: &[(IdentityKey, u32)]) -> Result<(), JournalError> {
        let written = index::write(self.disk.as_ref(), old.number, old.nonce, &meta, keys);
        let (filter, index_bytes) = written.map_err(|error| self.failed("write a side file", error))?;
        let sealed = Sealed {
            number: old.number,
            named: meta.named(),
            nonce: old.nonce,
            header_bytes: meta.header_bytes,
            end: meta.end,
            bytes: u64::from(meta.end) + index_bytes,
            wall_last: meta.wall_last,
            runs: meta.runs,
            marks: meta.marks,
            holes: meta.holes,
            filter,
        };
        let list = Arc::make_mut(&mut self.sealed);
        if let Some(place) = list.iter_mut().find(|sealed| sealed.number == old.number) {
            *place = Arc::new(sealed);
        }
        Ok(())
    }

    /// A segment whose file is gone: everything in it is.
    fn lose_segment(&mut self, old: &Sealed) -> Damage {
        let lost: Vec<_> = old
            .runs
            .iter()
            .map(|run| Gone {
                key: run.key,
                range: SeqRange { first: run.first, last: run.last },
                reason: GoneReason::Missing,
                chain_after: run.after,
            })
            .collect();
        Arc::make_mut(&mut self.sealed).retain(|sealed| sealed.number != old.number);
        let gone = self.add_gone(&lost);
        damage(old.number, &[(0, old.end)], Vec::new(), gone, "the file of a segment is missing")
    }

    /// Whether all of it is known to be gone. A process that ended between writing a hole and its side file leaves a hole that nobody names.
    fn names(&self, gone: &[Gone]) -> bool {
        gone.iter().all(|gone| subtract(*gone, &self.gone).is_empty())
    }

    /// Adds ranges, without what was known to be gone before; says what is new.
    pub(super) fn add_gone(&mut self, found: &[Gone]) -> Vec<Gone> {
        let fresh: Vec<_> = found.iter().flat_map(|gone| subtract(*gone, &self.gone)).collect();
        if !fresh.is_empty() {
            let list = Arc::make_mut(&mut self.gone);
            list.extend(&fresh);
            list.sort_by_key(|gone| (gone.key, gone.range.first));
        }
        fresh
    }

    /// Checks the next piece of the sealed segments, about `bytes_max` bytes.
    pub fn scrub_step(&mut self, bytes_max: usize) -> Result<Scrubbed, JournalError> {
        self.check()?;
        let mut done = Scrubbed::default();
        let catalog = self.catalog();
        let (number, offset) = self.scrub_at;
        let span = match catalog.span(number).filter(|span| span.number != self.open.number) {
            Some(span) => Some((span, offset.max(span.header_bytes))),
            None => catalog
                .span_after(number)
                .filter(|span| span.number != self.open.number)
                .map(|span| (span, span.header_bytes)),
        };
        let Some((span, from)) = span else {
            self.scrub_at = (0, 0);
            done.round_done = true;
            done.damage.extend(self.name_open()?);
            return Ok(done);
        };
        let whole = match Walk::open(self.disk.as_ref(), span.number, span.nonce, from, span.end) {
            Ok(mut walk) => scrub(&mut walk, &span, bytes_max).map(|bytes| (bytes, walk.offset)),
            Err(_) => None,
        };
        let is_whole = match whole {
            Some((bytes, offset)) => {
                done.bytes = bytes;
                self.scrub_at = (span.number, offset);
                offset < span.end || (self.side_is_whole(span.number) && self.header_is_whole(span.number))
            }
            None => false,
        };
        if !is_whole {
            done.damage = self.handle_damage(span.number)?;
        }
        if !is_whole || self.scrub_at.1 >= span.end {
            self.scrub_at = (span.number + 1, 0);
        }
        Ok(done)
    }

    fn header_is_whole(&self, number: u32) -> bool {
        let file = self.disk.open_read(&path(&segment_name(number)));
        file.is_ok_and(|file| matches!(SegmentHeader::read(file.as_ref()), Ok(Ok(_))))
    }

    /// What is known of the sealed segment of that number.
    pub(super) fn sealed_at(&self, number: u32) -> Option<Arc<Sealed>> {
        self.sealed.iter().find(|sealed| sealed.number == number).cloned()
    }

    fn side_is_whole(&self, number: u32) -> bool {
        let sealed = self.sealed_at(number);
        let header = |nonce| matches!(index::read(self.disk.as_ref(), number, nonce), Ok(Some(_)));
        sealed.is_none_or(|sealed| {
            header(sealed.nonce) && sealed.filter.pages_are_whole(self.disk.as_ref(), number).unwrap_or(false)
        })
    }
}

/// Whether what is known of a segment leads a reader to where its records are.
fn leads_to(known: &Sealed, found: &Content) -> bool {
    let places =
        |runs: &[Run]| -> Vec<_> { runs.iter().map(|run| (run.key, run.first, run.last, run.start)).collect() };
    places(&known.runs) == places(&found.runs) && known.marks == found.marks
}

/// Walks about `bytes_max` bytes; `None` where it met damage.
fn scrub(walk: &mut Walk, span: &super::catalog::Span<'_>, bytes_max: usize) -> Option<u64> {
    let start = walk.offset;
    while ((walk.offset - start) as usize) < bytes_max {
        let at = walk.offset;
        match walk.step() {
            Ok(Step::Frame { .. }) => {}
            Ok(Step::End) => break,
            Ok(Step::Bad) | Err(_) => match span.hole_end(at) {
                Some(end) => walk.seek(end),
                None => return None,
            },
        }
    }
    Some(u64::from(walk.offset - start))
}

fn damage(number: u32, bad: &[(u32, u32)], quarantined: Vec<String>, gone: Vec<Gone>, what: &'static str) -> Damage {
    Damage {
        segment: number,
        offset: bad.first().map_or(0, |(start, _)| *start),
        bytes: bad.iter().map(|(start, end)| u64::from(end - start)).sum(),
        what,
        quarantined,
        gone,
        end_unknown: false,
    }
}

/// What of `gone` no range in `known` covers.
pub(super) fn subtract(gone: Gone, known: &[Gone]) -> Vec<Gone> {
    let mut pieces = Vec::new();
    let mut first = gone.range.first;
    let mut covering: Vec<_> = known.iter().filter(|known| known.key == gone.key).map(|known| known.range).collect();
    covering.sort();
    for range in covering {
        if range.last < first || range.first > gone.range.last {
            continue;
        }
        if range.first > first {
            let piece = SeqRange { first, last: range.first.previous() };
            pieces.push(Gone { range: piece, chain_after: None, ..gone });
        }
        first = range.last.next();
    }
    if first <= gone.range.last {
        pieces.push(Gone { range: SeqRange { first, last: gone.range.last }, ..gone });
    }
    pieces
}

/// Bytes of a whole segment file as a number that offsets can express.
pub(super) fn file_length(bytes: u64) -> u32 {
    to_u32(usize::try_from(bytes.min(u64::from(u32::MAX))).unwrap_or(0))
}
