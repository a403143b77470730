//! The one door to clocks and randomness.
//!
//! Invariant: nobody else in the agent reads a clock or draws random bytes, so that tests steer all of it through a [`Script`].
//! Three clocks that never mix: [`Env::wall`] is written into records for people; [`Env::monotonic_ms`] counts since boot, sleep
//! included, and is written beside it; [`Env::moment`] orders timers of this process. This module deliberately does not
//! know what any of them is used for.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering};

use counterfoil_proto::id::BootId;
use counterfoil_proto::time::{ClockQuality, Moment, WallTime};
use rustix::time::{ClockId, clock_gettime};

/// A clock before this is wrong, whatever vouches for it: `SOURCE_DATE_EPOCH` of the build in seconds, or where the build had
/// none, the day on which this line was last touched (2026-11-23).
const BUILT_AT: WallTime = WallTime(match option_env!("SOURCE_DATE_EPOCH") {
    Some(seconds) => digits(seconds).saturating_mul(1_000),
    None => 1_795_392_000_000,
});

/// systemd-timesyncd keeps this file while, and only while, it has synchronised the clock since boot.
const SYNCHRONISED: &str = "/run/systemd/timesync/synchronized";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The box does not give what no agent can do without.
#[derive(Debug, thiserror::Error)]
pub enum EnvError {
    /// Without a boot id monotonic times of two starts could not be told apart.
    #[error("Cannot read the boot id from {path}; is /proc mounted?")]
    BootId {
        /// Where it should be.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Without randomness no epoch is unique.
    #[error("The kernel gave no random bytes: {0}; an epoch cannot be minted without")]
    Random(getrandom::Error),
}

/// Clocks and randomness of this box, or of a test. Cloning gives the same clocks.
#[derive(Clone, Debug)]
pub struct Env {
    source: Source,
    boot_id: BootId,
    /// The newest wall time of the journal, milliseconds.
    newest_ms: Arc<AtomicI64>,
}

#[derive(Clone, Debug)]
enum Source {
    Box { synchronised: PathBuf },
    Script(Arc<Scripted>),
}

#[derive(Debug)]
struct Scripted {
    wall_ms: AtomicI64,
    monotonic_ms: AtomicU64,
    synchronised: AtomicU8,
    seed: u64,
    draws: AtomicU64,
}

impl Env {
    /// The box's own. Fails where the box lacks what no agent can do without.
    pub fn of_this_box() -> Result<Self, EnvError> {
        let path = Path::new(BOOT_ID);
        let text =
            std::fs::read_to_string(path).map_err(|source| EnvError::BootId { path: path.to_owned(), source })?;
        let boot_id = text.trim().replace('-', "").parse().map_err(|_| EnvError::BootId {
            path: path.to_owned(),
            source: std::io::Error::new(std::io::ErrorKind::InvalidData, "not 32 hexadecimal digits"),
        })?;
        let source = Source::Box { synchronised: SYNCHRONISED.into() };
        let env = Self { source, boot_id, newest_ms: Arc::default() };
        env.random_bytes::<16>()?;
        Ok(env)
    }

    /// A test's: time stands still until the script moves it, and the seed decides every draw.
    pub fn scripted(seed: u64) -> (Self, Script) {
        let scripted = Arc::new(Scripted {
            wall_ms: AtomicI64::new(BUILT_AT.0.saturating_add(86_400_000)),
            monotonic_ms: AtomicU64::new(60_000),
            synchronised: AtomicU8::new(1),
            seed,
            draws: AtomicU64::new(0),
        });
        let source = Source::Script(Arc::clone(&scripted));
        let env = Self { source, boot_id: BootId([0xb0; 16]), newest_ms: Arc::default() };
        (env, Script(scripted))
    }

    /// Wall time as the box believes. It never orders, deduplicates or expires anything.
    pub fn wall(&self) -> WallTime {
        match &self.source {
            Source::Box { .. } => {
                let time = clock_gettime(ClockId::Realtime);
                WallTime(time.tv_sec.saturating_mul(1_000).saturating_add(time.tv_nsec / 1_000_000))
            }
            Source::Script(script) => WallTime(script.wall_ms.load(Ordering::SeqCst)),
        }
    }

    /// Milliseconds since boot, sleep included; comparable within one [`Env::boot_id`].
    pub fn monotonic_ms(&self) -> u64 {
        match &self.source {
            Source::Box { .. } => milliseconds(ClockId::Boottime),
            Source::Script(script) => script.monotonic_ms.load(Ordering::SeqCst),
        }
    }

    /// What timers of this process are ordered by.
    pub fn moment(&self) -> Moment {
        match &self.source {
            Source::Box { .. } => Moment(milliseconds(ClockId::Monotonic)),
            Source::Script(script) => Moment(script.monotonic_ms.load(Ordering::SeqCst)),
        }
    }

    /// The same clock in microseconds, for measuring.
    pub fn micros(&self) -> u64 {
        match &self.source {
            Source::Box { .. } => microseconds(ClockId::Monotonic),
            Source::Script(script) => script.monotonic_ms.load(Ordering::SeqCst).saturating_mul(1_000),
        }
    }

    /// This boot.
    pub const fn boot_id(&self) -> BootId {
        self.boot_id
    }

    /// How far [`Env::wall`] may be trusted, given the newest wall time in the journal (0 where there is none).
    ///
    /// `Synchronised` is what systemd-timesyncd vouches for; boxes that run another time service stay `Unsynchronised`, because
    /// asking the kernel (`adjtimex`) has no safe interface.
    pub fn clock_quality(&self, journal_newest: WallTime) -> ClockQuality {
        if self.wall() < BUILT_AT.max(journal_newest) {
            return ClockQuality::Behind;
        }
        let synchronised = match &self.source {
            Source::Box { synchronised } => synchronised.exists(),
            Source::Script(script) => script.synchronised.load(Ordering::SeqCst) != 0,
        };
        if synchronised { ClockQuality::Synchronised } else { ClockQuality::Unsynchronised }
    }

    /// Notes how late the journal knows it to be.
    pub fn note_newest(&self, journal_newest: WallTime) {
        self.newest_ms.fetch_max(journal_newest.0, Ordering::SeqCst);
    }

    /// What TLS should take for now: a clock that lost its battery must not keep a store offline.
    pub fn time_for_tls(&self) -> WallTime {
        self.wall().max(BUILT_AT).max(WallTime(self.newest_ms.load(Ordering::SeqCst)))
    }

    /// Random bytes of the kernel, or of the script's seed.
    pub fn random_bytes<const N: usize>(&self) -> Result<[u8; N], EnvError> {
        let mut bytes = [0; N];
        match &self.source {
            Source::Box { .. } => getrandom::fill(&mut bytes).map_err(EnvError::Random)?,
            Source::Script(script) => {
                let draw = script.draws.fetch_add(1, Ordering::SeqCst);
                let mut hasher = blake3::Hasher::new();
                hasher.update(&script.seed.to_le_bytes()).update(&draw.to_le_bytes());
                hasher.finalize_xof().fill(&mut bytes);
            }
        }
        Ok(bytes)
    }
}

/// What a test moves the clocks of its [`Env`] with.
#[derive(Clone, Debug)]
pub struct Script(Arc<Scripted>);

impl Script {
    /// Lets time pass on all clocks.
    pub fn advance_ms(&self, duration_ms: u64) {
        self.0.monotonic_ms.fetch_add(duration_ms, Ordering::SeqCst);
        self.0.wall_ms.fetch_add(i64::try_from(duration_ms).unwrap_or(i64::MAX), Ordering::SeqCst);
    }

    /// Sets the wall clock alone, as a person or a time service does.
    pub fn set_wall(&self, wall: WallTime) {
        self.0.wall_ms.store(wall.0, Ordering::SeqCst);
    }

    /// Whether something vouches for the wall clock.
    pub fn set_synchronised(&self, synchronised: bool) {
        self.0.synchronised.store(u8::from(synchronised), Ordering::SeqCst);
    }
}

fn milliseconds(clock: ClockId) -> u64 {
    microseconds(clock) / 1_000
}

fn microseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    u64::try_from(time.tv_sec.saturating_mul(1_000_000).saturating_add(time.tv_nsec / 1_000)).unwrap_or(0)
}

/// A decimal number at compile time; anything else counts as 0, which only means that the build vouches for nothing.
const fn digits(text: &str) -> i64 {
    match i64::from_str_radix(text, 10) {
        Ok(number) => number,
        Err(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_box_has_clocks_that_do_not_run_back_and_draws_that_differ() {
        let env = Env::of_this_box().unwrap();
        let (boot, moment) = (env.monotonic_ms(), env.moment());
        assert!(boot > 0 && env.monotonic_ms() >= boot && env.moment() >= moment);
        assert_ne!(env.random_bytes::<16>().unwrap(), env.random_bytes::<16>().unwrap());
        assert_ne!(env.boot_id(), BootId([0; 16]));
    }

    #[test]
    fn a_clock_before_the_build_or_the_journal_is_behind_whatever_vouches_for_it() {
        let (env, script) = Env::scripted(1);
        assert_eq!(env.clock_quality(WallTime(0)), ClockQuality::Synchronised);
        script.set_synchronised(false);
        assert_eq!(env.clock_quality(WallTime(0)), ClockQuality::Unsynchronised);
        script.set_synchronised(true);
        let newest = WallTime(env.wall().0 + 1);
        assert_eq!(env.clock_quality(newest), ClockQuality::Behind);
        script.set_wall(WallTime(0));
        assert_eq!(env.clock_quality(WallTime(0)), ClockQuality::Behind);
        assert_eq!(env.time_for_tls(), BUILT_AT);
        env.clone().note_newest(newest);
        env.note_newest(WallTime(1));
        assert_eq!(env.time_for_tls(), newest);
    }

    #[test]
    fn a_seed_decides_every_draw_and_clones_share_the_clock() {
        let (env, script) = Env::scripted(7);
        let clone = env.clone();
        let first = env.random_bytes::<16>().unwrap();
        assert_ne!(first, clone.random_bytes::<16>().unwrap());
        assert_eq!(first, Env::scripted(7).0.random_bytes::<16>().unwrap());
        script.advance_ms(5);
        assert_eq!(clone.monotonic_ms(), 60_005);
    }
}
