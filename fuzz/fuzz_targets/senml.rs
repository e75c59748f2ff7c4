//! Any bytes as a SenML pack.

#![no_main]

#[path = "../../tests/harness/senml.rs"]
mod senml;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    senml::check(input);
});
