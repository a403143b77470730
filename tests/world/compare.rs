//! The comparison at the end: what the tills were told, what the hub has, what the data must come to, what lies on the shelf.
//!
//! Invariant: each check counts what it looked at, so that a check that looked at nothing shows; every difference is listed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use counterfoil::answer::StockAnswer;
use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::Value;

use crate::golden::{Golden, Sums};
use crate::http::{Api, ApiError, segment};
use crate::ledger::Ledger;
use crate::receipts::Stub;
use crate::sales::{Script, TillDay};

/// Differences of one check that are printed.
const SHOWN_MAX: usize = 20;

/// One check.
#[derive(Clone, Debug)]
pub struct Check {
    /// What was compared.
    pub what: String,
    /// How many things were looked at.
    pub looked_at: usize,
    /// What differed.
    pub differences: Vec<String>,
}

/// All checks, and the tables for people.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// In the order of looking.
    pub checks: Vec<Check>,
    /// Expected and found per country, and the days as one line.
    pub tables: String,
}

impl Report {
    /// Adds a check.
    pub fn add(&mut self, what: &str, looked_at: usize, differences: Vec<String>) {
        self.checks.push(Check { what: what.to_owned(), looked_at, differences });
    }

    /// Whether everything agrees, and something was looked at.
    pub fn agrees(&self) -> bool {
        !self.checks.is_empty() && self.checks.iter().all(|check| check.differences.is_empty() && check.looked_at > 0)
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = self.tables.clone();
        text.push('\n');
        for Check { what, looked_at, differences } in &self.checks {
            let verdict = match (looked_at, differences.len()) {
                (0, 0) => "NOTHING TO LOOK AT".to_owned(),
                (_, 0) => "agree".to_owned(),
                (_, count) => format!("{count} DIFFER"),
            };
            line(&mut text, &format!("{what:<58} {looked_at:>9}  {verdict}"));
            for difference in differences.iter().take(SHOWN_MAX) {
                line(&mut text, &format!("    {difference}"));
            }
        }
        line(&mut text, if self.agrees() { "Everything agrees." } else { "NOT everything agrees." });
        text
    }

    /// The ledger against the golden sums.
    pub fn golden(&mut self, what: &str, golden: &Golden, found: &Golden) {
        self.tables = tables(golden, found);
        let looked_at = golden.by_country.len() + golden.by_day.len();
        self.add(&format!("Ledger = {what}, per country and per day"), looked_at, golden.differences(found));
    }

    /// The promises of the stream of records.
    pub fn stream(&mut self, ledger: &Ledger) {
        let looked_at = usize::try_from(ledger.position()).unwrap_or(usize::MAX);
        self.add("No gap, no disorder, no duplicate in the ledger (records)", looked_at, ledger.faults.clone());
    }

    /// Each receipt is in the ledger with its digest, and each document in the ledger has a receipt.
    pub fn receipts(&mut self, told: &BTreeMap<String, Stub>, ledger: &Ledger) {
        let missing = told.values().filter_map(|stub| match ledger.stubs.get(&stub.key) {
            None => Some(format!(
                "{} is not in the ledger; the till was told {} {} {}",
                stub.key, stub.epoch, stub.lane, stub.seq
            )),
            Some(found) if found == stub => None,
            Some(found) => Some(format!("{}: told {stub:?}, found {found:?}", stub.key)),
        });
        self.add("Every receipt of a till is in the ledger, same place and digest", told.len(), missing.collect());
        let untold = ledger.stubs.keys().filter(|key| !told.contains_key(*key));
        let untold = untold.map(|key| format!("{key} is in the ledger, and no till has a receipt")).collect();
        self.add("Every document in the ledger has a till's receipt", ledger.stubs.len(), untold);
    }

    /// `/v1/totals` of every store and day.
    pub async fn totals(&mut self, hub: &Api, script: &Script) -> Result<(), ApiError> {
        let mut differences = Vec::new();
        for ((store, day), tills) in &script.days {
            let totals: Totals = hub.json(&format!("/v1/totals?store={}&business_day={day}", segment(store))).await?;
            let found = totals.tills();
            if found.as_ref() != Some(tills) {
                differences.push(format!("{store} {day}: expected {tills:?}, found {found:?}"));
            }
        }
        self.add("GET /v1/totals of the hub = the tills' own (store-days)", script.days.len(), differences);
        Ok(())
    }

    /// `/v1/stock` of an agent's items: the fold of all movements, and on hand where a count gave a baseline.
    pub async fn stock(
        &mut self,
        agents: &[(String, Api)],
        script: &Script,
        opening: &dyn Fn(&str, &str) -> Option<Decimal>,
    ) -> Result<(), ApiError> {
        let mut differences = Vec::new();
        let mut looked_at = 0;
        for (store, api) in agents {
            for ((_, item), expected) in script.stock.iter().filter(|((of, _), _)| of == store) {
                looked_at += 1;
                let answer: StockAnswer = api.json(&format!("/v1/stock/{}", segment(item))).await?;
                let decimal = |text: &str| Decimal::from_str_exact(text).ok();
                let on_hand = answer.quantity.on_hand.as_deref().and_then(decimal);
                let counted = opening(store, item);
                let expected_on_hand = counted.map(|counted| counted + expected);
                let agrees = on_hand == expected_on_hand
                    && (counted.is_some() || decimal(&answer.quantity.delta) == Some(*expected));
                if !agrees {
                    differences.push(format!(
                        "{store} {item}: expected {expected_on_hand:?} (delta {expected}), found {:?}",
                        answer.quantity
                    ));
                }
            }
        }
        self.add("GET /v1/stock of the agents = fold of the documents (items)", looked_at, differences);
        Ok(())
    }

    /// The fold of the ledger against what the documents do to the shelf.
    pub fn stock_fold(&mut self, script: &Script, ledger: &Ledger) {
        let keys: BTreeSet<_> = script.stock.keys().chain(ledger.stock.keys()).collect();
        let looked_at = keys.len();
        let differ = keys.into_iter().filter_map(|key| {
            let [expected, found] =
                [&script.stock, &ledger.stock].map(|stock| stock.get(key).copied().unwrap_or_default());
            (expected != found).then(|| format!("{} {}: expected {expected}, found {found}", key.0, key.1))
        });
        let differ = differ.collect();
        self.add("Fold of the ledger's movements = fold of the documents (items)", looked_at, differ);
    }
}

#[derive(Deserialize)]
struct Totals {
    currencies: Vec<Currency>,
}

#[derive(Deserialize)]
struct Currency {
    tills: Vec<TillTotals>,
}

#[derive(Deserialize)]
struct TillTotals {
    workstation_id: String,
    transactions: u64,
    gross: String,
    tenders: Value,
    first_sequence_number: Option<u64>,
    last_sequence_number: Option<u64>,
}

impl Totals {
    /// In the form of what was expected; `None` where they cannot be read or the numbers have a hole.
    fn tills(&self) -> Option<BTreeMap<String, TillDay>> {
        let decimal = |text: &str| Decimal::from_str_exact(text).ok();
        let mut tills = BTreeMap::new();
        for till in self.currencies.iter().flat_map(|currency| &currency.tills) {
            let numbers = (till.first_sequence_number, till.last_sequence_number);
            if numbers != (Some(1), Some(till.transactions)) {
                return None;
            }
            let mut tenders = BTreeMap::new();
            for (tender, amount) in till.tenders.as_object()? {
                tenders.insert(tender.clone(), decimal(amount.as_str()?)?);
            }
            let day = TillDay { transactions: till.transactions, gross: decimal(&till.gross)?, tenders };
            tills.insert(till.workstation_id.clone(), day);
        }
        Some(tills)
    }
}

/// Expected and found, by country; the days in one line, since there are hundreds.
fn tables(golden: &Golden, found: &Golden) -> String {
    let mut text = String::new();
    line(
        &mut text,
        &format!(
            "{:<22} {:>9} {:>12} {:>17}   {:>9} {:>12} {:>17}",
            "", "rows", "quantity", "amount", "rows", "quantity", "amount"
        ),
    );
    line(&mut text, &format!("{:<22} {:>40}   {:>40}", "country", "expected", "ledger"));
    let empty = Sums::default();
    let countries: BTreeSet<_> = golden.by_country.keys().chain(found.by_country.keys()).collect();
    let row = |name: &str, expected: &Sums, found: &Sums| {
        let columns =
            |sums: &Sums| format!("{:>9} {:>12} {:>17}", sums.rows, sums.quantity.normalize(), sums.amount.normalize());
        let mark = if expected == found { "" } else { "  <-- differs" };
        format!("{name:<22} {}   {}{mark}", columns(expected), columns(found))
    };
    for country in countries {
        let [expected, found] = [golden, found].map(|golden| golden.by_country.get(country).unwrap_or(&empty));
        line(&mut text, &row(country, expected, found));
    }
    line(&mut text, &row("all", &golden.all, &found.all));
    let equal = golden.by_day.iter().filter(|(day, sums)| found.by_day.get(*day) == Some(sums)).count();
    let of = golden.by_day.len();
    let [first, last] =
        [golden.by_day.first_key_value(), golden.by_day.last_key_value()].map(|day| day.map_or("-", |(day, _)| day));
    line(
        &mut text,
        &format!(
            "days {first} to {last}: {equal} of {of} equal in rows and amount, {} in the ledger",
            found.by_day.len()
        ),
    );
    text
}

fn line(text: &mut String, line: &str) {
    writeln!(text, "{line}").expect("writing into a string");
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_report_that_looked_at_nothing_does_not_agree() {
        let mut report = Report::default();
        assert!(!report.agrees());
        report.add("something", 1, Vec::new());
        assert!(report.agrees());
        report.add("nothing", 0, Vec::new());
        assert!(!report.agrees() && report.text().contains("NOTHING TO LOOK AT"));
    }

    #[test]
    fn a_lost_receipt_and_a_strange_one_are_named() {
        let [epoch, lane, digest] = ["e", "trade", "d"].map(str::to_owned);
        let stub = |key: &str, seq| Stub {
            key: key.to_owned(),
            epoch: epoch.clone(),
            lane: lane.clone(),
            seq,
            digest: digest.clone(),
        };
        let told: BTreeMap<_, _> = [stub("a", 1), stub("b", 2)].map(|stub| (stub.key.clone(), stub)).into();
        let mut ledger = Ledger::default();
        ledger.stubs.extend(told.clone());
        let check = |ledger: &Ledger| {
            let mut report = Report::default();
            report.receipts(&told, ledger);
            report.checks.iter().map(|check| check.differences.len()).collect::<Vec<_>>()
        };
        assert_eq!(check(&ledger), [0, 0]);
        ledger.stubs.insert("b".to_owned(), stub("b", 3));
        assert_eq!(check(&ledger), [1, 0]);
        ledger.stubs.remove("a");
        ledger.stubs.insert("c".to_owned(), stub("c", 4));
        assert_eq!(check(&ledger), [2, 1]);
    }

    #[test]
    fn totals_of_the_contract_are_read() {
        let totals = json!({"store_id": "s", "business_day_date": "2011-01-01", "currencies": [{"currency_code": "GBP", "transactions": 2,
            "gross": "3.00", "tills": [{"workstation_id": "1", "transactions": 2, "gross": "3.00", "taxes": [],
            "tenders": {"cash": "5.00", "change": "-2.00"}, "first_sequence_number": 1, "last_sequence_number": 2}]}]});
        let totals: Totals = serde_json::from_value(totals).unwrap();
        let tills = totals.tills().unwrap();
        let till = tills.get("1").unwrap();
        assert_eq!((till.transactions, till.gross, till.tenders.len()), (2, Decimal::from(3), 2));
    }
}
