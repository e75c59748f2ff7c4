use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Request, Response};

use super::client::PdpError;
use super::grpc::answer_of;
use crate::neighbour::body::JSON;
use crate::neighbour::grpc::{GrpcClient, GrpcError};
use crate::neighbour::http::HttpClient;
use crate::neighbour::nats::NatsClient;

/// The way to a service.
#[derive(Debug)]
pub enum Transport {
    /// The request's path names the method, its body is the message.
    Grpc(GrpcClient),
    /// With what is sent along with every question: keys and tokens of mgate itself.
    Http(HttpClient, HeaderMap),
    /// Answers are JSON.
    Nats {
        /// The connection.
        client: Box<NatsClient>,
        /// On which subject questions are asked.
        subject: String,
        /// On which several are asked at once.
        batch_subject: String,
        /// On which it is said that rights were withdrawn.
        invalidations: String,
    },
}

/// How many questions a request asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    One,
    Several,
}

impl Transport {
    /// Sends a question and waits for the whole answer; does so once more where nothing was heard of the first.
    pub(super) async fn exchange(
        &self,
        asked: &Request<Bytes>,
        scale: Scale,
        within: Duration,
    ) -> Result<Response<Bytes>, PdpError> {
        match self {
            Self::Grpc(client) => {
                let method = asked.uri().path_and_query().cloned();
                let method = method.unwrap_or(PathAndQuery::from_static("/"));
                let call = || client.call(method.clone(), asked.body().clone(), within);
                let called = match call().await {
                    Err(GrpcError::Broken(_) | GrpcError::Connect(_)) => call().await,
                    called => called,
                };
                match called {
                    Ok(message) => Ok(Response::new(message)),
                    // some say no like this
                    Err(GrpcError::Status(code, words)) => Ok(answer_of(code, words)),
                    Err(error) => Err(PdpError::Grpc(error)),
                }
            }
            Self::Http(client, headers) => {
                let mut request = asked.clone();
                request.headers_mut().extend(headers.clone());
                client.send_twice(request).await.map_err(PdpError::Http)
            }
            Self::Nats { client, subject, batch_subject, .. } => {
                let subject = if scale == Scale::One { subject } else { batch_subject };
                let answer = client.request(subject, asked.body().clone(), within).await;
                let mut answer = answer.map(Response::new).map_err(PdpError::Nats)?;
                answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
                Ok(answer)
            }
        }
    }
}
