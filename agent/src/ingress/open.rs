//! The connections that are open, and which of them makes room for another.
//!
//! Invariant: a connection that is answering is never given up. Where a peer has its share, it makes room itself; where there is no room at
//! all, those that never got a request through go first, of them the peer's that has most, of its the one that does least. So neither one
//! peer with many sockets nor many peers with one each keep a till out that has shown that it is one.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use tokio::sync::watch;
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::Instant;

use super::connection::{Patience, Phase, PhaseCell};
use super::peers::Payer;

/// The connections that are open.
pub(super) struct Open {
    /// What phases are counted from.
    pub(super) start: Instant,
    /// Their tasks.
    pub(super) tasks: JoinSet<()>,
    /// Tells them to end.
    pub(super) stopped: watch::Receiver<bool>,
    by_task: Vec<One>,
}

struct One {
    task: AbortHandle,
    phase: PhaseCell,
    /// Whose it is; nobody's where it is of the Unix socket.
    payer: Option<Payer>,
}

impl Open {
    pub(super) fn new(stopped: watch::Receiver<bool>) -> Self {
        Self { start: Instant::now(), tasks: JoinSet::new(), stopped, by_task: Vec::new() }
    }

    /// Milliseconds since `start`.
    pub(super) fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn len(&self) -> usize {
        self.by_task.len()
    }

    /// How many a peer has.
    pub(super) fn of(&self, payer: &Payer) -> usize {
        self.by_task.iter().filter(|one| one.payer.as_ref() == Some(payer)).count()
    }

    pub(super) fn add(
        &mut self,
        work: impl Future<Output = ()> + Send + 'static,
        phase: PhaseCell,
        payer: Option<Payer>,
    ) {
        let task = self.tasks.spawn(work);
        self.by_task.push(One { task, phase, payer });
    }

    pub(super) fn forget(&mut self, ended: Id) {
        self.by_task.retain(|one| one.task.id() != ended);
    }

    pub(super) fn cut_overdue(&mut self, patience: &Patience) {
        for one in self.by_task.extract_if(.., |one| one.phase.is_overdue(patience)) {
            one.task.abort();
        }
    }

    /// Closes the peer's connection that does least. Its till, if it is one, gets no answer and sends again.
    pub(super) fn give_up_one_of(&mut self, payer: &Payer) -> bool {
        let of_payer = self.by_task.iter().enumerate().filter(|(_, one)| one.payer.as_ref() == Some(payer));
        let least = of_payer.map(|(index, one)| (one.phase.get(), index));
        let least = least.filter(|((phase, _), _)| *phase != Phase::Answering).min();
        self.close(least.map(|(_, index)| index))
    }

    /// The same among all.
    pub(super) fn give_up_one(&mut self) -> bool {
        let mut counts: BTreeMap<Option<&Payer>, usize> = BTreeMap::new();
        for one in &self.by_task {
            *counts.entry(one.payer.as_ref()).or_default() += 1;
        }
        let count = |one: &One| counts.get(&one.payer.as_ref()).copied().unwrap_or_default();
        let rank = |one: &One| (one.phase.is_proven(), Reverse(count(one)), one.phase.get());
        let candidates = self.by_task.iter().enumerate().filter(|(_, one)| one.phase.get().0 != Phase::Answering);
        let least = candidates.map(|(index, one)| (rank(one), index)).min();
        self.close(least.map(|(_, index)| index))
    }

    fn close(&mut self, index: Option<usize>) -> bool {
        if let Some(index) = index {
            self.by_task.swap_remove(index).task.abort();
        }
        index.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payer(name: &str) -> Payer {
        Payer::Name(name.to_owned())
    }

    impl Open {
        fn hold(&mut self, whose: &str, phase: Phase) -> PhaseCell {
            let cell = PhaseCell::new(self.start);
            cell.enter(phase);
            self.add(std::future::pending(), cell.clone(), Some(payer(whose)));
            cell
        }

        fn held(&self) -> Vec<(String, Phase)> {
            self.by_task.iter().map(|one| (one.payer.as_ref().unwrap().to_string(), one.phase.get().0)).collect()
        }
    }

    fn open() -> Open {
        Open::new(watch::channel(false).1)
    }

    #[tokio::test]
    async fn a_peer_makes_room_for_itself_and_by_what_does_least() {
        let mut open = open();
        for phase in [Phase::Answering, Phase::Body, Phase::Head, Phase::Handshake, Phase::Idle, Phase::Held] {
            open.hold("flood", phase);
        }
        open.hold("till", Phase::Idle);
        let flood = payer("flood");
        assert_eq!((open.of(&flood), open.len()), (6, 7));
        for left in (1..=5).rev() {
            assert!(open.give_up_one_of(&flood));
            assert_eq!(open.of(&flood), left);
        }
        assert_eq!(open.held().iter().filter(|(whose, _)| whose == "flood").count(), 1);
        assert!(open.held().contains(&("flood".to_owned(), Phase::Answering)));
        assert!(!open.give_up_one_of(&flood), "what is answering stays");
        assert!(open.held().contains(&("till".to_owned(), Phase::Idle)), "another peer's is not touched");
    }

    #[tokio::test]
    async fn who_never_got_a_request_through_goes_before_who_did_and_who_has_most_before_others() {
        let mut open = open();
        open.hold("till", Phase::Idle).prove();
        open.hold("till", Phase::Idle).prove();
        open.hold("new till", Phase::Handshake);
        for _ in 0..3 {
            open.hold("flood", Phase::Body);
        }
        for left in [2, 1] {
            assert!(open.give_up_one());
            assert_eq!(open.of(&payer("flood")), left, "{:?}", open.held());
        }
        // One each: the one that does least. Then only those are left that showed what they are.
        assert!(open.give_up_one());
        assert_eq!(open.of(&payer("new till")), 0);
        assert!(open.give_up_one());
        assert_eq!(open.held(), [("till".to_owned(), Phase::Idle), ("till".to_owned(), Phase::Idle)]);
    }
}
