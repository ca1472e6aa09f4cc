//! Experiments, runs and logged models.

use super::{metric, metric_of_run, pairs, put, put_list};
use lockgate_control::tracking::{DatasetInput, DatasetSummary, Experiment, LoggedModel, Run};
use serde_json::{Map, Value, json};

/// An experiment.
pub(crate) fn experiment(experiment: &Experiment) -> Value {
    let mut object = Map::new();
    object.insert("experiment_id".to_owned(), json!(experiment.id.to_string()));
    object.insert("name".to_owned(), json!(experiment.name));
    object.insert("artifact_location".to_owned(), json!(experiment.artifact_location));
    object.insert("lifecycle_stage".to_owned(), json!(experiment.lifecycle.as_str()));
    object.insert("creation_time".to_owned(), json!(experiment.created));
    object.insert("last_update_time".to_owned(), json!(experiment.updated));
    put_list(&mut object, "tags", pairs(&experiment.tags));
    object.insert("workspace".to_owned(), json!("default"));
    Value::Object(object)
}

/// A run's own fields.
pub(crate) fn info(run: &Run) -> Value {
    let mut object = Map::new();
    for name in ["run_id", "run_uuid"] {
        object.insert(name.to_owned(), json!(run.run_id));
    }
    object.insert("run_name".to_owned(), json!(run.name));
    object.insert("experiment_id".to_owned(), json!(run.experiment_id.to_string()));
    object.insert("user_id".to_owned(), json!(run.user_id));
    object.insert("status".to_owned(), json!(run.status));
    object.insert("start_time".to_owned(), json!(run.start_time));
    if let Some(end) = run.end_time {
        object.insert("end_time".to_owned(), json!(end));
    }
    object.insert("artifact_uri".to_owned(), json!(run.artifact_uri));
    object.insert("lifecycle_stage".to_owned(), json!(run.lifecycle.as_str()));
    Value::Object(object)
}

/// A run with what it logged.
pub(crate) fn run(run: &Run) -> Value {
    let mut data = Map::new();
    put_list(&mut data, "metrics", run.metrics.iter().map(metric).collect());
    put_list(&mut data, "params", pairs(&run.params));
    put_list(&mut data, "tags", pairs(&run.tags));
    let mut inputs = Map::new();
    put_list(&mut inputs, "dataset_inputs", run.datasets.iter().map(dataset_input).collect());
    let used = run.model_inputs.iter().map(|id| json!({"model_id": id})).collect();
    put_list(&mut inputs, "model_inputs", used);
    let mut outputs = Map::new();
    let made = run.model_outputs.iter().map(|(id, step)| json!({"model_id": id, "step": step})).collect();
    put_list(&mut outputs, "model_outputs", made);
    let mut object = Map::new();
    object.insert("info".to_owned(), info(run));
    object.insert("data".to_owned(), Value::Object(data));
    object.insert("inputs".to_owned(), Value::Object(inputs));
    object.insert("outputs".to_owned(), Value::Object(outputs));
    Value::Object(object)
}

/// A run that was made just now: it can't have made anything yet, and MLflow's own server leaves that out.
pub(crate) fn new_run(made: &Run) -> Value {
    let mut object = run(made);
    if let Value::Object(fields) = &mut object {
        fields.remove("outputs");
    }
    object
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
