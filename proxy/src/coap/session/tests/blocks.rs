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
        "CON PUT 2 t /b block1=1/0/0 =x",
        "CON POST 2 t /a block1=1/0/0 =x",
        "CON PUT 2 t /a ?q block1=1/0/0 =x",
        "CON PUT 2 t /a block1=1/0/0 tag=7 =x",
        "CON PUT 2 t /a ?auth=goodother block1=1/0/0 =x",
        "CON PUT 2 t /a block1=2/0/0 =x",
    ]
    .iter()
    .enumerate()
    {
        story.client(&other.replace(" 2 ", &format!(" {} ", id + 2)));
        assert_eq!(story.client_hears(), [format!("ACK 4.08 {} t", id + 2)], "{other}");
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
    story.client("CON GET 3 t /b block2=1/0/0");
    assert_eq!(story.asked(), ["guest request GET /b "]);
    story.client("CON GET 4 t /secret block2=1/0/0");
    assert_eq!(story.client_hears().last().unwrap(), "ACK 4.03 4 t");
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
fn transfers_at_a_time_are_bounded() {
    let mut story = Story::new();
    (0..5).for_each(|id| _ = story.client(&format!("CON PUT {id} t /{id} block1=0/1/0 =0123456789abcdef")));
    story.pass(11 * SECOND).client_hears();
    story.client("CON PUT 10 t /0 block1=1/0/0 =x").client("CON PUT 11 t /4 block1=1/0/0 =x");
    assert_eq!(story.client_hears(), ["ACK 4.08 10 t"]);
}

fn send(story: &mut Story, blocks: &[(u32, u8, &str)]) {
    for (id, (number, more, payload)) in (1..).zip(blocks) {
        story.client(&format!("CON POST {id} t /channels/1/messages block1={number}/{more}/0 ={payload}"));
    }
}
