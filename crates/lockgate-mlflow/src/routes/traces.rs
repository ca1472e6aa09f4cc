//! `traces…`: whole traces, in the second and the third version of the interface, as clients use them.

use super::assessments;
use crate::call::{Answer, Call};
use crate::error::MlflowError;
use crate::filter::{self, Noun};
use crate::message::Message;
use crate::page::{Limit, Part};
use crate::time::{duration, time};
use crate::wire::{self, traces as shown};
use axum::extract::Path;
use axum::http::StatusCode;
use axum::routing::{get, patch, post};
use axum::{Json, Router};
use lockgate_control::tracking::{NewTrace, Search, TraceState, Tracking};
use serde_json::json;

/// What clients ask for in the second version.
pub(super) fn routes() -> Router<Tracking> {
    Router::new()
        .route("/traces/delete-traces", post(delete))
        .route("/traces/link-to-run", post(link_to_run))
        .route("/traces/link-prompts", post(link_prompts))
        .route("/traces/{id}/tags", patch(set_tag).delete(delete_tag))
}

/// What they ask for in the third.
pub(super) fn third() -> Router<Tracking> {
    Router::new()
        .route("/traces", post(start))
        .route("/traces/get", get(whole))
        .route("/traces/batchGet", get(several_whole))
        .route("/traces/batchGetInfos", post(several))
        .route("/traces/search", post(search))
        .route("/traces/delete-traces", post(delete))
        .route("/traces/{id}", get(by_id).fallback(nothing))
        .route("/traces/{id}/tags", patch(set_tag).delete(delete_tag))
}

/// Names beside `get` and `search` that this server doesn't know: no JSON, so that clients fall back.
async fn nothing() -> StatusCode {
    StatusCode::NOT_FOUND
}

async fn start(Call { tracking, actor, message }: Call) -> Answer {
    let trace = message.message("trace")?.ok_or_else(|| message.missing("trace"))?;
    let info = trace.message("trace_info")?.unwrap_or_default();
    let experiment =
        info.message("trace_location")?.map(|place| place.message("mlflow_experiment")).transpose()?;
    let experiment = experiment.flatten().unwrap_or_default();
    let new = NewTrace {
        trace_id: info.required("trace_id")?,
        experiment_id: experiment.required("experiment_id")?,
        state: state(&info)?,
        started: info.text("request_time")?.map_or(Ok(0), |text| time(&text))?,
        duration: info.text("execution_duration")?.map(|text| duration(&text)).transpose()?,
        client_request_id: info.text("client_request_id")?,
        request_preview: info.text("request_preview")?,
        response_preview: info.text("response_preview")?,
        tags: info.map("tags")?,
        metadata: info.map("trace_metadata")?,
        assessments: info.messages("assessments")?.iter().map(assessments::read).collect::<Result<_, _>>()?,
    };
    let trace = tracking.start_trace(&actor, new).await?;
    Ok(Json(json!({"trace": {"trace_info": shown::info(&trace)}})))
}

fn state(info: &Message) -> Result<TraceState, MlflowError> {
    match info.choice("state", &TraceState::ALL[1..], TraceState::as_str)? {
        Some(state) => Ok(state),
        None => Ok(TraceState::Unspecified),
    }
}

async fn by_id(Path(id): Path<String>, Call { tracking, actor, .. }: Call) -> Answer {
    let trace = tracking.trace(&actor, &id).await?;
    Ok(Json(json!({"trace": {"trace_info": shown::info(&trace)}})))
}

async fn whole(Call { tracking, actor, message }: Call) -> Answer {
    let partly = message.flag("allow_partial")?.unwrap_or(false);
    let (trace, spans) = tracking.whole_trace(&actor, &message.required("trace_id")?, partly).await?;
    Ok(Json(json!({"trace": shown::whole(&trace, &spans)})))
}

/// The ids that were asked for, and the experiments they must be of.
fn asked(message: &Message) -> Result<(Vec<String>, Option<Vec<String>>), MlflowError> {
    let ids = message.texts("trace_ids")?;
    if ids.is_empty() {
        return Err(message.missing("trace_ids"));
    }
    let experiments = message.any("experiment_ids")?.is_some();
    Ok((ids, experiments.then(|| message.texts("experiment_ids")).transpose()?))
}

async fn several_whole(Call { tracking, actor, message }: Call) -> Answer {
    let (ids, experiments) = asked(&message)?;
    let found = tracking.whole_traces(&actor, ids, experiments).await?;
    let list = found.iter().map(|(trace, spans)| shown::whole(trace, spans)).collect();
    Ok(Json(wire::page("traces", list, None)))
}

async fn several(Call { tracking, actor, message }: Call) -> Answer {
    let (ids, experiments) = asked(&message)?;
    let found = tracking.traces(&actor, ids, experiments).await?;
    Ok(Json(wire::page("trace_infos", found.iter().map(shown::info).collect(), None)))
}

/// A list must be there, but it may be empty.
fn given(message: &Message, name: &str) -> Result<(), MlflowError> {
    if message.is_set(name) { Ok(()) } else { Err(message.missing(name)) }
}

async fn search(Call { tracking, actor, message }: Call) -> Answer {
    given(&message, "locations")?;
    let locations = message.messages("locations")?;
    let mut experiments = Vec::new();
    for place in &locations {
        if let Some(experiment) = place.message("mlflow_experiment")? {
            experiments.push(experiment.text_or_empty("experiment_id")?);
        }
    }
    let part = Part::read(&message, 100, Limit::asked(500))?;
    let search = Search {
        clauses: filter::clauses(Noun::Trace, &message.text_or_empty("filter")?)?,
        order: filter::orders(Noun::Trace, &message.texts("order_by")?)?,
        datasets: Vec::new(),
        page: part.page(),
    };
    let mut found = tracking.search_traces(&actor, &experiments, search).await?;
    let token = part.cut(&mut found);
    Ok(Json(wire::page("traces", found.iter().map(shown::info).collect(), token)))
}

async fn delete(Call { tracking, actor, message }: Call) -> Answer {
    let experiment = message.required("experiment_id")?;
    let (until, most) = (message.int("max_timestamp_millis")?, message.int("max_traces")?);
    let ids = message.texts("request_ids")?;
    let deleted = tracking.delete_traces(&actor, &experiment, until, most, ids).await?;
    Ok(Json(json!({"traces_deleted": deleted})))
}

async fn set_tag(Path(id): Path<String>, Call { tracking, actor, message }: Call) -> Answer {
    tracking.set_trace_tag(&actor, &id, message.pair()?).await?;
    Ok(Json(json!({})))
}

async fn delete_tag(Path(id): Path<String>, Call { tracking, actor, message }: Call) -> Answer {
    tracking.delete_trace_tag(&actor, &id, &message.required("key")?).await?;
    Ok(Json(json!({})))
}

async fn link_to_run(Call { tracking, actor, message }: Call) -> Answer {
    given(&message, "trace_ids")?;
    let ids = message.texts("trace_ids")?;
    tracking.link_traces_to_run(&actor, ids, &message.required("run_id")?).await?;
    Ok(Json(json!({})))
}

async fn link_prompts(Call { tracking, actor, message }: Call) -> Answer {
    let trace = message.required("trace_id")?;
    given(&message, "prompt_versions")?;
    let prompts = message.messages("prompt_versions")?;
    let name = |one: &Message| Ok(format!("{}/{}", one.required("name")?, one.required("version")?));
    let names = prompts.iter().map(name).collect::<Result<Vec<_>, MlflowError>>()?;
    tracking.link_prompts_to_trace(&actor, &trace, names).await?;
    Ok(Json(json!({})))
}
