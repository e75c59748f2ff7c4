//! Any bytes as the story of a session of CoAP.

#![no_main]

#[expect(dead_code, reason = "the other target needs more of it")]
#[path = "../../proxy/tests/harness/coap.rs"]
mod coap;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    coap::check_session(input);
});
