//! Names that follow: the aliases, the stage and the registry of an environment say what it serves, whenever that changes or
//! the configuration gives it other names.

use super::governed::{RELEASE_TAG, environments, is_text, serves};
use super::stages::VersionStage;
use super::webhooks::{Event, notify};
use super::{AliasMove, KeyValue, ModelVersion, StageMove};
use crate::error::ControlError;
use crate::projection::ReleaseState;
use crate::states;
use lockgate_config::project::ResolvedEnvironment;
use lockgate_core::actor::Actor;
use lockgate_core::clock::Millis;
use lockgate_core::id::{EnvironmentName, ModelName, PromotionId};
use lockgate_store::{DEFAULT_WORKSPACE, Tx};
use std::collections::BTreeSet;

/// What makes names move.
#[derive(Clone, Copy)]
pub(crate) struct Mover<'a> {
    /// Who.
    pub(crate) actor: &'a Actor,
    /// When.
    pub(crate) at: Millis,
    /// By which promotion; none where a new configuration did.
    pub(crate) promotion: Option<&'a PromotionId>,
}

impl Mover<'_> {
    fn promotion(&self) -> String {
        self.promotion.map(ToString::to_string).unwrap_or_default()
    }
}

/// Tells in the registry which release was made of a version, so that MLflow's clients can find one by the other.
pub(crate) async fn note_release(tx: &mut Tx, release: &ReleaseState) -> Result<(), ControlError> {
    let (name, version) = (release.manifest.model.as_str(), release.manifest.model_version);
    let Ok(version) = i64::try_from(version) else { return Ok(()) };
    if let Some(found) = tx.model_version(name, version).await? {
        let tag = KeyValue { key: RELEASE_TAG.to_owned(), value: release.digest.to_string() };
        tx.set_model_version_tag(name, version, &tag).await?;
        notify(tx, &Event::version_tag(&found, &tag.key, Some(&tag.value))).await?;
    }
    Ok(())
}

/// Lets an environment's names follow what it serves of a model.
pub(crate) async fn follow(
    tx: &mut Tx,
    environment: &EnvironmentName,
    model: &ModelName,
    mover: Mover<'_>,
) -> Result<(), ControlError> {
    // What agents report is taken in whatever the configuration says by now.
    let all = match environments(tx).await {
        Ok(all) => all,
        Err(ControlError::Conflict { message, .. }) => {
            tracing::error!(
                message,
                "the configuration can't be read, so only the environment's own alias follows"
            );
            Vec::new()
        }
        Err(error) => return Err(error),
    };
    let Some(served) = serves(tx, environment, model.as_str()).await? else {
        return align(tx, &all, environment, model.as_str(), mover).await;
    };
    hand_over(tx, environment, model.as_str(), served, mover).await?;
    align(tx, &all, environment, model.as_str(), mover).await
}

/// Lets every alias and stage that an environment owns by a new configuration say what it serves.
///
/// # Errors
/// Where an environment would take over a workspace that people made, and with it what nobody promoted.
pub(crate) async fn realign(tx: &mut Tx, mover: Mover<'_>) -> Result<(), ControlError> {
    let all = environments(tx).await?;
    for environment in &all {
        let name = &environment.name;
        if tx.find_workspace(name.as_str()).await?.is_some() {
            return Err(ControlError::conflict(format!("there is a workspace `{name}` already"))
                .with_hint("give the environment another name, or empty the workspace and delete it"));
        }
        let mut models: BTreeSet<String> = tx
            .every_alias()
            .await?
            .into_iter()
            .filter(|(_, alias, _)| environment.owns_alias(alias))
            .map(|(model, ..)| model)
            .collect();
        if let Some(stage) = stage_of(environment) {
            let staged = tx.every_version_in_stage(stage.as_str()).await?;
            models.extend(staged.into_iter().map(|(model, _)| model));
        }
        let deployments = states::deployments(tx, Some(name), None).await?;
        models.extend(deployments.into_iter().map(|(_, deployment)| deployment.model.to_string()));
        for model in models {
            align(tx, &all, name, &model, mover).await?;
        }
    }
    Ok(())
}

fn stage_of(environment: &ResolvedEnvironment) -> Option<VersionStage> {
    VersionStage::read(environment.stage.as_deref()?)
}

/// Makes what an environment's aliases and its stage say of a model true, here and in the environment's own registry.
async fn align(
    tx: &mut Tx,
    all: &[ResolvedEnvironment],
    environment: &EnvironmentName,
    model: &str,
    mover: Mover<'_>,
) -> Result<(), ControlError> {
    let configured = all.iter().find(|e| e.name == *environment);
    let served = serves(tx, environment, model).await?;
    for workspace in [DEFAULT_WORKSPACE, environment.as_str()] {
        tx.enter(workspace);
        // What serves may be deleted from the one registry; the environment's own keeps it.
        let there = match served {
            Some(number) => tx.model_version(model, number).await?.map(|version| version.version),
            None => None,
        };
        for alias in owned(tx, configured, environment, model).await? {
            point(tx, model, &alias, there, mover).await?;
        }
    }
    tx.enter(DEFAULT_WORKSPACE);
    match configured.and_then(stage_of) {
        Some(stage) => align_stage(tx, all, model, stage, served, mover).await,
        None => Ok(()),
    }
}

/// The aliases of a model that an environment owns: those that it always has, and those that differ from them in case only.
async fn owned(
    tx: &mut Tx,
    configured: Option<&ResolvedEnvironment>,
    environment: &EnvironmentName,
    model: &str,
) -> Result<BTreeSet<String>, ControlError> {
    let owns = |alias: &str| match configured {
        Some(environment) => environment.owns_alias(alias),
        None => environment.as_str().eq_ignore_ascii_case(alias),
    };
    let mut aliases: BTreeSet<String> = match configured {
        Some(environment) => environment.own_aliases().map(str::to_owned).collect(),
        None => [environment.to_string()].into(),
    };
    let there = tx.registered_model(model).await?.map(|found| found.aliases).unwrap_or_default();
    aliases.extend(there.into_iter().map(|(alias, _)| alias).filter(|alias| owns(alias)));
    Ok(aliases)
}

/// Lets an alias point to a version, or nowhere.
async fn point(
    tx: &mut Tx,
    model: &str,
    alias: &str,
    version: Option<i64>,
    mover: Mover<'_>,
) -> Result<(), ControlError> {
    let before = tx.alias(model, alias).await?;
    if before == version || is_text(tx, model, before).await.map_err(ControlError::from)? {
        return Ok(());
    }
    tx.move_alias(&AliasMove {
        name: model.to_owned(),
        alias: alias.to_owned(),
        version,
        actor: mover.actor.id.to_string(),
        at: mover.at,
        promotion: mover.promotion(),
    })
    .await?;
    Ok(notify(tx, &Event::alias(model, false, alias, version)).await?)
}

/// What serves is in the environment's stage. What else is there is archived, or goes to the stage of an environment that
/// serves it.
async fn align_stage(
    tx: &mut Tx,
    all: &[ResolvedEnvironment],
    model: &str,
    stage: VersionStage,
    served: Option<i64>,
    mover: Mover<'_>,
) -> Result<(), ControlError> {
    let mut numbers = tx.versions_in_stage(model, stage.as_str()).await?;
    numbers.extend(served);
    for number in numbers {
        let to = match served == Some(number) {
            true => stage,
            false => elsewhere(tx, all, model, number).await?.unwrap_or(VersionStage::Archived),
        };
        let Some(found) = tx.model_version(model, number).await?.filter(|v| v.stage != to.as_str()) else {
            continue;
        };
        let event = Event::stage_changed(model, number, &found.stage, to.as_str());
        tx.move_stage(&StageMove {
            name: model.to_owned(),
            version: number,
            from: found.stage,
            to: to.as_str().to_owned(),
            actor: mover.actor.id.to_string(),
            at: mover.at,
            promotion: mover.promotion(),
        })
        .await?;
        notify(tx, &event).await?;
    }
    Ok(())
}

/// The stage of the last environment that serves a version.
async fn elsewhere(
    tx: &mut Tx,
    all: &[ResolvedEnvironment],
    model: &str,
    number: i64,
) -> Result<Option<VersionStage>, ControlError> {
    for environment in all.iter().rev() {
        if let Some(stage) = stage_of(environment)
            && serves(tx, &environment.name, model).await? == Some(number)
        {
            return Ok(Some(stage));
        }
    }
    Ok(None)
}

/// Puts what an environment serves from now on into its own registry, under its own number.
async fn hand_over(
    tx: &mut Tx,
    environment: &EnvironmentName,
    name: &str,
    number: i64,
    mover: Mover<'_>,
) -> Result<(), ControlError> {
    let (Some(model), Some(version)) =
        (tx.registered_model(name).await?, tx.model_version(name, number).await?)
    else {
        return Ok(());
    };
    tx.enter(environment.as_str());
    if tx.registered_model(name).await?.is_none() {
        tx.insert_registered_model(&model).await?;
        notify(tx, &Event::model_created(name, &model.tags, model.description.as_deref())).await?;
    }
    let there = tx.model_version(name, number).await?;
    let same = |there: &ModelVersion| there.storage_location == version.storage_location;
    if !there.as_ref().is_some_and(same) {
        // A model that was deleted and made again has other versions under the same numbers.
        if there.is_some() {
            tx.delete_model_version(name, number, mover.at).await?;
            notify(tx, &Event::version_deleted(name, number)).await?;
        }
        let stage = VersionStage::None.as_str().to_owned();
        let version = ModelVersion { updated: mover.at, stage, ..version };
        tx.insert_model_version(&version).await?;
        notify(tx, &Event::version_created(&version)).await?;
        tx.reserve_versions(name, number).await?;
    }
    tx.enter(DEFAULT_WORKSPACE);
    Ok(())
}
