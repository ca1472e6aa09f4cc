//! Paths to answers.

use crate::answer::{self, Reply, failed, json, wrong_method};
use crate::attempt::{self, Answer, End, Outbound, Payload};
use crate::body::Stream;
use crate::feedback;
use crate::grpc;
use crate::log::Protocol;
use crate::openai;
use crate::predict::{self, Target};
use crate::reactor::Reactor;
use crate::repository;
use crate::statistics;
use crate::testers::{self, View};
use crate::tfs;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::http::uri::PathAndQuery;
use hyper::{Method, Request, StatusCode};
use lockgate_core::route::Role;
use lockgate_wire::oip::{ModelPath, Verb, decode, encode, server_metadata};
use lockgate_wire::tensor::shown;
use std::borrow::Cow;
use std::rc::Rc;

pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");
const TEXT: &str = "text/plain; charset=utf-8";
const LOOP: &str =
    "this request was here before: a server that it was passed on to leads back to this gateway";

/// Answers one request.
pub(crate) async fn handle(reactor: Rc<Reactor>, mut request: Request<Incoming>) -> Reply {
    if reactor.core.name.is_loop(request.headers()) {
        return failed(StatusCode::LOOP_DETECTED, LOOP, Protocol::Oip);
    }
    testers::unwrap(&mut request);
    if grpc::is_call(&request) {
        return Box::pin(grpc::call(reactor, request)).await;
    }
    let get = matches!(*request.method(), Method::GET | Method::HEAD);
    let path = request.uri().path();
    if path == "/invocations" {
        return invocations(&reactor, request).await;
    }
    if path.starts_with("/v2/models/") {
        return of_model(&reactor, request).await;
    }
    if path == feedback::PATH {
        return feedback::handle(&reactor, request).await;
    }
    if path.starts_with("/v2/repository/") {
        return repository::answer(&reactor, request).await;
    }
    if openai::is_ours(path) {
        return openai::handle(&reactor, request).await;
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
            | "/v1/models" | "/v2/models" | "/metrics" => wrong_method("GET", Protocol::Oip),
            _ => nothing(path),
        };
    }
    let view = match testers::view(&reactor, request.headers()) {
        Ok(view) => view,
        Err((status, message)) => return failed(status, &message, Protocol::Oip),
    };
    of_gateway(&reactor, path, view.as_ref())
}

/// Questions about the gateway as a whole; for a tester, about the one side of the one model.
fn of_gateway(reactor: &Reactor, path: &str, view: Option<&View>) -> Reply {
    let names = || view.map_or_else(|| reactor.model_names(), |view| vec![view.route.model.to_string()]);
    let ready = view.is_some() || reactor.is_ready();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    match path {
        "/v2/health/live" => json(StatusCode::OK, Bytes::from_static(b"{\"live\":true}")),
        "/v2/health/ready" => json(status, format!("{{\"ready\":{ready}}}")),
        "/ping" | "/health" => json(status, Bytes::from_static(b"\n")),
        "/version" => answer::text(StatusCode::OK, TEXT, VERSION),
        "/v1/models" => tfs::list(&names()),
        "/v2" | "/v2/" => json(StatusCode::OK, server_metadata(VERSION)),
        "/v2/models" => json(StatusCode::OK, repository::models(&names())),
        "/metrics" if view.is_some() => {
            let message = "metrics are the whole gateway's: ask for them without a preview token or a side";
            failed(StatusCode::BAD_REQUEST, message, Protocol::Oip)
        }
        "/metrics" => answer::text(StatusCode::OK, "text/plain; version=0.0.4", reactor.metrics()),
        _ => nothing(path),
    }
}

fn nothing(path: &str) -> Reply {
    let message = format!(
        "there is nothing at `{}`; predictions are at /v2/models/MODEL/infer, /v1/models/MODEL:predict and /invocations, and what came of them goes to /feedback",
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
    let names = match testers::model_names(reactor, request.headers()) {
        Ok(names) => names,
        Err((status, message)) => return failed(status, &message, Protocol::Mlflow),
    };
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
    // Triton's path for the statistics of all; a model of that name is still reached by its other paths.
    if request.uri().path() == "/v2/models/stats" && request.method() == Method::GET {
        return stats(reactor, request.headers(), None);
    }
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
        Verb::Metadata | Verb::Ready | Verb::Config | Verb::Stats
            if !matches!(*request.method(), Method::GET | Method::HEAD) =>
        {
            wrong_method("GET", Protocol::Oip)
        }
        Verb::Stats => stats(reactor, request.headers(), Some((&model, version))),
        Verb::Metadata | Verb::Ready | Verb::Config => {
            let path = request.uri().path_and_query().cloned();
            let path = path.unwrap_or_else(|| PathAndQuery::from_static("/"));
            ask(reactor, &request, path, &model, version).await
        }
    }
}

fn stats(reactor: &Reactor, from: &HeaderMap, which: Option<(&str, Option<u64>)>) -> Reply {
    match statistics::of(reactor, from, which) {
        Ok(found) => json(StatusCode::OK, statistics::to_json(&found)),
        Err((status, message)) => failed(status, &message, Protocol::Oip),
    }
}

/// A question about a model, which is no prediction: the side that serves answers it.
pub(crate) async fn ask(
    reactor: &Rc<Reactor>,
    request: &Request<Incoming>,
    path: PathAndQuery,
    model: &str,
    version: Option<u64>,
) -> Reply {
    let headers = attempt::forwarded(request.headers());
    let (status, kind, body) = answered(reactor, request.headers(), model, version, path, headers).await;
    let mut reply = Reply::new(Stream::whole(body));
    *reply.status_mut() = status;
    if let Some(kind) = kind {
        reply.headers_mut().insert(CONTENT_TYPE, kind);
    }
    reply
}

/// The same by the model's name alone: `what` is the rest of the path, `from` the headers of whoever asks. Gives the whole
/// answer.
pub(crate) async fn question(
    reactor: &Rc<Reactor>,
    from: &HeaderMap,
    model: &str,
    version: Option<u64>,
    what: &str,
) -> (StatusCode, Bytes) {
    let version_path = version.map(|v| format!("/versions/{v}")).unwrap_or_default();
    let path = format!("/v2/models/{}{version_path}{what}", encode(model));
    // Any name that is encoded is a path.
    let path = PathAndQuery::try_from(path).unwrap_or_else(|_| PathAndQuery::from_static("/"));
    let (status, _, body) = answered(reactor, from, model, version, path, HeaderMap::new()).await;
    (status, body)
}

async fn answered(
    reactor: &Rc<Reactor>,
    from: &HeaderMap,
    model: &str,
    version: Option<u64>,
    path: PathAndQuery,
    headers: HeaderMap,
) -> (StatusCode, Option<HeaderValue>, Bytes) {
    let refused = |status, message: String| {
        let kind = HeaderValue::from_static("application/json");
        (status, Some(kind), answer::error_body(status, &message, Protocol::Oip))
    };
    let protocol = if tfs::is_ours(path.path()) { Protocol::Tfs } else { Protocol::Oip };
    let Some(route) = reactor.route(model) else {
        let message = format!("there is no model `{}` in this environment", shown(model));
        return refused(StatusCode::NOT_FOUND, message);
    };
    let forced = match testers::asked(reactor, &route, from, version) {
        Ok(forced) => forced,
        Err((status, message)) => return refused(status, message),
    };
    let mut role = Role::Baseline;
    if let Some(version) = version {
        match route.open_to_users().find(|s| s.model_version == version) {
            Some(side) => role = side.role,
            None if forced.is_some() => {}
            None => {
                let message = format!("model `{}` has no version {version} here", shown(model));
                return refused(StatusCode::NOT_FOUND, message);
            }
        }
    }
    let payload = Payload::Whole(Bytes::new());
    let out = Outbound { method: Method::GET, path, headers, payload, protocol };
    let outcome = match forced {
        Some(forced) => attempt::send_only(reactor, model, &forced.side.revision, &out).await,
        None => attempt::send(reactor, model, role, &out).await,
    };
    match outcome.end {
        End::Answered(answered) => match answered.body {
            Answer::Whole(bytes) => {
                (answered.parts.status, answered.parts.headers.get(CONTENT_TYPE).cloned(), bytes)
            }
            // What a model says of itself is short.
            Answer::Streaming(..) | Answer::Events(..) => {
                let message = format!("what model `{}` says of itself is too large", shown(model));
                refused(StatusCode::BAD_GATEWAY, message)
            }
        },
        _ => {
            let message = format!("no worker of model `{}` can be reached", shown(model));
            refused(StatusCode::SERVICE_UNAVAILABLE, message)
        }
    }
}
