//! Reading a body: whole, bounded in bytes and in time, and counted against what all bodies together may take.
//!
//! Invariant: a body holds memory only for bytes that have come, so that a stated length buys nothing; the count is given back when the
//! [`Held`] body is dropped, which is after its answer. What is in a body is deliberately not known here.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::HeaderMap;
use axum::http::header::EXPECT;
use bytes::BytesMut;
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::admit::body_too_large;
use super::connection::{Phase, PhaseCell};
use super::reply::{Problem, problems};

/// Bytes of each body that are not counted: an ordinary sale. So honest tills get through while large bodies wait for room;
/// `ingress.connections_max` bounds their sum.
const FREE_BYTES: usize = 16 * 1024;

/// What a body must bring within [`PROGRESS_WITHIN`], or end.
const PROGRESS_BYTES: usize = 1024;
const PROGRESS_WITHIN: Duration = Duration::from_secs(5);

/// How much of a body that will not be taken is read all the same, so that the peer, which writes before it reads, sees the answer
/// instead of a reset.
const DISCARD_BYTES_MAX: usize = 8 * 1024 * 1024;
const DISCARD_WITHIN: Duration = Duration::from_secs(2);

/// The same of a peer that asks for too much already; who sends more may see its connection closed instead of the answer.
const DISCARD_SLOWLY_BYTES_MAX: usize = 64 * 1024;

/// Bounds of one body, and the count of all of them.
#[derive(Clone, Debug)]
pub struct BodyBounds {
    /// Bytes of one body.
    pub bytes_max: usize,
    /// For one whole body.
    pub within: Duration,
    room: Arc<Semaphore>,
}

/// A whole body, and its share of the count.
#[derive(Debug)]
pub struct Held {
    /// The body.
    pub bytes: Bytes,
    /// Given back on drop.
    pub share: Option<OwnedSemaphorePermit>,
}

impl BodyBounds {
    /// Bounds of bodies that together may have `all_bytes_max` beyond what is free.
    pub fn new(bytes_max: usize, all_bytes_max: usize, within: Duration) -> Self {
        Self { bytes_max, within, room: Arc::new(Semaphore::new(all_bytes_max.min(Semaphore::MAX_PERMITS))) }
    }

    /// Reads the body.
    pub async fn read(&self, mut body: Body, phase: &PhaseCell) -> Result<Held, Problem> {
        phase.enter(Phase::Body);
        let end = Instant::now() + self.within;
        let mut progress = Progress { by: (Instant::now() + PROGRESS_WITHIN).min(end), bytes: 0 };
        let mut first = Bytes::new();
        let mut gathered = BytesMut::new();
        let mut share: Option<OwnedSemaphorePermit> = None;
        loop {
            let frame = match timeout_at(progress.by, body.frame()).await {
                Err(_) => {
                    return Err(problems::SLOW_BODY
                        .detail("The body did not come in time. Nothing was appended; send the same again"));
                }
                Ok(None) => break,
                Ok(Some(Err(_))) => {
                    return Err(problems::UNREADABLE_BODY.detail("The body ended early or its framing is wrong"));
                }
                Ok(Some(Ok(frame))) => frame,
            };
            let Ok(data) = frame.into_data() else { continue };
            let bytes = first.len() + gathered.len() + data.len();
            if bytes > self.bytes_max {
                discard(body).await;
                return Err(body_too_large(self.bytes_max));
            }
            if !self.make_room(&mut share, bytes) {
                discard(body).await;
                return Err(problems::BUSY
                    .detail("Too many large bodies are at work. Nothing was appended; send the same again"));
            }
            progress.made(data.len(), end);
            if first.is_empty() && gathered.is_empty() {
                first = data; // Most bodies are one frame, and need no copy.
            } else {
                gathered.extend_from_slice(&std::mem::take(&mut first));
                gathered.extend_from_slice(&data);
            }
        }
        phase.enter(Phase::Answering);
        let bytes = if gathered.is_empty() { first } else { gathered.freeze() };
        Ok(Held { bytes, share })
    }

    fn make_room(&self, share: &mut Option<OwnedSemaphorePermit>, bytes: usize) -> bool {
        let counted = bytes.saturating_sub(FREE_BYTES);
        let held = share.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let Some(missing) = counted.checked_sub(held).filter(|missing| *missing > 0) else { return true };
        let Ok(missing) = u32::try_from(missing) else { return false };
        match Arc::clone(&self.room).try_acquire_many_owned(missing) {
            Ok(more) => {
                match share {
                    Some(share) => share.merge(more),
                    None => *share = Some(more),
                }
                true
            }
            Err(_) => false,
        }
    }
}

/// What has come in the running stretch, and when it must be enough.
struct Progress {
    by: Instant,
    bytes: usize,
}

impl Progress {
    fn made(&mut self, bytes: usize, end: Instant) {
        self.bytes += bytes;
        if self.bytes >= PROGRESS_BYTES {
            self.bytes = 0;
            self.by = (Instant::now() + PROGRESS_WITHIN).min(end);
        }
    }
}

/// Reads and forgets the rest of a body, within bounds.
pub async fn discard(mut body: Body) {
    let end = Instant::now() + DISCARD_WITHIN;
    let mut bytes = 0;
    while let Ok(Some(Ok(frame))) = timeout_at(end, body.frame()).await {
        bytes += frame.data_ref().map_or(0, Bytes::len);
        if bytes > DISCARD_BYTES_MAX {
            return;
        }
    }
}

/// The same for a request that is answered from its head alone; who waits for leave to send a body is not given it. Who is slow about it
/// is at work on its body like everybody, and makes room when that is needed.
pub async fn discard_unasked(headers: &HeaderMap, body: Body, phase: &PhaseCell) {
    phase.enter(Phase::Body);
    if !headers.contains_key(EXPECT) {
        discard(body).await;
    }
}

/// Reads a little of a body that will not be taken, and waits until the time has come to say so.
pub async fn discard_slowly(mut body: Body, until: Instant) {
    let mut bytes = 0;
    while bytes < DISCARD_SLOWLY_BYTES_MAX {
        let Ok(Some(Ok(frame))) = timeout_at(until, body.frame()).await else { break };
        bytes += frame.data_ref().map_or(0, Bytes::len);
    }
    tokio::time::sleep_until(until).await;
}
