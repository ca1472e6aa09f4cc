//! OpenAI's API: the model is named in the body, and answers may be streams of events, which are passed on as they come.

use crate::answer::{Reply, failed, json, wrong_method};
use crate::attempt::Payload;
use crate::body;
use crate::intake;
use crate::log::Protocol;
use crate::predict::{self, Target};
use crate::reactor::Reactor;
use crate::testers;
use crate::tfs;
use hyper::body::Incoming;
use hyper::header::CONTENT_ENCODING;
use hyper::http::uri::PathAndQuery;
use hyper::{Method, Request, StatusCode};
use lockgate_wire::openai::{Asked, model};
use lockgate_wire::tensor::shown;
use std::rc::Rc;

/// Where the API lies too, beside its usual place.
const PREFIX: &str = "/openai";

/// What is passed on.
const ENDPOINTS: [&str; 3] = ["/v1/chat/completions", "/v1/completions", "/v1/embeddings"];

/// Whether a path is one of these.
pub(crate) fn is_ours(path: &str) -> bool {
    ENDPOINTS.contains(&path) || path.strip_prefix(PREFIX).is_some_and(|rest| rest.starts_with("/v1/"))
}

fn refuse(status: StatusCode, message: &str) -> Reply {
    failed(status, message, Protocol::Openai)
}

/// Answers one request.
pub(crate) async fn handle(reactor: &Rc<Reactor>, request: Request<Incoming>) -> Reply {
    let path = request.uri().path();
    let path = path.strip_prefix(PREFIX).unwrap_or(path).to_owned();
    let get = matches!(*request.method(), Method::GET | Method::HEAD);
    let Some(endpoint) = ENDPOINTS.into_iter().find(|endpoint| *endpoint == path) else {
        return match path.strip_prefix("/v1/models") {
            Some(_) if !get => wrong_method("GET", Protocol::Openai),
            Some(name) => match testers::model_names(reactor, request.headers()) {
                Ok(names) if matches!(name, "" | "/") => tfs::list(&names),
                Ok(names) => one(&names, name.trim_start_matches('/')),
                Err((status, message)) => refuse(status, &message),
            },
            None => {
                let all = ENDPOINTS.join(", ");
                refuse(
                    StatusCode::NOT_FOUND,
                    &format!("there is nothing at `{}`; there are {all}", shown(&path)),
                )
            }
        };
    };
    if request.method() != Method::POST {
        return wrong_method("POST", Protocol::Openai);
    }
    let (parts, body) = request.into_parts();
    if parts.headers.contains_key(CONTENT_ENCODING) {
        body::discard(body);
        return refuse(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "a packed body can't be read for its `model`; send it plain",
        );
    }
    // All of it: the model's name may stand at its end.
    let most = reactor.options.max_body;
    let bytes = match intake::whole(reactor, body, most, intake::larger_than).await {
        Ok(bytes) => bytes,
        Err((status, message)) => return refuse(status, &message),
    };
    let asked = match Asked::parse(&bytes) {
        Ok(asked) => asked,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, &error.text()),
    };
    let path = PathAndQuery::from_static(endpoint);
    let target = Target { model: asked.model, version: None, path, protocol: Protocol::Openai };
    predict::forward(reactor, target, parts.method, &parts.headers, Payload::Whole(bytes)).await
}

fn one(names: &[String], name: &str) -> Reply {
    let name = lockgate_wire::oip::decode(name).unwrap_or_default();
    if names.iter().any(|known| *known == name) {
        return json(StatusCode::OK, model(&name));
    }
    refuse(StatusCode::NOT_FOUND, &format!("there is no model `{}` in this environment", shown(&name)))
}
