use std::borrow::Cow;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::client::Client;
use crate::decision::{Cause, Reason};
use crate::now::Now;
use crate::query::Action;
use crate::topic::{TopicFilter, TopicName};

/// Changes what a packet says.
///
/// What a client says is changed before policies are asked: they judge what is then forwarded and mirrored. A
/// delivery is changed after they allowed it: they know topics as the upstream does, in both directions.
///
/// The same packet of the same client must always become the same: senders repeat messages, and unsubscribe
/// from what they subscribed to.
pub trait Transform: Send + Sync {
    /// The name that routes, logs and denials show.
    fn name(&self) -> &str;

    /// Changes fields, or refuses the packet. Called on the data path: it must not wait.
    ///
    /// What nobody changes is forwarded byte for byte as it came; a field that is left alone costs nothing.
    fn apply(&self, packet: &mut Editable<'_>, now: Now) -> Result<(), Refusal>;
}

/// A packet, or that part of one, which a transform may change.
pub struct Editable<'a> {
    /// Whose packet; at the login with the client identifier as it came.
    pub client: &'a Client,
    /// What is in it.
    pub part: Part<'a>,
}

/// What is in a packet.
pub enum Part<'a> {
    /// One filter of a subscription, or of its end.
    Filter(EditableFilter<'a>),
    /// What the client shows when it connects, once it is known who it is; its will comes as a message.
    Login(EditableLogin<'a>),
    /// A message, a will or a delivery.
    Message(EditableMessage<'a>),
}

/// The filter of a subscription.
#[derive(Clone)]
pub struct EditableFilter<'a> {
    /// The filter without `$share/<group>/`, which the session puts back.
    pub filter: Cow<'a, str>,
    /// The group of a shared subscription; to look at.
    pub share_group: Option<&'a str>,
    /// The highest QoS that is asked for; `None` where the subscription is to end. To look at.
    pub qos: Option<u8>,
}

/// What a client shows when it connects, as the upstream is to see it.
#[derive(Clone)]
pub struct EditableLogin<'a> {
    /// The client identifier: the client is known under the new one from here on.
    pub client_id: Cow<'a, str>,
    /// The user name. Policies go on to see the client's own.
    pub username: Option<Cow<'a, str>>,
    /// The password.
    pub password: Option<Cow<'a, [u8]>>,
}

/// A message on its way.
#[derive(Clone)]
pub struct EditableMessage<'a> {
    /// [`Action::Publish`], [`Action::Will`] or [`Action::Deliver`]; to look at.
    pub action: Action,
    /// The topic, with aliases resolved.
    pub topic: Cow<'a, str>,
    /// Where the receiver is asked to answer; never there before MQTT 5.0.
    pub response_topic: Option<Cow<'a, str>>,
    /// What it carries.
    pub payload: Cow<'a, [u8]>,
    /// Its quality of service; to look at.
    pub qos: u8,
    /// Its retain flag; to look at.
    pub retain: bool,
    /// What its sender said of a payload that is another by now.
    pub outdated: Outdated,
}

/// What is said of a payload beside it and true no longer: it goes no further. Only MQTT 5.0 says such things.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outdated {
    /// How it is compressed: user properties `content-encoding`.
    pub encoding: bool,
    /// That it is a signed text: the content type `application/jose` (RFC 7515 §9.2), and the payload format.
    pub signature: bool,
}

/// Why a packet goes no further, and what its sender hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The sender hears what it would hear of a policy that denies.
    Denied(Reason),
    /// The sender hears that all is well. A login or a will that is dropped is denied: there is nothing to
    /// hear before the rest of CONNECT is well.
    Dropped(Reason),
}

/// Transforms in a row: in their order towards the upstream, in reverse towards the client, so that what one
/// of them did last is undone first.
#[derive(Clone, Default)]
pub struct Transforms(Arc<[Arc<dyn Transform>]>);

impl Transforms {
    /// Applies in the given order.
    pub fn new(row: Vec<Arc<dyn Transform>>) -> Self {
        Self(row.into())
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// These, and behind them, next to the upstream, one more.
    pub fn followed_by(&self, last: Arc<dyn Transform>) -> Self {
        Self(self.0.iter().cloned().chain([last]).collect())
    }

    /// Their names, in the order towards the upstream.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|transform| transform.name())
    }

    /// Applies all of them, until one refuses. What one of them made of the packet is checked before the next
    /// sees it; a refusal names the transform.
    pub fn apply(&self, packet: &mut Editable<'_>, now: Now) -> Result<(), Refusal> {
        let is_delivery = matches!(&packet.part, Part::Message(message) if message.action == Action::Deliver);
        match is_delivery {
            true => self.0.iter().rev().try_for_each(|transform| apply(&**transform, packet, now)),
            false => self.0.iter().try_for_each(|transform| apply(&**transform, packet, now)),
        }
    }
}

impl Refusal {
    /// A denial, with words for the operator.
    pub fn denied(detail: impl Into<Arc<str>>) -> Self {
        Self::Denied(Reason::with_detail(Cause::NotAuthorized, detail))
    }

    /// Why.
    pub fn reason(&self) -> &Reason {
        match self {
            Self::Denied(reason) | Self::Dropped(reason) => reason,
        }
    }

    /// The same, with the transform's name before the detail.
    fn by(self, name: &str) -> Self {
        let named = |Reason { cause, detail, .. }: Reason| match detail {
            Some(detail) => Reason::with_detail(cause, format!("transform {name}: {detail}")),
            None => Reason::with_detail(cause, format!("transform {name}")),
        };
        match self {
            Self::Denied(reason) => Self::Denied(named(reason)),
            Self::Dropped(reason) => Self::Dropped(named(reason)),
        }
    }
}

impl Part<'_> {
    /// What is wrong with it.
    fn check(&self) -> Result<(), &'static str> {
        match self {
            Self::Filter(filter) => check_filter(&filter.filter),
            Self::Login(login) => login.check(),
            Self::Message(message) => {
                check_topic(&message.topic)?;
                message.response_topic.as_deref().map_or(Ok(()), check_topic)
            }
        }
    }
}

impl EditableLogin<'_> {
    fn check(&self) -> Result<(), &'static str> {
        check_text(&self.client_id)?;
        self.username.as_deref().map_or(Ok(()), check_text)?;
        match &self.password {
            Some(password) if password.len() > MAX_BYTES => Err("makes a password that is too long"),
            _ => Ok(()),
        }
    }
}

/// Shows no credentials.
impl fmt::Debug for EditableLogin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EditableLogin").field("client_id", &self.client_id).finish_non_exhaustive()
    }
}

/// Applies one, whose panic is its own.
fn apply(transform: &dyn Transform, packet: &mut Editable<'_>, now: Now) -> Result<(), Refusal> {
    let applied = catch_unwind(AssertUnwindSafe(|| transform.apply(packet, now)));
    let refusal = match applied {
        Ok(Ok(())) => match packet.part.check() {
            Ok(()) => return Ok(()),
            Err(problem) => Refusal::Denied(Reason::with_detail(Cause::Unavailable, problem)),
        },
        Ok(Err(refusal)) => refusal,
        Err(_) => Refusal::Denied(Reason::with_detail(Cause::Unavailable, "panicked")),
    };
    Err(refusal.by(transform.name()))
}

fn check_topic(topic: &str) -> Result<(), &'static str> {
    match TopicName::parse(topic) {
        Ok(_) if topic.len() <= MAX_BYTES => Ok(()),
        Ok(_) => Err("makes a topic that is too long"),
        Err(_) => Err("makes a topic that is empty, or holds a wildcard or U+0000"),
    }
}

/// A share group is not a transform's to make.
fn check_filter(filter: &str) -> Result<(), &'static str> {
    match TopicFilter::parse(filter) {
        Ok(parsed) if parsed.share_group().is_some() => Err("makes a shared subscription"),
        Ok(_) if filter.len() <= MAX_BYTES => Ok(()),
        Ok(_) => Err("makes a topic filter that is too long"),
        Err(_) => Err("makes a topic filter that is none"),
    }
}

fn check_text(text: &str) -> Result<(), &'static str> {
    match text.contains('\0') || text.len() > MAX_BYTES {
        true => Err("makes a client identifier or user name that is too long, or holds U+0000"),
        false => Ok(()),
    }
}

/// The longest text that a packet can hold. [MQTT-1.5.4-1]
const MAX_BYTES: usize = u16::MAX as usize;

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use super::*;
    use crate::{Principal, Protocol};

    #[test]
    fn order_is_reversed_towards_the_client() {
        let row = Transforms::new(vec![with(|_| Ok("1")), with(|_| Ok("2"))]);
        assert_eq!(row.names().collect::<Vec<_>>(), ["tested", "tested"]);
        assert_eq!(topic_after(&row, Action::Publish), Ok("t12".into()));
        assert_eq!(topic_after(&row, Action::Will), Ok("t12".into()));
        assert_eq!(topic_after(&row, Action::Deliver), Ok("t21".into()));
    }

    #[test]
    fn one_more_is_last_towards_the_upstream() {
        let row = Transforms::new(vec![with(|_| Ok("1"))]);
        let more = row.followed_by(with(|_| Ok("2")));
        assert_eq!(topic_after(&more, Action::Publish), Ok("t12".into()));
        assert_eq!(topic_after(&more, Action::Deliver), Ok("t21".into()));
        assert_eq!(topic_after(&row, Action::Publish), Ok("t1".into()));
    }

    #[test]
    fn refusal_names_its_transform_and_ends_the_row() {
        let row =
            Transforms::new(vec![with(|_| Err(Refusal::denied("no"))), with(|_| panic!("is not called"))]);
        let named = Reason::with_detail(Cause::NotAuthorized, "transform tested: no");
        assert_eq!(topic_after(&row, Action::Publish), Err(Refusal::Denied(named)));
        let drops = with(|_| Err(Refusal::Dropped(Reason::new(Cause::RateExceeded))));
        let named = Reason::with_detail(Cause::RateExceeded, "transform tested");
        assert_eq!(topic_after(&Transforms::new(vec![drops]), Action::Publish), Err(Refusal::Dropped(named)));
    }

    #[test]
    fn panic_is_a_denial() {
        let row = Transforms::new(vec![with(|_| panic!("a bug of its own"))]);
        let named = Reason::with_detail(Cause::Unavailable, "transform tested: panicked");
        assert_eq!(topic_after(&row, Action::Publish), Err(Refusal::Denied(named)));
    }

    #[test]
    fn what_is_no_topic_is_denied() {
        let long = "t".repeat(MAX_BYTES + 1);
        for bad in ["", "a/#", "+", "a\0", &long] {
            let message = || Part::Message(message(Action::Publish));
            assert!(
                after(message(), |part| *topic_of(part).0 = Cow::Owned(bad.to_owned())).is_err(),
                "{bad}"
            );
            let changed = after(message(), |part| *topic_of(part).1 = Some(Cow::Owned(bad.to_owned())));
            assert!(changed.is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_no_filter_is_denied() {
        let long = "t".repeat(MAX_BYTES + 1);
        for (text, is_good) in
            [("a/#", true), ("", false), ("a#", false), ("$share/g/a", false), ("a\0", false), (&long, false)]
        {
            let part = Part::Filter(EditableFilter { filter: "f".into(), share_group: None, qos: Some(0) });
            let changed = after(part, |part| {
                if let Part::Filter(filter) = part {
                    filter.filter = Cow::Owned(text.to_owned());
                }
            });
            assert_eq!(changed.is_ok(), is_good, "{text}");
        }
    }

    #[test]
    fn login_that_cannot_be_said_is_denied() {
        type Change = fn(&mut EditableLogin<'_>);
        let changes: [(Change, bool); 5] = [
            (|login| login.client_id = Cow::Owned("".into()), true),
            (|login| login.client_id = Cow::Owned("\0".into()), false),
            (|login| login.username = Some(Cow::Owned("\0".into())), false),
            (|login| login.username = Some(Cow::Owned("u".repeat(MAX_BYTES + 1))), false),
            (|login| login.password = Some(Cow::Owned(vec![0; MAX_BYTES + 1])), false),
        ];
        for (change, is_good) in changes {
            let login = EditableLogin { client_id: "c".into(), username: None, password: None };
            let changed = after(Part::Login(login), |part| {
                if let Part::Login(login) = part {
                    change(login);
                }
            });
            assert_eq!(changed.is_ok(), is_good);
        }
    }

    #[test]
    fn shown_login_hides_credentials() {
        let password: Option<Cow<'_, [u8]>> = Some(Cow::Borrowed(b"hunter2"));
        let login = EditableLogin { client_id: "c".into(), username: Some("alice".into()), password };
        assert_eq!(format!("{login:?}"), "EditableLogin { client_id: \"c\", .. }");
    }

    /// Appends to the topic what the function says.
    struct Tested<F>(F);

    impl<F: Fn(&mut Part<'_>) -> Result<&'static str, Refusal> + Send + Sync> Transform for Tested<F> {
        fn name(&self) -> &str {
            "tested"
        }

        fn apply(&self, packet: &mut Editable<'_>, _: Now) -> Result<(), Refusal> {
            let more = (self.0)(&mut packet.part)?;
            if let Part::Message(message) = &mut packet.part
                && !more.is_empty()
            {
                message.topic = Cow::Owned(format!("{}{more}", message.topic));
            }
            Ok(())
        }
    }

    fn with(
        apply: impl Fn(&mut Part<'_>) -> Result<&'static str, Refusal> + Send + Sync + 'static,
    ) -> Arc<dyn Transform> {
        Arc::new(Tested(apply))
    }

    fn topic_after(row: &Transforms, action: Action) -> Result<String, Refusal> {
        let client = client();
        let mut packet = Editable { client: &client, part: Part::Message(message(action)) };
        row.apply(&mut packet, Now::read())?;
        Ok(topic_of(&mut packet.part).0.to_string())
    }

    fn after(part: Part<'_>, change: impl Fn(&mut Part<'_>) + Send + Sync) -> Result<(), Refusal> {
        let client = client();
        let tested = Tested(|part: &mut Part<'_>| {
            change(part);
            Ok("")
        });
        apply(&tested, &mut Editable { client: &client, part }, Now::read())
    }

    type TopicOf<'m, 'a> = (&'m mut Cow<'a, str>, &'m mut Option<Cow<'a, str>>);

    fn topic_of<'m, 'a>(part: &'m mut Part<'a>) -> TopicOf<'m, 'a> {
        let Part::Message(message) = part else { panic!("no message") };
        (&mut message.topic, &mut message.response_topic)
    }

    fn message(action: Action) -> EditableMessage<'static> {
        let payload: Cow<'_, [u8]> = Cow::Borrowed(b"x");
        let outdated = Outdated::default();
        EditableMessage {
            action,
            topic: "t".into(),
            response_topic: None,
            payload,
            qos: 0,
            retain: false,
            outdated,
        }
    }

    fn client() -> Client {
        Client {
            principal: Principal::default(),
            client_id: "dev-1".into(),
            username: None,
            peer: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
            route: "devices".into(),
            protocol: Protocol::Mqtt,
            is_encrypted: false,
        }
    }
}
