//! `runs/log-…` and `metrics/…`: what runs log.

use crate::call::{Answer, Call};
use crate::error::MlflowError;
use crate::message::Message;
use crate::page::{Limit, Part};
use crate::wire;
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use lockgate_control::tracking::{Batch, Dataset, DatasetInput, Inputs, Metric, Tracking};
use serde_json::json;

/// How many points of a metric one answer holds where the client doesn't say.
const HISTORY: i64 = 25_000;
/// The tag under which clients of MLflow 2 keep what models a run logged.
const LOGGED_MODELS: &str = "mlflow.log-model.history";

pub(super) fn routes() -> Router<Tracking> {
    Router::new()
        .route("/runs/log-batch", post(log_batch))
        .route("/runs/log-metric", post(log_metric))
        .route("/runs/log-parameter", post(log_param))
        .route("/runs/set-tag", post(set_tag))
        .route("/runs/delete-tag", post(delete_tag))
        .route("/runs/log-inputs", post(log_inputs))
        .route("/runs/outputs", post(log_outputs))
        .route("/runs/log-model", post(log_model))
        .route("/metrics/get-history", get(history))
        .route("/metrics/get-history-bulk-interval", get(histories))
}

fn metric(message: &Message) -> Result<Metric, MlflowError> {
    let dataset = message.text("dataset_name")?.filter(|name| !name.is_empty());
    let digest = message.text_or_empty("dataset_digest")?;
    let timestamp = message.int("timestamp")?;
    Ok(Metric {
        key: message.required("key")?,
        value: message.number("value")?,
        logged_at: timestamp.ok_or_else(|| message.missing("timestamp"))?,
        step: message.int("step")?.unwrap_or(0),
        dataset: dataset.map(|name| (name, digest)),
        model_id: message.text("model_id")?.filter(|id| !id.is_empty()),
        run_id: None,
    })
}

async fn log_batch(Call { tracking, actor, message }: Call) -> Answer {
    let metrics = message.messages("metrics")?.iter().map(metric).collect::<Result<_, _>>()?;
    let (params, tags) = (message.pairs("params")?, message.pairs("tags")?);
    let batch = Batch { metrics, params, tags, alone: false };
    tracking.log_batch(&actor, &message.run_id()?, batch).await?;
    Ok(Json(json!({})))
}

async fn log_metric(Call { tracking, actor, message }: Call) -> Answer {
    let batch = Batch { metrics: vec![metric(&message)?], alone: true, ..Batch::default() };
    tracking.log_batch(&actor, &message.run_id()?, batch).await?;
    Ok(Json(json!({})))
}

async fn log_param(Call { tracking, actor, message }: Call) -> Answer {
    let batch = Batch { params: vec![message.pair()?], alone: true, ..Batch::default() };
    tracking.log_batch(&actor, &message.run_id()?, batch).await?;
    Ok(Json(json!({})))
}

async fn set_tag(Call { tracking, actor, message }: Call) -> Answer {
    let batch = Batch { tags: vec![message.pair()?], alone: true, ..Batch::default() };
    tracking.log_batch(&actor, &message.run_id()?, batch).await?;
    Ok(Json(json!({})))
}

async fn delete_tag(Call { tracking, actor, message }: Call) -> Answer {
    tracking.delete_run_tag(&actor, &message.run_id()?, &message.required("key")?).await?;
    Ok(Json(json!({})))
}

fn dataset_input(message: &Message) -> Result<DatasetInput, MlflowError> {
    let dataset = message.message("dataset")?.unwrap_or_default();
    Ok(DatasetInput {
        dataset: Dataset {
            name: dataset.required("name")?,
            digest: dataset.required("digest")?,
            source_type: dataset.required("source_type")?,
            source: dataset.required("source")?,
            schema: dataset.text("schema")?,
            profile: dataset.text("profile")?,
        },
        tags: message.pairs("tags")?,
    })
}

async fn log_inputs(Call { tracking, actor, message }: Call) -> Answer {
    let datasets = message.messages("datasets")?.iter().map(dataset_input).collect::<Result<_, _>>()?;
    let models = message.messages("models")?;
    let models = models.iter().map(|model| model.required("model_id")).collect::<Result<_, _>>()?;
    tracking.log_inputs(&actor, &message.run_id()?, Inputs { datasets, models }).await?;
    Ok(Json(json!({})))
}

async fn log_outputs(Call { tracking, actor, message }: Call) -> Answer {
    let models = message.messages("models")?;
    let models = models
        .iter()
        .map(|model| Ok((model.required("model_id")?, model.int("step")?.unwrap_or(0))))
        .collect::<Result<_, MlflowError>>()?;
    tracking.log_outputs(&actor, &message.run_id()?, models).await?;
    Ok(Json(json!({})))
}

/// Clients of MLflow 2 say so what model they have logged; it is kept as a tag of the run.
async fn log_model(Call { tracking, actor, message }: Call) -> Answer {
    let (run, model) = (message.run_id()?, message.required("model_json")?);
    let new: serde_json::Value = serde_json::from_str(&model).map_err(|_| {
        MlflowError::invalid(format!("Malformed model info. \n {model} \n is not valid JSON"))
    })?;
    let tags = tracking.run(&actor, &run).await?.tags;
    let old = tags.into_iter().find(|tag| tag.key == LOGGED_MODELS).map(|tag| tag.value);
    let mut models: Vec<serde_json::Value> =
        old.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    models.push(new);
    let value = serde_json::Value::Array(models).to_string();
    let tag = lockgate_control::tracking::KeyValue { key: LOGGED_MODELS.to_owned(), value };
    tracking.log_batch(&actor, &run, Batch { tags: vec![tag], ..Batch::default() }).await?;
    Ok(Json(json!({})))
}

async fn history(Call { tracking, actor, message }: Call) -> Result<Response, MlflowError> {
    let (run, key) = (message.run_id()?, message.required("metric_key")?);
    let part = Part::read(&message, HISTORY, Limit::of_history())?;
    let page = part.page();
    let mut found = tracking.metric_history(&actor, &run, &key, page.limit, page.offset).await?;
    let token = part.cut(&mut found);
    Ok(wire::long_page("metrics", found.iter().map(wire::metric).collect(), token))
}

/// For how many runs at once histories can be asked.
const RUNS: usize = 100;
/// How many points each gives at the most.
const POINTS: usize = 2500;

/// Evenly spread points of one metric of several runs.
async fn histories(Call { tracking, actor, message }: Call) -> Result<Response, MlflowError> {
    let invalid = |why: &str| {
        MlflowError::invalid(format!("{why} See the API docs for more information about request parameters."))
    };
    let runs = message.texts("run_ids")?;
    if runs.is_empty() {
        return Err(message.missing("run_ids"));
    }
    if runs.len() > RUNS {
        return Err(invalid(&format!(
            "GetMetricHistoryBulkInterval request must specify at most {RUNS} run_ids. Received {} run_ids.",
            runs.len()
        )));
    }
    let key = message.required("metric_key")?;
    let most = message.int("max_results")?.map_or(Some(POINTS), |most| usize::try_from(most).ok());
    let most = most.filter(|most| (1..=POINTS).contains(most));
    let most = most.ok_or_else(|| invalid(&format!("max_results must be between 1 and {POINTS}.")))?;
    let steps = match (message.int("start_step")?, message.int("end_step")?) {
        (None, None) => (i64::MIN, i64::MAX),
        (Some(first), Some(last)) if first <= last => (first, last),
        (Some(first), Some(last)) => {
            return Err(MlflowError::invalid(format!(
                "end_step must be greater than start_step. Found start_step={first} and end_step={last}."
            )));
        }
        _ => {
            return Err(MlflowError::invalid(
                "If either start step or end step are specified, both must be specified.",
            ));
        }
    };
    let found = tracking.metric_samples(&actor, runs, &key, most, steps).await?;
    Ok(wire::long_page("metrics", found.iter().map(wire::metric_of_run).collect(), None))
}
