//! The project's configuration: applied as a whole, recorded, and parsed again from the record.

use crate::Control;
use crate::error::ControlError;
use crate::planner;
use crate::projection::{ProjectState, State};
use crate::states::{self, Act};
use lockgate_config::project::Principal;
use lockgate_config::{Diagnostics, Override, Project};
use lockgate_core::access::{Action, Target, authorize};
use lockgate_core::actor::{Actor, ActorKind};
use lockgate_core::digest::Digest;
use lockgate_core::entry::{Resource, ResourceKind};
use lockgate_core::event::Event;
use lockgate_core::id::{EnvironmentName, PrincipalId};
use lockgate_core::plan::ApprovalRule;
use lockgate_store::Conn;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What applying a configuration did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The configuration's digest.
    pub digest: Digest,
    /// Whether it differs from what was applied before.
    pub changed: bool,
    /// What stays as it was, because whoever applied it may not change it: sentences for people.
    #[serde(default)]
    pub kept: Vec<String>,
}

/// A configuration to apply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewConfiguration {
    /// The text of `lockgate.toml`.
    pub toml: String,
    /// Settings over it, by environment variable or `--set`: `key=value`.
    #[serde(default)]
    pub settings: Vec<String>,
}

impl NewConfiguration {
    /// The project that it describes.
    pub(crate) fn project(&self) -> Result<Project, ControlError> {
        parse(&self.toml, &self.settings).map_err(ControlError::invalid)
    }
}

/// Who must say yes once `project` is applied, and what stays as it was.
///
/// Whoever asks for a promotion brings the file along, so the file alone can't be trusted with who has to agree: a rule in
/// force is changed only by one of the people whom it names; where it names nobody, by a second person who applies the same
/// file.
fn approvals(
    project: &Project,
    before: Option<&ProjectState>,
    principals: &BTreeMap<String, PrincipalId>,
    actor: &Actor,
    digest: &Digest,
) -> Result<(BTreeMap<EnvironmentName, ApprovalRule>, Vec<String>), ControlError> {
    let second = before.is_some_and(|b| b.digest == *digest && b.by != actor.id);
    let may = |rule: &ApprovalRule| {
        let named = if rule.from.is_empty() { second } else { rule.from.contains(&actor.id) };
        actor.kind == ActorKind::User && named
    };
    let in_force = before.map(|b| b.approvals.clone()).unwrap_or_default();
    let (mut rules, mut kept) = (BTreeMap::new(), Vec::new());
    let names: BTreeSet<&EnvironmentName> =
        project.environments.iter().map(|e| &e.name).chain(in_force.keys()).collect();
    for name in names {
        let new = match project.environment(name) {
            Some(resolved) => planner::approval(project, resolved, principals)?,
            None => None,
        };
        let rule = match in_force.get(name) {
            Some(old) if new.as_ref() != Some(old) && !may(old) => {
                let people =
                    if old.groups.is_empty() { "a second person".to_owned() } else { old.groups.join(", ") };
                kept.push(format!(
                    "who approves promotions into `{name}` stays as it was until {people} applies this file: lockgate apply"
                ));
                Some(old.clone())
            }
            _ => new,
        };
        rules.extend(rule.map(|rule| (name.clone(), rule)));
    }
    Ok((rules, kept))
}

fn parse(toml: &str, settings: &[String]) -> Result<Project, String> {
    let settings = overrides(settings).map_err(|e| e.to_string())?;
    lockgate_config::overlay(toml, "lockgate.toml", &settings).map_err(|e| e.to_string())
}

/// Reads settings: `LOCKGATE__A__B=value` as from an environment variable, anything else as from `--set`.
///
/// # Errors
/// Where one is no setting.
pub fn overrides(settings: &[String]) -> Result<Vec<Override>, Diagnostics> {
    let mut all = Vec::new();
    for text in settings {
        match text.split_once('=') {
            Some((name, value)) if name.starts_with("LOCKGATE__") => {
                all.extend(Override::from_variables([(name.to_owned(), value.to_owned())]));
            }
            _ => all.push(Override::from_set(text)?),
        }
    }
    Ok(all)
}

/// Everybody whom a configuration names.
fn people(project: &Project) -> BTreeSet<&str> {
    let groups = project.groups.values().flatten().map(String::as_str);
    let approvers =
        project.environments.iter().flat_map(|e| &e.approve).flat_map(|a| &a.from).filter_map(|p| match p {
            Principal::Person(name) => Some(name.as_str()),
            Principal::Group(_) => None,
        });
    groups.chain(approvers).collect()
}

impl Control {
    /// Applies the text of a `lockgate.toml`. One server carries one project in this version.
    ///
    /// # Errors
    /// Where the text has mistakes, or belongs to another project than the one that the server carries.
    pub async fn apply_configuration(
        &self,
        actor: &Actor,
        new: NewConfiguration,
    ) -> Result<Applied, ControlError> {
        authorize(actor, Action::ConfigurationApply, Target::Server)?;
        let NewConfiguration { toml, settings } = new;
        let project = parse(&toml, &settings).map_err(ControlError::invalid)?;
        let digest = Digest::of_json(&(&toml, &settings))?;
        for name in people(&project) {
            self.person(name, &toml).await?;
        }
        let current = self.project_state().await?;
        let principals = self.principals_by_name().await?;
        let (approvals, kept) = approvals(&project, current.as_ref(), &principals, actor, &digest)?;
        if let Some(current) = current {
            if current.digest == digest && current.approvals == approvals {
                return Ok(Applied { digest, changed: false, kept });
            }
            if current.project != project.name {
                return Err(ControlError::conflict(format!(
                    "this server carries project `{}`, not `{}`",
                    current.project, project.name
                ))
                .with_hint(
                    "start another server for it: run `lockgate up` in its folder with another --port",
                ));
            }
        }
        let (control, actor, name) = (self.clone(), actor.clone(), project.name.clone());
        self.write(move |tx| {
            Box::pin(async move {
                let resource = Resource {
                    kind: ResourceKind::Project,
                    id: name.to_string(),
                    project: Some(name),
                    environment: None,
                };
                let act = Act {
                    actor,
                    action: Action::ConfigurationApply,
                    resource,
                    event: Event::ConfigurationApplied { digest, toml, settings, approvals },
                    reason: String::new(),
                    source: None,
                };
                control.record(tx, act).await
            })
        })
        .await?;
        self.changed();
        Ok(Applied { digest, changed: true, kept })
    }

    /// The applied configuration's digest and text.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn configuration(&self, actor: &Actor) -> Result<Option<(Digest, String)>, ControlError> {
        authorize(actor, Action::Read, Target::Server)?;
        Ok(self.project_state().await?.map(|s| (s.digest, s.toml)))
    }

    pub(crate) async fn project_state(&self) -> Result<Option<ProjectState>, ControlError> {
        let rows = self.rows("Project").await?;
        rows.iter()
            .map(|row| match states::read("Project", &row.state)? {
                State::Project(state) => Ok(state),
                _ => Err(ControlError::Internal("a project's state is of another kind".to_owned())),
            })
            .next()
            .transpose()
    }

    /// The applied configuration.
    pub(crate) async fn project(&self) -> Result<Project, ControlError> {
        let state = self.project_state().await?.ok_or_else(|| {
            ControlError::conflict("no project is configured on this server yet")
                .with_hint("run `lockgate up` in the folder of your lockgate.toml")
        })?;
        parse(&state.toml, &state.settings).map_err(ControlError::conflict)
    }
}

/// The applied configuration, where there is one.
pub(crate) async fn applied(conn: &mut Conn) -> Result<Option<Project>, ControlError> {
    for row in states::all(conn, "Project").await? {
        if let State::Project(state) = states::read("Project", &row.state)? {
            return parse(&state.toml, &state.settings).map(Some).map_err(ControlError::conflict);
        }
    }
    Ok(None)
}
