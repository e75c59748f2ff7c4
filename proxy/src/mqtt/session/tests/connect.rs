use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio_tungstenite::tungstenite::http::Request;

use super::packets::{PINGREQ, connack, connect, packet};
use super::*;

#[test]
fn connect_goes_upstream_as_it_came() {
    for version in BOTH {
        let mut story = Story::new();
        let bytes = NewLogin::alice(version);
        assert_eq!(story.client_sends(&bytes), bytes.len());
        assert!(story.hears().1.is_empty(), "nothing goes out before the upstream is there");
        story.upstream_opens();
        assert_eq!(story.upstream_hears(), bytes);
    }
}

#[test]
fn upstream_is_not_dialled_for_a_client_with_bad_credentials() {
    for (version, code) in [(Version::V311, 0x04), (Version::V5, 0x86)] {
        let mut story = Story::new();
        let login = Some(("alice", b"wrong".as_slice()));
        story.client_sends(&packets::NewConnect { login, ..connect(version) }.bytes());
        assert_eq!(connack_code(&story.client_hears()), code);
        assert!(matches!(story.session.poll_output(), Some(Output::Close)));
        assert!(story.session.poll_output().is_none());
    }
}

#[test]
fn login_of_the_websocket_counts_where_connect_has_none() {
    for (login, basic, is_taken) in [
        (None, "alice:hunter2", true),
        (None, "alice:wrong", false),
        (Some(("alice", b"wrong".as_slice())), "alice:hunter2", false),
        (Some(("alice", PASSWORD)), "alice:wrong", true),
    ] {
        let mut story = Story::new();
        let header = format!("Basic {}", STANDARD.encode(basic));
        let request = Request::get("/mqtt").header("authorization", header).body(()).unwrap();
        let upgrade = Some(Box::new(Upgrade::of(request.uri(), request.headers()).unwrap()));
        story.session = Session::new(&story.endpoint, Peer { upgrade, ..peer() }, story.now);
        story.client_sends(&packets::NewConnect { login, ..connect(Version::V5) }.bytes());
        let client = story.session.client.as_deref();
        assert_eq!(client.map(|client| &*client.principal.id), is_taken.then_some("alice"), "{basic}");
        assert_eq!(client.and_then(|client| client.username.as_deref()), is_taken.then_some("alice"));
    }
}

#[test]
fn denied_connect_is_answered_with_not_authorized() {
    for (version, code) in [(Version::V311, 0x05), (Version::V5, 0x87)] {
        let mut story = Story::new();
        story.client_sends(&packets::NewConnect { client_id: "secret", ..connect(version) }.bytes());
        assert_eq!(connack_code(&story.client_hears()), code);
        assert!(story.is_closed());
        assert_eq!(story.denials(), [(Action::Connect, "secret".to_owned())]);
    }
}

#[test]
fn denied_will_refuses_the_client() {
    for (version, code) in [(Version::V311, 0x05), (Version::V5, 0x87)] {
        let mut story = Story::new();
        let will_topic = Some("other-tenant/secret");
        story.client_sends(&packets::NewConnect { will_topic, ..connect(version) }.bytes());
        assert_eq!(connack_code(&story.client_hears()), code);
        assert_eq!(story.denials(), [(Action::Will, "other-tenant/secret".to_owned())]);
        assert!(story.is_closed());
    }
}

#[test]
fn refused_client_hears_why_in_words_only_if_it_wants_them() {
    let mut story = Story::new();
    story.client_sends(&packets::NewConnect { client_id: "secret", ..connect(Version::V5) }.bytes());
    assert!(contains(&story.client_hears(), b"not authorized"));
    let mut story = Story::new();
    let properties = &[0x17, 0]; // request problem information: no
    story.client_sends(
        &packets::NewConnect { client_id: "secret", properties, ..connect(Version::V5) }.bytes(),
    );
    assert_eq!(story.client_hears(), connack(Version::V5, 0x87, &[]));
}

#[test]
fn refusing_connack_of_the_upstream_reaches_the_client_and_ends_the_session() {
    for (version, code) in [(Version::V311, 0x05), (Version::V5, 0x87)] {
        let mut story = Story::new();
        story.client_sends(&connect(version).bytes());
        story.upstream_opens();
        let refusal = connack(version, code, &[]);
        story.upstream_sends(&refusal);
        assert_eq!(story.client_hears(), refusal);
        assert!(story.is_closed());
    }
}

#[test]
fn dead_upstream_is_told_as_unavailable() {
    for (version, code) in [(Version::V311, 0x03), (Version::V5, 0x88)] {
        let mut story = Story::new();
        story.client_sends(&connect(version).bytes());
        story.input(Input::Upstream(Err("connection refused".into())));
        assert_eq!(connack_code(&story.client_hears()), code);
        assert_eq!(story.closing().map(|(_, blame)| blame), Some(Blame::Upstream));
    }
}

#[test]
fn silent_upstream_is_told_as_unavailable_in_time() {
    for (version, code) in [(Version::V311, 0x03), (Version::V5, 0x88)] {
        let mut story = Story::new();
        story.client_sends(&connect(version).bytes());
        story.upstream_opens();
        story.waits(Limits::default().upstream_timeout);
        assert_eq!(connack_code(&story.client_hears()), code);
        assert!(story.is_closed());
    }
}

#[test]
fn client_that_says_nothing_is_closed_in_time() {
    let mut story = Story::new();
    story.waits(Limits::default().connect_timeout);
    assert!(story.is_closed());
    assert!(story.client_hears().is_empty());
}

#[test]
fn client_that_dribbles_its_connect_is_closed_in_time() {
    let mut story = Story::new();
    let bytes = connect(Version::V311).bytes();
    for end in 1..8 {
        assert_eq!(story.client_sends(&bytes[..end]), 0);
        story.waits(Duration::from_secs(2));
    }
    assert!(story.is_closed());
}

#[test]
fn version_that_the_route_does_not_allow_is_refused() {
    let cases = [(Version::V31, 0x01), (Version::V311, 0x01), (Version::V5, 0x84)];
    for (version, code) in cases {
        let others: Vec<_> =
            cases.iter().map(|(other, _)| *other).filter(|other| *other != version).collect();
        let mut story = Story::with(|_, options| options.versions = crate::mqtt::Versions::only(&others));
        story.client_sends(&connect(version).bytes());
        assert_eq!(connack_code(&story.client_hears()), code);
        assert!(story.is_closed());
    }
}

#[test]
fn mqtt_3_1_is_spoken_where_the_route_says_so() {
    let v31 = crate::mqtt::Versions::only(&[Version::V31]);
    let story = Story::with(|_, options| options.versions = v31).opened(Version::V31);
    assert_eq!(story.session.version, Version::V31);
}

#[test]
fn unknown_protocol_level_is_refused() {
    // 0x84 is what a bridge sends: 3.1.1 with the highest bit set
    for (level, code) in [(2, 0x01), (6, 0x84), (0x84, 0x01)] {
        let mut story = Story::new();
        let body = [b"\0\x04MQTT".to_vec(), vec![level, 2, 0, 60, 0, 0, 0]].concat();
        story.client_sends(&packet(0x10, &body));
        assert_eq!(connack_code(&story.client_hears()), code);
        assert!(story.is_closed());
    }
}

#[test]
fn empty_client_id_needs_a_clean_session_in_3_1_1() {
    let empty = packets::NewConnect { client_id: "", clean_start: false, ..connect(Version::V311) };
    let mut story = Story::new();
    story.client_sends(&empty.bytes());
    assert_eq!(story.client_hears(), connack(Version::V311, 0x02, &[]));
    let mut story = Story::new();
    story.client_sends(&packets::NewConnect { clean_start: true, ..empty }.bytes());
    story.upstream_opens();
}

#[test]
fn client_identifier_of_another_principal_is_refused_while_it_is_held() {
    let mut story = Story::open(Version::V311);
    let next = |story: &Story| Session::new(&story.endpoint, peer(), story.now);
    let second = next(&story);
    let holder = std::mem::replace(&mut story.session, second);
    story.client_sends(&NewLogin::alice(Version::V5));
    assert_eq!(connack_code(&story.client_hears()), 0x85);
    drop(holder);
    story.session = next(&story);
    story.client_sends(&NewLogin::alice(Version::V5));
    story.upstream_opens();
}

#[test]
fn identifier_that_the_upstream_assigned_is_held_too() {
    let mut story = Story::new();
    let empty = packets::NewConnect { client_id: "", ..connect(Version::V5) };
    story.client_sends(&empty.bytes());
    story.upstream_opens();
    story.upstream_sends(&connack(Version::V5, 0, b"\x12\0\x05dev-1"));
    story.hears();
    let second = Session::new(&story.endpoint, peer(), story.now);
    let _holder = std::mem::replace(&mut story.session, second);
    story.client_sends(&NewLogin::alice(Version::V5));
    assert_eq!(connack_code(&story.client_hears()), 0x85);
}

#[test]
fn packets_before_connack_wait_and_then_go_in_order() {
    let mut story = Story::new();
    let connect = connect(Version::V311).bytes();
    let early = [packets::publish(Version::V311, 0x30, "t", 0, &[]), PINGREQ.to_vec()].concat();
    let used = story.client_sends(&[connect.clone(), early.clone()].concat());
    assert_eq!(used, connect.len());
    assert!(!story.session.wants(Side::Client));
    story.upstream_opens();
    story.upstream_sends(&connack(Version::V311, 0, &[]));
    story.hears();
    assert_eq!(story.client_sends(&early), early.len());
    assert_eq!(story.upstream_hears(), early);
}

#[test]
fn slow_authenticator_holds_only_its_client_and_is_a_denial_when_too_late() {
    for (version, code) in [(Version::V311, 0x03), (Version::V5, 0x88)] {
        let mut story = Story::new();
        let login = Some(("slow", b"x".as_slice()));
        story.client_sends(&packets::NewConnect { login, ..connect(version) }.bytes());
        assert!(matches!(story.session.poll_output(), Some(Output::Identify(_))));
        story.waits(Limits::default().decision_timeout);
        assert_eq!(connack_code(&story.client_hears()), code);
        assert!(story.is_closed());
    }
}

#[test]
fn late_verdict_opens_the_session() {
    let mut story = Story::new();
    let login = Some(("slow", b"x".as_slice()));
    story.client_sends(&packets::NewConnect { login, ..connect(Version::V5) }.bytes());
    assert!(matches!(story.session.poll_output(), Some(Output::Identify(_))));
    story.input(Input::Identified(Verdict::Accepted(Principal::default())));
    story.upstream_opens();
}

#[test]
fn expired_credentials_are_refused() {
    for (version, code) in [(Version::V311, 0x04), (Version::V5, 0x86)] {
        let mut story = Story::new();
        let login = Some(("expired", b"x".as_slice()));
        story.client_sends(&packets::NewConnect { login, ..connect(version) }.bytes());
        assert_eq!(connack_code(&story.client_hears()), code);
        assert!(story.is_closed());
    }
}

#[test]
fn session_ends_when_its_credentials_do() {
    for version in BOTH {
        let mut story = expiring(version);
        story.waits(Duration::from_secs(29));
        assert!(!story.is_closed());
        story.waits(Duration::from_secs(1));
        let expected = packets::disconnect_why(0x87, "credentials expired");
        assert_eq!(story.client_hears(), if version.is_5() { expected } else { Vec::new() });
        assert!(story.is_closed());
    }
}

#[test]
fn decision_that_is_late_lets_nothing_pass_once_credentials_have_ended() {
    for version in BOTH {
        let mut story = expiring(version);
        story.waits(Duration::from_secs(25));
        story.client_sends(&packets::subscribe(version, 7, &[("slow", 0), ("open", 0)]));
        story.waits(Limits::default().decision_timeout);
        assert!(story.upstream_hears().is_empty() && story.is_closed());
    }
}

#[test]
fn session_ends_when_its_leave_does() {
    for version in BOTH {
        let mut story = Story::new();
        let brief = packets::NewConnect { client_id: "brief", ..connect(version) };
        story.client_sends(&brief.bytes());
        story.upstream_opens();
        story.upstream_sends(&connack(version, 0, &[]));
        story.waits(Duration::from_secs(29));
        assert!(!story.is_closed());
        story.waits(Duration::from_secs(1));
        assert!(story.is_closed());
    }
}

/// An open session whose credentials last for 30 seconds.
fn expiring(version: Version) -> Story {
    let mut story = Story::new();
    let login = Some(("expiring", b"x".as_slice()));
    story.client_sends(&packets::NewConnect { login, ..connect(version) }.bytes());
    story.upstream_opens();
    story.upstream_sends(&connack(version, 0, &[]));
    story.hears();
    story
}

#[test]
fn slow_policy_for_connect_and_will_is_resumed() {
    let mut story = Story::new();
    let slow = packets::NewConnect { client_id: "slow", will_topic: Some("w"), ..connect(Version::V5) };
    story.client_sends(&slow.bytes());
    for _ in ["connect", "will"] {
        assert!(matches!(story.session.poll_output(), Some(Output::Decide(Side::Client, _))));
        story.decides(Side::Client, allow());
    }
    story.upstream_opens();
    assert_eq!(story.upstream_hears(), slow.bytes());
}

#[test]
fn enhanced_authentication_is_relayed_before_connack() {
    let mut story = Story::new();
    let properties = b"\x15\0\x05SCRAM"; // authentication method
    story.client_sends(&packets::NewConnect { properties, ..connect(Version::V5) }.bytes());
    story.upstream_opens();
    story.hears();
    let challenge = packet(0xf0, &[vec![0x18, 8], properties.to_vec()].concat());
    story.upstream_sends(&challenge);
    story.client_sends(&challenge);
    assert_eq!(story.hears(), (challenge.clone(), challenge));
    story.upstream_sends(&connack(Version::V5, 0, properties));
    assert_eq!(story.session.state, State::Open);
}

struct NewLogin;

impl NewLogin {
    fn alice(version: Version) -> Vec<u8> {
        packets::NewConnect { login: Some(("alice", PASSWORD)), will_topic: Some("w"), ..connect(version) }
            .bytes()
    }
}

fn connack_code(bytes: &[u8]) -> u8 {
    assert_eq!(bytes.first(), Some(&0x20), "a CONNACK: {bytes:02x?}");
    bytes[3]
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
