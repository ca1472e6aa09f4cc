//! The rows of tracking data as values.

use lockgate_core::clock::Millis;
use lockgate_core::digest::Digest;

/// Whether something was deleted. Deleted things stay readable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifecycle {
    /// In use.
    Active,
    /// Deleted, and can be restored.
    Deleted,
}

impl Lifecycle {
    /// The text form, as MLflow spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Deleted => "deleted",
        }
    }
}

impl std::str::FromStr for Lifecycle {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::Active, Self::Deleted].into_iter().find(|known| known.as_str() == text).ok_or(())
    }
}

/// A tag or a param.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// Its name.
    pub key: String,
    /// Its value.
    pub value: String,
}

/// A group of runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Experiment {
    /// Its number.
    pub id: i64,
    /// Its name, used once.
    pub name: String,
    /// Below which URI its runs' artifacts lie.
    pub artifact_location: String,
    /// Whether it was deleted.
    pub lifecycle: Lifecycle,
    /// When it was made.
    pub created: Millis,
    /// When it was changed.
    pub updated: Millis,
    /// Its tags.
    pub tags: Vec<KeyValue>,
}

/// One logged number.
#[derive(Debug, Clone, PartialEq)]
pub struct Metric {
    /// Its name.
    pub key: String,
    /// The number; NaN is allowed.
    pub value: f64,
    /// When it was logged, by the client's clock.
    pub logged_at: Millis,
    /// The step it belongs to.
    pub step: i64,
    /// The dataset it was measured on.
    pub dataset: Option<(String, String)>,
    /// The logged model it was measured of.
    pub model_id: Option<String>,
    /// The run that logged it.
    pub run_id: Option<String>,
}

/// One run with everything it logged.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// Its id.
    pub run_id: String,
    /// Its experiment.
    pub experiment_id: i64,
    /// Its name, equal to the tag `mlflow.runName`.
    pub name: String,
    /// Who ran it, as the client says.
    pub user_id: String,
    /// The principal that made it.
    pub created_by: String,
    /// MLflow's status name.
    pub status: String,
    /// When it started.
    pub start_time: Millis,
    /// When it ended.
    pub end_time: Option<Millis>,
    /// Where its artifacts lie.
    pub artifact_uri: String,
    /// Whether it was deleted.
    pub lifecycle: Lifecycle,
    /// The latest value of every metric.
    pub metrics: Vec<Metric>,
    /// Its params.
    pub params: Vec<KeyValue>,
    /// Its tags.
    pub tags: Vec<KeyValue>,
    /// The datasets it used.
    pub datasets: Vec<DatasetInput>,
    /// The logged models it used.
    pub model_inputs: Vec<String>,
    /// The logged models it made, with their steps.
    pub model_outputs: Vec<(String, i64)>,
}

/// What of a run's own row is changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunUpdate {
    /// A new status.
    pub status: Option<String>,
    /// A new end.
    pub end_time: Option<Millis>,
    /// A new name.
    pub name: Option<String>,
}

/// A dataset as MLflow describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset {
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
}

/// A dataset that a run used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetInput {
    /// The dataset.
    pub dataset: Dataset,
    /// What it was used for.
    pub tags: Vec<KeyValue>,
}

/// A dataset that runs of an experiment used, and what as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetSummary {
    /// The experiment's number.
    pub experiment_id: i64,
    /// Its name.
    pub name: String,
    /// Its digest.
    pub digest: String,
    /// What it was used as (`mlflow.data.context`), where that was said.
    pub context: Option<String>,
}

/// MLflow 3's logged model: a model's files with a place of their own.
#[derive(Debug, Clone, PartialEq)]
pub struct LoggedModel {
    /// `m-` and 32 hexadecimal digits.
    pub model_id: String,
    /// Its experiment.
    pub experiment_id: i64,
    /// Its name, which others may have as well.
    pub name: String,
    /// Its type, as the client says; may be empty.
    pub model_type: String,
    /// The run that made it; may be empty.
    pub source_run_id: String,
    /// MLflow's status name.
    pub status: String,
    /// Where its files lie.
    pub artifact_uri: String,
    /// Whether it was deleted.
    pub lifecycle: Lifecycle,
    /// When it was made.
    pub created: Millis,
    /// When it was changed.
    pub updated: Millis,
    /// Its params.
    pub params: Vec<KeyValue>,
    /// Its tags.
    pub tags: Vec<KeyValue>,
    /// Its metrics.
    pub metrics: Vec<Metric>,
}

/// A workspace that somebody made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workspace {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// Below which URI its experiments' artifacts lie, where it says so.
    pub artifact_root: Option<String>,
}

/// A name in the registry.
#[derive(Debug, Clone, PartialEq)]
pub struct RegisteredModel {
    /// Its name.
    pub name: String,
    /// Its description.
    pub description: Option<String>,
    /// The principal that made it.
    pub created_by: String,
    /// When it was made.
    pub created: Millis,
    /// When it was changed.
    pub updated: Millis,
    /// Its tags.
    pub tags: Vec<KeyValue>,
    /// Its aliases with their versions.
    pub aliases: Vec<(String, i64)>,
    /// Its newest version in each stage, without aliases.
    pub latest: Vec<ModelVersion>,
}

/// One version of a registered model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelVersion {
    /// The model's name.
    pub name: String,
    /// Its number, from 1.
    pub version: i64,
    /// Its description.
    pub description: Option<String>,
    /// Who ran the run behind it, as the client said; may be empty.
    pub user_id: String,
    /// The principal that registered it.
    pub created_by: String,
    /// What it was registered from, as the client wrote it.
    pub source: String,
    /// Where its files lie.
    pub storage_location: String,
    /// The run behind it; may be empty.
    pub run_id: String,
    /// A link to the run elsewhere.
    pub run_link: Option<String>,
    /// The logged model behind it; may be empty.
    pub model_id: String,
    /// When it was registered.
    pub created: Millis,
    /// When it was changed.
    pub updated: Millis,
    /// MLflow's stage: `None`, `Staging`, `Production` or `Archived`.
    pub stage: String,
    /// Its tags.
    pub tags: Vec<KeyValue>,
    /// The aliases that point to it.
    pub aliases: Vec<String>,
}

/// One move of an alias.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AliasMove {
    /// The model.
    pub name: String,
    /// The alias.
    pub alias: String,
    /// Where it points since; nowhere where it was removed.
    pub version: Option<i64>,
    /// The principal that moved it.
    pub actor: String,
    /// When.
    pub at: Millis,
    /// The promotion that moved it; empty where a person did.
    pub promotion: String,
}

/// One version's move from one stage to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageMove {
    /// The model.
    pub name: String,
    /// The version's number.
    pub version: i64,
    /// The stage that it left.
    pub from: String,
    /// The stage that it is in since.
    pub to: String,
    /// The principal that moved it.
    pub actor: String,
    /// When.
    pub at: Millis,
    /// The promotion that moved it; empty where a person did.
    pub promotion: String,
}

/// One file below a root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// Its path below the root.
    pub path: String,
    /// Its bytes.
    pub digest: Digest,
    /// How many they are.
    pub size: u64,
}

/// Somebody elsewhere who wants to be told what happens.
#[derive(Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Where deliveries go.
    pub url: String,
    /// What it is for.
    pub description: Option<String>,
    /// What deliveries are signed with.
    pub secret: Option<String>,
    /// `ACTIVE` or `DISABLED`.
    pub status: String,
    /// When it was made.
    pub created: Millis,
    /// When it was changed.
    pub updated: Millis,
    /// What it wants to be told: `model_version.created` and so on.
    pub events: Vec<String>,
}

impl std::fmt::Debug for Webhook {
    /// Without the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook").field("id", &self.id).field("url", &self.url).finish_non_exhaustive()
    }
}

/// How far a delivery has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryState {
    /// It will be tried, perhaps again.
    Pending,
    /// It arrived.
    Delivered,
    /// It was given up.
    Failed,
}

impl DeliveryState {
    /// The text form.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
        }
    }
}

impl std::str::FromStr for DeliveryState {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::Pending, Self::Delivered, Self::Failed].into_iter().find(|s| s.as_str() == text).ok_or(())
    }
}

/// One message to one webhook.
#[derive(Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Its number.
    pub seq: i64,
    /// The webhook.
    pub webhook_id: String,
    /// What it tells.
    pub event: String,
    /// The message, JSON.
    pub payload: String,
    /// How far it has come.
    pub state: DeliveryState,
    /// How often it was tried.
    pub attempts: u64,
    /// When it happened.
    pub created: Millis,
    /// When it is tried (again), or when it was settled.
    pub due: Millis,
    /// How the last attempt ended.
    pub outcome: Option<String>,
    /// Where it goes.
    pub url: String,
    /// What it is signed with.
    pub secret: Option<String>,
}

impl std::fmt::Debug for Delivery {
    /// Without the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Delivery").field("seq", &self.seq).field("url", &self.url).finish_non_exhaustive()
    }
}
