//! Any story of one MQTT session, policies included.

#![no_main]

#[path = "../../proxy/tests/harness/session/mod.rs"]
mod session;
#[path = "../../proxy/tests/harness/wire.rs"]
mod wire;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    session::check(input);
});
