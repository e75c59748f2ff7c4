//! The trace that a message belongs to.

use mgate_proxy::gate::Notes;

use super::random;

/// What is said about the trace. W3C Trace Context §3
pub(super) struct TraceContext<'a> {
    parent: [u8; PARENT_LEN],
    state: Option<&'a str>,
}

impl<'a> TraceContext<'a> {
    /// What the sender says, where that is valid; otherwise a new trace, which is to be recorded.
    pub(super) fn of(notes: &Notes<'a>) -> Self {
        match notes.traceparent.and_then(valid_parent) {
            Some(parent) => Self { parent, state: notes.tracestate.filter(|state| is_state(state)) },
            None => Self { parent: new_parent(), state: None },
        }
    }

    pub(super) fn parent(&self) -> &str {
        str::from_utf8(&self.parent).unwrap_or_default()
    }

    pub(super) fn parent_bytes(&self) -> &[u8; PARENT_LEN] {
        &self.parent
    }

    pub(super) fn state(&self) -> Option<&'a str> {
        self.state
    }
}

/// A parent as version 00 writes it: of later versions, what is known of them. W3C Trace Context §3.2.4
fn valid_parent(text: &str) -> Option<[u8; PARENT_LEN]> {
    let (known, more) = text.as_bytes().split_first_chunk::<PARENT_LEN>()?;
    let mut parent = *known;
    let is_hex = |part: &[u8]| part.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let is_id = |part: &[u8]| is_hex(part) && part.iter().any(|byte| *byte != b'0');
    let (version, trace, span, flags) = (&known[..2], &known[3..35], &known[36..52], &known[53..]);
    let has_dashes = [2, 35, 52].iter().all(|at| known[*at] == b'-');
    let has_known_end = more.is_empty() || version != b"00" && more[0] == b'-';
    if !(has_dashes && is_hex(version) && version != b"ff" && is_id(trace) && is_id(span) && is_hex(flags)) {
        return None;
    }
    if version != b"00" {
        parent[..2].copy_from_slice(b"00");
        let is_sampled = matches!(parent[54], b'1' | b'3' | b'5' | b'7' | b'9' | b'b' | b'd' | b'f');
        parent[53..].copy_from_slice(if is_sampled { b"01" } else { b"00" });
    }
    has_known_end.then_some(parent)
}

fn new_parent() -> [u8; PARENT_LEN] {
    let mut parent = *b"00-00000000000000000000000000000000-0000000000000000-01";
    // neither identifier may be zero. W3C Trace Context §3.2.2.3, §3.2.2.4
    let [high, low, span] = random::numbers();
    parent[3..19].copy_from_slice(&random::hex(high | 1));
    parent[19..35].copy_from_slice(&random::hex(low));
    parent[36..52].copy_from_slice(&random::hex(span | 1));
    parent
}

/// Whether it is short enough to be passed on, and has nothing in it that could not stand in a header.
/// W3C Trace Context §3.3.1
fn is_state(state: &str) -> bool {
    let is_printable = |byte: u8| (b' '..0x7f).contains(&byte);
    (1..=MAX_STATE_BYTES).contains(&state.len()) && state.bytes().all(is_printable) && state.trim() == state
}

/// `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`
pub(super) const PARENT_LEN: usize = 55;

/// W3C Trace Context §3.3.1.5
const MAX_STATE_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_context_is_passed_on() {
        for (given, expected) in [
            (PARENT, PARENT),
            (
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
            ),
            ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03-more", PARENT),
            ("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", PARENT),
            (
                "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-f0",
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
            ),
        ] {
            let context = TraceContext::of(&notes(given, "a=1,b=2"));
            assert_eq!((context.parent(), context.state()), (expected, Some("a=1,b=2")));
        }
    }

    #[test]
    fn invalid_context_is_replaced() {
        for given in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "0x-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0g",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.",
            "00-4bf92f3577b34da6a3ce929d0e0e47\r\n-00f067aa0ba902b7-01",
        ] {
            let context = TraceContext::of(&notes(given, "a=1"));
            assert!(valid_parent(context.parent()).is_some(), "{given}");
            assert_ne!(context.parent().get(..54), given.get(..54));
            assert_eq!(context.state(), None);
        }
    }

    #[test]
    fn new_traces_differ() {
        let [one, two] = [(); 2].map(|()| TraceContext::of(&Notes::default()));
        assert_ne!(one.parent()[3..35], two.parent()[3..35]);
        assert_ne!(one.parent()[36..52], two.parent()[36..52]);
        assert!(one.parent().ends_with("-01"));
    }

    #[test]
    fn state_that_is_no_header_is_left_out() {
        for state in ["", "a=1\r\nX: y", "a=ü", " a=1", &"a".repeat(513)] {
            assert_eq!(TraceContext::of(&notes(PARENT, state)).state(), None);
        }
    }

    fn notes<'a>(traceparent: &'a str, tracestate: &'a str) -> Notes<'a> {
        Notes { traceparent: Some(traceparent), tracestate: Some(tracestate), ..Notes::default() }
    }

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
}
