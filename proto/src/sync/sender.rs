//! The agent's end, for one session: what to say next, and when to say it again.
//!
//! The shell's loop: hand in what happened (`handle_*`), carry out every [`Command`] that [`Sender::next_command`] gives, then
//! wait for the next event or for [`Sender::poll_timeout`]. One `Sender` lives for one connection; a new connection starts with a
//! new session and knows nothing but the journal.
//!
//! Invariants: nothing is sent on a lane before the hub named its mark in this session; at most the window is in flight;
//! a lane with records to send always has a timer or room; marks go down only by a welcome, and count only where their chain is the
//! journal's. This module does not know
//! how records are read or published.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use crate::id::{Chain, Digest, Lane, LaneKey, RecordKey, Seq, SeqRange, SessionId};
use crate::limits::{
    BATCH_RECORDS_MAX, CREDIT_LAPSE_MS, HELLO_EPOCHS_MAX, HELLO_GONE_MAX, HELLO_INTERVAL_MS, HELLO_RETRY_MS,
    RESEND_MS_MIN, WINDOW_BATCHES_MAX, WINDOW_SEQS_MAX,
};
use crate::message::{Ack, Down, EpochHeads, Hello, LaneHead, Mark, Nack, Taken, Versions, Welcome, WireVersion};
use crate::planted::{self, Bug};
use crate::time::{ClockQuality, Moment, WallTime};

/// Of this many batches each waiting lane gets at least one.
const LANE_SHARE: u64 = 16;

/// Bytes of batches in flight, after compression; bounds what the broker and the client hold for us.
const WINDOW_BYTES_MAX: usize = 4 * 1024 * 1024;

mod lane;

use lane::{LaneSide, Settled};

/// What the shell should do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Publish these pages on `up/hello`; the shell fills in its clock.
    Hello(Vec<Hello>),
    /// Publish a snapshot of stock on hand.
    Positions,
    /// Look up the chain after a record, and say it with [`Sender::handle_chain`], in any case.
    Prove(RecordKey),
    /// Read records from here on, publish them as one batch, and call [`Sender::handle_sent`]; or one of the other
    /// `handle_*` that say why not.
    Send {
        /// The first record.
        first: RecordKey,
        /// At most so many records.
        records_max: usize,
        /// Whether to leave it uncompressed: the last resort for a batch that the hub cannot read.
        plain: bool,
    },
}

/// Counters of a session, for status and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Batches sent for the first time.
    pub sent: u64,
    /// Batches sent again.
    pub resent: u64,
    /// Bytes of all batches, compressed.
    pub bytes: u64,
    /// Batches that the hub refused.
    pub nacked: u64,
}

/// The agent's end of the protocol.
#[derive(Clone, Debug)]
pub struct Sender {
    session: SessionId,
    software: String,
    random: u64,
    hub_epoch: Option<SessionId>,
    credit: u32,
    window: u64,
    last_word: Moment,
    lanes: BTreeMap<(Lane, usize), LaneSide>,
    epochs: Vec<EpochHeads>,
    round: u32,
    pages_open: Vec<u16>,
    hello_at: Moment,
    positions_due: bool,
    marks_moved: bool,
    turn: u64,
    records_max: usize,
    counters: Counters,
}

impl Sender {
    /// A session that has just connected. `seed` feeds the jitter; `failures` counts sessions in a row that ended without a
    /// commit by the hub, and makes the first batches smaller.
    pub fn new(session: SessionId, software: String, seed: u64, failures: u32, now: Moment) -> Self {
        let records_max = BATCH_RECORDS_MAX.checked_shr(failures.saturating_sub(2)).unwrap_or(0).max(1);
        Self {
            session,
            software,
            random: seed | 1,
            hub_epoch: None,
            credit: if planted::is(Bug::CreditLost) { 4 } else { 1 },
            window: WINDOW_SEQS_MAX,
            last_word: now,
            lanes: BTreeMap::new(),
            epochs: Vec::new(),
            round: 0,
            pages_open: Vec::new(),
            hello_at: now,
            positions_due: false,
            marks_moved: false,
            turn: 0,
            records_max,
            counters: Counters::default(),
        }
    }

    /// This session.
    pub const fn session(&self) -> SessionId {
        self.session
    }

    /// Whether the hub answered in this session.
    pub const fn is_welcomed(&self) -> bool {
        self.hub_epoch.is_some()
    }

    /// Counters of this session.
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// Lanes under whose numbers the hub has records that are not this box's.
    pub fn contested(&self) -> usize {
        self.lanes.values().filter(|side| side.contested).count()
    }

    /// Batches in flight.
    pub fn in_flight(&self) -> usize {
        self.lanes.values().map(|side| side.flights.len()).sum()
    }

    /// The marks that the hub gave in this session, if any moved since the last call.
    pub fn take_marks(&mut self) -> Option<Vec<Mark>> {
        core::mem::take(&mut self.marks_moved).then(|| self.lanes.values().filter_map(LaneSide::told_mark).collect())
    }

    /// The highest number sent on a lane in this session.
    pub fn sent(&self, key: LaneKey) -> Seq {
        self.side(key).map_or(Seq::NONE, |side| side.sent)
    }

    fn side(&self, key: LaneKey) -> Option<&LaneSide> {
        let index = self.epochs.iter().position(|heads| heads.epoch == key.epoch)?;
        self.lanes.get(&(key.lane, index))
    }

    fn side_mut(&mut self, key: LaneKey) -> Option<&mut LaneSide> {
        let index = self.epochs.iter().position(|heads| heads.epoch == key.epoch)?;
        self.lanes.get_mut(&(key.lane, index))
    }

    /// Takes in how far the journal reaches: all epochs that are not wholly safe, oldest first. Called at the start of the
    /// session and whenever something was synced, found damaged or reclaimed.
    pub fn handle_heads(&mut self, epochs: Vec<EpochHeads>, now: Moment) {
        let mut old: BTreeMap<LaneKey, LaneSide> = core::mem::take(&mut self.lanes)
            .into_iter()
            .filter_map(|((lane, index), side)| {
                self.epochs.get(index).map(|heads| (LaneKey { epoch: heads.epoch, lane }, side))
            })
            .collect();
        let mut must_tell = false;
        for (index, heads) in epochs.iter().enumerate() {
            let is_new_epoch = !self.epochs.iter().any(|known| known.epoch == heads.epoch);
            for head in &heads.lanes {
                let known = old.remove(&LaneKey { epoch: heads.epoch, lane: head.lane });
                must_tell |= known.as_ref().is_none_or(|side| side.head.gone != head.gone) || is_new_epoch;
                let mut side = known.map_or_else(
                    || LaneSide::new(head.clone(), self.records_max, now),
                    |side| LaneSide { head: head.clone(), ..side },
                );
                self.marks_moved |= side.go_on();
                self.lanes.insert((head.lane, index), side);
            }
        }
        self.epochs = epochs;
        if must_tell {
            self.hello_at = self.hello_at.min(now);
        }
    }

    /// Takes in what the hub said.
    pub fn handle_down(&mut self, down: Down, now: Moment) {
        match down {
            Down::Welcome(welcome) => self.welcome(welcome, now),
            Down::Ack(ack) => self.ack(ack, now),
            Down::Nack(nack) => self.nack(nack, now),
            Down::RangeRequest { session, key, range } => self.range_request(session, key, range),
            Down::HelloWanted { hub_epoch } => {
                if self.hub_epoch.is_some_and(|known| known != hub_epoch) {
                    self.forget_marks();
                }
                self.hello_soon(now);
            }
        }
    }

    fn welcome(&mut self, welcome: Welcome, now: Moment) {
        let is_awaited = welcome.session == self.session && welcome.round == self.round;
        if !is_awaited || !self.pages_open.contains(&welcome.page) {
            return;
        }
        if self.hub_epoch.is_some_and(|known| known != welcome.hub_epoch) {
            self.forget_marks();
        }
        if self.hub_epoch.is_none() {
            self.positions_due = true;
        }
        self.hub_epoch = Some(welcome.hub_epoch);
        self.pages_open.retain(|page| *page != welcome.page);
        self.window = welcome.window.min(WINDOW_SEQS_MAX);
        self.heard(welcome.credit, now);
        let mut must_tell = false;
        for mark in welcome.marks {
            if let Some(side) = self.side_mut(mark.key) {
                must_tell |= side.welcome(mark, now).must_tell;
            }
        }
        self.marks_moved = true;
        if self.pages_open.is_empty() {
            self.hello_at = now.plus_ms(self.jitter(HELLO_INTERVAL_MS));
        }
        if must_tell {
            self.hello_at = now;
        }
    }

    fn ack(&mut self, ack: Ack, now: Moment) {
        let Some(hub_epoch) = self.hub_epoch else {
            return;
        };
        let is_foreign = ack.hub_epoch != hub_epoch && !planted::is(Bug::MarksNeverLowered);
        if ack.session != self.session || is_foreign {
            self.hello_soon(now);
            return;
        }
        self.heard(ack.credit, now);
        for mark in ack.marks {
            let Some(side) = self.side_mut(mark.key) else {
                continue;
            };
            let settled = side.ack(mark, now);
            self.settled(settled, now);
        }
        for Taken { key, range, content } in ack.taken {
            let moved = self.side_mut(key).is_some_and(|side| side.taken(range, content, now));
            self.settled(Settled { moved, must_tell: false }, now);
        }
    }

    fn settled(&mut self, settled: Settled, now: Moment) {
        if settled.must_tell {
            self.hello_at = now;
        }
        if settled.moved {
            self.marks_moved = true;
            self.records_max = BATCH_RECORDS_MAX;
            if planted::is(Bug::CreditLost) {
                self.credit = self.credit.saturating_add(1).min(4);
            }
        }
    }

    /// The chain after a record, as [`Command::Prove`] asked; `None` where the journal does not know it.
    pub fn handle_chain(&mut self, key: RecordKey, chain: Option<Chain>, now: Moment) {
        let Some(side) = self.side_mut(key.lane_key()) else { return };
        let settled = side.prove(key.seq, chain, now);
        self.settled(settled, now);
    }

    fn nack(&mut self, nack: Nack, now: Moment) {
        if nack.session != self.session {
            return;
        }
        self.counters.nacked = self.counters.nacked.saturating_add(1);
        let wait_ms = self.jitter(RESEND_MS_MIN);
        let Some(side) = self.side_mut(nack.first.lane_key()) else {
            return;
        };
        side.refuse(nack, now, wait_ms);
    }

    fn range_request(&mut self, session: SessionId, key: LaneKey, range: SeqRange) {
        if session != self.session {
            return;
        }
        let Some(side) = self.side_mut(key) else {
            return;
        };
        let asked = SeqRange { first: range.first.max(side.head.first), last: range.last.min(side.head.last) };
        if asked.first <= asked.last {
            // One that is at work is widened: nothing that a person wants is forgotten, and what comes twice does no harm.
            let known = side.asked.unwrap_or(asked);
            side.asked = Some(SeqRange { first: known.first.min(asked.first), last: known.last.max(asked.last) });
        }
    }

    fn heard(&mut self, credit: u32, now: Moment) {
        if !planted::is(Bug::CreditLost) {
            self.credit = credit;
        }
        self.last_word = now;
    }

    fn forget_marks(&mut self) {
        if planted::is(Bug::MarksNeverLowered) {
            return;
        }
        for side in self.lanes.values_mut() {
            side.forget();
        }
        self.marks_moved = true;
    }

    fn hello_soon(&mut self, now: Moment) {
        let soon = now.plus_ms(self.jitter(1_000));
        self.hello_at = self.hello_at.min(soon);
    }

    /// The batch of the last [`Command::Send`] is on its way: it covers `range`, took `bytes`, and holds records of these `digests`.
    pub fn handle_sent(&mut self, key: LaneKey, range: SeqRange, bytes: usize, digests: &[Digest], now: Moment) {
        let Some(side) = self.side_mut(key) else {
            return;
        };
        let is_again = range.first <= side.sent;
        side.sent(range, bytes, digests, now);
        if planted::is(Bug::CreditLost) {
            self.credit = self.credit.saturating_sub(1);
        }
        let counter = if is_again { &mut self.counters.resent } else { &mut self.counters.sent };
        *counter = counter.saturating_add(1);
        self.counters.bytes = self.counters.bytes.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    /// What the last [`Command::Send`] asked for cannot be read now; the lane waits until the journal moves or a timer comes.
    /// (Damage is told by the journal through [`Self::handle_heads`].)
    pub fn handle_unreadable(&mut self, key: LaneKey, now: Moment) {
        if let Some(side) = self.side_mut(key) {
            side.asked = None;
            side.progress_at = now;
            side.rounds = side.rounds.saturating_add(1);
            side.next = side.head.last.next();
        }
    }

    /// When [`Self::handle_timeout`] should be called at the latest.
    pub fn poll_timeout(&self) -> Moment {
        let resend = self.lanes.values().filter_map(lane::LaneSide::resend_at);
        resend.chain([self.hello_at]).min().unwrap_or(self.hello_at)
    }

    /// Notices what did not happen in time.
    pub fn handle_timeout(&mut self, now: Moment) {
        let spread_ms = self.jitter(RESEND_MS_MIN) / 4;
        for side in self.lanes.values_mut() {
            if side.resend_at().is_some_and(|at| at <= now) {
                side.rewind(now);
                side.spread_ms = spread_ms;
            }
        }
    }

    /// What to do next; `None` until something happens.
    pub fn next_command(&mut self, now: Moment) -> Option<Command> {
        if self.hello_at <= now {
            let unknown = self.first_of(LaneSide::unknown_gap);
            return Some(unknown.map_or_else(|| Command::Hello(self.hello(now)), Command::Prove));
        }
        self.hub_epoch?;
        if let Some(key) = self.first_of(LaneSide::unproven) {
            return Some(Command::Prove(key));
        }
        if core::mem::take(&mut self.positions_due) {
            return Some(Command::Positions);
        }
        let key = self.choose(now)?;
        let side = self.side(key)?;
        let seq = side.sendable(self.window)?;
        Some(Command::Send {
            first: RecordKey { epoch: key.epoch, lane: key.lane, seq },
            records_max: side.asked.map_or(side.records_max, |asked| {
                side.records_max.min(usize::try_from(asked.count()).unwrap_or(usize::MAX))
            }),
            plain: side.records_max == 1,
        })
    }

    fn first_of(&self, number: impl Fn(&LaneSide) -> Option<Seq>) -> Option<RecordKey> {
        self.lanes.iter().find_map(|((lane, index), side)| {
            let (seq, heads) = (number(side)?, self.epochs.get(*index)?);
            Some(RecordKey { epoch: heads.epoch, lane: *lane, seq })
        })
    }

    fn choose(&mut self, now: Moment) -> Option<LaneKey> {
        let lapsed = now.since_ms(self.last_word) >= CREDIT_LAPSE_MS;
        let credit = if lapsed && !planted::is(Bug::CreditLost) { 1 } else { self.credit.min(WINDOW_BATCHES_MAX) };
        let bytes: usize = self.lanes.values().flat_map(|side| &side.flights).map(|flight| flight.bytes).sum();
        let in_flight = u32::try_from(self.in_flight()).unwrap_or(u32::MAX);
        let is_spent = if planted::is(Bug::CreditLost) { credit == 0 } else { in_flight >= credit };
        if is_spent || (in_flight > 0 && bytes >= WINDOW_BYTES_MAX) {
            return None;
        }
        let waiting = |lane: Lane| {
            let sides = self.lanes.range((lane, 0)..=(lane, usize::MAX));
            sides.filter(|(_, side)| side.may_send(self.window)).map(|(key, _)| *key).next()
        };
        let turn = self.turn % LANE_SHARE;
        let favoured = match turn {
            7 => Some(Lane::Ops),
            15 => Some(Lane::Stock),
            _ => None,
        };
        let (lane, index) = favoured.and_then(waiting).or_else(|| Lane::ALL.into_iter().find_map(waiting))?;
        self.turn = self.turn.wrapping_add(1);
        self.epochs.get(index).map(|heads| LaneKey { epoch: heads.epoch, lane })
    }

    fn hello(&mut self, now: Moment) -> Vec<Hello> {
        self.round = self.round.saturating_add(1);
        self.hello_at = now.plus_ms(self.jitter(HELLO_RETRY_MS));
        let pages = self.hello_pages();
        let count = u16::try_from(pages.len()).unwrap_or(u16::MAX);
        self.pages_open = (0..count).collect();
        (0..count)
            .zip(pages)
            .map(|(page, epochs)| Hello {
                versions: Versions { oldest: WireVersion::OLDEST, newest: WireVersion::NEWEST },
                software: self.software.clone(),
                session: self.session,
                round: self.round,
                page,
                pages: count,
                wall_time: WallTime::default(),
                clock: ClockQuality::default(),
                epochs,
                downlink: Vec::new(),
            })
            .collect()
    }

    /// Epochs cut into pages. An epoch with many gaps stands on several pages, its lanes repeated with the next gaps.
    fn hello_pages(&self) -> Vec<Vec<EpochHeads>> {
        let mut pages: Vec<Vec<EpochHeads>> = Vec::new();
        let mut gone_on_page = 0_usize;
        let mut room = 0_usize;
        for (index, heads) in self.epochs.iter().enumerate() {
            let mut rest: Vec<LaneHead> = heads.lanes.iter().map(|head| self.told(index, head)).collect();
            loop {
                let mut here = EpochHeads { lanes: Vec::new(), ..heads.clone() };
                if room == 0 {
                    pages.push(Vec::new());
                    (room, gone_on_page) = (HELLO_EPOCHS_MAX, 0);
                }
                let mut later = Vec::new();
                for mut head in rest {
                    let fits = HELLO_GONE_MAX.saturating_sub(gone_on_page).min(head.gone.len());
                    let more = head.gone.split_off(fits);
                    gone_on_page = gone_on_page.saturating_add(fits);
                    if !more.is_empty() {
                        later.push(LaneHead { gone: more, ..head.clone() });
                    }
                    here.lanes.push(head);
                }
                if let Some(page) = pages.last_mut() {
                    page.push(here);
                }
                room = room.saturating_sub(1);
                if later.is_empty() {
                    break;
                }
                room = 0;
                rest = later;
            }
        }
        if pages.is_empty() {
            pages.push(Vec::new());
        }
        pages
    }

    fn told(&self, index: usize, head: &LaneHead) -> LaneHead {
        self.lanes.get(&(head.lane, index)).map_or_else(|| head.clone(), LaneSide::told)
    }

    /// A duration around `mean_ms`, a tenth either way; xorshift64, seeded per session.
    fn jitter(&mut self, mean_ms: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let span = (mean_ms / 5).max(1);
        mean_ms.saturating_sub(mean_ms / 10).saturating_add(self.random.checked_rem(span).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests;
