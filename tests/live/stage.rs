//! The smallest whole chain: one agent, a broker, a database, a hub.

use std::path::Path;

use counterfoil::answer::Receipt;
use serde_json::{Value, json};
use world::agent::{Agent, Mqtt};
use world::broker::Broker;
use world::http::{Answer, Api};
use world::hub::Hub;
use world::postgres::Postgres;

/// One of each. Fields are dropped in this order: the programs before what they stand on.
pub(crate) struct Stage {
    pub(crate) agent: Agent,
    pub(crate) hub: Hub,
    pub(crate) postgres: Postgres,
    pub(crate) broker: Broker,
    directory: tempfile::TempDir,
}

impl Stage {
    /// Everything up and ready.
    pub(crate) async fn new() -> Self {
        Self::with_agent("").await
    }

    /// The same, `more` added to the agent's configuration.
    pub(crate) async fn with_agent(more: &str) -> Self {
        Self::with(more, "").await
    }

    /// The same, something added to each configuration.
    pub(crate) async fn with(more_of_agent: &str, more_of_hub: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let broker = Broker::plain().await;
        let mut postgres = Postgres::new().await;
        let ledger = postgres.create_database("ledger").await;
        assert!(postgres.process().is_some());
        let mqtt = Mqtt { url: broker.url(), identity: None };
        let mut hub = Hub::new(&directory.path().join("hub"), "hub1", &mqtt, &ledger, more_of_hub);
        hub.start();
        hub.ready().await;
        let mut agent = Agent::new(&directory.path().join("agent"), "0042", "box1", &mqtt, more_of_agent);
        agent.start();
        agent.ready().await;
        Self { agent, hub, postgres, broker, directory }
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }
}

/// The `number`-th sale of till 1; `gross` pence make its content.
pub(crate) fn sale(number: u64, pence: u64) -> Value {
    let amount = format!("{}.{:02}", pence / 100, pence % 100);
    json!({"workstation_id": "1", "business_day_date": "2026-11-23", "sequence_number": number, "type": "sale",
        "end_date_time": "2026-11-23T10:15:40+00:00", "currency_code": "GBP",
        "line_items": [{"line": 1, "kind": "sale", "item_id": "85123A", "quantity": "1", "unit": "EA",
            "actual_unit_price": amount, "extended_amount": amount}],
        "tenders": [{"line": 1, "type": "cash", "amount": amount}],
        "totals": {"gross": amount}})
}

/// Posts one transaction.
pub(crate) async fn post(api: &Api, document: &Value) -> Answer {
    api.post("/v1/transactions", "application/json", document.to_string().into_bytes()).await.unwrap()
}

/// The receipt in an answer.
pub(crate) fn receipt(answer: &Answer) -> Receipt {
    serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("{} {}: {error}", answer.status, answer.text()))
}
