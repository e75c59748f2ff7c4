//! NATS: requests to services behind it, and what others say on a subject.

use std::collections::hash_map::RandomState;
use std::error::Error;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_nats::client::RequestErrorKind;
use async_nats::connection::State;
use async_nats::{Client, ConnectError, ConnectOptions, Event, HeaderMap, Request, ServerAddr};
use bytes::Bytes;
use futures_util::StreamExt;
use mgate_proxy::transport::{Authorities, Certificate, ClientTls, TlsError};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use super::breaker::shorter;
use super::http::{UrlError, causes};

/// One connection to a server, made when it is first needed, and made anew for as long as it takes.
///
/// It must be used inside of a runtime that drives timers: in policies and authenticators, that of the
/// background.
pub struct NatsClient {
    options: Options,
    /// Whether this is gone: the connection's own task would try for ever to reach a server that is.
    is_gone: Arc<AtomicBool>,
    connection: OnceCell<Client>,
    listener: OnceLock<Listener>,
    listening: OnceLock<AbortHandle>,
}

/// How a client speaks to its server.
pub struct NatsOptions {
    /// The policy that asks, for logs.
    pub policy: Arc<str>,
    /// `nats://host:port`, or `tls://host:port` where nothing may go unencrypted.
    pub server: ServerAddr,
    /// Who vouches for servers; `None` for the authorities of the system.
    pub ca: Option<Authorities>,
    /// What is shown to servers that ask for a certificate.
    pub identity: Option<Certificate>,
    /// Who mgate is.
    pub login: NatsLogin,
    /// Time to make a connection.
    pub connect_timeout: Duration,
    /// The largest answer.
    pub max_message_bytes: usize,
}

/// Who mgate is for a server.
#[derive(Clone, Default)]
pub enum NatsLogin {
    /// The text of a file with a JWT and its seed.
    Credentials(String),
    /// Nobody in particular, or who its certificate says.
    #[default]
    None,
    /// The seed of a user's NKey.
    Seed(String),
    /// A token.
    Token(String),
    /// A user and a password.
    User(String, String),
}

/// What came of listening.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard<'a> {
    /// There was no connection for some time: whatever was said meanwhile is lost.
    Gap,
    /// A message.
    Message(&'a [u8]),
}

/// Why a client cannot be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NatsClientError {
    /// The credentials are no such file.
    Credentials,
    /// The seed is none of a user.
    Seed,
    /// Its certificates cannot be used.
    Tls(TlsError),
}

/// Why there is no answer. None of these says more of the request than its subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NatsError {
    /// There is no connection to the server.
    Away,
    /// The request went wrong on its way.
    Broken(String),
    /// Nobody answers requests on this subject.
    NoResponders,
    /// The answer is larger than this number of bytes.
    TooLarge(usize),
    /// There was no answer within this time.
    TooLate(Duration),
}

struct Options {
    policy: Arc<str>,
    server: ServerAddr,
    tls: ClientTls,
    login: NatsLogin,
    connect_timeout: Duration,
    max_message_bytes: usize,
}

#[derive(Clone)]
struct Listener {
    subject: String,
    heard: Arc<dyn Fn(Heard<'_>) + Send + Sync>,
}

impl NatsClient {
    /// Checks certificates and credentials; connects to nothing yet.
    pub fn new(options: NatsOptions) -> Result<Self, NatsClientError> {
        let NatsOptions { policy, server, ca, identity, login, connect_timeout, max_message_bytes } = options;
        let authorities = ca.or_else(|| Authorities::of_system().ok()).unwrap_or_else(Authorities::none);
        let tls = ClientTls::new(authorities, identity.as_ref()).map_err(NatsClientError::Tls)?;
        let options = Options { policy, server, tls, login, connect_timeout, max_message_bytes };
        options.login.check()?;
        Ok(Self {
            options,
            is_gone: Arc::default(),
            connection: OnceCell::new(),
            listener: OnceLock::new(),
            listening: OnceLock::new(),
        })
    }

    /// Tells `heard` what is said on a subject, from the first connection on. There can be one listener, and it
    /// must be there before anything is asked.
    pub fn listen(&self, subject: String, heard: impl Fn(Heard<'_>) + Send + Sync + 'static) {
        // a second one is never heard
        let _ = self.listener.set(Listener { subject, heard: Arc::new(heard) });
    }

    /// Asks whoever answers on a subject, and says by when the answer must be there.
    pub async fn request(&self, subject: &str, payload: Bytes, within: Duration) -> Result<Bytes, NatsError> {
        match timeout(within, self.exchange(subject, payload, within)).await {
            Ok(result) => result,
            Err(_) if self.is_away() => Err(NatsError::Away),
            Err(_) => Err(NatsError::TooLate(within)),
        }
    }

    async fn exchange(&self, subject: &str, payload: Bytes, within: Duration) -> Result<Bytes, NatsError> {
        let client = self.connection.get_or_try_init(|| self.connect()).await;
        let client = client.map_err(|error| NatsError::Broken(causes(&error)))?;
        if client.connection_state() == State::Disconnected {
            return Err(NatsError::Away);
        }
        let mut headers = HeaderMap::new();
        headers.insert(DEADLINE, within.as_millis().to_string());
        // an inbox of its own is gone with the request; the client's common one would remember it for ever
        let request =
            Request::new().inbox(client.new_inbox()).headers(headers).payload(payload).timeout(None);
        let answer = client.send_request(subject.to_owned(), request).await;
        let answer = answer.map_err(|error| match error.kind() {
            RequestErrorKind::NoResponders => NatsError::NoResponders,
            _ => NatsError::Broken(causes(&error)),
        })?;
        match answer.payload.len() > self.options.max_message_bytes {
            true => Err(NatsError::TooLarge(self.options.max_message_bytes)),
            false => Ok(answer.payload),
        }
    }

    async fn connect(&self) -> Result<Client, ConnectError> {
        let listener = self.listener.get().cloned();
        let options = self.options.connect(listener.clone(), Arc::clone(&self.is_gone));
        let client = options.connect(self.options.server.clone()).await?;
        if let Some(Listener { subject, heard }) = listener {
            let mut messages = match client.subscribe(subject.clone()).await {
                Ok(messages) => messages,
                Err(error) => {
                    warn!(subject, %error, "nothing can be heard on this subject of NATS");
                    return Ok(client);
                }
            };
            let listening = tokio::spawn(async move {
                while let Some(message) = messages.next().await {
                    heard(Heard::Message(&message.payload));
                }
            });
            let _ = self.listening.set(listening.abort_handle());
        }
        Ok(client)
    }

    fn is_away(&self) -> bool {
        let state = self.connection.get().map(Client::connection_state);
        state.is_none_or(|state| state != State::Connected)
    }
}

impl Drop for NatsClient {
    fn drop(&mut self) {
        self.is_gone.store(true, Ordering::Relaxed);
        // a subscription would keep the connection
        if let Some(listening) = self.listening.get() {
            listening.abort();
        }
    }
}

impl fmt::Debug for NatsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NatsClient")
    }
}

impl Options {
    fn connect(&self, listener: Option<Listener>, is_gone: Arc<AtomicBool>) -> ConnectOptions {
        let news = Arc::new(News::new(&self.policy, &self.server, self.connect_timeout));
        let was_connected = AtomicBool::new(false);
        let options = ConnectOptions::new()
            .name("mgate")
            .connection_timeout(self.connect_timeout)
            .request_timeout(None)
            .client_capacity(CAPACITY)
            .subscription_capacity(CAPACITY)
            .retry_on_initial_connect()
            .max_reconnects(None)
            .reconnect_delay_callback(move |attempts| match is_gone.load(Ordering::Relaxed) {
                true => Duration::MAX,
                false => pause(attempts),
            })
            .require_tls(self.server.tls_required())
            .tls_client_config(self.tls.to_rustls())
            .event_callback(move |event| {
                let is_caught_up = matches!(event, Event::Connected | Event::SlowConsumer(_));
                let is_gap = is_caught_up && was_connected.swap(true, Ordering::Relaxed);
                if let Some(listener) = listener.as_ref().filter(|_| is_gap) {
                    (listener.heard)(Heard::Gap);
                }
                news.tell(event);
                std::future::ready(())
            });
        self.login.with(options)
    }
}

/// What the log hears of a connection: once that it is there, once that it is not.
struct News {
    policy: Arc<str>,
    /// Host and port.
    server: String,
    timeout: Duration,
    is_away: AtomicBool,
}

impl News {
    fn new(policy: &Arc<str>, server: &ServerAddr, timeout: Duration) -> Self {
        let (policy, server) = (Arc::clone(policy), format!("{}:{}", server.host(), server.port()));
        Self { policy, server, timeout, is_away: AtomicBool::new(false) }
    }

    fn tell(self: &Arc<Self>, event: Event) {
        let (policy, server) = (&self.policy, &self.server);
        match event {
            Event::Connected => {
                self.is_away.store(false, Ordering::Relaxed);
                info!(%policy, %server, "connected to NATS");
            }
            Event::Disconnected | Event::ClientError(_) if !self.is_away.swap(true, Ordering::Relaxed) => {
                let news = Arc::clone(self);
                // other events are not to wait for that
                tokio::spawn(async move { news.tell_away(&event).await });
            }
            Event::ClientError(error) => debug!(%policy, %server, %error, "still no connection to NATS"),
            Event::ServerError(error) => warn!(%policy, %server, %error, "NATS reports an error"),
            _ => {}
        }
    }

    /// Says that there is no connection, if that is still so when it is known why.
    async fn tell_away(&self, event: &Event) {
        let why = self.reason(event).await;
        if self.is_away.load(Ordering::Relaxed) {
            warn!(policy = %self.policy, server = %self.server, why, "no connection to NATS");
        }
    }

    /// Why there is no connection. The event has the kind of the error alone, so the server is dialled once more.
    async fn reason(&self, event: &Event) -> String {
        match timeout(self.timeout, TcpStream::connect(&self.server)).await {
            Err(_) => format!("no connection within {:?}", self.timeout),
            Ok(Err(error)) => error.to_string(),
            Ok(Ok(_)) => match event {
                Event::ClientError(error) => error.to_string(),
                _ => "the connection broke".to_owned(),
            },
        }
    }
}

impl NatsLogin {
    /// Whether it is one, as far as can be told without a server.
    pub fn check(&self) -> Result<(), NatsClientError> {
        match self {
            Self::Credentials(text) => {
                ConnectOptions::with_credentials(text).map(drop).map_err(|_| NatsClientError::Credentials)
            }
            Self::Seed(seed) if !(seed.len() == SEED_BYTES && seed.starts_with("SU")) => {
                Err(NatsClientError::Seed)
            }
            _ => Ok(()),
        }
    }

    fn with(&self, options: ConnectOptions) -> ConnectOptions {
        match self.clone() {
            // it was read before, when the client was made
            Self::Credentials(text) => options.credentials(&text).unwrap_or_default(),
            Self::None => options,
            Self::Seed(seed) => options.nkey(seed),
            Self::Token(token) => options.token(token),
            Self::User(user, password) => options.user_and_password(user, password),
        }
    }
}

impl fmt::Debug for NatsLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NatsLogin")
    }
}

/// Reads the address of a server: `nats://host:port` or `tls://host:port`, and nothing more.
pub fn parse_server(text: &str) -> Result<ServerAddr, UrlError> {
    let (scheme, rest) = text.split_once("://").ok_or(UrlError::Syntax)?;
    match scheme {
        "nats" | "tls" if rest.contains('@') => Err(UrlError::Credentials),
        "nats" | "tls" if rest.trim_end_matches('/').contains(['/', '?', '#']) => Err(UrlError::Syntax),
        "nats" | "tls" => text.parse().map_err(|_| UrlError::Syntax),
        _ => Err(UrlError::Scheme),
    }
}

/// Reads a subject without wildcards.
pub fn parse_subject(text: &str) -> Result<String, String> {
    let is_token = |token: &str| !token.is_empty() && !token.contains(['*', '>']);
    let is_subject =
        text.split('.').all(is_token) && !text.contains(|c: char| c.is_whitespace() || c.is_control());
    if is_subject {
        Ok(text.to_owned())
    } else {
        Err("is no subject such as a.b.c, without wildcards".to_owned())
    }
}

impl fmt::Display for NatsClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Credentials => f.write_str("is no file of credentials, with a JWT and a seed"),
            Self::Seed => f.write_str("is no seed of a user's NKey"),
            Self::Tls(error) => error.fmt(f),
        }
    }
}

impl Error for NatsClientError {}

impl fmt::Display for NatsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Away => f.write_str("no connection to NATS"),
            Self::Broken(why) => write!(f, "no answer over NATS: {why}"),
            Self::NoResponders => f.write_str("nobody answers on the subject"),
            Self::TooLarge(bytes) => write!(f, "the answer is larger than {bytes} bytes"),
            Self::TooLate(within) => write!(f, "no answer within {within:?}"),
        }
    }
}

impl Error for NatsError {}

/// How long to wait before the next attempt, so that not everybody comes back at once.
pub(crate) fn pause(attempts: usize) -> Duration {
    let doublings = u32::try_from(attempts).unwrap_or(u32::MAX).min(MAX_DOUBLINGS);
    shorter(FIRST_PAUSE * 2u32.pow(doublings), RandomState::new().hash_one(()))
}

/// By when, in milliseconds from now, an answer is of use.
const DEADLINE: &str = "Nats-Expected-Deadline-Ms";
/// Commands and messages that wait for the connection.
const CAPACITY: usize = 1024;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Up to 3.2 s.
const MAX_DOUBLINGS: u32 = 5;
const SEED_BYTES: usize = 58;

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn client_that_is_gone_dials_no_longer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = parse_server(&format!("nats://{}", listener.local_addr().unwrap())).unwrap();
        let client = NatsClient::new(NatsOptions {
            policy: "pdp".into(),
            server,
            ca: Some(Authorities::none()),
            identity: None,
            login: NatsLogin::None,
            connect_timeout: Duration::from_secs(1),
            max_message_bytes: 64,
        });
        let client = client.unwrap();
        let listener = &listener;
        let dialled = |times| async move {
            for _ in 0..times {
                drop(listener.accept().await.unwrap());
            }
        };
        tokio::select! {
            answer = client.request("a", Bytes::new(), HOUR) => panic!("{answer:?}"),
            () = dialled(2) => {}
        }
        drop(client);
        // once more, and once to find out why, if that was on its way
        assert!(timeout(HOUR, dialled(3)).await.is_err());
    }

    const HOUR: Duration = Duration::from_secs(60 * 60);
}
