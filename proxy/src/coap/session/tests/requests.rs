use super::*;

#[test]
fn allowed_request_passes_as_it_came_and_its_answer_too() {
    let mut story = Story::new();
    story.client("CON PUT 1 t /a/b ?x=1 format=50 ={}");
    assert_eq!(story.upstream_hears(), ["CON PUT 1 t /a/b format=50 ?x=1 ={}"]);
    assert_eq!(story.asked(), ["guest request PUT /a/b {}"]);
    story.upstream("ACK 2.04 1 t");
    assert_eq!(story.client_hears(), ["ACK 2.04 1 t"]);
    assert_eq!(story.events(), ["opened guest"]);
}

#[test]
fn secret_is_cut_out_wherever_it_stands_and_never_shown() {
    let mut story = Story::new();
    story.client("CON POST 1 t /a ?x=1 ?auth=good+/=key== ?y=2 =1");
    assert_eq!(story.upstream_hears(), ["CON POST 1 t /a ?x=1 ?y=2 =1"]);
    assert_eq!(story.asked(), ["+/=key== request POST /a 1"]);
    story.client("CON POST 2 t /a ?auth=bad-key =1");
    assert_eq!(story.client_hears(), ["ACK 4.01 2 t"]);
    let told = [&story.seen.frames.lock().unwrap()[..], &story.seen.events.lock().unwrap()[..]].concat();
    assert!(told.len() > 3);
    assert!(
        !told
            .iter()
            .any(|line| line.contains("key==\"") || line.contains("auth") || line.contains("bad-key"))
    );
}

#[test]
fn who_asks_is_found_out_for_each_key() {
    let mut story = Story::new();
    story.client("CON GET 1 a /a ?auth=good1").client("CON GET 2 b /a ?auth=good2").client("CON GET 3 c /a");
    assert_eq!(story.asked(), ["1 request GET /a ", "2 request GET /a ", "guest request GET /a "]);
}

#[test]
fn who_showed_a_key_stays_while_something_goes_on() {
    let mut story = Story::new();
    let mut after = |text: &str, is_from_client: bool| {
        if is_from_client {
            story.client(text)
        } else {
            story.upstream(text)
        };
        story.session.standing()
    };
    assert_eq!(after("CON GET 1 t /a ?auth=good1", true), Standing::Busy);
    assert_eq!(after("ACK 2.05 1 t", false), Standing::Known);
    after("CON GET 2 t /a ?auth=good1 observe=0", true);
    assert_eq!(after("ACK 2.05 2 t observe=2", false), Standing::Busy);
    after("CON GET 3 t /a ?auth=good1 observe=1", true);
    assert_eq!(after("ACK 2.05 3 t", false), Standing::Known);
    after("CON PUT 4 t /a ?auth=good1 block1=0/1/0 =0123456789abcdef", true);
    assert_eq!(after("ACK 2.31 4 t block1=0/1/0", false), Standing::Busy);
    after("CON PUT 5 t /a ?auth=good1 block1=1/0/0 =x", true);
    assert_eq!(after("ACK 2.04 5 t", false), Standing::Known);
    assert_eq!(after("CON GET 6 t /slow ?auth=good1", true), Standing::Busy);
}

#[test]
fn operation_that_is_not_gone_on_with_keeps_nobody() {
    let mut story = Story::with(|gate, _| gate.limits.idle_timeout = Some(600 * SECOND));
    story.client("CON PUT 1 t /short ?auth=good1 block1=0/1/0 =0123456789abcdef");
    story.upstream("ACK 2.31 1 t block1=0/1/0");
    assert_eq!(story.session.standing(), Standing::Busy);
    assert_eq!(story.pass(11 * SECOND).session.standing(), Standing::Known);
}

#[test]
fn two_keys_are_one_too_many() {
    let mut story = Story::new();
    story.client("CON GET 1 t /a ?auth=good1 ?auth=good2");
    assert_eq!(story.client_hears(), ["ACK 4.00 1 t"]);
    assert!(story.asked().is_empty() && story.upstream_hears().is_empty());
}

#[test]
fn denials_have_their_codes_and_types() {
    for (request, answer) in [
        ("CON GET 1 t /secret", "ACK 4.03 1 t"),
        ("CON GET 1 t /a ?auth=wrong", "ACK 4.01 1 t"),
        ("CON GET 1 - /broken", "ACK 5.03 1 - max-age=5"),
        ("CON 0.08 1 t /a", "ACK 4.05 1 t"),
        ("CON 0.31 1 t /a", "ACK 4.05 1 t"),
        ("CON GET 1 t /a//b", "ACK 4.00 1 t"),
        ("CON GET 1 t /a critical=1", "ACK 4.02 1 t"),
        ("CON GET 1 t proxy=99", "ACK 5.05 1 t"),
        ("CON GET 1 t /a observe=5", "ACK 4.02 1 t"),
    ] {
        let mut story = Story::new();
        story.client(request);
        assert_eq!(story.client_hears(), [answer], "{request}");
        assert!(story.upstream_hears().is_empty(), "{request}");
    }
}

#[test]
fn what_need_not_be_confirmed_is_denied_in_a_message_of_its_own() {
    let mut story = Story::new();
    story.client("NON GET 7 t /secret");
    let heard = story.client_hears();
    assert!(heard.len() == 1 && heard[0].starts_with("NON 4.03 ") && heard[0].ends_with(" t"), "{heard:?}");
    assert_ne!(heard[0], "NON 4.03 7 t");
    story.client("NON GET 8 t /a critical=1");
    assert!(story.client_hears().is_empty());
}

#[test]
fn who_wants_no_answer_gets_none_but_an_acknowledgement_is_due() {
    let mut story = Story::new();
    for (id, request, heard) in [
        (1, "NON GET 1 t /secret none=26", 0),
        (2, "NON GET 2 t /secret none=8", 0),
        (3, "NON GET 3 t /secret none=16", 1),
        (4, "CON GET 4 t /secret none=26", 1),
    ] {
        story.client(request);
        assert_eq!(story.client_hears().len(), heard, "{id}");
    }
    story.client("NON GET 5 t /a none=16").pass(11 * SECOND);
    assert!(story.client_hears().is_empty());
}

#[test]
fn request_that_comes_again_is_answered_again_and_nothing_else() {
    let mut story = Story::of_messages();
    story.client("CON POST 1 t /channels/1/messages =1");
    story.upstream("ACK 2.04 1 t");
    story.upstream_hears();
    story.client_hears();
    assert_eq!((story.asked().len(), story.mirrored().len()), (1, 1));
    story.client("CON POST 1 t /channels/1/messages =1").client("CON POST 1 t /channels/1/messages =1");
    assert_eq!(story.client_hears(), ["ACK 2.04 1 t", "ACK 2.04 1 t"]);
    assert_eq!((story.asked().len(), story.mirrored().len(), story.upstream_hears().len()), (0, 0, 0));
    story
        .client("CON POST 2 t /channels/1/messages/secret =1")
        .client("CON POST 2 t /channels/1/messages/secret =1");
    assert_eq!(story.client_hears(), ["ACK 4.03 2 t", "ACK 4.03 2 t"]);
    assert_eq!(story.asked().len(), 1);
}

#[test]
fn another_request_under_an_identifier_that_is_taken_is_a_request_of_its_own() {
    let mut story = Story::new();
    story.client("CON GET 1 t /a").upstream("ACK 2.05 1 t =x");
    assert_eq!(story.client_hears(), ["ACK 2.05 1 t =x"]);
    story.client("CON DELETE 1 t /secret");
    assert_eq!(story.client_hears(), ["ACK 4.03 1 t"]);
    story.client("CON PUT 1 t /a =1").client("CON PUT 1 t /a =1");
    assert_eq!(
        story.asked(),
        ["guest request GET /a ", "guest request DELETE /secret ", "guest request PUT /a 1"]
    );
    // the second is one that came again, and has no answer yet
    assert_eq!(story.upstream_hears(), ["CON GET 1 t /a", "CON PUT 1 t /a =1", "CON PUT 1 t /a =1"]);
    story.upstream("ACK 2.04 1 t");
    story.client("CON PUT 1 t /a =2");
    assert_eq!((story.client_hears(), story.asked().len()), (vec!["ACK 2.04 1 t".to_owned()], 1));
}

#[test]
fn request_whose_identifier_is_taken_is_given_up() {
    let mut story = Story::of_messages();
    story.seen.stores.store(true, Ordering::Relaxed);
    story.client("CON POST 1 t /channels/1/messages =1").client("CON POST 1 u /channels/1/messages =2");
    story.upstream("ACK 2.04 1 t").upstream("ACK 2.04 1 u");
    story.input(Input::Stored(Ok(())));
    assert!(story.client_hears().is_empty(), "the first copy was that of the first message");
    story.input(Input::Stored(Ok(())));
    assert_eq!(story.client_hears(), ["ACK 2.04 1 u"]);
}

#[test]
fn answers_are_repeated_as_often_as_requests_are_sent_and_no_more() {
    let mut story = Story::with(|gate, _| gate.limits.messages_per_second = Some(1));
    story.client("CON GET 1 t /a").upstream("ACK 2.05 1 t =much");
    (0..100).for_each(|_| _ = story.client("CON GET 1 t /a"));
    assert_eq!(story.client_hears().len(), 5);
    (0..100).for_each(|_| _ = story.pass(2 * SECOND).client("CON GET 2 t /a"));
    assert_eq!(story.upstream_hears().len(), 1 + 5);
}

#[test]
fn identifiers_can_be_used_again_after_their_time() {
    let mut story = Story::with(|gate, _| gate.limits.idle_timeout = Some(1000 * SECOND));
    story.client("NON GET 1 t /a").client("NON GET 1 t /a");
    assert_eq!(story.upstream_hears().len(), 1);
    story.pass(246 * SECOND).client("NON GET 1 t /a");
    assert_eq!(story.upstream_hears().len(), 0);
    story.pass(2 * SECOND).client("NON GET 1 t /a");
    assert_eq!(story.upstream_hears().len(), 1);
}

#[test]
fn separate_response_passes_with_its_acknowledgements() {
    let mut story = Story::new();
    story.client("CON GET 1 t /a").upstream("ACK 0.00 1 -");
    assert_eq!(story.client_hears(), ["ACK 0.00 1 -"]);
    story.client("CON GET 1 t /a");
    assert_eq!(story.client_hears(), ["ACK 0.00 1 -"]);
    story.upstream_hears();
    story.upstream("CON 2.05 900 t =x").upstream("CON 2.05 900 t =x");
    assert_eq!(story.client_hears(), ["CON 2.05 900 t =x", "CON 2.05 900 t =x"]);
    story.client("ACK 0.00 900 -").client("ACK 0.00 900 -").client("ACK 0.00 901 -");
    assert_eq!(story.upstream_hears(), ["ACK 0.00 900 -"]);
}

#[test]
fn upstream_that_does_not_answer_in_time_is_answered_for() {
    let mut story = Story::new();
    story.client("CON GET 1 t /a").client("NON GET 2 u /a").upstream_hears();
    story.pass(9 * SECOND);
    assert!(story.client_hears().is_empty());
    story.pass(2 * SECOND);
    let heard = story.client_hears();
    assert_eq!(heard[0], "ACK 5.04 1 t");
    assert!(heard[1].starts_with("NON 5.04 ") && heard[1].ends_with(" u"), "{heard:?}");
    story.upstream("ACK 2.05 1 t =late").upstream("NON 2.05 77 u =late");
    assert!(story.client_hears().is_empty());
    story.client("CON GET 1 t /a");
    assert_eq!(story.client_hears(), ["ACK 5.04 1 t"]);
}

#[test]
fn upstream_that_is_not_there_is_looked_for_again() {
    let mut story = Story::new();
    story.client("CON GET 1 t /there");
    story.input(Input::Lost);
    assert_eq!(story.client_hears(), ["ACK 5.03 1 t max-age=5"]);
    story.upstream_hears();
    story.input(Input::Datagram(Side::Client, &m("CON GET 2 t /there")));
    assert!(matches!(story.session.poll_output(), Some(Output::Dial)));
    assert!(story.upstream_hears().is_empty());
    story.input(Input::Upstream(Err("no such host".into())));
    assert_eq!(story.client_hears(), ["ACK 5.03 2 t max-age=5"]);
    story.client("CON GET 3 t /there");
    assert_eq!(story.upstream_hears(), ["CON GET 3 t /there"]);
    assert_eq!(story.events(), ["opened guest"]);
}

#[test]
fn upstream_that_says_nothing_is_looked_for_elsewhere() {
    let mut story = Story::new();
    story.client("CON GET 1 t /a observe=0").upstream("ACK 2.05 1 t observe=2").client_hears();
    story.pass(SECOND).client("CON GET 2 u /a").pass(11 * SECOND);
    let heard = story.client_hears();
    assert_eq!(heard[0], "ACK 5.04 2 u");
    assert!(heard[1].starts_with("NON 5.03 ") && heard[1].ends_with(" t"), "{heard:?}");
    assert!(matches!(story.session.poll_output(), Some(Output::HangUp)));
    story.upstream_hears();
    story.input(Input::Datagram(Side::Client, &m("CON GET 3 v /a")));
    assert!(matches!(story.session.poll_output(), Some(Output::Dial)));
    assert!(story.upstream_hears().is_empty());
}

#[test]
fn upstream_that_says_something_is_kept() {
    let mut story = Story::new();
    story.client("CON GET 1 t /a").client("CON GET 2 u /a").pass(SECOND).upstream("ACK 2.05 2 u");
    story.pass(11 * SECOND);
    assert_eq!(story.client_hears(), ["ACK 2.05 2 u", "ACK 5.04 1 t"]);
    // what need not be confirmed need not be answered
    story.client("NON GET 3 t /a").pass(11 * SECOND);
    assert!(story.client_hears()[0].starts_with("NON 5.04 "));
    assert!(story.session.poll_output().is_none());
}

#[test]
fn messages_that_nobody_answers_leave_room_for_others() {
    let mut story = Story::new();
    (0..40).for_each(|id| _ = story.client(&format!("NON POST {id} - /{id} =1")));
    (40..80).for_each(|id| _ = story.client(&format!("NON POST {id} t{id} /a =1")));
    assert_eq!((story.upstream_hears().len(), story.client_hears().len()), (80, 0));
}

#[test]
fn token_means_one_thing_at_a_time() {
    let mut story = Story::new();
    story.client("CON GET 1 t /a").client("CON GET 2 t /b");
    assert_eq!(story.client_hears(), ["ACK 4.00 2 t"]);
    story.client("CON GET 3 t /a").upstream("ACK 2.05 3 t").upstream("ACK 2.05 1 t");
    assert_eq!(story.client_hears().len(), 2);
    story.client("CON GET 4 t /b");
    assert_eq!((story.client_hears().len(), story.upstream_hears().len()), (0, 3));
}

#[test]
fn name_of_the_route_is_not_for_the_upstream_unless_the_route_has_names() {
    let mut story = Story::new();
    let named = |id: u16, host: &str| {
        let mut request = packet("CON", "GET", id, "t");
        request.add_option(CoapOption::UriHost, host.into());
        request.add_option(CoapOption::UriPort, vec![0x16, 0x33]);
        request.add_option(CoapOption::UriPath, "a".into());
        request.to_bytes().unwrap()
    };
    story.input(Input::Datagram(Side::Client, &named(1, "anything")));
    story.input(Input::Upstream(Ok(())));
    assert_eq!(story.upstream_hears(), ["CON GET 1 t /a"]);
    let mut story = Story::with(|_, options| options.hosts = vec!["sensors.example".into()]);
    story.input(Input::Datagram(Side::Client, &named(1, "other.example")));
    assert_eq!(story.client_hears(), ["ACK 5.05 1 t"]);
    story.input(Input::Datagram(Side::Client, &named(2, "Sensors.example")));
    story.client("CON GET 3 t /a");
    story.input(Input::Upstream(Ok(())));
    let heard: Vec<_> = story.out.iter().map(|(_, bytes)| decode(bytes).unwrap().host()).collect();
    assert_eq!(heard, [Some("Sensors.example"), None]);
}

#[test]
fn nothing_is_dialed_for_what_is_denied() {
    let mut story = Story::new();
    story.client("CON GET 1 t /secret").client("CON GET 2 t /a ?auth=wrong").client("CON 0.09 3 t /a");
    assert!(story.session.poll_output().is_none());
}

#[test]
fn rejection_by_the_upstream_reaches_the_client() {
    let mut story = Story::new();
    story.client("CON GET 1 t /a").upstream("RST 0.00 1 -");
    assert_eq!(story.client_hears(), ["RST 0.00 1 -"]);
}

#[test]
fn ping_is_answered_and_garbage_is_not() {
    let mut story = Story::new();
    story.client("CON 0.00 5 -");
    assert_eq!(story.client_hears(), ["RST 0.00 5 -"]);
    for garbage in [&b""[..], b"\x40", b"GET / HTTP/1.1\r\n", &[0x40, 1, 0, 1, 0xff], &[0x44, 1, 0, 1]] {
        story.input(Input::Datagram(Side::Client, garbage));
        story.input(Input::Datagram(Side::Upstream, garbage));
    }
    story.client("ACK 2.05 5 t").client("CON 2.05 6 t").client("NON 2.05 7 t").client("ACK 0.00 8 -");
    story.client("RST 0.00 9 -");
    assert!(story.client_hears().is_empty() && story.upstream_hears().is_empty());
}

#[test]
fn what_nobody_asked_for_is_rejected() {
    let mut story = Story::new();
    story.client("CON GET 1 t /a").upstream_hears();
    story.upstream("CON 2.05 900 x =1").upstream("NON 2.05 901 y =1").upstream("CON GET 902 z /a");
    story.upstream("CON 0.00 903 -").upstream("NON GET 904 z /a").upstream("ACK 2.05 1 other =1");
    assert_eq!(
        story.upstream_hears(),
        ["RST 0.00 900 -", "RST 0.00 901 -", "RST 0.00 902 -", "RST 0.00 903 -"]
    );
    assert!(story.client_hears().is_empty());
}

#[test]
fn client_that_is_too_fast_hears_how_long_to_wait() {
    let mut story = Story::with(|gate, _| gate.limits.messages_per_second = Some(2));
    (1..=3).for_each(|id| _ = story.client(&format!("CON GET {id} t /fast")));
    assert_eq!(story.client_hears(), ["ACK 4.29 3 t max-age=1"]);
    assert_eq!(story.upstream_hears().len(), 2);
    // counted once
    story.pass(SECOND).client("CON GET 3 t /fast").client("CON GET 3 t /fast").client("CON GET 4 t /fast");
    assert_eq!(story.client_hears(), ["ACK 4.29 3 t max-age=1", "ACK 4.29 3 t max-age=1"]);
    assert_eq!(story.upstream_hears().len(), 1);
}

#[test]
fn rate_of_the_route_is_that_of_who_is_there_already() {
    let mut story = Story::new();
    story.client("CON GET 1 t /fast").upstream("ACK 2.05 1 t");
    story.endpoint.gate.limits.messages_per_second = Some(1);
    story.client("CON GET 2 t /fast").client("CON GET 3 t /fast");
    assert_eq!(story.client_hears()[1..], ["ACK 4.29 3 t max-age=2"]);
    story.endpoint.gate.limits.messages_per_second = Some(1000);
    story.pass(SECOND).client_hears();
    (4..14).for_each(|id| _ = story.client(&format!("CON GET {id} t /fast")));
    assert!(story.client_hears().is_empty());
    story.endpoint.gate.limits.messages_per_second = None;
    (14..16).for_each(|id| _ = story.client(&format!("CON GET {id} t /fast")));
    assert!(story.client_hears().is_empty());
}

#[test]
fn request_that_is_too_large_hears_how_large_it_may_be() {
    let mut story = Story::with(|gate, _| gate.limits.packet_bytes = 64);
    story.client(&format!("CON PUT 1 t /a ={}", "x".repeat(64)));
    assert_eq!(story.client_hears(), ["ACK 4.13 1 t size1=64"]);
}

#[test]
fn answers_of_our_own_are_never_larger_than_what_was_asked() {
    let mut story = Story::with(|gate, _| gate.limits.messages_per_second = Some(1));
    story.client("CON GET 1 t").client("CON GET 2 t");
    assert_eq!(story.client_hears(), ["ACK 4.29 2 t"]);
}

#[test]
fn many_requests_at_a_time_are_bounded() {
    let mut story = Story::new();
    (0..20).for_each(|id| _ = story.client(&format!("CON GET {id} t{id} /many")));
    assert_eq!(story.upstream_hears().len(), 16);
    assert_eq!(story.client_hears()[0], "ACK 4.29 16 t16 max-age=1");
}

#[test]
fn answers_that_are_kept_are_bounded() {
    let mut story = Story::new();
    let large = "x".repeat(1000);
    for id in 0..100 {
        story.client(&format!("CON GET {id} t /a")).upstream(&format!("ACK 2.05 {id} t ={large}"));
    }
    assert_eq!(story.client_hears().len(), 100);
    assert!(story.session.exchanges.answer_bytes() <= 8 * 1024);
    story.asked();
    // known still, though not what it was answered
    story.client("CON GET 50 t /a");
    assert!(story.client_hears().is_empty() && story.asked().is_empty());
    story.client("CON GET 99 t /a");
    assert_eq!(story.client_hears().len(), 1);
}

#[test]
fn stranger_is_forgotten_soon_and_a_client_later() {
    let mut stranger = Story::new();
    stranger.client("CON GET 1 t /secret").pass(11 * SECOND);
    assert!(stranger.session.is_closed && stranger.session.standing() == Standing::Stranger);
    assert!(!stranger.events().iter().any(|event| event.starts_with("closed")));
    let mut client = Story::new();
    client.client("CON GET 1 t /a").upstream("ACK 2.05 1 t").pass(240 * SECOND);
    assert!(!client.session.is_closed);
    client.pass(10 * SECOND);
    assert!(matches!(client.session.poll_output(), Some(Output::Close)));
    assert_eq!(client.events(), ["opened guest", "closed: nothing was heard for long enough"]);
}

#[test]
fn idle_session_keeps_nothing() {
    let mut story = Story::with(|gate, _| gate.limits.idle_timeout = Some(1000 * SECOND));
    for id in 0..50 {
        story.client(&format!("CON GET {id} t /a")).upstream(&format!("ACK 2.05 {id} t =x"));
    }
    story.pass(300 * SECOND);
    assert!(!story.session.is_closed);
    assert_eq!(story.session.exchanges.answer_bytes(), 0);
    assert!(story.session.exchanges.forgets_at().is_none());
}

#[test]
fn only_requests_make_a_session() {
    for (text, is_admitted, answer) in [
        ("CON GET 1 t /a", true, None),
        ("NON PUT 1 t /a", true, None),
        ("CON 0.00 1 -", false, Some("RST 0.00 1 -")),
        ("ACK 0.00 1 -", false, None),
        ("RST 0.00 1 -", false, None),
        ("CON 2.05 1 t", false, None),
        ("ACK 2.05 1 t", false, None),
    ] {
        let mut story = Story::new();
        let cx = &mut Context { endpoint: &story.endpoint, now: story.now, out: &mut story.out };
        assert_eq!(Session::admits(&m(text), story.session.peer.address, cx), is_admitted, "{text}");
        assert_eq!(story.client_hears(), answer.into_iter().collect::<Vec<_>>(), "{text}");
    }
}

#[test]
fn peer_must_show_where_it_is_if_the_route_wants_that() {
    let mut story = Story::with(|_, options| options.has_challenge = true);
    let address = story.session.peer.address;
    let admits = |datagram: &[u8], out: &mut Outbox| {
        Session::admits(datagram, address, &mut Context { endpoint: &story.endpoint, now: story.now, out })
    };
    let mut out = Outbox::default();
    assert!(!admits(&m("CON GET 1 t /a"), &mut out));
    let (_, answer) = out.iter().next().unwrap();
    let answer = decode(answer).unwrap();
    assert_eq!((answer.code, answer.kind), (Code::UNAUTHORIZED, Kind::Acknowledgement));
    let mut again = packet("CON", "GET", 2, "t");
    again.add_option(CoapOption::UriPath, "a".into());
    again.add_option(CoapOption::from(252), answer.known.echo.unwrap().to_vec());
    let again = again.to_bytes().unwrap();
    assert!(admits(&again, &mut Outbox::default()));
    story.input(Input::Datagram(Side::Client, &again));
    story.input(Input::Upstream(Ok(())));
    assert_eq!(story.upstream_hears(), ["CON GET 2 t /a"]);
}
