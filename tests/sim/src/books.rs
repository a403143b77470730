//! What the hubs have committed, written down independently of the ledger, and the ledger behind it.
//!
//! Invariant: [`Books`] learn of a record when the call that committed it returned, in the same turn of the scheduler. So a
//! watermark that covers what the books do not have was committed, or told, without its records. The books are copied with each backup
//! and set back with the ledger.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use counterfoil_hub::ledger::sql::Work;
use counterfoil_hub::ledger::{
    AgentView, Arrival, AuditView, Beat, Cursor, DayView, Deed, DelayQuery, DelayView, DueReplay, ExceptionFilter,
    ExceptionView, FleetView, Gauges, LaneCopy, Ledger, Lookup, LookupQuery, PageQuery, Posted, PostingBounds,
    RecordsPage, ReturnView, ReturnsQuery, StockView, Taken, TotalsRow, Waits, Welcomed,
};
use counterfoil_proto::id::{Digest, LaneKey, Seq, SeqRange, SessionId, Source};
use counterfoil_proto::message::{Hello, Mark, Positions, Presence};
use counterfoil_proto::record::flag::Change;
use counterfoil_proto::time::WallTime;

/// One lane.
#[derive(Clone, Debug, Default)]
pub(crate) struct LaneBook {
    pub(crate) digests: BTreeMap<Seq, Vec<Digest>>,
    pub(crate) gone: Vec<SeqRange>,
    /// Everything up to here is there or was declared gone.
    covered: Seq,
    /// The watermark, as last committed.
    stored: Seq,
}

impl LaneBook {
    fn holds(&self, seq: Seq) -> bool {
        self.digests.contains_key(&seq) || self.gone.iter().any(|range| range.contains(seq))
    }

    /// Up to where everything is there or was declared gone.
    pub(crate) fn reach(&mut self) -> Seq {
        while self.holds(self.covered.next()) {
            self.covered = self.covered.next();
        }
        self.covered
    }

    fn covers(&mut self, stored: Seq) -> bool {
        while self.covered < stored && self.holds(self.covered.next()) {
            self.covered = self.covered.next();
        }
        self.covered >= stored
    }
}

/// What is committed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Books {
    pub(crate) lanes: BTreeMap<(Source, LaneKey), LaneBook>,
    /// What is wrong.
    pub(crate) findings: Vec<String>,
}

impl Books {
    /// Whether everything of a lane up to a number is there or was declared gone.
    pub(crate) fn covers(&mut self, source: &Source, key: LaneKey, stored: Seq) -> bool {
        stored == Seq::NONE || self.lanes.get_mut(&(source.clone(), key)).is_some_and(|lane| lane.covers(stored))
    }

    /// Whether a number is there or was declared gone.
    pub(crate) fn holds(&self, source: &Source, key: LaneKey, seq: Seq) -> bool {
        self.lanes.get(&(source.clone(), key)).is_some_and(|lane| lane.holds(seq))
    }

    fn check_marks<'a>(&mut self, marks: impl Iterator<Item = (&'a Source, &'a Mark)>) {
        for (source, mark) in marks {
            if !self.covers(source, mark.key, mark.stored) {
                let (key, stored) = (mark.key, mark.stored);
                self.findings.push(format!("hub: {source} {key:?} is said to be stored up to {stored}, and is not"));
            }
            let lane = self.lanes.entry((source.clone(), mark.key)).or_default();
            if mark.stored < lane.stored {
                let (key, from, to) = (mark.key, lane.stored, mark.stored);
                self.findings.push(format!("hub: the watermark of {source} {key:?} went back from {from} to {to}"));
            }
            lane.stored = mark.stored;
        }
    }

    fn taken(&mut self, arrivals: &[Arrival], taken: &Taken) {
        for (index, arrival) in arrivals.iter().enumerate() {
            if taken.ahead.contains(&index) {
                continue;
            }
            let lane = self.lanes.entry((arrival.source.clone(), arrival.batch.head.first.lane_key())).or_default();
            let mut seq = arrival.batch.head.first.seq;
            for digest in arrival.batch.digests() {
                let known = lane.digests.entry(seq).or_default();
                if !known.contains(&digest) {
                    known.push(digest);
                }
                seq = seq.next();
            }
        }
        self.check_marks(taken.marks.iter().map(|(source, mark)| (source, mark)));
    }

    fn greeted(&mut self, source: &Source, hello: &Hello, welcomed: &Welcomed) {
        for heads in &hello.epochs {
            for head in &heads.lanes {
                let key = LaneKey { epoch: heads.epoch, lane: head.lane };
                let lane = self.lanes.entry((source.clone(), key)).or_default();
                for gone in &head.gone {
                    if !lane.gone.contains(&gone.range) {
                        lane.gone.push(gone.range);
                    }
                }
            }
        }
        self.check_marks(welcomed.marks.iter().map(|mark| (source, mark)));
    }
}

/// Books that several parts share.
#[derive(Clone, Debug, Default)]
pub(crate) struct SharedBooks(Arc<Mutex<Books>>);

impl SharedBooks {
    pub(crate) fn get(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A ledger whose commits are written into the books.
#[derive(Debug)]
pub(crate) struct Witnessed<L> {
    pub(crate) ledger: L,
    pub(crate) books: SharedBooks,
}

impl<L: Ledger> Ledger for Witnessed<L> {
    fn take<'a>(&'a self, arrivals: &'a [Arrival]) -> Work<'a, Taken> {
        Box::pin(async move {
            let taken = self.ledger.take(arrivals).await?;
            self.books.get().taken(arrivals, &taken);
            Ok(taken)
        })
    }
    fn reject<'a>(
        &'a self,
        source: &'a Source,
        key: Option<LaneKey>,
        reason: &'a str,
        bytes: &'a [u8],
    ) -> Work<'a, ()> {
        self.ledger.reject(source, key, reason, bytes)
    }
    fn hello<'a>(&'a self, source: &'a Source, hello: &'a Hello) -> Work<'a, Welcomed> {
        Box::pin(async move {
            let welcomed = self.ledger.hello(source, hello).await?;
            self.books.get().greeted(source, hello, &welcomed);
            Ok(welcomed)
        })
    }
    fn presence<'a>(&'a self, source: &'a Source, presence: &'a Presence) -> Work<'a, Option<SessionId>> {
        self.ledger.presence(source, presence)
    }
    fn positions<'a>(&'a self, source: &'a Source, part: &'a Positions) -> Work<'a, ()> {
        self.ledger.positions(source, part)
    }
    fn post(&self, bounds: PostingBounds) -> Work<'_, Posted> {
        self.ledger.post(bounds)
    }
    fn marks<'a>(&'a self, lanes: &'a [(Source, LaneKey)]) -> Work<'a, Vec<(Source, Option<SessionId>, Mark)>> {
        self.ledger.marks(lanes)
    }
    fn hub_epoch(&self) -> SessionId {
        self.ledger.hub_epoch()
    }
    fn beat(&self) -> Work<'_, Beat> {
        self.ledger.beat()
    }
    fn come_back(&self, under: SessionId) -> Work<'_, SessionId> {
        self.ledger.come_back(under)
    }
    fn agents(&self) -> Work<'_, Vec<Source>> {
        self.ledger.agents()
    }
    fn raise_safe<'a>(&'a self, copy: &'a [LaneCopy]) -> Work<'a, u64> {
        self.ledger.raise_safe(copy)
    }
    fn all_lanes(&self) -> Work<'_, (SessionId, Vec<LaneCopy>)> {
        self.ledger.all_lanes()
    }
    fn stores<'a>(&'a self, store_id: Option<&'a str>) -> Work<'a, Vec<AgentView>> {
        self.ledger.stores(store_id)
    }
    fn fleet(&self, now: WallTime) -> Work<'_, FleetView> {
        self.ledger.fleet(now)
    }
    fn stores_of_day<'a>(&'a self, business_day: &'a str) -> Work<'a, Vec<String>> {
        self.ledger.stores_of_day(business_day)
    }
    fn records<'a>(&'a self, query: &'a PageQuery) -> Work<'a, RecordsPage> {
        self.ledger.records(query)
    }
    fn lookup<'a>(&'a self, query: &'a LookupQuery) -> Work<'a, Lookup> {
        self.ledger.lookup(query)
    }
    fn returns<'a>(&'a self, query: &'a ReturnsQuery) -> Work<'a, Vec<ReturnView>> {
        self.ledger.returns(query)
    }
    fn due_replays(&self) -> Work<'_, Vec<DueReplay>> {
        self.ledger.due_replays()
    }
    fn note_asked(&self, number: u64) -> Work<'_, ()> {
        self.ledger.note_asked(number)
    }
    fn delays<'a>(&'a self, query: &'a DelayQuery) -> Work<'a, Vec<DelayView>> {
        self.ledger.delays(query)
    }
    fn day<'a>(&'a self, store_id: &'a str, business_day: &'a str) -> Work<'a, DayView> {
        self.ledger.day(store_id, business_day)
    }
    fn totals<'a>(&'a self, store_id: &'a str, business_day: &'a str) -> Work<'a, Vec<TotalsRow>> {
        self.ledger.totals(store_id, business_day)
    }
    fn change_exception<'a>(
        &'a self,
        id: &'a str,
        change: Change,
        by_and_why: (&'a str, &'a str),
        deed: &'a Deed,
    ) -> Work<'a, Option<ExceptionView>> {
        self.ledger.change_exception(id, change, by_and_why, deed)
    }
    fn note_alone<'a>(&'a self, deed: &'a Deed, outcome: &'a str) -> Work<'a, ()> {
        self.ledger.note_alone(deed, outcome)
    }
    fn audit(&self, before: Option<u64>, limit: usize) -> Work<'_, Vec<AuditView>> {
        self.ledger.audit(before, limit)
    }
    fn exceptions<'a>(&'a self, filter: &'a ExceptionFilter) -> Work<'a, Vec<ExceptionView>> {
        self.ledger.exceptions(filter)
    }
    fn stock<'a>(&'a self, store_id: &'a str) -> Work<'a, Vec<StockView>> {
        self.ledger.stock(store_id)
    }
    fn gauges(&self) -> Work<'_, Gauges> {
        self.ledger.gauges()
    }
    fn waits(&self) -> Work<'_, Waits> {
        self.ledger.waits()
    }
    fn cursor(&self, position: Option<u64>) -> Work<'_, Cursor> {
        self.ledger.cursor(position)
    }
}
