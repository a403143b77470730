//! The hub.
pub mod env;
pub mod ledger;
pub mod posting;
