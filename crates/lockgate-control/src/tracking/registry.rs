//! Registered models.

use super::webhooks::{Event, notify};
use super::{
    AliasMove, KeyValue, RegisteredModel, Search, Tracking, TrackingError, checks, may_read, may_track,
    python, sources, workspaces,
};
use crate::states;
use lockgate_core::actor::Actor;
use lockgate_core::id::ModelName;
use lockgate_store::{Conn, DEFAULT_WORKSPACE, Tx};

/// What a registered model is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewRegisteredModel {
    /// Its name.
    pub name: String,
    /// Its description.
    pub description: Option<String>,
    /// Its tags.
    pub tags: Vec<KeyValue>,
}

/// The registered model with this name.
pub(super) async fn found(conn: &mut Conn, name: &str) -> Result<RegisteredModel, TrackingError> {
    checks::model_name(name)?;
    let found = conn.registered_model(name).await?;
    found.ok_or_else(|| TrackingError::missing(format!("Registered Model with name={name} not found")))
}

/// Refuses a name that is in use; models and prompts share their names.
async fn name_is_free(tx: &mut Tx, name: &str, prompt: bool) -> Result<(), TrackingError> {
    let Some(found) = tx.registered_model(name).await? else { return Ok(()) };
    let kind = |prompt| if prompt { "Prompt" } else { "Registered Model" };
    let (old, new) = (sources::is_prompt_tagged(&found.tags), prompt);
    if old == new {
        return Err(TrackingError::Exists(format!("{} (name={name}) already exists.", kind(new))));
    }
    Err(TrackingError::Exists(format!(
        "Tried to create a {} with name {}, but the name is already taken by a {}. MLflow does not allow a model and a prompt \
         of the same name.",
        kind(new).to_lowercase(),
        python::text(name),
        kind(old).to_lowercase()
    )))
}

impl Tracking {
    /// Makes a registered model, without versions yet.
    ///
    /// # Errors
    /// Where the name is in use or something is not allowed.
    pub async fn create_registered_model(
        &self,
        actor: &Actor,
        new: NewRegisteredModel,
    ) -> Result<RegisteredModel, TrackingError> {
        may_track(actor)?;
        checks::model_name(&new.name)?;
        new.tags.iter().try_for_each(checks::registry_tag)?;
        let now = self.clock.now_ms();
        let model = RegisteredModel {
            name: new.name,
            description: new.description,
            created_by: actor.id.to_string(),
            created: now,
            updated: now,
            tags: new.tags,
            aliases: Vec::new(),
            latest: Vec::new(),
        };
        self.write(move |tx| {
            Box::pin(async move {
                workspaces::may_register(tx).await?;
                name_is_free(tx, &model.name, sources::is_prompt_tagged(&model.tags)).await?;
                tx.insert_registered_model(&model).await?;
                let description = model.description.as_deref();
                notify(tx, &Event::model_created(&model.name, &model.tags, description)).await?;
                Ok(model)
            })
        })
        .await
    }

    /// The registered model with this name.
    ///
    /// # Errors
    /// Where there is none.
    pub async fn registered_model(
        &self,
        actor: &Actor,
        name: &str,
    ) -> Result<RegisteredModel, TrackingError> {
        may_read(actor)?;
        let name = name.to_owned();
        self.read(move |conn| Box::pin(async move { found(conn, &name).await })).await
    }

    /// Searches registered models.
    ///
    /// # Errors
    /// Where a condition is not about them.
    pub async fn search_registered_models(
        &self,
        actor: &Actor,
        search: Search,
    ) -> Result<Vec<RegisteredModel>, TrackingError> {
        may_read(actor)?;
        self.read(move |conn| Box::pin(async move { Ok(conn.search_registered_models(&search).await?) }))
            .await
    }

    /// Changes a registered model's description; gives the model as it is then.
    ///
    /// # Errors
    /// Where there is no such model.
    pub async fn describe_registered_model(
        &self,
        actor: &Actor,
        name: &str,
        description: Option<String>,
    ) -> Result<RegisteredModel, TrackingError> {
        may_track(actor)?;
        let (name, now) = (name.to_owned(), self.clock.now_ms());
        self.write(move |tx| {
            Box::pin(async move {
                found(tx, &name).await?;
                workspaces::may_register(tx).await?;
                tx.describe_registered_model(&name, description.as_deref(), now).await?;
                found(tx, &name).await
            })
        })
        .await
    }

    /// Renames a registered model with its versions; gives the model as it is then.
    ///
    /// # Errors
    /// Where there is no such model, or the new name is in use or not allowed.
    pub async fn rename_registered_model(
        &self,
        actor: &Actor,
        name: &str,
        new_name: &str,
    ) -> Result<RegisteredModel, TrackingError> {
        may_track(actor)?;
        checks::model_name(new_name)?;
        let (name, new_name, now) = (name.to_owned(), new_name.to_owned(), self.clock.now_ms());
        self.write(move |tx| {
            Box::pin(async move {
                let model = found(tx, &name).await?;
                workspaces::may_register(tx).await?;
                if name != new_name {
                    is_free(tx, &name, None).await?;
                    name_is_free(tx, &new_name, sources::is_prompt_tagged(&model.tags)).await?;
                }
                // To itself, too: MLflow's own server counts that as an update of all versions.
                tx.rename_registered_model(&name, &new_name, now).await?;
                if name != new_name {
                    notify(tx, &Event::model_renamed(&name, &new_name)).await?;
                }
                found(tx, &new_name).await
            })
        })
        .await
    }

    /// Deletes a registered model with its versions. Releases that were made of them stay as they are.
    ///
    /// # Errors
    /// Where there is no such model.
    pub async fn delete_registered_model(&self, actor: &Actor, name: &str) -> Result<(), TrackingError> {
        may_track(actor)?;
        let (name, actor, at) = (name.to_owned(), actor.id.to_string(), self.clock.now_ms());
        self.write(move |tx| {
            Box::pin(async move {
                let model = found(tx, &name).await?;
                workspaces::may_register(tx).await?;
                is_free(tx, &name, None).await?;
                for (alias, _) in model.aliases {
                    let (name, actor) = (name.clone(), actor.clone());
                    let promotion = String::new();
                    tx.move_alias(&AliasMove { name, alias, version: None, actor, at, promotion }).await?;
                }
                tx.delete_registered_model(&name).await?;
                notify(tx, &Event::model_deleted(&name)).await
            })
        })
        .await
    }

    /// Sets a registered model's tag.
    ///
    /// # Errors
    /// Where there is no such model or the tag is not allowed.
    pub async fn set_registered_model_tag(
        &self,
        actor: &Actor,
        name: &str,
        tag: KeyValue,
    ) -> Result<(), TrackingError> {
        may_track(actor)?;
        checks::registry_tag(&tag)?;
        let name = name.to_owned();
        self.write(move |tx| {
            Box::pin(async move {
                let tags = found(tx, &name).await?.tags;
                workspaces::may_register(tx).await?;
                tx.set_registered_model_tag(&name, &tag).await?;
                match Event::model_tag(&name, &tags, &tag.key, Some(&tag.value)) {
                    Some(event) => notify(tx, &event).await,
                    None => Ok(()),
                }
            })
        })
        .await
    }

    /// Removes a registered model's tag; nothing happens where there is none.
    ///
    /// # Errors
    /// Where there is no such model.
    pub async fn delete_registered_model_tag(
        &self,
        actor: &Actor,
        name: &str,
        key: &str,
    ) -> Result<(), TrackingError> {
        may_track(actor)?;
        let (name, key) = (name.to_owned(), key.to_owned());
        self.write(move |tx| {
            Box::pin(async move {
                let tags = found(tx, &name).await?.tags;
                workspaces::may_register(tx).await?;
                tx.delete_registered_model_tag(&name, &key).await?;
                match Event::model_tag(&name, &tags, &key, None) {
                    Some(event) => notify(tx, &event).await,
                    None => Ok(()),
                }
            })
        })
        .await
    }
}

/// Refuses to take a registered model, its name, or one of its versions, away while an environment serves it.
pub(super) async fn is_free(tx: &mut Conn, name: &str, version: Option<u64>) -> Result<(), TrackingError> {
    // What environments serve was registered in the default workspace.
    if tx.workspace() != DEFAULT_WORKSPACE {
        return Ok(());
    }
    let Ok(model) = ModelName::new(name) else { return Ok(()) };
    let deployments = states::deployments(tx, None, Some(&model)).await.map_err(TrackingError::from)?;
    for (environment, deployment) in deployments {
        let traffic = deployment.traffic();
        let sides = [traffic.main, traffic.split.map(|(revision, _, _)| revision)];
        for revision in sides.into_iter().flatten() {
            if version.is_none_or(|number| number == revision.model_version) {
                return Err(TrackingError::Invalid(format!(
                    "Environment `{environment}` serves version {} of `{name}`. Promote another release there first.",
                    revision.model_version
                )));
            }
        }
    }
    Ok(())
}
