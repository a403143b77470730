//! What a key of a configuration is: form, presence, default and reason; and how a misspelt one is recognised.
//!
//! Invariant: a program's keys are one constant table; what is not in it is refused, and a default that is not in it does not exist.

/// What a key may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Text; what it must look like is checked by its owner.
    Text,
    /// A path; a relative one is relative to the configuration file.
    Path,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A list of texts; in the environment separated by commas.
    Texts,
    /// A list of tables, written `[[name]]`, each with these keys; in the file only.
    Tables(&'static [Key]),
    /// `true` or `false`.
    Flag,
    /// A whole number.
    Count {
        /// What is counted.
        unit: &'static str,
        /// At least.
        min: u64,
        /// At most.
        max: u64,
    },
    /// A whole number of bytes, or text such as `"16MiB"`.
    Bytes {
        /// At least.
        min: u64,
        /// At most.
        max: u64,
    },
    /// Text such as `"250ms"`, `"30s"`, `"5min"`, `"12h"` or `"7d"`.
    Duration {
        /// At least, in milliseconds.
        min_ms: u64,
        /// At most, in milliseconds.
        max_ms: u64,
    },
}

/// Whether a key must be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// There is no sensible default.
    Required,
    /// Without it, what it would do is not done.
    Optional,
    /// Written as it would be in the environment.
    Default(&'static str),
}

/// One key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// With its table, `mqtt.url`.
    pub name: &'static str,
    /// What it may hold.
    pub form: Form,
    /// Whether it must be written.
    pub presence: Presence,
    /// What it is, and why the default is what it is.
    pub reason: &'static str,
}

/// A key.
pub const fn key(name: &'static str, form: Form, presence: Presence, reason: &'static str) -> Key {
    Key { name, form, presence, reason }
}

/// In bytes.
pub const KIB: u64 = 1024;
/// In bytes.
pub const MIB: u64 = 1024 * KIB;
/// In bytes.
pub const GIB: u64 = 1024 * MIB;
/// In milliseconds.
pub const SECOND: u64 = 1_000;
/// In milliseconds.
pub const MINUTE: u64 = 60 * SECOND;
/// In milliseconds.
pub const DAY: u64 = 24 * 60 * MINUTE;

/// The key of that name.
pub fn find(keys: &'static [Key], name: &str) -> Option<&'static Key> {
    keys.iter().find(|key| key.name == name)
}

/// The known name that is nearest to what was written, if any is near.
pub fn nearest(keys: &'static [Key], written: &str) -> Option<&'static str> {
    let last = |name: &'static str| name.rsplit('.').next().unwrap_or(name);
    // The right key under the wrong table is the likelier slip.
    let elsewhere = keys.iter().map(|key| key.name).find(|name| Some(last(name)) == written.rsplit('.').next());
    let (distance, name) = keys.iter().map(|key| (distance(written, key.name), key.name)).min()?;
    if distance <= 3 { Some(name) } else { elsewhere }
}

/// Edits between two short texts.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, from) in left.chars().take(128).enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], index + 1);
        for (column, to) in right.iter().enumerate() {
            let substituted = diagonal + usize::from(from != *to);
            diagonal = row[column + 1];
            row[column + 1] = substituted.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[right.len()]
}
