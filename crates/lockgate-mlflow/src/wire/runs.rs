//! Experiments, runs and logged models.

use super::{Pair, Point, metric, metric_of_run, pairs, put, put_list};
use lockgate_control::tracking::{DatasetInput, DatasetSummary, Experiment, LoggedModel, Run};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// An experiment.
pub(crate) fn experiment(experiment: &Experiment) -> Value {
    let mut object = Map::new();
    object.insert("experiment_id".to_owned(), json!(experiment.id.to_string()));
    object.insert("name".to_owned(), json!(experiment.name));
    object.insert("artifact_location".to_owned(), json!(experiment.artifact_location));
    object.insert("lifecycle_stage".to_owned(), json!(experiment.lifecycle.as_str()));
    object.insert("creation_time".to_owned(), json!(experiment.created));
    object.insert("last_update_time".to_owned(), json!(experiment.updated.max(experiment.created)));
    put_list(&mut object, "tags", pairs(&experiment.tags));
    object.insert("workspace".to_owned(), json!("default"));
    Value::Object(object)
}

/// A run's own fields.
#[derive(Serialize)]
pub(crate) struct Info<'a> {
    run_id: &'a str,
    run_uuid: &'a str,
    run_name: &'a str,
    experiment_id: String,
    user_id: &'a str,
    status: &'a str,
    start_time: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_time: Option<i64>,
    artifact_uri: &'a str,
    lifecycle_stage: &'static str,
}

/// A run's own fields.
pub(crate) fn info(run: &Run) -> Info<'_> {
    Info {
        run_id: &run.run_id,
        run_uuid: &run.run_id,
        run_name: &run.name,
        experiment_id: run.experiment_id.to_string(),
        user_id: &run.user_id,
        status: &run.status,
        start_time: run.start_time,
        // An end of 0 is none.
        end_time: run.end_time.filter(|end| *end != 0),
        artifact_uri: &run.artifact_uri,
        lifecycle_stage: run.lifecycle.as_str(),
    }
}

/// A run with what it logged.
#[derive(Serialize)]
pub(crate) struct Whole<'a> {
    info: Info<'a>,
    data: Logged<'a>,
    inputs: Inputs<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outputs: Option<Outputs<'a>>,
}

#[derive(Serialize)]
struct Logged<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    metrics: Vec<Point<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    params: Vec<Pair<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tags: Vec<Pair<'a>>,
}

#[derive(Serialize)]
struct Inputs<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    dataset_inputs: Vec<Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    model_inputs: Vec<ModelInput<'a>>,
}

#[derive(Serialize)]
struct ModelInput<'a> {
    model_id: &'a str,
}

#[derive(Serialize)]
struct Outputs<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    model_outputs: Vec<ModelOutput<'a>>,
}

#[derive(Serialize)]
struct ModelOutput<'a> {
    model_id: &'a str,
    step: i64,
}

/// A run with what it logged.
pub(crate) fn run(run: &Run) -> Whole<'_> {
    let made = run.model_outputs.iter().map(|(model_id, step)| ModelOutput { model_id, step: *step });
    Whole { outputs: Some(Outputs { model_outputs: made.collect() }), ..new_run(run) }
}

/// A run that was made just now: it can't have made anything yet, and MLflow's own server leaves that out.
pub(crate) fn new_run(run: &Run) -> Whole<'_> {
    Whole {
        info: info(run),
        data: Logged {
            metrics: run.metrics.iter().map(metric).collect(),
            params: pairs(&run.params),
            tags: pairs(&run.tags),
        },
        inputs: Inputs {
            dataset_inputs: run.datasets.iter().map(dataset_input).collect(),
            model_inputs: run.model_inputs.iter().map(|model_id| ModelInput { model_id }).collect(),
        },
        outputs: None,
    }
}

/// A dataset that runs of an experiment used.
pub(crate) fn dataset_summary(summary: &DatasetSummary) -> Value {
    let mut object = Map::new();
    object.insert("experiment_id".to_owned(), json!(summary.experiment_id.to_string()));
    object.insert("name".to_owned(), json!(summary.name));
    object.insert("digest".to_owned(), json!(summary.digest));
    put(&mut object, "context", summary.context.as_deref());
    Value::Object(object)
}

fn dataset_input(input: &DatasetInput) -> Value {
    let mut dataset = Map::new();
    dataset.insert("name".to_owned(), json!(input.dataset.name));
    dataset.insert("digest".to_owned(), json!(input.dataset.digest));
    dataset.insert("source_type".to_owned(), json!(input.dataset.source_type));
    dataset.insert("source".to_owned(), json!(input.dataset.source));
    put(&mut dataset, "schema", input.dataset.schema.as_deref());
    put(&mut dataset, "profile", input.dataset.profile.as_deref());
    let mut object = Map::new();
    put_list(&mut object, "tags", pairs(&input.tags));
    object.insert("dataset".to_owned(), Value::Object(dataset));
    Value::Object(object)
}

/// A logged model.
pub(crate) fn logged_model(model: &LoggedModel) -> Value {
    let mut info = Map::new();
    info.insert("model_id".to_owned(), json!(model.model_id));
    info.insert("experiment_id".to_owned(), json!(model.experiment_id.to_string()));
    info.insert("name".to_owned(), json!(model.name));
    info.insert("creation_timestamp_ms".to_owned(), json!(model.created));
    info.insert("last_updated_timestamp_ms".to_owned(), json!(model.updated));
    info.insert("artifact_uri".to_owned(), json!(model.artifact_uri));
    info.insert("status".to_owned(), json!(model.status));
    info.insert("model_type".to_owned(), json!(model.model_type));
    info.insert("source_run_id".to_owned(), json!(model.source_run_id));
    put_list(&mut info, "tags", pairs(&model.tags));
    let mut data = Map::new();
    put_list(&mut data, "params", pairs(&model.params));
    put_list(&mut data, "metrics", model.metrics.iter().map(metric_of_run).collect());
    json!({"info": info, "data": data})
}
