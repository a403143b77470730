//! The owner of journal and state: one thread, asked through [`AgentHandle`].
//! (Skeleton: signatures that ingress and uplink are written against.)

use std::sync::Arc;

use counterfoil_proto::record::Prepared;

use crate::answer::{DayAnswer, ExceptionAnswer, Outcome, ReceiptAnswer, Refused, Status, StockAnswer};

/// How everybody else asks the agent.
#[derive(Clone, Debug)]
pub struct AgentHandle {}

#[allow(unused_variables, clippy::unused_async, clippy::allow_attributes_without_reason, missing_docs)]
impl AgentHandle {
    /// Appends documents; answers after the sync. Outcomes stand in the order of the documents.
    pub async fn submit(&self, documents: Vec<Prepared>) -> Result<Vec<Outcome>, Refused> {
        Err(Refused::Stopping)
    }
    /// `None` for an item that no record names.
    pub async fn stock(&self, item_id: String) -> Result<Option<StockAnswer>, Refused> {
        Err(Refused::Stopping)
    }
    /// By identity (or alias), as `record::identity_of_transaction` / `record::identity_of_document` make it.
    pub async fn receipt(&self, identity: String) -> Result<Option<ReceiptAnswer>, Refused> {
        Err(Refused::Stopping)
    }
    pub async fn day(&self, business_day_date: String) -> Result<DayAnswer, Refused> {
        Err(Refused::Stopping)
    }
    /// Open ones; with `all` also those that were resolved and are still known.
    pub async fn exceptions(&self, all: bool) -> Result<Vec<ExceptionAnswer>, Refused> {
        Err(Refused::Stopping)
    }
    /// Journals an `exception_change`; `None` for an id that is not known.
    pub async fn resolve_exception(&self, id: String, by: String, reason: String) -> Result<Option<ExceptionAnswer>, Refused> {
        Err(Refused::Stopping)
    }
    /// Counts documents that were refused, for metrics and for the bounded technical exception; never waits.
    pub fn count_refused(&self, problem: &'static str) {}
    /// The newest snapshot; never waits.
    pub fn status(&self) -> Arc<Status> {
        Arc::default()
    }
}
