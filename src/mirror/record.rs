//! One message for the bus, as it goes out.

use super::dialect::escape::escape;

/// A copy or an event that is ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where it goes.
    pub subject: Box<str>,
    /// What is said about it.
    pub headers: Headers,
    /// What it carries.
    pub payload: Vec<u8>,
}

/// Headers as NATS writes them: a line for each, without the version before and the empty line behind them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<u8>);

impl Headers {
    /// No headers, with room for some bytes of them.
    pub fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    /// Adds a header. What is not printable ASCII, `%`, and spaces at both ends are written as `%` and two
    /// digits.
    pub fn push(&mut self, name: &'static str, value: &str) {
        self.begin(name);
        let out = &mut self.0;
        let mut write = |text: &str| out.extend_from_slice(text.as_bytes());
        if value.starts_with(' ') || value.ends_with(' ') {
            let behind = value.trim_start_matches(' ');
            let inner = behind.trim_end_matches(' ');
            (behind.len()..value.len()).for_each(|_| write("%20"));
            escape(inner, is_special, &mut write);
            (inner.len()..behind.len()).for_each(|_| write("%20"));
        } else {
            escape(value, is_special, &mut write);
        }
        self.end();
    }

    /// Adds a header whose value has nothing in it that [`Headers::push`] would write otherwise.
    pub(super) fn push_plain(&mut self, name: &'static str, value: &str) {
        self.begin(name);
        self.0.extend_from_slice(value.as_bytes());
        self.end();
    }

    /// The lines.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The headers one by one, in their order, with values as they are written.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let text = str::from_utf8(&self.0).unwrap_or_default();
        text.split_terminator("\r\n").filter_map(|line| line.split_once(": "))
    }

    fn begin(&mut self, name: &'static str) {
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b": ");
    }

    fn end(&mut self) {
        self.0.extend_from_slice(b"\r\n");
    }
}

/// Whether a byte does not stand in a value as it is.
fn is_special(byte: u8) -> bool {
    !(b' '..0x7f).contains(&byte) | (byte == b'%')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::dialect::unescape;
    use super::*;

    #[test]
    fn value_stays_in_its_line() {
        let mut headers = Headers::default();
        headers.push("Mgate-Client", "a\r\nNats-Msg-Id: b");
        headers.push("Mgate-Route", "ü: 1");
        headers.push("Mgate-Topic", "  100%  ");
        headers.push("Mgate-Tenant", "  ");
        headers.push("Mgate-Principal", "");
        let read: Vec<_> = headers.iter().collect();
        let expected = [
            ("Mgate-Client", "a%0D%0ANats-Msg-Id: b"),
            ("Mgate-Route", "%C3%BC: 1"),
            ("Mgate-Topic", "%20%20100%25%20%20"),
            ("Mgate-Tenant", "%20%20"),
            ("Mgate-Principal", ""),
        ];
        assert_eq!(read, expected);
        assert!(headers.as_bytes().starts_with(b"Mgate-Client: a%0D%0ANats-Msg-Id: b\r\nMgate-Route: "));
    }

    proptest! {
        #[test]
        fn value_is_printable_and_can_be_read_back(value in any::<String>()) {
            let mut headers = Headers::default();
            headers.push("A", &value);
            let text = str::from_utf8(headers.as_bytes()).unwrap();
            let written = text.strip_prefix("A: ").and_then(|text| text.strip_suffix("\r\n")).unwrap();
            prop_assert!(written.bytes().all(|byte| (b' '..0x7f).contains(&byte)));
            prop_assert_eq!(written.trim(), written);
            prop_assert_eq!(unescape(written), Some(value));
        }
    }
}
