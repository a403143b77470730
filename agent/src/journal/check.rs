//! Reading a whole journal without changing it, to say whether it is what was written.
//!
//! Invariant: nothing is written, mended or locked. Every frame's checksum is recomputed, every record's number and chain followed and
//! compared with each head that was stated later: who changes a byte has to forge all that follows, and what was signed or handed to the
//! hub does not follow. Not known here: what documents mean.

use std::collections::BTreeMap;
use std::io;

use counterfoil_proto::id::{Chain, Digest, Epoch, LaneKey, RecordKey, Seq, SeqRange, Source};

use super::cursor::Cursor;
use super::damage::{file_length, read_tolerant};
use super::disk::Disk;
use super::frame::{Kind, Seed};
use super::index;
use super::limits::FRAME_ALIGN_BYTES;
use super::scan::{self, Item};
use super::segment::{DIR, HeaderFault, SegmentHeader, number_of, path, segment_name};
use super::table::{Entry, GroupHeader, Head, Table, lane_index};
use super::types::Position;

/// Something that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// The segment's file, below the data directory.
    pub file: String,
    /// Where in it, in bytes.
    pub offset: u32,
    /// What was found, a sentence for a person.
    pub what: String,
}

/// A record as the check meets it.
#[derive(Debug)]
pub struct Met<'a> {
    /// Its name.
    pub key: RecordKey,
    /// Where it stands.
    pub position: Position,
    /// Its stored bytes.
    pub stored: &'a [u8],
    heads: &'a Table,
}

impl Met<'_> {
    /// How far a lane had come before this record: its last number and the chain after it. `None` where nothing of it is left here.
    pub fn head(&self, key: LaneKey) -> Option<(Seq, Option<Chain>)> {
        let head = self.heads.get(key.epoch)?.heads[lane_index(key.lane)]?;
        Some((head.last, head.chain))
    }

    /// Something that is wrong with this record.
    pub fn finding(&self, what: String) -> Finding {
        Finding { file: path(&segment_name(self.position.segment())), offset: self.position.offset(), what }
    }
}

/// Segments of one form.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Formed {
    /// The version of their format: what a program has to read that is to go on with this journal.
    pub format: u16,
    /// Which software made their files; format 1 does not say.
    pub software: Option<String>,
    /// How many there are.
    pub segments: u64,
}

/// What a check went through.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Checked {
    /// Segments.
    pub segments: u64,
    /// Of which formats, in the order in which these are met first.
    pub formats: Vec<Formed>,
    /// Bytes of their files.
    pub bytes: u64,
    /// Whole records.
    pub records: u64,
    /// Of these, those that the hub did not call safe as far as this box noted: nobody else may have them.
    pub undelivered: u64,
    /// Whether the newest segment ends with the mark of a clean stop. Without it nobody can tell a torn last group from a damaged one.
    pub closed: bool,
    /// What is not as it was written, in the order of the log.
    pub findings: Vec<Finding>,
    /// Whose journal it is; `None` where no header of a segment can be read.
    #[serde(skip)]
    pub source: Option<Source>,
    /// The lanes, by epoch, the oldest epoch first.
    #[serde(skip)]
    pub lanes: Vec<LaneRuns>,
}

/// What is there of a lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneRuns {
    /// Which.
    pub key: LaneKey,
    /// The epoch that its epoch descends from.
    pub parent: Option<Epoch>,
    /// Up to here the hub has it, or it was given back, as far as this box noted.
    pub at_hub: Seq,
    /// The numbers whose records are here, in order and apart.
    pub runs: Vec<SeqRange>,
    /// The last number that was given.
    pub last: Seq,
    /// The chain after that, where known.
    pub chain: Option<Chain>,
}

/// Findings that are listed; a file of garbage has no end of them.
const FINDINGS_MAX: usize = 1_000;

struct Check<'a> {
    disk: &'a dyn Disk,
    cursor: Cursor,
    heads: Table,
    /// Number and end of the segment before.
    before: Option<(u32, u32)>,
    runs: BTreeMap<LaneKey, Vec<SeqRange>>,
    checked: Checked,
}

/// Reads every segment, oldest first. `on_record` is shown each whole record and says what else is wrong with it; `on_progress` hears how
/// many bytes of how many are read.
pub fn check(
    disk: &dyn Disk,
    on_record: &mut dyn FnMut(&Met<'_>) -> Vec<Finding>,
    on_progress: &mut dyn FnMut(u64, u64),
) -> io::Result<Checked> {
    let listed = disk.list(DIR)?;
    let files: BTreeMap<u32, u64> =
        listed.iter().filter_map(|file| Some((number_of(&file.name, "", ".seg")?, file.bytes))).collect();
    let total = files.values().sum();
    let newest = files.last_key_value().map(|(number, _)| *number);
    let (cursor, _) = Cursor::load(disk)?;
    let mut check = Check {
        disk,
        cursor,
        heads: Table::default(),
        before: None,
        runs: BTreeMap::new(),
        checked: Checked::default(),
    };
    for (&number, &bytes) in &files {
        check.segment(number, bytes, newest == Some(number), on_record)?;
        check.checked.segments += 1;
        check.checked.bytes += bytes;
        on_progress(check.checked.bytes, total);
    }
    check.checked.lanes = check.lanes();
    Ok(check.checked)
}

/// Syncs what a running agent may have written to the newest segment and not synced yet: what was met there before is on the medium then.
pub fn settle(disk: &dyn Disk) -> io::Result<()> {
    let numbers = disk.list(DIR)?.into_iter().filter_map(|file| number_of(&file.name, "", ".seg"));
    let Some(newest) = numbers.max() else { return Ok(()) };
    disk.open_read(&path(&segment_name(newest)))?.sync_data()
}

impl Check<'_> {
    fn find(&mut self, number: u32, offset: u32, what: String) {
        self.add(Finding { file: path(&segment_name(number)), offset, what });
    }

    fn add(&mut self, finding: Finding) {
        if self.checked.findings.len() < FINDINGS_MAX {
            self.checked.findings.push(finding);
        }
    }

    fn segment(
        &mut self,
        number: u32,
        length: u64,
        is_newest: bool,
        on_record: &mut dyn FnMut(&Met<'_>) -> Vec<Finding>,
    ) -> io::Result<()> {
        let file = self.disk.open_read(&path(&segment_name(number)))?;
        let (header, header_bytes) = match SegmentHeader::read(file.as_ref())? {
            Ok(found) => found,
            Err(HeaderFault::Version(version)) => {
                self.find(number, 0, format!("is of format {version}, which this program does not read"));
                self.before = None;
                return Ok(());
            }
            Err(HeaderFault::Damaged) => {
                self.find(number, 0, "has a damaged header; its records cannot be read without it".to_owned());
                self.before = None;
                return Ok(());
            }
        };
        self.count_format(&header);
        self.follows(number, &header);
        self.checked.source.get_or_insert_with(|| header.source.clone());
        let wanted = (file_length(length) as usize).next_multiple_of(FRAME_ALIGN_BYTES);
        let bytes = read_tolerant(file.as_ref(), wanted)?;
        let found = scan::items(&bytes, Seed::new(header.nonce, number), header_bytes);
        for (start, end) in &found.bad {
            self.find(number, *start, format!("{} bytes are not what was written", end - start));
        }
        self.state(number, 0, &header.table);
        for item in &found.items {
            self.item(number, item, &bytes, on_record);
        }
        let end = found.items.last().map_or(header_bytes, Item::end);
        if is_newest {
            self.checked.closed = found.items.last().is_some_and(|item| item.header.kind == Kind::Closing);
            self.tail(number, &header, &bytes, end);
        } else {
            self.side_file(number, header.nonce)?;
        }
        self.before = Some((number, end));
        Ok(())
    }

    fn count_format(&mut self, header: &SegmentHeader) {
        let software = header.making.as_ref().map(|making| making.software.as_str());
        let formats = &mut self.checked.formats;
        let is_same = |known: &&mut Formed| known.format == header.format() && known.software.as_deref() == software;
        if let Some(known) = formats.iter_mut().find(is_same) {
            known.segments += 1;
        } else {
            formats.push(Formed { format: header.format(), software: software.map(str::to_owned), segments: 1 });
        }
    }

    /// Whether a segment goes on where the one before ended.
    fn follows(&mut self, number: u32, header: &SegmentHeader) {
        let Some((before, end)) = self.before else {
            // Heads of what was given back are taken as they are stated.
            self.heads.admit(&header.table);
            for entry in &header.table {
                for (lane, head) in entry.lanes() {
                    self.heads.set_head(LaneKey { epoch: entry.epoch, lane }, head);
                }
            }
            return;
        };
        if before + 1 != number {
            self.find(number, 0, format!("follows segment {before}; those between are missing"));
        } else if header.previous_end != 0 && header.previous_end != end {
            let what = format!("ends at {end}, and the next segment says that it ended at {}", header.previous_end);
            self.find(before, end.min(header.previous_end), what);
        }
    }

    fn tail(&mut self, number: u32, header: &SegmentHeader, bytes: &[u8], end: u32) {
        if header.proven > end {
            self.find(number, end, format!("ends here, and was synced up to {}", header.proven));
        }
        let rest = bytes.get(end as usize..).unwrap_or(&[]);
        // What a recycled file held before means nothing.
        let last = rest.iter().rposition(|byte| *byte != 0).filter(|_| !header.recycled && !self.checked.closed);
        if let Some(last) = last {
            let what = format!(
                "{} bytes behind the last whole record are none: an append that was cut off, or damage to the last one",
                last + 1
            );
            self.find(number, end, what);
        }
    }

    fn side_file(&mut self, number: u32, nonce: u64) -> io::Result<()> {
        let is_whole = match index::read(self.disk, number, nonce)? {
            Some((_, filter, _)) => filter.pages_are_whole(self.disk, number)?,
            None => false,
        };
        if !is_whole {
            let what = "the side file is missing or damaged; the next start makes it anew from the segment";
            self.add(Finding { file: path(&super::segment::index_name(number)), offset: 0, what: what.to_owned() });
        }
        Ok(())
    }

    fn item(&mut self, number: u32, item: &Item, bytes: &[u8], on_record: &mut dyn FnMut(&Met<'_>) -> Vec<Finding>) {
        match item.header.kind {
            Kind::Record => self.record(number, item, item.payload(bytes), on_record),
            Kind::Group | Kind::Closing => match GroupHeader::decode(item.payload(bytes)) {
                Some(group) => self.state(number, item.offset, &group.entries),
                None => self.find(number, item.offset, "a group's header cannot be read".to_owned()),
            },
            Kind::Local => {}
            Kind::Hole => {
                let what = format!("{} bytes were lost to damage that was found before", item.bytes);
                self.find(number, item.offset, what);
            }
        }
    }

    fn record(&mut self, number: u32, item: &Item, stored: &[u8], on_record: &mut dyn FnMut(&Met<'_>) -> Vec<Finding>) {
        let (key, seq) = (LaneKey { epoch: item.header.epoch, lane: item.header.lane }, Seq(item.header.seq));
        let name = RecordKey { epoch: key.epoch, lane: key.lane, seq };
        let known = self.heads.head(key);
        if seq != known.last.next() {
            let what = format!("record {} follows {} of its lane", name.correlation_id(), known.last);
            self.find(number, item.offset, what);
        }
        let position = Position::new(number, item.offset);
        let met = Met { key: name, position, stored, heads: &self.heads };
        for finding in on_record(&met) {
            self.add(finding);
        }
        let chain = known.chain.filter(|_| seq == known.last.next());
        let chain = chain.map(|chain| chain.next(seq, Digest::of(stored)));
        self.heads.set_head(key, Head { last: seq, chain });
        let runs = self.runs.entry(key).or_default();
        match runs.last_mut().filter(|run| run.last.next() == seq) {
            Some(run) => run.last = seq,
            None => runs.push(SeqRange { first: seq, last: seq }),
        }
        self.checked.records += 1;
        self.checked.undelivered += u64::from(seq > self.cursor.place(key).marks.safe);
    }

    fn at_hub(&self, key: LaneKey) -> Seq {
        let place = self.cursor.place(key);
        place.marks.stored.max(place.floor)
    }

    fn lanes(&mut self) -> Vec<LaneRuns> {
        let mut runs = std::mem::take(&mut self.runs);
        let mut lanes = Vec::new();
        for entry in &self.heads.entries {
            for (lane, head) in entry.lanes() {
                let key = LaneKey { epoch: entry.epoch, lane };
                let (runs, at_hub) = (runs.remove(&key).unwrap_or_default(), self.at_hub(key));
                lanes.push(LaneRuns { key, parent: entry.parent, at_hub, runs, last: head.last, chain: head.chain });
            }
        }
        lanes
    }

    /// Compares heads that are stated with those that were followed.
    fn state(&mut self, number: u32, offset: u32, entries: &[Entry]) {
        self.heads.admit(entries);
        for entry in entries {
            for (lane, stated) in entry.lanes() {
                let key = LaneKey { epoch: entry.epoch, lane };
                let known = self.heads.head(key);
                let name = RecordKey { epoch: key.epoch, lane, seq: stated.last }.correlation_id();
                let place = self.cursor.place(key);
                let was_given_back = known.last == Seq::NONE && stated.last <= place.floor.max(place.marks.safe);
                if stated.last > known.last && !was_given_back {
                    let missing = stated.last.0 - known.last.0;
                    let what = format!("{missing} records up to {name} are missing before this");
                    self.find(number, offset, what);
                } else if stated.last < known.last {
                    let what =
                        format!("the log says here that its lane ends with {name}, and has {} already", known.last);
                    self.find(number, offset, what);
                    continue;
                } else if let (Some(one), Some(other)) = (known.chain, stated.chain)
                    && one != other
                {
                    let what =
                        format!("the chain after {name} is not the one stated here: a record up to it was changed");
                    self.find(number, offset, what);
                }
                self.heads.set_head(key, stated);
            }
        }
    }
}

/// Where a record of lane `trade` stands.
#[cfg(test)]
pub(crate) fn offset_of(disk: &dyn Disk, number: u32, seq: Seq) -> Option<u32> {
    let mut found = None;
    let mut meet = |met: &Met<'_>| {
        let is_it = met.key.lane == counterfoil_proto::id::Lane::Trade && met.key.seq == seq;
        found = found.or_else(|| Some(met.position.offset()).filter(|_| is_it && met.position.segment() == number));
        Vec::new()
    };
    check(disk, &mut meet, &mut |_, _| {}).ok()?;
    found
}

/// Changes bytes of the frame at `offset` as somebody would who knows the format: its checksum fits afterwards. `false` where `from` is not there.
#[cfg(test)]
pub(crate) fn forge(disk: &dyn Disk, number: u32, offset: u32, from: &[u8], to: &[u8]) -> bool {
    forge_where(disk, number, from, to, &|at| at == offset) > 0
}

/// The same in each frame; in how many.
#[cfg(test)]
pub(crate) fn forge_all(disk: &dyn Disk, number: u32, from: &[u8], to: &[u8]) -> usize {
    forge_where(disk, number, from, to, &|_| true)
}

#[cfg(test)]
fn forge_where(disk: &dyn Disk, number: u32, from: &[u8], to: &[u8], is_meant: &dyn Fn(u32) -> bool) -> usize {
    let file = disk.open(&path(&segment_name(number))).unwrap();
    let (header, header_bytes) = SegmentHeader::read(file.as_ref()).unwrap().unwrap();
    let bytes = read_tolerant(file.as_ref(), usize::try_from(file.bytes().unwrap()).unwrap()).unwrap();
    let seed = Seed::new(header.nonce, number);
    let mut forged = 0;
    for item in scan::items(&bytes, seed, header_bytes).items.iter().filter(|item| is_meant(item.offset)) {
        let mut payload = item.payload(&bytes).to_vec();
        let Some(at) = payload.windows(from.len()).position(|window| window == from) else { continue };
        payload[at..at + to.len()].copy_from_slice(to);
        let mut frame = Vec::new();
        super::frame::encode(&mut frame, seed, item.offset, &item.header, &payload);
        file.write_at(&frame, u64::from(item.offset)).unwrap();
        forged += 1;
    }
    file.sync_data().unwrap();
    forged
}
