//! CONNECT, transformed once it is known who the client is.

use std::borrow::Cow;
use std::sync::Arc;

use mgate_policies::{
    Action, Cause, EditableLogin, EditableMessage, Outdated, Part, Reason, Refusal, TopicPrefix, Transforms,
};

use super::super::{Context, Session};
use super::{MORE, another_part, made_by, said, too_long};
use crate::mqtt::codec::{NewConnect, decode_connect, rewrite_connect};
use crate::mqtt::packet::{Connect, Will};

impl Session {
    /// CONNECT as it goes on, if anything of it changes; otherwise what was refused, and why. From here on the
    /// client has the identifier that the upstream sees.
    pub(in super::super) fn transform_connect(
        &mut self,
        frame: &[u8],
        cx: &Context<'_>,
    ) -> Result<Option<Vec<u8>>, (Action, Reason)> {
        if self.transforms.is_empty() {
            return Ok(None);
        }
        let Ok(connect) = decode_connect(frame) else { return Err(no_connect(&self.transforms)) };
        let login = self.transformed_login(&connect, cx).map_err(|reason| (Action::Connect, reason))?;
        if let Some(client) = &mut self.client {
            client.client_id = login.client_id.as_ref().into();
        }
        let will = match &connect.will {
            Some(will) => {
                let will = self.transformed_will(will, &self.transforms, cx);
                Some(will.map_err(|reason| (Action::Will, reason))?)
            }
            None => None,
        };
        let new = NewConnect {
            client_id: &login.client_id,
            username: login.username.as_deref(),
            password: login.password.as_deref(),
            will: will.as_ref().map(said),
        };
        match is_same_connect(&connect, &new) {
            true => Ok(None),
            false => rewritten_connect(frame, &connect, &new, &self.transforms, cx).map(Some),
        }
    }

    /// CONNECT with its will behind a prefix, if it has one; otherwise why the will is refused.
    pub(in super::super) fn mount_will(
        &self,
        frame: &[u8],
        prefix: &TopicPrefix,
        cx: &Context<'_>,
    ) -> Result<Option<Vec<u8>>, Reason> {
        let row = Transforms::new(vec![Arc::new(prefix.clone())]);
        let Ok(connect) = decode_connect(frame) else { return Err(no_connect(&row).1) };
        let Some(will) = &connect.will else { return Ok(None) };
        let will = self.transformed_will(will, &row, cx)?;
        let Connect { client_id, username, password, .. } = connect;
        let new = NewConnect { client_id, username, password, will: Some(said(&will)) };
        let rewritten = rewritten_connect(frame, &connect, &new, &row, cx);
        rewritten.map(Some).map_err(|(_, reason)| reason)
    }

    fn transformed_login(
        &self,
        connect: &Connect<'_>,
        cx: &Context<'_>,
    ) -> Result<EditableLogin<'static>, Reason> {
        let login = EditableLogin {
            client_id: Cow::Borrowed(connect.client_id),
            username: connect.username.map(Cow::Borrowed),
            password: connect.password.map(Cow::Borrowed),
        };
        match self.transformed(Part::Login(login), cx).map_err(reason_of)? {
            Part::Login(login) => Ok(EditableLogin {
                client_id: Cow::Owned(login.client_id.into_owned()),
                username: login.username.map(|username| Cow::Owned(username.into_owned())),
                password: login.password.map(|password| Cow::Owned(password.into_owned())),
            }),
            _ => Err(reason_of(another_part(&self.transforms))),
        }
    }

    fn transformed_will<'a>(
        &'a self,
        will: &Will<'a>,
        row: &Transforms,
        cx: &Context<'_>,
    ) -> Result<EditableMessage<'a>, Reason> {
        let message = EditableMessage {
            action: Action::Will,
            topic: Cow::Borrowed(will.topic.as_str()),
            response_topic: will.response_topic().map(Cow::Borrowed),
            payload: Cow::Borrowed(will.payload),
            qos: will.qos,
            retain: will.retain,
            outdated: Outdated::default(),
        };
        match self.transformed_by(row, Part::Message(message), cx).map_err(reason_of)? {
            // a will's payload has a length of two bytes: MQTT 5.0 §3.1.3.4
            Part::Message(message) if message.payload.len() > usize::from(u16::MAX) => Err(too_long(row)),
            Part::Message(message) => Ok(message),
            _ => Err(reason_of(another_part(row))),
        }
    }
}

/// CONNECT with other fields, made by `row`, no longer than the route takes.
fn rewritten_connect(
    frame: &[u8],
    connect: &Connect<'_>,
    new: &NewConnect<'_>,
    row: &Transforms,
    cx: &Context<'_>,
) -> Result<Vec<u8>, (Action, Reason)> {
    let mut rewritten = Vec::with_capacity(frame.len() + MORE);
    let is_written = rewrite_connect(&mut rewritten, frame, connect, new).is_ok();
    if !is_written || !decode_connect(&rewritten).is_ok_and(|connect| !connect.lacks_client_id()) {
        return Err(no_connect(row));
    }
    if rewritten.len() > cx.endpoint.gate.limits.packet_bytes {
        return Err((Action::Connect, too_long(row)));
    }
    Ok(rewritten)
}

fn no_connect(transforms: &Transforms) -> (Action, Reason) {
    (Action::Connect, made_by(transforms, Cause::Unavailable, "a CONNECT that is none"))
}

fn is_same_connect(connect: &Connect<'_>, new: &NewConnect<'_>) -> bool {
    let is_same_will = match (&connect.will, &new.will) {
        (Some(will), Some(new)) => {
            (will.topic.as_str(), will.response_topic(), will.payload)
                == (new.topic, new.response_topic, new.payload)
        }
        _ => true,
    };
    is_same_will
        && (connect.client_id, connect.username, connect.password)
            == (new.client_id, new.username, new.password)
}

fn reason_of(refusal: Refusal) -> Reason {
    match refusal {
        Refusal::Denied(reason) | Refusal::Dropped(reason) => reason,
    }
}
