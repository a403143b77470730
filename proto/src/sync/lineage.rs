//! The hub's view of an agent's epochs: which came from which, and whether two boxes claim to be one.
//!
//! Invariant: an epoch is live in one process only, and a process that ended says nothing new. A hello of its may still be late, or be
//! played again; what such a hello says is never more than what the agent says later of the epoch's end. So a clone is an epoch that says
//! as live that it has more than its descendant said of its end; or one that takes turns with another of which it does not descend, nor
//! the other of it. Two children of one parent mean that a box was set back to an older state; where one of them has fallen
//! silent nothing is lost, and a person should know.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::id::Epoch;
use crate::message::EpochHeads;

/// What the hub remembers of an epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochState {
    /// Which.
    pub epoch: Epoch,
    /// Its parent as first stated.
    pub parent: Option<Epoch>,
    /// The number of the agent's hello that last called it live; 0 for never.
    pub live_at: u64,
    /// The most records that it was said to have while it was live.
    pub records: u64,
    /// The most records that it was said to have had when it ended.
    pub ended_at: Option<u64>,
}

/// What the hub remembers of an agent's epochs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lineage {
    /// Hellos heard.
    pub hellos: u64,
    /// Epochs heard of, in the order in which they were heard of.
    pub epochs: Vec<EpochState>,
}

/// Something about the epochs of an agent that a person should see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineageIncident {
    /// Two processes say that they are this agent: nothing is dropped, nothing should be sent down until a person looked.
    Clone {
        /// The epoch that spoke again.
        returned: Epoch,
        /// The epoch that had spoken in between.
        between: Epoch,
    },
    /// The agent went back to an older state: a second epoch has the same parent.
    Rollback {
        /// The parent of both.
        parent: Epoch,
        /// The child known before.
        earlier: Epoch,
        /// The child heard of now.
        later: Epoch,
    },
}

impl Lineage {
    /// Takes in the epochs of one page of a hello; `first_page` counts the hello.
    pub fn hello(&mut self, epochs: &[EpochHeads], first_page: bool) -> Vec<LineageIncident> {
        let mut incidents = Vec::new();
        if first_page {
            self.hellos = self.hellos.saturating_add(1);
        }
        for heads in epochs {
            let parent = heads.parent.as_ref().map(|parent| parent.epoch);
            if !self.epochs.iter().any(|known| known.epoch == heads.epoch) {
                incidents.extend(self.rollback(heads.epoch, parent));
                self.epochs.push(EpochState { epoch: heads.epoch, parent, live_at: 0, records: 0, ended_at: None });
            }
            let records = heads.lanes.iter().map(|head| head.last.0).fold(0, u64::saturating_add);
            if heads.live {
                incidents.extend(self.live(heads.epoch, records));
            } else if let Some(known) = self.epochs.iter_mut().find(|known| known.epoch == heads.epoch) {
                known.ended_at = known.ended_at.max(Some(records));
            }
        }
        incidents
    }

    fn rollback(&self, later: Epoch, parent: Option<Epoch>) -> Option<LineageIncident> {
        let parent = parent?;
        let sibling = self.epochs.iter().find(|known| known.parent == Some(parent))?;
        Some(LineageIncident::Rollback { parent, earlier: sibling.epoch, later })
    }

    fn live(&mut self, epoch: Epoch, records: u64) -> Option<LineageIncident> {
        let newest = self.epochs.iter().max_by_key(|known| known.live_at).map(|known| known.epoch);
        let hellos = self.hellos;
        let known = self.epochs.iter_mut().find(|known| known.epoch == epoch)?;
        let has_more = known.live_at > 0 && records > known.records;
        known.live_at = hellos;
        known.records = known.records.max(records);
        let between = newest?;
        let went_on = known.ended_at.is_some_and(|ended_at| records > ended_at);
        let takes_turns = has_more && !self.descends(epoch, between) && !self.descends(between, epoch);
        (went_on || takes_turns).then_some(LineageIncident::Clone { returned: epoch, between })
    }

    /// Whether `earlier` was heard of before `later`. What a hello that is late, or played again, leaves out may be newer than all it names.
    pub fn precedes(&self, earlier: Epoch, later: Epoch) -> bool {
        let heard = |epoch| self.epochs.iter().position(|known| known.epoch == epoch);
        heard(earlier).zip(heard(later)).is_some_and(|(earlier, later)| earlier < later)
    }

    /// Whether `epoch` is `ancestor`, or came from it.
    fn descends(&self, epoch: Epoch, ancestor: Epoch) -> bool {
        let mut at = Some(epoch);
        // As many steps as there are epochs: what an agent says may go in a circle.
        for _ in 0..=self.epochs.len() {
            if at == Some(ancestor) {
                return true;
            }
            at = self.epochs.iter().find(|known| Some(known.epoch) == at).and_then(|known| known.parent);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Lane, Seq};
    use crate::message::{LaneHead, Parent};
    use alloc::vec;

    fn heads(epoch: u8, parent: Option<u8>, live: bool) -> EpochHeads {
        selling(epoch, parent, live, 1)
    }

    fn selling(epoch: u8, parent: Option<u8>, live: bool, records: u64) -> EpochHeads {
        let parent = parent.map(|parent| Parent { epoch: Epoch([parent; 16]), lanes: Vec::new() });
        let lane = LaneHead {
            lane: Lane::Trade,
            first: Seq::FIRST,
            chain_before: None,
            last: Seq(records),
            chain: None,
            gone: Vec::new(),
        };
        EpochHeads { epoch: Epoch([epoch; 16]), parent, live, lanes: vec![lane] }
    }

    #[test]
    fn restarts_are_no_incident() {
        let mut lineage = Lineage::default();
        for _ in 0..3 {
            assert_eq!(lineage.hello(&[heads(1, None, true)], true), []);
        }
        assert_eq!(lineage.hello(&[heads(1, None, false)], true), []);
        for _ in 0..3 {
            assert_eq!(lineage.hello(&[heads(1, None, false), heads(2, Some(1), true)], true), []);
        }
    }

    #[test]
    fn a_box_that_was_set_up_anew_is_no_clone() {
        let mut lineage = Lineage::default();
        lineage.hello(&[heads(1, None, true)], true);
        assert_eq!(lineage.hello(&[heads(2, None, true)], true), []);
    }

    #[test]
    fn two_boxes_that_sell_in_turns_are_a_clone() {
        let mut lineage = Lineage::default();
        lineage.hello(&[heads(1, None, true)], true);
        assert_eq!(lineage.hello(&[heads(1, None, false), heads(2, Some(1), true)], true), []);
        let rollback = lineage.hello(&[heads(1, None, false), heads(3, Some(1), true)], true);
        assert!(matches!(rollback[..], [LineageIncident::Rollback { .. }]));
        let mut turn =
            |epoch, records| lineage.hello(&[heads(1, None, false), selling(epoch, Some(1), true, records)], true);
        assert_eq!(turn(2, 1), [], "a hello that is played again says nothing new");
        assert_eq!(turn(3, 1), []);
        let clone = LineageIncident::Clone { returned: Epoch([2; 16]), between: Epoch([3; 16]) };
        assert_eq!(turn(2, 2), [clone]);
    }

    #[test]
    fn a_parent_that_sells_beside_its_child_is_a_clone() {
        let mut lineage = Lineage::default();
        let child = |lineage: &mut Lineage| lineage.hello(&[heads(1, None, false), heads(2, Some(1), true)], true);
        lineage.hello(&[heads(1, None, true)], true);
        child(&mut lineage);
        assert_eq!(lineage.hello(&[heads(1, None, true)], true), []);
        child(&mut lineage);
        assert!(matches!(lineage.hello(&[selling(1, None, true, 2)], true)[..], [LineageIncident::Clone { .. }]));
    }

    #[test]
    fn hellos_that_are_late_or_played_again_are_no_clone() {
        let mut lineage = Lineage::default();
        let day: Vec<_> = (1..9).map(|records| [selling(1, None, true, records)]).collect();
        for hello in &day {
            lineage.hello(hello, true);
        }
        lineage.hello(&[selling(1, None, false, 9), heads(2, Some(1), true)], true);
        assert_eq!(lineage.hello(&[selling(1, None, true, 9)], true), [], "the last one before the end came late");
        for _ in 0..3 {
            for hello in &day {
                assert_eq!(lineage.hello(hello, true), []);
                assert_eq!(lineage.hello(&[selling(1, None, false, 9), heads(2, Some(1), true)], true), []);
            }
        }
    }

    #[test]
    fn an_epoch_precedes_those_that_were_heard_of_after_it() {
        let mut lineage = Lineage::default();
        lineage.hello(&[heads(2, None, false), heads(1, Some(2), true)], true);
        lineage.hello(&[heads(3, Some(1), true)], true);
        let [first, second, third, unknown] = [2, 1, 3, 9].map(|name| Epoch([name; 16]));
        assert!(lineage.precedes(first, second) && lineage.precedes(first, third) && lineage.precedes(second, third));
        assert!(!lineage.precedes(third, second) && !lineage.precedes(second, first));
        assert!(!lineage.precedes(first, first));
        assert!(!lineage.precedes(unknown, first) && !lineage.precedes(first, unknown));
    }

    #[test]
    fn a_box_set_back_to_an_older_state_is_told_once() {
        let mut lineage = Lineage::default();
        lineage.hello(&[heads(1, None, false), heads(2, Some(1), true)], true);
        let incidents = lineage.hello(&[heads(1, None, false), heads(3, Some(1), true)], true);
        assert_eq!(
            incidents,
            [LineageIncident::Rollback { parent: Epoch([1; 16]), earlier: Epoch([2; 16]), later: Epoch([3; 16]) }]
        );
        assert_eq!(lineage.hello(&[heads(1, None, false), heads(3, Some(1), true)], true), []);
    }
}
