//! Every call of the API: method, path, what it does, and each answer it can give. The router and the `OpenAPI` document are both
//! made of this table, so that neither claims what the other does not do.
//!
//! Invariant: a call that is not in [`ROUTES`] does not exist, and a status that a call can give stands beside it.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{RawPathParams, Request, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, on};
use counterfoil_pages::{AGENT, File};
use counterfoil_proto::record::flag::Change;
use counterfoil_proto::record::{Context, Kind};

use super::admit::Gate;
use super::body::{BodyBounds, discard_unasked};
use super::gate::gate;
use super::grant::{Caller, Role};
use super::metrics::Counters;
use super::peers::Peers;
use super::reply::{self, problems};
use super::{Peer, ingest, openapi, query, submit};
use crate::agent::AgentHandle;
use crate::config::IngressConfig;
use crate::legacy::Profiles;

/// What a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Takes documents of a kind.
    Submit(Kind),
    /// Takes documents of another system.
    Ingest,
    /// Judges documents and records nothing.
    Validate,
    /// Stock of an item.
    Stock,
    /// A receipt by the four parts of a transaction.
    Receipt,
    /// A receipt by `document_id`.
    ReceiptOfDocument,
    /// Totals of a day.
    Day,
    /// Exceptions.
    Exceptions,
    /// Says what was done about one.
    Change(Change),
    /// Everything about the agent.
    Status,
    /// Liveness.
    Healthz,
    /// Readiness.
    Readyz,
    /// Prometheus text.
    Metrics,
    /// This API.
    OpenApi,
    /// A file of the status page.
    Page(&'static File),
}

/// What the body of an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A receipt.
    Receipt,
    /// The first receipt of a single document that was sent before, or the results of many.
    ReceiptOrMany,
    /// What validation found, of one document or of many.
    Validation,
    /// Stock of an item.
    Stock,
    /// A receipt and how far it got.
    ReceiptProgress,
    /// Totals of a day.
    Day,
    /// A list of exceptions.
    Exceptions,
    /// One exception.
    Exception,
    /// The status.
    Status,
    /// Whether it is alive or ready.
    Health,
    /// Text that is not JSON.
    Text,
    /// A JSON document of its own.
    Json,
    /// A file of the status page, of that content type.
    Page(&'static str),
    /// No body.
    Nothing,
    /// RFC 9457.
    Problem,
}

/// What a call asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// Anybody may.
    Nothing,
    /// A known host name.
    Host,
    /// A known host name, and a token or a certificate with the role that the call needs, where those are asked for.
    HostAndToken,
}

/// One call.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// GET (and HEAD) or POST.
    pub post: bool,
    /// With parameters in braces.
    pub path: &'static str,
    /// What it does.
    pub call: Call,
    /// For people.
    pub summary: &'static str,
    /// Parameters of the query: name, whether needed, what it says.
    pub parameters: &'static [(&'static str, bool, &'static str)],
    /// Answers of its own.
    pub answers: &'static [(u16, Shape, &'static str)],
}

impl Route {
    /// What is asked of a caller.
    pub fn guard(&self) -> Guard {
        match self.call {
            Call::Healthz | Call::Readyz => Guard::Nothing,
            // The page has nothing in it; it asks for the token itself.
            Call::Page(_) => Guard::Host,
            Call::Submit(_)
            | Call::Ingest
            | Call::Validate
            | Call::Stock
            | Call::Receipt
            | Call::ReceiptOfDocument
            | Call::Day
            | Call::Exceptions
            | Call::Change(_)
            | Call::Status
            | Call::Metrics
            | Call::OpenApi => Guard::HostAndToken,
        }
    }
}

impl Route {
    /// What its caller has to be allowed.
    pub fn role(&self) -> Role {
        match self.call {
            Call::Submit(_) | Call::Ingest | Call::Validate => Role::Post,
            Call::Change(_) => Role::Support,
            Call::Stock
            | Call::Receipt
            | Call::ReceiptOfDocument
            | Call::Day
            | Call::Exceptions
            | Call::Status
            | Call::Metrics
            | Call::OpenApi
            | Call::Healthz
            | Call::Readyz
            | Call::Page(_) => Role::Read,
        }
    }
}

/// What every call answers, whoever calls it.
pub const UNGUARDED_ANSWERS: &[(u16, Shape, &str)] = &[(
    429,
    Shape::Problem,
    "Nothing was appended: the caller asks for too much at once; honour Retry-After and send the same again",
)];

/// Answers of every call that is guarded, and of every call (503).
pub const GUARDED_ANSWERS: &[(u16, Shape, &str)] = &[
    (401, Shape::Problem, "A token or a certificate is needed, or the token is not known"),
    (
        403,
        Shape::Problem,
        "The Host header names a host that is not allowed, or the caller may not do that, or not for that workstation; nothing was appended",
    ),
    (500, Shape::Problem, "A fault of the agent; nothing was appended"),
    (
        503,
        Shape::Problem,
        "Nothing was appended: too much is waiting, or the agent is stopping; honour Retry-After and send the same again",
    ),
];

/// What calls that take documents answer.
const SUBMIT_ANSWERS: &[(u16, Shape, &str)] = &[
    (201, Shape::Receipt, "One document, on the disk and synced"),
    (200, Shape::ReceiptOrMany, "One document that was recorded before (the first receipt), or the results of many"),
    (400, Shape::Problem, "The body or the document cannot be read"),
    (
        409,
        Shape::Problem,
        "The same identity was recorded with other content; this one is kept beside it, do not send it again",
    ),
    (413, Shape::Problem, "The body, the document or their number is too large"),
    (415, Shape::Problem, "Neither application/json nor application/x-ndjson, or compressed"),
    (422, Shape::Problem, "The document lacks an identity or has a wrong type; every fault is listed"),
    (507, Shape::Problem, "The journal is full, nothing was appended; honour Retry-After and send the same again"),
];

/// What `/v1/ingest/{profile}` answers.
const INGEST_ANSWERS: &[(u16, Shape, &str)] = &[
    (
        201,
        Shape::Receipt,
        "The source is one document, on the disk and synced; `warnings` name what of it is not mapped",
    ),
    (200, Shape::ReceiptOrMany, "One document that was recorded before (the first receipt), or the results of many"),
    (400, Shape::Problem, "The body cannot be read"),
    (404, Shape::Problem, "There is no such profile; the detail lists those that there are"),
    (
        409,
        Shape::Problem,
        "The same identity was recorded with other content; this one is kept beside it, do not send it again",
    ),
    (413, Shape::Problem, "The body, a document or their number is too large"),
    (
        415,
        Shape::Problem,
        "Not the content type of the profile (application/json, or application/xml or text/xml), or compressed",
    ),
    (422, Shape::Problem, "The source cannot be mapped, or what it maps to lacks an identity; every fault is listed"),
    (507, Shape::Problem, "The journal is full, nothing was appended; honour Retry-After and send the same again"),
];

const fn submit(path: &'static str, kind: Kind, summary: &'static str) -> Route {
    Route { post: true, path, call: Call::Submit(kind), summary, parameters: &[], answers: SUBMIT_ANSWERS }
}

const fn get(
    path: &'static str,
    call: Call,
    summary: &'static str,
    parameters: &'static [(&'static str, bool, &'static str)],
    answers: &'static [(u16, Shape, &'static str)],
) -> Route {
    Route { post: false, path, call, summary, parameters, answers }
}

const fn change(path: &'static str, change: Change, summary: &'static str) -> Route {
    const ANSWERS: &[(u16, Shape, &str)] = &[
        (200, Shape::Exception, "The exception as it now is; journaled"),
        (400, Shape::Problem, "The path or the body cannot be read"),
        (404, Shape::Problem, "That exception is not known here"),
        (413, Shape::Problem, "The body is too large"),
        (415, Shape::Problem, "Not application/json"),
        (422, Shape::Problem, "`by` or `reason` is missing, empty or too long"),
        (507, Shape::Problem, "The journal is full, nothing was appended; honour Retry-After and send the same again"),
    ];
    Route { post: true, path, call: Call::Change(change), summary, parameters: &[], answers: ANSWERS }
}

const fn page(file: &'static File, answers: &'static [(u16, Shape, &'static str)]) -> Route {
    get(file.path, Call::Page(file), file.summary, &[], answers)
}

const NOT_MODIFIED: (u16, Shape, &str) = (304, Shape::Nothing, "The caller has it (`If-None-Match`)");

/// All calls.
pub const ROUTES: &[Route] = &[
    submit("/v1/transactions", Kind::TRANSACTION, "Record sales, returns, exchanges, voids and no-sales"),
    submit(
        "/v1/stock-movements",
        Kind::STOCK_MOVEMENT,
        "Record receipts, transfers, adjustments, losses and counts of stock",
    ),
    submit(
        "/v1/fulfillment-updates",
        Kind::FULFILLMENT_UPDATE,
        "Record how far the lines of orders got: reserved, prepared, handed out, let go",
    ),
    submit(
        "/v1/tender-controls",
        Kind::TENDER_CONTROL,
        "Record money put into or taken out of tills outside sales, and counted in them",
    ),
    submit("/v1/day-closes", Kind::DAY_CLOSE, "Record the close of a business day with its declared totals"),
    Route {
        post: true,
        path: "/v1/ingest/{profile}",
        call: Call::Ingest,
        summary: "Record documents of another system (square, shopify, ncr-2.1, poslog-6, or a dialect of the configuration)",
        parameters: &[],
        answers: INGEST_ANSWERS,
    },
    Route {
        post: true,
        path: "/v1/validate",
        call: Call::Validate,
        summary: "List every fault and flag of documents; records nothing",
        parameters: &[(
            "kind",
            false,
            "transaction (default), stock_movement, fulfillment_update, tender_control or day_close",
        )],
        answers: &[
            (200, Shape::Validation, "What would become of the document, or of each of many"),
            (400, Shape::Problem, "The request cannot be understood"),
            (413, Shape::Problem, "The body or the number of documents is too large"),
            (415, Shape::Problem, "Neither application/json nor application/x-ndjson, or compressed"),
        ],
    },
    get(
        "/v1/stock/{item_id}",
        Call::Stock,
        "Stock of an item",
        &[],
        &[
            (200, Shape::Stock, "On hand, reserved, available, and as of where"),
            (400, Shape::Problem, "The path cannot be understood"),
            (404, Shape::Problem, "No record names that item"),
        ],
    ),
    get(
        "/v1/receipts/{workstation_id}/{business_day_date}/{sequence_number}",
        Call::Receipt,
        "The receipt of a transaction, and how far it got",
        &[("sequence_epoch", false, "For tills whose counter restarts; 0 by default")],
        &[
            (200, Shape::ReceiptProgress, "The receipt"),
            (400, Shape::Problem, "A number or a date is not one"),
            (404, Shape::Problem, "That transaction is not known here"),
        ],
    ),
    get(
        "/v1/receipts",
        Call::ReceiptOfDocument,
        "The receipt of a document, and how far it got",
        &[("document_id", true, "As in the document")],
        &[
            (200, Shape::ReceiptProgress, "The receipt"),
            (400, Shape::Problem, "document_id is missing"),
            (404, Shape::Problem, "That document is not known here"),
        ],
    ),
    get(
        "/v1/days/{business_day_date}",
        Call::Day,
        "Running control totals of a business day",
        &[],
        &[
            (200, Shape::Day, "Per currency and till, with what was declared; empty where nothing was recorded"),
            (400, Shape::Problem, "Not a date"),
        ],
    ),
    get(
        "/v1/exceptions",
        Call::Exceptions,
        "What needs a person",
        &[("all", false, "true: also those that were resolved or waived")],
        &[(200, Shape::Exceptions, "The exceptions"), (400, Shape::Problem, "Not true or false")],
    ),
    change(
        "/v1/exceptions/{id}/acknowledge",
        Change::Acknowledged,
        "Say that somebody looks after an exception; it stays open",
    ),
    change("/v1/exceptions/{id}/resolve", Change::Resolved, "Resolve an exception: who and why"),
    change("/v1/exceptions/{id}/waive", Change::Waived, "Leave an exception as it is, on purpose: who and why"),
    get("/v1/status", Call::Status, "Everything about the agent", &[], &[(200, Shape::Status, "The status")]),
    get(
        "/healthz",
        Call::Healthz,
        "Whether the agent lives",
        &[],
        &[(200, Shape::Health, "It lives"), (503, Shape::Problem, "It does not; start it again")],
    ),
    get(
        "/readyz",
        Call::Readyz,
        "Whether the agent accepts documents",
        &[],
        &[(200, Shape::Health, "It does"), (503, Shape::Problem, "It does not")],
    ),
    get(
        "/metrics",
        Call::Metrics,
        "Counters and gauges for Prometheus",
        &[],
        &[(200, Shape::Text, "Text format 0.0.4")],
    ),
    get("/openapi.json", Call::OpenApi, "This description", &[], &[(200, Shape::Json, "OpenAPI 3.1")]),
    page(&AGENT[0], &[(200, Shape::Page("text/html"), "The page"), NOT_MODIFIED]),
    page(&AGENT[1], &[(200, Shape::Page("text/css"), "The stylesheet"), NOT_MODIFIED]),
    page(&AGENT[2], &[(200, Shape::Page("text/javascript"), "The module"), NOT_MODIFIED]),
];

/// What calls need.
#[derive(Debug)]
pub struct Api {
    /// Who answers.
    pub agent: AgentHandle,
    /// What documents are judged by.
    pub context: Arc<Context>,
    /// What documents of other systems are mapped by.
    pub profiles: Profiles,
    /// Bounds of bodies.
    pub bodies: BodyBounds,
    /// What was answered.
    pub counters: Arc<Counters>,
    /// Certificates that metrics watch.
    pub certificates: Vec<(&'static str, PathBuf)>,
    pub(super) peers: Arc<Peers>,
    pub(super) gate: Gate,
    openapi: OnceLock<Bytes>,
}

impl Api {
    /// What calls need, out of the configuration.
    pub fn new(
        config: &IngressConfig,
        context: Context,
        agent: AgentHandle,
        counters: Arc<Counters>,
        peers: Arc<Peers>,
    ) -> Self {
        let takes_certificates = config.tls.as_ref().is_some_and(|files| files.client_ca_file.is_some());
        Self {
            agent,
            context: Arc::new(context),
            profiles: config.profiles.clone(),
            bodies: BodyBounds::new(config.body_bytes_max, config.bodies_bytes_max, config.body_timeout),
            counters,
            certificates: config.certificates.clone(),
            peers,
            gate: Gate::new(config.tokens.clone(), takes_certificates, &config.allowed_hosts),
            openapi: OnceLock::new(),
        }
    }
}

/// A request whose head was taken apart.
#[derive(Debug)]
pub struct Asked {
    /// For the query.
    pub uri: Uri,
    /// For content type and key.
    pub headers: HeaderMap,
    /// Parameters of the path, decoded, in order.
    pub path: Vec<String>,
    /// Not yet read.
    pub body: Body,
    /// Its connection.
    pub peer: Peer,
    /// Who asks.
    pub caller: Caller,
}

/// All calls, with the gate before them.
pub fn router(api: Api) -> Router {
    let api = Arc::new(api);
    let routes = ROUTES.iter().fold(Router::new(), |router, route| {
        let call = route.call;
        let method = if route.post { MethodFilter::POST } else { MethodFilter::GET };
        router.route(route.path, on(method, move |api, params, request| answer(call, api, params, request)))
    });
    routes
        .method_not_allowed_fallback(|request: Request| async {
            discard_whole(request).await;
            problems::METHOD_NOT_ALLOWED.detail("See /openapi.json for what it takes").into_response()
        })
        .fallback(|request: Request| async {
            discard_whole(request).await;
            problems::NOT_FOUND.detail("See /openapi.json for what there is").into_response()
        })
        .layer(middleware::from_fn_with_state(Arc::clone(&api), gate))
        .with_state(api)
}

/// For a call that is none, whatever its head says.
async fn discard_whole(request: Request) {
    if let Some(peer) = request.extensions().get::<Peer>().cloned() {
        discard_unasked(&HeaderMap::new(), request.into_body(), &peer.phase).await;
    }
}

/// The parameters of a path, percent-decoded.
type Params = Result<RawPathParams, RawPathParamsRejection>;

async fn answer(call: Call, State(api): State<Arc<Api>>, params: Params, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let (peer, caller) = (parts.extensions.get::<Peer>().cloned(), parts.extensions.get::<Caller>().cloned());
    let (Some(peer), Some(caller)) = (peer, caller) else {
        return problems::FAULT_OF_OURS.detail("The request lost its connection").into_response();
    };
    let Ok(params) = params else {
        discard_unasked(&parts.headers, body, &peer.phase).await;
        return problems::BAD_REQUEST.detail("The path is not percent-encoded UTF-8").into_response();
    };
    let path = params.iter().map(|(_, value)| value.to_owned()).collect();
    let asked = Asked { uri: parts.uri, headers: parts.headers, path, body, peer, caller };
    let answered = match call {
        Call::Submit(kind) => submit::submit(&api, kind, asked).await,
        Call::Ingest => ingest::ingest(&api, asked).await,
        Call::Validate => submit::validate(&api, asked).await,
        Call::Stock => query::stock(&api, asked).await,
        Call::Receipt => query::receipt(&api, asked).await,
        Call::ReceiptOfDocument => query::receipt_of_document(&api, asked).await,
        Call::Day => query::day(&api, asked).await,
        Call::Exceptions => query::exceptions(&api, asked).await,
        Call::Change(change) => query::change(&api, change, asked).await,
        Call::Status => Ok(reply::json(StatusCode::OK, &*api.agent.status())),
        Call::Healthz => query::healthz(&api),
        Call::Readyz => query::readyz(&api),
        Call::Metrics => Ok(query::metrics(&api).await),
        Call::Page(file) => Ok(file.answer(&asked.headers)),
        Call::OpenApi => {
            let bytes = api.openapi.get_or_init(|| Bytes::from(openapi::document().to_string()));
            Ok(reply::bytes_of(StatusCode::OK, "application/json", bytes.clone()))
        }
    };
    answered.unwrap_or_else(IntoResponse::into_response)
}
