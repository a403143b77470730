//! Every call of the API: method, path, the role that it needs, and what does it.
//!
//! Invariant: the router is made of this table, so that a call which is not in it does not exist and one that is has a role. Where tokens are
//! configured each call needs one of its role; a write needs JSON beside it, which no web page can send across origins unasked, and
//! where nobody is asked for a token, or hosts are configured, a Host that is allowed (so that no name is rebound to this machine).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use counterfoil_proto::record::flag::Change;

use super::problem::Problem;
use super::tokens::Role;
use super::{Sources, delays, fleet, lookup, metrics, reconciliation, records, returns, totals, writes};
use crate::ledger::Deed;

/// What a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Fleet,
    Stores,
    Store,
    Records,
    Lookup,
    BeyondBought,
    ReturnsOfCustomer,
    Delays,
    Totals,
    Reconciliation,
    Exceptions,
    Change(Change),
    Stock,
    Audit,
    Metrics,
}

/// Path, what it does, and the role that it needs.
pub(super) const ROUTES: &[(&str, Call, Role)] = &[
    ("/v1/fleet", Call::Fleet, Role::Read),
    ("/v1/stores", Call::Stores, Role::Read),
    ("/v1/stores/{store}", Call::Store, Role::Read),
    ("/v1/records", Call::Records, Role::Read),
    ("/v1/lookup", Call::Lookup, Role::Read),
    ("/v1/returns/beyond-bought", Call::BeyondBought, Role::Read),
    ("/v1/customers/{customer_id}/returns", Call::ReturnsOfCustomer, Role::Read),
    ("/v1/delays", Call::Delays, Role::Read),
    ("/v1/totals", Call::Totals, Role::Read),
    ("/v1/reconciliation", Call::Reconciliation, Role::Read),
    ("/v1/exceptions", Call::Exceptions, Role::Read),
    ("/v1/exceptions/{id}/acknowledge", Call::Change(Change::Acknowledged), Role::Support),
    ("/v1/exceptions/{id}/resolve", Call::Change(Change::Resolved), Role::Support),
    ("/v1/exceptions/{id}/waive", Call::Change(Change::Waived), Role::Support),
    ("/v1/stock", Call::Stock, Role::Read),
    ("/v1/audit", Call::Audit, Role::Admin),
    ("/metrics", Call::Metrics, Role::Read),
];

impl Call {
    /// Whether it changes something.
    pub(super) const fn writes(self) -> bool {
        matches!(self, Self::Change(_))
    }

    fn serve(self) -> MethodRouter<Arc<Sources>> {
        match self {
            Self::Fleet => get(fleet::get),
            Self::Stores => get(super::stores),
            Self::Store => get(super::store),
            Self::Records => get(records::get),
            Self::Lookup => get(lookup::get),
            Self::BeyondBought => get(returns::beyond_bought),
            Self::ReturnsOfCustomer => get(returns::of_customer),
            Self::Delays => get(delays::get),
            Self::Totals => get(totals::get),
            Self::Reconciliation => get(reconciliation::get),
            Self::Exceptions => get(super::exceptions),
            Self::Change(change) => {
                post(async move |sources, id, who, request| writes::change(change, sources, id, who, request).await)
            }
            Self::Stock => get(super::stock),
            Self::Audit => get(writes::audit),
            Self::Metrics => get(metrics::get),
        }
    }
}

/// Where a request comes from and the address that it came in on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    pub(super) remote: Option<SocketAddr>,
    pub(super) local: Option<IpAddr>,
}

/// Who asks, and by which call.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    name: Option<(String, Role)>,
    route: String,
    peer: Option<String>,
}

impl Caller {
    /// What it does, for the trail.
    pub(super) fn deed(&self, what: String) -> Deed {
        let (who, role) = match &self.name {
            Some((name, role)) => (name.clone(), role.as_str()),
            None => ("somebody on this machine".to_owned(), "local"),
        };
        Deed { who, role, peer: self.peer.clone(), route: self.route.clone(), what }
    }
}

/// All calls, with the check of host, token, role and content type before them.
pub(super) fn guarded(sources: &Arc<Sources>) -> Router {
    let routes = ROUTES.iter().fold(Router::new(), |router, (path, call, _)| router.route(path, call.serve()));
    routes
        .fallback(async || Problem::not_found("There is nothing here"))
        .method_not_allowed_fallback(async || Problem::method())
        .layer(axum::middleware::from_fn_with_state(Arc::clone(sources), admit))
        .with_state(Arc::clone(sources))
}

async fn admit(State(sources): State<Arc<Sources>>, mut request: Request, next: Next) -> Response {
    match judge(&sources, &request) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(Refusal { problem, deed }) => {
            if let Some(deed) = deed
                && let Err(error) = sources.ledger.note_alone(&deed, "refused: role").await
            {
                tracing::warn!(%error, "A refused write could not be noted");
            }
            problem.into_response()
        }
    }
}

/// Why a request does not come in, and the write that somebody known tried.
struct Refusal {
    problem: Problem,
    deed: Option<Box<Deed>>,
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self { problem, deed: None }
    }
}

/// Host, then token, then role, then content type.
fn judge(sources: &Sources, request: &Request) -> Result<Caller, Refusal> {
    let path = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str);
    let route = ROUTES.iter().find(|(known, ..)| *known == path);
    let role = route.map_or(Role::Read, |(_, _, role)| *role);
    let writes = route.is_some_and(|(_, call, _)| call.writes()) && *request.method() == Method::POST;
    let ends = request.extensions().get::<Ends>();
    let headers = request.headers();
    check_host(sources, headers, ends.and_then(|ends| ends.local))?;
    let name = match &sources.tokens {
        None => None,
        Some(tokens) => match bearer(headers).and_then(|token| tokens.find(token)) {
            None => return Err(Problem::unauthorized().into()),
            Some((name, has)) => Some((name.to_owned(), *has)),
        },
    };
    let lacks_role = name.as_ref().is_some_and(|(_, has)| *has < role);
    let peer = ends.and_then(|ends| ends.remote).map(|remote| remote.ip().to_canonical().to_string());
    let caller = Caller { name, route: format!("{} {path}", request.method()), peer };
    if lacks_role {
        let deed = writes.then(|| Box::new(caller.deed(request.uri().path().to_owned())));
        return Err(Refusal { problem: Problem::role(role), deed });
    }
    if writes && !is_json(headers) {
        return Err(Problem::media_type().into());
    }
    Ok(caller)
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

fn is_json(headers: &HeaderMap) -> bool {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

/// Loopback names, the address that the connection came in on, and `api.allowed_hosts`. With tokens and no such hosts any name will do: no
/// web page has a token, whatever its name was turned to.
pub(super) fn check_host(sources: &Sources, headers: &HeaderMap, local: Option<IpAddr>) -> Result<(), Problem> {
    if sources.tokens.is_some() && sources.allowed_hosts.is_empty() {
        return Ok(());
    }
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return Err(Problem::forbidden_host()) };
    let host = host.to_str().unwrap_or_default();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) | None => host,
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
    let is_ours = bare.parse().is_ok_and(|address: IpAddr| {
        let address = address.to_canonical();
        address.is_loopback() || local.is_some_and(|local| local.to_canonical() == address)
    });
    let is_allowed = sources.allowed_hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(bare));
    if is_ours || is_allowed || bare.eq_ignore_ascii_case("localhost") {
        Ok(())
    } else {
        Err(Problem::forbidden_host())
    }
}
