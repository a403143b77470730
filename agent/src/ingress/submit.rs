//! Writes: from a body to documents, from documents to what became of each.
//!
//! Invariant: a body is read and judged whole before its first document is handed on; a document that is refused does not keep
//! another from being recorded; results stand in the order of the request. Judging takes time that grows with the body, so
//! large bodies are judged off the threads that serve sockets.

use std::sync::Arc;

use axum::body::Bytes;
use axum::http::StatusCode;
use axum::response::Response;
use counterfoil_proto::record::flag::{IDENTITY_CONFLICT, finding};
use counterfoil_proto::record::{Context, Flag, Kind, Prepared, prepare};
use counterfoil_telemetry::trace;
use schemars::JsonSchema;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserializer, Serialize};
use serde_json::value::RawValue;
use tracing::Span;

use super::admit::{self, DOCUMENTS_MAX, MediaType};
use super::body::{Held, discard_unasked};
use super::grant::Grant;
use super::query;
use super::reply::{self, FaultAnswer, ManyAnswer, Problem, problems};
use super::route::{Api, Asked};
use crate::answer::{Forecast, Outcome, Receipt, Refused};

/// Bodies up to this are judged on the spot: about a millisecond's work, less than handing it over and back is worth.
const JUDGED_HERE_BYTES_MAX: usize = 32 * 1024;

/// The kinds that tills may send, and what `/v1/validate` calls them.
pub const KINDS: [Kind; 5] =
    [Kind::TRANSACTION, Kind::STOCK_MOVEMENT, Kind::FULFILLMENT_UPDATE, Kind::TENDER_CONTROL, Kind::DAY_CLOSE];

/// The documents of a body.
#[derive(Debug, PartialEq, Eq)]
enum Documents {
    One(Bytes),
    Many(Vec<Bytes>),
}

/// A document that was judged, or the problem it is refused for.
pub(super) type Judged = Result<Prepared, Problem>;

/// Takes documents of `kind`.
pub(super) async fn submit(api: &Api, kind: Kind, asked: Asked) -> Result<Response, Problem> {
    let (carried, grant) = (carried(&asked), asked.caller.grant.clone());
    let read = read(api, asked).await.inspect_err(|problem| api.agent.count_refused(problem.slug()))?;
    let (documents, key, _held) = read;
    let is_one = matches!(documents, Documents::One(_));
    let judged = judge(&api.context, kind, documents, key).await?;
    settle(api, &grant, judged, is_one, carried).await
}

/// The trace context that records of this request get where their documents state none: what is exported of the request, else what it
/// came in with.
pub(super) fn carried(asked: &Asked) -> Option<String> {
    trace::context_of(&Span::current()).or_else(|| admit::traceparent(&asked.headers).map(str::to_owned))
}

/// Hands on what was judged good and the caller may post, and answers for all.
pub(super) async fn settle(
    api: &Api,
    grant: &Grant,
    judged: Vec<Judged>,
    is_one: bool,
    carried: Option<String>,
) -> Result<Response, Problem> {
    let mut problems = Vec::with_capacity(judged.len());
    let mut prepared = Vec::with_capacity(judged.len());
    for judged in judged {
        match judged.and_then(|document| grant.may_post(&document).map(|()| document)) {
            Ok(mut document) => {
                let traceparent = &mut document.envelope.traceparent;
                *traceparent = traceparent.take().or_else(|| carried.clone());
                prepared.push(document);
                problems.push(None);
            }
            Err(problem) => {
                api.agent.count_refused(problem.slug());
                problems.push(Some(problem));
            }
        }
    }
    let expected = prepared.len();
    let outcomes = if prepared.is_empty() { Ok(Vec::new()) } else { api.agent.submit(prepared).await };
    let outcomes = match outcomes {
        Ok(outcomes) if outcomes.len() == expected => outcomes,
        // Something was appended and nobody knows what.
        Ok(_) => return Ok(reply::refused(&Refused::Unanswered)),
        Err(refused) => return Ok(reply::refused(&refused)),
    };
    outcomes.iter().for_each(told);
    let mut outcomes = outcomes.into_iter();
    let became = problems.into_iter().filter_map(|problem| match problem {
        Some(problem) => Some(Err(problem)),
        None => outcomes.next().map(Ok),
    });
    if is_one {
        let one = became.last().unwrap_or_else(|| Err(problems::FAULT_OF_OURS.detail("The document has no outcome")));
        return one.map(reply::outcome);
    }
    let mut answer = ManyAnswer::default();
    became.for_each(|became| answer.push(became));
    Ok(reply::json(StatusCode::OK, &answer))
}

/// Says what a till is told, by the record's name.
fn told(outcome: &Outcome) {
    let (Outcome::Recorded(receipt) | Outcome::Duplicate(receipt)) = outcome else { return };
    let Receipt { epoch, lane, seq, duplicate, .. } = receipt;
    tracing::debug!(record = %format_args!("{epoch}-{lane}-{seq}"), duplicate, "receipt given");
}

/// What validation found in one document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ValidationAnswer {
    /// Its place in the request, where that had many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<usize>,
    /// Whether it would be recorded, or is already.
    pub recordable: bool,
    /// The status that it would get if it were submitted now: 201, 200 (recorded before), 409 (its identity is taken by other content), or
    /// that of the refusal.
    pub status: u16,
    /// Everything for which it would be refused.
    pub faults: Vec<FaultAnswer>,
    /// Everything it would be flagged with, by itself and by what this box has recorded.
    pub flags: Vec<FlagAnswer>,
    /// Oddities that are no exception, such as unknown fields.
    pub warnings: Vec<String>,
    /// The content digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// One flag of a document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FlagAnswer {
    /// What was found.
    pub code: String,
    /// JSON pointer.
    pub pointer: String,
    /// `business` or `technical`.
    pub class: String,
    /// The queue of those who would deal with it.
    pub owner: String,
    /// A sentence for a person.
    pub message: String,
}

/// What validation found in many documents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ManyValidations {
    /// One per document, in the order of the request.
    pub results: Vec<ValidationAnswer>,
}

/// Says what would become of documents, and records nothing.
pub(super) async fn validate(api: &Api, asked: Asked) -> Result<Response, Problem> {
    let kind = query::parameters(&asked.uri, &["kind"]).and_then(|parameters| {
        let name = parameters.get("kind").map_or("transaction", String::as_str);
        let kind = KINDS.into_iter().find(|kind| kind.name() == Some(name));
        kind.ok_or_else(|| {
            problems::BAD_REQUEST
                .detail("`kind` must be transaction, stock_movement, fulfillment_update, tender_control or day_close")
        })
    });
    let kind = match kind {
        Ok(kind) => kind,
        Err(problem) => {
            discard_unasked(&asked.headers, asked.body, &asked.peer.phase).await;
            return Err(problem);
        }
    };
    let (documents, key, _held) = read(api, asked).await?;
    let is_one = matches!(documents, Documents::One(_));
    let judged = judge(&api.context, kind, documents, key).await?;
    let documents: Vec<Prepared> = judged.iter().filter_map(|judged| judged.as_ref().ok()).cloned().collect();
    let forecasts = if documents.is_empty() { Ok(Vec::new()) } else { api.agent.forecast(documents).await };
    let mut forecasts = match forecasts {
        Ok(forecasts) => forecasts.into_iter(),
        Err(refused) => return Ok(reply::refused(&refused)),
    };
    let mut results: Vec<ValidationAnswer> = Vec::with_capacity(judged.len());
    for judged in judged {
        results.push(match judged {
            Ok(prepared) => match forecasts.next() {
                Some(forecast) => expected(prepared, forecast),
                None => return Err(problems::FAULT_OF_OURS.detail("The document has no forecast")),
            },
            Err(problem) => refusal(problem),
        });
    }
    match results.pop() {
        Some(one) if is_one => Ok(reply::json(StatusCode::OK, &one)),
        last => {
            results.extend(last);
            for (index, result) in results.iter_mut().enumerate() {
                result.index = Some(index);
            }
            Ok(reply::json(StatusCode::OK, &ManyValidations { results }))
        }
    }
}

fn expected(prepared: Prepared, forecast: Forecast) -> ValidationAnswer {
    let mut flags = prepared.envelope.flags;
    let status = match forecast {
        Forecast::Recorded { flags: more } => {
            flags.extend(more);
            StatusCode::CREATED
        }
        Forecast::Duplicate => StatusCode::OK,
        Forecast::Conflict => {
            flags.push(Flag { code: IDENTITY_CONFLICT.into(), pointer: String::new() });
            StatusCode::CONFLICT
        }
    };
    ValidationAnswer {
        index: None,
        recordable: true,
        status: status.as_u16(),
        faults: Vec::new(),
        flags: flags.iter().map(flag_answer).collect(),
        warnings: prepared.warnings,
        digest: Some(prepared.envelope.content_digest.to_string()),
    }
}

fn refusal(problem: Problem) -> ValidationAnswer {
    ValidationAnswer {
        index: None,
        recordable: false,
        status: problem.status,
        faults: problem.faults,
        flags: Vec::new(),
        warnings: Vec::new(),
        digest: None,
    }
}

fn flag_answer(flag: &Flag) -> FlagAnswer {
    let known = finding(&flag.code);
    FlagAnswer {
        code: flag.code.clone().into_owned(),
        pointer: flag.pointer.clone(),
        class: known.map_or("technical", |known| known.class.as_str()).to_owned(),
        owner: known.map_or("", |known| known.owner).to_owned(),
        message: known.map_or("", |known| known.sentence).to_owned(),
    }
}

/// Checks the head, reads the body, tells its documents apart. The held body is to be kept until the answer.
async fn read(api: &Api, asked: Asked) -> Result<(Documents, Option<String>, Held), Problem> {
    let Asked { headers, body, peer, .. } = asked;
    let head = admit::media_type(&headers).and_then(|media| {
        admit::content_length(&headers, api.bodies.bytes_max)?;
        Ok((media, admit::idempotency_key(&headers)?))
    });
    let (media, key) = match head {
        Ok(head) => head,
        Err(problem) => {
            discard_unasked(&headers, body, &peer.phase).await;
            return Err(problem);
        }
    };
    let body = api.bodies.read(body, &peer.phase).await?;
    let documents = tell_apart(media, &body.bytes)?;
    if key.is_some() && matches!(documents, Documents::Many(_)) {
        return Err(problems::BAD_REQUEST
            .detail("Idempotency-Key is for a single document; in many, each says its `document_id`"));
    }
    Ok((documents, key, body))
}

async fn judge(
    context: &Arc<Context>,
    kind: Kind,
    documents: Documents,
    key: Option<String>,
) -> Result<Vec<Judged>, Problem> {
    let bytes = match &documents {
        Documents::One(one) => one.len(),
        Documents::Many(many) => many.iter().map(Bytes::len).sum(),
    };
    let context = Arc::clone(context);
    let work = move || -> Vec<Judged> {
        let one = |document: &Bytes, key| {
            prepare(kind, document, key, &context).map_err(|refusal| Problem::of_refusal(&refusal))
        };
        match &documents {
            Documents::One(document) => vec![one(document, key.as_deref())],
            Documents::Many(documents) => documents.iter().map(|document| one(document, None)).collect(),
        }
    };
    if bytes <= JUDGED_HERE_BYTES_MAX {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!(%error, "judging documents failed; this is a fault of the program");
        problems::FAULT_OF_OURS.detail("The documents could not be judged. Nothing was appended; send the same again")
    })
}

/// One object, the elements of an array, or the lines that are not blank. Elements and lines are not looked into.
fn tell_apart(media: MediaType, body: &Bytes) -> Result<Documents, Problem> {
    let too_many = || {
        problems::TOO_MANY_DOCUMENTS.detail(format!("A body may have {DOCUMENTS_MAX} documents; send several requests"))
    };
    let slices: Vec<&[u8]> = match media {
        MediaType::NdJson => {
            let lines = body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
            lines.take(DOCUMENTS_MAX + 1).collect()
        }
        MediaType::Json if body.trim_ascii_start().first() != Some(&b'[') => return Ok(Documents::One(body.clone())),
        MediaType::Json => {
            let mut parser = serde_json::Deserializer::from_slice(body);
            let elements = parser.deserialize_seq(Elements).and_then(|elements| parser.end().map(|()| elements));
            elements.map_err(|error| {
                if error.is_data() {
                    return too_many();
                }
                let (line, column) = (error.line(), error.column());
                problems::UNREADABLE_BODY.detail(format!("The array is not JSON at line {line}, column {column}"))
            })?
        }
    };
    if slices.len() > DOCUMENTS_MAX {
        return Err(too_many());
    }
    Ok(Documents::Many(slices.into_iter().map(|slice| body.slice_ref(slice)).collect()))
}

/// The elements of an array as they were written, no more than may come.
struct Elements;

impl<'de> Visitor<'de> for Elements {
    type Value = Vec<&'de [u8]>;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = sequence.next_element::<&RawValue>()? {
            if elements.len() == DOCUMENTS_MAX {
                return Err(serde::de::Error::custom("too many"));
            }
            elements.push(element.get().as_bytes());
        }
        Ok(elements)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn many(media: MediaType, body: &str) -> Result<Vec<String>, u16> {
        match tell_apart(media, &Bytes::copy_from_slice(body.as_bytes())) {
            Ok(Documents::Many(many)) => Ok(many.iter().map(|one| String::from_utf8(one.to_vec()).unwrap()).collect()),
            Ok(Documents::One(_)) => Ok(vec!["one".to_owned()]),
            Err(problem) => Err(problem.status),
        }
    }

    #[test]
    fn documents_are_told_apart_as_they_were_written() {
        let json = |body| many(MediaType::Json, body);
        assert_eq!(json(" {\"a\":[1]}"), Ok(vec!["one".to_owned()]));
        assert_eq!(json(""), Ok(vec!["one".to_owned()]));
        assert_eq!(
            json(" [ {\"a\" : 1.0} , 7,[]] "),
            Ok(vec!["{\"a\" : 1.0}".to_owned(), "7".to_owned(), "[]".to_owned()])
        );
        assert_eq!(json("[]"), Ok(vec![]));
        for broken in ["[", "[{]", "[{}] x", "[{},]", "[1 2]"] {
            assert_eq!(json(broken), Err(400), "{broken}");
        }
        assert_eq!(
            many(MediaType::NdJson, "{}\r\n\n {\"b\":2}\nx"),
            Ok(vec!["{}".into(), "{\"b\":2}".into(), "x".into()])
        );
        let bad_utf8 = tell_apart(MediaType::Json, &Bytes::from_static(b"[\"\xff\"]")).unwrap_err();
        assert_eq!(bad_utf8.status, 400);
    }

    #[test]
    fn a_thousand_documents_and_no_more() {
        for (count, expected) in [(1_000, Ok(1_000)), (1_001, Err(413)), (2_000_000, Err(413))] {
            let array = format!("[{}0]", "0,".repeat(count - 1));
            assert_eq!(many(MediaType::Json, &array).map(|many| many.len()), expected);
            assert_eq!(many(MediaType::NdJson, &"0\n".repeat(count)).map(|many| many.len()), expected);
        }
    }
}
