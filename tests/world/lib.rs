//! The test world: real brokers, databases, agents and hubs as child processes, the tills before them, and the oracle behind them.
//!
//! Invariant: everything lives in temporary directories and on loopback ports of its own, and ends with the test. The world
//! speaks to the agent and the hub only through their public contracts (HTTP, configuration, commands), never through their insides.

#![expect(clippy::missing_panics_doc, reason = "a world that cannot be built reports by panicking, always")]

pub mod agent;
pub mod bin;
pub mod broker;
pub mod browser;
pub mod checkout;
pub mod compare;
pub mod crash;
pub mod findings;
pub mod flood;
pub mod golden;
pub mod http;
pub mod hub;
pub mod ledger;
pub mod needs;
pub mod pki;
pub mod postgres;
pub mod power;
pub mod process;
pub mod random;
pub mod receipts;
pub mod replay;
pub mod retail_csv;
pub mod sales;
pub mod synthetic;
pub mod till;
pub mod wait;
