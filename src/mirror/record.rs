//! One message for the bus, as it goes out.

use bytes::Bytes;

/// A copy or an event that is ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where it goes.
    pub subject: Box<str>,
    /// What is said about it.
    pub headers: Headers,
    /// What it carries.
    pub payload: Bytes,
}

/// Headers as NATS writes them: a line for each, without the version before and the empty line behind them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<u8>);

impl Headers {
    /// Adds a header. What could end its line is written as a space.
    pub fn push(&mut self, name: &'static str, value: &str) {
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b": ");
        let byte = |byte: u8| if byte.is_ascii_control() { b' ' } else { byte };
        self.0.extend(value.bytes().map(byte));
        self.0.extend_from_slice(b"\r\n");
    }

    /// The lines.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The headers one by one, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let text = str::from_utf8(&self.0).unwrap_or_default();
        text.split_terminator("\r\n").filter_map(|line| line.split_once(": "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_stays_in_its_line() {
        let mut headers = Headers::default();
        headers.push("Mgate-Client", "a\r\nNats-Msg-Id: b");
        headers.push("Mgate-Route", "ü: 1");
        let read: Vec<_> = headers.iter().collect();
        assert_eq!(read, [("Mgate-Client", "a  Nats-Msg-Id: b"), ("Mgate-Route", "ü: 1")]);
        assert_eq!(headers.as_bytes(), "Mgate-Client: a  Nats-Msg-Id: b\r\nMgate-Route: ü: 1\r\n".as_bytes());
    }
}
