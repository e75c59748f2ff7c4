//! Asks the server that issued a token.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri};
use mgate_policies::Now;
use mgate_proxy::gate::{Authentication, Authenticator, Credentials, Verdict};
use serde_json::Value;

use super::claims::{self, ClaimRules};
use super::fault::Fault;
use super::inquiry::{AskError, Inquiry, InquiryOptions, json, send};
use super::token_place::TokenPlace;
use crate::neighbour::body::{FORM, form, percent_encode};
use crate::neighbour::http::HttpClient;

/// Asks the server that issued a token whether it is good. RFC 7662
///
/// It abstains where there is no token, and judges whatever stands in a token's place. It must be called in a
/// runtime that drives timers.
pub struct Introspection {
    name: Box<str>,
    token_in: Vec<TokenPlace>,
    service: Arc<Service>,
    inquiry: Arc<Inquiry>,
}

/// Which tokens are good, and whom to ask.
pub struct IntrospectionOptions {
    /// Where the server is asked.
    pub endpoint: Uri,
    /// The way to it.
    pub http: HttpClient,
    /// What goes along with every question: what mgate itself is known by.
    pub headers: HeaderMap,
    /// Where clients show their tokens; the first that is there counts.
    pub token_in: Vec<TokenPlace>,
    /// What `iss` must be, where it is asked for.
    pub issuer: Option<String>,
    /// Which claims are good, and what becomes of them.
    pub claims: ClaimRules,
    /// How the server is asked.
    pub inquiry: InquiryOptions,
}

struct Service {
    endpoint: Uri,
    http: HttpClient,
    headers: HeaderMap,
    issuer: Option<String>,
    claims: ClaimRules,
}

impl Introspection {
    /// An authenticator that logs call `name`.
    pub fn new(name: &str, options: IntrospectionOptions) -> Self {
        let IntrospectionOptions { endpoint, http, headers, token_in, issuer, claims, inquiry } = options;
        let service = Arc::new(Service { endpoint, http, headers, issuer, claims });
        Self { name: name.into(), token_in, service, inquiry: Arc::new(Inquiry::new(name, inquiry)) }
    }
}

impl Authenticator for Introspection {
    fn name(&self) -> &str {
        &self.name
    }

    fn authenticate(&self, credentials: &Credentials<'_>, now: Now) -> Authentication {
        let mut shown = self.token_in.iter().filter_map(|place| place.text(credentials));
        let Some(token) = shown.find(|token| !token.is_empty()) else {
            return Authentication::Ready(Verdict::Abstain);
        };
        if token.len() > MAX_TOKEN_BYTES {
            return Authentication::Ready(Fault::TooLong.verdict());
        }
        self.inquiry.judge(self.inquiry.key(&token), now, || {
            let (service, request) = (Arc::clone(&self.service), self.service.request(token));
            async move {
                let answer = send(&service.http, request).await?;
                service.read(&answer, now)
            }
        })
    }
}

impl Service {
    /// RFC 7662 §2.1
    fn request(&self, token: &str) -> Request<Bytes> {
        let body = form([("token", token), ("token_type_hint", "access_token")]);
        let mut request = Request::new(body.into());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.endpoint.clone();
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(FORM));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.extend(self.headers.clone());
        request
    }

    /// RFC 7662 §2.2
    fn read(&self, answer: &Response<Bytes>, now: Now) -> Result<Verdict, AskError> {
        let Value::Object(claims) = json(answer)? else { return Err(AskError::Meaning("is no JSON object")) };
        match claims.get("active") {
            Some(Value::Bool(false)) => return Ok(Fault::Inactive.verdict()),
            Some(Value::Bool(true)) => {}
            _ => return Err(AskError::Meaning("has no `active` that is true or false")),
        }
        let is_from = |issuer: &String| claims::is_from(&claims, issuer);
        if !self.issuer.as_ref().is_none_or(is_from) {
            return Ok(Fault::Issuer.verdict());
        }
        if is_of_another_kind(&claims) {
            return Ok(Fault::Kind.verdict());
        }
        Ok(match claims::principal(&claims, &self.claims, now.unix) {
            Ok(principal) => Verdict::Accepted(principal),
            Err(fault) => fault.verdict(),
        })
    }
}

/// What mgate shows of itself as a client of the server. RFC 6749 §2.3.1
pub fn client_secret_basic(id: &str, secret: &str) -> Option<HeaderMap> {
    let [mut user, mut password] = [String::new(), String::new()];
    percent_encode(id, &mut user);
    percent_encode(secret, &mut password);
    let credentials = STANDARD.encode(format!("{user}:{password}"));
    let mut value = HeaderValue::try_from(format!("Basic {credentials}")).ok()?;
    value.set_sensitive(true);
    Some(HeaderMap::from_iter([(AUTHORIZATION, value)]))
}

/// Servers call refresh tokens active too: Hydra tells them apart by `token_use`, Keycloak by `typ`.
fn is_of_another_kind(claims: &claims::Claims) -> bool {
    let is_other = claims.get("token_use").is_some_and(|used| used != "access_token" && used != "access");
    let typ = claims.get("typ").and_then(Value::as_str);
    is_other || matches!(typ, Some("ID" | "Offline" | "Refresh"))
}

/// What is longer is refused unasked.
const MAX_TOKEN_BYTES: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Write};
    use std::net::TcpListener;
    use std::num::NonZeroU16;
    use std::time::Duration;

    use mgate_policies::{Cause, Principal, Reason};
    use serde_json::json;

    use super::*;
    use crate::authn::tests::{judged, shown};
    use crate::neighbour::http::HttpOptions;
    use crate::service::{self, Service as Stub, answer};

    #[tokio::test]
    async fn active_token_is_accepted_with_its_claims() {
        let service = Stub::saying(service::json(&active(&json!({"scope": "a b", "username": "eve"}))));
        let principal = accepted(ask(&introspection(&service, |_| {}), "se cret+/&=ü").await);
        assert_eq!((&*principal.id, principal.expires), ("dev-1", Some(Duration::from_secs(NOW + 60))));
        assert_eq!(principal.attributes.values("claims.scope").collect::<Vec<_>>(), ["a b"]);
        let heard = &service.heard()[0];
        assert_eq!(heard.line, "POST /introspect");
        assert_eq!(heard.body, "token=se%20cret%2B%2F%26%3D%C3%BC&token_type_hint=access_token");
        for header in [
            "content-type: application/x-www-form-urlencoded\r\n",
            "accept: application/json\r\n",
            "authorization: basic bwdhdgu6cyuynxq=\r\n",
        ] {
            assert!(heard.headers.contains(header), "{header} {}", heard.headers);
        }
    }

    #[tokio::test]
    async fn token_without_an_end_is_good_and_has_none() {
        let service = Stub::saying(service::json(r#"{"active":true,"sub":"dev-1"}"#));
        assert_eq!(accepted(ask(&introspection(&service, |_| {}), "t").await).expires, None);
    }

    #[tokio::test]
    async fn bad_tokens_are_rejected() {
        for (body, fault) in [
            (json!({"active": false}).to_string(), Fault::Inactive),
            (json!({"active": false, "sub": "dev-1"}).to_string(), Fault::Inactive),
            (active(&json!({"exp": NOW})), Fault::Expired),
            (active(&json!({"nbf": NOW + 60})), Fault::NotYet("nbf")),
            (active(&json!({"iss": "other"})), Fault::Issuer),
            (active(&json!({"iss": null})), Fault::Issuer),
            (active(&json!({"aud": "other"})), Fault::Audience),
            (active(&json!({"sub": null})), Fault::Claim("id_claim")),
            (active(&json!({"sub": "a/b"})), Fault::IdentityCharset("id_claim")),
            (active(&json!({"token_use": "refresh_token"})), Fault::Kind),
            (active(&json!({"typ": "Refresh"})), Fault::Kind),
        ] {
            let service = Stub::saying(service::json(&body));
            let strict = introspection(&service, |options| {
                options.issuer = Some("https://issuer.example".into());
                options.claims.audience = Some(vec!["mgate".into()]);
            });
            assert_eq!(ask(&strict, "t").await, fault.verdict(), "{body}");
        }
    }

    #[tokio::test]
    async fn answer_that_is_none_lets_nobody_in() {
        let good = active(&json!({}));
        for bad in [
            service::json("{}"),
            service::json(r#"{"active":"true","sub":"dev-1"}"#),
            service::json(r#"{"active":1,"sub":"dev-1"}"#),
            service::json(r#"{"sub":"dev-1"}"#),
            service::json("[true]"),
            service::json(""),
            answer("200 OK", "text/html", &good),
            answer("201 Created", "application/json", &good),
            answer("302 Found", "application/json", &good),
            answer("400 Bad Request", "application/json", &good),
            answer("401 Unauthorized", "application/json", &good),
            answer("403 Forbidden", "application/json", &good),
            answer("500 Internal Server Error", "application/json", &good),
            b"SSH-2.0-OpenSSH\r\n".to_vec(),
        ] {
            let service = Stub::saying(bad.clone());
            let verdict = ask(&introspection(&service, |_| {}), "t").await;
            assert_eq!(cause(&verdict), Cause::Unavailable, "{}", String::from_utf8_lossy(&bad));
        }
        let half =
            format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 999\r\n\r\n{good}");
        let service = Stub::start(move |_, tcp| {
            tcp.write_all(half.as_bytes())?;
            Err(ErrorKind::ConnectionAborted.into())
        });
        assert_eq!(cause(&ask(&introspection(&service, |_| {}), "t").await), Cause::Unavailable);
    }

    #[tokio::test]
    async fn nobody_there_lets_nobody_in() {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let service = Stub::saying("");
        let gone = introspection(&service, |options| {
            options.endpoint = format!("http://{address}/").parse().unwrap();
        });
        assert_eq!(cause(&ask(&gone, "t").await), Cause::Unavailable);
    }

    #[tokio::test]
    async fn answer_is_remembered_for_the_same_token_alone() {
        let service = Stub::saying(service::json(&active(&json!({}))));
        let cached = introspection(&service, |options| options.inquiry.cache = Duration::from_secs(60));
        for token in ["a", "b", "a", "b"] {
            accepted(ask(&cached, token).await);
        }
        assert_eq!(service.heard().len(), 2);
    }

    #[tokio::test]
    async fn without_a_token_it_abstains() {
        let service = Stub::saying(service::json(&active(&json!({}))));
        let introspection = introspection(&service, |_| {});
        for credentials in [shown(), Credentials { password: Some(b""), ..shown() }] {
            assert_eq!(judged(&introspection, &credentials, now()).await, Verdict::Abstain);
        }
        let long = "x".repeat(MAX_TOKEN_BYTES + 1);
        assert_eq!(ask(&introspection, &long).await, Fault::TooLong.verdict());
        assert_eq!(service.heard().len(), 0);
    }

    fn introspection(service: &Stub, change: impl FnOnce(&mut IntrospectionOptions)) -> Introspection {
        let http = HttpOptions {
            ca: None,
            identity: None,
            timeout: Duration::from_secs(5),
            max_body_bytes: 64 * 1024,
        };
        let mut options = IntrospectionOptions {
            endpoint: service.url("/introspect").parse().unwrap(),
            http: HttpClient::new(http).unwrap(),
            headers: client_secret_basic("mgate", "s%t").unwrap(),
            token_in: vec![TokenPlace::Password],
            issuer: None,
            claims: claims_of_everybody(),
            inquiry: InquiryOptions {
                timeout: Duration::from_secs(5),
                concurrency: NonZeroU16::MIN,
                cache: Duration::ZERO,
            },
        };
        change(&mut options);
        Introspection::new("tokens", options)
    }

    fn claims_of_everybody() -> ClaimRules {
        ClaimRules {
            audience: None,
            needs_expiry: false,
            leeway: Duration::from_secs(30),
            id_claim: "sub".into(),
            groups_claim: None,
            tenant_claim: None,
            acl_claim: None,
            required_claims: Vec::new(),
        }
    }

    /// An answer about a good token, with the members of `more`.
    fn active(more: &Value) -> String {
        let mut claims = json!({
            "active": true, "iss": "https://issuer.example", "aud": "mgate", "sub": "dev-1", "exp": NOW + 60,
        });
        for (name, value) in more.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims.to_string()
    }

    async fn ask(introspection: &Introspection, token: &str) -> Verdict {
        let credentials = Credentials { password: Some(token.as_bytes()), ..shown() };
        judged(introspection, &credentials, now()).await
    }

    fn now() -> Now {
        Now { unix: Duration::from_secs(NOW), ..Now::read() }
    }

    fn accepted(verdict: Verdict) -> Principal {
        match verdict {
            Verdict::Accepted(principal) => principal,
            _ => panic!("{verdict:?}"),
        }
    }

    fn cause(verdict: &Verdict) -> Cause {
        match verdict {
            Verdict::Rejected(Reason { cause, .. }) => *cause,
            _ => panic!("{verdict:?}"),
        }
    }

    const NOW: u64 = 1_800_000_000;
}
