//! Reads, and the one small write beside documents: what is asked is checked here, the agent answers.
//!
//! Invariant: whatever is answered relies on synced records alone; that is the agent's word, nothing is kept here.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::Query;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use counterfoil_proto::limits::IDENTIFIER_CHARS_MAX;
use counterfoil_proto::record::flag::Change;
use counterfoil_proto::record::{identity_of_document, identity_of_transaction, mask_cards};
use counterfoil_telemetry::metrics::Exposition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::admit::{self, MediaType};
use super::body::discard_unasked;
use super::metrics::{self, Figures};
use super::reply::{self, FaultAnswer, PROBLEMS, Problem, problems};
use super::route::{Api, Asked};
use crate::answer::ReceiptAnswer;

/// For what metrics have to ask the owner for; well below the ten seconds that Prometheus waits.
const TALLY_PATIENCE: Duration = Duration::from_secs(2);

/// Characters of a name or a reason in a resolution; it is a remark, not a report.
const REMARK_CHARS_MAX: usize = 500;

/// Bytes of the body of a resolution.
const RESOLUTION_BYTES_MAX: usize = 16 * 1024;

/// Whether the agent lives, or accepts documents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct HealthAnswer {
    /// Always true; who is not gets 503.
    pub ok: bool,
    /// `accepting`, `full`, `drain_only` or `stopping`.
    pub mode: String,
}

/// Who did something about an exception, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Resolution {
    /// A person, 1 to 500 characters.
    pub by: String,
    /// Why, 1 to 500 characters.
    pub reason: String,
}

/// The parameters of a query, each once and known.
pub(super) fn parameters(uri: &Uri, known: &[&str]) -> Result<BTreeMap<String, String>, Problem> {
    let Ok(Query(pairs)) = Query::<Vec<(String, String)>>::try_from_uri(uri) else {
        return Err(problems::BAD_REQUEST.detail("The query is not `name=value` with percent-encoding"));
    };
    let mut parameters = BTreeMap::new();
    for (name, value) in pairs {
        if !known.contains(&name.as_str()) || parameters.insert(name, value).is_some() {
            return Err(problems::BAD_REQUEST.detail(format!("The query may have, once each: {}", known.join(", "))));
        }
    }
    Ok(parameters)
}

pub(super) async fn stock(api: &Api, asked: Asked) -> Result<Response, Problem> {
    let [item_id] = path(&asked)?;
    match api.agent.stock(item_id).await {
        Ok(Some(answer)) => Ok(reply::json(StatusCode::OK, &answer)),
        Ok(None) => {
            Err(problems::UNKNOWN_ITEM.detail("Nothing was recorded for it on this box; `item_id` is compared exactly"))
        }
        Err(refused) => Ok(reply::refused(&refused)),
    }
}

pub(super) async fn receipt(api: &Api, asked: Asked) -> Result<Response, Problem> {
    let [workstation_id, date, number] = path(&asked)?;
    let parameters = parameters(&asked.uri, &["sequence_epoch"])?;
    let sequence_epoch = parameters.get("sequence_epoch").map_or(Ok(0), |text| whole_number("sequence_epoch", text))?;
    let date = business_day(&date)?;
    let identity =
        identity_of_transaction(&workstation_id, &date, whole_number("sequence_number", &number)?, sequence_epoch);
    receipt_of(api, identity).await
}

pub(super) async fn receipt_of_document(api: &Api, asked: Asked) -> Result<Response, Problem> {
    let mut parameters = parameters(&asked.uri, &["document_id"])?;
    let document_id = parameters
        .remove("document_id")
        .filter(|text| !text.is_empty() && text.chars().count() <= IDENTIFIER_CHARS_MAX);
    match document_id {
        Some(document_id) => receipt_of(api, identity_of_document(&document_id)).await,
        None => Err(problems::BAD_REQUEST.detail("Give `document_id`, 1 to 64 characters")),
    }
}

async fn receipt_of(api: &Api, identity: String) -> Result<Response, Problem> {
    let answer: Option<ReceiptAnswer> = match api.agent.receipt(identity).await {
        Ok(answer) => answer,
        Err(refused) => return Ok(reply::refused(&refused)),
    };
    match answer {
        Some(answer) => Ok(reply::json(StatusCode::OK, &answer)),
        None => Err(problems::UNKNOWN_RECEIPT.detail(
            "It is not recorded on this box, or longer ago than the journal is retained; if in doubt send the document again",
        )),
    }
}

pub(super) async fn day(api: &Api, asked: Asked) -> Result<Response, Problem> {
    let [date] = path(&asked)?;
    match api.agent.day(business_day(&date)?).await {
        Ok(answer) => Ok(reply::json(StatusCode::OK, &answer)),
        Err(refused) => Ok(reply::refused(&refused)),
    }
}

pub(super) async fn exceptions(api: &Api, asked: Asked) -> Result<Response, Problem> {
    let parameters = parameters(&asked.uri, &["all"])?;
    let all = match parameters.get("all").map(String::as_str) {
        Some("true") => true,
        Some("false") | None => false,
        Some(_) => return Err(problems::BAD_REQUEST.detail("`all` must be true or false")),
    };
    match api.agent.exceptions(all).await {
        Ok(answer) => Ok(reply::json(StatusCode::OK, &answer)),
        Err(refused) => Ok(reply::refused(&refused)),
    }
}

pub(super) async fn change(api: &Api, change: Change, asked: Asked) -> Result<Response, Problem> {
    let [id] = path(&asked)?;
    let head = admit::media_type(&asked.headers).and_then(|media| match media {
        MediaType::Json => admit::content_length(&asked.headers, RESOLUTION_BYTES_MAX),
        MediaType::NdJson => Err(problems::CONTENT_TYPE_NOT_SUPPORTED.detail("Send Content-Type application/json")),
    });
    if let Err(problem) = head {
        discard_unasked(&asked.headers, asked.body, &asked.peer.phase).await;
        return Err(problem);
    }
    let body = api.bodies.read(asked.body, &asked.peer.phase).await?;
    if body.bytes.len() > RESOLUTION_BYTES_MAX {
        return Err(admit::body_too_large(RESOLUTION_BYTES_MAX));
    }
    let resolution = resolution(&body.bytes)?;
    // A remark is journaled and forwarded like a document, so a card number stays out of it as well.
    let mask = |text: String| mask_cards(&text, api.context.mask_13_digits).unwrap_or(text);
    let [by, reason] = [resolution.by, resolution.reason].map(mask);
    match api.agent.change_exception(id, change, by, reason).await {
        Ok(Some(answer)) => Ok(reply::json(StatusCode::OK, &answer)),
        Ok(None) => Err(problems::UNKNOWN_EXCEPTION.detail("See GET /v1/exceptions?all=true for those that are known")),
        Err(refused) => Ok(reply::refused(&refused)),
    }
}

fn resolution(body: &[u8]) -> Result<Resolution, Problem> {
    let resolution: Resolution = serde_json::from_slice(body).map_err(|error| {
        const EXPECTED: &str = "Send {\"by\": who, \"reason\": why} and nothing else";
        if error.is_data() {
            problems::INVALID_DOCUMENT.detail(EXPECTED)
        } else {
            problems::UNREADABLE_BODY.detail(EXPECTED)
        }
    })?;
    let given = [("/by", &resolution.by), ("/reason", &resolution.reason)];
    let faults = given.into_iter().filter(|(_, text)| {
        text.trim().is_empty() || text.chars().count() > REMARK_CHARS_MAX || text.chars().any(char::is_control)
    });
    let faults: Vec<FaultAnswer> = faults
        .map(|(pointer, _)| FaultAnswer {
            pointer: pointer.to_owned(),
            fault_type: format!("{PROBLEMS}bad-text"),
            detail: format!("1 to {REMARK_CHARS_MAX} characters, no control characters"),
        })
        .collect();
    if faults.is_empty() {
        return Ok(resolution);
    }
    let mut problem =
        problems::INVALID_DOCUMENT.detail("Nothing was recorded; correct what `faults` lists and send it again");
    problem.faults = faults;
    Err(problem)
}

pub(super) fn healthz(api: &Api) -> Result<Response, Problem> {
    if api.agent.is_alive() {
        Ok(reply::json(StatusCode::OK, &HealthAnswer { ok: true, mode: api.agent.status().mode.clone() }))
    } else {
        Err(problems::STOPPING.detail("The owner of the journal is gone; the process is about to end"))
    }
}

pub(super) fn readyz(api: &Api) -> Result<Response, Problem> {
    let status = api.agent.status();
    if status.ready && api.agent.is_alive() {
        Ok(reply::json(StatusCode::OK, &HealthAnswer { ok: true, mode: status.mode.clone() }))
    } else {
        Err(problems::NOT_READY.detail("See `mode` of GET /v1/status"))
    }
}

pub(super) async fn metrics(api: &Api) -> Response {
    // The figures are wanted most when the disk stalls, and with it the thread that is asked.
    let tally = tokio::time::timeout(TALLY_PATIENCE, api.agent.tally()).await;
    let text = metrics::render(&Figures {
        status: &api.agent.status(),
        tally: tally.ok().and_then(Result::ok).as_ref(),
        refused: &api.agent.refused(),
        spooled: api.agent.spooled(),
        counters: &api.counters,
        certificates: &api.certificates,
    });
    reply::bytes_of(StatusCode::OK, Exposition::CONTENT_TYPE, text)
}

fn path<const N: usize>(asked: &Asked) -> Result<[String; N], Problem> {
    let parts = <[String; N]>::try_from(asked.path.clone());
    parts.map_err(|_| problems::BAD_REQUEST.detail("The path does not have its parts"))
}

fn whole_number(name: &'static str, text: &str) -> Result<u64, Problem> {
    text.parse().map_err(|_| problems::BAD_REQUEST.detail(format!("`{name}` must be a whole number")))
}

fn business_day(text: &str) -> Result<String, Problem> {
    let date = jiff::civil::Date::strptime("%Y-%m-%d", text).map(|date| date.to_string());
    match date {
        Ok(date) if date == text => Ok(date),
        Ok(_) | Err(_) => Err(problems::BAD_REQUEST.detail("`business_day_date` must be a date such as 2026-11-23")),
    }
}
