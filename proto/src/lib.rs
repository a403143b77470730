//! The retail model and both ends of Counterfoil's sync protocol, as pure code.
//!
//! What the protocol promises: **every record that a till was told is safe reaches the hub's ledger exactly once**,
//! and what cannot be delivered or understood becomes an exception that a person sees. The argument stands in
//! [`sync`]; the agent, the hub and the simulator drive this same code.
//!
//! This crate deliberately knows no I/O, no clock and no randomness: `no_std` lets the compiler hold us to it. Time comes
//! in as [`time::Moment`], randomness as arguments.
//!
//! The modules follow a record's way from the till to the ledger: [`money`] and [`record`] (what a till says),
//! [`id`] (what names it), [`message`] and [`codec`] (how it crosses the wire), [`topic`] (where), [`parcel`] (by hand), [`sync`] (why
//! nothing is lost or doubled).
#![no_std]
#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions))]

extern crate alloc;

pub mod codec;
pub mod id;
pub mod limits;
pub mod message;
pub mod money;
pub mod parcel;
pub mod planted;
pub mod record;
pub mod sync;
pub mod time;
pub mod topic;
