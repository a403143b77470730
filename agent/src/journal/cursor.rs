//! The cursor: per lane what the hub has stored, what is safe there, and up to where records were given back.
//!
//! Invariant: written in turn to two files, each replaced whole, so that one of them is readable after any crash and any single lost
//! file; the newer one counts. An old cursor only makes the agent send again and reclaim later. Not known here: the log.
//!
//! ```text
//! magic "CFCURSOR", version: u16, 0: u16, generation: u64, newest segment: u32, lanes: u32, then per lane:
//! epoch [16], lane: u8, stored: u64, safe: u64, given back: u64; at the end CRC32C of all before
//! ```

use std::collections::BTreeMap;
use std::io;

use counterfoil_proto::id::{Epoch, Lane, LaneKey, Seq};

use super::disk::{self, Disk};
use super::limits::SEGMENTS_MAX;
use super::table::Pieces;
use super::types::Marks;

const MAGIC: [u8; 8] = *b"CFCURSOR";
const VERSION: u16 = 1;
const NAMES: [&str; 2] = ["cursor.0", "cursor.1"];
/// 16 MiB: 400,000 lanes.
const BYTES_MAX: usize = 16 << 20;

/// The number of a file that is damaged, and its bytes.
pub(crate) type DamagedFile = (u32, Vec<u8>);

/// Where a lane stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) marks: Marks,
    /// The last number that was given back.
    pub(crate) floor: Seq,
}

/// The cursor in memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cursor {
    pub(crate) places: BTreeMap<LaneKey, Place>,
    /// The newest segment when it was written: numbers are never used twice, even when all files are lost.
    pub(crate) segment: u32,
    generation: u64,
    is_dirty: bool,
}

impl Cursor {
    /// Loads the newer of the two files; an empty cursor where none is readable. Also gives the numbers and bytes of damaged files.
    pub(crate) fn load(disk: &dyn Disk) -> io::Result<(Self, Vec<DamagedFile>)> {
        let mut newest = Self::default();
        let mut damaged = Vec::new();
        for (number, name) in (0..).zip(NAMES) {
            match disk::read_whole(disk, name, BYTES_MAX) {
                Ok(bytes) => match Self::decode(&bytes) {
                    Some(cursor) if cursor.generation >= newest.generation => newest = cursor,
                    Some(_) => {}
                    None => damaged.push((number, bytes)),
                },
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok((newest, damaged))
    }

    pub(crate) fn place(&self, key: LaneKey) -> Place {
        self.places.get(&key).copied().unwrap_or_default()
    }

    pub(crate) fn set_marks(&mut self, key: LaneKey, marks: Marks) {
        let place = self.places.entry(key).or_default();
        if place.marks != marks {
            place.marks = marks;
            self.is_dirty = true;
        }
    }

    pub(crate) fn raise_floor(&mut self, key: LaneKey, floor: Seq) {
        let place = self.places.entry(key).or_default();
        if place.floor < floor {
            place.floor = floor;
            self.is_dirty = true;
        }
    }

    pub(crate) const fn is_dirty(&self) -> bool {
        self.is_dirty
    }

    /// Writes it to the file whose turn it is.
    pub(crate) fn save(&mut self, disk: &dyn Disk) -> io::Result<()> {
        self.generation += 1;
        disk::replace(disk, "", NAMES[usize::from(!self.generation.is_multiple_of(2))], &self.encode())?;
        self.is_dirty = false;
        Ok(())
    }

    /// Writes it to both files: after what is given back next, an older one would call records lost that were given back.
    pub(crate) fn save_both(&mut self, disk: &dyn Disk) -> io::Result<()> {
        self.save(disk)?;
        self.save(disk)
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(36 + self.places.len() * 41);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&[0; 2]);
        bytes.extend_from_slice(&self.generation.to_le_bytes());
        bytes.extend_from_slice(&self.segment.to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(self.places.len()).expect("epochs are bounded").to_le_bytes());
        for (key, place) in &self.places {
            bytes.extend_from_slice(&key.epoch.0);
            bytes.push(key.lane.code());
            for seq in [place.marks.stored, place.marks.safe, place.floor] {
                bytes.extend_from_slice(&seq.0.to_le_bytes());
            }
        }
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, crc) = bytes.split_last_chunk::<4>()?;
        if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
            return None;
        }
        let mut pieces = Pieces(body);
        let is_ours = pieces.array::<8>()? == MAGIC && pieces.u16()? == VERSION;
        pieces.u16()?;
        if !is_ours {
            return None;
        }
        let mut cursor = Self { generation: pieces.u64()?, segment: pieces.u32()?, ..Self::default() };
        if cursor.generation > u64::MAX / 2 || cursor.segment > SEGMENTS_MAX {
            return None;
        }
        for _ in 0..pieces.u32()? {
            let key = LaneKey { epoch: Epoch(pieces.array()?), lane: Lane::from_code(pieces.u8()?)? };
            let marks = Marks { stored: pieces.seq()?, safe: pieces.seq()? };
            cursor.places.insert(key, Place { marks, floor: pieces.seq()? });
        }
        Some(cursor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_from_beyond_what_can_be_counted_is_none() {
        let read = |generation: u64, segment: u32| {
            let cursor = Cursor { segment, generation, ..Cursor::default() };
            Cursor::decode(&cursor.encode()).map(|cursor| (cursor.generation, cursor.segment))
        };
        for (generation, segment) in [(1, 1), (u64::MAX / 2, SEGMENTS_MAX)] {
            assert_eq!(read(generation, segment), Some((generation, segment)));
        }
        for (generation, segment) in [(u64::MAX / 2 + 1, 1), (u64::MAX, 1), (1, SEGMENTS_MAX + 1), (1, u32::MAX)] {
            assert_eq!(read(generation, segment), None);
        }
    }
}
