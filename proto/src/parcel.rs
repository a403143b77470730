//! A parcel: what a store has, as a file that somebody carries to the hub when the line is dead for weeks.
//!
//! ```text
//! magic "CFPARCEL"  version: u16 = 1  zeros: u16                                                            (little-endian, 12 bytes)
//! entries: length of the body: u32  kind: u8  zeros [3]  body  signature [64]
//! ```
//!
//! | kind | is | body |
//! |---|---|---|
//! | 1 | [`Label`], once and first | postcard |
//! | 2 | batch | as on the wire ([`crate::codec`]), its session being the parcel's |
//! | 3 | [`Statement`]: what stands before it is all there is | postcard |
//!
//! Each signature (Ed25519, the box's own key) is over `"counterfoil parcel 1"`, the digest of the whole entry before (zeros for the first), the kind
//! and the body. So nothing in a parcel can be changed, moved or left out but its end; what was cut off is written again by going on
//! behind the last whole entry, and what came to the box since follows the same way.
//!
//! Invariant: what [`Reader`] gives is signed by the key that the label names. Whether that key is the box's is for the reader's caller to know.
//! Not known here: files, and how records are taken in.

use alloc::string::String;
use alloc::vec::Vec;

use ring::signature::{ED25519, UnparsedPublicKey};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::id::{Digest, PublicKey, SessionId, Signature, Source};
use crate::limits::PUBLISH_BYTES_MAX;
use crate::message::EpochHeads;
use crate::time::WallTime;

const MAGIC: [u8; 8] = *b"CFPARCEL";
const VERSION: u16 = 1;
const SIGNED_AS: &[u8] = b"counterfoil parcel 1";
/// Bytes before the first entry.
pub const HEAD_BYTES: usize = 12;
/// Bytes of an entry beside its body.
const FRAME_BYTES: usize = 8 + SIGNATURE_BYTES;
const SIGNATURE_BYTES: usize = 64;
/// Bytes of an entry: no body is longer than a message.
pub const ENTRY_BYTES_MAX: usize = PUBLISH_BYTES_MAX + FRAME_BYTES;

const LABEL: u8 = 1;
const BATCH: u8 = 2;
const STATEMENT: u8 = 3;

/// Whose a parcel is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// The store and the agent.
    pub source: Source,
    /// The box's key, which signs.
    pub public_key: PublicKey,
    /// This parcel.
    pub parcel: SessionId,
    /// Name and version of the software that began it.
    pub software: String,
    /// When it was begun, by the box's clock.
    pub begun_at: WallTime,
}

/// That a parcel holds everything the box had, up to the heads that it names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// When, by the box's clock.
    pub made_at: WallTime,
    /// Records before it in the parcel.
    pub records: u64,
    /// How far each lane in the parcel reaches, and what of it is lost.
    pub epochs: Vec<EpochHeads>,
}

/// An entry as it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Whose it is.
    Label(Label),
    /// A batch, encoded; [`crate::codec::decode_batch`] reads it.
    Batch(Vec<u8>),
    /// That it is whole up to here.
    Statement(Statement),
}

/// Why an entry cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParcelError {
    /// The file does not begin as one.
    #[error("this is no parcel of Counterfoil")]
    Foreign,
    /// A later format.
    #[error("the parcel has format {0}, and this program reads format {VERSION}; use a newer program")]
    Version(u16),
    /// It ends within an entry.
    #[error("the parcel was cut off: it ends within an entry")]
    Cut,
    /// The bytes are not what the box signed.
    #[error("the bytes are not what the box signed: they were changed, or damaged on the way")]
    Changed,
    /// The bytes are signed, and nothing that this software knows.
    #[error("an entry is not understood; use a newer program")]
    Unknown,
    /// It cannot be written.
    #[error("an entry is too large")]
    TooLarge,
}

/// Why reading on ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop<E> {
    /// The file cannot be read.
    Read(E),
    /// What was read is no entry.
    Entry(ParcelError),
}

/// Follows the signatures of a parcel's entries, one after the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Line(Digest);

impl Line {
    fn signed(self, kind: u8, body: &[u8]) -> Vec<u8> {
        [SIGNED_AS, &self.0.0, &[kind], body].concat()
    }
}

/// What a parcel begins with.
pub fn head() -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    let (magic, version) = head.split_at_mut(MAGIC.len());
    magic.copy_from_slice(&MAGIC);
    for (byte, of_version) in version.iter_mut().zip(VERSION.to_le_bytes()) {
        *byte = of_version;
    }
    head
}

/// Makes entries, each to be appended to the file.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    line: Line,
}

impl Writer {
    /// The bytes of an entry. `sign` signs with the key that the label names.
    pub fn entry(&mut self, entry: &Entry, sign: impl FnOnce(&[u8]) -> Signature) -> Result<Vec<u8>, ParcelError> {
        let encode = |encoded: Result<Vec<u8>, postcard::Error>| encoded.map_err(|_| ParcelError::TooLarge);
        let (kind, body) = match entry {
            Entry::Label(label) => (LABEL, &encode(postcard::to_extend(label, Vec::new()))?),
            Entry::Batch(batch) => (BATCH, batch),
            Entry::Statement(statement) => (STATEMENT, &encode(postcard::to_extend(statement, Vec::new()))?),
        };
        let length = u32::try_from(body.len()).ok().filter(|_| body.len() <= PUBLISH_BYTES_MAX);
        let signature = sign(&self.line.signed(kind, body));
        let head = [length.ok_or(ParcelError::TooLarge)?.to_le_bytes(), [kind, 0, 0, 0]].concat();
        let bytes = [&head, body.as_slice(), &signature.0].concat();
        self.line = Line(Digest::of(&bytes));
        Ok(bytes)
    }
}

/// Reads entries in their order.
#[derive(Clone, Debug, Default)]
pub struct Reader {
    line: Line,
    label: Option<Label>,
}

impl Reader {
    /// Judges what a file begins with.
    pub fn begin(head: &[u8]) -> Result<Self, ParcelError> {
        let rest = head.strip_prefix(&MAGIC).ok_or(ParcelError::Foreign)?;
        let version = rest.first_chunk().map(|bytes| u16::from_le_bytes(*bytes)).ok_or(ParcelError::Cut)?;
        if version == VERSION { Ok(Self::default()) } else { Err(ParcelError::Version(version)) }
    }

    /// Whose it is, once that was read.
    pub const fn label(&self) -> Option<&Label> {
        self.label.as_ref()
    }

    /// Goes on writing behind what was read.
    pub fn into_writer(self) -> Writer {
        Writer { line: self.line }
    }

    /// The entry at the front of `bytes` and how many of them it takes. `bytes` need not hold more than [`ENTRY_BYTES_MAX`]; of a whole file that
    /// has ended they are empty, which is the caller's to see.
    pub fn entry(&mut self, bytes: &[u8]) -> Result<(Entry, usize), ParcelError> {
        let (length, rest) = bytes.split_first_chunk::<4>().ok_or(ParcelError::Cut)?;
        let (&[kind, zeros @ ..], rest) = rest.split_first_chunk::<4>().ok_or(ParcelError::Cut)?;
        let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| ParcelError::Changed)?;
        if length > PUBLISH_BYTES_MAX || zeros != [0; 3] {
            return Err(ParcelError::Changed);
        }
        let (body, rest) = rest.split_at_checked(length).ok_or(ParcelError::Cut)?;
        let (signature, _) = rest.split_first_chunk::<SIGNATURE_BYTES>().ok_or(ParcelError::Cut)?;
        let entry = self.judge(kind, body, signature)?;
        let taken = length.saturating_add(FRAME_BYTES);
        self.line = Line(Digest::of(bytes.get(..taken).unwrap_or(bytes)));
        if let Entry::Label(label) = &entry {
            self.label = Some(label.clone());
        }
        Ok((entry, taken))
    }

    /// The next entry and how many bytes it takes, or `None` where the file ends whole. `more` gives so many further bytes of it, fewer only where it
    /// ends.
    pub fn next<E>(
        &mut self,
        mut more: impl FnMut(usize) -> Result<Vec<u8>, E>,
    ) -> Result<Option<(Entry, usize)>, Stop<E>> {
        let mut bytes = more(8).map_err(Stop::Read)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let length = bytes.first_chunk().map_or(0, |length| u32::from_le_bytes(*length));
        let rest = usize::try_from(length).ok().filter(|length| *length <= PUBLISH_BYTES_MAX).unwrap_or(0);
        bytes.extend(more(rest.saturating_add(SIGNATURE_BYTES)).map_err(Stop::Read)?);
        self.entry(&bytes).map(Some).map_err(Stop::Entry)
    }

    fn judge(&self, kind: u8, body: &[u8], signature: &[u8]) -> Result<Entry, ParcelError> {
        let is_signed = |key: &PublicKey| {
            let key = UnparsedPublicKey::new(&ED25519, key.0);
            key.verify(&self.line.signed(kind, body), signature).map_err(|_| ParcelError::Changed)
        };
        match &self.label {
            None => {
                // The key stands in what it signs.
                let label: Label = Some(body).filter(|_| kind == LABEL).and_then(decode).ok_or(ParcelError::Changed)?;
                is_signed(&label.public_key)?;
                Ok(Entry::Label(label))
            }
            Some(label) => {
                is_signed(&label.public_key)?;
                match kind {
                    BATCH => Ok(Entry::Batch(body.to_vec())),
                    STATEMENT => decode(body).map(Entry::Statement).ok_or(ParcelError::Unknown),
                    _ => Err(ParcelError::Unknown),
                }
            }
        }
    }
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> Option<T> {
    match postcard::take_from_bytes(body) {
        Ok((value, [])) => Some(value),
        Ok(_) | Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use ring::signature::{Ed25519KeyPair, KeyPair};

    use super::*;
    use crate::id::{AgentId, StoreId};

    fn key(seed: u8) -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
    }

    fn sign(key: &Ed25519KeyPair, bytes: &[u8]) -> Signature {
        let mut signature = Signature::default();
        signature.0.copy_from_slice(key.sign(bytes).as_ref());
        signature
    }

    fn label(key: &Ed25519KeyPair) -> Label {
        Label {
            source: Source { store_id: StoreId::new("0042").unwrap(), agent_id: AgentId::new("box1").unwrap() },
            public_key: PublicKey(key.public_key().as_ref().try_into().unwrap()),
            parcel: SessionId([7; 16]),
            software: "test".into(),
            begun_at: WallTime(1),
        }
    }

    fn written() -> (Vec<Entry>, Vec<Vec<u8>>) {
        let key = key(1);
        let statement = Statement { made_at: WallTime(2), records: 2, epochs: vec![] };
        let entries = vec![
            Entry::Label(label(&key)),
            Entry::Batch(vec![1, 2, 3]),
            Entry::Batch(vec![4]),
            Entry::Statement(statement),
        ];
        let mut writer = Writer::default();
        let bytes = entries.iter().map(|entry| writer.entry(entry, |bytes| sign(&key, bytes)).unwrap()).collect();
        (entries, bytes)
    }

    fn read(bytes: &[u8]) -> (Vec<Entry>, Option<ParcelError>) {
        let mut reader = Reader::begin(&head()).unwrap();
        let (mut entries, mut rest) = (vec![], bytes);
        loop {
            let next = reader.next::<()>(|count| {
                let (piece, after) = rest.split_at(count.min(rest.len()));
                rest = after;
                Ok(piece.to_vec())
            });
            match next {
                Ok(Some((entry, _))) => entries.push(entry),
                Ok(None) => return (entries, None),
                Err(Stop::Entry(error)) => return (entries, Some(error)),
                Err(Stop::Read(())) => unreachable!("memory is read"),
            }
        }
    }

    #[test]
    fn what_is_written_is_read_and_a_later_hand_goes_on_behind_it() {
        let (mut entries, bytes) = written();
        let mut bytes = bytes.concat();
        assert_eq!(read(&bytes), (entries.clone(), None));
        let mut reader = Reader::begin(&head()).unwrap();
        let mut at = 0;
        while at < bytes.len() {
            at += reader.entry(&bytes[at..]).unwrap().1;
        }
        let more = Entry::Batch(vec![9]);
        bytes.extend(reader.into_writer().entry(&more, |bytes| sign(&key(1), bytes)).unwrap());
        entries.push(more);
        assert_eq!(read(&bytes), (entries, None));
    }

    #[test]
    fn each_byte_that_is_cut_or_changed_is_noticed_where_it_stands() {
        let (entries, parts) = written();
        let bytes = parts.concat();
        let ends: Vec<usize> = parts
            .iter()
            .scan(0, |end, part| {
                *end += part.len();
                Some(*end)
            })
            .collect();
        let whole_before = |at: usize| ends.iter().filter(|end| **end <= at).count();
        for at in 0..bytes.len() {
            let (found, error) = read(&bytes[..at]);
            let is_end = at == 0 || ends.contains(&at);
            assert_eq!((found.len(), error), (whole_before(at), (!is_end).then_some(ParcelError::Cut)), "cut at {at}");
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let (found, error) = read(&changed);
            assert_eq!(found[..], entries[..whole_before(at)], "changed at {at}");
            assert!(error.is_some(), "changed at {at}");
        }
    }

    #[test]
    fn no_entry_can_be_left_out_moved_or_put_in() {
        let (_, parts) = written();
        let order = |order: &[usize]| read(&order.iter().flat_map(|part| parts[*part].clone()).collect::<Vec<_>>()).1;
        assert_eq!(order(&[0, 1, 2, 3]), None);
        for wrong in [&[0, 2, 3][..], &[0, 2, 1, 3], &[0, 1, 1, 2, 3], &[1, 2, 3], &[0, 0, 1], &[0, 3]] {
            assert_eq!(order(wrong), Some(ParcelError::Changed), "{wrong:?}");
        }
        let (mut reader, mut forger) = (Reader::begin(&head()).unwrap(), Writer::default());
        let named = Entry::Label(label(&key(1)));
        let by_another = forger.entry(&named, |bytes| sign(&key(2), bytes)).unwrap();
        assert_eq!(reader.entry(&by_another), Err(ParcelError::Changed));
    }

    #[test]
    fn what_is_no_parcel_is_called_so() {
        assert_eq!(Reader::begin(b"PK\x03\x04").unwrap_err(), ParcelError::Foreign);
        assert_eq!(Reader::begin(b"CFPARCEL").unwrap_err(), ParcelError::Cut);
        assert_eq!(Reader::begin(b"CFPARCEL\x02\x00\x00\x00").unwrap_err(), ParcelError::Version(2));
    }
}
