use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes, BytesMut};
use hyper::body::Frame;
use tokio::io::{AsyncReadExt, AsyncWrite};

use super::super::body::{BodyError, Came};
use super::super::incoming::Incoming;
use super::super::patient::Patient;
use crate::http::http1::{Bounds, Decoder, Framing, Outbox, Part, RequestError, RequestHead};

/// The bytes of a connection. Who drives it shares it with the body of the request that it has, as that may be wanted by
/// another task.
pub(super) struct Link {
    /// `None` once nobody drives it.
    io: Option<Patient>,
    needs_flush: bool,
    /// What came and was not taken yet.
    input: BytesMut,
    /// Whether that had room for much since it was begun: what is taken off it looks small, and keeps all of it.
    is_large: bool,
    /// How much of that was looked at and is no whole head.
    seen: usize,
    decoder: Decoder,
    reader: Reader,
    /// Whether the client sends the body only when it is told to go on.
    expects_continue: bool,
    /// What it is still to be told before the answer; `None` where all of that is on its way.
    interim: Option<&'static [u8]>,
    /// Who drives the connection, if that waits for somebody else to read the body.
    driver: Option<Waker>,
    /// Who waits for more of the body.
    waiting: Option<Waker>,
}

/// Who reads what comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reader {
    /// The handle of the body.
    Body,
    /// Who drives the connection.
    Driver,
    /// Nobody does any more: what comes can no longer be understood, or nothing does.
    Nobody,
}

/// What is left of the body of a request when its answer begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// So little that it is read and forgotten.
    Little,
    /// More than is read for nothing.
    Much,
    Nothing,
    /// What somebody still reads.
    Wanted,
}

/// The body of a request, whose bytes are read when they are asked for.
pub(in crate::http::relay) struct Rest {
    link: Arc<Mutex<Link>>,
    /// How many bytes are to come, where that is known.
    left: Option<u64>,
    is_over: bool,
}

impl Link {
    pub(super) fn new(io: Patient) -> Self {
        Self {
            io: Some(io),
            needs_flush: false,
            input: BytesMut::new(),
            is_large: false,
            seen: 0,
            decoder: Decoder::new(Framing::Empty),
            reader: Reader::Driver,
            expects_continue: false,
            interim: None,
            driver: None,
            waiting: None,
        }
    }

    /// The connection, and what came behind the last request; nothing comes of a body any more.
    pub(super) fn take(&mut self) -> Option<(Patient, BytesMut)> {
        self.reader = Reader::Nobody;
        if let Some(waiting) = self.waiting.take() {
            waiting.wake();
        }
        let input = std::mem::take(&mut self.input);
        let input = if self.is_large { BytesMut::from(&*input) } else { input };
        Some((self.io.take()?, input))
    }

    /// The next request; `None` where no more come.
    pub(super) fn poll_request(
        &mut self,
        bounds: Bounds,
        is_ending: bool,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Option<Result<RequestHead, RequestError>>>> {
        loop {
            // a head is looked at again only where another line of it came
            if self.input[self.seen..].contains(&b'\n') || self.input.len() >= bounds.bytes {
                self.seen = 0;
                if let Some(taken) = RequestHead::take(&mut self.input, bounds).transpose() {
                    return Poll::Ready(Ok(Some(taken)));
                }
            }
            if self.input.is_empty() {
                if is_ending {
                    return Poll::Ready(Ok(None));
                }
                // what it took to read the last request, if that is much
                if std::mem::take(&mut self.is_large) {
                    self.input = BytesMut::new();
                }
            }
            self.seen = self.input.len();
            match ready!(self.poll_read(SHORT_BYTES, cx))? {
                true => {}
                false if self.input.iter().all(u8::is_ascii_whitespace) => return Poll::Ready(Ok(None)),
                false => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            }
        }
    }

    /// The body of the request that was taken last: if it is short and here, all of it.
    pub(super) fn begin_body(link: &Arc<Mutex<Self>>, head: &RequestHead, bounds: Bounds) -> Incoming {
        let mut this = lock(link);
        this.decoder = Decoder::new(head.framing).within(bounds);
        let left = this.decoder.left();
        if let Some(length) = left.and_then(|left| usize::try_from(left).ok())
            && length <= this.input.len().min(MOST_WHOLE_BYTES)
        {
            // copied, so that there is room for what comes next in the same place
            let body = Bytes::copy_from_slice(&this.input[..length]);
            this.input.advance(length);
            this.decoder = Decoder::new(Framing::Empty);
            return Incoming::Whole(body);
        }
        (this.reader, this.expects_continue) = (Reader::Body, head.expects_continue);
        drop(this);
        Incoming::Rest(Rest { link: Arc::clone(link), left, is_over: false })
    }

    /// Waits until the client is gone; what comes of the next request meanwhile is kept.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        ready!(self.poll_unwanted(cx));
        // some send an empty line behind a body
        while self.reader == Reader::Driver && self.decoder.is_over() && self.input.len() < SHORT_BYTES {
            match ready!(self.poll_read(SHORT_BYTES, cx)) {
                Ok(true) => {}
                Ok(false) => return Poll::Ready(io::ErrorKind::UnexpectedEof.into()),
                Err(error) => return Poll::Ready(error),
            }
        }
        Poll::Pending
    }

    /// Begins with the answer; says what is left of the body.
    pub(super) fn begin_answer(&mut self) -> Left {
        match self.reader {
            Reader::Body => Left::Wanted,
            Reader::Nobody => Left::Much,
            Reader::Driver => {
                self.forget();
                match self.decoder.left() {
                    _ if self.reader == Reader::Nobody => Left::Much,
                    Some(0) => Left::Nothing,
                    Some(left) if left <= MOST_FORGOTTEN && !self.expects_continue => Left::Little,
                    _ => Left::Much,
                }
            }
        }
    }

    /// Writes what is to be written.
    pub(super) fn poll_write(&mut self, outbox: &mut Outbox, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.interim.is_some() {
            // whoever reads the body may write the rest of it
            self.awake_by(cx);
            ready!(self.poll_interim(cx))?;
        }
        while !outbox.is_empty() {
            match ready!(self.io()?.poll_write_vectored(cx, &outbox.slices()))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => outbox.advance(count),
            }
            self.needs_flush = true;
        }
        if self.needs_flush {
            ready!(self.io()?.poll_flush(cx))?;
            self.needs_flush = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Waits until nobody else reads the body.
    pub(super) fn poll_unwanted(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.reader == Reader::Body {
            self.awake_by(cx);
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    /// Waits until nothing is left of a body that nobody wants; says whether another request may follow.
    pub(super) fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        loop {
            match self.begin_answer() {
                Left::Nothing => return Poll::Ready(true),
                Left::Much | Left::Wanted => return Poll::Ready(false),
                Left::Little => {}
            }
            if !matches!(ready!(self.poll_read(SHORT_BYTES, cx)), Ok(true)) {
                return Poll::Ready(false);
            }
        }
    }

    /// Says that no more comes, and hears the client out.
    pub(super) fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io()?.poll_shutdown(cx)
    }

    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Came> {
        loop {
            match self.decoder.take(&mut self.input) {
                Ok(Some(part)) => {
                    self.expects_continue = false;
                    return Poll::Ready(Some(Ok(match part {
                        Part::Data(data) => Frame::data(data),
                        Part::Trailers(trailers) => Frame::trailers(trailers),
                    })));
                }
                Ok(None) if self.decoder.is_over() => return Poll::Ready(None),
                Ok(None) => {}
                Err(_) => return Poll::Ready(Some(Err(BodyError::Broken))),
            }
            if std::mem::take(&mut self.expects_continue) {
                self.interim = Some(CONTINUE);
            }
            if matches!(self.poll_interim(cx), Poll::Ready(Err(_))) {
                return Poll::Ready(Some(Err(BodyError::Broken)));
            }
            if !matches!(ready!(self.poll_read(READ_BYTES, cx)), Ok(true)) {
                return Poll::Ready(Some(Err(BodyError::Broken)));
            }
        }
    }

    /// Tells the client to go on.
    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(mut left) = self.interim else { return Poll::Ready(Ok(())) };
        while !left.is_empty() {
            match ready!(self.io()?.poll_write(cx, left))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => left = &left[count..],
            }
            self.interim = Some(left);
        }
        ready!(self.io()?.poll_flush(cx))?;
        self.interim = None;
        self.awake_driver();
        Poll::Ready(Ok(()))
    }

    /// Whether anything came; nothing does when the client has closed the connection.
    fn poll_read(&mut self, bytes: usize, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        // what is taken off the buffer keeps all of it
        if self.input.capacity() - self.input.len() < ROOM_BYTES {
            self.input.reserve(bytes);
            self.is_large |= self.input.capacity() > SHORT_BYTES;
        }
        let Some(io) = &mut self.io else { return Poll::Ready(Err(io::ErrorKind::NotConnected.into())) };
        let read = pin!(io.read_buf(&mut self.input));
        read.poll(cx).map_ok(|count| count > 0)
    }

    /// Takes what is here of a body that nobody wants.
    fn forget(&mut self) {
        loop {
            match self.decoder.take(&mut self.input) {
                Ok(Some(_)) => {}
                Ok(None) => return,
                Err(_) => {
                    self.reader = Reader::Nobody;
                    return;
                }
            }
        }
    }

    fn io(&mut self) -> io::Result<Pin<&mut Patient>> {
        self.io.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn awake_by(&mut self, cx: &Context<'_>) {
        keep(&mut self.driver, cx);
    }

    /// Leaves what comes to another one.
    fn leave_to(&mut self, reader: Reader) {
        (self.reader, self.waiting) = (reader, None);
        self.awake_driver();
    }

    fn awake_driver(&mut self) {
        if let Some(driver) = self.driver.take() {
            driver.wake();
        }
    }
}

impl Rest {
    /// The next part.
    pub(in crate::http::relay) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Came> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let mut link = lock(&self.link);
        let Poll::Ready(came) = link.poll_part(cx) else {
            keep(&mut link.waiting, cx);
            return Poll::Pending;
        };
        let is_broken = matches!(came, Some(Err(_)));
        self.left = link.decoder.left();
        self.is_over = link.decoder.is_over() || is_broken;
        if self.is_over {
            link.leave_to(if is_broken { Reader::Nobody } else { Reader::Driver });
        }
        Poll::Ready(came)
    }

    /// How many bytes are to come, where that is known.
    pub(in crate::http::relay) fn left(&self) -> Option<u64> {
        self.left
    }

    /// Whether nothing is to come.
    pub(in crate::http::relay) fn is_over(&self) -> bool {
        self.is_over
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        // the next request may have begun
        if !self.is_over {
            lock(&self.link).leave_to(Reader::Driver);
        }
    }
}

/// The link, whatever became of who else has it.
pub(super) fn lock(link: &Mutex<Link>) -> MutexGuard<'_, Link> {
    link.lock().unwrap_or_else(PoisonError::into_inner)
}

fn keep(waker: &mut Option<Waker>, cx: &Context<'_>) {
    if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
        *waker = Some(cx.waker().clone());
    }
}

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// Most requests are shorter.
const SHORT_BYTES: usize = 4 * 1024;
/// The most bytes of a body that is handed on whole.
const MOST_WHOLE_BYTES: usize = 16 * 1024;
const READ_BYTES: usize = 32 * 1024;
/// With less room, reading takes too many calls.
const ROOM_BYTES: usize = 2 * 1024;
/// The most bytes that are read for nothing, so that the connection can have another request.
const MOST_FORGOTTEN: u64 = 64 * 1024;
