//! From what became of a request to what the till is told: status code, headers and body.
//!
//! Invariant: a status says the same everywhere. 201, 200 and 409 mean that the record is synced; 429, 503 and 507 mean that nothing
//! was appended and the same may be sent again; no answer at all means that nobody knows. Values of documents are never
//! echoed. This module deliberately decides nothing.

use std::borrow::Cow;
use std::num::NonZero;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use counterfoil_proto::record::{Fault, Refusal};
use schemars::JsonSchema;
use serde::Serialize;

use super::peers::Exhausted;
use crate::answer::{Conflict, Outcome, Receipt, Refused};

/// What every problem's `type` begins with; a slug follows.
pub const PROBLEMS: &str = "https://counterfoil.dev/problems/";

/// Seconds that `Retry-After` says at most.
pub const RETRY_AFTER_S_MAX: u32 = 60;

/// A problem of RFC 9457 (`application/problem+json`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Problem {
    /// Stable; what a program should go by.
    #[serde(rename = "type")]
    #[schemars(extend("format" = "uri"))]
    pub problem_type: String,
    /// The same for every problem of the type.
    pub title: &'static str,
    /// The status code.
    #[schemars(range(min = 400, max = 599))]
    pub status: u16,
    /// What to do about it.
    pub detail: Cow<'static, str>,
    /// Everything that was found in the document.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<FaultAnswer>,
    /// On 409: the receipt of the document that was first, where this one is kept, and the exception that a person will see.
    #[serde(flatten)]
    pub conflict: Option<Box<Conflict>>,
    #[serde(skip)]
    slug: &'static str,
    /// Where that depends on more than the type.
    #[serde(skip)]
    retry_after_s: Option<NonZero<u8>>,
}

/// One fault of a document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FaultAnswer {
    /// JSON pointer (RFC 6901); empty for the document as a whole.
    pub pointer: String,
    /// Stable; what a program should go by.
    #[serde(rename = "type")]
    pub fault_type: String,
    /// For the integrator.
    pub detail: String,
}

/// A type of problem.
#[derive(Clone, Copy, Debug)]
pub struct ProblemType {
    slug: &'static str,
    status: StatusCode,
    title: &'static str,
}

impl ProblemType {
    /// The problem, with what to do about it.
    pub fn detail(self, detail: impl Into<Cow<'static, str>>) -> Problem {
        Problem {
            problem_type: format!("{PROBLEMS}{}", self.slug),
            title: self.title,
            status: self.status.as_u16(),
            detail: detail.into(),
            faults: Vec::new(),
            conflict: None,
            slug: self.slug,
            retry_after_s: None,
        }
    }
}

/// All types of problems that a request can meet; their slugs are for ever.
pub mod problems {
    use axum::http::StatusCode;

    use super::ProblemType;

    macro_rules! problems {
        ($($name:ident = $slug:literal, $status:ident, $title:literal;)*) => {
            $(#[doc = $title] pub const $name: ProblemType =
                ProblemType { slug: $slug, status: StatusCode::$status, title: $title };)*
        };
    }

    problems! {
        BAD_REQUEST = "bad-request", BAD_REQUEST, "The request cannot be understood";
        UNREADABLE_BODY = "unreadable-body", BAD_REQUEST, "The body cannot be read";
        UNREADABLE_DOCUMENT = "unreadable-document", BAD_REQUEST, "The document is not a JSON object";
        TOKEN_MISSING = "token-missing", UNAUTHORIZED, "A token is needed";
        TOKEN_UNKNOWN = "token-unknown", UNAUTHORIZED, "The token is not known";
        HOST_NOT_ALLOWED = "host-not-allowed", FORBIDDEN, "The box is not called by that name";
        ROLE_NOT_ENOUGH = "role-not-enough", FORBIDDEN, "The caller may not do that";
        WRONG_WORKSTATION = "wrong-workstation", FORBIDDEN, "The document is of another workstation";
        TOO_MANY_REQUESTS = "too-many-requests", TOO_MANY_REQUESTS, "The caller asks for too much at once";
        NOT_FOUND = "not-found", NOT_FOUND, "There is no such resource";
        UNKNOWN_PROFILE = "unknown-profile", NOT_FOUND, "There is no such profile";
        UNKNOWN_ITEM = "unknown-item", NOT_FOUND, "No record names that item";
        UNKNOWN_RECEIPT = "unknown-receipt", NOT_FOUND, "That document is not known here";
        UNKNOWN_EXCEPTION = "unknown-exception", NOT_FOUND, "That exception is not known here";
        METHOD_NOT_ALLOWED = "method-not-allowed", METHOD_NOT_ALLOWED, "The resource does not take that method";
        IDENTITY_CONFLICT = "identity-conflict", CONFLICT, "The same identity was recorded with other content";
        BODY_TOO_LARGE = "body-too-large", PAYLOAD_TOO_LARGE, "The body is too large";
        TOO_MANY_DOCUMENTS = "too-many-documents", PAYLOAD_TOO_LARGE, "The body has too many documents";
        DOCUMENT_TOO_LARGE = "document-too-large", PAYLOAD_TOO_LARGE, "The document is too large";
        CONTENT_TYPE_NOT_SUPPORTED = "content-type-not-supported", UNSUPPORTED_MEDIA_TYPE, "The content type is not taken";
        ENCODING_NOT_SUPPORTED = "content-encoding-not-supported", UNSUPPORTED_MEDIA_TYPE, "The content encoding is not taken";
        INVALID_DOCUMENT = "invalid-document", UNPROCESSABLE_ENTITY, "The document is not what its kind needs";
        BUSY = "busy", SERVICE_UNAVAILABLE, "Too much is waiting";
        SLOW_BODY = "slow-body", SERVICE_UNAVAILABLE, "The body came too slowly";
        NOT_READY = "not-ready", SERVICE_UNAVAILABLE, "The agent does not accept documents";
        DRAIN_ONLY = "drain-only", SERVICE_UNAVAILABLE, "The disk failed repeatedly";
        STOPPING = "stopping", SERVICE_UNAVAILABLE, "The agent is stopping";
        FAULT_OF_OURS = "fault-of-ours", INTERNAL_SERVER_ERROR, "The agent failed on this request";
        JOURNAL_FULL = "journal-full", INSUFFICIENT_STORAGE, "The journal is full";
    }
}

impl Problem {
    /// What it is counted under: the last part of its type, or of its first fault's.
    pub const fn slug(&self) -> &'static str {
        self.slug
    }

    /// What a refused document is answered with; counted under its first fault.
    pub fn of_refusal(refusal: &Refusal) -> Self {
        let (kind, faults) = match refusal {
            Refusal::Unreadable(fault) => (problems::UNREADABLE_DOCUMENT, std::slice::from_ref(fault)),
            Refusal::TooLarge(fault) => (problems::DOCUMENT_TOO_LARGE, std::slice::from_ref(fault)),
            Refusal::Invalid(faults) => (problems::INVALID_DOCUMENT, faults.as_slice()),
        };
        let mut problem = kind.detail("Nothing was recorded; correct what `faults` lists and send it again");
        problem.faults = faults.iter().map(FaultAnswer::from).collect();
        problem.slug = faults.first().map_or(kind.slug, |fault| fault.problem);
        problem
    }

    /// What a conflict is answered with; the document is kept all the same.
    pub fn of_conflict(conflict: Conflict) -> Self {
        let mut problem = problems::IDENTITY_CONFLICT.detail(
            "The document is kept beside the first one, outside stock and totals, and a person will look at it; do not send it again",
        );
        problem.conflict = Some(Box::new(conflict));
        problem
    }

    /// What a request is answered with that the agent did not take; `None` where nobody knows and nothing may be said.
    pub fn of_refused(refused: &Refused) -> Option<Self> {
        let kind = match refused {
            Refused::Busy => problems::BUSY,
            Refused::Full => problems::JOURNAL_FULL,
            Refused::DrainOnly => problems::DRAIN_ONLY,
            Refused::Stopping => problems::STOPPING,
            Refused::Unanswered => return None,
        };
        Some(kind.detail(format!("{refused}. Nothing was appended; send the same again")))
    }

    /// Seconds after which the same should be sent again; `None` where it should not.
    fn retry_after_s(&self) -> Option<u32> {
        self.retry_after_s.map(|seconds| seconds.get().into()).or(match self.slug {
            "busy" | "slow-body" => Some(1),
            "stopping" | "not-ready" => Some(5),
            "journal-full" => Some(30),
            "drain-only" => Some(60),
            _ => None,
        })
    }

    /// What a peer is answered with that used up what it may ask for.
    pub fn of_exhausted(exhausted: Exhausted) -> Self {
        let problem = problems::TOO_MANY_REQUESTS.detail(
            "More than `ingress.peer_requests_per_second` for longer than `ingress.peer_burst` lasts; large bodies count as several. Nothing was \
             appended; send the same again after Retry-After",
        );
        let seconds = u8::try_from(exhausted.retry_after_s).ok().and_then(NonZero::new);
        Self { retry_after_s: seconds, ..problem }
    }
}

impl From<&Fault> for FaultAnswer {
    fn from(fault: &Fault) -> Self {
        Self {
            pointer: fault.pointer.clone(),
            fault_type: format!("{PROBLEMS}{}", fault.problem),
            detail: fault.detail.clone(),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = json(status, &self);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after_s() {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"counterfoil\""));
        }
        if matches!(self.slug, "slow-body" | "body-too-large" | "stopping") {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response.extensions_mut().insert(Slug(self.slug));
        response
    }
}

/// Beside a response: which problem it is; for counters.
#[derive(Clone, Copy, Debug)]
pub struct Slug(pub &'static str);

/// Beside a response: it must not be sent, the connection is to be closed instead.
#[derive(Clone, Copy, Debug)]
pub struct Unanswered;

/// A JSON answer.
pub fn json<T: Serialize>(status: StatusCode, answer: &T) -> Response {
    match serde_json::to_vec(answer) {
        Ok(bytes) => bytes_of(status, "application/json", bytes),
        Err(error) => {
            tracing::error!(%error, "an answer could not be written as JSON; this is a fault of the program");
            bytes_of(StatusCode::INTERNAL_SERVER_ERROR, "application/problem+json", Vec::new())
        }
    }
}

/// An answer of some bytes.
pub fn bytes_of(status: StatusCode, content_type: &'static str, bytes: impl Into<Body>) -> Response {
    let mut response = Response::new(bytes.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The answer to what the agent did not take.
pub fn refused(refused: &Refused) -> Response {
    Problem::of_refused(refused).map_or_else(
        || {
            let mut response = StatusCode::SERVICE_UNAVAILABLE.into_response();
            response.extensions_mut().insert(Unanswered);
            response
        },
        IntoResponse::into_response,
    )
}

/// The answer to a single document.
pub fn outcome(outcome: Outcome) -> Response {
    match outcome {
        Outcome::Recorded(receipt) => json(StatusCode::CREATED, &receipt),
        Outcome::Duplicate(receipt) => json(StatusCode::OK, &receipt),
        Outcome::Conflict(conflict) => Problem::of_conflict(conflict).into_response(),
    }
}

/// What became of one document of many.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ManyResult {
    /// Its place in the request, from 0.
    pub index: usize,
    /// The status code that it would have got alone.
    pub status: u16,
    /// On 200 and 201.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Receipt>,
    /// On every other status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// The answer to many documents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ManyAnswer {
    /// Recorded now.
    pub recorded: usize,
    /// Recorded before, with the same content.
    pub duplicates: usize,
    /// Not recorded; each has its problem.
    pub refused: usize,
    /// Kept beside a first document of the same identity.
    pub conflicts: usize,
    /// One per document, in the order of the request.
    pub results: Vec<ManyResult>,
}

impl ManyAnswer {
    /// Adds what became of the next document.
    pub fn push(&mut self, became: Result<Outcome, Problem>) {
        let (count, status, receipt, problem) = match became {
            Ok(Outcome::Recorded(receipt)) => (&mut self.recorded, 201, Some(receipt), None),
            Ok(Outcome::Duplicate(receipt)) => (&mut self.duplicates, 200, Some(receipt), None),
            Ok(Outcome::Conflict(conflict)) => (&mut self.conflicts, 409, None, Some(Problem::of_conflict(conflict))),
            Err(problem) => (&mut self.refused, problem.status, None, Some(problem)),
        };
        *count += 1;
        self.results.push(ManyResult { index: self.results.len(), status, receipt, problem });
    }
}
