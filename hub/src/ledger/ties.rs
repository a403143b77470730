//! What a record is found by and what it is tied to, kept in indexed tables: its names, and which receipt a void reverses.
//!
//! Invariant: written in the transaction that gives the positions, from the same readings as the totals. What was posted by a version that
//! kept no ties is read again before anything new is posted, in the order of positions, once: `poster.tied_position` says how far. Intake
//! never waits for that.

use std::collections::BTreeMap;

use counterfoil_proto::id::{RecordKey, Seq};
use counterfoil_proto::time::WallTime;

use super::posting::{mark, read_lane};
use super::returns::Goods;
use super::sql::{Form, Role, Row, Table, Transaction, Value};
use super::{LedgerError, Posted, PostingBounds, SqlLedger, watch};
use crate::env;
use crate::naming::Name;
use crate::posting::{self, Reading, Standing, Stored};

const NAMES: Table =
    Table { name: "names", columns: &[("name", Form::Id), ("position", Form::Long), ("stream", Form::Int)] };
const ADD_MARK: &str = "INSERT INTO marks (position, mark, other) VALUES ($1, $2, $3) \
    ON CONFLICT (position, mark) DO NOTHING";
const WAIT: &str = "INSERT INTO voids_waiting (key, position) VALUES ($1, $2) ON CONFLICT (key, position) DO NOTHING";
const WAIT_NO_MORE: &str = "DELETE FROM voids_waiting WHERE key = $1 AND position = $2";
const RUNS_FROM: &str = "SELECT r.stream, s.store_id, s.agent_id, s.epoch, s.lane, r.first_position, r.positions, r.first_seq, r.fork \
    FROM runs r JOIN streams s ON s.stream = r.stream \
    WHERE r.first_position >= (SELECT MAX(first_position) FROM runs WHERE first_position <= $1) \
    ORDER BY r.first_position LIMIT $2";
const BYTES: &str =
    "SELECT seq, bytes FROM records WHERE stream = $1 AND seq >= $2 AND seq <= $3 AND fork = $4 ORDER BY seq";

/// What a chunk is tied to.
#[derive(Default)]
pub(super) struct Ties {
    names: Vec<Row>,
    /// What transactions of the chunk are known as.
    own: BTreeMap<Name, u64>,
    voids: Vec<(Name, u64)>,
    goods: Goods,
}

impl Ties {
    /// Notes what a record is tied to.
    pub(super) fn take(&mut self, record: &Stored, position: u64, reading: &Reading, standing: Standing) {
        let row = |name: &Name| Row(vec![(*name).into(), position.into(), record.stream.into()]);
        self.names.extend(reading.named.names.iter().map(row));
        self.goods.take(record, position, reading, standing);
        if reading.is_effective(standing) {
            for name in &reading.named.own {
                self.own.entry(*name).or_insert(position);
            }
            self.voids.extend(reading.named.voids.iter().map(|name| (*name, position)));
        }
    }

    /// Writes it, after the identities of the chunk.
    pub(super) async fn write(self, tx: &mut dyn Transaction) -> Result<(), LedgerError> {
        tx.copy(&NAMES, self.names).await?;
        self.goods.write(tx).await?;
        let (mut marks, mut came, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
        let mut note = |void: u64, voided: u64| {
            marks.push(vec![void.into(), mark::VOIDS.into(), voided.into()]);
            marks.push(vec![voided.into(), mark::VOIDED.into(), void.into()]);
        };
        if !self.own.is_empty() {
            let sql = "SELECT key, position FROM voids_waiting WHERE key";
            for row in tx.lookup(sql, self.own.keys().copied().collect()).await? {
                let mut row = row.read();
                let (key, void): (Name, u64) = (row.array()?, row.count()?);
                let Some(voided) = self.own.get(&key) else { continue };
                note(void, *voided);
                came.push(vec![key.into(), void.into()]);
            }
        }
        if !self.voids.is_empty() {
            let known = receipts(tx, self.voids.iter().map(|(key, _)| *key).collect()).await?;
            for (key, void) in self.voids {
                match known.get(&key).filter(|voided| **voided != void) {
                    Some(voided) => note(void, *voided),
                    None => waiting.push(vec![key.into(), void.into()]),
                }
            }
        }
        tx.execute_many(ADD_MARK, marks).await?;
        tx.execute_many(WAIT_NO_MORE, came).await?;
        tx.execute_many(WAIT, waiting).await
    }
}

/// The positions of receipts by what they are known as: the first of its identity, else the first that has it beside its own.
async fn receipts(tx: &mut dyn Transaction, keys: Vec<Name>) -> Result<BTreeMap<Name, u64>, LedgerError> {
    let mut known: BTreeMap<Name, u64> = BTreeMap::new();
    for row in tx.lookup("SELECT name, position FROM names WHERE name", keys.clone()).await? {
        let mut row = row.read();
        let (name, position) = (row.array()?, row.count()?);
        known.entry(name).and_modify(|known| *known = position.min(*known)).or_insert(position);
    }
    for row in tx.lookup("SELECT key, position FROM identities WHERE key", keys).await? {
        let mut row = row.read();
        known.insert(row.array()?, row.count()?);
    }
    Ok(known)
}

impl SqlLedger {
    /// Reads the next records again that were posted before there were ties, in the poster's transaction.
    pub(super) async fn tie_again(
        &self,
        mut tx: Box<dyn Transaction>,
        from: u64,
        next_position: u64,
        bounds: PostingBounds,
    ) -> Result<Posted, LedgerError> {
        let (records, first_position) = posted_from(&mut *tx, from, next_position, bounds).await?;
        let mut reached = first_position.saturating_add(u64::try_from(records.len()).unwrap_or(u64::MAX));
        if records.is_empty() {
            // Nothing has a position from here on, whatever the number says: there is nothing to wait for.
            reached = next_position;
        }
        let standings = standings(&mut *tx, first_position, reached).await?;
        let opaque = bounds.opaque;
        let looked_at = env::apart(move || {
            let readings: Vec<Reading> = records.iter().map(|record| posting::read(record, opaque)).collect();
            (records, readings)
        });
        let (records, readings) = looked_at.await.ok_or(LedgerError::Shape)?;
        let mut ties = Ties::default();
        for ((record, reading), position) in records.iter().zip(&readings).zip(first_position..) {
            let standing = standings.get(&position).copied().unwrap_or(Standing::First);
            ties.take(record, position, reading, standing);
        }
        ties.write(&mut *tx).await?;
        tx.execute_many("UPDATE poster SET tied_position = $1 WHERE one = 1", vec![vec![reached.into()]]).await?;
        let settled = self.watch.settle(&mut *tx, Role::Posting).await?;
        self.watch.commit(tx, settled).await?;
        tracing::info!(reached, next_position, "Records of an earlier version are read again for their names");
        Ok(Posted { records: 0, last_position: next_position.saturating_sub(1), more: true, elsewhere: false })
    }
}

/// Records from a position on, within bounds, and the position of the first.
async fn posted_from(
    tx: &mut dyn Transaction,
    from: u64,
    next_position: u64,
    bounds: PostingBounds,
) -> Result<(Vec<Stored>, u64), LedgerError> {
    let (mut records, mut position, mut bytes_room) = (Vec::new(), from, bounds.bytes_max);
    let runs_max = i64::try_from(bounds.records_max).unwrap_or(i64::MAX);
    for row in tx.query(RUNS_FROM, vec![from.into(), runs_max.into()]).await? {
        let mut row = row.read();
        let (stream, source, epoch, lane) = read_lane(&mut row)?;
        let (first_position, count, first_seq, fork) = (row.count()?, row.count()?, row.count()?, row.int()?);
        let room = u64::try_from(bounds.records_max.saturating_sub(records.len())).unwrap_or(u64::MAX);
        let until = first_position.saturating_add(count).min(next_position).min(position.saturating_add(room));
        if until <= position {
            continue;
        }
        let seq_of = |position: u64| first_seq.saturating_add(position.saturating_sub(first_position));
        let params = vec![stream.into(), seq_of(position).into(), seq_of(until.saturating_sub(1)).into(), fork.into()];
        let (rows, left) = tx.query_some(BYTES, params, bytes_room).await?;
        for row in rows {
            let mut row = row.read();
            let key = RecordKey { epoch, lane, seq: Seq(row.count()?) };
            let bytes = row.bytes()?;
            bytes_room = bytes_room.saturating_sub(bytes.len());
            let received_at = WallTime(0); // Nothing of the past is timed again.
            records.push(Stored { stream, source: source.clone(), key, fork, received_at, bytes });
            position = position.saturating_add(1);
        }
        if left || records.len() >= bounds.records_max || bytes_room == 0 {
            break;
        }
    }
    Ok((records, from))
}

/// How records stood when they were posted, where they were not the first.
async fn standings(tx: &mut dyn Transaction, from: u64, until: u64) -> Result<BTreeMap<u64, Standing>, LedgerError> {
    let sql = "SELECT position, mark, other FROM marks WHERE position >= $1 AND position < $2 AND mark IN (1, 2)";
    let mut found = BTreeMap::new();
    for row in tx.query(sql, vec![from.into(), until.into()]).await? {
        let mut row = row.read();
        let (position, what, other) = (row.count()?, row.int()?, row.int_or_null()?);
        let other = other.and_then(|other| u64::try_from(other).ok()).unwrap_or_default();
        let is_duplicate = what == mark::DUPLICATE;
        found.insert(position, if is_duplicate { Standing::Duplicate(other) } else { Standing::Conflict(other) });
    }
    Ok(found)
}

/// How far the records of an earlier version have their ties, and where the next position is.
pub(super) async fn lock(tx: &mut dyn Transaction) -> Result<Option<(u64, u64)>, LedgerError> {
    let sql = "SELECT next_position, tied_position FROM poster WHERE one = 1 FOR UPDATE SKIP LOCKED";
    let Some(row) = watch::first(tx.query(sql, vec![]).await?) else { return Ok(None) };
    let mut row = row.read();
    Ok(Some((row.count()?, row.count()?)))
}

/// Moves the next position, and with it how far records have their ties.
pub(super) async fn advance(tx: &mut dyn Transaction, next_position: u64) -> Result<(), LedgerError> {
    let sql = "UPDATE poster SET next_position = $1, tied_position = $1 WHERE one = 1";
    tx.execute_many(sql, vec![vec![Value::from(next_position)]]).await
}
