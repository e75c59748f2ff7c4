//! Any texts as topic filters and names.

#![no_main]

#[path = "../../proxy/tests/harness/topics.rs"]
mod topics;

libfuzzer_sys::fuzz_target!(|input: &[u8]| topics::check(input));
