//! `logged-models/…`

use crate::call::{Answer, Call};
use crate::error::MlflowError;
use crate::filter::{self, Noun};
use crate::message::Message;
use crate::page::{Limit, Part};
use crate::wire::{self, runs::logged_model};
use axum::extract::Path;
use axum::routing::{delete, get, patch, post};
use axum::{Json, Router};
use lockgate_control::tracking::{ModelStatus, NewLoggedModel, Order, Search, Tracking};
use serde_json::json;

pub(super) fn routes() -> Router<Tracking> {
    Router::new()
        .route("/logged-models", post(create))
        .route("/logged-models/search", post(search))
        .route("/logged-models/{id}", get(by_id).patch(finalize).delete(remove))
        .route("/logged-models/{id}/params", post(log_params))
        .route("/logged-models/{id}/tags", patch(set_tags))
        .route("/logged-models/{id}/tags/{key}", delete(delete_tag))
}

async fn create(Call { tracking, actor, message }: Call) -> Answer {
    let new = NewLoggedModel {
        experiment_id: message.required("experiment_id")?,
        name: message.text("name")?,
        model_type: message.text_or_empty("model_type")?,
        source_run_id: message.text_or_empty("source_run_id")?,
        params: message.free_pairs("params")?,
        tags: message.pairs("tags")?,
    };
    let model = tracking.create_logged_model(&actor, new).await?;
    Ok(Json(json!({"model": logged_model(&model)})))
}

async fn by_id(Path(id): Path<String>, Call { tracking, actor, .. }: Call) -> Answer {
    let model = tracking.logged_model(&actor, &id).await?;
    Ok(Json(json!({"model": logged_model(&model)})))
}

async fn finalize(Path(id): Path<String>, Call { tracking, actor, message }: Call) -> Answer {
    message.required("model_id")?;
    let status = message.required_choice("status", &ModelStatus::ALL, ModelStatus::as_str)?;
    let model = tracking.finalize_logged_model(&actor, &id, status).await?;
    Ok(Json(json!({"model": logged_model(&model)})))
}

async fn remove(Path(id): Path<String>, Call { tracking, actor, .. }: Call) -> Answer {
    tracking.delete_logged_model(&actor, &id).await?;
    Ok(Json(json!({})))
}

async fn log_params(Path(id): Path<String>, Call { tracking, actor, message }: Call) -> Answer {
    message.required("model_id")?;
    tracking.log_logged_model_params(&actor, &id, message.free_pairs("params")?).await?;
    Ok(Json(json!({})))
}

async fn set_tags(Path(id): Path<String>, Call { tracking, actor, message }: Call) -> Answer {
    tracking.set_logged_model_tags(&actor, &id, message.pairs("tags")?).await?;
    Ok(Json(json!({})))
}

async fn delete_tag(Path((id, key)): Path<(String, String)>, Call { tracking, actor, .. }: Call) -> Answer {
    tracking.delete_logged_model_tag(&actor, &id, &key).await?;
    Ok(Json(json!({})))
}

fn dataset(message: &Message) -> Result<Option<(String, Option<String>)>, MlflowError> {
    let name = message.text("dataset_name")?.filter(|name| !name.is_empty());
    let digest = message.text("dataset_digest")?.filter(|digest| !digest.is_empty());
    Ok(name.map(|name| (name, digest)))
}

fn order(message: &Message) -> Result<Order, MlflowError> {
    Ok(Order {
        field: filter::order_field(Noun::LoggedModel, &message.required("field_name")?)?,
        ascending: message.flag("ascending")?.unwrap_or(true),
        dataset: dataset(message)?,
    })
}

async fn search(Call { tracking, actor, message }: Call) -> Answer {
    if !message.is_set("experiment_ids") {
        return Err(message.missing("experiment_ids"));
    }
    let (experiments, text) = (message.texts("experiment_ids")?, message.text_or_empty("filter")?);
    let datasets = message
        .messages("datasets")?
        .iter()
        .map(|one| {
            dataset(one)?.ok_or_else(|| {
                MlflowError::invalid("`dataset_name` in the `datasets` clause must be specified.")
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    let order = message.messages("order_by")?.iter().map(order).collect::<Result<Vec<_>, _>>()?;
    // The token is good for this query only.
    let query = format!("{experiments:?} {text} {datasets:?} {order:?}");
    // A page of none is one of the usual size, as with MLflow's own server.
    let message =
        if message.int("max_results")? == Some(0) { message.without("max_results") } else { message };
    let part = Part::bound(&message, 50, Limit::stored(i64::from(i32::MAX)), Some(query))?;
    let search =
        Search { clauses: filter::clauses(Noun::LoggedModel, &text)?, order, datasets, page: part.page() };
    let mut found = tracking.search_logged_models(&actor, &experiments, search).await?;
    let token = part.cut(&mut found);
    Ok(Json(wire::page("models", found.iter().map(logged_model).collect(), token)))
}
