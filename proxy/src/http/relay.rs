//! Moves requests and answers between clients and the upstream; what they mean, the session says.

mod body;
mod connection;
mod downstream;
mod exchange;
mod handed;
mod identities;
mod incoming;
mod patient;
mod rates;
mod upstream;
mod websocket;

pub use connection::serve;
pub(super) use rates::Rates;
pub(super) use upstream::Upstream;
pub(super) use websocket::Places;
