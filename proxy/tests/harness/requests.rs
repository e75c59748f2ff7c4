//! What must hold of whatever a client says over HTTP/1.1.

use bytes::BytesMut;
use http::{HeaderMap, Version};
use mgate_proxy::http::http1::{
    AnswerError, Bounds, Decoder, Framing, MAX_HEAD_BYTES, Part, RequestError, RequestHead,
};

/// What was read of a connection.
#[derive(Debug, PartialEq, Eq)]
struct Conversation {
    requests: Vec<Request>,
    /// Why nothing more was read; `None` where more may come.
    ended: Option<Ended>,
    /// How many bytes are behind the last request that is whole.
    left: usize,
}

#[derive(Debug, PartialEq, Eq)]
struct Request {
    line: String,
    version: Version,
    headers: HeaderMap,
    framing: Framing,
    may_stay: bool,
    expects_continue: bool,
    body: Vec<u8>,
    trailers: Option<HeaderMap>,
    /// How many bytes there were up to the end of the body, if that came.
    end: Option<usize>,
}

#[derive(Debug, PartialEq, Eq)]
enum Ended {
    Body(AnswerError),
    Head(RequestError),
    /// The connection has no request behind the last one.
    Said,
}

/// Reads requests: however they come, they are the same, have what their heads say, and what is behind one of them is
/// the next one.
pub(crate) fn check(input: &[u8]) {
    let whole = read(&[input]);
    let middle = input.len() / 2;
    assert_eq!(whole, read(&[&input[..middle], &input[middle..]]), "in two pieces");
    assert_eq!(whole, read(&input.chunks(1).collect::<Vec<_>>()), "byte by byte");
    for request in &whole.requests {
        check_request(request);
    }
    let bodies: usize = whole.requests.iter().map(|request| request.body.len()).sum();
    assert!(bodies + whole.left <= input.len(), "nothing is made up");
    if whole.requests.iter().all(|request| request.end.is_some()) && whole.ended.is_none() {
        let rest = read(&[&input[input.len() - whole.left..]]);
        assert!(rest.requests.is_empty() && rest.left == whole.left, "what is left is no request");
    }
    if let Some(first) = whole.requests.first().filter(|first| first.may_stay)
        && let Some(end) = first.end
    {
        check_next(end, &whole, input);
    }
}

fn check_request(request: &Request) {
    let Request { headers, framing, body, .. } = request;
    let count = |name: &str| headers.get_all(name).iter().count();
    match framing {
        Framing::Empty => assert!(body.is_empty() && request.end.is_some() && !request.expects_continue),
        Framing::Length(length) => {
            assert_eq!((count("content-length"), count("transfer-encoding")), (1, 0));
            let said = headers["content-length"].to_str().ok().and_then(|text| text.parse().ok());
            assert_eq!(said, Some(*length));
            assert!(body.len() as u64 <= *length && request.end.is_some() == (body.len() as u64 == *length));
        }
        Framing::Chunked => {
            assert_eq!((count("content-length"), count("transfer-encoding")), (0, 1));
            assert!(headers["transfer-encoding"].as_bytes().eq_ignore_ascii_case(b"chunked"));
            assert_eq!(request.version, Version::HTTP_11);
        }
        Framing::UntilClose => panic!("a request does not end with its connection"),
    }
    assert!(request.trailers.is_none() || (*framing == Framing::Chunked && request.end.is_some()));
    assert!(headers.values().all(|value| !value.as_bytes().iter().any(|byte| b"\r\n\0".contains(byte))));
    assert!(!request.line.bytes().any(|byte| byte.is_ascii_control()));
}

/// From the end of the first request on, all is read as if it had been alone.
fn check_next(end: usize, whole: &Conversation, input: &[u8]) {
    let mut rest = read(&[&input[end..]]);
    for request in &mut rest.requests {
        request.end = request.end.map(|later| end + later);
    }
    assert_eq!(whole.requests[1..], rest.requests);
    assert_eq!((&whole.ended, whole.left), (&rest.ended, rest.left));
}

/// Reads what comes in these pieces.
fn read(pieces: &[&[u8]]) -> Conversation {
    let mut input = BytesMut::new();
    let mut conversation = Conversation { requests: Vec::new(), ended: None, left: 0 };
    let (mut decoder, mut fed) = (None, 0);
    for piece in pieces {
        input.extend_from_slice(piece);
        fed += piece.len();
        while conversation.ended.is_none() {
            let moved = match &mut decoder {
                None => take_head(&mut input, &mut decoder, &mut conversation),
                Some(decoder) => take_part(&mut input, decoder, &mut conversation),
            };
            if !moved {
                break;
            }
            if decoder.as_ref().is_some_and(Decoder::is_over) {
                decoder = None;
                let request = conversation.requests.last_mut().expect("a request");
                request.end = Some(fed - input.len());
                conversation.ended = (!request.may_stay).then_some(Ended::Said);
            }
        }
    }
    if decoder.is_none() && !matches!(conversation.ended, Some(Ended::Head(_) | Ended::Body(_))) {
        conversation.left = input.len();
    }
    conversation
}

fn take_head(input: &mut BytesMut, decoder: &mut Option<Decoder>, conversation: &mut Conversation) -> bool {
    match RequestHead::take(input, BOUNDS) {
        Ok(Some(head)) => {
            let RequestHead { parts, framing, may_stay, expects_continue } = head;
            *decoder = Some(Decoder::new(framing));
            conversation.requests.push(Request {
                line: format!("{} {}", parts.method, parts.uri),
                version: parts.version,
                headers: parts.headers,
                framing,
                may_stay,
                expects_continue,
                body: Vec::new(),
                trailers: None,
                end: None,
            });
            true
        }
        Ok(None) => {
            assert!(input.len() < BOUNDS.bytes);
            false
        }
        Err(error) => {
            conversation.ended = Some(Ended::Head(error));
            false
        }
    }
}

fn take_part(input: &mut BytesMut, decoder: &mut Decoder, conversation: &mut Conversation) -> bool {
    let request = conversation.requests.last_mut().expect("a request");
    match decoder.take(input) {
        Ok(Some(Part::Data(data))) => {
            assert!(!data.is_empty() && request.trailers.is_none());
            request.body.extend_from_slice(&data);
        }
        Ok(Some(Part::Trailers(fields))) => assert_eq!(request.trailers.replace(fields), None),
        Ok(None) => return decoder.is_over(),
        Err(error) => {
            conversation.ended = Some(Ended::Body(error));
            return false;
        }
    }
    true
}

const BOUNDS: Bounds = Bounds { bytes: MAX_HEAD_BYTES, headers: 64 };
