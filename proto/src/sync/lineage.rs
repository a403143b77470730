//! The hub's view of an agent's epochs: which came from which, and whether two boxes claim to be one.
//!
//! Invariant: an epoch is live in one process only, and a process that ended never says hello again. So an epoch that says hello
//! as live after another did so in between means two running processes: a clone. Two children of one parent mean that a
//! box was set back to an older state; where one of them has fallen silent nothing is lost, and a person should know.

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
                self.epochs.push(EpochState { epoch: heads.epoch, parent, live_at: 0 });
            }
            if heads.live {
                incidents.extend(self.live(heads.epoch));
            }
        }
        incidents
    }

    fn rollback(&self, later: Epoch, parent: Option<Epoch>) -> Option<LineageIncident> {
        let parent = parent?;
        let sibling = self.epochs.iter().find(|known| known.parent == Some(parent))?;
        Some(LineageIncident::Rollback { parent, earlier: sibling.epoch, later })
    }

    fn live(&mut self, epoch: Epoch) -> Option<LineageIncident> {
        let newest = self.epochs.iter().max_by_key(|known| known.live_at).map(|known| (known.epoch, known.live_at));
        let hellos = self.hellos;
        let known = self.epochs.iter_mut().find(|known| known.epoch == epoch)?;
        let spoke_before = known.live_at > 0;
        known.live_at = hellos;
        let (between, between_at) = newest?;
        (spoke_before && between != epoch && between_at > 0)
            .then_some(LineageIncident::Clone { returned: epoch, between })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Parent;

    fn heads(epoch: u8, parent: Option<u8>, live: bool) -> EpochHeads {
        let parent = parent.map(|parent| Parent { epoch: Epoch([parent; 16]), lanes: Vec::new() });
        EpochHeads { epoch: Epoch([epoch; 16]), parent, live, lanes: Vec::new() }
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
    fn two_boxes_that_take_turns_are_a_clone() {
        let mut lineage = Lineage::default();
        lineage.hello(&[heads(1, None, true)], true);
        assert_eq!(lineage.hello(&[heads(1, None, false), heads(2, Some(1), true)], true), []);
        let rollback = lineage.hello(&[heads(1, None, false), heads(3, Some(1), true)], true);
        assert!(matches!(rollback[..], [LineageIncident::Rollback { .. }]));
        let clone = lineage.hello(&[heads(1, None, false), heads(2, Some(1), true)], true);
        assert_eq!(clone, [LineageIncident::Clone { returned: Epoch([2; 16]), between: Epoch([3; 16]) }]);
    }

    #[test]
    fn a_parent_that_lives_beside_its_child_is_a_clone() {
        let mut lineage = Lineage::default();
        lineage.hello(&[heads(1, None, true)], true);
        lineage.hello(&[heads(1, None, false), heads(2, Some(1), true)], true);
        assert!(matches!(lineage.hello(&[heads(1, None, true)], true)[..], [LineageIncident::Clone { .. }]));
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
