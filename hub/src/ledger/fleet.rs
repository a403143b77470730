//! The fleet at a glance: one line per store, summed by the database, so that a thousand stores of many epochs are still one small answer.
//!
//! Invariant: nothing here writes. What is not known is left out, never zero: a store that never stated a head has no lag.

use std::collections::BTreeMap;

use counterfoil_proto::record::Record;
use counterfoil_proto::record::flag::{self, Severity};
use counterfoil_proto::time::WallTime;

use super::view::{FleetStore, FleetView, OpenOfCode, Waits};
use super::{LedgerError, SqlLedger, watch};

/// Ages that exceptions are told apart by, in milliseconds.
const AGES_MS: [i64; 3] = [3_600_000, 86_400_000, 7 * 86_400_000];
/// Lanes whose last stored record is read for its time; of more the lag in seconds stays unknown.
const LANES_READ_MAX: i64 = 20_000;

const STREAMS: &str = "SELECT store_id, CAST(SUM(received) AS BIGINT), CAST(SUM(duplicates) AS BIGINT), \
    CAST(SUM(forks) AS BIGINT), CAST(SUM(CASE WHEN head > stored THEN head - stored ELSE 0 END) AS BIGINT), MAX(seen_at) \
    FROM streams GROUP BY store_id";
const AGENTS: &str = "SELECT store_id, COUNT(*), \
    CAST(SUM(CASE WHEN presence = 'online' THEN 1 ELSE 0 END) AS BIGINT), \
    CAST(SUM(CASE WHEN presence = 'offline' THEN 1 ELSE 0 END) AS BIGINT), \
    CAST(SUM(suspended) AS BIGINT), MAX(hello_at) FROM agents GROUP BY store_id";
/// The record before the first one that is known of and not here.
const BEHIND: &str = "SELECT s.store_id, r.bytes FROM streams s \
    JOIN records r ON r.stream = s.stream AND r.seq = s.stored AND r.fork = 0 WHERE s.head > s.stored LIMIT $1";
const EXCEPTIONS: &str = "SELECT store_id, code, owner, COUNT(*), MIN(opened_at), \
    CAST(SUM(CASE WHEN opened_at > $1 THEN 1 ELSE 0 END) AS BIGINT), \
    CAST(SUM(CASE WHEN opened_at <= $1 AND opened_at > $2 THEN 1 ELSE 0 END) AS BIGINT), \
    CAST(SUM(CASE WHEN opened_at <= $2 AND opened_at > $3 THEN 1 ELSE 0 END) AS BIGINT), \
    CAST(SUM(CASE WHEN opened_at <= $3 THEN 1 ELSE 0 END) AS BIGINT) \
    FROM exceptions WHERE state IN ('open', 'acknowledged') GROUP BY store_id, code, owner";
/// Posting and backups go through a lane in the order of its numbers, so the first that waits is the oldest of it.
const WAITS: &str = "SELECT (SELECT COUNT(*) - 1 FROM hub_epochs), \
    (SELECT CAST(COALESCE(SUM(s.stored - COALESCE(p.seq, 0)), 0) AS BIGINT) FROM streams s \
        LEFT JOIN posted p ON p.stream = s.stream WHERE s.stored > COALESCE(p.seq, 0)) + (SELECT COUNT(*) FROM late), \
    (SELECT MIN(r.received_at) FROM streams s LEFT JOIN posted p ON p.stream = s.stream \
        JOIN records r ON r.stream = s.stream AND r.seq = COALESCE(p.seq, 0) + 1 WHERE s.stored > COALESCE(p.seq, 0)), \
    (SELECT MIN(r.received_at) FROM streams s \
        JOIN records r ON r.stream = s.stream AND r.seq = s.safe + 1 WHERE s.stored > s.safe)";

impl SqlLedger {
    pub(super) async fn view_fleet(&self, now: WallTime) -> Result<FleetView, LedgerError> {
        let mut fleet = FleetView::default();
        let stores = &mut fleet.stores;
        for row in self.database.read(AGENTS, vec![]).await? {
            let mut row = row.read();
            let store = entry(stores, row.text()?);
            store.agents = row.count()?;
            store.online = row.count()?;
            store.offline = row.count()?;
            store.suspended = row.count()?;
            store.heard_at = row.int_or_null()?;
        }
        for row in self.database.read(STREAMS, vec![]).await? {
            let mut row = row.read();
            let store = entry(stores, row.text()?);
            store.received = row.count()?;
            store.duplicates = row.count()?;
            store.forks = row.count()?;
            store.lag = Some(row.count()?);
            store.heard_at = store.heard_at.max(row.int_or_null()?);
        }
        for row in self.database.read(BEHIND, vec![LANES_READ_MAX.into()]).await? {
            let mut row = row.read();
            let store = entry(stores, row.text()?);
            // What nobody can read has no time; another lane of the store may have one.
            let Ok(record) = Record::decode(&row.bytes()?) else { continue };
            let at = record.envelope.recorded_at.0;
            store.whole_until = Some(store.whole_until.map_or(at, |known| known.min(at)));
        }
        let params = AGES_MS.iter().map(|age| now.0.saturating_sub(*age).into()).collect();
        for row in self.database.read(EXCEPTIONS, params).await? {
            let mut row = row.read();
            let store = entry(stores, row.text()?);
            let (code, owner) = (row.text()?, row.text_or_null()?);
            let severity = flag::finding(&code).map_or(Severity::Error, |known| known.severity);
            let (open, oldest) = (row.count()?, row.int()?);
            let of_code = fleet.by_code.entry((code, owner)).or_insert(OpenOfCode { open: 0, oldest_at: oldest });
            of_code.open = of_code.open.saturating_add(open);
            of_code.oldest_at = of_code.oldest_at.min(oldest);
            store.exceptions_open = store.exceptions_open.saturating_add(open);
            match severity {
                Severity::Error => store.errors_open = store.errors_open.saturating_add(open),
                Severity::Warning => store.warnings_open = store.warnings_open.saturating_add(open),
                Severity::Info => {}
            }
            store.oldest_exception_at = Some(store.oldest_exception_at.map_or(oldest, |known| known.min(oldest)));
            let of = &mut fleet.ageing;
            for count in [&mut of.under_1h, &mut of.under_1d, &mut of.under_7d, &mut of.older] {
                *count = count.saturating_add(row.count()?);
            }
        }
        Ok(fleet)
    }

    pub(super) async fn view_waits(&self) -> Result<Waits, LedgerError> {
        let row = watch::first(self.database.read(WAITS, vec![]).await?).ok_or(LedgerError::Shape)?;
        let mut row = row.read();
        Ok(Waits {
            restores: row.count()?,
            unposted: row.count()?,
            unposted_since: row.int_or_null()?,
            unsafe_since: row.int_or_null()?,
        })
    }

    /// The stores of which anything was posted for a day.
    pub(super) async fn view_stores_of_day(&self, day: &str) -> Result<Vec<String>, LedgerError> {
        let sql = "SELECT store_id FROM totals WHERE business_day = $1 \
            UNION SELECT store_id FROM day_documents WHERE business_day = $1 ORDER BY store_id";
        self.database.read(sql, vec![day.into()]).await?.into_iter().map(|row| row.read().text()).collect()
    }
}

fn entry(stores: &mut BTreeMap<String, FleetStore>, store_id: String) -> &mut FleetStore {
    stores.entry(store_id).or_default()
}
