use std::fmt;
use std::str::FromStr;

use ring::rand::{SecureRandom, SystemRandom};

use crate::error::CertError;

/// The serial number of a certificate: 128 bits, all but the first two random; written as 32 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Serial([u8; 16]);

impl Serial {
    /// Draws a new one.
    pub(crate) fn random() -> Result<Self, CertError> {
        let mut bytes = random()?;
        // Positive and of a fixed length in DER: what other tools print is then what we print.
        bytes[0] = bytes[0] & 0x7f | 0x40;
        Ok(Self(bytes))
    }

    pub(crate) fn to_der(self) -> rcgen::SerialNumber {
        rcgen::SerialNumber::from_slice(&self.0)
    }
}

/// Bytes that nobody can guess.
pub(crate) fn random<const LENGTH: usize>() -> Result<[u8; LENGTH], CertError> {
    let mut bytes = [0; LENGTH];
    SystemRandom::new().fill(&mut bytes).map_err(|_| CertError::Library("no random numbers".into()))?;
    Ok(bytes)
}

impl FromStr for Serial {
    type Err = CertError;

    /// Takes hex digits in either case, with or without colons between the bytes.
    fn from_str(text: &str) -> Result<Self, CertError> {
        let bad = || CertError::BadName(text.into(), "not a serial number");
        let digits: String = text.chars().filter(|character| *character != ':').collect();
        if digits.len() != 32 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(bad());
        }
        let number = u128::from_str_radix(&digits, 16).map_err(|_| bad())?;
        Ok(Self(number.to_be_bytes()))
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serials_differ_and_read_back() {
        let (one, other) = (Serial::random().unwrap(), Serial::random().unwrap());
        assert_ne!(one, other);
        assert_eq!(one.to_string().parse(), Ok(one));
        assert_eq!(one.to_string().to_uppercase().parse(), Ok(one));
    }

    #[test]
    fn colons_between_bytes_are_accepted() {
        let serial: Serial = "4A:00:00:00:00:00:00:00:00:00:00:00:00:00:00:01".parse().unwrap();
        assert_eq!(serial.to_string(), "4a000000000000000000000000000001");
    }

    #[test]
    fn anything_else_is_no_serial() {
        for text in ["", "4a", "+a000000000000000000000000000001", "zz000000000000000000000000000001"] {
            assert!(text.parse::<Serial>().is_err(), "{text}");
        }
    }
}
