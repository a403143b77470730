//! The tills' side: listens, bounds connections, speaks HTTP/1.1, and drains at a stop.
//!
//! A request goes `connection` (time limits) -> `gate` (host, token) -> `route` -> `submit` or `query` -> the agent -> `reply`.
//!
//! Invariants: connections, heads, bodies and waiting requests are bounded, and whoever meets a bound learns it by status code or
//! by a closed connection, never by silence; a thousand sockets that do nothing do not keep an honest till out, because
//! the idle and the slow make room; a success is told only after the agent told it. What documents mean is deliberately
//! not known here.

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
use counterfoil_proto::record::Context;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::{Instant, timeout};
use tower::ServiceExt;

use crate::agent::AgentHandle;
use crate::config::IngressConfig;

pub mod admit;
pub mod body;
pub mod connection;
pub mod ingest;
pub mod metrics;
pub mod openapi;
pub mod query;
pub mod reply;
pub mod route;
pub mod submit;

use connection::{IdleAfter, Patience, Patient, Phase, PhaseCell, Socket};
use metrics::Counters;
use reply::Unanswered;
use route::Api;

/// Headers of one request; tills send about ten.
const HEADERS_MAX: usize = 64;

/// Connections beyond the bound that are told so (503) at once; what is beyond these is closed without a word.
const TURNED_AWAY_MAX: usize = 64;

/// How long telling one may take.
const TURN_AWAY_WITHIN: Duration = Duration::from_secs(1);

/// The pause after a failed accept (for example no file descriptors left), so that the failure does not eat a core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The answer to who comes while every connection is answering.
const TURNED_AWAY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\nretry-after: 1\r\n\
connection: close\r\ncontent-length: 167\r\n\r\n{\"type\":\"https://counterfoil.dev/problems/busy\",\"title\":\"Too much is waiting\",\
\"status\":503,\"detail\":\"Too many connections. Nothing was appended; send the same again\"}\n";

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
    tcp: TcpListener,
    unix: Option<UnixListener>,
    /// The Unix socket that goes with us; one that systemd opened stays.
    unix_path: Option<PathBuf>,
    router: Router,
    counters: Arc<Counters>,
    patience: Patience,
    connections_max: usize,
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
        let listen_failed = |source| IngressError::Listen { address: config.listen, source };
        let tcp = TcpListener::bind(config.listen).await.map_err(listen_failed)?;
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
        Ok(Self {
            tcp,
            unix,
            unix_path,
            router: route::router(Api::new(config, context, agent, Arc::clone(&counters))),
            counters,
            patience: Patience { idle: config.idle_timeout, head: config.header_timeout, write: config.body_timeout },
            connections_max: config.connections_max,
            drain_timeout: config.drain_timeout,
        })
    }

    /// Where it listens; tells the port where the configuration left it to the kernel.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Serves until `stop`; then takes no more, lets requests at work end, and closes.
    pub async fn serve(self, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        let (stopping, stopped) = watch::channel(false);
        let mut open = Open { start: Instant::now(), tasks: JoinSet::new(), by_task: Vec::new(), stopped };
        let mut turned_away = JoinSet::new();
        let mut sweep = tokio::time::interval(self.patience.sweep_every());
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = &mut stop => break,
                Some(ended) = open.tasks.join_next_with_id() => open.forget(ended.map_or_else(|error| error.id(), |(id, ())| id)),
                Some(_) = turned_away.join_next() => {}
                _ = sweep.tick(), if !open.by_task.is_empty() => open.cut_overdue(&self.patience),
                accepted = self.accept() => match accepted {
                    Ok((socket, local)) => self.take(&mut open, &mut turned_away, socket, local),
                    // That peer went before it was accepted; the next one did not.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                    Err(error) => {
                        let made_room = open.give_up_one();
                        tracing::warn!(%error, made_room, "cannot accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
            self.counters.connections(open.by_task.len());
        }
        tracing::info!(connections = open.by_task.len(), "ingress is draining");
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

    async fn accept(&self) -> io::Result<(Socket, Option<IpAddr>)> {
        let unix = async {
            match &self.unix {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            tcp = self.tcp.accept() => {
                let (socket, _) = tcp?;
                // Both fail only on a connection that is gone already, which its task will find out.
                let local = socket.set_nodelay(true).and_then(|()| socket.local_addr()).ok();
                Ok((Socket::Tcp(socket), local.map(|local| local.ip())))
            }
            unix = unix => Ok((Socket::Unix(unix?.0), None)),
        }
    }

    /// Takes a connection; where there is no room, gives up the one that does least, or turns this one away.
    fn take(&self, open: &mut Open, turned_away: &mut JoinSet<()>, socket: Socket, local: Option<IpAddr>) {
        if open.by_task.len() >= self.connections_max {
            if open.give_up_one() {
                self.counters.given_up();
            } else {
                self.counters.turned_away();
                if turned_away.len() < TURNED_AWAY_MAX {
                    turned_away.spawn(turn_away(socket));
                }
                return;
            }
        }
        let phase = PhaseCell::new(open.start);
        let io = TokioIo::new(Patient::new(socket, phase.clone(), self.patience.write));
        let task = converse(io, Peer { phase: phase.clone(), local }, self.router.clone(), open.stopped.clone());
        open.by_task.push((open.tasks.spawn(task), phase));
    }
}

/// The connections that are open.
struct Open {
    start: Instant,
    tasks: JoinSet<()>,
    by_task: Vec<(AbortHandle, PhaseCell)>,
    stopped: watch::Receiver<bool>,
}

impl Open {
    fn forget(&mut self, ended: Id) {
        self.by_task.retain(|(task, _)| task.id() != ended);
    }

    fn cut_overdue(&mut self, patience: &Patience) {
        for (task, _) in self.by_task.extract_if(.., |(_, phase)| phase.is_overdue(patience)) {
            task.abort();
        }
    }

    /// Closes the connection that has been idle for longest, else the slowest in its head or body. Its till, if it is one, gets no
    /// answer and sends again.
    fn give_up_one(&mut self) -> bool {
        let candidates = self.by_task.iter().enumerate().map(|(index, (_, phase))| (phase.get(), index));
        let least = candidates.filter(|((phase, _), _)| *phase != Phase::Answering).min();
        if let Some((_, index)) = least {
            let (task, _) = self.by_task.swap_remove(index);
            task.abort();
        }
        least.is_some()
    }
}

/// What a request knows of its connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its phase.
    pub phase: PhaseCell,
    /// The address that it came in on; `None` for the Unix socket.
    pub local: Option<IpAddr>,
}

/// Ends a connection without an answer.
#[derive(Debug, thiserror::Error)]
#[error("nobody knows whether the documents are on the disk")]
struct NoAnswer;

async fn converse(io: TokioIo<Patient>, peer: Peer, router: Router, mut stopped: watch::Receiver<bool>) {
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
        .serve_connection(io, service);
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

/// Tells a connection that there is no room, and reads a little of what it sends so that it sees the answer and not a reset.
async fn turn_away(socket: Socket) {
    async fn tell(mut socket: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin) -> io::Result<()> {
        socket.write_all(TURNED_AWAY).await?;
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
            Socket::Tcp(socket) => tell(socket).await,
            Socket::Unix(socket) => tell(socket).await,
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
