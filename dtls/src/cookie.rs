//! Cookies that a server makes and checks without keeping state (RFC 6347 §4.2.1).

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ring::{digest, hmac};

use crate::client_hello::ClientHello;
use crate::record::{ContentType, HEADER_LENGTH, MAX_SEQUENCE, Version};

/// Makes cookies, and knows those that it made with this secret and the one before.
pub struct Cookies {
    current: hmac::Key,
    previous: hmac::Key,
}

impl Cookies {
    /// Cookies of a random secret.
    pub fn new(secret: &[u8; 32]) -> Self {
        let current = hmac::Key::new(hmac::HMAC_SHA256, secret);
        Self { previous: current.clone(), current }
    }

    /// Makes cookies with another secret from now on; those of the last one stay good until the next renewal.
    pub fn renew(&mut self, secret: &[u8; 32]) {
        let current = hmac::Key::new(hmac::HMAC_SHA256, secret);
        self.previous = std::mem::replace(&mut self.current, current);
    }

    /// The cookie of a client at `address` that says hello; another hello, or another address, has another.
    pub fn of(&self, address: SocketAddr, hello: &ClientHello<'_>) -> [u8; COOKIE_LENGTH] {
        let tag = hmac::sign(&self.current, digest(address, hello).as_ref());
        let mut cookie = [0; COOKIE_LENGTH];
        cookie.copy_from_slice(tag.as_ref());
        cookie
    }

    /// Whether the client's hello has the cookie that it was given; it takes the same time wherever they differ.
    pub fn is_good(&self, address: SocketAddr, hello: &ClientHello<'_>) -> bool {
        let digest = digest(address, hello);
        [&self.current, &self.previous]
            .into_iter()
            .any(|key| hmac::verify(key, digest.as_ref(), hello.cookie).is_ok())
    }
}

impl fmt::Debug for Cookies {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Cookies").finish_non_exhaustive()
    }
}

/// Appends the record of a HelloVerifyRequest, the answer to a hello without a good cookie.
///
/// It has the number of the hello's record, and that of the hello (RFC 6347 §4.2.1, §4.2.2).
pub fn hello_verify_request(
    record_sequence: u64,
    message_sequence: u16,
    cookie: &[u8; COOKIE_LENGTH],
    out: &mut Vec<u8>,
) {
    // RFC 6347 §4.2.1: whatever is agreed on later
    let version = (Version::Dtls10 as u16).to_be_bytes();
    out.reserve(HEADER_LENGTH + HANDSHAKE_HEADER_LENGTH + BODY_LENGTH);
    out.push(ContentType::Handshake as u8);
    out.extend_from_slice(&version);
    out.extend_from_slice(&(record_sequence & MAX_SEQUENCE).to_be_bytes());
    out.extend_from_slice(&[0, (HANDSHAKE_HEADER_LENGTH + BODY_LENGTH) as u8]);
    out.extend_from_slice(&[HELLO_VERIFY_REQUEST, 0, 0, BODY_LENGTH as u8]);
    out.extend_from_slice(&message_sequence.to_be_bytes());
    out.extend_from_slice(&[0, 0, 0, 0, 0, BODY_LENGTH as u8]);
    out.extend_from_slice(&version);
    out.push(COOKIE_LENGTH as u8);
    out.extend_from_slice(cookie);
}

/// Of what is authenticated: so the parts of a hello need not be put together.
fn digest(address: SocketAddr, hello: &ClientHello<'_>) -> digest::Digest {
    let mut context = digest::Context::new(&digest::SHA256);
    match address.ip() {
        IpAddr::V4(ip) => {
            context.update(&[4]);
            context.update(&ip.octets());
        }
        IpAddr::V6(ip) => {
            context.update(&[6]);
            context.update(&ip.octets());
        }
    }
    context.update(&address.port().to_be_bytes());
    for part in hello.constant_parts() {
        context.update(part);
    }
    context.finish()
}

/// The length of a cookie; any client takes 32 bytes (RFC 4347 §4.2.1).
const COOKIE_LENGTH: usize = 32;

const HELLO_VERIFY_REQUEST: u8 = 3;
const HANDSHAKE_HEADER_LENGTH: usize = 12;
const BODY_LENGTH: usize = 3 + COOKIE_LENGTH;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client_hello::tests::{body, message};
    use crate::record::records;

    #[test]
    fn a_cookie_is_good_for_the_client_that_got_it() {
        let cookies = Cookies::new(&[1; 32]);
        let cookie = cookies.of(address(DEVICE), &hello(&message(&body(b"id", b"", &[]))));
        let again = message(&body(b"id", &cookie, &[]));
        assert!(cookies.is_good(address(DEVICE), &hello(&again)));
        for other in ["192.0.2.1:5001", "192.0.2.2:5000", "[2001:db8::1]:5000", "[::ffff:192.0.2.1]:5000"] {
            assert!(!cookies.is_good(address(other), &hello(&again)), "{other}");
        }
    }

    #[test]
    fn a_cookie_is_good_for_the_hello_that_it_answered() {
        let cookies = Cookies::new(&[1; 32]);
        let cookie = cookies.of(address(DEVICE), &hello(&message(&body(b"id", b"", &[]))));
        let good = message(&body(b"id", &cookie, &[]));
        let cookie_at = 12 + 2 + 32 + 3;
        // version, random, session id, suites; RFC 6347 §4.2.1 does not name extensions
        for at in [13, 14, 45, 47, cookie_at + 33 + 3] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(!cookies.is_good(address(DEVICE), &hello(&bad)), "{at}");
        }
        let extended = message(&body(b"id", &cookie, &[0, 4, 0, 23, 0, 0]));
        assert!(cookies.is_good(address(DEVICE), &hello(&extended)));
    }

    #[test]
    fn any_other_cookie_is_refused() {
        let cookies = Cookies::new(&[1; 32]);
        let cookie = cookies.of(address(DEVICE), &hello(&message(&body(b"", b"", &[]))));
        let mut bad = vec![vec![], cookie[..31].to_vec(), [&cookie[..], &[0]].concat(), vec![0; 32]];
        for bit in 0..cookie.len() * 8 {
            let mut changed = cookie.to_vec();
            changed[bit / 8] ^= 1 << (bit % 8);
            bad.push(changed);
        }
        for cookie in bad {
            let again = message(&body(b"", &cookie, &[]));
            assert!(!cookies.is_good(address(DEVICE), &hello(&again)), "{cookie:?}");
        }
    }

    #[test]
    fn a_cookie_stays_good_for_one_renewal() {
        let mut cookies = Cookies::new(&[1; 32]);
        let first = message(&body(b"", b"", &[]));
        let cookie = cookies.of(address(DEVICE), &hello(&first));
        let again = message(&body(b"", &cookie, &[]));
        cookies.renew(&[2; 32]);
        assert_ne!(cookies.of(address(DEVICE), &hello(&first)), cookie);
        assert!(cookies.is_good(address(DEVICE), &hello(&again)));
        cookies.renew(&[3; 32]);
        assert!(!cookies.is_good(address(DEVICE), &hello(&again)));
    }

    #[test]
    fn a_hello_verify_request_has_the_numbers_of_the_hello() {
        let mut out = Vec::new();
        hello_verify_request(0x0102_0304_0506, 0x0708, &[9; 32], &mut out);
        let head = [
            22, 0xfe, 0xff, 0, 0, 1, 2, 3, 4, 5, 6, 0, 47, 3, 0, 0, 35, 7, 8, 0, 0, 0, 0, 0, 35, 0xfe, 0xff,
            32,
        ];
        assert_eq!(out, [&head[..], &[9; 32]].concat());
        assert_eq!(records(&out, 0).next().unwrap().whole, 0..out.len());
    }

    #[test]
    fn the_answer_is_smaller_than_the_smallest_hello() {
        let mut out = Vec::new();
        hello_verify_request(0, 0, &[9; 32], &mut out);
        assert!(out.len() <= HEADER_LENGTH + message(&body(b"", b"", &[])).len() - 2);
    }

    fn hello(message: &[u8]) -> ClientHello<'_> {
        ClientHello::parse(message).unwrap()
    }

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    const DEVICE: &str = "192.0.2.1:5000";
}
