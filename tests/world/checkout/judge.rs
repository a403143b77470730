//! The questions after a crash: is every receipt still true, is nothing there twice, does the state say what the receipts come to?
//!
//! Invariant: what is expected comes from the tills' own memory alone. A lost receipt becomes a fault and is then replaced by the receipt of the
//! second recording, so that each loss is counted once, at the crash that caused it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use counterfoil::answer::{DayAnswer, ExceptionAnswer, ReceiptAnswer, StockAnswer};
use rust_decimal::Decimal;
use serde_json::Value;

use super::{Checkout, DAY, ITEMS, REQUEST_BYTES_MAX, Till, Told, item, money, settle};
use crate::agent::Agent;
use crate::http::Api;
use crate::receipts::Stub;
use crate::wait::Deadline;

const LIMIT: Duration = Duration::from_mins(2);
/// The newest receipts of each till that are asked for one by one.
const NEWEST: usize = 64;
/// Receipts that are asked for with one request.
const AT_ONCE: usize = 200;
/// What an agent may have found wrong after a crash on an honest disk: bytes of which nobody was told.
const HARMLESS: &[&str] = &["TAIL_CUT"];

/// Which receipts are looked at one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// The newest of each till: each is asked for, and its document sent again.
    Newest(usize),
    /// The agent gives segments back as soon as the hub has them: it may know nothing of an older receipt, but nothing else of any.
    Forgetting,
}

/// What a look at an agent found.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// Receipts that were compared.
    pub receipts: usize,
    /// Receipts that are not true any more.
    pub lost: usize,
    /// Everything that is not as it should be.
    pub faults: Vec<String>,
}

impl Checkout {
    /// Holds an agent against what the tills were told: totals and stock against all receipts, and as many as `look` says one by one.
    pub async fn judge(&mut self, agent: &Agent, look: Look) -> Findings {
        let mut findings = Findings::default();
        if let Err(fault) = self.questions(agent, look, &mut findings).await {
            findings.faults.push(fault);
        }
        findings
    }

    async fn questions(&mut self, agent: &Agent, look: Look, findings: &mut Findings) -> Result<(), String> {
        let api = agent.api();
        for till in &self.tills {
            till.ask(&api, look, findings).await?;
        }
        if let Look::Newest(newest) = look {
            for till in &mut self.tills {
                till.send_again(&api, newest, findings).await?;
            }
        }
        settle(self, agent, Deadline::new(LIMIT)).await?;
        self.totals(&api, findings).await?;
        let exceptions: Vec<ExceptionAnswer> = exceptions(&api).await?;
        let harmful = exceptions.iter().filter(|exception| !HARMLESS.contains(&exception.code.as_str()));
        findings.faults.extend(harmful.map(|exception| format!("the agent reports {exception:?}")));
        Ok(())
    }

    /// Day totals and stock: nothing twice, nothing missing, in the state as in the journal.
    async fn totals(&self, api: &Api, findings: &mut Findings) -> Result<(), String> {
        let day: DayAnswer = api.json(&format!("/v1/days/{DAY}")).await.map_err(|error| error.to_string())?;
        let mut stock: BTreeMap<String, i64> = BTreeMap::new();
        for till in &self.tills {
            let mut pence = 0;
            for number in till.told.keys() {
                let sale = till.sale(*number);
                pence += sale.pence * sale.lines;
                for line in 0..sale.lines {
                    *stock.entry(item((sale.first_item + line) % ITEMS)).or_default() -= 1;
                }
            }
            let expected = (till.told.len() as u64, money(pence));
            let counted =
                day.currencies.iter().flat_map(|currency| &currency.tills).find(|of| of.workstation_id == till.id);
            let found = counted.map_or((0, money(0)), |totals| (totals.transactions, totals.gross.clone()));
            if found != expected {
                findings
                    .faults
                    .push(format!("till {}: the day has {found:?}, the receipts come to {expected:?}", till.id));
            }
        }
        for (item, expected) in stock {
            let answer: StockAnswer =
                api.json(&format!("/v1/stock/{item}")).await.map_err(|error| error.to_string())?;
            if Decimal::from_str_exact(&answer.quantity.delta).ok() != Some(Decimal::from(expected)) {
                findings.faults.push(format!("{item}: the receipts come to {expected}, the agent says {answer:?}"));
            }
        }
        Ok(())
    }

    /// Every answer that comes from the state, without what differs by the moment of asking.
    pub async fn answers(&self, agent: &Agent) -> Result<Vec<Value>, String> {
        let api = agent.api();
        let newest = self.tills.iter().flat_map(|till| till.told.keys().rev().take(4).map(|number| till.path(*number)));
        let stock = (0..ITEMS).map(|number| format!("/v1/stock/{}", item(number)));
        let paths = newest.chain(stock).chain([format!("/v1/days/{DAY}"), "/v1/exceptions?all=true".to_owned()]);
        let mut answers = Vec::new();
        for path in paths {
            let answer = api.get(&path).await.map_err(|error| error.to_string())?;
            let mut body: Value = serde_json::from_slice(&answer.body).map_err(|error| format!("{path}: {error}"))?;
            forget(&mut body);
            answers.push(body);
        }
        Ok(answers)
    }
}

/// Removes how far records got, how old things are, and up to where an answer looked: those move by themselves.
fn forget(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for name in ["age_s", "progress", "as_of"] {
                fields.remove(name);
            }
            fields.values_mut().for_each(forget);
        }
        Value::Array(values) => values.iter_mut().for_each(forget),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

async fn exceptions(api: &Api) -> Result<Vec<ExceptionAnswer>, String> {
    let answer: Value = api.json("/v1/exceptions").await.map_err(|error| error.to_string())?;
    let list = answer.get("exceptions").cloned().unwrap_or(answer);
    serde_json::from_value(list).map_err(|error| format!("/v1/exceptions: {error}"))
}

impl Till {
    fn path(&self, number: u64) -> String {
        format!("/v1/receipts/{}/{DAY}/{number}", self.id)
    }

    /// Asks for the newest receipts one by one.
    async fn ask(&self, api: &Api, look: Look, findings: &mut Findings) -> Result<(), String> {
        for (number, stub) in self.told.iter().rev().take(NEWEST) {
            let answer = api.get(&self.path(*number)).await.map_err(|error| error.to_string())?;
            if look == Look::Forgetting && answer.status == 404 {
                continue;
            }
            findings.receipts += 1;
            let found: Option<ReceiptAnswer> =
                serde_json::from_slice(&answer.body).ok().filter(|_| answer.is_success());
            let found = found.map(|found| self.stub(*number, found.receipt));
            if found.as_ref() != Some(stub) {
                let text = answer.text();
                findings.faults.push(format!("asked for {}: told {stub:?}, got {} {text}", stub.key, answer.status));
            }
        }
        Ok(())
    }

    /// Sends the newest documents again for which there is a receipt: the receipt must come again, and nothing be recorded.
    async fn send_again(&mut self, api: &Api, newest: usize, findings: &mut Findings) -> Result<(), String> {
        let deadline = Deadline::new(LIMIT);
        let mut rest: BTreeSet<u64> = self.told.keys().rev().take(newest).copied().collect();
        while !rest.is_empty() {
            let mut bytes = 0;
            let few = rest.iter().copied().take(AT_ONCE).take_while(|number| {
                bytes += self.document(*number).len() + 1;
                bytes < REQUEST_BYTES_MAX
            });
            let numbers: Vec<u64> = few.collect();
            let Told::Receipts(receipts) = self.send(api, &numbers).await? else {
                if deadline.rest().await {
                    continue;
                }
                return Err(format!("till {} got no answer when it sent sales {:?} again", self.id, numbers.first()));
            };
            for (number, (status, receipt)) in numbers.into_iter().zip(receipts) {
                rest.remove(&number);
                self.compare(number, status, self.stub(number, receipt), findings);
            }
        }
        Ok(())
    }

    fn compare(&mut self, number: u64, status: u16, found: Stub, findings: &mut Findings) {
        findings.receipts += 1;
        match self.told.get(&number) {
            Some(told) if status == 200 && *told == found => {}
            told => {
                findings.lost += 1;
                findings.faults.push(format!("LOST: {told:?}; sent again, the answer is {status} {found:?}"));
                self.told.insert(number, found);
            }
        }
    }
}
