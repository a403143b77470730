//! Reading everything again, in order: what the state is folded from after a start.
//!
//! Invariant: it sees the frames that were synced when it was made, each once, in bounded memory; damage is told and skipped.

use std::sync::Arc;

use counterfoil_proto::id::{RecordKey, Seq};

use super::catalog::Catalog;
use super::disk::Disk;
use super::frame::{Header, Kind};
use super::types::{Frame, Position, ReadError};
use super::walk::{Step, Walk};

/// An entry of a replay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replayed {
    /// A whole frame.
    Frame {
        /// Where it stands.
        position: Position,
        /// Behind it: a checkpoint that reflects this frame states it.
        next: Position,
        /// What it holds.
        frame: Frame,
    },
    /// Frames that are damaged; the replay goes on behind them. Tell the journal (`handle_damage`).
    Damaged {
        /// The segment.
        segment: u32,
    },
}

/// Iterator over synced frames.
#[derive(Debug)]
pub struct Replay {
    disk: Arc<dyn Disk>,
    catalog: Arc<Catalog>,
    walk: Option<Walk>,
    next: Position,
}

/// The caller's view of a frame; `None` for the journal's own kinds.
pub(crate) fn frame(header: Header, payload: &[u8]) -> Option<Frame> {
    match header.kind {
        Kind::Record => Some(Frame::Record {
            key: RecordKey { epoch: header.epoch, lane: header.lane, seq: Seq(header.seq) },
            stored: payload.to_vec(),
        }),
        Kind::Local => Some(Frame::Local {
            part: u32::try_from(header.seq & 0xFFFF_FFFF).unwrap_or(0),
            parts: u32::try_from(header.seq >> 32).unwrap_or(0),
            bytes: payload.to_vec(),
        }),
        Kind::Group | Kind::Closing | Kind::Hole => None,
    }
}

impl Replay {
    pub(crate) const fn new(disk: Arc<dyn Disk>, catalog: Arc<Catalog>, from: Position) -> Self {
        Self { disk, catalog, walk: None, next: from }
    }

    /// Opens the segment of `next`, or the first one after it; `None` at the end.
    fn enter(&mut self) -> Option<Result<(), ReadError>> {
        let here = self.catalog.span(self.next.segment()).filter(|span| self.next.offset() < span.end);
        let span = match here {
            Some(span) => span,
            None => self.catalog.span_after(self.next.segment())?,
        };
        let inside = if span.number == self.next.segment() { self.next.offset() } else { 0 };
        let offset = inside.max(span.header_bytes);
        let position = Position::new(span.number, offset);
        let opened = Walk::open(self.disk.as_ref(), span.number, span.nonce, offset, span.end);
        Some(match opened {
            Ok(walk) => {
                self.next = position;
                self.walk = Some(walk);
                Ok(())
            }
            Err(source) => {
                // The next call goes on behind this segment.
                self.next = Position::new(span.number, span.end);
                Err(ReadError::Disk { position, source })
            }
        })
    }

    fn advance(&mut self) -> Option<Result<Replayed, ReadError>> {
        let walk = self.walk.as_mut()?;
        let segment = walk.number;
        loop {
            let at = walk.offset;
            match walk.step() {
                Ok(Step::Frame { offset, header, payload }) => {
                    let Some(frame) = frame(header, payload) else { continue };
                    let next = Position::new(segment, walk.offset);
                    self.next = next;
                    return Some(Ok(Replayed::Frame { position: Position::new(segment, offset), next, frame }));
                }
                Ok(Step::End) => {
                    self.next = Position::new(segment, walk.end);
                    self.walk = None;
                    return None;
                }
                Ok(Step::Bad) | Err(_) => {}
            }
            let known = self.catalog.span(segment).and_then(|span| span.hole_end(at));
            if let Some(end) = known {
                walk.seek(end);
                continue;
            }
            walk.skip_bad();
            return Some(Ok(Replayed::Damaged { segment }));
        }
    }
}

impl Iterator for Replay {
    type Item = Result<Replayed, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.walk.is_none()
                && let Err(error) = self.enter()?
            {
                return Some(Err(error));
            }
            if let Some(entry) = self.advance() {
                return Some(entry);
            }
        }
    }
}
