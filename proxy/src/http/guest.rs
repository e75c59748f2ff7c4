//! Routes of another protocol at a listener of HTTP.

use std::sync::Arc;

use mgate_policies::BoxFuture;

use crate::listener::Admission;
use crate::transport::{Accepted, WebSocketOptions};

/// A route that takes the WebSockets at one path of the listener which carry MQTT.
pub struct Guest {
    /// Its name.
    pub route: Arc<str>,
    /// Which WebSockets it takes.
    pub websocket: WebSocketOptions,
    /// Counts those that share a connection of HTTP/2, each as one more connection.
    pub admission: Admission,
    /// Whether it is here only until the next start, for what no other one takes.
    pub is_leaving: bool,
    /// Serves one to its end.
    pub serve: Box<dyn Fn(Accepted) -> BoxFuture<'static, ()> + Send + Sync>,
}
