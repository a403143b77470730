//! The HTTP API: what people and systems ask the hub.
//!
//! Invariant: connections, headers and answers are bounded; where tokens are configured every call but the two probes and the pages needs one with the role
//! of the call ([`routes`]), and where none are, only names of this machine are answered to (so that a web page cannot reach in through DNS). Faults are RFC
//! 9457 problems that never echo values. What is written is written by [`writes`] alone, with its entry in the trail.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use counterfoil_config::tls::{Judged, Renewing, ServerFiles, TlsError};
use counterfoil_proto::time::WallTime;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use crate::authority::Authority;
use crate::config::{ApiConfig, Config};
use crate::env;
use crate::ledger::{ExceptionFilter, Ledger, LedgerError};
use crate::mqtt::Outlet;
use crate::receiver::Counters;
use crate::run::stopped;

mod answers;
mod delays;
mod est;
mod fleet;
mod lookup;
pub mod metrics;
mod problem;
mod reconciliation;
mod records;
mod returns;
mod routes;
pub mod standings;
pub mod tokens;
mod totals;
mod writes;

pub(crate) use answers::exception as exception_answer;
use est::Peer;
use problem::Problem;
use routes::Ends;
use tokens::Tokens;

/// From the first byte of a request to the end of its headers; also how long an idle connection is kept.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// For a TLS handshake; a satellite line needs three seconds.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);
/// Bytes of the headers of a request.
const HEADER_BYTES_MAX: usize = 16 * 1024;
/// For requests at work when the hub stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
const EXCEPTIONS_MAX: usize = 1_000;

/// What answers are made from.
#[derive(Debug)]
pub struct Sources {
    /// The ledger.
    pub ledger: Arc<dyn Ledger>,
    /// The receiver's counters.
    pub counters: Arc<Counters>,
    /// Messages that were dropped on the way in.
    pub dropped: Arc<AtomicU64>,
    /// The line to the broker.
    pub outlet: Outlet,
    /// The last position, as the poster sees it.
    pub posted: watch::Receiver<u64>,
    /// Who may call.
    pub tokens: Option<Tokens>,
    /// Names that the hub may be called by, beside those of its machine.
    pub allowed_hosts: Vec<String>,
    /// The region of a store.
    pub regions: BTreeMap<String, String>,
    /// How the stores' days stood at the last look.
    pub standings: watch::Receiver<Vec<standings::DayStanding>>,
    /// Certificates that metrics watch, by what they are for.
    pub certificates: Vec<(&'static str, PathBuf)>,
    /// Who signs certificates, if this hub does.
    pub authority: Option<Arc<Authority>>,
}

type Answer = Result<Response, Problem>;

/// What the API's connections are encrypted with; `None` for plain HTTP. Whoever has a certificate of the authority may show it, and one that has
/// expired as well: renewing it is what it is good for.
pub fn encryption(config: &Config) -> Result<Option<Renewing>, TlsError> {
    let Some(identity) = config.api.tls.clone() else { return Ok(None) };
    let client_ca_file = config.authority.as_ref().map(|authority| authority.identity.cert_file.clone());
    Renewing::open_judging(ServerFiles { identity, client_ca_file }, Judged::AsOfItsEnd, env::instant()).map(Some)
}

/// Answers on `listener` until `stop`.
pub async fn serve(
    listener: TcpListener,
    encryption: Option<Renewing>,
    config: &ApiConfig,
    sources: Arc<Sources>,
    stop: watch::Receiver<bool>,
) {
    let router = router(sources);
    let places = Arc::new(Semaphore::new(config.connections_max));
    let mut connections = JoinSet::new();
    let mut stopping = stop.clone();
    loop {
        let accepted = tokio::select! {
            () = stopped(&mut stopping) => break,
            accepted = accept(&listener, &places) => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let Some((stream, place)) = accepted else { continue };
        let ends = Ends { remote: stream.peer_addr().ok(), local: stream.local_addr().ok().map(|local| local.ip()) };
        let acceptor = encryption.as_ref().map(|encryption| {
            let (tls, trouble) = encryption.current(env::instant());
            if let Some(error) = trouble {
                tracing::error!(%error, "Renewed files of the API cannot be used; the old ones are");
            }
            TlsAcceptor::from(tls)
        });
        let (router, stop) = (router.clone().layer(axum::Extension(ends)), stop.clone());
        connections.spawn(async move {
            let _place = place;
            match acceptor {
                None => speak(stream, Peer::default(), router, stop).await,
                Some(acceptor) => shake_hands(stream, acceptor, router, stop).await,
            }
        });
    }
    let drained = tokio::time::timeout(DRAIN_TIMEOUT, async { while connections.join_next().await.is_some() {} });
    if drained.await.is_err() {
        connections.abort_all();
    }
}

async fn shake_hands(stream: TcpStream, acceptor: TlsAcceptor, router: Router, stop: watch::Receiver<bool>) {
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
            let peer = Peer(Arc::new(chain.iter().map(|certificate| certificate.clone().into_owned()).collect()));
            speak(stream, peer, router, stop).await;
        }
        Ok(Err(error)) => tracing::debug!(%error, "A TLS handshake with the API failed"),
        Err(_) => tracing::debug!("A TLS handshake with the API took too long"),
    }
}

async fn speak(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    peer: Peer,
    router: Router,
    mut stop: watch::Receiver<bool>,
) {
    let service = tower::service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(peer.clone());
        router.clone().oneshot(request)
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "A connection of the API ended");
    }
}

/// Waits for room before it accepts: what is above the bound waits in the kernel.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(tokio::net::TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => {
            // Answers are small; without this the last piece of each waits.
            stream.set_nodelay(true).ok()?;
            Some((stream, place))
        }
        Err(error) => {
            tracing::warn!(%error, "Cannot accept a connection");
            // Out of descriptors, for example: a pause lets others close theirs.
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

/// Binds the address.
pub async fn bind(listen: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(listen).await
}

fn router(sources: Arc<Sources>) -> Router {
    let guarded = routes::guarded(&sources);
    // The pages have nothing in them; they ask for the token themselves.
    let pages = counterfoil_pages::HUB.iter().fold(Router::new(), |router, file| {
        router.route(file.path, get(async |headers: HeaderMap| file.answer(&headers)))
    });
    let pages = pages.layer(axum::middleware::from_fn_with_state(Arc::clone(&sources), admit_page));
    // Tokens of the API are for people and systems; a box has one of its own, or its certificate.
    let est = Router::new()
        .route("/.well-known/est/cacerts", get(est::authorities))
        .route("/.well-known/est/simpleenroll", post(est::enrol))
        .route("/.well-known/est/simplereenroll", post(est::renew))
        .layer(DefaultBodyLimit::max(est::REQUEST_BYTES_MAX));
    Router::new()
        .merge(pages)
        .merge(est)
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .with_state(sources)
        .merge(guarded)
}

async fn admit_page(State(sources): State<Arc<Sources>>, request: Request, next: Next) -> Response {
    let local = request.extensions().get::<Ends>().and_then(|ends| ends.local);
    match routes::check_host(&sources, request.headers(), local) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

async fn ready(State(sources): State<Arc<Sources>>) -> Response {
    let is_connected = sources.outlet.is_connected();
    match sources.ledger.cursor(None).await {
        Ok(_) if is_connected => (StatusCode::OK, "ready\n").into_response(),
        Ok(_) => (StatusCode::SERVICE_UNAVAILABLE, "the broker is not connected\n").into_response(),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the ledger cannot be reached\n").into_response(),
    }
}

async fn stores(State(sources): State<Arc<Sources>>) -> Answer {
    let views = sources.ledger.stores(None).await?;
    Ok(json(&answers::Stores { stores: answers::stores(views) }))
}

async fn store(State(sources): State<Arc<Sources>>, Path(store_id): Path<String>) -> Answer {
    let views = sources.ledger.stores(Some(&store_id)).await?;
    let found = answers::stores(views).into_iter().next();
    let found = found.ok_or_else(|| Problem::not_found("No agent of this store ever spoke to this hub"))?;
    Ok(json(&found))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExceptionQuery {
    store: Option<String>,
    code: Option<String>,
    state: Option<String>,
    after: Option<String>,
    limit: Option<usize>,
}

async fn exceptions(
    State(sources): State<Arc<Sources>>,
    query: Result<Query<ExceptionQuery>, axum::extract::rejection::QueryRejection>,
) -> Answer {
    let Query(query) = query.map_err(|_| Problem::query("store, code, state, after and limit"))?;
    let limit = query.limit.unwrap_or(EXCEPTIONS_MAX).clamp(1, EXCEPTIONS_MAX);
    let filter =
        ExceptionFilter { store_id: query.store, code: query.code, state: query.state, after: query.after, limit };
    let views = sources.ledger.exceptions(&filter).await?;
    let next_after = if views.len() == limit { views.last().map(|view| view.id.clone()) } else { None };
    let now = env::wall().0;
    let exceptions = views.into_iter().map(|view| answers::exception(view, now)).collect();
    Ok(json(&answers::Exceptions { exceptions, next_after }))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StockQuery {
    store: String,
}

async fn stock(
    State(sources): State<Arc<Sources>>,
    query: Result<Query<StockQuery>, axum::extract::rejection::QueryRejection>,
) -> Answer {
    let Query(query) = query.map_err(|_| Problem::query("store, which is required"))?;
    let views = sources.ledger.stock(&query.store).await?;
    Ok(json(&answers::stock(query.store, &views)))
}

fn json<T: serde::Serialize>(answer: &T) -> Response {
    match serde_json::to_vec(answer) {
        Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
        // Our own types have no keys or numbers that JSON lacks.
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn rfc3339(wall_ms: i64) -> String {
    WallTime(wall_ms).to_rfc3339()
}

impl From<LedgerError> for Problem {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::Cursor { restore_point } => Self::gone(restore_point),
            LedgerError::Unreachable { .. }
            | LedgerError::Busy { .. }
            | LedgerError::WentBack { .. }
            | LedgerError::Doubled { .. }
            | LedgerError::Refused { .. }
            | LedgerError::Shape
            | LedgerError::Newer { .. } => {
                tracing::warn!(%error, "A question could not be answered");
                Self::unavailable()
            }
        }
    }
}

fn count(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests;
