use serde_json::Value;

use crate::neighbour::nats::Heard;

/// Whose rights were withdrawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Invalidation {
    /// Nobody knows whose.
    Everything,
    /// Those of one principal, or of all tenants' principals with this identity.
    Principal { tenant: Option<Box<str>>, id: Box<str> },
}

impl Invalidation {
    /// What a message says: `{"principal": …, "tenant": …}`. Where it names nobody, makes no sense or was missed,
    /// everybody is meant.
    pub(super) fn of(heard: Heard<'_>) -> Self {
        let Heard::Message(message) = heard else { return Self::Everything };
        let said: Value = serde_json::from_slice(message).unwrap_or_default();
        let tenant = match &said["tenant"] {
            Value::Null => None,
            Value::String(tenant) => Some(tenant.as_str().into()),
            _ => return Self::Everything,
        };
        match said["principal"].as_str() {
            Some(id) if !id.is_empty() => Self::Principal { tenant, id: id.into() },
            _ => Self::Everything,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_not_named_is_everybody() {
        for (message, tenant, id) in [
            (r#"{"principal":"dev-1"}"#, None, "dev-1"),
            (r#"{"principal":"dev-1","tenant":null,"epoch":7}"#, None, "dev-1"),
            (r#"{"principal":"dev-1","tenant":"acme","topic":"a/b"}"#, Some("acme"), "dev-1"),
            (r#"{"principal":"dev-1","tenant":""}"#, Some(""), "dev-1"),
        ] {
            let principal = Invalidation::Principal { tenant: tenant.map(Into::into), id: id.into() };
            assert_eq!(Invalidation::of(Heard::Message(message.as_bytes())), principal, "{message}");
        }
        for message in [
            "",
            "{}",
            "[]",
            "dev-1",
            r#"{"principal":""}"#,
            r#"{"principal":7}"#,
            r#"{"tenant":"acme"}"#,
            r#"{"client_id":"dev-1"}"#,
            r#"{"principal":"dev-1","tenant":7}"#,
        ] {
            let everything = Invalidation::of(Heard::Message(message.as_bytes()));
            assert_eq!(everything, Invalidation::Everything, "{message}");
        }
        assert_eq!(Invalidation::of(Heard::Gap), Invalidation::Everything);
    }
}
