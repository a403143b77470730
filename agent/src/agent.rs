//! How everybody else asks the owner of journal and state: the handle, the requests it sends, and the inbox on the other side.
//!
//! Invariant: a request is either refused at once ([`Refused::Busy`], nothing was appended) or answered by the owner; a
//! reply that the owner drops means that nobody knows ([`Refused::Unanswered`]), and no till is told otherwise. Nothing here
//! waits for room in the channel: who finds it full says so to the till, which has a retry loop and we have none.
//! This module deliberately does not know HTTP.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use counterfoil_proto::message::Mark;
use counterfoil_proto::record::Prepared;
use counterfoil_proto::record::flag::{Change, Class, Severity};
use counterfoil_proto::time::WallTime;
use tokio::sync::{mpsc, oneshot, watch};

use crate::answer::{
    DayAnswer, ExceptionAnswer, Forecast, Outcome, ReceiptAnswer, Refused, Standing, Status, StockAnswer,
};

mod group;
mod judge;
mod notes;
mod open;
mod owner;
#[cfg(test)]
mod owner_tests;
mod report;

pub use owner::{Ground, Owner, PositionsSnapshot};

/// Where the owner puts the answer to one request.
pub type Reply<T> = oneshot::Sender<Result<T, Refused>>;

/// What the owner can be asked.
#[derive(Debug)]
pub enum Request {
    /// Append documents, answer after the sync; outcomes stand in the order of the documents.
    Submit {
        /// What to append.
        documents: Vec<Prepared>,
        /// One outcome per document.
        reply: Reply<Vec<Outcome>>,
    },
    /// Say what would become of documents, and append nothing.
    Forecast {
        /// What to judge.
        documents: Vec<Prepared>,
        /// One forecast per document.
        reply: Reply<Vec<Forecast>>,
    },
    /// Stock of an item; `None` for one that no record names.
    Stock {
        /// The item.
        item_id: String,
        /// The answer.
        reply: Reply<Option<StockAnswer>>,
    },
    /// The receipt of an identity or alias.
    Receipt {
        /// As `record::identity_of_transaction` or `record::identity_of_document` makes it.
        identity: String,
        /// The answer.
        reply: Reply<Option<ReceiptAnswer>>,
    },
    /// Running totals of a business day.
    Day {
        /// `YYYY-MM-DD`.
        business_day_date: String,
        /// The answer.
        reply: Reply<DayAnswer>,
    },
    /// Exceptions.
    Exceptions {
        /// Also those that ended and are still known.
        all: bool,
        /// The answer.
        reply: Reply<Vec<ExceptionAnswer>>,
    },
    /// Open exceptions by code, and how today stands.
    Tally {
        /// The answer.
        reply: Reply<Tally>,
    },
    /// Journal an `exception_change`; `None` for an id that is not known.
    ChangeException {
        /// Which.
        id: String,
        /// What was done about it.
        change: Change,
        /// Who.
        by: String,
        /// Why.
        reason: String,
        /// The exception as it then is.
        reply: Reply<Option<ExceptionAnswer>>,
    },
    /// Stock on hand of everything, for the hub.
    Positions {
        /// The answer.
        reply: Reply<PositionsSnapshot>,
    },
    /// What the hub said in this session.
    Marks {
        /// One per lane.
        marks: Vec<Mark>,
    },
    /// A reader met damaged bytes.
    Damaged {
        /// In this segment.
        segment: u32,
    },
    /// The hub was away and is back.
    Outage {
        /// The last word before.
        from: WallTime,
        /// The first word after.
        until: WallTime,
        /// Between them, by the monotonic clock.
        duration_ms: u64,
    },
    /// Another part noticed something that a person must see.
    Finding {
        /// Its code.
        code: &'static str,
        /// What is known of it.
        document: serde_json::Value,
    },
    /// Write and sync something that is no record: proof that this thread turns and its disk keeps.
    Probe {
        /// The answer, after the sync.
        reply: Reply<()>,
    },
    /// Half a second went by.
    Tick,
}

/// How everybody else asks the agent.
#[derive(Clone, Debug)]
pub struct AgentHandle {
    requests: mpsc::Sender<Request>,
    status: watch::Receiver<Arc<Status>>,
    refusals: Arc<Refusals>,
    spooled: Arc<Spooled>,
}

/// The owner's side of the handles. When every handle is dropped, `requests` ends.
#[derive(Debug)]
pub struct Inbox {
    /// What was asked, in order.
    pub requests: mpsc::Receiver<Request>,
    /// Where the owner publishes its newest snapshot.
    pub status: watch::Sender<Arc<Status>>,
    /// Documents that were refused before they reached the owner.
    pub refusals: Arc<Refusals>,
}

/// A handle and the inbox it leads to, with room for `requests_max` waiting requests.
pub fn channel(requests_max: usize, status: Status) -> (AgentHandle, Inbox) {
    let (requests_in, requests) = mpsc::channel(requests_max.max(1));
    let (status, status_out) = watch::channel(Arc::new(status));
    let refusals = Arc::new(Refusals::default());
    let handle = AgentHandle {
        requests: requests_in,
        status: status_out,
        refusals: Arc::clone(&refusals),
        spooled: Arc::default(),
    };
    (handle, Inbox { requests, status, refusals })
}

impl AgentHandle {
    /// Appends documents; answers after the sync. Outcomes stand in the order of the documents.
    pub async fn submit(&self, documents: Vec<Prepared>) -> Result<Vec<Outcome>, Refused> {
        self.ask(|reply| Request::Submit { documents, reply }).await
    }

    /// Says what would become of documents if they were submitted now, one after the other; appends nothing.
    pub async fn forecast(&self, documents: Vec<Prepared>) -> Result<Vec<Forecast>, Refused> {
        self.ask(|reply| Request::Forecast { documents, reply }).await
    }

    /// `None` for an item that no record names.
    pub async fn stock(&self, item_id: String) -> Result<Option<StockAnswer>, Refused> {
        self.ask(|reply| Request::Stock { item_id, reply }).await
    }

    /// By identity (or alias), as `record::identity_of_transaction` / `record::identity_of_document` make it.
    pub async fn receipt(&self, identity: String) -> Result<Option<ReceiptAnswer>, Refused> {
        self.ask(|reply| Request::Receipt { identity, reply }).await
    }

    /// What this agent counted on that day, and what was declared.
    pub async fn day(&self, business_day_date: String) -> Result<DayAnswer, Refused> {
        self.ask(|reply| Request::Day { business_day_date, reply }).await
    }

    /// Open ones; with `all` also those that ended and are still known.
    pub async fn exceptions(&self, all: bool) -> Result<Vec<ExceptionAnswer>, Refused> {
        self.ask(|reply| Request::Exceptions { all, reply }).await
    }

    /// What metrics count on demand.
    pub async fn tally(&self) -> Result<Tally, Refused> {
        self.ask(|reply| Request::Tally { reply }).await
    }

    /// Journals an `exception_change`; `None` for an id that is not known.
    pub async fn change_exception(
        &self,
        id: String,
        change: Change,
        by: String,
        reason: String,
    ) -> Result<Option<ExceptionAnswer>, Refused> {
        self.ask(|reply| Request::ChangeException { id, change, by, reason, reply }).await
    }

    /// Stock on hand of everything. Waits for room, unlike what tills ask: the uplink has nobody else to go to.
    pub(crate) async fn positions(&self) -> Result<PositionsSnapshot, Refused> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::Positions { reply }).await.map_err(|_| Refused::Stopping)?;
        answer.await.unwrap_or(Err(Refused::Unanswered))
    }

    /// A test commit: answers when the owner's thread wrote and synced something that is no record. Waits for room.
    pub(crate) async fn probe(&self) -> Result<(), Refused> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::Probe { reply }).await.map_err(|_| Refused::Stopping)?;
        answer.await.unwrap_or(Err(Refused::Unanswered))
    }

    /// Hands over what the hub said.
    pub(crate) async fn marks(&self, marks: Vec<Mark>) {
        self.tell(Request::Marks { marks }).await;
    }

    /// Says that a reader met damaged bytes.
    pub(crate) async fn damaged(&self, segment: u32) {
        self.tell(Request::Damaged { segment }).await;
    }

    /// Says that the hub was away.
    pub(crate) async fn outage(&self, from: WallTime, until: WallTime, duration_ms: u64) {
        self.tell(Request::Outage { from, until, duration_ms }).await;
    }

    /// Journals what nobody else notices, with its code, which opens an exception.
    pub(crate) async fn finding(&self, code: &'static str, document: serde_json::Value) {
        self.tell(Request::Finding { code, document }).await;
    }

    /// Says that time went by; skipped while the owner is busy.
    pub(crate) fn tick(&self) -> Result<(), Refused> {
        match self.requests.try_send(Request::Tick) {
            Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(Refused::Stopping),
        }
    }

    async fn tell(&self, request: Request) {
        if self.requests.send(request).await.is_err() {
            tracing::debug!("the owner is gone; what the hub said is asked for again at the next start");
        }
    }

    /// Counts documents that were refused, for metrics and for the bounded technical exception; never waits.
    pub fn count_refused(&self, problem: &'static str) {
        self.refusals.count(problem);
    }

    /// What was refused so far, by problem.
    pub fn refused(&self) -> BTreeMap<&'static str, u64> {
        self.refusals.counts()
    }

    /// What the spool counts; without one, all of it stays at zero.
    pub fn spooled(&self) -> &Spooled {
        &self.spooled
    }

    /// The newest snapshot; never waits.
    pub fn status(&self) -> Arc<Status> {
        Arc::clone(&self.status.borrow())
    }

    /// Whether somebody owns journal and state.
    pub fn is_alive(&self) -> bool {
        !self.requests.is_closed()
    }

    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, Refused> {
        let (reply, answer) = oneshot::channel();
        self.requests.try_send(request(reply)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Refused::Busy,
            mpsc::error::TrySendError::Closed(_) => Refused::Stopping,
        })?;
        answer.await.unwrap_or(Err(Refused::Unanswered))
    }
}

/// What metrics count on demand, since it takes a look at every exception.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// By code.
    pub exceptions: Vec<OpenExceptions>,
    /// How today's close stands.
    pub today: Standing,
}

/// Open exceptions of one code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenExceptions {
    /// Stable; `other` for all codes of software that this one does not know.
    pub code: &'static str,
    /// Who has to look.
    pub class: Class,
    /// How much it matters.
    pub severity: Severity,
    /// The queue of those who deal with it.
    pub owner: &'static str,
    /// How many.
    pub open: u64,
    /// Seconds since the oldest was found.
    pub oldest_s: u64,
}

/// Figures of the spool since the start, without a lock.
#[derive(Debug, Default)]
pub struct Spooled {
    /// Files that were taken.
    pub taken: AtomicU64,
    /// Files of which something was refused, or nothing was found in them.
    pub refused: AtomicU64,
    /// Documents in files that were answered, whatever the answer.
    pub documents: AtomicU64,
    /// Files whose name was not UTF-8; they are taken under a name that is.
    pub renamed: AtomicU64,
    /// Finished files that are not answered yet.
    pub waiting: AtomicU64,
    /// Age of the oldest of them, in seconds, at the last look.
    pub oldest_age_s: AtomicU64,
}

/// Problems that can be told apart; there are about thirty in the program, and what comes after counts as `other`.
const PROBLEMS_MAX: usize = 128;

/// How often documents were refused, by problem, without a lock. Names are the program's own, so nobody outside can make
/// more of them.
#[derive(Debug)]
pub struct Refusals {
    named: [(OnceLock<&'static str>, AtomicU64); PROBLEMS_MAX],
    other: AtomicU64,
}

impl Default for Refusals {
    fn default() -> Self {
        Self { named: std::array::from_fn(|_| (OnceLock::new(), AtomicU64::new(0))), other: AtomicU64::new(0) }
    }
}

impl Refusals {
    /// Counts one.
    pub fn count(&self, problem: &'static str) {
        let counter = self.named.iter().find(|(name, _)| *name.get_or_init(|| problem) == problem);
        counter.map_or(&self.other, |(_, counter)| counter).fetch_add(1, Ordering::Relaxed);
    }

    /// All counts since the start.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        let named = self.named.iter().filter_map(|(name, count)| Some((*name.get()?, count.load(Ordering::Relaxed))));
        let other = self.other.load(Ordering::Relaxed);
        named.chain((other > 0).then_some(("other", other))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn a_full_inbox_is_busy_a_dropped_reply_is_unanswered_a_closed_one_is_stopping() {
        let (handle, mut inbox) = channel(1, Status::default());
        let waiting = tokio::spawn({
            let handle = handle.clone();
            async move { handle.exceptions(false).await }
        });
        tokio::task::yield_now().await;
        assert_eq!(handle.exceptions(true).await, Err(Refused::Busy));
        drop(inbox.requests.recv().await.unwrap());
        assert_eq!(waiting.await.unwrap(), Err(Refused::Unanswered));
        drop(inbox);
        assert_eq!(handle.exceptions(true).await, Err(Refused::Stopping));
    }

    #[test]
    fn refusals_count_by_problem() {
        let refusals = Refusals::default();
        refusals.count("missing-field");
        refusals.count("wrong-type");
        refusals.count("missing-field");
        assert_eq!(refusals.counts(), BTreeMap::from([("missing-field", 2), ("wrong-type", 1)]));
    }
}
