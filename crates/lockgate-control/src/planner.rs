//! Makes plans: from the configuration, the release and what the environment serves now. Pure; the caller looks things up.

use crate::error::ControlError;
use crate::people::folded;
use crate::projection::ReleaseState;
use lockgate_config::project::Principal;
use lockgate_config::{Project, ResolvedEnvironment};
use lockgate_core::clock::Millis;
use lockgate_core::digest::Digest;
use lockgate_core::gate::GateSpec;
use lockgate_core::id::{EnvironmentName, ModelName, PrincipalId};
use lockgate_core::plan::{ApprovalRule, Lineage, Plan, Revision, RolloutPlan};
use std::collections::{BTreeMap, BTreeSet};

/// What the planner needs to know beside the configuration.
pub(crate) struct Facts<'a> {
    /// The release to promote.
    pub(crate) release: &'a ReleaseState,
    /// What the environment serves now.
    pub(crate) serving: Option<Revision>,
    /// What other environments serve of this model now.
    pub(crate) elsewhere: BTreeMap<EnvironmentName, Digest>,
    /// The release behind the environment's backup, where it names one.
    pub(crate) backup: Option<&'a ReleaseState>,
    /// Who must say yes.
    pub(crate) approval: Option<ApprovalRule>,
    /// Who asks.
    pub(crate) requester: PrincipalId,
    /// The time.
    pub(crate) now: Millis,
}

/// The plan for taking a release into `environment`.
///
/// # Errors
/// Where the configuration can't be fulfilled: an unknown model, a backup without a release, a group without people.
pub(crate) fn plan(
    project: &Project,
    environment: &EnvironmentName,
    facts: Facts<'_>,
) -> Result<Plan, ControlError> {
    let resolved = project.environment(environment).ok_or_else(|| {
        let names: Vec<String> = project.environments.iter().map(|e| e.name.to_string()).collect();
        ControlError::not_found(format!("lockgate.toml has no environment `{environment}`"))
            .with_hint(format!("it has {}", names.join(", ")))
    })?;
    let manifest = &facts.release.manifest;
    let model = project.models.get(&manifest.model).ok_or_else(|| {
        ControlError::invalid(format!("lockgate.toml has no [model.{}]", manifest.model))
            .with_hint("add it with its task, for example: task = \"binary\"")
    })?;
    let configuration = project
        .configuration_digest(environment, &manifest.model)
        .map_err(|e| ControlError::invalid(e.to_string()))?;
    let revision = |release: &ReleaseState| Revision {
        release: release.digest,
        configuration,
        model_version: release.manifest.model_version,
        promotion: None,
        vars: resolved.vars.clone(),
    };
    let mut gates = resolved.gates.clone();
    for spec in gates.values_mut() {
        if let GateSpec::Metric { versus: Some(versus), .. } = spec {
            versus.release = facts.elsewhere.get(&versus.environment).copied();
        }
    }
    let plan = Plan {
        project: project.name.clone(),
        environment: environment.clone(),
        model: manifest.model.clone(),
        revision: revision(facts.release),
        baseline: facts.serving,
        backup: facts.backup.map(revision),
        lineage: lineage(project, resolved),
        gates,
        approval: facts.approval,
        rollout: rollout(resolved, &manifest.model, model.unit_header.clone()),
        data: resolved.data.clone(),
        python: project.requirements.clone(),
        task: model.task.as_str().to_owned(),
        target: model.target.clone(),
        authors: facts.release.authors.clone(),
        requester: facts.requester,
        gates_ms: resolved.gates_ms,
        made: facts.now,
    };
    let mut plan = plan;
    if plan.control().is_none() {
        // Steps are there to compare; without anything to compare with they would only hold.
        plan.rollout.steps.retain(|step| !step.is_judged());
    }
    plan.validate().map_err(ControlError::invalid)?;
    Ok(plan)
}

/// Every environment before this one, with its gates.
fn lineage(project: &Project, environment: &ResolvedEnvironment) -> Vec<Lineage> {
    let mut seen: BTreeSet<&EnvironmentName> = BTreeSet::new();
    let mut todo: Vec<&EnvironmentName> = environment.after.iter().collect();
    while let Some(name) = todo.pop() {
        if seen.insert(name) {
            todo.extend(project.environment(name).into_iter().flat_map(|e| &e.after));
        }
    }
    project
        .environments
        .iter()
        .filter(|e| seen.contains(&e.name))
        .map(|e| Lineage { environment: e.name.clone(), gates: e.gates.clone() })
        .collect()
}

/// Who must say yes by the configuration's text.
///
/// # Errors
/// A group that isn't defined, or one with fewer people than are asked for.
pub(crate) fn approval(
    project: &Project,
    resolved: &ResolvedEnvironment,
    principals: &BTreeMap<String, PrincipalId>,
) -> Result<Option<ApprovalRule>, ControlError> {
    let Some(rule) = &resolved.approve else { return Ok(None) };
    let mut from = BTreeSet::new();
    let mut groups = Vec::new();
    for source in &rule.from {
        let names: Vec<String> = match source {
            Principal::Person(name) => vec![name.clone()],
            Principal::Group(group) => {
                let members = project.groups.get(group).ok_or_else(|| {
                    ControlError::invalid(format!(
                        "lockgate.toml asks for approvals from group `{group}`, which it does not define"
                    ))
                    .with_hint(format!("add it: [groups] {group} = [\"somebody@example.com\"]"))
                })?;
                members.iter().cloned().collect()
            }
        };
        groups.push(match source {
            Principal::Person(name) => name.clone(),
            Principal::Group(group) => format!("group {group}"),
        });
        from.extend(names.iter().filter_map(|n| principals.get(&folded(n))).cloned());
    }
    let possible = u32::try_from(from.len()).unwrap_or(u32::MAX);
    if !rule.from.is_empty() && possible < rule.count {
        return Err(ControlError::invalid(format!(
            "environment asks for {} approval(s) from {}, which has only {possible} people",
            rule.count,
            groups.join(", ")
        )));
    }
    Ok(Some(ApprovalRule {
        count: rule.count,
        from,
        groups,
        not_author: rule.not_author,
        ttl_ms: rule.ttl_ms,
    }))
}

fn rollout(resolved: &ResolvedEnvironment, model: &ModelName, unit_header: Option<String>) -> RolloutPlan {
    RolloutPlan {
        steps: resolved.steps.clone(),
        guards: resolved.guards.clone(),
        unit_header,
        alpha_rollback: resolved.statistics.alpha_rollback,
        alpha_promote: resolved.statistics.alpha_promote,
        alpha_sample_ratio: resolved.statistics.alpha_sample_ratio,
        deadline_ms: resolved.deadline_ms,
        on_inconclusive: resolved.on_inconclusive,
        probation_ms: resolved.probation_ms,
        prepare_ms: resolved.prepare_ms,
        workers: resolved.workers,
        timeout_ms: resolved.timeout_ms,
        memory_bytes: resolved.memory_bytes,
        batch_rows: resolved.batch_rows,
        smoke: resolved.smoke.clone(),
        testers: resolved.testers,
        observe: resolved.observe,
        holdout: resolved.holdout,
        isolation: resolved.isolation(model),
    }
}
