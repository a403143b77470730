//! How the programs of Counterfoil read their configuration; the commented samples lie beside this crate's source.
//!
//! A program lists its keys as a constant table ([`key`]); [`written`] reads file and environment against it and reports every fault at
//! once, with file and line. What the values mean together is each program's own to check. [`tls`] reads the files that certificates
//! stand in, [`tokens`] those that say who may call.

pub mod certificate;
pub mod key;
pub mod replace;
pub mod tls;
pub mod tokens;
pub mod written;
