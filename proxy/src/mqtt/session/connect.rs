//! From CONNECT to CONNACK: who is it, may it, may its will, and does the upstream take it.

use std::sync::Arc;
use std::time::Duration;

use mgate_policies::{
    Action, Client, Decision, Grant, Objection, Outcome, Principal, Protocol, Query, Reason, Resource,
    Suspended,
};

use super::{Close, CloseReason, Context, Output, Question, Session, State, Violation, Waiting, codec};
use crate::gate::{Credentials, Fate, Identification, SessionEvent, Side, Verdict};
use crate::mqtt::codec::DecodeError;
use crate::mqtt::packet::{ConnAck, Connect, Packet, Version, Will};
use crate::transport::Upgrade;

/// What is kept of CONNECT until the upstream has it.
pub(super) struct Opening {
    frame: Vec<u8>,
}

/// An earlier decision and where the chain stopped for it.
pub(super) type Resumed = Option<(Suspended, Decision)>;

impl Session {
    /// [MQTT-3.1.4-1]
    pub(super) fn connect(&mut self, frame: &[u8], cx: &mut Context<'_>) -> Result<(), Close> {
        let connect = self.decode_connect(frame)?;
        self.state = State::Authorizing;
        self.deadline = cx.now.instant + cx.endpoint.gate.limits.decision_timeout * 4;
        self.take_connect(&connect);
        if !cx.endpoint.options.versions.allow(connect.version) {
            return Err(Violation::Version(connect.version).from(Side::Client));
        }
        if connect.lacks_client_id() {
            return Err(Violation::ClientIdRequired.from(Side::Client));
        }
        self.identify(frame.to_vec(), cx)
    }

    /// Asks who the client is.
    pub(super) fn identify(&mut self, frame: Vec<u8>, cx: &mut Context<'_>) -> Result<(), Close> {
        let connect = self.decode_connect(&frame)?;
        let credentials = self.credentials(&connect);
        let identification = cx.endpoint.gate.authenticators.identify(&credentials, cx.now);
        self.identification(identification, frame, cx)
    }

    /// Goes on with the verdict that took time.
    pub(super) fn identified(&mut self, verdict: Verdict, cx: &mut Context<'_>) -> Result<(), Close> {
        // a verdict that nobody waits for any more must not end another wait
        let is_meant = |waiting: &mut Box<Waiting>| matches!(waiting.question, Question::Identify(_));
        let Some(waiting) = self.from_client.waiting.take_if(is_meant) else { return Ok(()) };
        let Question::Identify(asked) = waiting.question else { return Ok(()) };
        let connect = self.decode_connect(&waiting.frame)?;
        let credentials = self.credentials(&connect);
        let authenticators = &cx.endpoint.gate.authenticators;
        let identification = authenticators.resume(asked, verdict, &credentials, cx.now);
        self.identification(identification, waiting.frame, cx)
    }

    /// Asks whether the client may open a session.
    pub(super) fn ask_connect(
        &mut self,
        frame: Vec<u8>,
        resumed: Resumed,
        cx: &mut Context<'_>,
    ) -> Result<(), Close> {
        let connect = self.decode_connect(&frame)?;
        let Some(client) = self.client.as_deref() else { return Ok(()) };
        let (action, resource) = (Action::Connect, Resource::Session);
        let query = Query { client, action, resource, payload: b"", qos: 0, retain: false };
        if let (Some(will), None) = (&connect.will, &resumed) {
            foresee([query, will_query(client, will)].into_iter(), cx);
        }
        match ask(&query, resumed, cx) {
            Outcome::Allowed(grant, _) => self.begin(frame, &grant, cx),
            Outcome::Denied(reason) => self.deny_connect(Action::Connect, &frame, reason, cx),
            Outcome::Pending(suspended, future) => {
                self.wait(Side::Client, frame, Question::Connect(suspended), cx);
                self.outputs.push_back(Output::Decide(Side::Client, future));
                Ok(())
            }
        }
    }

    /// The client may open a session, under the terms of the grant.
    fn begin(&mut self, frame: Vec<u8>, grant: &Grant, cx: &mut Context<'_>) -> Result<(), Close> {
        self.end_with(grant, cx);
        let rewritten = match self.begin_behind(grant, &frame, cx) {
            Ok(rewritten) => rewritten,
            Err(reason) => return self.deny_connect(Action::Will, &frame, reason, cx),
        };
        self.take_terms(grant, cx)?;
        self.ask_will(rewritten.unwrap_or(frame), None, cx)
    }

    /// Ends the session no later than the grant that it was opened with.
    pub(super) fn end_with(&mut self, grant: &Grant, cx: &Context<'_>) {
        let ends = grant.ends_after.and_then(|after| cx.now.instant.checked_add(after));
        self.expires = self.expires.into_iter().chain(ends).min();
    }

    /// Asks whether the client may leave its will; it is published without another CONNECT.
    pub(super) fn ask_will(
        &mut self,
        frame: Vec<u8>,
        resumed: Resumed,
        cx: &mut Context<'_>,
    ) -> Result<(), Close> {
        let connect = self.decode_connect(&frame)?;
        let (Some(will), Some(client)) = (&connect.will, self.client.as_deref()) else {
            return self.dial(frame, cx);
        };
        match ask(&will_query(client, will), resumed, cx) {
            Outcome::Allowed(..) => {
                self.keep_will(will);
                self.dial(frame, cx)
            }
            Outcome::Denied(reason) => self.deny_connect(Action::Will, &frame, reason, cx),
            Outcome::Pending(suspended, future) => {
                self.wait(Side::Client, frame, Question::Will(suspended), cx);
                self.outputs.push_back(Output::Decide(Side::Client, future));
                Ok(())
            }
        }
    }

    /// The upstream connection is there: CONNECT goes out, as it came.
    pub(super) fn upstream_open(&mut self, cx: &mut Context<'_>) -> Result<(), Close> {
        if let Some(opening) = self.opening.take() {
            cx.out.to_upstream.extend_from_slice(&opening.frame);
            self.state = State::AwaitingConnAck;
        }
        Ok(())
    }

    /// The upstream's answer to CONNECT.
    pub(super) fn connack(
        &mut self,
        connack: &ConnAck<'_>,
        frame: &[u8],
        cx: &mut Context<'_>,
    ) -> Result<(), Close> {
        if self.state != State::AwaitingConnAck {
            return Err(Violation::Direction(crate::mqtt::packet::PacketType::ConnAck).from(Side::Upstream));
        }
        cx.out.to_client.extend_from_slice(frame);
        self.report((Side::Upstream, frame), &Packet::ConnAck(*connack), Fate::Passed(None), cx);
        self.state = State::Open;
        if connack.code != 0 {
            return Err(CloseReason::Refused(connack.code).into());
        }
        self.take_connack(connack, cx)?;
        if let Some(client) = self.client.as_deref() {
            cx.tell(&SessionEvent::Opened(client));
        }
        Ok(())
    }

    /// A protocol level that is unknown is answered, other malformations before CONNECT are not.
    /// [MQTT-3.1.2-2]
    fn decode_connect<'a>(&mut self, frame: &'a [u8]) -> Result<Connect<'a>, Close> {
        codec::decode_connect(frame).map_err(|error| {
            if let DecodeError::UnsupportedProtocolLevel(level) = error {
                self.state = State::Authorizing;
                // bridges set the highest bit of level 4, and expect an answer in its version
                self.version = if (5..0x80).contains(&level) { Version::V5 } else { Version::V311 };
            }
            CloseReason::Malformed(Side::Client, error).into()
        })
    }

    /// Keeps what later packets are judged by.
    fn take_connect(&mut self, connect: &Connect<'_>) {
        self.version = connect.version;
        self.wants_reason_strings = connect.request_problem_information;
        self.has_enhanced_authentication = connect.authentication_method.is_some();
        self.keep_alive = keep_alive(connect.keep_alive_secs);
        let deliveries = &mut self.from_upstream.flow;
        deliveries.receive_maximum = connect.receive_maximum.unwrap_or(u16::MAX);
        deliveries.maximum_packet_size = connect.maximum_packet_size.unwrap_or(u32::MAX);
        deliveries.aliases.set_maximum(connect.topic_alias_maximum.unwrap_or(0));
    }

    fn take_connack(&mut self, connack: &ConnAck<'_>, cx: &Context<'_>) -> Result<(), Close> {
        let messages = &mut self.from_client.flow;
        messages.receive_maximum = connack.receive_maximum.unwrap_or(u16::MAX);
        messages.maximum_packet_size = connack.maximum_packet_size.unwrap_or(u32::MAX);
        messages.aliases.set_maximum(connack.topic_alias_maximum.unwrap_or(0));
        if let Some(secs) = connack.server_keep_alive_secs {
            self.keep_alive = keep_alive(secs);
        }
        self.keep_alive = self.keep_alive.or(cx.endpoint.gate.limits.idle_timeout);
        self.last_from_client = cx.now.instant;
        if let (Some(id), Some(client)) = (connack.assigned_client_id, &mut self.client) {
            client.client_id = id.into();
            let claimed = cx.endpoint.client_ids.claim(client);
            self.claim = Some(claimed.map_err(|reason| CloseReason::Denied(Action::Connect, reason))?);
        }
        Ok(())
    }

    /// CONNECT comes first: the user name and password of the WebSocket count where it has neither.
    fn credentials<'a>(&'a self, connect: &Connect<'a>) -> Credentials<'a> {
        let upgrade = self.peer.upgrade.as_deref();
        let basic = upgrade.and_then(Upgrade::basic);
        let (username, password) = match (connect.username, connect.password, basic) {
            (None, None, Some((username, password))) => (Some(username), Some(password)),
            (username, password, _) => (username, password),
        };
        Credentials {
            client_id: connect.client_id,
            username,
            password,
            upgrade,
            certificate: self.peer.certificate.as_deref(),
            psk_identity: None,
            peer: self.peer.address,
            protocol: Protocol::Mqtt,
        }
    }

    fn identification(
        &mut self,
        identification: Identification,
        frame: Vec<u8>,
        cx: &mut Context<'_>,
    ) -> Result<(), Close> {
        match identification {
            Identification::Accepted(principal) => {
                self.become_client(principal, &frame, cx)?;
                match self.transform_connect(&frame, cx) {
                    Ok(rewritten) => self.ask_connect(rewritten.unwrap_or(frame), None, cx),
                    Err((action, reason)) => self.deny_connect(action, &frame, reason, cx),
                }
            }
            Identification::Rejected(reason) => self.deny_connect(Action::Connect, &frame, reason, cx),
            Identification::Pending(asked, future) => {
                self.wait(Side::Client, frame, Question::Identify(asked), cx);
                self.outputs.push_back(Output::Identify(future));
                Ok(())
            }
        }
    }

    /// From here on the connection has a name.
    fn become_client(&mut self, principal: Principal, frame: &[u8], cx: &Context<'_>) -> Result<(), Close> {
        let connect = self.decode_connect(frame)?;
        if let Some(expires) = principal.expires {
            let left = expires.checked_sub(cx.now.unix).filter(|left| !left.is_zero());
            self.expires = cx.now.instant.checked_add(left.ok_or(CloseReason::Expired)?);
        }
        self.client = Some(Box::new(Client {
            principal,
            client_id: connect.client_id.into(),
            username: self.credentials(&connect).username.map(Into::into),
            peer: self.peer.address,
            route: Arc::clone(&cx.endpoint.gate.route),
            protocol: Protocol::Mqtt,
            is_encrypted: self.peer.is_encrypted,
        }));
        (self.peer.certificate, self.peer.upgrade) = (None, None);
        Ok(())
    }

    fn deny_connect(
        &mut self,
        action: Action,
        frame: &[u8],
        reason: Reason,
        cx: &mut Context<'_>,
    ) -> Result<(), Close> {
        let connect = self.decode_connect(frame)?;
        let resource = connect.will.as_ref().filter(|_| action == Action::Will);
        let resource = resource.map_or(connect.client_id, |will| will.topic.as_str());
        self.report_denial(action, resource, &reason, cx);
        self.report((Side::Client, frame), &Packet::Connect(connect.clone()), Fate::Denied(&reason), cx);
        Err(CloseReason::Denied(action, reason).into())
    }

    /// Everybody allows it: the upstream is dialled, not earlier.
    fn dial(&mut self, frame: Vec<u8>, cx: &mut Context<'_>) -> Result<(), Close> {
        if let Some(client) = self.client.as_deref().filter(|client| !client.client_id.is_empty()) {
            match cx.endpoint.client_ids.claim(client) {
                Ok(claim) => self.claim = Some(claim),
                Err(reason) => return self.deny_connect(Action::Connect, &frame, reason, cx),
            }
        }
        if cx.endpoint.gate.wants_packets() {
            let connect = self.decode_connect(&frame)?;
            self.report((Side::Client, &frame), &Packet::Connect(connect), Fate::Passed(None), cx);
        }
        self.opening = Some(Box::new(Opening { frame }));
        self.state = State::Dialing;
        self.deadline = cx.now.instant + cx.endpoint.gate.limits.upstream_timeout;
        self.outputs.push_back(Output::Dial);
        Ok(())
    }
}

/// Asks the route's policies, from the start or from where they stopped.
pub(super) fn ask(query: &Query<'_>, resumed: Resumed, cx: &Context<'_>) -> Outcome {
    let policies = &cx.endpoint.gate.policies;
    let outcome = match resumed {
        None => policies.evaluate(query, cx.now),
        Some((suspended, decision)) => policies.resume(suspended, decision, query, cx.now),
    };
    if let Outcome::Allowed(_, Some(objection)) = &outcome {
        report_objection(query, objection, cx);
    }
    outcome
}

/// Tells the route's policies what they will be asked, if it is more than one thing.
pub(super) fn foresee<'a>(queries: impl Iterator<Item = Query<'a>>, cx: &Context<'_>) {
    let queries: Vec<_> = queries.collect();
    if queries.len() > 1 {
        cx.endpoint.gate.policies.foresee(&queries, cx.now);
    }
}

fn will_query<'a>(client: &'a Client, will: &Will<'a>) -> Query<'a> {
    let Will { topic, payload, qos, retain, .. } = *will;
    Query { client, action: Action::Will, resource: Resource::Topic(topic), payload, qos, retain }
}

/// Tells the observer what would be denied if all policies were enforced.
fn report_objection(query: &Query<'_>, objection: &Objection, cx: &Context<'_>) {
    let Query { client, action, resource, .. } = *query;
    let resource = match resource {
        Resource::Session => client.client_id.to_string(),
        resource => resource.to_string(),
    };
    let event = SessionEvent::WouldBeDenied { client, action, resource: &resource, objection };
    cx.tell(&event);
}

/// One and a half times what the client promised. [MQTT-3.1.2-22]
fn keep_alive(secs: u16) -> Option<Duration> {
    (secs > 0).then(|| Duration::from_millis(u64::from(secs) * 1500))
}
