//! What stored records mean to the hub: pure interpretation of a chunk, in the order of its positions, and the loop that drives it.
//!
//! Invariant: the same records in the same order give the same totals, marks and exceptions. Whatever the bytes are, they get
//! a position: what cannot be read is marked and raised, and holds up nothing. Of each business identity the first
//! record counts; the same content again is a duplicate, other content a conflict, and neither reaches the totals.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use counterfoil_proto::id::{Digest, RecordKey, Source};
use counterfoil_proto::record::facts::{
    DayCloseFacts, Facts, TransactionFacts, TransactionStatus, TransactionType, facts_and_ties,
};
use counterfoil_proto::record::{Kind, Record, RecordError, flag};
use counterfoil_proto::time::WallTime;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::env;
use crate::ledger::{Ledger, LedgerError, PostingBounds, Seal};
use crate::naming::{self, Named};
use crate::reconcile::{ByCurrency, Sums};

/// Records in one posting transaction: enough to spread the cost of a commit, little enough to be visible soon.
pub const POSTING_RECORDS_MAX: usize = 5_000;
/// Stored bytes in one posting transaction; bounds memory.
pub const POSTING_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How often to look for what other processes stored.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// How soon to look again when another process was posting.
const ELSEWHERE_INTERVAL: Duration = Duration::from_millis(50);
/// Minor units that one amount may have. More is no sale but a fault, and would one day overflow a sum.
const AMOUNT_MAX: u64 = 100_000_000_000_000;
/// Characters of a text that becomes part of a key in the ledger.
const KEY_CHARS_MAX: usize = 128;

/// An exception to be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raised {
    /// Stable: the same finding on the same record has the same.
    pub id: String,
    /// Whose record.
    pub source: Source,
    /// The record.
    pub key: RecordKey,
    /// What was found.
    pub code: String,
    /// Where in the document, JSON pointer.
    pub pointer: String,
    /// In words, without values of the document.
    pub detail: String,
}

impl Raised {
    /// A finding about a record.
    pub fn new(source: &Source, key: RecordKey, code: &str, pointer: &str, detail: String) -> Self {
        let code = bounded(code);
        Self { id: exception_id(key, &code), source: source.clone(), key, pointer: bounded(pointer), detail, code }
    }
}

/// The id of an exception: the same on the agent and here.
pub fn exception_id(key: RecordKey, code: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"exception");
    hasher.update(&key.epoch.0);
    hasher.update(&[key.lane.code()]);
    hasher.update(&key.seq.0.to_le_bytes());
    hasher.update(code.as_bytes());
    let hex = hasher.finalize().to_hex();
    format!("ex-{}", &hex.as_str()[..16])
}

/// A text that becomes part of a key in the ledger.
pub(crate) fn bounded(text: &str) -> String {
    text.chars().take(KEY_CHARS_MAX).collect()
}

/// A stored record that waits for its position.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its lane's number in the ledger.
    pub stream: i64,
    /// Whose.
    pub source: Source,
    /// Which.
    pub key: RecordKey,
    /// 0, or the how manieth further record under its key.
    pub fork: i64,
    /// When it came.
    pub received_at: WallTime,
    /// As it came.
    pub bytes: Vec<u8>,
}

/// When and where a till's document was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capture {
    /// By the box's clock.
    pub at: WallTime,
    /// Where it was sold or ordered; empty where it does not say.
    pub channel: String,
    /// How its goods reach the customer; empty where it does not say.
    pub fulfillment_type: String,
}

/// What makes a record the same business document as another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Of store and identity.
    pub key: [u8; 16],
    /// Of the content.
    pub content: [u8; 16],
}

/// Somebody's word about an exception.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which.
    pub id: String,
    /// `acknowledged`, `resolved` or `waived`.
    pub state: String,
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// What one record says.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// What it claims to be the first of; `None` for the agent's own records and for what the agent knew to be a conflict.
    pub claim: Option<Claim>,
    /// Whether the agent knew it to be in conflict with an earlier one.
    pub conflict: bool,
    /// Whether it cannot be read.
    pub unreadable: bool,
    /// What it is known as in its store.
    pub identity: String,
    /// Whether the agent had its day closed when it came.
    pub is_late: bool,
    transaction: Option<TransactionFacts>,
    close: Option<DayCloseFacts>,
    /// What was found.
    pub raised: Vec<Raised>,
    /// What it changes of an exception.
    pub change: Option<Change>,
    /// When and where it was taken; `None` for the agent's own records.
    pub capture: Option<Capture>,
    /// The signed control totals that it is.
    pub(crate) seal: Option<Seal>,
    /// What it is found by beside its identity, and what it reverses.
    pub named: Named,
}

/// Where a line of the totals belongs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TotalKey {
    /// The store.
    pub store_id: String,
    /// `YYYY-MM-DD`.
    pub business_day: String,
    /// ISO 4217.
    pub currency: String,
    /// The till.
    pub workstation_id: String,
    /// `counted`, `net`, `tax`, `taxes/{category}/{rate}`, `tender/{type}`, `not/{reason}`.
    pub what: String,
}

/// What is added to a line of the totals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    /// Transactions.
    pub transactions: i64,
    /// Minor units.
    pub amount: i64,
    /// What a tax is on, in minor units.
    pub base: i64,
    /// The smallest sequence number.
    pub low: Option<i64>,
    /// The largest sequence number.
    pub high: Option<i64>,
}

/// Totals of a chunk.
pub type Totals = BTreeMap<TotalKey, Total>;

/// How a record stands to the first one of its business identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is the first, or has no identity.
    First,
    /// The same content has this position.
    Duplicate(u64),
    /// Other content has this position.
    Conflict(u64),
}

/// Reads a record. `opaque` takes it as unreadable without looking.
pub fn read(stored: &Stored, opaque: bool) -> Reading {
    let decoded = if opaque { Err(RecordError::Body) } else { Record::decode(&stored.bytes) };
    let record = match decoded {
        Ok(record) => record,
        Err(error) => return unreadable(stored, flag::UNREADABLE_RECORD, &error.to_string()),
    };
    if record.kind.name().is_none() {
        return unreadable(stored, flag::UNKNOWN_KIND, &format!("kind {}", record.kind.0));
    }
    let envelope = &record.envelope;
    let mut reading = Reading { conflict: envelope.conflicts_with.is_some(), ..Reading::default() };
    let raise =
        |code: &str, pointer: &str, detail: String| Raised::new(&stored.source, stored.key, code, pointer, detail);
    for flag in &envelope.flags {
        reading.raised.push(raise(&flag.code, &flag.pointer, String::new()));
    }
    for (kind, code) in [(Kind::TAIL_CUT, flag::TAIL_CUT), (Kind::JOURNAL_DAMAGE, flag::JOURNAL_DAMAGE)] {
        if record.kind == kind && envelope.flags.iter().all(|flag| flag.code != code) {
            reading.raised.push(raise(code, "", String::new()));
        }
    }
    reading.identity = bounded(envelope.identity.as_deref().unwrap_or_default());
    reading.is_late = envelope.flags.iter().any(|flag| flag.code == flag::LATE_AFTER_CLOSE);
    if let Some(identity) = envelope.identity.as_deref().filter(|_| !reading.conflict) {
        reading.claim = Some(claim(&stored.source, identity, envelope.content_digest));
    }
    if record.kind == Kind::EXCEPTION_CHANGE {
        reading.change = change(&record.document);
    }
    if record.kind == Kind::CONTROL_TOTALS {
        reading.seal = Seal::read(&record.document);
        if reading.seal.is_none() {
            reading.raised.push(raise(flag::CONTROL_TOTALS_BROKEN, "", "they cannot be read".to_owned()));
        }
    }
    let found = facts_and_ties(record.kind, envelope, &record.document).map(|(facts, ties)| {
        if envelope.identity.is_some() {
            let text = |text: &Option<String>| bounded(text.as_deref().unwrap_or_default());
            let (channel, fulfillment_type) = (text(&ties.channel), text(&ties.fulfillment_type));
            reading.capture = Some(Capture { at: envelope.recorded_at, channel, fulfillment_type });
        }
        reading.named = Named::read(stored, envelope, ties);
        facts
    });
    match found {
        Ok(Facts::Transaction(facts)) if in_range(&facts) => reading.transaction = Some(facts),
        Ok(Facts::Transaction(_)) => {
            let detail = "an amount is out of any range".to_owned();
            reading.raised.push(raise(flag::UNREADABLE_RECORD, "", detail));
        }
        Ok(Facts::DayClose(facts)) => reading.close = Some(facts),
        Ok(Facts::Movement(_) | Facts::Fulfillment(_) | Facts::TenderControl(_) | Facts::None) => {}
        Err(error) => reading.raised.push(raise(flag::UNREADABLE_RECORD, "", error.to_string())),
    }
    reading
}

fn unreadable(stored: &Stored, code: &str, why: &str) -> Reading {
    let raised = Raised::new(&stored.source, stored.key, code, "", why.to_owned());
    Reading { unreadable: true, raised: vec![raised], ..Reading::default() }
}

fn claim(source: &Source, identity: &str, content: Digest) -> Claim {
    let key = naming::identity(source.store_id.as_str(), identity);
    Claim { key, content: naming::half(content.0) }
}

fn in_range(facts: &TransactionFacts) -> bool {
    let taxes = facts.taxes.iter().flat_map(|tax| [tax.amount, tax.taxable_amount]);
    let tenders = facts.tenders.iter().map(|tender| tender.amount);
    let sums = [Some(facts.gross), facts.net, facts.tax].into_iter().flatten();
    taxes.chain(tenders).chain(sums).all(|amount| amount.unsigned_abs() <= AMOUNT_MAX)
}

#[derive(Deserialize)]
struct ChangeDocument {
    exception_id: String,
    change: String,
    by: String,
    reason: String,
}

fn change(document: &[u8]) -> Option<Change> {
    let written: ChangeDocument = serde_json::from_slice(document).ok()?;
    let change = flag::Change::from_name(&written.change)?;
    Some(Change {
        id: bounded(&written.exception_id),
        state: change.as_str().to_owned(),
        by: bounded(&written.by),
        reason: written.reason.chars().take(1_000).collect(),
    })
}

/// Adds what a record contributes to the totals of its day.
pub fn fold(totals: &mut Totals, store_id: &str, reading: &Reading, standing: Standing) {
    let Some(facts) = &reading.transaction else { return };
    let key = |what: String| TotalKey {
        store_id: store_id.to_owned(),
        business_day: bounded(&facts.business_day_date),
        currency: bounded(&facts.currency_code),
        workstation_id: bounded(&facts.workstation_id),
        what: bounded(&what),
    };
    let mut add = |what: String, amount: i64, base: i64, number: Option<i64>| {
        let total = totals.entry(key(what)).or_default();
        total.transactions = total.transactions.saturating_add(1);
        total.amount = total.amount.saturating_add(amount);
        total.base = total.base.saturating_add(base);
        total.low = total.low.min(number).or(total.low).or(number);
        total.high = total.high.max(number);
    };
    if let Some(reason) = not_counted(facts, reading, standing) {
        return add(format!("not/{reason}"), facts.gross, 0, None);
    }
    let number = facts.sequence_number.and_then(|number| i64::try_from(number).ok());
    add("counted".to_owned(), facts.gross, 0, number);
    for (what, amount) in [("net", facts.net), ("tax", facts.tax)] {
        if let Some(amount) = amount {
            add(what.to_owned(), amount, 0, None);
        }
    }
    for tax in &facts.taxes {
        add(format!("taxes/{}/{}", tax.category, tax.rate), tax.amount, tax.taxable_amount, None);
    }
    for tender in &facts.tenders {
        add(format!("tender/{}", tender.tender_type), tender.amount, 0, None);
    }
}

/// What of a store's day a person asks for by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DayWhat {
    /// A declaration.
    Close,
    /// Counted, and came after its day had been closed.
    Late,
    /// Of an identity that another record had first; not counted.
    Conflict,
    /// Counted, under a number that its till had used.
    Doubled,
}

impl DayWhat {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Close, Self::Late, Self::Conflict, Self::Doubled];

    /// In the ledger.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Close => "close",
            Self::Late => "late",
            Self::Conflict => "conflict",
            Self::Doubled => "doubled",
        }
    }

    /// The one of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|what| what.as_str() == name)
    }
}

/// What such a document declares, or adds to its day.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaySums {
    /// By currency.
    pub sums: ByCurrency,
    /// The till's first and last number, as a close states them.
    pub span: Option<(u64, u64)>,
}

/// A document of a store's day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DayNote {
    /// `YYYY-MM-DD`.
    pub business_day: String,
    /// The till; empty where the whole store closed.
    pub workstation_id: String,
    /// Why it is asked for.
    pub what: DayWhat,
    /// What it declares or adds.
    pub sums: DaySums,
}

/// A till's own number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TillNumber {
    /// `YYYY-MM-DD`.
    pub business_day: String,
    /// The till.
    pub workstation_id: String,
    /// Raised by the till when its counter restarts.
    pub sequence_epoch: i64,
    /// The number.
    pub number: u64,
}

impl Reading {
    /// Whether it is a transaction that is the first of its identity.
    pub fn is_effective(&self, standing: Standing) -> bool {
        self.transaction.is_some() && standing == Standing::First && !self.conflict
    }

    /// What a person would ask for of its day.
    pub fn day_note(&self, standing: Standing) -> Option<DayNote> {
        let is_conflict = self.conflict || matches!(standing, Standing::Conflict(_));
        if let Some(close) = &self.close {
            let sums =
                DaySums { sums: declared(close), span: close.first_sequence_number.zip(close.last_sequence_number) };
            return matches!(standing, Standing::First).then(|| DayNote {
                business_day: bounded(&close.business_day_date),
                workstation_id: bounded(close.workstation_id.as_deref().unwrap_or_default()),
                what: if is_conflict { DayWhat::Conflict } else { DayWhat::Close },
                sums,
            });
        }
        let facts = self.transaction.as_ref()?;
        let what = match standing {
            Standing::First | Standing::Conflict(_) if is_conflict => DayWhat::Conflict,
            Standing::First if self.is_late && facts.counts() => DayWhat::Late,
            Standing::First | Standing::Duplicate(_) | Standing::Conflict(_) => return None,
        };
        Some(note_of(facts, what))
    }

    /// The number that it takes of its till's; none where it is not the first of its identity.
    pub fn till_number(&self, standing: Standing) -> Option<TillNumber> {
        let facts = self.transaction.as_ref().filter(|_| standing == Standing::First && !self.conflict)?;
        Some(TillNumber {
            business_day: bounded(&facts.business_day_date),
            workstation_id: bounded(&facts.workstation_id),
            sequence_epoch: i64::try_from(facts.sequence_epoch).ok()?,
            number: facts.sequence_number?,
        })
    }

    /// The note of a transaction whose number was used.
    pub fn doubled(&self) -> Option<DayNote> {
        self.transaction.as_ref().map(|facts| note_of(facts, DayWhat::Doubled))
    }
}

fn note_of(facts: &TransactionFacts, what: DayWhat) -> DayNote {
    let tenders = facts.tenders.iter().map(|tender| (bounded(&tender.tender_type), tender.amount)).collect();
    let sums = Sums { transactions: 1, gross: facts.gross, tenders, tax: facts.tax };
    DayNote {
        business_day: bounded(&facts.business_day_date),
        workstation_id: bounded(&facts.workstation_id),
        what,
        sums: DaySums { sums: ByCurrency::from([(bounded(&facts.currency_code), sums)]), span: None },
    }
}

fn declared(close: &DayCloseFacts) -> ByCurrency {
    let mut declared = ByCurrency::new();
    for totals in &close.declared {
        let tenders = totals.tenders.iter().map(|tender| (bounded(&tender.tender_type), tender.amount)).collect();
        let sums = Sums { transactions: totals.transactions, gross: totals.gross, tenders, tax: totals.tax };
        declared.entry(bounded(&totals.currency_code)).or_default().add(&sums);
    }
    declared
}

fn not_counted(facts: &TransactionFacts, reading: &Reading, standing: Standing) -> Option<&'static str> {
    match standing {
        Standing::Duplicate(_) => return Some("duplicates"),
        Standing::Conflict(_) => return Some("conflicts"),
        Standing::First if reading.conflict => return Some("conflicts"),
        Standing::First => {}
    }
    if facts.training_mode {
        return Some("training");
    }
    match (facts.status, facts.transaction_type) {
        (TransactionStatus::Suspended, _) => Some("suspended"),
        (TransactionStatus::Canceled, _) => Some("canceled"),
        (TransactionStatus::Finished, TransactionType::NoSale) => Some("no_sale"),
        (
            TransactionStatus::Finished,
            TransactionType::Sale | TransactionType::Return | TransactionType::Exchange | TransactionType::Void,
        ) => None,
    }
}

/// Posts what is stored, for as long as the hub runs. `stored` wakes it; `posted` tells the last position to those who wait.
pub async fn run(ledger: Arc<dyn Ledger>, mut stored: watch::Receiver<u64>, posted: watch::Sender<u64>) {
    let mut bounds = PostingBounds { records_max: POSTING_RECORDS_MAX, bytes_max: POSTING_BYTES_MAX, opaque: false };
    let mut failures: u32 = 0;
    loop {
        stored.mark_unchanged();
        let mut is_elsewhere = false;
        match ledger.post(bounds).await {
            Ok(done) => {
                posted.send_if_modified(|last| std::mem::replace(last, done.last_position) != done.last_position);
                failures = 0;
                bounds.opaque = false;
                // After trouble the chunk grows back.
                bounds.records_max = bounds.records_max.saturating_mul(2).min(POSTING_RECORDS_MAX);
                if done.more && !done.elsewhere {
                    continue;
                }
                is_elsewhere = done.elsewhere;
            }
            Err(error @ (LedgerError::Refused { .. } | LedgerError::Doubled { .. } | LedgerError::Shape)) => {
                // Something in these records is not to the ledger's liking: smaller, then alone, then without a look inside.
                tracing::error!(%error, records = bounds.records_max, "Posting failed");
                bounds.opaque = bounds.records_max == 1;
                bounds.records_max = (bounds.records_max / 8).max(1);
                failures = failures.saturating_add(1);
            }
            Err(LedgerError::WentBack { under }) => {
                failures = failures.saturating_add(1);
                if let Err(error) = ledger.come_back(under).await {
                    tracing::warn!(%error, "The ledger went back, and cannot be reached again yet");
                }
            }
            Err(error) => {
                failures = failures.saturating_add(1);
                tracing::warn!(%error, "Posting waits");
            }
        }
        let pause = match failures {
            // The other process may have looked just before this one stored something.
            0 if is_elsewhere => ELSEWHERE_INTERVAL,
            0 => LOOK_INTERVAL,
            failures => env::jittered(100_u64.saturating_mul(1 << failures.min(7))),
        };
        let woken = env::within(pause, stored.changed()).await;
        if matches!(woken, Some(Err(_))) {
            return;
        }
        if failures > 0 && woken.is_some() {
            // In trouble the pause is kept, however much arrives.
            env::pause(pause).await;
        }
    }
}

#[cfg(test)]
#[path = "posting/tests.rs"]
mod tests;
