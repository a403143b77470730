//! Live tests: real Mosquitto with TLS, real `PostgreSQL`, real HTTP, the real programs.
//!
//! Each test builds its own world and takes it down. None is skipped: what a machine lacks is installed or named (`world::needs`).

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops where it is")]

mod again;
mod backup;
mod broker;
mod canary;
mod captured;
mod clone;
mod contract;
mod crash;
mod damage;
mod day;
mod evidence;
mod examples;
mod fleet;
mod flood;
mod identity;
mod json;
mod observed;
mod origins;
mod pages;
mod parcel;
mod postgres;
mod promises;
mod replay;
mod returns;
mod stage;
mod syncs;
mod telling;
mod till;
