//! TensorFlow Serving's REST API (KServe's V1, OpenAI's list of models), and SageMaker's names for a model.

use crate::answer::{Reply, failed, json, wrong_method};
use crate::handle::{ask, invoke};
use crate::log::Protocol;
use crate::predict::{self, Target};
use crate::reactor::Reactor;
use crate::table::{Route, Side};
use crate::testers;
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::http::uri::PathAndQuery;
use hyper::{Method, Request, StatusCode};
use lockgate_core::route::Role;
use lockgate_wire::json::write;
use lockgate_wire::tensor::shown;
use lockgate_wire::tfs::{self, Pick, Served, TfsPath, TfsVerb};
use std::rc::Rc;

/// Which model a request to `/invocations` is for, where it says.
const TARGET_MODEL: &str = "x-amzn-sagemaker-target-model";

/// Whether a path is one of these.
pub(crate) fn is_ours(path: &str) -> bool {
    let start = path.get(..TfsPath::PREFIX.len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(TfsPath::PREFIX))
}

fn refuse(status: StatusCode, message: &str) -> Reply {
    failed(status, message, Protocol::Tfs)
}

/// `GET /v1/models`
pub(crate) fn list(names: &[String]) -> Reply {
    json(StatusCode::OK, tfs::list(names))
}

/// Answers a path below `/v1/models/`.
pub(crate) async fn handle(reactor: &Rc<Reactor>, request: Request<Incoming>) -> Reply {
    let asked = match TfsPath::parse(request.uri().path()) {
        Ok(asked) => asked,
        Err(message) => return refuse(StatusCode::NOT_FOUND, &message),
    };
    let version = match version(reactor, &asked) {
        Ok(version) => version,
        Err(message) => return refuse(StatusCode::NOT_FOUND, &message),
    };
    let (get, post) =
        (matches!(*request.method(), Method::GET | Method::HEAD), request.method() == Method::POST);
    let (model, verb) = (asked.model.into_owned(), asked.verb);
    let path = without_label(request.uri().path_and_query(), matches!(asked.pick, Pick::Label(_)));
    match verb {
        TfsVerb::Status if get => status(reactor, request.headers(), &model, version),
        TfsVerb::Metadata if get => ask(reactor, &request, path, &model, version).await,
        TfsVerb::Status | TfsVerb::Metadata => wrong_method("GET", Protocol::Tfs),
        _ if !post => wrong_method("POST", Protocol::Tfs),
        _ => {
            predict::predict(reactor, Target { model, version, path, protocol: Protocol::Tfs }, request).await
        }
    }
}

/// The version that a path asks for. A gateway has one label: its environment's name, for whatever serves there.
fn version(reactor: &Reactor, asked: &TfsPath<'_>) -> Result<Option<u64>, String> {
    let environment = &reactor.options.environment;
    match &asked.pick {
        Pick::Any => Ok(None),
        Pick::Version(version) => Ok(Some(*version)),
        Pick::Label(label) if *label == *environment => Ok(None),
        Pick::Label(label) => Err(format!(
            "model `{}` has no label `{}` here; this environment's label is `{environment}`",
            shown(&asked.model),
            shown(label)
        )),
    }
}

/// The path as workers know it: they have no labels.
fn without_label(path: Option<&PathAndQuery>, labelled: bool) -> PathAndQuery {
    let whole = path.map_or("/", PathAndQuery::as_str);
    let plain = || {
        let (start, rest) = whole.split_at_checked(TfsPath::PREFIX.len())?;
        let (name, rest) = rest.split_once('/')?;
        let (_, label) = rest.split_once('/')?;
        let action = label.find([':', '/', '?']).map_or("", |at| &label[at..]);
        PathAndQuery::try_from(format!("{start}{name}{action}")).ok()
    };
    let plain = if labelled { plain() } else { None };
    plain.or_else(|| path.cloned()).unwrap_or_else(|| PathAndQuery::from_static("/"))
}

fn status(reactor: &Reactor, from: &HeaderMap, model: &str, version: Option<u64>) -> Reply {
    let Some(route) = reactor.route(model) else {
        let message = format!("there is no model `{}` in this environment", shown(model));
        return refuse(StatusCode::NOT_FOUND, &message);
    };
    let served: Vec<Served> = match testers::asked(reactor, &route, from, version) {
        Ok(None) => served(&route).filter(|one| version.is_none_or(|v| v == one.version)).collect(),
        Ok(Some(forced)) => vec![of_side(&forced.side)],
        Err((status, message)) => return refuse(status, &message),
    };
    match (version, served.is_empty()) {
        (Some(version), true) => {
            let message = format!("model `{}` has no version {version} here", shown(model));
            refuse(StatusCode::NOT_FOUND, &message)
        }
        _ => json(StatusCode::OK, tfs::status(model, &served)),
    }
}

/// What has users' traffic.
fn served(route: &Route) -> impl Iterator<Item = Served> {
    let served = route.open_to_users().filter(|side| side.role != Role::Backup);
    served.map(|side| of_side(side))
}

fn of_side(side: &Side) -> Served {
    Served { version: side.model_version, ready: !side.workers.is_empty() }
}

/// SageMaker's multi-model paths. What is loaded follows from promotions, so nobody loads or unloads here.
pub(crate) async fn sagemaker(reactor: &Rc<Reactor>, request: Request<Incoming>) -> Option<Reply> {
    let names = match testers::model_names(reactor, request.headers()) {
        Ok(names) => names,
        Err((status, message)) => return Some(failed(status, &message, Protocol::Mlflow)),
    };
    let rest = request.uri().path().strip_prefix("/models")?;
    let get = matches!(*request.method(), Method::GET | Method::HEAD);
    if rest.is_empty() || rest == "/" {
        return Some(if get { models(&names) } else { loading() });
    }
    let (name, invoked) = match rest.strip_prefix('/')?.split_once('/') {
        None => (rest.strip_prefix('/')?, false),
        Some((name, "invoke")) => (name, true),
        Some(_) => return None,
    };
    let name = lockgate_wire::oip::decode(name)?.into_owned();
    match (invoked, request.method()) {
        (true, &Method::POST) => Some(invoke(reactor, request, name).await),
        (true, _) => Some(wrong_method("POST", Protocol::Mlflow)),
        (false, &Method::DELETE) => Some(loading()),
        (false, _) if !get => Some(wrong_method("GET", Protocol::Mlflow)),
        (false, _) if names.contains(&name) => Some(json(StatusCode::OK, model(&name))),
        (false, _) => {
            let message = format!("there is no model `{}` in this environment", shown(&name));
            Some(failed(StatusCode::NOT_FOUND, &message, Protocol::Mlflow))
        }
    }
}

/// The model that a request to `/invocations` names in SageMaker's header.
pub(crate) fn target(request: &Request<Incoming>) -> Option<String> {
    let name = request.headers().get(TARGET_MODEL)?.to_str().ok()?;
    Some(name.trim_start_matches('/').to_owned())
}

fn loading() -> Reply {
    let message = "models are loaded and unloaded here by promotions alone: `lockgate promote`";
    failed(StatusCode::FORBIDDEN, message, Protocol::Mlflow)
}

fn models(names: &[String]) -> Reply {
    let mut body = b"{\"models\":".to_vec();
    write::list(&mut body, names, |out, name| out.extend(model(name)));
    body.push(b'}');
    json(StatusCode::OK, body)
}

fn model(name: &str) -> Vec<u8> {
    let mut body = b"{\"modelName\":".to_vec();
    write::string(&mut body, name);
    body.extend_from_slice(b",\"modelUrl\":");
    write::string(&mut body, &format!("/models/{name}"));
    body.push(b'}');
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_left_out_for_workers() {
        for (path, plain) in [
            ("/v1/models/m/labels/prod:predict", "/v1/models/m:predict"),
            ("/v1/models/m/labels/prod/metadata", "/v1/models/m/metadata"),
            ("/v1/models/a%20b/labels/prod:predict?x=1", "/v1/models/a%20b:predict?x=1"),
            ("/v1/models/m/labels/prod", "/v1/models/m"),
        ] {
            let path = PathAndQuery::from_static(path);
            assert_eq!(without_label(Some(&path), true).as_str(), plain);
        }
        let path = PathAndQuery::from_static("/v1/models/labels/versions/3:predict");
        assert_eq!(without_label(Some(&path), false), path);
    }
}
