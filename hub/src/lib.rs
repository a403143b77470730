//! The hub: the central receiver of Counterfoil's agents. It owns the ledger and answers for it.
//!
//! ```text
//! MQTT -> mqtt -> receiver (sync::receiver decides) -> ledger: intake (commit) -> ack
//!                                                        |
//!                                                        '-> posting (positions, totals, exceptions) -> api -> ERP, people
//! ```
//!
//! Invariants: nothing is acknowledged before it is committed; nothing ever appears at or below a position that a reader was served; a
//! record that nobody understands is kept and holds up nothing; a process keeps nothing that it cannot lose, so any number
//! of them share one ledger. The clock and randomness come through [`env`], MQTT through [`mqtt`].

pub mod api;
pub mod authority;
#[cfg(feature = "embedded-broker")]
pub mod broker;
mod command;
pub mod config;
pub mod env;
pub mod error;
mod following;
mod import;
pub mod ledger;
pub mod mqtt;
pub mod naming;
pub mod notify;
pub mod posting;
pub mod receiver;
pub mod reconcile;
pub mod routing;
mod run;
pub mod service;

pub use run::{backup_verified, database, run};

/// The program's command line, of which its man page and completions are made.
pub fn arguments() -> clap::Command {
    command::arguments()
}

/// The program: does what `arguments` (its own name first) ask for, and gives what is to be printed.
pub fn main_with_args(arguments: impl IntoIterator<Item = std::ffi::OsString>) -> Result<String, error::ExitError> {
    // The only provider; an embedding program may have installed it already.
    drop(rustls::crypto::ring::default_provider().install_default());
    command::execute(arguments)
}
