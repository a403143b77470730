//! `GET /v1/records`: what an ERP follows. One JSON object a line, in the order of positions.
//!
//! Invariant: nothing ever appears at or below a position that was served; the header `Next-After` goes on exactly after the
//! last record that was looked at.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::header;
use axum::response::IntoResponse;
use counterfoil_proto::id::Lane;
use counterfoil_proto::record::{Kind, Record, RecordHeader};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::{Answer, Problem, Sources, rfc3339};
use crate::ledger::{EntryView, LedgerError, PageQuery, RecordsPage};

const LIMIT_DEFAULT: usize = 500;
const LIMIT_MAX: usize = 5_000;
/// Seconds that a call may wait for something new.
const WAIT_S_MAX: u64 = 60;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RecordsQuery {
    store: Option<String>,
    after: Option<String>,
    limit: Option<usize>,
    kind: Option<String>,
    lane: Option<String>,
    wait: Option<u64>,
}

#[derive(Serialize)]
pub(super) struct Line<'a> {
    /// `null` where it has none yet, which a lookup alone shows.
    position: Option<u64>,
    store_id: &'a str,
    agent_id: &'a str,
    epoch: String,
    lane: &'static str,
    seq: u64,
    /// The content digest, as in the till's receipt; missing where the record cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    record_digest: String,
    kind: String,
    version: u16,
    received_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    recorded_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    business_day_date: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    exceptions: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duplicate_of: Option<u64>,
    #[serde(skip_serializing_if = "is_false")]
    conflict: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    conflicts_with: Option<u64>,
    #[serde(skip_serializing_if = "is_false")]
    fork: bool,
    /// `post_voided` where a later transaction reverses this one, which was finished.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    /// The position of the void that reverses this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    voided_by: Option<u64>,
    /// The position of the transaction that this one reverses.
    #[serde(skip_serializing_if = "Option::is_none")]
    voids: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<Box<RawValue>>,
    /// The stored bytes in hexadecimal digits, where there is no document to show.
    #[serde(skip_serializing_if = "Option::is_none")]
    raw: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_false(flag: &bool) -> bool {
    !flag
}

pub(super) async fn get(
    State(sources): State<Arc<Sources>>,
    query: Result<Query<RecordsQuery>, axum::extract::rejection::QueryRejection>,
) -> Answer {
    let wrong =
        || Problem::query("store, after (from Next-After), limit, kind, lane (trade, stock, ops) and wait (seconds)");
    let Query(query) = query.map_err(|_| wrong())?;
    let lane: Option<Lane> = query.lane.as_deref().map(str::parse).transpose().map_err(|_| wrong())?;
    let kind = match query.kind.as_deref() {
        Some(name) => Some(Kind::from_name(name).map(|kind| kind.0).or_else(|| name.parse().ok()).ok_or_else(wrong)?),
        None => None,
    };
    let after = match query.after.as_deref() {
        None | Some("" | "0") => None,
        Some(text) => Some(text.parse().map_err(|()| wrong())?),
    };
    let limit = query.limit.unwrap_or(LIMIT_DEFAULT).clamp(1, LIMIT_MAX);
    let deadline = Instant::now() + Duration::from_secs(query.wait.unwrap_or(0).min(WAIT_S_MAX));
    let page = PageQuery { after, limit, store_id: query.store, lane, kind };
    let page = wait_for(&sources, page, deadline).await?;
    let mut body = Vec::new();
    for entry in &page.entries {
        if serde_json::to_writer(&mut body, &line(entry)).is_err() {
            return Err(Problem::unavailable());
        }
        body.push(b'\n');
    }
    let headers =
        [(header::CONTENT_TYPE.as_str(), "application/x-ndjson".to_owned()), ("next-after", page.next.to_string())];
    Ok((headers, body).into_response())
}

async fn wait_for(sources: &Sources, mut query: PageQuery, deadline: Instant) -> Result<RecordsPage, Problem> {
    let mut posted = sources.posted.clone();
    loop {
        posted.mark_unchanged();
        let page = match sources.ledger.records(&query).await {
            Ok(page) => page,
            Err(error) => return Err(restart(sources, error).await),
        };
        if !page.entries.is_empty() || Instant::now() >= deadline {
            return Ok(page);
        }
        query.after = Some(page.next);
        // Not at the end: a filter left everything out so far, and there is more to look at.
        if page.at_end && !matches!(tokio::time::timeout_at(deadline, posted.changed()).await, Ok(Ok(()))) {
            return Ok(page);
        }
    }
}

async fn restart(sources: &Sources, error: LedgerError) -> Problem {
    let mut problem = Problem::from(error);
    if let Some(point) = problem.restore_point() {
        problem.restart_after = sources.ledger.cursor(Some(point)).await.ok().map(|cursor| cursor.to_string());
    }
    problem
}

pub(super) fn line(entry: &EntryView) -> Line<'_> {
    let head = RecordHeader::read(&entry.bytes).ok().map(|(head, _)| head);
    let record = Record::decode(&entry.bytes).ok();
    let document = record.as_ref().and_then(|record| one_line(&record.document));
    let raw = document.is_none().then(|| hexadecimal(&entry.bytes));
    let envelope = record.as_ref().map(|record| &record.envelope);
    let kind = head.map_or_else(
        || "unreadable".to_owned(),
        |head| head.kind.name().map_or_else(|| head.kind.0.to_string(), str::to_owned),
    );
    Line {
        position: (entry.position > 0).then_some(entry.position),
        store_id: entry.source.store_id.as_str(),
        agent_id: entry.source.agent_id.as_str(),
        epoch: entry.key.epoch.to_string(),
        lane: entry.key.lane.as_str(),
        seq: entry.key.seq.0,
        digest: envelope.map(|envelope| envelope.content_digest.to_string()),
        record_digest: entry.record_digest.to_string(),
        kind,
        version: head.map_or(0, |head| head.version),
        received_at: rfc3339(entry.received_at),
        recorded_at: envelope.map(|envelope| envelope.recorded_at.to_rfc3339()),
        business_day_date: envelope.and_then(|envelope| envelope.business_day_date.clone()),
        exceptions: envelope.map_or_else(Vec::new, |envelope| {
            envelope.flags.iter().map(|flag| flag.code.clone().into_owned()).collect()
        }),
        duplicate_of: entry.duplicate_of,
        conflict: entry.conflicts_with.is_some(),
        conflicts_with: entry.conflicts_with.flatten(),
        fork: entry.is_fork,
        status: entry.voided_by.map(|_| "post_voided"),
        voided_by: entry.voided_by,
        voids: entry.voids,
        document,
        raw,
    }
}

/// The document as it was submitted, on one line: a line break in JSON text can only stand between tokens.
fn one_line(document: &[u8]) -> Option<Box<RawValue>> {
    let text = str::from_utf8(document).ok()?.replace(['\n', '\r'], " ");
    RawValue::from_string(text).ok()
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        for digit in [byte >> 4, byte & 15] {
            text.extend(char::from_digit(digit.into(), 16));
        }
        text
    })
}
