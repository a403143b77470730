//! The hub's end of one lane of one epoch: what is new, doubled or forked, and how far the watermark goes.
//!
//! Invariant: `stored` never crosses a number that is neither stored nor declared gone; `ranges` lie above `stored + 1`, ascend
//! and do not touch. The caller holds the lane's row lock from [`LaneState`]'s reading to its writing, and commits it
//! with the records. This module does not know where records are kept: it asks for the digests that it needs.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::id::{Chain, Digest, LaneKey, Seq, SeqRange};
use crate::limits::{ACK_RANGES_MAX, RECEIVER_RANGES_MAX, WINDOW_SEQS_MAX};
use crate::message::{Gone, GoneReason, LaneHead, Mark};
use crate::planted::{self, Bug};

/// Heads that the agent stated and that the watermark has not reached yet; the newest are kept.
const ANCHORS_MAX: usize = 16;

/// What the ledger keeps of a lane, beside its records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneState {
    /// Everything up to here is stored or gone.
    pub stored: Seq,
    /// Everything up to here survives a restore of the ledger's backup.
    pub safe: Seq,
    /// The chain after `stored`; `None` after a gap whose chain nobody knows, until the next stated head.
    pub chain: Option<Chain>,
    /// What is stored above `stored`.
    pub ranges: Vec<SeqRange>,
    /// What was declared gone above `stored`.
    pub gone: Vec<Gone>,
    /// What was crossed as gone, up to `stored`, and has not come since. Ascending, apart from each other.
    pub absent: Vec<SeqRange>,
    /// Stated heads above `stored`, to be compared when the watermark gets there.
    pub anchors: Vec<(Seq, Chain)>,
}

/// What the receiver makes of a batch before it looks into the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// It lies too far ahead: drop it, say so; it comes again.
    Ahead,
    /// Take it. The digests stored under `known` decide about those numbers; empty for the ordinary case.
    Take {
        /// Numbers of the batch that may be stored already.
        known: Vec<SeqRange>,
    },
}

/// What becomes of one record of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Store it.
    New,
    /// It fills a number that was declared gone: store it.
    Fill,
    /// It is there already: count it.
    Duplicate,
    /// Another record has its key: store it beside the first, under its own digest.
    Fork,
}

/// Something about a lane that a person should see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incident {
    /// A range will not come.
    Gone(Gone),
    /// The chain over the stored records differs from what the agent stated.
    ChainMismatch {
        /// After this number.
        seq: Seq,
        /// What the agent stated.
        stated: Chain,
        /// What the stored records give.
        found: Chain,
    },
    /// The hub has more of a lane than the agent that wrote it: the agent's disk lost what it had synced, or is an older copy.
    AgentBehind {
        /// The agent's last number.
        last: Seq,
        /// The hub's.
        stored: Seq,
    },
}

impl LaneState {
    /// A lane of which nothing is known yet.
    pub fn new(key: LaneKey) -> Self {
        Self {
            stored: Seq::NONE,
            safe: Seq::NONE,
            chain: Some(Chain::genesis(key.epoch, key.lane)),
            ranges: Vec::new(),
            gone: Vec::new(),
            absent: Vec::new(),
            anchors: Vec::new(),
        }
    }

    /// First look at a batch that covers `range`.
    pub fn plan(&self, range: SeqRange) -> Plan {
        let reach = self.stored.plus(WINDOW_SEQS_MAX);
        let opens_range = range.first > self.stored.next() && !self.touches(range);
        if range.last > reach || (opens_range && self.ranges.len() >= RECEIVER_RANGES_MAX) {
            return Plan::Ahead;
        }
        let below =
            (range.first <= self.stored).then(|| SeqRange { first: range.first, last: range.last.min(self.stored) });
        let above = self.ranges.iter().filter_map(|stored| intersection(*stored, range));
        Plan::Take { known: below.into_iter().chain(above).collect() }
    }

    fn touches(&self, range: SeqRange) -> bool {
        self.ranges.iter().any(|stored| stored.first <= range.last.next() && range.first <= stored.last.next())
    }

    /// Whether `seq` is stored, or was crossed as gone.
    pub fn holds(&self, seq: Seq) -> bool {
        seq <= self.stored || self.ranges.iter().any(|range| range.contains(seq))
    }

    /// Judges one record; `existing` are the digests stored under its key, which the caller loads for the ranges
    /// that [`Self::plan`] named.
    pub fn judge(&self, seq: Seq, digest: Digest, existing: &[Digest]) -> Verdict {
        if existing.contains(&digest) {
            Verdict::Duplicate
        } else if !existing.is_empty() {
            if planted::is(Bug::ForkDropped) { Verdict::Duplicate } else { Verdict::Fork }
        } else if self.holds(seq) || self.gone.iter().any(|gone| gone.range.contains(seq)) {
            Verdict::Fill
        } else {
            Verdict::New
        }
    }

    /// Notes that every record of `range` is stored now. Follow with [`Self::reach`] and [`Self::advance`].
    pub fn note_stored(&mut self, range: SeqRange) {
        self.absent = self.absent.iter().flat_map(|absent| without(*absent, range)).flatten().collect();
        if range.last <= self.stored {
            return;
        }
        let mut merged = SeqRange { first: range.first.max(self.stored.next()), last: range.last };
        self.ranges.retain(|stored| {
            let apart = stored.last.next() < merged.first || merged.last.next() < stored.first;
            if !apart {
                merged = SeqRange { first: merged.first.min(stored.first), last: merged.last.max(stored.last) };
            }
            apart
        });
        let at = self.ranges.partition_point(|stored| stored.first < merged.first);
        self.ranges.insert(at, merged);
    }

    /// Notes a record that is kept where the watermark has passed, or beside another: no backup holds it yet.
    pub fn note_late(&mut self, seq: Seq) {
        self.safe = self.safe.min(seq.previous());
    }

    /// How far a copy of the ledger that has this mark holds what is held here.
    pub fn verified_by(&self, copy: &Mark) -> Seq {
        let own = self.absent.iter().copied();
        let lacking = copy.absent.iter().filter_map(|absent| absent.first_outside(&own)).min();
        let copied = copy.stored.min(self.stored);
        lacking.map_or(copied, |lacking| copied.min(lacking.previous()))
    }

    /// How far the watermark can go now. The caller then gives [`Self::advance`] the digest of each stored number from `stored + 1`
    /// up to here.
    pub fn reach(&self) -> Seq {
        let mut reach = self.stored;
        loop {
            let next = reach.next();
            let stored = self.ranges.iter().find(|range| range.contains(next)).map(|range| range.last);
            let gone = self.gone.iter().find(|gone| gone.range.contains(next)).map(|gone| gone.range.last);
            match stored.or(gone) {
                // A gone range ends where something stored begins: what is stored is walked, what is gone is crossed.
                Some(last) => reach = if stored.is_some() { last } else { self.gone_until(next, last) },
                None => match self.ranges.iter().map(|range| range.first).filter(|first| *first > next).min() {
                    Some(first) if planted::is(Bug::GapClosed) => reach = first.previous(),
                    Some(_) | None => return reach,
                },
            }
        }
    }

    fn gone_until(&self, first: Seq, last: Seq) -> Seq {
        self.ranges
            .iter()
            .filter(|range| range.first > first && range.first <= last)
            .map(|range| range.first.previous())
            .min()
            .unwrap_or(last)
    }

    /// Moves the watermark to [`Self::reach`], following the chain. `digest_of` gives the digest stored first under a number.
    pub fn advance(&mut self, mut digest_of: impl FnMut(Seq) -> Option<Digest>) -> Vec<Incident> {
        let mut incidents = Vec::new();
        let reach = self.reach();
        while self.stored < reach {
            let seq = self.stored.next();
            if self.ranges.iter().any(|range| range.contains(seq)) {
                self.chain = self.chain.zip(digest_of(seq)).map(|(chain, digest)| chain.next(seq, digest));
                self.stored = seq;
            } else {
                self.cross_gone(seq);
            }
            self.check_anchor(&mut incidents);
        }
        let stored = self.stored;
        self.ranges.retain(|range| range.last > stored);
        self.gone.retain(|gone| gone.range.last > stored);
        self.anchors.retain(|(seq, _)| *seq > stored);
        incidents
    }

    fn cross_gone(&mut self, seq: Seq) {
        let found = self.gone.iter().find(|gone| gone.range.contains(seq)).copied();
        let last = found.map_or(seq, |gone| self.gone_until(seq, gone.range.last));
        let whole = found.filter(|gone| gone.range.last == last);
        let before = found.filter(|gone| gone.range.first == seq).and_then(|gone| gone.chain_before);
        self.chain = match (self.chain, before) {
            // Up to here another box's records are stored: the chain is neither box's any more.
            (Some(chain), Some(before)) if chain != before => Some(chain.next(last, Digest::default())),
            _ => whole.and_then(|gone| gone.chain_after),
        };
        if found.is_some() {
            self.note_absent(SeqRange { first: seq, last });
        }
        self.stored = last;
    }

    fn note_absent(&mut self, range: SeqRange) {
        match self.absent.last_mut() {
            Some(before) if before.last.next() == range.first => before.last = range.last,
            Some(_) | None => self.absent.push(range),
        }
        if self.absent.len() > RECEIVER_RANGES_MAX {
            // As one range the two oldest claim too much, which costs a sending in vain.
            let oldest = self.absent.remove(0);
            if let Some(next) = self.absent.first_mut() {
                next.first = oldest.first;
            }
        }
    }

    fn check_anchor(&mut self, incidents: &mut Vec<Incident>) {
        let stated = self.anchors.iter().find(|(seq, _)| *seq == self.stored).map(|(_, chain)| *chain);
        let Some(stated) = stated else { return };
        match self.chain {
            Some(found) if found != stated => {
                incidents.push(Incident::ChainMismatch { seq: self.stored, stated, found });
            }
            // Never in the place of what is known: the marks tell agents what is stored here.
            Some(_) => {}
            None => self.chain = Some(stated),
        }
    }

    /// Takes in what a hello says of this lane; `live` is whether the epoch was still appended to. Follow with [`Self::advance`].
    ///
    /// A head of a live epoch that lies behind says nothing but that the hello is late. That of an epoch that ended stays as it is: there
    /// the agent lost what the hub has.
    pub fn hello(&mut self, head: &LaneHead, live: bool) -> Vec<Incident> {
        let mut incidents = Vec::new();
        if head.last < self.stored && !live {
            incidents.push(Incident::AgentBehind { last: head.last, stored: self.stored });
        }
        self.anchor(head.first.previous(), head.chain_before);
        self.anchor(head.last, head.chain);
        self.check_anchor(&mut incidents);
        for gone in &head.gone {
            self.declare_gone(*gone, &mut incidents);
        }
        incidents
    }

    /// Nobody speaks any more who has this lane: what is missing up to `last` is called gone, until a box that has it speaks again. Follow
    /// with [`Self::advance`].
    pub fn give_up(&mut self, last: Seq) -> Vec<Incident> {
        let mut incidents = Vec::new();
        let last = self.ranges.last().map_or(last, |range| range.last.max(last));
        if last > self.stored {
            let range = SeqRange { first: self.stored.next(), last };
            let gone = Gone { range, reason: GoneReason::Missing, chain_before: None, chain_after: None };
            self.declare_gone(gone, &mut incidents);
        }
        incidents
    }

    fn anchor(&mut self, seq: Seq, chain: Option<Chain>) {
        let Some(chain) = chain.filter(|_| seq >= self.stored && seq > Seq::NONE) else {
            return;
        };
        self.anchors.retain(|(known, _)| *known != seq);
        if self.anchors.len() >= ANCHORS_MAX {
            self.anchors.remove(0);
        }
        self.anchors.push((seq, chain));
    }

    /// Declares what is not stored of a range as gone; what is stored of it stays so.
    fn declare_gone(&mut self, gone: Gone, incidents: &mut Vec<Incident>) {
        let mut first = gone.range.first.max(self.stored.next());
        while first <= gone.range.last {
            let covered = self.ranges.iter().find(|range| range.contains(first)).map(|range| range.last);
            let declared = self.gone.iter().find(|known| known.range.contains(first)).map(|known| known.range.last);
            if let Some(last) = covered.or(declared) {
                first = last.next();
                continue;
            }
            let stop = self.ranges.iter().map(|range| range.first);
            let stop = stop.chain(self.gone.iter().map(|known| known.range.first));
            let last = stop
                .filter(|stop| *stop > first)
                .min()
                .map_or(gone.range.last, |stop| stop.previous().min(gone.range.last));
            let chain_before = gone.chain_before.filter(|_| first == gone.range.first);
            let chain_after = gone.chain_after.filter(|_| last == gone.range.last);
            let part = Gone { range: SeqRange { first, last }, chain_before, chain_after, ..gone };
            if self.gone.len() < RECEIVER_RANGES_MAX {
                let at = self.gone.partition_point(|known| known.range.first < first);
                self.gone.insert(at, part);
                incidents.push(Incident::Gone(part));
            }
            first = last.next();
        }
    }

    /// Where the lane stands, for a welcome or an ack.
    pub fn mark(&self, key: LaneKey) -> Mark {
        let ranges = self.ranges.iter().take(ACK_RANGES_MAX).copied().collect();
        let mut absent = self.absent.clone();
        let end = absent.last().map(|range| range.last);
        if let Some((end, kept)) = end.zip(absent.get_mut(ACK_RANGES_MAX - 1)) {
            kept.last = end;
        }
        absent.truncate(ACK_RANGES_MAX);
        Mark { key, stored: self.stored, safe: self.safe, ranges, absent, chain: self.chain }
    }
}

fn intersection(one: SeqRange, other: SeqRange) -> Option<SeqRange> {
    let both = SeqRange { first: one.first.max(other.first), last: one.last.min(other.last) };
    (both.first <= both.last).then_some(both)
}

/// What is left of a range below and above another.
fn without(range: SeqRange, taken: SeqRange) -> [Option<SeqRange>; 2] {
    let below = SeqRange { last: range.last.min(taken.first.previous()), ..range };
    let above = SeqRange { first: range.first.max(taken.last.next()), ..range };
    [below, above].map(|left| (left.first <= left.last).then_some(left))
}

#[cfg(test)]
mod edges;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Epoch, Lane};
    use alloc::collections::BTreeMap;
    use proptest::prelude::*;

    pub(super) const KEY: LaneKey = LaneKey { epoch: Epoch([1; 16]), lane: Lane::Trade };

    pub(super) fn digest(seq: Seq) -> Digest {
        Digest::of(&seq.0.to_le_bytes())
    }

    pub(super) fn chain_at(last: u64) -> Chain {
        (1..=last).fold(Chain::genesis(KEY.epoch, KEY.lane), |chain, seq| chain.next(Seq(seq), digest(Seq(seq))))
    }

    pub(super) fn range(first: u64, last: u64) -> SeqRange {
        SeqRange { first: Seq(first), last: Seq(last) }
    }

    fn take(state: &mut LaneState, stored: &mut BTreeMap<Seq, Digest>, batch: SeqRange) -> Vec<Incident> {
        let Plan::Take { known } = state.plan(batch) else { panic!("ahead") };
        for seq in (batch.first.0..=batch.last.0).map(Seq) {
            let is_known = known.iter().any(|range| range.contains(seq));
            let existing: Vec<Digest> = stored.get(&seq).copied().into_iter().collect();
            assert_eq!(is_known, stored.contains_key(&seq), "known and stored differ at {seq}");
            let verdict = state.judge(seq, digest(seq), &existing);
            assert_eq!(verdict, if is_known { Verdict::Duplicate } else { Verdict::New });
            stored.insert(seq, digest(seq));
        }
        state.note_stored(batch);
        state.advance(|seq| stored.get(&seq).copied())
    }

    proptest! {
        #[test]
        fn any_order_with_repeats_ends_whole_with_the_agents_chain(
            batches in proptest::collection::vec((1_u64..200, 1_u64..20), 1..60)
        ) {
            let mut state = LaneState::new(KEY);
            let mut stored = BTreeMap::new();
            for (first, count) in batches {
                let incidents = take(&mut state, &mut stored, range(first, first + count - 1));
                prop_assert!(incidents.is_empty());
                let whole = (1..=1_000).take_while(|seq| stored.contains_key(&Seq(*seq))).last().unwrap_or(0);
                prop_assert_eq!(state.stored, Seq(whole));
                prop_assert_eq!(state.chain, Some(chain_at(whole)));
                prop_assert!(state.ranges.windows(2).all(|pair| pair[0].last.next() < pair[1].first));
                prop_assert!(state.ranges.first().is_none_or(|first| first.first > state.stored.next()));
            }
        }
    }

    #[test]
    fn other_content_under_a_key_is_a_fork_and_the_second_time_a_duplicate() {
        let state = LaneState { stored: Seq(5), ..LaneState::new(KEY) };
        let other = Digest::of(b"other");
        assert_eq!(state.judge(Seq(3), other, &[digest(Seq(3))]), Verdict::Fork);
        assert_eq!(state.judge(Seq(3), other, &[digest(Seq(3)), other]), Verdict::Duplicate);
    }

    #[test]
    fn what_is_gone_is_crossed_named_once_and_filled_by_real_bytes() {
        let mut state = LaneState::new(KEY);
        let mut stored = BTreeMap::new();
        take(&mut state, &mut stored, range(1, 4));
        take(&mut state, &mut stored, range(8, 10));
        let gone = Gone {
            range: range(3, 7),
            reason: GoneReason::Damaged,
            chain_before: None,
            chain_after: Some(chain_at(7)),
        };
        let head = LaneHead {
            lane: KEY.lane,
            first: Seq(1),
            chain_before: None,
            last: Seq(10),
            chain: Some(chain_at(10)),
            gone: alloc::vec![gone],
        };
        let incidents = state.hello(&head, false);
        assert_eq!(incidents, [Incident::Gone(Gone { range: range(5, 7), ..gone })]);
        assert_eq!(state.advance(|seq| stored.get(&seq).copied()), []);
        assert_eq!((state.stored, state.chain), (Seq(10), Some(chain_at(10))));
        assert_eq!(state.hello(&head, false), []);
        assert_eq!(state.judge(Seq(6), digest(Seq(6)), &[]), Verdict::Fill);
    }

    #[test]
    fn behind_anothers_records_a_gap_makes_nobodys_chain() {
        for (before, is_own) in [(chain_at(1), true), (Chain::genesis(KEY.epoch, Lane::Ops), false)] {
            let mut state = LaneState::new(KEY);
            let mut stored = BTreeMap::new();
            take(&mut state, &mut stored, range(1, 1));
            let chain_after = Some(chain_at(2));
            let gone =
                Gone { range: range(2, 2), reason: GoneReason::Damaged, chain_before: Some(before), chain_after };
            state.declare_gone(gone, &mut Vec::new());
            state.advance(|_| None);
            assert_eq!((state.stored, state.chain == chain_after, state.chain.is_some()), (Seq(2), is_own, true));
        }
    }

    #[test]
    fn a_gap_without_a_known_chain_goes_on_from_the_next_stated_head() {
        let mut state = LaneState::new(KEY);
        let mut stored = BTreeMap::new();
        let gone = Gone { range: range(2, 2), reason: GoneReason::Damaged, chain_before: None, chain_after: None };
        let head = LaneHead {
            lane: KEY.lane,
            first: Seq(1),
            chain_before: None,
            last: Seq(4),
            chain: Some(chain_at(4)),
            gone: alloc::vec![gone],
        };
        state.hello(&head, false);
        take(&mut state, &mut stored, range(1, 1));
        take(&mut state, &mut stored, range(3, 3));
        assert_eq!((state.stored, state.chain), (Seq(3), None));
        assert_eq!(take(&mut state, &mut stored, range(4, 5)), []);
        assert_eq!((state.stored, state.chain), (Seq(5), Some(chain_at(5))));
    }

    #[test]
    fn altered_records_are_told_by_the_chain_and_block_nothing() {
        let mut state = LaneState::new(KEY);
        let head = LaneHead {
            lane: KEY.lane,
            first: Seq(1),
            chain_before: None,
            last: Seq(2),
            chain: Some(chain_at(2)),
            gone: Vec::new(),
        };
        state.hello(&head, false);
        state.note_stored(range(1, 3));
        let incidents = state.advance(|seq| Some(if seq == Seq(2) { Digest::of(b"altered") } else { digest(seq) }));
        assert!(matches!(incidents[..], [Incident::ChainMismatch { seq: Seq(2), .. }]));
        let altered = chain_at(1).next(Seq(2), Digest::of(b"altered")).next(Seq(3), digest(Seq(3)));
        assert_eq!(
            (state.stored, state.chain),
            (Seq(3), Some(altered)),
            "marks tell what is here, not what was stated"
        );
    }

    #[test]
    fn of_a_lane_that_nobody_has_any_more_what_is_missing_is_named_and_may_still_come() {
        let mut state = LaneState::new(KEY);
        let mut stored = BTreeMap::new();
        take(&mut state, &mut stored, range(1, 2));
        take(&mut state, &mut stored, range(5, 6));
        let lost =
            |range| Incident::Gone(Gone { range, reason: GoneReason::Missing, chain_before: None, chain_after: None });
        assert_eq!(state.give_up(Seq(8)), [lost(range(3, 4)), lost(range(7, 8))]);
        state.advance(|seq| stored.get(&seq).copied());
        assert_eq!((state.stored, state.chain), (Seq(8), None));
        assert_eq!((state.give_up(Seq(8)), state.give_up(Seq(3))), (Vec::new(), Vec::new()), "once");
        assert_eq!(state.judge(Seq(4), digest(Seq(4)), &[]), Verdict::Fill);
    }

    #[test]
    fn a_fork_is_in_no_backup_yet() {
        let mut state = LaneState { stored: Seq(9), safe: Seq(9), ..LaneState::new(KEY) };
        state.note_late(Seq(4));
        assert_eq!((state.stored, state.safe), (Seq(9), Seq(3)));
        state.note_late(Seq(7));
        assert_eq!(state.safe, Seq(3));
    }

    #[test]
    fn what_comes_after_all_is_absent_no_more() {
        let mut state = LaneState::new(KEY);
        let mut stored = BTreeMap::new();
        take(&mut state, &mut stored, range(1, 2));
        state.give_up(Seq(9));
        state.advance(|seq| stored.get(&seq).copied());
        assert_eq!(state.mark(KEY).absent, [range(3, 9)]);
        state.note_stored(range(5, 6));
        assert_eq!(state.mark(KEY).absent, [range(3, 4), range(7, 9)]);
        state.note_stored(range(1, 12));
        assert_eq!(state.mark(KEY).absent, []);
    }

    #[test]
    fn what_lies_too_far_ahead_is_not_taken() {
        let mut state = LaneState::new(KEY);
        assert_eq!(state.plan(range(WINDOW_SEQS_MAX, WINDOW_SEQS_MAX + 1)), Plan::Ahead);
        for index in 1..=RECEIVER_RANGES_MAX as u64 {
            state.note_stored(range(index * 3, index * 3));
        }
        let beyond = RECEIVER_RANGES_MAX as u64 * 3 + 30;
        assert_eq!(state.plan(range(beyond, beyond)), Plan::Ahead);
        assert!(matches!(state.plan(range(1, 1)), Plan::Take { .. }), "what closes the gap is always taken");
    }

    #[test]
    fn an_agent_that_knows_less_than_the_hub_is_told() {
        let mut state = LaneState { stored: Seq(9), ..LaneState::new(KEY) };
        let head =
            LaneHead { lane: KEY.lane, first: Seq(1), chain_before: None, last: Seq(8), chain: None, gone: Vec::new() };
        assert_eq!(state.hello(&head, false), [Incident::AgentBehind { last: Seq(8), stored: Seq(9) }]);
    }
}
