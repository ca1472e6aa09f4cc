//! What the rest of the control plane asks about models and runs. Its callers have asked for permission already.

use super::{KeyValue, Metric, Run, Tracking, TrackingError, aliases, models, sources};
use crate::error::ControlError;
use lockgate_core::digest::Digest;
use serde_json::Value;
use std::collections::BTreeMap;

/// A registered version as releases are made of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelVersionInfo {
    /// The model's name.
    pub name: String,
    /// The version's number.
    pub version: u64,
    /// Its files: path, digest and size.
    pub files: Vec<(String, Digest, u64)>,
    /// The run behind it.
    pub run_id: Option<String>,
    /// The run's params, and the logged model's.
    pub params: BTreeMap<String, String>,
    /// Who ran the run, as the client said.
    pub user: Option<String>,
}

/// What a run logged, for people.
#[derive(Debug, Clone, PartialEq)]
pub struct RunSummary {
    /// Its params.
    pub params: BTreeMap<String, String>,
    /// The latest value of every metric: a number, or text where it is not finite.
    pub metrics: BTreeMap<String, Value>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}

fn map(pairs: Vec<KeyValue>) -> BTreeMap<String, String> {
    pairs.into_iter().map(|pair| (pair.key, pair.value)).collect()
}

fn number(metric: &Metric) -> Value {
    serde_json::Number::from_f64(metric.value)
        .map_or_else(|| Value::String(metric.value.to_string()), Value::Number)
}

impl From<Run> for RunSummary {
    fn from(run: Run) -> Self {
        Self {
            params: map(run.params),
            metrics: run.metrics.iter().map(|metric| (metric.key.clone(), number(metric))).collect(),
            tags: map(run.tags),
        }
    }
}

impl Tracking {
    /// The registered version behind a number, an alias or `latest`, with its files.
    ///
    /// # Errors
    /// Where there is none.
    pub async fn resolve_model(&self, name: &str, version: &str) -> Result<ModelVersionInfo, ControlError> {
        let (owned, wanted) = (name.to_owned(), version.to_owned());
        let found = self
            .read(move |conn| {
                Box::pin(async move {
                    let version = aliases::version(conn, &owned, &wanted).await?;
                    let files = sources::files(conn, &version.storage_location).await?;
                    let run = conn.run(&version.run_id).await?;
                    let model = match version.model_id.as_str() {
                        "" => None,
                        id => models::found(conn, id).await.map(Some).or_else(absent)?,
                    };
                    Ok((version, files, run, model))
                })
            })
            .await;
        let (version, files, run, model) = found.map_err(|error| {
            let error = match error {
                // An unknown alias is a missing thing to everybody but MLflow's clients.
                TrackingError::Invalid(message) => TrackingError::Missing(message),
                error => error,
            };
            ControlError::from(error).with_hint(format!(
                "log a model with registered_model_name=\"{name}\", or set the alias on a version"
            ))
        })?;
        if files.is_empty() {
            return Err(ControlError::invalid(format!(
                "version {} of `{name}` has no files here; they lie at {}",
                version.version, version.storage_location
            ))
            .with_hint("log the model to this server and register it again"));
        }
        let mut params = map(run.map(|run| run.params).unwrap_or_default());
        params.extend(map(model.map(|model| model.params).unwrap_or_default()));
        Ok(ModelVersionInfo {
            name: version.name,
            version: u64::try_from(version.version)
                .map_err(|_| ControlError::Internal("a version's number is negative".to_owned()))?,
            files: files.into_iter().map(|file| (file.path, file.digest, file.size)).collect(),
            run_id: Some(version.run_id).filter(|id| !id.is_empty()),
            params,
            user: Some(version.user_id).filter(|user| !user.is_empty()),
        })
    }

    /// What a run logged; none where there is no such run.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn run_summary(&self, id: &str) -> Result<Option<RunSummary>, ControlError> {
        let id = id.to_owned();
        let run = self.read(move |conn| Box::pin(async move { Ok(conn.run(&id).await?) })).await?;
        Ok(run.map(RunSummary::from))
    }
}

/// What was deleted since is not needed.
fn absent<T>(error: TrackingError) -> Result<Option<T>, TrackingError> {
    match error {
        TrackingError::Missing(_) => Ok(None),
        error => Err(error),
    }
}
