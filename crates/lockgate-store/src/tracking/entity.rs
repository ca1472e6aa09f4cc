//! What can be searched: the tables and columns behind the names of conditions.

use super::search::{Field, Order};

/// One attribute of an entity.
pub(crate) struct Attribute {
    /// Its name in conditions.
    pub(crate) name: &'static str,
    /// Its column.
    pub(crate) column: &'static str,
    /// Whether it holds text.
    pub(crate) text: bool,
    /// Whether it is never NULL, so that an order by it can use its index as it is.
    pub(crate) always: bool,
    /// Whether there is an index of its values of up to [`INDEXED`] characters.
    pub(crate) indexed: bool,
}

/// How many characters those values have at the most that are in an index.
pub(crate) const INDEXED: usize = 250;

/// A table with keys and values beside the entity's own. Its alias is `s`, the entity's `t`.
pub(crate) struct Beside {
    /// The table with its alias, and joins.
    pub(crate) from: &'static str,
    /// How its rows belong to the entity's.
    pub(crate) belongs: &'static str,
}

/// Tables beside an entity's that have indexes by key and value, with alias `o`: of metrics by experiment, key and value, of
/// params and tags by key and short value.
pub(crate) struct Led {
    pub(crate) metrics: &'static str,
    pub(crate) params: &'static str,
    pub(crate) tags: &'static str,
    /// How their rows belong to the entity's.
    pub(crate) belongs: &'static str,
    /// The entity, with what is beside it tied to these rows: other conditions are met before its own row is read.
    pub(crate) entity: Entity,
}

/// Something that can be searched.
pub(crate) struct Entity {
    /// For people, in errors.
    pub(crate) name: &'static str,
    /// Its columns, of a table with alias `t`.
    pub(crate) columns: &'static str,
    pub(crate) table: &'static str,
    pub(crate) attributes: &'static [Attribute],
    pub(crate) metrics: Option<Beside>,
    pub(crate) params: Option<Beside>,
    pub(crate) tags: Option<Beside>,
    pub(crate) datasets: Option<Beside>,
    /// Whether metrics carry the dataset they were measured on; a key then has several rows.
    pub(crate) metrics_by_dataset: bool,
    /// What a search may begin with instead of the entity's own table.
    pub(crate) led: Option<&'static Led>,
    /// The order where none was asked for, and what breaks ties.
    pub(crate) order: &'static str,
    pub(crate) ties: &'static str,
}

impl Entity {
    /// Where a tag must not be that is to be lacking. A version lacks what no version of its model has: as with MLflow, all
    /// versions of a prompt are a prompt's, also one that has no tag.
    pub(crate) fn lacking(&self) -> &Option<Beside> {
        const OF_MODEL: Option<Beside> = beside("model_version_tags s", "s.name = t.name");
        if self.table == MODEL_VERSIONS.table { &OF_MODEL } else { &self.tags }
    }

    /// Which rows are there for those who search; all where it is empty.
    pub(crate) fn shown(&self) -> &'static str {
        if self.table == LOGGED_MODELS.table { " AND t.lifecycle = 'active'" } else { "" }
    }

    /// Whether ties are broken by this order first.
    pub(crate) fn ties_begin_with(&self, order: &Order) -> bool {
        let Field::Attribute(name) = order.field else { return false };
        let found = self.attributes.iter().find(|attribute| attribute.name == name && attribute.always);
        let direction = if order.ascending { "ASC" } else { "DESC" };
        found.is_some_and(|found| self.ties.starts_with(&format!("{} {direction}", found.column)))
    }
}

const fn words(name: &'static str, column: &'static str) -> Attribute {
    Attribute { name, column, text: true, always: false, indexed: false }
}

const fn number(name: &'static str, column: &'static str) -> Attribute {
    Attribute { name, column, text: false, always: false, indexed: false }
}

const fn always(name: &'static str, column: &'static str) -> Attribute {
    Attribute { name, column, text: false, always: true, indexed: false }
}

const fn beside(from: &'static str, belongs: &'static str) -> Option<Beside> {
    Some(Beside { from, belongs })
}

pub(crate) const EXPERIMENTS: Entity = Entity {
    name: "experiments",
    columns: "t.id, t.name, t.artifact_location, t.lifecycle, t.created, t.updated",
    table: "experiments",
    attributes: &[
        words("name", "t.name"),
        always("experiment_id", "t.id"),
        always("creation_time", "t.created"),
        always("last_update_time", "t.updated"),
        words("lifecycle", "t.lifecycle"),
    ],
    metrics: None,
    params: None,
    tags: beside("experiment_tags s", "s.experiment_id = t.id"),
    datasets: None,
    metrics_by_dataset: false,
    led: None,
    order: "t.created DESC, t.id ASC",
    ties: "t.id DESC",
};

static LED_RUNS: Led = Led {
    metrics: "latest_metrics",
    params: "params",
    tags: "run_tags",
    belongs: "o.run_id = t.run_id",
    entity: Entity {
        metrics: beside("latest_metrics s", "s.run_id = o.run_id"),
        params: beside("params s", "s.run_id = o.run_id"),
        tags: beside("run_tags s", "s.run_id = o.run_id"),
        ..ALL_RUNS
    },
};

pub(crate) const RUNS: Entity = Entity { led: Some(&LED_RUNS), ..ALL_RUNS };

const ALL_RUNS: Entity = Entity {
    name: "runs",
    columns: "t.run_id, t.experiment_id, t.name, t.user_id, t.created_by, t.status, t.start_time, t.end_time, t.artifact_uri, t.lifecycle",
    table: "runs",
    attributes: &[
        words("run_id", "t.run_id"),
        Attribute { indexed: true, ..words("run_name", "t.name") },
        words("user_id", "t.user_id"),
        words("status", "t.status"),
        words("artifact_uri", "t.artifact_uri"),
        always("start_time", "t.start_time"),
        number("end_time", "t.end_time"),
        always("experiment_id", "t.experiment_id"),
        words("lifecycle", "t.lifecycle"),
    ],
    metrics: beside("latest_metrics s", "s.run_id = t.run_id"),
    params: beside("params s", "s.run_id = t.run_id"),
    tags: beside("run_tags s", "s.run_id = t.run_id"),
    datasets: beside(
        "run_inputs i JOIN datasets d ON d.id = i.dataset_id LEFT JOIN input_tags g ON g.run_id = i.run_id AND \
         g.dataset_id = i.dataset_id AND g.key = 'mlflow.data.context'",
        "i.run_id = t.run_id",
    ),
    metrics_by_dataset: false,
    led: None,
    order: "t.start_time DESC, t.run_id ASC",
    ties: "t.start_time DESC, t.run_id ASC",
};

pub(crate) const LOGGED_MODELS: Entity = Entity {
    name: "logged models",
    columns: "t.model_id, t.experiment_id, t.name, t.model_type, t.source_run_id, t.status, t.artifact_uri, t.created, t.updated, t.lifecycle",
    table: "logged_models",
    attributes: &[
        words("name", "t.name"),
        words("model_id", "t.model_id"),
        words("model_type", "t.model_type"),
        words("status", "t.status"),
        words("source_run_id", "t.source_run_id"),
        words("artifact_location", "t.artifact_uri"),
        words("lifecycle_stage", "t.lifecycle"),
        always("creation_timestamp", "t.created"),
        always("last_updated_timestamp", "t.updated"),
        always("experiment_id", "t.experiment_id"),
    ],
    metrics: beside("logged_model_metrics s", "s.model_id = t.model_id"),
    params: beside("logged_model_params s", "s.model_id = t.model_id"),
    tags: beside("logged_model_tags s", "s.model_id = t.model_id"),
    datasets: None,
    metrics_by_dataset: true,
    led: None,
    order: "t.created DESC, t.model_id ASC",
    ties: "t.created DESC, t.model_id ASC",
};

pub(crate) const REGISTERED_MODELS: Entity = Entity {
    name: "registered models",
    columns: "t.label AS name, t.description, t.created_by, t.created, t.updated",
    table: "registered_models",
    attributes: &[words("name", "t.label"), always("last_updated_timestamp", "t.updated")],
    metrics: None,
    params: None,
    tags: beside("registered_model_tags s", "s.name = t.name"),
    datasets: None,
    metrics_by_dataset: false,
    led: None,
    order: "t.label ASC",
    ties: "t.label ASC",
};

pub(crate) const MODEL_VERSIONS: Entity = Entity {
    name: "model versions",
    columns: "t.label AS name, t.version, t.description, t.user_id, t.created_by, t.source, t.storage_location, t.run_id, t.run_link, t.model_id, t.created, t.updated, t.stage",
    table: "model_versions",
    attributes: &[
        words("name", "t.label"),
        words("run_id", "t.run_id"),
        words("source_path", "t.source"),
        always("version_number", "t.version"),
        always("creation_timestamp", "t.created"),
        always("last_updated_timestamp", "t.updated"),
    ],
    metrics: None,
    params: None,
    tags: beside("model_version_tags s", "s.name = t.name AND s.version = t.version"),
    datasets: None,
    metrics_by_dataset: false,
    led: None,
    order: "t.updated DESC, t.label ASC, t.version DESC",
    ties: "t.label ASC, t.version DESC",
};

pub(crate) const TRACES: Entity = Entity {
    name: "traces",
    columns: "t.trace_id, t.experiment_id, t.state, t.started, t.duration, t.client_request_id, t.request_preview, \
              t.response_preview, t.session_id",
    table: "traces",
    attributes: &[
        words("request_id", "t.trace_id"),
        words("client_request_id", "t.client_request_id"),
        words("session_id", "t.session_id"),
        words("status", "t.state"),
        always("experiment_id", "t.experiment_id"),
        always("timestamp_ms", "t.started"),
        number("execution_time_ms", "t.duration"),
        always("end_time_ms", "(t.started + COALESCE(t.duration, 0))"),
    ],
    metrics: None,
    // What runs call params is metadata here.
    params: beside("trace_metadata s", "s.trace_id = t.trace_id"),
    tags: beside("trace_tags s", "s.trace_id = t.trace_id"),
    datasets: None,
    metrics_by_dataset: false,
    led: None,
    order: "t.started DESC, t.trace_id ASC",
    ties: "t.started DESC, t.trace_id ASC",
};
