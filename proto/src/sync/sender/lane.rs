//! One lane of one epoch, as the sender sees it: the hub's mark, what is in flight, and when to send again.
//!
//! Invariant: nothing is sendable without a mark of this session; a lane with something unanswered has a timer. The window over all
//! lanes is the sender's business, not this one's.

use alloc::collections::VecDeque;

use crate::id::{Seq, SeqRange};
use crate::limits::{BATCH_RECORDS_MAX, RESEND_MS_MAX, RESEND_MS_MIN};
use crate::message::{Gone, GoneReason, LaneHead, Mark, Nack, NackReason};
use crate::planted::{self, Bug};
use crate::time::Moment;

/// Records that make a batch worth sending while others are in flight.
const FULL_BATCH_RECORDS: u64 = 64;

/// Batches of one lane in flight below which even a single record is sent at once; above, a batch is filled first.
const EAGER_BATCHES: usize = 4;

#[derive(Clone, Debug)]
pub(super) struct Flight {
    pub(super) range: SeqRange,
    pub(super) bytes: usize,
}

#[derive(Clone, Debug)]
pub(super) struct LaneSide {
    pub(super) head: LaneHead,
    /// The hub's mark in this session; before it is known nothing is sent.
    pub(super) mark: Option<Mark>,
    /// What the hub asks for and the agent gave back long ago.
    pub(super) reclaimed: Option<Gone>,
    pub(super) next: Seq,
    /// Highest number sent in this session, to tell first sendings from repetitions.
    pub(super) sent: Seq,
    pub(super) flights: VecDeque<Flight>,
    pub(super) progress_at: Moment,
    /// Rounds of sending again without progress; doubles the wait.
    pub(super) rounds: u32,
    /// Added to the wait, so that lanes and stores do not repeat in step.
    pub(super) spread_ms: u64,
    pub(super) records_max: usize,
    /// What a person wants again, whatever the mark says.
    pub(super) asked: Option<SeqRange>,
}

impl LaneSide {
    pub(super) fn new(head: LaneHead, records_max: usize, now: Moment) -> Self {
        let next = head.first;
        Self {
            head,
            mark: None,
            reclaimed: None,
            next,
            sent: Seq::NONE,
            flights: VecDeque::new(),
            progress_at: now,
            rounds: 0,
            spread_ms: 0,
            records_max,
            asked: None,
        }
    }

    /// The first number that the hub does not have, at or after `next`, jumping over what it has or will never get.
    pub(super) fn sendable(&self, window: u64) -> Option<Seq> {
        let mark = self.mark.as_ref()?;
        if let Some(asked) = self.asked {
            return Some(asked.first);
        }
        let mut seq = self.next.max(mark.stored.next()).max(self.head.first);
        loop {
            let held = mark.ranges.iter().find(|range| range.contains(seq)).map(|range| range.last);
            let gone = self.head.gone.iter().find(|gone| gone.range.contains(seq)).map(|gone| gone.range.last);
            match held.or(gone) {
                Some(last) => seq = last.next(),
                None => break,
            }
        }
        (seq <= self.head.last && seq.above(mark.stored) <= window).then_some(seq)
    }

    /// The mark as the agent relies on it.
    pub(super) fn told_mark(&self) -> Option<Mark> {
        let mark = self.mark.clone()?;
        Some(if planted::is(Bug::ReclaimOnSent) { Mark { safe: mark.safe.max(self.sent), ..mark } } else { mark })
    }

    pub(super) fn sent(&mut self, range: SeqRange, bytes: usize, now: Moment) {
        if let Some(asked) = self.asked.filter(|asked| asked.contains(range.first)) {
            let first = range.last.next();
            self.asked = (first <= asked.last).then_some(SeqRange { first, ..asked });
            return;
        }
        if self.flights.is_empty() {
            self.progress_at = now;
        }
        self.flights.push_back(Flight { range, bytes });
        self.next = range.last.next();
        self.sent = self.sent.max(range.last);
    }

    pub(super) fn may_send(&self, window: u64) -> bool {
        let Some(seq) = self.sendable(window) else {
            return false;
        };
        // A lane that makes no progress keeps one batch in flight as a probe and leaves the window to the others.
        let is_stuck = self.rounds > 0 && !self.flights.is_empty();
        let waiting = self.head.last.above(seq).saturating_add(1);
        !is_stuck && (self.flights.len() < EAGER_BATCHES || waiting >= FULL_BATCH_RECORDS)
    }

    /// Takes the hub's authoritative mark; says whether the hub must be told of something gone.
    pub(super) fn welcome(&mut self, mark: Mark, now: Moment) -> bool {
        let known = self.mark.as_ref().filter(|_| planted::is(Bug::MarksNeverLowered));
        let mark = known.filter(|known| known.stored > mark.stored).cloned().unwrap_or(mark);
        let went_back = self.mark.as_ref().is_none_or(|known| mark.stored < known.stored);
        if went_back {
            self.flights.clear();
            self.next = mark.stored.next();
            self.rounds = 0;
            self.progress_at = now;
        }
        let wanted = mark.stored.next();
        self.mark = Some(mark);
        self.drop_flights(now);
        let missing = self.head.first > wanted;
        let is_told = self.reclaimed.is_some();
        self.reclaimed = missing.then(|| Gone {
            range: SeqRange { first: wanted, last: self.head.first.previous() },
            reason: GoneReason::Reclaimed,
            chain_after: self.head.chain_before,
        });
        missing && !is_told
    }

    /// Takes an ack; says whether the mark moved.
    pub(super) fn ack(&mut self, mark: Mark, now: Moment, records_max: usize) -> bool {
        let Some(known) = self.mark.as_mut() else {
            return false;
        };
        let moved = mark.stored > known.stored;
        let safer = mark.safe > known.safe;
        if mark.stored >= known.stored {
            known.ranges = mark.ranges;
        }
        known.stored = known.stored.max(mark.stored);
        known.safe = known.safe.max(mark.safe);
        if moved {
            self.progress_at = now;
            self.rounds = 0;
            self.records_max = self.records_max.saturating_mul(2).min(records_max);
        }
        self.drop_flights(now);
        moved || safer
    }

    pub(super) fn drop_flights(&mut self, now: Moment) {
        let Some(mark) = &self.mark else { return };
        let before = self.flights.len();
        let held = |range: SeqRange| {
            range.last <= mark.stored
                || mark.ranges.iter().any(|held| held.contains(range.first) && held.contains(range.last))
        };
        self.flights.retain(|flight| !held(flight.range));
        if self.flights.len() < before {
            self.progress_at = now;
        }
    }

    pub(super) fn resend_at(&self) -> Option<Moment> {
        let stored = self.mark.as_ref()?.stored;
        let has_unanswered = !self.flights.is_empty() || (stored < self.next.previous());
        let wait_ms = RESEND_MS_MIN.checked_shl(self.rounds.min(8)).unwrap_or(RESEND_MS_MAX).min(RESEND_MS_MAX);
        has_unanswered.then(|| self.progress_at.plus_ms(wait_ms).plus_ms(self.spread_ms))
    }

    pub(super) fn rewind(&mut self, now: Moment) {
        let Some(mark) = &self.mark else { return };
        self.next = mark.stored.next();
        self.flights.clear();
        self.rounds = self.rounds.saturating_add(1);
        self.progress_at = now;
    }

    pub(super) fn refuse(&mut self, nack: Nack, now: Moment, wait_ms: u64) {
        let Some(at) = self.flights.iter().position(|flight| flight.range.first == nack.first.seq) else {
            return;
        };
        let Some(flight) = self.flights.get(at) else {
            return;
        };
        let count = usize::try_from(flight.range.count()).unwrap_or(BATCH_RECORDS_MAX);
        match nack.reason {
            NackReason::Ahead => {
                // The hub keeps no more above its mark: wait for the mark to move, or for the timer.
                self.flights.remove(at);
                self.rounds = self.rounds.max(1);
            }
            NackReason::Undecodable | NackReason::TooLarge => {
                let was_single = count <= 1;
                self.records_max = (count / 2).max(1);
                self.flights.truncate(at);
                self.next = nack.first.seq;
                if was_single {
                    // Nothing smaller is left: the timer tries again, the other lanes go on meanwhile.
                    self.rounds = self.rounds.saturating_add(1);
                    self.next = self.head.last.next();
                    self.progress_at = now.plus_ms(wait_ms);
                }
            }
        }
    }
}
