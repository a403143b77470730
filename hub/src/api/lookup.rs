//! `GET /v1/lookup`: everything that the hub has of a receipt, an order, a correlation or trace id, or a document's id, and the exceptions
//! about it.
//!
//! Invariant: oldest first, bounded and paged. A receipt's answer also holds what names it by its `transaction_link`: returns, and the
//! void that reverses it.

use std::sync::Arc;

use axum::extract::{Query, State};
use counterfoil_proto::record::{identity_of_document, identity_of_transaction};
use serde::{Deserialize, Serialize};

use super::records::{Line, line};
use super::{Answer, Problem, Sources, answers};
use crate::env;
use crate::ledger::{By, LookupQuery};

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 500;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    receipt: Option<String>,
    order: Option<String>,
    trace: Option<String>,
    document_id: Option<String>,
    store: Option<String>,
    after: Option<u64>,
    limit: Option<usize>,
}

#[derive(Serialize)]
struct Answered<'a> {
    records: Vec<Looked<'a>>,
    /// About the records of this page, oldest first.
    exceptions: Vec<answers::ExceptionAnswer>,
    /// Goes into `after` of the next call; missing at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_after: Option<u64>,
}

#[derive(Serialize)]
struct Looked<'a> {
    /// Whether it has its position; what has none yet is not in the totals.
    posted: bool,
    #[serde(flatten)]
    line: Line<'a>,
}

pub(super) async fn get(
    State(sources): State<Arc<Sources>>,
    query: Result<Query<Asked>, axum::extract::rejection::QueryRejection>,
) -> Answer {
    let wrong = || {
        Problem::query(
            "one of receipt (workstation/business day/number), order, trace and document_id; and store, after, limit",
        )
    };
    let Query(asked) = query.map_err(|_| wrong())?;
    let by = match (asked.receipt, asked.order, asked.trace, asked.document_id) {
        (Some(receipt), None, None, None) => By::Identity(identity_of_receipt(&receipt).ok_or_else(wrong)?),
        (None, Some(order_id), None, None) => By::Order(order_id),
        (None, None, Some(text), None) => By::Trace(text),
        (None, None, None, Some(document_id)) => By::Identity(identity_of_document(&document_id)),
        _ => return Err(wrong()),
    };
    let limit = asked.limit.unwrap_or(LIMIT_DEFAULT).clamp(1, LIMIT_MAX);
    let query = LookupQuery { by, store_id: asked.store, after: asked.after.unwrap_or(0), limit };
    let found = sources.ledger.lookup(&query).await?;
    let now = env::wall().0;
    let looked = |entry| Looked { posted: entry_is_posted(entry), line: line(entry) };
    let answer = Answered {
        records: found.entries.iter().map(looked).collect(),
        exceptions: found.exceptions.into_iter().map(|view| answers::exception(view, now)).collect(),
        next_after: found.entries.last().filter(|_| found.more).map(|entry| entry.position),
    };
    Ok(super::json(&answer))
}

const fn entry_is_posted(entry: &crate::ledger::EntryView) -> bool {
    entry.position > 0
}

/// `3/2026-11-23/1187`, and `3/2026-11-23/1187/1` where the till's counter began anew that day. A till's name may have a slash in it.
fn identity_of_receipt(text: &str) -> Option<String> {
    let is_day = |text: &str| text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok();
    let parts: Vec<&str> = text.rsplitn(4, '/').collect();
    let (till, day, number, sequence_epoch) = match parts.as_slice() {
        [epoch, number, day, till] if is_day(day) => ((*till).to_owned(), *day, *number, epoch.parse().ok()?),
        [number, day, till] if is_day(day) => ((*till).to_owned(), *day, *number, 0),
        [number, day, tail, head] if is_day(day) => (format!("{head}/{tail}"), *day, *number, 0),
        _ => return None,
    };
    (!till.is_empty())
        .then(|| number.parse().ok())
        .flatten()
        .map(|number| identity_of_transaction(&till, day, number, sequence_epoch))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_is_named_by_its_till_day_and_number() {
        let of = |text: &str| identity_of_receipt(text);
        assert_eq!(of("3/2026-11-23/1187").as_deref(), Some("t/3/2026-11-23/1187/0"));
        assert_eq!(of("3/2026-11-23/1187/2").as_deref(), Some("t/3/2026-11-23/1187/2"));
        assert_eq!(of("hall/3/2026-11-23/1187").as_deref(), Some("t/hall/3/2026-11-23/1187/0"));
        for text in
            ["", "3", "3/1187", "3/2026-11-23", "3/2026-11-23/x", "3/2026-13-23/1", "/2026-11-23/1", "3/2026-11-23/1/x"]
        {
            assert_eq!(of(text), None, "{text}");
        }
    }
}
