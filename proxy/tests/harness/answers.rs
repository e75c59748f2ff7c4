//! What must hold of whatever an upstream says over HTTP/1.1.

use bytes::BytesMut;
use http::{HeaderMap, Method};
use mgate_proxy::http::http1::{AnswerError, Decoder, Framing, Head, MAX_HEAD_BYTES, Part};

/// What was read of an answer.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    headers: HeaderMap,
    framing: Framing,
    may_stay: bool,
    body: Vec<u8>,
    trailers: Option<HeaderMap>,
    /// Whether the body came to its end.
    is_whole: bool,
    /// How many bytes are behind it.
    left: usize,
}

/// Reads an answer: however it comes, it is the same, and has what its head says.
pub(crate) fn check(input: &[u8]) {
    let method = if input.first() == Some(&b'h') { Method::HEAD } else { Method::GET };
    let input = input.get(1..).unwrap_or_default();
    let whole = read(&[input], &method);
    let middle = input.len() / 2;
    assert_eq!(whole, read(&[&input[..middle], &input[middle..]], &method), "in two pieces");
    assert_eq!(whole, read(&input.chunks(1).collect::<Vec<_>>(), &method), "byte by byte");
    if let Ok(Some(answer)) = whole {
        check_answer(&answer, &method, input);
    }
}

fn check_answer(answer: &Answer, method: &Method, input: &[u8]) {
    let Answer { headers, framing, body, .. } = answer;
    assert!(answer.status == 101 || (200..=999).contains(&answer.status));
    assert!(body.len() + answer.left <= input.len(), "nothing is made up");
    match framing {
        Framing::Empty => assert!(body.is_empty()),
        Framing::Length(length) => {
            assert_eq!(headers.get_all("content-length").iter().count(), 1);
            assert_eq!(
                headers["content-length"].to_str().ok().and_then(|text| text.parse().ok()),
                Some(*length)
            );
            assert!(body.len() as u64 <= *length && answer.is_whole == (body.len() as u64 == *length));
        }
        Framing::Chunked => {
            assert_eq!(headers.get_all("transfer-encoding").iter().count(), 1);
            assert!(!answer.may_stay || !headers.contains_key("content-length"));
        }
        Framing::UntilClose => assert!(answer.is_whole && !answer.may_stay && answer.left == 0),
    }
    assert!(*framing == Framing::Empty || *method != Method::HEAD);
    assert!(answer.trailers.is_none() || (*framing == Framing::Chunked && answer.is_whole));
    assert!(headers.values().all(|value| !value.as_bytes().iter().any(|byte| b"\r\n\0".contains(byte))));
}

/// Reads what comes in these pieces, and then no more; `None` if the head is not whole.
fn read(pieces: &[&[u8]], method: &Method) -> Result<Option<Answer>, AnswerError> {
    let (mut input, mut head, mut body, mut trailers) = (BytesMut::new(), None, Vec::new(), None);
    for piece in pieces {
        input.extend_from_slice(piece);
        if head.is_none() {
            head = Head::take(&mut input, method)?.map(|head| (Decoder::new(head.framing), head));
            assert!(head.is_some() || input.len() < MAX_HEAD_BYTES);
        }
        let Some((decoder, _)) = &mut head else { continue };
        while let Some(part) = decoder.take(&mut input)? {
            match part {
                Part::Data(data) => {
                    assert!(!data.is_empty() && trailers.is_none());
                    body.extend_from_slice(&data);
                }
                Part::Trailers(fields) => assert_eq!(trailers.replace(fields), None),
            }
        }
    }
    let Some((mut decoder, head)) = head else { return Ok(None) };
    let is_whole = decoder.close().is_ok();
    let Head { status, headers, framing, may_stay } = head;
    let (status, left) = (status.as_u16(), input.len());
    Ok(Some(Answer { status, headers, framing, may_stay, body, trailers, is_whole, left }))
}
