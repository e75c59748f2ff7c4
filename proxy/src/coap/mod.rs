//! CoAP: views of messages. RFC 7252

pub mod codec;
pub mod encode;
pub mod message;
