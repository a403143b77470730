//! What must be found in sales of the Online Retail shape, and nothing else: counted from the rows, by none of the code under test.
//!
//! Invariant: a return line of a cancellation names no receipt, so each is flagged once; a negative price is one of bad debt; a line of a return
//! is beyond what was bought where it alone is more than that customer, or all who are not known together, bought of that item at that price in
//! the whole file. Repeated lines, prices of a tenth of a penny and prices of zero are ordinary.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde::Deserialize;

use crate::compare::Report;
use crate::http::{Api, ApiError, segment};
use crate::ledger::Ledger;
use crate::retail_csv::Row;

/// The rows of the real set.
const ROWS: usize = 541_909;
/// What is known of them: cancellation lines, lines of negative price, lines that give back more than was bought.
const KNOWN: Expected = Expected { unlinked: 9_288, negative: 2, beyond: 1_517 };

/// How much must be found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// `UNLINKED_RETURN`, one a line.
    pub unlinked: u64,
    /// `NEGATIVE_PRICE`, one a document.
    pub negative: u64,
    /// Lines that give back more than was bought.
    pub beyond: u64,
}

impl Expected {
    /// Counts them in rows.
    ///
    /// # Panics
    /// Where the real set does not hold what is known of it.
    pub fn of_rows(rows: &[Row]) -> Self {
        let key = |row: &Row| (row.customer_id.clone(), row.stock_code.clone(), row.unit_price);
        let mut bought: BTreeMap<(String, String, Decimal), i64> = BTreeMap::new();
        for row in rows.iter().filter(|row| row.quantity > 0) {
            *bought.entry(key(row)).or_default() += row.quantity;
        }
        let returned = || rows.iter().filter(|row| row.invoice_no.starts_with('C'));
        let is_beyond = |row: &&Row| -row.quantity > bought.get(&key(row)).copied().unwrap_or_default();
        let count = |count: usize| count as u64;
        let expected = Self {
            unlinked: count(returned().count()),
            negative: count(rows.iter().filter(|row| row.unit_price < Decimal::ZERO).count()),
            beyond: count(returned().filter(is_beyond).count()),
        };
        assert!(rows.len() != ROWS || expected == KNOWN, "the data set is the one that is known: {expected:?}");
        expected
    }
}

#[derive(Deserialize)]
struct Returns {
    lines: Vec<serde_json::Value>,
    next_after: Option<String>,
}

impl Report {
    /// What stands in the records, and what the hub calls beyond what was bought.
    pub async fn findings(&mut self, expected: &Expected, hub: &Api, ledger: &Ledger) -> Result<(), ApiError> {
        let Expected { unlinked, negative, beyond } = *expected;
        let wanted = [("UNLINKED_RETURN", unlinked), ("NEGATIVE_PRICE", negative)];
        let wanted: BTreeMap<String, u64> =
            wanted.into_iter().filter(|(_, count)| *count > 0).map(|(code, count)| (code.to_owned(), count)).collect();
        let differ = (wanted != ledger.findings).then(|| format!("expected {wanted:?}, found {:?}", ledger.findings));
        let looked_at = usize::try_from(unlinked + negative).unwrap_or(usize::MAX);
        self.add("Flagged: unlinked returns, negative prices, nothing else", looked_at, differ.into_iter().collect());
        let (mut found, mut after) = (0_u64, String::new());
        loop {
            let page: Returns = hub.json(&format!("/v1/returns/beyond-bought?limit=1000{after}")).await?;
            found += page.lines.len() as u64;
            let Some(next) = page.next_after else { break };
            after = format!("&after={}", segment(&next));
        }
        let differ = (found != beyond).then(|| format!("expected {beyond}, found {found}"));
        let looked_at = usize::try_from(found).unwrap_or(usize::MAX);
        self.add("Returns beyond what the customer bought (lines)", looked_at, differ.into_iter().collect());
        Ok(())
    }
}
