//! The same messages as JSON, for hubs that are not written in Rust. The schemas lie in `proto/schemas/`, the guide in `config/examples/hub/`.
//!
//! Every message is an object with `wire` (the version) and `type`; its other members are the fields of [`crate::message`]. A batch holds
//! its records as `CloudEvents` 1.0: attributes for who has no need of more, the document as `data`, and the **stored bytes** in base64,
//! over which the record digest goes, and with it the chain.
//!
//! Invariant: the stored bytes are what is sent; the attributes beside them are read out of them and say nothing else. Reading ignores
//! members that it does not know: they are only added. What is bounded in the binary form is bounded here.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{CodecError, check_version};
use crate::id::{Chain, Digest, LaneKey, RecordKey, SeqRange, SessionId, Source};
use crate::limits::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX, JSON_PUBLISH_BYTES_MAX, PUBLISH_BYTES_MAX, RECORD_BYTES_MAX};
use crate::message::{Ack, Batch, BatchHead, Codec, Down, Hello, Nack, Positions, Welcome, WireVersion};
use crate::record::{Kind, Record, RecordHeader, has_schema};

/// A message that has both forms.
pub trait Message: Serialize + DeserializeOwned {
    /// Writes it as JSON.
    fn to_json(&self) -> serde_json::Result<Vec<u8>>;

    /// Reads it from JSON whose member `type` says `kind`; `None` where that is another message.
    fn of_json(kind: &str, text: &[u8]) -> Option<serde_json::Result<Self>>;
}

/// Whether bytes are JSON: no wire version is ever numbered like its first character.
pub fn is_json(bytes: &[u8]) -> bool {
    bytes.first() == Some(&b'{')
}

#[derive(Deserialize)]
struct Head<'a> {
    wire: u8,
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
}

#[derive(Serialize)]
struct Tagged<'a, M> {
    wire: WireVersion,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(flatten)]
    message: &'a M,
}

fn tagged<M: Serialize>(kind: &'static str, message: &M) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec(&Tagged { wire: WireVersion::NEWEST, kind, message })
}

fn head_of(bytes: &[u8]) -> Result<Head<'_>, CodecError> {
    let head: Head<'_> = serde_json::from_slice(bytes).map_err(|_| CodecError::Undecodable)?;
    check_version(head.wire)?;
    Ok(head)
}

/// Writes a message other than a batch.
pub fn encode<M: Message>(message: &M) -> Result<Vec<u8>, CodecError> {
    let bytes = message.to_json().map_err(|_| CodecError::Unencodable)?;
    if bytes.len() > PUBLISH_BYTES_MAX { Err(CodecError::TooLarge(bytes.len())) } else { Ok(bytes) }
}

/// Reads a message other than a batch.
pub fn decode<M: Message>(bytes: &[u8]) -> Result<M, CodecError> {
    if bytes.len() > PUBLISH_BYTES_MAX {
        return Err(CodecError::TooLarge(bytes.len()));
    }
    let head = head_of(bytes)?;
    match M::of_json(&head.kind, bytes) {
        Some(Ok(message)) => Ok(message),
        Some(Err(_)) | None => Err(CodecError::Undecodable),
    }
}

impl Message for Hello {
    fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        tagged("hello", self)
    }

    fn of_json(kind: &str, text: &[u8]) -> Option<serde_json::Result<Self>> {
        (kind == "hello").then(|| serde_json::from_slice(text))
    }
}

impl Message for Positions {
    fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        tagged("positions", self)
    }

    fn of_json(kind: &str, text: &[u8]) -> Option<serde_json::Result<Self>> {
        (kind == "positions").then(|| serde_json::from_slice(text))
    }
}

/// [`Down::RangeRequest`] by itself.
#[derive(Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct RangeRequest {
    /// The session that the hub knows.
    session: SessionId,
    /// Which lane.
    key: LaneKey,
    /// What to send again.
    range: SeqRange,
}

/// [`Down::HelloWanted`] by itself.
#[derive(Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct HelloWanted {
    /// Changes whenever the ledger may have gone back.
    hub_epoch: SessionId,
}

impl Message for Down {
    fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        match self {
            Self::Welcome(welcome) => tagged("welcome", welcome),
            Self::Ack(ack) => tagged("ack", ack),
            Self::Nack(nack) => tagged("nack", nack),
            Self::RangeRequest { session, key, range } => {
                tagged("range_request", &RangeRequest { session: *session, key: *key, range: *range })
            }
            Self::HelloWanted { hub_epoch } => tagged("hello_wanted", &HelloWanted { hub_epoch: *hub_epoch }),
        }
    }

    fn of_json(kind: &str, text: &[u8]) -> Option<serde_json::Result<Self>> {
        Some(match kind {
            "welcome" => serde_json::from_slice::<Welcome>(text).map(Self::Welcome),
            "ack" => serde_json::from_slice::<Ack>(text).map(Self::Ack),
            "nack" => serde_json::from_slice::<Nack>(text).map(Self::Nack),
            "range_request" => serde_json::from_slice::<RangeRequest>(text)
                .map(|RangeRequest { session, key, range }| Self::RangeRequest { session, key, range }),
            "hello_wanted" => serde_json::from_slice::<HelloWanted>(text)
                .map(|HelloWanted { hub_epoch }| Self::HelloWanted { hub_epoch }),
            _ => return None,
        })
    }
}

/// A batch: records that follow on one another in one lane.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct BatchOut<'a> {
    /// The session that sent it.
    session: SessionId,
    /// Epoch, lane and number of its first record.
    first: RecordKey,
    /// The digest of its records' digests (BLAKE3 of the 32-byte record digests one after another). An ack says it back under `taken`.
    content: Digest,
    /// The records, in order and without a hole.
    records: Vec<Event<'a>>,
}

/// A record as a `CloudEvents` 1.0 event in JSON. Everything but `stored` is read out of the stored bytes.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub(super) struct Event<'a> {
    /// Always `1.0`.
    specversion: &'static str,
    /// Epoch, lane and number: names the record for ever, within `source`.
    id: String,
    /// Store and agent: `/{store_id}/{agent_id}`.
    source: String,
    /// `counterfoil.{kind}.v{version of the body}`; `counterfoil.kind-{number}.v{version}` for a kind that the agent does not know.
    #[serde(rename = "type")]
    kind: String,
    /// What makes a second submission the same document (a till's own number, or its `document_id`); not in the agent's own records.
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    /// When it happened, RFC 3339 in UTC; when it was recorded, where the document does not say. Never orders anything.
    time: String,
    /// Of `data`.
    datacontenttype: &'static str,
    /// The JSON Schema of `data`, for documents of tills: `urn:counterfoil:schema:{kind}`. The agent serves it in `/openapi.json`.
    #[serde(skip_serializing_if = "Option::is_none")]
    dataschema: Option<String>,
    /// The agent's incarnation, 128 random bits.
    epoch: String,
    /// The lane: `trade`, `stock` or `ops`.
    lane: &'static str,
    /// The place in the lane, from 1 without holes; 20 digits, so that the order of the text is that of the numbers.
    sequence: String,
    /// When the agent appended it, RFC 3339 in UTC.
    recordedtime: String,
    /// How far `recordedtime` may be trusted: `synchronised`, `unsynchronised` or `behind`.
    clock: crate::time::ClockQuality,
    /// The business day, `YYYY-MM-DD`, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    businessday: Option<&'a str>,
    /// What ties the records of one business process together.
    #[serde(skip_serializing_if = "Option::is_none")]
    correlationid: Option<&'a str>,
    /// W3C trace context.
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<&'a str>,
    /// Codes of what was found when it was accepted, each once, separated by spaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    flags: Option<String>,
    /// The id of the first record with the same subject, where this one has other content. It counts in no total.
    #[serde(skip_serializing_if = "Option::is_none")]
    conflictswith: Option<String>,
    /// BLAKE3 of the RFC 8785 form of `data` without its member `traceparent`: what the till's receipt calls `digest`.
    contentdigest: Digest,
    /// BLAKE3 of the bytes in `stored`. The same place with another one is a fork.
    recorddigest: Digest,
    /// The chain before this record, where the agent knows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    chainbefore: Option<Chain>,
    /// The chain after it: BLAKE3 of `chainbefore` (32 bytes), the number (u64, little-endian), and `recorddigest` (32 bytes).
    #[serde(skip_serializing_if = "Option::is_none")]
    chain: Option<Chain>,
    /// The stored bytes, base64: the record itself.
    stored: String,
    /// The document, as the till sent it but for masked card numbers.
    #[cfg_attr(test, schemars(with = "serde_json::Value"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
}

/// `epoch.lane.number`.
fn id_of(key: RecordKey) -> String {
    format!("{}.{}.{}", key.epoch, key.lane, key.seq)
}

/// `counterfoil.{kind}.v{version}`.
fn type_of(header: Option<RecordHeader>) -> String {
    header.map_or_else(
        || "counterfoil.unreadable".to_string(),
        |RecordHeader { kind, version }| match kind.name() {
            Some(name) => format!("counterfoil.{name}.v{version}"),
            None => format!("counterfoil.kind-{}.v{version}", kind.0),
        },
    )
}

fn schema_of(kind: Kind) -> Option<String> {
    has_schema(kind).then(|| format!("urn:counterfoil:schema:{}", kind.name().unwrap_or_default()))
}

fn codes_of(record: &Record) -> Option<String> {
    let mut codes: Vec<&str> = Vec::new();
    for flag in &record.envelope.flags {
        if !codes.contains(&&*flag.code) {
            codes.push(&flag.code);
        }
    }
    (!codes.is_empty()).then(|| codes.join(" "))
}

struct Place<'a> {
    source: &'a Source,
    key: RecordKey,
    digest: Digest,
    before: Option<Chain>,
    after: Option<Chain>,
}

fn event<'a>(place: &Place<'_>, stored: &[u8], record: &'a Record) -> Event<'a> {
    let Place { source, key, digest, before, after } = place;
    let header = RecordHeader::read(stored).ok().map(|(header, _)| header);
    let envelope = &record.envelope;
    Event {
        specversion: "1.0",
        id: id_of(*key),
        source: format!("/{}/{}", source.store_id, source.agent_id),
        kind: type_of(header),
        subject: envelope.identity.as_deref(),
        time: envelope.occurred_at.unwrap_or(envelope.recorded_at).to_rfc3339(),
        datacontenttype: "application/json",
        dataschema: schema_of(record.kind),
        epoch: key.epoch.to_string(),
        lane: key.lane.as_str(),
        sequence: format!("{:020}", key.seq.0),
        recordedtime: envelope.recorded_at.to_rfc3339(),
        clock: envelope.clock,
        businessday: envelope.business_day_date.as_deref(),
        correlationid: envelope.correlation_id.as_deref(),
        traceparent: envelope.traceparent.as_deref(),
        flags: codes_of(record),
        conflictswith: envelope.conflicts_with.map(id_of),
        contentdigest: envelope.content_digest,
        recorddigest: *digest,
        chainbefore: *before,
        chain: *after,
        stored: BASE64_STANDARD.encode(stored),
        data: serde_json::from_slice(&record.document).ok(),
    }
}

/// Writes a batch of `records` of `source` from `first` on, `before` being the chain before it where that is known.
pub fn encode_batch<R: AsRef<[u8]>>(
    source: &Source,
    session: SessionId,
    first: RecordKey,
    before: Option<Chain>,
    records: &[R],
) -> Result<Vec<u8>, CodecError> {
    if records.is_empty() || records.len() > BATCH_RECORDS_MAX {
        return Err(CodecError::TooLarge(records.len()));
    }
    // A body that this software does not know has stored bytes all the same.
    let unknown = |_| Record { kind: Kind(0), envelope: crate::record::Envelope::default(), document: Vec::new() };
    let read: Vec<Record> =
        records.iter().map(|stored| Record::decode(stored.as_ref()).unwrap_or_else(unknown)).collect();
    let digests: Vec<Digest> = records.iter().map(|stored| Digest::of(stored.as_ref())).collect();
    let (mut key, mut chain) = (first, before);
    let mut events = Vec::with_capacity(records.len());
    for ((stored, record), digest) in records.iter().zip(&read).zip(&digests) {
        let after = chain.map(|chain| chain.next(key.seq, *digest));
        let place = Place { source, key, digest: *digest, before: chain, after };
        events.push(event(&place, stored.as_ref(), record));
        (key.seq, chain) = (key.seq.next(), after);
    }
    let batch = BatchOut { session, first, content: Digest::over(&digests), records: events };
    let bytes = tagged("batch", &batch).map_err(|_| CodecError::Unencodable)?;
    if bytes.len() > JSON_PUBLISH_BYTES_MAX { Err(CodecError::TooLarge(bytes.len())) } else { Ok(bytes) }
}

#[derive(Deserialize)]
struct BatchHeadIn {
    session: SessionId,
    first: RecordKey,
}

#[derive(Deserialize)]
struct BatchIn<'a> {
    session: SessionId,
    first: RecordKey,
    #[serde(borrow)]
    records: Vec<EventIn<'a>>,
}

#[derive(Deserialize)]
struct EventIn<'a> {
    recorddigest: Digest,
    #[serde(borrow)]
    stored: Cow<'a, str>,
}

/// Reads what a nack needs of a batch; the numbers of its records are not known by it.
pub fn decode_batch_first(bytes: &[u8]) -> Result<(SessionId, RecordKey), CodecError> {
    if bytes.len() > JSON_PUBLISH_BYTES_MAX {
        return Err(CodecError::TooLarge(bytes.len()));
    }
    let BatchHeadIn { session, first } = serde_json::from_slice(bytes).map_err(|_| CodecError::Undecodable)?;
    Ok((session, first))
}

/// Reads a batch; each record must have the digest that is said of it.
pub fn decode_batch(bytes: &[u8]) -> Result<Batch, CodecError> {
    if bytes.len() > JSON_PUBLISH_BYTES_MAX {
        return Err(CodecError::TooLarge(bytes.len()));
    }
    if head_of(bytes)?.kind != "batch" {
        return Err(CodecError::Undecodable);
    }
    let batch: BatchIn<'_> = serde_json::from_slice(bytes).map_err(|_| CodecError::Undecodable)?;
    let (session, first) = (batch.session, batch.first);
    let count = u32::try_from(batch.records.len()).map_err(|_| CodecError::TooLarge(bytes.len()))?;
    if batch.records.len() > BATCH_RECORDS_MAX {
        return Err(CodecError::TooLarge(BATCH_RECORDS_MAX));
    }
    if count == 0 || first.seq.0 == 0 || first.seq.0.checked_add(u64::from(count)).is_none() {
        return Err(CodecError::Undecodable);
    }
    let mut plain_bytes = 0_usize;
    let mut records = Vec::with_capacity(batch.records.len());
    for record in &batch.records {
        let stored = BASE64_STANDARD.decode(record.stored.as_bytes()).map_err(|_| CodecError::Undecodable)?;
        plain_bytes = plain_bytes.saturating_add(stored.len());
        if stored.len() > RECORD_BYTES_MAX || plain_bytes > BATCH_BYTES_MAX {
            return Err(CodecError::TooLarge(plain_bytes));
        }
        if Digest::of(&stored) != record.recorddigest {
            return Err(CodecError::Undecodable);
        }
        records.push(stored);
    }
    let plain_bytes = u32::try_from(plain_bytes).map_err(|_| CodecError::TooLarge(plain_bytes))?;
    Ok(Batch { head: BatchHead { session, first, count, codec: Codec::Plain, plain_bytes }, records })
}

#[cfg(test)]
mod tests;
