use std::fmt;
use std::ops::RangeInclusive;

/// A number: integers of 64 bits stay exact, what else there is are IEEE doubles. RFC 8428 §5
///
/// Each number is represented in one way only.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Number(Kind);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// Neither whole and within 64 bits, nor infinite, nor none.
    Float(f64),
    Integer(i128),
}

impl Number {
    /// `None` for what is infinite or no number.
    pub fn from_f64(number: f64) -> Option<Self> {
        let is_integer = number.fract() == 0.0 && (LEAST_FLOAT..MORE_FLOAT).contains(&number);
        match is_integer {
            true => Some(Self(Kind::Integer(number as i128))),
            false => number.is_finite().then_some(Self(Kind::Float(number))),
        }
    }

    /// Rounds what does not fit into 64 bits.
    pub fn from_integer(number: i128) -> Self {
        match INTEGERS.contains(&number) {
            true => Self(Kind::Integer(number)),
            false => Self(Kind::Float(number as f64)),
        }
    }

    /// The nearest double.
    pub fn to_f64(self) -> f64 {
        match self.0 {
            Kind::Float(number) => number,
            Kind::Integer(number) => number as f64,
        }
    }

    /// The number if it is whole and has 64 bits, one of which may be a sign.
    pub fn to_integer(self) -> Option<i128> {
        match self.0 {
            Kind::Float(_) => None,
            Kind::Integer(number) => Some(number),
        }
    }

    /// Takes the digits of a JSON number; `None` if it is too large.
    pub(super) fn from_digits(digits: &str) -> Option<Self> {
        match digits.parse() {
            Ok(integer) => Some(Self::from_integer(integer)),
            Err(_) => Self::from_f64(digits.parse().ok()?),
        }
    }

    /// Takes a mantissa and an exponent of ten; `None` if the number is too large.
    pub(super) fn from_decimal(mantissa: i128, exponent: i128) -> Option<Self> {
        let power = u32::try_from(exponent.unsigned_abs()).ok().and_then(|power| 10i128.checked_pow(power));
        let whole = power.and_then(|power| match exponent < 0 {
            true => (mantissa % power == 0).then(|| mantissa / power),
            false => mantissa.checked_mul(power),
        });
        match whole {
            Some(integer) => Some(Self::from_integer(integer)),
            None => Self::from_f64(format!("{mantissa}e{exponent}").parse().ok()?),
        }
    }

    /// The sum, if it is not too large.
    pub(super) fn plus(self, other: Self) -> Option<Self> {
        match (self.0, other.0) {
            (Kind::Integer(one), Kind::Integer(two)) => Some(Self::from_integer(one + two)),
            _ => Self::from_f64(self.to_f64() + other.to_f64()),
        }
    }
}

impl Default for Number {
    fn default() -> Self {
        Self(Kind::Integer(0))
    }
}

/// As JSON writes it, with all digits that tell it from others.
impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Kind::Float(number) => write!(f, "{number:?}"),
            Kind::Integer(number) => write!(f, "{number}"),
        }
    }
}

/// What readers of JSON and CBOR have integers for.
const INTEGERS: RangeInclusive<i128> = -(1 << 63)..=(1 << 64) - 1;
const LEAST_FLOAT: f64 = -9_223_372_036_854_775_808.0;
const MORE_FLOAT: f64 = 18_446_744_073_709_551_616.0;
