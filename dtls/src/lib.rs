//! The server's side of DTLS 1.2 (RFC 6347) with connection ids (RFC 9146), without input, output or clock.
//!
//! Records are AEAD only: AES-CCM, AES-CCM-8, AES-GCM and ChaCha20-Poly1305. The crate speaks no other version
//! of DTLS, no CBC suite, no renegotiation and no compression.

mod client_hello;
mod cookie;
mod keys;
mod record;
mod replay;
mod suite;

pub use keys::{Direction, Keys, MAX_PLAINTEXT, SealError, key_block};
pub use record::{ContentType, Head, Record, Version, records};
pub use replay::Window;
pub use suite::Suite;
