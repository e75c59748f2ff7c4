use std::sync::Arc;

use http::request::Parts;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use mgate_policies::{Action, BoxFuture, Client, Now};

use super::super::body::Content;
use super::super::upstream::{Upstream, UpstreamError};
use super::super::websocket::{HandOver, Next, Place, Relaying};
use super::Exchange;
use crate::background::timeout;
use crate::gate::SessionEvent;
use crate::http::Profile;
use crate::http::headers::towards_client;
use crate::http::problem::Problem;
use crate::http::session::Head;
use crate::http::websocket::{Asked, Challenge};

impl Exchange {
    /// Opens a WebSocket on both sides, if the client may have it and the upstream takes it; otherwise passes what the
    /// upstream answers.
    pub(super) async fn open(
        &self,
        head: &Arc<Head>,
        client: Arc<Client>,
        mut forwarded: Parts,
        handed_over: Option<HandOver>,
    ) -> Result<Response<Content>, Problem> {
        let (Some(asked), Some(handed_over)) = (&head.target.websocket, handed_over) else {
            return Err(Problem::BadRequest);
        };
        let Some(upstream) = &self.endpoint.upstream else { return Err(Problem::NotImplemented) };
        self.decide(head, &client, b"").await?;
        let place = self.endpoint.websockets.take().ok_or(Problem::TooMany(1))?;
        let revoked = self.clone().revoked(Arc::clone(head), Arc::clone(&client));
        let mut revoked: BoxFuture<'static, Problem> = Box::pin(revoked);
        let challenge = asked.challenge(&mut forwarded.headers);
        let request = Request::from_parts(forwarded, Content::empty());
        let mut response = tokio::select! {
            response = self.ask_upstream(upstream, request) => {
                response.map_err(|error| self.failed(head, &client, &error.to_string(), error.problem()))?
            }
            problem = &mut revoked => return Err(problem),
        };
        let upstream = match self.taken(asked, &challenge, &mut response).await {
            Ok(Some(upstream)) => upstream,
            Ok(None) => return Ok(self.refused(head, response, place).map(|content| content.until(revoked))),
            Err(why) => return Err(self.failed(head, &client, why, Problem::BadGateway)),
        };
        let topic = head.websocket_topic(&self.endpoint.options)?.as_str().into();
        let (connection, route, epoch) = (Arc::clone(&self.connection), self.route, self.epoch);
        let relaying = Relaying { connection, route, epoch, client, topic, upstream, revoked, place };
        self.connection.go_over.hand_over(handed_over, Next::WebSocket(relaying));
        Ok(accepted(asked, response))
    }

    /// The connection to an upstream that took the WebSocket; `None` where it did not, or why that is no answer.
    async fn taken(
        &self,
        asked: &Asked,
        challenge: &Challenge<'_>,
        response: &mut Response<Incoming>,
    ) -> Result<Option<Upgraded>, &'static str> {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            challenge.check(response.headers())?;
            let upgraded = hyper::upgrade::on(response);
            let upgraded = timeout(self.endpoint.gate.limits.upstream_timeout, upgraded).await;
            return upgraded.ok().and_then(Result::ok).map(Some).ok_or("it went away");
        }
        let is_about_messages = self.endpoint.options.profile != Profile::Proxy;
        match response.status() {
            status if asked.is_opened_by(status) => Err("it answered as if there were a WebSocket"),
            status if status.is_success() && is_about_messages => Err("it opened no WebSocket"),
            _ => Ok(None),
        }
    }

    async fn ask_upstream(
        &self,
        upstream: &Upstream,
        request: Request<Content>,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let limits = &self.endpoint.gate.limits;
        let answered = timeout(limits.upstream_timeout, upstream.upgrade(request, limits.stall_timeout));
        answered.await.unwrap_or(Err(UpstreamError::TimedOut))
    }

    /// The answer of an upstream that opens no WebSocket; it keeps the place of one until it is told.
    fn refused(&self, head: &Head, response: Response<Incoming>, place: Place) -> Response<Content> {
        let (mut parts, incoming) = response.into_parts();
        towards_client(&mut parts.headers);
        head.redirect(&mut parts.headers, &self.endpoint.options);
        let stall_timeout = self.endpoint.gate.limits.stall_timeout;
        let mut response = Response::new(Content::in_place(incoming, stall_timeout, place));
        *response.status_mut() = parts.status;
        *response.headers_mut() = parts.headers;
        response
    }

    fn failed(&self, head: &Head, client: &Client, why: &str, problem: Problem) -> Problem {
        let (action, resource) = (Action::Request, &*head.to_string());
        let event = SessionEvent::Failed { client, action, resource, why: &why };
        self.endpoint.gate.tell(&event, Now::read());
        problem
    }
}

/// The answer of an upstream as the client gets it.
fn accepted(asked: &Asked, mut answered: Response<Incoming>) -> Response<Content> {
    let mut response = Response::new(Content::empty());
    let headers = response.headers_mut();
    *headers = std::mem::take(answered.headers_mut());
    towards_client(headers);
    *response.status_mut() = asked.accept(response.headers_mut());
    response
}
