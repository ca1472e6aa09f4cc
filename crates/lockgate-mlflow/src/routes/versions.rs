//! `model-versions/…`

use super::registry::{read_stage, without_prompts};
use crate::call::{Answer, Call};
use crate::error::MlflowError;
use crate::filter::{self, Noun};
use crate::page::{Limit, Part};
use crate::wire::{self, registry as shown};
use axum::routing::{delete, get, patch, post};
use axum::{Json, Router};
use lockgate_control::tracking::{NewModelVersion, Search, Tracking, VersionStage};
use serde_json::json;

pub(super) fn routes() -> Router<Tracking> {
    Router::new()
        .route("/model-versions/create", post(create))
        .route("/model-versions/get", get(by_number))
        .route("/model-versions/get-download-uri", get(download_uri))
        .route("/model-versions/search", get(search))
        .route("/model-versions/update", patch(update))
        .route("/model-versions/delete", delete(remove))
        .route("/model-versions/set-tag", post(set_tag))
        .route("/model-versions/delete-tag", delete(delete_tag))
        .route("/model-versions/transition-stage", post(transition))
}

async fn create(Call { tracking, actor, message }: Call) -> Answer {
    let new = NewModelVersion {
        name: message.required("name")?,
        source: message.required("source")?,
        run_id: message.text_or_empty("run_id")?,
        model_id: message.text_or_empty("model_id")?,
        run_link: message.text("run_link")?,
        description: message.text("description")?,
        tags: message.pairs("tags")?,
    };
    let version = tracking.create_model_version(&actor, new).await?;
    Ok(Json(json!({"model_version": shown::version(&version)})))
}

async fn by_number(Call { tracking, actor, message }: Call) -> Answer {
    let (name, version) = (message.required("name")?, message.required("version")?);
    let version = tracking.model_version(&actor, &name, &version).await?;
    Ok(Json(json!({"model_version": shown::version(&version)})))
}

async fn download_uri(Call { tracking, actor, message }: Call) -> Answer {
    let (name, version) = (message.required("name")?, message.required("version")?);
    let location = tracking.model_version_location(&actor, &name, &version).await?;
    Ok(Json(json!({"artifact_uri": location})))
}

async fn search(Call { tracking, actor, message }: Call) -> Answer {
    let part = Part::read(&message, 200_000, Limit::of_versions())?;
    let search = Search {
        clauses: without_prompts(Noun::ModelVersion, &message.text_or_empty("filter")?)?,
        order: filter::orders(Noun::ModelVersion, &message.texts("order_by")?)?,
        datasets: Vec::new(),
        page: part.page(),
    };
    let mut found = tracking.search_model_versions(&actor, search).await?;
    let token = part.cut(&mut found);
    Ok(Json(wire::page("model_versions", found.iter().map(shown::version).collect(), token)))
}

async fn update(Call { tracking, actor, message }: Call) -> Answer {
    let (name, version) = (message.required("name")?, message.required("version")?);
    let description = message.text("description")?;
    let version = tracking.describe_model_version(&actor, &name, &version, description).await?;
    Ok(Json(json!({"model_version": shown::version(&version)})))
}

async fn remove(Call { tracking, actor, message }: Call) -> Answer {
    let (name, version) = (message.required("name")?, message.required("version")?);
    tracking.delete_model_version(&actor, &name, &version).await?;
    Ok(Json(json!({})))
}

async fn set_tag(Call { tracking, actor, message }: Call) -> Answer {
    let (name, version) = (message.required("name")?, message.required("version")?);
    tracking.set_model_version_tag(&actor, &name, &version, message.pair()?).await?;
    Ok(Json(json!({})))
}

async fn delete_tag(Call { tracking, actor, message }: Call) -> Answer {
    let (name, version) = (message.required("name")?, message.required("version")?);
    tracking.delete_model_version_tag(&actor, &name, &version, &message.required("key")?).await?;
    Ok(Json(json!({})))
}

/// Stages are MLflow's old way of what promotions do here: where one says what an environment serves, only promotions move it.
async fn transition(Call { tracking, actor, message }: Call) -> Answer {
    let (name, version) = (message.required("name")?, message.required("version")?);
    let (word, archive) = (message.required("stage")?, message.flag("archive_existing_versions")?);
    let (stage, archive) = (read_stage(&word)?, archive.unwrap_or(false));
    if archive && !matches!(stage, VersionStage::Staging | VersionStage::Production) {
        // Stock answers 500, which its own client takes for a reason to try seven times more.
        return Err(MlflowError::invalid(format!(
            "Model version transition cannot archive existing model versions because '{word}' is not an Active stage. \
             Valid stages are ['Staging', 'Production']"
        )));
    }
    let version = tracking.transition_stage(&actor, &name, &version, stage, archive).await?;
    Ok(Json(json!({"model_version": shown::version(&version)})))
}
