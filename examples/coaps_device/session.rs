//! CoAP within one session of DTLS: requests, their answers, and what the gateway says of its own accord.

use std::collections::VecDeque;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use coap_lite::{CoapOption, MessageClass, MessageType, Packet, RequestType};
use http::Uri;
use ring::rand::{SystemRandom, generate};
use tokio::net::{UdpSocket, lookup_host};
use tokio::time::{Instant, timeout};
use webrtc_dtls::Error;
use webrtc_dtls::config::Config;
use webrtc_dtls::conn::DTLSConn;

/// Where requests go.
#[derive(Clone)]
pub(crate) struct Target {
    host: String,
    port: u16,
    path: Vec<String>,
}

/// A session with the gateway.
pub(crate) struct Session {
    records: DTLSConn,
    /// The identifier of the next message; what is sent again has the same.
    next_id: u16,
    observed: Option<Observed>,
    /// The identifiers of the latest messages of the gateway, with what they were answered with.
    heard: VecDeque<(u16, MessageType)>,
}

/// What is observed: how its notifications are known, and which was the latest.
struct Observed {
    token: Vec<u8>,
    number: u32,
    at: Instant,
}

impl FromStr for Target {
    type Err = anyhow::Error;

    fn from_str(url: &str) -> anyhow::Result<Self> {
        let url: Uri = url.parse()?;
        ensure!(url.scheme_str() == Some("coaps"), "the URL must begin with coaps://");
        ensure!(url.query().is_none() && !url.path().contains('%'), "the URL is more than a plain path");
        let host = url.host().context("the URL has no host")?.to_owned();
        let path = url.path().split('/').filter(|segment| !segment.is_empty());
        Ok(Self { host, port: url.port_u16().unwrap_or(5684), path: path.map(str::to_owned).collect() })
    }
}

impl Target {
    /// A request for the path.
    pub(crate) fn request(&self, method: RequestType) -> Packet {
        let mut request = Packet::new();
        request.header.code = MessageClass::Request(method);
        for segment in &self.path {
            request.add_option(CoapOption::UriPath, segment.clone().into_bytes());
        }
        request
    }
}

impl Session {
    /// Shakes hands.
    pub(crate) async fn open(target: &Target, mut config: Config) -> anyhow::Result<Self> {
        let Target { host, port, .. } = target;
        let gateway =
            lookup_host(format!("{host}:{port}")).await?.next().context("the host has no address")?;
        let any = if gateway.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any).await?;
        socket.connect(gateway).await?;
        // whom the gateway's certificate must be made out for
        config.server_name = host.trim_matches(['[', ']']).to_owned();
        let handshake = DTLSConn::new(Arc::new(socket), config, true, None);
        let records = timeout(HANDSHAKE_TIME, handshake).await.context("the handshake took too long")??;
        let next_id = u16::from_be_bytes(random_bytes());
        Ok(Self { records, next_id, observed: None, heard: VecDeque::new() })
    }

    /// Begins to observe (RFC 7641); notifications come while the device listens, or asks for something else.
    pub(crate) async fn observe(&mut self, mut request: Packet) -> anyhow::Result<Packet> {
        request.set_observe_value(0);
        let answer = self.ask(request).await?;
        self.observed = number_of(&answer).map(|number| {
            let token = answer.get_token().to_vec();
            Observed { token, number, at: Instant::now() }
        });
        Ok(answer)
    }

    /// Whether the gateway will still tell of changes.
    pub(crate) fn is_observing(&self) -> bool {
        self.observed.is_some()
    }

    /// Sends a request, a few times if need be, and waits for its answer. RFC 7252 §4.2
    pub(crate) async fn ask(&mut self, mut request: Packet) -> anyhow::Result<Packet> {
        request.header.set_type(MessageType::Confirmable);
        request.header.message_id = self.next_id;
        request.set_token(random_bytes::<4>().to_vec());
        self.next_id = self.next_id.wrapping_add(1);
        let mut wait = ACK_TIMEOUT.mul_f64(1.0 + random() * (ACK_RANDOM_FACTOR - 1.0));
        for _ in 0..=MAX_RETRANSMIT {
            self.send(&request).await?;
            if let Some(answer) = self.answer_to(&request, Instant::now() + wait).await? {
                return Ok(answer);
            }
            wait *= 2;
        }
        bail!("nothing was heard of a request")
    }

    /// Takes what the gateway says, until some time or the end of what is observed.
    pub(crate) async fn listen(&mut self, end: Instant) -> anyhow::Result<()> {
        let is_observing = self.is_observing();
        while self.is_observing() == is_observing
            && let Some(message) = self.hear(end).await?
        {
            self.take(&message).await?;
        }
        Ok(())
    }

    /// Says goodbye, or the gateway would keep a place for the session until its end.
    pub(crate) async fn close(self) {
        let _ = timeout(GOODBYE_TIME, self.records.close()).await;
    }

    /// The answer to a request; none if nothing was heard of it until `end`.
    async fn answer_to(&mut self, request: &Packet, mut end: Instant) -> anyhow::Result<Option<Packet>> {
        let mut is_acknowledged = false;
        while let Some(message) = self.hear(end).await? {
            let is_about_it = message.header.message_id == request.header.message_id;
            match (message.header.get_type(), message.header.code) {
                (MessageType::Reset, _) if is_about_it => bail!("the gateway rejected a request"),
                (MessageType::Acknowledgement, MessageClass::Empty) if is_about_it => {
                    // RFC 7252 §5.2.2: the answer comes by itself, and the request need not be sent again
                    (is_acknowledged, end) = (true, Instant::now() + SEPARATE_TIME);
                }
                (_, MessageClass::Response(_)) if message.get_token() == request.get_token() => {
                    self.acknowledge(&message).await?;
                    return Ok(Some(message));
                }
                _ => self.take(&message).await?,
            }
        }
        ensure!(!is_acknowledged, "a request was acknowledged, and not answered");
        Ok(None)
    }

    /// Takes what is no answer: a notification, a ping, or what it knows nothing of.
    async fn take(&mut self, message: &Packet) -> anyhow::Result<()> {
        let is_response = matches!(message.header.code, MessageClass::Response(_));
        let observed = self.observed.as_mut().filter(|observed| observed.token == message.get_token());
        let Some(observed) = observed.filter(|_| is_response) else {
            // RFC 7252 §4.3: an empty one asks whether the device is there, after it seems to have moved
            return self.settle(message, MessageType::Reset).await;
        };
        let number = number_of(message);
        if number.is_none_or(|number| observed.is_new(number)) {
            println!("heard: {} {}", message.header.get_code(), String::from_utf8_lossy(&message.payload));
        }
        if number.is_none() {
            self.observed = None;
        }
        self.acknowledge(message).await
    }

    async fn acknowledge(&mut self, message: &Packet) -> anyhow::Result<()> {
        self.settle(message, MessageType::Acknowledgement).await
    }

    /// Answers a message that wants to be, and remembers it: it may come again.
    async fn settle(&mut self, message: &Packet, kind: MessageType) -> anyhow::Result<()> {
        if is_of_gateway(message) {
            self.heard.truncate(MAX_HEARD - 1);
            self.heard.push_front((message.header.message_id, kind));
        }
        self.reply(message, kind).await
    }

    async fn reply(&self, message: &Packet, kind: MessageType) -> anyhow::Result<()> {
        if message.header.get_type() != MessageType::Confirmable {
            return Ok(());
        }
        let mut reply = Packet::new();
        reply.header.set_type(kind);
        reply.header.code = MessageClass::Empty;
        reply.header.message_id = message.header.message_id;
        self.send(&reply).await
    }

    async fn send(&self, message: &Packet) -> anyhow::Result<()> {
        let bytes = message.to_bytes().map_err(|error| anyhow::anyhow!("{error}"))?;
        self.records.write(&bytes, None).await?;
        Ok(())
    }

    /// The next message; none until `end`. What comes again is answered as before, and nothing else (RFC 7252 §4.5).
    async fn hear(&mut self, end: Instant) -> anyhow::Result<Option<Packet>> {
        while let Some(message) = self.receive(end).await? {
            let is_it = |(id, _): &&(u16, MessageType)| *id == message.header.message_id;
            match self.heard.iter().find(is_it).filter(|_| is_of_gateway(&message)) {
                Some((_, kind)) => self.reply(&message, *kind).await?,
                None => return Ok(Some(message)),
            }
        }
        Ok(None)
    }

    async fn receive(&self, end: Instant) -> anyhow::Result<Option<Packet>> {
        let mut datagram = vec![0; MAX_DATAGRAM];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.records.read(&mut datagram, Some(left)).await {
                Ok(length) => {
                    if let Ok(message) = Packet::from_bytes(&datagram[..length]) {
                        return Ok(Some(message));
                    }
                }
                Err(Error::ErrBufferTooSmall) => {}
                Err(Error::ErrDeadlineExceeded) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Observed {
    /// Whether a notification is newer than all before; it may have been overtaken. RFC 7641 §3.4
    fn is_new(&mut self, number: u32) -> bool {
        let ahead = number.wrapping_sub(self.number) & 0xff_ffff;
        let is_new = (1..1 << 23).contains(&ahead) || self.at.elapsed() > NUMBERS_GO_ROUND;
        if is_new {
            (self.number, self.at) = (number, Instant::now());
        }
        is_new
    }
}

/// The number of a notification; none if it is the last, or was never one.
fn number_of(message: &Packet) -> Option<u32> {
    let is_good = message.header.get_code().starts_with('2');
    message.get_observe_value().and_then(Result::ok).filter(|_| is_good)
}

/// Whether the gateway chose the identifier of a message, and not the device.
fn is_of_gateway(message: &Packet) -> bool {
    matches!(message.header.get_type(), MessageType::Confirmable | MessageType::NonConfirmable)
}

/// A number from 0 to 1.
pub(crate) fn random() -> f64 {
    f64::from(u32::from_be_bytes(random_bytes())) / f64::from(u32::MAX)
}

#[expect(clippy::expect_used, reason = "without random bytes, there is no DTLS either")]
fn random_bytes<const N: usize>() -> [u8; N]
where
    [u8; N]: ring::rand::RandomlyConstructable,
{
    generate(&SystemRandom::new()).expect("random bytes").expose()
}

/// RFC 7252 §4.8: the first wait has this up to one and a half of it, each other one twice that of the one before.
const ACK_TIMEOUT: Duration = Duration::from_secs(2);
const ACK_RANDOM_FACTOR: f64 = 1.5;
const MAX_RETRANSMIT: u32 = 4;

/// How long an answer may take that does not come with the acknowledgement.
const SEPARATE_TIME: Duration = Duration::from_secs(60);

/// What mgate gives a handshake, too.
const HANDSHAKE_TIME: Duration = Duration::from_secs(30);

const GOODBYE_TIME: Duration = Duration::from_secs(2);

/// More than most upstreams send in one message; what is longer is passed over.
const MAX_DATAGRAM: usize = 8192;

/// How many messages are remembered, to know them if they come again.
const MAX_HEARD: usize = 16;

/// RFC 7641 §3.4: the numbers of notifications say nothing after so long.
const NUMBERS_GO_ROUND: Duration = Duration::from_secs(128);
