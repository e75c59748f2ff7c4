//! The server's side of DTLS 1.2 (RFC 6347) with connection ids (RFC 9146), without input, output or clock.
//!
//! Records are AEAD only: AES-CCM, AES-CCM-8, AES-GCM and ChaCha20-Poly1305. The crate speaks no other version
//! of DTLS, no CBC suite, no renegotiation and no compression.

mod client_hello;
mod cookie;
mod endpoint;
mod engine;
mod keys;
#[cfg(feature = "openssl")]
pub mod openssl;
mod record;
mod replay;
mod suite;

pub use client_hello::{ClientHello, HelloError};
pub use cookie::{Cookies, hello_verify_request};
pub use endpoint::{
    CID_LENGTH, CloseReason, DtlsEndpoint, Endpoint, EndpointError, Event, HandshakeFault, HandshakeId,
    Outbox, SendFault, SessionId, Settings, Statistics, shard_of,
};
pub use engine::{
    Flight, FlightRecord, Handshake, HandshakeEngine, Identity, Input, Outcome, Progress, Refusal, Secrets,
    Start,
};
pub use keys::{Direction, Keys, MAX_PLAINTEXT, SealError, key_block};
pub use record::{ContentType, Head, Record, Version, records};
pub use replay::Window;
pub use suite::Suite;
