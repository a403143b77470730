//! The hub's ledger as its API shows it: read whole, checked while reading, folded independently of all code under test.
//!
//! Invariant: everything that the contract promises of the stream is checked here as it passes: positions without gaps and in
//! order, sequence numbers of each lane from 1 without holes, no identity twice. What breaks a promise becomes a fault, never a panic.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::Value;

use crate::golden::{Counter, Golden};
use crate::http::{Api, ApiError};
use crate::receipts::Stub;
use crate::sales::{OPENING_COUNT, StoreItem, key};

/// Records in one page.
const PAGE: usize = 1_000;
/// Faults that are kept; a broken stream breaks everywhere.
const FAULTS_MAX: usize = 1_000;

/// A line of `/v1/records`.
#[derive(Clone, Debug, Deserialize)]
pub struct LedgerRecord {
    /// The place in the ledger.
    pub position: u64,
    /// The store.
    pub store_id: String,
    /// The agent.
    pub agent_id: String,
    /// The agent's incarnation.
    pub epoch: String,
    /// The lane.
    pub lane: String,
    /// The place in the lane.
    pub seq: u64,
    /// The content digest.
    pub digest: String,
    /// `transaction` …
    pub kind: String,
    /// What was flagged, one a finding.
    #[serde(default)]
    pub exceptions: Vec<String>,
    /// What was submitted.
    pub document: Value,
}

/// Store, agent, epoch and lane.
type LaneOf = (String, String, String, String);

/// What was read so far.
#[derive(Debug, Default)]
pub struct Ledger {
    cursor: Option<String>,
    position: u64,
    lanes: BTreeMap<LaneOf, u64>,
    counter: Counter,
    /// What tills sent, by identity.
    pub stubs: BTreeMap<String, Stub>,
    /// What sales and movements come to, by store and item, counts left out.
    pub stock: BTreeMap<StoreItem, Decimal>,
    /// How many records of each kind.
    pub kinds: BTreeMap<String, u64>,
    /// What was flagged in them, by code.
    pub findings: BTreeMap<String, u64>,
    /// Promises that were broken.
    pub faults: Vec<String>,
}

impl Ledger {
    /// Reads on to the end as it is now; says how many records that were.
    pub async fn read_on(&mut self, api: &Api) -> Result<usize, ApiError> {
        let mut count = 0;
        loop {
            let after =
                self.cursor.as_ref().map_or(String::new(), |cursor| format!("&after={}", crate::http::segment(cursor)));
            let path = format!("/v1/records?limit={PAGE}{after}");
            let answer = api.success(&path).await?;
            let mut lines = 0;
            for line in answer.body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                let record: LedgerRecord = serde_json::from_slice(line).map_err(|source| {
                    let body = String::from_utf8_lossy(line.get(..500).unwrap_or(line)).into_owned();
                    ApiError::Shape { url: format!("{}{path}", api.base()), source, body }
                })?;
                self.take(&record);
                lines += 1;
            }
            if answer.next_after.is_some() {
                self.cursor = answer.next_after;
            }
            count += lines;
            if lines == 0 {
                return Ok(count);
            }
        }
    }

    /// Takes one record in.
    pub fn take(&mut self, record: &LedgerRecord) {
        if record.position != self.position + 1 {
            self.fault(format!("Position {} follows {}", record.position, self.position));
        }
        self.position = record.position;
        let lane = (record.store_id.clone(), record.agent_id.clone(), record.epoch.clone(), record.lane.clone());
        let last = self.lanes.insert(lane, record.seq).unwrap_or(0);
        if record.seq != last + 1 {
            let LedgerRecord { store_id, agent_id, epoch, lane, seq, .. } = record;
            self.fault(format!("{store_id}.{agent_id} {epoch} {lane}: {seq} follows {last}"));
        }
        *self.kinds.entry(record.kind.clone()).or_default() += 1;
        for code in &record.exceptions {
            *self.findings.entry(code.clone()).or_default() += 1;
        }
        match record.kind.as_str() {
            "transaction" => self.document(record, -Decimal::ONE),
            "stock_movement" => self.document(record, Decimal::ONE),
            "day_close" => self.stub(record),
            _ => {}
        }
    }

    /// Counts a document of a till in; `sign` is what its quantities do to the shelf.
    fn document(&mut self, record: &LedgerRecord, sign: Decimal) {
        self.stub(record);
        let document = &record.document;
        let text = |value: &Value, field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        if text(document, "document_id") == OPENING_COUNT {
            return;
        }
        let attribute =
            |field: &str| document.get("attributes").map(|attributes| text(attributes, field)).unwrap_or_default();
        let [country, invoice, day] =
            [attribute("country"), attribute("invoice_no"), text(document, "business_day_date")];
        for line in document.get("line_items").and_then(Value::as_array).into_iter().flatten() {
            let decimal = |field: &str| {
                line.get(field).and_then(Value::as_str).and_then(|text| Decimal::from_str_exact(text).ok())
            };
            let Some(quantity) = decimal("quantity") else {
                self.fault(format!("Position {}: a line without a quantity", record.position));
                continue;
            };
            self.counter.add(&invoice, &country, &day, quantity, decimal("actual_unit_price").unwrap_or_default());
            if sign == Decimal::ONE || matches!(text(line, "kind").as_str(), "sale" | "return") {
                *self.stock.entry((record.store_id.clone(), text(line, "item_id"))).or_default() += sign * quantity;
            }
        }
    }

    fn stub(&mut self, record: &LedgerRecord) {
        let Some(key) = key(&record.store_id, &record.document) else {
            self.fault(format!("Position {}: a {} without identity", record.position, record.kind));
            return;
        };
        let LedgerRecord { epoch, lane, digest, .. } = record.clone();
        let stub = Stub { key: key.clone(), epoch, lane, seq: record.seq, digest };
        if let Some(earlier) = self.stubs.insert(key, stub) {
            self.fault(format!(
                "{} stands twice: {} {} {}, and at position {}",
                earlier.key, earlier.epoch, earlier.lane, earlier.seq, record.position
            ));
        }
    }

    fn fault(&mut self, fault: String) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(fault);
        }
    }

    /// The last position.
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// How many epochs there are.
    pub fn epochs(&self) -> usize {
        let epochs: std::collections::BTreeSet<_> = self.lanes.keys().map(|(_, _, epoch, _)| epoch).collect();
        epochs.len()
    }

    /// What the lines come to.
    pub fn golden(&mut self) -> Golden {
        std::mem::take(&mut self.counter).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn record(position: u64, lane: &str, seq: u64, kind: &str, document: Value) -> LedgerRecord {
        let [store_id, agent_id, epoch, digest] = ["s", "box1", "e", "d"].map(str::to_owned);
        LedgerRecord {
            position,
            store_id,
            agent_id,
            epoch,
            lane: lane.to_owned(),
            seq,
            digest,
            kind: kind.to_owned(),
            exceptions: Vec::new(),
            document,
        }
    }

    fn sale(number: u64) -> Value {
        json!({"workstation_id": "1", "business_day_date": "2011-01-01", "sequence_number": number,
            "attributes": {"country": "EIRE", "invoice_no": format!("5{number}")},
            "line_items": [
                {"kind": "sale", "item_id": "A", "quantity": "3", "actual_unit_price": "0.001"},
                {"kind": "fee", "item_id": "POST", "quantity": "1", "actual_unit_price": "18.00"}]})
    }

    fn movement() -> Value {
        json!({"document_id": "m1", "business_day_date": "2011-01-01", "attributes": {"country": "EIRE", "invoice_no": "60"},
            "line_items": [{"item_id": "A", "quantity": "-2"}]})
    }

    #[test]
    fn a_whole_ledger_is_folded_without_fault() {
        let mut ledger = Ledger::default();
        ledger.take(&record(1, "trade", 1, "epoch_start", json!({})));
        ledger.take(&record(2, "trade", 2, "transaction", sale(1)));
        ledger.take(&record(3, "stock", 1, "stock_movement", movement()));
        ledger.take(&record(4, "trade", 3, "transaction", sale(2)));
        assert_eq!(ledger.faults, Vec::<String>::new());
        assert_eq!(ledger.stock, BTreeMap::from([(("s".to_owned(), "A".to_owned()), Decimal::from(-8))]));
        assert_eq!((ledger.stubs.len(), ledger.epochs(), ledger.position()), (3, 1, 4));
        let golden = ledger.golden();
        assert_eq!((golden.all.rows, golden.invoices, golden.all.amount.to_string()), (5, 3, "36.006".to_owned()));
    }

    #[test]
    fn holes_repetitions_and_disorder_are_faults() {
        let faults = |records: &[LedgerRecord]| {
            let mut ledger = Ledger::default();
            for record in records {
                ledger.take(record);
            }
            ledger.faults
        };
        let first = record(1, "trade", 1, "transaction", sale(1));
        assert_eq!(
            faults(&[first.clone(), record(2, "trade", 3, "transaction", sale(2))]),
            ["s.box1 e trade: 3 follows 1"]
        );
        assert_eq!(faults(&[first.clone(), record(3, "trade", 2, "transaction", sale(2))]), ["Position 3 follows 1"]);
        let twice = faults(&[first, record(2, "trade", 2, "transaction", sale(1))]);
        assert_eq!(twice, ["s/t/1/2011-01-01/1 stands twice: e trade 1, and at position 2"]);
    }
}
