//! Paths to answers.

use crate::answer::{self, Reply, failed, json, wrong_method};
use crate::attempt::{self, Answer, End, Outbound, Payload};
use crate::body::Stream;
use crate::log::Protocol;
use crate::predict::{self, Target};
use crate::reactor::Reactor;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::http::uri::PathAndQuery;
use hyper::{Method, Request, StatusCode};
use lockgate_core::route::Role;
use lockgate_wire::tensor::shown;
use std::borrow::Cow;
use std::rc::Rc;

const VERSION: &str = env!("CARGO_PKG_VERSION");
const TEXT: &str = "text/plain; charset=utf-8";

/// What a path of a model asks for.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Verb {
    Metadata,
    Ready,
    Infer,
    Invoke,
}

/// Model, version and verb of a path.
type Asked = (String, Option<u64>, Verb);

/// Answers one request.
pub(crate) async fn handle(reactor: Rc<Reactor>, request: Request<Incoming>) -> Reply {
    let get = matches!(*request.method(), Method::GET | Method::HEAD);
    let path = request.uri().path();
    if path == "/invocations" {
        return invocations(&reactor, request).await;
    }
    if let Some(parsed) = of_model(path) {
        return match parsed {
            Ok((model, version, verb)) => model_verb(&reactor, request, model, version, verb).await,
            Err(message) => failed(StatusCode::NOT_FOUND, &message, Protocol::Oip),
        };
    }
    if !get {
        return match path {
            "/v2/health/live" | "/v2/health/ready" | "/ping" | "/health" | "/version" | "/v2" | "/v2/"
            | "/metrics" => wrong_method("GET", Protocol::Oip),
            _ => nothing(path),
        };
    }
    let ready = reactor.is_ready();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    match path {
        "/v2/health/live" => json(StatusCode::OK, Bytes::from_static(b"{\"live\":true}")),
        "/v2/health/ready" => json(status, format!("{{\"ready\":{ready}}}")),
        "/ping" | "/health" => json(status, Bytes::from_static(b"\n")),
        "/version" => answer::text(StatusCode::OK, TEXT, VERSION),
        "/v2" | "/v2/" => {
            let body = format!("{{\"name\":\"lockgate\",\"version\":\"{VERSION}\",\"extensions\":[]}}");
            json(StatusCode::OK, body)
        }
        "/metrics" => answer::text(StatusCode::OK, "text/plain; version=0.0.4", reactor.metrics()),
        _ => nothing(path),
    }
}

fn nothing(path: &str) -> Reply {
    let message = format!(
        "there is nothing at `{}`; predictions are at /v2/models/MODEL/infer and /invocations",
        shown(path)
    );
    failed(StatusCode::NOT_FOUND, &message, Protocol::Oip)
}

/// `POST /invocations`: MLflow's protocol has no model in its path, so there must be only one.
async fn invocations(reactor: &Rc<Reactor>, request: Request<Incoming>) -> Reply {
    if request.method() != Method::POST {
        return wrong_method("POST", Protocol::Mlflow);
    }
    let names = reactor.model_names();
    match names.as_slice() {
        [only] => invoke(reactor, request, only.clone()).await,
        [] => {
            let message = format!("nothing is deployed in environment `{}` yet", reactor.options.environment);
            failed(StatusCode::NOT_FOUND, &message, Protocol::Mlflow)
        }
        several => {
            let message = format!(
                "this environment serves `{}`: say which at /models/MODEL/invocations",
                several.join("`, `")
            );
            failed(StatusCode::BAD_REQUEST, &message, Protocol::Mlflow)
        }
    }
}

async fn invoke(reactor: &Rc<Reactor>, request: Request<Incoming>, model: String) -> Reply {
    let path = PathAndQuery::from_static("/invocations");
    let target = Target { model, version: None, path, protocol: Protocol::Mlflow };
    predict::predict(reactor, target, request).await
}

async fn model_verb(
    reactor: &Rc<Reactor>,
    request: Request<Incoming>,
    model: String,
    version: Option<u64>,
    verb: Verb,
) -> Reply {
    let post = request.method() == Method::POST;
    let get = matches!(*request.method(), Method::GET | Method::HEAD);
    match verb {
        Verb::Invoke if post => invoke(reactor, request, model).await,
        Verb::Invoke => wrong_method("POST", Protocol::Mlflow),
        Verb::Infer if post => {
            let path = request.uri().path_and_query().cloned();
            let path = path.unwrap_or_else(|| PathAndQuery::from_static("/"));
            let target = Target { model, version, path, protocol: Protocol::Oip };
            predict::predict(reactor, target, request).await
        }
        Verb::Infer => wrong_method("POST", Protocol::Oip),
        Verb::Metadata | Verb::Ready if !get => wrong_method("GET", Protocol::Oip),
        Verb::Metadata | Verb::Ready => ask(reactor, &request, &model, version).await,
    }
}

/// A question about a model, which is no prediction: the side that serves answers it.
async fn ask(reactor: &Rc<Reactor>, request: &Request<Incoming>, model: &str, version: Option<u64>) -> Reply {
    let Some(route) = reactor.route(model) else {
        let message = format!("there is no model `{}` in this environment", shown(model));
        return failed(StatusCode::NOT_FOUND, &message, Protocol::Oip);
    };
    let mut role = Role::Baseline;
    if let Some(version) = version {
        match route.sides().find(|s| s.model_version == version) {
            Some(side) => role = side.role,
            None => {
                let message = format!("model `{}` has no version {version} here", shown(model));
                return failed(StatusCode::NOT_FOUND, &message, Protocol::Oip);
            }
        }
    }
    let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    let headers = predict::forwarded(request.headers());
    let out = Outbound { method: Method::GET, path, headers, payload: Payload::Whole(Bytes::new()) };
    match attempt::send(reactor, model, role, &out).await.end {
        End::Answered(answered) => {
            let mut reply = Reply::new(match answered.body {
                Answer::Whole(bytes) => Stream::whole(bytes),
                Answer::Streaming(stream) => stream,
            });
            *reply.status_mut() = answered.parts.status;
            if let Some(kind) = answered.parts.headers.get(CONTENT_TYPE) {
                reply.headers_mut().insert(CONTENT_TYPE, kind.clone());
            }
            reply
        }
        _ => {
            let message = format!("no worker of model `{}` can be reached", shown(model));
            failed(StatusCode::SERVICE_UNAVAILABLE, &message, Protocol::Oip)
        }
    }
}

/// `/v2/models/{model}[/versions/{version}][/ready|/infer]` and `/models/{model}/invocations`; none for other paths.
fn of_model(path: &str) -> Option<Result<Asked, String>> {
    let nothing = || format!("there is nothing at `{}`", shown(path));
    if let Some(rest) = path.strip_prefix("/models/") {
        let name = rest.strip_suffix("/invocations").and_then(decode);
        return Some(name.map(|n| (n.into_owned(), None, Verb::Invoke)).ok_or_else(nothing));
    }
    let rest = path.strip_prefix("/v2/models/")?;
    let mut parts = rest.split('/');
    let Some(name) = parts.next().and_then(decode) else { return Some(Err(nothing())) };
    let (mut next, mut version) = (parts.next(), None);
    if next == Some("versions") {
        let text = parts.next().unwrap_or_default();
        let Ok(number) = text.parse() else {
            return Some(Err(format!("`{}` is no model version; versions are whole numbers", shown(text))));
        };
        version = Some(number);
        next = parts.next();
    }
    let verb = match next {
        None => Verb::Metadata,
        Some("ready") => Verb::Ready,
        Some("infer") => Verb::Infer,
        Some(_) => return Some(Err(nothing())),
    };
    if parts.next().is_some() {
        return Some(Err(nothing()));
    }
    Some(Ok((name.into_owned(), version, verb)))
}

/// Undoes percent-encoding; none where it is broken.
fn decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let digit = |b: &u8| char::from(*b).to_digit(16);
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        if *first == b'%' {
            let (high, low) = (tail.first().and_then(digit)?, tail.get(1).and_then(digit)?);
            bytes.push(u8::try_from(high * 16 + low).ok()?);
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
    use super::*;

    #[test]
    fn paths_name_model_version_and_verb() {
        let ok = |path: &str| of_model(path).map(Result::unwrap);
        assert_eq!(ok("/v2/models/a%20b/infer"), Some(("a b".to_owned(), None, Verb::Infer)));
        assert_eq!(ok("/v2/models/m/versions/7/ready"), Some(("m".to_owned(), Some(7), Verb::Ready)));
        assert_eq!(ok("/v2/models/m"), Some(("m".to_owned(), None, Verb::Metadata)));
        assert_eq!(ok("/models/m/invocations"), Some(("m".to_owned(), None, Verb::Invoke)));
        assert_eq!(of_model("/metrics"), None);
        for bad in [
            "/v2/models/%zz",
            "/v2/models/m/versions/x/infer",
            "/v2/models/m/explain",
            "/models/m/other",
            "/v2/models/m/infer/x",
        ] {
            assert!(of_model(bad).unwrap().is_err(), "{bad}");
        }
    }
}
