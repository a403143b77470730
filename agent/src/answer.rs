//! The answers that the agent gives, as the HTTP API shows them: the contract's names, and the schemas of its description.
//!
//! Invariant: fields are only added. Nothing here computes; the owner of the state fills these in.

use std::collections::BTreeMap;

use counterfoil_proto::record::Flag;
use counterfoil_telemetry::metrics::Durations;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a till gets for a document: where it stands, for ever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Receipt {
    /// The agent's incarnation, 32 hexadecimal digits.
    #[schemars(regex(pattern = "^[0-9a-f]{32}$"))]
    pub epoch: String,
    /// `trade` or `stock`.
    #[schemars(extend("enum" = ["trade", "stock"]))]
    pub lane: String,
    /// The place in the lane, from 1.
    #[schemars(range(min = 1))]
    pub seq: u64,
    /// The content digest: BLAKE3 of the document's RFC 8785 form without `traceparent`, 64 hexadecimal digits.
    #[schemars(regex(pattern = "^[0-9a-f]{64}$"))]
    pub digest: String,
    /// RFC 3339, UTC.
    #[schemars(extend("format" = "date-time"))]
    pub recorded_at: String,
    /// Whether this document had been recorded before; the receipt is then the first one.
    pub duplicate: bool,
    /// Codes of what was found; the document is recorded all the same.
    pub exceptions: Vec<String>,
    /// Oddities that are no exception, such as unknown fields; empty in a receipt that is asked for later.
    pub warnings: Vec<String>,
}

/// What became of one submitted document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Synced now.
    Recorded(Receipt),
    /// Synced before, with the same content.
    Duplicate(Receipt),
    /// Synced before with other content; this one is kept beside it, once.
    Conflict(Conflict),
}

/// The same identity with other content (409).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Conflict {
    /// The receipt of the document that was first.
    pub existing: Receipt,
    /// Where the document of this request is kept, outside stock and totals.
    pub kept: Receipt,
    /// The exception that a person will see.
    pub exception_id: String,
}

/// What would become of a document if it were submitted now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Forecast {
    /// It would be recorded (201), with these flags beside those that its content alone gives.
    Recorded {
        /// What the agent's other records give.
        flags: Vec<Flag>,
    },
    /// It is recorded already (200).
    Duplicate,
    /// Its identity is taken by other content (409).
    Conflict,
}

/// Why the agent did not take a request; nothing was appended, but for [`Refused::Unanswered`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Too much is waiting (503).
    #[error("Too many requests are waiting to be written; try again")]
    Busy,
    /// The disk is at its high-water mark (507).
    #[error("The journal is full; it accepts again when the hub has taken over enough records")]
    Full,
    /// The disk failed; only what is there is still being delivered (503).
    #[error("The disk failed repeatedly; the agent only delivers what it has")]
    DrainOnly,
    /// The agent is going down (503).
    #[error("The agent is stopping")]
    Stopping,
    /// The owner went away without a word, for example because a sync failed: it may or may not be on the disk, so the till
    /// gets no answer at all (the connection is closed) and sends the same again.
    #[error("The agent stopped before it could say whether the documents are on the disk; send the same again")]
    Unanswered,
}

/// How far a record got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Progress {
    /// On this box's disk.
    Recorded,
    /// Handed to MQTT in this session.
    Sent,
    /// Committed by the hub.
    Stored,
    /// In the hub's verified backup.
    Safe,
}

/// Answer of `GET /v1/receipts/…`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReceiptAnswer {
    /// The receipt.
    #[serde(flatten)]
    pub receipt: Receipt,
    /// What it tells of: `transaction`, `stock_movement` …
    pub kind: String,
    /// How far it got.
    pub progress: Progress,
    /// What ties it to other records.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
}

/// A place in the agent's history up to which an answer reflects records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AsOf {
    /// The incarnation.
    pub epoch: String,
    /// Last number per lane.
    pub lanes: BTreeMap<String, u64>,
}

/// Stock of one item in one unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StockQuantity {
    /// UN/ECE Rec 20.
    pub unit: String,
    /// On the shelf; `null` until a count gave a baseline.
    pub on_hand: Option<String>,
    /// Sum of all movements since `delta_since`.
    pub delta: String,
    /// Wall time of the baseline, or of the first movement where there is none; RFC 3339.
    pub delta_since: String,
    /// Held for orders.
    pub reserved: String,
    /// On hand less reserved; `null` without a baseline.
    pub available: Option<String>,
}

/// Answer of `GET /v1/stock/{item_id}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StockAnswer {
    /// The item.
    pub item_id: String,
    /// The first unit that the item was moved in, at the top level.
    #[serde(flatten)]
    pub quantity: StockQuantity,
    /// Further units, where the item moves in several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_units: Vec<StockQuantity>,
    /// Up to where records are reflected.
    pub as_of: Option<AsOf>,
}

/// Totals of one till in one currency; amounts are decimal strings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TillTotals {
    /// The till.
    pub workstation_id: String,
    /// Counted transactions: finished sales, returns, exchanges and voids.
    pub transactions: u64,
    /// Σ totals.gross.
    pub gross: String,
    /// Σ totals.net of those that have it.
    pub net: String,
    /// Σ totals.tax of those that have it.
    pub tax: String,
    /// Taxes by category and rate.
    pub taxes: Vec<TaxTotal>,
    /// Tenders by type.
    pub tenders: BTreeMap<String, String>,
    /// The smallest number of the day.
    pub first_sequence_number: Option<u64>,
    /// The largest number of the day.
    pub last_sequence_number: Option<u64>,
    /// Beside the totals, never in them: training, no-sale, suspended, canceled, conflicts.
    pub not_counted: BTreeMap<String, u64>,
}

/// Tax of one category and rate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TaxTotal {
    /// UNCL5305 category.
    pub category: String,
    /// Percent.
    pub rate: String,
    /// What the tax is on.
    pub taxable_amount: String,
    /// The tax.
    pub amount: String,
}

/// Totals of a day in one currency.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CurrencyTotals {
    /// ISO 4217.
    pub currency_code: String,
    /// Counted transactions of all tills.
    pub transactions: u64,
    /// Σ totals.gross of all tills.
    pub gross: String,
    /// By till.
    pub tills: Vec<TillTotals>,
}

/// A day close as it was declared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeclaredClose {
    /// The till; absent where the whole store closed.
    pub workstation_id: Option<String>,
    /// RFC 3339.
    pub recorded_at: String,
    /// The totals as declared, per currency.
    pub declared: Vec<DeclaredCurrency>,
}

/// Declared totals of one currency.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeclaredCurrency {
    /// ISO 4217.
    pub currency_code: String,
    /// Counted transactions.
    pub transactions: u64,
    /// Σ totals.gross.
    pub gross: String,
    /// By type.
    pub tenders: BTreeMap<String, String>,
}

/// Answer of `GET /v1/days/{business_day_date}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DayAnswer {
    /// `YYYY-MM-DD`.
    pub business_day_date: String,
    /// What this agent counted.
    pub currencies: Vec<CurrencyTotals>,
    /// What was declared.
    pub closes: Vec<DeclaredClose>,
    /// What was declared against what this agent counted: the worst of `standings`, a close of the whole store covering tills that did not
    /// close by themselves; `unknown` where nothing was recorded.
    pub standing: Standing,
    /// The same, till by till; without a `workstation_id` the close of the whole store.
    pub standings: Vec<TillStanding>,
}

/// How a till's or a store's day stands by this agent's own count; the hub judges what all agents delivered. Of several the last in this order
/// stands for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// What was declared is what was counted.
    Matched,
    /// Nothing was recorded of it.
    #[default]
    Unknown,
    /// Not closed.
    Open,
    /// More was counted than declared.
    Over,
    /// Less was counted than declared.
    Short,
}

/// How one till's day stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TillStanding {
    /// The till; absent for the close of the whole store.
    pub workstation_id: Option<String>,
    /// By the close that was declared last.
    pub standing: Standing,
}

/// An exception that a person should see.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExceptionAnswer {
    /// Stable.
    #[schemars(regex(pattern = "^ex-[0-9a-f]{16}$"))]
    pub id: String,
    /// `business` or `technical`.
    #[schemars(extend("enum" = ["business", "technical"]))]
    pub class: String,
    /// What was found.
    pub code: String,
    /// How much it matters: `info`, `warning` or `error`.
    #[schemars(extend("enum" = ["info", "warning", "error"]))]
    pub severity: String,
    /// The queue of those who deal with it.
    pub owner: String,
    /// `open`, `acknowledged`, `resolved` or `waived`.
    #[schemars(extend("enum" = ["open", "acknowledged", "resolved", "waived"]))]
    pub state: String,
    /// A sentence for a person.
    pub message: String,
    /// Where in the document, JSON pointer.
    pub pointer: String,
    /// What the document is known as; `null` for the agent's own findings.
    pub identity: Option<String>,
    /// The incarnation of the record.
    pub epoch: String,
    /// The lane of the record.
    pub lane: String,
    /// The place of the record.
    pub seq: u64,
    /// What ties it to other records.
    pub correlation_id: Option<String>,
    /// RFC 3339.
    #[schemars(extend("format" = "date-time"))]
    pub first_seen: String,
    /// Seconds since then, by this box's clock.
    pub age_s: u64,
    /// Who resolved or waived it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolved_by: Option<String>,
    /// Why that was done which was done last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who did something about it last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changed_by: Option<String>,
    /// RFC 3339 of that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changed_at: Option<String>,
}

/// Where one lane stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LaneStatus {
    /// The last number that was given.
    pub head: u64,
    /// The last number handed to MQTT in this session.
    pub sent: u64,
    /// The last number that the hub committed, with all before it.
    pub stored: u64,
    /// The last number in the hub's verified backup, with all before it.
    pub safe: u64,
    /// Records that wait, of all epochs.
    pub waiting: u64,
    /// Seconds since the oldest of them was recorded; `null` where none waits.
    pub oldest_unsent_age_s: Option<u64>,
}

/// How the uplink is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UplinkStatus {
    /// Whether the broker accepted the connection.
    pub connected: bool,
    /// Whether the hub answered in this session.
    pub welcomed: bool,
    /// Connections since the start.
    pub connections: u64,
    /// Attempts since the last word of the hub.
    pub attempts: u64,
    /// Batches published since the start.
    pub batches_sent: u64,
    /// Batches that were sent again.
    pub batches_resent: u64,
    /// Bytes of batches after compression.
    pub bytes_sent: u64,
    /// Lanes of this session under whose numbers the hub has records of another box: this one was copied, or set back.
    pub contested_lanes: usize,
    /// Whether head office has revoked this box's identity and takes nothing from it.
    pub revoked: bool,
    /// RFC 3339 of the hub's last word.
    pub last_word_at: Option<String>,
    /// What went wrong last.
    pub last_error: Option<String>,
}

/// How the certificate is by which broker and hub know this box.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CertificateStatus {
    /// `valid`, `expired`, `revoked` or `missing`.
    pub state: String,
    /// RFC 3339 of its end.
    pub not_after: Option<String>,
    /// The same in seconds since 1970.
    pub not_after_s: Option<u64>,
    /// RFC 3339 of when it is renewed; `null` where the agent does not see to that.
    pub renew_at: Option<String>,
    /// Renewals since the start.
    pub renewals: u64,
    /// Attempts that failed since the last renewal.
    pub attempts: u64,
    /// Attempts that failed since the start.
    pub failures: u64,
    /// What went wrong last.
    pub last_error: Option<String>,
}

/// How the disk is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DiskStatus {
    /// Bytes of the journal with its side files and ballast.
    pub journal_bytes: u64,
    /// What the journal may take.
    pub journal_bytes_max: u64,
    /// Free bytes of the file system.
    pub free_bytes: u64,
    /// Segments in the journal.
    pub segments: u64,
    /// Whether new records are refused because the disk is full.
    pub full: bool,
    /// Bytes written to journal files since the start.
    pub bytes_written: u64,
    /// Syncs of the journal since the start.
    pub syncs: u64,
}

/// Answer of `GET /v1/status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// The store.
    pub store_id: String,
    /// The agent.
    pub agent_id: String,
    /// This software.
    pub version: String,
    /// The incarnation; `null` until the first record after the start.
    pub epoch: Option<String>,
    /// Whether documents are accepted.
    pub ready: bool,
    /// `accepting`, `full`, `drain_only` or `stopping`.
    pub mode: String,
    /// By lane, all epochs together; `head` to `safe` are of the live epoch.
    pub lanes: BTreeMap<String, LaneStatus>,
    /// The uplink.
    pub uplink: UplinkStatus,
    /// The certificate; `null` where the broker asks for none.
    pub certificate: Option<CertificateStatus>,
    /// The disk.
    pub disk: DiskStatus,
    /// `synchronised`, `unsynchronised` or `behind`.
    pub clock: String,
    /// RFC 3339, as this box believes.
    pub time: String,
    /// The business day that it is in this store, `YYYY-MM-DD`.
    pub business_day_date: String,
    /// Seconds since the start.
    pub uptime_s: u64,
    /// Open exceptions.
    pub open_exceptions: u64,
    /// Documents recorded since the start.
    pub recorded: u64,
    /// Duplicates answered since the start.
    pub duplicates: u64,
    /// Conflicts answered since the start.
    pub conflicts: u64,
    /// How long group commits took; shown in metrics alone.
    #[serde(skip)]
    pub commits: Durations,
}
