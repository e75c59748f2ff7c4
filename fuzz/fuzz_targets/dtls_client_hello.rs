//! Any bytes as the first message of a handshake.

#![no_main]

#[expect(dead_code, reason = "the other target needs the rest of it")]
#[path = "../../dtls/tests/harness/datagram.rs"]
mod datagram;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    datagram::check_client_hello(input);
});
