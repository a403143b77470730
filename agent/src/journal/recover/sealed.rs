//! Taking over sealed segments: by their side files, or by a scan.
//!
//! Invariant: after this a sealed segment has a whole header and a side file that fits it, and what is missing in it is named.

use std::sync::Arc;

use super::{Found, Recovery, failed};
use crate::journal::catalog::Sealed;
use crate::journal::damage::{check_segment, file_length, mend_header, punch, quarantine, read_tolerant};
use crate::journal::frame::Seed;
use crate::journal::index::{self, Filter, Meta};
use crate::journal::limits::{FRAME_ALIGN_BYTES, GROUP_BYTES_MAX};
use crate::journal::scan::{self, Item};
use crate::journal::segment::SegmentHeader;
use crate::journal::table::Head;
use crate::journal::types::{OpenError, Position};

impl Recovery {
    /// Takes over a sealed segment: by its side file, or by a scan where that or the segment is damaged.
    pub(super) fn seal(&mut self, found: &Found, next: Option<SegmentHeader>) -> Result<(), OpenError> {
        let number = found.number;
        let nonce = found.header.as_ref().map_or(self.nonce, |(header, _)| header.nonce);
        let index = index::read(self.disk.as_ref(), number, nonce).map_err(failed("read a side file"))?;
        let known_end = index
            .as_ref()
            .map(|(meta, _, _)| meta.end)
            .or(next.as_ref().map(|next| next.previous_end).filter(|end| *end > 0));
        match index {
            Some((meta, filter, index_bytes))
                if u64::from(meta.end) <= found.bytes
                    && found.header.as_ref().is_some_and(|(_, length)| *length == meta.header_bytes) =>
            {
                self.take_over(number, nonce, meta, filter, found.bytes + index_bytes);
                Ok(())
            }
            index => {
                let meta = index.map(|(meta, _, _)| meta);
                self.rescan(found, nonce, meta.as_ref(), known_end, next)
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
    fn rescan(
        &mut self,
        found: &Found,
        nonce: u64,
        meta: Option<&Meta>,
        known_end: Option<u32>,
        next: Option<SegmentHeader>,
    ) -> Result<(), OpenError> {
        let number = found.number;
        let seed = Seed::new(nonce, number);
        // No segment is longer than its file, or a new one and the group that it may run over by: what says otherwise is wrong.
        let end_max = file_length(found.bytes.max(self.config.segment_bytes + GROUP_BYTES_MAX as u64));
        let known_end = known_end.map(|end| end.min(end_max));
        // A file that was cut ends before; a frame whose padding alone was cut off is whole.
        let there = file_length(found.bytes.next_multiple_of(FRAME_ALIGN_BYTES as u64));
        let length = known_end.map_or(there, |end| end.min(there));
        let bytes = read_tolerant(found.file.as_ref(), length as usize).map_err(failed("read a segment"))?;
        let items = scan::items(&bytes, seed, 0).items;
        let header_bytes = found
            .header
            .as_ref()
            .map(|(_, length)| *length)
            .or(meta.map(|meta| meta.header_bytes).filter(|header_bytes| Some(*header_bytes) <= known_end))
            .or(items.first().map(|item| item.offset))
            .unwrap_or(0);
        let end = known_end.or(items.last().map(Item::end)).unwrap_or(header_bytes).max(header_bytes);
        let table =
            found.header.as_ref().map(|(header, _)| header.table.clone()).or(meta.map(|meta| meta.table.clone()));
        let table = table.unwrap_or_else(|| self.table.entries.clone());
        if found.header.is_none() {
            self.merge_table(&table, number, self.sealed.last().map(|sealed| sealed.number));
        }
        let after = next.map(|next| next.table).unwrap_or_default();
        let checked = check_segment(&bytes, seed, (header_bytes, end), (&mut self.table, &self.cursor), &after);
        let (mut quarantined, holes) =
            punch(self.disk.as_ref(), found.file.as_ref(), seed, number, &bytes, &checked.bad);
        if found.header.is_none() && header_bytes > 0 {
            let header = SegmentHeader { table: table.clone(), nonce, ..self.header(number, 0, 0) };
            let raw = &bytes[..bytes.len().min(header_bytes as usize)];
            quarantined.extend(quarantine(self.disk.as_ref(), number, 0, raw));
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
}
