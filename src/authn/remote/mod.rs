//! Lets another service say who a client is.

mod broker_auth;
mod mainflux;
mod supermq;
mod template;
mod webhook;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use mgate_policies::{Attributes, BoxFuture, Cause, Now, Principal, Reason};
use mgate_proxy::gate::{Authentication, Authenticator, Credentials, Verdict};
use serde_json::Value;

use super::inquiry::{Inquiry, InquiryOptions};
use super::is_safe_identity;
use crate::neighbour::body::JSON;
use crate::neighbour::grpc::{Code, GrpcClient};
use crate::neighbour::http::HttpClient;

pub use self::broker_auth::{BrokerAuth, Package};
pub use self::mainflux::Mainflux;
pub use self::supermq::{Generation, Supermq};
pub use self::template::{Template, TemplateError};
pub use self::webhook::{Body, IdFrom, Reply, Webhook};
pub(super) use super::inquiry::AskError;

/// Asks a service about each client, unless the same was answered lately.
///
/// It abstains where a client shows nothing to be judged by. It must be called in a runtime that drives timers.
pub struct Remote {
    name: Box<str>,
    dialect: Box<dyn Dialect>,
    inquiry: Arc<Inquiry>,
}

/// How a kind of service is asked who a client is.
pub trait Dialect: Send + Sync {
    /// The question about these credentials, not yet sent; or what can be said without it.
    ///
    /// Only the documented positive answer accepts, and only the documented negative one rejects.
    fn ask(&self, credentials: &Credentials<'_>, now: Now) -> Result<Question, Verdict>;
}

/// A question on its way, once it is awaited.
pub struct Question(BoxFuture<'static, Result<Verdict, AskError>>);

/// The way to a service that speaks HTTP.
#[derive(Clone)]
pub struct HttpService {
    /// Its client.
    pub http: HttpClient,
    /// Where it is asked.
    pub endpoint: Uri,
    /// What goes along with every question: keys and tokens of mgate itself.
    pub headers: HeaderMap,
}

/// The way to a service that speaks gRPC.
#[derive(Clone)]
pub struct GrpcService {
    /// Its client.
    pub grpc: Arc<GrpcClient>,
    /// Time for one call.
    pub timeout: Duration,
}

impl Remote {
    /// An authenticator that logs call `name`.
    pub fn new(name: &str, dialect: Box<dyn Dialect>, options: InquiryOptions) -> Self {
        Self { name: name.into(), dialect, inquiry: Arc::new(Inquiry::new(name, options)) }
    }
}

impl Authenticator for Remote {
    fn name(&self) -> &str {
        &self.name
    }

    fn authenticate(&self, credentials: &Credentials<'_>, now: Now) -> Authentication {
        let bearer = credentials.upgrade.and_then(|upgrade| upgrade.bearer());
        let Credentials { client_id, username, password, certificate, peer, protocol, .. } = *credentials;
        if username.is_none() && password.is_none() && bearer.is_none() && certificate.is_none() {
            return Authentication::Ready(Verdict::Abstain);
        }
        match self.dialect.ask(credentials, now) {
            Err(verdict) => Authentication::Ready(verdict),
            Ok(question) => {
                let all = (client_id, username, password, bearer, certificate, peer.ip(), protocol);
                self.inquiry.judge(self.inquiry.key(&all), now, || question.0)
            }
        }
    }
}

impl Question {
    fn new(question: impl Future<Output = Result<Verdict, AskError>> + Send + 'static) -> Self {
        Self(Box::pin(question))
    }
}

impl HttpService {
    /// The service at this path below its address; `None` if there can be nothing below.
    pub fn below(mut self, path: &str) -> Option<Self> {
        if self.endpoint.query().is_some() {
            return None;
        }
        let base = self.endpoint.to_string();
        self.endpoint = format!("{}{path}", base.trim_end_matches('/')).parse().ok()?;
        Some(self)
    }

    fn request(&self, method: Method, content_type: &'static str, body: String) -> Request<Bytes> {
        let mut request = Request::new(body.into());
        *request.method_mut() = method;
        *request.uri_mut() = self.endpoint.clone();
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        request.headers_mut().extend(self.headers.clone());
        request
    }

    pub(super) fn post_json(&self, body: &Value) -> Request<Bytes> {
        self.request(Method::POST, JSON, body.to_string())
    }
}

/// The user name and the password, where both are text; what is missing is left to others.
fn login<'a>(credentials: &Credentials<'a>) -> Result<(&'a str, &'a str), Verdict> {
    let (Some(username), Some(password)) = (credentials.username, credentials.password) else {
        return Err(Verdict::Abstain);
    };
    Ok((username, text(password)?))
}

/// Services take passwords as text alone.
fn text(password: &[u8]) -> Result<&str, Verdict> {
    str::from_utf8(password).map_err(|_| rejected("the password is no text"))
}

/// The client that a service knows by this name.
fn accepted(id: &str) -> Verdict {
    accepted_with(id, Attributes::default(), None)
}

fn accepted_with(id: &str, attributes: Attributes, expires: Option<Duration>) -> Verdict {
    match is_safe_identity(id) {
        true => Verdict::Accepted(Principal { id: id.into(), attributes, expires, ..Principal::default() }),
        false => rejected("identity_charset: the identity is empty or has `/`, `+`, `#` or U+0000"),
    }
}

fn rejected(detail: &str) -> Verdict {
    Verdict::Rejected(Reason::with_detail(Cause::BadCredentials, detail))
}

/// A status with which gRPC services refuse credentials.
fn is_refusal(code: Code) -> bool {
    matches!(code, Code::InvalidArgument | Code::NotFound | Code::PermissionDenied | Code::Unauthenticated)
}

#[cfg(test)]
mod tests;
