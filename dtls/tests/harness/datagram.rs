//! What must hold for whatever bytes a client sends.

use std::net::{Ipv4Addr, SocketAddr};

use mgate_dtls::{
    ClientHello, ContentType, Cookies, Head, Keys, Suite, hello_verify_request, key_block, records,
};

/// The body of a handshake record; says whether it is a hello.
pub(crate) fn check_client_hello(message: &[u8]) -> bool {
    let Ok(hello) = ClientHello::parse(message) else { return false };
    assert!(hello.connection_id().is_none_or(|id| id.len() <= 255), "a connection id that is too long");
    let cookies = Cookies::new(&[1; 32]);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 5684));
    let cookie = cookies.of(address, &hello);
    assert_eq!(cookies.is_good(address, &hello), hello.cookie == cookie, "only its own cookie is good");

    let mut answer = Vec::new();
    hello_verify_request(0, hello.message_sequence, &cookie, &mut answer);
    assert!(answer.len() <= RECORD_HEADER + message.len(), "an answer larger than the hello");

    let mut bare = Vec::new();
    hello.without_cookie(&mut bare);
    assert_eq!(bare.len() + hello.cookie.len(), hello.body.len(), "only the cookie is left out");
    check_cookie_is_good(&hello, &bare, &cookie, |again| cookies.is_good(address, again));
    true
}

/// A byte of options, one for the length of connection ids, one that says what is changed; then a datagram, which
/// is also what is sealed. Says how many of its records were authentic.
pub(crate) fn check_records(input: &[u8]) -> usize {
    let Some((&[options, cid_length, change], datagram)) = input.split_first_chunk() else { return 0 };
    let cid_length = usize::from(cid_length % 21);
    let keys = keys(Suite::ALL[usize::from(options) % Suite::ALL.len()]);
    let content_type = TYPES[usize::from(options) / Suite::ALL.len() % TYPES.len()];
    check_sealed(&keys, content_type, datagram.split_at(cid_length.min(datagram.len())), change);
    check_opened(&keys, datagram, cid_length)
}

fn check_cookie_is_good(
    hello: &ClientHello<'_>,
    bare: &[u8],
    cookie: &[u8],
    is_good: impl Fn(&ClientHello<'_>) -> bool,
) {
    let (before, after) = bare.split_at(2 + 32 + 1 + hello.session_id.len());
    let body = [before, &[cookie.len() as u8], cookie, &after[1..]].concat();
    let [_, length @ ..] = (body.len() as u32).to_be_bytes();
    let message =
        [&[1][..], &length, &hello.message_sequence.to_be_bytes(), &[0; 3], &length, &body].concat();
    let again = ClientHello::parse(&message).expect("a hello with a cookie is a hello");
    assert!(is_good(&again), "the cookie that it was given");
    assert_eq!(
        (again.version, again.random, again.session_id, again.connection_id()),
        (hello.version, hello.random, hello.session_id, hello.connection_id()),
        "a cookie changes nothing else"
    );
}

fn check_opened(keys: &Keys, original: &[u8], cid_length: usize) -> usize {
    let mut datagram = original.to_vec();
    let (mut at, mut authentic) = (0, 0);
    for record in records(original, cid_length) {
        assert_eq!((record.whole.start, record.body.end), (at, record.whole.end), "no gap between records");
        at = record.whole.end;
        if let Some((content_type, plaintext)) = keys.client.open(&mut datagram, &record) {
            assert_ne!(content_type, ContentType::ConnectionId, "a type within a type");
            assert!(record.body.start <= plaintext.start && plaintext.end <= record.body.end);
            authentic += 1;
        }
        let header = record.whole.start..record.body.start;
        assert_eq!(datagram[header.clone()], original[header], "headers stay");
        assert_eq!(datagram[at..], original[at..], "what comes behind a record stays");
    }
    authentic
}

fn check_sealed(keys: &Keys, content_type: ContentType, (cid, plaintext): (&[u8], &[u8]), change: u8) {
    let head = Head { content_type, epoch: 1, sequence: u64::from(change) << 40 | 7, cid };
    let mut sealed = Vec::new();
    keys.client.seal(&head, plaintext, &mut sealed).expect("an input is short");
    let mut opened = sealed.clone();
    let record = records(&sealed, cid.len()).next().expect("a record");
    assert_eq!((record.epoch, record.sequence, &sealed[record.cid.clone()]), (1, head.sequence, cid));
    let (found, place) = keys.client.open(&mut opened, &record).expect("an authentic record");
    assert_eq!((found, &opened[place]), (content_type, plaintext));

    let at = usize::from(change) * sealed.len() / 256;
    sealed[at] ^= 1 << (change % 8);
    assert_eq!(check_opened(keys, &sealed, cid.len()), 0, "byte {at} was changed");
}

fn keys(suite: Suite) -> Keys {
    let bytes_from = |first: u8| std::array::from_fn(|at| first + at as u8);
    key_block(suite, &std::array::from_fn(|at| at as u8), &bytes_from(0xc0), &bytes_from(0x50))
}

const TYPES: [ContentType; 3] = [ContentType::ApplicationData, ContentType::Alert, ContentType::Handshake];

const RECORD_HEADER: usize = 13;
