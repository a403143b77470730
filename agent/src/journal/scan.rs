//! Reading a segment's bytes as a whole: which frames are there, what they add up to, and what is missing between them.
//!
//! Invariant: each record that was once counted (by a head stated later) and is not there ends up in exactly one `Gone`. Used to open the
//! unsealed segment, to rebuild a side file, and to deal with damage. Not known here: how bytes are read or repaired.

use counterfoil_proto::id::{Chain, Digest, LaneKey, Seq, SeqRange};
use counterfoil_proto::record::Record;
use counterfoil_proto::time::WallTime;

use super::cursor::Cursor;
use super::frame::{self, Decoded, Kind, Seed};
use super::limits::MARK_BYTES;
use super::table::{Entry, GroupHeader, Head, Table};
use super::types::{Gone, GoneReason, IdentityKey};

/// A whole frame of a segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Item {
    pub(crate) offset: u32,
    pub(crate) bytes: u32,
    pub(crate) header: frame::Header,
    pub(crate) payload: u32,
}

impl Item {
    pub(crate) const fn end(&self) -> u32 {
        self.offset + self.bytes
    }

    pub(crate) fn payload<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        let start = self.offset as usize + super::limits::FRAME_HEADER_BYTES;
        bytes.get(start..start + self.payload as usize).unwrap_or(&[])
    }
}

/// The whole frames of a segment, and the bytes between them that are none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Items {
    pub(crate) items: Vec<Item>,
    /// Regions before the last whole frame that hold none.
    pub(crate) bad: Vec<(u32, u32)>,
}

/// Finds the whole frames in `bytes`, the segment from its beginning, from offset `from` on.
pub(crate) fn items(bytes: &[u8], seed: Seed, from: u32) -> Items {
    let mut found = Items::default();
    let mut at = from as usize;
    loop {
        let rest = bytes.get(at..).unwrap_or(&[]);
        let offset = u32::try_from(at).unwrap_or(u32::MAX);
        match frame::decode(rest, seed, offset) {
            Decoded::Frame(view) if view.bytes <= rest.len() => {
                found.items.push(Item {
                    offset,
                    bytes: u32::try_from(view.bytes).unwrap_or(u32::MAX),
                    header: view.header,
                    payload: u32::try_from(view.payload.len()).unwrap_or(u32::MAX),
                });
                at += view.bytes;
            }
            Decoded::Frame(_) | Decoded::Short(_) | Decoded::Bad => {
                // Where nothing whole follows, the log ends here.
                let Some(next) = frame::resync(bytes, seed, at + 1) else { break };
                found.bad.push((offset, u32::try_from(next).unwrap_or(u32::MAX)));
                at = next;
            }
        }
    }
    found
}

/// A lane's stretch within a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Run {
    pub(crate) key: LaneKey,
    /// The first number that belongs here, lost or not.
    pub(crate) first: Seq,
    pub(crate) before: Option<Chain>,
    pub(crate) last: Seq,
    pub(crate) after: Option<Chain>,
    /// Where its first whole frame stands.
    pub(crate) start: u32,
}

/// An entry of a segment's sparse index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Mark {
    pub(crate) run: u32,
    pub(crate) seq: Seq,
    pub(crate) offset: u32,
}

/// A part of a state snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct LocalPart {
    pub(crate) offset: u32,
    pub(crate) part: u32,
    pub(crate) parts: u32,
}

/// What a segment's frames add up to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Content {
    pub(crate) runs: Vec<Run>,
    pub(crate) marks: Vec<Mark>,
    pub(crate) locals: Vec<LocalPart>,
    pub(crate) gone: Vec<Gone>,
    pub(crate) records: u64,
    pub(crate) wall_last: Option<WallTime>,
}

impl Content {
    /// Counts the record `seq` at `offset`; `before` is the head of its lane until then.
    pub(crate) fn add_record(&mut self, key: LaneKey, before: Head, seq: Seq, chain: Option<Chain>, offset: u32) {
        self.records += 1;
        let index = self.run(key, before, offset);
        let run = &mut self.runs[index];
        run.last = seq;
        run.after = chain;
        let number = u32::try_from(index).expect("runs are bounded by frames");
        let is_due = self
            .marks
            .iter()
            .rfind(|mark| mark.run == number)
            .map_or(run.start, |mark| mark.offset)
            .saturating_add(MARK_BYTES)
            <= offset;
        if is_due {
            self.marks.push(Mark { run: number, seq, offset });
        }
    }

    fn run(&mut self, key: LaneKey, before: Head, offset: u32) -> usize {
        self.runs.iter().rposition(|run| run.key == key).unwrap_or_else(|| {
            let first = before.last.next();
            self.runs.push(Run {
                key,
                first,
                before: before.chain,
                last: before.last,
                after: before.chain,
                start: offset,
            });
            self.runs.len() - 1
        })
    }

    /// Notes that a head was stated at `offset`; what it counts and the frames before did not show is gone.
    fn state_head(
        &mut self,
        (table, cursor): (&mut Table, &Cursor),
        key: LaneKey,
        stated: Head,
        offset: u32,
        reason: GoneReason,
    ) {
        let mut known = table.head(key);
        if known.last == Seq::NONE {
            // Nothing of the lane was met: what was given back, or is safe anyway, is not lost.
            let place = cursor.place(key);
            let last = place.floor.max(place.marks.safe).min(stated.last);
            if last > Seq::NONE {
                known = Head { last, chain: stated.chain.filter(|_| last == stated.last) };
                table.set_head(key, known);
            }
        }
        if stated.last > known.last {
            let range = SeqRange { first: known.last.next(), last: stated.last };
            self.gone.push(Gone { key, range, reason, chain_after: stated.chain });
            let index = self.run(key, known, offset);
            self.runs[index].last = stated.last;
            self.runs[index].after = stated.chain;
            table.set_head(key, stated);
        } else if stated.last == known.last && known.chain.is_none() && stated.chain.is_some() {
            if let Some(gone) = self.gone.iter_mut().rfind(|gone| gone.key == key && gone.range.last == stated.last) {
                gone.chain_after = stated.chain;
            }
            if let Some(run) = self.runs.iter_mut().rfind(|run| run.key == key) {
                run.after = stated.chain;
            }
            table.set_head(key, stated);
        }
    }

    /// Notes heads that a later table states: what is missing up to there was in this segment.
    pub(crate) fn state_entries(
        &mut self,
        table: &mut Table,
        cursor: &Cursor,
        entries: &[Entry],
        offset: u32,
        reason: GoneReason,
    ) {
        table.admit(entries);
        for entry in entries {
            table.entry(entry.epoch, entry.parent);
            for (lane, head) in entry.lanes() {
                self.state_head((table, cursor), LaneKey { epoch: entry.epoch, lane }, head, offset, reason);
            }
        }
    }
}

/// Adds up frames. `table` holds the heads before the segment and, afterwards, those at its end; `cursor` says what of lanes that it does
/// not name is no loss.
pub(crate) fn content(bytes: &[u8], items: &[Item], table: &mut Table, cursor: &Cursor) -> Content {
    let mut content = Content::default();
    for item in items {
        let key = LaneKey { epoch: item.header.epoch, lane: item.header.lane };
        match item.header.kind {
            Kind::Record => {
                let seq = Seq(item.header.seq);
                let known = table.head(key);
                if seq <= known.last {
                    continue;
                }
                if seq > known.last.next() {
                    let range = SeqRange { first: known.last.next(), last: seq.previous() };
                    content.gone.push(Gone { key, range, reason: GoneReason::Damaged, chain_after: None });
                }
                let chain = known
                    .chain
                    .filter(|_| seq == known.last.next())
                    .map(|chain| chain.next(seq, Digest::of(item.payload(bytes))));
                table.set_head(key, Head { last: seq, chain });
                content.add_record(key, known, seq, chain, item.offset);
            }
            Kind::Local => content.locals.push(LocalPart {
                offset: item.offset,
                part: u32::try_from(item.header.seq & 0xFFFF_FFFF).unwrap_or(0),
                parts: u32::try_from(item.header.seq >> 32).unwrap_or(0),
            }),
            Kind::Group | Kind::Closing => {
                if let Some(group) = GroupHeader::decode(item.payload(bytes)) {
                    if item.header.kind == Kind::Group {
                        content.wall_last = content.wall_last.max(Some(group.wall));
                    }
                    content.state_entries(table, cursor, &group.entries, item.offset, GoneReason::Damaged);
                }
            }
            Kind::Hole => {}
        }
    }
    content
}

/// The identities of the records among `items`, with their offsets. Records of later versions cannot be read and have none.
pub(crate) fn identities(bytes: &[u8], items: &[Item]) -> Vec<(IdentityKey, u32)> {
    let mut keys = Vec::new();
    for item in items.iter().filter(|item| item.header.kind == Kind::Record) {
        if let Ok(record) = Record::decode(item.payload(bytes)) {
            keys.extend(IdentityKey::of_envelope(&record.envelope).into_iter().map(|key| (key, item.offset)));
        }
    }
    keys.sort_unstable();
    keys
}

/// Follows the parts of state snapshots through the log.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Snapshots {
    current: Option<(super::types::Position, u32, u32)>,
    /// Where the newest complete one begins.
    pub(crate) complete: Option<super::types::Position>,
}

impl Snapshots {
    /// Takes the next part; `at` is where it stands.
    pub(crate) fn add(&mut self, at: super::types::Position, part: u32, parts: u32) {
        self.current = match self.current {
            _ if part == 0 => Some((at, 1, parts)),
            Some((start, next, of)) if part == next && parts == of => Some((start, next + 1, of)),
            Some(_) | None => None,
        };
        if let Some((start, next, of)) = self.current
            && next == of
        {
            self.complete = Some(start);
            self.current = None;
        }
    }
}
