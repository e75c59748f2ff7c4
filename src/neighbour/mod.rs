//! Clients of the services around mgate.

pub mod http;
