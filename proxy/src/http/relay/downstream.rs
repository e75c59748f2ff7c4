mod link;

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Response, StatusCode};
use hyper::body::Body;
use mgate_policies::Now;

use self::link::{Left, Link, lock};
use super::body::{Answer, BodyError};
use super::connection::Connection;
use super::exchange;
use super::patient::Patient;
use super::websocket::Handed;
use crate::http::http1::{Asked, Bounds, Outbox, RequestError, RequestHead};
use crate::http::problem::Problem;

pub(super) use self::link::Rest;

/// A client's connection of HTTP/1.1, which has one request at a time. Nothing moves its bytes but who serves it, and
/// who wants the body of a request.
pub(super) struct Downstream {
    connection: Arc<Connection>,
    link: Arc<Mutex<Link>>,
    bounds: Bounds,
    outbox: Outbox,
}

/// What follows an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Nothing.
    End,
    /// Another protocol.
    HandOver,
    /// Another request.
    Request,
}

/// How far the body of an answer has got.
struct Telling {
    /// Whether all of it is in the outbox.
    is_over: bool,
    /// Whether the head waits one turn for the first part of the body, to go with it.
    is_held: bool,
    /// Whether the client may have heard something, or is to.
    has_begun: bool,
    /// Why the rest does not come.
    failed: Option<io::Error>,
}

impl Downstream {
    pub(super) fn new(connection: Arc<Connection>, io: Patient, bounds: Bounds) -> Self {
        Self { connection, link: Arc::new(Mutex::new(Link::new(io))), bounds, outbox: Outbox::new() }
    }

    /// Answers one request after the other until no more come. Returns what is left of the connection where it becomes
    /// something else.
    pub(super) async fn serve(mut self) -> io::Result<Option<Handed>> {
        while let Some(request) = self.request().await? {
            let next = match request {
                Ok(head) => self.exchange(head).await?,
                Err(error) => self.refuse(problem_of(error), Asked::nothing()).await?,
            };
            match next {
                Next::End => break,
                Next::HandOver => return Ok(self.hand_over()),
                Next::Request => {}
            }
        }
        poll_fn(|cx| self.link().poll_close(cx)).await?;
        Ok(None)
    }

    async fn request(&mut self) -> io::Result<Option<Result<RequestHead, RequestError>>> {
        self.outbox.rest();
        poll_fn(|cx| self.link().poll_request(self.bounds, self.connection.is_ending(), cx)).await
    }

    /// Answers one request.
    async fn exchange(&mut self, head: RequestHead) -> io::Result<Next> {
        let asked = Asked::of(&head.parts, head.may_stay);
        let incoming = Link::begin_body(&self.link, &head, self.bounds);
        // boxed: a connection without a request needs no room for it, and all use the same room in turn
        let mut answering = Box::pin(exchange::answer(Arc::clone(&self.connection), head.parts, incoming));
        let answered = poll_fn(|cx| match answering.as_mut().poll(cx) {
            Poll::Ready(response) => Poll::Ready(Ok(response)),
            Poll::Pending => self.link().poll_gone(cx).map(Err),
        });
        let response = answered.await?;
        drop(answering);
        self.tell(response, asked).await
    }

    /// Tells the client the answer.
    async fn tell(&mut self, response: Response<Answer>, mut asked: Asked) -> io::Result<Next> {
        let (head, mut body) = response.into_parts();
        let left = self.link().begin_answer();
        asked.may_stay &= left != Left::Much && !self.connection.is_ending();
        let body_bytes = if body.is_end_stream() { Some(0) } else { body.size_hint().exact() };
        let stays = self.outbox.begin_answer(&head, &asked, body_bytes, Now::read());
        let mut telling = Telling {
            is_over: !asked.allows_body(head.status),
            is_held: true,
            has_begun: false,
            failed: None,
        };
        if !telling.is_over
            && let Some(bytes) = body.take_whole()
        {
            self.outbox.push(bytes).and_then(|()| self.outbox.end(None)).map_err(io::Error::other)?;
            telling.is_over = true;
        }
        let untold = poll_fn(|cx| self.poll_tell(&mut body, &mut telling, cx)).await?;
        let in_flight = body.into_in_flight();
        if let Some(problem) = untold {
            (self.outbox, asked.may_stay) = (Outbox::new(), false);
            // boxed: it is seldom, and comes back here
            return Box::pin(self.refuse(problem, asked)).await;
        }
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(Next::HandOver);
        }
        if left == Left::Wanted {
            // it is not cut off, and its request counts until then
            poll_fn(|cx| self.link().poll_unwanted(cx)).await;
        }
        drop(in_flight);
        let may_follow = left == Left::Nothing || (stays && poll_fn(|cx| self.link().poll_rest(cx)).await);
        Ok(if stays && may_follow { Next::Request } else { Next::End })
    }

    /// Moves an answer on as far as it goes now. Returns what is to be told in its place, where it broke before anything
    /// was: a client that hears nothing may ask again for what has been done.
    fn poll_tell(
        &mut self,
        body: &mut Answer,
        telling: &mut Telling,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Option<Problem>>> {
        loop {
            let is_awaited = self.fill(body, telling, cx).is_pending();
            if std::mem::take(&mut telling.is_held) && is_awaited {
                // it may be there already, and is handed over in the next turn
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if !telling.has_begun
                && let Some(error) = &telling.failed
            {
                return Poll::Ready(Ok(Some(problem_instead(error))));
            }
            telling.has_begun = true;
            ready!(lock(&self.link).poll_write(&mut self.outbox, cx))?;
            if let Some(error) = telling.failed.take() {
                return Poll::Ready(Err(error));
            }
            if telling.is_over {
                return Poll::Ready(Ok(None));
            }
            if is_awaited {
                return self.link().poll_gone(cx).map(Err);
            }
        }
    }

    /// Takes what there is of the body of an answer, while there is room for it.
    fn fill(&mut self, body: &mut Answer, telling: &mut Telling, cx: &mut Context<'_>) -> Poll<()> {
        while !telling.is_over && self.outbox.has_room() {
            let came = ready!(Pin::new(&mut *body).poll_frame(cx));
            telling.is_over = !matches!(&came, Some(Ok(frame)) if frame.is_data()) || body.is_end_stream();
            telling.has_begun |= matches!(came, Some(Ok(_)));
            let put = match came {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.put(data, telling.is_over),
                    Err(trailers) => self.outbox.end(trailers.trailers_ref()).map_err(io::Error::other),
                },
                Some(Err(error)) => Err(io::Error::other(error)),
                None => self.outbox.end(None).map_err(io::Error::other),
            };
            if let Err(error) = put {
                // what came before goes on first
                (telling.is_over, telling.failed) = (true, Some(error));
            }
        }
        Poll::Ready(())
    }

    fn put(&mut self, data: Bytes, is_last: bool) -> io::Result<()> {
        self.outbox.push(data).map_err(io::Error::other)?;
        if is_last { self.outbox.end(None).map_err(io::Error::other) } else { Ok(()) }
    }

    /// Answers what is no request, or has no other answer.
    async fn refuse(&mut self, problem: Problem, asked: Asked) -> io::Result<Next> {
        let response = exchange::refuse(problem, "", &self.connection);
        let response = response.map(|body| Answer::new(body, self.connection.begin()));
        self.tell(response, asked).await
    }

    /// What is left of the connection.
    fn hand_over(self) -> Option<Handed> {
        let (io, input) = self.link().take()?;
        Some(Handed::Connection(Box::new(io), input))
    }

    fn link(&self) -> MutexGuard<'_, Link> {
        lock(&self.link)
    }
}

impl Drop for Downstream {
    fn drop(&mut self) {
        // the body of the last request may be kept by another task
        let left = self.link().take();
        if let Some((io, _)) = left
            && self.outbox.is_endless()
        {
            // what was cut must not look whole. RFC 9112 §8
            io.reset();
        }
    }
}

/// What a client is told in place of an answer that does not come.
fn problem_instead(error: &io::Error) -> Problem {
    match error.get_ref().and_then(|error| error.downcast_ref()) {
        Some(BodyError::Revoked(problem)) => *problem,
        _ => Problem::BadGateway,
    }
}

fn problem_of(error: RequestError) -> Problem {
    match error {
        RequestError::Coding => Problem::NotImplemented,
        RequestError::Head | RequestError::Length | RequestError::TransferEncoding => Problem::BadRequest,
        RequestError::Target => Problem::TargetTooLong,
        RequestError::TooLarge => Problem::HeadTooLarge,
        RequestError::Version => Problem::Version,
    }
}
