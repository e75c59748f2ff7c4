//! Handshakes by OpenSSL.

mod settings;

pub use settings::{Certificate, ClientAuth, EngineSettings, Fault, Psk, Resumption};
