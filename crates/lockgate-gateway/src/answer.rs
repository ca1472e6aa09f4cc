//! Answers, and errors in each protocol's own form.

use crate::body::Stream;
use crate::log::Protocol;
use bytes::Bytes;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use lockgate_wire::error::{mlflow_error, oip_error};
use lockgate_wire::openai;

/// Headers of ours.
pub(crate) mod header {
    pub(crate) const PREDICTION: &str = "x-lockgate-prediction-id";
    pub(crate) const RELEASE: &str = "x-lockgate-release";
    pub(crate) const VERSION: &str = "x-lockgate-model-version";
    pub(crate) const VARIANT: &str = "x-lockgate-variant";
    /// Set by workers: how many of an answer's numbers are not finite.
    pub(crate) const NONFINITE: &str = "x-lockgate-nonfinite";
    /// Set by workers: a hash of the answer.
    pub(crate) const ANSWER: &str = "x-lockgate-answer";
    /// Set by workers: how many rows they answered.
    pub(crate) const ROWS: &str = "x-lockgate-rows";
    /// Set by workers: how long the model ran, in microseconds.
    pub(crate) const INFER_US: &str = "x-lockgate-infer-us";
    pub(crate) const REQUEST_ID: &str = "x-request-id";
}

pub(crate) type Reply = Response<Stream>;

pub(crate) fn text(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Stream::whole(body.into()));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    reply
}

pub(crate) fn json(status: StatusCode, body: impl Into<Bytes>) -> Reply {
    text(status, "application/json", body)
}

/// The body of an error.
pub(crate) fn error_body(status: StatusCode, message: &str, protocol: Protocol) -> Bytes {
    let code = match status {
        StatusCode::NOT_FOUND => "RESOURCE_DOES_NOT_EXIST",
        StatusCode::UNAUTHORIZED => "UNAUTHENTICATED",
        StatusCode::FORBIDDEN => "PERMISSION_DENIED",
        StatusCode::TOO_MANY_REQUESTS => "REQUEST_LIMIT_EXCEEDED",
        StatusCode::SERVICE_UNAVAILABLE => "TEMPORARILY_UNAVAILABLE",
        StatusCode::GATEWAY_TIMEOUT => "DEADLINE_EXCEEDED",
        s if s.is_server_error() => "INTERNAL_ERROR",
        _ => "BAD_REQUEST",
    };
    match protocol {
        Protocol::Oip | Protocol::Tfs | Protocol::Grpc => oip_error(message).into(),
        Protocol::Mlflow => mlflow_error(code, message).into(),
        Protocol::Openai => {
            let (kind, code) = match status {
                StatusCode::NOT_FOUND => ("invalid_request_error", "model_not_found"),
                StatusCode::TOO_MANY_REQUESTS => ("rate_limit_error", "rate_limit_exceeded"),
                s if s.is_server_error() => ("server_error", "server_error"),
                _ => ("invalid_request_error", "invalid_request"),
            };
            openai::error(message, kind, code).into()
        }
    }
}

pub(crate) fn failed(status: StatusCode, message: &str, protocol: Protocol) -> Reply {
    let mut reply = json(status, error_body(status, message, protocol));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    reply
}

pub(crate) fn wrong_method(allowed: &'static str, protocol: Protocol) -> Reply {
    let message = format!("this path takes {allowed} only");
    let mut reply = failed(StatusCode::METHOD_NOT_ALLOWED, &message, protocol);
    reply.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    reply
}
