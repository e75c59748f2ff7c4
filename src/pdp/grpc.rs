//! Questions and answers as gRPC has them: the path of a request is the method, its body the message.

use bytes::Bytes;
use http::{Request, Response, Uri};
use prost::Message;

use super::dialect::{AnswerError, Answered, Verdict, for_people};
use crate::neighbour::grpc::Code;

/// Asks a method.
pub(super) fn call(method: &'static str, message: &impl Message) -> Request<Bytes> {
    let mut request = Request::new(message.encode_to_vec().into());
    *request.uri_mut() = Uri::from_static(method);
    request
}

/// What is read where a call ended with another status than OK.
pub(super) fn answer_of(code: Code, words: String) -> Response<Bytes> {
    let mut answer = Response::new(words.into());
    answer.extensions_mut().insert(code);
    answer
}

/// The message of an answer.
pub(super) fn message<T: Message + Default>(answer: &Response<Bytes>) -> Result<T, AnswerError> {
    match answer.extensions().get() {
        Some(code) => Err(AnswerError::Grpc(*code)),
        None => T::decode(answer.body().clone()).map_err(|_| AnswerError::Protobuf),
    }
}

/// What a message means, or a status, where some statuses are a way to say no.
pub(super) fn decided<T: Message + Default>(
    answer: &Response<Bytes>,
    verdict: impl FnOnce(T) -> Verdict,
) -> Result<Answered, AnswerError> {
    match message(answer) {
        Err(AnswerError::Grpc(code)) if DENIALS.contains(&code) => {
            let words = Some(for_people(&String::from_utf8_lossy(answer.body())));
            Ok(Answered { words, ..Verdict::Deny.into() })
        }
        message => Ok(verdict(message?).into()),
    }
}

/// How the things of Mainflux and their successors say no.
const DENIALS: &[Code] = &[Code::NotFound, Code::PermissionDenied, Code::Unauthenticated];
