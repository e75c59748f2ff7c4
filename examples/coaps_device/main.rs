//! A device that publishes readings with CoAP over DTLS, and hears what else is published there.
//!
//! With a key that it shares with mgate; the same line of the same file says it to both:
//!
//!     cd examples/coaps_device
//!     echo "dev-1:$(openssl rand -hex 16)" >devices.psk
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
use std::time::Duration;

use anyhow::{bail, ensure};
use clap::Parser;
use coap_lite::{ContentFormat, Packet, RequestType};
use serde_json::json;
use tokio::time::{Instant, sleep};
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
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let config = match (&arguments.psk, &arguments.certificate[..]) {
        (Some(file), _) => credential::shared_key(file)?,
        (None, [certificate, key, authority]) => credential::certificate([certificate, key, authority])?,
        _ => bail!("--certificate takes three files"),
    };
    let mut device = Device { arguments, config, started: Instant::now(), published: 0, reading: None };
    let mut pause = SHORTEST_PAUSE;
    loop {
        let before = device.published;
        match device.live().await {
            Ok(()) => return Ok(()),
            Err(error) => eprintln!("the session is over: {error:#}"),
        }
        if device.published > before {
            pause = SHORTEST_PAUSE;
        }
        // a fleet that lost its gateway must not come back all at once
        sleep(pause.mul_f64(0.5 + random() / 2.0)).await;
        pause = LONGEST_PAUSE.min(pause * 2);
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

impl Device {
    /// One session, from its handshake to its end; an error if there is more to do.
    async fn live(&mut self) -> anyhow::Result<()> {
        let mut session = Session::open(&self.arguments.target, self.config.clone()).await?;
        if self.arguments.observe {
            let answer = session.observe(self.request(RequestType::Get)).await?;
            println!("observing: {}", answer.header.get_code());
        }
        while self.arguments.count.is_none_or(|count| self.published < count) {
            let code = session.ask(self.publication()).await?.header.get_code();
            println!("answered: {code}");
            // RFC 7252 §5.9.3: it may be otherwise later; what is refused with 4.xx stays refused
            ensure!(!code.starts_with('5'), "the gateway cannot take it");
            (self.reading, self.published) = (None, self.published + 1);
            session.listen(Duration::from_secs(self.arguments.interval)).await?;
        }
        session.close().await
    }

    /// A reading as SenML (RFC 8428).
    fn publication(&mut self) -> Packet {
        let mut request = self.request(RequestType::Post);
        let uptime = self.started.elapsed().as_secs_f64();
        let measure = || json!([{ "n": "uptime", "u": "s", "v": uptime }]).to_string().into_bytes();
        request.payload = self.reading.get_or_insert_with(measure).clone();
        request.set_content_format(ContentFormat::ApplicationSenmlJSON);
        request
    }

    fn request(&self, method: RequestType) -> Packet {
        self.arguments.target.request(method)
    }
}

const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
