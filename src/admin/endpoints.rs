//! What can be asked, and what is answered.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use mgate_dtls::Statistics;
use mgate_policies::{Scope, Standing};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::timeout;

use super::answer::{Answer, Fault, json};
use super::guard::{check_site, check_token, check_type};
use crate::config::Problem;
use crate::control::{Control, Reload, Reloaded, Steered, Told};
use crate::health::Part;

/// Answers one request.
pub(super) async fn answer(request: Request<Incoming>, control: &Arc<Control>, is_loopback: bool) -> Answer {
    let answered = match check_site(request.headers(), is_loopback) {
        Ok(()) => dispatch(request, control).await,
        Err(fault) => Err(fault),
    };
    answered.unwrap_or_else(Fault::answer)
}

async fn dispatch(request: Request<Incoming>, control: &Arc<Control>) -> Result<Answer, Fault> {
    let token = control.token();
    let authorized = check_token(request.headers(), token.as_ref());
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let is_command = *request.method() == Method::POST;
    match request.uri().path() {
        "/livez" if is_read => Ok(json(StatusCode::OK, &json!({ "alive": true }))),
        // whoever watches over many gateways has to know no secrets of theirs, and gets to know none
        "/readyz" if is_read => Ok(readiness(&control.health().parts(), authorized.is_ok())),
        "/healthz" if is_read => authorized.map(|()| json(StatusCode::OK, &health(control))),
        "/livez" | "/readyz" | "/healthz" => Err(Fault::method("GET, HEAD")),
        "/reload" if is_command => {
            authorized?;
            let options = read_object(request).await?;
            refuse_keys(&options, &[])?;
            reload(control).await
        }
        "/authz/invalidate" if is_command => {
            authorized?;
            let told = control.invalidate(&scope(&read_object(request).await?)?);
            Ok(json(StatusCode::OK, &json_told(told)))
        }
        "/reload" | "/authz/invalidate" => Err(Fault::method("POST")),
        _ => Err(Fault::new(StatusCode::NOT_FOUND, "there is nothing here")),
    }
}

fn readiness(parts: &[Part], is_trusted: bool) -> Answer {
    let lacks = parts.iter().filter_map(|part| Some((part.name.to_string(), json!(*part.lacks.as_ref()?))));
    let lacks: Map<String, Value> = lacks.collect();
    let (is_ready, mut body) = (lacks.is_empty(), json!({ "ready": lacks.is_empty() }));
    if is_trusted && !is_ready {
        body["not_ready"] = Value::Object(lacks);
    }
    json(if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, &body)
}

fn health(control: &Control) -> Value {
    let parts = control.health().parts();
    let parts = parts.iter().map(|part| json!({ "name": *part.name, "lacks": part.lacks.as_deref() }));
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "parts": parts.collect::<Vec<_>>(),
        "routes": control.routes().iter().flat_map(json_routes).collect::<Vec<_>>(),
        "last_reload": control.last_reload().as_ref().map(json_reload),
    })
}

fn json_routes(Steered { address, steering }: &Steered) -> Vec<Value> {
    let policy = |Standing { policy, is_enforced }: &Standing| json!({ "name": policy.name(), "enforced": is_enforced });
    let (address, connections) = (address.to_string(), steering.admission().connections());
    let dtls = steering.statistics();
    steering.with_gates(|gate| {
        let policies = gate.policies.iter().map(policy).collect::<Vec<_>>();
        let mut route =
            json!({ "name": *gate.route, "address": address, "connections": connections, "policies": policies });
        if let Some(dtls) = &dtls {
            route["dtls"] = json_dtls(dtls);
        }
        route
    })
}

fn json_dtls(counted: &Statistics) -> Value {
    json!({
        "cookies_sent": counted.cookies_sent,
        "handshakes_done": counted.handshakes_done,
        "handshakes_failed": counted.handshakes_failed,
        "handshakes_refused": counted.handshakes_refused,
        "records_forged": counted.records_forged,
        "records_replayed": counted.records_replayed,
        "records_stray": counted.records_stray,
    })
}

/// Once begun, it is done, whether or not somebody waits for the answer; whoever leaves earlier leaves nothing
/// behind.
async fn reload(control: &Arc<Control>) -> Result<Answer, Fault> {
    let (turn, control) = (control.turn().await, Arc::clone(control));
    let reload = tokio::spawn(async move { control.reload_in(turn).await }).await;
    let reload = reload.map_err(|error| Fault::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    match &reload.result {
        Ok(_) => Ok(json(StatusCode::OK, &json_reload(&reload))),
        Err(problems) => {
            let detail = "the configuration has problems, all stays as it was";
            let problems = problems.0.iter().map(Problem::json).collect();
            Err(Fault::new(StatusCode::UNPROCESSABLE_ENTITY, detail).with("problems", problems))
        }
    }
}

fn json_reload(reload: &Reload) -> Value {
    let at = OffsetDateTime::UNIX_EPOCH + reload.at;
    let at = at.format(&Rfc3339).unwrap_or_default();
    match &reload.result {
        Ok(Reloaded { told, needs_restart, warnings }) => json!({
            "at": at,
            "ok": true,
            "told": json_told(*told),
            "needs_restart": needs_restart,
            "warnings": warnings,
        }),
        Err(problems) => {
            let problems = problems.0.iter().map(Problem::json).collect::<Vec<_>>();
            json!({ "at": at, "ok": false, "problems": problems })
        }
    }
}

fn json_told(told: Told) -> Value {
    json!({ "epoch": told.epoch, "sessions": told.sessions })
}

/// Whose rights changed.
fn scope(object: &Map<String, Value>) -> Result<Scope, Fault> {
    refuse_keys(object, &["client_id", "principal", "tenant"])?;
    let text = |key: &str| match object.get(key) {
        None => Ok(None),
        // an empty variable of a script must not withdraw nothing
        Some(Value::String(text)) if text.is_empty() && key != "tenant" => {
            Err(bad_request(format!("{key} must not be empty")))
        }
        Some(Value::String(text)) => Ok(Some(Box::from(text.as_str()))),
        Some(_) => Err(bad_request(format!("{key} must be a string"))),
    };
    match (text("client_id")?, text("principal")?, text("tenant")?) {
        (None, None, None) => Ok(Scope::Everyone),
        (None, None, Some(tenant)) => Ok(Scope::Tenant(tenant)),
        (None, Some(id), tenant) => Ok(Scope::Principal { tenant, id }),
        (Some(client_id), None, None) => Ok(Scope::ClientId(client_id)),
        (Some(_), ..) => Err(bad_request("client_id stands alone".into())),
    }
}

fn refuse_keys(object: &Map<String, Value>, known: &[&str]) -> Result<(), Fault> {
    match object.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(bad_request(format!("unknown key {key:?}"))),
        None => Ok(()),
    }
}

/// The JSON object that came with a request; nothing at all is an empty one.
async fn read_object(request: Request<Incoming>) -> Result<Map<String, Value>, Fault> {
    check_type(request.headers())?;
    let body = timeout(BODY_TIME, Limited::new(request.into_body(), MAX_BODY_BYTES).collect()).await;
    let body = body.map_err(|_| Fault::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time"))?;
    let body = body.map_err(|error| match error.is::<http_body_util::LengthLimitError>() {
        true => Fault::new(StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than 64 KiB"),
        false => bad_request("the body broke off".into()),
    })?;
    parse_object(&body.to_bytes())
}

fn parse_object(body: &Bytes) -> Result<Map<String, Value>, Fault> {
    if body.is_empty() {
        return Ok(Map::new());
    }
    match serde_json::from_slice(body) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(bad_request("the body must be an object".into())),
        Err(error) => Err(bad_request(format!("the body is not JSON: {error}"))),
    }
}

fn bad_request(detail: String) -> Fault {
    Fault::new(StatusCode::BAD_REQUEST, detail)
}

const MAX_BODY_BYTES: usize = 64 * 1024;
const BODY_TIME: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[test]
    fn one_part_that_is_not_ready_is_enough() {
        let part = |name: &str, lacks: Option<&str>| Part { name: name.into(), lacks: lacks.map(Into::into) };
        let parts = [part("gateway", None), part("bus", Some("lost its server"))];
        assert_eq!(readiness(&parts[..1], true).status(), StatusCode::OK);
        assert_eq!(readiness(&parts, false).status(), StatusCode::SERVICE_UNAVAILABLE);
        let shown = |is_trusted| {
            let body = pin!(readiness(&parts, is_trusted).into_body().collect());
            let Poll::Ready(Ok(body)) = body.poll(&mut Context::from_waker(Waker::noop())) else {
                panic!("the body is there");
            };
            serde_json::from_slice::<Value>(&body.to_bytes()).unwrap()
        };
        assert_eq!(shown(false), json!({ "ready": false }));
        assert_eq!(shown(true), json!({ "ready": false, "not_ready": { "bus": "lost its server" } }));
    }

    #[test]
    fn scopes_are_read() {
        let principal = |tenant: Option<&str>, id: &str| Scope::Principal {
            tenant: tenant.map(Into::into),
            id: id.into(),
        };
        for (body, expected) in [
            ("", Scope::Everyone),
            ("{}", Scope::Everyone),
            (r#"{"tenant":"acme"}"#, Scope::Tenant("acme".into())),
            (r#"{"principal":"alice"}"#, principal(None, "alice")),
            (r#"{"principal":"alice","tenant":""}"#, principal(Some(""), "alice")),
            (r#"{"principal":"alice","tenant":"acme"}"#, principal(Some("acme"), "alice")),
            (r#"{"client_id":"dev-1"}"#, Scope::ClientId("dev-1".into())),
        ] {
            assert_eq!(read(body), Ok(expected), "{body}");
        }
    }

    #[test]
    fn what_is_no_scope_is_refused() {
        for body in [
            "[]",
            "everyone",
            r#"{"principle":"alice"}"#,
            r#"{"principal":7}"#,
            r#"{"principal":""}"#,
            r#"{"client_id":""}"#,
            r#"{"principal":null}"#,
            r#"{"client_id":"dev-1","principal":"alice"}"#,
        ] {
            assert_eq!(read(body).err().map(|fault| fault.status), Some(StatusCode::BAD_REQUEST), "{body}");
        }
    }

    fn read(body: &'static str) -> Result<Scope, Fault> {
        scope(&parse_object(&Bytes::from_static(body.as_bytes()))?)
    }
}
