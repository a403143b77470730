//! See `counterfoil_fuzz::legacy`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| counterfoil_fuzz::legacy(bytes));
