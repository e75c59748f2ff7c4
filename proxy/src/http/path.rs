//! Paths, decoded once.

use mgate_policies::RequestPath;

use super::problem::Problem;
use crate::transport::hex;

/// The path that stands in a target as bytes. An encoded slash is refused: it is no separator here, and would be one
/// for somebody who decodes again. RFC 3986 §2.1
pub(super) fn decoded(path: &str) -> Result<Box<str>, Problem> {
    if !path.contains('%') {
        RequestPath::parse(path).map_err(|_| Problem::BadPath)?;
        return Ok(path.into());
    }
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        bytes.push(match (first, after) {
            (b'%', [high, low, after @ ..]) => {
                rest = after;
                match hex(*high).zip(hex(*low)).map(|(high, low)| high << 4 | low) {
                    None | Some(b'/') => return Err(Problem::BadPath),
                    Some(byte) => byte,
                }
            }
            (b'%', _) => return Err(Problem::BadPath),
            (byte, _) => *byte,
        });
    }
    let text = String::from_utf8(bytes).map_err(|_| Problem::BadPath)?;
    RequestPath::parse(&text).map_err(|_| Problem::BadPath)?;
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_decoded_once() {
        for (path, text) in [
            ("/", "/"),
            ("/a%20b/%C3%BC", "/a b/ü"),
            ("/a/%252e%252e", "/a/%2e%2e"),
            ("/a+b", "/a+b"),
            ("/%23/%2B", "/#/+"),
            ("/a;x=%41/", "/a;x=A/"),
        ] {
            assert_eq!(decoded(path).as_deref(), Ok(text), "{path}");
        }
    }

    #[test]
    fn paths_that_could_be_read_in_two_ways_are_refused() {
        for path in [
            "*",
            "",
            "/a/../b",
            "/a/%2e%2e/b",
            "/%2E/a",
            "/a%2fb",
            "/a%2F..%2Fb",
            "/a%5cb",
            "/a\\b",
            "/a%00",
            "/a%0d%0ab",
            "/a%7f",
            "/%ff",
            "/%c3",
            "/%",
            "/%2",
            "/%zz",
            "//a",
            "/a//b",
            "/a/..;/b",
        ] {
            assert_eq!(decoded(path), Err(Problem::BadPath), "{path}");
        }
    }
}
