//! A client that is not OpenSSL: with connection ids, in virtual time, and able to misbehave.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mgate_certs::Issued;
use mgate_dtls::{ContentType, Head, Keys, Suite, key_block, records};
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use ring::{agreement, digest, hmac};

/// What a device shakes hands with.
#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) credential: Credential,
    /// What it wants to find in the server's records.
    pub(crate) cid: Option<Vec<u8>>,
    /// An earlier session to go on with.
    pub(crate) earlier: Option<Earlier>,
    /// Whether it takes tickets.
    pub(crate) takes_tickets: bool,
    /// The longest piece of a message that it sends.
    pub(crate) piece: usize,
}

#[derive(Clone)]
pub(crate) enum Credential {
    Certificate(Issued),
    Psk { identity: Vec<u8>, key: Vec<u8> },
}

/// What a device remembers of a session.
#[derive(Clone)]
pub(crate) struct Earlier {
    session_id: Vec<u8>,
    ticket: Vec<u8>,
    master: [u8; 48],
}

/// One client.
pub(crate) struct Device {
    pub(crate) address: SocketAddr,
    pub(crate) options: Options,
    /// Data that came.
    pub(crate) received: Vec<Vec<u8>>,
    pub(crate) alerts: Vec<[u8; 2]>,
    pub(crate) is_connected: bool,
    pub(crate) is_resumed: bool,
    /// What the server wants to find in its records.
    pub(crate) server_cid: Vec<u8>,
    /// The number of its next record of epoch 1.
    pub(crate) next_sealed: u64,
    /// Whether its Finished is to be wrong.
    pub(crate) lies: bool,
    /// How long the pieces are of what comes behind its hello, if not as long.
    pub(crate) piece_behind_hello: Option<usize>,
    pub(crate) keys: Option<Keys>,
    random: [u8; 32],
    server_random: [u8; 32],
    server_point: Vec<u8>,
    is_asked: bool,
    master: [u8; 48],
    next_record: u64,
    next_message: u16,
    next_expected: u16,
    pieces: BTreeMap<u16, Message>,
    transcript: Vec<u8>,
    flight: Vec<(u16, ContentType, Vec<u8>)>,
    outgoing: Vec<Vec<u8>>,
    timer: Option<(Instant, Duration)>,
    now: Instant,
    session_id: Vec<u8>,
    ticket: Vec<u8>,
    cookie: Vec<u8>,
}

#[derive(Default)]
struct Message {
    kind: u8,
    body: Vec<u8>,
    have: Vec<bool>,
}

impl Options {
    pub(crate) fn psk(identity: &str) -> Self {
        let key = super::key_of(identity.as_bytes()).unwrap_or_else(|| b"no key".to_vec());
        Self {
            credential: Credential::Psk { identity: identity.as_bytes().to_vec(), key },
            cid: None,
            earlier: None,
            takes_tickets: false,
            piece: 1_000,
        }
    }

    pub(crate) fn certificate(issued: Issued) -> Self {
        Self { credential: Credential::Certificate(issued), ..Self::psk("") }
    }

    pub(crate) fn with_cid(self, cid: &[u8]) -> Self {
        Self { cid: Some(cid.to_vec()), ..self }
    }
}

impl Device {
    pub(crate) fn new(options: Options, address: SocketAddr, now: Instant) -> Self {
        let mut random = [0; 32];
        SystemRandom::new().fill(&mut random).unwrap();
        Self {
            address,
            options,
            received: Vec::new(),
            alerts: Vec::new(),
            is_connected: false,
            is_resumed: false,
            server_cid: Vec::new(),
            next_sealed: 0,
            lies: false,
            piece_behind_hello: None,
            keys: None,
            random,
            server_random: [0; 32],
            server_point: Vec::new(),
            is_asked: false,
            master: [0; 48],
            next_record: 0,
            next_message: 0,
            next_expected: 0,
            pieces: BTreeMap::new(),
            transcript: Vec::new(),
            flight: Vec::new(),
            outgoing: Vec::new(),
            timer: None,
            now,
            session_id: Vec::new(),
            ticket: Vec::new(),
            cookie: Vec::new(),
        }
    }

    /// Says hello.
    pub(crate) fn start(&mut self, now: Instant) {
        self.now = now;
        let hello = self.hello();
        self.add_message(CLIENT_HELLO, &hello);
        self.send_flight();
    }

    pub(crate) fn handle(&mut self, now: Instant, datagram: &[u8]) {
        self.now = now;
        let mut datagram = datagram.to_vec();
        let cid_length = self.options.cid.as_ref().map_or(0, Vec::len);
        for record in records(&datagram.clone(), cid_length) {
            match (record.epoch, record.content_type) {
                (0, ContentType::Handshake) => self.take_pieces(&datagram[record.body.clone()]),
                (0, ContentType::Alert) => {
                    self.alerts.push(datagram[record.body.clone()].try_into().unwrap());
                    self.timer = None;
                }
                (1, _) => {
                    let Some(keys) = &self.keys else { continue };
                    assert_eq!(
                        record.content_type == ContentType::ConnectionId,
                        self.sends_cids() && cid_length > 0,
                        "each record has the connection id that was agreed on, or none has"
                    );
                    assert_eq!(&datagram[record.cid.clone()], self.peer_records_cid());
                    let Some((content_type, text)) = keys.server.open(&mut datagram, &record) else {
                        panic!("the server's record cannot be opened");
                    };
                    let text = datagram[text].to_vec();
                    match content_type {
                        ContentType::ApplicationData => self.received.push(text),
                        ContentType::Alert => self.alerts.push(text.try_into().unwrap()),
                        ContentType::Handshake => self.take_pieces(&text),
                        _ => {}
                    }
                }
                _ => {}
            }
        }
    }

    /// Sends the last flight once more if it is time to.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        if let Some((due, interval)) = self.timer
            && due <= now
        {
            self.send_flight();
            self.timer = Some((now + interval * 2, interval * 2));
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.timer.map(|(due, _)| due)
    }

    pub(crate) fn take_sent(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.outgoing)
    }

    pub(crate) fn send(&mut self, payload: &[u8]) {
        let datagram = self.seal(ContentType::ApplicationData, payload);
        self.outgoing.push(datagram);
    }

    /// A record with the next number.
    pub(crate) fn seal(&mut self, content_type: ContentType, text: &[u8]) -> Vec<u8> {
        let mut datagram = Vec::new();
        let head = Head { content_type, epoch: 1, sequence: self.next_sealed, cid: &self.server_cid };
        self.keys.as_ref().unwrap().client.seal(&head, text, &mut datagram).unwrap();
        self.next_sealed += 1;
        datagram
    }

    /// Sends the last flight, each record with a new number.
    pub(crate) fn send_flight(&mut self) {
        let mut datagram = Vec::new();
        for (epoch, content_type, fragment) in self.flight.clone() {
            if datagram.len() + fragment.len() > 1_100 {
                self.outgoing.push(std::mem::take(&mut datagram));
            }
            if epoch == 0 {
                datagram.extend(plain_record(content_type, self.next_record, &fragment));
                self.next_record += 1;
            } else {
                datagram.extend(self.seal(content_type, &fragment));
            }
        }
        self.outgoing.push(datagram);
        self.timer = Some((self.now + RETRANSMISSION, RETRANSMISSION));
    }

    /// What it can go on with later.
    pub(crate) fn earlier(&self) -> Earlier {
        Earlier { session_id: self.session_id.clone(), ticket: self.ticket.clone(), master: self.master }
    }

    pub(crate) fn has_ticket(&self) -> bool {
        !self.ticket.is_empty()
    }

    fn sends_cids(&self) -> bool {
        !self.server_cid.is_empty()
    }

    fn peer_records_cid(&self) -> &[u8] {
        if self.sends_cids() { self.options.cid.as_deref().unwrap_or_default() } else { &[] }
    }

    fn hello(&self) -> Vec<u8> {
        let suite = match self.options.credential {
            Credential::Certificate(_) => [0xc0, 0xae],
            Credential::Psk { .. } => [0xc0, 0xa8],
        };
        // supported_groups: x25519, and secp256r1 for the certificates; ec_point_formats; signature_algorithms: ecdsa_secp256r1_sha256
        let mut extensions =
            vec![0, 10, 0, 6, 0, 4, 0, 29, 0, 23, 0, 11, 0, 2, 1, 0, 0, 13, 0, 4, 0, 2, 4, 3];
        if let Some(cid) = &self.options.cid {
            extensions.extend([0, 54, 0, cid.len() as u8 + 1, cid.len() as u8]);
            extensions.extend(cid);
        }
        let mut session_id = Vec::new();
        if self.options.takes_tickets {
            let ticket =
                self.options.earlier.as_ref().map(|earlier| earlier.ticket.clone()).unwrap_or_default();
            extensions.extend([0, 35]);
            extensions.extend((ticket.len() as u16).to_be_bytes());
            // RFC 5077 §3.4: so the client sees whether the ticket is accepted
            session_id = vec![7; if ticket.is_empty() { 0 } else { 32 }];
            extensions.extend(ticket);
        }
        if let Some(earlier) = self.options.earlier.as_ref().filter(|_| session_id.is_empty()) {
            session_id.clone_from(&earlier.session_id);
        }
        [
            &[0xfe, 0xfd],
            &self.random[..],
            &[session_id.len() as u8],
            &session_id,
            &[self.cookie.len() as u8],
            &self.cookie,
            &[0, 2],
            &suite,
            &[1, 0],
            &(extensions.len() as u16).to_be_bytes(),
            &extensions,
        ]
        .concat()
    }

    fn offered_session_id(&self) -> Vec<u8> {
        let hello = self.hello();
        hello[35..35 + usize::from(hello[34])].to_vec()
    }

    /// Adds a message to the flight and to the transcript.
    fn add_message(&mut self, kind: u8, body: &[u8]) {
        let whole = message(kind, self.next_message, body, 0..body.len());
        self.transcript.extend(&whole);
        let epoch = u16::from(kind == FINISHED);
        let most = self.piece_behind_hello.filter(|_| kind != CLIENT_HELLO).unwrap_or(self.options.piece);
        let mut at = 0;
        while at == 0 || at < body.len() {
            let end = body.len().min(at + most);
            let piece = message(kind, self.next_message, body, at..end);
            self.flight.push((epoch, ContentType::Handshake, piece));
            at = end.max(1);
        }
        self.next_message += 1;
    }

    fn take_pieces(&mut self, mut bytes: &[u8]) {
        while let Some((header, rest)) = bytes.split_first_chunk::<12>() {
            let number = |range: std::ops::Range<usize>| {
                header[range].iter().fold(0, |number, byte| number << 8 | usize::from(*byte))
            };
            let (length, offset, piece) = (number(1..4), number(6..9), number(9..12));
            let sequence = number(4..6) as u16;
            if sequence < self.next_expected {
                self.take_repetition(header[0]);
            } else {
                let message = self.pieces.entry(sequence).or_default();
                message.kind = header[0];
                message.body.resize(length, 0);
                message.have.resize(length, false);
                message.body[offset..offset + piece].copy_from_slice(&rest[..piece]);
                message.have[offset..offset + piece].fill(true);
            }
            bytes = &rest[piece..];
        }
        while let Some(message) = self.pieces.get(&self.next_expected)
            && message.have.iter().all(|have| *have)
        {
            let message = self.pieces.remove(&self.next_expected).unwrap();
            self.take_message(&message);
            self.next_expected += 1;
        }
    }

    /// The server repeats its flight: it has not got ours.
    fn take_repetition(&mut self, kind: u8) {
        if kind == FINISHED && self.is_connected && self.is_resumed {
            self.send_flight();
            self.timer = None;
        }
    }

    fn take_message(&mut self, Message { kind, body, .. }: &Message) {
        if *kind == HELLO_VERIFY_REQUEST {
            self.cookie = body[3..].to_vec();
            self.transcript.clear();
            self.flight.clear();
            let hello = self.hello();
            self.add_message(CLIENT_HELLO, &hello);
            return self.send_flight();
        }
        let before = self.transcript.clone();
        self.transcript.extend(message(*kind, self.next_expected, body, 0..body.len()));
        match *kind {
            SERVER_HELLO => self.take_server_hello(body),
            SERVER_KEY_EXCHANGE => {
                if matches!(self.options.credential, Credential::Certificate(_)) {
                    self.server_point = body[4..4 + usize::from(body[3])].to_vec();
                }
            }
            CERTIFICATE_REQUEST => self.is_asked = true,
            SERVER_HELLO_DONE => self.answer(),
            NEW_SESSION_TICKET => self.ticket = body[6..].to_vec(),
            FINISHED => {
                assert_eq!(body[..], self.verify_data(b"server finished", &before));
                self.is_connected = true;
                if self.is_resumed {
                    self.flight = vec![(0, ContentType::ChangeCipherSpec, vec![1])];
                    self.add_finished();
                    self.send_flight();
                }
                self.timer = None;
            }
            _ => {}
        }
    }

    fn take_server_hello(&mut self, body: &[u8]) {
        self.server_random = body[2..34].try_into().unwrap();
        let (id, rest) = body[35..].split_at(body[34].into());
        self.session_id = id.to_vec();
        let mut extensions = rest.get(5..).unwrap_or_default();
        while let [a, b, c, d, after @ ..] = extensions {
            let (data, after) = after.split_at(usize::from(u16::from_be_bytes([*c, *d])));
            if u16::from_be_bytes([*a, *b]) == 54 {
                self.server_cid = data[1..].to_vec();
            }
            extensions = after;
        }
        if let Some(earlier) = &self.options.earlier
            && !id.is_empty()
            && id == self.offered_session_id()
        {
            self.master = earlier.master;
            self.ticket.clone_from(&earlier.ticket);
            self.is_resumed = true;
            self.derive_keys();
        }
    }

    /// Sends what comes behind the server's hello.
    fn answer(&mut self) {
        self.flight.clear();
        let secret = match self.options.credential.clone() {
            Credential::Psk { identity, key } => {
                let body = [&(identity.len() as u16).to_be_bytes(), &identity[..]].concat();
                self.add_message(CLIENT_KEY_EXCHANGE, &body);
                let length = (key.len() as u16).to_be_bytes();
                [&length, &vec![0; key.len()][..], &length, &key].concat()
            }
            Credential::Certificate(issued) => self.answer_with_certificate(&issued),
        };
        let randoms = [self.random, self.server_random].concat();
        prf(&secret, b"master secret", &randoms, &mut self.master);
        self.derive_keys();
        if let Credential::Certificate(issued) = &self.options.credential
            && self.is_asked
        {
            let signature = sign(issued, &self.transcript);
            let length = (signature.len() as u16).to_be_bytes();
            self.add_message(CERTIFICATE_VERIFY, &[&[4, 3], &length[..], &signature].concat());
        }
        self.flight.push((0, ContentType::ChangeCipherSpec, vec![1]));
        self.add_finished();
        self.send_flight();
    }

    fn answer_with_certificate(&mut self, issued: &Issued) -> Vec<u8> {
        if self.is_asked {
            let chain = openssl::x509::X509::stack_from_pem(issued.certificate.pem.as_bytes()).unwrap();
            let prefixed = |bytes: &[u8]| [&(bytes.len() as u32).to_be_bytes()[1..], bytes].concat();
            let chain: Vec<_> =
                chain.iter().map(|certificate| prefixed(&certificate.to_der().unwrap())).collect();
            self.add_message(CERTIFICATE, &prefixed(&chain.concat()));
        }
        let random = SystemRandom::new();
        let own = agreement::EphemeralPrivateKey::generate(&agreement::X25519, &random).unwrap();
        let point = own.compute_public_key().unwrap();
        self.add_message(CLIENT_KEY_EXCHANGE, &[&[32], point.as_ref()].concat());
        let peer = agreement::UnparsedPublicKey::new(&agreement::X25519, &self.server_point);
        agreement::agree_ephemeral(own, &peer, <[u8]>::to_vec).unwrap()
    }

    fn add_finished(&mut self) {
        let mut body = self.verify_data(b"client finished", &self.transcript);
        body[0] ^= u8::from(self.lies);
        self.add_message(FINISHED, &body);
    }

    fn derive_keys(&mut self) {
        let keys = key_block(Suite::Aes128Ccm8, &self.master, &self.random, &self.server_random);
        self.keys = Some(keys);
    }

    fn verify_data(&self, label: &[u8], transcript: &[u8]) -> [u8; 12] {
        let mut data = [0; 12];
        prf(&self.master, label, digest::digest(&digest::SHA256, transcript).as_ref(), &mut data);
        data
    }
}

/// A record of epoch 0.
pub(crate) fn plain_record(content_type: ContentType, sequence: u64, fragment: &[u8]) -> Vec<u8> {
    let length = (fragment.len() as u16).to_be_bytes();
    [&[content_type as u8, 0xfe, 0xfd], &sequence.to_be_bytes()[..], &length, fragment].concat()
}

fn message(kind: u8, sequence: u16, body: &[u8], piece: std::ops::Range<usize>) -> Vec<u8> {
    let number = |number: usize| (number as u32).to_be_bytes()[1..].to_vec();
    let header =
        [number(body.len()), sequence.to_be_bytes().to_vec(), number(piece.start), number(piece.len())]
            .concat();
    [&[kind], &header[..], &body[piece]].concat()
}

fn sign(issued: &Issued, transcript: &[u8]) -> Vec<u8> {
    let key = openssl::pkey::PKey::private_key_from_pem(issued.key.pem().as_bytes()).unwrap();
    let key = key.private_key_to_pkcs8().unwrap();
    let random = SystemRandom::new();
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &key, &random).unwrap();
    key.sign(&random, transcript).unwrap().as_ref().to_vec()
}

/// RFC 5246 §5.
fn prf(secret: &[u8], label: &[u8], seed: &[u8], out: &mut [u8]) {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let seed = [label, seed].concat();
    let mut a = hmac::sign(&key, &seed);
    for chunk in out.chunks_mut(32) {
        let block = hmac::sign(&key, &[a.as_ref(), &seed].concat());
        chunk.copy_from_slice(&block.as_ref()[..chunk.len()]);
        a = hmac::sign(&key, a.as_ref());
    }
}

const RETRANSMISSION: Duration = Duration::from_secs(1);

const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
const HELLO_VERIFY_REQUEST: u8 = 3;
const NEW_SESSION_TICKET: u8 = 4;
const CERTIFICATE: u8 = 11;
const SERVER_KEY_EXCHANGE: u8 = 12;
const CERTIFICATE_REQUEST: u8 = 13;
const SERVER_HELLO_DONE: u8 = 14;
const CERTIFICATE_VERIFY: u8 = 15;
const CLIENT_KEY_EXCHANGE: u8 = 16;
const FINISHED: u8 = 20;
