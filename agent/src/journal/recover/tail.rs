//! Where the log ends: what of the unsealed segment is proven, what is kept of its last group, what is cut.
//!
//! Invariant: nothing before the proven end is ever cut; behind it no record is kept whose predecessor in its lane is missing. Pure.

use counterfoil_proto::id::{LaneKey, RecordKey, Seq};
use counterfoil_proto::time::WallTime;

use crate::journal::cursor::Cursor;
use crate::journal::frame::{self, Kind};
use crate::journal::scan::{self, Content, Item};
use crate::journal::table::{Entry, GroupHeader, Head, Table};
use crate::journal::types::GoneReason;
use crate::journal::writer::to_u32;

/// The end of the unsealed segment.
#[derive(Debug)]
pub(super) struct Tail {
    /// Up to here something written later proves that everything was synced.
    pub(super) proven: u32,
    /// Where the last whole frame stands that states heads: nobody can name what is missing behind it.
    pub(super) stated: u32,
    /// Where the log ends.
    pub(super) end: u32,
    /// How many of the whole frames count.
    pub(super) kept: usize,
    /// Up to where bytes behind the end are cut; not above `end` where there are none.
    pub(super) cut_end: u32,
    pub(super) cut_records: Vec<RecordKey>,
    pub(super) clean: bool,
}

impl Tail {
    /// `proven` is what the segment's header says. Each frame proves what stood before its group; the frames of the last group are kept
    /// as long as they follow each other without a hole.
    pub(super) fn find(
        found: &scan::Items,
        bytes: &[u8],
        (proven, recycled): (u32, bool),
        (table, cursor): (&Table, &Cursor),
    ) -> Self {
        let items = &found.items;
        let proven = items
            .iter()
            .filter(|item| item.header.kind != Kind::Hole)
            .map(|item| item.header.group.min(item.offset))
            .fold(proven, u32::max);
        let split = items.partition_point(|item| item.offset < proven);
        let mut heads = table.clone();
        scan::content(bytes, &items[..split.min(items.len())], &mut heads, cursor);
        let mut tail = Self {
            proven,
            stated: 0,
            end: proven,
            kept: split,
            cut_end: proven,
            cut_records: Vec::new(),
            clean: false,
        };
        let mut group_end = proven;
        for item in &items[split..] {
            // Behind the end that the group's header states there may be frames of an append that failed at the same place before.
            let belongs = item.header.group == proven && (group_end == proven || item.offset < group_end);
            let follows =
                item.offset == tail.end || (tail.end == proven && item.offset - proven == header_bytes(&heads, item));
            if !belongs || !follows || tail.clean || !advance(&mut heads, cursor, item, bytes) {
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
        let states = |item: &&Item| matches!(item.header.kind, Kind::Group | Kind::Closing);
        tail.stated = items[..tail.kept].iter().rfind(states).map_or(0, |item| item.offset);
        tail.cut(&items[tail.kept..], group_end, bytes, recycled);
        tail
    }

    fn cut(&mut self, beyond: &[Item], group_end: u32, bytes: &[u8], recycled: bool) {
        self.cut_end = beyond.last().map_or(self.end, Item::end).max(group_end);
        self.cut_records = beyond
            .iter()
            .filter(|item| item.header.kind == Kind::Record)
            .map(|item| RecordKey { epoch: item.header.epoch, lane: item.header.lane, seq: Seq(item.header.seq) })
            .collect();
        if !recycled && !self.clean {
            // A fresh file holds zeros behind the log.
            let rest = bytes.get(self.end as usize..).unwrap_or(&[]);
            let last = rest.iter().rposition(|byte| *byte != 0).map_or(0, |last| to_u32(last) + 1);
            self.cut_end = self.cut_end.max(self.end + last);
        }
    }

    /// The region between the last kept frame and the proven end, where frames are missing.
    pub(super) fn proven_missing(&self, kept: &[Item], header_bytes: u32) -> Option<(u32, u32)> {
        let seen = kept.iter().rfind(|item| item.offset < self.proven).map_or(header_bytes, Item::end);
        let first_behind = kept.iter().find(|item| item.offset >= self.proven).map(|item| item.offset);
        // Regions before a later whole frame are known as bad already.
        (seen < self.proven && first_behind.is_none()).then_some((seen, self.proven))
    }
}

/// How long the header of the group of `item`, its first frame, must have been. Where the header alone is damaged the frame stands right
/// behind it.
fn header_bytes(heads: &Table, item: &Item) -> u32 {
    let last = heads.entries.last().cloned();
    let known = heads.get(item.header.epoch).cloned();
    let entries = match known {
        Some(entry) => vec![entry],
        None if item.header.kind == Kind::Record => {
            let parent = last.as_ref().map(|parent| parent.epoch);
            last.into_iter().chain([Entry::new(item.header.epoch, parent)]).collect()
        }
        None => last.into_iter().collect(),
    };
    let header = GroupHeader { bytes: 0, records: 0, wall: WallTime(0), entries };
    to_u32(frame::frame_bytes(header.encode().len()))
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
