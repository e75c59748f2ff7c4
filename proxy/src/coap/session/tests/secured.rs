use super::*;

#[test]
fn who_showed_who_it_is_in_its_handshake_is_known_from_the_start_and_kept_for_a_day() {
    let mut story = secured(Some("dev-1"));
    assert_eq!(story.session.standing(), Standing::Known);
    story.pass(23 * HOUR).client("CON GET 1 t /a").upstream("ACK 2.05 1 t").pass(23 * HOUR);
    assert_eq!((story.events(), story.session.is_closed), (vec!["opened dev-1".to_owned()], false));
    story.pass(2 * HOUR);
    assert!(story.session.is_closed);
}

#[test]
fn who_only_speaks_dtls_is_a_stranger_until_something_is_allowed() {
    let mut story = secured(None);
    assert_eq!(story.session.standing(), Standing::Stranger);
    story.client("CON GET 1 t /a").upstream("ACK 2.05 1 t");
    assert_eq!(story.session.standing(), Standing::Known);
    let mut stranger = secured(None);
    stranger.client("CON GET 1 t /secret").pass(11 * SECOND);
    assert!(stranger.session.is_closed);
}

#[test]
fn socket_to_the_upstream_is_given_back_while_nothing_goes_on() {
    let mut story = secured(Some("dev-1"));
    story.client("CON GET 1 t /a").upstream("ACK 2.05 1 t =x").pass(246 * SECOND);
    assert!(story.session.poll_output().is_none());
    story.pass(SECOND);
    assert!(matches!(story.session.poll_output(), Some(Output::HangUp)));
    assert!(!story.session.is_closed);
    assert_eq!(story.client_hears().len(), 1);
    story.upstream_hears();
    // and taken again
    story.client("CON GET 2 t /a");
    assert_eq!(story.upstream_hears(), ["CON GET 2 t /a"]);
    // an observer needs it
    story.upstream("ACK 2.05 2 t =x").client("CON GET 3 o /a observe=0");
    story.upstream("ACK 2.05 3 o observe=1 =x").pass(600 * SECOND);
    assert!(story.session.poll_output().is_none());
}

#[test]
fn observer_is_told_wherever_it_went_and_found_out_anew_with_its_next_request() {
    let mut story = secured(Some("dev-1"));
    story.client("CON GET 1 t /a observe=0").upstream("ACK 2.05 1 t observe=1 =x").pass(600 * SECOND);
    story.client_hears();
    let elsewhere = SocketAddr::from(([198, 51, 100, 7], 50_000));
    story.input(Input::Moved(elsewhere));
    story.upstream("NON 2.05 901 t observe=2 =y");
    assert_eq!(story.client_hears(), ["NON 2.05 901 t observe=2 =y"]);
    story.client("CON GET 2 u /b");
    let peers: Vec<_> = story.session.clients().map(|client| client.peer).collect();
    assert!(peers.contains(&elsewhere), "{peers:?}");
}

#[test]
fn client_that_leaves_ends_what_it_observes() {
    let mut story = secured(Some("dev-1"));
    story.client("CON GET 1 t /a observe=0").upstream("ACK 2.05 1 t observe=1 =x");
    story.upstream_hears();
    story.input(Input::Left);
    assert!(story.upstream_hears()[0].contains("observe=1"), "the upstream is asked to send no more");
    assert!(matches!(story.session.poll_output(), Some(Output::Close)));
    assert_eq!(story.events().last().unwrap(), "closed: the client ended it");
}

/// A session that speaks DTLS, with the identity of a key or without.
fn secured(identity: Option<&str>) -> Story {
    let mut story = Story::new();
    let psk_identity = identity.map(Into::into);
    let peer =
        Peer { address: story.session.peer.address, certificate: None, psk_identity, is_encrypted: true };
    story.session = Session::new(&story.endpoint, peer, story.now);
    story
}

const HOUR: Duration = Duration::from_secs(60 * 60);
