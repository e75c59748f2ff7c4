use std::sync::Arc;

use http::header::SEC_WEBSOCKET_PROTOCOL;
use http::request::Parts;
use http::{HeaderValue, Response, Version};
use mgate_policies::BoxFuture;

use super::super::body::Content;
use super::super::connection::Connection;
use super::super::websocket::{HandOver, Handed, Next};
use super::refuse;
use crate::http::Guest;
use crate::http::problem::Problem;
use crate::http::session::Target;
use crate::http::websocket::check_origin;
use crate::listener::Permit;
use crate::transport::{Accepted, Stream, Tunnel, Upgrade, WebSocket, sub_protocol};

/// A WebSocket that a guest takes when it is handed over.
pub(in crate::http::relay) struct Arriving {
    pub(in crate::http::relay) connection: Arc<Connection>,
    guest: Arc<Guest>,
    upgrade: Option<Box<Upgrade>>,
    permit: Option<Permit>,
}

/// Answers a request for a WebSocket that is for a guest; `None` where it is for none.
pub(super) fn answer(connection: &Arc<Connection>, parts: &mut Parts) -> Option<Response<Content>> {
    let routes = connection.routes();
    let guest = routes.guest(parts.uri.path())?;
    let protocol = sub_protocol(&parts.headers)?;
    let target = match Target::read(parts, &connection.peer, routes.leader().options.headers) {
        Ok(target) if target.websocket.is_none() => return None,
        read => read,
    };
    let answered = target.and_then(|target| take(connection, guest, parts, &target, protocol));
    Some(answered.unwrap_or_else(|problem| refuse(problem, &guest.route, connection)))
}

/// Hands the client's side over to the guest, behind the answer that says so.
fn take(
    connection: &Arc<Connection>,
    guest: &Arc<Guest>,
    parts: &mut Parts,
    target: &Target,
    protocol: &'static str,
) -> Result<Response<Content>, Problem> {
    check_origin(&parts.headers, &guest.websocket.origins, &target.host.text)?;
    let upgrade = Upgrade::of(&parts.uri, &parts.headers).map_err(|_| Problem::BadAuthorization)?;
    let handed_over = HandOver::of(parts);
    let (Some(asked), Some(handed_over)) = (&target.websocket, handed_over) else {
        return Err(Problem::BadRequest);
    };
    // a connection of HTTP/1.1 is counted already, and becomes the WebSocket
    let permit = match parts.version < Version::HTTP_2 {
        true => None,
        false => Some(guest.admission.admit(connection.peer.address.ip()).map_err(|_| Problem::TooMany(1))?),
    };
    let mut response = Response::new(Content::empty());
    let status = asked.accept(response.headers_mut());
    response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    *response.status_mut() = status;
    let upgrade = (!upgrade.is_empty()).then(|| Box::new(upgrade));
    let arriving = Arriving { connection: Arc::clone(connection), guest: Arc::clone(guest), upgrade, permit };
    connection.go_over.hand_over(handed_over, Next::Guest(arriving));
    Ok(response)
}

impl Arriving {
    /// What serves the client from now on, and what is to be kept until that has ended.
    pub(in crate::http::relay) async fn begin(
        self,
        client: Handed,
    ) -> (BoxFuture<'static, ()>, Option<Permit>) {
        let Self { connection, guest, upgrade, permit } = self;
        let (stream, rest) = stream_of(client, &connection);
        let socket = WebSocket::granted(stream, rest, &guest.websocket).await;
        let accepted = Accepted {
            stream: Stream::WebSocket(Box::new(socket)),
            peer: connection.peer.address,
            certificate: connection.peer.certificate.clone(),
            upgrade,
            is_encrypted: connection.peer.is_encrypted,
        };
        ((guest.serve)(accepted), permit)
    }
}

/// The connection of HTTP/1.1 as it was accepted, with what came behind the request; or a stream of HTTP/2.
fn stream_of(client: Handed, connection: &Arc<Connection>) -> (Stream, Vec<u8>) {
    match client {
        Handed::Connection(io, rest) => (io.into_stream(), rest.into()),
        Handed::Upgraded(io) => {
            let connection = Arc::clone(connection);
            (Stream::Tunnel(Box::new(Tunnel::new(io, move || connection.give_up()))), Vec::new())
        }
    }
}
