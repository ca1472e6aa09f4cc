//! The one environment of a simulated world, and the plans that it makes.

use super::Release;
use crate::script::Environment;
use lockgate_core::clock::Millis;
use lockgate_core::digest::Digest;
use lockgate_core::gate::GateSpec;
use lockgate_core::guard::GuardSpec;
use lockgate_core::id::{
    EnvironmentName, GateName, GuardName, ModelName, PrincipalId, ProjectName, PromotionId,
};
use lockgate_core::plan::{ApprovalRule, Isolation, Plan, Revision, RolloutPlan, Step, Testers};
use lockgate_core::route::WHOLE;
use std::collections::{BTreeMap, BTreeSet};

/// Names that the source itself writes: they fit their rules.
fn known<T: std::str::FromStr>(text: &str) -> T {
    match text.parse() {
        Ok(name) => name,
        Err(_) => unreachable!("`{text}` is written in this file and fits its rule"),
    }
}

pub(crate) fn model() -> ModelName {
    known("model")
}

pub(crate) fn promotion_id(number: u32) -> PromotionId {
    known(&format!("pr_{number:026}"))
}

/// A promotion as scripts name it.
pub(crate) fn short(id: &PromotionId) -> String {
    format!("p{}", id.as_str().trim_start_matches("pr_").trim_start_matches('0'))
}

/// The environment.
#[derive(Debug)]
pub(crate) struct Place {
    settings: Environment,
}

impl Place {
    pub(crate) fn new(settings: Environment) -> Self {
        Self { settings }
    }

    pub(crate) fn backup(&self) -> Option<&str> {
        self.settings.backup.as_deref()
    }

    pub(crate) fn gateways(&self) -> usize {
        self.settings.gateways
    }

    /// The plan for a release. Where there is nothing to compare with, all traffic moves at once, as the real planner does.
    pub(crate) fn plan(
        &self,
        release: &Release,
        baseline: Option<Revision>,
        backup: Option<Digest>,
        requester: &PrincipalId,
        now: Millis,
    ) -> Plan {
        let backup = backup.map(|digest| revision(digest, 0));
        let mut steps: Vec<Step> = self.settings.steps.clone();
        if baseline.is_none() && backup.is_none() {
            steps.retain(|s| s.weight >= WHOLE);
        }
        Plan {
            project: known::<ProjectName>("simulation"),
            environment: known::<EnvironmentName>("production"),
            model: model(),
            revision: revision(release.digest, release.version),
            baseline,
            backup,
            lineage: Vec::new(),
            gates: [(
                known::<GateName>("tests"),
                GateSpec::Command { run: "true".to_owned(), timeout_ms: 60_000 },
            )]
            .into(),
            approval: (self.settings.approvals > 0).then(|| ApprovalRule {
                count: self.settings.approvals,
                from: BTreeSet::new(),
                groups: Vec::new(),
                not_author: true,
                ttl_ms: 14_400_000,
            }),
            rollout: self.rollout(steps),
            data: BTreeMap::new(),
            python: None,
            task: "binary".to_owned(),
            target: None,
            authors: release.authors.clone(),
            requester: requester.clone(),
            gates_ms: 3_600_000,
            made: now,
        }
    }

    fn rollout(&self, steps: Vec<Step>) -> RolloutPlan {
        let mut guards: BTreeMap<GuardName, GuardSpec> = [
            (known("errors"), GuardSpec::Rate { worse_by: 0.5, rollback_by: 0.2, floor: 0.005 }),
            (known("constant"), GuardSpec::Constant { rollback_by: 2.0 }),
        ]
        .into();
        if self.settings.has_latency_guard {
            let guard = GuardSpec::Latency {
                p99_ms: None,
                worse_by: 0.5,
                rollback_by: 0.2,
                floor_ms: 1.0,
                warmup_ms: self.settings.warmup_ms.and_then(|ms| u64::try_from(ms).ok()),
            };
            guards.insert(known("latency"), guard);
        }
        if let Some(max) = self.settings.disagreement {
            guards.insert(known("disagreement"), GuardSpec::Disagreement { max, tolerance: 0.05 });
        }
        RolloutPlan {
            steps,
            guards,
            unit_header: Some("x-user".to_owned()),
            alpha_rollback: 0.05,
            alpha_promote: 0.05,
            alpha_sample_ratio: 0.001,
            deadline_ms: self.settings.deadline_ms,
            on_inconclusive: self.settings.on_inconclusive,
            probation_ms: self.settings.probation_ms,
            prepare_ms: 120_000,
            workers: 2,
            timeout_ms: 1_000,
            memory_bytes: 0,
            batch_rows: None,
            smoke: None,
            testers: Testers::Nobody,
            observe: false,
            holdout: self.settings.holdout,
            isolation: Isolation::Process,
        }
    }
}

fn revision(release: Digest, model_version: u64) -> Revision {
    let configuration = Digest::of(b"the environment's configuration");
    Revision { release, configuration, model_version, promotion: None, vars: BTreeMap::new() }
}
