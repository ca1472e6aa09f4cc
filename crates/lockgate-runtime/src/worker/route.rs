//! Paths to answers.

use super::answer::{Dialect, Reply, failed, json};
use super::infer;
use super::model::Model;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, StatusCode};
use lockgate_wire::oip::{ModelPath, Verb};
use lockgate_wire::tensor::shown;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Answers one request.
pub(super) async fn answer(model: &Model, ready: bool, request: Request<Incoming>) -> Reply {
    let get = matches!(*request.method(), Method::GET | Method::HEAD);
    let path = request.uri().path();
    let ready = ready && !model.pool.hangs();
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

/// What a path asks of this worker's model; a sentence where it is another one's.
fn of_model(model: &Model, path: &str) -> Result<Verb, String> {
    let asked = ModelPath::parse(path)?;
    let (name, here) = (&model.name, &model.version);
    if asked.model != *name {
        return Err(format!("there is no model `{}` here; this worker serves `{name}`", shown(&asked.model)));
    }
    match asked.version {
        Some(version) if version != here => Err(format!(
            "model `{name}` has no version `{}` here; this worker serves version {here}",
            shown(version)
        )),
        _ => Ok(asked.verb),
    }
}
