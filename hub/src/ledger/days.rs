//! A store's day, kept so that it can be reconciled without reading its records again: who closed and what was declared, what came late, and
//! which of the tills' numbers came.
//!
//! Invariant: written in the transaction that gives the positions, from the same readings as the totals. What is not named here is in the
//! totals alone.

use std::collections::BTreeMap;

use super::sql::{Transaction, Value};
use super::view::{DayDocument, DayView, TillNumbers};
use super::{LedgerError, SqlLedger};
use crate::posting::{DayNote, DaySums, DayWhat, Reading, Standing, Stored, TillNumber};
use crate::reconcile::Numbers;

const ADD_DOCUMENT: &str = "INSERT INTO day_documents \
    (store_id, business_day, position, what, workstation_id, source_agent, identity, sums) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (store_id, business_day, position, what) DO NOTHING";
const NUMBERS: &str = "SELECT runs FROM till_numbers \
    WHERE store_id = $1 AND business_day = $2 AND workstation_id = $3 AND sequence_epoch = $4";
const SET_NUMBERS: &str = "INSERT INTO till_numbers (store_id, business_day, workstation_id, sequence_epoch, runs) \
    VALUES ($1, $2, $3, $4, $5) \
    ON CONFLICT (store_id, business_day, workstation_id, sequence_epoch) DO UPDATE SET runs = excluded.runs";

/// Store, day, till and sequence epoch.
type NumbersOf = (String, String, String, i64);

/// A number that came, with the note to be written where it had come before.
struct Came {
    number: u64,
    if_doubled: Option<Vec<Value>>,
}

/// What a chunk does to the days of its stores.
#[derive(Default)]
pub(super) struct Days {
    documents: Vec<Vec<Value>>,
    numbers: BTreeMap<NumbersOf, Vec<Came>>,
}

impl Days {
    /// Notes what a record does.
    pub(super) fn take(&mut self, record: &Stored, position: u64, reading: &Reading, standing: Standing) {
        let row = |note: DayNote| row(record, position, &reading.identity, note);
        self.documents.extend(reading.day_note(standing).map(row));
        let Some(TillNumber { business_day, workstation_id, sequence_epoch, number }) = reading.till_number(standing)
        else {
            return;
        };
        let key = (record.source.store_id.as_str().to_owned(), business_day, workstation_id, sequence_epoch);
        self.numbers.entry(key).or_default().push(Came { number, if_doubled: reading.doubled().map(row) });
    }

    /// Writes it.
    pub(super) async fn write(mut self, tx: &mut dyn Transaction) -> Result<(), LedgerError> {
        let params = |(store_id, day, till, sequence_epoch): &NumbersOf| -> Vec<Value> {
            vec![store_id.as_str().into(), day.as_str().into(), till.as_str().into(), (*sequence_epoch).into()]
        };
        let known = tx.query_many(NUMBERS, self.numbers.keys().map(params).collect()).await?;
        let mut rows = Vec::with_capacity(self.numbers.len());
        for ((key, came), known) in self.numbers.into_iter().zip(known) {
            let mut numbers = match known.into_iter().next() {
                Some(row) => read::<Numbers>(&row.read().bytes()?)?,
                None => Numbers::default(),
            };
            for came in came {
                if !numbers.insert(came.number) {
                    self.documents.extend(came.if_doubled);
                }
            }
            let mut row = params(&key);
            row.push(write(&numbers)?.into());
            rows.push(row);
        }
        tx.execute_many(SET_NUMBERS, rows).await?;
        tx.execute_many(ADD_DOCUMENT, self.documents).await
    }
}

fn row(record: &Stored, position: u64, identity: &str, note: DayNote) -> Vec<Value> {
    vec![
        record.source.store_id.as_str().into(),
        note.business_day.into(),
        position.into(),
        note.what.as_str().into(),
        note.workstation_id.into(),
        record.source.agent_id.as_str().into(),
        identity.into(),
        // Plain values of memory have a postcard form.
        write(&note.sums).unwrap_or_default().into(),
    ]
}

fn write<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, LedgerError> {
    postcard::to_extend(value, Vec::new()).map_err(|_| LedgerError::Shape)
}

fn read<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, LedgerError> {
    postcard::from_bytes(bytes).map_err(|_| LedgerError::Shape)
}

impl SqlLedger {
    pub(super) async fn view_day(&self, store_id: &str, day: &str) -> Result<DayView, LedgerError> {
        let mut view = DayView { totals: self.view_totals(store_id, day).await?, ..DayView::default() };
        let sql = "SELECT position, what, workstation_id, source_agent, identity, sums FROM day_documents \
            WHERE store_id = $1 AND business_day = $2 ORDER BY position, what";
        for row in self.database.read(sql, vec![store_id.into(), day.into()]).await? {
            let mut row = row.read();
            view.documents.push(DayDocument {
                position: row.count()?,
                what: DayWhat::from_name(&row.text()?).ok_or(LedgerError::Shape)?,
                workstation_id: row.text()?,
                agent_id: row.text()?,
                identity: row.text()?,
                sums: read::<DaySums>(&row.bytes()?)?,
            });
        }
        let sql = "SELECT workstation_id, sequence_epoch, runs FROM till_numbers \
            WHERE store_id = $1 AND business_day = $2 ORDER BY workstation_id, sequence_epoch";
        for row in self.database.read(sql, vec![store_id.into(), day.into()]).await? {
            let mut row = row.read();
            let (workstation_id, sequence_epoch) = (row.text()?, row.count()?);
            view.numbers.push(TillNumbers { workstation_id, sequence_epoch, numbers: read(&row.bytes()?)? });
        }
        view.seals = self.view_seals(store_id, day).await?;
        let sql = "SELECT s.agent_id, SUM(CASE WHEN s.head > COALESCE(p.seq, 0) THEN 1 ELSE 0 END) \
            FROM streams s LEFT JOIN posted p ON p.stream = s.stream WHERE s.store_id = $1 AND s.lane = 0 \
            GROUP BY s.agent_id ORDER BY s.agent_id";
        for row in self.database.read(sql, vec![store_id.into()]).await? {
            let mut row = row.read();
            view.agents.push((row.text()?, row.int()? == 0));
        }
        Ok(view)
    }
}
