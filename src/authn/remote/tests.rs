use std::num::NonZeroU16;

use mgate_policies::Protocol;
use mgate_proxy::transport::Upgrade;
use serde_json::json;

use super::*;
use crate::authn::tests::{judged, shown};
use crate::neighbour::http::HttpOptions;
use crate::service::{Heard, Service as Stub, answer, json as json_answer};

#[tokio::test]
async fn broker_auth_takes_true_with_an_id() {
    for (said, expected) in [
        (json_answer(r#"{"authenticated":true,"id":"dev-1"}"#), Said::Is("dev-1")),
        (json_answer(r#"{"authenticated":true,"id":"dev-1","reason_code":0}"#), Said::Is("dev-1")),
        (json_answer(r#"{"authenticated":false,"id":"dev-1"}"#), Said::No),
        (json_answer(r#"{"authenticated":true,"id":"a/b"}"#), Said::No),
        (json_answer(r#"{"authenticated":true,"id":""}"#), Said::Unknown),
        (json_answer(r#"{"authenticated":true}"#), Said::Unknown),
        (json_answer(r#"{"authenticated":"true","id":"dev-1"}"#), Said::Unknown),
        (json_answer(r#"{"authorized":true,"id":"dev-1"}"#), Said::Unknown),
        (json_answer("{}"), Said::Unknown),
        (answer("201 Created", JSON, r#"{"authenticated":true,"id":"dev-1"}"#), Said::Unknown),
        (answer("401 Unauthorized", JSON, r#"{"authenticated":true,"id":"dev-1"}"#), Said::Unknown),
        (answer("500 Oops", JSON, r#"{"authenticated":true,"id":"dev-1"}"#), Said::Unknown),
    ] {
        let dialect = |service| BrokerAuth::over_http(service).unwrap();
        let (verdict, heard) = asked(&said, dialect).await;
        assert_eq!(verdict, expected, "{}", String::from_utf8_lossy(&said));
        let body = json!({"client_id": "dev-1", "username": "eve", "password": "pw", "protocol": "mqtt"});
        assert_eq!((&*heard.line, body_of(&heard)), ("POST /base/auth/authenticate", body));
    }
}

#[tokio::test]
async fn mainflux_thing_must_be_the_user() {
    for (said, expected) in [
        (json_answer(r#"{"id":"eve"}"#), Said::Is("eve")),
        (json_answer(r#"{"id":"other"}"#), Said::No),
        (json_answer(r#"{"id":""}"#), Said::Unknown),
        (json_answer("{}"), Said::Unknown),
        (answer("401 Unauthorized", JSON, r#"{"error":"no"}"#), Said::No),
        (answer("403 Forbidden", JSON, ""), Said::No),
        (answer("404 Not Found", JSON, ""), Said::No),
        (answer("415 Unsupported Media Type", JSON, r#"{"id":"eve"}"#), Said::Unknown),
        (answer("500 Oops", JSON, r#"{"id":"eve"}"#), Said::Unknown),
        (answer("200 OK", "text/plain", r#"{"id":"eve"}"#), Said::Unknown),
    ] {
        let (verdict, heard) = asked(&said, |service| Mainflux::over_http(service).unwrap()).await;
        assert_eq!(verdict, expected, "{}", String::from_utf8_lossy(&said));
        assert_eq!((&*heard.line, body_of(&heard)), ("POST /base/identify", json!({"token": "pw"})));
    }
}

#[tokio::test]
async fn mainflux_thing_may_show_its_key_alone_over_http() {
    let service = Stub::saying(json_answer(r#"{"id":"eve"}"#));
    let things = remote(Mainflux::over_http(to(&service)).unwrap());
    let alone = Credentials { username: None, ..login() };
    let over_http = Credentials { protocol: Protocol::Http, ..alone };
    assert_eq!(Said::of(&judged(&things, &over_http, now()).await), Said::Is("eve"));
    assert_eq!(Said::of(&judged(&things, &alone, now()).await), Said::Abstain);
    let request = Request::get("/").header("authorization", "Bearer pw").body(()).unwrap();
    let upgrade = Upgrade::of(request.uri(), request.headers()).unwrap();
    let token = Credentials { upgrade: Some(&upgrade), ..over_http };
    assert_eq!(Said::of(&judged(&things, &token, now()).await), Said::Abstain);
}

#[tokio::test]
async fn emqx_accepts_by_result_and_by_204() {
    for (said, expected) in [
        (json_answer(r#"{"result":"allow"}"#), Said::Is("eve")),
        (answer("204 No Content", JSON, ""), Said::Is("eve")),
        (json_answer(r#"{"result":"deny"}"#), Said::No),
        (json_answer(r#"{"result":"ignore"}"#), Said::Abstain),
        (json_answer(r#"{"result":"allow","expire_at":1}"#), Said::No),
        (json_answer(r#"{"result":"allow","expire_at":"soon"}"#), Said::Unknown),
        (json_answer(r#"{"result":"allow","is_superuser":"yes"}"#), Said::Unknown),
        (json_answer(r#"{"result":"allow","clientid_override":"x"}"#), Said::Unknown),
        (json_answer(r#"{"result":"allow","client_attrs":{"a":1}}"#), Said::Unknown),
        (json_answer(r#"{"result":"allow","acl":[{"permission":"maybe"}]}"#), Said::Unknown),
        (json_answer(r#"{"result":true}"#), Said::Unknown),
        (json_answer("{}"), Said::Unknown),
        (answer("200 OK", "text/plain", r#"{"result":"allow"}"#), Said::Unknown),
        (answer("302 Found", JSON, r#"{"result":"allow"}"#), Said::Unknown),
        (answer("403 Forbidden", JSON, r#"{"result":"allow"}"#), Said::Unknown),
        (answer("500 Oops", JSON, r#"{"result":"allow"}"#), Said::Unknown),
    ] {
        let (verdict, heard) = asked(&said, |service| hook(service, Reply::Emqx(None))).await;
        assert_eq!(verdict, expected, "{}", String::from_utf8_lossy(&said));
        assert_eq!(body_of(&heard), json!({"u": "eve/dev-1", "p": "pw", "cn": ""}));
    }
}

#[tokio::test]
async fn what_emqx_is_told_of_a_client_is_kept() {
    let said = json!({
        "result": "allow", "is_superuser": true, "client_attrs": {"line": "7"}, "expire_at": NOW + 60,
        "acl": [{"permission": "deny", "action": "all", "topic": "#"}],
    });
    for (group, groups) in [(None, vec![]), (Some("admins"), vec!["admins".into()])] {
        let service = Stub::saying(json_answer(&said.to_string()));
        let remote = remote(hook(to(&service), Reply::Emqx(group.map(Into::into))));
        let verdict = judged(&remote, &login(), now()).await;
        let Verdict::Accepted(principal) = verdict else { panic!("{verdict:?}") };
        let values = |name| principal.attributes.values(name).collect::<Vec<_>>();
        assert_eq!(values("client_attrs.line"), ["7"]);
        assert_eq!(values("acl"), ["deny all 012 any like #"]);
        assert_eq!((&principal.groups, principal.expires), (&groups, Some(Duration::from_secs(NOW + 60))));
    }
}

#[tokio::test]
async fn mosquitto_go_auth_accepts_by_its_modes() {
    for (reply, said, expected) in [
        (Reply::Ok, json_answer(r#"{"Ok":true,"Error":""}"#), Said::Is("eve")),
        (Reply::Ok, json_answer(r#"{"ok":false,"error":"no"}"#), Said::No),
        (Reply::Ok, json_answer(r#"{"Ok":true,"Error":"no"}"#), Said::Unknown),
        (Reply::Ok, json_answer(r#"{"Ok":true,"ok":false}"#), Said::Unknown),
        (Reply::Ok, json_answer(r#"{"Ok":"true"}"#), Said::Unknown),
        (Reply::Ok, answer("401 Unauthorized", JSON, r#"{"Ok":true}"#), Said::No),
        (Reply::Ok, answer("500 Oops", JSON, r#"{"Ok":true}"#), Said::Unknown),
        (Reply::Text, answer("200 OK", "text/plain", "ok"), Said::Is("eve")),
        (Reply::Text, answer("200 OK", "text/plain", "OK"), Said::No),
        (Reply::Text, answer("403 Forbidden", "text/plain", "ok"), Said::No),
        (Reply::Text, answer("500 Oops", "text/plain", "ok"), Said::Unknown),
        (Reply::Status, answer("204 No Content", "text/plain", ""), Said::Is("eve")),
        (Reply::Status, answer("401 Unauthorized", "text/plain", ""), Said::No),
        (Reply::Status, answer("302 Found", "text/plain", ""), Said::Unknown),
        (Reply::Status, answer("404 Not Found", "text/plain", ""), Said::Unknown),
    ] {
        let (verdict, _) = asked(&said, |service| hook(service, reply.clone())).await;
        assert_eq!(verdict, expected, "{reply:?} {}", String::from_utf8_lossy(&said));
    }
}

#[tokio::test]
async fn vernemq_accepts_by_ok_without_changes() {
    for (said, expected) in [
        (json_answer(r#"{"result":"ok"}"#), Said::Is("eve")),
        (json_answer(r#"{"result":"ok","modifiers":{}}"#), Said::Is("eve")),
        (json_answer(r#"{"result":"ok","modifiers":{"client_id":"x"}}"#), Said::Unknown),
        (json_answer(r#"{"result":"next"}"#), Said::Abstain),
        (json_answer(r#"{"result":{"error":"not_allowed"}}"#), Said::No),
        (json_answer(r#"{"result":"OK"}"#), Said::Unknown),
        (json_answer("{}"), Said::Unknown),
        (answer("204 No Content", JSON, ""), Said::Unknown),
    ] {
        let dialect = |service| Webhook { body: Body::VerneMq, ..hook(service, Reply::VerneMq) };
        let (verdict, heard) = asked(&said, dialect).await;
        assert_eq!(verdict, expected, "{}", String::from_utf8_lossy(&said));
        assert!(heard.headers.contains("vernemq-hook: auth_on_register\r\n"), "{}", heard.headers);
        let expected = json!({
            "peer_addr": "127.0.0.1", "peer_port": 1, "username": "eve", "password": "pw", "mountpoint": "",
            "client_id": "dev-1",
        });
        assert_eq!(body_of(&heard), expected);
    }
}

#[tokio::test]
async fn form_is_encoded() {
    let service = Stub::saying(answer("200 OK", "text/plain", ""));
    let fields = [("a&b", "${username}"), ("t", "<${token}>")];
    let fields = fields.map(|(name, text)| (name.to_owned(), Template::parse(text).unwrap()));
    let hook = Webhook { body: Body::Form(fields.into()), ..hook(to(&service), Reply::Status) };
    let request = Request::get("/").header("authorization", "Bearer x.y").body(()).unwrap();
    let upgrade = Upgrade::of(request.uri(), request.headers()).unwrap();
    let credentials = Credentials { username: Some("e=&ve"), upgrade: Some(&upgrade), ..shown() };
    judged(&remote(hook), &credentials, now()).await;
    assert_eq!(service.heard()[0].body, "a%26b=e%3D%26ve&t=%3Cx.y%3E");
}

#[tokio::test]
async fn nothing_is_asked_about_who_shows_nothing() {
    let service = Stub::saying(answer("200 OK", "text/plain", ""));
    let remote = remote(hook(to(&service), Reply::Status));
    assert_eq!(judged(&remote, &shown(), now()).await, Verdict::Abstain);
    let binary = Credentials { password: Some(b"\xff"), ..login() };
    assert_eq!(Said::of(&judged(&remote, &binary, now()).await), Said::No);
    assert_eq!(service.heard().len(), 0);
}

#[tokio::test]
async fn broker_auth_leaves_to_others_what_it_is_not_told() {
    let service = Stub::saying(json_answer(r#"{"authenticated":true,"id":"dev-1"}"#));
    let remote = remote(BrokerAuth::over_http(to(&service)).unwrap());
    let certified = Credentials { certificate: Some(b"der"), ..shown() };
    assert_eq!(judged(&remote, &certified, now()).await, Verdict::Abstain);
    assert_eq!(service.heard().len(), 0);
}

#[test]
fn templates_know_their_names() {
    assert_eq!(Template::parse("${x}"), Err(TemplateError::Unknown("x".into())));
    assert_eq!(Template::parse("a${username"), Err(TemplateError::Open));
    let credentials = login();
    for (text, rendered) in [
        ("${clientid}-${client_id}", "dev-1-dev-1"),
        ("${username}:${password}", "eve:pw"),
        ("${peerhost}${mountpoint} ${proto_name}", "127.0.0.1 mqtt"),
        ("${token}${cert_common_name}", ""),
    ] {
        assert_eq!(Template::parse(text).unwrap().render(&credentials), Ok(rendered.into()));
    }
}

/// What a verdict comes to.
#[derive(Debug, PartialEq)]
enum Said<'a> {
    Abstain,
    Is(&'a str),
    No,
    Unknown,
}

impl Said<'_> {
    fn of(verdict: &Verdict) -> Said<'_> {
        match verdict {
            Verdict::Abstain => Said::Abstain,
            Verdict::Accepted(principal) => Said::Is(&principal.id),
            Verdict::Rejected(Reason { cause: Cause::Unavailable, .. }) => Said::Unknown,
            Verdict::Rejected(_) => Said::No,
        }
    }
}

/// What the dialect makes of an answer, and what it asked.
async fn asked<D: Dialect + 'static>(
    said: &[u8],
    dialect: impl FnOnce(HttpService) -> D,
) -> (Said<'static>, Heard) {
    let service = Stub::saying(said);
    let verdict = judged(&remote(dialect(to(&service))), &login(), now()).await;
    let said = match Said::of(&verdict) {
        Said::Is("dev-1") => Said::Is("dev-1"),
        Said::Is("eve") => Said::Is("eve"),
        Said::Is(other) => panic!("{other}"),
        Said::Abstain => Said::Abstain,
        Said::No => Said::No,
        Said::Unknown => Said::Unknown,
    };
    (said, service.heard()[0].clone())
}

fn hook(service: HttpService, reply: Reply) -> Webhook {
    let fields = [("u", "${username}/${clientid}"), ("p", "${password}"), ("cn", "${cert_common_name}")];
    let fields = fields.map(|(name, text)| (name.to_owned(), Template::parse(text).unwrap()));
    Webhook { service, method: Method::POST, body: Body::Json(fields.into()), reply, id: IdFrom::Username }
}

fn remote(dialect: impl Dialect + 'static) -> Remote {
    let options = InquiryOptions {
        timeout: Duration::from_secs(5),
        concurrency: NonZeroU16::MIN,
        cache: Duration::ZERO,
    };
    Remote::new("platform", Box::new(dialect), options)
}

fn to(service: &Stub) -> HttpService {
    let options =
        HttpOptions { ca: None, identity: None, timeout: Duration::from_secs(5), max_body_bytes: 64 * 1024 };
    HttpService {
        http: HttpClient::new(options).unwrap(),
        endpoint: service.url("/base").parse().unwrap(),
        headers: HeaderMap::new(),
    }
}

fn login() -> Credentials<'static> {
    Credentials { username: Some("eve"), password: Some(b"pw"), ..shown() }
}

fn now() -> Now {
    Now { unix: Duration::from_secs(NOW), ..Now::read() }
}

fn body_of(heard: &Heard) -> Value {
    serde_json::from_str(&heard.body).unwrap()
}

const NOW: u64 = 1_800_000_000;
