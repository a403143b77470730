//! What the hub has against what the tills were told, per till and lane.
//!
//! Invariant: both sides are counted separately, the hub's from the records that it serves.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use rust_decimal::Decimal;
use serde_json::Value;
use world::http::{Api, ApiError, segment};

use crate::tills::{BUSINESS_DAY, Sum, Till};

/// What the hub serves, by till and lane.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    sums: BTreeMap<(String, String), Sum>,
    repeated: u64,
}

impl Ledger {
    /// Reads every record of the hub.
    pub(crate) async fn read(hub: &Api) -> Result<Self, ApiError> {
        let mut ledger = Self::default();
        let mut keys = std::collections::BTreeSet::new();
        let mut after = String::new();
        loop {
            let answer = hub.success(&format!("/v1/records?limit=1000{after}")).await?;
            let mut lines = 0;
            for line in answer.body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                let Ok(record) = serde_json::from_slice::<Value>(line) else { continue };
                lines += 1;
                let key = (record["epoch"].to_string(), record["lane"].to_string(), record["seq"].to_string());
                if !keys.insert(key) {
                    ledger.repeated += 1;
                }
                ledger.take(&record);
            }
            match answer.next_after {
                Some(next) if lines > 0 => after = format!("&after={}", segment(&next)),
                _ => return Ok(ledger),
            }
        }
    }

    fn take(&mut self, record: &Value) {
        let document = &record["document"];
        let Some(till) = document["workstation_id"].as_str() else { return };
        let decimal = |value: &Value| value.as_str().and_then(|text| text.parse::<Decimal>().ok()).unwrap_or_default();
        let amount = match record["kind"].as_str() {
            Some("transaction") => decimal(&document["totals"]["gross"]),
            Some("stock_movement") => {
                document["line_items"].as_array().into_iter().flatten().map(|line| decimal(&line["quantity"])).sum()
            }
            Some("day_close") => Decimal::ZERO,
            // What the agent says by itself, no till was told.
            _ => return,
        };
        let lane = record["lane"].as_str().unwrap_or_default().to_owned();
        let sum = self.sums.entry((till.to_owned(), lane)).or_default();
        sum.count += 1;
        sum.amount += amount;
    }
}

/// The comparison.
#[derive(Debug)]
pub(crate) struct Verdict {
    rows: Vec<(String, String, Sum, Sum)>,
    repeated: u64,
}

impl Verdict {
    pub(crate) fn new(tills: &[Arc<Till>], ledger: &Ledger) -> Self {
        let mut rows = Vec::new();
        for till in tills {
            for (lane, told) in till.notes() {
                let key = (till.id().to_owned(), lane.clone());
                let found = ledger.sums.get(&key).copied().unwrap_or_default();
                rows.push((key.0, lane, told, found));
            }
        }
        Self { rows, repeated: ledger.repeated }
    }

    /// Whether every count and sum is equal and nothing came twice.
    pub(crate) fn agrees(&self) -> bool {
        self.repeated == 0 && !self.rows.is_empty() && self.rows.iter().all(|(_, _, told, found)| told == found)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "What the tills were told and what the hub has, business day {BUSINESS_DAY}")?;
        writeln!(formatter, "  till  lane    told: documents        sum     hub: documents        sum")?;
        for (till, lane, told, found) in &self.rows {
            let mark = if told == found { "" } else { "   <- differs" };
            writeln!(
                formatter,
                "  {till:<4}  {lane:<6}  {:>15}  {:>9}    {:>14}  {:>9}{mark}",
                told.count,
                told.amount.to_string(),
                found.count,
                found.amount.to_string()
            )?;
        }
        if self.repeated > 0 {
            writeln!(formatter, "  {} records came twice", self.repeated)?;
        }
        let verdict = if self.agrees() { "Equal: nothing lost, nothing doubled." } else { "NOT EQUAL." };
        write!(formatter, "{verdict}")
    }
}
