//! Values that are written as strings.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::neighbour::http::UrlError;

/// Where to listen, or to connect to: `scheme://host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// How to speak there.
    pub scheme: Scheme,
    /// A name or an IP address, without brackets.
    pub host: String,
    /// The port; the scheme's own if none was written.
    pub port: u16,
    /// What follows, from the slash on; over WebSocket only.
    pub path: Option<String>,
}

/// A protocol with its transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// CoAP over UDP.
    Coap,
    /// CoAP over DTLS.
    Coaps,
    /// HTTP over TCP.
    Http,
    /// HTTP over TLS.
    Https,
    /// MQTT over TCP.
    Mqtt,
    /// MQTT over WebSocket.
    MqttWs,
    /// MQTT over WebSocket over TLS.
    MqttWss,
    /// MQTT over TLS.
    Mqtts,
}

impl Scheme {
    /// Whether it is encrypted by DTLS.
    pub fn is_dtls(self) -> bool {
        self == Self::Coaps
    }

    /// Whether it is encrypted by TLS.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::MqttWss | Self::Mqtts)
    }

    /// Whether it speaks HTTP, and no other protocol within it.
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Https)
    }

    /// Whether it speaks CoAP.
    pub fn is_coap(self) -> bool {
        matches!(self, Self::Coap | Self::Coaps)
    }

    /// Whether it speaks MQTT, over whatever.
    pub fn is_mqtt(self) -> bool {
        !self.is_coap() && !self.is_http()
    }

    /// Whether it speaks WebSocket.
    pub fn is_websocket(self) -> bool {
        matches!(self, Self::MqttWs | Self::MqttWss)
    }

    /// The scheme of HTTP whose listener could serve it too: its own, or that of its WebSockets.
    pub fn of_http(self) -> Option<Self> {
        match self {
            Self::Http | Self::MqttWs => Some(Self::Http),
            Self::Https | Self::MqttWss => Some(Self::Https),
            Self::Coap | Self::Coaps | Self::Mqtt | Self::Mqtts => None,
        }
    }

    fn port(self) -> u16 {
        match self {
            Self::Coap => 5683,
            Self::Coaps => 5684,
            Self::Http | Self::MqttWs => 80,
            Self::Https | Self::MqttWss => 443,
            Self::Mqtt => 1883,
            Self::Mqtts => 8883,
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Coap => "coap",
            Self::Coaps => "coaps",
            Self::Http => "http",
            Self::Https => "https",
            Self::Mqtt => "mqtt",
            Self::MqttWs => "mqtt+ws",
            Self::MqttWss => "mqtt+wss",
            Self::Mqtts => "mqtts",
        })
    }
}

impl FromStr for Scheme {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "coap" => Ok(Self::Coap),
            "coaps" if cfg!(feature = "dtls") => Ok(Self::Coaps),
            "coaps" => Err(WITHOUT_DTLS.into()),
            "http" => Ok(Self::Http),
            "https" => Ok(Self::Https),
            "mqtt" => Ok(Self::Mqtt),
            "mqtts" => Ok(Self::Mqtts),
            "mqtt+ws" => Ok(Self::MqttWs),
            "mqtt+wss" => Ok(Self::MqttWss),
            "ws" | "wss" => Err(format!("scheme \"{text}\" is not supported by this version ({SCHEMES})")),
            _ => Err(format!("unknown scheme \"{text}\" ({SCHEMES})")),
        }
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        forbid_credentials(text)?;
        let (scheme, rest) =
            text.split_once("://").ok_or_else(|| format!("\"{text}\" has no scheme: write mqtt://{text}"))?;
        let scheme: Scheme = scheme.parse()?;
        let (authority, path) = match rest.find('/') {
            Some(slash) if scheme.is_websocket() => (&rest[..slash], Some(rest[slash..].to_owned())),
            _ => (rest, None),
        };
        let (host, port) =
            split_port(authority).ok_or_else(|| format!("\"{authority}\" is not host:port"))?;
        let port = match port {
            None => scheme.port(),
            Some(port) => port.parse().map_err(|_| format!("\"{port}\" is not a port"))?,
        };
        Ok(Self { scheme, host: host.into(), port, path })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scheme, host, port, path } = self;
        let path = path.as_deref().unwrap_or_default();
        match host.contains(':') {
            true => write!(f, "{scheme}://[{host}]:{port}{path}"),
            false => write!(f, "{scheme}://{host}:{port}{path}"),
        }
    }
}

/// Refuses an address with a user name or a password, without repeating it.
pub(super) fn forbid_credentials(address: &str) -> Result<(), String> {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or_default();
    if authority.contains('@') { Err(UrlError::Credentials.to_string()) } else { Ok(()) }
}

/// A number of bytes: `1048576`, `256KiB`, `1MiB`, `64kB`.
pub(crate) fn bytes(text: &str) -> Result<i128, String> {
    let (number, unit) = split_unit(text);
    let factor = BYTE_UNITS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
    match (number.parse::<u64>(), factor) {
        (Ok(number), Some(factor)) => Ok(i128::from(number) * factor),
        _ => Err(format!("\"{text}\" is not a number of bytes such as 65536 or \"256KiB\"")),
    }
}

/// A time: `500ms`, `10s`, `5m`, `1h`, `7d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split_unit(text);
    let millis = TIME_UNITS.iter().find(|(name, _)| *name == unit).map(|(_, millis)| *millis);
    let time = number.parse::<u64>().ok().zip(millis).and_then(|(number, millis)| number.checked_mul(millis));
    time.map(Duration::from_millis)
        .ok_or_else(|| format!("\"{text}\" is not a time such as \"10s\" or \"500ms\""))
}

/// A time in the largest unit that shows it whole.
pub(crate) fn show_millis(millis: u64) -> String {
    let unit =
        TIME_UNITS.iter().rev().find(|(_, factor)| millis >= *factor && millis.is_multiple_of(*factor));
    match unit {
        Some((name, factor)) => format!("{}{name}", millis / factor),
        None => "0s".into(),
    }
}

pub(crate) fn whole_millis(duration: &Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn split_unit(text: &str) -> (&str, &str) {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    (&text[..digits], text[digits..].trim_start())
}

/// The host and the port of `host:port`, `host` or `[::1]:port`; nothing else may stand there.
fn split_port(text: &str) -> Option<(&str, Option<&str>)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            match after {
                "" => (host, None),
                _ => (host, Some(after.strip_prefix(':')?)),
            }
        }
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let is_host =
        !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte));
    is_host.then_some((host, port))
}

const SCHEMES: &str = "mqtt, mqtts, mqtt+ws, mqtt+wss, http, https, coap, coaps";

/// What is said of CoAP over DTLS by a build that cannot do it.
pub(super) const WITHOUT_DTLS: &str = "scheme \"coaps\" is not in this build, which lacks the feature `dtls`";

const BYTE_UNITS: &[(&str, i128)] = &[
    ("", 1),
    ("B", 1),
    ("kB", 1000),
    ("KiB", 1024),
    ("MB", 1_000_000),
    ("MiB", 1024 * 1024),
    ("GB", 1_000_000_000),
    ("GiB", 1024 * 1024 * 1024),
];

const TIME_UNITS: &[(&str, u64)] =
    &[("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_takes_the_port_of_its_scheme() {
        for (text, shown) in [
            ("mqtt://broker", "mqtt://broker:1883"),
            ("mqtts://0.0.0.0", "mqtts://0.0.0.0:8883"),
            ("mqtt+ws://broker", "mqtt+ws://broker:80"),
            ("mqtt+wss://[::1]", "mqtt+wss://[::1]:443"),
            ("mqtt://[::]:0", "mqtt://[::]:0"),
            ("coap://upstream", "coap://upstream:5683"),
            #[cfg(feature = "dtls")]
            ("coaps://[::]", "coaps://[::]:5684"),
            ("http://upstream", "http://upstream:80"),
            ("https://upstream", "https://upstream:443"),
            ("mqtt+ws://broker/a/b", "mqtt+ws://broker:80/a/b"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "broker:1883",
            "mqtt://",
            "mqtt://:1",
            "mqtt://a:b",
            "mqtt://a:65536",
            "mqtt://a:1/path",
            "coap://a:1/path",
            "http://a:1/path",
            "mqtt://user@a",
            "mqtt://[::1]x",
            "mqtt://[a]:1",
            "mqtt://::1",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[test]
    fn credentials_in_an_address_are_not_repeated() {
        for text in
            ["mqtt://user:hunter2@a", "mqtt://hunter2@a:1", "user:hunter2@a", "mqtt+ws://a:hunter2@b/c"]
        {
            let error = text.parse::<Address>().unwrap_err();
            assert_eq!(error, UrlError::Credentials.to_string());
        }
        assert!("mqtt+ws://a/b@c".parse::<Address>().is_ok());
    }

    #[test]
    fn bytes_and_durations_have_units() {
        assert_eq!(bytes("256KiB"), Ok(262_144));
        assert_eq!(bytes("1 MB"), Ok(1_000_000));
        assert_eq!(bytes("7"), Ok(7));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        for text in
            ["", "10", "s", "-1s", "1.5s", "10 seconds", "99999999999999999999s", "18446744073709551615d"]
        {
            assert!(duration(text).is_err(), "{text}");
        }
        for text in ["", "KiB", "-1", "1KB!", "0x10"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_are_shown_in_the_largest_unit() {
        for (millis, shown) in [(0, "0s"), (1, "1ms"), (1500, "1500ms"), (60_000, "1m"), (86_400_000, "1d")] {
            assert_eq!(show_millis(millis), shown);
        }
    }
}
