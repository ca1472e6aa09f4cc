//! The typed result: a project, its environments, its stages.

use crate::diagnostic::{Diagnostic, Origin};
use lockgate_core::digest::{Digest, NotCanonical};
use lockgate_core::gate::GateSpec;
use lockgate_core::guard::GuardSpec;
use lockgate_core::id::{EnvironmentName, GateName, GuardName, ModelName, ProjectName};
use lockgate_core::plan::{Isolation, OnInconclusive, Smoke, Step, Testers};
use lockgate_core::release::Runtime;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A `lockgate.toml`, checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Project {
    /// Its name.
    pub name: ProjectName,
    /// Its models.
    pub models: BTreeMap<ModelName, Model>,
    /// Its environments; each one comes after all that it is `after`.
    pub environments: Vec<ResolvedEnvironment>,
    /// The pipeline's stages; each one comes after those whose outputs it needs.
    pub pipeline: Vec<Stage>,
    /// Groups of people by name.
    pub groups: BTreeMap<String, BTreeSet<String>>,
    /// Path of the Python requirements' file.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub requirements: Option<String>,
    /// What is right but not yet supported, as warnings.
    pub unsupported: Vec<Diagnostic>,
    /// Other warnings.
    pub warnings: Vec<Diagnostic>,
}

/// A model of the project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    /// What it does.
    pub task: Task,
    /// The label's column.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub target: Option<String>,
    /// The column or field that joins late labels.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub id: Option<String>,
    /// The lower-case header that names a request's unit.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub unit_header: Option<String>,
    /// The server that stands in its workers' place, where the team brings one: what a release's manifest gets.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub serve: Option<Runtime>,
}

/// What a model does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Two classes.
    Binary,
    /// More than two classes.
    Multiclass,
    /// A number.
    Regression,
    /// Something else.
    Other,
}

impl Task {
    /// All tasks with their names in `lockgate.toml`.
    pub const ALL: [(Self, &'static str); 4] = [
        (Self::Binary, "binary"),
        (Self::Multiclass, "multiclass"),
        (Self::Regression, "regression"),
        (Self::Other, "other"),
    ];

    /// The name in `lockgate.toml`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(t, _)| *t == self).map_or("other", |(_, name)| name)
    }
}

/// One stage of the pipeline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// Its name.
    pub name: String,
    /// The command line, run by `sh -c` in the project's folder.
    pub run: String,
    /// Files and folders that it reads.
    pub deps: Vec<String>,
    /// Files and folders that it writes.
    pub outs: Vec<String>,
    /// Parameters with their defaults; null where the file gives only the name. They belong to the stage's key, as files do.
    pub params: BTreeMap<String, serde_json::Value>,
    /// Environment variables for it.
    pub env: BTreeMap<String, String>,
    /// How long it may take, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub timeout_ms: Option<u64>,
    /// How often it is tried again after a failure.
    pub retries: u32,
    /// The stages whose outputs it needs.
    pub after: Vec<String>,
}

/// An environment with everything that it inherits and all defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResolvedEnvironment {
    /// Its name.
    pub name: EnvironmentName,
    /// The environments that a release must have been in before.
    pub after: Vec<EnvironmentName>,
    /// What a release must prove to enter.
    pub gates: BTreeMap<GateName, GateSpec>,
    /// What is watched during a rollout.
    pub guards: BTreeMap<GuardName, GuardSpec>,
    /// The live steps of a rollout; they grow, and the last one has all the traffic.
    pub steps: Vec<Step>,
    /// Who must say yes, if anybody.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub approve: Option<Approve>,
    /// What answers when nothing else can.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub backup: Option<BackupRef>,
    /// How long a finished rollout stays armed, in milliseconds.
    pub probation_ms: i64,
    /// How long a step waits for its verdicts beyond its hold, in milliseconds.
    pub deadline_ms: i64,
    /// What happens then.
    pub on_inconclusive: OnInconclusive,
    /// How long loading and warming may take, in milliseconds.
    pub prepare_ms: i64,
    /// How long all gates together may take, in milliseconds.
    pub gates_ms: i64,
    /// Variables for the model; part of the revision.
    pub vars: BTreeMap<String, String>,
    /// Datasets: name and path in the project.
    pub data: BTreeMap<String, String>,
    /// MLflow's aliases that point to what serves here, beside the environment's name.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// MLflow's stage of what serves here.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stage: Option<String>,
    /// The gateway's port, where the file says one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub port: Option<u16>,
    /// The file with the tokens that `/feedback` takes, where it takes none without.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub feedback_token_file: Option<String>,
    /// Worker processes for each release.
    pub workers: u32,
    /// How long one attempt of a request may take, in milliseconds.
    pub timeout_ms: u64,
    /// Memory limit of one worker in bytes; 0 means none.
    pub memory_bytes: u64,
    /// The most rows of several requests in one call of a model that runs in Python, where the file says it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub batch_rows: Option<u32>,
    /// What tries a release out in the preview step.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub smoke: Option<Smoke>,
    /// Who may say which release answers a request.
    #[serde(skip_serializing_if = "Testers::is_nobody", default)]
    pub testers: Testers,
    /// Whether users only ever get the answers of what serves.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub observe: bool,
    /// The share of users who stay with what served before until the probation is over, in parts of
    /// [`lockgate_core::route::WHOLE`].
    #[serde(skip_serializing_if = "is_nobody", default)]
    pub holdout: u32,
    /// The models that run inside the gateway while nothing else has a part in their traffic.
    #[serde(skip_serializing_if = "BTreeSet::is_empty", default)]
    pub inline: BTreeSet<ModelName>,
    /// The error rates of the rollout's tests.
    pub statistics: Statistics,
    /// What this environment needs and this version doesn't bring, as warnings: a plan for it is refused.
    pub unsupported: Vec<Diagnostic>,
    /// Where each value comes from that isn't a default, by its path inside the environment: `vars.THRESHOLD`.
    pub origins: BTreeMap<String, Origin>,
}

/// Who must say yes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approve {
    /// How many distinct people.
    pub count: u32,
    /// Who may; empty means anybody who may approve at all.
    pub from: Vec<Principal>,
    /// Whether the release's authors and the requester are excluded.
    pub not_author: bool,
    /// How long the promotion waits, in milliseconds.
    pub ttl_ms: i64,
}

/// A group or a person.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Principal {
    /// A group of [`Project::groups`].
    Group(String),
    /// A person, by the name under which they sign in.
    Person(String),
}

/// How a backup is named.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackupRef {
    /// What an alias points to when the plan is made.
    Alias {
        /// The registered model.
        model: ModelName,
        /// Its alias.
        alias: String,
    },
    /// A version of a registered model.
    Version {
        /// The registered model.
        model: ModelName,
        /// Its version.
        version: u64,
    },
    /// A release.
    Release(Digest),
}

/// The error rates of a rollout's tests.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Statistics {
    /// Chance of a false rollback over the whole rollout.
    pub alpha_rollback: f64,
    /// Chance, for each guard, of a false *not worse*.
    pub alpha_promote: f64,
    /// Chance of a false sample-ratio alarm.
    pub alpha_sample_ratio: f64,
}

impl Default for Statistics {
    fn default() -> Self {
        Self { alpha_rollback: 0.05, alpha_promote: 0.05, alpha_sample_ratio: 0.001 }
    }
}

/// Why there is no configuration digest.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// No such environment.
    #[error("there is no environment `{0}` in lockgate.toml: add [env.{0}], or name one that there is")]
    Environment(EnvironmentName),
    /// No such model.
    #[error("there is no model `{0}` in lockgate.toml: add [model.{0}], or name one that there is")]
    Model(ModelName),
    /// It can't be written as JSON.
    #[error(transparent)]
    NotCanonical(#[from] NotCanonical),
}

/// What a revision depends on beside its release. Changing any of it is a new revision.
#[derive(Serialize)]
struct Configuration<'p> {
    format: u32,
    task: Task,
    unit_header: Option<&'p str>,
    vars: &'p BTreeMap<String, String>,
    guards: &'p BTreeMap<GuardName, GuardSpec>,
    /// So that what serves can be promoted again, through gates that were added or changed since.
    gates: &'p BTreeMap<GateName, GateSpec>,
    workers: u32,
    timeout_ms: u64,
    memory_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    batch_rows: Option<u32>,
    /// So that what serves can be promoted again to let testers in, or to keep them out.
    #[serde(skip_serializing_if = "Testers::is_nobody")]
    testers: Testers,
    /// So that what serves can be promoted again to move into the gateway, or out of it.
    #[serde(skip_serializing_if = "Isolation::is_process")]
    isolation: Isolation,
}

/// Whether no user is held out; then nothing is written of it.
fn is_nobody(parts: &u32) -> bool {
    *parts == 0
}

impl ResolvedEnvironment {
    /// Whether an alias of MLflow's registry says what serves here. Case makes no difference: an alias that differs in
    /// nothing else would be taken for it.
    #[must_use]
    pub fn owns_alias(&self, alias: &str) -> bool {
        self.own_aliases().any(|own| own.eq_ignore_ascii_case(alias))
    }

    /// The aliases that say what serves here: the environment's name, and those that the file names.
    pub fn own_aliases(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.name.as_str()).chain(self.aliases.iter().map(String::as_str))
    }
}

impl ResolvedEnvironment {
    /// Where a model runs here.
    #[must_use]
    pub fn isolation(&self, model: &ModelName) -> Isolation {
        if self.inline.contains(model) { Isolation::Inline } else { Isolation::Process }
    }
}

impl Project {
    /// The environment of that name.
    #[must_use]
    pub fn environment(&self, name: &EnvironmentName) -> Option<&ResolvedEnvironment> {
        self.environments.iter().find(|e| e.name == *name)
    }

    /// What a plan for `environment` would need and this version doesn't bring. Not empty: the plan must be refused.
    /// An environment that there isn't needs nothing; look it up first.
    #[must_use]
    pub fn unsupported_for(&self, environment: &EnvironmentName) -> Vec<Diagnostic> {
        self.environment(environment).map(|e| e.unsupported.clone()).unwrap_or_default()
    }

    /// The digest of the configuration that `model` runs under in `environment`: its variables, guards, workers and limits, but
    /// not what decides whether it may enter (gates, approvals) or how traffic moves (steps).
    ///
    /// # Errors
    /// Where there is no such environment or model.
    pub fn configuration_digest(
        &self,
        environment: &EnvironmentName,
        model: &ModelName,
    ) -> Result<Digest, ConfigurationError> {
        let resolved = self
            .environment(environment)
            .ok_or_else(|| ConfigurationError::Environment(environment.clone()))?;
        let name = model;
        let model = self.models.get(name).ok_or_else(|| ConfigurationError::Model(name.clone()))?;
        let configuration = Configuration {
            format: 2,
            task: model.task,
            unit_header: model.unit_header.as_deref(),
            vars: &resolved.vars,
            guards: &resolved.guards,
            gates: &resolved.gates,
            workers: resolved.workers,
            timeout_ms: resolved.timeout_ms,
            memory_bytes: resolved.memory_bytes,
            batch_rows: resolved.batch_rows,
            testers: resolved.testers,
            isolation: resolved.isolation(name),
        };
        Ok(Digest::of_json(&configuration)?)
    }
}
