//! MLflow's logged models: a model's files with a place, params, tags and metrics of their own.

use super::{
    KeyValue, Lifecycle, LoggedModel, ModelVersion, Search, Tracking, TrackingError, checks, experiments,
    may_read, may_track, places, python,
};
use lockgate_core::actor::Actor;
use lockgate_core::clock::Millis;
use lockgate_store::{Conn, Tx};
use serde_json::{Value, json};

/// How far a logged model is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelStatus {
    /// Its files are being uploaded.
    Pending,
    /// Its files are there.
    Ready,
    /// Its files could not be uploaded.
    Failed,
}

impl ModelStatus {
    /// All, as MLflow numbers them from 1.
    pub const ALL: [Self; 3] = [Self::Pending, Self::Ready, Self::Failed];

    /// MLflow's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "LOGGED_MODEL_PENDING",
            Self::Ready => "LOGGED_MODEL_READY",
            Self::Failed => "LOGGED_MODEL_UPLOAD_FAILED",
        }
    }
}

/// What a logged model is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewLoggedModel {
    /// Its experiment.
    pub experiment_id: String,
    /// Its name; made up where there is none.
    pub name: Option<String>,
    /// Its type, as the client says.
    pub model_type: String,
    /// The run that makes it.
    pub source_run_id: String,
    /// Its params.
    pub params: Vec<KeyValue>,
    /// Its tags.
    pub tags: Vec<KeyValue>,
}

/// The logged model with this id.
pub(super) async fn found(conn: &mut Conn, id: &str) -> Result<LoggedModel, TrackingError> {
    conn.logged_model(id).await?.ok_or_else(|| missing(id))
}

fn missing(id: &str) -> TrackingError {
    TrackingError::missing(format!("Logged model with ID '{id}' not found."))
}

/// The tag of a logged model that names the versions registered from it.
const VERSIONS: &str = "mlflow.modelVersions";

/// Notes on a logged model that a version was registered from it, as MLflow's own server does.
pub(super) async fn note_version(
    tx: &mut Tx,
    id: &str,
    version: &ModelVersion,
    now: Millis,
) -> Result<(), TrackingError> {
    let Some(model) = tx.logged_model(id).await? else { return Ok(()) };
    let noted = model.tags.iter().find(|tag| tag.key == VERSIONS);
    let noted = noted.and_then(|tag| serde_json::from_str::<Vec<Value>>(&tag.value).ok());
    let (mut list, new) =
        (noted.unwrap_or_default(), json!({"name": version.name, "version": version.version}));
    if !list.contains(&new) {
        list.push(new);
    }
    let tag = KeyValue { key: VERSIONS.to_owned(), value: python::json(&Value::Array(list)) };
    Ok(tx.set_logged_model_tags(id, &[tag], now).await?)
}

impl Tracking {
    /// Makes a logged model, whose files are then uploaded.
    ///
    /// # Errors
    /// Where the experiment is not in use or something is not allowed.
    pub async fn create_logged_model(
        &self,
        actor: &Actor,
        new: NewLoggedModel,
    ) -> Result<LoggedModel, TrackingError> {
        may_track(actor)?;
        let name = new.name.filter(|name| !name.is_empty()).unwrap_or_else(|| self.new_name());
        checks::logged_model_name(&name)?;
        checks::model_params(&new.params)?;
        let (params, tags) = (new.params, checks::free_tags(new.tags)?);
        let (model_id, now) = (format!("m-{}", self.new_id()), self.clock.now_ms());
        let (experiment_id, model_type, source_run_id) =
            (new.experiment_id, new.model_type, new.source_run_id);
        self.write(move |tx| {
            Box::pin(async move {
                let experiment = experiments::active(tx, &experiment_id).await?;
                let model = LoggedModel {
                    artifact_uri: places::of_logged_model(&experiment.artifact_location, &model_id),
                    model_id,
                    experiment_id: experiment.id,
                    name,
                    model_type,
                    source_run_id,
                    status: ModelStatus::Pending.as_str().to_owned(),
                    lifecycle: Lifecycle::Active,
                    created: now,
                    updated: now,
                    params,
                    tags,
                    metrics: Vec::new(),
                };
                tx.insert_logged_model(&model).await?;
                Ok(model)
            })
        })
        .await
    }

    /// The logged model with this id.
    ///
    /// # Errors
    /// Where there is none.
    pub async fn logged_model(&self, actor: &Actor, id: &str) -> Result<LoggedModel, TrackingError> {
        may_read(actor)?;
        let id = id.to_owned();
        self.read(move |conn| Box::pin(async move { found(conn, &id).await })).await
    }

    /// The logged model with this id, also where it was deleted.
    ///
    /// # Errors
    /// Where there is none.
    pub async fn any_logged_model(&self, actor: &Actor, id: &str) -> Result<LoggedModel, TrackingError> {
        may_read(actor)?;
        let id = id.to_owned();
        self.read(move |conn| {
            Box::pin(async move { conn.any_logged_model(&id).await?.ok_or_else(|| missing(&id)) })
        })
        .await
    }

    /// Searches the logged models of experiments.
    ///
    /// # Errors
    /// Where a condition is not about them.
    pub async fn search_logged_models(
        &self,
        actor: &Actor,
        experiments: &[String],
        mut search: Search,
    ) -> Result<Vec<LoggedModel>, TrackingError> {
        may_read(actor)?;
        search.clauses.push(experiments::among(experiments)?);
        self.read(move |conn| Box::pin(async move { Ok(conn.search_logged_models(&search).await?) })).await
    }

    /// Says that a logged model's files are there, or could not be uploaded.
    ///
    /// # Errors
    /// Where there is no such model.
    pub async fn finalize_logged_model(
        &self,
        actor: &Actor,
        id: &str,
        status: ModelStatus,
    ) -> Result<LoggedModel, TrackingError> {
        may_track(actor)?;
        let (id, now) = (id.to_owned(), self.clock.now_ms());
        self.write(move |tx| {
            Box::pin(async move {
                found(tx, &id).await?;
                tx.set_logged_model_status(&id, status.as_str(), now).await?;
                found(tx, &id).await
            })
        })
        .await
    }

    /// Sets params of a logged model, each once.
    ///
    /// # Errors
    /// Where there is no such model, a param is not allowed or has another value already.
    pub async fn log_logged_model_params(
        &self,
        actor: &Actor,
        id: &str,
        params: Vec<KeyValue>,
    ) -> Result<(), TrackingError> {
        may_track(actor)?;
        checks::model_params(&params)?;
        let (id, now) = (id.to_owned(), self.clock.now_ms());
        self.write(move |tx| {
            Box::pin(async move {
                let model = found(tx, &id).await?;
                let changed = params.iter().find_map(|new| {
                    let old = model.params.iter().find(|old| old.key == new.key && old.value != new.value)?;
                    Some((old, new))
                });
                if let Some((old, new)) = changed {
                    return Err(TrackingError::invalid(format!(
                        "Changing param values is not allowed. Param with key='{}' was already logged with value='{}' for \
                         model ID='{id}'. Attempted logging new value '{}'.",
                        old.key, old.value, new.value
                    )));
                }
                Ok(tx.set_logged_model_params(&id, &params, now).await?)
            })
        })
        .await
    }

    /// Sets tags of a logged model.
    ///
    /// # Errors
    /// Where there is no such model or a tag is not allowed.
    pub async fn set_logged_model_tags(
        &self,
        actor: &Actor,
        id: &str,
        tags: Vec<KeyValue>,
    ) -> Result<(), TrackingError> {
        may_track(actor)?;
        let tags = checks::free_tags(tags)?;
        let (id, now) = (id.to_owned(), self.clock.now_ms());
        self.write(move |tx| {
            Box::pin(async move {
                found(tx, &id).await?;
                Ok(tx.set_logged_model_tags(&id, &tags, now).await?)
            })
        })
        .await
    }

    /// Removes a tag of a logged model.
    ///
    /// # Errors
    /// Where there is none.
    pub async fn delete_logged_model_tag(
        &self,
        actor: &Actor,
        id: &str,
        key: &str,
    ) -> Result<(), TrackingError> {
        may_track(actor)?;
        let (id, key, now) = (id.to_owned(), key.to_owned(), self.clock.now_ms());
        self.write(move |tx| {
            Box::pin(async move {
                found(tx, &id).await?;
                if tx.delete_logged_model_tag(&id, &key, now).await? {
                    return Ok(());
                }
                Err(TrackingError::missing(format!(
                    "No tag with key '{key}' found for model with ID '{id}'."
                )))
            })
        })
        .await
    }

    /// Deletes a logged model. Its files stay readable where they lie until [`super::gc`] takes them away.
    ///
    /// # Errors
    /// Where there is none.
    pub async fn delete_logged_model(&self, actor: &Actor, id: &str) -> Result<(), TrackingError> {
        may_track(actor)?;
        let (id, now) = (id.to_owned(), self.clock.now_ms());
        self.write(move |tx| {
            Box::pin(async move {
                found(tx, &id).await?;
                Ok(tx.delete_logged_model(&id, now).await?)
            })
        })
        .await
    }
}
