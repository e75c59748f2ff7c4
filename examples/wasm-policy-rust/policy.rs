//! A plug-in in Rust: a client may do as it likes below `<root>/<its own identity>/`, and nothing else.
//!
//! It needs no crate, so that it can be read from top to bottom and built by one line (README.md has it). With crates
//! it looks the same: `crate-type = ["cdylib"]`, and `serde_json` instead of the module `json`.
//!
//! The gateway calls an instance from one thread at a time. The locks are there because Rust does not know that.

use std::sync::Mutex;

/// What the gateway writes to and reads from: one of each, which grow as needed, so that no call leaves memory behind.
static REQUEST: Mutex<Vec<u8>> = Mutex::new(Vec::new());
static ANSWER: Mutex<Vec<u8>> = Mutex::new(Vec::new());
static ROOT: Mutex<String> = Mutex::new(String::new());

/// The version of the interface that this was written for.
#[no_mangle]
pub extern "C" fn policy_abi_version() -> u32 {
    1
}

/// Makes room for the configuration or a request, which the very next call reads.
#[no_mangle]
pub extern "C" fn policy_alloc(length: usize) -> *mut u8 {
    let mut request = REQUEST.lock().unwrap();
    request.resize(length, 0);
    request.as_mut_ptr()
}

/// Takes the table `config` of the configuration file. Anything but 0 says that it cannot be used.
#[no_mangle]
pub extern "C" fn policy_configure(_at: *const u8, length: usize) -> u32 {
    let request = REQUEST.lock().unwrap();
    match json::text(&request[..length], &["root"]) {
        Some(root) => {
            *ROOT.lock().unwrap() = root.to_owned();
            0
        }
        None => NO_ROOT,
    }
}

/// Answers one question: with a code, or with where in our memory the answer is and how long.
#[no_mangle]
pub extern "C" fn policy_evaluate(_at: *const u8, length: usize) -> u64 {
    let request = REQUEST.lock().unwrap();
    match decide(&request[..length], &ROOT.lock().unwrap()) {
        Some(Decision::Abstain) => ABSTAIN,
        Some(Decision::Allow) => ALLOW,
        Some(Decision::Deny(reason)) => deny(reason),
        // a question that we do not understand must not pass
        None => CANNOT_DECIDE,
    }
}

enum Decision {
    Abstain,
    Allow,
    /// The reason is for the operator's log: devices are told that it is denied, and no more.
    Deny(&'static str),
}

fn decide(request: &[u8], root: &str) -> Option<Decision> {
    let identity = json::text(request, &["subject", "id"])?;
    let action = json::text(request, &["action", "name"])?;
    let resource = json::text(request, &["resource", "id"])?;
    if action == "connect" {
        // whether it may connect is for the other policies of the route to say
        return Some(Decision::Abstain);
    }
    // an anonymous client, or one whose name would reach into other topics, has no place of its own
    if identity.is_empty() || identity.contains(&['/', '+', '#'][..]) {
        return Some(Decision::Deny("the identity cannot stand in a topic"));
    }
    let below = resource.strip_prefix(root).and_then(|rest| rest.strip_prefix('/'));
    // the slash matters: dev-1 is not dev-10
    Some(match below.and_then(|rest| rest.strip_prefix(identity)) {
        Some(rest) if rest.starts_with('/') => Decision::Allow,
        _ => Decision::Deny("the topic belongs to somebody else"),
    })
}

fn deny(reason: &str) -> u64 {
    let mut answer = ANSWER.lock().unwrap();
    *answer = format!("{{\"decision\":\"deny\",\"reason\":\"{reason}\"}}").into_bytes();
    (answer.as_ptr() as u64) << 32 | answer.len() as u64
}

const ABSTAIN: u64 = 0;
const ALLOW: u64 = 1;
const CANNOT_DECIDE: u64 = 7;
/// What `mgate check` shows if the configuration has no string `root`.
const NO_ROOT: u32 = 1;

/// As much of JSON as is needed to find a string.
mod json {
    /// The string at the end of `path`. One that JSON must escape (a quote, a control character) is not found: here,
    /// neither identities nor topics have any business with those.
    pub fn text<'a>(json: &'a [u8], path: &[&str]) -> Option<&'a str> {
        let mut reader = Reader { rest: json };
        path.iter().try_for_each(|key| reader.enter(key.as_bytes()))?;
        let text = reader.string().filter(|text| !text.contains(&b'\\'))?;
        std::str::from_utf8(text).ok()
    }

    struct Reader<'a> {
        rest: &'a [u8],
    }

    impl<'a> Reader<'a> {
        /// Goes to the value of `key` in the object that begins here.
        fn enter(&mut self, key: &[u8]) -> Option<()> {
            self.expect(b'{')?;
            loop {
                let name = self.string()?;
                self.expect(b':')?;
                if name == key {
                    return Some(());
                }
                self.skip()?;
                self.expect(b',')?;
            }
        }

        /// A string as it is written, without its quotes.
        fn string(&mut self) -> Option<&'a [u8]> {
            let text = self.rest.strip_prefix(b"\"")?;
            let mut end = 0;
            loop {
                match text.get(end)? {
                    b'"' => break,
                    b'\\' => end += 2,
                    _ => end += 1,
                }
            }
            self.rest = &text[end + 1..];
            Some(&text[..end])
        }

        /// Leaves out one value, with all that is in it.
        fn skip(&mut self) -> Option<()> {
            let mut depth = 0;
            loop {
                match self.rest.first()? {
                    b'"' => {
                        self.string()?;
                        continue;
                    }
                    b',' | b'}' | b']' if depth == 0 => return Some(()),
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => depth -= 1,
                    _ => {}
                }
                self.rest = &self.rest[1..];
            }
        }

        /// Goes behind one character, and the white space around it.
        fn expect(&mut self, byte: u8) -> Option<()> {
            self.space();
            let (first, rest) = self.rest.split_first()?;
            self.rest = rest;
            self.space();
            (*first == byte).then_some(())
        }

        fn space(&mut self) {
            while let [b' ' | b'\t' | b'\r' | b'\n', rest @ ..] = self.rest {
                self.rest = rest;
            }
        }
    }
}
