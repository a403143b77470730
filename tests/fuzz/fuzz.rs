//! Hands what the fuzzer makes up to the target that `FUZZ_TARGET` names.

#![no_main]

use std::sync::OnceLock;

use counterfoil_fuzz::{Function, TARGETS};
use libfuzzer_sys::fuzz_target;

static TARGET: OnceLock<Function> = OnceLock::new();

fn named() -> Function {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let found = TARGETS.iter().find(|(known, _)| *known == name);
    found.unwrap_or_else(|| panic!("FUZZ_TARGET is {name:?}; it is one of {:?}", TARGETS.map(|(name, _)| name))).1
}

fuzz_target!(|bytes: &[u8]| TARGET.get_or_init(named)(bytes));
