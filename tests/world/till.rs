//! A till: it sends its documents one after the other, writes every receipt down, and asks again as the contract says it must.
//!
//! No answer, 429, 503, 507 and other 5xx: the same bytes again, after `Retry-After` or a growing, jittered pause. Anything else that is not a
//! success stops the till with a message. Invariant: a document counts as done when its receipt is synced in the till's own book,
//! not before; a till that starts again goes on behind what its book holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use counterfoil::answer::Receipt;
use serde::Deserialize;
use serde_json::Value;

use crate::http::{Answer, Api};
use crate::random::Random;
use crate::receipts::{BookError, ReceiptBook, Stub};
use crate::sales::{Document, TillScript};
use crate::wait::{self, Deadline};

/// The first pause before sending again.
const BACKOFF_MS_MIN: u64 = 20;
/// The longest pause that a till takes by itself.
const BACKOFF_MS_MAX: u64 = 1_000;
/// How long a till asks for one document before it gives up and says so. An agent is back within seconds after a crash.
const PATIENCE: Duration = Duration::from_mins(5);
/// Bytes of a batch; the contract allows 4 MiB.
const BATCH_BYTES_MAX: usize = 3 * 1024 * 1024;

/// How documents travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// One request for each.
    Single,
    /// NDJSON with up to so many in one request.
    Batch(usize),
}

/// What the tills of a store have done so far; shared with whoever watches.
#[derive(Debug, Default)]
pub struct Progress {
    /// Receipts that came, synced in a till's book or not yet.
    pub told: AtomicU64,
    /// Documents whose receipts are synced in a till's book.
    pub done: AtomicU64,
    /// Requests that were sent again.
    pub again: AtomicU64,
    /// Receipts that said `duplicate`.
    pub duplicates: AtomicU64,
    /// Receipts with exception codes.
    pub flagged: AtomicU64,
}

/// Why a till stopped.
#[derive(Debug, thiserror::Error)]
pub enum TillError {
    /// The agent says that the document is wrong; sending it again would not help.
    #[error(
        "Till {till}: the agent refused {key} with {status}. Correct the document or the agent, then start the till again: {body}"
    )]
    Refused {
        /// Store and workstation.
        till: String,
        /// The document, or the first of a batch.
        key: String,
        /// The HTTP status.
        status: u16,
        /// The answer, shortened.
        body: String,
    },
    /// A success that is not what the contract says.
    #[error("Till {till}: the agent's answer to {key} is not in the contract ({reason}): {body}")]
    Shape {
        /// Store and workstation.
        till: String,
        /// The document, or the first of a batch.
        key: String,
        /// What is wrong with it.
        reason: String,
        /// The answer, shortened.
        body: String,
    },
    /// No success for [`PATIENCE`].
    #[error("Till {till}: {key} got no receipt for {} s; last: {last}", PATIENCE.as_secs())]
    GaveUp {
        /// Store and workstation.
        till: String,
        /// The document, or the first of a batch.
        key: String,
        /// What the last attempt came to.
        last: String,
    },
    /// The till's own disk failed.
    #[error(transparent)]
    Book(#[from] BookError),
}

/// A till before its agent.
#[derive(Debug)]
pub struct Till {
    api: Api,
    name: String,
    book: ReceiptBook,
    mode: Mode,
    progress: Arc<Progress>,
    random: Random,
}

/// An answer to many documents.
#[derive(Deserialize)]
struct Many {
    results: Vec<One>,
}

#[derive(Deserialize)]
struct One {
    index: usize,
    /// The status that the document would have got alone.
    status: Option<u16>,
    receipt: Option<Receipt>,
    problem: Option<Value>,
}

impl Till {
    /// A till that writes its receipts into `book`.
    pub fn new(api: Api, name: &str, book: ReceiptBook, mode: Mode, progress: Arc<Progress>) -> Self {
        let random = Random::named(0, name);
        Self { api, name: name.to_owned(), book, mode, progress, random }
    }

    /// Sends everything that the book does not hold yet, then gives the book back.
    pub async fn run(mut self, script: &TillScript) -> Result<ReceiptBook, TillError> {
        let (done, open): (Vec<&Document>, Vec<&Document>) =
            script.documents.iter().partition(|document| self.book.has(&document.key));
        self.progress.done.fetch_add(done.len() as u64, Ordering::Relaxed);
        self.progress.told.fetch_add(done.len() as u64, Ordering::Relaxed);
        let mut rest = open.as_slice();
        while let Some(first) = rest.first() {
            let (batch, after) = rest.split_at(self.batch_len(first, rest));
            rest = after;
            let receipts = match self.mode {
                Mode::Single => vec![self.send_one(first).await?],
                Mode::Batch(_) => self.send_many(first, batch).await?,
            };
            self.note(batch, receipts)?;
        }
        let synced = self.book.sync()?;
        self.progress.done.fetch_add(synced as u64, Ordering::Relaxed);
        Ok(self.book)
    }

    /// How many documents go into the next request: of one call, and not too much.
    fn batch_len(&self, first: &Document, rest: &[&Document]) -> usize {
        let Mode::Batch(documents_max) = self.mode else { return 1 };
        let mut bytes = 0;
        let fits = rest.iter().take(documents_max).take_while(|document| {
            bytes += document.body.len() + 1;
            document.call == first.call && bytes <= BATCH_BYTES_MAX
        });
        fits.count().max(1)
    }

    async fn send_one(&mut self, document: &Document) -> Result<Receipt, TillError> {
        let answer = self.send(document, "application/json", document.body.as_bytes()).await?;
        serde_json::from_slice(&answer.body).map_err(|error| self.shape(document, &error.to_string(), &answer))
    }

    async fn send_many(&mut self, first: &Document, batch: &[&Document]) -> Result<Vec<Receipt>, TillError> {
        let body: String = batch.iter().flat_map(|document| [document.body.as_str(), "\n"]).collect();
        let deadline = Deadline::new(PATIENCE);
        loop {
            let answer = self.send(first, "application/x-ndjson", body.as_bytes()).await?;
            let many: Many =
                serde_json::from_slice(&answer.body).map_err(|error| self.shape(first, &error.to_string(), &answer))?;
            if many.results.len() != batch.len() {
                let reason = format!("{} results for {} documents", many.results.len(), batch.len());
                return Err(self.shape(first, &reason, &answer));
            }
            // Single documents that were not appended for now: sending the whole body again is safe.
            if many.results.iter().any(|one| one.status.is_some_and(is_for_now)) && deadline.rest().await {
                self.progress.again.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            return self.receipts(many, batch, &answer);
        }
    }

    fn receipts(&self, many: Many, batch: &[&Document], answer: &Answer) -> Result<Vec<Receipt>, TillError> {
        let mut receipts = Vec::with_capacity(batch.len());
        for (one, document) in many.results.into_iter().zip(batch) {
            match one.receipt {
                Some(receipt) if one.index == receipts.len() => receipts.push(receipt),
                Some(_) => return Err(self.shape(document, "results are not in order", answer)),
                None => {
                    let body = one.problem.map_or_else(|| answer.text(), |problem| problem.to_string());
                    let [till, key] = [self.name.clone(), document.key.clone()];
                    return Err(TillError::Refused { till, key, status: one.status.unwrap_or(answer.status), body });
                }
            }
        }
        Ok(receipts)
    }

    /// Posts until there is a success.
    async fn send(&mut self, document: &Document, content_type: &str, body: &[u8]) -> Result<Answer, TillError> {
        let start = Instant::now();
        let mut pause_ms = BACKOFF_MS_MIN;
        loop {
            let (last, retry_after) = match self.api.post(document.call.path(), content_type, body.to_vec()).await {
                Ok(answer) if answer.is_success() => return Ok(answer),
                Ok(answer) if is_for_now(answer.status) => {
                    (format!("{} {}", answer.status, answer.text()), answer.retry_after)
                }
                Ok(answer) => {
                    let [till, key] = [self.name.clone(), document.key.clone()];
                    return Err(TillError::Refused { till, key, status: answer.status, body: answer.text() });
                }
                Err(error) => (error.to_string(), None),
            };
            if start.elapsed() > PATIENCE {
                return Err(TillError::GaveUp { till: self.name.clone(), key: document.key.clone(), last });
            }
            self.progress.again.fetch_add(1, Ordering::Relaxed);
            let jittered = Duration::from_millis(pause_ms / 2 + self.random.below(pause_ms));
            wait::rest(retry_after.map_or(jittered, |asked| asked + jittered)).await;
            pause_ms = (pause_ms * 2).min(BACKOFF_MS_MAX);
        }
    }

    /// Writes receipts into the book.
    fn note(&mut self, batch: &[&Document], receipts: Vec<Receipt>) -> Result<(), TillError> {
        self.progress.told.fetch_add(receipts.len() as u64, Ordering::Relaxed);
        let mut stubs = Vec::with_capacity(receipts.len());
        for (document, receipt) in batch.iter().zip(receipts) {
            self.progress.duplicates.fetch_add(u64::from(receipt.duplicate), Ordering::Relaxed);
            self.progress.flagged.fetch_add(u64::from(!receipt.exceptions.is_empty()), Ordering::Relaxed);
            let Receipt { epoch, lane, seq, digest, .. } = receipt;
            stubs.push(Stub { key: document.key.clone(), epoch, lane, seq, digest });
        }
        let synced = self.book.put(stubs)?;
        self.progress.done.fetch_add(synced as u64, Ordering::Relaxed);
        Ok(())
    }

    fn shape(&self, document: &Document, reason: &str, answer: &Answer) -> TillError {
        let [till, key, reason] = [self.name.as_str(), document.key.as_str(), reason].map(str::to_owned);
        TillError::Shape { till, key, reason, body: answer.text() }
    }
}

/// Whether a status says that nothing was appended, and that the same may be sent again.
const fn is_for_now(status: u16) -> bool {
    status == 429 || status >= 500
}
