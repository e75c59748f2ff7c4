use std::io::{self, ErrorKind, Read, Write};

use mio::net::TcpStream;
use rustls::ClientConnection;

/// A non-blocking byte stream, plain or TLS, with what is still to be written.
pub(crate) struct Link {
    stream: TcpStream,
    tls: Option<Box<ClientConnection>>,
    /// Bytes to write, in order, before TLS.
    pub(crate) pending: Vec<u8>,
}

impl Link {
    /// Wraps a stream that may still be connecting.
    pub(crate) fn new(stream: TcpStream, tls: Option<ClientConnection>) -> Self {
        Self { stream, tls: tls.map(Box::new), pending: Vec::new() }
    }

    /// The stream, for registration.
    pub(crate) fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Reads once: a count, 0 at the end of the stream, nothing when there is nothing to read yet.
    pub(crate) fn read(&mut self, scratch: &mut [u8]) -> io::Result<Option<usize>> {
        let Some(tls) = &mut self.tls else { return no_block(self.stream.read(scratch)) };
        loop {
            match no_block(tls.reader().read(scratch))? {
                None if tls.wants_read() => {}
                known => return Ok(known),
            }
            match no_block(tls.read_tls(&mut self.stream))? {
                Some(0) => return Ok(Some(0)),
                Some(_) => tls.process_new_packets().map_err(io::Error::other)?,
                None => return Ok(None),
            };
        }
    }

    /// Writes what is pending until the kernel takes no more.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        let Some(tls) = &mut self.tls else { return drain(&mut self.pending, &mut self.stream) };
        loop {
            drain(&mut self.pending, &mut tls.writer())?;
            if !tls.wants_write() || no_block(tls.write_tls(&mut self.stream))?.is_none() {
                return Ok(());
            }
        }
    }
}

fn drain(pending: &mut Vec<u8>, writer: &mut impl Write) -> io::Result<()> {
    while !pending.is_empty() {
        match no_block(writer.write(pending))? {
            None | Some(0) => break,
            Some(count) => drop(pending.drain(..count)),
        }
    }
    Ok(())
}

fn no_block(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(count) => Ok(Some(count)),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => Ok(None),
        Err(error) => Err(error),
    }
}
