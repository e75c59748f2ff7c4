//! One message for the bus, as it goes out.

use super::escape::escape;

/// A copy or an event that is ready to be sent: subject, headers and payload, one behind the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    bytes: Vec<u8>,
    head_at: usize,
    payload_at: usize,
}

/// Headers that are being written, as NATS writes them: a line for each, behind a subject.
#[derive(Debug)]
pub struct Headers {
    bytes: Vec<u8>,
    head_at: usize,
}

impl Record {
    /// Puts together what was taken apart.
    pub(super) fn of_parts(subject: &[u8], head: &[u8], payload: &[u8]) -> Self {
        let payload_at = subject.len() + head.len();
        Self { bytes: [subject, head, payload].concat(), head_at: subject.len(), payload_at }
    }

    /// A record whose subject and head are written, and maybe some of its payload.
    pub(super) fn begun(bytes: Vec<u8>, head_at: usize, payload_at: usize) -> Self {
        Self { bytes, head_at, payload_at }
    }

    /// Where it goes.
    pub fn subject(&self) -> &str {
        str::from_utf8(self.subject_bytes()).unwrap_or_default()
    }

    /// The headers one by one, in their order, with values as they are written.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        let text = str::from_utf8(self.head()).unwrap_or_default();
        text.split_terminator("\r\n").filter_map(|line| line.split_once(": "))
    }

    /// What it carries.
    pub fn payload(&self) -> &[u8] {
        &self.bytes[self.payload_at..]
    }

    /// All of it, one part behind the other.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The same, for whoever has use for its memory.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// What is written behind this is payload.
    pub(super) fn out(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    pub(super) fn subject_bytes(&self) -> &[u8] {
        &self.bytes[..self.head_at]
    }

    /// The block of headers, with its first and its last line.
    pub(super) fn head(&self) -> &[u8] {
        &self.bytes[self.head_at..self.payload_at]
    }

    /// All but the subject.
    pub(super) fn body(&self) -> &[u8] {
        &self.bytes[self.head_at..]
    }

    /// The memory that it takes.
    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }
}

impl Headers {
    /// No headers yet, for what goes where `subject` says.
    pub fn behind(mut subject: Vec<u8>) -> Self {
        let head_at = subject.len();
        subject.extend_from_slice(VERSION);
        Self { bytes: subject, head_at }
    }

    /// Adds a header. What is not printable ASCII, `%`, and spaces at both ends are written as `%` and two
    /// digits.
    pub fn push(&mut self, name: &'static str, value: &str) {
        self.begin(name);
        self.write(value);
    }

    /// The same behind all that stands before a value: the end of the line before, the name, a colon and a space.
    pub(super) fn push_behind(&mut self, start: &'static str, value: &str) {
        self.bytes.extend_from_slice(start.as_bytes());
        self.write(value);
    }

    /// Adds a header whose value has nothing in it that [`Headers::push`] would write otherwise.
    pub(super) fn push_plain(&mut self, name: &'static str, value: impl AsRef<[u8]>) {
        self.begin(name);
        self.bytes.extend_from_slice(value.as_ref());
    }

    /// The same behind all that stands before a value, as in [`Headers::push_behind`]; says where the value begins.
    pub(super) fn push_plain_behind(&mut self, start: &'static str, value: impl AsRef<[u8]>) -> usize {
        self.bytes.extend_from_slice(start.as_bytes());
        let at = self.bytes.len();
        self.bytes.extend_from_slice(value.as_ref());
        at
    }

    /// A record with these headers and nothing in it.
    pub fn end(mut self) -> Record {
        self.bytes.extend_from_slice(b"\r\n\r\n");
        Record { payload_at: self.bytes.len(), bytes: self.bytes, head_at: self.head_at }
    }

    fn begin(&mut self, name: &'static str) {
        self.bytes.extend_from_slice(b"\r\n");
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.extend_from_slice(b": ");
    }

    fn write(&mut self, value: &str) {
        let out = &mut self.bytes;
        let mut write = |text: &str| out.extend_from_slice(text.as_bytes());
        let is_space = |byte: Option<&u8>| byte == Some(&b' ');
        if is_space(value.as_bytes().first()) || is_space(value.as_bytes().last()) {
            let behind = value.trim_start_matches(' ');
            let inner = behind.trim_end_matches(' ');
            (behind.len()..value.len()).for_each(|_| write("%20"));
            escape(inner, is_special, &mut write);
            (inner.len()..behind.len()).for_each(|_| write("%20"));
        } else {
            escape(value, is_special, &mut write);
        }
    }
}

/// Whether a byte does not stand in a value as it is.
fn is_special(byte: u8) -> bool {
    !(b' '..0x7f).contains(&byte) | (byte == b'%')
}

/// NATS protocol, HPUB: the version line of headers, whose end is that of the line before the first header.
const VERSION: &[u8] = b"NATS/1.0";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::escape::unescape;
    use super::*;

    #[test]
    fn value_stays_in_its_line() {
        let mut headers = Headers::behind(b"a.b".to_vec());
        headers.push("Mgate-Client", "a\r\nNats-Msg-Id: b");
        headers.push("Mgate-Route", "ü: 1");
        headers.push("Mgate-Topic", "  100%  ");
        headers.push("Mgate-Tenant", "  ");
        headers.push("Mgate-Principal", "");
        let record = headers.end();
        let read: Vec<_> = record.headers().collect();
        let expected = [
            ("Mgate-Client", "a%0D%0ANats-Msg-Id: b"),
            ("Mgate-Route", "%C3%BC: 1"),
            ("Mgate-Topic", "%20%20100%25%20%20"),
            ("Mgate-Tenant", "%20%20"),
            ("Mgate-Principal", ""),
        ];
        assert_eq!(read, expected);
        assert!(
            record.body().starts_with(b"NATS/1.0\r\nMgate-Client: a%0D%0ANats-Msg-Id: b\r\nMgate-Route: ")
        );
        assert_eq!((record.subject(), record.payload()), ("a.b", &b""[..]));
    }

    proptest! {
        #[test]
        fn value_is_printable_and_can_be_read_back(value in any::<String>()) {
            let mut headers = Headers::behind(b"a.b".to_vec());
            headers.push("A", &value);
            let record = headers.end();
            let text = str::from_utf8(record.head()).unwrap();
            let written = text.strip_prefix("NATS/1.0\r\nA: ").and_then(|text| text.strip_suffix("\r\n\r\n"));
            let written = written.unwrap();
            prop_assert!(written.bytes().all(|byte| (b' '..0x7f).contains(&byte)));
            prop_assert_eq!(written.trim(), written);
            prop_assert_eq!(unescape(written), Some(value));
        }
    }
}
