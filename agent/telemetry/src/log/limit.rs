//! How many lines one place in the program may write in a minute, and how many more there were.
//!
//! Invariant: a flood of one message takes the room of a fixed number of lines and one that says how many were left out; other places are not
//! held up by it. The places are those that the compiler saw, so their number is bounded.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::time::{ClockId, clock_gettime};
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Filter};

/// The target of the lines that say what was left out; they are not counted.
pub(super) const TARGET: &str = "counterfoil::log";

const WINDOW_S: u64 = 60;

/// What a place wrote in a window.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    window: u64,
    written: u64,
    suppressed: u64,
}

/// The counts of all places.
#[derive(Debug)]
pub(super) struct Limit {
    lines_max: u64,
    places: Mutex<BTreeMap<&'static str, Count>>,
    total: AtomicU64,
    clock: fn() -> u64,
}

impl Limit {
    pub(super) fn new(lines_max: u64) -> Self {
        Self::with_clock(lines_max, seconds)
    }

    fn with_clock(lines_max: u64, clock: fn() -> u64) -> Self {
        Self { lines_max, places: Mutex::default(), total: AtomicU64::new(0), clock }
    }

    /// Whether a line of this place may be written now.
    fn admits(&self, place: &'static str) -> bool {
        let window = (self.clock)() / WINDOW_S;
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let count = places.entry(place).or_default();
        if count.window != window {
            // What was left out stays until it was told.
            (count.window, count.written) = (window, 0);
        }
        if count.written < self.lines_max {
            count.written = count.written.saturating_add(1);
            return true;
        }
        count.suppressed = count.suppressed.saturating_add(1);
        self.total.fetch_add(1, Ordering::Relaxed);
        false
    }

    /// What was left out in windows that are over, by place.
    pub(super) fn take_suppressed(&self) -> Vec<(&'static str, u64)> {
        let window = (self.clock)() / WINDOW_S;
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let over = places.iter_mut().filter(|(_, count)| count.suppressed > 0 && count.window != window);
        over.map(|(place, count)| (*place, std::mem::take(&mut count.suppressed))).collect()
    }

    pub(super) fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }
}

fn seconds() -> u64 {
    u64::try_from(clock_gettime(ClockId::Monotonic).tv_sec).unwrap_or(0)
}

/// Lets lines through as [`Limit`] has it; spans are no lines.
#[derive(Clone, Debug)]
pub(super) struct Limited(pub(super) Arc<Limit>);

impl<S: Subscriber> Filter<S> for Limited {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn callsite_enabled(&self, _: &'static Metadata<'static>) -> Interest {
        // It depends on the line, which the subscriber would not ask for otherwise.
        Interest::sometimes()
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        // A place's name is made of its file and line.
        event.metadata().target() == TARGET || self.0.admits(event.metadata().name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use tracing_subscriber::layer::{Layer, SubscriberExt};

    static NOW: AtomicU64 = AtomicU64::new(0);
    static LINES: Mutex<Vec<u8>> = Mutex::new(Vec::new());

    struct Written;

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            LINES.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines(of: &str) -> usize {
        String::from_utf8(LINES.lock().unwrap().clone()).unwrap().lines().filter(|line| line.contains(of)).count()
    }

    fn flood(times: u64) {
        for number in 0..times {
            tracing::warn!(number, "flooded");
        }
    }

    #[test]
    fn a_flood_is_bounded_and_counted_and_holds_up_nobody_else() {
        let limit = Arc::new(Limit::with_clock(10, || NOW.load(Ordering::Relaxed)));
        let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(|| Written);
        let log = tracing_subscriber::registry().with(layer.with_filter(Limited(Arc::clone(&limit))));
        tracing::subscriber::with_default(log, || {
            flood(1_000_000);
            tracing::info!("somebody else");
            assert_eq!((lines("flooded"), lines("somebody else")), (10, 1));
            assert_eq!((limit.take_suppressed(), limit.total()), (vec![], 999_990), "the minute is not over");
            NOW.store(61, Ordering::Relaxed);
            flood(1);
            assert_eq!(lines("flooded"), 11);
            let told = limit.take_suppressed();
            assert!(told.is_empty(), "a window that goes on is told when it is over: {told:?}");
            NOW.store(121, Ordering::Relaxed);
            let told = limit.take_suppressed();
            assert!(matches!(told.as_slice(), [(place, 999_990)] if place.contains("limit.rs")), "{told:?}");
            assert_eq!(limit.take_suppressed(), vec![]);
        });
    }
}
