//! Paths to answers.

use super::answer::{Dialect, Reply, failed, json};
use super::body::Payload;
use super::model::Model;
use super::{infer, tfs};
use bytes::Bytes;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, StatusCode};
use lockgate_wire::oip::{ModelPath, Verb, grpc, server_metadata};
use lockgate_wire::tfs::TfsPath;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Answers one request.
pub(super) async fn answer<B: Payload>(model: &Model, ready: bool, request: Request<B>) -> Reply {
    let get = matches!(*request.method(), Method::GET | Method::HEAD);
    let path = request.uri().path();
    let ready = ready && !model.pool.hangs();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    match path {
        "/invocations" if request.method() == Method::POST => return infer::mlflow(model, request).await,
        grpc::INFER_PATH if request.method() == Method::POST => return infer::message(model, request).await,
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
            return json(StatusCode::OK, server_metadata(VERSION));
        }
        "/v2/health/live" | "/v2/health/ready" | "/ping" | "/health" | "/version" | "/v2" | "/v2/" => {
            return wrong_method("GET", Dialect::Oip);
        }
        _ => {}
    }
    if path.get(..TfsPath::PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(TfsPath::PREFIX)) {
        return tfs::answer(model, ready, request).await;
    }
    let verb = match of_model(model, path) {
        Ok(verb) => verb,
        Err(message) => return failed(StatusCode::NOT_FOUND, &message, Dialect::Oip),
    };
    match verb {
        Verb::Infer if request.method() == Method::POST => infer::oip(model, request).await,
        Verb::Infer => wrong_method("POST", Dialect::Oip),
        Verb::Metadata | Verb::Ready | Verb::Config | Verb::Stats if !get => {
            wrong_method("GET", Dialect::Oip)
        }
        Verb::Metadata => json(StatusCode::OK, model.metadata.clone()),
        Verb::Config => json(StatusCode::OK, model.config.clone()),
        Verb::Stats => {
            let message = "a worker keeps no statistics; ask the gateway";
            failed(StatusCode::NOT_FOUND, message, Dialect::Oip)
        }
        Verb::Ready => {
            let name = serde_json::Value::from(model.name.as_str());
            json(status, format!("{{\"name\":{name},\"ready\":{ready}}}"))
        }
    }
}

pub(super) fn wrong_method(allowed: &'static str, dialect: Dialect) -> Reply {
    let message = format!("this path takes {allowed} only");
    let mut reply = failed(StatusCode::METHOD_NOT_ALLOWED, &message, dialect);
    reply.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    reply
}

/// What a path asks of this worker's model; a sentence where it is another one's.
fn of_model(model: &Model, path: &str) -> Result<Verb, String> {
    let asked = ModelPath::parse(path)?;
    model.is_asked(&asked.model, asked.version).map(|()| asked.verb)
}
