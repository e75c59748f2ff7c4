//! Any bytes as the story of a WebSocket.

#![no_main]

#[path = "../../proxy/tests/harness/websocket.rs"]
mod websocket;
#[path = "../../proxy/tests/harness/websocket_frames.rs"]
mod websocket_frames;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    websocket::check(input);
});
