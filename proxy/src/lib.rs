//! Transports and protocols.
