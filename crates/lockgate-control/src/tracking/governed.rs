//! Aliases and stages that an environment owns: they say what serves there, so people can say only of them what is so.
//! How they move is in `following`.

use super::stages::VersionStage;
use super::{TrackingError, sources, workspaces};
use crate::configuration;
use crate::error::ControlError;
use crate::projection::{ReleaseState, State};
use crate::states::{self, WAITING, Wanted};
use lockgate_config::project::ResolvedEnvironment;
use lockgate_core::access::Refused;
use lockgate_core::id::{EnvironmentName, ModelName};
use lockgate_core::promotion::Promotion;
use lockgate_store::{Conn, DEFAULT_WORKSPACE};

/// The tag that names a version's newest release. People can't set it.
pub(super) const RELEASE_TAG: &str = "lockgate.release";

/// The environments of the project that this server carries; none where it carries none.
pub(super) async fn environments(conn: &mut Conn) -> Result<Vec<ResolvedEnvironment>, ControlError> {
    let project = configuration::applied(conn).await?;
    Ok(project.map(|project| project.environments).unwrap_or_default())
}

/// The version of a model that an environment serves.
pub(super) async fn serves(
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
pub(super) async fn is_text(
    conn: &mut Conn,
    model: &str,
    version: Option<i64>,
) -> Result<bool, TrackingError> {
    let Some(number) = version else { return Ok(false) };
    let found = conn.model_version(model, number).await?;
    let none = |place: &str| sources::PLACEHOLDERS.contains(&place);
    Ok(found.is_some_and(|v| sources::is_prompt(&v) && none(&v.source) && none(&v.storage_location)))
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
