//! A transform in the sessions that are tested, and what the two sides may see of it.

use std::borrow::Cow;

use mgate_policies::{Action, Cause, Editable, Now, Part, Reason, Refusal, Transform};

/// Puts all that the client says under `m/`, and what the upstream says elsewhere under `c/`; refuses some of it.
pub(crate) struct Mounted;

impl Transform for Mounted {
    fn name(&self) -> &str {
        "mounted"
    }

    fn apply(&self, packet: &mut Editable<'_>, _: Now) -> Result<(), Refusal> {
        match &mut packet.part {
            Part::Filter(filter) if filter.filter == "a/#" => {
                return Err(Refusal::Dropped(Reason::new(Cause::NotAuthorized)));
            }
            Part::Filter(filter) if filter.filter == "+" => return Err(Refusal::denied("too wide")),
            Part::Filter(filter) => mount(&mut filter.filter),
            Part::Login(login) => login.username = Some(Cow::Borrowed("of mgate")),
            Part::Message(message) if message.topic.ends_with("quota") => {
                return Err(Refusal::Dropped(Reason::new(Cause::RateExceeded)));
            }
            Part::Message(message) if message.action == Action::Deliver => unmount(&mut message.topic),
            Part::Message(message) => {
                mount(&mut message.topic);
                message.response_topic.iter_mut().for_each(mount);
                message.payload.to_mut().push(b'!');
            }
        }
        Ok(())
    }
}

/// Whether the upstream may hear of a topic or filter.
pub(crate) fn is_mounted(resource: &str) -> bool {
    resource.starts_with(MOUNT)
}

/// What the upstream may have called the topic of a delivery.
pub(crate) fn before_delivery(topic: &str) -> Vec<String> {
    let bare = topic.strip_prefix(ELSEWHERE).map(str::to_owned);
    bare.into_iter().chain([[MOUNT, topic].concat()]).collect()
}

fn mount(text: &mut Cow<'_, str>) {
    *text = Cow::Owned([MOUNT, text].concat());
}

fn unmount(text: &mut Cow<'_, str>) {
    let bare = text.strip_prefix(MOUNT).filter(|bare| !bare.is_empty());
    *text = Cow::Owned(bare.map_or_else(|| [ELSEWHERE, text].concat(), str::to_owned));
}

/// What everything of a client stands behind.
pub(crate) const MOUNT: &str = "m/";
const ELSEWHERE: &str = "c/";
