//! Calls about the server and its models.

use super::config;
use super::message::{
    Duration, Health, HealthQuestion, Index, IndexEntry, IndexQuestion, InferStatistics, ModelQuestion,
    ModelStatistics, ServerMetadata, Statistics, Yes,
};
use super::status::Status;
use crate::handle::{VERSION, question};
use crate::reactor::Reactor;
use crate::testers::{self, Refused, View};
use crate::{repository, statistics};
use hyper::StatusCode;
use hyper::header::HeaderMap;
use lockgate_wire::oip::EXTENSIONS;
use lockgate_wire::tensor::shown;
use prost::Message;
use serde_json::Value;
use std::rc::Rc;

/// Answers one call of the service.
pub(super) async fn answer(
    reactor: &Rc<Reactor>,
    from: &HeaderMap,
    method: &str,
    message: &[u8],
) -> Result<Vec<u8>, Status> {
    match method {
        "ServerLive" => view(reactor, from).map(|_| Yes { yes: true }.encode_to_vec()),
        "ServerReady" => {
            let yes = view(reactor, from)?.is_some() || reactor.is_ready();
            Ok(Yes { yes }.encode_to_vec())
        }
        "ServerMetadata" => view(reactor, from).map(|_| server().encode_to_vec()),
        "ModelReady" => {
            let (model, version) = named(message)?;
            let yes = match ask(reactor, from, &model, version, "/ready").await {
                Ok(_) => true,
                // Who may not ask is told so: a no would be believed.
                Err(refused) if refused.is_refusal() => return Err(refused),
                Err(_) => false,
            };
            Ok(Yes { yes }.encode_to_vec())
        }
        "ModelMetadata" => {
            let (model, version) = named(message)?;
            Ok(config::metadata(&ask(reactor, from, &model, version, "").await?).encode_to_vec())
        }
        "ModelConfig" => {
            let (model, version) = named(message)?;
            Ok(config::config(&ask(reactor, from, &model, version, "/config").await?).encode_to_vec())
        }
        "ModelStatistics" => stats(reactor, from, message),
        "RepositoryIndex" => {
            let asked: IndexQuestion = decode(message)?;
            Ok(index(reactor, view(reactor, from)?.as_ref(), asked.ready).encode_to_vec())
        }
        "RepositoryModelLoad" | "RepositoryModelUnload" => Err(Status::precondition(repository::REFUSED)),
        _ => Err(Status::unimplemented(method)),
    }
}

/// `grpc.health.v1.Health/Check`: of the server, of the service, or of a model by its name.
pub(super) fn health(reactor: &Reactor, from: &HeaderMap, message: &[u8]) -> Result<Vec<u8>, Status> {
    let HealthQuestion { service } = decode(message)?;
    let serving = match service.as_str() {
        "" | "inference.GRPCInferenceService" | "grpc.health.v1.Health" => {
            view(reactor, from)?.is_some() || reactor.is_ready()
        }
        model => {
            let unknown = || Status::not_found(format!("there is no service or model `{}`", shown(model)));
            let route = reactor.route(model).ok_or_else(unknown)?;
            let forced = testers::asked(reactor, &route, from, None).map_err(refused)?;
            forced.is_some() || route.sides().any(|side| !side.workers.is_empty())
        }
    };
    Ok(Health { status: if serving { 1 } else { 2 } }.encode_to_vec())
}

/// The side that a tester's question is about that names no model.
fn view(reactor: &Reactor, from: &HeaderMap) -> Result<Option<View>, Status> {
    testers::view(reactor, from).map_err(refused)
}

fn refused((status, message): Refused) -> Status {
    Status::of_http(status, message)
}

fn decode<M: Message + Default>(message: &[u8]) -> Result<M, Status> {
    M::decode(message).map_err(|_| Status::invalid("the message is no valid protobuf"))
}

/// The model that a question names, and its version where it names one.
fn named(message: &[u8]) -> Result<(String, Option<u64>), Status> {
    let ModelQuestion { name, version } = decode(message)?;
    if version.is_empty() {
        return Ok((name, None));
    }
    let wrong = || {
        let text = format!("`{}` is no model version; versions are whole numbers", shown(&version));
        Status::not_found(text)
    };
    Ok((name, Some(version.parse().map_err(|_| wrong())?)))
}

/// A worker's answer about its model.
async fn ask(
    reactor: &Rc<Reactor>,
    from: &HeaderMap,
    model: &str,
    version: Option<u64>,
    what: &str,
) -> Result<Value, Status> {
    let (status, body) = question(reactor, from, model, version, what).await;
    let value: Value = serde_json::from_slice(&body).unwrap_or_default();
    if status == StatusCode::OK {
        return Ok(value);
    }
    Err(Status::of_http(status, value["error"].as_str().unwrap_or("the model gave no answer")))
}

fn server() -> ServerMetadata {
    ServerMetadata {
        name: "lockgate".to_owned(),
        version: VERSION.to_owned(),
        extensions: EXTENSIONS.map(str::to_owned).to_vec(),
    }
}

fn stats(reactor: &Reactor, from: &HeaderMap, message: &[u8]) -> Result<Vec<u8>, Status> {
    let (model, version) = named(message)?;
    let which = Some((model.as_str(), version)).filter(|(model, _)| !model.is_empty());
    let found = statistics::of(reactor, from, which).map_err(refused)?;
    let one = |s: &statistics::ModelStatistics| {
        let [success, fail, queue, compute_input, compute_infer, compute_output, cache_hit, cache_miss] =
            s.durations().map(|(_, count, ns)| Some(Duration { count, ns }));
        ModelStatistics {
            name: s.name.clone(),
            version: s.version.clone(),
            last_inference: s.served.last_ms,
            inference_count: s.served.rows,
            execution_count: s.served.good,
            inference_stats: Some(InferStatistics {
                success,
                fail,
                queue,
                compute_input,
                compute_infer,
                compute_output,
                cache_hit,
                cache_miss,
            }),
        }
    };
    Ok(Statistics { model_stats: found.iter().map(one).collect() }.encode_to_vec())
}

fn index(reactor: &Reactor, view: Option<&View>, only_ready: bool) -> Index {
    let entry = |e: repository::Entry| IndexEntry {
        state: e.state().to_owned(),
        reason: e.reason.to_owned(),
        name: e.name,
        version: e.version,
    };
    Index { models: repository::index(reactor, view, only_ready).into_iter().map(entry).collect() }
}
