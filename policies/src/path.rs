use std::error::Error;
use std::fmt;

/// The path of a request, decoded: it begins with `/`, and names the same thing to everybody who reads it.
///
/// There are no control characters and no backslash in it, and no segment is empty, `.` or `..`, but for an empty
/// one at its end. RFC 3986 §5.2.4 has the latter changed on the way; what comes in is refused instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestPath<'a>(&'a str);

/// What is wrong with a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathError {
    /// A backslash, which some take for a separator.
    Backslash,
    /// A control character, U+0000 among them.
    Control,
    /// A segment `.` or `..`, also with parameters behind it: `..;x`.
    Dots,
    /// An empty segment that is not the last one.
    EmptySegment,
    /// It does not begin with `/`.
    NotAbsolute,
}

impl<'a> RequestPath<'a> {
    /// Takes a path without percent-encoding and query.
    pub fn parse(text: &'a str) -> Result<Self, PathError> {
        let segments = text.strip_prefix('/').ok_or(PathError::NotAbsolute)?;
        let is_odd = |byte: u8| byte == b'\\' || !(b' '..=b'~').contains(&byte);
        // without a branch for each byte: most paths have none
        if text.bytes().fold(false, |has_odd, byte| has_odd | is_odd(byte)) {
            check_characters(text)?;
        }
        let mut segments = segments.as_bytes().split(|byte| *byte == b'/').peekable();
        while let Some(segment) = segments.next() {
            if segment.is_empty() && segments.peek().is_some() {
                return Err(PathError::EmptySegment);
            }
            if matches!(segment, b"." | b".." | [b'.', b';', ..] | [b'.', b'.', b';', ..]) {
                return Err(PathError::Dots);
            }
        }
        Ok(Self(text))
    }

    /// The text, with the `/` at its beginning.
    pub fn as_str(self) -> &'a str {
        self.0
    }
}

fn check_characters(text: &str) -> Result<(), PathError> {
    if text.contains('\\') {
        return Err(PathError::Backslash);
    }
    if text.contains(char::is_control) { Err(PathError::Control) } else { Ok(()) }
}

impl fmt::Display for RequestPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Backslash => "backslash in a path",
            Self::Control => "control character in a path",
            Self::Dots => "`.` or `..` as a segment of a path",
            Self::EmptySegment => "empty segment in a path",
            Self::NotAbsolute => "a path begins with `/`",
        })
    }
}

impl Error for PathError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_say_one_thing_are_taken() {
        for path in
            ["/", "/a", "/a/", "/a/b.c", "/a b/ü", "/.well-known/x", "/...", "/a;x=1", "/#/+", "/a%2f"]
        {
            assert_eq!(RequestPath::parse(path).map(RequestPath::as_str), Ok(path));
        }
    }

    #[test]
    fn paths_that_could_be_read_in_two_ways_are_refused() {
        for (path, error) in [
            ("", PathError::NotAbsolute),
            ("*", PathError::NotAbsolute),
            ("a/b", PathError::NotAbsolute),
            ("/a/../b", PathError::Dots),
            ("/..", PathError::Dots),
            ("/./a", PathError::Dots),
            ("/a/.", PathError::Dots),
            ("/a/..;x=1/b", PathError::Dots),
            ("//a", PathError::EmptySegment),
            ("/a//b", PathError::EmptySegment),
            ("/a//", PathError::EmptySegment),
            ("/a\\b", PathError::Backslash),
            ("/a\0", PathError::Control),
            ("/a\r\nb", PathError::Control),
            ("/a\u{85}", PathError::Control),
        ] {
            assert_eq!(RequestPath::parse(path), Err(error), "{path:?}");
        }
    }
}
