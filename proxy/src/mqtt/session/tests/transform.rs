use std::borrow::Cow;
use std::sync::atomic::{AtomicUsize, Ordering};

use mgate_policies::{Editable, EditableMessage, Outdated, Part, Refusal, Resource, Transform};

use super::packets::{
    NewConnect, ack, ack_why, alias, connack, connect, packet, publish, suback, subscribe, text,
};
use super::*;
use crate::mqtt::codec::{decode, decode_connect};

#[test]
fn publish_is_rewritten_and_mirrored_as_it_is_forwarded() {
    for version in BOTH {
        let mut story = mounted(version);
        let before = [publish(version, 0x31, "a/b", 0, &[]), publish(version, 0x34, "a/b", 7, &[])].concat();
        assert_eq!(story.client_sends(&before), before.len());
        let after = [publish(version, 0x31, "t/a/b", 0, &[]), publish(version, 0x34, "t/a/b", 7, &[])];
        assert_eq!(story.upstream_hears(), after.concat());
        let copy = ("t/a/b".to_owned(), b"payload".to_vec());
        assert_eq!(*story.seen.mirrored.lock().expect("free"), [copy.clone(), copy]);
    }
}

#[test]
fn delivery_is_undone() {
    for version in BOTH {
        let mut story = mounted(version);
        story.upstream_sends(&publish(version, 0x32, "t/a/b", 7, &[]));
        assert_eq!(story.client_hears(), publish(version, 0x32, "a/b", 7, &[]));
    }
}

#[test]
fn delivery_without_a_name_for_the_client_is_dropped_and_acknowledged() {
    for version in BOTH {
        let mut story = mounted(version);
        story.upstream_sends(&publish(version, 0x32, "other/a", 7, &[]));
        assert_eq!(story.hears(), (Vec::new(), ack(0x40, 7)));
        assert_eq!(story.denials(), [(Action::Deliver, "other/a".to_owned())]);
    }
}

#[test]
fn properties_and_payload_survive_another_topic_and_response_topic() {
    let mut story = mounted(Version::V5);
    let user = [&[0x26, 0, 1, b'k', 0, 1, b'v'][..], b"\x01\x01"].concat();
    let answer = |topic: &str| [vec![0x08], text(topic.as_bytes())].concat();
    story.client_sends(&publish(Version::V5, 0x30, "a", 0, &[answer("r/t"), user.clone()].concat()));
    let expected = publish(Version::V5, 0x30, "t/a", 0, &[user.clone(), answer("t/r/t")].concat());
    assert_eq!(story.upstream_hears(), expected);
    story.upstream_sends(&publish(Version::V5, 0x30, "t/a", 0, &[answer("t/r"), user.clone()].concat()));
    assert_eq!(story.client_hears(), publish(Version::V5, 0x30, "a", 0, &[user, answer("r")].concat()));
}

#[test]
fn packet_that_nothing_changes_passes_as_it_came() {
    let mut story = transformed(vec![Edit::message(|_| Ok(()))]).opened(Version::V5);
    let properties = [alias_of(1), vec![0x08], text(b"r")].concat();
    let bytes = publish(Version::V5, 0x30, "a", 0, &properties);
    story.upstream_sends(&bytes);
    assert!(story.is_closed(), "the client takes no alias");
    let mut story = transformed(vec![Edit::message(|_| Ok(()))]).with_aliases();
    let bytes = [bytes, publish(Version::V5, 0x30, "", 0, &alias(1))].concat();
    story.client_sends(&bytes);
    assert_eq!(story.upstream_hears(), bytes);
    let bytes = subscribe(Version::V5, 7, &[("$share/g/a/#", 1)]);
    story.client_sends(&bytes);
    assert_eq!(story.upstream_hears(), bytes);
}

#[test]
fn alias_goes_on_with_the_topic_that_it_stands_for_at_the_upstream() {
    let mut story = mounted_with_aliases();
    let sent = |topic, number| publish(Version::V5, 0x30, topic, 0, &alias(number));
    story.client_sends(&sent("a", 1));
    assert_eq!(story.upstream_hears(), sent("t/a", 1));
    story.client_sends(&sent("", 1));
    assert_eq!(story.upstream_hears(), sent("", 1), "the upstream knows it");
    story.client_sends(&sent("b", 1));
    assert_eq!(story.upstream_hears(), sent("t/b", 1));
    story.client_sends(&sent("", 1));
    assert_eq!(story.upstream_hears(), sent("", 1));
    story.client_sends(&[sent("c", 2), sent("", 1), sent("", 2)].concat());
    assert_eq!(story.upstream_hears(), [sent("t/c", 2), sent("", 1), sent("", 2)].concat());
    let mirrored: Vec<_> =
        story.seen.mirrored.lock().expect("free").iter().map(|(topic, _)| topic.clone()).collect();
    assert_eq!(mirrored, ["t/a", "t/a", "t/b", "t/b", "t/c", "t/b", "t/c"]);
}

#[test]
fn alias_whose_topic_changes_with_the_payload_is_said_anew() {
    let by_turns = Edit::message({
        let count = AtomicUsize::new(0);
        move |message| {
            let turn = count.fetch_add(1, Ordering::Relaxed) / 2;
            message.topic = Cow::Owned(format!("{}/{turn}", message.topic));
            Ok(())
        }
    });
    let mut story = transformed(vec![by_turns]).with_aliases();
    let sent = |topic| publish(Version::V5, 0x30, topic, 0, &alias(1));
    story.client_sends(&[sent("a"), sent(""), sent(""), sent("")].concat());
    assert_eq!(story.upstream_hears(), [sent("a/0"), sent(""), sent("a/1"), sent("")].concat());
}

#[test]
fn alias_that_came_with_a_denied_message_is_said_at_the_next() {
    let denies_first = Edit::message({
        let count = AtomicUsize::new(0);
        move |message| match count.fetch_add(1, Ordering::Relaxed) {
            0 => Err(Refusal::denied("not yet")),
            _ => prefix(message),
        }
    });
    let mut story = transformed(vec![denies_first]).with_aliases();
    let sent = |topic| publish(Version::V5, 0x30, topic, 0, &alias(1));
    story.client_sends(&[sent("a"), sent("")].concat());
    assert_eq!(story.upstream_hears(), sent("t/a"));
    // denied by a policy, under its new name
    let mut story = mounted_with_aliases();
    story.client_sends(&[publish(Version::V5, 0x31, "unretained", 0, &alias(1)), sent("")].concat());
    assert_eq!(story.upstream_hears(), sent("t/unretained"));
}

#[test]
fn alias_of_a_delivery_is_undone_too() {
    let mut story = mounted_by(Version::V5, |connect| connect.properties = &[0x22, 0, 3]);
    let sent = |topic, number| publish(Version::V5, 0x30, topic, 0, &alias(number));
    story.upstream_sends(&[sent("other", 1), sent("t/a", 2), sent("", 2), sent("", 1)].concat());
    assert_eq!(story.client_hears(), [sent("a", 2), sent("", 2)].concat());
    assert_eq!(story.denials().len(), 2);
    assert!(!story.is_closed());
}

#[test]
fn unknown_alias_is_a_protocol_error_with_transforms_too() {
    let mut story = mounted_with_aliases();
    story.client_sends(&publish(Version::V5, 0x30, "", 0, &alias(2)));
    assert!(story.is_closed());
}

#[test]
fn policies_are_asked_for_the_new_topic() {
    let reveals = Edit::message(|message| {
        message.topic = message.topic.replace("open", "secret").into();
        Ok(())
    });
    let mut story = transformed(vec![reveals]).opened(Version::V5);
    story.client_sends(&publish(Version::V5, 0x32, "open", 7, &[]));
    assert_eq!(story.hears(), (ack_why(0x40, 7, 0x87, "not authorized"), Vec::new()));
    assert_eq!(story.denials(), [(Action::Publish, "secret".to_owned())]);
    let hides = Edit::message(|message| {
        message.topic = message.topic.replace("secret", "open").into();
        Ok(())
    });
    let mut story = transformed(vec![hides]).opened(Version::V5);
    story.client_sends(&publish(Version::V5, 0x30, "secret", 0, &[]));
    assert_eq!(story.upstream_hears(), publish(Version::V5, 0x30, "open", 0, &[]));
}

#[test]
fn policies_know_deliveries_by_their_name_at_the_upstream() {
    for version in BOTH {
        let renames = |from: &'static str, to: &'static str| {
            Edit::message(move |message| {
                message.topic = message.topic.replace(from, to).into();
                Ok(())
            })
        };
        let mut story = transformed(vec![renames("secret", "open")]).opened(version);
        story.upstream_sends(&publish(version, 0x32, "secret", 7, &[]));
        assert_eq!(story.hears(), (Vec::new(), ack(0x40, 7)));
        assert_eq!(story.denials(), [(Action::Deliver, "secret".to_owned())]);
        let mut story = transformed(vec![renames("open", "secret")]).opened(version);
        story.upstream_sends(&publish(version, 0x32, "open", 7, &[]));
        assert_eq!(story.client_hears(), publish(version, 0x32, "secret", 7, &[]));
    }
}

#[test]
fn what_was_allowed_is_remembered_under_the_new_topic() {
    let by_payload = Edit::message(|message| {
        if message.payload.as_ref() == b"payload" {
            message.topic = Cow::Borrowed("secret");
        }
        Ok(())
    });
    let mut story = Story::with(|gate, _| {
        gate.transforms = Transforms::new(vec![by_payload]);
        gate.policies = Chain::new(vec![Arc::new(NoSecrets)]);
    })
    .opened(Version::V311);
    let allowed = packet(0x30, &[text(b"a"), b"other".to_vec()].concat());
    story.client_sends(
        &[allowed.clone(), publish(Version::V311, 0x30, "a", 0, &[]), allowed.clone()].concat(),
    );
    assert_eq!(story.upstream_hears(), [allowed.clone(), allowed].concat());
    assert_eq!(story.denials(), [(Action::Publish, "secret".to_owned())]);
}

#[test]
fn packet_that_waited_is_not_transformed_again() {
    for version in BOTH {
        let mut story = mounted_by(version, |connect| connect.will_topic = Some("will"));
        story.client_sends(&publish(version, 0x32, "slow", 7, &[]));
        assert!(story.upstream_hears().is_empty());
        story.decides(Side::Client, allow());
        assert_eq!(story.upstream_hears(), publish(version, 0x32, "t/slow", 7, &[]));
        story.client_sends(&subscribe(version, 8, &[("slow/1", 0), ("fast", 0), ("slow/2", 0)]));
        story.decides(Side::Client, allow());
        story.decides(Side::Client, allow());
        let expected = subscribe(version, 8, &[("t/slow/1", 0), ("t/fast", 0), ("t/slow/2", 0)]);
        assert_eq!(story.upstream_hears(), expected);
        story.upstream_sends(&publish(version, 0x30, "t/slow", 0, &[]));
        story.decides(Side::Upstream, allow());
        assert_eq!(story.client_hears(), publish(version, 0x30, "slow", 0, &[]));
    }
}

#[test]
fn message_that_is_denied_is_acknowledged_as_a_policys() {
    let denies = || Edit::message(|_| Err(Refusal::denied("no")));
    let mut story = transformed(vec![denies()]).opened(Version::V5);
    story.client_sends(&publish(Version::V5, 0x34, "a", 7, &[]));
    assert_eq!(story.hears(), (ack_why(0x50, 7, 0x87, "not authorized"), Vec::new()));
    let mut story = transformed(vec![denies()]).opened(Version::V311);
    story.client_sends(&[publish(Version::V311, 0x34, "a", 7, &[]), ack(0x62, 7)].concat());
    assert_eq!(story.hears(), ([ack(0x50, 7), ack(0x70, 7)].concat(), Vec::new()));
    assert_eq!(story.denials(), [(Action::Publish, "a".to_owned())]);
}

#[test]
fn invalid_payload_has_a_code_of_its_own_where_there_is_a_payload() {
    let invalid = || Refusal::Denied(Reason::new(Cause::PayloadInvalid));
    let mut story = transformed(vec![Edit::message(move |_| Err(invalid()))]).opened(Version::V5);
    story.client_sends(&publish(Version::V5, 0x32, "a", 7, &[]));
    assert_eq!(story.hears(), (ack_why(0x40, 7, 0x99, "payload invalid"), Vec::new()));
    let mut story = transformed(vec![Arc::new(Picky)]).opened(Version::V5);
    story.client_sends(&subscribe(Version::V5, 8, &[("invalid", 1)]));
    assert_eq!(story.client_hears().last(), Some(&0x87));
}

#[test]
fn message_that_is_dropped_is_acknowledged_as_if_taken_and_reported() {
    let drops = || Edit::message(|_| Err(Refusal::Dropped(Reason::new(Cause::NotAuthorized))));
    for version in BOTH {
        let mut story = transformed(vec![drops()]).opened(version);
        let bytes = [publish(version, 0x32, "a", 7, &[]), publish(version, 0x34, "b", 8, &[]), ack(0x62, 8)];
        story.client_sends(&bytes.concat());
        assert_eq!(story.hears(), ([ack(0x40, 7), ack(0x50, 8), ack(0x70, 8)].concat(), Vec::new()));
        story.upstream_sends(&publish(version, 0x32, "c", 9, &[]));
        assert_eq!(story.hears(), (Vec::new(), ack(0x40, 9)));
        let dropped = [(Action::Publish, "a"), (Action::Publish, "b"), (Action::Deliver, "c")];
        assert_eq!(story.dropped(), dropped.map(|(action, topic)| (action, topic.to_owned())));
        assert!(story.denials().is_empty() && !story.is_closed());
    }
}

#[test]
fn payload_may_change_and_packet_may_not_outgrow_its_receiver() {
    let grows = Edit::message(|message| {
        message.payload = Cow::Owned(message.payload.repeat(20));
        Ok(())
    });
    let mut story = transformed(vec![grows]).with_connack(&[0x27, 0, 0, 0, 150]);
    story.client_sends(&publish(Version::V5, 0x30, "a", 0, &[]));
    let body = [text(b"a"), vec![0], b"payload".repeat(20)].concat();
    assert_eq!(story.upstream_hears(), packet(0x30, &body));
    story.client_sends(&publish(Version::V5, 0x32, "a/long/topic", 7, &[]));
    assert_eq!(story.hears(), (ack_why(0x40, 7, 0x97, "quota exceeded"), Vec::new()));
    assert!(!story.is_closed());
}

#[test]
fn what_was_said_of_another_payload_goes_no_further() {
    let mut story = transformed(vec![inflating()]).opened(Version::V5);
    let pair = |name: &[u8], value| [vec![0x26], text(name), text(value)].concat();
    let (gzip, other) = (pair(b"content-encoding", b"gzip"), pair(b"k", b"v"));
    story.client_sends(&publish(Version::V5, 0x30, "a", 0, &[gzip.clone(), other.clone()].concat()));
    let body = [text(b"a"), vec![other.len() as u8], other.clone(), b"inflated".to_vec()].concat();
    assert_eq!(story.upstream_hears(), packet(0x30, &body));
    let mut story = transformed(vec![inflating()]);
    let frame = |properties: Vec<u8>, payload| {
        let head = [text(b"MQTT"), vec![5, 0x06, 0, 60, 0], text(b"dev-1")].concat();
        let properties = [vec![properties.len() as u8], properties].concat();
        packet(0x10, &[head, properties, text(b"w"), text(payload)].concat())
    };
    story.client_sends(&frame([other.clone(), gzip].concat(), b"deflated"));
    story.upstream_opens();
    assert_eq!(story.upstream_hears(), frame(other, b"inflated"));
}

#[test]
fn what_is_no_topic_is_denied_and_the_session_goes_on() {
    let breaks = Edit::message(|message| {
        message.topic = Cow::Borrowed("a/#");
        Ok(())
    });
    let mut story = transformed(vec![breaks]).opened(Version::V5);
    story.client_sends(&publish(Version::V5, 0x32, "a", 7, &[]));
    assert_eq!(story.client_hears()[2..5], [0, 7, 0x83]);
    assert!(!story.is_closed());
}

#[test]
fn response_topic_has_no_place_before_5() {
    let answers = Edit::message(|message| {
        message.response_topic = Some(Cow::Borrowed("r"));
        Ok(())
    });
    let mut story = transformed(vec![answers.clone()]).opened(Version::V311);
    story.client_sends(&publish(Version::V311, 0x32, "a", 7, &[]));
    assert_eq!(story.hears(), (ack(0x40, 7), Vec::new()));
    let mut story = transformed(vec![answers]).opened(Version::V5);
    story.client_sends(&publish(Version::V5, 0x30, "a", 0, &[]));
    let expected = publish(Version::V5, 0x30, "a", 0, &[vec![0x08], text(b"r")].concat());
    assert_eq!(story.upstream_hears(), expected);
}

#[test]
fn filters_are_rewritten_and_share_groups_put_back() {
    for version in BOTH {
        let mut story = mounted(version);
        story.client_sends(&subscribe(version, 7, &[("#", 1), ("$share/g/+/x", 2), ("$SYS/#", 0)]));
        let expected = [("t/#", 1), ("$share/g/t/+/x", 2), ("t/$SYS/#", 0)];
        assert_eq!(story.upstream_hears(), subscribe(version, 7, &expected));
        story.client_sends(&unsubscribe(version, 8, &["#", "$share/g/+/x"]));
        assert_eq!(story.upstream_hears(), unsubscribe(version, 8, &["t/#", "$share/g/t/+/x"]));
        story.upstream_sends(&unsuback(version, 8, &[0, 0]));
        assert_eq!(story.client_hears(), unsuback(version, 8, &[0, 0]));
    }
}

#[test]
fn refused_filters_are_answered_where_they_stand() {
    let filters = [("denied", 1), ("a", 1), ("dropped", 2), ("secret", 0), ("b", 0)];
    for (version, code) in [(Version::V311, 0x80), (Version::V5, 0x87)] {
        let mut story = transformed(vec![Arc::new(Picky)]).opened(version);
        story.client_sends(&subscribe(version, 7, &filters));
        assert_eq!(story.upstream_hears(), subscribe(version, 7, &[("a", 1), ("b", 0)]));
        story.upstream_sends(&suback(version, 7, &[1, 0]));
        assert_eq!(story.client_hears(), suback(version, 7, &[code, 1, 2, code, 0]));
        assert_eq!(story.dropped(), [(Action::Subscribe, "dropped".to_owned())]);
        story.client_sends(&subscribe(version, 8, &[("dropped", 2)]));
        assert_eq!(story.hears(), (suback(version, 8, &[2]), Vec::new()));
    }
}

#[test]
fn refused_filters_stay_refused_when_others_waited() {
    let mut story = transformed(vec![Arc::new(Picky)]).opened(Version::V5);
    story.client_sends(&subscribe(Version::V5, 7, &[("slow", 0), ("denied", 1), ("a", 0)]));
    story.decides(Side::Client, allow());
    assert_eq!(story.upstream_hears(), subscribe(Version::V5, 7, &[("slow", 0), ("a", 0)]));
    story.upstream_sends(&suback(Version::V5, 7, &[0, 0]));
    assert_eq!(story.client_hears(), suback(Version::V5, 7, &[0, 0x87, 0]));
}

#[test]
fn refused_ends_of_subscriptions_are_answered_where_they_stand() {
    for version in BOTH {
        let mut story = transformed(vec![Arc::new(Picky)]).opened(version);
        story.client_sends(&unsubscribe(version, 7, &["denied", "a", "dropped"]));
        assert_eq!(story.upstream_hears(), unsubscribe(version, 7, &["a"]));
        story.upstream_sends(&unsuback(version, 7, &[0x11]));
        assert_eq!(story.client_hears(), unsuback(version, 7, &[0x87, 0x11, 0]));
        story.client_sends(&unsubscribe(version, 8, &["denied"]));
        assert_eq!(story.hears(), (unsuback(version, 8, &[0x87]), Vec::new()));
    }
}

#[test]
fn subscription_that_ends_beside_a_refused_end_is_none_any_more() {
    for version in BOTH {
        let mut story = transformed(vec![Arc::new(Picky)]).opened(version);
        story.client_sends(&subscribe(version, 6, &[("a", 0)]));
        story.upstream_sends(&suback(version, 6, &[0]));
        story.client_sends(&unsubscribe(version, 7, &["denied", "a"]));
        story.upstream_sends(&unsuback(version, 7, &[0]));
        assert!(story.session.rights.is_none());
    }
}

#[test]
fn subscribe_that_would_get_too_long_is_refused_whole() {
    let mut story = transformed(vec![Arc::new(Mounted)]).with_connack(&[0x27, 0, 0, 0, 20]);
    let bytes = subscribe(Version::V5, 7, &[("a", 0), ("b", 0), ("c", 0)]);
    assert!(bytes.len() <= 20);
    story.client_sends(&bytes);
    let (to_client, to_upstream) = story.hears();
    assert!(to_upstream.is_empty());
    assert!(to_client.ends_with(&[0x97, 0x97, 0x97]), "{to_client:?}");
    assert_eq!(story.denials().len(), 3);
    story.client_sends(&unsubscribe(Version::V5, 8, &["aaa", "bbb", "cc"]));
    assert_eq!(story.hears(), (unsuback(Version::V5, 8, &[0x83; 3]), Vec::new()));
}

#[test]
fn filter_that_gets_too_long_with_its_share_group_is_refused() {
    let longest = Arc::new(Under("p/"));
    let mut story = transformed(vec![longest]).opened(Version::V311);
    let filter = format!("$share/group/{}", "f".repeat(65_521));
    let body = [&[0, 7][..], &text(filter.as_bytes())].concat();
    let frame = |first: u8, body: &[u8]| {
        let length =
            [body.len() as u8 & 0x7f | 0x80, (body.len() >> 7) as u8 | 0x80, (body.len() >> 14) as u8];
        [&[first][..], &length, body].concat()
    };
    story.client_sends(&frame(0x82, &[body.clone(), vec![0]].concat()));
    assert_eq!(story.hears(), (suback(Version::V311, 7, &[0x80]), Vec::new()));
    story.client_sends(&frame(0xa2, &body));
    assert_eq!(story.hears(), (unsuback(Version::V311, 7, &[]), Vec::new()));
    assert!(!story.is_closed());
}

#[test]
fn will_is_rewritten_in_connect() {
    for version in BOTH {
        let mut story = transformed(vec![Arc::new(Mounted)]);
        let login = Some(("alice", PASSWORD));
        let with_will = NewConnect { will_topic: Some("w"), login, ..connect(version) };
        story.client_sends(&with_will.bytes());
        story.upstream_opens();
        let expected = NewConnect { will_topic: Some("t/w"), ..with_will };
        assert_eq!(story.upstream_hears(), expected.bytes());
    }
}

#[test]
fn response_topic_of_a_will_is_rewritten() {
    let mut story = transformed(vec![Arc::new(Mounted)]);
    let frame = |topic: &str, answer: &str| {
        let answer = [vec![0x08], text(answer.as_bytes())].concat();
        let properties = [vec![answer.len() as u8 + 5, 0x18, 0, 0, 0, 9], answer].concat();
        let head = [text(b"MQTT"), vec![5, 0x06, 0, 60, 0], text(b"dev-1")].concat();
        packet(0x10, &[head, properties, text(topic.as_bytes()), text(b"gone")].concat())
    };
    story.client_sends(&frame("w", "r"));
    story.upstream_opens();
    assert_eq!(story.upstream_hears(), frame("t/w", "t/r"));
}

#[test]
fn will_is_authorized_under_its_new_topic_and_once() {
    for version in BOTH {
        let reveals = Edit::message(|message| {
            message.topic = message.topic.replace("open", "secret").into();
            Ok(())
        });
        let mut story = transformed(vec![reveals]);
        story.client_sends(&NewConnect { will_topic: Some("open"), ..connect(version) }.bytes());
        assert_eq!(story.denials(), [(Action::Will, "secret".to_owned())]);
        assert!(story.is_closed());
        let mut story = transformed(vec![Arc::new(Mounted)]);
        story.client_sends(&NewConnect { will_topic: Some("slow"), ..connect(version) }.bytes());
        assert!(matches!(story.session.poll_output(), Some(Output::Decide(..))));
        story.decides(Side::Client, allow());
        story.upstream_opens();
        let expected = NewConnect { will_topic: Some("t/slow"), ..connect(version) };
        assert_eq!(story.upstream_hears(), expected.bytes());
    }
}

#[test]
fn will_that_gets_too_long_is_denied_as_a_will() {
    for (version, code) in [(Version::V311, 3), (Version::V5, 0x97)] {
        for (length, is_denied) in [(65_535, false), (65_536, true)] {
            let grows = Edit::message(move |message| {
                message.payload = Cow::Owned(vec![b'x'; length]);
                Ok(())
            });
            let mut story = transformed(vec![grows]);
            story.client_sends(&NewConnect { will_topic: Some("w"), ..connect(version) }.bytes());
            let denials = if is_denied { vec![(Action::Will, "w".to_owned())] } else { Vec::new() };
            assert_eq!(story.denials(), denials, "{length}");
            match is_denied {
                true => assert_eq!(story.client_hears()[3], code),
                false => story.upstream_opens(),
            }
        }
    }
}

#[test]
fn upstream_sees_another_login_than_authenticators() {
    for version in BOTH {
        let mut story = transformed(vec![Arc::new(Login)]);
        let as_it_came = NewConnect { login: Some(("alice", PASSWORD)), ..connect(version) };
        story.client_sends(&as_it_came.bytes());
        story.upstream_opens();
        let hears = story.upstream_hears();
        let heard = decode_connect(&hears).expect("a CONNECT");
        assert_eq!(heard.client_id, "t-dev-1");
        assert_eq!((heard.username, heard.password), (Some("mgate"), Some(&b"of mgate"[..])));
        assert_eq!(heard.keep_alive_secs, 60);
        let client = story.session.client.as_deref().expect("it is known");
        assert_eq!((&*client.client_id, client.username.as_deref()), ("t-dev-1", Some("alice")));
        assert_eq!(&*client.principal.id, "alice");
        let mut story = transformed(vec![Arc::new(Login)]);
        story.client_sends(&connect(version).bytes());
        story.upstream_opens();
        let hears = story.upstream_hears();
        assert_eq!(decode_connect(&hears).expect("a CONNECT").username, Some("mgate"));
    }
}

#[test]
fn policies_and_claims_see_the_new_client_id() {
    let mut story = transformed(vec![Arc::new(Login)]);
    story.client_sends(&NewConnect { client_id: "t-secret", ..connect(Version::V5) }.bytes());
    assert_eq!(story.denials(), [(Action::Connect, "t-t-secret".to_owned())]);
    let mut story = transformed(vec![Arc::new(Login)]).opened(Version::V5);
    let mut other = Session::new(&story.endpoint, peer(), story.now);
    std::mem::swap(&mut story.session, &mut other);
    let held = NewConnect { login: Some(("alice", PASSWORD)), ..connect(Version::V5) };
    story.client_sends(&held.bytes());
    assert_eq!(story.denials(), [(Action::Connect, "t-dev-1".to_owned())]);
}

#[test]
fn login_that_is_refused_or_cannot_be_said_closes() {
    for (version, code) in [(Version::V311, 5), (Version::V5, 0x87)] {
        let mut story = transformed(vec![Arc::new(Picky)]);
        story.client_sends(&NewConnect { client_id: "denied", ..connect(version) }.bytes());
        assert_eq!(story.client_hears()[3], code);
        assert!(story.is_closed());
        let mut story = transformed(vec![Arc::new(Picky)]);
        story.client_sends(&NewConnect { will_topic: Some("dropped"), ..connect(version) }.bytes());
        assert_eq!(story.client_hears()[3], code);
        assert_eq!(story.denials(), [(Action::Will, "dropped".to_owned())]);
    }
    let mut story = transformed(vec![Arc::new(Picky)]);
    let kept = NewConnect { client_id: "nameless", clean_start: false, ..connect(Version::V311) };
    story.client_sends(&kept.bytes());
    assert_eq!(story.client_hears(), connack(Version::V311, 3, &[]));
}

#[test]
fn transforms_run_in_reverse_towards_the_client() {
    let outer: Arc<dyn Transform> = Arc::new(Under("outer/"));
    let inner: Arc<dyn Transform> = Arc::new(Under("inner/"));
    let mut story = transformed(vec![inner, outer]).opened(Version::V311);
    story.client_sends(&publish(Version::V311, 0x30, "a", 0, &[]));
    let there = publish(Version::V311, 0x30, "outer/inner/a", 0, &[]);
    assert_eq!(story.upstream_hears(), there);
    story.upstream_sends(&there);
    assert_eq!(story.client_hears(), publish(Version::V311, 0x30, "a", 0, &[]));
}

#[test]
fn panic_of_a_transform_ends_nothing() {
    let panics = Edit::message(|message| match message.topic.as_ref() {
        "bad" => panic!("a bug of its own"),
        _ => Ok(()),
    });
    let mut story = transformed(vec![panics]).opened(Version::V5);
    story.client_sends(&publish(Version::V5, 0x32, "bad", 7, &[]));
    assert_eq!(story.client_hears()[2..5], [0, 7, 0x83]);
    let good = publish(Version::V5, 0x32, "good", 8, &[]);
    story.client_sends(&good);
    assert_eq!(story.upstream_hears(), good);
}

#[test]
fn transform_cannot_make_another_packet() {
    let mut story = transformed(vec![Arc::new(Confused)]).opened(Version::V5);
    story.client_sends(&publish(Version::V5, 0x32, "a", 7, &[]));
    assert_eq!(story.client_hears()[2..5], [0, 7, 0x83]);
    story.client_sends(&subscribe(Version::V5, 8, &[("a", 0)]));
    assert_eq!(story.client_hears().last(), Some(&0x83));
}

#[test]
fn malformed_packets_reach_no_transform() {
    let never = Edit::message(|_| panic!("it is malformed"));
    let mut story = transformed(vec![never]).opened(Version::V5);
    story.client_sends(&publish(Version::V5, 0x30, "a/#", 0, &[]));
    assert!(story.is_closed());
    let never = Edit::message(|_| panic!("only the upstream says subscription identifiers"));
    let mut story = transformed(vec![never]).opened(Version::V5);
    story.client_sends(&publish(Version::V5, 0x30, "a", 0, &[0x0b, 1]));
    assert!(story.is_closed());
}

/// Puts everything under `t/`, as a mountpoint does.
struct Mounted;

/// The same under a prefix of one's own.
struct Under(&'static str);

impl Transform for Mounted {
    fn name(&self) -> &str {
        "mounted"
    }

    fn apply(&self, packet: &mut Editable<'_>, now: Now) -> Result<(), Refusal> {
        Under("t/").apply(packet, now)
    }
}

impl Transform for Under {
    fn name(&self) -> &str {
        "under"
    }

    fn apply(&self, packet: &mut Editable<'_>, _: Now) -> Result<(), Refusal> {
        let add = |text: &mut Cow<'_, str>| *text = Cow::Owned([self.0, text].concat());
        let remove = |text: &mut Cow<'_, str>| {
            let bare = text.strip_prefix(self.0).map(str::to_owned);
            *text = Cow::Owned(bare.ok_or_else(|| Refusal::denied("outside"))?);
            Ok(())
        };
        match &mut packet.part {
            Part::Filter(filter) => add(&mut filter.filter),
            Part::Login(_) => {}
            Part::Message(message) if message.action == Action::Deliver => {
                remove(&mut message.topic)?;
                message.response_topic.as_mut().map_or(Ok(()), remove)?;
            }
            Part::Message(message) => {
                add(&mut message.topic);
                message.response_topic.iter_mut().for_each(add);
            }
        }
        Ok(())
    }
}

/// Changes messages as its function says.
struct Edit<F>(F);

impl<F> Edit<F>
where
    F: Fn(&mut EditableMessage<'_>) -> Result<(), Refusal> + Send + Sync + 'static,
{
    fn message(change: F) -> Arc<dyn Transform> {
        Arc::new(Self(change))
    }
}

impl<F: Fn(&mut EditableMessage<'_>) -> Result<(), Refusal> + Send + Sync> Transform for Edit<F> {
    fn name(&self) -> &str {
        "edit"
    }

    fn apply(&self, packet: &mut Editable<'_>, _: Now) -> Result<(), Refusal> {
        if let Part::Message(message) = &mut packet.part { (self.0)(message) } else { Ok(()) }
    }
}

/// Denies and drops what is called so, and takes the name of who is nameless.
struct Picky;

impl Transform for Picky {
    fn name(&self) -> &str {
        "picky"
    }

    fn apply(&self, packet: &mut Editable<'_>, _: Now) -> Result<(), Refusal> {
        let what = match &mut packet.part {
            Part::Filter(filter) => &filter.filter,
            Part::Login(login) if login.client_id == "nameless" => {
                login.client_id = Cow::Borrowed("");
                return Ok(());
            }
            Part::Login(login) => &login.client_id,
            Part::Message(message) => &message.topic,
        };
        match what.as_ref() {
            "denied" => Err(Refusal::denied("its name says so")),
            "dropped" => Err(Refusal::Dropped(Reason::new(Cause::NotAuthorized))),
            "invalid" => Err(Refusal::Denied(Reason::new(Cause::PayloadInvalid))),
            _ => Ok(()),
        }
    }
}

/// Has one login for all at the upstream.
struct Login;

impl Transform for Login {
    fn name(&self) -> &str {
        "login"
    }

    fn apply(&self, packet: &mut Editable<'_>, _: Now) -> Result<(), Refusal> {
        if let Part::Login(login) = &mut packet.part {
            login.client_id = Cow::Owned(format!("t-{}", login.client_id));
            login.username = Some(Cow::Borrowed("mgate"));
            login.password = Some(Cow::Borrowed(b"of mgate"));
        }
        Ok(())
    }
}

/// Makes messages of filters, and filters of messages.
struct Confused;

impl Transform for Confused {
    fn name(&self) -> &str {
        "confused"
    }

    fn apply(&self, packet: &mut Editable<'_>, _: Now) -> Result<(), Refusal> {
        use mgate_policies::{EditableFilter, EditableLogin};
        let filter = EditableFilter { filter: Cow::Borrowed("f"), share_group: None, qos: None };
        match &packet.part {
            Part::Login(_) => {}
            Part::Message(_) => packet.part = Part::Filter(filter),
            Part::Filter(_) => {
                let client_id = Cow::Borrowed("c");
                packet.part = Part::Login(EditableLogin { client_id, username: None, password: None });
            }
        }
        Ok(())
    }
}

/// Is repeatable, and has one secret.
struct NoSecrets;

impl Policy for NoSecrets {
    fn name(&self) -> &str {
        "no-secrets"
    }

    fn evaluate(&self, query: &Query<'_>, _: Now) -> Answer {
        match query.resource {
            Resource::Topic(topic) if topic.as_str() == "secret" => Answer::Ready(deny()),
            _ => Answer::Ready(allow()),
        }
    }

    fn is_repeatable(&self) -> bool {
        true
    }
}

impl Story {
    fn with_aliases(self) -> Self {
        self.with_connack(&[0x22, 0, 3])
    }

    fn with_connack(mut self, properties: &[u8]) -> Self {
        self.client_sends(&connect(Version::V5).bytes());
        self.upstream_opens();
        self.upstream_sends(&connack(Version::V5, 0, properties));
        self.hears();
        self
    }

    fn dropped(&self) -> Vec<(Action, String)> {
        self.seen.dropped.lock().expect("nobody panics with it").clone()
    }
}

/// Says that what it made was compressed.
fn inflating() -> Arc<dyn Transform> {
    Edit::message(|message| {
        message.payload = Cow::Borrowed(b"inflated");
        message.outdated = Outdated { encoding: true, ..Outdated::default() };
        Ok(())
    })
}

fn transformed(row: Vec<Arc<dyn Transform>>) -> Story {
    Story::with(|gate, _| gate.transforms = Transforms::new(row))
}

fn mounted(version: Version) -> Story {
    transformed(vec![Arc::new(Mounted)]).opened(version)
}

fn mounted_by(version: Version, change: impl FnOnce(&mut NewConnect)) -> Story {
    let mut story = transformed(vec![Arc::new(Mounted)]);
    let mut packet = connect(version);
    change(&mut packet);
    story.client_sends(&packet.bytes());
    story.upstream_opens();
    story.upstream_sends(&connack(version, 0, &[]));
    story.hears();
    story
}

fn mounted_with_aliases() -> Story {
    transformed(vec![Arc::new(Mounted)]).with_aliases()
}

fn prefix(message: &mut EditableMessage<'_>) -> Result<(), Refusal> {
    message.topic = Cow::Owned(format!("t/{}", message.topic));
    Ok(())
}

fn alias_of(number: u16) -> Vec<u8> {
    alias(number)
}

fn unsubscribe(version: Version, packet_id: u16, filters: &[&str]) -> Vec<u8> {
    let filters: Vec<u8> = filters.iter().flat_map(|filter| text(filter.as_bytes())).collect();
    let properties = if version.is_5() { vec![0] } else { Vec::new() };
    let bytes = packet(0xa2, &[packet_id.to_be_bytes().to_vec(), properties, filters].concat());
    assert!(decode(&bytes, version).is_ok());
    bytes
}

/// Before MQTT 5.0 it says no codes.
fn unsuback(version: Version, packet_id: u16, codes: &[u8]) -> Vec<u8> {
    let id = packet_id.to_be_bytes().to_vec();
    match version.is_5() {
        true => packet(0xb0, &[id, vec![0], codes.to_vec()].concat()),
        false => packet(0xb0, &id),
    }
}
