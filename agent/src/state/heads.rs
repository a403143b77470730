//! How far each lane of each epoch is folded.
//!
//! Invariant: a record is folded once, however often the journal shows it; what names it is its key, for a recovered tail keeps
//! its keys and may change its positions.

use std::collections::BTreeMap;

use counterfoil_proto::id::{Epoch, Lane, LaneKey, RecordKey, Seq};
use serde::{Deserialize, Serialize};

use super::limits::EPOCHS_MAX;

/// Where one epoch stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    /// Grows with each change of the live epoch: the smallest is forgotten first.
    number: u64,
    seqs: [Seq; Lane::ALL.len()],
}

/// The heads of the newest epochs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Heads {
    epochs: BTreeMap<Epoch, Head>,
    live: Option<Epoch>,
    number: u64,
}

impl Heads {
    /// Whether `key` is news; its lane then stands at it.
    pub(super) fn advance(&mut self, key: RecordKey) -> bool {
        let head = self.epochs.entry(key.epoch).or_default();
        let Some(seq) = head.seqs.get_mut(usize::from(key.lane.code())) else { return false };
        if key.seq <= *seq {
            return false;
        }
        *seq = key.seq;
        if self.live != Some(key.epoch) {
            self.number = self.number.saturating_add(1);
            head.number = self.number;
            self.live = Some(key.epoch);
            if self.epochs.len() > EPOCHS_MAX
                && let Some(oldest) = self.epochs.iter().min_by_key(|(_, head)| head.number).map(|(epoch, _)| *epoch)
            {
                self.epochs.remove(&oldest);
            }
        }
        true
    }

    /// The epoch of the last record.
    pub(super) fn live(&self) -> Option<Epoch> {
        self.live
    }

    /// Every lane that has a record.
    pub(super) fn lanes(&self) -> impl Iterator<Item = (LaneKey, Seq)> {
        self.epochs.iter().flat_map(|(epoch, head)| {
            Lane::ALL.into_iter().zip(head.seqs).filter(|(_, seq)| *seq > Seq::NONE).map(|(lane, seq)| {
                let key = LaneKey { epoch: *epoch, lane };
                (key, seq)
            })
        })
    }
}
