use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Response, StatusCode};
use mgate_policies::{Cause, Now, Reason};
use mgate_proxy::gate::{Authentication, Authenticator, Credentials, Verdict};
use mgate_proxy::psk::{KeySearch, Psk};
use serde_json::{Value, json};
use tracing::debug;

use super::super::inquiry::{AskError, Inquiry, InquiryOptions, json, send};
use super::super::is_safe_identity;
use super::super::remote::HttpService;
use super::accepted;

/// Asks a service for the keys of devices, and takes the identity as [`super::Psk`] does.
///
/// Keys are not remembered. It must be called in a runtime that drives timers.
pub struct PskService {
    name: Box<str>,
    service: Arc<HttpService>,
    inquiry: Arc<Inquiry>,
}

impl PskService {
    /// An authenticator that logs call `name`.
    pub fn new(name: &str, service: HttpService, options: InquiryOptions) -> Self {
        let inquiry = Arc::new(Inquiry::new(name, options));
        Self { name: name.into(), service: Arc::new(service), inquiry }
    }
}

impl Authenticator for PskService {
    fn name(&self) -> &str {
        &self.name
    }

    fn authenticate(&self, credentials: &Credentials<'_>, now: Now) -> Authentication {
        let Some(identity) = credentials.psk_identity else {
            return Authentication::Ready(Verdict::Abstain);
        };
        self.inquiry.judge(self.inquiry.key(&identity), now, || {
            let (service, identity) = (Arc::clone(&self.service), identity.to_owned());
            async move {
                let key = ask(&service, &identity).await?;
                Ok(key.map_or_else(|| Verdict::Rejected(unknown()), |_| accepted(&identity)))
            }
        })
    }

    fn key(&self, identity: &str, now: Now) -> KeySearch {
        if !is_safe_identity(identity) {
            return KeySearch::Unknown;
        }
        let (name, service) = (self.name.clone(), Arc::clone(&self.service));
        let (inquiry, identity) = (Arc::clone(&self.inquiry), identity.to_owned());
        KeySearch::Pending(Box::pin(async move {
            let key = inquiry.call(now, ask(&service, &identity)).await;
            key.unwrap_or_else(|error| {
                debug!(authn = %name, identity, %error, "no key is to be had");
                None
            })
        }))
    }
}

async fn ask(service: &HttpService, identity: &str) -> Result<Option<Psk>, AskError> {
    let answer = send(&service.http, service.post_json(&json!({ "identity": identity }))).await?;
    read(&answer)
}

/// Only 404 means that there is no key.
fn read(answer: &Response<Bytes>) -> Result<Option<Psk>, AskError> {
    if answer.status() == StatusCode::NOT_FOUND {
        return Ok(None);
    }
    let body = json(answer)?;
    let key = body.get("psk").and_then(Value::as_str).and_then(|text| STANDARD.decode(text).ok());
    let key = key.and_then(|key| Psk::new(&key));
    key.map(Some).ok_or(AskError::Meaning("has no `psk` that is a key in base64"))
}

fn unknown() -> Reason {
    Reason::with_detail(Cause::BadCredentials, "the service knows no key of this identity any more")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_is_a_key_or_that_there_is_none() {
        assert_eq!(read(&answer(200, r#"{"psk":"AP8="}"#)).unwrap().unwrap().reveal(), [0x00, 0xff]);
        assert_eq!(read(&answer(404, "nobody")), Ok(None));
        for body in ["{}", r#"{"psk":""}"#, r#"{"psk":"a"}"#, r#"{"psk":1}"#, r#""AP8=""#] {
            let meaning = AskError::Meaning("has no `psk` that is a key in base64");
            assert_eq!(read(&answer(200, body)), Err(meaning), "{body}");
        }
        assert_eq!(read(&answer(200, "no")), Err(AskError::Meaning("is not JSON")));
        for status in [201, 204, 302, 401, 403, 500] {
            let refused = read(&answer(status, r#"{"psk":"AP8="}"#));
            assert!(matches!(refused, Err(AskError::Status(_))), "{status}");
        }
    }

    fn answer(status: u16, body: &'static str) -> Response<Bytes> {
        let answer = Response::builder().status(status).header("content-type", "application/json");
        answer.body(body.into()).unwrap()
    }
}
