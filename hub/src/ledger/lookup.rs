//! Records by what a person knows of them: a receipt, an order, a correlation or trace id, a document's id.
//!
//! Invariant: bounded, and oldest first. Names that an agent minted are read back to the record's place, which needs no index and finds
//! what has no position yet; everything else is found once it has one. Nothing here writes.

use std::collections::BTreeSet;

use counterfoil_proto::id::{Lane, RecordKey, Seq, Source};

use super::posting::read_lane;
use super::read::{RECORD, of_exceptions, read_exception};
use super::sql::Value;
use super::view::{By, EntryView, ExceptionView, Lookup, LookupQuery};
use super::{LedgerError, SqlLedger, watch};
use crate::naming::{self, Name};

/// Records that have a receipt's identity themselves: more is a till that counts in circles, and the first are shown.
const SEEDS_MAX: i64 = 1_000;
/// Exceptions about one record.
const EXCEPTIONS_OF_RECORD_MAX: i64 = 200;

const NAMED: &str = "SELECT n.position FROM names n JOIN streams s ON s.stream = n.stream \
    WHERE n.name = $1 AND n.position > $2 AND (CAST($3 AS TEXT) IS NULL OR s.store_id = $3) ORDER BY n.position LIMIT $4";
const ABOUT: &str = "SELECT DISTINCT position FROM marks WHERE other = $1 AND position > $2 ORDER BY position LIMIT $3";
const STREAMS: &str = "SELECT stream, store_id, agent_id, epoch, lane FROM streams \
    WHERE epoch >= $1 AND epoch <= $2 AND lane = $3 AND (CAST($4 AS TEXT) IS NULL OR store_id = $4)";
const FORKS: &str = "SELECT r.fork, (SELECT u.first_position + ($2 - u.first_seq) FROM runs u WHERE u.stream = $1 \
    AND u.fork = r.fork AND u.first_seq <= $2 AND u.first_seq + u.positions > $2) \
    FROM records r WHERE r.stream = $1 AND r.seq = $2 ORDER BY r.fork";
const EXCEPTIONS: &str = of_exceptions!(
    "WHERE epoch = $1 AND lane = $2 AND seq = $3 AND store_id = $4 AND agent_id = $5 ORDER BY opened_at, id LIMIT $6"
);

/// What was found so far: positions, and places that have none.
#[derive(Default)]
struct Found {
    positions: BTreeSet<u64>,
    waiting: Vec<(i64, Source, RecordKey, i64)>,
}

impl SqlLedger {
    pub(super) async fn find(&self, query: &LookupQuery) -> Result<Lookup, LedgerError> {
        let mut found = Found::default();
        match &query.by {
            By::Identity(identity) => self.find_identity(identity, query, &mut found).await?,
            By::Order(order_id) => self.find_named(naming::order(order_id), query, &mut found).await?,
            By::Trace(text) => {
                self.find_named(naming::correlation(text), query, &mut found).await?;
                let trace_id = naming::trace_id(text).unwrap_or(text);
                self.find_named(naming::trace(trace_id), query, &mut found).await?;
                if let Some(key) = RecordKey::from_correlation_id(text) {
                    self.find_minted((key.epoch.0, key.epoch.0), key.lane, key.seq, "", query, &mut found).await?;
                } else if let Some((first, lane, seq)) = RecordKey::place_of_trace_id(trace_id) {
                    let bound =
                        |rest: u8| -> [u8; 16] { std::array::from_fn(|at| first.get(at).copied().unwrap_or(rest)) };
                    self.find_minted((bound(0), bound(0xff)), lane, seq, trace_id, query, &mut found).await?;
                }
            }
        }
        let more = found.positions.len() > query.limit;
        let positions: Vec<u64> = found.positions.into_iter().take(query.limit).collect();
        let mut entries = self.entries_at(&positions).await?;
        if !more {
            // What has no position yet is younger than all that have one.
            entries.extend(self.unposted(found.waiting).await?);
        }
        let exceptions = self.exceptions_about(&entries).await?;
        Ok(Lookup { entries, exceptions, more })
    }

    /// The stores that may be meant.
    async fn stores_of(&self, query: &LookupQuery) -> Result<Vec<String>, LedgerError> {
        if let Some(store_id) = &query.store_id {
            return Ok(vec![store_id.clone()]);
        }
        let rows = self.database.read("SELECT DISTINCT store_id FROM streams", vec![]).await?;
        rows.into_iter().map(|row| row.read().text()).collect()
    }

    /// What has an identity, what came again or otherwise under it, what names it and what reverses it.
    async fn find_identity(&self, identity: &str, query: &LookupQuery, found: &mut Found) -> Result<(), LedgerError> {
        let stores = self.stores_of(query).await?;
        let names: Vec<Name> = stores.iter().map(|store_id| naming::identity(store_id, identity)).collect();
        let one = |name: &Name| vec![(*name).into()];
        let mut seeds = BTreeSet::new();
        let first = "SELECT position FROM identities WHERE key = $1";
        let also = "SELECT position FROM names WHERE name = $1 ORDER BY position LIMIT 1000";
        for sql in [first, also] {
            for row in self.database.read_many(sql, names.iter().map(one).collect()).await?.into_iter().flatten() {
                seeds.insert(row.read().count()?);
            }
        }
        let seeds: Vec<u64> = seeds.into_iter().take(usize::try_from(SEEDS_MAX).unwrap_or(usize::MAX)).collect();
        let limit = one_more(query.limit);
        let about = seeds.iter().map(|seed| vec![(*seed).into(), query.after.into(), limit.clone()]).collect();
        for row in self.database.read_many(ABOUT, about).await?.into_iter().flatten() {
            found.positions.insert(row.read().count()?);
        }
        found.positions.extend(seeds.into_iter().filter(|seed| *seed > query.after));
        let linked = stores.iter().map(|store_id| {
            let name = naming::link(store_id, identity);
            vec![name.into(), query.after.into(), Value::Null, limit.clone()]
        });
        for row in self.database.read_many(NAMED, linked.collect()).await?.into_iter().flatten() {
            found.positions.insert(row.read().count()?);
        }
        Ok(())
    }

    async fn find_named(&self, name: Name, query: &LookupQuery, found: &mut Found) -> Result<(), LedgerError> {
        let params = vec![name.into(), query.after.into(), query.store_id.clone().into(), one_more(query.limit)];
        for row in self.database.read(NAMED, params).await? {
            found.positions.insert(row.read().count()?);
        }
        Ok(())
    }

    /// The records at a place of the epochs between two, where the trace id is that of the place.
    async fn find_minted(
        &self,
        epochs: ([u8; 16], [u8; 16]),
        lane: Lane,
        seq: Seq,
        trace_id: &str,
        query: &LookupQuery,
        found: &mut Found,
    ) -> Result<(), LedgerError> {
        let (first, last) = epochs;
        let store_id = query.store_id.clone().into();
        let params = vec![first.into(), last.into(), i64::from(lane.code()).into(), store_id];
        for row in self.database.read(STREAMS, params).await? {
            let (stream, source, epoch, lane) = read_lane(&mut row.read())?;
            let key = RecordKey { epoch, lane, seq };
            if !trace_id.is_empty() && !key.has_trace_id(trace_id) {
                continue;
            }
            for row in self.database.read(FORKS, vec![stream.into(), seq.0.into()]).await? {
                let mut row = row.read();
                let (fork, position) = (row.int()?, row.int_or_null()?);
                match position.and_then(|position| u64::try_from(position).ok()) {
                    Some(position) if position > query.after => drop(found.positions.insert(position)),
                    Some(_) => {}
                    None => found.waiting.push((stream, source.clone(), key, fork)),
                }
            }
        }
        Ok(())
    }

    async fn unposted(&self, waiting: Vec<(i64, Source, RecordKey, i64)>) -> Result<Vec<EntryView>, LedgerError> {
        let mut entries = Vec::new();
        for (stream, source, key, fork) in waiting {
            let params = vec![stream.into(), key.seq.0.into(), fork.into()];
            let Some(row) = watch::first(self.database.read(RECORD, params).await?) else { continue };
            entries.push(super::read::read_entry(&mut row.read(), 0, source, key, fork)?);
        }
        Ok(entries)
    }

    async fn exceptions_about(&self, entries: &[EntryView]) -> Result<Vec<ExceptionView>, LedgerError> {
        let places: BTreeSet<(&Source, RecordKey)> = entries.iter().map(|entry| (&entry.source, entry.key)).collect();
        let params = places.iter().map(|(source, key)| {
            vec![
                key.epoch.0.into(),
                i64::from(key.lane.code()).into(),
                key.seq.0.into(),
                source.store_id.as_str().into(),
                source.agent_id.as_str().into(),
                EXCEPTIONS_OF_RECORD_MAX.into(),
            ]
        });
        let mut exceptions = Vec::new();
        for row in self.database.read_many(EXCEPTIONS, params.collect()).await?.into_iter().flatten() {
            exceptions.push(read_exception(row)?);
        }
        exceptions.sort_by(|one, other| (one.opened_at, &one.id).cmp(&(other.opened_at, &other.id)));
        Ok(exceptions)
    }
}

/// One more than is shown says whether there is more.
fn one_more(limit: usize) -> Value {
    Value::Int(i64::try_from(limit.saturating_add(1)).unwrap_or(i64::MAX))
}
