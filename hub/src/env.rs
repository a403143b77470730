//! The one door to clocks, randomness and waiting.
//!
//! Invariant: nobody else in the hub's ledger, receiver and poster reads a clock, draws random bytes, waits for a time or goes to
//! another thread, so that a [`Script`] steers all of it. A script holds for the thread that began it; a hub that runs under one is
//! polled by hand, since nothing wakes it but the script's owner.

use std::cell::RefCell;
use std::future::Future;
use std::task::Poll;
use std::time::Duration;

use counterfoil_proto::id::SessionId;
use counterfoil_proto::time::{Moment, WallTime};

#[derive(Debug)]
struct Scripted {
    now: Moment,
    wall: WallTime,
    seed: u64,
    draws: u64,
    /// The earliest time that somebody waits for, of those who were polled since it was asked for.
    awaited: Option<Moment>,
}

thread_local! {
    static SCRIPT: RefCell<Option<Scripted>> = const { RefCell::new(None) };
}

fn scripted<T>(look: impl FnOnce(&mut Scripted) -> T) -> Option<T> {
    SCRIPT.with_borrow_mut(|script| script.as_mut().map(look))
}

/// What a simulation moves the clocks of this thread with; when it is dropped, they are the machine's again.
#[derive(Debug)]
pub struct Script {
    /// It belongs to its thread.
    _of_this_thread: std::marker::PhantomData<*const ()>,
}

impl Script {
    /// Time stands still until it is moved, and the seed decides every draw.
    pub fn begin(seed: u64) -> Self {
        let scripted = Scripted { now: Moment(0), wall: WallTime(0), seed, draws: 0, awaited: None };
        SCRIPT.set(Some(scripted));
        Self { _of_this_thread: std::marker::PhantomData }
    }

    /// Sets both clocks.
    pub fn set(&self, now: Moment, wall: WallTime) {
        scripted(|script| (script.now, script.wall) = (now, wall));
    }

    /// The earliest time that somebody waits for, of those who were polled since the last call.
    pub fn take_awaited(&self) -> Option<Moment> {
        scripted(|script| script.awaited.take()).flatten()
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        SCRIPT.set(None);
    }
}

/// The wall clock; written into rows for people, never compared with an agent's.
#[expect(clippy::disallowed_methods, reason = "this is the door that the others come through")]
pub fn wall() -> WallTime {
    scripted(|script| script.wall).unwrap_or_else(|| {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        WallTime(since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX)))
    })
}

/// What timers of this process are ordered by.
pub fn now() -> Moment {
    Moment(micros() / 1_000)
}

/// The same clock in microseconds, for measuring.
#[expect(clippy::disallowed_methods, reason = "this is the door that the others come through")]
pub fn micros() -> u64 {
    static START: std::sync::LazyLock<std::time::Instant> = std::sync::LazyLock::new(std::time::Instant::now);
    let scripted = scripted(|script| script.now.0.saturating_mul(1_000));
    scripted.unwrap_or_else(|| u64::try_from(START.elapsed().as_micros()).unwrap_or(u64::MAX))
}

/// The same clock for what counts in [`std::time::Instant`]; no script moves it.
#[expect(clippy::disallowed_methods, reason = "this is the door that the others come through")]
pub fn instant() -> std::time::Instant {
    std::time::Instant::now()
}

/// 128 random bits of the kernel.
///
/// # Panics
/// Where the kernel has no randomness to give; no identity could be minted without.
pub fn random_id() -> SessionId {
    let drawn = scripted(|script| {
        script.draws = script.draws.wrapping_add(1);
        (script.seed, script.draws)
    });
    let mut bytes = [0; 16];
    match drawn {
        Some((seed, draw)) => {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&seed.to_le_bytes()).update(&draw.to_le_bytes());
            hasher.finalize_xof().fill(&mut bytes);
        }
        None => getrandom::fill(&mut bytes).expect("the kernel gives random bytes"),
    }
    SessionId(bytes)
}

/// `duration_ms` moved by up to a quarter either way, so that processes that failed together do not come back together.
pub fn jittered(duration_ms: u64) -> Duration {
    let [low, high, ..] = random_id().0;
    let part = u64::from(u16::from_le_bytes([low, high]));
    let spread = duration_ms / 2;
    let moved = (duration_ms - duration_ms / 4).saturating_add(spread.saturating_mul(part) / 65_536);
    Duration::from_millis(moved)
}

/// Completes at `moment`, or at once where that has passed.
pub async fn until(moment: Moment) {
    if scripted(|_| ()).is_none() {
        return tokio::time::sleep(Duration::from_millis(moment.since_ms(now()))).await;
    }
    std::future::poll_fn(|_| {
        let is_due = scripted(|script| {
            if script.now < moment {
                script.awaited = Some(script.awaited.map_or(moment, |awaited| awaited.min(moment)));
            }
            script.now >= moment
        });
        if is_due == Some(false) { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
}

/// Completes after `duration`.
pub async fn pause(duration: Duration) {
    until(now().plus_ms(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))).await;
}

/// What `work` gives, or `None` where `patience` is over before.
pub async fn within<T>(patience: Duration, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        done = work => Some(done),
        () = pause(patience) => None,
    }
}

/// Does what takes a while on a thread for that; `None` where the process is stopping. A script does it at once.
pub async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    if scripted(|_| ()).is_some() {
        return Some(work());
    }
    tokio::task::spawn_blocking(work).await.ok()
}
