//! Tracking data as records that stores exchange: what an import brings, and what both sides are compared by.
//!
//! Ids and times are those of the store that a record comes from. Tags and params are maps, so that two records are equal
//! exactly if they say the same.

pub(crate) mod convert;
pub(crate) mod digests;
mod number;
mod traces;

pub(crate) use convert::{list as pairs_of, map as map_of};
pub use convert::{points, run_record};
pub use digests::{History, RunDigests, WholeDigest};
pub use traces::{
    AssessmentRecord, KnownTrace, SpanHistory, SpansRecord, TraceDigests, TraceLinkRecord, TraceRecord,
    span_digest,
};

use lockgate_core::clock::Millis;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Tags or params.
pub type Pairs = BTreeMap<String, String>;

/// One thing of a store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Record {
    /// An experiment.
    Experiment(ExperimentRecord),
    /// A run with all it logged but the history of its metrics.
    Run(Box<RunRecord>),
    /// Points of a run's metrics.
    Points(PointsRecord),
    /// A logged model.
    LoggedModel(Box<LoggedModelRecord>),
    /// A registered model, without versions and aliases.
    RegisteredModel(RegisteredModelRecord),
    /// A version of a registered model.
    Version(Box<VersionRecord>),
    /// An alias.
    Alias(AliasRecord),
    /// A trace without its spans.
    Trace(Box<TraceRecord>),
    /// Spans of a trace.
    Spans(SpansRecord),
    /// What a trace is linked to.
    TraceLink(TraceLinkRecord),
}

/// An experiment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExperimentRecord {
    /// Its number; another one is given where it is taken.
    pub id: i64,
    /// Numbers that are given begin here.
    pub new_id_from: i64,
    /// Its name.
    pub name: String,
    /// Where its artifacts lie; nothing means on this server.
    pub artifact_location: Option<String>,
    /// `active` or `deleted`.
    pub lifecycle: String,
    /// When it was made.
    pub created: Millis,
    /// When it was changed.
    pub updated: Millis,
    /// Its tags.
    pub tags: Pairs,
}

/// A run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Its id.
    pub run_id: String,
    /// Its experiment's number.
    pub experiment_id: i64,
    /// Its name.
    pub name: String,
    /// Who ran it.
    pub user_id: String,
    /// MLflow's status name.
    pub status: String,
    /// When it started.
    pub start_time: Millis,
    /// When it ended.
    pub end_time: Option<Millis>,
    /// `active` or `deleted`.
    pub lifecycle: String,
    /// Where its artifacts lie; nothing means on this server.
    pub artifact_uri: Option<String>,
    /// Its params.
    pub params: Pairs,
    /// Its tags.
    pub tags: Pairs,
    /// The newest point of each metric: compared, not written.
    pub latest: Vec<Point>,
    /// The datasets it used.
    pub datasets: Vec<DatasetRecord>,
    /// The logged models it used.
    pub model_inputs: BTreeSet<String>,
    /// The logged models it made, with their steps.
    pub model_outputs: BTreeMap<String, i64>,
}

/// A dataset that a run used.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DatasetRecord {
    /// Its name.
    pub name: String,
    /// Its digest.
    pub digest: String,
    /// The kind of its source.
    pub source_type: String,
    /// Its source.
    pub source: String,
    /// Its schema.
    pub schema: Option<String>,
    /// Its profile.
    pub profile: Option<String>,
    /// What it was used for.
    pub tags: Pairs,
}

/// One point of a metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// The metric.
    pub key: String,
    /// The number.
    #[serde(with = "number")]
    pub value: f64,
    /// When it was logged.
    pub at: Millis,
    /// Its step.
    pub step: i64,
}

/// Points of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PointsRecord {
    /// The run.
    pub run_id: String,
    /// The points.
    pub points: Vec<Point>,
}

/// A logged model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoggedModelRecord {
    /// Its id.
    pub model_id: String,
    /// Its experiment's number.
    pub experiment_id: i64,
    /// Its name.
    pub name: String,
    /// Its type; may be empty.
    pub model_type: String,
    /// The run that made it; may be empty.
    pub source_run_id: String,
    /// MLflow's status name.
    pub status: String,
    /// Where its files lie; nothing means on this server.
    pub artifact_uri: Option<String>,
    /// When it was made.
    pub created: Millis,
    /// When it was changed.
    pub updated: Millis,
    /// Its params.
    pub params: Pairs,
    /// Its tags.
    pub tags: Pairs,
    /// Its metrics.
    pub metrics: Vec<ModelPoint>,
}

/// One point of a logged model's metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelPoint {
    /// The point.
    #[serde(flatten)]
    pub point: Point,
    /// The run that logged it; may be empty.
    pub run_id: String,
    /// Name and digest of the dataset it was measured on.
    pub dataset: Option<(String, String)>,
}

/// A registered model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RegisteredModelRecord {
    /// Its name.
    pub name: String,
    /// Its description.
    pub description: Option<String>,
    /// When it was made.
    pub created: Millis,
    /// When it was changed.
    pub updated: Millis,
    /// The number that its next version gets, at least.
    pub next_version: i64,
    /// Its tags.
    pub tags: Pairs,
}

/// Where files lie, by whose they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnedPath {
    /// A run's or a logged model's id.
    pub owner: String,
    /// The path below its artifacts; may be empty.
    pub path: String,
}

/// A version of a registered model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VersionRecord {
    /// The model's name.
    pub name: String,
    /// Its number.
    pub version: i64,
    /// Its description.
    pub description: Option<String>,
    /// Who registered it; may be empty.
    pub user_id: String,
    /// When it was registered.
    pub created: Millis,
    /// When it was changed.
    pub updated: Millis,
    /// What it was registered from, as the client wrote it.
    pub source: String,
    /// Where its files lie on this server now, where the source says it in words of the other store.
    pub place: Option<OwnedPath>,
    /// Where its files lie elsewhere, where that is not what it was registered from.
    #[serde(default)]
    pub stored: Option<String>,
    /// The run behind it; may be empty.
    pub run_id: String,
    /// A link to the run elsewhere.
    pub run_link: Option<String>,
    /// The logged model behind it; may be empty.
    pub model_id: String,
    /// MLflow's stage; `None` is none.
    pub current_stage: String,
    /// Its tags.
    pub tags: Pairs,
}

/// An alias.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AliasRecord {
    /// The model's name.
    pub name: String,
    /// The alias.
    pub alias: String,
    /// The version.
    pub version: i64,
}

/// How it went with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It was not there, and is now.
    New,
    /// It was there, and is the same.
    Same,
    /// Something else is there in its place, or it can't be kept: nothing was changed.
    Conflict,
}

/// What became of a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// How it went.
    pub fate: Fate,
    /// Why, in a conflict.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub why: Option<String>,
    /// The experiment's number here, where that is certain.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub id: Option<i64>,
    /// How many points were new, or how many files a version has.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub count: Option<u64>,
    /// What of it was not taken.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub notes: Vec<String>,
    /// What it should have here and has not.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lacks: Option<String>,
}

impl Outcome {
    /// What will become of something that can't be there yet.
    #[must_use]
    pub fn would_be_new() -> Self {
        Self::new(Fate::New)
    }

    pub(super) fn new(fate: Fate) -> Self {
        Self { fate, why: None, id: None, count: None, notes: Vec::new(), lacks: None }
    }

    pub(super) fn conflict(why: impl Into<String>) -> Self {
        Self { why: Some(why.into()), ..Self::new(Fate::Conflict) }
    }

    /// The same, where the texts of what differs are none; a conflict otherwise.
    pub(super) fn compared(what: &str, differ: &[&str]) -> Self {
        match differ {
            [] => Self::new(Fate::Same),
            some => Self::conflict(format!("{what} is there already with another {}", some.join(", "))),
        }
    }
}

/// What a server has of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownRun {
    /// The run.
    pub run_id: String,
    /// Its digests; nothing where there is no such run.
    pub digests: Option<RunDigests>,
}

/// A file below a root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownFile {
    /// Its path below the root.
    pub path: String,
    /// How many bytes.
    pub size: u64,
    /// Their digest.
    pub digest: lockgate_core::digest::Digest,
}
