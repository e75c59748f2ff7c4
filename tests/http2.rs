//! Frames of HTTP/2 that no good client sends: what is said to them, by which rule, and that nothing grows.

mod support;

use support::http2::{
    ACK, CANCEL, COMPRESSION_ERROR, CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, GOAWAY, HAS_PRIORITY, HEADERS, Http2, PADDED, PING, PRIORITY,
    PROTOCOL_ERROR, PUSH_PROMISE, REFUSED_STREAM, RST_STREAM, SETTINGS, STREAM_CLOSED, WINDOW_UPDATE, block,
    frame, setting,
};
use support::peer::Upstream;
use support::service::{Service, answer};
use support::{ACL, Files, Mgate};

/// What is said to frames, at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// The head of an answer with this status.
    Answer(u16),
    /// The connection ends, and this is why.
    End(u32),
    /// It ends without a word.
    Gone,
    /// A ping that was sent behind them is answered.
    Ignored,
    /// The stream ends, and this is why.
    Reset(u32),
}

use Verdict::{Answer, End, Gone, Ignored, Reset};

/// What is sent, by section of RFC 9113 or 7541, and what may be said to it.
type Case = (&'static str, Vec<u8>, &'static [Verdict]);

#[test]
fn frames_are_what_they_must_be() {
    let stage = Stage::start();
    let ping = |flags, stream| frame(PING, flags, stream, PAYLOAD);
    stage.check(vec![
        ("4.1 unknown type", frame(0x16, 0, 0, b"what"), &[Ignored]),
        ("4.1 unknown flags", ping(0x16, 0), &[Ignored]),
        ("4.1 reserved bit", ping(0, 1 << 31), &[Ignored]),
        ("4.2 large DATA", [get(1, END_HEADERS), frame(DATA, 0, 1, &[0; 16_385])].concat(), SIZE),
        ("4.2 large HEADERS", frame(HEADERS, END_HEADERS, 1, &[0; 16_385]), SIZE),
        ("5.5 unknown type within a head", [get(1, 0), frame(0x16, 0, 1, b"")].concat(), PROTOCOL),
        ("6.1 DATA on 0", frame(DATA, 0, 0, b"x"), PROTOCOL),
        ("6.1 too much padding", [post(1), frame(DATA, PADDED, 1, &[6, 1, 2])].concat(), PROTOCOL),
        ("6.2 HEADERS on 0", get(0, END_HEADERS), PROTOCOL),
        ("6.2 too much padding", frame(HEADERS, PADDED | END_HEADERS, 1, &[9, 0x82]), PROTOCOL),
        ("6.3 PRIORITY on 0", frame(PRIORITY, 0, 0, &[0, 0, 0, 0, 1]), PROTOCOL),
        ("6.3 short PRIORITY", frame(PRIORITY, 0, 1, &[0; 4]), SIZE),
        ("6.4 RST_STREAM on 0", frame(RST_STREAM, 0, 0, &[0; 4]), PROTOCOL),
        ("6.4 short RST_STREAM", [post(1), frame(RST_STREAM, 0, 1, &[0; 3])].concat(), SIZE),
        ("6.6 PUSH_PROMISE", frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2]), PROTOCOL),
        ("6.7 PING", ping(0, 0), &[Ignored]),
        ("6.7 PING on a stream", ping(0, 1), PROTOCOL),
        ("6.7 short PING", frame(PING, 0, 0, &[0; 6]), SIZE),
        ("6.8 GOAWAY on a stream", frame(GOAWAY, 0, 1, &[0; 8]), PROTOCOL),
        ("6.9 short WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 0, &[0, 0, 1]), SIZE),
    ]);
}

#[test]
fn settings_are_what_they_must_be() {
    let stage = Stage::start();
    let one = |name, value| frame(SETTINGS, 0, 0, &setting(name, value));
    stage.check(vec![
        ("6.5 ACK with settings", frame(SETTINGS, ACK, 0, &[0; 6]), SIZE),
        ("6.5 on a stream", frame(SETTINGS, 0, 1, b""), PROTOCOL),
        ("6.5 half a setting", frame(SETTINGS, 0, 0, &[0; 3]), SIZE),
        ("6.5.2 ENABLE_PUSH", one(2, 2), PROTOCOL),
        ("6.5.2 INITIAL_WINDOW_SIZE", one(4, 1 << 31), &[End(FLOW_CONTROL_ERROR), End(PROTOCOL_ERROR)]),
        ("6.5.2 small MAX_FRAME_SIZE", one(5, 16_383), PROTOCOL),
        ("6.5.2 large MAX_FRAME_SIZE", one(5, 1 << 24), PROTOCOL),
        ("6.5.2 unknown", one(0xff, 1), &[Ignored]),
        ("3.4 no preface", Vec::new(), &[Ignored]),
    ]);
    let mut client = Http2::connected(&stage.files, stage.mgate.address());
    let acknowledged =
        std::iter::from_fn(|| client.next()).find(|frame| frame.kind == SETTINGS && frame.flags == ACK);
    assert!(acknowledged.is_some(), "settings are acknowledged");
}

#[test]
fn streams_go_through_their_states() {
    let stage = Stage::start();
    let open = || get(1, END_HEADERS | END_STREAM);
    let reset = |stream| frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes());
    stage.check(vec![
        ("5.1 idle: DATA", frame(DATA, 0, 1, b"x"), PROTOCOL),
        ("5.1 idle: RST_STREAM", reset(1), PROTOCOL),
        ("5.1 idle: WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]), PROTOCOL),
        ("5.1 idle: CONTINUATION", frame(CONTINUATION, END_HEADERS, 1, b""), PROTOCOL),
        ("5.1 closed: DATA", [post(1), reset(1), frame(DATA, 0, 1, b"x")].concat(), CLOSED),
        ("5.1 half closed: DATA", [open(), frame(DATA, 0, 1, b"x")].concat(), CLOSED),
        ("5.1 half closed: HEADERS", [open(), open()].concat(), CLOSED),
        ("5.1.1 even", get(2, END_HEADERS | END_STREAM), PROTOCOL),
        ("5.1.1 lower than before", [post(5), post(3)].concat(), CLOSED),
        ("8.1 trailers without an end", [post(1), post(1)].concat(), PROTOCOL),
        ("6.2 other frame within a head", [get(1, 0), frame(PRIORITY, 0, 1, &[0; 5])].concat(), PROTOCOL),
        ("6.2 other stream within a head", [get(1, 0), get(3, END_HEADERS)].concat(), PROTOCOL),
        ("6.10 on 0", [get(1, 0), frame(CONTINUATION, END_HEADERS, 0, b"")].concat(), PROTOCOL),
        ("6.10 behind a head", [post(1), frame(CONTINUATION, END_HEADERS, 1, b"")].concat(), PROTOCOL),
        (
            "6.10 pieces of a head",
            [get(1, END_STREAM), frame(CONTINUATION, 0, 1, b""), frame(CONTINUATION, END_HEADERS, 1, b"")]
                .concat(),
            &[Answer(200)],
        ),
        ("6.2 priority", priority(0), &[Answer(200)]),
    ]);
}

#[test]
fn windows_stay_within_their_bounds() {
    let stage = Stage::start();
    let window = |stream, by: u32| frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes());
    let most = (1 << 31) - 1;
    stage.check(vec![
        ("6.9 by 0", window(0, 0), PROTOCOL),
        ("6.9 by 0, of a stream", [post(1), window(1, 0)].concat(), PROTOCOL),
        ("6.9.1 too large", [window(0, most), window(0, most)].concat(), &[End(FLOW_CONTROL_ERROR)]),
        ("6.9.1 too large, of a stream", [post(1), window(1, most)].concat(), FLOW),
        (
            "6.9.2 too large by a setting",
            [post(1), window(1, most - 65_535), frame(SETTINGS, 0, 0, &setting(4, 65_536))].concat(),
            &[End(FLOW_CONTROL_ERROR)],
        ),
    ]);
    // one byte at a time
    let mut client = Http2::connected(&stage.files, stage.mgate.address());
    client.send(SETTINGS, 0, 0, &setting(4, 1));
    client.raw(&get(1, END_HEADERS | END_STREAM));
    let mut body = Vec::new();
    while body != b"ok" {
        let data = client.wait_for(DATA);
        assert!(data.payload.len() <= 1, "{data:?}");
        body.extend(data.payload);
        client.raw(&window(1, 1));
    }
}

#[test]
fn more_than_fits_into_a_window_ends_the_connection() {
    // nobody reads there
    let (away, body) = (Upstream::start(), frame(DATA, 0, 1, &[b'x'; 16_384]).repeat(1000));
    Stage::leading_to(away.port()).check(vec![("6.9.1", [post(1), body].concat(), FLOW)]);
}

#[test]
fn heads_are_what_they_must_be() {
    let stage = Stage::start();
    let with = |more: &[(&str, &str)]| {
        let head = [&PSEUDO[..], more].concat();
        frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&head))
    };
    let without = |name: &str| {
        let head: Vec<_> = PSEUDO.into_iter().filter(|(one, _)| *one != name).collect();
        frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&head))
    };
    let sized = |length: &str, body: &[u8]| {
        let head = [&PSEUDO[..], &[("content-length", length)]].concat();
        [frame(HEADERS, END_HEADERS, 1, &block(&head)), frame(DATA, END_STREAM, 1, body)].concat()
    };
    let trailers = |fields: &[(&str, &str)]| {
        [post(1), frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(fields))].concat()
    };
    stage.check(vec![
        ("8.2 capital letters", with(&[("X-Test", "1")]), PROTOCOL),
        ("8.2.1 a line in a value", with(&[("x-test", "1\r\nx: y")]), MALFORMED),
        ("8.2.1 a space in a name", with(&[("x test", "1")]), MALFORMED),
        ("8.2.2 Connection", with(&[("connection", "keep-alive")]), MALFORMED),
        ("8.2.2 Transfer-Encoding", with(&[("transfer-encoding", "chunked")]), MALFORMED),
        ("8.2.2 Upgrade", with(&[("upgrade", "websocket")]), MALFORMED),
        ("8.2.2 TE", with(&[("te", "trailers, deflate")]), MALFORMED),
        ("8.2.2 TE: trailers", with(&[("te", "trailers")]), &[Answer(200)]),
        ("8.3 unknown", with(&[(":test", "1")]), PROTOCOL),
        ("8.3 of an answer", with(&[(":status", "200")]), PROTOCOL),
        ("8.3 behind others", with(&[("x-test", "1"), (":path", "/any/b")]), PROTOCOL),
        // they are dropped: what the upstream gets has trailers without names of this kind
        ("8.3 in trailers", trailers(&[(":path", "/any/b")]), &[Answer(200), Reset(PROTOCOL_ERROR)]),
        ("8.3.1 no method", without(":method"), MALFORMED),
        ("8.3.1 no scheme", without(":scheme"), MALFORMED),
        ("8.3.1 no path", without(":path"), MALFORMED),
        ("8.3.1 no authority", without(":authority"), MALFORMED),
        ("8.3.1 empty path", empty_path(), MALFORMED),
        ("8.3.1 method twice", with(&[(":method", "GET")]), PROTOCOL),
        ("8.3.1 scheme twice", with(&[(":scheme", "https")]), PROTOCOL),
        ("8.3.1 path twice", with(&[(":path", "/any/a")]), PROTOCOL),
        ("8.3.1 another host", with(&[("host", "b")]), MALFORMED),
        ("8.1.1 more than said", sized("1", b"two"), PROTOCOL),
        ("8.1.1 less than said", sized("9", b"two"), PROTOCOL),
        ("8.1.1 as much as said", sized("3", b"two"), &[Answer(200)]),
        ("8.5 CONNECT", connect(), &[Answer(501), Answer(400), Reset(PROTOCOL_ERROR)]),
    ]);
}

#[test]
fn compression_is_what_it_must_be() {
    let stage = Stage::start();
    let head = |bytes: &[u8]| frame(HEADERS, END_HEADERS | END_STREAM, 1, bytes);
    let behind = |bytes: &[u8]| head(&[&block(&PSEUDO), bytes].concat());
    stage.check(vec![
        ("6.1 index 0", head(&[0x80]), COMPRESSION),
        ("6.1 index of nothing", head(&[0xff, 0x00]), COMPRESSION),
        ("5.1 integer without an end", head(&[0xff; 20]), COMPRESSION),
        ("5.2 text without an end", head(&[0x00, 0x7f, 0x80]), COMPRESSION),
        ("5.2 padding of 8 bits", behind(&[0x00, 0x01, b'x', 0x82, 0x1f, 0xff]), COMPRESSION),
        ("5.2 padding of zeros", behind(&[0x00, 0x01, b'x', 0x81, 0x18]), COMPRESSION),
        ("5.2 end of text", behind(&[0x00, 0x01, b'x', 0x84, 0xff, 0xff, 0xff, 0xff]), COMPRESSION),
        ("4.2 size at the end", behind(&[0x20]), COMPRESSION),
        ("6.3 too large a table", head(&[&[0x3f, 0xe2, 0x1f], &block(&PSEUDO)[..]].concat()), COMPRESSION),
    ]);
}

#[test]
fn requests_at_a_time_are_counted() {
    let stage = Stage::start();
    let mut client = Http2::connected(&stage.files, stage.mgate.address());
    let settings = client.wait_for(SETTINGS).payload;
    let most = settings.chunks(6).find(|setting| setting[..2] == [0, 3]).expect("a limit is said");
    let most = u32::from_be_bytes(most[2..].try_into().unwrap());
    for number in 0..=most {
        client.raw(&post(1 + 2 * number));
    }
    let refused = client.wait_for(RST_STREAM);
    assert_eq!(refused.stream, 1 + 2 * most);
    let code = u32::from_be_bytes(refused.payload.try_into().unwrap());
    assert!([REFUSED_STREAM, PROTOCOL_ERROR].contains(&code), "{code}");
}

#[test]
fn floods_end_the_connection() {
    // nobody answers there
    let away = Upstream::start();
    let stage = Stage::leading_to(away.port());
    let continued = [get(1, 0), frame(CONTINUATION, 0, 1, b"").repeat(100_000)].concat();
    let long =
        [get(1, 0), frame(CONTINUATION, 0, 1, &block(&[("x", &"y".repeat(100))])).repeat(10_000)].concat();
    let reset = |number: u32| {
        let stream = 1 + 2 * number;
        [get(stream, END_HEADERS | END_STREAM), frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())].concat()
    };
    let bad = |number: u32| {
        let head = [&PSEUDO[..], &[("connection", "x")]].concat();
        frame(HEADERS, END_HEADERS | END_STREAM, 1 + 2 * number, &block(&head))
    };
    let before = stage.mgate.resident_kib();
    stage.check(vec![
        ("CONTINUATION without bytes", continued, CALM),
        ("CONTINUATION without an end", long, CALM),
        ("requests taken back", (0..5000).flat_map(reset).collect(), CALM),
        ("requests that are none", (0..5000).flat_map(bad).collect(), CALM),
        ("DATA without bytes", [post(1), frame(DATA, 0, 1, b"").repeat(100_000)].concat(), CALM),
    ]);
    let grown = stage.mgate.resident_kib().saturating_sub(before);
    assert!(grown < 8 * 1024, "{grown} KiB");
}

#[test]
fn who_asks_for_answers_and_does_not_read_them_is_let_go() {
    let stage = Stage::start();
    for (what, flood) in
        [("PING", frame(PING, 0, 0, PAYLOAD)), ("SETTINGS", frame(SETTINGS, 0, 0, &setting(4, 65_535)))]
    {
        let before = stage.mgate.resident_kib();
        let mut client = Http2::connected(&stage.files, stage.mgate.address());
        let flood = flood.repeat(1000);
        // it is not read from any more when its answers are not taken, and closed then
        while client.try_raw(&flood).is_ok() {}
        let grown = stage.mgate.resident_kib().saturating_sub(before);
        assert!(grown < 8 * 1024, "{what}: {grown} KiB");
    }
}

#[test]
fn body_that_comes_behind_a_refusal_is_taken() {
    let stage = Stage::leading_to(1);
    let mut client = Http2::connected(&stage.files, stage.mgate.address());
    let head = PSEUDO.map(|(name, value)| (name, if name == ":path" { "/%zz" } else { value }));
    client.try_raw(&frame(HEADERS, END_HEADERS, 1, &block(&head))).unwrap();
    let mut kinds = Vec::new();
    for flags in [0, END_STREAM] {
        client.try_raw(&frame(PING, 0, 0, LAST)).unwrap();
        loop {
            let frame = client.next().expect("the connection lives");
            kinds.push(frame.kind);
            if frame.kind == HEADERS {
                assert_eq!(status(&frame.payload), 400);
            }
            if frame.kind == PING && frame.payload == LAST {
                break;
            }
        }
        assert!(!kinds.contains(&RST_STREAM) && !kinds.contains(&GOAWAY), "{kinds:?}");
        client.try_raw(&frame(DATA, flags, 1, PAYLOAD)).unwrap();
    }
    assert!(kinds.contains(&HEADERS));
}

/// A gateway that is spoken to in HTTP/2.
struct Stage {
    files: Files,
    mgate: Mgate,
    /// Answers everything.
    _upstream: Option<Service>,
}

impl Stage {
    fn start() -> Self {
        let upstream = Service::saying(answer("200 OK", "text/plain", "ok"));
        let stage = Self::leading_to(upstream.address().port());
        Self { _upstream: Some(upstream), ..stage }
    }

    fn leading_to(upstream: u16) -> Self {
        let files = Files::new(&[("acl.toml", ACL_FILE)]).with_certificates();
        let config = format!(
            "[[route]]\nname = 'web'\nlisten = 'https://127.0.0.1:0'\nupstream = 'http://127.0.0.1:{upstream}'\n\
             policies = ['acl']\ntls = {{ cert = 'localhost.pem', key = 'localhost.key' }}\n\
             limits = {{ stall_timeout = '1s' }}\nhttp = {{ body_bytes = '64MiB' }}\n{ACL}"
        );
        let mgate = Mgate::start(&files, &config);
        Self { files, mgate, _upstream: None }
    }

    /// Sends each on a connection of its own, and says which of them come to something else than they should.
    fn check(&self, cases: Vec<Case>) {
        let wrong = |(what, bytes, expected): Case| {
            let verdict = self.verdict(&bytes, expected.contains(&Ignored));
            (!expected.contains(&verdict)).then(|| format!("{what}: {verdict:?} is none of {expected:?}"))
        };
        let wrong: Vec<_> = cases.into_iter().filter_map(wrong).collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    fn verdict(&self, bytes: &[u8], asks_behind: bool) -> Verdict {
        let mut client = Http2::connected(&self.files, self.mgate.address());
        // it may be closed before it has all of them
        let _ = client.try_raw(bytes);
        if asks_behind {
            let _ = client.try_raw(&frame(PING, 0, 0, LAST));
        }
        while let Some(frame) = client.next() {
            let code = |at: usize| {
                frame.payload[at..at + 4].iter().fold(0, |code, byte| code << 8 | u32::from(*byte))
            };
            match frame.kind {
                GOAWAY => return End(code(4)),
                HEADERS => return Answer(status(&frame.payload)),
                PING if frame.payload == LAST => return Ignored,
                RST_STREAM => return Reset(code(0)),
                _ => {}
            }
        }
        Gone
    }
}

/// The status that a head begins with. RFC 7541 Appendix A
fn status(block: &[u8]) -> u16 {
    match block {
        [index @ 0x88..=0x8e, ..] => [200, 204, 206, 304, 400, 404, 500][usize::from(index - 0x88)],
        [0x48 | 0x08, 0x82, ..] => 501,
        other => panic!("unknown: {other:02x?}"),
    }
}

fn get(stream: u32, flags: u8) -> Vec<u8> {
    frame(HEADERS, flags, stream, &block(&PSEUDO))
}

/// The head of a request whose body is to come.
fn post(stream: u32) -> Vec<u8> {
    get(stream, END_HEADERS)
}

fn priority(weight: u8) -> Vec<u8> {
    let payload = [&[0, 0, 0, 0, weight], &block(&PSEUDO)[..]].concat();
    frame(HEADERS, END_HEADERS | END_STREAM | HAS_PRIORITY, 1, &payload)
}

fn empty_path() -> Vec<u8> {
    let head = PSEUDO.map(|(name, value)| (name, if name == ":path" { "" } else { value }));
    frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&head))
}

fn connect() -> Vec<u8> {
    let head = block(&[(":method", "CONNECT"), (":authority", "a:1")]);
    frame(HEADERS, END_HEADERS, 1, &head)
}

const PSEUDO: [(&str, &str); 4] =
    [(":method", "POST"), (":scheme", "https"), (":path", "/any/a"), (":authority", "a")];

const PAYLOAD: &[u8] = b"whatever";
const LAST: &[u8] = b"the last";

const PROTOCOL: &[Verdict] = &[End(PROTOCOL_ERROR), Reset(PROTOCOL_ERROR)];
/// hyper says PROTOCOL_ERROR where there is a better word; the connection ends all the same.
const SIZE: &[Verdict] = &[End(FRAME_SIZE_ERROR), Reset(FRAME_SIZE_ERROR), End(PROTOCOL_ERROR)];
const CLOSED: &[Verdict] = &[End(STREAM_CLOSED), Reset(STREAM_CLOSED), End(PROTOCOL_ERROR)];
const FLOW: &[Verdict] = &[End(FLOW_CONTROL_ERROR), Reset(FLOW_CONTROL_ERROR)];
const COMPRESSION: &[Verdict] = &[End(COMPRESSION_ERROR), End(PROTOCOL_ERROR)];
const CALM: &[Verdict] = &[End(ENHANCE_YOUR_CALM), Gone];
/// RFC 9113 §8.1.1
const MALFORMED: &[Verdict] = &[Reset(PROTOCOL_ERROR), End(PROTOCOL_ERROR), Answer(400)];

const ACL_FILE: &str = "\
version = 1
[[statements]]
effect     = 'allow'
principals = ['*']
actions    = ['request']
resources  = ['path:/any/#']
";
