//! The tills' side: listens, bounds connections, speaks HTTP/1.1, and drains at a stop.
//!
//! A connection is taken by `open` (its peer's share) and `peers` (its peer's budget; who goes on without one is kept off by `shutout`), with TLS
//! where there are files for it. A request goes
//! `connection` (time limits) -> `gate` (host, token or certificate, budget, role) -> `route` -> `submit` or `query` -> the agent -> `reply`.
//!
//! Invariants: connections, heads, bodies and waiting requests are bounded, and whoever meets a bound learns it by status code or
//! by a closed connection, and by silence only where it goes on regardless; a thousand sockets that do nothing and a peer that asks without
//! end do not keep an honest till out, because the idle and the slow make room and each peer pays from its own budget; a success is told only after the agent told it.
//! The Unix socket is plain and has no budget: its permissions say who may. What documents mean is deliberately not known here.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::response::Response;
use counterfoil_config::certificate::Facts;
use counterfoil_config::tls::{Renewing, TlsError};
use counterfoil_proto::record::Context;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use crate::agent::AgentHandle;
use crate::config::IngressConfig;

pub mod admit;
pub mod body;
pub mod connection;
mod gate;
pub mod grant;
pub mod ingest;
pub mod metrics;
mod open;
pub mod openapi;
pub mod peers;
pub mod query;
pub mod reply;
pub mod route;
mod shutout;
pub mod submit;

use connection::{IdleAfter, Patience, Patient, Phase, PhaseCell, Socket};
use metrics::Counters;
use open::Open;
use peers::{PLAIN_CONNECTION_COST, Payer, Peers, TLS_CONNECTION_COST};
use reply::Unanswered;
use route::Api;
use shutout::Shutout;

/// Headers of one request; tills send about ten.
const HEADERS_MAX: usize = 64;

/// Connections beyond the bound that are told so (503) at once; what is beyond these is closed without a word.
const TURNED_AWAY_MAX: usize = 64;

/// How long telling one may take.
const TURN_AWAY_WITHIN: Duration = Duration::from_secs(1);

/// The pause after a failed accept (for example no file descriptors left), so that the failure does not eat a core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The answer to who comes while every connection, or every one of its share, is answering.
const NO_ROOM: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\nretry-after: 1\r\n\
connection: close\r\ncontent-length: 167\r\n\r\n{\"type\":\"https://counterfoil.dev/problems/busy\",\"title\":\"Too much is waiting\",\
\"status\":503,\"detail\":\"Too many connections. Nothing was appended; send the same again\"}\n";

/// The answer to who opens too many connections in a short time.
const TOO_MANY: &[u8] = b"HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/problem+json\r\nretry-after: 1\r\n\
connection: close\r\ncontent-length: 213\r\n\r\n{\"type\":\"https://counterfoil.dev/problems/too-many-requests\",\"title\":\
\"The caller asks for too much at once\",\"status\":429,\"detail\":\"Too many connections in a short time. Nothing was appended; send the same again\"}\n";

/// The tills cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum IngressError {
    /// The address cannot be had.
    #[error("Cannot listen on {address} (`ingress.listen`); is another process there?")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The Unix socket cannot be had.
    #[error("Cannot listen on the Unix socket {path} (`ingress.unix_socket`)")]
    UnixSocket {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The files for TLS cannot be used.
    #[error("Cannot offer TLS to tills (`ingress.cert_file`, `ingress.key_file`, `ingress.client_ca_file`)")]
    Tls(#[from] TlsError),
    /// The socket that the service manager opened is not one that tills can be served on.
    #[error(
        "Cannot take the socket that systemd opened; counterfoil.socket may have one `ListenStream=` of a Unix socket, and nothing else"
    )]
    Inherited {
        /// Why not.
        source: io::Error,
    },
}

/// The tills' side, listening.
#[derive(Debug)]
pub struct Ingress {
    /// What is accepted is not made known to the runtime before it is taken, so that refusing it costs two calls of the kernel.
    tcp: AsyncFd<std::net::TcpListener>,
    unix: Option<UnixListener>,
    /// The Unix socket that goes with us; one that systemd opened stays.
    unix_path: Option<PathBuf>,
    /// `None` where TCP is plain.
    tls: Option<Renewing>,
    router: Router,
    counters: Arc<Counters>,
    peers: Arc<Peers>,
    patience: Patience,
    connections_max: usize,
    peer_connections_max: usize,
    drain_timeout: Duration,
}

impl Ingress {
    /// Listens; answers begin with [`Ingress::serve`].
    pub async fn bind(config: &IngressConfig, context: Context, agent: AgentHandle) -> Result<Self, IngressError> {
        Self::bind_with(config, context, agent, None).await
    }

    /// The same with a Unix socket that is listening already, which takes the place of the configured one. What tills sent there before
    /// waits in the kernel.
    pub async fn bind_with(
        config: &IngressConfig,
        context: Context,
        agent: AgentHandle,
        inherited: Option<std::os::unix::net::UnixListener>,
    ) -> Result<Self, IngressError> {
        let tls = config.tls.clone().map(|files| Renewing::open(files, Instant::now().into_std())).transpose()?;
        let listen_failed = |source| IngressError::Listen { address: config.listen, source };
        let tcp = TcpListener::bind(config.listen).await.and_then(TcpListener::into_std).and_then(watched);
        let tcp = tcp.map_err(listen_failed)?;
        let unix_path = config.unix_socket.clone().filter(|_| inherited.is_none());
        let unix = match (inherited, &unix_path) {
            (Some(listener), _) => {
                let taken = listener.set_nonblocking(true).and_then(|()| UnixListener::from_std(listener));
                Some(taken.map_err(|source| IngressError::Inherited { source })?)
            }
            (None, Some(path)) => {
                let failed = |source| IngressError::UnixSocket { path: path.clone(), source };
                Some(listen_unix(path).map_err(failed)?)
            }
            (None, None) => None,
        };
        let counters = Arc::new(Counters::default());
        let peers = Arc::new(Peers::new(config.allowance));
        Ok(Self {
            tcp,
            unix,
            unix_path,
            tls,
            router: route::router(Api::new(config, context, agent, Arc::clone(&counters), Arc::clone(&peers))),
            counters,
            peers,
            patience: Patience { idle: config.idle_timeout, head: config.header_timeout, write: config.body_timeout },
            connections_max: config.connections_max,
            peer_connections_max: config.peer_connections_max,
            drain_timeout: config.drain_timeout,
        })
    }

    /// Where it listens; tells the port where the configuration left it to the kernel.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.get_ref().local_addr()
    }

    /// Serves until `stop`; then takes no more, lets requests at work end, and closes.
    pub async fn serve(self, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        let (stopping, stopped) = watch::channel(false);
        let mut open = Open::new(stopped);
        let mut turned_away = JoinSet::new();
        let mut shutout = Shutout::default();
        let mut sweep = tokio::time::interval(self.patience.sweep_every());
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = &mut stop => break,
                Some(ended) = open.tasks.join_next_with_id() => open.forget(ended.map_or_else(|error| error.id(), |(id, ())| id)),
                Some(_) = turned_away.join_next() => {}
                _ = sweep.tick(), if open.len() > 0 => open.cut_overdue(&self.patience),
                () = at(open.start, shutout.release_at_ms()) => {
                    if shutout.release(open.now_ms()) {
                        self.shut_out(&shutout);
                    }
                }
                accepted = self.accept() => match accepted {
                    Ok(accepted) => {
                        self.take(&mut open, &mut turned_away, &mut shutout, accepted);
                        self.counters.connections(open.len());
                        // However many wait: requests have their turn after each.
                        tokio::task::yield_now().await;
                    }
                    // That peer went before it was accepted; the next one did not.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                    Err(error) => {
                        let made_room = open.give_up_one();
                        tracing::warn!(%error, made_room, "cannot accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
            self.counters.connections(open.len());
        }
        tracing::info!(connections = open.len(), "ingress is draining");
        stopping.send_replace(true);
        let drained = timeout(self.drain_timeout, async { while open.tasks.join_next().await.is_some() {} }).await;
        if drained.is_err() {
            tracing::warn!(
                connections = open.tasks.len(),
                "connections were closed before they ended; their tills send again"
            );
        }
        open.tasks.abort_all();
        if let Some(path) = &self.unix_path
            && let Err(error) = std::fs::remove_file(path)
        {
            tracing::warn!(%error, "cannot remove the Unix socket");
        }
    }

    /// Has a peer pay for a connection; where it cannot, and goes on, it is shut out.
    fn pays(&self, payer: &Payer, cost: u32, now_ms: u64, shutout: &mut Shutout) -> bool {
        let Err(exhausted) = self.peers.take(payer, cost, now_ms) else { return true };
        self.counters.connection_refused();
        if exhausted.is_news {
            tracing::warn!(peer = %payer, "a peer opens too many connections; what is too much is refused");
        }
        if let Payer::Address(address) = payer
            && let Some(length) = shutout.refused(*address, now_ms)
        {
            self.counters.shut_out();
            tracing::warn!(peer = %payer, ?length, "a peer goes on opening connections; for a while what it opens is not heard");
            self.shut_out(shutout);
        }
        false
    }

    fn shut_out(&self, shutout: &Shutout) {
        if let Err(error) = shutout.apply(self.tcp.get_ref()) {
            tracing::warn!(%error, "the kernel does not take the filter; connections that are too many are refused one by one");
        }
    }

    async fn accept(&self) -> io::Result<Accepted> {
        let unix = async {
            match &self.unix {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            tcp = self.accept_tcp() => {
                let (socket, remote) = tcp?;
                Ok(Accepted::Tcp(socket, remote.ip()))
            }
            unix = unix => Ok(Accepted::Unix(unix?.0)),
        }
    }

    async fn accept_tcp(&self) -> io::Result<(std::net::TcpStream, SocketAddr)> {
        loop {
            if let Ok(accepted) = self.tcp.readable().await?.try_io(|listener| listener.get_ref().accept()) {
                return accepted;
            }
        }
    }

    /// Takes a connection; where there is no room, gives up another one, or turns this one away.
    fn take(&self, open: &mut Open, turned_away: &mut JoinSet<()>, shutout: &mut Shutout, accepted: Accepted) {
        let remote = match &accepted {
            Accepted::Tcp(_, remote) => Some(*remote),
            Accepted::Unix(_) => None,
        };
        let tls = self.tls.as_ref().filter(|_| remote.is_some());
        let phase = PhaseCell::new(open.start);
        let payer = remote.map(Payer::at);
        let is_plain = tls.is_none();
        let mut turn_away = |accepted: Accepted, words| {
            // Who expects TLS would not understand them.
            if is_plain
                && turned_away.len() < TURNED_AWAY_MAX
                && let Ok(socket) = accepted.known()
            {
                turned_away.spawn(tell_and_close(socket, words));
            }
        };
        if let Some(payer) = &payer {
            let cost = if is_plain { PLAIN_CONNECTION_COST } else { TLS_CONNECTION_COST };
            if !self.pays(payer, cost, phase.now_ms(), shutout) {
                return turn_away(accepted, TOO_MANY);
            }
            if open.of(payer) >= self.peer_connections_max {
                if !open.give_up_one_of(payer) {
                    self.counters.turned_away();
                    return turn_away(accepted, NO_ROOM);
                }
                self.counters.given_up();
            }
        }
        if open.len() >= self.connections_max {
            if !open.give_up_one() {
                self.counters.turned_away();
                return turn_away(accepted, NO_ROOM);
            }
            self.counters.given_up();
        }
        let Ok(socket) = accepted.known() else { return };
        let local = socket.prepare();
        let io = Patient::new(socket, phase.clone(), self.patience.write);
        let peer = Peer { phase: phase.clone(), local, remote, common_name: None };
        let (router, stopped) = (self.router.clone(), open.stopped.clone());
        match tls {
            None => open.add(converse(io, peer, router, stopped), phase, payer),
            Some(tls) => {
                phase.enter(Phase::Handshake);
                let (config, trouble) = tls.current(Instant::now().into_std());
                if let Some(error) = trouble {
                    tracing::error!(%error, "the files for TLS were changed and cannot be used; tills are served with those before");
                }
                let counters = Arc::clone(&self.counters);
                let work = async move {
                    match encrypt(TlsAcceptor::from(config), io, peer).await {
                        Ok((io, peer)) => converse(io, peer, router, stopped).await,
                        Err(error) => {
                            counters.unencrypted();
                            tracing::debug!(%error, "TLS was not agreed on");
                        }
                    }
                };
                open.add(work, phase, payer);
            }
        }
    }
}

#[expect(
    deprecated,
    reason = "unsound only for what changes its descriptor, which a listener of std does not; what takes its place is unsafe to call"
)]
fn watched(listener: std::net::TcpListener) -> io::Result<AsyncFd<std::net::TcpListener>> {
    AsyncFd::new(listener)
}

/// Until then, counted from `start`; for ever where there is nothing to wait for.
async fn at(start: Instant, ms: Option<u64>) {
    match ms {
        Some(ms) => tokio::time::sleep_until(start + Duration::from_millis(ms)).await,
        None => std::future::pending().await,
    }
}

/// A connection that was accepted.
enum Accepted {
    /// From an address.
    Tcp(std::net::TcpStream, IpAddr),
    /// Of the Unix socket.
    Unix(UnixStream),
}

impl Accepted {
    /// Made known to the runtime; fails where the connection is gone already.
    fn known(self) -> io::Result<Socket> {
        match self {
            Self::Tcp(socket, _) => {
                socket.set_nonblocking(true)?;
                TcpStream::from_std(socket).map(Socket::Tcp)
            }
            Self::Unix(socket) => Ok(Socket::Unix(socket)),
        }
    }
}

/// What a request knows of its connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its phase.
    pub phase: PhaseCell,
    /// The address that it came in on; `None` for the Unix socket.
    pub local: Option<IpAddr>,
    /// The address that it comes from; `None` for the Unix socket.
    pub remote: Option<IpAddr>,
    /// Of the client's certificate, which was verified.
    pub common_name: Option<String>,
}

/// Agrees on TLS. The sweep cuts who takes too long.
async fn encrypt(
    acceptor: TlsAcceptor,
    io: Patient,
    mut peer: Peer,
) -> io::Result<(tokio_rustls::server::TlsStream<Patient>, Peer)> {
    let stream = acceptor.accept(io).await?;
    let certificates = stream.get_ref().1.peer_certificates();
    peer.common_name = certificates.and_then(|chain| Facts::of(chain.first()?).ok()).map(|facts| facts.common_name);
    // A certificate that names nobody is none: the gate asks for another way.
    peer.phase.enter(Phase::Idle);
    Ok((stream, peer))
}

/// Ends a connection without an answer.
#[derive(Debug, thiserror::Error)]
#[error("nobody knows whether the documents are on the disk")]
struct NoAnswer;

async fn converse(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Peer,
    router: Router,
    mut stopped: watch::Receiver<bool>,
) {
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        let (router, peer) = (router.clone(), peer.clone());
        async move {
            peer.phase.enter(Phase::Answering);
            let _idle = IdleAfter(peer.phase.clone());
            request.extensions_mut().insert(peer);
            let response: Response = match router.oneshot(request.map(Body::new)).await {
                Ok(response) => response,
                Err(impossible) => match impossible {},
            };
            if response.extensions().get::<Unanswered>().is_some() { Err(NoAnswer) } else { Ok(response) }
        }
    });
    // Patience keeps the times; hyper's own limit of the head would only know one for idle and head together.
    let connection = http1::Builder::new()
        .header_read_timeout(None)
        .max_headers(HEADERS_MAX)
        .max_header_size(admit::HEAD_BYTES_MAX)
        .max_buf_size(admit::HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(io), service);
    let mut connection = pin!(connection);
    // The sender is gone only when serving ended, which is a stop as well.
    let stop = async { stopped.wait_for(|stopped| *stopped).await.is_ok() };
    let ended = tokio::select! {
        ended = &mut connection => ended,
        _ = stop => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error = crate::error::chain(&error), "a connection ended early");
    }
}

/// Tells a connection why it is not taken, and reads a little of what it sends so that it sees the answer and not a reset.
async fn tell_and_close(socket: Socket, words: &'static [u8]) {
    async fn tell(mut socket: impl AsyncRead + AsyncWrite + Unpin, words: &[u8]) -> io::Result<()> {
        socket.write_all(words).await?;
        socket.shutdown().await?;
        let mut ignored = [0; 4096];
        for _ in 0..16 {
            if socket.read(&mut ignored).await? == 0 {
                break;
            }
        }
        Ok(())
    }
    let told = async {
        match socket {
            Socket::Tcp(socket) => tell(socket, words).await,
            Socket::Unix(socket) => tell(socket, words).await,
        }
    };
    match timeout(TURN_AWAY_WITHIN, told).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection that was turned away went first"),
        Err(_) => tracing::debug!("a connection that was turned away did not go"),
    }
}

/// Listens on a Unix socket; a socket that a dead process left behind is replaced, one that answers is not.
fn listen_unix(path: &Path) -> io::Result<UnixListener> {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    match std::fs::symlink_metadata(path) {
        Ok(there) if !there.file_type().is_socket() => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket"));
        }
        Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there"));
        }
        Ok(_) => std::fs::remove_file(path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

#[cfg(test)]
mod tests;
