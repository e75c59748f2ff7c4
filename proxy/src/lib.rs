//! The transports and protocols of mgate: sessions that decide, relays that move bytes.
//!
//! What this crate does not do: it reads no configuration file, asks no decision service and knows no message
//! bus. All of that comes in through [`gate::Gate`].

pub mod background;
mod clock;
pub mod coap;
pub mod gate;
pub mod http;
pub mod listener;
mod memory;
pub mod mqtt;
mod polling;
pub mod psk;
mod rate;
pub mod signal;
pub mod throttle;
pub mod transport;
