//! A client of DTLS 1.2 with a shared key and connection ids, made by hand: it sends what others would not.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use mgate_dtls::{ContentType, Head, Keys, Suite, key_block, records};
use ring::digest::{SHA256, digest};
use ring::hmac;
use ring::rand::SystemRandom;

use super::PATIENCE;

/// A session with mgate.
pub(crate) struct DtlsClient {
    pub(crate) socket: UdpSocket,
    keys: Keys,
    /// What mgate finds the session by; empty without connection ids.
    pub(crate) cid: Vec<u8>,
    own_cid_length: usize,
    sequence: u64,
}

/// How a session is begun.
#[derive(Clone, Copy)]
pub(crate) struct Begin<'a> {
    pub(crate) identity: &'a str,
    pub(crate) key: &'a [u8],
    /// The connection id that mgate is to use; `None` for a client that knows none.
    pub(crate) cid: Option<&'a [u8]>,
}

impl DtlsClient {
    /// Shakes hands with a socket of its own.
    pub(crate) fn connect(to: SocketAddr, begin: Begin<'_>) -> Self {
        Self::connect_by(socket(to), begin)
    }

    /// Shakes hands with a socket that is there.
    pub(crate) fn connect_by(socket: UdpSocket, begin: Begin<'_>) -> Self {
        Handshake::begin(socket, begin).finish(begin)
    }

    /// Sends from another address from now on.
    pub(crate) fn rebind(&mut self) {
        self.socket = socket(self.socket.peer_addr().unwrap());
    }

    pub(crate) fn send(&mut self, message: &[u8]) {
        let record = self.seal(ContentType::ApplicationData, message);
        self.socket.send(&record).unwrap();
    }

    /// A record that is not sent.
    pub(crate) fn seal(&mut self, content_type: ContentType, plaintext: &[u8]) -> Vec<u8> {
        let head = Head { content_type, epoch: 1, sequence: self.sequence, cid: &self.cid };
        self.sequence += 1;
        let mut record = Vec::new();
        self.keys.client.seal(&head, plaintext, &mut record).unwrap();
        record
    }

    /// What mgate says next.
    pub(crate) fn receive(&self) -> Vec<u8> {
        self.next(ContentType::ApplicationData)
    }

    /// The identifier of the ping that mgate sends next.
    pub(crate) fn receive_ping(&self) -> [u8; 2] {
        let ping = self.receive();
        assert!(ping.len() == 4 && ping[..2] == [0x40, 0], "{ping:?} is no ping");
        [ping[2], ping[3]]
    }

    /// Rejects a ping.
    pub(crate) fn reject(&mut self, [high, low]: [u8; 2]) {
        self.send(&[0x70, 0, high, low]);
    }

    /// The alert that mgate sends next: its number.
    pub(crate) fn receive_alert(&self) -> u8 {
        self.next(ContentType::Alert)[1]
    }

    fn next(&self, wanted: ContentType) -> Vec<u8> {
        loop {
            let mut datagram = receive(&self.socket);
            for record in records(&datagram.clone(), self.own_cid_length).filter(|record| record.epoch == 1) {
                let opened = self.keys.server.open(&mut datagram, &record);
                let (content_type, plaintext) = opened.expect("mgate protects its records well");
                if content_type == wanted {
                    return datagram[plaintext].to_vec();
                }
            }
        }
    }
}

/// A handshake up to the client's last flight.
pub(crate) struct Handshake {
    socket: UdpSocket,
    /// All messages since the hello with the cookie. RFC 6347 §4.2.6
    transcript: Vec<u8>,
    /// Numbers of the next record of epoch 0, and of the next message.
    record: u64,
    message: u16,
    random: [u8; 32],
    server_random: [u8; 32],
    cid: Vec<u8>,
}

impl Handshake {
    /// Says hello twice, and hears what mgate has to say to that.
    pub(crate) fn begin(socket: UdpSocket, begin: Begin<'_>) -> Self {
        let mut this = Self {
            socket,
            transcript: Vec::new(),
            record: 0,
            message: 0,
            random: random(),
            server_random: [0; 32],
            cid: Vec::new(),
        };
        this.say(CLIENT_HELLO, &hello(&this.random, &[], begin.cid));
        let verify = this.hear(HELLO_VERIFY_REQUEST).pop().unwrap();
        this.transcript.clear();
        this.say(CLIENT_HELLO, &hello(&this.random, &verify[15..], begin.cid));
        let messages = this.hear(SERVER_HELLO_DONE);
        let hello = &messages.iter().find(|message| message[0] == SERVER_HELLO).unwrap()[12..];
        this.server_random = hello[2..34].try_into().unwrap();
        this.cid = connection_id(hello);
        this
    }

    /// Hears the same once more, as it says nothing.
    pub(crate) fn hear_again(&mut self) {
        self.hear(SERVER_HELLO_DONE);
    }

    /// Names its key, and shows that it has it.
    pub(crate) fn finish(mut self, begin: Begin<'_>) -> DtlsClient {
        let identity = begin.identity.as_bytes();
        self.say(CLIENT_KEY_EXCHANGE, &[&(identity.len() as u16).to_be_bytes(), identity].concat());
        self.send(ContentType::ChangeCipherSpec, &[1]);
        let zeros = vec![0; begin.key.len()];
        let length = (begin.key.len() as u16).to_be_bytes();
        // RFC 4279 §2
        let premaster = [&length[..], &zeros, &length, begin.key].concat();
        let master = prf(&premaster, &[b"master secret", &self.random, &self.server_random], 48);
        let master: [u8; 48] = master.try_into().unwrap();
        let keys = key_block(Suite::from_number(SUITE).unwrap(), &master, &self.random, &self.server_random);
        let verify = |label: &[u8], transcript: &[u8]| {
            prf(&master, &[label, digest(&SHA256, transcript).as_ref()], 12)
        };
        let finished = self.put(FINISHED, &verify(b"client finished", &self.transcript));
        let own_cid_length = begin.cid.unwrap_or_default().len();
        let mut client = DtlsClient { socket: self.socket, keys, cid: self.cid, own_cid_length, sequence: 0 };
        let record = client.seal(ContentType::Handshake, &finished);
        client.socket.send(&record).unwrap();
        let theirs = client.next(ContentType::Handshake);
        assert_eq!(theirs[12..], verify(b"server finished", &self.transcript));
        client
    }

    /// Sends a message in a record of its own.
    fn say(&mut self, kind: u8, body: &[u8]) {
        let message = self.put(kind, body);
        self.send(ContentType::Handshake, &message);
    }

    /// A message, which counts as said.
    fn put(&mut self, kind: u8, body: &[u8]) -> Vec<u8> {
        let length = &(body.len() as u32).to_be_bytes()[1..];
        let sequence = self.message.to_be_bytes();
        let message = [&[kind], length, &sequence, &[0; 3], length, body].concat();
        self.message += 1;
        self.transcript.extend_from_slice(&message);
        message
    }

    fn send(&mut self, content_type: ContentType, contents: &[u8]) {
        let sequence = self.record.to_be_bytes();
        let length = (contents.len() as u16).to_be_bytes();
        let head = [&[content_type as u8, 0xfe, 0xfd], &sequence[..], &length].concat();
        self.record += 1;
        self.socket.send(&[&head, contents].concat()).unwrap();
    }

    /// All messages of mgate up to one of this kind.
    fn hear(&mut self, last: u8) -> Vec<Vec<u8>> {
        let mut heard: Vec<Vec<u8>> = Vec::new();
        while heard.last().is_none_or(|message| message[0] != last) {
            let datagram = receive(&self.socket);
            for record in records(&datagram, 0).filter(|record| record.content_type == ContentType::Handshake)
            {
                let mut rest = &datagram[record.body];
                while !rest.is_empty() {
                    let length = usize::from(u16::from_be_bytes([rest[10], rest[11]]));
                    let (message, others) = rest.split_at(12 + length);
                    self.transcript.extend_from_slice(message);
                    heard.push(message.to_vec());
                    rest = others;
                }
            }
        }
        heard
    }
}

/// A hello without a cookie, as many send it who are not there to hear the answer.
pub(crate) fn spoofed_hello() -> Vec<u8> {
    let body = hello(&random(), &[], None);
    let length = &(body.len() as u32).to_be_bytes()[1..];
    let message = [&[CLIENT_HELLO], length, &[0; 5], length, &body].concat();
    let head = [&[22, 0xfe, 0xff], &[0; 8][..], &(message.len() as u16).to_be_bytes()].concat();
    [head, message].concat()
}

pub(crate) fn socket(to: SocketAddr) -> UdpSocket {
    socket_at(Ipv4Addr::LOCALHOST, to)
}

pub(crate) fn socket_at(own: Ipv4Addr, to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind((own, 0)).unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = [0; 2000];
    let count = socket.recv(&mut buffer).expect("a datagram in time");
    buffer[..count].to_vec()
}

fn random() -> [u8; 32] {
    ring::rand::generate(&SystemRandom::new()).unwrap().expose()
}

/// RFC 6347 §4.2.1; with TLS_PSK_WITH_AES_128_CCM_8 and `connection_id` (RFC 9146 §3).
fn hello(random: &[u8; 32], cookie: &[u8], cid: Option<&[u8]>) -> Vec<u8> {
    let suites = [&[0, 4], &SUITE.to_be_bytes()[..], &[0x00, 0xff]].concat();
    let mut body = [&[0xfe, 0xfd], &random[..], &[0, cookie.len() as u8], cookie, &suites, &[1, 0]].concat();
    if let Some(cid) = cid {
        let length = cid.len() as u8;
        body.extend_from_slice(&[0, 5 + length, 0, 54, 0, 1 + length, length]);
        body.extend_from_slice(cid);
    }
    body
}

/// The connection id that a ServerHello asks for.
fn connection_id(hello: &[u8]) -> Vec<u8> {
    let after_suite = 35 + usize::from(hello[34]) + 3;
    let mut extensions = hello.get(after_suite + 2..).unwrap_or_default();
    while let [kind_high, kind_low, high, low, rest @ ..] = extensions {
        let (value, others) = rest.split_at(usize::from(u16::from_be_bytes([*high, *low])));
        if [*kind_high, *kind_low] == [0, 54] {
            return value[1..].to_vec();
        }
        extensions = others;
    }
    Vec::new()
}

/// RFC 5246 §5
fn prf(secret: &[u8], seed: &[&[u8]], length: usize) -> Vec<u8> {
    let (key, seed) = (hmac::Key::new(hmac::HMAC_SHA256, secret), seed.concat());
    let (mut link, mut out) = (hmac::sign(&key, &seed), Vec::new());
    while out.len() < length {
        out.extend_from_slice(hmac::sign(&key, &[link.as_ref(), &seed].concat()).as_ref());
        link = hmac::sign(&key, link.as_ref());
    }
    out.truncate(length);
    out
}

/// TLS_PSK_WITH_AES_128_CCM_8
const SUITE: u16 = 0xc0a8;

const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
const HELLO_VERIFY_REQUEST: u8 = 3;
const SERVER_HELLO_DONE: u8 = 14;
const CLIENT_KEY_EXCHANGE: u8 = 16;
const FINISHED: u8 = 20;
