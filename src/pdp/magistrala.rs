use bytes::Bytes;
use http::{Request, Response};
use mgate_policies::{Action, Query};

use super::channels::{NO_CHANNEL, channel, domain_and_channel, identity};
use super::dialect::{AnswerError, Answered, Dialect, Unaskable};
use super::entities::resource;
use super::grpc::{call, decided};
use crate::neighbour::messages::{magistrala, supermq};

/// What followed Mainflux, over gRPC: whether a client may publish to a channel or subscribe to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Magistrala {
    /// Magistrala 0.14, which knows things by their keys: the client's identity must be the thing's key.
    V0_14,
    /// Magistrala 0.15, which does so too.
    V0_15,
    /// SuperMQ 0.16: topics are still `channels/<channel>/messages`.
    Supermq0_16,
    /// SuperMQ 0.17 and later: topics are `m/<domain>/c/<channel>`, of identities and not of routes.
    Supermq0_17,
}

impl Dialect for Magistrala {
    fn actions(&self) -> &'static [Action] {
        &[Action::Deliver, Action::Publish, Action::Subscribe, Action::Will]
    }

    fn request(&self, query: &Query<'_>) -> Result<Request<Bytes>, Unaskable> {
        let (_, topic, _) = resource(query)?;
        let (domain, channel) = match self {
            Self::Supermq0_17 => domain_and_channel(topic).ok_or(NO_DOMAIN)?,
            _ => (&*query.client.principal.tenant, channel(topic).ok_or(NO_CHANNEL)?),
        };
        let [client, channel] = [identity(query)?, channel].map(str::to_owned);
        let takes = matches!(query.action, Action::Deliver | Action::Subscribe);
        let permission = if takes { "subscribe" } else { "publish" }.to_owned();
        Ok(match self {
            Self::V0_14 => call(
                "/magistrala.AuthzService/Authorize",
                &magistrala::AuthorizeReq {
                    subject_type: "thing".into(),
                    subject: client,
                    permission,
                    object: channel,
                    object_type: "group".into(),
                },
            ),
            Self::V0_15 => call(
                "/magistrala.ThingsService/Authorize",
                &magistrala::ThingsAuthzReq { channel_id: channel, thing_key: client, permission },
            ),
            Self::Supermq0_16 | Self::Supermq0_17 => call(
                "/channels.v1.ChannelsService/Authorize",
                &supermq::AuthzReq {
                    domain_id: domain.to_owned(),
                    client_id: client,
                    client_type: "client".into(),
                    channel_id: channel,
                    kind: if takes { supermq::SUBSCRIBE } else { supermq::PUBLISH },
                },
            ),
        })
    }

    fn read(&self, _: &Request<Bytes>, answer: &Response<Bytes>) -> Result<Answered, AnswerError> {
        // the answers of all have it under the same number
        decided(answer, |supermq::AuthzRes { authorized }| authorized.into())
    }
}

const NO_DOMAIN: Unaskable = Unaskable("this is not the topic of a channel, with identities");

#[cfg(test)]
mod tests {
    use mgate_policies::{Client, Principal, Resource, TopicName};

    use super::super::tests::{Reading, client, publish, query, reading, refused, said, subscribe};
    use super::*;
    use crate::neighbour::grpc::Code;

    #[test]
    fn each_generation_is_asked_in_its_words() {
        let client = client();
        for (dialect, query, path, body) in [
            (
                Magistrala::V0_14,
                publish(&client, "channels/7/messages/a"),
                "/magistrala.AuthzService/Authorize",
                &b"\x12\x05thing\x2a\x05dev-1\x3a\x07publish\x42\x017\x4a\x05group"[..],
            ),
            (
                Magistrala::V0_15,
                subscribe(&client, "channels/7/messages/#"),
                "/magistrala.ThingsService/Authorize",
                b"\x0a\x017\x1a\x05dev-1\x22\x09subscribe",
            ),
            (
                Magistrala::Supermq0_16,
                publish(&client, "channels/7/messages"),
                "/channels.v1.ChannelsService/Authorize",
                b"\x12\x05dev-1\x1a\x06client\x22\x017\x28\x01",
            ),
        ] {
            let request = dialect.request(&query).unwrap();
            assert_eq!((request.uri().path(), &request.body()[..]), (path, body), "{dialect:?}");
        }
    }

    #[test]
    fn domain_stands_in_the_topic_or_is_the_tenant() {
        let client = client();
        let topic = format!("m/{DOMAIN}/c/{CHANNEL}/room");
        let name = Resource::Topic(TopicName::parse(&topic).unwrap());
        for (query, kind) in [
            (publish(&client, &topic), 1),
            (query(&client, Action::Deliver, name), 2),
            (subscribe(&client, &topic), 2),
        ] {
            let request = Magistrala::Supermq0_17.request(&query).unwrap();
            let parts = ["\n$", DOMAIN, "\x12\x05dev-1\x1a\x06client\"$", CHANNEL, "(", kind_text(kind)];
            assert_eq!(request.body()[..], *parts.concat().as_bytes());
        }
        let principal = Principal { tenant: "acme".into(), ..client.principal.clone() };
        let tenants = Client { principal, ..client };
        let request = Magistrala::Supermq0_16.request(&publish(&tenants, "channels/7/messages")).unwrap();
        assert!(request.body().starts_with(b"\n\x04acme"));
    }

    #[test]
    fn nothing_else_is_asked() {
        let client = client();
        for topic in ["a", "channels/7/messages", "m/home/c/kitchen", "hc/home"] {
            assert!(Magistrala::Supermq0_17.request(&publish(&client, topic)).is_err(), "{topic}");
        }
        let nobody = Client { principal: Principal::default(), ..client };
        for dialect in [Magistrala::V0_14, Magistrala::V0_15, Magistrala::Supermq0_16] {
            assert!(dialect.request(&publish(&nobody, "channels/7/messages")).is_err());
            assert!(dialect.request(&publish(&nobody, "m/7/c/8")).is_err());
        }
    }

    #[test]
    fn only_true_allows() {
        for (answer, meaning) in [
            (said(b"\x08\x01"), Reading::Allow(None)),
            (said(b"\x08\x01\x12\x017"), Reading::Allow(None)),
            (said(b"\x08\x00"), Reading::Deny),
            (said(b""), Reading::Deny),
            (said(b"\x0a\x01\x01"), Reading::Error),
            (said(b"\x08"), Reading::Error),
            (refused(Code::PermissionDenied), Reading::Deny),
            (refused(Code::Unauthenticated), Reading::Deny),
            (refused(Code::NotFound), Reading::Deny),
            (refused(Code::Internal), Reading::Error),
            (refused(Code::Unimplemented), Reading::Error),
        ] {
            assert_eq!(reading(&Magistrala::Supermq0_17, &answer), meaning, "{answer:?}");
        }
    }

    fn kind_text(kind: u8) -> &'static str {
        if kind == 1 { "\x01" } else { "\x02" }
    }

    const DOMAIN: &str = "2d8a1f60-7a4e-4b0c-9d53-0f1f5a3b6c7d";
    const CHANNEL: &str = "0e4c7c1a-93d2-4b7a-8c55-b2f0a1d9e8f7";
}
