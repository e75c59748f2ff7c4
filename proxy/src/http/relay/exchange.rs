mod guest;
mod websocket;

use std::future::pending;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Request, Response, StatusCode};
use mgate_policies::{
    Action, BoxFuture, Cause, Client, Decision, Now, Outcome, Principal, Protocol, Query, Reason,
};
use tokio::time::Instant;
use tracing::debug;

use super::body::{Answer, BodyError, Content, Progress, Source, Upload};
use super::connection::Connection;
use super::incoming::Incoming;
use super::upstream::UpstreamError;
use super::websocket::HandOver;
use crate::background::{alarm_at, timeout, timeout_at};
use crate::gate::{
    Copied, Fate, Gate, Identification, Message, Notes, PacketSeen, SessionEvent, Side, Trouble, Verdict,
    no_decision_in_time,
};
use crate::http::cors::{is_preflight, origin};
use crate::http::credentials::Shown;
use crate::http::headers::towards_client;
use crate::http::problem::Problem;
use crate::http::session::{Head, Target};
use crate::http::{Endpoint, Profile, Routes};
use crate::signal::Signal;

pub(super) use guest::Arriving;

/// Answers one request: with what the upstream says, or with what keeps it from being asked.
pub(super) async fn answer(
    connection: Arc<Connection>,
    mut parts: Parts,
    incoming: Incoming,
) -> Response<Answer> {
    let in_flight = connection.begin();
    let response = if let Some(response) = guest::answer(&connection, &mut parts) {
        response
    } else {
        match Exchange::of(&connection, &parts) {
            Ok((exchange, target)) => exchange.answer(parts, target, incoming).await,
            Err(problem) => refuse(problem, "", &connection),
        }
    };
    response.map(|body| Answer::new(body, in_flight))
}

/// One request and its answer.
#[derive(Clone)]
struct Exchange {
    connection: Arc<Connection>,
    /// The number of its route.
    route: usize,
    endpoint: Arc<Endpoint>,
    /// Of the rights that the endpoint knows.
    epoch: u64,
}

impl Exchange {
    /// The exchange that a request begins, at the route that it is for.
    fn of(connection: &Arc<Connection>, parts: &Parts) -> Result<(Self, Target), Problem> {
        let (routes, epoch) = connection.routes_and_epoch();
        let target = Target::read(parts, &connection.peer, routes.leader().options.headers)?;
        let route = target.route(&routes)?;
        let (connection, endpoint) = (Arc::clone(connection), Arc::clone(routes.endpoint(route)));
        Ok((Self { connection, route, endpoint, epoch }, target))
    }

    /// Answers it, and says which pages may read the answer.
    async fn answer(mut self, mut parts: Parts, target: Target, incoming: Incoming) -> Response<Content> {
        let origin = origin(&parts.headers);
        if let Some(cors) = &self.endpoint.options.cors
            && is_preflight(&parts.method, &parts.headers)
        {
            return cors.preflight(&cors.page(origin.as_ref())).map(Content::whole);
        }
        let mut response = match self.run(&mut parts, target, incoming).await {
            Ok(response) => response,
            Err(problem) => refuse(problem, &self.endpoint.gate.route, &self.connection),
        };
        // a reload may have changed it meanwhile
        let signal = self.connection.signal.borrow();
        if let Some(cors) = &signal.endpoint().endpoint(self.route).options.cors {
            cors.mark(response.headers_mut(), &cors.page(origin.as_ref()));
        }
        drop(signal);
        response
    }

    async fn run(
        &mut self,
        parts: &mut Parts,
        target: Target,
        incoming: Incoming,
    ) -> Result<Response<Content>, Problem> {
        let head = Arc::new(Head::read(parts, target, &self.endpoint.options)?);
        let client = self.identify(&head).await?;
        let client = self.identify_again(&head, client).await?;
        self.limit(&client)?;
        let headers = std::mem::take(&mut parts.headers);
        let forwarded = head.forward(headers, &self.connection.peer, &self.endpoint.options);
        if head.target.websocket.is_some() {
            let handed_over = HandOver::of(parts);
            // boxed: others need no room for it
            return Box::pin(self.open(&head, client, forwarded, handed_over)).await;
        }
        let limits = &self.endpoint.gate.limits;
        let upload = Upload::new(incoming, self.endpoint.options.body_bytes, limits.stall_timeout);
        match self.endpoint.options.profile {
            // boxed: others need no room for it
            Profile::Messages { .. } => Box::pin(self.publish(&head, client, forwarded, upload)).await,
            Profile::Proxy => {
                self.decide(&head, &client, b"").await?;
                let progress = upload.progress();
                let request = Box::new(Request::from_parts(forwarded, Content::upload(upload)));
                let revoked = || self.clone().revoked(Arc::clone(&head), Arc::clone(&client));
                let mut revoked_before = pin!(revoked());
                let response = tokio::select! {
                    biased;
                    // what is on its way ends with its connection
                    problem = &mut revoked_before => return Err(problem),
                    response = self.forward(&head, &client, request, &progress) => response?,
                };
                // what is here already is told
                let is_whole = response.body().is_whole();
                Ok(response
                    .map(|content| if is_whole { content } else { content.until(Box::pin(revoked())) }))
            }
        }
    }

    /// Who it is; asked once for each kind of credentials that the connection shows.
    async fn identify(&self, head: &Head) -> Result<Arc<Client>, Problem> {
        let (now, key) = (Now::read(), self.connection.identities.key(self.route, &head.shown));
        if let Some((client, epoch)) = self.connection.identities.find(key, now.unix)
            && !self.connection.signal.borrow().concerns(Some(&client), epoch)
        {
            return Ok(client);
        }
        // boxed: it is asked once a connection
        match Box::pin(self.authenticate(&head.shown, now)).await {
            Ok(principal) => {
                let client = Arc::new(self.client(principal, &head.shown));
                self.connection.identities.keep(key, Arc::clone(&client), self.epoch);
                Ok(client)
            }
            Err(reason) => {
                self.tell_denied(None, Action::Request, &head.to_string(), &reason);
                Err(reason.cause.into())
            }
        }
    }

    async fn authenticate(&self, shown: &Shown, now: Now) -> Result<Principal, Reason> {
        let gate = &self.endpoint.gate;
        let deadline = Instant::now() + gate.limits.decision_timeout;
        let credentials = self.connection.peer.credentials(shown);
        let mut identification = gate.authenticators.identify(&credentials, now);
        loop {
            match identification {
                Identification::Accepted(principal)
                    if principal.expires.is_some_and(|end| end <= now.unix) =>
                {
                    return Err(Reason::with_detail(Cause::BadCredentials, "the credentials have expired"));
                }
                Identification::Accepted(principal) => return Ok(principal),
                Identification::Rejected(reason) => return Err(reason),
                Identification::Pending(asked, future) => {
                    let verdict = timeout_at(deadline, future).await;
                    let verdict = verdict.unwrap_or_else(|_| Verdict::Rejected(no_decision_in_time()));
                    identification = gate.authenticators.resume(asked, verdict, &credentials, now);
                }
            }
        }
    }

    fn client(&self, principal: Principal, shown: &Shown) -> Client {
        Client {
            principal,
            client_id: "".into(),
            username: shown.username.clone(),
            peer: self.connection.peer.address,
            route: Arc::clone(&self.endpoint.gate.route),
            protocol: Protocol::Http,
            is_encrypted: self.connection.peer.is_encrypted,
        }
    }

    fn limit(&self, client: &Client) -> Result<(), Problem> {
        let Some(per_second) = self.endpoint.gate.limits.messages_per_second else { return Ok(()) };
        self.endpoint.rates.take(client, per_second, Now::read().instant).map_err(Problem::TooMany)
    }

    /// Asks all policies whether the request may pass.
    async fn decide(&self, head: &Head, client: &Client, payload: &[u8]) -> Result<(), Problem> {
        let gate = &self.endpoint.gate;
        let mut deadline = None;
        let query = head.query(client, payload, &self.endpoint.options)?;
        let mut outcome = gate.policies.evaluate(&query, Now::read());
        loop {
            match outcome {
                Outcome::Allowed(grant, objection) => {
                    if let Some(objection) = objection {
                        let (action, resource) = (query.action, &*query.resource.to_string());
                        let objection = &*objection;
                        gate.tell(
                            &SessionEvent::WouldBeDenied { client, action, resource, objection },
                            Now::read(),
                        );
                    }
                    self.tell(head, client, Fate::Passed(grant.by.as_deref()));
                    return Ok(());
                }
                Outcome::Denied(reason) => return Err(self.denied(head, &query, &reason)),
                Outcome::Pending(suspended, future) => {
                    let deadline =
                        *deadline.get_or_insert_with(|| Instant::now() + gate.limits.decision_timeout);
                    let decision = timeout_at(deadline, future)
                        .await
                        .unwrap_or_else(|_| Decision::Deny(no_decision_in_time()));
                    outcome = gate.policies.resume(suspended, decision, &query, Now::read());
                }
            }
        }
    }

    /// Waits until the client may no longer have what it was allowed in this epoch: its credentials expire, or its
    /// rights change and the answer is no. Returns which.
    async fn revoked(mut self, head: Arc<Head>, client: Arc<Client>) -> Problem {
        let left = client.principal.expires.map(|expires| expires.saturating_sub(Now::read().unix));
        let until = left.and_then(|left| Instant::now().checked_add(left));
        let mut signal = self.connection.signal.clone();
        loop {
            let is_concerned = self.catch_up(&head, &client, &signal.borrow_and_update());
            let is_concerned = match is_concerned {
                Ok(is_concerned) => is_concerned,
                Err(problem) => return problem,
            };
            // boxed: it is seldom asked
            if is_concerned && let Err(problem) = Box::pin(self.decide(&head, &client, b"")).await {
                return problem;
            }
            let changed = match until {
                Some(until) => timeout_at(until, signal.changed()).await,
                None => Ok(signal.changed().await),
            };
            match changed {
                Ok(Ok(())) => {}
                // nothing changes any more: what is on its way may end
                Ok(Err(_)) => pending().await,
                Err(_) => return Problem::BadCredentials,
            }
        }
    }

    /// Takes one message whole: what it carries is asked about too, and handed on only when it was allowed.
    async fn publish(
        &mut self,
        head: &Arc<Head>,
        client: Arc<Client>,
        forwarded: Parts,
        upload: Upload,
    ) -> Result<Response<Content>, Problem> {
        let payload = self.collect(upload).await?;
        let client = &self.identify_again(head, client).await?;
        self.decide(head, client, &payload).await?;
        if self.endpoint.upstream.is_none() {
            self.mirror(head, client, &payload, &forwarded.headers).await?;
            return Ok(accepted());
        }
        let headers = match self.endpoint.gate.mirror {
            Some(_) => forwarded.headers.clone(),
            None => HeaderMap::new(),
        };
        let progress = Progress { since: Instant::now(), awaits_client: false, error: None };
        let request = Box::new(Request::from_parts(forwarded, Content::whole(payload.clone())));
        let response = self.forward(head, client, request, &Mutex::new(progress)).await?;
        if response.status().is_success() {
            self.mirror(head, client, &payload, &headers).await?;
        }
        Ok(response)
    }

    /// The whole of a message that comes in time, when its turn has come.
    async fn collect(&self, upload: Upload) -> Result<Bytes, Problem> {
        let within = self.endpoint.gate.limits.stall_timeout.saturating_mul(MOST_STALLS);
        let _turn = self.connection.reading.lock().await;
        let whole = timeout(within, upload.whole()).await.map_err(|_| Problem::Slow)?;
        let payload = whole.map_err(problem_of)?;
        if payload.is_empty() { Err(Problem::BadMessage) } else { Ok(payload) }
    }

    /// Goes by what holds now, after a wait; asks again who it is where that may have changed.
    async fn identify_again(&mut self, head: &Head, client: Arc<Client>) -> Result<Arc<Client>, Problem> {
        let connection = Arc::clone(&self.connection);
        let is_concerned = self.catch_up(head, &client, &connection.signal.borrow())?;
        let has_expired = client.principal.expires.is_some_and(|end| end <= Now::read().unix);
        if is_concerned || has_expired { self.identify(head).await } else { Ok(client) }
    }

    /// Goes by what holds now; says whether the rights of the client may have changed.
    fn catch_up(&mut self, head: &Head, client: &Client, signal: &Signal<Routes>) -> Result<bool, Problem> {
        if signal.epoch() == self.epoch {
            return Ok(false);
        }
        let is_concerned = signal.concerns(Some(client), self.epoch);
        self.epoch = signal.epoch();
        let routes = signal.endpoint();
        let (before, now) = (&self.endpoint.options, &routes.endpoint(self.route).options);
        // the head was read as what it no longer is
        let is_same = head.target.route(routes) == Ok(self.route) && before.reads_alike(now);
        if !is_same {
            return Err(Problem::Unavailable);
        }
        self.endpoint = Arc::clone(routes.endpoint(self.route));
        Ok(is_concerned)
    }

    /// Lets the upstream answer.
    async fn forward(
        &self,
        head: &Arc<Head>,
        client: &Arc<Client>,
        request: Box<Request<Content>>,
        progress: &Mutex<Progress>,
    ) -> Result<Response<Content>, Problem> {
        let Some(upstream) = &self.endpoint.upstream else { return Err(Problem::NotFound) };
        let limits = &self.endpoint.gate.limits;
        let share = self.connection.share(self.route, &self.endpoint);
        lock(progress).since = Instant::now();
        // what is whole was asked about with all that it carries
        let is_whole = request.body().is_whole();
        let revoked = || -> BoxFuture<'static, Problem> {
            match is_whole {
                true => Box::pin(pending()),
                false => Box::pin(self.clone().revoked(Arc::clone(head), Arc::clone(client))),
            }
        };
        let answered = tokio::select! {
            biased;
            answered = upstream.send(request, share, limits.stall_timeout, revoked) => answered,
            () = silent(progress, limits.upstream_timeout) => Err(UpstreamError::TimedOut),
        };
        let error = match answered {
            Ok(response) => return Ok(self.passed(head, response)),
            Err(error) => error,
        };
        // who sends too much, or nothing, breaks the upstream's connection too
        if let Some(error) = lock(progress).error {
            return Err(problem_of(error));
        }
        let (action, resource, why) = (Action::Request, &*head.to_string(), &error);
        self.endpoint.gate.tell(&SessionEvent::Failed { client, action, resource, why }, Now::read());
        Err(error.problem())
    }

    /// What the upstream answers, as the client gets it.
    fn passed(&self, head: &Head, response: Response<Source>) -> Response<Content> {
        let Endpoint { gate, options, .. } = &*self.endpoint;
        let (mut parts, source) = response.into_parts();
        towards_client(&mut parts.headers);
        head.redirect(&mut parts.headers, options);
        let mut response = Response::new(Content::download(source, gate.limits.stall_timeout));
        *response.status_mut() = parts.status;
        *response.headers_mut() = parts.headers;
        response
    }

    /// Gives the mirror its copy; one that is being stored is waited for.
    async fn mirror(
        &self,
        head: &Head,
        client: &Client,
        payload: &[u8],
        headers: &HeaderMap,
    ) -> Result<(), Problem> {
        let Gate { mirror, observer, limits, .. } = &self.endpoint.gate;
        let (Some(mirror), Ok(topic)) = (mirror, head.topic(&self.endpoint.options)) else { return Ok(()) };
        let message = Message {
            client,
            action: Action::Publish,
            now: Now::read(),
            topic: topic.as_str(),
            payload,
            qos: 0,
            retain: false,
            is_acknowledged: true,
            notes: notes(headers),
        };
        let Copied::Storing(stored) = mirror.message(&message) else { return Ok(()) };
        let late = || Reason::with_detail(Cause::Unavailable, "its copy was not stored in time");
        let stored = timeout_at(Instant::now() + limits.store_timeout, stored).await;
        stored.unwrap_or_else(|_| Err(late())).map_err(|reason| {
            observer.trouble(&Trouble::NotStored { client, reason: &reason });
            reason.cause.into()
        })
    }

    fn denied(&self, head: &Head, query: &Query<'_>, reason: &Reason) -> Problem {
        self.tell(head, query.client, Fate::Denied(reason));
        self.tell_denied(Some(query.client), query.action, &query.resource.to_string(), reason);
        reason.cause.into()
    }

    fn tell_denied(&self, client: Option<&Client>, action: Action, resource: &str, reason: &Reason) {
        let peer = self.connection.peer.address;
        self.endpoint
            .gate
            .tell(&SessionEvent::Denied { client, peer, action, resource, reason }, Now::read());
    }

    fn tell(&self, head: &Head, client: &Client, fate: Fate<'_>) {
        let observer = &self.endpoint.gate.observer;
        if observer.wants_packets() {
            let peer = self.connection.peer.address;
            observer.packet(&PacketSeen {
                client: Some(client),
                peer,
                from: Side::Client,
                packet: head,
                frame: None,
                fate,
            });
        }
    }
}

/// Waits until the upstream had something to do for so long without an answer.
async fn silent(progress: &Mutex<Progress>, timeout: std::time::Duration) {
    loop {
        let Progress { since, awaits_client, .. } = *lock(progress);
        let until = if awaits_client { Instant::now() } else { since } + timeout;
        alarm_at(until).await;
        let Progress { since, awaits_client, .. } = *lock(progress);
        if !awaits_client && since + timeout <= Instant::now() {
            return;
        }
    }
}

/// What the head says about the message.
fn notes(headers: &HeaderMap) -> Notes<'_> {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    Notes {
        content_type: text("content-type"),
        content_encoding: text("content-encoding"),
        traceparent: text("traceparent"),
        tracestate: text("tracestate"),
    }
}

fn lock(progress: &Mutex<Progress>) -> std::sync::MutexGuard<'_, Progress> {
    progress.lock().unwrap_or_else(PoisonError::into_inner)
}

fn problem_of(error: BodyError) -> Problem {
    match error {
        BodyError::Broken => Problem::BadRequest,
        BodyError::Revoked(problem) => problem,
        BodyError::Stalled => Problem::Slow,
        BodyError::TooLarge => Problem::TooLarge,
    }
}

/// The answer to a request that goes no further, with word of it for operators.
pub(super) fn refuse(problem: Problem, route: &str, connection: &Connection) -> Response<Content> {
    let (peer, status) = (connection.peer.address, problem.status().as_u16());
    debug!(route, %peer, status, reason = problem.detail(), "not answered");
    problem.response().map(Content::whole)
}

fn accepted() -> Response<Content> {
    let mut response = Response::new(Content::empty());
    *response.status_mut() = StatusCode::ACCEPTED;
    response
}

/// So many times what one part of a message may take is for all of it.
const MOST_STALLS: u32 = 10;
