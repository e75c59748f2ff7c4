use std::sync::Arc;
use std::time::Duration;
use std::{error, fmt};

use bytes::Bytes;
use http::{Request, StatusCode};
use mgate_policies::Now;

use super::dialect::{AnswerError, Answered, Batch, Dialect};
use super::transport::{Scale, Transport};
use crate::neighbour::grpc::{Code, GrpcError};
use crate::neighbour::guard::{Failure, Guard, Place, Refusal};
use crate::neighbour::http::HttpError;
use crate::neighbour::nats::NatsError;

/// Puts questions to one service, within bounds.
pub(super) struct ServiceClient {
    pub(super) name: Arc<str>,
    pub(super) dialect: Box<dyn Dialect>,
    pub(super) transport: Transport,
    pub(super) timeout: Duration,
    pub(super) guard: Guard,
}

/// Why there is no decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PdpError {
    /// What came back is no answer.
    Answer(AnswerError),
    /// Too many questions wait already.
    Busy,
    /// There was no answer over gRPC.
    Grpc(GrpcError),
    /// There was no answer over HTTP.
    Http(HttpError),
    /// Whoever asked is gone without a word.
    Lost,
    /// There was no answer over NATS.
    Nats(NatsError),
    /// The service did not answer lately, and is left alone for a while.
    Open,
    /// Rights were withdrawn while it was asked, more than once.
    Outdated,
    /// There was no decision within this time.
    TooLate(Duration),
}

impl ServiceClient {
    /// Asks, once more if there was no connection, within the time for a decision.
    pub(super) async fn ask(
        &self,
        request: Request<Bytes>,
        place: &Place,
        now: Now,
    ) -> Result<Answered, PdpError> {
        let asking = async {
            let answer = self.transport.exchange(&request, Scale::One, self.timeout).await?;
            self.dialect.read(&request, &answer).map_err(PdpError::Answer)
        };
        Ok(self.guard.call(place, now.instant, asking).await?)
    }

    /// Asks several questions with one request, which is bounded as one. The answers are in their order.
    pub(super) async fn ask_all(
        &self,
        batch: &dyn Batch,
        questions: &[Request<Bytes>],
        place: &Place,
        now: Now,
    ) -> Result<Vec<Result<Answered, AnswerError>>, PdpError> {
        let asking = async {
            let request = batch.request(questions);
            let answer = self.transport.exchange(&request, Scale::Several, self.timeout).await?;
            batch.read(questions.len(), &answer).map_err(PdpError::Answer)
        };
        Ok(self.guard.call(place, now.instant, asking).await?)
    }

    /// A place for one question, or for several that are asked at once; none where too many have one.
    pub(super) fn place(&self) -> Result<Place, PdpError> {
        Ok(self.guard.place()?)
    }

    /// Whether it would not be asked now.
    pub(super) fn is_left_alone(&self, now: Now) -> bool {
        self.guard.is_open(now.instant)
    }
}

impl PdpError {
    /// Whether the service is, or is taken to be, away.
    pub(super) fn is_absence(&self) -> bool {
        self.is_outage() || *self == Self::Open
    }
}

impl Failure for PdpError {
    fn is_outage(&self) -> bool {
        match self {
            Self::Answer(AnswerError::Status(status)) => {
                status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS
            }
            Self::Answer(AnswerError::Grpc(code)) => is_trouble(*code),
            Self::Http(HttpError::TooLarge(_) | HttpError::Url) => false,
            Self::Nats(NatsError::TooLarge(_)) => false,
            Self::Grpc(_) | Self::Http(_) | Self::Nats(_) | Self::TooLate(_) => true,
            Self::Answer(_) | Self::Busy | Self::Lost | Self::Open | Self::Outdated => false,
        }
    }
}

impl From<Refusal<Self>> for PdpError {
    fn from(refusal: Refusal<Self>) -> Self {
        match refusal {
            Refusal::Busy => Self::Busy,
            Refusal::Failed(error) => error,
            Refusal::Open => Self::Open,
            Refusal::TooLate(timeout) => Self::TooLate(timeout),
        }
    }
}

/// Whether a status is about the service and not about the question.
fn is_trouble(code: Code) -> bool {
    use Code::{
        Aborted, Cancelled, DataLoss, DeadlineExceeded, Internal, ResourceExhausted, Unavailable, Unknown,
    };
    let troubles =
        [Aborted, Cancelled, DataLoss, DeadlineExceeded, Internal, ResourceExhausted, Unavailable, Unknown];
    troubles.contains(&code)
}

impl fmt::Display for PdpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answer(error) => error.fmt(f),
            Self::Busy => f.write_str("too many questions wait for the service"),
            Self::Grpc(error) => error.fmt(f),
            Self::Http(error) => error.fmt(f),
            Self::Nats(error) => error.fmt(f),
            Self::Lost => f.write_str("the question was lost"),
            Self::Open => f.write_str("the service did not answer lately"),
            Self::Outdated => f.write_str("rights were withdrawn meanwhile"),
            Self::TooLate(timeout) => write!(f, "no decision within {timeout:?}"),
        }
    }
}

impl error::Error for PdpError {}
