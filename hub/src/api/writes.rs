//! What people change over the API, and the trail of it.
//!
//! Invariant: a change and its entry in the trail are one transaction of the ledger. What is changed here is the hub's own view of an exception:
//! the box that found it, if it was a box, keeps its own until somebody settles it there.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, Query, Request, State};
use axum::response::Response;
use counterfoil_proto::record::flag::Change;
use http_body_util::{BodyExt, Limited};
use serde::{Deserialize, Serialize};

use super::problem::Problem;
use super::routes::Caller;
use super::{Answer, Sources, answers, json, rfc3339};
use crate::env;

/// Characters of a name or a reason.
const REMARK_CHARS_MAX: usize = 500;
/// Bytes of a body; it has two remarks.
const BODY_BYTES_MAX: usize = 16 * 1024;
/// Entries of the trail in one answer.
const ENTRIES_MAX: usize = 1_000;

/// Who did something about an exception, and why.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Remark {
    by: String,
    reason: String,
}

pub(super) async fn change(
    change: Change,
    State(sources): State<Arc<Sources>>,
    Path(id): Path<String>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Answer {
    let remark = read_remark(request).await?;
    let what = format!("{id} is {} by {}: {}", change.as_str(), remark.by, remark.reason);
    let deed = caller.deed(what);
    let found = sources.ledger.change_exception(&id, change, (&remark.by, &remark.reason), &deed).await?;
    let found = found.ok_or_else(|| Problem::not_found("That exception is not known here"))?;
    tracing::info!(who = deed.who, route = deed.route, exception = found.id, "An exception was changed");
    Ok(json(&answers::exception(found, env::wall().0)))
}

async fn read_remark(request: Request) -> Result<Remark, Problem> {
    let body = Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await;
    let body = body.map_err(|_| Problem::body("Send {\"by\": who, \"reason\": why}, at most 16 KiB"))?.to_bytes();
    let remark: Remark = serde_json::from_slice(&body)
        .map_err(|_| Problem::body("Send {\"by\": who, \"reason\": why} and nothing else"))?;
    let is_good = |text: &str| {
        !text.trim().is_empty() && text.chars().count() <= REMARK_CHARS_MAX && !text.chars().any(char::is_control)
    };
    if is_good(&remark.by) && is_good(&remark.reason) {
        Ok(remark)
    } else {
        Err(Problem::body("`by` and `reason` have 1 to 500 characters each, no control characters"))
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AuditQuery {
    before: Option<u64>,
    limit: Option<usize>,
}

#[derive(Debug, Serialize)]
struct Entry {
    number: u64,
    at: String,
    who: String,
    role: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<String>,
    route: String,
    what: String,
    outcome: String,
}

#[derive(Debug, Serialize)]
struct Trail {
    entries: Vec<Entry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_before: Option<u64>,
}

pub(super) async fn audit(
    State(sources): State<Arc<Sources>>,
    query: Result<Query<AuditQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|_| Problem::query("before and limit"))?;
    let limit = query.limit.unwrap_or(ENTRIES_MAX).clamp(1, ENTRIES_MAX);
    let views = sources.ledger.audit(query.before, limit).await?;
    let next_before = if views.len() == limit { views.last().map(|view| view.number) } else { None };
    let entries = views.into_iter().map(|view| Entry {
        number: view.number,
        at: rfc3339(view.at.0),
        who: view.who,
        role: view.role,
        peer: view.peer,
        route: view.route,
        what: view.what,
        outcome: view.outcome,
    });
    Ok(json(&Trail { entries: entries.collect(), next_before }))
}
