//! `runs/log-…` and `metrics/…`: what runs log.

use crate::call::{Answer, Call};
use crate::error::MlflowError;
use crate::message::Message;
use crate::page::{Limit, Part};
use crate::wire::{self, python};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use lockgate_control::tracking::{Batch, Dataset, DatasetInput, Inputs, Metric, Tracking};
use serde_json::{Value, json};

/// How many points of a metric one answer holds where the client doesn't say.
const HISTORY: i64 = 25_000;
/// How many there are to a client that asks for more.
const LONGEST: i64 = i32::MAX as i64;
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

// Fields are read in the order in which MLflow's own server checks them: of two errors the same one is told.

fn metric(message: &Message) -> Result<Metric, MlflowError> {
    let mut metric = Metric {
        key: message.required("key")?,
        value: message.number("value")?,
        logged_at: message.required_int("timestamp")?,
        step: message.int("step")?.unwrap_or(0),
        model_id: message.text("model_id")?.filter(|id| !id.is_empty()),
        dataset: None,
        run_id: None,
    };
    let (name, digest) = (message.text_or_empty("dataset_name")?, message.text_or_empty("dataset_digest")?);
    if name.is_empty() != digest.is_empty() {
        return Err(MlflowError::invalid(
            "Both dataset_name and dataset_digest must be provided if one is provided",
        ));
    }
    metric.dataset = Some((name, digest)).filter(|(name, _)| !name.is_empty());
    Ok(metric)
}

async fn log_batch(Call { tracking, actor, message }: Call) -> Answer {
    message.fits_a_batch()?;
    let run = message.run_id()?;
    let metrics = message.messages("metrics")?.iter().map(metric).collect::<Result<_, _>>()?;
    let (params, tags) = (message.pairs("params")?, message.pairs("tags")?);
    let batch = Batch { metrics, params, tags, alone: false };
    tracking.log_batch(&actor, &run, batch).await?;
    Ok(Json(json!({})))
}

async fn log_metric(Call { tracking, actor, message }: Call) -> Answer {
    let run = message.run_id()?;
    let batch = Batch { metrics: vec![metric(&message)?], alone: true, ..Batch::default() };
    tracking.log_batch(&actor, &run, batch).await?;
    Ok(Json(json!({})))
}

async fn log_param(Call { tracking, actor, message }: Call) -> Answer {
    let run = message.run_id()?;
    let batch = Batch { params: vec![message.pair()?], alone: true, ..Batch::default() };
    tracking.log_batch(&actor, &run, batch).await?;
    Ok(Json(json!({})))
}

async fn set_tag(Call { tracking, actor, message }: Call) -> Answer {
    let run = message.run_id()?;
    let batch = Batch { tags: vec![message.pair()?], alone: true, ..Batch::default() };
    tracking.log_batch(&actor, &run, batch).await?;
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
            name: dataset.text_or_empty("name")?,
            digest: dataset.text_or_empty("digest")?,
            source_type: dataset.text_or_empty("source_type")?,
            source: dataset.text_or_empty("source")?,
            schema: dataset.text("schema")?,
            profile: dataset.text("profile")?,
        },
        tags: message.pairs("tags")?,
    })
}

async fn log_inputs(Call { tracking, actor, message }: Call) -> Answer {
    let run = message.run_id()?;
    let datasets = message.messages("datasets")?.iter().map(dataset_input).collect::<Result<_, _>>()?;
    let models = message.messages("models")?;
    let models = models.iter().map(|model| model.required("model_id")).collect::<Result<_, _>>()?;
    tracking.log_inputs(&actor, &run, Inputs { datasets, models }).await?;
    Ok(Json(json!({})))
}

async fn log_outputs(Call { tracking, actor, message }: Call) -> Answer {
    let run = message.run_id()?;
    match message.any("models")? {
        None => return Err(message.missing("models")),
        Some(Value::String(text)) if text.is_empty() => return Err(message.missing("models")),
        Some(_) => {}
    }
    let models = message.messages("models")?;
    let models = models
        .iter()
        .map(|model| Ok((model.required("model_id")?, model.int("step")?.unwrap_or(0))))
        .collect::<Result<_, MlflowError>>()?;
    tracking.log_outputs(&actor, &run, models).await?;
    Ok(Json(json!({})))
}

/// What of a model's description the tag keeps, in the order in which MLflow writes it.
fn kept(model: python::Json) -> Result<python::Json, MlflowError> {
    const MANDATORY: [&str; 4] = ["artifact_path", "flavors", "utc_time_created", "run_id"];
    let python::Json::Object(mut fields) = model else {
        return Err(MlflowError::invalid("Malformed model info: it is no JSON object."));
    };
    let missing: Vec<&str> =
        MANDATORY.into_iter().filter(|name| !fields.iter().any(|(known, _)| known == name)).collect();
    if !missing.is_empty() {
        return Err(MlflowError::invalid(format!(
            "Model json is missing mandatory fields: {{'{}'}}",
            missing.join("', '")
        )));
    }
    let mut take = |name: &str| {
        let at = fields.iter().position(|(known, _)| known == name);
        at.map_or_else(python::Json::null, |at| fields.swap_remove(at).1)
    };
    let mut all: Vec<(String, python::Json)> = ["run_id", "artifact_path", "utc_time_created", "model_uuid"]
        .into_iter()
        .map(|name| (name.to_owned(), take(name)))
        .collect();
    all.retain(|(name, value)| !matches!(name.as_str(), "run_id" | "artifact_path") || !value.is_null());
    let flavors = match take("flavors") {
        python::Json::Object(flavors) => {
            flavors.into_iter().map(|(name, flavor)| (name, without_config(flavor)))
        }
        _ => return Err(MlflowError::invalid("Malformed model info: its flavors are no JSON object.")),
    };
    all.push(("flavors".to_owned(), python::Json::Object(flavors.collect())));
    Ok(python::Json::Object(all))
}

fn without_config(flavor: python::Json) -> python::Json {
    match flavor {
        python::Json::Object(mut fields) => {
            fields.retain(|(name, _)| name != "config");
            python::Json::Object(fields)
        }
        other => other,
    }
}

/// Clients of MLflow 2 say so what model they have logged; it is kept as a tag of the run.
async fn log_model(Call { tracking, actor, message }: Call) -> Answer {
    let (run, model) = (message.run_id()?, message.required("model_json")?);
    let new: python::Json = serde_json::from_str(&model).map_err(|_| {
        MlflowError::invalid(format!("Malformed model info. \n {model} \n is not a valid JSON."))
    })?;
    let new = kept(new)?;
    let with = move |old: Option<String>| {
        let mut models: Vec<python::Json> =
            old.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        models.push(new);
        python::Json::List(models).to_string()
    };
    tracking.change_run_tag(&actor, &run, LOGGED_MODELS, with).await?;
    Ok(Json(json!({})))
}

async fn history(Call { tracking, actor, message }: Call) -> Result<Response, MlflowError> {
    let (run, key) = (message.run_id()?, message.required("metric_key")?);
    // A limit that is no number is none, as with MLflow's own server.
    let is_number = message.int("max_results").is_ok_and(|most| most.is_none_or(|most| most <= LONGEST));
    let message = if is_number { message } else { message.without("max_results") };
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
