//! Any bytes as one MQTT packet.

#![no_main]

#[path = "../../proxy/tests/harness/decode.rs"]
mod decode;
#[expect(dead_code, reason = "sessions need more of it")]
#[path = "../../proxy/tests/harness/wire.rs"]
mod wire;

libfuzzer_sys::fuzz_target!(|input: &[u8]| decode::check(input));
