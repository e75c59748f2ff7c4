//! Transforms, which change what packets say.

mod inflate;
mod jws;
mod mountpoint;
mod rewrite;
mod scope;
mod senml;
mod tally;

pub use self::inflate::{Encoding, Inflate, InflateOptions, OnBadDeflate};
pub use self::jws::{Jws, JwsOptions, KeyOwner, Signed, Unsigned};
pub use self::mountpoint::{Mountpoint, Prefix};
pub use self::rewrite::{Pattern, Rewrite, Rule, Template};
pub use self::scope::Scope;
pub use self::senml::{OnBadSenml, Senml, SenmlMode, SenmlOptions};

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::net::{Ipv4Addr, SocketAddr};

    use mgate_policies::{
        Action, Client, Editable, EditableFilter, EditableMessage, Now, Outdated, Part, Principal, Protocol,
        Refusal, Transform,
    };

    /// Topic and response topic of a message that had `topic` for both.
    pub(super) fn message_after(
        transform: &dyn Transform,
        client: &Client,
        action: Action,
        topic: &str,
    ) -> Result<(String, Option<String>), Refusal> {
        let message = EditableMessage {
            action,
            topic: Cow::Borrowed(topic),
            response_topic: Some(Cow::Borrowed(topic)),
            payload: Cow::Borrowed(b"x"),
            qos: 0,
            retain: false,
            outdated: Outdated::default(),
        };
        let mut packet = Editable { client, part: Part::Message(message) };
        transform.apply(&mut packet, Now::read())?;
        let Part::Message(message) = packet.part else { panic!("it stays a message") };
        Ok((message.topic.into_owned(), message.response_topic.map(Cow::into_owned)))
    }

    /// A message that is sent once and not kept.
    pub(super) fn message_of<'a>(action: Action, topic: &'a str, payload: &'a [u8]) -> EditableMessage<'a> {
        let (topic, payload) = (Cow::Borrowed(topic), Cow::Borrowed(payload));
        let outdated = Outdated::default();
        EditableMessage { action, topic, response_topic: None, payload, qos: 0, retain: false, outdated }
    }

    /// The payload that a message has afterwards.
    pub(super) fn applied(
        transform: &dyn Transform,
        client: &Client,
        message: EditableMessage<'_>,
        now: Now,
    ) -> Result<Vec<u8>, Refusal> {
        changed(transform, client, message, now).map(|message| message.payload.into_owned())
    }

    /// What is said of a message and true no longer afterwards.
    pub(super) fn outdated_by(transform: &dyn Transform, message: EditableMessage<'_>) -> Outdated {
        changed(transform, &client(), message, Now::read()).map(|message| message.outdated).unwrap()
    }

    fn changed<'a>(
        transform: &dyn Transform,
        client: &'a Client,
        message: EditableMessage<'a>,
        now: Now,
    ) -> Result<EditableMessage<'a>, Refusal> {
        let mut packet = Editable { client, part: Part::Message(message) };
        transform.apply(&mut packet, now)?;
        let Part::Message(message) = packet.part else { panic!("it stays a message") };
        Ok(message)
    }

    pub(super) fn filter_after(
        transform: &dyn Transform,
        client: &Client,
        filter: &str,
    ) -> Result<String, Refusal> {
        let filter = EditableFilter { filter: Cow::Borrowed(filter), share_group: None, qos: Some(0) };
        let mut packet = Editable { client, part: Part::Filter(filter) };
        transform.apply(&mut packet, Now::read())?;
        let Part::Filter(filter) = packet.part else { panic!("it stays a filter") };
        Ok(filter.filter.into_owned())
    }

    /// A client of the tenant `acme`.
    pub(super) fn client() -> Client {
        Client {
            principal: Principal { tenant: "acme".into(), ..Principal::default() },
            client_id: "dev-1".into(),
            username: None,
            peer: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
            route: "devices".into(),
            protocol: Protocol::Mqtt,
            is_encrypted: false,
        }
    }
}
