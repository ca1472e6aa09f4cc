//! Rows as records, and back.

use super::{DatasetRecord, LoggedModelRecord, ModelPoint, Pairs, Point, RunRecord};
use crate::tracking::{Dataset, DatasetInput, KeyValue, LoggedModel, Metric, Run};

/// Tags or params as a map.
pub(crate) fn map(pairs: &[KeyValue]) -> Pairs {
    pairs.iter().map(|pair| (pair.key.clone(), pair.value.clone())).collect()
}

/// A map as tags or params.
pub(crate) fn list(pairs: &Pairs) -> Vec<KeyValue> {
    pairs.iter().map(|(key, value)| KeyValue { key: key.clone(), value: value.clone() }).collect()
}

fn point(metric: &Metric) -> Point {
    Point { key: metric.key.clone(), value: metric.value, at: metric.logged_at, step: metric.step }
}

/// Points as records.
#[must_use]
pub fn points(metrics: &[Metric]) -> Vec<Point> {
    metrics.iter().map(point).collect()
}

/// A point as it is stored.
pub(crate) fn metric(point: &Point, run: &str) -> Metric {
    Metric {
        key: point.key.clone(),
        value: point.value,
        logged_at: point.at,
        step: point.step,
        dataset: None,
        model_id: None,
        run_id: Some(run.to_owned()),
    }
}

/// A run as a record; its artifacts' place is left out.
#[must_use]
pub fn run_record(run: &Run) -> RunRecord {
    let mut datasets: Vec<DatasetRecord> = run.datasets.iter().map(dataset).collect();
    datasets.sort();
    RunRecord {
        run_id: run.run_id.clone(),
        experiment_id: run.experiment_id,
        name: run.name.clone(),
        user_id: run.user_id.clone(),
        status: run.status.clone(),
        start_time: run.start_time,
        end_time: run.end_time,
        lifecycle: run.lifecycle.as_str().to_owned(),
        artifact_uri: None,
        params: map(&run.params),
        tags: map(&run.tags),
        latest: points(&run.metrics),
        datasets,
        model_inputs: run.model_inputs.iter().cloned().collect(),
        model_outputs: run.model_outputs.iter().cloned().collect(),
    }
}

fn dataset(input: &DatasetInput) -> DatasetRecord {
    let Dataset { name, digest, source_type, source, schema, profile } = input.dataset.clone();
    DatasetRecord { name, digest, source_type, source, schema, profile, tags: map(&input.tags) }
}

/// A dataset as it is stored.
pub(crate) fn dataset_input(record: &DatasetRecord) -> DatasetInput {
    let DatasetRecord { name, digest, source_type, source, schema, profile, tags } = record.clone();
    let dataset = Dataset { name, digest, source_type, source, schema, profile };
    DatasetInput { dataset, tags: list(&tags) }
}

impl LoggedModelRecord {
    /// A logged model as a record; its artifacts' place is left out.
    #[must_use]
    pub fn of(model: &LoggedModel) -> Self {
        let mut metrics: Vec<ModelPoint> = model.metrics.iter().map(model_point).collect();
        super::digests::sort_model_points(&mut metrics);
        super::digests::dedup_model_points(&mut metrics);
        Self {
            model_id: model.model_id.clone(),
            experiment_id: model.experiment_id,
            name: model.name.clone(),
            model_type: model.model_type.clone(),
            source_run_id: model.source_run_id.clone(),
            status: model.status.clone(),
            artifact_uri: None,
            created: model.created,
            updated: model.updated,
            params: map(&model.params),
            tags: map(&model.tags),
            metrics,
        }
    }

    /// The names of what differs, but for the artifacts' place and the time of the last change.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<&'static str> {
        let mut metrics = other.metrics.clone();
        super::digests::sort_model_points(&mut metrics);
        let pairs = [
            ("experiment", self.experiment_id == other.experiment_id),
            ("name", self.name == other.name),
            ("type", self.model_type == other.model_type),
            ("run", self.source_run_id == other.source_run_id),
            ("status", self.status == other.status),
            ("time", self.created == other.created),
            ("params", self.params == other.params),
            ("tags", self.tags == other.tags),
            ("metrics", super::digests::same_model_points(&self.metrics, &metrics)),
        ];
        pairs.into_iter().filter(|(_, same)| !same).map(|(name, _)| name).collect()
    }
}

fn model_point(metric: &Metric) -> ModelPoint {
    ModelPoint {
        point: point(metric),
        run_id: metric.run_id.clone().unwrap_or_default(),
        dataset: metric.dataset.clone(),
    }
}
