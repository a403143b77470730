//! See `counterfoil_fuzz::documents`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| counterfoil_fuzz::documents(bytes));
