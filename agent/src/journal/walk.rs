//! Walking the frames of a segment file in order, through a buffer.
//!
//! Invariant: it never looks beyond the end that it was given, so that an unsealed segment shows synced frames only; each frame's CRC is
//! checked before it is handed out. Not known here: lanes, and what to do about damage.

use std::io;

use super::disk::{Disk, DiskFile};
use super::frame::{self, Decoded, Header, Seed};
use super::limits::{FRAME_ALIGN_BYTES, FRAME_HEADER_BYTES, READ_BUFFER_BYTES};
use super::segment::{path, segment_name};

/// A place in a segment file.
#[derive(Debug)]
pub(crate) struct Walk {
    file: Box<dyn DiskFile>,
    pub(crate) number: u32,
    seed: Seed,
    buffer: Vec<u8>,
    buffer_at: u32,
    pub(crate) offset: u32,
    pub(crate) end: u32,
}

/// What the walk met.
#[derive(Debug)]
pub(crate) enum Step<'a> {
    /// A frame; the walk stands behind it.
    Frame { offset: u32, header: Header, payload: &'a [u8] },
    /// The end.
    End,
    /// Bytes that are no frame; the walk stays.
    Bad,
}

impl Walk {
    /// Opens a segment's file.
    pub(crate) fn open(disk: &dyn Disk, number: u32, nonce: u64, offset: u32, end: u32) -> io::Result<Self> {
        let file = disk.open_read(&path(&segment_name(number)))?;
        let seed = Seed::new(nonce, number);
        Ok(Self { file, number, seed, buffer: Vec::new(), buffer_at: offset, offset, end })
    }

    /// Moves elsewhere in the same file.
    pub(crate) const fn seek(&mut self, offset: u32) {
        self.offset = offset;
    }

    /// The next frame.
    pub(crate) fn step(&mut self) -> io::Result<Step<'_>> {
        if self.offset >= self.end {
            return Ok(Step::End);
        }
        let mut wanted = FRAME_HEADER_BYTES;
        loop {
            if !self.fill(wanted)? {
                return Ok(Step::Bad);
            }
            match frame::decode(self.ahead(), self.seed, self.offset) {
                Decoded::Frame(view) => {
                    // Split in two for the borrow checker: the bounds are taken first, the payload is lent out at the end.
                    let (header, bytes, length) = (view.header, view.bytes, view.payload.len());
                    let Some(next) = u32::try_from(bytes).ok().and_then(|bytes| self.offset.checked_add(bytes)) else {
                        return Ok(Step::Bad);
                    };
                    if next > self.end {
                        return Ok(Step::Bad);
                    }
                    let offset = std::mem::replace(&mut self.offset, next);
                    let start = (offset - self.buffer_at) as usize + FRAME_HEADER_BYTES;
                    let payload = self.buffer.get(start..start + length).unwrap_or(&[]);
                    return Ok(Step::Frame { offset, header, payload });
                }
                Decoded::Short(bytes) if bytes > wanted => wanted = bytes,
                Decoded::Short(_) | Decoded::Bad => return Ok(Step::Bad),
            }
        }
    }

    /// Goes on to the next whole frame after bad bytes, or to the end.
    pub(crate) fn skip_bad(&mut self) {
        loop {
            self.offset = self.offset.saturating_add(u32::try_from(FRAME_ALIGN_BYTES).unwrap_or(8)).min(self.end);
            let before = self.offset;
            match self.step() {
                Ok(Step::Frame { offset, .. }) => {
                    self.offset = offset;
                    return;
                }
                Ok(Step::End) => return,
                Ok(Step::Bad) => self.offset = before,
                // Not one byte of this page can be read.
                Err(_) => self.offset = (before | 4095).saturating_sub(7).max(before),
            }
        }
    }

    fn ahead(&self) -> &[u8] {
        let start = self.offset.saturating_sub(self.buffer_at) as usize;
        self.buffer.get(start..).unwrap_or(&[])
    }

    /// Makes `wanted` bytes from the offset on available; `false` where the segment ends before.
    fn fill(&mut self, wanted: usize) -> io::Result<bool> {
        if self.offset >= self.buffer_at && self.ahead().len() >= wanted {
            return Ok(true);
        }
        let left = (self.end - self.offset) as usize;
        if wanted > left {
            return Ok(false);
        }
        let length = wanted.max(READ_BUFFER_BYTES).min(left);
        // Bytes that are already here are read again: simpler, and one frame at most.
        self.buffer_at = self.offset;
        self.buffer.resize(length, 0);
        if self.buffer.capacity() > 2 * READ_BUFFER_BYTES.max(length) {
            self.buffer.shrink_to(length);
        }
        let count = match self.file.read_at(&mut self.buffer, u64::from(self.offset)) {
            Ok(count) => count,
            // The bad sector may lie behind what is wanted.
            Err(_) => {
                self.file.read_at(self.buffer.get_mut(..wanted).unwrap_or(&mut []), u64::from(self.offset))?.min(wanted)
            }
        };
        self.buffer.truncate(count);
        Ok(count >= wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::super::MemoryDisk;
    use super::super::frame::Kind;
    use super::super::limits::READ_BUFFER_BYTES;
    use super::*;
    use counterfoil_proto::id::{Epoch, Lane};

    const START: u32 = 64;

    /// A segment of so many records without padding, which ends with the last one; where each stands.
    fn segment(disk: &MemoryDisk, records: u64, payload_bytes: usize) -> (Vec<u32>, u32) {
        disk.create_dir(super::super::segment::DIR).unwrap();
        let file = disk.create(&path(&segment_name(1))).unwrap();
        let (mut bytes, mut places) = (vec![0; START as usize], Vec::new());
        for seq in 1..=records {
            let offset = u32::try_from(bytes.len()).unwrap();
            let header = Header { kind: Kind::Record, lane: Lane::Trade, group: START, seq, epoch: Epoch([1; 16]) };
            frame::encode(&mut bytes, Seed::new(9, 1), offset, &header, &vec![7; payload_bytes]);
            places.push(offset);
        }
        file.write_at(&bytes, 0).unwrap();
        (places, u32::try_from(bytes.len()).unwrap())
    }

    fn steps(walk: &mut Walk) -> Vec<u32> {
        let mut met = Vec::new();
        while let Ok(Step::Frame { offset, .. }) = walk.step() {
            met.push(offset);
        }
        met
    }

    #[test]
    fn each_frame_is_met_also_the_one_that_ends_with_the_segment() {
        for (records, payload_bytes) in [(1, 0), (3, 8), (3, READ_BUFFER_BYTES), (40, 20_000)] {
            let disk = MemoryDisk::new();
            let (places, end) = segment(&disk, records, payload_bytes);
            let mut walk = Walk::open(&disk, 1, 9, START, end).unwrap();
            assert_eq!(steps(&mut walk), places, "{records} of {payload_bytes} bytes");
            assert!(matches!(walk.step(), Ok(Step::End)));
            // Back to where nothing is in memory any more, and into the middle.
            for from in [0, places.len() / 2] {
                walk.seek(places[from]);
                assert_eq!(steps(&mut walk), places[from..]);
            }
            let mut walk = Walk::open(&disk, 1, 9, START, end - 8).unwrap();
            assert_eq!(steps(&mut walk), places[..places.len() - 1], "a frame does not reach beyond the end");
            assert!(matches!(walk.step(), Ok(Step::Bad)));
        }
    }
}
