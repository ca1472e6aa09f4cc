//! What browsers may do: by which name they call the server, and for which pages.

use crate::ApiError;
use crate::identity::Identity;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

/// What pages of this server may ask with.
const METHODS: &str = "GET, POST, PUT, PATCH, DELETE, OPTIONS";

/// Without login the only thing between a web page and this server is the browser's own honesty: the Host must be no name
/// that somebody else can lead here, and a page of another origin may not write.
pub(crate) fn same_site(listen: SocketAddr, method: &Method, headers: &HeaderMap) -> Result<(), ApiError> {
    let host = text(headers, header::HOST).unwrap_or_default();
    if !is_fixed(host) {
        return Err(ApiError::forbidden(format!(
            "Invalid Host header: `{}` is not this server's address (a page may have had its own name point here)",
            host.escape_debug()
        ))
        .hint("call it by its IP address or as localhost"));
    }
    if method.is_safe() {
        return Ok(());
    }
    match headers.get(header::ORIGIN) {
        None => Ok(()),
        Some(origin) if is_ours(origin, listen, host) => Ok(()),
        Some(origin) => {
            let origin = origin.to_str().unwrap_or("null");
            Err(ApiError::forbidden(format!("a page of {origin} may not change anything here")))
        }
    }
}

/// What a browser asks before it lets a page ask something. Pages of other origins get no leave.
pub(crate) fn preflight(identity: &Identity, headers: &HeaderMap) -> Response {
    if identity.trust_loopback
        && let Err(error) = same_site(identity.listen, &Method::OPTIONS, headers)
    {
        return error.into_response();
    }
    let answer = |name: HeaderName, value: &HeaderValue| (name, value.clone());
    let origin = headers.get(header::ORIGIN);
    let Some((origin, _)) = origin.zip(headers.get(header::ACCESS_CONTROL_REQUEST_METHOD)) else {
        let allowed = [(header::ALLOW, HeaderValue::from_static(METHODS))];
        return (StatusCode::NO_CONTENT, allowed).into_response();
    };
    let host = text(headers, header::HOST).unwrap_or_default();
    if !is_ours(origin, identity.listen, host) {
        return (StatusCode::BAD_REQUEST, "Disallowed CORS origin").into_response();
    }
    let mut granted = HeaderMap::from_iter([
        answer(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin),
        (header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS)),
        (header::VARY, HeaderValue::from_static("Origin, Access-Control-Request-Headers")),
    ]);
    if let Some(asked) = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        granted.extend([answer(header::ACCESS_CONTROL_ALLOW_HEADERS, asked)]);
    }
    (StatusCode::NO_CONTENT, granted).into_response()
}

/// Headers of every answer: nothing that this server sends is to be guessed at or framed by other pages.
pub async fn with_headers(mut answer: Response) -> Response {
    let headers = answer.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("SAMEORIGIN"));
    answer
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Whether a page's origin is this server: where it listens, or the very address that the request was sent to.
fn is_ours(origin: &HeaderValue, listen: SocketAddr, host: &str) -> bool {
    let Some(origin) = origin.to_str().ok().and_then(|text| text.strip_prefix("http://")) else {
        return false;
    };
    let port = listen.port();
    let names = ["127.0.0.1", "localhost", "[::1]"].map(|name| format!("{name}:{port}"));
    origin == listen.to_string()
        || names.iter().any(|name| name == origin)
        || (origin == host && is_fixed(host))
}

/// Whether nobody can make this authority lead somewhere else: `localhost` and IP addresses, with any port. Whoever lets a name
/// of theirs point here needs a name.
fn is_fixed(authority: &str) -> bool {
    let (host, port) = match authority.rfind(':') {
        Some(at) if !authority.ends_with(']') => (&authority[..at], &authority[at + 1..]),
        _ => (authority, "0"),
    };
    if port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) || port.parse::<u16>().is_err() {
        return false;
    }
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => inner.parse::<Ipv6Addr>().is_ok(),
        None => host.eq_ignore_ascii_case("localhost") || host.parse::<Ipv4Addr>().is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockgate_control::Accounts;
    use std::sync::Arc;

    fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    fn listen() -> SocketAddr {
        "127.0.0.1:7600".parse().unwrap()
    }

    #[test]
    fn only_names_can_be_led_elsewhere() {
        for good in [
            "localhost",
            "LOCALHOST:80",
            "127.0.0.1",
            "127.0.0.1:1",
            "[::1]",
            "[::1]:9",
            "192.168.1.5:5000",
            "10.0.0.1",
            "0.0.0.0:7600",
        ] {
            assert!(is_fixed(good), "{good}");
        }
        for bad in [
            "",
            "evil.example",
            "evil.example:7600",
            "localhost.evil.example",
            "localhost.",
            "127.0.0.1.evil.example",
            "127.1",
            "0x7f.1",
            "127.0.0.1:",
            "127.0.0.1:x",
            "127.0.0.1:+1",
            "127.0.0.1:99999",
            "::1",
            "[::1",
            "[evil]",
            "user@127.0.0.1",
            "localhost:80:80",
            "192.168.evil",
        ] {
            assert!(!is_fixed(bad), "{bad}");
        }
    }

    #[test]
    fn pages_of_other_origins_may_not_write() {
        let post = |host, origin| {
            let headers = headers(&[(header::HOST, host), (header::ORIGIN, origin)]);
            same_site(listen(), &Method::POST, &headers)
        };
        for (host, origin) in [
            ("127.0.0.1:7600", "http://127.0.0.1:7600"),
            ("127.0.0.1:7600", "http://localhost:7600"),
            ("192.168.1.5:9", "http://192.168.1.5:9"),
        ] {
            assert!(post(host, origin).is_ok(), "{host} {origin}");
        }
        for (host, origin) in [
            ("127.0.0.1:7600", "http://localhost:3000"),
            ("127.0.0.1:7600", "http://evil.example"),
            ("127.0.0.1:7600", "null"),
            ("127.0.0.1:7600", "https://127.0.0.1:7600"),
            ("192.168.1.5:9", "http://192.168.1.6:9"),
            ("evil.example", "http://evil.example"),
        ] {
            assert!(post(host, origin).is_err(), "{host} {origin}");
        }
        assert!(same_site(listen(), &Method::GET, &headers(&[(header::HOST, "evil.example")])).is_err());
        assert!(same_site(listen(), &Method::GET, &HeaderMap::new()).is_err());
    }

    #[test]
    fn leave_is_given_to_own_pages_only() {
        let identity = |trust_loopback| Identity {
            accounts: Arc::new(Accounts::default()),
            trust_loopback,
            listen: listen(),
        };
        let ask = |trusting, host, origin| {
            let mut asked = headers(&[(header::HOST, host), (header::ACCESS_CONTROL_REQUEST_METHOD, "POST")]);
            asked.insert(header::ORIGIN, HeaderValue::from_static(origin));
            preflight(&identity(trusting), &asked)
        };
        for trusting in [true, false] {
            let own = ask(trusting, "localhost:7600", "http://localhost:7600");
            assert_eq!(own.status(), StatusCode::NO_CONTENT);
            assert_eq!(own.headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN], "http://localhost:7600");
            let other = ask(trusting, "localhost:7600", "http://evil.example");
            assert!(other.status() == StatusCode::BAD_REQUEST || other.status() == StatusCode::FORBIDDEN);
            assert!(!other.headers().contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN));
        }
        assert_eq!(ask(true, "evil.example", "http://evil.example").status(), StatusCode::FORBIDDEN);
        assert_eq!(ask(false, "evil.example", "http://evil.example").status(), StatusCode::BAD_REQUEST);
        let plain = preflight(&identity(true), &headers(&[(header::HOST, "localhost")]));
        assert_eq!(
            (plain.status(), plain.headers().contains_key(header::ALLOW)),
            (StatusCode::NO_CONTENT, true)
        );
    }
}
