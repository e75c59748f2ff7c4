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
