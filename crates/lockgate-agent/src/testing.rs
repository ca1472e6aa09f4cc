//! What several tests are made with.

use lockgate_core::goal::{Direction, GoalSpec};
use lockgate_core::guard::GuardSpec;
use lockgate_core::id::GuardName;
use lockgate_core::plan::{Isolation, OnInconclusive, RolloutPlan, Step, Testers};

/// A plan of these steps and guards, with the usual error rates and without anything else.
pub(crate) fn plan<'n>(
    steps: Vec<Step>,
    guards: impl IntoIterator<Item = (&'n str, GuardSpec)>,
) -> RolloutPlan {
    RolloutPlan {
        steps,
        guards: guards.into_iter().map(|(name, spec)| (GuardName::new(name).unwrap(), spec)).collect(),
        unit_header: None,
        alpha_rollback: 0.05,
        alpha_promote: 0.05,
        alpha_sample_ratio: 0.001,
        deadline_ms: 0,
        on_inconclusive: OnInconclusive::Hold,
        probation_ms: 0,
        prepare_ms: 1000,
        workers: 1,
        timeout_ms: 1000,
        memory_bytes: 0,
        batch_rows: None,
        smoke: None,
        testers: Testers::Nobody,
        observe: false,
        holdout: 0,
        isolation: Isolation::Process,
    }
}

/// A goal of outcomes between 0 and 1, of which more is better.
pub(crate) fn goal() -> GoalSpec {
    GoalSpec {
        metric: "outcome".to_owned(),
        direction: Direction::Up,
        gain: 0.0,
        rollback_by: 0.0,
        least: 0.0,
        most: 1.0,
        within_ms: None,
        missing: None,
    }
}

/// An A/B test with one goal, `conversion`.
pub(crate) fn ab(goal: GoalSpec) -> RolloutPlan {
    plan(vec![Step::ab(5_000, 0), Step::live(10_000, 0)], [("conversion", GuardSpec::Goal(goal))])
}
