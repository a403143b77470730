//! Intake: batches to records and watermarks, one transaction for all that waited.
//!
//! Invariant: the rows of all lanes concerned are locked, in one order, before anything is judged, and written in the same
//! transaction as the records. What the lanes' states say decides what is new; the primary key is a second guard, and
//! where it speaks, everything is looked up and judged again. Bytes are stored before anybody tries to understand them.

use std::collections::{BTreeMap, BTreeSet};

use counterfoil_proto::id::{Digest, LaneKey, RecordKey, Seq, SeqRange, SessionId, Source};
use counterfoil_proto::planted::{self, Bug};
use counterfoil_proto::record::flag;
use counterfoil_proto::sync::receiver::{Incident, LaneState, Plan, Verdict};

use super::sql::{Form, Role, Row, Table, Transaction, Value};
use super::{Arrival, LedgerError, SafeWhen, SqlLedger, Taken};
use crate::env;
use crate::posting::Raised;

const RECORDS: Table = Table {
    name: "records",
    columns: &[
        ("stream", Form::Int),
        ("seq", Form::Long),
        ("fork", Form::Short),
        ("late", Form::Short),
        ("received_at", Form::Long),
        ("digest", Form::Bytes),
        ("bytes", Form::Bytes),
    ],
};

const LOCK_LANE: &str = "SELECT stream, state, forks FROM streams \
    WHERE store_id = $1 AND agent_id = $2 AND epoch = $3 AND lane = $4 FOR UPDATE";
const CREATE_LANE: &str = "INSERT INTO streams \
    (store_id, agent_id, epoch, lane, stored, safe, head, received, duplicates, forks, seen_at, state) \
    VALUES ($1, $2, $3, $4, 0, 0, 0, 0, 0, 0, $5, $6) ON CONFLICT (store_id, agent_id, epoch, lane) DO NOTHING";
const WRITE_LANE: &str = "UPDATE streams SET stored = $2, safe = $3, state = $4, seen_at = $5, \
    head = CASE WHEN head < $6 THEN $6 ELSE head END, \
    received = received + $7, duplicates = duplicates + $8, forks = forks + $9 WHERE stream = $1";
const RAISE: &str = "INSERT INTO exceptions \
    (id, store_id, agent_id, code, state, opened_at, changed_at, times, epoch, lane, seq, pointer, detail) \
    VALUES ($1, $2, $3, $4, 'open', $5, $5, 1, $6, $7, $8, $9, $10) \
    ON CONFLICT (id) DO UPDATE SET times = exceptions.times + 1, changed_at = excluded.changed_at";

/// A lane of an agent.
pub(super) type LaneOf = (Source, LaneKey);

/// A lane whose row this transaction has locked.
pub(super) struct Held {
    pub(super) stream: i64,
    pub(super) of: LaneOf,
    pub(super) state: LaneState,
    head: Seq,
    received: u64,
    duplicates: u64,
    forks: u64,
    /// As many had been kept beside others before this transaction.
    pub(super) forks_before: u64,
    /// Digests of the records that came first under their number, as far as known.
    first: BTreeMap<Seq, Digest>,
    /// All digests, of numbers that hold more than nothing when the transaction begins, or get more in it.
    all: BTreeMap<Seq, Vec<Digest>>,
}

impl Held {
    pub(super) fn state_head(&mut self, head: Seq) {
        self.head = self.head.max(head);
    }
}

pub(super) fn store_params(of: &LaneOf) -> Vec<Value> {
    let (source, key) = of;
    vec![
        source.store_id.as_str().into(),
        source.agent_id.as_str().into(),
        key.epoch.0.into(),
        i64::from(key.lane.code()).into(),
    ]
}

pub(super) fn read_state(bytes: &[u8]) -> Result<LaneState, LedgerError> {
    postcard::from_bytes(bytes).map_err(|_| LedgerError::Shape)
}

pub(super) fn write_state(state: &LaneState) -> Result<Vec<u8>, LedgerError> {
    postcard::to_extend(state, Vec::new()).map_err(|_| LedgerError::Shape)
}

/// Locks the rows of `lanes` in their order; `None` where one is missing (the transaction may then be given up).
pub(super) async fn lock(tx: &mut dyn Transaction, lanes: &BTreeSet<LaneOf>) -> Result<Option<Vec<Held>>, LedgerError> {
    let answers = tx.query_many(LOCK_LANE, lanes.iter().map(store_params).collect()).await?;
    let mut held = Vec::with_capacity(lanes.len());
    for (of, rows) in lanes.iter().zip(answers) {
        let Some(row) = rows.into_iter().next() else { return Ok(None) };
        let mut row = row.read();
        held.push(Held {
            stream: row.int()?,
            of: of.clone(),
            state: read_state(&row.bytes()?)?,
            head: Seq::NONE,
            received: 0,
            duplicates: 0,
            forks: 0,
            forks_before: row.count()?,
            first: BTreeMap::new(),
            all: BTreeMap::new(),
        });
    }
    Ok(Some(held))
}

impl SqlLedger {
    /// Begins a transaction that holds all of `lanes`, whose rows are made where they are missing.
    pub(super) async fn hold(
        &self,
        role: Role,
        lanes: &BTreeSet<LaneOf>,
    ) -> Result<(Box<dyn Transaction>, Vec<Held>), LedgerError> {
        let mut tx = self.database.begin(role).await?;
        if let Some(held) = lock(&mut *tx, lanes).await? {
            return Ok((tx, held));
        }
        // Made in a transaction of their own: one that waits for another's insert while it holds locks could deadlock.
        tx.rollback().await?;
        let mut tx = self.database.begin(role).await?;
        let mut rows = Vec::with_capacity(lanes.len());
        for of in lanes {
            let mut row = store_params(of);
            row.push(env::wall().0.into());
            row.push(write_state(&LaneState::new(of.1))?.into());
            rows.push(row);
        }
        tx.execute_many(CREATE_LANE, rows).await?;
        tx.commit().await?;
        let mut tx = self.database.begin(role).await?;
        let held = lock(&mut *tx, lanes).await?;
        held.map(|held| (tx, held)).ok_or(LedgerError::Busy { why: "a lane's row vanished".to_owned() })
    }

    pub(super) async fn take_in(&self, arrivals: &[Arrival]) -> Result<Taken, LedgerError> {
        match self.attempt(arrivals, false).await {
            // Somebody wrote past the lock, or the state was changed by hand: look at everything, then judge.
            Err(LedgerError::Doubled { why }) => {
                tracing::error!(why, "Records were there that the lane's state does not name; looking at each");
                self.attempt(arrivals, true).await
            }
            other => other,
        }
    }

    async fn attempt(&self, arrivals: &[Arrival], careful: bool) -> Result<Taken, LedgerError> {
        let lanes: BTreeSet<LaneOf> =
            arrivals.iter().map(|arrival| (arrival.source.clone(), arrival.batch.head.first.lane_key())).collect();
        let (mut tx, mut held) = self.hold(Role::Intake, &lanes).await?;
        if planted::is(Bug::WatermarkOutsideLock) {
            tx.rollback().await?;
            tx = self.database.begin(Role::Intake).await?;
        }
        let sources: BTreeSet<&Source> = arrivals.iter().map(|arrival| &arrival.source).collect();
        let sessions = sessions(&mut *tx, &sources).await?;
        let mut ahead = self.load_known(&mut *tx, arrivals, &mut held, careful).await?;

        let mut rows = Vec::new();
        let mut latecomers = Vec::new();
        let mut raised = Vec::new();
        for (index, arrival) in arrivals.iter().enumerate() {
            if ahead.contains(&index) {
                continue;
            }
            let of = (arrival.source.clone(), arrival.batch.head.first.lane_key());
            let lane = held.iter_mut().find(|lane| lane.of == of).ok_or(LedgerError::Shape)?;
            if let Plan::Ahead = lane.state.plan(arrival.batch.head.range()) {
                ahead.push(index);
                continue;
            }
            judge(lane, arrival, &mut rows, &mut latecomers, &mut raised);
        }
        advance(&mut *tx, &mut held, &mut raised).await?;
        if planted::is(Bug::WatermarkApart) {
            self.write_lanes(&mut *tx, &mut held).await?;
            tx.commit().await?;
            tx = self.database.begin(Role::Intake).await?;
        }
        tx.copy(&RECORDS, rows).await?;
        tx.execute_many("INSERT INTO late (stream, seq, fork) VALUES ($1, $2, $3)", latecomers).await?;
        self.write_lanes(&mut *tx, &mut held).await?;
        raise(&mut *tx, &raised).await?;
        let settled = self.watch.settle(&mut *tx, Role::Intake).await?;
        let hub_epoch = self.watch.commit(tx, settled).await?;
        Ok(Taken {
            hub_epoch,
            sessions,
            marks: held.iter().map(|lane| (lane.of.0.clone(), lane.state.mark(lane.of.1))).collect(),
            ahead,
            stored: held.iter().map(|lane| lane.received).sum(),
            duplicates: held.iter().map(|lane| lane.duplicates).sum(),
            forks: held.iter().map(|lane| lane.forks).sum(),
        })
    }

    /// Loads the digests that decide about what may be there already. Gives the arrivals that lie too far ahead.
    async fn load_known(
        &self,
        tx: &mut dyn Transaction,
        arrivals: &[Arrival],
        held: &mut [Held],
        careful: bool,
    ) -> Result<Vec<usize>, LedgerError> {
        let mut ahead = Vec::new();
        let mut wanted = BTreeSet::new();
        for (index, arrival) in arrivals.iter().enumerate() {
            let of = (arrival.source.clone(), arrival.batch.head.first.lane_key());
            let at = held.iter().position(|lane| lane.of == of).ok_or(LedgerError::Shape)?;
            let range = arrival.batch.head.range();
            match held[at].state.plan(range) {
                Plan::Ahead => ahead.push(index),
                Plan::Take { .. } if careful => drop(wanted.insert((at, range))),
                Plan::Take { known } => wanted.extend(known.into_iter().map(|range| (at, range))),
            }
        }
        let sql =
            "SELECT seq, fork, digest FROM records WHERE stream = $1 AND seq BETWEEN $2 AND $3 ORDER BY seq, fork";
        let params = wanted.iter().map(|(at, range)| range_params(held[*at].stream, *range)).collect();
        let answers = tx.query_many(sql, params).await?;
        let mut seen = BTreeSet::new();
        for ((at, _), rows) in wanted.iter().zip(answers) {
            for row in rows {
                let mut row = row.read();
                let (seq, fork, digest) = (Seq(row.count()?), row.int()?, Digest(row.array()?));
                if seen.insert((*at, seq, fork)) {
                    held[*at].all.entry(seq).or_default().push(digest);
                }
                if fork == 0 {
                    held[*at].first.insert(seq, digest);
                }
            }
        }
        Ok(ahead)
    }

    pub(super) async fn write_lanes(&self, tx: &mut dyn Transaction, held: &mut [Held]) -> Result<(), LedgerError> {
        let now = env::wall().0;
        let mut rows = Vec::with_capacity(held.len());
        for lane in held {
            if self.safe_when == SafeWhen::Stored {
                lane.state.safe = lane.state.stored;
            }
            rows.push(vec![
                lane.stream.into(),
                lane.state.stored.0.into(),
                lane.state.safe.0.into(),
                write_state(&lane.state)?.into(),
                now.into(),
                lane.head.0.into(),
                lane.received.into(),
                lane.duplicates.into(),
                lane.forks.into(),
            ]);
        }
        tx.execute_many(WRITE_LANE, rows).await
    }
}

fn range_params(stream: i64, range: SeqRange) -> Vec<Value> {
    vec![stream.into(), range.first.0.into(), range.last.0.into()]
}

async fn sessions(
    tx: &mut dyn Transaction,
    sources: &BTreeSet<&Source>,
) -> Result<Vec<(Source, Option<SessionId>)>, LedgerError> {
    let sql = "SELECT session FROM agents WHERE store_id = $1 AND agent_id = $2";
    let params =
        sources.iter().map(|source| vec![source.store_id.as_str().into(), source.agent_id.as_str().into()]).collect();
    let answers = tx.query_many(sql, params).await?;
    let mut sessions = Vec::with_capacity(sources.len());
    for (source, rows) in sources.iter().zip(answers) {
        let session = match rows.into_iter().next() {
            Some(row) => row.read().array_or_null()?,
            None => None,
        };
        sessions.push(((*source).clone(), session.map(SessionId)));
    }
    Ok(sessions)
}

/// Decides about each record of an arrival, and notes what is to be written.
fn judge(
    lane: &mut Held,
    arrival: &Arrival,
    rows: &mut Vec<Row>,
    latecomers: &mut Vec<Vec<Value>>,
    raised: &mut Vec<Raised>,
) {
    let now = env::wall().0;
    let range = arrival.batch.head.range();
    let mut seq = range.first;
    for bytes in &arrival.batch.records {
        let digest = Digest::of(bytes);
        let existing = lane.all.get(&seq).map_or(&[][..], Vec::as_slice);
        let (fork, is_late) = match lane.state.judge(seq, digest, existing) {
            Verdict::Duplicate => {
                lane.duplicates = lane.duplicates.saturating_add(1);
                seq = seq.next();
                continue;
            }
            Verdict::New => (0, false),
            // Where the watermark crossed the gap, posting has, or soon will have, passed the number.
            Verdict::Fill => (0, seq <= lane.state.stored),
            Verdict::Fork => (existing.len(), true),
        };
        lane.received = lane.received.saturating_add(1);
        let fork = i64::try_from(fork).unwrap_or(i64::MAX);
        if fork == 0 {
            lane.first.insert(seq, digest);
        } else {
            lane.forks = lane.forks.saturating_add(1);
            let key = RecordKey { epoch: lane.of.1.epoch, lane: lane.of.1.lane, seq };
            let detail = format!("digests {} and {digest}", existing.first().copied().unwrap_or_default());
            raised.push(Raised::new(&lane.of.0, key, flag::FORK, "", detail));
        }
        lane.all.entry(seq).or_default().push(digest);
        if is_late {
            lane.state.note_late(seq);
            latecomers.push(vec![lane.stream.into(), seq.0.into(), fork.into()]);
        }
        rows.push(Row(vec![
            lane.stream.into(),
            seq.0.into(),
            fork.into(),
            i64::from(is_late).into(),
            now.into(),
            digest.0.into(),
            bytes.clone().into(),
        ]));
        seq = seq.next();
    }
    lane.state.note_stored(range);
    lane.state_head(range.last);
}

/// Moves the watermarks as far as they go; digests of records stored earlier are loaded for the chain.
pub(super) async fn advance(
    tx: &mut dyn Transaction,
    held: &mut [Held],
    raised: &mut Vec<Raised>,
) -> Result<(), LedgerError> {
    let mut wanted = Vec::new();
    for (at, lane) in held.iter().enumerate() {
        let reach = lane.state.reach();
        for range in &lane.state.ranges {
            let mut missing: Option<SeqRange> = None;
            let mut seq = range.first;
            while seq <= range.last.min(reach) {
                if !lane.first.contains_key(&seq) {
                    let first = missing.map_or(seq, |missing| missing.first);
                    missing = Some(SeqRange { first, last: seq });
                } else if let Some(run) = missing.take() {
                    wanted.push((at, run));
                }
                seq = seq.next();
            }
            wanted.extend(missing.map(|run| (at, run)));
        }
    }
    let sql = "SELECT seq, digest FROM records WHERE stream = $1 AND seq BETWEEN $2 AND $3 AND fork = 0";
    let params = wanted.iter().map(|(at, range)| range_params(held[*at].stream, *range)).collect();
    let answers = tx.query_many(sql, params).await?;
    for ((at, _), rows) in wanted.iter().zip(answers) {
        for row in rows {
            let mut row = row.read();
            let (seq, digest) = (Seq(row.count()?), Digest(row.array()?));
            held[*at].first.insert(seq, digest);
        }
    }
    for lane in held {
        let first = &lane.first;
        let incidents = lane.state.advance(|seq| first.get(&seq).copied());
        raised.extend(incidents.iter().map(|incident| of_incident(&lane.of, incident)));
    }
    Ok(())
}

/// What a person sees of an incident of a lane.
pub(super) fn of_incident(of: &LaneOf, incident: &Incident) -> Raised {
    let (source, lane) = of;
    let key = |seq| RecordKey { epoch: lane.epoch, lane: lane.lane, seq };
    match incident {
        Incident::Gone(gone) => {
            let detail = format!("{} to {}: {}", gone.range.first, gone.range.last, gone.reason.as_str());
            Raised::new(source, key(gone.range.first), flag::GONE, "", detail)
        }
        Incident::ChainMismatch { seq, stated, found } => {
            let detail = format!("after {seq}: stated {stated}, found {found}");
            Raised::new(source, key(*seq), flag::CHAIN_MISMATCH, "", detail)
        }
        Incident::AgentBehind { last, stored } => {
            let detail = format!("the box has up to {last}, the hub up to {stored}");
            Raised::new(source, key(*last), flag::ROLLBACK, "", detail)
        }
    }
}

/// Opens exceptions, or counts them again.
pub(super) async fn raise(tx: &mut dyn Transaction, raised: &[Raised]) -> Result<(), LedgerError> {
    let now = env::wall().0;
    let mut sorted: Vec<&Raised> = raised.iter().collect();
    sorted.sort_by(|one, other| one.id.cmp(&other.id));
    let rows = sorted.into_iter().map(|raised| {
        vec![
            raised.id.as_str().into(),
            raised.source.store_id.as_str().into(),
            raised.source.agent_id.as_str().into(),
            raised.code.as_str().into(),
            now.into(),
            raised.key.epoch.0.into(),
            i64::from(raised.key.lane.code()).into(),
            raised.key.seq.0.into(),
            raised.pointer.as_str().into(),
            raised.detail.as_str().into(),
        ]
    });
    tx.execute_many(RAISE, rows.collect()).await
}
