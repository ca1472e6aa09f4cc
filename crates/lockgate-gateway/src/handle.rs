//! Paths to answers.

use crate::answer::{self, Reply, failed, json, wrong_method};
use crate::attempt::{self, Answer, End, Outbound, Payload};
use crate::body::Stream;
use crate::log::Protocol;
use crate::predict::{self, Target};
use crate::reactor::Reactor;
use crate::tfs;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::http::uri::PathAndQuery;
use hyper::{Method, Request, StatusCode};
use lockgate_core::route::Role;
use lockgate_wire::oip::{ModelPath, Verb, decode};
use lockgate_wire::tensor::shown;
use std::borrow::Cow;
use std::rc::Rc;

const VERSION: &str = env!("CARGO_PKG_VERSION");
const TEXT: &str = "text/plain; charset=utf-8";

/// Answers one request.
pub(crate) async fn handle(reactor: Rc<Reactor>, request: Request<Incoming>) -> Reply {
    let get = matches!(*request.method(), Method::GET | Method::HEAD);
    let path = request.uri().path();
    if path == "/invocations" {
        return invocations(&reactor, request).await;
    }
    if path.starts_with("/v2/models/") {
        return of_model(&reactor, request).await;
    }
    if tfs::is_ours(path) {
        return tfs::handle(&reactor, request).await;
    }
    if path == "/models" || path.starts_with("/models/") {
        return of_model_mlflow(&reactor, request).await;
    }
    if !get {
        return match path {
            "/v2/health/live" | "/v2/health/ready" | "/ping" | "/health" | "/version" | "/v2" | "/v2/"
            | "/v1/models" | "/metrics" => wrong_method("GET", Protocol::Oip),
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
        "/v1/models" => tfs::list(&reactor),
        "/metrics" => answer::text(StatusCode::OK, "text/plain; version=0.0.4", reactor.metrics()),
        _ => nothing(path),
    }
}

fn nothing(path: &str) -> Reply {
    let message = format!(
        "there is nothing at `{}`; predictions are at /v2/models/MODEL/infer, /v1/models/MODEL:predict and /invocations",
        shown(path)
    );
    failed(StatusCode::NOT_FOUND, &message, Protocol::Oip)
}

/// `POST /invocations`: MLflow's protocol has no model in its path, so there must be only one.
async fn invocations(reactor: &Rc<Reactor>, request: Request<Incoming>) -> Reply {
    if request.method() != Method::POST {
        return wrong_method("POST", Protocol::Mlflow);
    }
    if let Some(model) = tfs::target(&request) {
        return invoke(reactor, request, model).await;
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

pub(crate) async fn invoke(reactor: &Rc<Reactor>, request: Request<Incoming>, model: String) -> Reply {
    let path = PathAndQuery::from_static("/invocations");
    let target = Target { model, version: None, path, protocol: Protocol::Mlflow };
    predict::predict(reactor, target, request).await
}

/// `/models/{model}/invocations`: MLflow's protocol where there are several models.
async fn of_model_mlflow(reactor: &Rc<Reactor>, request: Request<Incoming>) -> Reply {
    let path = request.uri().path();
    let name =
        path.strip_prefix("/models/").and_then(|rest| rest.strip_suffix("/invocations")).and_then(decode);
    match name.map(Cow::into_owned) {
        None => {
            let path = path.to_owned();
            tfs::sagemaker(reactor, request).await.unwrap_or_else(|| nothing(&path))
        }
        Some(model) if request.method() == Method::POST => invoke(reactor, request, model).await,
        Some(_) => wrong_method("POST", Protocol::Mlflow),
    }
}

/// The Open Inference Protocol's paths of a model.
async fn of_model(reactor: &Rc<Reactor>, request: Request<Incoming>) -> Reply {
    let not_found = |message: String| failed(StatusCode::NOT_FOUND, &message, Protocol::Oip);
    let asked = match ModelPath::parse(request.uri().path()) {
        Ok(asked) => asked,
        Err(message) => return not_found(message),
    };
    let version = match asked.version.map(|text| text.parse::<u64>().map_err(|_| text)) {
        None => None,
        Some(Ok(version)) => Some(version),
        Some(Err(text)) => {
            return not_found(format!("`{}` is no model version; versions are whole numbers", shown(text)));
        }
    };
    let (model, verb) = (asked.model.into_owned(), asked.verb);
    match verb {
        Verb::Infer if request.method() == Method::POST => {
            let path = request.uri().path_and_query().cloned();
            let path = path.unwrap_or_else(|| PathAndQuery::from_static("/"));
            let target = Target { model, version, path, protocol: Protocol::Oip };
            predict::predict(reactor, target, request).await
        }
        Verb::Infer => wrong_method("POST", Protocol::Oip),
        Verb::Metadata | Verb::Ready if !matches!(*request.method(), Method::GET | Method::HEAD) => {
            wrong_method("GET", Protocol::Oip)
        }
        Verb::Metadata | Verb::Ready => {
            let path = request.uri().path_and_query().cloned();
            let path = path.unwrap_or_else(|| PathAndQuery::from_static("/"));
            ask(reactor, &request, path, &model, (version, Protocol::Oip)).await
        }
    }
}

/// A question about a model, which is no prediction: the side that serves answers it.
pub(crate) async fn ask(
    reactor: &Rc<Reactor>,
    request: &Request<Incoming>,
    path: PathAndQuery,
    model: &str,
    (version, protocol): (Option<u64>, Protocol),
) -> Reply {
    let Some(route) = reactor.route(model) else {
        let message = format!("there is no model `{}` in this environment", shown(model));
        return failed(StatusCode::NOT_FOUND, &message, protocol);
    };
    let mut role = Role::Baseline;
    if let Some(version) = version {
        match route.sides().find(|s| s.model_version == version) {
            Some(side) => role = side.role,
            None => {
                let message = format!("model `{}` has no version {version} here", shown(model));
                return failed(StatusCode::NOT_FOUND, &message, protocol);
            }
        }
    }
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
            failed(StatusCode::SERVICE_UNAVAILABLE, &message, protocol)
        }
    }
}
