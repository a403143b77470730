//! What stands before every call: host, caller, budget, role; and what is counted and logged of the answer.
//!
//! Invariant: a request that is refused here costs its peer from its budget all the same, as does every byte of a body, whoever reads it; who
//! has used that up waits for the refusal, and makes room for others meanwhile.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use counterfoil_telemetry::trace;
use http_body_util::BodyExt;
use hyper::HeaderMap;
use tokio::time::Instant;
use tracing::{Instrument, Span};

use super::body::{discard_slowly, discard_unasked};
use super::connection::Phase;
use super::grant::{Caller, Role};
use super::peers::{Exhausted, Payer};
use super::reply::{Problem, Slug, problems};
use super::route::{Api, Guard, ROUTES, Route};
use super::{Peer, admit};

/// How long a refusal waits before it is told: a peer that asks without end gets one a second on each of its connections.
const HELD_FOR: Duration = Duration::from_secs(1);

impl Api {
    fn admit(&self, guard: Guard, role: Role, request: &Request, peer: &Peer) -> Result<Caller, Problem> {
        let (uri, headers) = (request.uri(), request.headers());
        match guard {
            Guard::Nothing => Ok(Caller::LOCAL),
            Guard::Host => self.gate.admit_host(uri, headers, peer.local).map(|()| Caller::LOCAL),
            Guard::HostAndToken => {
                let caller = self.gate.admit(uri, headers, peer.local, peer.common_name.as_deref())?;
                peer.phase.prove();
                if caller.grant.role >= role {
                    return Ok(caller);
                }
                Err(problems::ROLE_NOT_ENOUGH.detail("Its line in `ingress.tokens_file` says `role=` what it may do"))
            }
        }
    }

    /// Has the caller pay for a request, and its body as it comes. An unknown one pays by its address; nobody pays on the Unix socket.
    fn charge(
        self: &Arc<Self>,
        peer: &Peer,
        caller: Option<&Caller>,
        request: Request,
    ) -> Result<Request, (Exhausted, Body)> {
        let name = caller.and_then(|caller| caller.name.clone());
        let Some(payer) = peer.remote.map(|address| name.map_or_else(|| Payer::at(address), Payer::Name)) else {
            return Ok(request);
        };
        if let Err(exhausted) = self.peers.take(&payer, 1, peer.phase.now_ms()) {
            if exhausted.is_news {
                tracing::warn!(peer = %payer, "a peer asks for too much at once; what is too much is refused");
            }
            return Err((exhausted, request.into_body()));
        }
        let (api, phase) = (Arc::clone(self), peer.phase.clone());
        let pay = move |frame: hyper::body::Frame<Bytes>| {
            api.peers.take_bytes(&payer, frame.data_ref().map_or(0, Bytes::len), phase.now_ms());
            frame
        };
        Ok(request.map(|body| Body::new(body.map_frame(pay))))
    }
}

/// Host, caller, budget and role before anything else, and the count of what was answered after it.
pub(super) async fn gate(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>();
    let index = path.and_then(|path| ROUTES.iter().position(|route| route.path == path.as_str()));
    let route = index.and_then(|index| ROUTES.get(index));
    let (guard, role) = route.map_or((Guard::HostAndToken, Role::Read), |route| (route.guard(), route.role()));
    let Some(peer) = request.extensions().get::<Peer>().cloned() else {
        return problems::FAULT_OF_OURS.detail("The request lost its connection").into_response();
    };
    let admitted = api.admit(guard, role, &request, &peer);
    let name = admitted.as_ref().ok().and_then(|caller| caller.name.clone());
    let span = route.filter(|route| route.post).map_or_else(Span::none, |route| span_of(route, request.headers()));
    let response = match (api.charge(&peer, admitted.as_ref().ok(), request), admitted) {
        (Ok(mut request), Ok(caller)) => {
            request.extensions_mut().insert(caller);
            next.run(request).instrument(span.clone()).await
        }
        (Ok(request), Err(problem)) => {
            let (parts, body) = request.into_parts();
            discard_unasked(&parts.headers, body, &peer.phase).await;
            problem.into_response()
        }
        (Err((exhausted, body)), _) => {
            peer.phase.enter(Phase::Held);
            discard_slowly(body, Instant::now() + HELD_FOR).await;
            Problem::of_exhausted(exhausted).into_response()
        }
    };
    let status = response.status().as_u16();
    let problem = response.extensions().get::<Slug>().map(|slug| slug.0);
    api.counters.answered(index, status, problem);
    span.record("http.response.status_code", status);
    let route = route.map_or("none", |route| route.path);
    span.in_scope(|| tracing::debug!(route, status, problem, caller = name, peer = ?peer.remote, "answered"));
    response
}

/// What a write is followed by in log and traces. Reads have none: they are pages and probes, again and again.
fn span_of(route: &Route, headers: &HeaderMap) -> Span {
    let traceparent = admit::traceparent(headers);
    let trace_id = traceparent.and_then(trace::trace_id);
    let span = tracing::info_span!(
        "request",
        otel.name = tracing::field::Empty,
        otel.kind = tracing::field::Empty,
        http.route = route.path,
        http.response.status_code = tracing::field::Empty,
        trace_id
    );
    if trace::is_on() {
        span.record("otel.name", route.path).record("otel.kind", "server");
        trace::follow(&span, traceparent);
    }
    span
}
