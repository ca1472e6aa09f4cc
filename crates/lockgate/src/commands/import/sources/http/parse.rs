//! MLflow's messages as values. Numbers may be numbers or texts: releases differ.

use crate::client::Refusal;
use anyhow::Context as _;
use lockgate_control::tracking::exchange::Point;
use lockgate_control::tracking::{
    Dataset, DatasetInput, Experiment, KeyValue, Lifecycle, LoggedModel, Metric, ModelVersion,
    RegisteredModel, Run,
};
use lockgate_store::foreign::ForeignVersion;
use serde_json::Value;

/// A list of an answer; an empty one where it is left out.
pub(super) fn list(answer: &mut Value, name: &str) -> Vec<Value> {
    match answer.get_mut(name).map(Value::take) {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    }
}

/// The next page's token.
pub(super) fn token(answer: &Value) -> Option<String> {
    answer["next_page_token"].as_str().filter(|token| !token.is_empty()).map(str::to_owned)
}

/// A text; an empty one where it is left out.
pub(super) fn text(of: &Value, name: &str) -> String {
    optional(of, name).unwrap_or_default()
}

fn optional(of: &Value, name: &str) -> Option<String> {
    of[name].as_str().map(str::to_owned)
}

/// A whole number.
pub(super) fn whole(of: &Value, name: &str) -> Option<i64> {
    match &of[name] {
        Value::Number(number) => number.as_i64().or_else(|| number.as_f64().map(|v| v as i64)),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

fn real(of: &Value, name: &str) -> anyhow::Result<f64> {
    match &of[name] {
        Value::Number(number) => number.as_f64().context("a metric's value is no number"),
        Value::String(text) => text.parse().with_context(|| format!("`{text}` is no number")),
        // Protobuf leaves zeros out.
        _ => Ok(0.0),
    }
}

/// Whether the server has no such route.
pub(super) fn is_missing(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.downcast_ref::<Refusal>().is_some_and(|refusal| refusal.status == 404))
}

/// Whether the server says that it has no such thing to ask for: by its route or by its filter.
pub(super) fn is_unsupported(error: &anyhow::Error) -> bool {
    let status =
        error.chain().find_map(|cause| cause.downcast_ref::<Refusal>()).map(|refusal| refusal.status);
    matches!(status, Some(400 | 404))
}

fn each<'a>(of: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    of[name].as_array().map(Vec::as_slice).unwrap_or_default().iter()
}

fn pairs(of: &Value, name: &str) -> Vec<KeyValue> {
    each(of, name).map(|pair| KeyValue { key: text(pair, "key"), value: text(pair, "value") }).collect()
}

fn lifecycle(of: &Value) -> Lifecycle {
    if of["lifecycle_stage"] == "deleted" { Lifecycle::Deleted } else { Lifecycle::Active }
}

pub(super) fn experiment(of: &Value) -> anyhow::Result<Experiment> {
    let created = whole(of, "creation_time").unwrap_or_default();
    Ok(Experiment {
        id: whole(of, "experiment_id").context("an experiment's id is no number")?,
        name: text(of, "name"),
        artifact_location: text(of, "artifact_location"),
        lifecycle: lifecycle(of),
        created,
        updated: whole(of, "last_update_time").unwrap_or(created),
        tags: pairs(of, "tags"),
    })
}

pub(super) fn point(of: &Value) -> anyhow::Result<Point> {
    Ok(Point {
        key: text(of, "key"),
        value: real(of, "value")?,
        at: whole(of, "timestamp").unwrap_or_default(),
        step: whole(of, "step").unwrap_or_default(),
    })
}

fn metric(of: &Value) -> anyhow::Result<Metric> {
    let Point { key, value, at, step } = point(of)?;
    let dataset = optional(of, "dataset_name").map(|name| (name, text(of, "dataset_digest")));
    let dataset = dataset.filter(|(name, _)| !name.is_empty());
    Ok(Metric { key, value, logged_at: at, step, dataset, model_id: None, run_id: optional(of, "run_id") })
}

fn metrics(of: &Value) -> anyhow::Result<Vec<Metric>> {
    each(of, "metrics").map(metric).collect()
}

pub(super) fn run(of: &Value) -> anyhow::Result<Run> {
    let (info, data) = (&of["info"], &of["data"]);
    let tags = pairs(data, "tags");
    let tag = |key: &str| tags.iter().find(|tag| tag.key == key).map(|tag| tag.value.clone());
    let run_id = Some(text(info, "run_id")).filter(|id| !id.is_empty());
    let outputs = each(&of["outputs"], "model_outputs")
        .map(|one| (text(one, "model_id"), whole(one, "step").unwrap_or_default()));
    Ok(Run {
        run_id: run_id.unwrap_or_else(|| text(info, "run_uuid")),
        experiment_id: whole(info, "experiment_id").context("a run's experiment is no number")?,
        name: optional(info, "run_name").or_else(|| tag("mlflow.runName")).unwrap_or_default(),
        user_id: text(info, "user_id"),
        created_by: String::new(),
        status: text(info, "status"),
        start_time: whole(info, "start_time").unwrap_or_default(),
        end_time: whole(info, "end_time"),
        artifact_uri: text(info, "artifact_uri"),
        lifecycle: lifecycle(info),
        metrics: metrics(data)?,
        params: pairs(data, "params"),
        datasets: each(&of["inputs"], "dataset_inputs").map(dataset).collect(),
        model_inputs: each(&of["inputs"], "model_inputs").map(|one| text(one, "model_id")).collect(),
        model_outputs: outputs.collect(),
        tags,
    })
}

fn dataset(of: &Value) -> DatasetInput {
    let one = &of["dataset"];
    let dataset = Dataset {
        name: text(one, "name"),
        digest: text(one, "digest"),
        source_type: text(one, "source_type"),
        source: text(one, "source"),
        schema: optional(one, "schema"),
        profile: optional(one, "profile"),
    };
    DatasetInput { dataset, tags: pairs(of, "tags") }
}

pub(super) fn logged_model(of: &Value) -> anyhow::Result<LoggedModel> {
    let (info, data) = (&of["info"], &of["data"]);
    let created = whole(info, "creation_timestamp_ms").unwrap_or_default();
    Ok(LoggedModel {
        lifecycle: Lifecycle::Active,
        model_id: text(info, "model_id"),
        experiment_id: whole(info, "experiment_id").context("a logged model's experiment is no number")?,
        name: text(info, "name"),
        model_type: text(info, "model_type"),
        source_run_id: text(info, "source_run_id"),
        status: text(info, "status"),
        artifact_uri: text(info, "artifact_uri"),
        created,
        updated: whole(info, "last_updated_timestamp_ms").unwrap_or(created),
        params: pairs(data, "params"),
        tags: pairs(info, "tags"),
        metrics: metrics(data)?,
    })
}

pub(super) fn registered(of: &Value) -> anyhow::Result<RegisteredModel> {
    let created = whole(of, "creation_timestamp").unwrap_or_default();
    let alias = |one: &Value| {
        let version = whole(one, "version").context("an alias points nowhere")?;
        anyhow::Ok((text(one, "alias"), version))
    };
    Ok(RegisteredModel {
        name: text(of, "name"),
        description: optional(of, "description"),
        created_by: String::new(),
        created,
        updated: whole(of, "last_updated_timestamp").unwrap_or(created),
        tags: pairs(of, "tags"),
        aliases: each(of, "aliases").map(alias).collect::<Result<_, _>>()?,
        latest: Vec::new(),
    })
}

pub(super) fn version(of: &Value) -> anyhow::Result<ForeignVersion> {
    let created = whole(of, "creation_timestamp").unwrap_or_default();
    let source = text(of, "source");
    let version = ModelVersion {
        name: text(of, "name"),
        version: whole(of, "version").context("a version's number is none")?,
        description: optional(of, "description"),
        user_id: text(of, "user_id"),
        created_by: String::new(),
        storage_location: source.clone(),
        source,
        run_id: text(of, "run_id"),
        run_link: optional(of, "run_link").filter(|link| !link.is_empty()),
        model_id: text(of, "model_id"),
        created,
        updated: whole(of, "last_updated_timestamp").unwrap_or(created),
        stage: text(of, "current_stage"),
        tags: pairs(of, "tags"),
        aliases: Vec::new(),
    };
    Ok(ForeignVersion { version, status: text(of, "status") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_may_be_texts() {
        let one = json!({"key": "a", "value": "NaN", "timestamp": "17", "step": 3});
        let found = point(&one).unwrap();
        assert!(found.value.is_nan());
        assert_eq!((found.at, found.step), (17, 3));
        assert_eq!(point(&json!({"key": "a"})).unwrap().value, 0.0);
        assert!(point(&json!({"value": "x"})).is_err());
    }

    #[test]
    fn what_is_left_out_is_nothing() {
        let found = run(&json!({"info": {"run_uuid": "a", "experiment_id": "4"}})).unwrap();
        assert_eq!((found.run_id.as_str(), found.experiment_id, found.end_time), ("a", 4, None));
        assert!(found.tags.is_empty() && found.datasets.is_empty());
        let found = version(&json!({"name": "m", "version": "3", "run_link": ""})).unwrap();
        assert_eq!((found.version.version, found.version.run_link), (3, None));
        assert!(version(&json!({"name": "m"})).is_err());
    }
}
