//! The simulator: stores, tills, broker, hubs, disks and clocks in one thread, from one seed.
//!
//! What runs in it is what ships: the agent's owner with its journal and state, `counterfoil_proto::sync`, the hub's receiver, ledger and
//! poster. What is simulated is the world around them: [`plan`] says what goes wrong, `world` makes it happen, the tills keep what
//! they were told outside of everything, and `check` compares. A run is decided by its seed and the commit, to the last bit.
//!
//! ```text
//! sim --seed 7                 one run, made small where it fails
//! sim --seeds 2000 --jobs 2    many
//! ```

use std::io::Write;

mod books;
mod chaos;
mod check;
mod database;
mod disk;
mod hub;
pub mod offline;
pub mod plan;
mod random;
pub mod run;
mod store;
mod till;
mod world;

/// Writes a line for a person.
pub fn say(text: &str) {
    // Where nobody reads there is nobody to tell.
    drop(writeln!(std::io::stderr().lock(), "{text}"));
}
