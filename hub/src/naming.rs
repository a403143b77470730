//! What a record is asked for by: hashes of receipts, orders, correlation and trace ids, in one space of names.
//!
//! Invariant: a name is 16 bytes of a BLAKE3 hash over what it is a name of, so that no text of a document becomes a key. Names that the agent
//! minted out of a record's place are none: they are read back to the place. This file reads no ledger and knows no HTTP.

use counterfoil_proto::id::RecordKey;
use counterfoil_proto::record::Envelope;
use counterfoil_proto::record::ties::Ties;

use crate::posting::Stored;

/// A name.
pub type Name = [u8; 16];

/// A document's identity in its store; also what a receipt is known as beside it.
pub fn identity(store_id: &str, identity: &str) -> Name {
    hash(b"identity\0", &[store_id, identity])
}

/// Documents that name the receipt of that identity.
pub fn link(store_id: &str, identity: &str) -> Name {
    hash(b"link\0", &[store_id, identity])
}

/// Documents of an order.
pub fn order(order_id: &str) -> Name {
    hash(b"order\0", &[order_id])
}

/// Documents with a correlation id that was stated.
pub fn correlation(correlation_id: &str) -> Name {
    hash(b"correlation\0", &[correlation_id])
}

/// Documents with a trace id that was stated.
pub fn trace(trace_id: &str) -> Name {
    hash(b"trace\0", &[trace_id])
}

fn hash(domain: &[u8], parts: &[&str]) -> Name {
    let mut hasher = blake3::Hasher::new();
    hasher.update(domain);
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            hasher.update(b"\0");
        }
        hasher.update(part.as_bytes());
    }
    half(*hasher.finalize().as_bytes())
}

/// The first half.
pub fn half(bytes: [u8; 32]) -> [u8; 16] {
    let mut first = [0; 16];
    first.copy_from_slice(&bytes[..16]);
    first
}

/// The trace id within a W3C trace context.
pub fn trace_id(traceparent: &str) -> Option<&str> {
    let trace_id = traceparent.get(3..35)?;
    let is_hexadecimal = trace_id.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    is_hexadecimal.then_some(trace_id)
}

/// The names of a record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// What it is found by; each once. Its identity is among them only where it claims none.
    pub names: Vec<Name>,
    /// What a later void may name it by.
    pub own: Vec<Name>,
    /// The receipts that it reverses.
    pub voids: Vec<Name>,
    /// What else it is tied to.
    pub ties: Ties,
}

impl Named {
    /// Reads the names of a record.
    pub fn read(stored: &Stored, envelope: &Envelope, ties: Ties) -> Self {
        let store_id = stored.source.store_id.as_str();
        let known_as = [envelope.identity.as_deref(), envelope.alias.as_deref()];
        let own: Vec<Name> = known_as.into_iter().flatten().map(|text| identity(store_id, text)).collect();
        let is_claimed = envelope.conflicts_with.is_none() && envelope.identity.is_some();
        let mut names: Vec<Name> = own.iter().copied().skip(usize::from(is_claimed)).collect();
        let links = || ties.links.iter().map(|link| (link.store_id.as_deref().unwrap_or(store_id), &link.identity));
        names.extend(links().map(|(store_id, identity)| self::link(store_id, identity)));
        names.extend(ties.order_ids.iter().map(|order_id| order(order_id)));
        names.extend(stated_correlation(stored.key, envelope).map(correlation));
        names.extend(stated_trace(stored.key, envelope).map(trace));
        names.sort_unstable();
        names.dedup();
        let voids =
            if ties.is_void { links().map(|(store, text)| identity(store, text)).collect() } else { Vec::new() };
        Self { names, own, voids, ties }
    }
}

fn stated_correlation(key: RecordKey, envelope: &Envelope) -> Option<&str> {
    envelope.correlation_id.as_deref().filter(|text| RecordKey::from_correlation_id(text) != Some(key))
}

fn stated_trace(key: RecordKey, envelope: &Envelope) -> Option<&str> {
    trace_id(envelope.traceparent.as_deref()?).filter(|trace_id| !key.has_trace_id(trace_id))
}
