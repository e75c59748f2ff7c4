use std::fmt::Display;
use std::io::{self, IsTerminal};

/// Whether and how text is painted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Style {
    is_coloured: bool,
}

/// What a piece of text looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Paint {
    Bold,
    Dim,
    Green,
    Red,
    Yellow,
}

impl Style {
    /// Colours on a terminal, if nobody said that they are unwanted (<https://no-color.org>).
    pub(crate) fn of_stdout() -> Self {
        let is_wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { is_coloured: is_wanted && io::stdout().is_terminal() }
    }

    /// No colours.
    #[cfg(test)]
    pub(super) fn plain() -> Self {
        Self { is_coloured: false }
    }

    pub(super) fn paint(self, paint: Paint, text: impl Display) -> String {
        match self.is_coloured {
            true => format!("\x1b[{}m{text}\x1b[0m", paint.code()),
            false => text.to_string(),
        }
    }
}

impl Paint {
    fn code(self) -> u8 {
        match self {
            Self::Bold => 1,
            Self::Dim => 2,
            Self::Green => 32,
            Self::Red => 31,
            Self::Yellow => 33,
        }
    }
}
