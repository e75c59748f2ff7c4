use std::error::Error;
use std::fmt;
use std::net::IpAddr;

/// A block of addresses: `10.0.0.0/8`, `fd00::/8`, or a single address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cidr {
    network: IpAddr,
    prefix_bits: u8,
}

/// What is wrong with the text of a block of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CidrError {
    /// What stands before the slash is no IP address.
    Address,
    /// The address has bits set behind its prefix: it is a host, not a network.
    HostBits,
    /// An IPv4 address written as IPv6; connections are compared by their IPv4 address.
    Mapped,
    /// What stands behind the slash is no number of bits that such an address has.
    Prefix,
}

impl Cidr {
    /// Takes a block as RFC 4632 §3.1 and RFC 4291 §2.3 write it; without `/bits` it is one address.
    pub fn parse(text: &str) -> Result<Self, CidrError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let network: IpAddr = address.parse().map_err(|_| CidrError::Address)?;
        if network.to_canonical() != network {
            return Err(CidrError::Mapped);
        }
        let prefix_bits = match prefix {
            Some(bits) => bits.parse().map_err(|_| CidrError::Prefix)?,
            None => width(network),
        };
        if prefix_bits > width(network) {
            return Err(CidrError::Prefix);
        }
        if bits(network) & !mask(network, prefix_bits) != 0 {
            return Err(CidrError::HostBits);
        }
        Ok(Self { network, prefix_bits })
    }

    /// Says whether `address` is in the block. An IPv4 address mapped to IPv6 counts as IPv4.
    pub fn contains(self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.network.is_ipv4()
            && bits(address) & mask(self.network, self.prefix_bits) == bits(self.network)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix_bits)
    }
}

impl fmt::Display for CidrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Address => "no IP address before the slash",
            Self::HostBits => "the address has bits set behind its prefix",
            Self::Mapped => "an IPv4 address must be written as IPv4",
            Self::Prefix => "prefix length out of range",
        })
    }
}

impl Error for CidrError {}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn mask(address: IpAddr, prefix_bits: u8) -> u128 {
    let host_bits = u32::from(width(address) - prefix_bits);
    u128::MAX.checked_shl(host_bits).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contains_its_block_alone() {
        for (block, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("192.168.4.0/22", "192.168.7.255", "192.168.8.0"),
            ("127.0.0.1", "127.0.0.1", "127.0.0.2"),
            ("0.0.0.0/0", "255.1.2.3", "::1"),
            ("fd00::/8", "fdff::1", "fe00::1"),
            ("::/0", "2001:db8::1", "10.0.0.1"),
            ("10.0.0.0/8", "::ffff:10.0.0.1", "::a00:1"),
            ("::1", "::1", "::"),
        ] {
            let cidr = Cidr::parse(block).unwrap();
            assert!(cidr.contains(inside.parse().unwrap()), "{inside} is in {block}");
            assert!(!cidr.contains(outside.parse().unwrap()), "{outside} is not in {block}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (text, error) in [
            ("", CidrError::Address),
            ("10.0.0/8", CidrError::Address),
            ("10.0.0.0/", CidrError::Prefix),
            ("10.0.0.0/33", CidrError::Prefix),
            ("::/129", CidrError::Prefix),
            ("10.0.0.1/8", CidrError::HostBits),
            ("::1/127", CidrError::HostBits),
            ("::ffff:10.0.0.0/104", CidrError::Mapped),
        ] {
            assert_eq!(Cidr::parse(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn shows_its_prefix() {
        assert_eq!(Cidr::parse("fd00::/8").unwrap().to_string(), "fd00::/8");
        assert_eq!(Cidr::parse("10.0.0.1").unwrap().to_string(), "10.0.0.1/32");
    }
}
