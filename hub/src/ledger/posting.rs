//! Posting: stored records to positions, totals and exceptions, in one transaction under the poster's lock.
//!
//! Invariant: positions are given in order and without gaps, and become visible together with the lock's release; a reader that
//! saw one has seen all below. A lane is posted up to its watermark and never beyond; a record that came late gets its position
//! when the lane has passed its number. `posted` rows are written by the poster alone, so intake never waits for it.

use std::collections::BTreeMap;

use counterfoil_proto::id::{AgentId, Epoch, Lane, RecordKey, Seq, Source, StoreId};
use counterfoil_proto::planted::{self, Bug};
use counterfoil_proto::record::flag;

use super::intake::raise;
use super::sql::{Form, Role, Row, Table, Transaction, Value};
use super::{LedgerError, Posted, PostingBounds, SqlLedger, days, delays, seals, ties};
use crate::env;
use crate::following;
use crate::posting::{self, Change, Raised, Reading, Standing, Stored, Totals};

const RUNS: Table = Table {
    name: "runs",
    columns: &[
        ("first_position", Form::Long),
        ("positions", Form::Int),
        ("stream", Form::Int),
        ("first_seq", Form::Long),
        ("fork", Form::Short),
    ],
};
const IDENTITIES: Table =
    Table { name: "identities", columns: &[("key", Form::Id), ("position", Form::Long), ("content", Form::Id)] };
const MARKS: Table =
    Table { name: "marks", columns: &[("position", Form::Long), ("mark", Form::Short), ("other", Form::Long)] };

/// Lanes that one chunk looks at; where there are as many, more may wait.
const LANES_MAX: usize = 256;
/// Lanes with something to post: money before goods, older epochs first (an agent names them in their order).
const WAITING: &str = "SELECT s.stream, s.store_id, s.agent_id, s.epoch, s.lane, COALESCE(p.seq, 0), s.stored \
    FROM streams s LEFT JOIN posted p ON p.stream = s.stream WHERE s.stored > COALESCE(p.seq, 0) \
    ORDER BY s.lane, s.stream LIMIT $1";
const LATE: &str = "SELECT s.stream, s.store_id, s.agent_id, s.epoch, s.lane, l.seq, l.fork, r.received_at, r.bytes \
    FROM late l JOIN posted p ON p.stream = l.stream AND p.seq >= l.seq JOIN streams s ON s.stream = l.stream \
    JOIN records r ON r.stream = l.stream AND r.seq = l.seq AND r.fork = l.fork \
    ORDER BY l.stream, l.seq, l.fork LIMIT $1";
const FETCH: &str = "SELECT seq, received_at, bytes FROM records \
    WHERE stream = $1 AND seq > $2 AND seq <= $3 AND fork = 0 AND late = 0 ORDER BY seq";
const ADD_TOTAL: &str = "INSERT INTO totals \
    (store_id, business_day, currency, workstation_id, what, transactions, amount, base, low, high) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
    ON CONFLICT (store_id, business_day, currency, workstation_id, what) DO UPDATE SET \
    transactions = totals.transactions + excluded.transactions, amount = totals.amount + excluded.amount, \
    base = totals.base + excluded.base, \
    low = CASE WHEN totals.low IS NULL OR excluded.low < totals.low THEN excluded.low ELSE totals.low END, \
    high = CASE WHEN totals.high IS NULL OR excluded.high > totals.high THEN excluded.high ELSE totals.high END";
const CHANGE: &str =
    "UPDATE exceptions SET state = $2, changed_by = $3, reason = $4, changed_at = $5, untold = 1 WHERE id = $1";
const SET_POSTED: &str = "INSERT INTO posted (stream, seq) VALUES ($1, $2) \
    ON CONFLICT (stream) DO UPDATE SET seq = excluded.seq";
const TAKE_LATE: &str = "DELETE FROM late WHERE stream = $1 AND seq = $2 AND fork = $3";

/// What is said of a position.
pub(super) mod mark {
    pub(in crate::ledger) const DUPLICATE: i64 = 1;
    pub(in crate::ledger) const CONFLICT: i64 = 2;
    pub(in crate::ledger) const UNREADABLE: i64 = 4;
    pub(in crate::ledger) const VOIDS: i64 = 8;
    pub(in crate::ledger) const VOIDED: i64 = 16;
}

/// What a chunk takes: the records, late ones first, and how far each lane is posted with them.
struct Chunk {
    records: Vec<Stored>,
    late: usize,
    posted: Vec<(i64, u64)>,
    more: bool,
}

/// What a chunk writes beside its runs.
#[derive(Default)]
struct Effects {
    identities: Vec<Row>,
    marks: Vec<Row>,
    totals: Totals,
    raised: Vec<Raised>,
    changes: Vec<Change>,
    days: days::Days,
    ties: ties::Ties,
    seals: seals::Seals,
    delays: delays::Delays,
}

impl SqlLedger {
    pub(super) async fn post_chunk(&self, bounds: PostingBounds) -> Result<Posted, LedgerError> {
        let mut tx = self.database.begin(Role::Posting).await?;
        let Some((first_position, tied)) = ties::lock(&mut *tx).await? else {
            tx.rollback().await?;
            let last_position = self.last_position().await?;
            return Ok(Posted { last_position, elsewhere: true, ..Posted::default() });
        };
        if tied < first_position {
            return self.tie_again(tx, tied, first_position, bounds).await;
        }
        let chunk = fetch(&mut *tx, bounds).await?;
        let last_position = first_position.saturating_sub(1);
        if chunk.records.is_empty() && chunk.posted.is_empty() {
            tx.rollback().await?;
            return Ok(Posted { last_position, ..Posted::default() });
        }
        let followed = following::begin("posted", chunk.records.iter().map(|one| (one.key, one.bytes.as_slice())));
        let count = u64::try_from(chunk.records.len()).unwrap_or(u64::MAX);
        let Chunk { records, late, posted, more } = chunk;
        let opaque = bounds.opaque;
        let looked_at = env::apart(move || {
            let readings: Vec<Reading> = records.iter().map(|record| posting::read(record, opaque)).collect();
            (records, readings)
        });
        let (records, readings) = looked_at.await.ok_or(LedgerError::Shape)?;
        if planted::is(Bug::PositionBelow) {
            ties::advance(&mut *tx, first_position.saturating_add(count)).await?;
            tx.commit().await?;
            tx = self.database.begin(Role::Posting).await?;
        }
        let effects = settle_identities(&mut *tx, first_position, &records, readings).await?;
        write(&mut *tx, first_position, &records, late, posted, effects).await?;
        ties::advance(&mut *tx, first_position.saturating_add(count)).await?;
        let settled = self.watch.settle(&mut *tx, Role::Posting).await?;
        self.watch.commit(tx, settled).await?;
        followed.done();
        Ok(Posted { records: count, last_position: last_position.saturating_add(count), more, elsewhere: false })
    }
}

async fn fetch(tx: &mut dyn Transaction, bounds: PostingBounds) -> Result<Chunk, LedgerError> {
    let mut chunk = Chunk { records: Vec::new(), late: 0, posted: Vec::new(), more: false };
    let latecomers = tx.query_some(LATE, vec![int(bounds.records_max)], bounds.bytes_max).await?;
    for row in latecomers.0 {
        let mut row = row.read();
        let (stream, source, epoch, lane) = read_lane(&mut row)?;
        let key = RecordKey { epoch, lane, seq: Seq(row.count()?) };
        let (fork, received_at, bytes) = (row.int()?, delays::received_at(&mut row)?, row.bytes()?);
        chunk.records.push(Stored { stream, source, key, fork, received_at, bytes });
    }
    chunk.late = chunk.records.len();
    chunk.more |= latecomers.1 || chunk.late >= bounds.records_max;
    let waiting = tx.query(WAITING, vec![int(LANES_MAX)]).await?;
    chunk.more |= waiting.len() >= LANES_MAX;
    let share = bounds.records_max / waiting.len().max(1);
    let mut room = bounds.records_max.saturating_sub(chunk.records.len());
    let mut bytes_room = bounds.bytes_max.saturating_sub(chunk.records.iter().map(|record| record.bytes.len()).sum());
    let lanes = waiting.len();
    for (index, row) in waiting.into_iter().enumerate() {
        let mut row = row.read();
        let (stream, source, epoch, lane) = read_lane(&mut row)?;
        let (after, stored) = (row.count()?, row.count()?);
        if room == 0 || bytes_room == 0 {
            chunk.more = true;
            break;
        }
        // What the later lanes' shares leave over is this lane's.
        let kept = share.saturating_mul(lanes.saturating_sub(index.saturating_add(1)));
        let most = room.saturating_sub(kept).max(1);
        let until = stored.min(after.saturating_add(u64::try_from(most).unwrap_or(u64::MAX)));
        let params = vec![stream.into(), after.into(), until.into()];
        let (rows, left) = tx.query_some(FETCH, params, bytes_room).await?;
        let mut reached = after;
        for row in rows {
            let mut row = row.read();
            let key = RecordKey { epoch, lane, seq: Seq(row.count()?) };
            let (received_at, bytes) = (delays::received_at(&mut row)?, row.bytes()?);
            reached = key.seq.0;
            room = room.saturating_sub(1);
            bytes_room = bytes_room.saturating_sub(bytes.len());
            chunk.records.push(Stored { stream, source: source.clone(), key, fork: 0, received_at, bytes });
        }
        // Numbers without a record were declared gone: the lane is posted across them.
        let posted = if left { reached } else { until };
        chunk.more |= posted < stored;
        if posted > after {
            chunk.posted.push((stream, posted));
        }
    }
    Ok(chunk)
}

pub(super) fn read_lane(row: &mut super::sql::RowReader) -> Result<(i64, Source, Epoch, Lane), LedgerError> {
    let stream = row.int()?;
    let source = read_source(row)?;
    let epoch = Epoch(row.array()?);
    let lane = u8::try_from(row.int()?).ok().and_then(Lane::from_code).ok_or(LedgerError::Shape)?;
    Ok((stream, source, epoch, lane))
}

pub(super) fn read_source(row: &mut super::sql::RowReader) -> Result<Source, LedgerError> {
    let store_id = StoreId::new(&row.text()?).map_err(|_| LedgerError::Shape)?;
    let agent_id = AgentId::new(&row.text()?).map_err(|_| LedgerError::Shape)?;
    Ok(Source { store_id, agent_id })
}

fn int(number: usize) -> Value {
    Value::Int(i64::try_from(number).unwrap_or(i64::MAX))
}

/// Finds out who is first, and folds the chunk.
async fn settle_identities(
    tx: &mut dyn Transaction,
    first_position: u64,
    records: &[Stored],
    readings: Vec<Reading>,
) -> Result<Effects, LedgerError> {
    let keys: Vec<[u8; 16]> = readings.iter().filter_map(|reading| reading.claim).map(|claim| claim.key).collect();
    let mut firsts: BTreeMap<[u8; 16], (u64, [u8; 16])> = BTreeMap::new();
    if !keys.is_empty() {
        let sql = "SELECT key, position, content FROM identities WHERE key";
        for row in tx.lookup(sql, keys).await? {
            let mut row = row.read();
            firsts.insert(row.array()?, (row.count()?, row.array()?));
        }
    }
    let mut effects = Effects::default();
    let mut position = first_position;
    for (record, reading) in records.iter().zip(readings) {
        let standing = reading.claim.map_or(Standing::First, |claim| match firsts.get(&claim.key) {
            Some((first, content)) if *content == claim.content => Standing::Duplicate(*first),
            Some((first, _)) => Standing::Conflict(*first),
            None => {
                firsts.insert(claim.key, (position, claim.content));
                let row = vec![claim.key.into(), position.into(), claim.content.into()];
                effects.identities.push(Row(row));
                Standing::First
            }
        });
        let mut mark = |mark: i64, other: Option<u64>| {
            effects.marks.push(Row(vec![position.into(), mark.into(), other.into()]));
        };
        match standing {
            Standing::First => {}
            Standing::Duplicate(first) => mark(mark::DUPLICATE, Some(first)),
            Standing::Conflict(first) => {
                mark(mark::CONFLICT, Some(first));
                let detail = format!("position {first} was first");
                effects.raised.push(Raised::new(&record.source, record.key, flag::IDENTITY_CONFLICT, "", detail));
            }
        }
        if reading.conflict {
            mark(mark::CONFLICT, None);
        }
        if reading.unreadable {
            mark(mark::UNREADABLE, None);
        }
        posting::fold(&mut effects.totals, record.source.store_id.as_str(), &reading, standing);
        effects.days.take(record, position, &reading, standing);
        effects.ties.take(record, position, &reading, standing);
        effects.delays.take(record, reading.capture);
        effects.seals.take(record, position, reading.seal);
        effects.raised.extend(reading.raised);
        effects.changes.extend(reading.change);
        position = position.saturating_add(1);
    }
    Ok(effects)
}

async fn write(
    tx: &mut dyn Transaction,
    first_position: u64,
    records: &[Stored],
    late: usize,
    posted: Vec<(i64, u64)>,
    effects: Effects,
) -> Result<(), LedgerError> {
    tx.copy(&RUNS, runs(first_position, records)).await?;
    tx.copy(&IDENTITIES, effects.identities).await?;
    tx.copy(&MARKS, effects.marks).await?;
    let totals = effects.totals.into_iter().map(|(key, total)| {
        vec![
            key.store_id.into(),
            key.business_day.into(),
            key.currency.into(),
            key.workstation_id.into(),
            key.what.into(),
            total.transactions.into(),
            total.amount.into(),
            total.base.into(),
            total.low.into(),
            total.high.into(),
        ]
    });
    tx.execute_many(ADD_TOTAL, totals.collect()).await?;
    effects.days.write(tx).await?;
    effects.ties.write(tx).await?;
    effects.delays.write(tx).await?;
    let mut raised = effects.raised;
    raised.extend(effects.seals.write(tx).await?);
    raise(tx, &raised).await?;
    let now = env::wall().0;
    let changes = effects
        .changes
        .into_iter()
        .map(|change| vec![change.id.into(), change.state.into(), change.by.into(), change.reason.into(), now.into()]);
    tx.execute_many(CHANGE, changes.collect()).await?;
    let posted = posted.into_iter().map(|(stream, seq)| vec![stream.into(), seq.into()]);
    tx.execute_many(SET_POSTED, posted.collect()).await?;
    let late = records.get(..late).unwrap_or_default().iter();
    let late = late.map(|record| vec![record.stream.into(), record.key.seq.0.into(), record.fork.into()]);
    tx.execute_many(TAKE_LATE, late.collect()).await
}

/// Positions by runs of records that follow on one another.
fn runs(first_position: u64, records: &[Stored]) -> Vec<Row> {
    let mut runs: Vec<(u64, u64, &Stored)> = Vec::new();
    let mut position = first_position;
    for record in records {
        match runs.last_mut() {
            Some((_, count, first))
                if first.stream == record.stream
                    && record.fork == 0
                    && first.fork == 0
                    && first.key.seq.plus(*count) == record.key.seq =>
            {
                *count = count.saturating_add(1);
            }
            Some(_) | None => runs.push((position, 1, record)),
        }
        position = position.saturating_add(1);
    }
    let row = |(position, count, first): (u64, u64, &Stored)| {
        let (stream, seq, fork) = (first.stream, first.key.seq.0, first.fork);
        Row(vec![position.into(), count.into(), stream.into(), seq.into(), fork.into()])
    };
    runs.into_iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use counterfoil_proto::time::WallTime;

    use super::*;

    #[test]
    fn a_run_holds_what_follows_in_one_lane_and_is_no_fork() {
        let source = Source { store_id: StoreId::new("0001").unwrap(), agent_id: AgentId::new("a").unwrap() };
        let record = |(stream, seq, fork)| Stored {
            stream,
            source: source.clone(),
            key: RecordKey { epoch: Epoch([1; 16]), lane: Lane::Trade, seq: Seq(seq) },
            fork,
            received_at: WallTime(0),
            bytes: Vec::new(),
        };
        let runs_of = |records: &[(i64, u64, i64)]| {
            let rows = runs(7, &records.iter().copied().map(record).collect::<Vec<_>>());
            let ints = |row: Row| row.0.into_iter().map(|value| if let Value::Int(int) = value { int } else { -1 });
            rows.into_iter().map(|row| ints(row).collect()).collect::<Vec<Vec<i64>>>()
        };
        assert_eq!(runs_of(&[(1, 4, 0), (1, 5, 0), (1, 6, 0)]), [[7, 3, 1, 4, 0]]);
        assert_eq!(runs_of(&[(1, 4, 0), (2, 5, 0), (2, 7, 0)]), [[7, 1, 1, 4, 0], [8, 1, 2, 5, 0], [9, 1, 2, 7, 0]]);
        assert_eq!(runs_of(&[(1, 4, 0), (1, 5, 1), (1, 6, 0)]), [[7, 1, 1, 4, 0], [8, 1, 1, 5, 1], [9, 1, 1, 6, 0]]);
        assert_eq!(runs_of(&[(1, 4, 1), (1, 5, 1)]), [[7, 1, 1, 4, 1], [8, 1, 1, 5, 1]]);
        assert_eq!(runs_of(&[]), Vec::<Vec<i64>>::new());
    }
}
