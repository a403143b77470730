//! Frames: the pure part of the log's format (see the header of [`crate::journal`]).
//!
//! Invariant: a frame that [`decode`] takes was written by [`encode`] at this very offset of this very segment, unless 32 bits of CRC
//! were fooled. Bytes from the disk give `Bad`, never a panic. Not known here: what payloads mean.

use counterfoil_proto::id::{Epoch, Lane, Seq};
use counterfoil_proto::planted::{self, Bug};

use super::limits::{FRAME_ALIGN_BYTES, FRAME_HEADER_BYTES, PAYLOAD_BYTES_MAX};

const MAGIC: [u8; 2] = *b"CF";

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A record: stored bytes.
    Record,
    /// A part of a state snapshot; `seq` is the part in the lower half and the number of parts in the upper.
    Local,
    /// The start of a group: heads before it.
    Group,
    /// The end of the log at a clean stop: heads after everything.
    Closing,
    /// What stood here is lost; `seq` is how many bytes the hole spans, this frame included.
    Hole,
}

impl Kind {
    const fn code(self) -> u8 {
        match self {
            Self::Record => 1,
            Self::Local => 2,
            Self::Group => 3,
            Self::Closing => 4,
            Self::Hole => 5,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Record),
            2 => Some(Self::Local),
            3 => Some(Self::Group),
            4 => Some(Self::Closing),
            5 => Some(Self::Hole),
            _ => None,
        }
    }
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) lane: Lane,
    /// Offset of the group's header: everything before it was synced when this frame was written.
    pub(crate) group: u32,
    pub(crate) seq: u64,
    pub(crate) epoch: Epoch,
}

/// The epoch field of frames that belong to none.
pub(crate) const NO_EPOCH: Epoch = Epoch([0; 16]);

/// What every CRC of a segment starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seed(u32);

impl Seed {
    pub(crate) fn new(nonce: u64, number: u32) -> Self {
        let (nonce, number) = if planted::is(Bug::RecycledFrames) { (0, 0) } else { (nonce, number) };
        let start = crc32c::crc32c(&nonce.to_le_bytes());
        Self(crc32c::crc32c_append(start, &number.to_le_bytes()))
    }

    fn crc(self, offset: u32, header: &[u8; FRAME_HEADER_BYTES], payload: &[u8]) -> u32 {
        let mut head = [0; FRAME_HEADER_BYTES];
        head.copy_from_slice(header);
        // The place of the CRC itself carries the offset.
        head[12..16].copy_from_slice(&offset.to_le_bytes());
        crc32c::crc32c_append(crc32c::crc32c_append(self.0, &head), payload)
    }
}

/// Bytes that a frame with a payload of that length takes.
pub(crate) const fn frame_bytes(payload: usize) -> usize {
    (FRAME_HEADER_BYTES + payload).next_multiple_of(FRAME_ALIGN_BYTES)
}

fn header_bytes(header: &Header, payload: usize) -> [u8; FRAME_HEADER_BYTES] {
    let mut bytes = [0; FRAME_HEADER_BYTES];
    bytes[0..2].copy_from_slice(&MAGIC);
    bytes[2] = header.kind.code();
    bytes[3] = header.lane.code();
    let length = u32::try_from(payload).expect("payloads are bounded when staged");
    bytes[4..8].copy_from_slice(&length.to_le_bytes());
    bytes[8..12].copy_from_slice(&header.group.to_le_bytes());
    bytes[16..24].copy_from_slice(&header.seq.to_le_bytes());
    bytes[24..40].copy_from_slice(&header.epoch.0);
    bytes
}

/// Appends a frame that will stand at `offset`.
pub(crate) fn encode(into: &mut Vec<u8>, seed: Seed, offset: u32, header: &Header, payload: &[u8]) {
    assert!(payload.len() <= PAYLOAD_BYTES_MAX, "payloads are bounded when staged");
    let start = into.len();
    let mut head = header_bytes(header, payload.len());
    let crc = seed.crc(offset, &head, payload);
    head[12..16].copy_from_slice(&crc.to_le_bytes());
    into.extend_from_slice(&head);
    into.extend_from_slice(payload);
    into.resize(start + frame_bytes(payload.len()), 0);
}

/// A whole frame within a buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    pub(crate) header: Header,
    pub(crate) payload: &'a [u8],
    /// Bytes up to the next frame.
    pub(crate) bytes: usize,
}

/// What stands at an offset.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Decoded<'a> {
    /// A whole frame.
    Frame(View<'a>),
    /// It may be a frame, but so many bytes are needed to tell.
    Short(usize),
    /// Not a frame.
    Bad,
}

fn u32_at(bytes: &[u8; FRAME_HEADER_BYTES], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Reads the frame at the start of `bytes`, which stand at `offset` of the segment.
pub(crate) fn decode(bytes: &[u8], seed: Seed, offset: u32) -> Decoded<'_> {
    let Some((head, rest)) = bytes.split_first_chunk::<FRAME_HEADER_BYTES>() else {
        return if MAGIC.starts_with(bytes.get(..bytes.len().min(2)).unwrap_or(&[])) {
            Decoded::Short(FRAME_HEADER_BYTES)
        } else {
            Decoded::Bad
        };
    };
    if head[0..2] != MAGIC {
        return Decoded::Bad;
    }
    let (Some(kind), Some(lane)) = (Kind::from_code(head[2]), Lane::from_code(head[3])) else { return Decoded::Bad };
    let length = usize::try_from(u32_at(head, 4)).unwrap_or(usize::MAX);
    if length > PAYLOAD_BYTES_MAX {
        return Decoded::Bad;
    }
    let Some(payload) = rest.get(..length) else { return Decoded::Short(FRAME_HEADER_BYTES + length) };
    if seed.crc(offset, head, payload) != u32_at(head, 12) && !planted::is(Bug::TornTailReplayed) {
        return Decoded::Bad;
    }
    let mut seq = [0; 8];
    seq.copy_from_slice(&head[16..24]);
    let mut epoch = [0; 16];
    epoch.copy_from_slice(&head[24..40]);
    let header = Header { kind, lane, group: u32_at(head, 8), seq: u64::from_le_bytes(seq), epoch: Epoch(epoch) };
    let bytes = match kind {
        Kind::Hole => match usize::try_from(header.seq) {
            Ok(span) if span >= FRAME_HEADER_BYTES && span.is_multiple_of(FRAME_ALIGN_BYTES) => span,
            Ok(_) | Err(_) => return Decoded::Bad,
        },
        Kind::Record if Seq::try_from(header.seq).is_err() => return Decoded::Bad,
        Kind::Record | Kind::Local | Kind::Group | Kind::Closing => frame_bytes(length),
    };
    Decoded::Frame(View { header, payload, bytes })
}

/// A frame that says that `span` bytes from `offset` on are lost.
pub(crate) fn hole(seed: Seed, offset: u32, span: u32) -> Vec<u8> {
    let header = Header { kind: Kind::Hole, lane: Lane::Trade, group: 0, seq: u64::from(span), epoch: NO_EPOCH };
    let mut bytes = Vec::with_capacity(FRAME_HEADER_BYTES);
    encode(&mut bytes, seed, offset, &header, &[]);
    bytes
}

/// The next offset at or after `from` (a multiple of the alignment) where a whole frame stands in `bytes`, which begin at offset zero of
/// the segment.
pub(crate) fn resync(bytes: &[u8], seed: Seed, from: usize) -> Option<usize> {
    let mut at = from.next_multiple_of(FRAME_ALIGN_BYTES);
    while let Some(rest) = bytes.get(at..).filter(|rest| rest.len() >= FRAME_HEADER_BYTES) {
        if rest.starts_with(&MAGIC)
            && let Decoded::Frame(_) = decode(rest, seed, u32::try_from(at).ok()?)
        {
            return Some(at);
        }
        at += FRAME_ALIGN_BYTES;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> Header {
        Header { kind: Kind::Record, lane: Lane::Stock, group: 64, seq: 7, epoch: Epoch([9; 16]) }
    }

    #[test]
    fn frame_is_bound_to_segment_and_offset() {
        let seed = Seed::new(1, 2);
        let mut bytes = Vec::new();
        encode(&mut bytes, seed, 128, &header(), b"payload");
        assert_eq!(bytes.len(), 48);
        assert!(
            matches!(decode(&bytes, seed, 128), Decoded::Frame(view) if view.header == header() && view.payload == b"payload")
        );
        assert!(matches!(decode(&bytes, seed, 136), Decoded::Bad));
        assert!(matches!(decode(&bytes, Seed::new(1, 3), 128), Decoded::Bad));
        assert!(matches!(decode(&bytes, Seed::new(2, 2), 128), Decoded::Bad));
        assert!(matches!(decode(&bytes[..40], seed, 128), Decoded::Short(47)));
    }

    #[test]
    fn what_may_go_on_is_short_and_what_cannot_be_a_frame_is_bad() {
        let seed = Seed::new(1, 2);
        let mut bytes = Vec::new();
        encode(&mut bytes, seed, 0, &header(), &vec![7; PAYLOAD_BYTES_MAX]);
        for length in [0, 1, 2, 3, FRAME_HEADER_BYTES - 1] {
            let found = decode(&bytes[..length], seed, 0);
            assert!(matches!(found, Decoded::Short(FRAME_HEADER_BYTES)), "{length}: {found:?}");
        }
        for foreign in [&[0][..], &[MAGIC[0], 0], &[MAGIC[1]]] {
            assert!(matches!(decode(foreign, seed, 0), Decoded::Bad), "{foreign:?}");
        }
        assert!(matches!(decode(&bytes, seed, 0), Decoded::Frame(view) if view.payload.len() == PAYLOAD_BYTES_MAX));
        bytes[4..8].copy_from_slice(&u32::try_from(PAYLOAD_BYTES_MAX + 1).unwrap().to_le_bytes());
        assert!(matches!(decode(&bytes[..100], seed, 0), Decoded::Bad), "no frame is that long");
    }

    #[test]
    fn a_hole_covers_whole_frames() {
        let seed = Seed::new(1, 2);
        let found = |span| {
            let bytes = hole(seed, 64, span);
            match decode(&bytes, seed, 64) {
                Decoded::Frame(view) => Some(view.bytes),
                Decoded::Short(_) | Decoded::Bad => None,
            }
        };
        let header_bytes = u32::try_from(FRAME_HEADER_BYTES).unwrap();
        assert_eq!([header_bytes, 48, 4_096].map(found), [Some(FRAME_HEADER_BYTES), Some(48), Some(4_096)]);
        assert_eq!([0, 8, header_bytes - 8, header_bytes + 1, 4_095].map(found), [None; 5]);
    }

    #[test]
    fn every_flip_of_header_or_payload_is_seen() {
        let seed = Seed::new(1, 2);
        let mut bytes = Vec::new();
        encode(&mut bytes, seed, 0, &header(), b"12345678");
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!matches!(decode(&flipped, seed, 0), Decoded::Frame(_)), "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), magic in any::<bool>()) {
            if magic && bytes.len() > 3 {
                bytes[0..2].copy_from_slice(&MAGIC);
                bytes[2] = 1 + bytes[2] % 5;
                bytes[3] %= 3;
            }
            let _ = decode(&bytes, Seed::new(0, 0), 0);
            let _ = resync(&bytes, Seed::new(0, 0), 0);
        }
    }
}
