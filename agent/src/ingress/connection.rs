//! One connection: which phase of a request it is in, and how long it may stay there.
//!
//! Invariant: in every phase but *answering*, a peer that does not do its part is cut: idle, in the head or while TLS is agreed on by the
//! sweep of the one who accepts (HTTP libraries do not poll a socket that is known to be blocked, so a timer inside it would sleep), in the body by
//! [`super::body`], and when it does not read what we write, here. Answering has no limit of its own, because the owner of the
//! journal always answers or drops the request. HTTP itself is deliberately not known here.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, Sleep};

/// What a connection is doing, in the order in which it is given up when room is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Its request was refused because the peer asks for too much; the refusal waits a while.
    Held,
    /// Between two requests.
    Idle,
    /// TLS is being agreed on.
    Handshake,
    /// A request began, its head is not complete.
    Head,
    /// The body is being read.
    Body,
    /// The request is complete and its answer is being made; never given up.
    Answering,
}

/// The phase of a connection and since when, seen by the connection, its requests and the one who accepts.
#[derive(Clone, Debug)]
pub struct PhaseCell {
    start: Instant,
    /// Milliseconds since `start`, shifted left by three, and the phase: one word, so that nobody sees them torn.
    packed: Arc<AtomicU64>,
    /// Whether a request of it was let in.
    proven: Arc<AtomicBool>,
}

impl PhaseCell {
    /// An idle connection.
    pub fn new(start: Instant) -> Self {
        let cell = Self { start, packed: Arc::default(), proven: Arc::default() };
        cell.enter(Phase::Idle);
        cell
    }

    /// Milliseconds since the moment that phases are counted from.
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Notes that a request of this connection was let in.
    pub fn prove(&self) {
        self.proven.store(true, Ordering::Relaxed);
    }

    /// Whether one ever was: it is more likely a till than one that never got so far.
    pub fn is_proven(&self) -> bool {
        self.proven.load(Ordering::Relaxed)
    }

    /// Enters a phase, now.
    pub fn enter(&self, phase: Phase) {
        let code = match phase {
            Phase::Held => 0,
            Phase::Idle => 1,
            Phase::Handshake => 2,
            Phase::Head => 3,
            Phase::Body => 4,
            Phase::Answering => 5,
        };
        self.packed.store(self.now_ms() << 3 | code, Ordering::Release);
    }

    /// The phase, and milliseconds from `start` to when it was entered.
    pub fn get(&self) -> (Phase, u64) {
        let packed = self.packed.load(Ordering::Acquire);
        let phase = match packed & 7 {
            0 => Phase::Held,
            1 => Phase::Idle,
            2 => Phase::Handshake,
            3 => Phase::Head,
            4 => Phase::Body,
            _ => Phase::Answering,
        };
        (phase, packed >> 3)
    }

    /// Whether the peer has been in a phase that it can leave by itself for longer than it may.
    pub fn is_overdue(&self, patience: &Patience) -> bool {
        let (phase, since_ms) = self.get();
        let allowed = match phase {
            Phase::Idle => patience.idle,
            Phase::Handshake | Phase::Head => patience.head,
            Phase::Held | Phase::Body | Phase::Answering => return false,
        };
        self.start.elapsed() >= Duration::from_millis(since_ms) + allowed
    }
}

/// Back to idle when the request is over, however it ended.
#[derive(Debug)]
pub struct IdleAfter(pub PhaseCell);

impl Drop for IdleAfter {
    fn drop(&mut self) {
        self.0.enter(Phase::Idle);
    }
}

/// How long a peer may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Without a request.
    pub idle: Duration,
    /// From the first byte to the end of the head; before that, as long again for agreeing on TLS.
    pub head: Duration,
    /// Without taking a byte that we write.
    pub write: Duration,
}

impl Patience {
    /// How often to look for who is overdue: a peer is cut at most a quarter late.
    pub fn sweep_every(&self) -> Duration {
        (self.idle.min(self.head) / 4).max(Duration::from_millis(10))
    }
}

/// What a connection came over.
#[derive(Debug)]
pub enum Socket {
    /// TCP.
    Tcp(TcpStream),
    /// The Unix socket.
    Unix(UnixStream),
}

impl Socket {
    /// Has small answers sent at once; tells the address that it came in on, `None` for the Unix socket.
    pub(super) fn prepare(&self) -> Option<IpAddr> {
        match self {
            // Both fail only on a connection that is gone already, which its task will find out.
            Self::Tcp(socket) => {
                socket.set_nodelay(true).and_then(|()| socket.local_addr()).ok().map(|local| local.ip())
            }
            Self::Unix(_) => None,
        }
    }
}

/// A socket that notes when a request begins, and cuts a peer that does not read its answer.
#[derive(Debug)]
pub struct Patient {
    socket: Socket,
    phase: PhaseCell,
    write_within: Duration,
    write_limit: Limit,
}

/// A timer that is made once per connection and moved.
#[derive(Debug, Default)]
struct Limit {
    sleep: Option<Pin<Box<Sleep>>>,
    at: Option<Instant>,
}

impl Limit {
    /// Ready when `at` has passed; wakes the task then.
    fn poll(&mut self, at: Instant, context: &mut Context<'_>) -> Poll<()> {
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if self.at.replace(at) != Some(at) {
            sleep.as_mut().reset(at);
        }
        sleep.as_mut().poll(context)
    }
}

impl Patient {
    /// Watches over `socket`.
    pub fn new(socket: Socket, phase: PhaseCell, write_within: Duration) -> Self {
        Self { socket, phase, write_within, write_limit: Limit::default() }
    }

    fn poll_written(&mut self, written: Poll<io::Result<usize>>, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.write_limit.at = None;
            return written;
        }
        let at = self.write_limit.at.unwrap_or_else(|| Instant::now() + self.write_within);
        ready!(self.write_limit.poll(at, context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer does not read its answer")))
    }
}

impl AsyncRead for Patient {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = match &mut this.socket {
            Socket::Tcp(socket) => Pin::new(socket).poll_read(context, buffer),
            Socket::Unix(socket) => Pin::new(socket).poll_read(context, buffer),
        };
        if buffer.filled().len() > before && this.phase.get().0 == Phase::Idle {
            this.phase.enter(Phase::Head);
        }
        read
    }
}

impl AsyncWrite for Patient {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = match &mut this.socket {
            Socket::Tcp(socket) => Pin::new(socket).poll_write(context, bytes),
            Socket::Unix(socket) => Pin::new(socket).poll_write(context, bytes),
        };
        this.poll_written(written, context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = match &mut this.socket {
            Socket::Tcp(socket) => Pin::new(socket).poll_write_vectored(context, slices),
            Socket::Unix(socket) => Pin::new(socket).poll_write_vectored(context, slices),
        };
        this.poll_written(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().socket {
            Socket::Tcp(socket) => Pin::new(socket).poll_flush(context),
            Socket::Unix(socket) => Pin::new(socket).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().socket {
            Socket::Tcp(socket) => Pin::new(socket).poll_shutdown(context),
            Socket::Unix(socket) => Pin::new(socket).poll_shutdown(context),
        }
    }
}
