//! Three made-up tills: each sells, books goods in and out, closes its day, and writes down what it was told.
//!
//! Invariant: a till sends the same bytes again until it gets an answer, and counts a document only when the answer is a receipt. It
//! never makes up a second identity for the same sale.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rust_decimal::Decimal;
use serde_json::{Value, json};
use world::http::Api;
use world::random::Random;
use world::wait::rest;

/// The day on which the demo sells; any would do.
pub(crate) const BUSINESS_DAY: &str = "2026-11-23";

/// Between two documents of one till.
const PAUSE: Duration = Duration::from_millis(15);

/// Before the same document is sent again.
const RETRY: Duration = Duration::from_millis(100);

const GOODS: [(&str, &str, i64); 6] = [
    ("85123A", "Heart T-light holder", 255),
    ("71053", "Metal lantern", 339),
    ("22423", "Cake stand", 1_275),
    ("47566", "Party bunting", 495),
    ("20725", "Lunch bag", 165),
    ("84879", "Bird ornament", 169),
];

/// What a lane of a till comes to: documents and Σ of money, or of pieces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    /// Documents.
    pub(crate) count: u64,
    /// Σ totals.gross on the trade lane, Σ quantity on the stock lane.
    pub(crate) amount: Decimal,
}

/// A till and its notes.
#[derive(Debug)]
pub(crate) struct Till {
    id: &'static str,
    agent: Api,
    notes: Mutex<BTreeMap<String, Sum>>,
}

impl Till {
    pub(crate) fn new(id: &'static str, agent: Api) -> Self {
        Self { id, agent, notes: Mutex::default() }
    }

    pub(crate) const fn id(&self) -> &'static str {
        self.id
    }

    /// Documents that it was told are recorded.
    pub(crate) fn told(&self) -> u64 {
        self.notes().values().map(|sum| sum.count).sum()
    }

    /// What it was told, by lane.
    pub(crate) fn notes(&self) -> BTreeMap<String, Sum> {
        self.notes.lock().expect("notes are only added to").clone()
    }

    /// Sells until `stop`, then closes the day.
    pub(crate) async fn sell(self: Arc<Self>, stop: Arc<AtomicBool>) {
        let mut random = Random::named(7, self.id);
        let mut number = 0;
        let mut gross = Decimal::ZERO;
        while !stop.load(Ordering::SeqCst) {
            number += 1;
            let (sale, amount) = self.sale(number, &mut random);
            self.send("/v1/transactions", &sale, "trade", amount).await;
            gross += amount;
            if number % 10 == 0 {
                let (movement, pieces) = self.movement(number, &mut random);
                self.send("/v1/stock-movements", &movement, "stock", pieces).await;
            }
            rest(PAUSE).await;
        }
        let close = json!({
            "document_id": format!("close-{}-{BUSINESS_DAY}", self.id),
            "workstation_id": self.id,
            "business_day_date": BUSINESS_DAY,
            "end_date_time": format!("{BUSINESS_DAY}T20:00:00+01:00"),
            "totals": [{"currency_code": "EUR", "transactions": number, "gross": gross.to_string(), "tenders": []}],
        });
        self.send("/v1/day-closes", &close, "trade", Decimal::ZERO).await;
    }

    fn sale(&self, number: u64, random: &mut Random) -> (Value, Decimal) {
        let mut gross = Decimal::ZERO;
        let lines: Vec<Value> = (1..=random.below(4) + 1)
            .map(|line| {
                let (item_id, description, cents) = random.pick(&GOODS);
                let quantity = i64::try_from(random.below(3) + 1).unwrap_or(1);
                let amount = Decimal::new(cents * quantity, 2);
                gross += amount;
                json!({
                    "line": line, "kind": "sale", "item_id": item_id, "description": description, "quantity": quantity.to_string(),
                    "unit": "EA", "actual_unit_price": Decimal::new(cents, 2).to_string(), "extended_amount": amount.to_string(),
                })
            })
            .collect();
        let sale = json!({
            "workstation_id": self.id, "business_day_date": BUSINESS_DAY, "sequence_number": number, "type": "sale",
            "end_date_time": format!("{BUSINESS_DAY}T10:15:40+01:00"), "currency_code": "EUR", "line_items": lines,
            "tenders": [{"line": 1, "type": "cash", "amount": gross.to_string()}],
            "totals": {"gross": gross.to_string()},
        });
        (sale, gross)
    }

    fn movement(&self, number: u64, random: &mut Random) -> (Value, Decimal) {
        let (item_id, description, _) = random.pick(&GOODS);
        let pieces = Decimal::from(random.below(40) + 10);
        let movement = json!({
            "document_id": format!("delivery-{}-{number}", self.id), "type": "receipt", "workstation_id": self.id,
            "business_day_date": BUSINESS_DAY, "end_date_time": format!("{BUSINESS_DAY}T09:00:00+01:00"),
            "line_items": [{"line": 1, "item_id": item_id, "description": description, "quantity": pieces.to_string(), "unit": "EA"}],
        });
        (movement, pieces)
    }

    async fn send(&self, path: &str, document: &Value, lane: &str, amount: Decimal) {
        let body = document.to_string().into_bytes();
        loop {
            match self.agent.post(path, "application/json", body.clone()).await {
                Ok(answer) if matches!(answer.status, 200 | 201) => break,
                Ok(answer) if (400..500).contains(&answer.status) && answer.status != 429 => {
                    panic!("till {} was refused: {} {}", self.id, answer.status, answer.text());
                }
                // No answer, or not now: nobody knows whether it was recorded, so the same is sent again.
                Ok(_) | Err(_) => rest(RETRY).await,
            }
        }
        let mut notes = self.notes.lock().expect("notes are only added to");
        let sum = notes.entry(lane.to_owned()).or_default();
        sum.count += 1;
        sum.amount += amount;
    }
}

/// A sale of one's own.
pub(crate) fn curl_line(agent: &str) -> String {
    format!(
        "curl -s {agent}/v1/transactions -H 'content-type: application/json' -d '{{\n  \
         \"workstation_id\":\"9\",\"business_day_date\":\"{BUSINESS_DAY}\",\"sequence_number\":1,\"type\":\"sale\",\n  \
         \"end_date_time\":\"{BUSINESS_DAY}T11:00:00+01:00\",\"currency_code\":\"EUR\",\n  \
         \"line_items\":[{{\"line\":1,\"kind\":\"sale\",\"item_id\":\"22423\",\"quantity\":\"1\",\"actual_unit_price\":\"12.75\",\"extended_amount\":\"12.75\"}}],\n  \
         \"tenders\":[{{\"line\":1,\"type\":\"cash\",\"amount\":\"12.75\"}}],\"totals\":{{\"gross\":\"12.75\"}}}}'"
    )
}
