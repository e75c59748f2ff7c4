//! A device that publishes readings with CoAP over DTLS, and hears what else is published there.
//!
//! With a key that it shares with mgate; the same line of the same file says it to both:
//!
//!     cd examples/coaps_device
//!     (umask 077; echo "dev-1:$(openssl rand -hex 16)" >devices.psk)
//!     mgate run -c mgate.toml &
//!     cargo run --example coaps_device -- --psk devices.psk coaps://127.0.0.1:5684/channels/dev-1/messages
//!
//! or with a certificate:
//!
//!     cargo run --example coaps_device -- --certificate dev-1.pem dev-1.key ca.pem coaps://…
//!
//! `main.rs` is what the device does, `session.rs` is CoAP within one session, `credential.rs` is who it is.

#![expect(clippy::print_stdout, reason = "it has somebody to talk to")]

mod credential;
mod session;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::bail;
use clap::Parser;
use coap_lite::option_value::OptionValueU32;
use coap_lite::{CoapOption, ContentFormat, Packet, RequestType};
use serde_json::json;
use tokio::time::{Instant, sleep_until};
use webrtc_dtls::config::Config;

use session::{Session, Target, random};

#[derive(Parser)]
struct Arguments {
    /// Where to publish: coaps://HOST[:PORT]/PATH
    target: Target,
    /// A file with the device's identity, a colon, and its key in hexadecimal digits
    #[arg(long, value_name = "FILE", required_unless_present = "certificate")]
    psk: Option<PathBuf>,
    /// The device's certificate, its key (P-256, PKCS #8), and the gateway's authority, as PEM
    #[arg(long, num_args = 3, value_names = ["FILE", "KEY", "CA"], conflicts_with = "psk")]
    certificate: Vec<PathBuf>,
    /// Hear what is published there
    #[arg(long)]
    observe: bool,
    /// Publish so many readings, and end
    #[arg(long)]
    count: Option<u64>,
    /// Seconds between readings
    #[arg(long, default_value_t = 10)]
    interval: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let config = match (&arguments.psk, &arguments.certificate[..]) {
        (Some(file), _) => credential::shared_key(file)?,
        (None, [certificate, key, authority]) => credential::certificate([certificate, key, authority])?,
        _ => bail!("--certificate takes three files"),
    };
    let mut device = Device { arguments, config, started: Instant::now(), published: 0, reading: None };
    let mut session = Task::new();
    loop {
        let before = device.published;
        match device.live().await {
            Ok(end) => return Ok(end),
            Err(error) => eprintln!("the session is over: {error:#}"),
        }
        if device.published > before {
            session = Task::new();
        }
        session.put_off(Duration::ZERO);
        sleep_until(session.due).await;
    }
}

struct Device {
    arguments: Arguments,
    config: Config,
    started: Instant,
    published: u64,
    /// What was measured, until somebody has it: another session goes on with it.
    reading: Option<Vec<u8>>,
}

/// What is tried again if it fails, each time after a longer pause.
struct Task {
    due: Instant,
    pause: Duration,
}

/// What the gateway makes of a request.
enum Verdict {
    Taken,
    /// It may be otherwise after this time.
    Later(Duration),
    Refused,
}

impl Device {
    /// One session, from its handshake to its goodbye: how the program ends, or why another session must go on.
    async fn live(&mut self) -> anyhow::Result<ExitCode> {
        let mut session = Session::open(&self.arguments.target, self.config.clone()).await?;
        let end = self.work(&mut session).await;
        session.close().await;
        end
    }

    async fn work(&mut self, session: &mut Session) -> anyhow::Result<ExitCode> {
        let (mut observation, mut publication) = (self.arguments.observe.then(Task::new), Task::new());
        while self.arguments.count.is_none_or(|count| self.published < count) {
            if let Some(task) = observation.as_mut().filter(|task| task.is_due() && !session.is_observing())
                && !self.observe(session, task).await?
            {
                observation = None;
            }
            if publication.is_due() && !self.publish(session, &mut publication).await? {
                return Ok(ExitCode::FAILURE);
            }
            let waiting = observation.as_ref().filter(|_| !session.is_observing());
            let due = waiting.map_or(publication.due, |task| task.due.min(publication.due));
            session.listen(due).await?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Begins to observe; says whether it is worth another try, now or when it is over.
    async fn observe(&self, session: &mut Session, task: &mut Task) -> anyhow::Result<bool> {
        let answer = session.observe(self.request(RequestType::Get)).await?;
        println!("observing: {}", answer.header.get_code());
        match Verdict::of(&answer) {
            Verdict::Taken => task.put_off(Duration::ZERO),
            Verdict::Later(wait) => task.put_off(wait),
            Verdict::Refused => return Ok(false),
        }
        Ok(true)
    }

    /// Publishes at least once what was measured: an answer may be lost. Says whether the gateway takes such things.
    async fn publish(&mut self, session: &mut Session, task: &mut Task) -> anyhow::Result<bool> {
        let answer = session.ask(self.publication()).await?;
        println!("answered: {}", answer.header.get_code());
        match Verdict::of(&answer) {
            Verdict::Taken => {
                (self.reading, self.published) = (None, self.published + 1);
                *task = Task::new();
                task.due += Duration::from_secs(self.arguments.interval);
            }
            Verdict::Later(wait) => task.put_off(wait),
            Verdict::Refused => return Ok(false),
        }
        Ok(true)
    }

    /// A reading as SenML (RFC 8428).
    #[expect(clippy::disallowed_methods, reason = "a device has a clock of its own")]
    fn publication(&mut self) -> Packet {
        let mut request = self.request(RequestType::Post);
        let uptime = self.started.elapsed().as_secs_f64();
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let measure =
            || json!([{ "n": "uptime", "t": time, "u": "s", "v": uptime }]).to_string().into_bytes();
        request.payload = self.reading.get_or_insert_with(measure).clone();
        request.set_content_format(ContentFormat::ApplicationSenmlJSON);
        request
    }

    fn request(&self, method: RequestType) -> Packet {
        self.arguments.target.request(method)
    }
}

impl Task {
    fn new() -> Self {
        Self { due: Instant::now(), pause: SHORTEST_PAUSE }
    }

    fn is_due(&self) -> bool {
        self.due <= Instant::now()
    }

    fn put_off(&mut self, at_least: Duration) {
        // a fleet that lost its gateway must not come back all at once
        self.due = Instant::now() + at_least + self.pause.mul_f64(0.5 + random() / 2.0);
        self.pause = LONGEST_PAUSE.min(self.pause * 2);
    }
}

impl Verdict {
    fn of(answer: &Packet) -> Self {
        let max_age = answer.get_first_option_as::<OptionValueU32>(CoapOption::MaxAge);
        let max_age = max_age.and_then(Result::ok).map(|age| Duration::from_secs(age.0.into()));
        match answer.header.get_code().as_str() {
            code if code.starts_with('2') => Self::Taken,
            // RFC 8516 §4: too many requests
            "4.29" => Self::Later(max_age.unwrap_or(DEFAULT_MAX_AGE)),
            // RFC 7252 §5.9.3
            code if code.starts_with('5') => Self::Later(max_age.unwrap_or_default()),
            _ => Self::Refused,
        }
    }
}

const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// RFC 7252 §5.10.5
const DEFAULT_MAX_AGE: Duration = Duration::from_secs(60);
