use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::uri::PathAndQuery;
use mgate_policies::Now;
use mgate_proxy::gate::{Credentials, Verdict};

use super::{AskError, Dialect, GrpcService, Question, accepted, is_refusal, login, rejected};
use crate::neighbour::grpc::GrpcError;
use crate::neighbour::messages::supermq::{AuthnRes, SecretReq, TokenReq};

/// The clients of SuperMQ, over gRPC: the user name is a client's id, the password its secret.
pub struct Supermq {
    service: GrpcService,
    generation: Generation,
}

/// What the method took over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// Id and secret: 0.16.
    Secret,
    /// Both in one token: 0.17 and later.
    Token,
}

impl Supermq {
    /// A service of this generation.
    pub fn new(service: GrpcService, generation: Generation) -> Self {
        Self { service, generation }
    }
}

impl Dialect for Supermq {
    fn ask(&self, credentials: &Credentials<'_>, _: Now) -> Result<Question, Verdict> {
        let (id, secret) = login(credentials)?;
        // in a token, a colon would move the border between the two
        if id.contains(':') {
            return Err(rejected("a client's id has no colon"));
        }
        let service = self.service.clone();
        let method = PathAndQuery::from_static("/clients.v1.ClientsService/Authenticate");
        Ok(match self.generation {
            Generation::Secret => {
                let question = SecretReq { client_id: id.into(), client_secret: secret.into() };
                Question::new(
                    async move { said(service.grpc.unary(method, &question, service.timeout).await) },
                )
            }
            Generation::Token => {
                let question =
                    TokenReq { token: format!("Basic{}", STANDARD.encode(format!("{id}:{secret}"))) };
                Question::new(
                    async move { said(service.grpc.unary(method, &question, service.timeout).await) },
                )
            }
        })
    }
}

fn said(answer: Result<AuthnRes, GrpcError>) -> Result<Verdict, AskError> {
    match answer {
        Ok(AuthnRes { authenticated: true, id }) if id.is_empty() => Err(AskError::Meaning("has no `id`")),
        Ok(AuthnRes { authenticated: true, id }) => Ok(accepted(&id)),
        Ok(_) => Ok(rejected("the service says no")),
        Err(GrpcError::Status(code, _)) if is_refusal(code) => Ok(rejected("no client has this secret")),
        Err(error) => Err(AskError::Grpc(error)),
    }
}
