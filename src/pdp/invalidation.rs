use mgate_policies::Scope;
use serde_json::Value;

use crate::neighbour::nats::Heard;

/// Whose rights were withdrawn, as a message says: `{"principal": …, "tenant": …}` or `{"client_id": …}`. Where it names
/// nobody, makes no sense or was missed, everybody is meant.
pub(super) fn scope(heard: Heard<'_>) -> Scope {
    let Heard::Message(message) = heard else { return Scope::Everyone };
    let said: Value = serde_json::from_slice(message).unwrap_or_default();
    let text = |key: &str| match &said[key] {
        Value::Null => Some(None::<Box<str>>),
        Value::String(text) => Some(Some(text.as_str().into())),
        _ => None,
    };
    match (text("client_id"), text("principal"), text("tenant")) {
        (Some(None), Some(Some(id)), Some(tenant)) if !id.is_empty() => Scope::Principal { tenant, id },
        (Some(None), Some(None), Some(Some(tenant))) => Scope::Tenant(tenant),
        (Some(Some(id)), Some(None), Some(None)) if !id.is_empty() => Scope::ClientId(id),
        _ => Scope::Everyone,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_not_named_is_everybody() {
        let principal =
            |tenant: Option<&str>| Scope::Principal { tenant: tenant.map(Into::into), id: "dev-1".into() };
        for (message, expected) in [
            (r#"{"principal":"dev-1"}"#, principal(None)),
            (r#"{"principal":"dev-1","tenant":null,"epoch":7}"#, principal(None)),
            (r#"{"principal":"dev-1","tenant":"acme","topic":"a/b"}"#, principal(Some("acme"))),
            (r#"{"principal":"dev-1","tenant":""}"#, principal(Some(""))),
            (r#"{"tenant":"acme"}"#, Scope::Tenant("acme".into())),
            (r#"{"client_id":"dev-1"}"#, Scope::ClientId("dev-1".into())),
        ] {
            assert_eq!(scope(Heard::Message(message.as_bytes())), expected, "{message}");
        }
        for message in [
            "",
            "{}",
            "[]",
            "dev-1",
            r#"{"principal":""}"#,
            r#"{"principal":7}"#,
            r#"{"client_id":""}"#,
            r#"{"client_id":"dev-1","principal":"dev-1"}"#,
            r#"{"principal":"dev-1","tenant":7}"#,
        ] {
            assert_eq!(scope(Heard::Message(message.as_bytes())), Scope::Everyone, "{message}");
        }
        assert_eq!(scope(Heard::Gap), Scope::Everyone);
    }
}
