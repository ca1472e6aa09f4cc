//! The descriptions (`meta.yaml`) of a file store. Every value is read as text first: what looks like a number to one
//! reader of YAML is a name to another.

use anyhow::Context as _;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::path::Path;

/// The name of a description.
pub(super) const FILE: &str = "meta.yaml";

macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident { $($field:ident),+ $(,)? })+) => {$(
        $(#[$doc])*
        #[derive(Debug, Default, Deserialize)]
        #[serde(default)]
        pub(super) struct $name {
            $(pub(super) $field: Option<String>,)+
        }
    )+};
}

texts! {
    /// An experiment's.
    Experiment { experiment_id, name, artifact_location, lifecycle_stage, creation_time, last_update_time }
    /// A run's.
    Run {
        run_id, run_uuid, name, run_name, user_id, status, start_time, end_time, artifact_uri, lifecycle_stage,
    }
    /// A dataset's.
    Dataset { name, digest, source_type, source, schema, profile }
    /// A logged model's.
    LoggedModel {
        model_id, name, artifact_location, creation_timestamp, last_updated_timestamp, status, model_type,
        source_run_id, lifecycle_stage,
    }
    /// A registered model's.
    RegisteredModel { name, description, creation_timestamp, last_updated_timestamp }
    /// A version's.
    Version {
        name, version, description, user_id, creation_timestamp, last_updated_timestamp, current_stage, source,
        storage_location, run_id, run_link, model_id, status,
    }
}

/// What a run used or made.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Link {
    pub(super) source_type: Option<String>,
    pub(super) source_id: Option<String>,
    pub(super) destination_id: Option<String>,
    pub(super) step: Option<String>,
    pub(super) tags: BTreeMap<String, Option<String>>,
}

/// Reads the description in a folder.
pub(super) fn read<T: DeserializeOwned>(folder: &Path) -> anyhow::Result<T> {
    let path = folder.join(FILE);
    let text = std::fs::read_to_string(&path).with_context(|| format!("{} can't be read", path.display()))?;
    parse(&text).with_context(|| format!("{} is no description of MLflow's", path.display()))
}

/// What is said of a description that ends too early, or was never one.
pub(super) fn lacks(folder: &Path, field: &str) -> String {
    format!("{} has no {field}: it is empty or broken off", folder.join(FILE).display())
}

/// Reads a description.
pub(super) fn parse<T: DeserializeOwned>(text: &str) -> anyhow::Result<T> {
    Ok(serde_saphyr::from_str(text)?)
}

/// A whole number, where there is one. Older releases wrote times as fractions.
pub(super) fn number(text: Option<&String>) -> Option<i64> {
    let text = text?;
    text.parse().ok().or_else(|| {
        let value: f64 = text.parse().ok()?;
        // Times are far below what a float holds exactly.
        (value.is_finite() && value.abs() < 9e15).then_some(value as i64)
    })
}
