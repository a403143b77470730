//! The one door to clock and randomness.
//!
//! Invariant: nobody else in the hub reads a wall clock or draws random bytes. Timers are tokio's.

use counterfoil_proto::id::SessionId;
use counterfoil_proto::time::WallTime;

/// The wall clock; written into rows for people, never compared with an agent's.
#[expect(clippy::disallowed_methods, reason = "this is the door that the others come through")]
pub fn wall() -> WallTime {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    WallTime(since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX)))
}

/// 128 random bits of the kernel.
///
/// # Panics
/// Where the kernel has no randomness to give; no identity could be minted without.
pub fn random_id() -> SessionId {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the kernel gives random bytes");
    SessionId(bytes)
}

/// `duration_ms` moved by up to a quarter either way, so that processes that failed together do not come back together.
pub fn jittered(duration_ms: u64) -> std::time::Duration {
    let [low, high, ..] = random_id().0;
    let part = u64::from(u16::from_le_bytes([low, high]));
    let spread = duration_ms / 2;
    let moved = (duration_ms - duration_ms / 4).saturating_add(spread.saturating_mul(part) / 65_536);
    std::time::Duration::from_millis(moved)
}
