use super::*;

#[test]
fn first_block_decides_and_the_mirror_gets_the_whole() {
    let mut story = Story::of_messages();
    send(&mut story, &[(0, 1, "0123456789abcdef"), (1, 1, "ghijklmnopqrstuv"), (2, 0, "end")]);
    assert_eq!(story.upstream_hears().len(), 3);
    assert_eq!(story.asked(), ["guest publish channels/1/messages "]);
    assert_eq!(
        story.mirrored(),
        [("guest publish channels/1/messages".into(), b"0123456789abcdefghijklmnopqrstuvend".to_vec())]
    );
}

#[test]
fn body_in_one_block_is_judged_as_a_whole() {
    let mut story = Story::of_messages();
    send(&mut story, &[(0, 0, "secret")]);
    assert_eq!(story.client_hears(), ["ACK 4.03 1 t"]);
}

#[test]
fn block_without_a_first_one_is_refused() {
    let mut story = Story::of_messages();
    send(&mut story, &[(1, 0, "end")]);
    assert_eq!(story.client_hears(), ["ACK 4.08 1 t"]);
    assert!(story.asked().is_empty() && story.upstream_hears().is_empty());
}

#[test]
fn blocks_go_on_only_with_what_was_allowed() {
    let mut story = Story::new();
    story.client("CON PUT 1 t /a block1=0/1/0 =0123456789abcdef");
    for (id, other) in [
        "CON PUT 2 u /b block1=1/0/0 =x",
        "CON POST 2 u /a block1=1/0/0 =x",
        "CON PUT 2 u /a ?q block1=1/0/0 =x",
        "CON PUT 2 u /a block1=1/0/0 tag=7 =x",
        "CON PUT 2 u /a ?auth=goodother block1=1/0/0 =x",
        "CON PUT 2 u /a block1=2/0/0 =x",
    ]
    .iter()
    .enumerate()
    {
        story.client(&other.replace(" 2 ", &format!(" {} ", id + 2)));
        assert_eq!(story.client_hears(), [format!("ACK 4.08 {} u", id + 2)], "{other}");
    }
    story.client("CON PUT 20 other /a block1=1/0/0 =x");
    assert!(story.client_hears().is_empty());
    assert_eq!(story.upstream_hears().len(), 2);
}

#[test]
fn block_that_comes_again_is_no_more_of_the_body() {
    let mut story = Story::of_messages();
    send(
        &mut story,
        &[(0, 1, "0123456789abcdef"), (1, 1, "ghijklmnopqrstuv"), (1, 1, "ghijklmnopqrstuv"), (2, 0, "end")],
    );
    assert_eq!(story.mirrored()[0].1, b"0123456789abcdefghijklmnopqrstuvend");
}

#[test]
fn body_is_bounded_as_a_whole() {
    let mut story = Story::with(|gate, _| gate.limits.packet_bytes = 64);
    let block = "0123456789abcdef";
    for number in 0..6 {
        story.client(&format!("CON PUT {number} t /a block1={number}/1/0 ={block}"));
    }
    let heard = story.client_hears();
    assert_eq!(heard[0], "ACK 4.13 4 t size1=64");
    assert_eq!(story.upstream_hears().len(), 4);
}

#[test]
fn what_was_allowed_for_a_while_or_by_old_rules_is_over() {
    let mut story = Story::new();
    story.client("CON PUT 1 t /short block1=0/1/0 =0123456789abcdef").pass(11 * SECOND);
    story.client_hears();
    story.client("CON PUT 2 t /short block1=1/0/0 =x");
    assert_eq!(story.client_hears(), ["ACK 4.08 2 t"]);
    story.client("CON PUT 3 t /a block1=0/1/0 =0123456789abcdef");
    story.input(Input::Reauthorize);
    story.client("CON PUT 4 t /a block1=1/0/0 =x");
    assert_eq!(story.client_hears(), ["ACK 4.08 4 t"]);
}

#[test]
fn rest_of_a_response_is_not_asked_about_again() {
    let mut story = Story::new();
    story.client("CON GET 1 t /a").upstream("ACK 2.05 1 t block2=0/1/0 =0123456789abcdef");
    story.client("CON GET 2 t /a block2=1/0/0");
    assert_eq!(story.asked(), ["guest request GET /a "]);
    assert_eq!(story.upstream_hears().len(), 2);
    story.client("CON GET 3 u /b block2=1/0/0");
    assert_eq!(story.asked(), ["guest request GET /b "]);
    story.client("CON GET 4 v /secret block2=1/0/0");
    assert_eq!(story.client_hears().last().unwrap(), "ACK 4.03 4 v");
}

#[test]
fn rest_of_a_notification_may_be_fetched_and_nothing_else() {
    let mut story = Story::of_messages();
    story.client("CON GET 1 t /channels/1/messages observe=0").upstream("ACK 2.05 1 t observe=2");
    story.client("CON GET 2 u /channels/1/messages block2=1/0/0");
    assert_eq!(story.client_hears()[1], "ACK 4.02 2 u");
    story.upstream("NON 2.05 900 t observe=3 block2=0/1/0 =0123456789abcdef");
    story.upstream_hears();
    story.client("CON GET 3 u /channels/1/messages block2=1/0/0");
    assert_eq!(story.upstream_hears(), ["CON GET 3 u /channels/1/messages block2=1/0/0"]);
}

#[test]
fn rest_of_what_is_denied_by_now_may_not_be_fetched() {
    let begin = |story: &mut Story| {
        story.client("CON GET 1 t /channels/1/messages observe=0").upstream("ACK 2.05 1 t observe=2");
        story.upstream("NON 2.05 900 t observe=3 block2=0/1/0 =0123456789abcdef");
        story
            .client("CON GET 2 u /channels/1/messages block2=1/0/0")
            .upstream("ACK 2.05 2 u block2=1/0/0 =x");
        assert_eq!(story.client_hears().last().unwrap(), "ACK 2.05 2 u block2=1/0/0 =x");
    };
    let mut denied = Story::of_messages();
    begin(&mut denied);
    denied.upstream("NON 2.05 901 t observe=4 =secret");
    denied.client("CON GET 3 v /channels/1/messages block2=1/0/0");
    assert_eq!(denied.client_hears(), ["ACK 4.02 3 v"]);
    let mut ended = Story::of_messages();
    begin(&mut ended);
    ended.client("RST 0.00 900 -").client("CON GET 3 v /channels/1/messages block2=1/0/0");
    assert_eq!(ended.client_hears(), ["ACK 4.02 3 v"]);
}

#[test]
fn fetching_does_not_prolong_what_may_be_fetched() {
    let mut story = Story::new();
    story.client("CON GET 1 t /a").upstream("ACK 2.05 1 t block2=0/1/0 =0123456789abcdef");
    for id in 2..5 {
        story.pass(MINUTE).client(&format!("CON GET {id} t /a block2={}/0/0", id - 1));
        story.upstream(&format!("ACK 2.05 {id} t block2={}/1/0 =0123456789abcdef", id - 1));
    }
    assert_eq!(story.asked().len(), 1);
    story.pass(68 * SECOND).client("CON GET 5 t /a block2=4/0/0");
    assert_eq!(story.asked().len(), 1);
}

#[test]
fn rest_of_a_response_is_asked_about_when_the_answer_is_no_longer_good() {
    let mut story = Story::new();
    story.client("CON GET 1 t /short").upstream("ACK 2.05 1 t block2=0/1/0 =0123456789abcdef");
    story.pass(6 * SECOND).client("CON GET 2 t /short block2=1/0/0");
    story.upstream("ACK 2.05 2 t block2=1/1/0 =0123456789abcdef");
    assert_eq!(story.asked().len(), 1);
    story.pass(6 * SECOND).client("CON GET 3 t /short block2=2/0/0");
    assert_eq!(story.asked().len(), 1);
    let mut old = Story::new();
    old.client("CON GET 1 t /changing");
    old.seen.has_changed.store(true, Ordering::Relaxed);
    old.input(Input::Reauthorize);
    old.upstream("ACK 2.05 1 t block2=0/1/0 =0123456789abcdef").client_hears();
    old.client("CON GET 2 t /changing block2=1/0/0");
    assert_eq!(old.client_hears(), ["ACK 4.03 2 t"]);
}

#[test]
fn later_block_begins_no_observation_and_brings_no_payload() {
    let mut story = Story::with(|gate, _| gate.limits.subscriptions = 1);
    story.client("CON GET 1 t /a").upstream("ACK 2.05 1 t block2=0/1/0 =0123456789abcdef");
    story.asked();
    story.client("CON GET 2 u /a observe=0 block2=1/0/0").upstream("ACK 2.05 2 u observe=1");
    story.client("CON GET 3 v /a observe=0 block2=1/0/0");
    assert_eq!(story.asked(), ["guest observe GET /a ", "guest observe GET /a "]);
    assert_eq!(story.client_hears().last().unwrap(), "ACK 4.29 3 v max-age=1");
    let mut story = Story::of_messages();
    story.client("CON POST 1 t /channels/1/messages =1");
    story.upstream("ACK 2.04 1 t block2=0/1/0 =0123456789abcdef").client_hears();
    story.client("CON POST 2 t /channels/1/messages block2=1/0/0 =secret");
    assert_eq!(story.client_hears(), ["ACK 4.03 2 t"]);
    story.client("CON POST 3 t /channels/1/messages block2=1/0/0");
    assert_eq!(story.upstream_hears().last().unwrap(), "CON POST 3 t /channels/1/messages block2=1/0/0");
    assert_eq!(story.mirrored().len(), 1, "a request for the rest of an answer publishes nothing");
}

#[test]
fn later_block_of_a_body_is_what_the_first_was() {
    let mut story = Story::with(|gate, _| gate.limits.subscriptions = 1);
    story.client("CON FETCH 1 t /a block1=0/1/0 =0123456789abcdef").upstream("ACK 2.31 1 t block1=0/1/0");
    story.client_hears();
    story.client("CON FETCH 2 t /a observe=0 block1=1/0/0 =x");
    assert_eq!(story.client_hears(), ["ACK 4.08 2 t"]);
    for (id, token) in [(3, "u"), (5, "v")] {
        story.client(&format!("CON FETCH {id} {token} /{token} observe=0 block1=0/1/0 =0123456789abcdef"));
        story.upstream(&format!("ACK 2.31 {id} {token} block1=0/1/0"));
    }
    story.client_hears();
    story.client("CON FETCH 4 u /u observe=0 block1=1/0/0 =x").upstream("ACK 2.05 4 u observe=1");
    story.client("CON FETCH 6 v /v observe=0 block1=1/0/0 =x");
    assert_eq!(story.client_hears(), ["ACK 2.05 4 u observe=1", "ACK 4.29 6 v max-age=1"]);
}

#[test]
fn transfers_at_a_time_are_bounded() {
    let mut story = Story::new();
    (0..5)
        .for_each(|id| _ = story.client(&format!("CON PUT {id} t{id} /{id} block1=0/1/0 =0123456789abcdef")));
    story.pass(11 * SECOND).client_hears();
    story.client("CON PUT 10 t /0 block1=1/0/0 =x").client("CON PUT 11 t /4 block1=1/0/0 =x");
    assert_eq!(story.client_hears(), ["ACK 4.08 10 t"]);
}

fn send(story: &mut Story, blocks: &[(u32, u8, &str)]) {
    for (id, (number, more, payload)) in (1..).zip(blocks) {
        story.client(&format!("CON POST {id} t /channels/1/messages block1={number}/{more}/0 ={payload}"));
    }
}
