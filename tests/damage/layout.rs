//! The frames of a segment file, read as the header of `counterfoil::journal` describes them and without its code.
//!
//! Invariant: it reads whole journals only; of damage it knows nothing.

use std::ops::Range;

use counterfoil_proto::id::{Epoch, Lane, RecordKey, Seq};

/// Bytes of a frame before its payload.
const HEADER_BYTES: usize = 40;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Record(RecordKey),
    Local,
    Group,
    Closing,
}

/// A frame of a segment.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    /// Its header and payload; what follows up to the next multiple of eight is padding.
    pub(crate) bytes: Range<usize>,
    /// Where its group begins.
    pub(crate) group: usize,
}

/// The frames of a segment.
pub(crate) fn frames(segment: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    let mut at = number(segment, 12);
    while segment.get(at..).is_some_and(|rest| rest.starts_with(b"CF")) {
        let end = at + HEADER_BYTES + number(segment, at + 4);
        let mut epoch = [0; 16];
        epoch.copy_from_slice(&segment[at + 24..at + 40]);
        let seq = u64::from_le_bytes(segment[at + 16..at + 24].try_into().unwrap());
        let kind = match segment[at + 2] {
            1 => Kind::Record(RecordKey {
                epoch: Epoch(epoch),
                lane: Lane::from_code(segment[at + 3]).unwrap(),
                seq: Seq(seq),
            }),
            2 => Kind::Local,
            3 => Kind::Group,
            4 => Kind::Closing,
            other => panic!("a frame of kind {other} at {at}"),
        };
        frames.push(Frame { kind, bytes: at..end, group: number(segment, at + 8) });
        at = end.next_multiple_of(8);
    }
    frames
}

fn number(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}
