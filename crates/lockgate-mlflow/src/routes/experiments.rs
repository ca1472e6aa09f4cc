//! `experiments/…`

use crate::call::{Answer, Call};
use crate::error::MlflowError;
use crate::filter::{self, Noun};
use crate::message::Message;
use crate::page::{Limit, Part};
use crate::wire::{self, runs::dataset_summary, runs::experiment};
use axum::routing::{get, post};
use axum::{Json, Router};
use lockgate_control::tracking::{NewExperiment, Search, Tracking, View};
use serde_json::json;

pub(super) fn routes() -> Router<Tracking> {
    Router::new()
        .route("/experiments/create", post(create))
        .route("/experiments/get", get(by_id))
        .route("/experiments/get-by-name", get(by_name))
        .route("/experiments/search", post(search).get(search))
        .route("/experiments/update", post(update))
        .route("/experiments/delete", post(delete))
        .route("/experiments/restore", post(restore))
        .route("/experiments/search-datasets", post(datasets))
        .route("/experiments/set-experiment-tag", post(set_tag))
        .route("/experiments/delete-experiment-tag", post(delete_tag))
}

/// Which of the things that can be deleted are meant.
pub(super) fn view(message: &Message, name: &str) -> Result<View, MlflowError> {
    const ALL: [View; 3] = [View::Active, View::Deleted, View::All];
    let spell = |view| match view {
        View::Active => "ACTIVE_ONLY",
        View::Deleted => "DELETED_ONLY",
        View::All => "ALL",
    };
    Ok(message.choice(name, &ALL, spell)?.unwrap_or(View::Active))
}

async fn create(Call { tracking, actor, message }: Call) -> Answer {
    let new = NewExperiment {
        name: message.required("name")?,
        artifact_location: message.text("artifact_location")?,
        tags: message.pairs("tags")?,
    };
    let id = tracking.create_experiment(&actor, new).await?;
    Ok(Json(json!({"experiment_id": id.to_string()})))
}

async fn by_id(Call { tracking, actor, message }: Call) -> Answer {
    let found = tracking.experiment(&actor, &message.required("experiment_id")?).await?;
    Ok(Json(json!({"experiment": experiment(&found)})))
}

async fn by_name(Call { tracking, actor, message }: Call) -> Answer {
    let found = tracking.experiment_named(&actor, &message.required("experiment_name")?).await?;
    Ok(Json(json!({"experiment": experiment(&found)})))
}

async fn search(Call { tracking, actor, message }: Call) -> Answer {
    // There is no default: whoever doesn't say how many gets an error, as from MLflow's own server.
    let part = Part::read(&message, 0, Limit::stored(50_000))?;
    let search = Search {
        clauses: filter::clauses(Noun::Experiment, &message.text_or_empty("filter")?)?,
        order: filter::orders(Noun::Experiment, &message.texts("order_by")?)?,
        datasets: Vec::new(),
        page: part.page(),
    };
    let mut found = tracking.search_experiments(&actor, view(&message, "view_type")?, search).await?;
    let token = part.cut(&mut found);
    Ok(Json(wire::page("experiments", found.iter().map(experiment).collect(), token)))
}

/// How many experiments' datasets can be asked for at once.
const EXPERIMENTS: usize = 20;

async fn datasets(Call { tracking, actor, message }: Call) -> Answer {
    let experiments = message.texts("experiment_ids")?;
    if experiments.is_empty() {
        return Err(MlflowError::invalid("SearchDatasets request must specify at least one experiment_id."));
    }
    if experiments.len() > EXPERIMENTS {
        return Err(MlflowError::invalid(format!(
            "SearchDatasets request cannot specify more than {EXPERIMENTS} experiment_ids. Received {} experiment_ids.",
            experiments.len()
        )));
    }
    let found = tracking.dataset_summaries(&actor, &experiments).await?;
    Ok(Json(wire::page("dataset_summaries", found.iter().map(dataset_summary).collect(), None)))
}

async fn update(Call { tracking, actor, message }: Call) -> Answer {
    let id = message.required("experiment_id")?;
    tracking.rename_experiment(&actor, &id, &message.required("new_name")?).await?;
    Ok(Json(json!({})))
}

async fn delete(Call { tracking, actor, message }: Call) -> Answer {
    tracking.delete_experiment(&actor, &message.required("experiment_id")?).await?;
    Ok(Json(json!({})))
}

async fn restore(Call { tracking, actor, message }: Call) -> Answer {
    tracking.restore_experiment(&actor, &message.required("experiment_id")?).await?;
    Ok(Json(json!({})))
}

async fn set_tag(Call { tracking, actor, message }: Call) -> Answer {
    tracking.set_experiment_tag(&actor, &message.required("experiment_id")?, message.pair()?).await?;
    Ok(Json(json!({})))
}

async fn delete_tag(Call { tracking, actor, message }: Call) -> Answer {
    let id = message.required("experiment_id")?;
    tracking.delete_experiment_tag(&actor, &id, &message.required("key")?).await?;
    Ok(Json(json!({})))
}
