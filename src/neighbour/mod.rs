//! Clients of the services around mgate.

pub(crate) mod body;
pub(crate) mod breaker;
pub(crate) mod flights;
pub mod grpc;
pub(crate) mod guard;
pub mod http;
pub(crate) mod messages;
pub mod nats;
pub(crate) mod template;
