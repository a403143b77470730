//! Bytes to messages and back; refuses what is oversize, trailing or unknown.
//!
//! Messages: one byte of wire version, then postcard. Batches:
//!
//! ```text
//! version: u8  codec: u8 (0 plain, 1 zstd)  lane: u8  reserved: u8 = 0
//! session: [u8; 16]  epoch: [u8; 16]  first seq: u64  count: u32  plain bytes: u32      (little-endian, 52 bytes)
//! payload: postcard sequence of byte strings (the records' stored bytes), compressed as codec says
//! ```
//!
//! The same messages have a form in JSON ([`json`]), for hubs in other languages; the first byte tells the two apart, and whoever reads with
//! [`read`] understands both. Which one an agent speaks is configured.
//!
//! Compression itself is the caller's, passed in as a function: it is not `no_std`. Bounds are checked before anything
//! is decompressed or allocated.

use alloc::vec::Vec;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::id::{Epoch, Lane, RecordKey, Seq, SessionId};
use crate::limits::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX, PUBLISH_BYTES_MAX, RECORD_BYTES_MAX};
use crate::message::{Batch, BatchHead, Codec, WireVersion};

pub mod json;

use json::{Message, is_json};

/// The form in which an agent speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// Compact, compressed: for hubs that use this crate.
    #[default]
    Postcard,
    /// Readable, some twenty times as long: for hubs in any language.
    Json,
}

/// Writes a message other than a batch, in either form.
pub fn write<M: Message>(message: &M, encoding: Encoding) -> Result<Vec<u8>, CodecError> {
    match encoding {
        Encoding::Postcard => encode(message),
        Encoding::Json => json::encode(message),
    }
}

/// Reads a message other than a batch, in whichever form it has.
pub fn read<M: Message>(bytes: &[u8]) -> Result<M, CodecError> {
    if is_json(bytes) { json::decode(bytes) } else { decode(bytes) }
}

/// Reads a batch in whichever form it has; see [`decode_batch`].
pub fn read_batch(bytes: &[u8], decompress: impl FnOnce(&[u8], usize) -> Option<Vec<u8>>) -> Result<Batch, CodecError> {
    if is_json(bytes) { json::decode_batch(bytes) } else { decode_batch(bytes, decompress) }
}

/// Session and first record of a batch in whichever form it has, as far as they can be read.
pub fn read_batch_first(bytes: &[u8]) -> Option<(SessionId, RecordKey)> {
    if is_json(bytes) {
        return json::decode_batch_first(bytes).ok();
    }
    decode_batch_head(bytes).ok().map(|(head, _)| (head.session, head.first))
}

/// Bytes before a batch's payload.
pub const BATCH_HEAD_BYTES: usize = 52;

/// Bytes that are not the message they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// A version that this software does not speak.
    #[error("The message has wire version {0}, this software speaks up to {newest}", newest = WireVersion::NEWEST.0)]
    Version(u8),
    /// Longer, or claiming to become longer, than allowed.
    #[error("The message has or claims {0} bytes, more than allowed")]
    TooLarge(usize),
    /// The bytes do not decode.
    #[error("The message cannot be decoded")]
    Undecodable,
    /// A message could not be written; a bug, or memory ran out.
    #[error("The message cannot be encoded")]
    Unencodable,
}

/// Writes a message other than a batch.
pub fn encode<M: Serialize>(message: &M) -> Result<Vec<u8>, CodecError> {
    let bytes =
        postcard::to_extend(message, alloc::vec![WireVersion::NEWEST.0]).map_err(|_| CodecError::Unencodable)?;
    if bytes.len() > PUBLISH_BYTES_MAX { Err(CodecError::TooLarge(bytes.len())) } else { Ok(bytes) }
}

/// Reads a message other than a batch.
pub fn decode<M: DeserializeOwned>(bytes: &[u8]) -> Result<M, CodecError> {
    if bytes.len() > PUBLISH_BYTES_MAX {
        return Err(CodecError::TooLarge(bytes.len()));
    }
    let (version, body) = bytes.split_first().ok_or(CodecError::Undecodable)?;
    check_version(*version)?;
    match postcard::take_from_bytes(body) {
        Ok((message, [])) => Ok(message),
        Ok(_) | Err(_) => Err(CodecError::Undecodable),
    }
}

fn check_version(version: u8) -> Result<(), CodecError> {
    if (WireVersion::OLDEST.0..=WireVersion::NEWEST.0).contains(&version) {
        Ok(())
    } else {
        Err(CodecError::Version(version))
    }
}

/// Writes a batch of `records` from `first` on. `compress` gives the zstd frame of its input, or `None` to send it plain;
/// what does not become shorter is sent plain.
pub fn encode_batch<R: AsRef<[u8]>>(
    session: SessionId,
    first: RecordKey,
    records: &[R],
    compress: impl FnOnce(&[u8]) -> Option<Vec<u8>>,
) -> Result<Vec<u8>, CodecError> {
    if records.is_empty() || records.len() > BATCH_RECORDS_MAX {
        return Err(CodecError::TooLarge(records.len()));
    }
    let room = records.iter().fold(8, |sum: usize, record| sum.saturating_add(record.as_ref().len()).saturating_add(5));
    let mut plain =
        postcard::to_extend(&records.len(), Vec::with_capacity(room)).map_err(|_| CodecError::Unencodable)?;
    for record in records {
        plain = postcard::to_extend(&record.as_ref().len(), plain).map_err(|_| CodecError::Unencodable)?;
        plain.extend_from_slice(record.as_ref());
    }
    if plain.len() > BATCH_BYTES_MAX {
        return Err(CodecError::TooLarge(plain.len()));
    }
    let compressed = compress(&plain).filter(|compressed| compressed.len() < plain.len());
    let (codec, payload) = compressed.as_ref().map_or((Codec::Plain, &plain), |compressed| (Codec::Zstd, compressed));
    let count = u32::try_from(records.len()).map_err(|_| CodecError::TooLarge(records.len()))?;
    let plain_bytes = u32::try_from(plain.len()).map_err(|_| CodecError::TooLarge(plain.len()))?;
    let mut bytes = Vec::with_capacity(BATCH_HEAD_BYTES.saturating_add(payload.len()));
    bytes.extend_from_slice(&[WireVersion::NEWEST.0, codec_code(codec), first.lane.code(), 0]);
    bytes.extend_from_slice(&session.0);
    bytes.extend_from_slice(&first.epoch.0);
    bytes.extend_from_slice(&first.seq.0.to_le_bytes());
    bytes.extend_from_slice(&count.to_le_bytes());
    bytes.extend_from_slice(&plain_bytes.to_le_bytes());
    bytes.extend_from_slice(payload);
    Ok(bytes)
}

const fn codec_code(codec: Codec) -> u8 {
    match codec {
        Codec::Plain => 0,
        Codec::Zstd => 1,
    }
}

/// Reads a batch's head; its payload is the rest.
pub fn decode_batch_head(bytes: &[u8]) -> Result<(BatchHead, &[u8]), CodecError> {
    if bytes.len() > PUBLISH_BYTES_MAX {
        return Err(CodecError::TooLarge(bytes.len()));
    }
    let (version, _) = bytes.split_first().ok_or(CodecError::Undecodable)?;
    check_version(*version)?;
    let (head, payload) = bytes.split_first_chunk::<BATCH_HEAD_BYTES>().ok_or(CodecError::Undecodable)?;
    let mut fields = head.as_slice();
    let [_, codec, lane, reserved] = take(&mut fields)?;
    let session = SessionId(take(&mut fields)?);
    let epoch = Epoch(take(&mut fields)?);
    let seq = Seq(u64::from_le_bytes(take(&mut fields)?));
    let count = u32::from_le_bytes(take(&mut fields)?);
    let plain_bytes = u32::from_le_bytes(take(&mut fields)?);
    let codec = match codec {
        0 => Codec::Plain,
        1 => Codec::Zstd,
        _ => return Err(CodecError::Undecodable),
    };
    let lane = Lane::from_code(lane).ok_or(CodecError::Undecodable)?;
    let numbers_fit = seq.0 >= 1 && seq.0.checked_add(u64::from(count)).is_some();
    if reserved != 0 || count == 0 || !numbers_fit {
        return Err(CodecError::Undecodable);
    }
    if usize::try_from(count).map_or(true, |count| count > BATCH_RECORDS_MAX) {
        return Err(CodecError::TooLarge(BATCH_RECORDS_MAX));
    }
    let first = RecordKey { epoch, lane, seq };
    Ok((BatchHead { session, first, count, codec, plain_bytes }, payload))
}

fn take<const N: usize>(fields: &mut &[u8]) -> Result<[u8; N], CodecError> {
    let (field, rest) = fields.split_first_chunk::<N>().ok_or(CodecError::Undecodable)?;
    *fields = rest;
    Ok(*field)
}

/// Reads a batch. `decompress` gets a zstd frame and the number of bytes that it must give, which is already known
/// to be within bounds; it must stop there.
pub fn decode_batch(
    bytes: &[u8],
    decompress: impl FnOnce(&[u8], usize) -> Option<Vec<u8>>,
) -> Result<Batch, CodecError> {
    let (head, payload) = decode_batch_head(bytes)?;
    let plain_bytes = usize::try_from(head.plain_bytes).map_err(|_| CodecError::TooLarge(usize::MAX))?;
    if plain_bytes > BATCH_BYTES_MAX {
        return Err(CodecError::TooLarge(plain_bytes));
    }
    let decompressed;
    let plain = match head.codec {
        Codec::Plain => payload,
        Codec::Zstd => {
            decompressed = decompress(payload, plain_bytes).ok_or(CodecError::Undecodable)?;
            &decompressed
        }
    };
    if plain.len() != plain_bytes {
        return Err(CodecError::Undecodable);
    }
    // The count is looked at before the records are: a payload of empty ones would take sixteen times its bytes.
    let (count, _) = postcard::take_from_bytes::<u64>(plain).map_err(|_| CodecError::Undecodable)?;
    if count != u64::from(head.count) {
        return Err(CodecError::Undecodable);
    }
    let (records, rest) = postcard::take_from_bytes::<Vec<&[u8]>>(plain).map_err(|_| CodecError::Undecodable)?;
    if !rest.is_empty() || records.iter().any(|record| record.len() > RECORD_BYTES_MAX) {
        return Err(CodecError::Undecodable);
    }
    Ok(Batch { head, records: records.into_iter().map(<[u8]>::to_vec).collect() })
}

#[cfg(test)]
mod tests;
