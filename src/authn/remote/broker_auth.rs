use http::uri::PathAndQuery;
use mgate_policies::{Now, Protocol};
use mgate_proxy::gate::{Credentials, Verdict};
use serde_json::{Value, json};

use super::{AskError, Dialect, GrpcService, HttpService, Question, accepted, rejected, text};
use crate::authn::inquiry;
use crate::neighbour::messages::broker_auth::{AuthnReq, AuthnRes, PROTOCOL_HTTP, PROTOCOL_MQTT};

/// `broker.auth.v1`, over HTTP or gRPC, as FluxMQ asks and Magistrala answers.
pub struct BrokerAuth(Way);

/// The names that the gRPC service had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Package {
    /// `broker.auth.v1`.
    BrokerAuth,
    /// `fluxmq.auth.v1`, before August 2026.
    FluxMq,
}

enum Way {
    Grpc(GrpcService, Package),
    Http(HttpService),
}

impl BrokerAuth {
    /// A service whose paths are below its address; `None` if there can be nothing below.
    pub fn over_http(service: HttpService) -> Option<Self> {
        service.below("/auth/authenticate").map(|service| Self(Way::Http(service)))
    }

    /// A service of this name.
    pub fn over_grpc(service: GrpcService, package: Package) -> Self {
        Self(Way::Grpc(service, package))
    }
}

impl Dialect for BrokerAuth {
    fn ask(&self, credentials: &Credentials<'_>, _: Now) -> Result<Question, Verdict> {
        // of certificates and bearer tokens it is told nothing
        if credentials.username.is_none() && credentials.password.is_none() {
            return Err(Verdict::Abstain);
        }
        let username = credentials.username.unwrap_or_default();
        let password = text(credentials.password.unwrap_or_default())?;
        let client_id = credentials.client_id;
        let protocol = credentials.protocol;
        Ok(match &self.0 {
            Way::Http(service) => {
                let body = json!({
                    "client_id": client_id, "username": username, "password": password,
                    "protocol": protocol.to_string(),
                });
                let (http, request) = (service.http.clone(), service.post_json(&body));
                Question::new(async move { read(&inquiry::json(&inquiry::send(&http, request).await?)?) })
            }
            Way::Grpc(service, package) => {
                let question = AuthnReq {
                    client_id: client_id.into(),
                    username: username.into(),
                    password: password.into(),
                    protocol: number(protocol),
                };
                let (service, method) = (service.clone(), package.method());
                Question::new(async move {
                    let answer = service.grpc.unary(method, &question, service.timeout).await;
                    let AuthnRes { authenticated, id, .. } = answer.map_err(AskError::Grpc)?;
                    said(authenticated, &id)
                })
            }
        })
    }
}

/// The service's number of a protocol; 0 is none of its own.
fn number(protocol: Protocol) -> i32 {
    match protocol {
        Protocol::Http => PROTOCOL_HTTP,
        Protocol::Mqtt => PROTOCOL_MQTT,
        _ => 0,
    }
}

impl Package {
    fn method(self) -> PathAndQuery {
        PathAndQuery::from_static(match self {
            Self::BrokerAuth => "/broker.auth.v1.AuthService/Authenticate",
            Self::FluxMq => "/fluxmq.auth.v1.AuthService/Authenticate",
        })
    }
}

fn read(answer: &Value) -> Result<Verdict, AskError> {
    let authenticated = answer.get("authenticated").and_then(Value::as_bool);
    let authenticated = authenticated.ok_or(AskError::Meaning("has no `authenticated`"))?;
    said(authenticated, answer.get("id").and_then(Value::as_str).unwrap_or_default())
}

fn said(authenticated: bool, id: &str) -> Result<Verdict, AskError> {
    match (authenticated, id) {
        (false, _) => Ok(rejected("the service says no")),
        (true, "") => Err(AskError::Meaning("has no `id`")),
        (true, id) => Ok(accepted(id)),
    }
}
