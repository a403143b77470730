//! What people see of a running program, for agent and hub alike: metrics, the log, and traces where they are asked for.
//!
//! Invariant: nothing that a till or a peer sends decides how much is kept or written here: series, lines and spans are bounded. Not known
//! here: what is measured or told; agent and hub name that.

pub mod follow;
pub mod log;
pub mod metrics;
#[cfg(feature = "otlp")]
mod otlp;
pub mod trace;
