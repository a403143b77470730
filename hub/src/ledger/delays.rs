//! How long documents take from the till's word to the ledger, and to its totals: counts by day, store, channel and way of fulfillment, from
//! which percentiles are read.
//!
//! Invariant: a document is counted once, in the transaction that gives it its position, whatever its records say later. The start is the
//! box's clock, the rest the hub's: what comes out below zero counts as zero. Classes of durations grow by a fifth to a quarter each, so
//! that a percentile is right within that.

use std::collections::BTreeMap;

use counterfoil_proto::time::WallTime;

use super::sql::{Transaction, Value};
use super::view::{DelayQuery, DelayView};
use super::{LedgerError, SqlLedger};
use crate::env;
use crate::posting::{Capture, Stored};

const ADD: &str = "INSERT INTO delays (day, store_id, channel, fulfillment_type, until, class, documents) \
    VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (day, store_id, channel, fulfillment_type, until, class) \
    DO UPDATE SET documents = delays.documents + excluded.documents";

/// Until when it took: until it was stored, until it was posted.
const STORED: i64 = 0;
const POSTED: i64 = 1;

/// The class of a duration: four for each doubling of it.
pub(super) fn class_of(ms: u64) -> u64 {
    let above = ms.saturating_add(4);
    let doublings = u64::from(above.ilog2()).saturating_sub(2);
    doublings.saturating_mul(4).saturating_add((above >> doublings) & 3)
}

/// The longest duration of a class, in milliseconds.
pub(super) fn longest_of(class: u64) -> u64 {
    let (doublings, quarter) = (class / 4, class % 4);
    let step = 1_u64.checked_shl(u32::try_from(doublings).unwrap_or(u32::MAX));
    let next = step.and_then(|step| quarter.saturating_add(5).checked_mul(step));
    next.unwrap_or(u64::MAX).saturating_sub(5)
}

/// Day, store, channel, way of fulfillment, until when, class.
type Key = (String, String, String, String, i64, u64);

/// What a chunk adds.
#[derive(Default)]
pub(super) struct Delays(BTreeMap<Key, u64>);

impl Delays {
    /// Counts a document that is posted now.
    pub(super) fn take(&mut self, record: &Stored, capture: Option<Capture>) {
        let Some(Capture { at, channel, fulfillment_type }) = capture else { return };
        let now = env::wall();
        let day = now.to_rfc3339().chars().take(10).collect::<String>();
        for (until, end) in [(STORED, record.received_at), (POSTED, now)] {
            let ms = u64::try_from(end.0.saturating_sub(at.0)).unwrap_or_default();
            let store_id = record.source.store_id.as_str().to_owned();
            let key = (day.clone(), store_id, channel.clone(), fulfillment_type.clone(), until, class_of(ms));
            let count = self.0.entry(key).or_default();
            *count = count.saturating_add(1);
        }
    }

    /// Writes it.
    pub(super) async fn write(self, tx: &mut dyn Transaction) -> Result<(), LedgerError> {
        let row = |((day, store_id, channel, fulfillment_type, until, class), documents): (Key, u64)| -> Vec<Value> {
            vec![
                day.into(),
                store_id.into(),
                channel.into(),
                fulfillment_type.into(),
                until.into(),
                class.into(),
                documents.into(),
            ]
        };
        tx.execute_many(ADD, self.0.into_iter().map(row).collect()).await
    }
}

impl SqlLedger {
    pub(super) async fn view_delays(&self, query: &DelayQuery) -> Result<Vec<DelayView>, LedgerError> {
        let sql = "SELECT store_id, channel, fulfillment_type, until, class, documents FROM delays \
            WHERE day >= $1 AND day <= $2 ORDER BY store_id, channel, fulfillment_type, class";
        let params: Vec<Value> = vec![query.first_day.as_str().into(), query.last_day.as_str().into()];
        let mut found = Vec::new();
        for row in self.database.read(sql, params).await? {
            let mut row = row.read();
            let (store_id, channel, fulfillment_type) = (row.text()?, row.text()?, row.text()?);
            let is_posted = row.int()? == POSTED;
            let (class, documents) = (row.count()?, row.count()?);
            found.push(DelayView {
                store_id,
                channel,
                fulfillment_type,
                is_posted,
                longest_ms: longest_of(class),
                documents,
            });
        }
        Ok(found)
    }
}

/// When the record was received, of a row that says it.
pub(super) fn received_at(row: &mut super::sql::RowReader) -> Result<WallTime, LedgerError> {
    Ok(WallTime(row.int()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_follow_on_one_another_and_hold_what_they_say() {
        let mut before = 0;
        for ms in 0..200_000_u64 {
            let class = class_of(ms);
            assert!(class == before || class == before + 1, "{ms}");
            assert!(ms <= longest_of(class), "{ms} in {class}, up to {}", longest_of(class));
            assert!(class == 0 || ms > longest_of(class - 1), "{ms} in {class}");
            before = class;
        }
        assert!(longest_of(class_of(60_000)) < 75_000);
        assert_eq!(longest_of(class_of(u64::MAX)), u64::MAX - 5);
    }
}
