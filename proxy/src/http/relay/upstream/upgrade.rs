use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::super::body::Content;
use super::super::patient::Patient;
use super::{Upstream, UpstreamError};
use crate::http::http1::MAX_HEAD_BYTES;

impl Upstream {
    /// Sends a request that asks for another protocol, on a connection of its own, and waits for the head of the answer.
    pub(in crate::http::relay) async fn upgrade(
        &self,
        request: Request<Content>,
        stall_timeout: Duration,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let stream = self.connector.connect().await.map_err(|error| self.unreachable(error))?;
        let io = TokioIo::new(Patient::new(stream, stall_timeout));
        let (mut sender, driver) = http1::Builder::new()
            .max_buf_size(MAX_HEAD_BYTES)
            .handshake(io)
            .await
            .map_err(UpstreamError::Http)?;
        // it ends with the answer, or when that is handed over
        tokio::spawn(driver.with_upgrades());
        sender.send_request(request).await.map_err(UpstreamError::Http)
    }
}
