//! Values of the protocol as parts of a state: compared and hashed by a canonical form.
//!
//! Invariant: two values with the same form behave alike from here on. What only counts (statistics, jitter) is no part of a form, and of
//! a moment only whether it has passed: between two ticks the clock stands, and a tick is longer than every timer.

use std::cmp::Ordering;
use std::fmt::{self, Write as _};
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

use counterfoil_proto::codec;
use counterfoil_proto::sync::lineage::Lineage;
use counterfoil_proto::sync::sender::Sender;
use serde::Serialize;

/// A value and its form.
#[derive(Clone)]
pub(crate) struct Canon<T> {
    value: Arc<T>,
    form: Arc<[u8]>,
}

impl<T> Canon<T> {
    fn new(value: T, form: Vec<u8>) -> Self {
        Self { value: Arc::new(value), form: form.into() }
    }
}

impl<T: Serialize> Canon<T> {
    /// By the bytes that would be stored or sent.
    pub(crate) fn of(value: T) -> Self {
        let form = codec::encode(&value).unwrap();
        Self::new(value, form)
    }
}

impl Canon<Sender> {
    /// By everything but counters, jitter and the times themselves.
    pub(crate) fn of_sender(sender: Sender, now: u64) -> Self {
        let mut text = String::new();
        write!(text, "{sender:?}").unwrap();
        let mut form = Vec::with_capacity(text.len());
        let mut rest = text.as_str();
        while let Some(at) = rest.find(['M', 'r', 't', 'c']) {
            form.extend_from_slice(&rest.as_bytes()[..at]);
            rest = &rest[at..];
            if let Some((moment, after)) = number_after(rest, "Moment(") {
                form.push(match moment.cmp(&now) {
                    Ordering::Less => b'-',
                    Ordering::Equal => b'=',
                    Ordering::Greater => b'+',
                });
                rest = after;
            } else if let Some((_, after)) = number_after(rest, "random: ").or_else(|| number_after(rest, "turn: ")) {
                // With one lane the turn decides nothing.
                rest = after;
            } else if rest.starts_with("counters: ") {
                rest = &rest[rest.find('}').unwrap()..];
            } else {
                form.push(rest.as_bytes()[0]);
                rest = &rest[1..];
            }
        }
        form.extend_from_slice(rest.as_bytes());
        Self::new(sender, form)
    }
}

fn number_after<'a>(text: &'a str, prefix: &str) -> Option<(u64, &'a str)> {
    let rest = text.strip_prefix(prefix)?;
    let end = rest.find(|letter: char| !letter.is_ascii_digit())?;
    Some((rest[..end].parse().ok()?, &rest[end..]))
}

impl Canon<Lineage> {
    /// By the epochs and the order in which they spoke last.
    pub(crate) fn of_lineage(lineage: Lineage) -> Self {
        let mut spoken: Vec<u64> = lineage.epochs.iter().map(|state| state.live_at).filter(|at| *at > 0).collect();
        spoken.sort_unstable();
        spoken.dedup();
        let rank = |at: u64| if at == 0 { 0 } else { spoken.partition_point(|other| *other <= at) };
        let form: Vec<_> =
            lineage.epochs.iter().map(|state| (state.epoch, state.parent, rank(state.live_at))).collect();
        Self::new(lineage, codec::encode(&form).unwrap())
    }
}

impl<T> Deref for Canon<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: fmt::Debug> fmt::Debug for Canon<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(formatter)
    }
}

impl<T> PartialEq for Canon<T> {
    fn eq(&self, other: &Self) -> bool {
        self.form == other.form
    }
}

impl<T> Eq for Canon<T> {}

impl<T> PartialOrd for Canon<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Canon<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.form.cmp(&other.form)
    }
}

impl<T> Hash for Canon<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.form.hash(state);
    }
}

/// The clock: no part of what a state is, since forms already say what has passed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Clock(pub(crate) u64);

impl PartialEq for Clock {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Clock {}

impl Hash for Clock {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}
