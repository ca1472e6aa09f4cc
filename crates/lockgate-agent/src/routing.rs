//! From deployments to the gateway's table. The table follows from the state; it is never edited.

use crate::AgentError;
use crate::fleet::Fleet;
use crate::home::{Home, write_private};
use lockgate_core::guard::GuardSpec;
use lockgate_core::id::ModelName;
use lockgate_core::plan::{Plan, Revision};
use lockgate_core::rollout::{Deployment, Readiness};
use lockgate_core::route::{ModelRoute, RouteTable, Shadow, Split, UnitSource, Variant, WHOLE};
use std::collections::BTreeMap;

/// Where the last table is kept.
const FILE: &str = "route.json";

/// The routes that the deployments ask for, with the workers that there are now.
pub(crate) fn routes(
    deployments: &BTreeMap<ModelName, Deployment>,
    fleet: &Fleet,
) -> BTreeMap<ModelName, ModelRoute> {
    deployments.iter().filter_map(|(model, d)| Some((model.clone(), route(d, fleet)?))).collect()
}

/// The plan that a deployment runs by now.
pub(crate) fn plan(deployment: &Deployment) -> Option<&Plan> {
    let active = deployment.active.as_ref().map(|a| &*a.plan);
    active.or_else(|| deployment.serving.as_ref().map(|s| &*s.plan))
}

fn route(deployment: &Deployment, fleet: &Fleet) -> Option<ModelRoute> {
    let plan = plan(deployment)?;
    let mut traffic = deployment.traffic();
    // On probation the release keeps its place as the candidate with all the traffic: so it goes on being counted, the
    // breaker stays armed, and what it would go back to answers where its workers can't.
    if let Some((serving, way_back)) = deployment.on_probation() {
        traffic.split = Some((&serving.revision, WHOLE, &serving.promotion));
        traffic.main = Some(way_back);
    }
    if traffic.main.is_none() && traffic.split.is_none() {
        return None;
    }
    let variant = |revision: &Revision| Variant {
        release: revision.release,
        revision: revision.digest(),
        model_version: revision.model_version,
        workers: fleet.addresses(revision),
        server: fleet.server(revision),
    };
    Some(ModelRoute {
        baseline: traffic.main.map(variant),
        split: traffic.split.map(|(revision, weight, promotion)| Split {
            salt: promotion.to_string(),
            candidate: variant(revision),
            weight,
            counted: traffic.main.is_none_or(|main| fleet.readiness(main) == Readiness::Ready)
                && fleet.is_checked(revision),
            shadow: (traffic.shadow > 0)
                .then(|| Shadow { share: traffic.shadow, tolerance: tolerance(plan) }),
        }),
        backup: traffic.backup.map(variant),
        unit: plan.rollout.unit_header.clone().map(UnitSource::Header),
        timeout_ms: plan.rollout.timeout_ms,
    })
}

/// How far apart two answers' numbers may be, where a guard compares answers.
fn tolerance(plan: &Plan) -> Option<f64> {
    plan.rollout.guards.values().find_map(|guard| match guard {
        GuardSpec::Disagreement { tolerance, .. } => Some(*tolerance),
        GuardSpec::Rate { .. } | GuardSpec::Latency { .. } | GuardSpec::Constant { .. } => None,
    })
}

/// The table as it was kept last; an empty one where there is none. Its workers ended with the agent that kept it, so nothing
/// counts as evidence until they are back.
pub(crate) fn saved(home: &Home) -> Result<RouteTable, AgentError> {
    let path = home.path(FILE);
    match std::fs::read(&path) {
        Ok(text) => {
            let mut table: RouteTable = serde_json::from_slice(&text)?;
            table.models.values_mut().filter_map(|m| m.split.as_mut()).for_each(|s| s.counted = false);
            Ok(table)
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(RouteTable::default()),
        Err(e) => Err(AgentError::io("read", &path, e)),
    }
}

/// Keeps the table. Before it is published, so that an epoch is never used twice.
pub(crate) fn save(home: &Home, table: &RouteTable) -> Result<(), AgentError> {
    write_private(&home.path(FILE), &serde_json::to_vec(table)?)
}
