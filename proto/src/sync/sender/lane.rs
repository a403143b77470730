//! One lane of one epoch, as the sender sees it: the hub's mark, what is in flight, and when to send again.
//!
//! Invariant: nothing is sendable without a mark of this session; a lane with something unanswered has a timer; a mark counts only
//! where the chain at it is this box's own, and where the hub has all that is retained here up to it. Where it is not, a copy of the box gave
//! the same numbers to other records, or called them gone: the lane is contested, all that is retained of it is sent again, and only the
//! hub's word for the very batch counts. The window over all lanes is the sender's business, not this one's.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use crate::id::{Chain, Digest, Seq, SeqRange};
use crate::limits::{BATCH_RECORDS_MAX, RESEND_MS_MAX, RESEND_MS_MIN};
use crate::message::{Gone, GoneReason, LaneHead, Mark, Nack, NackReason};
use crate::planted::{self, Bug};
use crate::time::Moment;

/// Records that make a batch worth sending while others are in flight.
const FULL_BATCH_RECORDS: u64 = 64;

/// Gaps of a lane for which the chain before them is looked up: each may read a segment.
const GAPS_LOOKED_UP: usize = 64;

/// Batches of one lane in flight below which even a single record is sent at once; above, a batch is filled first.
const EAGER_BATCHES: usize = 4;

#[derive(Clone, Debug)]
pub(super) struct Flight {
    pub(super) range: SeqRange,
    pub(super) bytes: usize,
    content: Digest,
    /// The chain after it, where known.
    after: Option<Chain>,
}

/// A mark that the hub gave and whose chain is not compared yet.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    mark: Mark,
    /// From a welcome: it may lower.
    is_welcome: bool,
}

/// What came of the marks that the hub gave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Settled {
    /// The lane's mark moved.
    pub(super) moved: bool,
    /// The hub must be told of something gone.
    pub(super) must_tell: bool,
}

/// Whose records a mark is about.
enum Whose {
    Own,
    Others,
    /// Nobody here knows the chain after this number.
    Unknown(Seq),
}

#[derive(Clone, Debug)]
pub(super) struct LaneSide {
    pub(super) head: LaneHead,
    /// The hub's mark in this session; before it is known nothing is sent.
    pub(super) mark: Option<Mark>,
    /// At most a welcome's and, after it, what acks said since.
    pub(super) claims: VecDeque<Claim>,
    /// What the journal answered about the chain after a number.
    pub(super) proof: Option<(Seq, Option<Chain>)>,
    /// The chain before each gap, as the journal answered.
    pub(super) before_gaps: BTreeMap<Seq, Option<Chain>>,
    /// The hub has other records, or none, under numbers of this lane; `mark` counts only what the hub said by content.
    pub(super) contested: bool,
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
            claims: VecDeque::new(),
            proof: None,
            before_gaps: BTreeMap::new(),
            contested: false,
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
        while let Some(last) = dealt_with(mark, &self.head, seq) {
            seq = last.next();
        }
        (seq <= self.head.last && seq.above(mark.stored) <= window).then_some(seq)
    }

    /// The mark as the agent relies on it.
    pub(super) fn told_mark(&self) -> Option<Mark> {
        let mark = self.mark.clone()?;
        Some(if planted::is(Bug::ReclaimOnSent) { Mark { safe: mark.safe.max(self.sent), ..mark } } else { mark })
    }

    pub(super) fn sent(&mut self, range: SeqRange, bytes: usize, digests: &[Digest], now: Moment) {
        if let Some(asked) = self.asked.filter(|asked| asked.contains(range.first)) {
            let first = range.last.next();
            self.asked = (first <= asked.last).then_some(SeqRange { first, ..asked });
            return;
        }
        if self.flights.is_empty() {
            self.progress_at = now;
        }
        let numbered = (range.first.0..).map(Seq).zip(digests);
        let before = self.known_chain(range.first.previous());
        let after = before.map(|before| numbered.fold(before, |chain, (seq, digest)| chain.next(seq, *digest)));
        self.flights.push_back(Flight { range, bytes, content: Digest::over(digests), after });
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

    /// Takes the hub's authoritative mark.
    pub(super) fn welcome(&mut self, mark: Mark, now: Moment) -> Settled {
        self.claims.clear();
        self.claims.push_back(Claim { mark, is_welcome: true });
        self.settle(now)
    }

    /// Takes an ack.
    pub(super) fn ack(&mut self, mark: Mark, now: Moment) -> Settled {
        if self.mark.is_none() && self.claims.is_empty() {
            return Settled::default();
        }
        match self.claims.back_mut().filter(|claim| !claim.is_welcome) {
            Some(claim) if claim.mark.stored > mark.stored => claim.mark.safe = claim.mark.safe.max(mark.safe),
            Some(claim) => claim.mark = Mark { safe: claim.mark.safe.max(mark.safe), ..mark },
            None => self.claims.push_back(Claim { mark, is_welcome: false }),
        }
        self.settle(now)
    }

    /// The number after which the chain has to be looked up before a mark can be judged.
    pub(super) fn unproven(&self) -> Option<Seq> {
        match self.whose(&self.claims.front()?.mark) {
            Whose::Unknown(seq) => Some(seq),
            Whose::Own | Whose::Others => None,
        }
    }

    /// Takes the answer to [`Self::unproven`]; `None` where the journal does not know either.
    pub(super) fn prove(&mut self, seq: Seq, chain: Option<Chain>, now: Moment) -> Settled {
        self.proof = Some((seq, chain));
        if self.head.gone.iter().any(|gone| gone.range.first.previous() == seq) {
            self.before_gaps.insert(seq, chain);
        }
        self.settle(now)
    }

    /// The number before a gap after which the chain has to be looked up before the hub is told of the gap.
    pub(super) fn unknown_gap(&self) -> Option<Seq> {
        let mut before = self.head.gone.iter().take(GAPS_LOOKED_UP).map(|gone| gone.range.first.previous());
        before.find(|seq| self.known_chain(*seq).is_none() && !self.before_gaps.contains_key(seq))
    }

    /// The lane as a hello says it.
    pub(super) fn told(&self) -> LaneHead {
        let before = |seq: Seq| self.known_chain(seq).or_else(|| self.before_gaps.get(&seq).copied().flatten());
        let gaps =
            self.head.gone.iter().map(|gone| Gone { chain_before: before(gone.range.first.previous()), ..*gone });
        LaneHead { gone: self.reclaimed.into_iter().chain(gaps).collect(), ..self.head.clone() }
    }

    /// The hub's word that it has a batch of just this content.
    pub(super) fn taken(&mut self, range: SeqRange, content: Digest, now: Moment) -> bool {
        if !self.contested {
            return false;
        }
        let Some(at) = self.flights.iter().position(|flight| flight.range == range && flight.content == content) else {
            return false;
        };
        self.flights.remove(at);
        let Some(mark) = self.mark.as_mut() else { return false };
        mark.ranges.push(range);
        self.go_on();
        self.progress_at = now;
        self.rounds = 0;
        true
    }

    /// Moves a contested lane's mark over what the hub has by content, and over what will never come; says whether it moved.
    pub(super) fn go_on(&mut self) -> bool {
        let Some(mark) = self.mark.as_mut().filter(|_| self.contested) else { return false };
        let before = mark.stored;
        while let Some(last) = dealt_with(mark, &self.head, mark.stored.next()) {
            mark.stored = last;
        }
        let stored = mark.stored;
        mark.ranges.retain(|range| range.last > stored);
        stored > before
    }

    /// Nothing that the hub said counts any more.
    pub(super) fn forget(&mut self) {
        self.mark = None;
        self.claims.clear();
        self.contested = false;
        self.reclaimed = None;
        self.flights.clear();
    }

    /// Judges the marks that wait, in order, as far as their chains are known.
    fn settle(&mut self, now: Moment) -> Settled {
        let mut settled = Settled::default();
        while let Some(claim) = self.claims.front() {
            let whose = self.whose(&claim.mark);
            if matches!(whose, Whose::Unknown(_)) {
                break;
            }
            let Some(Claim { mark, is_welcome }) = self.claims.pop_front() else { break };
            match whose {
                Whose::Own if is_welcome => {
                    self.contested = false;
                    settled.must_tell |= self.lower(mark, now);
                    settled.moved = true;
                }
                // What a mark says of a contested lane is not about this box.
                Whose::Own if self.contested => {}
                Whose::Own => settled.moved |= self.raise(mark, now),
                Whose::Others => settled.moved |= self.contest(&mark, is_welcome, now),
                Whose::Unknown(_) => {}
            }
        }
        if self.claims.is_empty() {
            self.proof = None;
        }
        settled
    }

    fn whose(&self, mark: &Mark) -> Whose {
        let first = self.head.first.previous();
        if planted::is(Bug::ChainNotCompared) {
            return Whose::Own;
        }
        if mark.absent.iter().any(|absent| self.has_of(*absent)) {
            return Whose::Others;
        }
        if mark.stored < first {
            // What was given back cannot be compared any more.
            return Whose::Own;
        }
        if mark.stored > self.head.last.max(self.sent) {
            return Whose::Others;
        }
        let Some(chain) = mark.chain else { return Whose::Own };
        let proof = self.proof.filter(|(seq, _)| *seq == mark.stored);
        match (self.known_chain(mark.stored), proof) {
            (Some(known), _) | (None, Some((_, Some(known)))) if known == chain => Whose::Own,
            (Some(_), _) | (None, Some((_, Some(_)))) => Whose::Others,
            (None, Some((_, None))) => Whose::Own,
            (None, None) => Whose::Unknown(mark.stored),
        }
    }

    /// Whether a record is retained here under a number of `range`.
    fn has_of(&self, range: SeqRange) -> bool {
        let retained = SeqRange { first: range.first.max(self.head.first), last: range.last.min(self.head.last) };
        retained.first_outside(&self.head.gone.iter().map(|gone| gone.range)).is_some()
    }

    /// The chain after a number, as far as it is at hand.
    fn known_chain(&self, seq: Seq) -> Option<Chain> {
        let head = [(self.head.last, self.head.chain), (self.head.first.previous(), self.head.chain_before)];
        let mark = self.mark.as_ref().map(|mark| (mark.stored, mark.chain));
        let flights = self.flights.iter().map(|flight| (flight.range.last, flight.after));
        head.into_iter().chain(mark).chain(flights).find_map(|(at, chain)| chain.filter(|_| at == seq))
    }

    /// Sets the mark to what a welcome says; says whether the hub must be told of something gone.
    fn lower(&mut self, mark: Mark, now: Moment) -> bool {
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
            chain_before: None,
            chain_after: self.head.chain_before,
        });
        missing && !is_told
    }

    /// Moves the mark to what an ack says, never back; says whether it moved.
    fn raise(&mut self, mark: Mark, now: Moment) -> bool {
        let Some(known) = self.mark.as_mut() else {
            return false;
        };
        let moved = mark.stored > known.stored;
        let safer = mark.safe > known.safe;
        let safe = known.safe.max(mark.safe);
        if mark.stored >= known.stored {
            *known = mark;
        }
        known.safe = safe;
        if moved {
            self.progress_at = now;
            self.rounds = 0;
            self.records_max = self.records_max.saturating_mul(2).min(BATCH_RECORDS_MAX);
        }
        self.drop_flights(now);
        moved || safer
    }

    /// The hub has other records under this lane's numbers, or none. What it was seen to have of this box stays; all else is sent again.
    fn contest(&mut self, mark: &Mark, is_welcome: bool, now: Moment) -> bool {
        if self.contested {
            // With a second record under a number `safe` goes back below it: at `stored` again, all that is kept there is safe.
            let own = self.mark.as_mut().filter(|own| is_welcome && mark.safe >= mark.stored && own.safe < own.stored);
            return own.map(|own| own.safe = own.stored).is_some();
        }
        self.contested = true;
        let floor = self.head.first.previous();
        let own = self.mark.take().unwrap_or_else(|| Mark { stored: floor, safe: floor, ..mark.clone() });
        self.next = own.stored.next();
        self.mark = Some(Mark { ranges: Vec::new(), chain: None, ..own });
        self.go_on();
        self.reclaimed = None;
        self.flights.clear();
        self.rounds = 0;
        self.progress_at = now;
        true
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
            // Sending otherwise would not help; the shell ends the session.
            NackReason::Revoked => {}
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

/// The end of a stretch that holds `seq` and that the hub has, or that will never come; `None` where `seq` is to be sent.
fn dealt_with(mark: &Mark, head: &LaneHead, seq: Seq) -> Option<Seq> {
    let stored = mark.ranges.iter().find(|range| range.contains(seq)).map(|range| range.last);
    stored.or_else(|| head.gone.iter().find(|gone| gone.range.contains(seq)).map(|gone| gone.range.last))
}
