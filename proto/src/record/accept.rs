//! From submitted bytes to a document that is ready to be appended.
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::{Context, Kind, Prepared, Refusal};

/// Reads, checks and judges one submitted document.
pub fn prepare(
    _kind: Kind,
    _document: &[u8],
    _idempotency_key: Option<&str>,
    _context: &Context,
) -> Result<Prepared, Refusal> {
    Err(Refusal::Invalid(Vec::new()))
}

/// The identity of a transaction without `document_id`, and the alias of one that has it.
pub fn identity_of_transaction(
    workstation_id: &str,
    business_day_date: &str,
    sequence_number: u64,
    sequence_epoch: u64,
) -> String {
    format!("t/{workstation_id}/{business_day_date}/{sequence_number}/{sequence_epoch}")
}

/// The identity of a document that has a `document_id`, of whatever kind.
pub fn identity_of_document(document_id: &str) -> String {
    format!("d/{document_id}")
}
