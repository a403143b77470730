//! Commands that ask a running agent, as a person uses them.
//!
//! Invariant: they do what anybody can do over the HTTP API, and no more; whatever came from a till is shown without control characters.
//! Not known here: the agent's insides.

mod client;
pub mod exceptions;

use std::path::PathBuf;

pub use client::{Client, ClientError};

/// Which agent, and how it knows who asks.
#[derive(Clone, Debug, clap::Args)]
pub struct Target {
    /// Where the agent listens for tills: `ingress.listen` of its configuration.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7360")]
    agent: hyper::Uri,
    /// A file whose first line is the bearer token, where the agent asks for one.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// A text of foreign origin on one line of a terminal.
fn plain(text: &str) -> String {
    text.chars().map(|one| if one.is_control() { '\u{fffd}' } else { one }).collect()
}

/// Seconds as a person says them.
fn age(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_not_printed() {
        assert_eq!(plain("a\u{1b}[2J\nb"), "a\u{fffd}[2J\u{fffd}b");
    }

    #[test]
    fn an_age_is_said_in_the_largest_unit_that_leaves_two_of_it() {
        assert_eq!([0, 119, 120, 7_200, 172_800].map(age), ["0 s", "119 s", "2 min", "2 h", "2 d"]);
    }
}
