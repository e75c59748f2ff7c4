//! mgate, an IoT API gateway: every packet between devices and their servers is authorized.

mod admin;
pub mod authn;
pub mod cli;
pub mod config;
pub mod control;
#[cfg(feature = "demo")]
mod demo;
mod extension;
pub mod gateway;
pub mod health;
mod import;
pub mod log;
pub mod mirror;
pub mod neighbour;
mod observer;
pub mod pdp;
#[cfg(feature = "wasm")]
pub mod plugin;
mod question;
mod route;
pub mod senml;
pub mod transform;
pub mod withdrawals;
mod workers;

pub use gateway::Gateway;

#[cfg(test)]
#[path = "../tests/support/service.rs"]
#[allow(dead_code, reason = "no test needs all of it")]
mod service;

#[cfg(test)]
#[path = "../tests/support/issuer.rs"]
mod issuer;

#[cfg(test)]
#[path = "../tests/support/grpc.rs"]
#[allow(dead_code, reason = "no test needs all of it")]
mod grpc_service;
