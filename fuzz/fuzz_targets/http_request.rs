//! Any bytes as requests over HTTP/1.1, one behind the other.

#![no_main]

#[path = "../../proxy/tests/harness/requests.rs"]
mod requests;

libfuzzer_sys::fuzz_target!(|input: &[u8]| requests::check(input));
