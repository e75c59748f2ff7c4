//! One handshake by OpenSSL.

use std::sync::OnceLock;

use ::openssl::asn1::Asn1TimeRef;
use ::openssl::error::ErrorStack;
use ::openssl::ex_data::Index;
use ::openssl::ssl::{ErrorCode, ShutdownState, Ssl, SslContext, SslRef, SslStream};
use ::openssl::x509::X509Ref;
use zeroize::Zeroizing;

use super::key_exchange::KeyExchange;
use super::piece::{are_expected, is_of_finished};
use super::pipe::Pipe;
use super::refusal;
use crate::engine::{
    Flight, FlightRecord, Handshake, Identity, Input, Outcome, Progress, Refusal, Secrets, Start,
};
use crate::keys::{Keys, key_block};
use crate::record::{ContentType, Head, Record, records};
use crate::suite::{Credential, Suite};

/// A handshake: OpenSSL's, and what it must not see.
pub(super) struct SslHandshake {
    stream: SslStream<Pipe>,
    /// The number of the next record of epoch 0 for OpenSSL, and of epoch 1.
    next_record: [u64; 2],
    /// The number of the next message from OpenSSL that it has not sent before.
    next_message: u16,
    /// The highest number that a message of the client can have.
    last_expected: u16,
    /// What OpenSSL chose: it tells only much later.
    suite: Option<u16>,
    /// Where the key's name is found, in cipher suites that have one; none once the key is known.
    exchange: Option<KeyExchange>,
    /// The client's Finished, mostly in one piece; it may have overtaken other messages.
    finished: Vec<Box<[u8]>>,
    /// How many of its pieces OpenSSL has.
    fed: usize,
    keys: Option<Keys>,
}

/// What callbacks need to know.
struct Attached {
    connection_id: Option<Box<[u8]>>,
    key: OnceLock<Zeroizing<Vec<u8>>>,
}

impl SslHandshake {
    pub(super) fn begin(
        context: &SslContext,
        start: &Start<'_>,
        flight: &mut Flight,
    ) -> Result<Self, Refusal> {
        let mut handshake = Self::new(context, start).map_err(|errors| refusal(&errors))?;
        // what came before the cookie, so that OpenSSL counts messages as the client does
        for sequence in 0..start.message_sequence {
            handshake.take_hello(sequence, start.hello_without_cookie, &mut Flight::default())?;
        }
        handshake.take_hello(start.message_sequence, start.hello, flight)?;
        handshake.exchange = handshake.is_psk().then(KeyExchange::default);
        Ok(handshake)
    }

    /// Whether it goes on with a session whose client has a certificate that is not valid any more, or its issuers.
    pub(super) fn has_expired(&self, now: &Asn1TimeRef) -> bool {
        let ssl = self.stream.ssl();
        let is_over = |certificate: &X509Ref| certificate.not_after() < now;
        let has_end = ssl.peer_certificate().is_some_and(|leaf| is_over(&leaf));
        ssl.session_reused() && (has_end || ssl.peer_cert_chain().into_iter().flatten().any(is_over))
    }

    fn new(context: &SslContext, start: &Start<'_>) -> Result<Self, ErrorStack> {
        let mut ssl = Ssl::new(context)?;
        ssl.set_accept_state();
        ssl.set_mtu(start.mtu.into())?;
        let attached = Attached { connection_id: start.connection_id.map(Into::into), key: OnceLock::new() };
        ssl.set_ex_data(attached_index()?, attached);
        let stream = SslStream::new(ssl, Pipe::default())?;
        Ok(Self {
            stream,
            next_record: [0; 2],
            next_message: 0,
            last_expected: start.message_sequence + MAX_MESSAGES,
            suite: None,
            exchange: None,
            finished: Vec::new(),
            fed: 0,
            keys: None,
        })
    }

    fn take_hello(&mut self, sequence: u16, body: &[u8], flight: &mut Flight) -> Result<Progress, Refusal> {
        let length = &(body.len() as u32).to_be_bytes()[1..];
        let message = [&[CLIENT_HELLO], length, &sequence.to_be_bytes(), &[0; 3], length, body].concat();
        self.feed(ContentType::Handshake, &message);
        self.advance(flight)
    }

    /// Queues a record of epoch 0.
    fn feed(&mut self, content_type: ContentType, fragment: &[u8]) {
        let head = Head { content_type, epoch: 0, sequence: self.next_record[0], cid: &[] };
        self.next_record[0] += 1;
        let mut record = Vec::with_capacity(fragment.len() + 13);
        head.write(fragment.len(), &mut record);
        record.extend_from_slice(fragment);
        self.stream.get_mut().incoming.push_back(record);
    }

    /// Keeps a piece of the Finished, if it is one and has not come before.
    fn take_finished(&mut self, text: &[u8]) {
        let is_new = !self.finished.iter().any(|piece| **piece == *text);
        if is_new && self.finished.len() < MAX_PIECES && is_of_finished(text, self.last_expected) {
            self.finished.push(text.into());
        }
    }

    /// Whether OpenSSL waits for the Finished, or for the rest of it: what comes earlier takes it much memory.
    fn awaits_finished(&self) -> bool {
        let ssl = self.stream.ssl();
        match ssl.state_string() {
            AFTER_KEY_EXCHANGE => ssl.peer_certificate().is_none(),
            AFTER_CERTIFICATE_VERIFY | AFTER_CHANGE_CIPHER_SPEC | AFTER_OWN_FINISHED => true,
            _ => false,
        }
    }

    /// Queues what is new of the Finished, behind ChangeCipherSpec; sealed again, for OpenSSL alone.
    fn feed_finished(&mut self) -> Result<(), Refusal> {
        if self.fed == 0 {
            self.feed(ContentType::ChangeCipherSpec, &[1]);
        }
        for piece in self.finished.split_off(self.fed) {
            let sequence = self.next_record[1];
            self.next_record[1] += 1;
            let head = Head { content_type: ContentType::Handshake, epoch: 1, sequence, cid: &[] };
            let mut record = Vec::new();
            let keys = self.keys().ok_or_else(out_of_order)?;
            keys.client.seal(&head, &piece, &mut record).map_err(|_| out_of_order())?;
            self.stream.get_mut().incoming.push_back(record);
            self.finished.push(piece);
        }
        self.fed = self.finished.len();
        Ok(())
    }

    /// Lets OpenSSL take what is queued, and the Finished once it is its turn.
    fn advance(&mut self, flight: &mut Flight) -> Result<Progress, Refusal> {
        let mut result = self.take_queued();
        if wants_more(&result) && self.fed < self.finished.len() && self.awaits_finished() {
            self.feed_finished()?;
            result = self.take_queued();
        }
        self.collect(flight);
        match result {
            Ok(()) => {
                // or it would think that the session was cut off, and not remember it
                self.stream.set_shutdown(ShutdownState::SENT | ShutdownState::RECEIVED);
                Ok(Progress::Done)
            }
            result if wants_more(&result) => Ok(Progress::Going),
            Err(error) => Err(Refusal(reason(&error))),
        }
    }

    fn take_queued(&mut self) -> Result<(), ::openssl::ssl::Error> {
        let mut result = self.stream.do_handshake();
        // it may drop a record, and then wants to be called again
        while !self.stream.get_ref().incoming.is_empty() && wants_more(&result) {
            result = self.stream.do_handshake();
        }
        result
    }

    /// Takes what OpenSSL sends, but for what it has sent before: it looks at a clock of its own.
    fn collect(&mut self, flight: &mut Flight) {
        let datagrams = std::mem::take(&mut self.stream.get_mut().outgoing);
        let first_new = self.next_message;
        let mut sent = Vec::new();
        for mut datagram in datagrams {
            let found: Vec<_> = records(&datagram, 0).collect();
            sent.extend(found.iter().filter_map(|record| self.plain(&mut datagram, record)));
        }
        let has_news =
            sent.iter().any(|record| message_number(record).is_some_and(|number| number >= first_new));
        flight.0.extend(sent.into_iter().filter(|record| match record.content_type {
            ContentType::Handshake => message_number(record).is_some_and(|number| number >= first_new),
            ContentType::ChangeCipherSpec => has_news,
            _ => true,
        }));
    }

    fn plain(&mut self, datagram: &mut [u8], record: &Record) -> Option<FlightRecord> {
        let (content_type, text) = match record.epoch {
            0 => (record.content_type, record.body.clone()),
            _ => self.keys()?.server.open(datagram, record)?,
        };
        let plain = FlightRecord { epoch: record.epoch, content_type, fragment: datagram.get(text)?.into() };
        self.suite = self.suite.or_else(|| suite_of(&plain));
        if let Some(number) = message_number(&plain) {
            self.next_message = self.next_message.max(number + 1);
        }
        Some(plain)
    }

    /// The keys, as soon as they can be known.
    fn keys(&mut self) -> Option<&Keys> {
        if self.keys.is_none() {
            let Secrets { suite, master, client_random, server_random } = self.secrets()?;
            self.keys = Some(key_block(suite, &master, &client_random, &server_random));
        }
        self.keys.as_ref()
    }

    fn is_psk(&self) -> bool {
        self.suite.and_then(Credential::of) == Some(Credential::Psk)
    }
}

impl Handshake for SslHandshake {
    fn handle(&mut self, input: Input<'_>, flight: &mut Flight) -> Result<Progress, Refusal> {
        if let Input::Message(messages) = input
            && !are_expected(messages, self.last_expected)?
        {
            return Ok(Progress::Going);
        }
        match (input, &mut self.exchange) {
            (Input::Message(messages), Some(exchange)) => {
                return Ok(exchange.handle(messages)?.map_or(Progress::Going, Progress::KeyWanted));
            }
            (Input::Message(messages), None) => self.feed(ContentType::Handshake, messages),
            (Input::Finished(fragment), _) => self.take_finished(fragment),
        }
        self.advance(flight)
    }

    fn give_key(&mut self, key: Zeroizing<Vec<u8>>, flight: &mut Flight) -> Result<Progress, Refusal> {
        let Some(exchange) = self.exchange.take() else { return Ok(Progress::Going) };
        if let Some(attached) = attached(self.stream.ssl()) {
            // it is given once
            let _ = attached.key.set(key);
        }
        self.feed(ContentType::Handshake, exchange.message());
        self.advance(flight)
    }

    fn secrets(&self) -> Option<Secrets> {
        let ssl = self.stream.ssl();
        let suite = Suite::from_number(self.suite?)?;
        let mut master = Zeroizing::new([0; 48]);
        if ssl.session()?.master_key(&mut *master) != master.len() {
            return None;
        }
        let (mut client_random, mut server_random) = ([0; 32], [0; 32]);
        ssl.client_random(&mut client_random);
        ssl.server_random(&mut server_random);
        Some(Secrets { suite, master, client_random, server_random })
    }

    fn outcome(&self) -> Outcome {
        let ssl = self.stream.ssl();
        let psk = ssl.psk_identity().map(Into::into).filter(|_| self.is_psk());
        let others = ssl.peer_cert_chain().into_iter().flatten().map(X509Ref::to_der);
        let certificates = ssl.peer_certificate().map(|leaf| leaf.to_der()).into_iter().chain(others);
        let identity = Identity { psk, certificates: certificates.filter_map(Result::ok).collect() };
        Outcome { identity, is_resumed: ssl.session_reused() }
    }
}

/// The connection id that goes into a ServerHello, with its length (RFC 9146 §3).
pub(super) fn connection_id_of(ssl: &SslRef) -> Option<Vec<u8>> {
    let id = attached(ssl)?.connection_id.as_deref()?;
    Some([&[id.len() as u8], id].concat())
}

/// Writes the key that a client named; how long it is, 0 if there is no room.
pub(super) fn write_key(ssl: &SslRef, room: &mut [u8]) -> usize {
    let key = attached(ssl).and_then(|attached| attached.key.get()).map_or(&[][..], |key| key);
    match room.get_mut(..key.len()) {
        Some(room) => {
            room.copy_from_slice(key);
            key.len()
        }
        None => 0,
    }
}

fn attached(ssl: &SslRef) -> Option<&Attached> {
    ssl.ex_data(attached_index().ok()?)
}

/// Where each handshake keeps what callbacks need; one place for all engines, for it is never given back.
fn attached_index() -> Result<Index<Ssl, Attached>, ErrorStack> {
    static INDEX: OnceLock<Index<Ssl, Attached>> = OnceLock::new();
    if let Some(index) = INDEX.get() {
        return Ok(*index);
    }
    let index = Ssl::new_ex_index()?;
    Ok(*INDEX.get_or_init(|| index))
}

/// The number of the message that a record carries, or a piece of it.
fn message_number(record: &FlightRecord) -> Option<u16> {
    let is_message = record.content_type == ContentType::Handshake;
    let number = record.fragment.get(4..6)?.try_into().ok()?;
    is_message.then(|| u16::from_be_bytes(number))
}

/// What was chosen, if a record carries the ServerHello (RFC 5246 §7.4.1.3).
fn suite_of(record: &FlightRecord) -> Option<u16> {
    let [SERVER_HELLO, ..] = *record.fragment else { return None };
    let (length, rest) = record.fragment.get(SESSION_ID..)?.split_first()?;
    let number = rest.get(usize::from(*length)..)?.first_chunk()?;
    Some(u16::from_be_bytes(*number))
}

fn wants_more(result: &Result<(), ::openssl::ssl::Error>) -> bool {
    result.as_ref().is_err_and(|error| error.code() == ErrorCode::WANT_READ)
}

fn reason(error: &::openssl::ssl::Error) -> String {
    let first = error.ssl_error().and_then(|errors| errors.errors().first());
    first.and_then(::openssl::error::Error::reason).unwrap_or("the handshake failed").to_owned()
}

fn out_of_order() -> Refusal {
    Refusal("the handshake is out of order".to_owned())
}

const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;

/// How many messages come behind a hello: Certificate, ClientKeyExchange, CertificateVerify and Finished.
const MAX_MESSAGES: u16 = 4;

/// How many pieces of a Finished are kept: it has twelve bytes.
const MAX_PIECES: usize = 12;

/// States of OpenSSL, by what came or was sent last.
const AFTER_KEY_EXCHANGE: &str = "TRCKE";
const AFTER_CERTIFICATE_VERIFY: &str = "TRCV";
const AFTER_CHANGE_CIPHER_SPEC: &str = "TRCCS";
const AFTER_OWN_FINISHED: &str = "TWFIN";

/// Where a ServerHello has its session id: behind the header, the version and the random bytes.
const SESSION_ID: usize = 12 + 2 + 32;
