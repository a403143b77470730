//! What the ledger must come to: rows, quantity and amount, as a whole, per country and per day.
//!
//! The same form serves three sources that must agree: the golden file that comes with the data, the rows of the CSV, and what
//! was read back from the hub. Invariant: amounts are exact decimals, quantity times unit price, never rounded.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rust_decimal::Decimal;
use serde::Deserialize;

use crate::retail_csv::Row;

/// Sums over some rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// How many.
    pub rows: u64,
    /// Σ quantity.
    pub quantity: Decimal,
    /// Σ quantity × unit price.
    pub amount: Decimal,
}

impl Sums {
    /// Counts one row in.
    pub fn add(&mut self, quantity: Decimal, unit_price: Decimal) {
        self.rows += 1;
        self.quantity += quantity;
        self.amount += quantity * unit_price;
    }
}

/// The sums of a whole ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Golden {
    /// Everything.
    pub all: Sums,
    /// How many invoices.
    pub invoices: u64,
    /// By the customer's country.
    pub by_country: BTreeMap<String, Sums>,
    /// By day. A golden file may leave the quantity of a day out.
    pub by_day: BTreeMap<String, DaySums>,
}

/// Sums of a day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DaySums {
    /// How many.
    pub rows: u64,
    /// Σ quantity × unit price.
    pub amount: Decimal,
}

/// Counts rows into a [`Golden`].
#[derive(Debug, Default)]
pub struct Counter {
    golden: Golden,
    invoices: BTreeSet<String>,
}

impl Counter {
    /// Counts one row in.
    pub fn add(&mut self, invoice: &str, country: &str, day: &str, quantity: Decimal, unit_price: Decimal) {
        self.golden.all.add(quantity, unit_price);
        self.golden.by_country.entry(country.to_owned()).or_default().add(quantity, unit_price);
        let of_day = self.golden.by_day.entry(day.to_owned()).or_default();
        of_day.rows += 1;
        of_day.amount += quantity * unit_price;
        if !self.invoices.contains(invoice) {
            self.invoices.insert(invoice.to_owned());
        }
    }

    /// The sums.
    pub fn finish(mut self) -> Golden {
        self.golden.invoices = self.invoices.len() as u64;
        self.golden
    }
}

impl Golden {
    /// The sums of `rows`.
    pub fn of_rows(rows: &[Row]) -> Self {
        let mut counter = Counter::default();
        for row in rows {
            counter.add(&row.invoice_no, &row.country, row.day(), Decimal::from(row.quantity), row.unit_price);
        }
        counter.finish()
    }

    /// Reads a golden file (`golden.json` beside the data set).
    pub fn read(path: &Path) -> Self {
        let text = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let file: File = serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let amount = |text: &str| {
            Decimal::from_str_exact(text).unwrap_or_else(|error| panic!("{}: {text}: {error}", path.display()))
        };
        let by_country = file.by_country.into_iter().map(|(country, sums)| {
            (country, Sums { rows: sums.rows, quantity: sums.quantity.into(), amount: amount(&sums.amount) })
        });
        let by_day =
            file.by_day.into_iter().map(|(day, sums)| (day, DaySums { rows: sums.rows, amount: amount(&sums.amount) }));
        Self {
            all: Sums { rows: file.rows, quantity: file.sum_quantity.into(), amount: amount(&file.sum_amount_gbp) },
            invoices: file.invoices,
            by_country: by_country.collect(),
            by_day: by_day.collect(),
        }
    }

    /// What differs from `found`, one sentence each; empty where nothing does.
    pub fn differences(&self, found: &Self) -> Vec<String> {
        let mut differences = Vec::new();
        let mut differ = |what: String, expected: String, found: String| {
            if expected != found {
                differences.push(format!("{what}: expected {expected}, found {found}"));
            }
        };
        let sums = |sums: Option<&Sums>| {
            sums.map_or("nothing".to_owned(), |sums| show(sums.rows, Some(sums.quantity), sums.amount))
        };
        let of_day =
            |sums: Option<&DaySums>| sums.map_or("nothing".to_owned(), |sums| show(sums.rows, None, sums.amount));
        differ("Everything".to_owned(), sums(Some(&self.all)), sums(Some(&found.all)));
        differ("Invoices".to_owned(), self.invoices.to_string(), found.invoices.to_string());
        let countries: BTreeSet<_> = self.by_country.keys().chain(found.by_country.keys()).collect();
        for country in countries {
            differ(country.clone(), sums(self.by_country.get(country)), sums(found.by_country.get(country)));
        }
        let days: BTreeSet<_> = self.by_day.keys().chain(found.by_day.keys()).collect();
        for day in days {
            differ(day.clone(), of_day(self.by_day.get(day)), of_day(found.by_day.get(day)));
        }
        differences
    }
}

fn show(rows: u64, quantity: Option<Decimal>, amount: Decimal) -> String {
    let quantity = quantity.map_or(String::new(), |quantity| format!("quantity {}, ", quantity.normalize()));
    format!("{rows} rows, {quantity}amount {}", amount.normalize())
}

#[derive(Deserialize)]
struct File {
    rows: u64,
    sum_quantity: i64,
    sum_amount_gbp: String,
    invoices: u64,
    by_country: BTreeMap<String, FileCountry>,
    by_day: BTreeMap<String, FileDay>,
}

#[derive(Deserialize)]
struct FileCountry {
    rows: u64,
    quantity: i64,
    amount: String,
}

#[derive(Deserialize)]
struct FileDay {
    rows: u64,
    amount: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_difference_is_named() {
        let mut counter = Counter::default();
        counter.add("1", "EIRE", "2011-01-01", Decimal::from(2), Decimal::new(1, 3));
        counter.add("1", "EIRE", "2011-01-01", Decimal::from(1), Decimal::new(250, 2));
        let golden = counter.finish();
        assert_eq!(golden.invoices, 1);
        assert_eq!(golden.differences(&golden), Vec::<String>::new());
        let differences = golden.differences(&Golden::default());
        assert_eq!(differences.len(), 4, "{differences:?}");
        let country = "EIRE: expected 2 rows, quantity 3, amount 2.502, found nothing";
        assert_eq!(differences.get(2).map(String::as_str), Some(country));
    }
}
