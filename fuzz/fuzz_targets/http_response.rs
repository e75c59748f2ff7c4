//! Any bytes as an answer over HTTP/1.1; the first says whether it is one to HEAD.

#![no_main]

#[path = "../../proxy/tests/harness/answers.rs"]
mod answers;

libfuzzer_sys::fuzz_target!(|input: &[u8]| answers::check(input));
