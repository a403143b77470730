//! A peer that means no good: sockets that dribble, connections that ask without end, connections that are opened without end.
//!
//! Invariant: everything comes from one address that is not the honest till's, and is counted by what it gets for an answer. It goes on until
//! it is dropped.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::wait::rest;

/// Between two bytes of a socket that dribbles, and before one that was closed comes again.
const DRIBBLE_EVERY: Duration = Duration::from_millis(100);

/// How long one that asks waits for an answer; a refusal comes after a second.
const PATIENCE: Duration = Duration::from_secs(5);

/// Requests that are sent before an answer is read.
const PIPELINED: usize = 16;

/// What is done.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Whom it is for.
    pub target: SocketAddr,
    /// Where it comes from, an address of this machine.
    pub source: IpAddr,
    /// With TLS.
    pub tls: Option<Arc<ClientConfig>>,
    /// Sockets that send a byte of a request, or of the beginning of TLS, now and then.
    pub dribbling: usize,
    /// Connections that send `request` without end.
    pub asking: usize,
    /// Tasks that open connections and close them, without end.
    pub opening: usize,
    /// What is asked.
    pub request: Vec<u8>,
}

/// What it got.
#[derive(Debug, Default)]
pub struct Got {
    /// Connections that were made, whatever became of them.
    pub connections: AtomicU64,
    /// Answers that were no refusal of the amount.
    pub answers: AtomicU64,
    /// 429.
    pub refusals: AtomicU64,
}

/// A flood; it ends with its value.
#[derive(Debug)]
pub struct Flood {
    /// What it got so far.
    pub got: Arc<Got>,
    _work: JoinSet<()>,
}

impl Flood {
    /// Begins.
    pub fn begin(plan: &Plan) -> Self {
        let (got, plan) = (Arc::new(Got::default()), Arc::new(plan.clone()));
        let mut work = JoinSet::new();
        for _ in 0..plan.dribbling {
            let one = One { plan: Arc::clone(&plan), got: Arc::clone(&got) };
            work.spawn(async move { one.dribble().await });
        }
        for _ in 0..plan.asking {
            let one = One { plan: Arc::clone(&plan), got: Arc::clone(&got) };
            work.spawn(async move { one.ask().await });
        }
        for _ in 0..plan.opening {
            let one = One { plan: Arc::clone(&plan), got: Arc::clone(&got) };
            work.spawn(async move { one.open().await });
        }
        Self { got, _work: work }
    }
}

struct One {
    plan: Arc<Plan>,
    got: Arc<Got>,
}

impl One {
    async fn connect(&self) -> io::Result<TcpStream> {
        let socket = if self.plan.source.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // Thousands of sockets come and go; their ports must not run out.
        socket.set_zero_linger()?;
        socket.bind(SocketAddr::new(self.plan.source, 0))?;
        let stream = socket.connect(self.plan.target).await?;
        self.got.connections.fetch_add(1, Ordering::Relaxed);
        Ok(stream)
    }

    async fn dribble(&self) {
        // The head of a request that has no end, or a record of TLS that says it has 16 KiB.
        let begun: &[u8] =
            if self.plan.tls.is_some() { &[22, 3, 1, 0x40, 0] } else { b"POST /v1/transactions HTTP/1.1\r\nx: " };
        loop {
            if let Ok(mut stream) = self.connect().await {
                let mut bytes = begun.iter().copied().chain(std::iter::repeat(b'a'));
                while let Some(byte) = bytes.next()
                    && stream.write_all(&[byte]).await.is_ok()
                {
                    rest(DRIBBLE_EVERY).await;
                }
            }
            rest(DRIBBLE_EVERY).await;
        }
    }

    async fn open(&self) {
        loop {
            if self.connect().await.is_err() {
                rest(DRIBBLE_EVERY).await;
            }
            tokio::task::yield_now().await;
        }
    }

    async fn ask(&self) {
        loop {
            let asked = async {
                let stream = self.connect().await?;
                match &self.plan.tls {
                    None => self.ask_over(stream).await,
                    Some(config) => {
                        let name = "localhost".try_into().map_err(io::Error::other)?;
                        let stream = TlsConnector::from(Arc::clone(config)).connect(name, stream).await?;
                        self.ask_over(stream).await
                    }
                }
            };
            if timeout(Duration::from_mins(1), asked).await.is_err() {
                continue;
            }
            tokio::task::yield_now().await;
        }
    }

    async fn ask_over(&self, stream: impl AsyncRead + AsyncWrite) -> io::Result<()> {
        let (mut read, mut write) = tokio::io::split(stream);
        let requests = self.plan.request.repeat(PIPELINED);
        let send = async {
            loop {
                write.write_all(&requests).await?;
            }
        };
        let hear = async {
            let mut bytes = vec![0; 16 * 1024];
            loop {
                let count = timeout(PATIENCE, read.read(&mut bytes)).await??;
                if count == 0 {
                    return Ok(());
                }
                let said = String::from_utf8_lossy(&bytes[..count]);
                let answers = u64::try_from(said.matches("HTTP/1.1 ").count()).unwrap_or_default();
                let refusals = u64::try_from(said.matches("HTTP/1.1 429").count()).unwrap_or_default();
                self.got.answers.fetch_add(answers - refusals, Ordering::Relaxed);
                self.got.refusals.fetch_add(refusals, Ordering::Relaxed);
            }
        };
        tokio::select! {
            ended = send => ended,
            ended = hear => ended,
        }
    }
}
