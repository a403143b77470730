//! Reading lanes on another thread, with own file handles, while the writer appends and gives back.
//!
//! Invariant: only synced records are handed out, in order, each checked. Bad bytes are called damage only when the segment is still in the
//! catalog: a file that was given back and is written anew under a reader is not damaged. Not known here: what is done about damage.

use std::io;
use std::sync::Arc;

use counterfoil_proto::id::{Chain, Digest, LaneKey, Seq};
use tokio::sync::watch;

use super::catalog::Catalog;
use super::disk::Disk;
use super::frame::Kind;
use super::limits::READER_PLACES_MAX;
use super::types::{EpochView, Gone, Position, ReadError};
use super::walk::{Step, Walk};

/// Bytes read at once while a chain is followed.
const CHAIN_READ_BYTES: usize = 1024 * 1024;

/// What a reader found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// Records without a hole, from `first` on; at least one.
    Records {
        /// The number of the first.
        first: Seq,
        /// Their stored bytes.
        stored: Vec<Vec<u8>>,
    },
    /// Bytes are damaged: tell the journal (`handle_damage`), then read again.
    Damaged {
        /// The segment.
        segment: u32,
    },
    /// The range that holds the wanted record is lost.
    Gone(Gone),
    /// Nothing there yet.
    NotYet,
    /// Given back. What is retained of the lane, if anything, begins at `first`, with the chain before it.
    Reclaimed {
        /// The first number that is there.
        first: Seq,
        /// The chain before it.
        before: Option<Chain>,
    },
}

/// The journal is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("The journal is closed")]
pub struct Closed;

/// Where reading of one lane goes on.
#[derive(Debug)]
struct Place {
    key: LaneKey,
    next: Seq,
    walk: Walk,
    used: u64,
}

/// Reads synced records on another thread.
#[derive(Debug)]
pub struct Reader {
    disk: Arc<dyn Disk>,
    catalog: watch::Receiver<Arc<Catalog>>,
    places: Vec<Place>,
    calls: u64,
}

impl Clone for Reader {
    /// A reader of the same journal that has no place yet.
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.disk), self.catalog.clone())
    }
}

enum Reached {
    Records(Vec<Vec<u8>>),
    /// A later record of the lane, or the end of the log, where the wanted one should have been; or bad bytes.
    Missing,
    /// The segment under the walk is no longer what it was.
    Stale,
}

impl Reader {
    pub(crate) const fn new(disk: Arc<dyn Disk>, catalog: watch::Receiver<Arc<Catalog>>) -> Self {
        Self { disk, catalog, places: Vec::new(), calls: 0 }
    }

    /// The epochs and lanes as of the last commit.
    pub fn lanes(&self) -> Vec<EpochView> {
        self.current().views()
    }

    /// The last number of a lane.
    pub fn last(&self, key: LaneKey) -> Seq {
        self.current().last(key)
    }

    /// The end of what is synced.
    pub fn end(&self) -> Position {
        self.current().end()
    }

    /// Waits until something was committed, given back or found damaged since the last call.
    pub async fn changed(&mut self) -> Result<(), Closed> {
        self.catalog.changed().await.map_err(|_| Closed)
    }

    fn current(&self) -> Arc<Catalog> {
        Arc::clone(&self.catalog.borrow())
    }

    /// Records of a lane from `from` on: at least one, then up to either bound.
    pub fn read(&mut self, key: LaneKey, from: Seq, records_max: usize, bytes_max: usize) -> Result<Read, ReadError> {
        let from = from.max(Seq::FIRST);
        self.calls += 1;
        // A segment may be given back between looking at the catalog and opening its file; each round looks anew.
        for _ in 0..8 {
            let catalog = self.current();
            if let Some(gone) = catalog.gone(key, from) {
                return Ok(Read::Gone(gone));
            }
            if from > catalog.last(key) {
                return Ok(Read::NotYet);
            }
            let Some(mut place) = self.place(&catalog, key, from)? else {
                if catalog.seek(key, from).is_some() {
                    continue;
                }
                let (first, before) = catalog.first(key);
                return Ok(Read::Reclaimed { first, before });
            };
            let reached = self.collect(&catalog, &mut place, records_max, bytes_max)?;
            match reached {
                Reached::Records(stored) => {
                    place.used = self.calls;
                    self.keep(place);
                    return Ok(Read::Records { first: from, stored });
                }
                Reached::Missing => {
                    // The segment that should hold it, which is not where the walk ended if it only met a hole there.
                    let Some((should, _)) = catalog.seek(key, from) else { continue };
                    let now = self.current();
                    if now.span(should.number).is_some() && now.gone(key, from).is_none() {
                        return Ok(Read::Damaged { segment: should.number });
                    }
                }
                Reached::Stale => {}
            }
        }
        // Its segment is in the catalog all the while, and its file is not there.
        Ok(match self.current().seek(key, from) {
            Some((span, _)) => Read::Damaged { segment: span.number },
            None => Read::NotYet,
        })
    }

    /// The chain after a record; `None` where damage hides it, it was given back, or it is not there yet.
    pub fn chain(&mut self, key: LaneKey, seq: Seq) -> Result<Option<Chain>, ReadError> {
        let Some((mut at, mut chain)) = self.current().chain_point(key, seq) else { return Ok(None) };
        while at < seq {
            let records_max = usize::try_from(seq.above(at)).unwrap_or(usize::MAX);
            match self.read(key, at.next(), records_max, CHAIN_READ_BYTES)? {
                Read::Records { stored, .. } => {
                    for bytes in stored {
                        at = at.next();
                        chain = chain.next(at, Digest::of(&bytes));
                    }
                }
                Read::Damaged { .. } | Read::Gone(_) | Read::NotYet | Read::Reclaimed { .. } => return Ok(None),
            }
        }
        Ok(Some(chain))
    }

    /// Takes out the place kept for the lane, or makes one; `None` where the record is in no segment or its file just went away.
    fn place(&mut self, catalog: &Catalog, key: LaneKey, from: Seq) -> Result<Option<Place>, ReadError> {
        if let Some(index) = self.places.iter().position(|place| place.key == key) {
            let place = self.places.swap_remove(index);
            // A number is never given to another segment.
            if place.next == from && catalog.span(place.walk.number).is_some() {
                return Ok(Some(place));
            }
        }
        let Some((span, offset)) = catalog.seek(key, from) else { return Ok(None) };
        match Walk::open(self.disk.as_ref(), span.number, span.nonce, offset, span.end) {
            Ok(walk) => Ok(Some(Place { key, next: from, walk, used: self.calls })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(ReadError::Disk { position: Position::new(span.number, offset), source }),
        }
    }

    fn keep(&mut self, place: Place) {
        if self.places.len() >= READER_PLACES_MAX
            && let Some(oldest) = (0..self.places.len()).min_by_key(|index| self.places[*index].used)
        {
            self.places.swap_remove(oldest);
        }
        self.places.push(place);
    }

    fn collect(
        &self,
        catalog: &Catalog,
        place: &mut Place,
        records_max: usize,
        bytes_max: usize,
    ) -> Result<Reached, ReadError> {
        let mut stored: Vec<Vec<u8>> = Vec::new();
        let mut bytes = 0;
        let last = catalog.last(place.key);
        let Some(mut span) = catalog.span(place.walk.number) else { return Ok(Reached::Stale) };
        place.walk.end = span.end;
        while place.next <= last && stored.len() < records_max.max(1) {
            let before = place.walk.offset;
            let step = match place.walk.step() {
                Ok(step) => step,
                // An unreadable sector is damage; whatever else it is, the segment's check will say.
                Err(_) => Step::Bad,
            };
            match step {
                Step::Frame { header, payload, .. } => {
                    let is_ours =
                        header.kind == Kind::Record && header.epoch == place.key.epoch && header.lane == place.key.lane;
                    if !is_ours || header.seq < place.next.0 {
                        continue;
                    }
                    if header.seq > place.next.0 {
                        place.walk.seek(before);
                        break;
                    }
                    if !stored.is_empty() && bytes + payload.len() > bytes_max {
                        place.walk.seek(before);
                        break;
                    }
                    bytes += payload.len();
                    stored.push(payload.to_vec());
                    place.next = place.next.next();
                }
                Step::Bad => match span.hole_end(before) {
                    Some(end) => place.walk.seek(end),
                    None => break,
                },
                Step::End => match catalog.span_after(place.walk.number) {
                    Some(next) => {
                        match Walk::open(self.disk.as_ref(), next.number, next.nonce, next.header_bytes, next.end) {
                            Ok(walk) => (place.walk, span) = (walk, next),
                            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                            Err(source) => {
                                return Err(ReadError::Disk {
                                    position: Position::new(next.number, next.header_bytes),
                                    source,
                                });
                            }
                        }
                    }
                    None => break,
                },
            }
        }
        if stored.is_empty() {
            return Ok(Reached::Missing);
        }
        Ok(Reached::Records(stored))
    }
}
