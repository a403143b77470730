//! `GET /v1/totals`: a store's day, per currency and till, as the ledger's records give it.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Query, State};
use counterfoil_proto::money::{Currency, amount_text};
use serde::{Deserialize, Serialize};

use super::{Answer, Problem, Sources};
use crate::ledger::TotalsRow;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DayQuery {
    pub(super) store: String,
    pub(super) business_day: String,
}

#[derive(Debug, Serialize)]
struct Totals {
    store_id: String,
    business_day_date: String,
    currencies: Vec<CurrencyTotals>,
}

#[derive(Debug, Serialize)]
struct CurrencyTotals {
    currency_code: String,
    transactions: u64,
    gross: String,
    tills: Vec<TillTotals>,
}

#[derive(Debug, Default, Serialize)]
struct TillTotals {
    workstation_id: String,
    transactions: u64,
    gross: String,
    net: String,
    tax: String,
    taxes: Vec<TaxTotal>,
    tenders: BTreeMap<String, String>,
    first_sequence_number: Option<u64>,
    last_sequence_number: Option<u64>,
    /// Beside the totals, never in them.
    not_counted: BTreeMap<String, u64>,
}

#[derive(Debug, Serialize)]
struct TaxTotal {
    category: String,
    rate: String,
    taxable_amount: String,
    amount: String,
}

pub(super) async fn get(
    State(sources): State<Arc<Sources>>,
    query: Result<Query<DayQuery>, axum::extract::rejection::QueryRejection>,
) -> Answer {
    let Query(query) = query.map_err(|_| Problem::query("store and business_day, both required"))?;
    let rows = sources.ledger.totals(&query.store, &query.business_day).await?;
    let answer = Totals { store_id: query.store, business_day_date: query.business_day, currencies: currencies(rows) };
    Ok(super::json(&answer))
}

fn currencies(rows: Vec<TotalsRow>) -> Vec<CurrencyTotals> {
    let mut by_currency: BTreeMap<String, BTreeMap<String, Vec<TotalsRow>>> = BTreeMap::new();
    for row in rows {
        let tills = by_currency.entry(row.currency.clone()).or_default();
        tills.entry(row.workstation_id.clone()).or_default().push(row);
    }
    let totals = by_currency.into_iter().map(|(currency_code, tills)| {
        let counted = |row: &&TotalsRow| row.what == "counted";
        let all = || tills.values().flatten().filter(counted);
        CurrencyTotals {
            transactions: all().map(|row| row.transactions).sum(),
            gross: text(all().map(|row| row.amount).sum(), &currency_code),
            tills: tills.iter().map(|(workstation_id, rows)| till(workstation_id, rows, &currency_code)).collect(),
            currency_code,
        }
    });
    totals.collect()
}

fn till(workstation_id: &str, rows: &[TotalsRow], currency: &str) -> TillTotals {
    let zero = || text(0, currency);
    let mut till = TillTotals {
        workstation_id: workstation_id.to_owned(),
        gross: zero(),
        net: zero(),
        tax: zero(),
        ..TillTotals::default()
    };
    for row in rows {
        let amount = text(row.amount, currency);
        let mut words = row.what.splitn(3, '/');
        match (words.next(), words.next(), words.next()) {
            (Some("counted"), None, None) => {
                till.transactions = row.transactions;
                till.gross = amount;
                (till.first_sequence_number, till.last_sequence_number) = (row.low, row.high);
            }
            (Some("net"), None, None) => till.net = amount,
            (Some("tax"), None, None) => till.tax = amount,
            (Some("taxes"), Some(category), Some(rate)) => till.taxes.push(TaxTotal {
                category: category.to_owned(),
                rate: rate.to_owned(),
                taxable_amount: text(row.base, currency),
                amount,
            }),
            (Some("tender"), Some(kind), None) => drop(till.tenders.insert(kind.to_owned(), amount)),
            (Some("not"), Some(reason), None) => drop(till.not_counted.insert(reason.to_owned(), row.transactions)),
            _ => {}
        }
    }
    till
}

/// Minor units as a decimal string; of a currency that this version does not know, the minor units themselves.
pub(super) fn text(minor: i64, currency: &str) -> String {
    Currency::from_code(currency).map_or_else(|_| minor.to_string(), |currency| amount_text(minor, currency))
}
