//! What CoAP messages say: views of a datagram. RFC 7252 §3

use std::fmt;

/// One message; its fields are slices of the datagram that it came in.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Whether it is to be acknowledged, or answers another.
    pub kind: Kind,
    /// The method, or how a request ended.
    pub code: Code,
    /// What an acknowledgement refers to, and what tells a message from its copies.
    pub id: u16,
    /// What ties responses to their request.
    pub token: Token,
    /// Its options, in their order.
    pub options: Options<'a>,
    /// What those of its options say that mgate looks at.
    pub known: Known<'a>,
    /// What it carries.
    pub payload: &'a [u8],
    /// All of it, as it came.
    pub bytes: &'a [u8],
}

/// The kind of a message. RFC 7252 §4.2, §4.3
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// To be acknowledged.
    Confirmable,
    /// Not to be acknowledged.
    NonConfirmable,
    /// Acknowledges, and may bring the response along.
    Acknowledgement,
    /// Says that nobody here knows what that was about.
    Reset,
}

/// A method, or how a request ended: class and detail. RFC 7252 §3
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Code(pub u8);

/// What ties responses to their request: 0 to 8 bytes. RFC 7252 §5.3.1
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token {
    bytes: [u8; 8],
    len: u8,
}

/// Options that were found well formed.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a>(pub(super) &'a [u8]);

/// One option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageOption<'a> {
    /// Which one; [`number`] names some.
    pub number: u16,
    /// Its value.
    pub value: &'a [u8],
}

/// What the options say that mgate looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known<'a> {
    /// Begin or end of an observation, or the order of a notification. RFC 7641 §2
    pub observe: Option<u32>,
    /// The media type of the payload.
    pub content_format: Option<u16>,
    /// The media type that the response may have.
    pub accept: Option<u16>,
    /// Which part of the request's body this is. RFC 7959 §2.1
    pub block1: Option<Block>,
    /// Which part of the response's body this is, or should be. RFC 7959 §2.1
    pub block2: Option<Block>,
    /// Shows that the sender is where it says. RFC 9175 §2
    pub echo: Option<&'a [u8]>,
    /// Which classes of responses the sender has no interest in, by their bits. RFC 7967 §2.1
    pub no_response: u8,
    /// The first option that a recipient must not pass over.
    pub fault: Option<OptionFault>,
    /// Which options there are.
    pub numbers: Numbers,
}

/// Which of the options with a number below 64 there are: most are looked for in vain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Numbers(u64);

/// What is wrong with an option of a message that is well formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptionFault {
    /// Nobody here knows it, and who does not know it must not act on the message. RFC 7252 §5.4.1
    Critical(u16),
    /// Its value is too short or too long. RFC 7252 §5.4.3
    Length(u16),
    /// It asks for a proxy to somewhere else. RFC 7252 §5.7.2
    Proxying,
    /// It may be there once, and is there again. RFC 7252 §5.4.5
    Repeated(u16),
    /// Its value means nothing, or is no UTF-8 where it must be.
    Value(u16),
}

/// A part of a body. RFC 7959 §2.2
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Its number, from 0 on.
    pub number: u32,
    /// Whether more follow.
    pub has_more: bool,
    /// Its size as a power of two, less four: 0 to 6.
    pub size_exponent: u8,
}

impl<'a> Message<'a> {
    /// Whether it asks for something.
    pub fn is_request(&self) -> bool {
        self.code.class() == 0 && self.code != Code::EMPTY
    }

    /// Whether it is an answer to a request.
    pub fn is_response(&self) -> bool {
        self.code.class() != 0
    }

    /// Whether its sender does not want to hear such an answer. RFC 7967 §2
    pub fn has_no_use_for(&self, code: Code) -> bool {
        self.kind == Kind::NonConfirmable && self.known.no_response & 1 << code.class() >> 1 != 0
    }

    /// The name of the server that is asked, where that is said.
    pub fn host(&self) -> Option<&'a str> {
        self.texts(number::URI_HOST).next()
    }

    /// The segments of the path, first to last.
    pub fn path(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.texts(number::URI_PATH)
    }

    /// The parts of the query, first to last.
    pub fn queries(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.texts(number::URI_QUERY)
    }

    fn texts(&self, number: u16) -> impl Iterator<Item = &'a str> + use<'a> {
        let options = if self.known.numbers.contains(number) { self.options } else { Options(&[]) };
        let options = options.iter().filter(move |option| option.number == number);
        options.map(|option| str::from_utf8(option.value).unwrap_or_default())
    }
}

impl Code {
    /// No request and no response. RFC 7252 §4.1
    pub const EMPTY: Self = Self(0);
    /// RFC 7252 §5.8.1
    pub const GET: Self = Self(1);
    /// RFC 7252 §5.8.2
    pub const POST: Self = Self(2);
    /// 2.04. RFC 7252 §5.9.1.4
    pub const CHANGED: Self = Self::of(2, 4);
    /// 2.31. RFC 7959 §2.9.1
    pub const CONTINUE: Self = Self::of(2, 31);
    /// 4.00. RFC 7252 §5.9.2.1
    pub const BAD_REQUEST: Self = Self::of(4, 0);
    /// 4.01. RFC 7252 §5.9.2.2
    pub const UNAUTHORIZED: Self = Self::of(4, 1);
    /// 4.02. RFC 7252 §5.9.2.3
    pub const BAD_OPTION: Self = Self::of(4, 2);
    /// 4.03. RFC 7252 §5.9.2.4
    pub const FORBIDDEN: Self = Self::of(4, 3);
    /// 4.05. RFC 7252 §5.9.2.6
    pub const METHOD_NOT_ALLOWED: Self = Self::of(4, 5);
    /// 4.08. RFC 7959 §2.9.2
    pub const REQUEST_ENTITY_INCOMPLETE: Self = Self::of(4, 8);
    /// 4.13. RFC 7252 §5.9.2.9
    pub const REQUEST_ENTITY_TOO_LARGE: Self = Self::of(4, 13);
    /// 4.29. RFC 8516
    pub const TOO_MANY_REQUESTS: Self = Self::of(4, 29);
    /// 5.03. RFC 7252 §5.9.3.4
    pub const SERVICE_UNAVAILABLE: Self = Self::of(5, 3);
    /// 5.04. RFC 7252 §5.9.3.5
    pub const GATEWAY_TIMEOUT: Self = Self::of(5, 4);
    /// 5.05. RFC 7252 §5.9.3.6
    pub const PROXYING_NOT_SUPPORTED: Self = Self::of(5, 5);

    /// The code of a class (0 to 7) and a detail (0 to 31).
    pub const fn of(class: u8, detail: u8) -> Self {
        Self(class << 5 | detail & 0x1f)
    }

    /// 0 for requests and the empty message, 2, 4 and 5 for responses.
    pub fn class(self) -> u8 {
        self.0 >> 5
    }

    /// What is said within the class.
    pub fn detail(self) -> u8 {
        self.0 & 0x1f
    }

    /// The method's name in capital letters, as policies write it; `None` where it is none, or none that is known.
    /// RFC 7252 §12.1.1, RFC 8132 §6
    pub fn method(self) -> Option<&'static str> {
        match self.0 {
            1 => Some("GET"),
            2 => Some("POST"),
            3 => Some("PUT"),
            4 => Some("DELETE"),
            5 => Some("FETCH"),
            6 => Some("PATCH"),
            7 => Some("IPATCH"),
            _ => None,
        }
    }

    /// Whether a request with this end did what it should.
    pub fn is_success(self) -> bool {
        self.class() == 2
    }
}

impl Token {
    /// A token of these bytes; `None` where there are more than eight.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let mut padded = [0; 8];
        padded.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(Self { bytes: padded, len: u8::try_from(bytes.len()).ok()? })
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

impl<'a> Options<'a> {
    /// All of them, as they came.
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// The options, first to last.
    pub fn iter(self) -> impl Iterator<Item = MessageOption<'a>> + use<'a> {
        let (mut rest, mut number) = (self.0, 0u16);
        std::iter::from_fn(move || {
            let (option, behind) = super::codec::split_option(rest, number).ok().flatten()?;
            (rest, number) = (behind, option.number);
            Some(option)
        })
    }
}

impl Numbers {
    /// Whether there is an option with this number, or one that is not kept here.
    pub fn contains(self, number: u16) -> bool {
        number >= 64 || self.0 & 1 << number != 0
    }

    pub(super) fn add(&mut self, number: u16) {
        if number < 64 {
            self.0 |= 1 << number;
        }
    }
}

impl MessageOption<'_> {
    /// Its value as a number; leading zeros count for nothing. RFC 7252 §3.2
    pub fn uint(&self) -> u32 {
        self.value.iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
    }
}

impl Block {
    /// Takes the value of an option; `None` for the size that means nothing. RFC 7959 §2.2
    pub fn from_uint(value: u32) -> Option<Self> {
        let size_exponent = (value & 7) as u8;
        let block = Self { number: value >> 4, has_more: value & 8 != 0, size_exponent };
        (size_exponent < 7).then_some(block)
    }

    /// The bytes of a body before this part.
    pub fn offset(self) -> usize {
        (self.number as usize) << (self.size_exponent + 4)
    }

    /// The bytes of this part, if more follow.
    pub fn size(self) -> usize {
        16 << self.size_exponent
    }
}

impl fmt::Display for Message<'_> {
    /// Never shows the query, in which there may be credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.code)?;
        if self.is_request() {
            f.write_str(" ")?;
            self.path().try_for_each(|segment| write!(f, "/{}", segment.escape_debug()))?;
        }
        write!(f, " id {} token {:?}", self.id, self.token)?;
        if let Some(observe) = self.known.observe {
            write!(f, " observe {observe}")?;
        }
        let blocks = [("block1", self.known.block1), ("block2", self.known.block2)];
        for (name, block) in blocks.iter().filter_map(|(name, block)| Some((name, (*block)?))) {
            write!(f, " {name} {}{}", block.number, if block.has_more { "+" } else { "" })?;
        }
        write!(f, " {} bytes", self.payload.len())
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Confirmable => "CON",
            Self::NonConfirmable => "NON",
            Self::Acknowledgement => "ACK",
            Self::Reset => "RST",
        })
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.method() {
            Some(method) => f.write_str(method),
            None => write!(f, "{}.{:02}", self.class(), self.detail()),
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("0x")?;
        self.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Display for OptionFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Critical(number) => write!(f, "option {number} is critical and not known"),
            Self::Length(number) => write!(f, "option {number} is too short or too long"),
            Self::Proxying => f.write_str("forward proxying is asked for"),
            Self::Repeated(number) => write!(f, "option {number} is there more than once"),
            Self::Value(number) => write!(f, "the value of option {number} means nothing"),
        }
    }
}

/// The numbers of options. RFC 7252 §12.2, RFC 7641, RFC 7959, RFC 8768, RFC 7967, RFC 9175
pub mod number {
    /// If-Match.
    pub const IF_MATCH: u16 = 1;
    /// Uri-Host.
    pub const URI_HOST: u16 = 3;
    /// ETag.
    pub const ETAG: u16 = 4;
    /// If-None-Match.
    pub const IF_NONE_MATCH: u16 = 5;
    /// Observe.
    pub const OBSERVE: u16 = 6;
    /// Uri-Port.
    pub const URI_PORT: u16 = 7;
    /// Location-Path.
    pub const LOCATION_PATH: u16 = 8;
    /// Uri-Path.
    pub const URI_PATH: u16 = 11;
    /// Content-Format.
    pub const CONTENT_FORMAT: u16 = 12;
    /// Max-Age.
    pub const MAX_AGE: u16 = 14;
    /// Uri-Query.
    pub const URI_QUERY: u16 = 15;
    /// Hop-Limit.
    pub const HOP_LIMIT: u16 = 16;
    /// Accept.
    pub const ACCEPT: u16 = 17;
    /// Location-Query.
    pub const LOCATION_QUERY: u16 = 20;
    /// Block2.
    pub const BLOCK2: u16 = 23;
    /// Block1.
    pub const BLOCK1: u16 = 27;
    /// Size2.
    pub const SIZE2: u16 = 28;
    /// Proxy-Uri.
    pub const PROXY_URI: u16 = 35;
    /// Proxy-Scheme.
    pub const PROXY_SCHEME: u16 = 39;
    /// Size1.
    pub const SIZE1: u16 = 60;
    /// Echo.
    pub const ECHO: u16 = 252;
    /// No-Response.
    pub const NO_RESPONSE: u16 = 258;
    /// Request-Tag.
    pub const REQUEST_TAG: u16 = 292;
}
