//! Taking over the unsealed segment: rot is marked, the tail is cut or proven, and what counts is on the medium before it is served.
//!
//! Invariant: the old file goes only when a fresh one with everything that counts is synced under its name.

use std::sync::Arc;

use counterfoil_proto::planted::{self, Bug};

use super::tail::Tail;
use super::{Found, Recovery, failed};
use crate::journal::Open;
use crate::journal::damage::{file_length, mend_header, quarantine, read_tolerant};
use crate::journal::frame::{self, Kind, Seed};
use crate::journal::limits::{FRAME_ALIGN_BYTES, FRAME_HEADER_BYTES, SECTOR_BYTES};
use crate::journal::scan::{self, Item};
use crate::journal::segment::{Made, SegmentHeader};
use crate::journal::types::{Gone, JournalError, OpenError, Position, TailCut};
use crate::journal::writer::to_u32;

impl Recovery {
    /// Takes over the unsealed segment.
    pub(super) fn unsealed(&mut self, found: Found) -> Result<Open, OpenError> {
        let number = found.number;
        let nonce = found.header.as_ref().map_or(self.nonce, |(header, _)| header.nonce);
        let seed = Seed::new(nonce, number);
        // A frame whose padding alone was cut off is whole.
        let length = file_length(found.bytes) as usize;
        let bytes = read_tolerant(found.file.as_ref(), length.next_multiple_of(FRAME_ALIGN_BYTES))
            .map_err(failed("read a segment"))?;
        let known = found.header.as_ref().map(|(_, length)| *length);
        let items = scan::items(&bytes, seed, known.unwrap_or(0));
        let header_bytes = known.or(items.items.first().map(|item| item.offset));
        // Without a header nobody knows what the file held before.
        let recycled = found.header.as_ref().is_none_or(|(header, _)| header.recycled);
        let proven = found.header.as_ref().map_or(0, |(header, _)| header.proven);
        // Of a file that was cut below what is proven, all whole frames are; the log ends behind the last one.
        let is_cut = found.bytes < u64::from(proven);
        let proven = if is_cut { items.items.last().map_or(0, Item::end) } else { proven };
        let proven = proven.max(header_bytes.unwrap_or(0));
        let tail = Tail::find(&items, &bytes, (proven, recycled), (&self.table, &self.cursor));
        let table =
            found.header.as_ref().map_or_else(|| self.table.entries.clone(), |(header, _)| header.table.clone());
        let kept: Vec<Item> = items.items.iter().take(tail.kept).copied().collect();
        let content = scan::content(&bytes, &kept, &mut self.table, &self.cursor);
        self.gone.extend(&content.gone);
        self.opened.clean = tail.clean;
        // A cut that lost only the sector with the header of a group that nobody was told of leaves the group's records whole. Rot ends
        // anywhere; what a cut tears off ends with a sector.
        let (torn, mut rot): (Vec<_>, Vec<_>) = items
            .bad
            .iter()
            .filter(|(start, _)| *start < tail.end && *start >= header_bytes.unwrap_or(0))
            .map(|&(start, end)| (start, end.min(tail.end)))
            .partition(|(start, end)| *start >= tail.proven && end.is_multiple_of(SECTOR_BYTES));
        if let Some(short) = tail.proven_missing(&kept, header_bytes.unwrap_or(0)) {
            rot.push(short);
        }
        // Where holes stand for what is missing, and nothing else is wrong, it was told when they were made.
        let is_told = kept.iter().any(|item| item.header.kind == Kind::Hole) && rot.is_empty();
        let gone = if is_told && found.header.is_some() { &[] } else { content.gone.as_slice() };
        self.report(number, &bytes, rot.clone(), gone, found.header.is_none(), &tail);
        self.report_cut(number, &bytes, &torn, &tail);
        rot.extend(torn);
        if is_cut || (found.bytes < found.made_bytes(self.config.segment_bytes) && !tail.clean) {
            // A segment has its whole length before it has its name. A file cut between two groups looks whole but for that.
            self.note(
                "the last segment is shorter than it was made; what was cut off cannot be named",
                number,
                0,
                Vec::new(),
            )
            .end_unknown = true;
        }
        let is_unproven = tail.end > tail.proven && !planted::is(Bug::PageCacheServed);
        let must_rewrite =
            is_cut || !rot.is_empty() || found.header.is_none() || is_unproven || tail.cut_end > tail.end;
        let made = if must_rewrite {
            let header = SegmentHeader {
                nonce,
                table: table.clone(),
                ..self.header(number, tail.end, self.sealed.last().map_or(0, |sealed| sealed.end))
            };
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
    fn report(
        &mut self,
        number: u32,
        bytes: &[u8],
        mut rot: Vec<(u32, u32)>,
        gone: &[Gone],
        header_is_bad: bool,
        tail: &Tail,
    ) {
        let disk = Arc::clone(&self.disk);
        let keep = |start: u32, end: u32| {
            quarantine(disk.as_ref(), number, start, bytes.get(start as usize..end as usize).unwrap_or(&[]))
        };
        let is_garbage = header_is_bad && tail.kept == 0;
        if is_garbage {
            rot = bytes.iter().rposition(|byte| *byte != 0).map(|last| (0, to_u32(last) + 1)).into_iter().collect();
        }
        if !rot.is_empty() || header_is_bad || !gone.is_empty() {
            let bad_bytes = rot.iter().map(|(start, end)| u64::from(end - start)).sum();
            let damage = self.note("bytes of the last segment are damaged", number, bad_bytes, gone.to_vec());
            damage.quarantined = rot.iter().filter_map(|(start, end)| keep(*start, *end)).collect();
            damage.offset = rot.first().map_or(0, |(start, _)| *start);
            damage.end_unknown = is_garbage || rot.iter().any(|(_, end)| *end > tail.stated);
        }
    }

    /// Says what is cut off behind the proven end, and keeps the raw bytes.
    fn report_cut(&mut self, number: u32, bytes: &[u8], torn: &[(u32, u32)], tail: &Tail) {
        let regions = torn.iter().copied().chain((tail.cut_end > tail.end).then_some((tail.end, tail.cut_end)));
        let regions: Vec<(u32, u32)> = regions.collect();
        let (Some(&(start, _)), Some(&(_, end))) = (regions.first(), regions.last()) else { return };
        // A file that was cut ends before what its frames say.
        let raw = bytes.get(start as usize..bytes.len().min(end as usize)).unwrap_or(&[]);
        self.opened.tail_cut = Some(TailCut {
            position: Position::new(number, tail.end),
            bytes: regions.iter().map(|(start, end)| u64::from(end - start)).sum(),
            quarantined: quarantine(self.disk.as_ref(), number, start, raw),
            records: tail.cut_records.clone(),
        });
    }

    /// What counts of the unsealed segment, byte for byte and at the same offsets, with holes where bytes are bad. Also says how long the
    /// header is.
    fn mended(
        &mut self,
        header: &SegmentHeader,
        header_bytes: Option<u32>,
        bytes: &[u8],
        end: u32,
        rot: &[(u32, u32)],
        seed: Seed,
    ) -> (Vec<u8>, u32) {
        let mut content = match header_bytes {
            Some(length) => mend_header(header.clone(), length),
            None => header.encode(0),
        };
        let length = to_u32(content.len());
        content.extend_from_slice(bytes.get(content.len()..end as usize).unwrap_or(&[]));
        for &(start, end) in rot {
            let hole = frame::hole(seed, start, end - start);
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
        // whose write it does not finish; a box that cannot start helps nobody. A whole header stays as it is, unless it proves more than
        // there is: half of another one would be damage.
        let whole = old.header.as_ref().filter(|(header, _)| u64::from(header.proven) <= old.bytes);
        let kept = whole.map_or(0, |(_, length)| content.len().min(*length as usize));
        let cut_end = usize::try_from(old.bytes.min(u64::from(cut_end))).unwrap_or(0);
        let zeros = vec![0; cut_end.saturating_sub(content.len())];
        let written = old
            .file
            .write_at(&content[kept..], kept as u64)
            .and_then(|()| old.file.write_at(&zeros, content.len() as u64))
            .and_then(|()| old.file.sync_data());
        written.map_err(failed("write the last segment again"))?;
        Ok(Made { file: old.file, bytes: old.bytes, header_bytes: *header_bytes })
    }
}
