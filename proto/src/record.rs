//! A record: one document accepted from a till, or minted by the agent, in the form that is stored and sent.
//!
//! **Stored bytes** (the same on the agent's disk, on the wire and in the ledger, byte for byte):
//!
//! ```text
//! kind: u16  version: u16  length: u32  body: [u8; length]          (little-endian)
//! ```
//!
//! The body of version 1 is the postcard form of [`Envelope`] and the document's text. Kinds and versions are only added;
//! whoever meets one that it does not know keeps the bytes, passes them on, and raises a technical exception.
//! The record digest is the BLAKE3 of all stored bytes; the content digest, which decides duplicates, is of the
//! document alone (RFC 8785 form, without `traceparent`).
//!
//! Invariant: what is decided about a document when it is accepted (flags, business day, conflict) stands in its envelope.
//! Replay reads it there and never judges again.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::id::{Digest, Lane, RecordKey};
use crate::limits::RECORD_BYTES_MAX;
use crate::time::{ClockQuality, WallTime};

/// What a record tells of. The numbers are for ever; unknown ones are carried as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Kind(pub u16);

macro_rules! kinds {
    ($($(#[$doc:meta])* $constant:ident = $code:literal, $name:literal, $lane:ident;)*) => {
        impl Kind {
            $($(#[$doc])* pub const $constant: Self = Self($code);)*

            /// Every kind that this version knows.
            pub const KNOWN: &[Self] = &[$(Self::$constant),*];

            /// The kind's name in answers and schemas; `None` for one that this version does not know.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($code => Some($name),)*
                    _ => None,
                }
            }

            /// The lane that records of this kind travel in; unknown kinds count as money.
            pub const fn lane(self) -> Lane {
                match self.0 {
                    $($code => Lane::$lane,)*
                    _ => Lane::Trade,
                }
            }
        }
    };
}

kinds! {
    /// A sale, return, exchange, void or no-sale of a till.
    TRANSACTION = 1, "transaction", Trade;
    /// Goods in, out, adjusted, lost or counted.
    STOCK_MOVEMENT = 2, "stock_movement", Stock;
    /// Progress of an order's line in the store.
    FULFILLMENT_UPDATE = 3, "fulfillment_update", Trade;
    /// Cash put into or taken out of a till.
    TENDER_CONTROL = 4, "tender_control", Trade;
    /// The end of a business day at a till or in the store, with its declared totals.
    DAY_CLOSE = 5, "day_close", Trade;
    /// First record of an epoch; names its parent and what was recovered of it.
    EPOCH_START = 64, "epoch_start", Trade;
    /// The wall clock jumped.
    CLOCK_STEP = 65, "clock_step", Ops;
    /// The uplink was away for a while.
    OUTAGE = 66, "outage", Ops;
    /// Bytes after the last synced position were cut when the journal was opened.
    TAIL_CUT = 67, "tail_cut", Trade;
    /// The configuration differs from the one of the epoch before.
    CONFIG_CHANGE = 68, "config_change", Ops;
    /// An exception was acknowledged, resolved or waived, by whom and why.
    EXCEPTION_CHANGE = 69, "exception_change", Trade;
    /// Synced bytes of the journal were found damaged or missing; names what is gone.
    JOURNAL_DAMAGE = 70, "journal_damage", Trade;
    /// The agent noticed something that no single document tells, mostly because it did not come: goods that nobody collects, numbers that
    /// are missing.
    FINDING = 71, "finding", Trade;
    /// What the agent counted when a business day was closed, signed with the box's own key; see [`control_totals`].
    CONTROL_TOTALS = 72, "control_totals", Trade;
    /// What a count of stock differed by from what the agent held to be on hand; follows the count.
    STOCK_VARIANCE = 73, "stock_variance", Stock;
}

impl Kind {
    /// The kind with that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::KNOWN.iter().copied().find(|kind| kind.name() == Some(name))
    }
}

/// The version of the body that this crate writes.
pub const BODY_VERSION: u16 = 1;

/// A finding about a document that was recorded nevertheless: a broken business rule or a technical oddity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flag {
    /// What was found; stable, in capitals, for example `TOTALS_MISMATCH`.
    pub code: Cow<'static, str>,
    /// Where in the document, as a JSON pointer (RFC 6901); empty for the document as a whole.
    pub pointer: String,
}

/// What the agent knows about a document beside its text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// Wall time at which the record was appended.
    pub recorded_at: WallTime,
    /// The box's monotonic clock then, in milliseconds since boot; the epoch's `epoch_start` names the boot.
    pub monotonic_ms: u64,
    /// How far `recorded_at` may be trusted.
    pub clock: ClockQuality,
    /// BLAKE3 of the document's RFC 8785 form without `traceparent`.
    pub content_digest: Digest,
    /// What makes a second submission the same document; `None` for the agent's own records.
    pub identity: Option<String>,
    /// A second name by which a receipt is found (a transaction's four parts beside its `document_id`).
    pub alias: Option<String>,
    /// When it happened, resolved to UTC.
    pub occurred_at: Option<WallTime>,
    /// The business day, `YYYY-MM-DD`.
    pub business_day_date: Option<String>,
    /// Whether the business day was derived here because the document had none.
    pub business_day_derived: bool,
    /// What ties records of one business process together; minted here where the document had none.
    pub correlation_id: Option<String>,
    /// W3C trace context, as submitted or as minted here.
    pub traceparent: Option<String>,
    /// What was found when it was accepted.
    pub flags: Vec<Flag>,
    /// The first record of the same identity, where this one has other content. Such a record moves neither stock nor totals.
    pub conflicts_with: Option<RecordKey>,
}

/// A record, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What it tells of.
    pub kind: Kind,
    /// What the agent knows about it.
    pub envelope: Envelope,
    /// The document, JSON text.
    pub document: Vec<u8>,
}

/// Stored bytes that cannot be understood. They are kept all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Shorter than its header or its stated length, or longer.
    #[error("The record's length does not fit its header")]
    Length,
    /// A body version that this software does not know.
    #[error("The record has body version {0}, this software reads up to {BODY_VERSION}")]
    Version(u16),
    /// The body is not what its version says.
    #[error("The record's body cannot be decoded")]
    Body,
    /// More than [`RECORD_BYTES_MAX`] bytes.
    #[error("The record has {0} bytes, at most {RECORD_BYTES_MAX} are allowed")]
    TooLarge(usize),
}

const HEADER_BYTES: usize = 8;

#[derive(Serialize)]
struct BodyRef<'a> {
    envelope: &'a Envelope,
    document: &'a [u8],
}

#[derive(Deserialize)]
struct Body<'a> {
    envelope: Envelope,
    #[serde(borrow)]
    document: &'a [u8],
}

/// The header of stored bytes, which can be read whatever the kind and version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// What the record tells of.
    pub kind: Kind,
    /// The version of its body.
    pub version: u16,
}

impl RecordHeader {
    /// Reads the header and checks that the length fits.
    pub fn read(stored: &[u8]) -> Result<(Self, &[u8]), RecordError> {
        if stored.len() > RECORD_BYTES_MAX {
            return Err(RecordError::TooLarge(stored.len()));
        }
        let (header, body) = stored.split_first_chunk::<HEADER_BYTES>().ok_or(RecordError::Length)?;
        let [k0, k1, v0, v1, l0, l1, l2, l3] = *header;
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        if usize::try_from(length) != Ok(body.len()) {
            return Err(RecordError::Length);
        }
        Ok((Self { kind: Kind(u16::from_le_bytes([k0, k1])), version: u16::from_le_bytes([v0, v1]) }, body))
    }
}

impl Record {
    /// The stored bytes.
    pub fn encode(&self) -> Result<Vec<u8>, RecordError> {
        let mut stored = Vec::with_capacity(self.document.len().saturating_add(192));
        stored.extend_from_slice(&self.kind.0.to_le_bytes());
        stored.extend_from_slice(&BODY_VERSION.to_le_bytes());
        stored.extend_from_slice(&[0; 4]);
        let body = BodyRef { envelope: &self.envelope, document: &self.document };
        let mut stored = postcard::to_extend(&body, stored).map_err(|_| RecordError::Body)?;
        if stored.len() > RECORD_BYTES_MAX {
            return Err(RecordError::TooLarge(stored.len()));
        }
        let length = stored.len().saturating_sub(HEADER_BYTES);
        let length = u32::try_from(length).map_err(|_| RecordError::TooLarge(stored.len()))?;
        if let Some(field) = stored.get_mut(4..HEADER_BYTES) {
            field.copy_from_slice(&length.to_le_bytes());
        }
        Ok(stored)
    }

    /// Reads stored bytes. Foreign bytes give an error, never a panic.
    pub fn decode(stored: &[u8]) -> Result<Self, RecordError> {
        let (header, body) = RecordHeader::read(stored)?;
        if header.version != BODY_VERSION {
            return Err(RecordError::Version(header.version));
        }
        let (body, rest) = postcard::take_from_bytes::<Body<'_>>(body).map_err(|_| RecordError::Body)?;
        if !rest.is_empty() {
            return Err(RecordError::Body);
        }
        Ok(Self { kind: header.kind, envelope: body.envelope, document: body.document.to_vec() })
    }
}

/// A fault for which a document is refused: it cannot be read or identified. Values of the document are never in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// JSON pointer (RFC 6901) to where it is; empty for the document as a whole.
    pub pointer: String,
    /// Stable slug, the last part of the problem's `type` URI, for example `missing-field`.
    pub problem: &'static str,
    /// A sentence for the integrator, without any value of the document.
    pub detail: String,
}

/// A document that is not recorded, with every fault that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Not JSON, or not an object (HTTP 400).
    Unreadable(Fault),
    /// Too large (HTTP 413).
    TooLarge(Fault),
    /// Readable, but not what its kind needs (HTTP 422).
    Invalid(Vec<Fault>),
}

/// What a document is judged by, beside itself; all of it from configuration.
#[derive(Clone, Debug)]
pub struct Context {
    /// The store that every document belongs to.
    pub store_id: crate::id::StoreId,
    /// Where zoneless times resolve.
    pub time_zone: jiff::tz::TimeZone,
    /// Until when, in local time, an event still belongs to the business day before.
    pub day_cutover: jiff::civil::Time,
    /// Whether 13-digit numbers are also taken for card numbers (one random EAN in ten would match).
    pub mask_13_digits: bool,
}

impl Context {
    /// The business day of a moment in this store, `YYYY-MM-DD`.
    pub fn business_day(&self, at: crate::time::WallTime) -> alloc::string::String {
        let at = jiff::Timestamp::from_millisecond(at.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        when::business_day(at, &self.time_zone, self.day_cutover)
    }
}

/// A document that was read and judged, ready to be appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// What it tells of.
    pub kind: Kind,
    /// The envelope as far as the document decides it; the appender adds times, state-dependent flags and conflicts.
    pub envelope: Envelope,
    /// The text to be stored: as submitted, card numbers masked.
    pub document: Vec<u8>,
    /// Oddities that are no exception: unknown fields, by JSON pointer.
    pub warnings: Vec<String>,
    /// Its effects.
    pub facts: facts::Facts,
}

pub mod accept;
mod card;
mod common;
pub mod control_totals;
mod correlation;
pub mod day_close;
pub mod facts;
pub mod flag;
pub mod fulfillment_update;
mod gtin;
pub mod inspect;
mod json;
mod mask;
mod read;
pub mod schema;
mod stock_movement;
mod tender_control;
pub mod ties;
pub mod transaction;
mod unit;
mod when;

pub use accept::{identity_of_document, identity_of_transaction, prepare};
pub use card::mask_cards;
pub use facts::{FactsError, facts};
pub use inspect::is_trace_parent;
pub use schema::json_schema;

/// Whether tills send documents of this kind, so that there is a schema of them.
pub(crate) fn has_schema(kind: Kind) -> bool {
    schema::table_of(kind).is_some()
}

#[cfg(test)]
#[expect(
    clippy::wildcard_enum_match_arm,
    clippy::arithmetic_side_effects,
    reason = "what a test does not expect makes it fail, and so does an overflow"
)]
mod tests;
