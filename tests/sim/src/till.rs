//! The tills, and the oracle: every document they made and every answer they heard.
//!
//! Invariant: this is outside of the system. A till keeps what it was told for ever, sends what was not answered again, unchanged, and never
//! uses a number twice unless a fault says so.

use std::collections::BTreeMap;

use counterfoil::answer::Receipt;
use counterfoil_proto::id::{Digest, Epoch, Lane, RecordKey, Seq, Source};
use counterfoil_proto::record::{Context, Kind, Prepared, prepare};

use crate::random::Random;

/// The business day of every document.
pub(crate) const DAY: &str = "2026-11-24";

/// What a till was told of a document.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heard {
    pub(crate) store: usize,
    pub(crate) life: u32,
    pub(crate) at: u64,
    pub(crate) key: RecordKey,
}

/// A document.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) kind: Kind,
    pub(crate) text: Vec<u8>,
    pub(crate) source: Source,
    pub(crate) identity: String,
    pub(crate) digest: Digest,
    /// Minor units that it adds to the day's total.
    pub(crate) gross: i64,
    pub(crate) heard: Vec<Heard>,
}

/// A till.
#[derive(Debug)]
pub(crate) struct Till {
    pub(crate) name: String,
    pub(crate) home: usize,
    pub(crate) pace_ms: u64,
    numbers: u64,
    /// Sent, and not answered yet.
    pub(crate) pending: Option<usize>,
    pub(crate) answered: Vec<usize>,
}

/// All tills, documents and answers.
#[derive(Debug, Default)]
pub(crate) struct Tills {
    pub(crate) all: Vec<Till>,
    pub(crate) documents: Vec<Document>,
    /// Which document has a key, as tills were told.
    pub(crate) keys: BTreeMap<(Source, RecordKey), usize>,
    /// Documents by identity.
    pub(crate) identities: BTreeMap<(Source, String), Vec<usize>>,
}

pub(crate) fn key_of(receipt: &Receipt) -> RecordKey {
    RecordKey {
        epoch: receipt.epoch.parse::<Epoch>().expect("a receipt names an epoch"),
        lane: receipt.lane.parse::<Lane>().expect("a receipt names a lane"),
        seq: Seq(receipt.seq),
    }
}

fn amount(minor: i64) -> String {
    let sign = if minor < 0 { "-" } else { "" };
    format!("{sign}{}.{:02}", minor.abs() / 100, minor.abs() % 100)
}

fn transaction(till: &str, number: u64, minor: i64) -> String {
    let (kind, quantity) = if minor < 0 { ("return", "-1") } else { ("sale", "1") };
    let (paid, price) = (amount(minor), amount(minor.abs()));
    format!(
        r#"{{"workstation_id":"{till}","business_day_date":"{DAY}","sequence_number":{number},"type":"{kind}",
        "end_date_time":"{DAY}T10:15:40+00:00","currency_code":"EUR",
        "line_items":[{{"line":1,"kind":"{kind}","item_id":"mug","quantity":"{quantity}","actual_unit_price":"{price}","extended_amount":"{paid}"}}],
        "tenders":[{{"line":1,"type":"cash","amount":"{paid}"}}],"totals":{{"gross":"{paid}"}}}}"#
    )
}

fn movement(till: &str, number: u64, quantity: u64) -> String {
    format!(
        r#"{{"document_id":"{till}-{number}","type":"receipt","end_date_time":"{DAY}T08:00:00Z","business_day_date":"{DAY}",
        "line_items":[{{"line":1,"item_id":"mug","quantity":"{quantity}"}}]}}"#
    )
}

impl Tills {
    pub(crate) fn open(&mut self, name: String, home: usize, pace_ms: u64) -> usize {
        self.all.push(Till { name, home, pace_ms, numbers: 0, pending: None, answered: Vec::new() });
        self.all.len() - 1
    }

    /// The document as its box takes it.
    pub(crate) fn prepared(&self, document: usize, context: &Context) -> Prepared {
        let document = &self.documents[document];
        prepare(document.kind, &document.text, None, context).expect("a till writes whole documents")
    }

    /// Forgets every document.
    pub(crate) fn forget(&mut self) {
        self.documents.clear();
        self.identities.clear();
        self.keys.clear();
    }

    /// A new document of a till.
    pub(crate) fn make(&mut self, till: usize, source: &Source, context: &Context, random: &mut Random) -> usize {
        let owner = &mut self.all[till];
        owner.numbers += 1;
        let number = owner.numbers;
        let name = owner.name.clone();
        let minor = i64::try_from(random.between(1, 20_000)).unwrap_or(1);
        match random.below(10) {
            0 => self.keep(Kind::STOCK_MOVEMENT, movement(&name, number, random.between(1, 20)), 0, source, context),
            1 => self.keep(Kind::TRANSACTION, transaction(&name, number, -minor), -minor, source, context),
            _ => self.keep(Kind::TRANSACTION, transaction(&name, number, minor), minor, source, context),
        }
    }

    /// Other content under the identity of the till's last document.
    pub(crate) fn contradict(&mut self, till: usize, source: &Source, context: &Context, random: &mut Random) -> usize {
        let owner = &self.all[till];
        let (number, name) = (random.between(1, owner.numbers.max(1)), owner.name.clone());
        // No two contradictions are one document.
        let made = u64::try_from(self.documents.len()).unwrap_or(0);
        let minor = i64::try_from(random.between(20_001, 30_000) + 10_000 * made).unwrap_or(1);
        self.keep(Kind::TRANSACTION, transaction(&name, number, minor), minor, source, context)
    }

    fn keep(&mut self, kind: Kind, text: String, gross: i64, source: &Source, context: &Context) -> usize {
        let prepared = prepare(kind, text.as_bytes(), None, context).expect("a till writes whole documents");
        let identity = prepared.envelope.identity.clone().unwrap_or_default();
        let document = Document {
            kind,
            text: text.into_bytes(),
            source: source.clone(),
            identity: identity.clone(),
            digest: prepared.envelope.content_digest,
            gross,
            heard: Vec::new(),
        };
        self.documents.push(document);
        let index = self.documents.len() - 1;
        self.identities.entry((source.clone(), identity)).or_default().push(index);
        index
    }
}
