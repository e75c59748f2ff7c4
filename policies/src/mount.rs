use std::borrow::Cow;

use crate::now::Now;
use crate::prefix::TopicPrefix;
use crate::query::Action;
use crate::transform::{Editable, Part, Refusal, Transform};

impl Transform for TopicPrefix {
    fn name(&self) -> &str {
        "topic_prefix"
    }

    fn apply(&self, packet: &mut Editable<'_>, _: Now) -> Result<(), Refusal> {
        mount(packet, self.as_str())
    }
}

/// Puts what a client says behind a prefix, and takes the prefix away from what it is given: who asks for
/// `#` asks for what is behind it. A delivery beside it is refused.
pub fn mount(packet: &mut Editable<'_>, prefix: &str) -> Result<(), Refusal> {
    match &mut packet.part {
        Part::Filter(filter) => add(&mut filter.filter, prefix),
        Part::Login(_) => {}
        Part::Message(message) if message.action == Action::Deliver => {
            remove(&mut message.topic, prefix)?;
            message.response_topic.as_mut().map_or(Ok(()), |topic| remove(topic, prefix))?;
        }
        Part::Message(message) => {
            add(&mut message.topic, prefix);
            if let Some(topic) = &mut message.response_topic {
                add(topic, prefix);
            }
        }
    }
    Ok(())
}

fn add(topic: &mut Cow<'_, str>, prefix: &str) {
    *topic = Cow::Owned([prefix, topic].concat());
}

fn remove(topic: &mut Cow<'_, str>, prefix: &str) -> Result<(), Refusal> {
    let bare = topic.strip_prefix(prefix).map(str::to_owned);
    let outside = || Refusal::denied("the topic is outside of what the client can name");
    *topic = Cow::Owned(bare.ok_or_else(outside)?);
    Ok(())
}
