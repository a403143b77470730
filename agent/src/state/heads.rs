//! How far each lane of each epoch is folded.
//!
//! Invariant: a record is folded once, however often the journal shows it; what names it is its key, for a recovered tail keeps
//! its keys and may change its positions.

use std::collections::BTreeMap;

use counterfoil_proto::id::{Epoch, Lane, LaneKey, RecordKey, Seq};
use serde::{Deserialize, Serialize};

use super::dirty::Dirty;
use super::limits::EPOCHS_MAX;
use super::rows::RowKey;

/// Where one epoch stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    /// Grows with each change of the live epoch: the smallest is forgotten first, the largest is live.
    number: u64,
    seqs: [Seq; Lane::ALL.len()],
}

/// The heads of the newest epochs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Heads {
    pub(super) epochs: BTreeMap<Epoch, Head>,
    live: Option<Epoch>,
    number: u64,
}

impl Heads {
    /// Whether `key` is news; its lane then stands at it.
    pub(super) fn advance(&mut self, key: RecordKey, dirty: &mut Dirty) -> bool {
        let lane = usize::from(key.lane.code());
        let known = self.epochs.get(&key.epoch).and_then(|head| head.seqs.get(lane));
        if known.is_some_and(|seq| key.seq <= *seq) || key.seq == Seq::NONE {
            return false;
        }
        let head = self.epochs.entry(key.epoch).or_default();
        if let Some(seq) = head.seqs.get_mut(lane) {
            *seq = key.seq;
        }
        if self.live != Some(key.epoch) {
            self.number = self.number.saturating_add(1);
            head.number = self.number;
            self.live = Some(key.epoch);
            self.forget_surplus(dirty);
        }
        dirty.mark(&RowKey::Epoch(key.epoch));
        true
    }

    /// Whether that lane is folded up to `key`.
    pub(super) fn covers(&self, key: RecordKey) -> bool {
        let head = self.epochs.get(&key.epoch).and_then(|head| head.seqs.get(usize::from(key.lane.code())));
        head.is_some_and(|seq| key.seq <= *seq)
    }

    /// The epoch of the last record.
    pub(super) fn live(&self) -> Option<Epoch> {
        self.live
    }

    /// Every lane that has a record.
    pub(super) fn lanes(&self) -> impl Iterator<Item = (LaneKey, Seq)> {
        self.epochs.iter().flat_map(|(epoch, head)| {
            let lanes = Lane::ALL.into_iter().zip(head.seqs).filter(|(_, seq)| *seq > Seq::NONE);
            lanes.map(|(lane, seq)| (LaneKey { epoch: *epoch, lane }, seq))
        })
    }

    /// Takes a row from a store or a snapshot in; `false` where it cannot be.
    pub(super) fn load(&mut self, epoch: Epoch, head: Head) -> bool {
        if head.number > self.number {
            self.number = head.number;
            self.live = Some(epoch);
        }
        self.epochs.insert(epoch, head).is_none()
    }

    fn forget_surplus(&mut self, dirty: &mut Dirty) {
        if self.epochs.len() > EPOCHS_MAX
            && let Some(oldest) = self.epochs.iter().min_by_key(|(_, head)| head.number).map(|(epoch, _)| *epoch)
        {
            self.epochs.remove(&oldest);
            dirty.mark(&RowKey::Epoch(oldest));
        }
    }
}
