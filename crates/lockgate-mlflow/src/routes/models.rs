//! `logged-models/…`

use crate::call::{Answer, Call};
use crate::error::MlflowError;
use crate::filter::{self, Noun};
use crate::message::Message;
use crate::page::{Bound, Limit, Part};
use crate::wire::{self, runs::logged_model};
use axum::extract::Path;
use axum::routing::{delete, get, patch, post};
use axum::{Json, Router};
use lockgate_control::tracking::{MeasuredOn, ModelStatus, NewLoggedModel, Order, Search, Tracking};
use serde_json::{Value, json};

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

async fn by_id(Path(id): Path<String>, Call { tracking, actor, message }: Call) -> Answer {
    // A parameter of the URL that no message of MLflow's has.
    let also_deleted = message.text("allow_deleted")?.is_some_and(|said| said.eq_ignore_ascii_case("true"));
    let model = match also_deleted {
        true => tracking.any_logged_model(&actor, &id).await?,
        false => tracking.logged_model(&actor, &id).await?,
    };
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

/// A dataset's name and digest, where they are given.
fn dataset(message: &Message) -> Result<(Option<String>, Option<String>), MlflowError> {
    let name = message.text("dataset_name")?.filter(|name| !name.is_empty());
    let digest = message.text("dataset_digest")?.filter(|digest| !digest.is_empty());
    Ok((name, digest))
}

fn order(message: &Message) -> Result<Order, MlflowError> {
    let (name, digest) = dataset(message)?;
    Ok(Order {
        field: filter::order_field(&message.required("field_name")?)?,
        ascending: message.flag("ascending")?.unwrap_or(true),
        dataset: (name.is_some() || digest.is_some()).then_some(MeasuredOn { name, digest }),
    })
}

/// An order as a page token keeps it.
fn shown(message: &Message) -> Result<Value, MlflowError> {
    let (name, digest) = dataset(message)?;
    let (field, ascending) = (message.required("field_name")?, message.flag("ascending")?.unwrap_or(true));
    Ok(json!({"field_name": field, "ascending": ascending, "dataset_name": name, "dataset_digest": digest}))
}

/// What a page token is good for: this query only.
fn query(message: &Message) -> Result<Bound, MlflowError> {
    let all = |name: &str| message.messages(name);
    let datasets = all("datasets")?.iter().map(dataset).collect::<Result<Vec<_>, _>>()?;
    let order = all("order_by")?.iter().map(shown).collect::<Result<Vec<_>, _>>()?;
    Ok(vec![
        (("experiment_ids", "Experiment IDs"), json!(message.texts("experiment_ids")?)),
        (("filter_string", "Filter string"), json!(message.text_or_empty("filter")?)),
        (("order_by", "Order by"), json!(order)),
        (("datasets", "Datasets"), json!(datasets)),
    ])
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
            let (name, digest) = dataset(one)?;
            let name = name.ok_or_else(|| {
                MlflowError::invalid("`dataset_name` in the `datasets` clause must be specified.")
            })?;
            Ok((name, digest))
        })
        .collect::<Result<Vec<_>, MlflowError>>()?;
    let order = message.messages("order_by")?.iter().map(order).collect::<Result<Vec<_>, _>>()?;
    let part = Part::bound(&message, 50, Limit::of_logged_models(), query(&message)?)?;
    let search =
        Search { clauses: filter::clauses(Noun::LoggedModel, &text)?, order, datasets, page: part.page() };
    let mut found = tracking.search_logged_models(&actor, &experiments, search).await?;
    let token = part.cut(&mut found);
    Ok(Json(wire::page("models", found.iter().map(logged_model).collect(), token)))
}
