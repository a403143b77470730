//! Control totals: what the agent counted when a business day was closed, signed with the box's own key.
//!
//! Each close is followed by one such record. It stands beside what the close declares, states how far every lane had come with its chain,
//! and names the control totals before it by number and digest: whoever holds two of them and the records between can show that nothing was
//! changed, left out or put in. Numbers and perpetual totals never start again on a box (the French NF525 practice; DSFinV-K's `Z_NR`).
//! It is evidence, not a certified fiscal device.
//!
//! Invariant: the signature covers the RFC 8785 form of the document without its top-level member `signature`, so that it can be checked
//! with any JSON library. Not known here: how a key is kept, and who trusts it.

use alloc::string::String;
use alloc::vec::Vec;

use ring::signature::{ED25519, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

use super::json;
use crate::id::{Chain, Digest, Epoch, Lane, PublicKey, RecordKey, Seq, Signature};

/// How signatures are made; the only one so far.
pub const ALGORITHM: &str = "Ed25519";

/// The document, as far as one who checks it needs it. What the agent counted stands in it beside this.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlTotals {
    /// Counts the closes of a box from 1 on, without a gap.
    pub number: u64,
    /// The record of the close.
    pub closes: RecordKey,
    /// The day that was closed, `YYYY-MM-DD`.
    pub business_day_date: String,
    /// The till that closed; `None` where the whole store did.
    pub workstation_id: Option<String>,
    /// What the box counted, per currency.
    pub computed: Vec<Computed>,
    /// How far each epoch had come, the oldest first; the newest epochs where a box has very many.
    pub epochs: Vec<EpochHeads>,
    /// The control totals before; missing for the first.
    pub previous: Option<Previous>,
    /// [`ALGORITHM`].
    pub algorithm: String,
    /// The key that signed.
    pub public_key: PublicKey,
    /// Over [`signed_bytes`].
    pub signature: Signature,
}

/// What the box counted in one currency.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Computed {
    /// ISO 4217.
    pub currency_code: String,
    /// Counted transactions.
    pub transactions: u64,
    /// Σ totals.gross.
    pub gross: String,
}

/// How far an epoch had come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochHeads {
    /// The epoch.
    pub epoch: Epoch,
    /// Its lanes that have records.
    pub lanes: Vec<LaneHead>,
}

/// How far a lane had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneHead {
    /// The lane.
    pub lane: Lane,
    /// Its last record then.
    pub last: Seq,
    /// The chain after it; `None` where damage hides it.
    pub chain: Option<Chain>,
}

/// Names earlier control totals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Previous {
    /// Their number.
    pub number: u64,
    /// BLAKE3 of their document as it is stored.
    pub digest: Digest,
}

/// Whether the holder of the key that the document names signed it as it stands.
pub fn is_signed(totals: &ControlTotals, document: &[u8]) -> bool {
    let key = UnparsedPublicKey::new(&ED25519, totals.public_key.0);
    let signed = signed_bytes(document);
    totals.algorithm == ALGORITHM && signed.is_some_and(|signed| key.verify(&signed, &totals.signature.0).is_ok())
}

/// The bytes that the signature of a document is over; `None` where it is not JSON.
pub fn signed_bytes(document: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(document.len());
    json::canonicalise(&json::parse(document).ok()?, "signature", &mut bytes);
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::signed_bytes;

    #[test]
    fn the_signature_alone_is_not_signed() {
        let signed =
            signed_bytes(br#"{"signature":"00","number":1,"inner":{"signature":"x"},"amount":"1.50"}"#).unwrap();
        assert_eq!(signed, br#"{"amount":"1.50","inner":{"signature":"x"},"number":1}"#);
        assert_eq!(signed_bytes(b"{"), None);
    }
}
