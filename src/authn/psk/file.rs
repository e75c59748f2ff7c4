use std::collections::HashMap;

use mgate_proxy::psk::Psk;

use super::super::is_safe_identity;

/// Keys by their identities, as a file has them, with one `identity:key` a line and the key in hexadecimal digits.
#[derive(Debug)]
pub struct PskFile(HashMap<Box<str>, Psk>);

/// What is wrong with one line of a file; it shows nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineFault {
    /// Its number, counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub message: &'static str,
}

impl PskFile {
    /// Reads the text of a file; all faults are found at once. Empty lines and those that begin with `#` say nothing.
    pub fn parse(text: &str) -> Result<Self, Vec<LineFault>> {
        let (mut keys, mut faults) = (HashMap::new(), Vec::new());
        let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
        for (number, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
            let read = entry(line).and_then(|(identity, key)| match keys.insert(identity.into(), key) {
                Some(_) => Err("this identity has a key already"),
                None => Ok(()),
            });
            faults.extend(read.err().map(|message| LineFault { line: number, message }));
        }
        if faults.is_empty() { Ok(Self(keys)) } else { Err(faults) }
    }

    /// The key behind an identity.
    pub fn key(&self, identity: &str) -> Option<&Psk> {
        self.0.get(identity)
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// An identity may have colons of its own: it is often a URN.
fn entry(line: &str) -> Result<(&str, Psk), &'static str> {
    let (identity, digits) = line.rsplit_once(':').ok_or("is not identity:key")?;
    if !is_safe_identity(identity) {
        return Err("the identity is empty or has `/`, `+`, `#` or U+0000");
    }
    if identity.len() > Psk::MAX_IDENTITY_BYTES {
        return Err("the identity is longer than 256 bytes");
    }
    let key = bytes(digits).ok_or("the key is not made of pairs of hexadecimal digits")?;
    Ok((identity, Psk::new(&key).ok_or("the key is empty or longer than 256 bytes")?))
}

fn bytes(digits: &str) -> Option<Vec<u8>> {
    let digit = |letter: u8| char::from(letter).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = digits.as_bytes().chunks(2);
    pairs.map(|pair| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_identities_and_keys() {
        let file = PskFile::parse("# devices\n\ndev-1:00FFa0\r\n  urn:imei:1:0a \n").unwrap();
        assert_eq!(file.len(), 2);
        assert_eq!(file.key("dev-1").unwrap().reveal(), [0x00, 0xff, 0xa0]);
        assert_eq!(file.key("urn:imei:1").unwrap().reveal(), [0x0a]);
        assert_eq!(file.key("dev-2"), None);
        assert!(PskFile::parse("").unwrap().is_empty());
    }

    #[test]
    fn each_fault_has_its_line_and_shows_no_key() {
        let long = format!("{}:00\nl:{}", "x".repeat(257), "00".repeat(257));
        let text = format!("dev-1:00\nnothing\n:00\na/b:00\ndev-2:0\ndev-2:0g\ndev-3:\ndev-1:01\n{long}");
        let faults = PskFile::parse(&text).unwrap_err();
        let (digits, charset) = (
            "the key is not made of pairs of hexadecimal digits",
            "the identity is empty or has `/`, `+`, `#` or U+0000",
        );
        let expected = [
            (2, "is not identity:key"),
            (3, charset),
            (4, charset),
            (5, digits),
            (6, digits),
            (7, "the key is empty or longer than 256 bytes"),
            (8, "this identity has a key already"),
            (9, "the identity is longer than 256 bytes"),
            (10, "the key is empty or longer than 256 bytes"),
        ];
        assert_eq!(faults, expected.map(|(line, message)| LineFault { line, message }));
    }
}
