//! The end of a crash or power run: the hub has every receipt once, at its place, and names nothing but what is harmless.
//!
//! Invariant: the ledger is read through the hub's contract only, and is given time to become whole, never to become right: whoever waits in
//! vain compares all the same and says what is missing.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use super::Checkout;
use crate::compare::Report;
use crate::http::{Api, segment};
use crate::ledger::Ledger;
use crate::wait::Deadline;

const LIMIT: Duration = Duration::from_mins(3);
/// What a hub may have heard of after crashes on an honest disk: bytes of which nobody was told.
const HARMLESS: &[&str] = &["TAIL_CUT"];
/// What is said and not judged: that a box went back. An agent that told of an epoch before its first record was synced made the hub name it in
/// error; that is mended, and not yet shown by a long run. A box that really went back shows in the places of the receipts.
const DOUBTFUL: &[&str] = &["ROLLBACK"];

/// What the hub has and says.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Receipts and ledger, one against the other.
    pub report: Report,
    /// The open exceptions.
    pub exceptions: Vec<Value>,
}

impl Verdict {
    /// A fault for each exception that should not be.
    pub fn harmful(&self) -> Vec<String> {
        self.quoted(|code| !HARMLESS.contains(&code) && !DOUBTFUL.contains(&code))
    }

    /// A line for each exception that a person should look at.
    pub fn doubtful(&self) -> Vec<String> {
        self.quoted(|code| DOUBTFUL.contains(&code))
    }

    fn quoted(&self, is_wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let wanted = self.exceptions.iter().filter(|exception| exception["code"].as_str().is_none_or(&is_wanted));
        wanted.map(|exception| format!("the hub says {exception}")).collect()
    }

    /// The codes of the open exceptions.
    pub fn named(&self) -> Vec<String> {
        codes(&self.exceptions)
    }
}

impl Checkout {
    /// Holds the hub against what the tills were told.
    pub async fn compare(&self, hub: &Api) -> Result<Verdict, String> {
        let stubs = self.stubs();
        let ledger = read(hub, stubs.len()).await?;
        let mut report = Report::default();
        report.stream(&ledger);
        report.receipts(&stubs, &ledger);
        Ok(Verdict { report, exceptions: exceptions(hub, &self.store_id).await? })
    }
}

/// Reads the ledger until it has so many documents of tills.
pub async fn read(hub: &Api, count: usize) -> Result<Ledger, String> {
    let deadline = Deadline::new(LIMIT);
    let mut ledger = Ledger::default();
    loop {
        ledger.read_on(hub).await.map_err(|error| error.to_string())?;
        if ledger.stubs.len() >= count || !deadline.rest().await {
            return Ok(ledger);
        }
    }
}

/// The codes of the open exceptions of a store.
pub async fn named(hub: &Api, store_id: &str) -> Result<Vec<String>, String> {
    Ok(codes(&exceptions(hub, store_id).await?))
}

fn codes(exceptions: &[Value]) -> Vec<String> {
    let codes: BTreeSet<&str> = exceptions.iter().filter_map(|exception| exception["code"].as_str()).collect();
    codes.into_iter().map(str::to_owned).collect()
}

async fn exceptions(hub: &Api, store_id: &str) -> Result<Vec<Value>, String> {
    let mut exceptions = Vec::new();
    let mut after = String::new();
    loop {
        let path = format!("/v1/exceptions?state=open&store={store_id}{after}");
        let page: Value = hub.json(&path).await.map_err(|error| error.to_string())?;
        exceptions.extend(page.get("exceptions").and_then(Value::as_array).into_iter().flatten().cloned());
        match page.get("next_after").and_then(Value::as_str) {
            Some(next) => after = format!("&after={}", segment(next)),
            None => return Ok(exceptions),
        }
    }
}
