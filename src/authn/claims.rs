use std::time::Duration;

use mgate_policies::jwt_scopes::ACL_ATTRIBUTE;
use mgate_policies::{Attributes, Principal};
use serde_json::{Map, Value};

use super::fault::Fault;
use super::{acl, is_safe_identity};

/// Which claims are good, and what becomes of them.
#[derive(Clone, Debug)]
pub struct ClaimRules {
    /// Of these, `aud` must have one; `None` for tokens that may be for anybody.
    pub audience: Option<Vec<String>>,
    /// Whether there must be an `exp`.
    pub needs_expiry: bool,
    /// How far the issuer's clock may be ahead, for `nbf` and `iat`.
    pub leeway: Duration,
    /// The path of the claim that is the identity.
    pub id_claim: String,
    /// The path of the claim with the groups.
    pub groups_claim: Option<String>,
    /// The path of the claim with the tenant; there must be one.
    pub tenant_claim: Option<String>,
    /// The path of the claim with an access list, for the policy `jwt_scopes`.
    pub acl_claim: Option<String>,
    /// Paths of claims, and the values of which each must have one.
    pub required_claims: Vec<(String, Vec<String>)>,
}

/// The claims of a token, as JSON has them. RFC 7519 §4
pub(super) type Claims = Map<String, Value>;

/// Whether `issuer` made the token, if one may believe it.
pub(super) fn is_from(claims: &Claims, issuer: &str) -> bool {
    claims.get("iss").and_then(Value::as_str) == Some(issuer)
}

/// The principal that the claims make, if they are good at `now`.
pub(super) fn principal(claims: &Claims, rules: &ClaimRules, now: Duration) -> Result<Principal, Fault> {
    let expires = expiry(claims, rules, now)?;
    if let Some(audience) = &rules.audience {
        check_audience(claims, audience)?;
    }
    for (name, values) in &rules.required_claims {
        check_required(claims, name, values)?;
    }
    let id = identity(claims, "id_claim", &rules.id_claim)?;
    let tenant = match &rules.tenant_claim {
        Some(path) => identity(claims, "tenant_claim", path)?,
        None => Box::default(),
    };
    let groups = match &rules.groups_claim {
        Some(path) => groups(find(claims, path))?,
        None => Vec::new(),
    };
    let mut left = MAX_VALUES;
    let mut attributes = Attributes::default();
    add_all("claims", claims, &mut attributes, &mut left)?;
    if let Some(list) = rules.acl_claim.as_deref().and_then(|path| find(claims, path)) {
        add_acl(list, &mut attributes, &mut left)?;
    }
    Ok(Principal { tenant, id, groups, attributes, expires })
}

/// When the token ends. RFC 7519 §4.1.4
fn expiry(claims: &Claims, rules: &ClaimRules, now: Duration) -> Result<Option<Duration>, Fault> {
    let expires = date(claims, "exp")?;
    match expires {
        None if rules.needs_expiry => return Err(Fault::NoExpiry),
        Some(expires) if expires <= now => return Err(Fault::Expired),
        _ => {}
    }
    for claim in ["nbf", "iat"] {
        if date(claims, claim)?.is_some_and(|date| date > now + rules.leeway) {
            return Err(Fault::NotYet(claim));
        }
    }
    Ok(expires)
}

/// Seconds since the epoch, with or without a fraction. RFC 7519 §2
fn date(claims: &Claims, claim: &'static str) -> Result<Option<Duration>, Fault> {
    let Some(value) = claims.get(claim) else { return Ok(None) };
    let date = match value.as_u64() {
        Some(secs) => Some(Duration::from_secs(secs)),
        None => value.as_f64().and_then(|secs| Duration::try_from_secs_f64(secs).ok()),
    };
    date.map(Some).ok_or(Fault::Date(claim))
}

/// RFC 7519 §4.1.3
fn check_audience(claims: &Claims, audience: &[String]) -> Result<(), Fault> {
    let is_ours = |value: &Value| value.as_str().is_some_and(|text| audience.iter().any(|ours| ours == text));
    let is_for_us = match claims.get("aud") {
        Some(Value::Array(values)) => values.iter().any(is_ours),
        Some(value) => is_ours(value),
        None => false,
    };
    if is_for_us { Ok(()) } else { Err(Fault::Audience) }
}

fn check_required(claims: &Claims, name: &str, wanted: &[String]) -> Result<(), Fault> {
    let is_wanted = |value: &Value| text(value).is_some_and(|text| wanted.contains(&text));
    let is_good = match find(claims, name) {
        Some(Value::Array(values)) => values.iter().any(is_wanted),
        value => value.is_some_and(is_wanted),
    };
    if is_good { Ok(()) } else { Err(Fault::RequiredClaim(name.into())) }
}

fn identity(claims: &Claims, key: &'static str, path: &str) -> Result<Box<str>, Fault> {
    let value = find(claims, path).filter(|value| value.is_string() || value.is_u64());
    let id = value.and_then(text).ok_or(Fault::Claim(key))?;
    if is_safe_identity(&id) { Ok(id.into()) } else { Err(Fault::IdentityCharset(key)) }
}

/// One group or several; none where the claim is missing.
fn groups(value: Option<&Value>) -> Result<Vec<Box<str>>, Fault> {
    let values = match value {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(values)) => values.as_slice(),
        Some(value) => std::slice::from_ref(value),
    };
    check_bound(values.len() <= MAX_VALUES)?;
    let group = |value: &Value| value.as_str().map(Box::from).ok_or(Fault::Claim("groups_claim"));
    values.iter().map(group).collect()
}

/// What a dotted path leads to. A name may have dots in it: the longest names are tried first.
fn find<'a>(claims: &'a Claims, path: &str) -> Option<&'a Value> {
    let below = |(dot, _)| find(claims.get(&path[..dot])?.as_object()?, &path[dot + 1..]);
    claims.get(path).or_else(|| path.rmatch_indices('.').find_map(below))
}

/// Adds every scalar, and every scalar in a list, under its path.
fn add_all(path: &str, claims: &Claims, to: &mut Attributes, left: &mut usize) -> Result<(), Fault> {
    for (name, value) in claims {
        check_bound(path.len() + name.len() < MAX_NAME_BYTES)?;
        let path = format!("{path}.{name}");
        match value {
            Value::Array(values) => values.iter().try_for_each(|value| add(&path, value, to, left))?,
            Value::Object(claims) => add_all(&path, claims, to, left)?,
            value => add(&path, value, to, left)?,
        }
    }
    Ok(())
}

fn add_acl(list: &Value, to: &mut Attributes, left: &mut usize) -> Result<(), Fault> {
    let lines = acl::lines(list).ok_or(Fault::Claim("acl_claim"))?;
    lines.iter().try_for_each(|line| add_text(ACL_ATTRIBUTE, line, to, left))
}

fn add(path: &str, value: &Value, to: &mut Attributes, left: &mut usize) -> Result<(), Fault> {
    text(value).map_or(Ok(()), |text| add_text(path, &text, to, left))
}

fn add_text(path: &str, text: &str, to: &mut Attributes, left: &mut usize) -> Result<(), Fault> {
    check_bound(*left > 0 && text.len() <= MAX_VALUE_BYTES)?;
    *left -= 1;
    to.add(path, text);
    Ok(())
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::Array(_) | Value::Null | Value::Object(_) => None,
    }
}

/// A claim that was left out could be one that a deny looks at: too much refuses the token.
fn check_bound(is_within: bool) -> Result<(), Fault> {
    if is_within { Ok(()) } else { Err(Fault::ClaimsBound) }
}

const MAX_VALUES: usize = 256;
const MAX_VALUE_BYTES: usize = 1024;
const MAX_NAME_BYTES: usize = 256;
