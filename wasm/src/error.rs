use std::time::Duration;
use std::{error, fmt};

/// Why a module cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// It was written for another version of the interface.
    AbiVersion(u32),
    /// It does not start, or its configuration cannot be given to it.
    Call(CallError),
    /// It has no export of this name and type.
    Export {
        /// The name.
        name: &'static str,
        /// What it must be.
        wanted: &'static str,
    },
    /// The engine cannot be started.
    Host(String),
    /// It asks for something that is not offered.
    Import {
        /// The name, with the module that it is asked of: `env.abort`.
        name: String,
        /// What is offered under this name, if anything is.
        offered: Option<&'static str>,
    },
    /// It is not a WebAssembly module, or uses what is switched off.
    Invalid(String),
    /// It does not take its configuration.
    Refused {
        /// What it answered.
        code: u32,
        /// The last line that it logged, if any.
        words: Option<String>,
    },
}

/// Why a call has no answer. The instance is gone, and the next call gets another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallError {
    /// It points to memory that it does not have.
    OutOfBounds,
    /// Its answer is longer than this many bytes.
    ReplyTooLong(usize),
    /// The request is longer than any memory.
    RequestTooLong,
    /// It did not answer within this time.
    TooLate(Duration),
    /// It did what ends a program, or wanted more than it may have.
    Trap(String),
}

impl From<CallError> for LoadError {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AbiVersion(version) => {
                write!(f, "it speaks version {version} of the interface, not {}", crate::ABI_VERSION)
            }
            Self::Call(error) => write!(f, "it does not start: {error}"),
            Self::Export { name, wanted } => write!(f, "it must export `{name}`: {wanted}"),
            Self::Host(problem) => write!(f, "no plug-in can be run: {problem}"),
            Self::Import { name, offered: None } => {
                write!(f, "it imports `{name}`, which is not offered (mgate.log, mgate.now_ms)")
            }
            Self::Import { name, offered: Some(what) } => write!(f, "it imports `{name}`, which is {what}"),
            Self::Invalid(problem) => write!(f, "it is no module that can be used: {problem}"),
            Self::Refused { code, words } => {
                write!(f, "it refuses its configuration with code {code}")?;
                words.as_ref().map_or(Ok(()), |words| write!(f, ": {words}"))
            }
        }
    }
}

impl error::Error for LoadError {}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfBounds => f.write_str("it points outside of its memory"),
            Self::ReplyTooLong(most) => write!(f, "its answer is longer than {most} bytes"),
            Self::RequestTooLong => f.write_str("the request is longer than any memory"),
            Self::TooLate(deadline) => write!(f, "no answer within {} ms", deadline.as_millis()),
            Self::Trap(problem) => f.write_str(problem),
        }
    }
}

impl error::Error for CallError {}
