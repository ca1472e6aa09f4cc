//! `registered-models/…`

use crate::call::{Answer, Call};
use crate::error::MlflowError;
use crate::filter::{self, Noun};
use crate::page::{Limit, Part};
use crate::wire::{self, registry as shown};
use axum::routing::{delete, get, patch, post};
use axum::{Json, Router};
use lockgate_control::tracking::{
    Clause, Comparator, Field, ModelVersion, NewRegisteredModel, Operand, Search, Tracking, VersionStage,
};
use serde_json::json;

pub(super) fn routes() -> Router<Tracking> {
    Router::new()
        .route("/registered-models/create", post(create))
        .route("/registered-models/get", get(by_name))
        .route("/registered-models/search", get(search))
        .route("/registered-models/update", patch(update))
        .route("/registered-models/rename", post(rename))
        .route("/registered-models/delete", delete(remove))
        .route("/registered-models/get-latest-versions", post(latest).get(latest))
        .route("/registered-models/set-tag", post(set_tag))
        .route("/registered-models/delete-tag", delete(delete_tag))
        .route("/registered-models/alias", post(set_alias).get(by_alias).delete(delete_alias))
}

async fn create(Call { tracking, actor, message }: Call) -> Answer {
    let new = NewRegisteredModel {
        name: message.required("name")?,
        description: message.text("description")?,
        tags: message.pairs("tags")?,
    };
    let model = tracking.create_registered_model(&actor, new).await?;
    Ok(Json(json!({"registered_model": shown::model(&model)})))
}

async fn by_name(Call { tracking, actor, message }: Call) -> Answer {
    let model = tracking.registered_model(&actor, &message.required("name")?).await?;
    Ok(Json(json!({"registered_model": shown::model(&model)})))
}

/// Reads a filter; prompts, which are registered models to the protocol, are found only by who asks for them.
pub(super) fn without_prompts(noun: Noun, text: &str) -> Result<Vec<Clause>, MlflowError> {
    let mut clauses = filter::clauses(noun, text)?;
    let prompts = Field::Tag(filter::IS_PROMPT.to_owned());
    if !clauses.iter().any(|clause| clause.field == prompts) {
        let operand = Operand::Text("true".to_owned());
        clauses.push(Clause { field: prompts, comparator: Comparator::Lacks, operand });
    }
    Ok(clauses)
}

async fn search(Call { tracking, actor, message }: Call) -> Answer {
    let part = Part::read(&message, 100, Limit::of_models())?;
    let search = Search {
        clauses: without_prompts(Noun::RegisteredModel, &message.text_or_empty("filter")?)?,
        order: filter::orders(Noun::RegisteredModel, &message.texts("order_by")?)?,
        datasets: Vec::new(),
        page: part.page(),
    };
    let mut found = tracking.search_registered_models(&actor, search).await?;
    let token = part.cut(&mut found);
    Ok(Json(wire::page("registered_models", found.iter().map(shown::model).collect(), token)))
}

async fn update(Call { tracking, actor, message }: Call) -> Answer {
    let name = message.required("name")?;
    let model = tracking.describe_registered_model(&actor, &name, message.text("description")?).await?;
    Ok(Json(json!({"registered_model": shown::model(&model)})))
}

async fn rename(Call { tracking, actor, message }: Call) -> Answer {
    let (name, new) = (message.required("name")?, message.required("new_name")?);
    let model = tracking.rename_registered_model(&actor, &name, &new).await?;
    Ok(Json(json!({"registered_model": shown::model(&model)})))
}

async fn remove(Call { tracking, actor, message }: Call) -> Answer {
    tracking.delete_registered_model(&actor, &message.required("name")?).await?;
    Ok(Json(json!({})))
}

async fn latest(Call { tracking, actor, message }: Call) -> Answer {
    let name = message.required("name")?;
    // A model that isn't there is told before a stage that isn't.
    let all = tracking.newest_versions(&actor, &name, &[]).await?;
    let stages =
        message.texts("stages")?.iter().map(|stage| read_stage(stage)).collect::<Result<Vec<_>, _>>()?;
    let wanted = |version: &&ModelVersion| {
        stages.is_empty() || stages.iter().any(|stage| stage.as_str() == version.stage)
    };
    Ok(Json(wire::page("model_versions", all.iter().filter(wanted).map(shown::version).collect(), None)))
}

/// A stage by its name.
pub(super) fn read_stage(name: &str) -> Result<VersionStage, MlflowError> {
    VersionStage::read(name).ok_or_else(|| {
        let all = VersionStage::ALL.map(VersionStage::as_str).join(", ");
        MlflowError::invalid(format!("Invalid Model Version stage: {name}. Value must be one of {all}."))
    })
}

async fn set_tag(Call { tracking, actor, message }: Call) -> Answer {
    tracking.set_registered_model_tag(&actor, &message.required("name")?, message.pair()?).await?;
    Ok(Json(json!({})))
}

async fn delete_tag(Call { tracking, actor, message }: Call) -> Answer {
    let (name, key) = (message.required("name")?, message.required("key")?);
    tracking.delete_registered_model_tag(&actor, &name, &key).await?;
    Ok(Json(json!({})))
}

async fn set_alias(Call { tracking, actor, message }: Call) -> Answer {
    let (name, alias) = (message.required("name")?, message.required("alias")?);
    tracking.set_alias(&actor, &name, &alias, &message.required("version")?).await?;
    Ok(Json(json!({})))
}

async fn by_alias(Call { tracking, actor, message }: Call) -> Answer {
    let (name, alias) = (message.required("name")?, message.required("alias")?);
    let version = tracking.version_by_alias(&actor, &name, &alias).await?;
    Ok(Json(json!({"model_version": shown::version(&version)})))
}

async fn delete_alias(Call { tracking, actor, message }: Call) -> Answer {
    let (name, alias) = (message.required("name")?, message.required("alias")?);
    tracking.delete_alias(&actor, &name, &alias).await?;
    Ok(Json(json!({})))
}
