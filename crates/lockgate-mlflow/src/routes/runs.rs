//! `runs/…`: the runs themselves.

use super::experiments::view;
use crate::call::{Answer, Call};
use crate::error::MlflowError;
use crate::filter::{self, Noun};
use crate::page::{Limit, Part};
use crate::wire::{self, runs as shown};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use lockgate_control::tracking::{NewRun, RunStatus, Search, Tracking};
use serde_json::json;

pub(super) fn routes() -> Router<Tracking> {
    Router::new()
        .route("/runs/create", post(create))
        .route("/runs/get", get(by_id))
        .route("/runs/search", post(search))
        .route("/runs/update", post(update))
        .route("/runs/delete", post(delete))
        .route("/runs/restore", post(restore))
}

async fn create(Call { tracking, actor, message }: Call) -> Answer {
    let new = NewRun {
        experiment_id: message.required("experiment_id")?,
        start_time: message.int("start_time")?,
        name: message.text("run_name")?,
        user_id: message.text_or_empty("user_id")?,
        tags: message.pairs("tags")?,
    };
    let run = tracking.create_run(&actor, new).await?;
    Ok(Json(json!({"run": shown::new_run(&run)})))
}

async fn by_id(Call { tracking, actor, message }: Call) -> Answer {
    let run = tracking.run(&actor, &message.run_id()?).await?;
    Ok(Json(json!({"run": shown::run(&run)})))
}

async fn search(Call { tracking, actor, message }: Call) -> Result<Response, MlflowError> {
    let part = Part::read(&message, 1000, Limit::asked(50_000))?;
    let search = Search {
        clauses: filter::clauses(Noun::Run, &message.text_or_empty("filter")?)?,
        order: filter::orders(Noun::Run, &message.texts("order_by")?)?,
        datasets: Vec::new(),
        page: part.page(),
    };
    let (experiments, view) = (message.texts("experiment_ids")?, view(&message, "run_view_type")?);
    let mut found = tracking.search_runs(&actor, &experiments, view, search).await?;
    let token = part.cut(&mut found);
    Ok(wire::long_page("runs", found.iter().map(shown::run).collect(), token))
}

async fn update(Call { tracking, actor, message }: Call) -> Answer {
    let id = message.run_id()?;
    let end = message.int("end_time")?;
    // The name of an unknown status is ignored, as by MLflow's own server; a number is refused.
    let status = message.choice("status", &RunStatus::ALL, RunStatus::as_str)?;
    if status.is_none() && message.is_number("status")? {
        return Err(message.wrong("status"));
    }
    let name = message.text("run_name")?;
    let run = tracking.update_run(&actor, &id, status, end, name).await?;
    Ok(Json(json!({"run_info": shown::info(&run)})))
}

async fn delete(Call { tracking, actor, message }: Call) -> Answer {
    tracking.delete_run(&actor, &message.run_id()?).await?;
    Ok(Json(json!({})))
}

async fn restore(Call { tracking, actor, message }: Call) -> Answer {
    tracking.restore_run(&actor, &message.run_id()?).await?;
    Ok(Json(json!({})))
}
