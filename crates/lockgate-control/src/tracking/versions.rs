//! Versions of registered models.

use super::governed::RELEASE_TAG;
use super::lineage::{self, Lineage};
use super::registry::is_free;
use super::sources::Origin;
use super::uris::{self, Uri};
use super::webhooks::{Event, notify};
use super::{
    AliasMove, KeyValue, ModelVersion, Search, Tracking, TrackingError, VersionStage, checks, may_read,
    may_track, models, places, registry, sources, workspaces,
};
use lockgate_core::actor::Actor;
use lockgate_core::clock::Millis;
use lockgate_store::{Conn, Tx};

/// What a version is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewModelVersion {
    /// The model's name.
    pub name: String,
    /// Where its files come from.
    pub source: String,
    /// The run behind it; may be empty.
    pub run_id: String,
    /// The logged model behind it; may be empty.
    pub model_id: String,
    /// A link to the run elsewhere.
    pub run_link: Option<String>,
    /// Its description.
    pub description: Option<String>,
    /// Its tags.
    pub tags: Vec<KeyValue>,
}

/// One version.
pub(super) async fn found(conn: &mut Conn, name: &str, number: i64) -> Result<ModelVersion, TrackingError> {
    checks::model_name(name)?;
    conn.model_version(name, number).await?.ok_or_else(|| {
        TrackingError::missing(format!("Model Version (name={name}, version={number}) not found"))
    })
}

/// A version's number.
pub(super) fn number(text: &str) -> Result<i64, TrackingError> {
    text.parse()
        .map_err(|_| TrackingError::invalid(format!("Parameter 'version' must be an integer, got '{text}'.")))
}

/// Checks a new version's source, and gives the version a list of the files that lie there.
async fn give_files(
    tx: &mut Tx,
    version: &mut ModelVersion,
    folder: &str,
    now: Millis,
) -> Result<(), TrackingError> {
    let (source, run_id, model_id) =
        (version.source.clone(), version.run_id.clone(), version.model_id.clone());
    let Lineage { source, run_id, model_id } =
        lineage::checked(tx, Lineage { source, run_id, model_id }).await?;
    let origin = match uris::is_local(&Uri::of(&source)) {
        // It was found to lie in the run's own folder, which clients reach and this server does not.
        true => Origin { uri: source.clone(), run_id, model_id },
        false => match sources::origin(tx, &source, &run_id, &model_id).await {
            // As with MLflow's own server, the run may be another server's. There are no files here then.
            Err(TrackingError::Missing(_)) if source.starts_with("runs:/") => {
                Origin { uri: source.clone(), run_id, model_id }
            }
            found => found?,
        },
    };
    let files = sources::files(tx, &origin.uri).await?;
    let root = places::version_root(folder);
    for file in &files {
        tx.put_artifact(&root, file, now).await?;
    }
    // Where nothing is there yet, or it lies elsewhere, the version can only point to it.
    version.storage_location = if files.is_empty() { origin.uri } else { places::uri(&root) };
    (version.source, version.run_id, version.model_id) = (source, origin.run_id, origin.model_id);
    Ok(())
}

/// How many copies of copies are followed.
const COPIES: usize = 16;

/// The source of the form `runs:/…` that a version, or what it is a copy of, was registered from.
async fn run_source(conn: &mut Conn, version: &ModelVersion) -> Result<Option<String>, TrackingError> {
    let mut source = version.source.clone();
    for _ in 0..COPIES {
        if source.starts_with("runs:/") {
            return Ok(Some(source));
        }
        let copied = source.strip_prefix("models:/").and_then(|rest| rest.split_once('/'));
        let Some((name, Ok(number))) = copied.map(|(name, number)| (name, number.parse())) else { break };
        let Some(original) = conn.model_version(name, number).await? else { break };
        source = original.source;
    }
    Ok(None)
}

/// Where a version's files are read: at its run, as with MLflow's own server, as long as they are there what they were when the
/// version was registered; otherwise at its own list of them.
async fn shown_location(conn: &mut Conn, version: ModelVersion) -> Result<String, TrackingError> {
    let Some(source) = run_source(conn, &version).await? else { return Ok(version.storage_location) };
    let kept = sources::files(conn, &version.storage_location).await?;
    match sources::origin(conn, &source, "", "").await {
        Ok(origin) if sources::files(conn, &origin.uri).await? == kept => Ok(source),
        Ok(_) | Err(TrackingError::Missing(_) | TrackingError::Invalid(_)) => Ok(version.storage_location),
        Err(error) => Err(error),
    }
}

impl Tracking {
    /// Registers a version. Its files are those that lie at its source now: later changes there don't reach it.
    ///
    /// # Errors
    /// Where there is no such model, or its source leads nowhere or to something else than the request says.
    pub async fn create_model_version(
        &self,
        actor: &Actor,
        mut new: NewModelVersion,
    ) -> Result<ModelVersion, TrackingError> {
        may_track(actor)?;
        // A client that copies a version copies its tags, too; its release is not the copy's.
        new.tags.retain(|tag| tag.key != RELEASE_TAG);
        new.tags.iter().try_for_each(checks::version_tag)?;
        let (created_by, folder, now) = (actor.id.to_string(), self.new_id(), self.clock.now_ms());
        self.write(move |tx| {
            Box::pin(async move {
                registry::found(tx, &new.name).await?;
                workspaces::may_register(tx).await?;
                let NewModelVersion { name, source, run_id, model_id, run_link, description, tags } = new;
                let mut version = ModelVersion {
                    name,
                    version: 0,
                    description,
                    user_id: String::new(),
                    created_by,
                    storage_location: source.clone(),
                    source,
                    run_id,
                    run_link,
                    model_id,
                    created: now,
                    updated: now,
                    stage: VersionStage::None.as_str().to_owned(),
                    tags,
                    aliases: Vec::new(),
                };
                let model_id = version.model_id.clone();
                // A prompt is a version without files, whose source is a placeholder.
                if sources::is_prompt(&version) {
                    lineage::check_prompt(&version.source)?;
                } else {
                    give_files(tx, &mut version, &folder, now).await?;
                }
                if let Some(run) = tx.run_row(&version.run_id).await? {
                    version.user_id = run.user_id;
                }
                let missing = || TrackingError::missing("The registered model is gone");
                version.version = tx.take_version(&version.name, now).await?.ok_or_else(missing)?;
                tx.insert_model_version(&version).await?;
                if !model_id.is_empty() && !sources::is_prompt(&version) {
                    models::note_version(tx, &model_id, &version, now).await?;
                }
                notify(tx, &Event::version_created(&version)).await?;
                Ok(version)
            })
        })
        .await
    }

    /// One version with its tags and aliases.
    ///
    /// # Errors
    /// Where there is none.
    pub async fn model_version(
        &self,
        actor: &Actor,
        name: &str,
        version: &str,
    ) -> Result<ModelVersion, TrackingError> {
        may_read(actor)?;
        let (name, number) = (name.to_owned(), number(version)?);
        self.read(move |conn| Box::pin(async move { found(conn, &name, number).await })).await
    }

    /// Where clients read a version's files.
    ///
    /// # Errors
    /// Where there is no such version.
    pub async fn model_version_location(
        &self,
        actor: &Actor,
        name: &str,
        version: &str,
    ) -> Result<String, TrackingError> {
        may_read(actor)?;
        let (name, number) = (name.to_owned(), number(version)?);
        self.read(move |conn| {
            Box::pin(async move {
                let version = found(conn, &name, number).await?;
                shown_location(conn, version).await
            })
        })
        .await
    }

    /// The newest version of a model in each of some stages, with their tags and aliases; in each stage that has one where
    /// none is named.
    ///
    /// # Errors
    /// Where there is no such model.
    pub async fn newest_versions(
        &self,
        actor: &Actor,
        name: &str,
        stages: &[VersionStage],
    ) -> Result<Vec<ModelVersion>, TrackingError> {
        may_read(actor)?;
        let (name, stages) = (name.to_owned(), stages.to_vec());
        self.read(move |conn| {
            Box::pin(async move {
                let mut list = Vec::new();
                let wanted = |stage: &str| stages.is_empty() || stages.iter().any(|s| s.as_str() == stage);
                for newest in registry::found(conn, &name).await?.latest {
                    if wanted(&newest.stage) {
                        list.push(found(conn, &name, newest.version).await?);
                    }
                }
                Ok(list)
            })
        })
        .await
    }

    /// Searches versions.
    ///
    /// # Errors
    /// Where a condition is not about them.
    pub async fn search_model_versions(
        &self,
        actor: &Actor,
        search: Search,
    ) -> Result<Vec<ModelVersion>, TrackingError> {
        may_read(actor)?;
        self.read(move |conn| Box::pin(async move { Ok(conn.search_model_versions(&search).await?) })).await
    }

    /// Changes a version's description; gives the version as it is then.
    ///
    /// # Errors
    /// Where there is none.
    pub async fn describe_model_version(
        &self,
        actor: &Actor,
        name: &str,
        version: &str,
        description: Option<String>,
    ) -> Result<ModelVersion, TrackingError> {
        may_track(actor)?;
        let (name, number, now) = (name.to_owned(), number(version)?, self.clock.now_ms());
        self.write(move |tx| {
            Box::pin(async move {
                found(tx, &name, number).await?;
                workspaces::may_register(tx).await?;
                tx.describe_model_version(&name, number, description.as_deref(), now).await?;
                found(tx, &name, number).await
            })
        })
        .await
    }

    /// Deletes a version with its aliases; its number is not used again. Releases that were made of it stay.
    ///
    /// # Errors
    /// Where there is none.
    pub async fn delete_model_version(
        &self,
        actor: &Actor,
        name: &str,
        version: &str,
    ) -> Result<(), TrackingError> {
        may_track(actor)?;
        let (name, number, at) = (name.to_owned(), number(version)?, self.clock.now_ms());
        let actor = actor.id.to_string();
        self.write(move |tx| {
            Box::pin(async move {
                let version = found(tx, &name, number).await?;
                workspaces::may_register(tx).await?;
                is_free(tx, &name, u64::try_from(number).ok()).await?;
                for alias in version.aliases {
                    let (name, actor) = (name.clone(), actor.clone());
                    let promotion = String::new();
                    tx.move_alias(&AliasMove { name, alias, version: None, actor, at, promotion }).await?;
                }
                tx.delete_model_version(&name, number, at).await?;
                notify(tx, &Event::version_deleted(&name, number)).await
            })
        })
        .await
    }

    /// Sets a version's tag.
    ///
    /// # Errors
    /// Where there is no such version or the tag is not allowed.
    pub async fn set_model_version_tag(
        &self,
        actor: &Actor,
        name: &str,
        version: &str,
        tag: KeyValue,
    ) -> Result<(), TrackingError> {
        may_track(actor)?;
        let (name, number) = (name.to_owned(), number(version)?);
        checks::version_tag(&tag)?;
        self.write(move |tx| {
            Box::pin(async move {
                let version = found(tx, &name, number).await?;
                workspaces::may_register(tx).await?;
                tx.set_model_version_tag(&name, number, &tag).await?;
                notify(tx, &Event::version_tag(&version, &tag.key, Some(&tag.value))).await
            })
        })
        .await
    }

    /// Removes a version's tag; nothing happens where there is none.
    ///
    /// # Errors
    /// Where there is no such version.
    pub async fn delete_model_version_tag(
        &self,
        actor: &Actor,
        name: &str,
        version: &str,
        key: &str,
    ) -> Result<(), TrackingError> {
        may_track(actor)?;
        checks::own_tag(key)?;
        let (name, number, key) = (name.to_owned(), number(version)?, key.to_owned());
        self.write(move |tx| {
            Box::pin(async move {
                let version = found(tx, &name, number).await?;
                workspaces::may_register(tx).await?;
                tx.delete_model_version_tag(&name, number, &key).await?;
                notify(tx, &Event::version_tag(&version, &key, None)).await
            })
        })
        .await
    }
}
