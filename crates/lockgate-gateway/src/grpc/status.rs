//! gRPC's codes, and how an error is told.

use super::frame::GRPC;
use crate::answer::Reply;
use crate::body::Stream;
use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use lockgate_wire::WireError;

const CODE: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// The longest message that is put into a header.
const MESSAGE_MAX: usize = 2000;

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) code: u8,
    pub(super) message: String,
}

impl Status {
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self { code: 3, message: message.into() }
    }

    pub(super) fn deadline(message: impl Into<String>) -> Self {
        Self { code: 4, message: message.into() }
    }

    /// The client's own deadline is over.
    pub(super) fn late() -> Self {
        Self::deadline("the client's deadline (grpc-timeout) is over")
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self { code: 5, message: message.into() }
    }

    pub(super) fn too_large(message: impl Into<String>) -> Self {
        Self { code: 8, message: message.into() }
    }

    pub(super) fn precondition(message: impl Into<String>) -> Self {
        Self { code: 9, message: message.into() }
    }

    pub(super) fn unimplemented(path: &str) -> Self {
        let path = lockgate_wire::tensor::shown(path);
        Self { code: 12, message: format!("this server doesn't have the call {path}") }
    }

    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self { code: 13, message: message.into() }
    }

    /// The code for an answer of HTTP.
    pub(super) fn of_http(status: StatusCode, message: impl Into<String>) -> Self {
        let code = match status {
            StatusCode::NOT_FOUND => 5,
            StatusCode::FORBIDDEN => 7,
            StatusCode::UNAUTHORIZED => 16,
            StatusCode::PAYLOAD_TOO_LARGE | StatusCode::TOO_MANY_REQUESTS => 8,
            StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => 4,
            StatusCode::SERVICE_UNAVAILABLE => 14,
            status if status.is_server_error() => 13,
            _ => 3,
        };
        Self { code, message: message.into() }
    }

    /// Whether it is about who asks, and how, not about what is asked.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self.code, 3 | 7 | 16)
    }

    pub(super) fn of_wire(error: &WireError) -> Self {
        let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::BAD_REQUEST);
        Self::of_http(status, error.text())
    }

    /// The headers or trailers that say it.
    pub(super) fn put(&self, headers: &mut HeaderMap) {
        headers.insert(CODE, HeaderValue::from(u16::from(self.code)));
        if let Ok(message) = HeaderValue::from_str(&encoded(&self.message)) {
            headers.insert(MESSAGE, message);
        }
    }

    /// An answer without a message.
    pub(super) fn reply(&self) -> Reply {
        let mut reply = Reply::new(Stream::whole(bytes::Bytes::new()));
        reply.headers_mut().insert(CONTENT_TYPE, GRPC);
        self.put(reply.headers_mut());
        reply
    }
}

/// The trailers of an answer that is complete.
pub(super) fn ok() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(CODE, HeaderValue::from_static("0"));
    trailers
}

/// Percent-encoded as gRPC wants it: all but printable ASCII, and the percent sign.
fn encoded(message: &str) -> String {
    let mut out = String::with_capacity(message.len());
    for byte in message.bytes().take(MESSAGE_MAX) {
        match byte {
            b'%' | 0..=0x1f | 0x7f.. => out.push_str(&format!("%{byte:02X}")),
            _ => out.push(char::from(byte)),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_headers() {
        assert_eq!(encoded("100% of é\n"), "100%25 of %C3%A9%0A");
        let reply = Status::not_found("no `é`").reply();
        assert_eq!(reply.headers().get("grpc-status").unwrap(), "5");
        assert_eq!(reply.headers().get("grpc-message").unwrap(), "no `%C3%A9`");
        assert_eq!(reply.status(), StatusCode::OK);
    }

    #[test]
    fn codes_of_http_are_the_protocols() {
        for (status, code) in
            [(400, 3), (404, 5), (413, 8), (415, 3), (429, 8), (503, 14), (504, 4), (500, 13)]
        {
            assert_eq!(Status::of_http(StatusCode::from_u16(status).unwrap(), "").code, code, "{status}");
        }
    }
}
