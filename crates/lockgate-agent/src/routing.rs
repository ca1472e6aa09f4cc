//! From deployments to the gateway's table. The table follows from the state; it is never edited.

use crate::fleet::Fleet;
use crate::home::{Home, write_private};
use crate::{AgentError, Shared, inline};
use lockgate_core::guard::GuardSpec;
use lockgate_core::id::ModelName;
use lockgate_core::plan::{Plan, Revision};
use lockgate_core::rollout::{Deployment, Readiness};
use lockgate_core::route::{
    ModelRoute, RouteTable, Shadow, Split, UnitSource, Variant, WHOLE, WorkerAddress,
};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

/// Where the last table is kept.
const FILE: &str = "route.json";

/// Where what serves is found by people who pass the gateway by: `MODEL.sock`, a link to one of its workers' sockets.
const SERVING: &str = "serving";

/// The routes that the deployments ask for, with the workers that there are now.
pub(crate) fn routes(
    deployments: &BTreeMap<ModelName, Deployment>,
    shared: &Shared,
) -> BTreeMap<ModelName, ModelRoute> {
    let offered = |d: &Deployment| d.inline().is_some_and(|revision| inline::is_offered(shared, revision));
    let each = deployments.iter();
    each.filter_map(|(model, d)| Some((model.clone(), route(d, &shared.fleet, offered(d))?))).collect()
}

/// The plan that a deployment runs by now.
pub(crate) fn plan(deployment: &Deployment) -> Option<&Plan> {
    let active = deployment.active.as_ref().map(|a| &*a.plan);
    active.or_else(|| deployment.serving.as_ref().map(|s| &*s.plan))
}

fn route(deployment: &Deployment, fleet: &Fleet, inline: bool) -> Option<ModelRoute> {
    let plan = plan(deployment)?;
    let traffic = deployment.routed();
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
            preview: traffic.preview,
        }),
        backup: traffic.backup.map(variant),
        unit: plan.rollout.unit_header.clone().map(UnitSource::Header),
        timeout_ms: plan.rollout.timeout_ms,
        testers: plan.rollout.testers,
        inline,
    })
}

/// How far apart two answers' numbers may be, where a guard compares answers.
fn tolerance(plan: &Plan) -> Option<f64> {
    plan.rollout.guards.values().find_map(|guard| match guard {
        GuardSpec::Disagreement { tolerance, .. } => Some(*tolerance),
        GuardSpec::Rate { .. }
        | GuardSpec::Latency { .. }
        | GuardSpec::Constant { .. }
        | GuardSpec::Goal(_) => None,
    })
}

/// The table as it was kept last; an empty one where there is none. Its workers ended with the agent that kept it, so nothing
/// counts as evidence until they are back, and no model runs inside the gateway. Nobody is sent to a port before it is known whose it is now.
pub(crate) fn saved(home: &Home) -> Result<RouteTable, AgentError> {
    let path = home.path(FILE);
    match std::fs::read(&path) {
        Ok(text) => {
            let mut table: RouteTable = serde_json::from_slice(&text)?;
            for route in table.models.values_mut() {
                let ModelRoute { baseline, split, backup, inline, .. } = route;
                // This process has loaded nothing yet.
                *inline = false;
                let candidate = split.as_mut().map(|split| {
                    split.counted = false;
                    &mut split.candidate
                });
                for variant in baseline.iter_mut().chain(candidate).chain(backup) {
                    variant.workers.retain(|worker| matches!(worker, WorkerAddress::Unix(_)));
                }
            }
            Ok(table)
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(RouteTable::default()),
        Err(e) => Err(AgentError::io("read", &path, e)),
    }
}

/// Keeps the table. Before it is published, so that an epoch is never used twice.
pub(crate) fn save(home: &Home, table: &RouteTable) -> Result<(), AgentError> {
    write_private(&home.path(FILE), &serde_json::to_vec(table)?)?;
    link_serving(&home.path(SERVING), table)
}

/// Makes the links to what serves: the baseline, or the release on probation, which has all the traffic.
fn link_serving(folder: &Path, table: &RouteTable) -> Result<(), AgentError> {
    let wrong = |e| AgentError::io("link what serves in", folder, e);
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(wrong)?;
    let mut links = BTreeSet::new();
    for (model, route) in &table.models {
        let whole = route.split.as_ref().filter(|split| split.weight == WHOLE).map(|split| &split.candidate);
        let first = whole.or(route.baseline.as_ref()).and_then(|variant| variant.workers.first());
        let Some(WorkerAddress::Unix(socket)) = first else { continue };
        let (link, new) = (folder.join(format!("{model}.sock")), folder.join(".new"));
        let _ = std::fs::remove_file(&new);
        std::os::unix::fs::symlink(socket, &new)
            .and_then(|()| std::fs::rename(&new, &link))
            .map_err(wrong)?;
        links.insert(link);
    }
    for entry in std::fs::read_dir(folder).map_err(wrong)?.flatten() {
        if !links.contains(&entry.path()) {
            std::fs::remove_file(entry.path()).map_err(wrong)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockgate_core::digest::Digest;
    use lockgate_core::plan::Testers;

    #[test]
    fn a_table_of_an_earlier_life_leads_to_no_port() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(dir.path()).unwrap();
        let variant = |name: &str| Variant {
            release: Digest::of(name.as_bytes()),
            revision: Digest::of(name.as_bytes()),
            model_version: 1,
            workers: vec![
                WorkerAddress::Unix(format!("/{name}.sock")),
                WorkerAddress::Tcp("127.0.0.1:18000".to_owned()),
            ],
            server: None,
        };
        let split = Split {
            salt: "pr_1".to_owned(),
            candidate: variant("new"),
            weight: 100,
            counted: true,
            shadow: None,
            preview: false,
        };
        let route = ModelRoute {
            baseline: Some(variant("old")),
            split: Some(split),
            backup: Some(variant("backup")),
            unit: None,
            timeout_ms: 500,
            testers: Testers::Nobody,
            inline: true,
        };
        let models = [(ModelName::new("m").unwrap(), route)].into();
        save(&home, &RouteTable { epoch: 7, models }).unwrap();
        let table = saved(&home).unwrap();
        let ModelRoute { baseline, split, backup, inline, .. } = &table.models["m"];
        let split = split.as_ref().unwrap();
        assert!(table.epoch == 7 && !split.counted && !inline);
        for (side, name) in
            [(baseline.as_ref(), "old"), (Some(&split.candidate), "new"), (backup.as_ref(), "backup")]
        {
            assert_eq!(side.unwrap().workers, [WorkerAddress::Unix(format!("/{name}.sock"))]);
        }
    }
}
