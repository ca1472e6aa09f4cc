//! Paths to answers.

use super::answer::{Dialect, Reply, failed, json};
use super::infer;
use super::model::Model;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, StatusCode};
use lockgate_wire::tensor::shown;
use std::borrow::Cow;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What a path of a model asks for.
enum Verb {
    Metadata,
    Ready,
    Infer,
}

/// Answers one request.
pub(super) async fn answer(model: &Model, ready: bool, request: Request<Incoming>) -> Reply {
    let get = matches!(*request.method(), Method::GET | Method::HEAD);
    let path = request.uri().path();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    match path {
        "/invocations" if request.method() == Method::POST => return infer::mlflow(model, request).await,
        "/invocations" => return wrong_method("POST", Dialect::Mlflow),
        "/v2/health/live" if get => return json(StatusCode::OK, Bytes::from_static(b"{\"live\":true}")),
        "/v2/health/ready" if get => {
            return json(status, if ready { "{\"ready\":true}" } else { "{\"ready\":false}" });
        }
        "/ping" | "/health" if get => return json(status, Bytes::from_static(b"\n")),
        "/version" if get => {
            let mut reply = json(StatusCode::OK, VERSION);
            reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
            return reply;
        }
        "/v2" | "/v2/" if get => {
            return json(
                StatusCode::OK,
                format!("{{\"name\":\"lockgate\",\"version\":\"{VERSION}\",\"extensions\":[]}}"),
            );
        }
        "/v2/health/live" | "/v2/health/ready" | "/ping" | "/health" | "/version" | "/v2" | "/v2/" => {
            return wrong_method("GET", Dialect::Oip);
        }
        _ => {}
    }
    let verb = match of_model(model, path) {
        Ok(verb) => verb,
        Err(message) => return failed(StatusCode::NOT_FOUND, &message, Dialect::Oip),
    };
    match verb {
        Verb::Infer if request.method() == Method::POST => infer::oip(model, request).await,
        Verb::Infer => wrong_method("POST", Dialect::Oip),
        Verb::Metadata | Verb::Ready if !get => wrong_method("GET", Dialect::Oip),
        Verb::Metadata => json(StatusCode::OK, model.metadata.clone()),
        Verb::Ready => {
            let name = serde_json::Value::from(model.name.as_str());
            json(status, format!("{{\"name\":{name},\"ready\":{ready}}}"))
        }
    }
}

fn wrong_method(allowed: &'static str, dialect: Dialect) -> Reply {
    let message = format!("this path takes {allowed} only");
    let mut reply = failed(StatusCode::METHOD_NOT_ALLOWED, &message, dialect);
    reply.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    reply
}

/// `/v2/models/{model}[/versions/{version}][/ready|/infer]`
fn of_model(model: &Model, path: &str) -> Result<Verb, String> {
    let nothing = || format!("there is nothing at `{}`", shown(path));
    let rest = path.strip_prefix("/v2/models/").ok_or_else(nothing)?;
    let mut parts = rest.split('/');
    let name = decode(parts.next().unwrap_or_default()).ok_or_else(nothing)?;
    if name != model.name {
        return Err(format!(
            "there is no model `{}` here; this worker serves `{}`",
            shown(&name),
            model.name
        ));
    }
    let mut next = parts.next();
    if next == Some("versions") {
        let version = parts.next().unwrap_or_default();
        if version != model.version {
            let (name, here) = (&model.name, &model.version);
            return Err(format!(
                "model `{name}` has no version `{}` here; this worker serves version {here}",
                shown(version)
            ));
        }
        next = parts.next();
    }
    let verb = match next {
        None => Verb::Metadata,
        Some("ready") => Verb::Ready,
        Some("infer") => Verb::Infer,
        Some(_) => return Err(nothing()),
    };
    if parts.next().is_some() { Err(nothing()) } else { Ok(verb) }
}

/// Undoes percent-encoding; `None` where it is broken.
fn decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        if *first == b'%' {
            let mut byte = [0];
            hex::decode_to_slice(tail.get(..2)?, &mut byte).ok()?;
            bytes.extend_from_slice(&byte);
            rest = tail.get(2..)?;
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn percent_encoding_is_undone_or_refused() {
        assert_eq!(decode("a-b").as_deref(), Some("a-b"));
        assert_eq!(decode("a%20b%C3%A9").as_deref(), Some("a bé"));
        for bad in ["%", "%2", "%zz", "%ff"] {
            assert_eq!(decode(bad), None);
        }
    }
}
