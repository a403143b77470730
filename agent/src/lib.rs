//! The store-edge agent.
//!
//! ```text
//! till -> ingress -> agent (one thread: journal append + one sync, state) -> reply to the till
//!                      '-> uplink (sync::Sender) -> MQTT -> hub -> ack -> agent -> cursor -> reclaim
//! ```
//!
//! Invariants: a success reply means synced (see [`journal`]); one thread, [`agent`], owns journal and state, everybody else
//! asks it; time and randomness come through [`env`], files through `journal::disk`, MQTT through `uplink::mqtt`, sled
//! through [`state`].

pub mod agent;
pub mod answer;
pub mod client;
pub mod command;
pub mod config;
pub mod device;
pub mod doctor;
pub mod env;
pub mod error;
pub mod export;
pub mod identity;
pub mod ingress;
pub mod journal;
pub mod legacy;
pub mod service;
pub mod state;
pub mod supervise;
pub mod uplink;
pub mod verify;

use counterfoil_telemetry::log::{self, Teller};

/// Name and version, as hellos, presence and records say it.
pub const SOFTWARE: &str = concat!("counterfoil ", env!("CARGO_PKG_VERSION"));

/// Sets up log and TLS and runs the agent on a runtime of its own, until it is told to stop.
pub fn run(config: config::Config) -> Result<(), error::ExitError> {
    supervise::set_up_tls();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        // Judging large bodies and reading batches. Each thread has heap of its own; more of them only take memory.
        .max_blocking_threads(2)
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| error::ExitError::Disk(Box::new(error)))?;
    let teller =
        Teller { program: "counterfoil", version: env!("CARGO_PKG_VERSION"), instance: config.source.to_string() };
    let traces = runtime.block_on(async { log::set_up(&config.log, &teller) });
    let result = runtime.block_on(supervise::run(config));
    traces.end();
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    result
}
