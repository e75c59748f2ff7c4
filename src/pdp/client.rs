use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{error, fmt};

use bytes::Bytes;
use http::{Request, StatusCode};
use mgate_policies::Now;
use tokio::sync::Semaphore;
use tokio::time;
use tracing::{info, warn};

use super::dialect::{AnswerError, Answered, Batch, Dialect};
use super::transport::{Scale, Transport};
use crate::neighbour::breaker::Breaker;
use crate::neighbour::grpc::{Code, GrpcError};
use crate::neighbour::http::HttpError;
use crate::neighbour::nats::NatsError;

/// Puts questions to one service, within bounds.
pub(super) struct ServiceClient {
    pub(super) name: Arc<str>,
    pub(super) dialect: Box<dyn Dialect>,
    pub(super) transport: Transport,
    pub(super) timeout: Duration,
    pub(super) running: Semaphore,
    pub(super) breaker: Mutex<Breaker>,
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
    pub(super) async fn ask(&self, request: Request<Bytes>, now: Now) -> Result<Answered, PdpError> {
        let asking = async {
            let answer = self.transport.exchange(&request, Scale::One, self.timeout).await?;
            self.dialect.read(&request, &answer).map_err(PdpError::Answer)
        };
        self.within_bounds(asking, now).await
    }

    /// Asks several questions with one request, which is bounded as one. The answers are in their order.
    pub(super) async fn ask_all(
        &self,
        batch: &dyn Batch,
        questions: &[Request<Bytes>],
        now: Now,
    ) -> Result<Vec<Result<Answered, AnswerError>>, PdpError> {
        let asking = async {
            let request = batch.request(questions);
            let answer = self.transport.exchange(&request, Scale::Several, self.timeout).await?;
            batch.read(questions.len(), &answer).map_err(PdpError::Answer)
        };
        self.within_bounds(asking, now).await
    }

    async fn within_bounds<T>(
        &self,
        exchange: impl Future<Output = Result<T, PdpError>>,
        now: Now,
    ) -> Result<T, PdpError> {
        let clock = Clock { asked: now.instant, since: time::Instant::now() };
        let asking = async {
            if self.breaker().is_open(clock.now()) {
                return Err(PdpError::Open);
            }
            let _running = self.running.acquire().await.map_err(|_| PdpError::Busy)?;
            let attempt = Attempt::begin(self, &clock).ok_or(PdpError::Open)?;
            let result = exchange.await;
            attempt.end(&result);
            result
        };
        time::timeout(self.timeout, asking).await.unwrap_or(Err(PdpError::TooLate(self.timeout)))
    }

    /// Whether it would not be asked now.
    pub(super) fn is_left_alone(&self, now: Now) -> bool {
        self.breaker().is_open(now.instant)
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, now: Instant, why: &dyn fmt::Display) {
        let random = RandomState::new().hash_one(());
        if let Some(pause) = self.breaker().failed(now, random) {
            warn!(policy = %self.name, %why, ?pause, "the decision service does not answer: it is left alone");
        }
    }
}

/// A question on its way; one that is given up has failed.
struct Attempt<'a> {
    client: &'a ServiceClient,
    clock: &'a Clock,
    is_over: bool,
}

impl<'a> Attempt<'a> {
    fn begin(client: &'a ServiceClient, clock: &'a Clock) -> Option<Self> {
        client.breaker().admit(clock.now()).then_some(Self { client, clock, is_over: false })
    }

    fn end<T>(mut self, result: &Result<T, PdpError>) {
        self.is_over = true;
        match result {
            Err(error) if error.is_failure() => self.client.failed(self.clock.now(), error),
            _ => {
                if self.client.breaker().succeeded() {
                    info!(policy = %self.client.name, "the decision service answers again");
                }
            }
        }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.client.failed(self.clock.now(), &PdpError::TooLate(self.client.timeout));
        }
    }
}

/// The caller's clock, going on from when it asked.
struct Clock {
    asked: Instant,
    since: time::Instant,
}

impl Clock {
    fn now(&self) -> Instant {
        self.asked + self.since.elapsed()
    }
}

impl PdpError {
    /// Whether the service is, or is taken to be, away.
    pub(super) fn is_outage(&self) -> bool {
        self.is_failure() || *self == Self::Open
    }

    /// Whether it means that the service is not there; a single odd question must not make it look so.
    fn is_failure(&self) -> bool {
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
