//! The boxes' signed control totals: each is held to its signature, to the ones before it and to the key that signed them.
//!
//! Invariant: what is wrong with one is raised when it is posted and stays beside it; a box's line goes on from the newest, whatever was
//! found, so that one break is told once. What a box counted is shown beside what it declared and what the ledger counts, and never
//! enters a total.

use std::collections::BTreeMap;

use counterfoil_proto::id::{Digest, PublicKey, RecordKey, Source};
use counterfoil_proto::record::control_totals::{ControlTotals, Previous, is_signed};
use counterfoil_proto::record::flag;

use super::sql::{Transaction, Value};
use super::view::SealView;
use super::{LedgerError, SqlLedger};
use crate::posting::{Raised, Stored, bounded};

const NEWEST: &str = "SELECT number, digest, public_key FROM seals WHERE store_id = $1 AND agent_id = $2 \
    ORDER BY position DESC LIMIT 1";
const ADD: &str = "INSERT INTO seals \
    (position, store_id, agent_id, business_day, workstation_id, number, digest, public_key, computed, wrong) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (position) DO NOTHING";

/// Control totals as they were read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seal {
    totals: ControlTotals,
    digest: Digest,
    is_signed: bool,
}

impl Seal {
    /// Reads them; `None` where they cannot be read.
    pub(crate) fn read(document: &[u8]) -> Option<Self> {
        let totals: ControlTotals = serde_json::from_slice(document).ok()?;
        let is_signed = is_signed(&totals, document);
        Some(Self { totals, digest: Digest::of(document), is_signed })
    }

    /// What is wrong with them, in words; nothing where they follow the ones before.
    fn judge(&self, before: Option<&(Previous, PublicKey)>) -> Vec<&'static str> {
        let mut wrong = Vec::new();
        if !self.is_signed {
            wrong.push("the signature does not belong to what stands there");
        }
        if let Some((previous, public_key)) = before {
            if self.totals.public_key != *public_key {
                wrong.push("another key signed than before");
            }
            if self.totals.previous != Some(*previous) {
                wrong.push("they do not follow the ones that came before");
            }
        }
        wrong
    }
}

/// What a chunk brings.
#[derive(Default)]
pub(super) struct Seals(Vec<(Source, RecordKey, u64, Seal)>);

impl Seals {
    /// Notes control totals.
    pub(super) fn take(&mut self, record: &Stored, position: u64, seal: Option<Seal>) {
        self.0.extend(seal.map(|seal| (record.source.clone(), record.key, position, seal)));
    }

    /// Writes them, and gives what is wrong with them.
    pub(super) async fn write(self, tx: &mut dyn Transaction) -> Result<Vec<Raised>, LedgerError> {
        let mut newest: BTreeMap<(String, String), Option<(Previous, PublicKey)>> = BTreeMap::new();
        let (mut rows, mut raised) = (Vec::with_capacity(self.0.len()), Vec::new());
        for (source, key, position, seal) in self.0 {
            let of = (source.store_id.as_str().to_owned(), source.agent_id.as_str().to_owned());
            if !newest.contains_key(&of) {
                let found = tx.query(NEWEST, vec![of.0.as_str().into(), of.1.as_str().into()]).await?;
                newest
                    .insert(of.clone(), found.into_iter().next().map(|row| read_newest(&mut row.read())).transpose()?);
            }
            let before = newest.get(&of).and_then(Option::as_ref);
            let wrong = seal.judge(before).join("; ");
            if !wrong.is_empty() {
                let detail = format!("control totals {}: {wrong}", seal.totals.number);
                raised.push(Raised::new(&source, key, flag::CONTROL_TOTALS_BROKEN, "", detail));
            }
            let Seal { totals, digest, .. } = seal;
            rows.push(vec![
                position.into(),
                of.0.as_str().into(),
                of.1.as_str().into(),
                bounded(&totals.business_day_date).into(),
                bounded(totals.workstation_id.as_deref().unwrap_or_default()).into(),
                totals.number.into(),
                digest.0.to_vec().into(),
                totals.public_key.0.to_vec().into(),
                postcard::to_extend(&totals.computed, Vec::new()).map_err(|_| LedgerError::Shape)?.into(),
                wrong.into(),
            ]);
            newest.insert(of, Some((Previous { number: totals.number, digest }, totals.public_key)));
        }
        tx.execute_many(ADD, rows).await?;
        Ok(raised)
    }
}

fn read_newest(row: &mut super::sql::RowReader) -> Result<(Previous, PublicKey), LedgerError> {
    let number = row.count()?;
    let digest = Digest(row.bytes()?.try_into().map_err(|_| LedgerError::Shape)?);
    let public_key = PublicKey(row.bytes()?.try_into().map_err(|_| LedgerError::Shape)?);
    Ok((Previous { number, digest }, public_key))
}

impl SqlLedger {
    /// The key that signed a box's newest control totals; `None` where none came yet.
    pub(crate) async fn box_key(&self, source: &Source) -> Result<Option<PublicKey>, LedgerError> {
        let params = vec![source.store_id.as_str().into(), source.agent_id.as_str().into()];
        let found = self.database.read(NEWEST, params).await?.into_iter().next();
        Ok(found.map(|row| read_newest(&mut row.read())).transpose()?.map(|(_, public_key)| public_key))
    }

    pub(super) async fn view_seals(&self, store_id: &str, day: &str) -> Result<Vec<SealView>, LedgerError> {
        let sql = "SELECT position, agent_id, workstation_id, number, public_key, computed, wrong FROM seals \
            WHERE store_id = $1 AND business_day = $2 ORDER BY position";
        let params: Vec<Value> = vec![store_id.into(), day.into()];
        let mut seals = Vec::new();
        for row in self.database.read(sql, params).await? {
            let mut row = row.read();
            seals.push(SealView {
                position: row.count()?,
                agent_id: row.text()?,
                workstation_id: row.text()?,
                number: row.count()?,
                public_key: PublicKey(row.bytes()?.try_into().map_err(|_| LedgerError::Shape)?),
                computed: postcard::from_bytes(&row.bytes()?).map_err(|_| LedgerError::Shape)?,
                wrong: row.text()?,
            });
        }
        Ok(seals)
    }
}
