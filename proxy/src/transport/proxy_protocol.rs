use std::error::Error;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use mgate_policies::Cidr;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Which load balancers tell us in front of each connection whose it is.
#[derive(Clone, Debug)]
pub struct ProxyProtocol {
    /// Where they are; connections from elsewhere are refused.
    pub trusted: Vec<Cidr>,
    /// The version of the header that they send.
    pub version: ProxyVersion,
}

/// Versions of the PROXY protocol, as HAProxy's `proxy-protocol.txt` defines them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyVersion {
    /// Either; the first bytes tell.
    Any,
    /// The line of text.
    V1,
    /// The binary header.
    V2,
}

/// What is wrong with a PROXY protocol header.
#[derive(Debug)]
pub enum ProxyError {
    /// The checksum in the header does not fit the header.
    Checksum,
    /// The connection broke before the header was complete.
    Io(io::Error),
    /// The header breaks its rules.
    Malformed(&'static str),
    /// What came is no header, or one of another version.
    Missing,
}

impl ProxyProtocol {
    /// Whether a connection from `address` may say whose it is.
    pub(super) fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(address))
    }

    /// Reads the header and not a byte more; says whose connection it is, or `None` where it is the load
    /// balancer's own.
    pub(super) async fn read(
        &self,
        stream: &mut (impl AsyncRead + Unpin),
    ) -> Result<Option<SocketAddr>, ProxyError> {
        // Neither version has a shorter header.
        let mut start = [0; V1_MIN_BYTES];
        stream.read_exact(&mut start).await?;
        if start.starts_with(V2_SIGNATURE) && self.version != ProxyVersion::V1 {
            let header = read_v2(stream, &start).await?;
            parse_v2(&header)
        } else if start.starts_with(V1_SIGNATURE) && self.version != ProxyVersion::V2 {
            let header = read_v1(stream, &start).await?;
            parse_v1(&header)
        } else {
            Err(ProxyError::Missing)
        }
    }
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Checksum => f.write_str("checksum of the PROXY header is wrong"),
            Self::Io(error) => write!(f, "no whole PROXY header: {error}"),
            Self::Malformed(what) => write!(f, "malformed PROXY header: {what}"),
            Self::Missing => f.write_str("no PROXY header of the expected version"),
        }
    }
}

impl Error for ProxyError {}

impl From<io::Error> for ProxyError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

async fn read_v1(stream: &mut (impl AsyncRead + Unpin), start: &[u8]) -> Result<Vec<u8>, ProxyError> {
    let mut header = start.to_vec();
    // Byte by byte: what follows the line belongs to the next layer.
    while !header.ends_with(b"\r\n") {
        if header.len() == V1_MAX_BYTES {
            return Err(ProxyError::Malformed("the line does not end"));
        }
        header.push(stream.read_u8().await?);
    }
    Ok(header)
}

async fn read_v2(stream: &mut (impl AsyncRead + Unpin), start: &[u8]) -> Result<Vec<u8>, ProxyError> {
    let mut header = start.to_vec();
    header.push(stream.read_u8().await?);
    let rest = usize::from(u16::from_be_bytes([header[14], header[15]]));
    if V2_FIXED_BYTES + rest > V2_MAX_BYTES {
        return Err(ProxyError::Malformed("it is too long"));
    }
    header.resize(V2_FIXED_BYTES + rest, 0);
    stream.read_exact(&mut header[V2_FIXED_BYTES..]).await?;
    Ok(header)
}

/// Parses the line, its end included (`proxy-protocol.txt` §2.1).
fn parse_v1(header: &[u8]) -> Result<Option<SocketAddr>, ProxyError> {
    let line = header.strip_suffix(b"\r\n").and_then(|line| std::str::from_utf8(line).ok());
    let line = line.ok_or(ProxyError::Malformed("it is not a line of text"))?;
    let fields: Vec<&str> = line.split(' ').collect();
    match fields[..] {
        // What follows UNKNOWN must be ignored.
        ["PROXY", "UNKNOWN", ..] => Ok(None),
        ["PROXY", "TCP4", source, destination, source_port, destination_port] => {
            v1_address::<Ipv4Addr>(destination, destination_port)?;
            v1_address::<Ipv4Addr>(source, source_port).map(Some)
        }
        ["PROXY", "TCP6", source, destination, source_port, destination_port] => {
            v1_address::<Ipv6Addr>(destination, destination_port)?;
            v1_address::<Ipv6Addr>(source, source_port).map(Some)
        }
        _ => Err(ProxyError::Malformed("unknown fields")),
    }
}

fn v1_address<A>(address: &str, port: &str) -> Result<SocketAddr, ProxyError>
where
    A: std::str::FromStr + Into<IpAddr>,
{
    let address = address.parse::<A>().map_err(|_| ProxyError::Malformed("not an address"))?;
    let is_plain = port.bytes().all(|byte| byte.is_ascii_digit()) && (port == "0" || !port.starts_with('0'));
    match port.parse() {
        Ok(port) if is_plain => Ok(SocketAddr::new(address.into(), port)),
        _ => Err(ProxyError::Malformed("not a port")),
    }
}

/// Parses a whole binary header, whose length has been checked (`proxy-protocol.txt` §2.2).
fn parse_v2(header: &[u8]) -> Result<Option<SocketAddr>, ProxyError> {
    let (fixed, rest) = header.split_at(V2_FIXED_BYTES);
    match fixed[12] {
        // LOCAL: the load balancer itself asks, mostly for our health; the rest must be ignored.
        0x20 => return Ok(None),
        0x21 => {}
        _ => return Err(ProxyError::Malformed("unknown version or command")),
    }
    let address_bytes = match fixed[13] {
        UNSPECIFIED => return Ok(None),
        TCP_OVER_IPV4 => 12,
        TCP_OVER_IPV6 => 36,
        UNIX_STREAM => 216,
        _ => return Err(ProxyError::Malformed("not the address of a stream")),
    };
    let (addresses, extensions) =
        rest.split_at_checked(address_bytes).ok_or(ProxyError::Malformed("addresses are cut off"))?;
    check_extensions(header, extensions)?;
    Ok(match fixed[13] {
        TCP_OVER_IPV4 => v2_address::<4>(addresses),
        TCP_OVER_IPV6 => v2_address::<16>(addresses),
        _ => None,
    })
}

/// The source of `source, destination, source port, destination port`.
fn v2_address<const BYTES: usize>(addresses: &[u8]) -> Option<SocketAddr>
where
    [u8; BYTES]: Into<IpAddr>,
{
    let source: [u8; BYTES] = *addresses.first_chunk()?;
    let port = addresses.get(2 * BYTES..)?.first_chunk()?;
    Some(SocketAddr::new(source.into(), u16::from_be_bytes(*port)))
}

/// Walks the type-length-value fields behind the addresses and checks the checksum if there is one.
fn check_extensions(header: &[u8], mut extensions: &[u8]) -> Result<(), ProxyError> {
    while let Some(([kind, length @ ..], rest)) = extensions.split_first_chunk::<3>() {
        let length = usize::from(u16::from_be_bytes(*length));
        let (value, rest) =
            rest.split_at_checked(length).ok_or(ProxyError::Malformed("an extension is cut off"))?;
        if *kind == CHECKSUM_EXTENSION {
            check_checksum(header, header.len() - rest.len() - length, value)?;
        }
        extensions = rest;
    }
    if extensions.is_empty() { Ok(()) } else { Err(ProxyError::Malformed("an extension is cut off")) }
}

/// Compares `stated`, which stands at `position`, with the checksum of the header that holds zeros there.
fn check_checksum(header: &[u8], position: usize, stated: &[u8]) -> Result<(), ProxyError> {
    let stated: [u8; 4] =
        stated.try_into().map_err(|_| ProxyError::Malformed("checksum of a wrong length"))?;
    let before = crc32c(u32::MAX, &header[..position]);
    let over_zeros = crc32c(before, &[0; 4]);
    let computed = !crc32c(over_zeros, &header[position + 4..]);
    if computed == u32::from_be_bytes(stated) { Ok(()) } else { Err(ProxyError::Checksum) }
}

/// Goes on with a CRC-32C (RFC 3385 §3), bit by bit: it runs over some hundred bytes once a connection.
fn crc32c(start: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(start, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (CASTAGNOLI * (crc & 1)))
    })
}

const V1_SIGNATURE: &[u8] = b"PROXY ";
/// `PROXY UNKNOWN` and the end of the line.
const V1_MIN_BYTES: usize = 15;
const V1_MAX_BYTES: usize = 107;

const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_FIXED_BYTES: usize = 16;
const V2_MAX_BYTES: usize = 4096;

const UNSPECIFIED: u8 = 0x00;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;
const UNIX_STREAM: u8 = 0x31;

const CHECKSUM_EXTENSION: u8 = 0x03;
/// The polynomial of CRC-32C, reflected.
const CASTAGNOLI: u32 = 0x82f6_3b78;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn line_of_text_names_the_client() {
        for (line, client) in [
            ("PROXY TCP4 203.0.113.7 192.0.2.1 40000 1883\r\n", Some("203.0.113.7:40000")),
            ("PROXY TCP6 2001:db8::7 2001:db8::1 0 65535\r\n", Some("[2001:db8::7]:0")),
            ("PROXY UNKNOWN\r\n", None),
            ("PROXY UNKNOWN ffff:f...f:ffff 65535 whatever\r\n", None),
        ] {
            let read = read(line.as_bytes(), ProxyVersion::V1).await.unwrap();
            assert_eq!(read, client.map(|client| client.parse().unwrap()), "{line}");
        }
    }

    #[tokio::test]
    async fn malformed_lines_are_refused() {
        for line in [
            "PROXY TCP4 203.0.113.7 192.0.2.1 40000\r\n",
            "PROXY TCP4 203.0.113.7 192.0.2.1 40000 1883 1\r\n",
            "PROXY TCP4 203.0.113.7  192.0.2.1 40000 1883\r\n",
            "PROXY TCP4 203.0.113.7 192.0.2.1 40000 1883 \r\n",
            "PROXY TCP4 2001:db8::7 192.0.2.1 40000 1883\r\n",
            "PROXY TCP6 203.0.113.7 2001:db8::1 40000 1883\r\n",
            "PROXY TCP4 203.0.113.7 192.0.2.x 40000 1883\r\n",
            "PROXY TCP4 203.0.113.7 192.0.2.1 65536 1883\r\n",
            "PROXY TCP4 203.0.113.7 192.0.2.1 +1 1883\r\n",
            "PROXY TCP4 203.0.113.7 192.0.2.1 01 1883\r\n",
            "PROXY UDP4 203.0.113.7 192.0.2.1 40000 1883\r\n",
            "PROXY \u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\r\n",
        ] {
            let error = read(line.as_bytes(), ProxyVersion::V1).await.unwrap_err();
            assert!(matches!(error, ProxyError::Malformed(_)), "{line}: {error}");
        }
    }

    #[tokio::test]
    async fn line_ends_after_107_bytes_at_the_latest() {
        let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(91));
        assert!(read(longest.as_bytes(), ProxyVersion::V1).await.is_ok());
        let endless = "PROXY UNKNOWN ".to_owned() + &"x".repeat(94);
        assert!(matches!(read(endless.as_bytes(), ProxyVersion::V1).await, Err(ProxyError::Malformed(_))));
    }

    #[tokio::test]
    async fn binary_header_names_the_client() {
        let header = v2(0x21, TCP_OVER_IPV4, &IPV4_ADDRESSES);
        assert_eq!(
            read(&header, ProxyVersion::V2).await.unwrap(),
            Some("203.0.113.7:40000".parse().unwrap())
        );
        let header = v2(0x21, TCP_OVER_IPV6, &ipv6_addresses());
        assert_eq!(
            read(&header, ProxyVersion::V2).await.unwrap(),
            Some("[2001:db8::7]:40000".parse().unwrap())
        );
    }

    #[tokio::test]
    async fn binary_header_without_an_address_is_accepted() {
        for header in [
            v2(0x20, UNSPECIFIED, &[]),
            v2(0x20, TCP_OVER_IPV4, &IPV4_ADDRESSES),
            v2(0x20, 0xff, b"ignored"),
            v2(0x21, UNSPECIFIED, b"ignored"),
            v2(0x21, UNIX_STREAM, &[b'/'; 216]),
        ] {
            assert_eq!(read(&header, ProxyVersion::V2).await.unwrap(), None, "{header:02x?}");
        }
    }

    #[tokio::test]
    async fn malformed_binary_headers_are_refused() {
        for header in [
            v2(0x11, TCP_OVER_IPV4, &IPV4_ADDRESSES),
            v2(0x22, TCP_OVER_IPV4, &IPV4_ADDRESSES),
            v2(0x21, 0x12, &IPV4_ADDRESSES),
            v2(0x21, 0x41, &IPV4_ADDRESSES),
            v2(0x21, TCP_OVER_IPV4, &IPV4_ADDRESSES[1..]),
            v2(0x21, TCP_OVER_IPV6, &IPV4_ADDRESSES),
            v2(0x21, TCP_OVER_IPV4, &[&IPV4_ADDRESSES[..], &[4, 0]].concat()),
            v2(0x21, TCP_OVER_IPV4, &[&IPV4_ADDRESSES[..], &[4, 0, 2, 0]].concat()),
            v2(0x21, TCP_OVER_IPV4, &[&IPV4_ADDRESSES[..], &[CHECKSUM_EXTENSION, 0, 1, 0]].concat()),
            v2(0x20, UNSPECIFIED, &[0; V2_MAX_BYTES - V2_FIXED_BYTES + 1]),
        ] {
            let error = read(&header, ProxyVersion::V2).await.unwrap_err();
            assert!(matches!(error, ProxyError::Malformed(_)), "{header:02x?}: {error}");
        }
    }

    #[tokio::test]
    async fn checksum_is_checked_wherever_it_stands() {
        for (before, behind) in [(&[][..], &[][..]), (&[4, 0, 1, 9], &[5, 0, 2, 1, 2])] {
            let extensions = [before, &[CHECKSUM_EXTENSION, 0, 4, 0, 0, 0, 0], behind].concat();
            let mut header = v2(0x21, TCP_OVER_IPV4, &[&IPV4_ADDRESSES[..], &extensions].concat());
            let position = V2_FIXED_BYTES + IPV4_ADDRESSES.len() + before.len() + 3;
            let checksum = !crc32c(u32::MAX, &header);
            header[position..position + 4].copy_from_slice(&checksum.to_be_bytes());
            assert!(read(&header, ProxyVersion::V2).await.unwrap().is_some());
            header[V2_FIXED_BYTES] ^= 1;
            assert!(matches!(read(&header, ProxyVersion::V2).await, Err(ProxyError::Checksum)));
        }
    }

    #[test]
    fn checksum_is_crc_32c() {
        // RFC 3720 §B.4
        assert_eq!(!crc32c(u32::MAX, &[0; 32]), 0x8a91_36aa);
        assert_eq!(!crc32c(u32::MAX, b"123456789"), 0xe306_9283);
    }

    #[tokio::test]
    async fn only_the_expected_version_is_accepted() {
        let v1 = b"PROXY UNKNOWN\r\n";
        let v2 = v2(0x20, UNSPECIFIED, &[]);
        assert!(matches!(read(v1, ProxyVersion::V2).await, Err(ProxyError::Missing)));
        assert!(matches!(read(&v2, ProxyVersion::V1).await, Err(ProxyError::Missing)));
        assert!(read(v1, ProxyVersion::Any).await.is_ok());
        assert!(read(&v2, ProxyVersion::Any).await.is_ok());
        assert!(matches!(read(b"GET / HTTP/1.1\r\n", ProxyVersion::Any).await, Err(ProxyError::Missing)));
    }

    #[tokio::test]
    async fn cut_off_header_is_no_header() {
        let whole = v2(0x21, TCP_OVER_IPV4, &IPV4_ADDRESSES);
        for length in 0..whole.len() {
            let error = read(&whole[..length], ProxyVersion::Any).await.unwrap_err();
            assert!(matches!(error, ProxyError::Io(_)), "{length}: {error}");
        }
    }

    #[tokio::test]
    async fn what_follows_the_header_is_left_alone() {
        for header in [b"PROXY UNKNOWN\r\n".to_vec(), v2(0x21, TCP_OVER_IPV4, &IPV4_ADDRESSES)] {
            let bytes = [&header[..], b"\r\nnext"].concat();
            let mut stream = &bytes[..];
            any(ProxyVersion::Any).read(&mut stream).await.unwrap();
            assert_eq!(stream, b"\r\nnext");
        }
    }

    async fn read(mut bytes: &[u8], version: ProxyVersion) -> Result<Option<SocketAddr>, ProxyError> {
        any(version).read(&mut bytes).await
    }

    fn any(version: ProxyVersion) -> ProxyProtocol {
        ProxyProtocol { trusted: Vec::new(), version }
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [V2_SIGNATURE, &[command, family], &length, rest].concat()
    }

    fn ipv6_addresses() -> Vec<u8> {
        let client: Ipv6Addr = "2001:db8::7".parse().unwrap();
        [&client.octets()[..], &[0; 16], &40000_u16.to_be_bytes(), &1883_u16.to_be_bytes()].concat()
    }

    /// 203.0.113.7, 192.0.2.1, 40000, 1883
    const IPV4_ADDRESSES: [u8; 12] = [203, 0, 113, 7, 192, 0, 2, 1, 0x9c, 0x40, 0x07, 0x5b];
}
