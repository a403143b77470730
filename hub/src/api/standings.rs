//! How the days of all stores stand, looked at now and then: what metrics tell of reconciliation.
//!
//! Invariant: nobody who asks for metrics waits for it, and the ledger is asked for one store at a time. What is told may be as old as the
//! interval.

use std::sync::Arc;
use std::time::Duration;

use counterfoil_proto::time::WallTime;
use tokio::sync::watch;

use super::reconciliation;
use crate::env;
use crate::ledger::{Ledger, LedgerError};
use crate::reconcile::Verdict;
use crate::run::stopped;

/// A day of a thousand stores takes a ledger some seconds of work.
const INTERVAL: Duration = Duration::from_mins(5);
const DAY_MS: i64 = 86_400_000;

/// How a day of a store stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DayStanding {
    /// The store.
    pub store_id: String,
    /// `today` or `yesterday`, by UTC.
    pub day: &'static str,
    /// How it stands.
    pub status: Verdict,
}

/// Looks until `stop`, and puts what was found where metrics find it.
pub(crate) async fn run(
    ledger: Arc<dyn Ledger>,
    found: watch::Sender<Vec<DayStanding>>,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        match look(&*ledger, env::wall()).await {
            Ok(standings) => drop(found.send_replace(standings)),
            Err(error) => {
                // What is old would be taken for new.
                found.send_replace(Vec::new());
                tracing::warn!(%error, "How the stores' days stand is not known");
            }
        }
        if env::within(INTERVAL, stopped(&mut stop)).await.is_some() {
            return;
        }
    }
}

async fn look(ledger: &dyn Ledger, now: WallTime) -> Result<Vec<DayStanding>, LedgerError> {
    let mut standings = Vec::new();
    for (day, at) in [("today", now.0), ("yesterday", now.0.saturating_sub(DAY_MS))] {
        let date: String = WallTime(at).to_rfc3339().chars().take(10).collect();
        for store_id in ledger.stores_of_day(&date).await? {
            let status = reconciliation::status(&store_id, &date, &ledger.day(&store_id, &date).await?);
            standings.push(DayStanding { store_id, day, status });
        }
    }
    Ok(standings)
}
