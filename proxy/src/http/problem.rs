//! What a client is told where its request goes no further: the kind, and nothing that operators configured.

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER, SEC_WEBSOCKET_VERSION, UPGRADE,
    WWW_AUTHENTICATE,
};
use http::{HeaderValue, Response, StatusCode};
use mgate_policies::Cause;

/// Why a request goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// The credentials are no good, or there are none.
    BadCredentials,
    /// The `Authorization`, or what stands for it, cannot be read, or is there twice.
    BadAuthorization,
    /// The upstream gave no answer that is one.
    BadGateway,
    /// The `Host` is missing, malformed, or not that of the target.
    BadHost,
    /// A message is empty, or its path names no channel.
    BadMessage,
    /// The path could be read in two ways.
    BadPath,
    /// The frame of the request is not one that HTTP has.
    BadRequest,
    /// `Expect` with something else than `100-continue`.
    Expectation,
    /// The client may not do this.
    Forbidden,
    /// The head has too many headers, or bytes.
    HeadTooLarge,
    /// The method has no meaning here.
    Method,
    /// MQTT over WebSocket, which has routes of its own.
    MqttElsewhere,
    /// The path is none that the profile has.
    NotFound,
    /// A method or an upgrade that is not passed on.
    NotImplemented,
    /// The client sends too slowly.
    Slow,
    /// The target is too long.
    TargetTooLong,
    /// The request carries too much.
    TooLarge,
    /// Faster, or more, than the client may; it may come again after so many seconds.
    TooMany(u64),
    /// There is no decision to be had.
    Unavailable,
    /// A message of another media type.
    UnsupportedMediaType,
    /// A request for a WebSocket that is not of version 13.
    UpgradeRequired,
    /// The upstream did not answer in time.
    UpstreamSlow,
    /// A version of HTTP that is not spoken here.
    Version,
    /// The route does not go by this name.
    WrongHost,
}

impl From<Cause> for Problem {
    fn from(cause: Cause) -> Self {
        match cause {
            Cause::BadCredentials => Self::BadCredentials,
            Cause::QuotaExceeded | Cause::RateExceeded => Self::TooMany(1),
            Cause::Unavailable => Self::Unavailable,
            _ => Self::Forbidden,
        }
    }
}

impl Problem {
    /// The status that says it.
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::BadAuthorization | Self::BadHost | Self::BadMessage | Self::BadPath | Self::BadRequest => {
                StatusCode::BAD_REQUEST
            }
            Self::BadCredentials => StatusCode::UNAUTHORIZED,
            Self::BadGateway => StatusCode::BAD_GATEWAY,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MqttElsewhere | Self::NotImplemented => StatusCode::NOT_IMPLEMENTED,
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::UpgradeRequired => StatusCode::UPGRADE_REQUIRED,
            Self::UpstreamSlow => StatusCode::GATEWAY_TIMEOUT,
            Self::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::WrongHost => StatusCode::MISDIRECTED_REQUEST,
        }
    }

    /// The answer that says it. RFC 9457 §3
    pub(super) fn response(self) -> Response<Bytes> {
        let (status, detail) = (self.status(), self.detail());
        let title = status.canonical_reason().unwrap_or_default();
        let body = format!(
            "{{\"type\":\"about:blank\",\"title\":\"{title}\",\"status\":{},\"detail\":\"{detail}\"}}\n",
            status.as_u16()
        );
        let mut response = Response::new(body.into());
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        match self {
            // RFC 9110 §11.6.1: a 401 has at least one challenge
            Self::BadCredentials => {
                headers.insert(
                    WWW_AUTHENTICATE,
                    HeaderValue::from_static("Basic realm=\"mgate\", charset=\"UTF-8\""),
                );
                headers.append(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Self::Method => drop(headers.insert(ALLOW, HeaderValue::from_static("POST"))),
            // RFC 9110 §15.5.22, RFC 6455 §4.4; the connection ends with the answer
            Self::UpgradeRequired => {
                headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
                headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
                headers.insert(CONNECTION, HeaderValue::from_static("Upgrade, close"));
            }
            // what follows in the connection may be a part of what was not understood, or not heard out
            _ if self.ends_connection() => {
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Self::TooMany(seconds) => drop(headers.insert(RETRY_AFTER, seconds.into())),
            _ => {}
        }
        response
    }

    fn ends_connection(self) -> bool {
        matches!(
            self,
            Self::BadHost
                | Self::BadRequest
                | Self::Expectation
                | Self::NotImplemented
                | Self::Slow
                | Self::TooLarge
        )
    }

    /// The kind, in words that are safe in JSON as they stand.
    pub(super) fn detail(self) -> &'static str {
        match self {
            Self::BadAuthorization => "the credentials cannot be read",
            Self::BadCredentials => "bad credentials",
            Self::BadGateway => "the upstream gave no answer",
            Self::BadHost => "bad host",
            Self::BadMessage => "this is no message of a channel",
            Self::BadPath => "bad path",
            Self::BadRequest => "bad request",
            Self::Expectation => "unknown expectation",
            Self::Forbidden => "not authorized",
            Self::HeadTooLarge => "the head is too large",
            Self::Method => "this takes messages alone",
            Self::MqttElsewhere => "this route takes no MQTT over WebSocket",
            Self::NotFound => "there is nothing here",
            Self::NotImplemented => "not implemented",
            Self::Slow => "the request took too long",
            Self::TargetTooLong => "the target is too long",
            Self::TooLarge => "the request carries too much",
            Self::TooMany(_) => "too many requests",
            Self::Unavailable => "no decision to be had",
            Self::UnsupportedMediaType => "messages of this type are not taken",
            Self::UpgradeRequired => "this takes WebSockets of version 13",
            Self::UpstreamSlow => "the upstream did not answer in time",
            Self::Version => "unknown version of HTTP",
            Self::WrongHost => "unknown host",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_say_their_kind_alone() {
        let response = Problem::Forbidden.response();
        assert_eq!(response.status(), 403);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        let body = r#"{"type":"about:blank","title":"Forbidden","status":403,"detail":"not authorized"}"#;
        assert_eq!(*response.body(), format!("{body}\n"));
    }

    #[test]
    fn causes_have_their_statuses() {
        for (cause, status) in [
            (Cause::BadCredentials, 401),
            (Cause::ClientIdNotValid, 403),
            (Cause::NotAuthorized, 403),
            (Cause::QuotaExceeded, 429),
            (Cause::RateExceeded, 429),
            (Cause::Unavailable, 503),
        ] {
            assert_eq!(Problem::from(cause).status(), status, "{cause}");
        }
        assert_eq!(
            Problem::from(Cause::BadCredentials)
                .response()
                .headers()
                .get_all(WWW_AUTHENTICATE)
                .iter()
                .count(),
            2
        );
        assert_eq!(Problem::TooMany(3).response().headers()[RETRY_AFTER], "3");
    }
}
