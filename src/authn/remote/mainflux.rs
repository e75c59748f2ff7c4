use http::StatusCode;
use http::uri::PathAndQuery;
use mgate_policies::{Now, Protocol};
use mgate_proxy::gate::{Credentials, Verdict};
use serde_json::json;

use super::{
    AskError, Dialect, GrpcService, HttpService, Question, accepted, is_refusal, login, rejected, text,
};
use crate::authn::inquiry;
use crate::neighbour::grpc::GrpcError;
use crate::neighbour::messages::mainflux::{ThingId, Token};

/// The things of Mainflux 0.10 to 0.13: the password is a thing's key, and the user name must be its id. Over HTTP
/// and CoAP a key may be shown alone.
pub struct Mainflux(Way);

enum Way {
    Grpc(GrpcService),
    Http(HttpService),
}

impl Mainflux {
    /// A service whose paths are below its address; `None` if there can be nothing below.
    pub fn over_http(service: HttpService) -> Option<Self> {
        service.below("/identify").map(|service| Self(Way::Http(service)))
    }

    /// The same over gRPC.
    pub fn over_grpc(service: GrpcService) -> Self {
        Self(Way::Grpc(service))
    }
}

impl Dialect for Mainflux {
    fn ask(&self, credentials: &Credentials<'_>, _: Now) -> Result<Question, Verdict> {
        let (username, key) = shown(credentials)?;
        let username = username.map(str::to_owned);
        Ok(match &self.0 {
            Way::Http(service) => {
                let (http, request) = (service.http.clone(), service.post_json(&json!({ "token": key })));
                Question::new(async move {
                    let answer = inquiry::send(&http, request).await?;
                    match answer.status() {
                        StatusCode::FORBIDDEN | StatusCode::NOT_FOUND | StatusCode::UNAUTHORIZED => {
                            Ok(unknown())
                        }
                        _ => said(inquiry::json(&answer)?["id"].as_str(), username.as_deref()),
                    }
                })
            }
            Way::Grpc(service) => {
                let (service, question) = (service.clone(), Token { value: key.into() });
                Question::new(async move {
                    let method = PathAndQuery::from_static("/mainflux.ThingsService/Identify");
                    match service.grpc.unary(method, &question, service.timeout).await {
                        Ok(ThingId { value }) => said(Some(&value), username.as_deref()),
                        Err(GrpcError::Status(code, _)) if is_refusal(code) => Ok(unknown()),
                        Err(error) => Err(AskError::Grpc(error)),
                    }
                })
            }
        })
    }
}

/// The user name, if one must be the thing's, and its key. Tokens of users are none.
fn shown<'a>(credentials: &Credentials<'a>) -> Result<(Option<&'a str>, &'a str), Verdict> {
    let is_token = credentials.upgrade.is_some_and(|upgrade| upgrade.bearer().is_some());
    match (credentials.protocol, credentials.username, credentials.password) {
        (Protocol::Coap | Protocol::Http, None, Some(key)) if !is_token => Ok((None, text(key)?)),
        _ => login(credentials).map(|(username, key)| (Some(username), key)),
    }
}

fn said(id: Option<&str>, username: Option<&str>) -> Result<Verdict, AskError> {
    match id {
        None | Some("") => Err(AskError::Meaning("has no `id`")),
        Some(id) if username.is_none_or(|username| username == id) => Ok(accepted(id)),
        Some(_) => Ok(rejected("the key is another thing's")),
    }
}

fn unknown() -> Verdict {
    rejected("no thing has this key")
}
