//! Appending: the group in memory, its one write and one sync, and the turn to a new segment.
//!
//! Invariant: nothing of a group shows (heads, identities, catalog) before its sync returned; after a failed write or sync nothing is
//! written any more. Not known here: who waits for the answer.

use std::io;
use std::sync::Arc;

use counterfoil_proto::id::{Chain, Digest, Lane, LaneKey, RecordKey, Seq};
use counterfoil_proto::planted::{self, Bug};
use counterfoil_proto::time::WallTime;

use super::catalog::Sealed;
use super::frame::{self, Header, Kind, NO_EPOCH, Seed};
use super::index::{self, Meta};
use super::limits::{GROUP_BYTES_MAX, PAYLOAD_BYTES_MAX, TABLE_EPOCHS_MAX};
use super::scan::LocalPart;
use super::segment::{self, Making, SegmentHeader};
use super::table::{Entry, GroupHeader, Head, lane_index};
use super::types::{Committed, IdentityKey, JournalError, Position, StageError, Staged};
use super::{Journal, Open};

/// Kept behind the end of a group that runs over its segment, so that a file's length never looks like that of a sealed one.
const OVERRUN_BYTES: u64 = 64;

/// Buffers above this are given back after the commit.
const BUFFER_KEPT_BYTES: usize = 1024 * 1024;

#[derive(Debug)]
struct StagedRecord {
    key: RecordKey,
    chain: Option<Chain>,
    offset: u32,
}

/// What waits for the commit.
#[derive(Debug)]
pub(super) struct Group {
    start: u32,
    buffer: Vec<u8>,
    entries: Vec<Entry>,
    heads: [Head; 3],
    records: Vec<StagedRecord>,
    locals: Vec<LocalPart>,
    pub(super) keys: Vec<(IdentityKey, u32)>,
}

impl Group {
    fn offset(&self) -> u32 {
        self.start + to_u32(self.buffer.len())
    }
}

pub(super) fn to_u32(count: usize) -> u32 {
    u32::try_from(count).expect("segments and groups are shorter than 4 GiB")
}

pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

impl Journal {
    pub(super) fn check(&self) -> Result<(), JournalError> {
        if self.poisoned { Err(JournalError::Poisoned) } else { Ok(()) }
    }

    /// What a failed change means: a full disk leaves all as it was, anything else ends the journal.
    pub(super) fn failed(&mut self, what: &'static str, source: io::Error) -> JournalError {
        if is_full(&source) {
            return JournalError::Full;
        }
        self.poisoned = true;
        JournalError::Disk { what, source }
    }

    /// The heads with the staged records.
    fn staged_heads(&self) -> [Head; 3] {
        match &self.group {
            Some(group) => group.heads,
            None => self.live_heads(),
        }
    }

    pub(super) fn live_heads(&self) -> [Head; 3] {
        let entry = self.live.and_then(|epoch| self.table.get(epoch).cloned());
        let entry = entry.unwrap_or_else(|| Entry::new(NO_EPOCH, None));
        Lane::ALL.map(|lane| entry.head(lane))
    }

    /// The name that the next record staged in that lane gets.
    pub fn next_seq(&self, lane: Lane) -> Seq {
        self.staged_heads()[lane_index(lane)].last.next()
    }

    fn begin(&mut self) -> Result<&mut Group, JournalError> {
        self.check()?;
        if self.group.is_none() {
            // A table that fills a segment by itself must not make every group turn it.
            let length = self.config.segment_bytes.max(2 * u64::from(self.open.header_bytes));
            if u64::from(self.open.end) + self.config.turn_bytes() > length {
                self.turn()?;
            }
            let entries = self.group_entries();
            let payload = GroupHeader { bytes: 0, records: 0, wall: WallTime(0), entries: entries.clone() }.encode();
            let mut buffer = std::mem::take(&mut self.buffer);
            buffer.clear();
            // Its header is written when the group is complete.
            buffer.resize(frame::frame_bytes(payload.len()), 0);
            let heads = self.live_heads();
            let (start, records, locals, keys) = (self.open.end, Vec::new(), Vec::new(), Vec::new());
            self.group = Some(Group { start, buffer, entries, heads, records, locals, keys });
        }
        Ok(self.group.as_mut().expect("it was just made"))
    }

    /// What a group's header states: the live epoch, and before its first records also what it descends from.
    fn group_entries(&self) -> Vec<Entry> {
        let Some(epoch) = self.live else { return self.table.entries.last().cloned().into_iter().collect() };
        let live = self.table.get(epoch).cloned();
        let is_first = live.as_ref().is_none_or(|entry| entry.lanes().next().is_none());
        let parent = live.as_ref().and_then(|entry| entry.parent).filter(|_| is_first);
        parent.and_then(|parent| self.table.get(parent).cloned()).into_iter().chain(live).collect()
    }

    /// Adds a record to the group.
    ///
    /// # Panics
    /// Before [`Journal::start_epoch`]: that is a bug of the caller.
    pub fn stage(&mut self, lane: Lane, keys: &[IdentityKey], stored: &[u8]) -> Result<Staged, StageError> {
        let epoch = self.live.expect("an epoch is started before its first record is staged");
        let number = self.open_number_after_begin(stored.len())?;
        let seed = Seed::new(self.nonce, number);
        let group = self.begin()?;
        let head = group.heads[lane_index(lane)];
        let key = RecordKey { epoch, lane, seq: head.last.next() };
        let offset = group.offset();
        let header = Header { kind: Kind::Record, lane, group: group.start, seq: key.seq.0, epoch };
        frame::encode(&mut group.buffer, seed, offset, &header, stored);
        let chain = head.chain.map(|chain| chain.next(key.seq, Digest::of(stored)));
        group.heads[lane_index(lane)] = Head { last: key.seq, chain };
        group.records.push(StagedRecord { key, chain, offset });
        group.keys.extend(keys.iter().map(|key| (*key, offset)));
        self.open.identities.extend(keys.iter().map(|key| (*key, offset)));
        Ok(Staged { key, position: Position::new(number, offset) })
    }

    /// Begins the group where needed, checks the bounds, and tells the segment that it goes to.
    fn open_number_after_begin(&mut self, payload: usize) -> Result<u32, StageError> {
        if payload > PAYLOAD_BYTES_MAX {
            return Err(StageError::TooLarge { bytes: payload, bytes_max: PAYLOAD_BYTES_MAX });
        }
        let group = self.begin()?;
        if group.buffer.len() + frame::frame_bytes(payload) > GROUP_BYTES_MAX {
            return Err(StageError::GroupFull);
        }
        Ok(self.open.number)
    }

    /// Adds part `part` (from 0) of `parts` of a state snapshot to the group. Parts are staged in order; they may span several groups.
    pub fn stage_local(&mut self, part: u32, parts: u32, bytes: &[u8]) -> Result<Position, StageError> {
        let number = self.open_number_after_begin(bytes.len())?;
        let seed = Seed::new(self.nonce, number);
        let group = self.begin()?;
        let offset = group.offset();
        let seq = u64::from(parts) << 32 | u64::from(part);
        let header = Header { kind: Kind::Local, lane: Lane::Trade, group: group.start, seq, epoch: NO_EPOCH };
        frame::encode(&mut group.buffer, seed, offset, &header, bytes);
        group.locals.push(LocalPart { offset, part, parts });
        Ok(Position::new(number, offset))
    }

    /// Whether anything is staged.
    pub fn has_staged(&self) -> bool {
        self.group.as_ref().is_some_and(|group| !group.records.is_empty() || !group.locals.is_empty())
    }

    /// Drops the group; its numbers are given again.
    pub fn unstage(&mut self) {
        if let Some(group) = self.group.take() {
            for key in &group.keys {
                self.open.identities.remove(key);
            }
            self.keep_buffer(group.buffer);
        }
    }

    fn keep_buffer(&mut self, buffer: Vec<u8>) {
        if buffer.capacity() <= BUFFER_KEPT_BYTES {
            self.buffer = buffer;
        }
    }

    /// Writes the group in one write and syncs it once; when this returns, its records survive a power cut.
    ///
    /// # Errors
    /// `Full`: nothing of the group is left, its numbers are given again. Anything else: the journal is poisoned, whether the group
    /// survives is known after the next opening.
    ///
    /// # Panics
    /// Should a number be given twice or left out: a bug of this file.
    pub fn commit(&mut self, now: WallTime) -> Result<Committed, JournalError> {
        self.check()?;
        if !self.has_staged() {
            self.unstage();
            return Ok(Committed { records: 0, bytes: 0, end: self.end() });
        }
        let mut group = self.group.take().expect("something is staged");
        self.finish_group(&mut group, now);
        let written = self.write_group(&group);
        match written {
            Ok(()) => Ok(self.settle(group, now)),
            Err(error) => {
                self.group = Some(group);
                self.unstage();
                Err(error)
            }
        }
    }

    fn finish_group(&self, group: &mut Group, now: WallTime) {
        let header = GroupHeader {
            bytes: to_u32(group.buffer.len()),
            records: to_u32(group.records.len()),
            wall: now,
            entries: std::mem::take(&mut group.entries),
        };
        let epoch = self.live.unwrap_or(NO_EPOCH);
        let head = Header { kind: Kind::Group, lane: Lane::Trade, group: group.start, seq: 0, epoch };
        let mut bytes = Vec::with_capacity(512);
        frame::encode(&mut bytes, Seed::new(self.nonce, self.open.number), group.start, &head, &header.encode());
        group.buffer[..bytes.len()].copy_from_slice(&bytes);
    }

    fn write_group(&mut self, group: &Group) -> Result<(), JournalError> {
        let start = u64::from(group.start);
        let end = start + group.buffer.len() as u64;
        if end + OVERRUN_BYTES > self.open.allocated {
            if let Err(error) = self.open.file.preallocate(end + OVERRUN_BYTES) {
                return Err(self.failed("allocate room for a group", error));
            }
            self.open.allocated = end + OVERRUN_BYTES;
        }
        if let Err(source) = self.open.file.write_at(&group.buffer, start) {
            return Err(self.take_back(start, source));
        }
        let is_synced = if planted::is(Bug::AnswerBeforeSync) {
            Ok(())
        } else if planted::is(Bug::RetryAfterFailedSync) {
            self.open.file.sync_data().or_else(|_| self.open.file.sync_data())
        } else {
            self.open.file.sync_data()
        };
        if let Err(source) = is_synced {
            // Never again: the kernel may call pages clean that never reached the medium.
            self.poisoned = true;
            return Err(JournalError::Disk { what: "sync a group", source });
        }
        self.syncs += 1;
        self.bytes_written += group.buffer.len() as u64;
        Ok(())
    }

    /// After a write that failed before any sync: a full disk is survived by cutting what was written of the group.
    fn take_back(&mut self, start: u64, source: io::Error) -> JournalError {
        if is_full(&source) && self.open.file.truncate(start).is_ok() {
            // As long as before, so that the file does not look like one that was cut. Best effort: the next group allocates what it needs.
            drop(self.open.file.truncate(self.open.allocated));
            self.open.allocated = start;
            if self.open.file.preallocate(self.config.segment_bytes).is_ok() {
                self.open.allocated = self.config.segment_bytes.max(start);
            }
            return JournalError::Full;
        }
        self.poisoned = true;
        JournalError::Disk { what: "write a group", source }
    }

    /// Makes the synced group count.
    fn settle(&mut self, group: Group, now: WallTime) -> Committed {
        self.open.end = group.offset();
        for record in &group.records {
            let key = record.key.lane_key();
            let before = self.table.head(key);
            assert!(record.key.seq == before.last.next(), "numbers have no holes");
            self.open.content.add_record(key, before, record.key.seq, record.chain, record.offset);
            self.table.set_head(key, Head { last: record.key.seq, chain: record.chain });
        }
        for local in &group.locals {
            self.snapshots.add(Position::new(self.open.number, local.offset), local.part, local.parts);
        }
        self.open.content.locals.extend(&group.locals);
        self.open.content.wall_last = self.open.content.wall_last.max(Some(now));
        let committed = Committed {
            records: group.records.len() as u64,
            bytes: group.buffer.len() as u64,
            end: Position::new(self.open.number, self.open.end),
        };
        self.keep_buffer(group.buffer);
        self.publish();
        committed
    }

    /// Seals the open segment and goes on in a new one. Nothing is staged.
    fn turn(&mut self) -> Result<(), JournalError> {
        assert!(self.group.is_none(), "groups do not span segments");
        let bytes = if self.spares.is_empty() { self.config.turn_bytes_max() } else { 0 };
        if self.used_bytes() + bytes > self.config.bytes_max {
            return Err(JournalError::Full);
        }
        let (sealed, keys) = (self.seal_meta(), self.sorted_identities());
        let number = self.open.number;
        let disk = Arc::clone(&self.disk);
        let written = index::write(disk.as_ref(), number, self.nonce, &sealed, &keys);
        let (filter, index_bytes) = written.map_err(|error| self.failed("write a side file", error))?;
        self.syncs += 2;
        self.bytes_written += index_bytes;
        let next = self.make_segment(number + 1, self.open.end)?;
        let old = std::mem::replace(&mut self.open, next);
        // Gives blocks back; should it fail, they come back with the segment.
        let kept = if old.file.truncate(u64::from(old.end)).is_ok() { u64::from(old.end) } else { old.allocated };
        let named = sealed.named();
        let sealed = Sealed {
            number,
            nonce: self.nonce,
            header_bytes: sealed.header_bytes,
            end: sealed.end,
            bytes: kept + index_bytes,
            wall_last: sealed.wall_last,
            runs: sealed.runs,
            marks: sealed.marks,
            holes: sealed.holes,
            filter,
            named,
        };
        Arc::make_mut(&mut self.sealed).push(Arc::new(sealed));
        self.rebuild_views();
        self.publish();
        Ok(())
    }

    fn seal_meta(&self) -> Meta {
        let open = &self.open;
        let mut meta =
            Meta::new(open.header_bytes, open.end, open.table.clone(), &open.content, open.holes.clone(), &self.table);
        meta.wall_last = open.content.wall_last.unwrap_or(self.wall_last);
        meta
    }

    fn sorted_identities(&self) -> Vec<(IdentityKey, u32)> {
        self.open.identities.iter().copied().collect()
    }

    /// The epochs that the next segment's table names.
    pub(super) fn table_entries(&self) -> Vec<Entry> {
        let last = self.table.entries.last().map(|entry| entry.epoch);
        let mut entries: Vec<_> = self
            .table
            .entries
            .iter()
            .filter(|entry| Some(entry.epoch) == last || !self.is_safe(entry))
            .cloned()
            .collect();
        let surplus = entries.len().saturating_sub(TABLE_EPOCHS_MAX);
        entries.drain(..surplus);
        entries
    }

    /// Whether the hub has all of an epoch for good.
    pub(super) fn is_safe(&self, entry: &Entry) -> bool {
        entry
            .lanes()
            .all(|(lane, head)| head.last <= self.cursor.place(LaneKey { epoch: entry.epoch, lane }).marks.safe)
    }

    fn make_segment(&mut self, number: u32, previous_end: u32) -> Result<Open, JournalError> {
        let spare = self.spares.pop();
        let header = SegmentHeader {
            number,
            nonce: self.nonce,
            proven: 0,
            previous_end,
            recycled: spare.is_some(),
            wall: self.open.content.wall_last.unwrap_or(self.wall_last),
            source: self.source.clone(),
            making: Making::now(self.config.format_write, self.config.segment_bytes),
            table: self.table_entries(),
        };
        self.wall_last = header.wall;
        let content = header.encode(0);
        let length = to_u32(content.len());
        let name = spare.as_ref().map(|(name, _)| name.as_str());
        let made = segment::make(self.disk.as_ref(), number, &content, length, self.config.segment_bytes, name);
        self.syncs += 2;
        self.bytes_written += content.len() as u64;
        match made {
            Ok(made) => Ok(Open::new(number, made, header.table)),
            Err(error) => {
                self.spares.extend(spare);
                Err(self.failed("make a segment", error))
            }
        }
    }

    /// Writes the closing mark behind the last group and syncs it.
    pub(super) fn write_closing(&mut self) -> Result<(), JournalError> {
        self.check()?;
        let entries = self.table.entries.last().cloned().into_iter().collect();
        let mark = GroupHeader { bytes: 0, records: 0, wall: self.wall_last, entries };
        let mut bytes = Vec::with_capacity(512);
        let header = Header { kind: Kind::Closing, lane: Lane::Trade, group: self.open.end, seq: 0, epoch: NO_EPOCH };
        frame::encode(&mut bytes, Seed::new(self.nonce, self.open.number), self.open.end, &header, &mark.encode());
        let at = u64::from(self.open.end);
        let written = self.open.file.write_at(&bytes, at).and_then(|()| self.open.file.sync_data());
        written.map_err(|error| self.failed("write the closing mark", error))
    }
}
