//! The query tables as a fold over the log: one entry changes one aggregate, and a rollout's event also what its environment
//! does for the model. The same functions serve the write path and the rebuild, so that they can't differ.

use lockgate_core::digest::Digest;
use lockgate_core::entry::{Entry, ResourceKind};
use lockgate_core::event::{Event, PromotionEvent};
use lockgate_core::gate::PublicKey;
use lockgate_core::id::{EnvironmentName, ModelName, PrincipalId, ProjectName, PromotionId};
use lockgate_core::plan::ApprovalRule;
use lockgate_core::promotion::Promotion;
use lockgate_core::release::Manifest;
use lockgate_core::rollout::Deployment;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A project's applied configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ProjectState {
    pub(crate) project: ProjectName,
    pub(crate) digest: Digest,
    pub(crate) toml: String,
    pub(crate) settings: Vec<String>,
    /// Who must say yes, by environment.
    #[serde(default)]
    pub(crate) approvals: BTreeMap<EnvironmentName, ApprovalRule>,
    /// Who applied it.
    pub(crate) by: PrincipalId,
}

/// An environment as its agent made it known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct EnvironmentState {
    pub(crate) environment: EnvironmentName,
    pub(crate) key: PublicKey,
}

/// A release.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ReleaseState {
    pub(crate) digest: Digest,
    pub(crate) manifest: Manifest,
    pub(crate) authors: BTreeSet<PrincipalId>,
    pub(crate) created: i64,
}

/// One aggregate's state, by its kind.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum State {
    /// A project.
    Project(ProjectState),
    /// An environment.
    Environment(EnvironmentState),
    /// A release.
    Release(Box<ReleaseState>),
    /// A promotion.
    Promotion(Box<Promotion>),
    /// What an environment does for one model, as far as its agent reported it.
    Deployment(Box<Deployment>),
}

/// A state that the log can't have led to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("entry {seq} does not fit what came before it: {what}")]
pub struct Inconsistent {
    /// The entry.
    pub seq: u64,
    /// What doesn't fit.
    pub what: String,
}

/// The kind and id of the aggregate that an entry changes.
pub(crate) fn key(entry: &Entry) -> Option<(&'static str, String)> {
    entry.event.as_ref()?;
    let kind = match entry.resource.kind {
        ResourceKind::Project => "Project",
        ResourceKind::Environment => "Environment",
        ResourceKind::Release => "Release",
        ResourceKind::Promotion => "Promotion",
        _ => return None,
    };
    Some((kind, entry.resource.id.clone()))
}

/// The id of what an environment does for one model.
pub(crate) fn deployment_id(environment: &EnvironmentName, model: &ModelName) -> String {
    format!("{environment}/{model}")
}

/// What the environment of a rollout's event does for the model after it, with its id: `after` is what the entry's own
/// aggregate is by then. None where the entry is about something else.
pub(crate) fn deployment<'a>(
    entry: &'a Entry,
    after: &'a State,
) -> Option<(String, impl FnOnce(Option<Deployment>) -> Deployment + 'a)> {
    let (Some(Event::Rollout(event)), State::Promotion(promotion)) = (&entry.event, after) else {
        return None;
    };
    let (plan, id) = (&promotion.plan, &promotion.id);
    let fold = move |before: Option<Deployment>| {
        let mut deployment = before.unwrap_or_else(|| Deployment::new(plan.model.clone()));
        deployment.apply(id, event, source_time(entry));
        deployment
    };
    Some((deployment_id(&plan.environment, &plan.model), fold))
}

/// When it happened: at the agent, where an agent reported it.
pub(crate) fn source_time(entry: &Entry) -> i64 {
    let ts = entry.source.as_ref().map_or(&entry.ts, |s| &s.ts);
    lockgate_core::clock::parse_rfc3339(ts).unwrap_or_default()
}

/// The aggregate's state after `entry`; none where the entry changes no state.
///
/// # Errors
/// Where the entry can't follow from `current`.
pub(crate) fn fold(entry: &Entry, current: Option<State>) -> Result<Option<State>, Inconsistent> {
    let bad = |what: &str| Inconsistent { seq: entry.seq, what: what.to_owned() };
    let Some(event) = &entry.event else { return Ok(None) };
    let at = entry.at();
    Ok(match (event, current) {
        (Event::ConfigurationApplied { digest, toml, settings, approvals }, _) => {
            let project = entry.resource.project.clone().ok_or_else(|| bad("it names no project"))?;
            Some(State::Project(ProjectState {
                project,
                digest: *digest,
                toml: toml.clone(),
                settings: settings.clone(),
                approvals: approvals.clone(),
                by: entry.actor.id.clone(),
            }))
        }
        (Event::AgentEnrolled { key }, None) => {
            let environment =
                entry.resource.environment.clone().ok_or_else(|| bad("it names no environment"))?;
            Some(State::Environment(EnvironmentState { environment, key: key.clone() }))
        }
        (Event::ReleaseCreated { digest, manifest, authors }, None) => {
            Some(State::Release(Box::new(ReleaseState {
                digest: *digest,
                manifest: (**manifest).clone(),
                authors: authors.clone(),
                created: at,
            })))
        }
        (Event::Promotion(event), current) => match (&**event, current) {
            (PromotionEvent::Planned { plan, plan_hash }, None) => {
                let id = PromotionId::new(entry.resource.id.clone()).map_err(|e| bad(&e.to_string()))?;
                Some(State::Promotion(Box::new(Promotion::new(id, (**plan).clone(), *plan_hash, at))))
            }
            (event, Some(State::Promotion(mut promotion))) => {
                promotion.apply(event, at);
                Some(State::Promotion(promotion))
            }
            _ => return Err(bad("there is no such promotion")),
        },
        (Event::Rollout(event), Some(State::Promotion(mut promotion))) => {
            promotion.follow(event, source_time(entry));
            Some(State::Promotion(promotion))
        }
        (Event::Worker(_), current) => current,
        (Event::AgentEnrolled { .. } | Event::ReleaseCreated { .. }, Some(_)) => {
            return Err(bad("it is there already"));
        }
        (Event::Rollout(_), _) => return Err(bad("there is no such promotion")),
    })
}
