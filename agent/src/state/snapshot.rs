//! The state as bounded parts, for the journal: what rebuilds it where the store beside the journal is lost.
//!
//! ```text
//! magic "CFST"  version: u16  snapshot: [u8; 16]  part: u32  parts: u32  rows: u32      (little-endian)
//! rows times: key length: u32  value length: u32  key  value
//! crc32c of all before: u32
//! ```
//!
//! Parts count from 0. Invariant: a snapshot is restored whole or not at all. Every version stays readable; golden bytes of each are in
//! `agent/fixtures/`.

use super::limits::{SNAPSHOT_PART_BYTES_MIN, SNAPSHOT_PARTS_MAX};
use super::rows::{Loader, ROWS_VERSION, ROWS_VERSION_OLDEST, RowError, Tables};

const MAGIC: [u8; 4] = *b"CFST";
const HEADER_BYTES: usize = 34;
const ROW_HEADER_BYTES: usize = 8;
const CRC_BYTES: usize = 4;

/// Which part of which snapshot some bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartHeader {
    /// Given by whoever took the snapshot; the same in all its parts.
    pub snapshot_id: [u8; 16],
    /// From 0.
    pub part: u32,
    /// How many there are.
    pub parts: u32,
}

/// Parts that do not make a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// Cut, or with a flipped bit, or something else altogether.
    #[error("A part of a state snapshot is damaged; restore an older snapshot and replay the journal from there")]
    Damaged,
    /// Of a later software.
    #[error(
        "A state snapshot has version {0}, this software reads up to {ROWS_VERSION}; install the newer software again"
    )]
    Version(u16),
    /// Not every part of one snapshot, each once.
    #[error(
        "The parts are not all those of one state snapshot; restore an older snapshot and replay the journal from there"
    )]
    Incomplete,
    /// Whole, but not rows of ours.
    #[error(
        "A state snapshot is whole but cannot be understood; restore an older snapshot and replay the journal from there"
    )]
    Row(#[from] RowError),
}

/// The tables in parts of at most `part_bytes_max`, and no smaller than the largest row needs.
pub(super) fn parts_of(tables: &Tables, snapshot_id: [u8; 16], part_bytes_max: usize) -> Vec<Vec<u8>> {
    let part_bytes_max = part_bytes_max.max(SNAPSHOT_PART_BYTES_MIN);
    let mut parts: Vec<(u32, Vec<u8>)> = vec![(0, vec![0; HEADER_BYTES])];
    for (key, value) in tables.rows() {
        let row_bytes = ROW_HEADER_BYTES + key.len() + value.len();
        if parts.last().is_none_or(|(rows, part)| *rows > 0 && part.len() + row_bytes + CRC_BYTES > part_bytes_max) {
            parts.push((0, vec![0; HEADER_BYTES]));
        }
        if let Some((rows, part)) = parts.last_mut() {
            *rows += 1;
            part.extend_from_slice(&length(&key).to_le_bytes());
            part.extend_from_slice(&length(&value).to_le_bytes());
            part.extend_from_slice(&key);
            part.extend_from_slice(&value);
        }
    }
    let count = u32::try_from(parts.len()).expect("200,000 items and 20,000 exceptions make some hundred parts");
    let seal = |(index, (rows, mut part)): (u32, (u32, Vec<u8>))| {
        let header = [
            &MAGIC[..],
            &ROWS_VERSION.to_le_bytes(),
            &snapshot_id,
            &index.to_le_bytes(),
            &count.to_le_bytes(),
            &rows.to_le_bytes(),
        ]
        .concat();
        part[..HEADER_BYTES].copy_from_slice(&header);
        let crc = crc32c::crc32c(&part);
        part.extend_from_slice(&crc.to_le_bytes());
        part
    };
    (0..).zip(parts).map(seal).collect()
}

/// Which part `bytes` are, so that whoever reads the journal can tell when a snapshot is whole.
pub fn read_part(bytes: &[u8]) -> Result<PartHeader, RestoreError> {
    open_part(bytes).map(|(header, _, _)| header)
}

/// The tables out of all parts of one snapshot, in any order.
pub(super) fn tables_of(parts: &[impl AsRef<[u8]>]) -> Result<Tables, RestoreError> {
    let mut opened = Vec::with_capacity(parts.len());
    for part in parts {
        opened.push(open_part(part.as_ref())?);
    }
    opened.sort_by_key(|(header, _, _)| header.part);
    let Some((first, _, _)) = opened.first().copied() else { return Err(RestoreError::Incomplete) };
    let whole = u32::try_from(opened.len()) == Ok(first.parts)
        && (0..).zip(&opened).all(|(index, (header, _, _))| *header == PartHeader { part: index, ..first });
    if !whole {
        return Err(RestoreError::Incomplete);
    }
    let mut loader = Loader::default();
    for (_, rows, mut bytes) in opened {
        for _ in 0..rows {
            let (key, value, rest) = split_row(bytes).ok_or(RestoreError::Damaged)?;
            loader.row(key, value)?;
            bytes = rest;
        }
        if !bytes.is_empty() {
            return Err(RestoreError::Damaged);
        }
    }
    Ok(loader.finish()?)
}

/// Header, number of rows, and the bytes of the rows.
fn open_part(bytes: &[u8]) -> Result<(PartHeader, u32, &[u8]), RestoreError> {
    let (sealed, crc) = bytes.split_last_chunk::<CRC_BYTES>().ok_or(RestoreError::Damaged)?;
    if crc32c::crc32c(sealed) != u32::from_le_bytes(*crc) {
        return Err(RestoreError::Damaged);
    }
    let (magic, rest) = sealed.split_first_chunk().ok_or(RestoreError::Damaged)?;
    let (version, rest) = rest.split_first_chunk().ok_or(RestoreError::Damaged)?;
    if *magic != MAGIC {
        return Err(RestoreError::Damaged);
    }
    let version = u16::from_le_bytes(*version);
    if !(ROWS_VERSION_OLDEST..=ROWS_VERSION).contains(&version) {
        return Err(RestoreError::Version(version));
    }
    let (snapshot_id, rest) = rest.split_first_chunk().ok_or(RestoreError::Damaged)?;
    let (part, rest) = split_u32(rest).ok_or(RestoreError::Damaged)?;
    let (parts, rest) = split_u32(rest).ok_or(RestoreError::Damaged)?;
    let (rows, rest) = split_u32(rest).ok_or(RestoreError::Damaged)?;
    if part >= parts || parts > SNAPSHOT_PARTS_MAX {
        return Err(RestoreError::Damaged);
    }
    Ok((PartHeader { snapshot_id: *snapshot_id, part, parts }, rows, rest))
}

fn split_row(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (key_length, rest) = split_u32(bytes)?;
    let (value_length, rest) = split_u32(rest)?;
    let (key, rest) = rest.split_at_checked(usize::try_from(key_length).ok()?)?;
    let (value, rest) = rest.split_at_checked(usize::try_from(value_length).ok()?)?;
    Some((key, value, rest))
}

fn split_u32(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (field, rest) = bytes.split_first_chunk()?;
    Some((u32::from_le_bytes(*field), rest))
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("a row has some kilobytes at most")
}
