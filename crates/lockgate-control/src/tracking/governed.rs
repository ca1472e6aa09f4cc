//! Aliases and stages that an environment owns: they say what serves there, so only promotions move them.

use super::stages::VersionStage;
use super::webhooks::{self, Event};
use super::{AliasMove, KeyValue, ModelVersion, StageMove, TrackingError, sources, workspaces};
use crate::configuration;
use crate::error::ControlError;
use crate::projection::{ReleaseState, State};
use crate::states::{self, WAITING, Wanted};
use lockgate_config::project::ResolvedEnvironment;
use lockgate_core::access::Refused;
use lockgate_core::actor::Actor;
use lockgate_core::clock::Millis;
use lockgate_core::id::{EnvironmentName, ModelName, PromotionId};
use lockgate_core::promotion::Promotion;
use lockgate_store::{Conn, DEFAULT_WORKSPACE, Tx};

/// The tag that names a version's newest release. People can't set it.
pub(super) const RELEASE_TAG: &str = "lockgate.release";

/// The environments of the project that this server carries; none where it carries none.
pub(super) async fn environments(conn: &mut Conn) -> Result<Vec<ResolvedEnvironment>, ControlError> {
    let project = configuration::applied(conn).await?;
    Ok(project.map(|project| project.environments).unwrap_or_default())
}

/// The version of a model that an environment serves.
async fn serves(
    conn: &mut Conn,
    environment: &EnvironmentName,
    model: &str,
) -> Result<Option<i64>, ControlError> {
    let Ok(model) = ModelName::new(model) else { return Ok(None) };
    let deployment = states::deployment(conn, environment, &model).await?;
    let version = deployment.traffic().main.map(|revision| revision.model_version);
    Ok(version.and_then(|version| i64::try_from(version).ok()))
}

/// Refuses to let an alias say of an environment what is not so.
pub(super) async fn check_alias(
    conn: &mut Conn,
    model: &str,
    alias: &str,
    version: Option<i64>,
) -> Result<(), TrackingError> {
    workspaces::may_register(conn).await?;
    if conn.workspace() != DEFAULT_WORKSPACE {
        return Ok(());
    }
    for environment in environments(conn).await?.iter().filter(|e| e.owns_alias(alias)) {
        if serves(conn, &environment.name, model).await? != version && !is_text(conn, model, version).await? {
            let what = format!("alias `{alias}` says what environment `{}` serves", environment.name);
            return Err(refusal(conn, &what, environment, model, version).await?);
        }
    }
    Ok(())
}

/// Whether a version is a prompt that no model can be loaded from: people name prompts by aliases such as `production`, too, and
/// nothing serves them. A version that was only tagged as one has a source.
async fn is_text(conn: &mut Conn, model: &str, version: Option<i64>) -> Result<bool, TrackingError> {
    /// What MLflow's clients write where a prompt has no source.
    const NO_SOURCE: &str = "dummy-source";
    let Some(number) = version else { return Ok(false) };
    let found = conn.model_version(model, number).await?;
    Ok(found
        .is_some_and(|v| sources::is_prompt(&v) && v.source == NO_SOURCE && v.storage_location == NO_SOURCE))
}

/// Refuses to let a version's stage say of an environment what is not so.
pub(super) async fn check_stage(
    conn: &mut Conn,
    model: &str,
    version: i64,
    from: VersionStage,
    to: VersionStage,
) -> Result<(), TrackingError> {
    workspaces::may_register(conn).await?;
    if conn.workspace() != DEFAULT_WORKSPACE {
        return Ok(());
    }
    for environment in environments(conn).await? {
        let stage = environment.stage.as_deref().and_then(VersionStage::read);
        let served = serves(conn, &environment.name, model).await? == Some(version);
        let what = format!("stage {to} says what environment `{}` serves", environment.name);
        match stage {
            Some(stage) if stage == to && !served => {
                return Err(refusal(conn, &what, &environment, model, Some(version)).await?);
            }
            Some(stage) if stage == from && stage != to && served => {
                return Err(refusal(
                    conn,
                    &what.replace(to.as_str(), from.as_str()),
                    &environment,
                    model,
                    None,
                )
                .await?);
            }
            _ => {}
        }
    }
    Ok(())
}

/// What is missing, and how to ask for it.
async fn refusal(
    conn: &mut Conn,
    what: &str,
    environment: &ResolvedEnvironment,
    model: &str,
    version: Option<i64>,
) -> Result<TrackingError, ControlError> {
    let name = &environment.name;
    let next = match version {
        None => format!("To take it out of there: lockgate rollback {name}"),
        Some(version) => missing(conn, environment, model, version).await?,
    };
    Ok(TrackingError::Refused(Refused(format!("The {what}; only promotions move it. {next}"))))
}

async fn missing(
    conn: &mut Conn,
    environment: &ResolvedEnvironment,
    model: &str,
    version: i64,
) -> Result<String, ControlError> {
    let name = &environment.name;
    let Some(release) = release_of(conn, model, version).await? else {
        return Ok(format!(
            "Version {version} of `{model}` has no release yet: lockgate release create {model}:{version}, then \
             lockgate promote RELEASE --env {name}"
        ));
    };
    let short = release.digest.short();
    let wanted =
        Wanted { environment: Some(name), model: Some(&release.manifest.model), ..Wanted::default() };
    let all = states::promotions(conn, &wanted).await?;
    let under_way = |p: &&Promotion| {
        p.plan.revision.release == release.digest
            && (WAITING.contains(&p.stage.name()) || p.stage.holds_slot())
    };
    if let Some(promotion) = all.iter().find(under_way) {
        let (id, stage) = (&promotion.id, promotion.stage.name());
        return Ok(format!(
            "Promotion {id} of its release {short} is under way ({stage}): lockgate why {id}"
        ));
    }
    let gates: Vec<&str> = environment.gates.keys().map(|gate| gate.as_str()).collect();
    let before: Vec<&str> = environment.after.iter().map(|e| e.as_str()).collect();
    let mut needs = Vec::new();
    if !before.is_empty() {
        needs.push(format!("to have been in {}", before.join(", ")));
    }
    if !gates.is_empty() {
        needs.push(format!("to pass {}", gates.join(", ")));
    }
    if let Some(approve) = &environment.approve {
        needs.push(format!("{} approval(s)", approve.count));
    }
    let needs = if needs.is_empty() { String::new() } else { format!(" It needs {}.", needs.join(", ")) };
    Ok(format!(
        "Release {short} of version {version} was not promoted there.{needs} See what is missing: lockgate plan {short} \
         --env {name}; ask for it: lockgate promote {short} --env {name}"
    ))
}

/// The newest release of a version.
async fn release_of(
    conn: &mut Conn,
    model: &str,
    version: i64,
) -> Result<Option<ReleaseState>, ControlError> {
    let mut newest: Option<ReleaseState> = None;
    for row in states::all(conn, "Release").await? {
        let State::Release(release) = states::read("Release", &row.state)? else { continue };
        let manifest = &release.manifest;
        if manifest.model.as_str() == model && i64::try_from(manifest.model_version) == Ok(version) {
            newest = Some(*release);
        }
    }
    Ok(newest)
}

/// Tells in the registry which release was made of a version, so that MLflow's clients can find one by the other.
pub(crate) async fn note_release(tx: &mut Tx, release: &ReleaseState) -> Result<(), ControlError> {
    let (name, version) = (release.manifest.model.as_str(), release.manifest.model_version);
    let Ok(version) = i64::try_from(version) else { return Ok(()) };
    if tx.model_version(name, version).await?.is_some() {
        let tag = KeyValue { key: RELEASE_TAG.to_owned(), value: release.digest.to_string() };
        tx.set_model_version_tag(name, version, &tag).await?;
    }
    Ok(())
}

/// What made an environment serve something else.
pub(crate) struct Moved<'a> {
    pub(crate) environment: &'a EnvironmentName,
    pub(crate) model: &'a ModelName,
    pub(crate) before: Option<u64>,
    pub(crate) after: Option<u64>,
    pub(crate) promotion: &'a PromotionId,
    pub(crate) actor: &'a Actor,
    pub(crate) at: Millis,
}

/// Lets the environment's aliases and its stage follow what it serves.
pub(crate) async fn follow(tx: &mut Tx, moved: &Moved<'_>) -> Result<(), ControlError> {
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
    let environment = all.iter().find(|e| e.name == *moved.environment);
    let own = moved.environment.as_str();
    let aliases: Vec<&str> = environment.map_or_else(|| vec![own], |e| e.own_aliases().collect());
    let mut version = moved.after.and_then(|version| i64::try_from(version).ok());
    if let Some(number) = version
        && tx.model_version(moved.model.as_str(), number).await?.is_none()
    {
        // What serves again was deleted from the registry meanwhile; its release still has it.
        version = None;
    }
    hand_over(tx, moved, version).await?;
    point(tx, moved, &aliases, version).await?;
    tx.enter(moved.environment.as_str());
    // The environment's registry keeps what was deleted elsewhere.
    let own = moved.after.and_then(|version| i64::try_from(version).ok());
    let own = match own {
        Some(number) => tx.model_version(moved.model.as_str(), number).await?.map(|own| own.version),
        None => None,
    };
    point(tx, moved, &aliases, own).await?;
    tx.enter(DEFAULT_WORKSPACE);
    if let Some(stage) = environment.and_then(|e| VersionStage::read(e.stage.as_deref()?)) {
        follow_with_stage(tx, moved, stage, version, &all).await?;
    }
    Ok(())
}

/// Lets every alias and stage that an environment owns by a new configuration say what it serves.
///
/// # Errors
/// Where an environment would take over a workspace that people made, and with it what nobody promoted.
pub(crate) async fn realign(tx: &mut Tx, actor: &Actor, at: Millis) -> Result<(), ControlError> {
    for environment in environments(tx).await? {
        let name = &environment.name;
        if tx.find_workspace(name.as_str()).await?.is_some() {
            return Err(ControlError::conflict(format!("there is a workspace `{name}` already"))
                .with_hint("give the environment another name, or empty the workspace and delete it"));
        }
        let moved = |model: &str, alias: &str, version| AliasMove {
            name: model.to_owned(),
            alias: alias.to_owned(),
            version,
            actor: actor.id.to_string(),
            at,
            promotion: String::new(),
        };
        for (model, alias, version) in tx.every_alias().await? {
            let owned = environment.owns_alias(&alias) && serves(tx, name, &model).await? != Some(version);
            if owned && !is_text(tx, &model, Some(version)).await.map_err(ControlError::from)? {
                tx.move_alias(&moved(&model, &alias, None)).await?;
            }
        }
        let stage = environment.stage.as_deref().and_then(VersionStage::read);
        for (model, version) in tx.every_version_in_stage(stage.map_or("", VersionStage::as_str)).await? {
            if serves(tx, name, &model).await? != Some(version) {
                let (from, to) = (stage.map_or("", VersionStage::as_str), VersionStage::Archived.as_str());
                let promotion = String::new();
                let (from, to, actor) = (from.to_owned(), to.to_owned(), actor.id.to_string());
                tx.move_stage(&StageMove { name: model, version, from, to, actor, at, promotion }).await?;
            }
        }
        for (_, deployment) in states::deployments(tx, Some(name), None).await? {
            let model = deployment.model.as_str();
            let Some(number) = serves(tx, name, model).await? else { continue };
            let Some(version) = tx.model_version(model, number).await? else { continue };
            for alias in environment.own_aliases() {
                if tx.alias(model, alias).await? != Some(number) {
                    tx.move_alias(&moved(model, alias, Some(number))).await?;
                }
            }
            if let Some(to) = stage.map(VersionStage::as_str).filter(|to| *to != version.stage) {
                let (name, from, to) = (model.to_owned(), version.stage, to.to_owned());
                let (actor, promotion) = (actor.id.to_string(), String::new());
                tx.move_stage(&StageMove { name, version: number, from, to, actor, at, promotion }).await?;
            }
        }
    }
    Ok(())
}

/// Puts what an environment serves from now on into its own registry, under its own number.
async fn hand_over(tx: &mut Tx, moved: &Moved<'_>, version: Option<i64>) -> Result<(), ControlError> {
    let (name, Some(number)) = (moved.model.as_str(), version) else { return Ok(()) };
    let (Some(model), Some(version)) =
        (tx.registered_model(name).await?, tx.model_version(name, number).await?)
    else {
        return Ok(());
    };
    tx.enter(moved.environment.as_str());
    if tx.registered_model(name).await?.is_none() {
        tx.insert_registered_model(&model).await?;
        let event = Event::model_created(name, &model.tags, model.description.as_deref());
        webhooks::notify(tx, &event).await.map_err(ControlError::from)?;
    }
    if tx.model_version(name, number).await?.is_none() {
        let stage = VersionStage::None.as_str().to_owned();
        let version = ModelVersion { updated: moved.at, stage, ..version };
        tx.insert_model_version(&version).await?;
        webhooks::notify(tx, &Event::version_created(&version)).await.map_err(ControlError::from)?;
        tx.reserve_versions(name, number).await?;
    }
    tx.enter(DEFAULT_WORKSPACE);
    Ok(())
}

/// Lets aliases point to a version, or nowhere.
async fn point(
    tx: &mut Tx,
    moved: &Moved<'_>,
    aliases: &[&str],
    version: Option<i64>,
) -> Result<(), ControlError> {
    for alias in aliases.iter().copied() {
        if tx.alias(moved.model.as_str(), alias).await? != version {
            tx.move_alias(&AliasMove {
                name: moved.model.to_string(),
                alias: alias.to_owned(),
                version,
                actor: moved.actor.id.to_string(),
                at: moved.at,
                promotion: moved.promotion.to_string(),
            })
            .await?;
            let event = Event::alias(moved.model.as_str(), false, alias, version);
            webhooks::notify(tx, &event).await.map_err(ControlError::from)?;
        }
    }
    Ok(())
}

/// The version that serves is in the environment's stage; one that was is archived, or in the stage of an environment that
/// serves it still.
async fn follow_with_stage(
    tx: &mut Tx,
    moved: &Moved<'_>,
    stage: VersionStage,
    version: Option<i64>,
    all: &[ResolvedEnvironment],
) -> Result<(), ControlError> {
    let model = moved.model.as_str();
    let before = moved.before.and_then(|version| i64::try_from(version).ok());
    for (number, wanted) in [(before, None), (version, Some(stage))] {
        let Some(number) = number.filter(|number| wanted.is_some() || Some(*number) != version) else {
            continue;
        };
        let Some(found) = tx.model_version(model, number).await? else { continue };
        if wanted.is_none() && found.stage != stage.as_str() {
            continue;
        }
        let mut to = wanted.unwrap_or(VersionStage::Archived);
        for other in all.iter().filter(|e| e.name != *moved.environment && wanted.is_none()) {
            if serves(tx, &other.name, model).await? == Some(number) {
                to = other.stage.as_deref().and_then(VersionStage::read).unwrap_or(to);
            }
        }
        if found.stage != to.as_str() {
            let event = Event::stage_changed(model, number, &found.stage, to.as_str());
            webhooks::notify(tx, &event).await.map_err(ControlError::from)?;
            tx.move_stage(&StageMove {
                name: model.to_owned(),
                version: number,
                from: found.stage,
                to: to.as_str().to_owned(),
                actor: moved.actor.id.to_string(),
                at: moved.at,
                promotion: moved.promotion.to_string(),
            })
            .await?;
        }
    }
    Ok(())
}
