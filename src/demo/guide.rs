use std::fmt::{self, Display, Formatter};
use std::path::Path;

use super::style::{Paint, Style};
use super::{ALICE, DEVICE, DEVICE_1, Directory, Endpoint, KEY_1};

/// What a demo says of itself: what runs where, and what to try.
pub(crate) struct Guide<'a> {
    /// Its files.
    pub(crate) directory: &'a Directory,
    /// Its routes.
    pub(crate) endpoints: &'a [Endpoint],
    /// Whether it may have colours.
    pub(crate) style: Style,
}

/// A command line, and what it shows.
struct Example {
    why: &'static str,
    command: Vec<String>,
}

impl Display for Guide<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.style.paint(Paint::Bold, HEAD))?;
        self.places(f)?;
        writeln!(f, "\n{}", self.style.paint(Paint::Bold, TRY))?;
        for example in self.examples() {
            writeln!(f, "\n  {}", self.style.paint(Paint::Dim, format_args!("# {}", example.why)))?;
            writeln!(f, "  {}", example.line())?;
        }
        writeln!(f, "\n{}", self.style.paint(Paint::Bold, NEXT))?;
        self.next(f)?;
        write!(f, "{}", self.style.paint(Paint::Bold, TRAFFIC))
    }
}

impl Guide<'_> {
    fn places(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for endpoint in self.endpoints {
            let note = match endpoint.address.port() == endpoint.wanted {
                true => String::new(),
                false => format!("  (port {} is taken)", endpoint.wanted),
            };
            writeln!(f, "  {:30} {}{note}", endpoint.url(), what(endpoint.route))?;
        }
        let fate = if self.directory.is_temporary() { ", deleted in the end" } else { "" };
        let path = self.directory.path().display().to_string();
        writeln!(f, "  {path:30} mgate.toml, acl.toml, users.toml, keys.psk, certs/{fate}")?;
        match self.endpoints.iter().all(|endpoint| endpoint.address.ip().is_loopback()) {
            true => Ok(()),
            false => writeln!(f, "\n{}", self.style.paint(Paint::Yellow, EXPOSED)),
        }
    }

    fn examples(&self) -> Vec<Example> {
        let [plain, tls, .., coap, coaps] = self.endpoints else { return Vec::new() };
        let example = |why, command: Vec<String>| Example { why, command };
        let data = format!("devices/{}/data/temperature", DEVICE_1.0);
        let others_data = format!("devices/{DEVICE}/data/temperature");
        let firmware = format!("devices/{DEVICE}/firmware");
        let [certificate, key] = self.certificate();
        vec![
            example(LISTEN, subscribe(plain, "devices/#")),
            example(ALLOWED, publish(plain, &[device_1()], "", &data, "21.5")),
            example(DENIED, publish(plain, &[device_1()], V5, &others_data, "99")),
            example(DENY_OVERRIDES, publish(plain, &[user(ALICE)], V5, &firmware, "v2")),
            example(ENCRYPTED, publish(tls, &[self.authority(), user(ALICE)], V5, &firmware, "v2")),
            example(
                CERTIFICATE,
                publish(tls, &[self.authority(), certificate, key], V5, &others_data, "18.0"),
            ),
            example(WRONG_PASSWORD, publish(plain, &[user((ALICE.0, "cheshire"))], "", &data, "0")),
            example(BY_COAP, post(coap, "notls", &[], "public")),
            example(DENIED_BY_COAP, post(coap, "notls", &[], "private")),
            example(BY_KEY, post(coaps, "openssl", &[key_1()], DEVICE_1.0)),
            example(BY_CERTIFICATE, post(coaps, "openssl", &self.shown_by_coap(), DEVICE)),
        ]
    }

    fn authority(&self) -> String {
        format!("--cafile {}", quoted(&self.directory.certificate("ca.pem")))
    }

    fn certificate(&self) -> [String; 2] {
        let file = |kind| quoted(&self.directory.certificate(&format!("{DEVICE}.{kind}")));
        [format!("--cert {}", file("pem")), format!("--key {} -i {DEVICE}", file("key"))]
    }

    fn shown_by_coap(&self) -> [String; 3] {
        let file = |name: &str| quoted(&self.directory.certificate(name));
        let (certificate, key) = (format!("{DEVICE}.pem"), format!("{DEVICE}.key"));
        [("-R", "ca.pem"), ("-c", &certificate), ("-j", &key)]
            .map(|(option, name)| format!("{option} {}", file(name)))
    }

    fn next(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (directory, configuration) = match self.directory.is_temporary() {
            true => ("demo".into(), "demo/mgate.toml".into()),
            false => (quoted(self.directory.path()), quoted(&self.directory.configuration())),
        };
        let program = program();
        let commands = [
            (format!("{program} demo --dir {directory}"), KEEP),
            (format!("{program} check {configuration}"), CHECK),
            (format!("{program} run -c {configuration}"), RUN),
        ];
        let width = commands.iter().map(|(command, _)| command.len()).max().unwrap_or_default();
        for (command, what) in commands {
            writeln!(f, "  {command:width$}  {what}")?;
        }
        writeln!(f)
    }
}

impl Example {
    /// On more than one line if it is long.
    fn line(&self) -> String {
        let length: usize = self.command.iter().map(|part| part.len() + 1).sum();
        self.command.join(if length <= LINE_LENGTH { " " } else { " \\\n      " })
    }
}

fn subscribe(endpoint: &Endpoint, filter: &str) -> Vec<String> {
    vec![format!("mosquitto_sub {}", address(endpoint)), user(ALICE), format!("-v -t '{filter}'")]
}

fn publish(endpoint: &Endpoint, who: &[String], options: &str, topic: &str, payload: &str) -> Vec<String> {
    let program = format!("mosquitto_pub {}{options}", address(endpoint));
    let message = format!("-t {topic} -m {payload}");
    [&[program], who, &[message]].concat()
}

fn post(endpoint: &Endpoint, library: &str, who: &[String], channel: &str) -> Vec<String> {
    let url = format!("{}/channels/{channel}/messages", endpoint.url());
    [&[format!("coap-client-{library}")], who, &["-m post -e 21.5".into(), url]].concat()
}

fn key_1() -> String {
    format!("-u {} -k {KEY_1}", DEVICE_1.0)
}

fn address(endpoint: &Endpoint) -> String {
    let address = endpoint.reachable();
    format!("-h {} -p {}", address.ip(), address.port())
}

fn user((name, password): (&str, &str)) -> String {
    format!("-u {name} -P {password}")
}

fn device_1() -> String {
    format!("-i {} {}", DEVICE_1.0, user(DEVICE_1))
}

fn what(route: &str) -> &'static str {
    match route {
        "mqtt" => "MQTT 3.1.1 and 5.0",
        "mqtts" => "the same over TLS, with password or certificate",
        "ws" => "over WebSocket",
        "coap" => "CoAP: messages that are mirrored alone",
        "coaps" => "the same over DTLS, with a shared key or a certificate",
        _ => "over WebSocket and TLS",
    }
}

/// How this program was called, which may not be on the path.
fn program() -> String {
    std::env::args_os().next().map_or_else(|| "mgate".into(), |name| quoted(Path::new(&name)))
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let path = path.to_string_lossy();
    let is_plain = |letter: char| letter.is_alphanumeric() || "/-_.,+@".contains(letter);
    if path.chars().all(is_plain) { path.into_owned() } else { format!("'{}'", path.replace('\'', r"'\''")) }
}

const HEAD: &str = "mgate authorizes what goes to an MQTT broker and what comes back. Both run here:\n";
const TRY: &str =
    "To try in other terminals (packages mosquitto-clients and, for the last four, libcoap3-bin):";
const NEXT: &str = "And then:\n";
const TRAFFIC: &str = "What passes and what is denied, until Ctrl-C (times in UTC):\n";
const EXPOSED: &str = "  Others can reach this address, and everybody knows these passwords.";

const LISTEN: &str = "alice is in group ops and hears all devices; leave this running";
const ALLOWED: &str = "device-1 may publish below its own name: alice hears it";
const DENIED: &str = "... and nowhere else. MQTT 5 tells it so at QoS 1: Not authorized";
const DENY_OVERRIDES: &str =
    "ops may send firmware, but firmware-only-encrypted of acl.toml denies it: Not authorized";
const ENCRYPTED: &str = "over TLS nothing denies it";
const CERTIFICATE: &str = "device-7 needs no password: its certificate says who it is";
const WRONG_PASSWORD: &str = "a wrong password does not get as far as the broker";
const BY_COAP: &str = "by CoAP, everybody may publish to channel public";
const DENIED_BY_COAP: &str = "... and to no other: 4.03";
const BY_KEY: &str = "over DTLS, device-1 shows that it has its key, and publishes to its own channel";
const BY_CERTIFICATE: &str = "... and device-7 shows its certificate";

const KEEP: &str = "keeps the files: edit acl.toml and start it again";
const CHECK: &str = "says what the configuration does, or what is wrong with it";
const RUN: &str = "serves it, once your own broker is its upstream";

const V5: &str = " -V 5 -q 1";
/// What most terminals show on one line.
const LINE_LENGTH: usize = 98;
