//! Segment files: their names and headers, and how one is made.
//!
//! Invariant: a file has its final name only when its header is durable. Not known here: frames.

use std::io;

use counterfoil_proto::id::{AgentId, Source, StoreId};
use counterfoil_proto::time::WallTime;

use super::disk::{Disk, DiskFile};
use super::limits::{FORMAT_VERSION, FRAME_ALIGN_BYTES, SEGMENT_HEADER_BYTES_MAX, SEGMENTS_MAX};
use super::table::{Entry, Pieces, decode_entries, encode_entries};
use crate::SOFTWARE;

pub(crate) const DIR: &str = "journal";
const MAGIC: [u8; 8] = *b"CFJSEGMT";
const FIXED_BYTES: usize = 120;
/// The same of format 2, which says more.
const FIXED_BYTES_2: usize = 160;
const SOFTWARE_BYTES_MAX: usize = 31;
const CRC_BYTES: usize = 4;
const FLAG_RECYCLED: u16 = 1;

pub(crate) fn segment_name(number: u32) -> String {
    format!("{number:010}.seg")
}

pub(crate) fn index_name(number: u32) -> String {
    format!("{number:010}.idx")
}

pub(crate) fn spare_name(number: u32) -> String {
    format!("spare-{number:010}")
}

pub(crate) fn path(name: &str) -> String {
    format!("{DIR}/{name}")
}

/// The number in a name with that suffix.
pub(crate) fn number_of(name: &str, prefix: &str, suffix: &str) -> Option<u32> {
    let digits = name.strip_prefix(prefix)?.strip_suffix(suffix)?;
    let number: Option<u32> = if digits.len() == 10 { digits.parse().ok() } else { None };
    number.filter(|number| *number <= SEGMENTS_MAX)
}

/// What the header of a segment says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) number: u32,
    pub(crate) nonce: u64,
    /// Up to this offset the file was synced before it got its name; zero where it was empty then.
    pub(crate) proven: u32,
    /// Where the segment before ends; zero where there is none.
    pub(crate) previous_end: u32,
    /// Whether the file held another segment before, so that the bytes behind the log's end mean nothing.
    pub(crate) recycled: bool,
    pub(crate) wall: WallTime,
    pub(crate) source: Source,
    /// What format 2 says more; a header without it is of format 1.
    pub(crate) making: Option<Making>,
    /// The epochs that were not wholly safe, with their heads before this segment; oldest first.
    pub(crate) table: Vec<Entry>,
}

/// How a file was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Making {
    /// At least so long was it made, whatever `journal.segment_bytes` says today: a shorter one was cut.
    pub(crate) bytes: u32,
    /// By which software; printable ASCII.
    pub(crate) software: String,
}

impl Making {
    /// By this software, in the format that is asked for; `None` in format 1.
    pub(crate) fn now(format: u16, bytes: u64) -> Option<Self> {
        let software = SOFTWARE.get(..SOFTWARE.len().min(SOFTWARE_BYTES_MAX)).unwrap_or_default().to_owned();
        (format >= 2).then(|| Self { bytes: u32::try_from(bytes).unwrap_or(u32::MAX), software })
    }

    fn encode(&self, into: &mut Vec<u8>) {
        into.extend_from_slice(&self.bytes.to_le_bytes());
        into.extend_from_slice(&[0; 4]);
        push_text(into, &self.software, SOFTWARE_BYTES_MAX);
    }

    fn decode(pieces: &mut Pieces<'_>) -> Option<Self> {
        let bytes = pieces.u32()?;
        pieces.u32()?;
        let software = text(pieces.u8()?, &pieces.array::<SOFTWARE_BYTES_MAX>()?)?;
        // It is shown to people.
        let is_plain = software.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
        is_plain.then_some(Self { bytes, software })
    }
}

fn push_text(into: &mut Vec<u8>, text: &str, length_max: usize) {
    into.push(u8::try_from(text.len()).expect("texts of a header are at most 32 bytes"));
    into.extend_from_slice(text.as_bytes());
    into.resize(into.len() + length_max - text.len(), 0);
}

fn text(length: u8, field: &[u8]) -> Option<String> {
    field.get(..usize::from(length)).map(<[u8]>::to_vec).and_then(|text| String::from_utf8(text).ok())
}

/// Why a header cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderFault {
    Damaged,
    Version(u16),
}

impl SegmentHeader {
    /// The version of its form.
    pub(crate) const fn format(&self) -> u16 {
        if self.making.is_some() { 2 } else { 1 }
    }

    /// The header's bytes, a multiple of the frame alignment and at least `bytes_min` long; the first frame follows.
    pub(crate) fn encode(&self, bytes_min: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(512);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&self.format().to_le_bytes());
        bytes.extend_from_slice(&(if self.recycled { FLAG_RECYCLED } else { 0 }).to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.number.to_le_bytes());
        bytes.extend_from_slice(&self.proven.to_le_bytes());
        bytes.extend_from_slice(&self.nonce.to_le_bytes());
        bytes.extend_from_slice(&self.previous_end.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.wall.0.to_le_bytes());
        push_text(&mut bytes, self.source.store_id.as_str(), 32);
        push_text(&mut bytes, self.source.agent_id.as_str(), 31);
        bytes.resize(FIXED_BYTES, 0);
        if let Some(making) = &self.making {
            making.encode(&mut bytes);
        }
        encode_entries(&mut bytes, &self.table);
        let length = (bytes.len() + CRC_BYTES).max(bytes_min).next_multiple_of(FRAME_ALIGN_BYTES);
        bytes[12..16].copy_from_slice(&u32::try_from(length).expect("tables are bounded").to_le_bytes());
        bytes.resize(length - CRC_BYTES, 0);
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a header from the start of a file's bytes; also says how long it is.
    pub(crate) fn decode(bytes: &[u8]) -> Result<(Self, u32), HeaderFault> {
        let length = Self::length(bytes).ok_or(HeaderFault::Damaged)?;
        let whole = bytes.get(..length as usize).ok_or(HeaderFault::Damaged)?;
        let (body, crc) = whole.split_last_chunk::<CRC_BYTES>().ok_or(HeaderFault::Damaged)?;
        if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
            return Err(HeaderFault::Damaged);
        }
        Self::fields(body).map(|header| (header, length))
    }

    fn length(bytes: &[u8]) -> Option<u32> {
        let mut pieces = Pieces(bytes);
        let magic = pieces.array::<8>()?;
        pieces.u32()?;
        let length = pieces.u32()?;
        let fits = (FIXED_BYTES..=SEGMENT_HEADER_BYTES_MAX).contains(&(length as usize));
        (magic == MAGIC && fits && (length as usize).is_multiple_of(FRAME_ALIGN_BYTES)).then_some(length)
    }

    fn fields(body: &[u8]) -> Result<Self, HeaderFault> {
        let mut pieces = Pieces(body);
        let version = pieces.array::<8>().and_then(|_| pieces.u16()).ok_or(HeaderFault::Damaged)?;
        let table_at = match version {
            1 => FIXED_BYTES,
            FORMAT_VERSION => FIXED_BYTES_2,
            _ => return Err(HeaderFault::Version(version)),
        };
        Self::rest(&mut pieces, body, table_at).ok_or(HeaderFault::Damaged)
    }

    fn rest(pieces: &mut Pieces<'_>, body: &[u8], table_at: usize) -> Option<Self> {
        let flags = pieces.u16()?;
        pieces.u32()?;
        let (number, proven, nonce, previous_end) = (pieces.u32()?, pieces.u32()?, pieces.u64()?, pieces.u32()?);
        pieces.u32()?;
        let wall = WallTime(pieces.i64()?);
        let store_id = text(pieces.u8()?, &pieces.array::<32>()?)?;
        let agent_id = text(pieces.u8()?, &pieces.array::<31>()?)?;
        let source = Source { store_id: StoreId::new(&store_id).ok()?, agent_id: AgentId::new(&agent_id).ok()? };
        let making = match body.get(FIXED_BYTES..table_at)? {
            [] => None,
            more => Some(Making::decode(&mut Pieces(more))?),
        };
        let table = decode_entries(&mut Pieces(body.get(table_at..)?))?;
        let recycled = flags & FLAG_RECYCLED != 0;
        Some(Self { number, nonce, proven, previous_end, recycled, wall, source, making, table })
    }

    /// Reads the header of an open file.
    pub(crate) fn read(file: &dyn DiskFile) -> io::Result<Result<(Self, u32), HeaderFault>> {
        let mut bytes = vec![0; 4096];
        let count = file.read_at(&mut bytes, 0)?;
        bytes.truncate(count);
        match Self::length(&bytes) {
            Some(length) if length as usize > bytes.len() => {
                bytes.resize(length as usize, 0);
                let count = file.read_at(&mut bytes, 0)?;
                bytes.truncate(count);
            }
            Some(_) | None => {}
        }
        Ok(Self::decode(&bytes))
    }
}

/// A new segment file under its final name.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) file: Box<dyn DiskFile>,
    /// Its length, all of it allocated.
    pub(crate) bytes: u64,
    /// Length of its header.
    pub(crate) header_bytes: u32,
}

/// Makes the file of a segment: `content` (header and, for a rewritten one, frames), allocated up to `bytes`, synced, then named, then
/// the directory synced. A spare file is used where one is given.
pub(crate) fn make(
    disk: &dyn Disk,
    number: u32,
    content: &[u8],
    header_bytes: u32,
    bytes: u64,
    spare: Option<&str>,
) -> io::Result<Made> {
    if number > SEGMENTS_MAX {
        // The next opening would not look at it.
        return Err(io::Error::other("no number is left for a segment"));
    }
    let fresh = spare.map_or_else(|| path(&format!("{}.new", segment_name(number))), path);
    let file = if spare.is_some() { disk.open(&fresh)? } else { disk.create(&fresh)? };
    let written = (|| {
        // Longer than its content, so that its length never looks like that of a sealed file.
        let bytes = bytes.max(content.len() as u64 + 64);
        file.preallocate(bytes)?;
        if spare.is_some() {
            // Of a spare that an earlier process failed to sync, the length may be in the cache alone, and clean there.
            file.write_at(&[0], bytes - 1)?;
        }
        file.write_at(content, 0)?;
        file.sync_data()?;
        disk.rename(&fresh, &path(&segment_name(number)))?;
        disk.sync_dir(DIR)?;
        file.bytes()
    })();
    match written {
        Ok(bytes) => Ok(Made { file, bytes, header_bytes }),
        Err(error) => {
            if spare.is_none() {
                // A leftover is removed by the next opening; here it would only hold space.
                drop(disk.remove(&fresh));
            }
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::MemoryDisk;
    use super::super::disk::Disk as _;
    use super::super::table::Entry;
    use super::*;
    use counterfoil_proto::id::Epoch;

    fn header(epochs: usize) -> SegmentHeader {
        let source = Source { store_id: StoreId::new("0042").unwrap(), agent_id: AgentId::new("box1").unwrap() };
        let epoch = |n: usize| Entry::new(Epoch([u8::try_from(n % 250).unwrap() + 1; 16]), None);
        SegmentHeader {
            number: 7,
            nonce: 9,
            proven: 0,
            previous_end: 0,
            recycled: false,
            wall: WallTime(0),
            source,
            making: None,
            table: (0..epochs).map(epoch).collect(),
        }
    }

    #[test]
    fn a_header_is_read_whole_whatever_its_length() {
        let disk = MemoryDisk::new();
        for epochs in [0, 1, 100, 115, 120, 121, 122, 130, 1_000] {
            let header = header(epochs);
            let bytes = header.encode(0);
            let file = disk.create("header").unwrap();
            file.write_at(&bytes, 0).unwrap();
            let (found, length) = SegmentHeader::read(file.as_ref()).unwrap().unwrap();
            assert_eq!((found.table.len(), length as usize), (epochs, bytes.len()));
            file.truncate(bytes.len() as u64 - 1).unwrap();
            assert!(matches!(SegmentHeader::read(file.as_ref()), Ok(Err(HeaderFault::Damaged))), "{epochs}");
        }
        let exact = header(1).encode(4096);
        let file = disk.create("exact").unwrap();
        file.write_at(&exact, 0).unwrap();
        assert!(matches!(SegmentHeader::read(file.as_ref()), Ok(Ok((_, 4096)))));
    }

    #[test]
    fn a_header_whose_length_cannot_be_is_no_header() {
        let bytes = header(1).encode(0);
        let with = |length: usize| {
            let mut bytes = bytes.clone();
            bytes[12..16].copy_from_slice(&u32::try_from(length).unwrap().to_le_bytes());
            SegmentHeader::length(&bytes)
        };
        let right = u32::try_from(bytes.len()).unwrap();
        assert_eq!(with(bytes.len()), Some(right));
        assert_eq!([bytes.len() + 1, FIXED_BYTES - 8, SEGMENT_HEADER_BYTES_MAX + 8].map(with), [None; 3]);
        let mut foreign = bytes.clone();
        foreign[0] ^= 1;
        assert_eq!(SegmentHeader::length(&foreign), None);
    }

    #[test]
    fn a_segment_is_longer_than_what_it_begins_with() {
        let disk = MemoryDisk::new();
        disk.create_dir(DIR).unwrap();
        for (bytes, expected) in [(0, 164), (100, 164), (164, 164), (165, 165)] {
            let made = make(&disk, 3, &[1; 100], 100, bytes, None).unwrap();
            assert_eq!((made.bytes, made.file.bytes().unwrap()), (expected, expected));
        }
        assert!(make(&disk, SEGMENTS_MAX, &[1; 100], 100, 0, None).is_ok());
        assert!(make(&disk, SEGMENTS_MAX + 1, &[1; 100], 100, 0, None).is_err());
        for (spare, bytes, expected) in [(10, 1_000, 1_000), (1_000, 1_000, 1_000), (2_000, 1_000, 2_000)] {
            disk.create("journal/spare-00000001").unwrap().preallocate(spare).unwrap();
            let made = make(&disk, 4, &[1; 100], 100, bytes, Some("spare-00000001")).unwrap();
            assert_eq!((made.bytes, made.file.bytes().unwrap()), (expected, expected));
        }
    }
}
