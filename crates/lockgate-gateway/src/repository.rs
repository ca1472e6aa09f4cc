//! Which models there are, as the protocol's repository: what is loaded follows from promotions alone.

use crate::answer::{Reply, failed, json, wrong_method};
use crate::body::{self, Read};
use crate::log::Protocol;
use crate::reactor::Reactor;
use crate::table::{Route, Side};
use crate::testers::{self, View};
use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use lockgate_core::route::Role;
use lockgate_wire::tensor::shown;
use serde_json::Value;
use std::rc::Rc;

/// The largest question about the repository.
const QUESTION_MAX: usize = 64 << 10;

/// What loading and unloading by hand is answered.
pub(crate) const REFUSED: &str = "models are not loaded or unloaded by hand here: what serves follows from promotions \
    (lockgate promote RELEASE --env ENVIRONMENT)";

/// One version of one model.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) ready: bool,
    /// Why it gets no requests, where that is so.
    pub(crate) reason: &'static str,
}

impl Entry {
    pub(crate) fn state(&self) -> &'static str {
        if self.ready { "READY" } else { "UNAVAILABLE" }
    }
}

/// All versions that are routed, or the one that a tester's requests go to; only those that are ready, where asked for.
pub(crate) fn index(reactor: &Reactor, view: Option<&View>, only_ready: bool) -> Vec<Entry> {
    let mut found: Vec<Entry> = Vec::new();
    let mut add = |route: &Route, side: &Side| {
        let (name, version) = (route.model.to_string(), side.model_version.to_string());
        let ready = !side.workers.is_empty();
        let reason = match side.role {
            _ if !ready => "it has no worker yet",
            Role::Baseline | Role::Candidate => "",
            Role::Backup => "it stands by as the backup",
        };
        if !found.iter().any(|e| e.name == name && e.version == version) {
            found.push(Entry { name, version, ready, reason });
        }
    };
    match view {
        Some(View { route, side }) => add(route, side),
        None => {
            for route in reactor.model_names().iter().filter_map(|name| reactor.route(name)) {
                route.open_to_users().for_each(|side| add(&route, side));
            }
        }
    }
    found.retain(|e| e.ready || !only_ready);
    found
}

/// The body of `GET /v2/models`.
pub(crate) fn models(names: &[String]) -> String {
    serde_json::json!({"models": names}).to_string()
}

/// `POST /v2/repository/index` and `POST /v2/repository/models/{model}/load|unload`.
pub(crate) async fn answer(reactor: &Rc<Reactor>, request: Request<Incoming>) -> Reply {
    let path = request.uri().path();
    let by_hand = path.strip_prefix("/v2/repository/models/").and_then(|rest| rest.rsplit_once('/'));
    let by_hand =
        by_hand.is_some_and(|(model, verb)| !model.contains('/') && matches!(verb, "load" | "unload"));
    if !by_hand && path != "/v2/repository/index" {
        let message = format!("there is nothing at `{}`", shown(path));
        return failed(StatusCode::NOT_FOUND, &message, Protocol::Oip);
    }
    if request.method() != Method::POST {
        return wrong_method("POST", Protocol::Oip);
    }
    if by_hand {
        return failed(StatusCode::BAD_REQUEST, REFUSED, Protocol::Oip);
    }
    let view = match testers::view(reactor, request.headers()) {
        Ok(view) => view,
        Err((status, message)) => return failed(status, &message, Protocol::Oip),
    };
    let bad = |message: &str| failed(StatusCode::BAD_REQUEST, message, Protocol::Oip);
    let timeout = reactor.options.body_timeout;
    let mut body = request.into_body();
    let question = match tokio::time::timeout(timeout, body::read(&mut body, QUESTION_MAX)).await {
        Err(_) => {
            return failed(StatusCode::REQUEST_TIMEOUT, "the body didn't arrive in time", Protocol::Oip);
        }
        Ok(Err(broken)) => return bad(&broken.to_string()),
        Ok(Ok(Read::Start(_))) => {
            body::discard(body);
            return failed(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large", Protocol::Oip);
        }
        Ok(Ok(Read::Whole(bytes))) => bytes,
    };
    // Some clients send no body at all.
    let asked =
        if question.trim_ascii().is_empty() { Ok(Value::Null) } else { serde_json::from_slice(&question) };
    let only_ready = match asked.as_ref().map(|v: &Value| v.get("ready")) {
        Err(error) => return bad(&format!("the body is no JSON: {error}")),
        Ok(None) => false,
        Ok(Some(Value::Bool(ready))) => *ready,
        Ok(Some(_)) => return bad("ready: true or false was expected"),
    };
    let list: Vec<Value> = index(reactor, view.as_ref(), only_ready)
        .iter()
        .map(|e| serde_json::json!({"name": e.name, "version": e.version, "state": e.state(), "reason": e.reason}))
        .collect();
    json(StatusCode::OK, Value::from(list).to_string())
}
