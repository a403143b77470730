//! Epochs with their parents, lane heads and chains: as state in memory, as the table at the start of a segment, and as the payload of
//! group headers and closing marks.
//!
//! Invariant: the list is in the order in which epochs were started; heads only grow. Not known here: where records stand.

use std::collections::BTreeMap;

use counterfoil_proto::id::{Chain, Epoch, Lane, LaneKey, Seq};
use counterfoil_proto::time::WallTime;

/// The last record of a lane, zero for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Head {
    pub(crate) last: Seq,
    /// `None` where damage hides it.
    pub(crate) chain: Option<Chain>,
}

/// An epoch.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Entry {
    pub(crate) epoch: Epoch,
    pub(crate) parent: Option<Epoch>,
    pub(crate) heads: [Option<Head>; 3],
}

pub(crate) const fn lane_index(lane: Lane) -> usize {
    match lane {
        Lane::Trade => 0,
        Lane::Stock => 1,
        Lane::Ops => 2,
    }
}

impl Entry {
    pub(crate) const fn new(epoch: Epoch, parent: Option<Epoch>) -> Self {
        Self { epoch, parent, heads: [None; 3] }
    }

    /// The head of a lane; before the first record that is the genesis.
    pub(crate) fn head(&self, lane: Lane) -> Head {
        self.heads[lane_index(lane)]
            .unwrap_or_else(|| Head { last: Seq::NONE, chain: Some(Chain::genesis(self.epoch, lane)) })
    }

    pub(crate) fn lanes(&self) -> impl Iterator<Item = (Lane, Head)> + '_ {
        Lane::ALL.into_iter().filter_map(|lane| self.heads[lane_index(lane)].map(|head| (lane, head)))
    }
}

/// Epochs in the order of their starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) entries: Vec<Entry>,
}

impl Table {
    /// Finds an epoch, newest first; adds it where it is new.
    pub(crate) fn entry(&mut self, epoch: Epoch, parent: Option<Epoch>) -> &mut Entry {
        let known = self.entries.iter().rposition(|entry| entry.epoch == epoch);
        let index = known.unwrap_or_else(|| {
            let at = self.place_of(epoch, None);
            self.entries.insert(at, Entry::new(epoch, parent));
            at
        });
        let entry = &mut self.entries[index];
        entry.parent = entry.parent.or(parent);
        entry
    }

    /// Takes in epochs that are stated oldest first, each before the one that is stated after it: a later statement may name an epoch
    /// that went before one that is known already, and the last of all is what the next epoch descends from.
    pub(crate) fn admit(&mut self, entries: &[Entry]) {
        let mut after = None;
        for entry in entries.iter().rev() {
            if self.get(entry.epoch).is_none() {
                let at = self.place_of(entry.epoch, after);
                self.entries.insert(at, Entry::new(entry.epoch, entry.parent));
            }
            after = Some(entry.epoch);
        }
    }

    /// Where an unknown epoch belongs: before the one that follows it, before its child, or last.
    fn place_of(&self, epoch: Epoch, after: Option<Epoch>) -> usize {
        let follows = |known: &Entry| Some(known.epoch) == after || known.parent == Some(epoch);
        self.entries.iter().position(follows).unwrap_or(self.entries.len())
    }

    /// Leaves out epochs without a record. Such a process ended in its first group, so that nobody ever heard of its epoch, and what comes
    /// after it descends from what it descended from: a line with a stranger in it looks like two boxes.
    pub(crate) fn leave_out_unbegun(&mut self) {
        let mut left_out = BTreeMap::new();
        self.entries.retain_mut(|entry| {
            if let Some(before) = entry.parent.and_then(|parent| left_out.get(&parent)) {
                entry.parent = *before;
            }
            let has_begun = entry.lanes().next().is_some();
            if !has_begun {
                left_out.insert(entry.epoch, entry.parent);
            }
            has_begun
        });
    }

    pub(crate) fn get(&self, epoch: Epoch) -> Option<&Entry> {
        self.entries.iter().rfind(|entry| entry.epoch == epoch)
    }

    pub(crate) fn head(&self, key: LaneKey) -> Head {
        self.get(key.epoch).map_or_else(|| Entry::new(key.epoch, None).head(key.lane), |entry| entry.head(key.lane))
    }

    pub(crate) fn set_head(&mut self, key: LaneKey, head: Head) {
        self.entry(key.epoch, None).heads[lane_index(key.lane)] = Some(head);
    }
}

/// Appends entries.
///
/// ```text
/// count: u32, then per entry: epoch [16], parent [16] (zeros for none), lanes: u8, then per lane:
/// code: u8 (bit 7 set: no chain follows), last: u64, chain: [32]
/// ```
pub(crate) fn encode_entries(into: &mut Vec<u8>, entries: &[Entry]) {
    into.extend_from_slice(&u32::try_from(entries.len()).expect("tables are bounded").to_le_bytes());
    for entry in entries {
        into.extend_from_slice(&entry.epoch.0);
        into.extend_from_slice(&entry.parent.unwrap_or(Epoch([0; 16])).0);
        into.push(u8::try_from(entry.lanes().count()).expect("three lanes"));
        for (lane, head) in entry.lanes() {
            into.push(lane.code() | if head.chain.is_none() { 0x80 } else { 0 });
            into.extend_from_slice(&head.last.0.to_le_bytes());
            if let Some(chain) = head.chain {
                into.extend_from_slice(&chain.0);
            }
        }
    }
}

/// Takes fixed pieces off the front of foreign bytes.
#[derive(Debug)]
pub(crate) struct Pieces<'a>(pub(crate) &'a [u8]);

impl Pieces<'_> {
    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (piece, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*piece)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn seq(&mut self) -> Option<Seq> {
        self.u64().and_then(|number| Seq::try_from(number).ok())
    }

    pub(crate) fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }
}

/// Reads what [`encode_entries`] wrote.
pub(crate) fn decode_entries(from: &mut Pieces<'_>) -> Option<Vec<Entry>> {
    let count = from.u32()?;
    let mut entries = Vec::new();
    for _ in 0..count {
        let epoch = Epoch(from.array()?);
        let parent = Some(Epoch(from.array()?)).filter(|parent| parent.0 != [0; 16]);
        let mut entry = Entry::new(epoch, parent);
        for _ in 0..from.u8()? {
            let code = from.u8()?;
            let lane = Lane::from_code(code & 0x7F)?;
            let last = from.seq()?;
            let chain = if code & 0x80 == 0 { Some(Chain(from.array()?)) } else { None };
            entry.heads[lane_index(lane)] = Some(Head { last, chain });
        }
        entries.push(entry);
    }
    Some(entries)
}

/// Payload of a group header or a closing mark.
///
/// ```text
/// bytes: u32 (of the whole group, this frame included), records: u32, wall time: i64, entries
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GroupHeader {
    pub(crate) bytes: u32,
    pub(crate) records: u32,
    pub(crate) wall: WallTime,
    pub(crate) entries: Vec<Entry>,
}

impl GroupHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&self.bytes.to_le_bytes());
        bytes.extend_from_slice(&self.records.to_le_bytes());
        bytes.extend_from_slice(&self.wall.0.to_le_bytes());
        encode_entries(&mut bytes, &self.entries);
        bytes
    }

    pub(crate) fn decode(payload: &[u8]) -> Option<Self> {
        let mut pieces = Pieces(payload);
        Some(Self {
            bytes: pieces.u32()?,
            records: pieces.u32()?,
            wall: WallTime(pieces.i64()?),
            entries: decode_entries(&mut pieces)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(table: &Table) -> Vec<u8> {
        table.entries.iter().map(|entry| entry.epoch.0[0]).collect()
    }

    fn entry(epoch: u8, parent: Option<u8>) -> Entry {
        Entry::new(Epoch([epoch; 16]), parent.map(|parent| Epoch([parent; 16])))
    }

    #[test]
    fn epochs_that_are_stated_late_stand_before_those_that_followed_them() {
        let mut table = Table::default();
        table.entry(Epoch([3; 16]), Some(Epoch([2; 16])));
        table.admit(&[entry(1, None), entry(2, Some(1)), entry(3, Some(2)), entry(4, Some(3))]);
        assert_eq!(order(&table), [1, 2, 3, 4]);
        let mut table = Table::default();
        table.entry(Epoch([2; 16]), Some(Epoch([1; 16])));
        table.admit(&[entry(1, None)]);
        assert_eq!(order(&table), [1, 2], "the newest is what the next one descends from");
    }
}
