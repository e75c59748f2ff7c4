//! Texts from outside, written so that they mean nothing but themselves.

/// Writes a text with each special byte as `%` and two digits. Either all bytes of characters beyond ASCII are
/// special, or none of them.
pub(super) fn escape(text: &str, is_special: impl Fn(u8) -> bool, write: &mut impl FnMut(&str)) {
    // without a branch a byte, which processors do many bytes at a time
    if !text.bytes().fold(false, |found, byte| found | is_special(byte)) {
        return write(text);
    }
    let mut plain_from = 0;
    for (at, byte) in text.bytes().enumerate() {
        if is_special(byte) {
            write(text.get(plain_from..at).unwrap_or_default());
            write("%");
            let [high, low] = [byte >> 4, byte & 0xf].map(usize::from);
            write(&DIGITS[high..=high]);
            write(&DIGITS[low..=low]);
            plain_from = at + 1;
        }
    }
    write(text.get(plain_from..).unwrap_or_default());
}

/// What a token of a subject, or the value of a header, was before it was escaped; `None` if it never was.
pub fn unescape(text: &str) -> Option<String> {
    if text == EMPTY {
        return Some(String::new());
    }
    let mut bytes = text.bytes();
    let mut plain = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        plain.push(match byte {
            b'%' => digit(bytes.next()?)? << 4 | digit(bytes.next()?)?,
            byte => byte,
        });
    }
    String::from_utf8(plain).ok()
}

fn digit(byte: u8) -> Option<u8> {
    let value = DIGITS.bytes().position(|digit| digit == byte)?;
    u8::try_from(value).ok()
}

/// Stands for a text without characters: no other text is written so.
pub(super) const EMPTY: &str = "%";

const DIGITS: &str = "0123456789ABCDEF";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_never_escaped_is_not_read() {
        assert_eq!(unescape("%"), Some(String::new()));
        assert_eq!(unescape("a%2Eb%C3%BC"), Some("a.bü".into()));
        for text in ["%2e", "%2", "a%", "%%", "%GG", "%FF", "% 1", "%+1"] {
            assert_eq!(unescape(text), None, "{text}");
        }
    }
}
