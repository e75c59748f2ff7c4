use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::{Method, Request, StatusCode};
use hyper::body::{Body, Frame};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::super::body::{BodyError, Content};
use super::super::patient::Patient;
use super::UpstreamError;
use crate::http::http1::{AnswerError, Decoder, Framing, Head, MAX_HEAD_BYTES, Outbox, Part, WrongLength};

/// A connection of HTTP/1.1, which has one request at a time. Nothing moves its bytes but who waits for the answer.
pub(super) struct Alone {
    io: Patient,
    outbox: Outbox,
    /// The request that it has, until all of its body is in the outbox.
    request: Option<Box<Request<Content>>>,
    method: Method,
    /// Whether some of the body is not in the outbox yet.
    is_uploading: bool,
    /// Whether the head waits one turn for the first part of the body, to go with it.
    is_held: bool,
    needs_flush: bool,
    /// Why no more can be written; an upstream that takes no more may have answered before that.
    broke: Option<io::Error>,
    /// Why no more can be read. That is said once: who read again would find a proper end.
    lost: Option<io::ErrorKind>,
    /// Whether nothing of the request was written, nor of its body taken.
    is_untouched: bool,
    /// What came and was not taken yet.
    input: BytesMut,
    /// Whether that had room for much since it was begun: what is taken off it looks small, and keeps all of it.
    is_large: bool,
    decoder: Decoder,
    /// Whether the answer lets it have another request.
    may_stay: bool,
    /// The tick at which it had nothing to do.
    idle_since: u64,
}

impl Alone {
    pub(super) fn new(io: Patient) -> Self {
        Self {
            io,
            outbox: Outbox::new(),
            request: None,
            method: Method::default(),
            is_uploading: false,
            is_held: false,
            needs_flush: false,
            broke: None,
            lost: None,
            is_untouched: false,
            input: BytesMut::new(),
            is_large: false,
            decoder: Decoder::new(Framing::Empty),
            may_stay: false,
            idle_since: 0,
        }
    }

    /// Sends a request and waits for the head of the answer.
    pub(super) async fn send(&mut self, request: Box<Request<Content>>) -> Result<Head, UpstreamError> {
        self.begin(request);
        let head = poll_fn(|cx| self.poll_head(cx)).await?;
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(UpstreamError::Answer(AnswerError::Head));
        }
        self.may_stay = head.may_stay;
        self.decoder = Decoder::new(head.framing);
        Ok(head)
    }

    /// The request that has no answer, if the upstream can have seen nothing of it.
    pub(super) fn take_request(&mut self) -> Option<Box<Request<Content>>> {
        self.request.take_if(|_| self.is_untouched)
    }

    /// The body of the answer, if it is short and all of it has come.
    pub(super) fn whole_body(&mut self) -> Option<Bytes> {
        let length = self.decoder.left().and_then(|left| usize::try_from(left).ok())?;
        if length > self.input.len().min(SHORT_BYTES) {
            return None;
        }
        // copied, so that there is room for what comes next in the same place
        let body = Bytes::copy_from_slice(&self.input[..length]);
        self.input.advance(length);
        self.decoder = Decoder::new(Framing::Empty);
        Some(body)
    }

    /// The next part of the body of the answer.
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let outcome = ready!(self.poll_part(cx));
        Poll::Ready(outcome.map_err(|_| BodyError::Broken).transpose())
    }

    /// Whether some of the request is still to be sent.
    pub(super) fn is_sending(&self) -> bool {
        !self.outbox.is_complete() || !self.outbox.is_empty() || self.needs_flush
    }

    /// Waits until all of the request is sent, or the upstream takes no more.
    pub(super) async fn finish(&mut self) -> Result<(), UpstreamError> {
        poll_fn(|cx| {
            self.poll_upload(cx)?;
            if self.is_sending() { Poll::Pending } else { Poll::Ready(Ok(())) }
        })
        .await
    }

    /// How many bytes of the body are left, where that is known.
    pub(super) fn left(&self) -> Option<u64> {
        self.decoder.left()
    }

    /// Whether it can have another request: nothing is left of this one, and nothing else came.
    pub(super) fn is_free(&self) -> bool {
        let is_whole = self.broke.is_none() && self.lost.is_none();
        self.may_stay && is_whole && !self.is_sending() && self.decoder.is_over() && self.input.is_empty()
    }

    /// Whether the upstream has neither closed it nor said anything since.
    pub(super) fn is_quiet(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        self.io.is_idle() || self.poll_read(&mut cx).is_pending()
    }

    /// Has nothing to do from this tick on; gives up what its last request and answer took, if that is much.
    pub(super) fn rest(&mut self, tick: u64) {
        self.idle_since = tick;
        self.request = None;
        self.outbox.rest();
        if std::mem::take(&mut self.is_large) {
            self.input = BytesMut::new();
        }
    }

    /// The tick at which it had nothing to do.
    pub(super) fn idle_since(&self) -> u64 {
        self.idle_since
    }

    /// Says to the upstream that no more comes.
    pub(super) async fn close(mut self: Box<Self>) {
        let _ = self.io.shutdown().await;
    }

    fn begin(&mut self, request: Box<Request<Content>>) {
        let body = request.body();
        let body_bytes = if body.is_end_stream() { Some(0) } else { body.size_hint().exact() };
        self.outbox.begin(&request, body_bytes);
        self.is_uploading = !self.outbox.is_complete();
        self.is_held = self.is_uploading;
        self.method.clone_from(request.method());
        (self.request, self.is_untouched) = (Some(request), true);
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Head, UpstreamError>> {
        self.poll_upload(cx)?;
        loop {
            let known = self.input.len();
            let read = ready!(self.poll_read(cx));
            if read.as_ref().ok() != Some(&true) {
                return Poll::Ready(Err(self.cut(read.err())));
            }
            // a head is looked at again only where another line of it came
            if (known == 0 || self.input[known..].contains(&b'\n') || self.input.len() >= MAX_HEAD_BYTES)
                && let Some(head) =
                    Head::take(&mut self.input, &self.method).map_err(UpstreamError::Answer)?
            {
                return Poll::Ready(Ok(head));
            }
        }
    }

    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>, UpstreamError>> {
        self.poll_upload(cx)?;
        loop {
            let part = self.decoder.take(&mut self.input).map_err(UpstreamError::Answer)?;
            match part {
                Some(Part::Data(data)) => return Poll::Ready(Ok(Some(Frame::data(data)))),
                Some(Part::Trailers(trailers)) => return Poll::Ready(Ok(Some(Frame::trailers(trailers)))),
                None if self.decoder.is_over() => return Poll::Ready(Ok(None)),
                None => {}
            }
            if let Some(lost) = self.lost {
                return Poll::Ready(Err(UpstreamError::Io(lost.into())));
            }
            match ready!(self.poll_read(cx)) {
                Ok(true) => {}
                Ok(false) if !self.was_reset() && self.decoder.close().is_ok() => {
                    return Poll::Ready(Ok(None));
                }
                outcome => {
                    self.lost =
                        Some(outcome.map_or_else(|error| error.kind(), |_| io::ErrorKind::UnexpectedEof));
                    // what came before goes on first
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
        }
    }

    /// Moves the request on as far as it goes now. An upstream that takes no more of it may have answered.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<(), UpstreamError> {
        while self.fill(cx)? && !self.outbox.is_empty() {
            match Pin::new(&mut self.io).poll_write_vectored(cx, &self.outbox.slices()) {
                Poll::Pending => break,
                Poll::Ready(Ok(count)) if count > 0 => {
                    self.outbox.advance(count);
                    (self.needs_flush, self.is_untouched) = (true, false);
                }
                Poll::Ready(Ok(_)) => return Err(UpstreamError::Io(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Err(error)) => self.stop(error)?,
            }
        }
        if self.needs_flush && self.outbox.is_empty() {
            match Pin::new(&mut self.io).poll_flush(cx) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => self.needs_flush = false,
                Poll::Ready(Err(error)) => self.stop(error)?,
            }
        }
        Ok(())
    }

    /// Writes no more, as the upstream takes no more.
    fn stop(&mut self, error: io::Error) -> Result<(), UpstreamError> {
        // nor is there an answer to what was not begun
        if self.is_untouched || error.kind() == io::ErrorKind::TimedOut {
            return Err(UpstreamError::Io(error));
        }
        self.request = None;
        (self.is_uploading, self.outbox, self.needs_flush) = (false, Outbox::new(), false);
        self.broke = Some(error);
        Ok(())
    }

    /// Takes what there is of the body of the request, while there is room for it; says whether to write that.
    fn fill(&mut self, cx: &mut Context<'_>) -> Result<bool, UpstreamError> {
        while let Some(request) =
            self.request.as_mut().filter(|_| self.is_uploading && self.outbox.has_room())
        {
            let (upload, is_held) = (request.body_mut(), std::mem::take(&mut self.is_held));
            let Poll::Ready(came) = Pin::new(&mut *upload).poll_frame(cx) else {
                if is_held {
                    // it may be there already, and is handed over in the next turn
                    cx.waker().wake_by_ref();
                }
                return Ok(!is_held);
            };
            self.is_untouched = false;
            let part = came.transpose().map_err(UpstreamError::Request)?.map(Frame::into_data);
            self.is_uploading = matches!(part, Some(Ok(_))) && !upload.is_end_stream();
            let outcome = match part {
                Some(Ok(data)) if self.is_uploading => self.outbox.push(data),
                Some(Ok(data)) => self.outbox.push(data).and_then(|()| self.outbox.end(None)),
                Some(Err(trailers)) => self.outbox.end(trailers.trailers_ref()),
                None => self.outbox.end(None),
            };
            if !self.is_uploading {
                self.request = None;
            }
            outcome.map_err(|WrongLength| UpstreamError::Request(BodyError::Broken))?;
        }
        Ok(true)
    }

    /// Whether anything came; nothing does when the upstream has closed the connection.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        // what is taken off the buffer keeps all of it
        if self.input.capacity() - self.input.len() < ROOM_BYTES {
            self.input.reserve(if self.decoder.is_over() { SHORT_BYTES } else { READ_BYTES });
            self.is_large |= self.input.capacity() > SHORT_BYTES;
        }
        let read = pin!(self.io.read_buf(&mut self.input));
        read.poll(cx).map_ok(|count| count > 0)
    }

    /// Whether a write was told that the upstream reset the connection; a read is not told that again.
    fn was_reset(&self) -> bool {
        self.broke.as_ref().is_some_and(|error| error.kind() == io::ErrorKind::ConnectionReset)
    }

    /// Why there is no answer.
    fn cut(&mut self, error: Option<io::Error>) -> UpstreamError {
        let error = self.broke.take().or(error);
        error.map_or(UpstreamError::Answer(AnswerError::Cut), UpstreamError::Io)
    }
}

/// Most heads are shorter, and so are most bodies that are read with them.
const SHORT_BYTES: usize = 4 * 1024;
const READ_BYTES: usize = 32 * 1024;
/// With less room, reading takes too many calls.
const ROOM_BYTES: usize = 2 * 1024;

#[cfg(test)]
mod tests;
