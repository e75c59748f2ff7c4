use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token};

use crate::ends::{Counts, Ends};
use crate::world::wait;

/// Both ends of a load of CoAP, on one thread: devices that post, each from a port of its own, and a server that
/// acknowledges with the answer.
pub(crate) struct Devices {
    poll: Poll,
    events: Events,
    server: UdpSocket,
    devices: Vec<Device>,
    /// Devices that have no answer to wait for, the one that waits longest for its turn in front.
    free: VecDeque<usize>,
    payload_bytes: usize,
    counts: Counts,
}

struct Device {
    socket: UdpSocket,
    /// With the message identifier of the last request.
    request: Vec<u8>,
}

impl Devices {
    /// Opens the server's port; requests carry `payload_bytes`.
    pub(crate) fn new(payload_bytes: usize) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut server = UdpSocket::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        poll.registry().register(&mut server, SERVER, Interest::READABLE)?;
        Ok(Self {
            poll,
            events: Events::with_capacity(1024),
            server,
            devices: Vec::new(),
            free: VecDeque::new(),
            payload_bytes,
            counts: Counts::default(),
        })
    }

    /// The port of the server.
    pub(crate) fn port(&self) -> io::Result<u16> {
        Ok(self.server.local_addr()?.port())
    }

    /// Adds `count` devices, and lets each make a request.
    pub(crate) fn open(&mut self, to: SocketAddr, count: usize) -> io::Result<()> {
        for _ in 0..count {
            let number = self.devices.len();
            let mut socket = UdpSocket::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
            socket.connect(to)?;
            self.poll.registry().register(&mut socket, Token(number), Interest::READABLE)?;
            self.devices.push(Device { socket, request: request(number, self.payload_bytes) });
            self.free.push_front(number);
            self.post()?;
            self.settle()?;
        }
        Ok(())
    }

    fn serve(&mut self) -> io::Result<()> {
        let mut buffer = [0; 2048];
        loop {
            match self.server.recv_from(&mut buffer) {
                Ok((count, from)) => {
                    self.counts.arrived += 1;
                    self.server.send_to(&answer(&buffer[..count])?, from)?;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn hear(&mut self, number: usize) -> io::Result<()> {
        let mut buffer = [0; 2048];
        loop {
            let Device { socket, request } = &self.devices[number];
            match socket.recv(&mut buffer) {
                Ok(count) if buffer[..count] == answer(request)? => {
                    self.counts.answered += 1;
                    self.free.push_back(number);
                }
                Ok(count) => {
                    let said = &buffer[..count];
                    return Err(io::Error::other(format!("a request was answered with {said:02x?}")));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}

impl Ends for Devices {
    fn counts(&self) -> Counts {
        self.counts
    }

    fn post(&mut self) -> io::Result<()> {
        let Some(number) = self.free.pop_front() else { return Ok(()) };
        let Device { socket, request } = &mut self.devices[number];
        let id = u16::from_be_bytes([request[2], request[3]]).wrapping_add(1).to_be_bytes();
        request[2..4].copy_from_slice(&id);
        socket.send(request)?;
        self.counts.sent += 1;
        Ok(())
    }

    fn turn(&mut self, patience: Duration) -> io::Result<()> {
        wait(&mut self.poll, &mut self.events, patience)?;
        let ready: Vec<_> = self.events.iter().map(mio::event::Event::token).collect();
        for token in ready {
            if token == SERVER { self.serve()? } else { self.hear(token.0)? }
        }
        Ok(())
    }
}

/// A confirmable POST to `devices/dev-<number>/telemetry`, with a token of four bytes.
fn request(number: usize, payload_bytes: usize) -> Vec<u8> {
    let mut request = vec![0x44, 0x02, 0, 0, 1, 2, 3, 4];
    let segments = ["devices".to_owned(), format!("dev-{number}"), "telemetry".to_owned()];
    for (index, segment) in segments.iter().enumerate() {
        let delta = if index == 0 { URI_PATH } else { 0 };
        request.push(delta << 4 | segment.len() as u8);
        request.extend(segment.as_bytes());
    }
    request.push(0xff);
    request.extend(vec![b'x'; payload_bytes]);
    request
}

/// Its acknowledgement, which says 2.04.
fn answer(request: &[u8]) -> io::Result<[u8; 8]> {
    let head = request.first_chunk().filter(|head: &&[u8; 8]| head[0] == 0x44);
    let mut answer = *head.ok_or_else(|| io::Error::other("what the server got is no request"))?;
    (answer[0], answer[1]) = (0x64, 0x44);
    Ok(answer)
}

const URI_PATH: u8 = 11;
const SERVER: Token = Token(usize::MAX);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_is_one_and_its_answer_is_its_own() {
        let request = request(7, 3);
        assert_eq!(request[8..], *b"\xb7devices\x05dev-7\x09telemetry\xffxxx");
        let mut other = request.clone();
        other[3] = 1;
        assert_ne!(answer(&request).unwrap(), answer(&other).unwrap());
        assert!(answer(b"\x60\0\0\0").is_err());
    }

    #[test]
    fn every_request_is_answered() {
        let mut devices = Devices::new(10).unwrap();
        let server = devices.server.local_addr().unwrap();
        devices.open(server, 3).unwrap();
        devices.drive(500.0, Duration::from_millis(50)).unwrap();
        devices.settle().unwrap();
        let Counts { sent, arrived, answered } = devices.counts();
        assert!(sent > 3 && arrived == sent && answered == sent);
    }
}
