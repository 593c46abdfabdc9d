//! See ../../tests/fuzz/targets.rs.
#![no_main]

#[path = "../../tests/fuzz/targets.rs"]
#[allow(dead_code, reason = "each fuzzer runs one of the functions")]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    targets::schemas(bytes);
});
