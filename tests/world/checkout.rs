//! Tills that sell without end, stop when nobody answers, and remember what they were told: the witnesses of crashes and power cuts.
//!
//! What till *t* sells under number *n* follows from *t* and *n* alone, so the memory holds receipts and not documents. Invariant: a number whose
//! answer did not come stays `open` and is sent again before anything new; a receipt, once it came, is never given up.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use counterfoil::answer::Receipt;
use serde::Deserialize;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::agent::Agent;
use crate::http::{Answer, Api};
use crate::random::Random;
use crate::receipts::Stub;
use crate::wait::Deadline;

pub mod judge;
pub mod verdict;

/// The day of all sales.
pub const DAY: &str = "2026-11-23";
/// What is sold.
pub const ITEMS: u64 = 5;
/// Bytes of one request; the contract allows 4 MiB.
const REQUEST_BYTES_MAX: usize = 2 * 1024 * 1024;

/// The tills of a store.
#[derive(Debug)]
pub struct Checkout {
    store_id: String,
    tills: Vec<Till>,
}

/// One till.
#[derive(Debug)]
pub struct Till {
    store_id: String,
    id: String,
    /// Sales in one request; one sale goes alone, as JSON.
    batch: usize,
    long_in: u64,
    next: u64,
    open: BTreeSet<u64>,
    told: BTreeMap<u64, Stub>,
}

/// A sale, as far as it is counted.
#[derive(Clone, Copy, Debug)]
pub struct Sale {
    lines: u64,
    first_item: u64,
    pence: u64,
}

/// One answer among many.
#[derive(Debug, Deserialize)]
struct One {
    status: u16,
    receipt: Option<Receipt>,
    problem: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct Many {
    results: Vec<One>,
}

/// What became of a request.
#[derive(Debug)]
enum Told {
    /// A status and a receipt for each.
    Receipts(Vec<(u16, Receipt)>),
    /// Not now.
    Later,
    /// Nobody there.
    Silence,
}

impl Checkout {
    /// Tills that have sold nothing yet: `single` ones that send each sale alone, and one that sends sixteen at once. One sale in `long_in` has
    /// hundreds of lines, so that segments of the journal turn.
    pub fn new(store_id: &str, single: u64, long_in: u64) -> Self {
        let till = |number: u64, batch| Till {
            store_id: store_id.to_owned(),
            id: number.to_string(),
            batch,
            long_in,
            next: 1,
            open: BTreeSet::new(),
            told: BTreeMap::new(),
        };
        let mut tills: Vec<Till> = (1..=single).map(|number| till(number, 1)).collect();
        tills.push(till(single + 1, 16));
        Self { store_id: store_id.to_owned(), tills }
    }

    /// Sells until nobody answers any more, or until there are `enough` receipts more. What a till cannot make sense of is a fault.
    pub async fn sell(&mut self, agent: &Agent, enough: Option<u64>) -> Vec<String> {
        let mut selling = JoinSet::new();
        let each = enough.map(|enough| enough.div_ceil(self.tills.len() as u64));
        for mut till in self.tills.drain(..) {
            let api = agent.api();
            selling.spawn(async move {
                let fault = till.sell(&api, each).await.err();
                (till, fault)
            });
        }
        let mut faults = Vec::new();
        while let Some(ended) = selling.join_next().await {
            let (till, fault) = ended.expect("a till does not panic");
            self.tills.push(till);
            faults.extend(fault);
        }
        self.tills.sort_by(|a, b| a.id.cmp(&b.id));
        faults
    }

    /// How many receipts there are.
    pub fn told(&self) -> usize {
        self.tills.iter().map(|till| till.told.len()).sum()
    }

    /// All receipts, by key.
    pub fn stubs(&self) -> BTreeMap<String, Stub> {
        self.tills.iter().flat_map(|till| till.told.values()).map(|stub| (stub.key.clone(), stub.clone())).collect()
    }
}

impl Till {
    async fn sell(&mut self, api: &Api, enough: Option<u64>) -> Result<(), String> {
        let goal = enough.map(|enough| self.told.len() as u64 + enough);
        while goal.is_none_or(|goal| (self.told.len() as u64) < goal) {
            let mut numbers: Vec<u64> = self.open.iter().copied().take(self.batch).collect();
            while numbers.len() < self.batch {
                numbers.push(self.next);
                self.open.insert(self.next);
                self.next += 1;
            }
            match self.send(api, &numbers).await? {
                Told::Receipts(receipts) => {
                    for (number, (_, receipt)) in numbers.iter().zip(receipts) {
                        self.note(*number, receipt);
                    }
                }
                Told::Later => {}
                Told::Silence => return Ok(()),
            }
        }
        Ok(())
    }

    /// Sends again what got no answer, and whatever else `numbers` names.
    async fn send(&self, api: &Api, numbers: &[u64]) -> Result<Told, String> {
        let bodies: Vec<String> = numbers.iter().map(|number| self.document(*number)).collect();
        let (media, body) = match (&bodies[..], self.batch) {
            ([one], 1) => ("application/json", one.clone()),
            _ => ("application/x-ndjson", bodies.join("\n")),
        };
        let Ok(answer) = api.post("/v1/transactions", media, body.into_bytes()).await else {
            return Ok(Told::Silence);
        };
        if answer.status == 429 || answer.status >= 500 {
            return Ok(Told::Later);
        }
        self.read(numbers, media, &answer)
    }

    fn read(&self, numbers: &[u64], media: &str, answer: &Answer) -> Result<Told, String> {
        let shape = || format!("till {}, sales {numbers:?}: answer {} {}", self.id, answer.status, answer.text());
        if !answer.is_success() {
            return Err(shape());
        }
        if media == "application/json" {
            let receipt = serde_json::from_slice(&answer.body).map_err(|_| shape())?;
            return Ok(Told::Receipts(vec![(answer.status, receipt)]));
        }
        let many: Many = serde_json::from_slice(&answer.body).map_err(|_| shape())?;
        if many.results.len() != numbers.len() {
            return Err(shape());
        }
        if many.results.iter().any(|one| one.status == 429 || one.status >= 500) {
            return Ok(Told::Later);
        }
        let receipts = many.results.into_iter().map(|one| match one.receipt {
            Some(receipt) => Ok((one.status, receipt)),
            None => Err(format!("till {}: one of sales {numbers:?}: {} {:?}", self.id, one.status, one.problem)),
        });
        receipts.collect::<Result<_, _>>().map(Told::Receipts)
    }

    fn note(&mut self, number: u64, receipt: Receipt) {
        let stub = self.stub(number, receipt);
        self.open.remove(&number);
        self.told.insert(number, stub);
    }

    fn stub(&self, number: u64, receipt: Receipt) -> Stub {
        let Receipt { epoch, lane, seq, digest, .. } = receipt;
        Stub { key: format!("{}/t/{}/{DAY}/{number}", self.store_id, self.id), epoch, lane, seq, digest }
    }

    /// What is sold under a number.
    fn sale(&self, number: u64) -> Sale {
        let mut random = Random::named(number, &self.id);
        let lines = if random.one_in(self.long_in) { 100 + random.below(200) } else { 1 + random.below(4) };
        Sale { lines, first_item: random.below(ITEMS), pence: 1 + random.below(5_000) }
    }

    /// The document of a number, the same bytes each time.
    fn document(&self, number: u64) -> String {
        let sale = self.sale(number);
        let price = money(sale.pence);
        let gross = money(sale.pence * sale.lines);
        let mut lines = String::new();
        for line in 0..sale.lines {
            let comma = if line == 0 { "" } else { "," };
            let item = item((sale.first_item + line) % ITEMS);
            write!(
                lines,
                "{comma}{{\"line\":{},\"kind\":\"sale\",\"item_id\":\"{item}\",\"quantity\":\"1\",\"unit\":\"EA\",\
                 \"actual_unit_price\":\"{price}\",\"extended_amount\":\"{price}\"}}",
                line + 1
            )
            .expect("writing into a string");
        }
        format!(
            "{{\"workstation_id\":\"{}\",\"business_day_date\":\"{DAY}\",\"sequence_number\":{number},\"type\":\"sale\",\
             \"end_date_time\":\"{DAY}T10:15:40+00:00\",\"currency_code\":\"GBP\",\"line_items\":[{lines}],\
             \"tenders\":[{{\"line\":1,\"type\":\"cash\",\"amount\":\"{gross}\"}}],\"totals\":{{\"gross\":\"{gross}\"}}}}",
            self.id
        )
    }
}

fn item(number: u64) -> String {
    format!("item-{number}")
}

fn money(pence: u64) -> String {
    format!("{}.{:02}", pence / 100, pence % 100)
}

/// Waits until every till has an answer to what it had sent when the agent went away.
async fn settle(checkout: &mut Checkout, agent: &Agent, deadline: Deadline) -> Result<(), String> {
    let api = agent.api();
    for till in &mut checkout.tills {
        while !till.open.is_empty() {
            let numbers: Vec<u64> = till.open.iter().copied().take(till.batch).collect();
            if let Told::Receipts(receipts) = till.send(&api, &numbers).await? {
                for (number, (_, receipt)) in numbers.iter().zip(receipts) {
                    till.note(*number, receipt);
                }
            } else if !deadline.rest().await {
                return Err(format!("till {} got no answer to {numbers:?}, which it sent again and again", till.id));
            }
        }
    }
    Ok(())
}
