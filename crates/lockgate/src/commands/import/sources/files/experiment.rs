//! Experiments, runs and logged models of a file store.

use super::{folders, meta, pairs, points};
use anyhow::Context as _;
use lockgate_control::tracking::exchange::{ModelPoint, Point};
use lockgate_control::tracking::{
    Dataset, DatasetInput, Experiment, KeyValue, Lifecycle, LoggedModel, Metric, Run, RunStatus,
};
use std::collections::BTreeMap;
use std::path::Path;

/// MLflow's names for the numbers of a logged model's status.
const MODEL_STATUS: [&str; 4] = [
    "LOGGED_MODEL_STATUS_UNSPECIFIED",
    "LOGGED_MODEL_PENDING",
    "LOGGED_MODEL_READY",
    "LOGGED_MODEL_UPLOAD_FAILED",
];

fn lifecycle(text: Option<&String>) -> Lifecycle {
    if text.is_some_and(|stage| stage == "deleted") { Lifecycle::Deleted } else { Lifecycle::Active }
}

/// The experiment in a folder.
pub(super) fn experiment(folder: &Path) -> anyhow::Result<Experiment> {
    let found: meta::Experiment = meta::read(folder)?;
    let id = meta::number(found.experiment_id.as_ref())
        .with_context(|| format!("{} has an experiment whose id is no number", folder.display()))?;
    let created = meta::number(found.creation_time.as_ref()).unwrap_or_default();
    Ok(Experiment {
        id,
        name: found.name.with_context(|| meta::lacks(folder, "name"))?,
        artifact_location: found.artifact_location.unwrap_or_default(),
        lifecycle: lifecycle(found.lifecycle_stage.as_ref()),
        created,
        updated: meta::number(found.last_update_time.as_ref()).unwrap_or(created),
        tags: pairs(&folder.join("tags"))?,
    })
}

/// The newest point of each metric: the largest by step, time and value, where NaN counts as 0.
fn latest(folder: &Path) -> anyhow::Result<Vec<Metric>> {
    let mut newest: BTreeMap<String, Point> = BTreeMap::new();
    let rank = |p: &Point| (p.step, p.at);
    let size = |p: &Point| if p.value.is_nan() { 0.0 } else { p.value };
    points::lines(folder, |key, line| {
        let point = points::point(key, line)?;
        let newer = newest.get(key).is_none_or(|best| {
            rank(&point) > rank(best) || (rank(&point) == rank(best) && size(&point) > size(best))
        });
        if newer {
            newest.insert(key.to_owned(), point);
        }
        Ok(())
    })?;
    Ok(newest.into_values().map(|point| metric(point, None, None)).collect())
}

fn metric(point: Point, run_id: Option<String>, dataset: Option<(String, String)>) -> Metric {
    let Point { key, value, at, step } = point;
    Metric { key, value, logged_at: at, step, dataset, model_id: None, run_id }
}

/// The run in a folder of an experiment's.
pub(super) fn run(folder: &Path, of: &Path, experiment: i64) -> anyhow::Result<Run> {
    let found: meta::Run = meta::read(folder)?;
    // Written in the order of the alphabet, so that with these all that matters is there.
    let lacks = |field: &'static str| move || meta::lacks(folder, field);
    let run_id = found.run_id.or(found.run_uuid).with_context(lacks("run_id"))?;
    let number = meta::number(found.status.as_ref()).with_context(lacks("status"))?;
    let artifact_uri = found.artifact_uri.with_context(lacks("artifact_uri"))?;
    let tags = pairs(&folder.join("tags"))?;
    let tagged = || tags.iter().find(|tag| tag.key == "mlflow.runName").map(|tag| tag.value.clone());
    let name = found.run_name.or(found.name).filter(|name| !name.is_empty()).or_else(tagged);
    let status = RunStatus::ALL.get(usize::try_from(number - 1).unwrap_or_default()).copied();
    let (datasets, model_inputs) = inputs(folder, of)?;
    Ok(Run {
        run_id,
        experiment_id: experiment,
        name: name.unwrap_or_default(),
        user_id: found.user_id.unwrap_or_default(),
        created_by: String::new(),
        status: status.unwrap_or(RunStatus::Running).as_str().to_owned(),
        start_time: meta::number(found.start_time.as_ref()).unwrap_or_default(),
        end_time: meta::number(found.end_time.as_ref()),
        artifact_uri,
        lifecycle: lifecycle(found.lifecycle_stage.as_ref()),
        metrics: latest(&folder.join("metrics"))?,
        params: pairs(&folder.join("params"))?,
        tags,
        datasets,
        model_inputs,
        model_outputs: outputs(folder)?,
    })
}

fn inputs(folder: &Path, of: &Path) -> anyhow::Result<(Vec<DatasetInput>, Vec<String>)> {
    let (mut datasets, mut models) = (Vec::new(), Vec::new());
    for input in folders(&folder.join("inputs"))? {
        let link: meta::Link = meta::read(&input)?;
        let Some(source) = link.source_id else { continue };
        if link.source_type.as_deref() == Some("MODEL") {
            models.push(source);
            continue;
        }
        let place = of.join("datasets").join(&source);
        // As MLflow itself does where the description is gone.
        if !place.join(meta::FILE).is_file() {
            continue;
        }
        let found: meta::Dataset = meta::read(&place)?;
        let dataset = Dataset {
            name: found.name.unwrap_or_default(),
            digest: found.digest.unwrap_or_default(),
            source_type: found.source_type.unwrap_or_default(),
            source: found.source.unwrap_or_default(),
            schema: found.schema,
            profile: found.profile,
        };
        let tags =
            link.tags.into_iter().map(|(key, value)| KeyValue { key, value: value.unwrap_or_default() });
        datasets.push(DatasetInput { dataset, tags: tags.collect() });
    }
    Ok((datasets, models))
}

fn outputs(folder: &Path) -> anyhow::Result<Vec<(String, i64)>> {
    let mut found = Vec::new();
    for output in folders(&folder.join("outputs"))? {
        let link: meta::Link = meta::read(&output)?;
        let step = meta::number(link.step.as_ref()).unwrap_or_default();
        found.extend(link.destination_id.map(|id| (id, step)));
    }
    Ok(found)
}

/// The logged model in a folder; none where it was deleted.
pub(super) fn logged_model(folder: &Path, experiment: i64) -> anyhow::Result<Option<LoggedModel>> {
    let found: meta::LoggedModel = meta::read(folder)?;
    if found.lifecycle_stage.as_deref() == Some("deleted") {
        return Ok(None);
    }
    let status = meta::number(found.status.as_ref()).with_context(|| meta::lacks(folder, "status"))?;
    let status = usize::try_from(status).unwrap_or_default();
    let created = meta::number(found.creation_timestamp.as_ref()).unwrap_or_default();
    let mut metrics = Vec::new();
    points::lines(&folder.join("metrics"), |key, line| {
        let ModelPoint { point, run_id, dataset } = points::model_point(key, line)?;
        metrics.push(metric(point, Some(run_id), dataset));
        Ok(())
    })?;
    Ok(Some(LoggedModel {
        lifecycle: Lifecycle::Active,
        model_id: found.model_id.with_context(|| meta::lacks(folder, "model_id"))?,
        experiment_id: experiment,
        name: found.name.unwrap_or_default(),
        model_type: found.model_type.unwrap_or_default(),
        source_run_id: found.source_run_id.unwrap_or_default(),
        status: MODEL_STATUS.get(status).copied().unwrap_or(MODEL_STATUS[0]).to_owned(),
        artifact_uri: found.artifact_location.unwrap_or_default(),
        created,
        updated: meta::number(found.last_updated_timestamp.as_ref()).unwrap_or(created),
        params: pairs(&folder.join("params"))?,
        tags: pairs(&folder.join("tags"))?,
        metrics,
    }))
}
