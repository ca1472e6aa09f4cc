//! Short ways to plans, judgements and observations, and their random forms.

use lockgate_core::clock::{Entropy, Millis};
use lockgate_core::digest::Digest;
use lockgate_core::event::{Instruction, InstructionKind};
use lockgate_core::gate::{Envelope, GateSpec};
use lockgate_core::guard::{GuardSpec, Judgement, Reading, Verdict};
use lockgate_core::id::{
    CommandId, EnvironmentName, GateName, GuardName, ModelName, PrincipalId, PromotionId,
};
use lockgate_core::plan::{
    ApprovalRule, Isolation, OnInconclusive, Plan, Revision, RolloutPlan, Smoke, Step, Switch, Testers,
};
use lockgate_core::rollout::{Observation, Readiness};
use lockgate_core::route::WHOLE;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

pub(crate) const HOLD: Millis = 60_000;
pub(crate) const DEADLINE: Millis = 600_000;
pub(crate) const PREPARE: Millis = 120_000;
pub(crate) const PROBATION: Millis = 3_600_000;
pub(crate) const START: Millis = 1_795_521_600_000;

pub(crate) fn promotion_id(n: u32) -> PromotionId {
    PromotionId::new(format!("pr_{n:026}")).unwrap()
}

pub(crate) fn person(name: &str) -> PrincipalId {
    PrincipalId::new(name).unwrap()
}

pub(crate) fn gate(name: &str) -> GateName {
    GateName::new(name).unwrap()
}

pub(crate) fn model() -> ModelName {
    ModelName::new("delay").unwrap()
}

/// The release of promotion `n`; 0 is the backup's.
pub(crate) fn revision(n: u32) -> Revision {
    Revision {
        release: Digest::of(format!("release {n}").as_bytes()),
        configuration: Digest::of(b"configuration"),
        model_version: u64::from(n),
        promotion: None,
        vars: BTreeMap::new(),
    }
}

/// The plan of promotion `n`: 5 %, 25 %, all, with two required guards and one that only rolls back; every fourth one begins with
/// a shadow step. Every fifth one is blue/green with a smoke test; every second of these switches by hand.
pub(crate) fn plan(n: u32, baseline: Option<Revision>, backup: bool) -> Plan {
    let step = |weight| Step::live(weight, HOLD);
    let guard = |name: &str| GuardName::new(name).unwrap();
    let backup = backup.then(|| revision(0));
    let compared = baseline.is_some() || backup.is_some();
    Plan {
        project: "demo".parse().unwrap(),
        environment: EnvironmentName::new("production").unwrap(),
        model: model(),
        revision: revision(n),
        baseline,
        backup,
        lineage: vec![],
        gates: ["tests", "quality"]
            .map(|name| (gate(name), GateSpec::Command { run: "true".to_owned(), timeout_ms: 1000 }))
            .into(),
        approval: Some(ApprovalRule {
            count: 2,
            from: ["author", "requester", "ann", "bob", "cy"].map(person).into(),
            groups: vec!["group release-managers".to_owned()],
            not_author: true,
            ttl_ms: 86_400_000,
        }),
        rollout: RolloutPlan {
            steps: match (compared, n % 4) {
                (_, by_hand) if n.is_multiple_of(5) => {
                    let switch = if by_hand % 2 == 0 { Switch::ByHand } else { Switch::Automatic };
                    vec![Step::previewing(switch, HOLD), step(WHOLE)]
                }
                (false, _) => vec![step(WHOLE)],
                (true, 0) => vec![Step::mirroring(2000, HOLD), step(500), step(2500), step(WHOLE)],
                (true, _) => vec![step(500), step(2500), step(WHOLE)],
            },
            guards: [
                (guard("errors"), GuardSpec::Rate { worse_by: 0.5, rollback_by: 0.2, floor: 0.005 }),
                (guard("repeats"), GuardSpec::Constant { rollback_by: 2.0 }),
            ]
            .into(),
            unit_header: None,
            alpha_rollback: 0.05,
            alpha_promote: 0.05,
            alpha_sample_ratio: 0.001,
            deadline_ms: DEADLINE,
            on_inconclusive: OnInconclusive::Hold,
            probation_ms: PROBATION,
            prepare_ms: PREPARE,
            workers: 1,
            timeout_ms: 1000,
            memory_bytes: 0,
            batch_rows: None,
            smoke: n.is_multiple_of(5).then(|| Smoke { run: "true".to_owned(), timeout_ms: 1000 }),
            testers: Testers::Nobody,
            observe: false,
            // With the backup, as half of all plans: on what served before, or on it.
            isolation: if n.is_multiple_of(2) { Isolation::Inline } else { Isolation::Process },
            holdout: if n.is_multiple_of(3) { 1000 } else { 0 },
        },
        data: BTreeMap::new(),
        python: None,
        task: "binary".to_owned(),
        target: None,
        authors: BTreeSet::from([person("author")]),
        requester: person("requester"),
        gates_ms: 3_600_000,
        made: START,
    }
}

/// The `n`th instruction, given at `now`.
pub(crate) fn instruction(n: u32, kind: InstructionKind, now: Millis) -> Instruction {
    Instruction {
        id: CommandId::generate(now, &Number(n)),
        kind,
        by: person("ann"),
        reason: "because".to_owned(),
    }
}

/// Ids that follow one another within a millisecond.
struct Number(u32);

impl Entropy for Number {
    fn fill(&self, buf: &mut [u8]) {
        buf.fill(0);
        buf[..4].copy_from_slice(&self.0.to_be_bytes());
    }
}

/// An envelope with this text; the machines never look inside.
pub(crate) fn envelope(text: &str) -> Envelope {
    serde_json::from_value(serde_json::json!({ "payloadType": "t", "payload": text, "signatures": [] }))
        .unwrap()
}

fn reading(name: &str, verdict: Verdict, required: bool) -> Reading {
    Reading {
        guard: GuardName::new(name).unwrap(),
        verdict,
        required,
        log_e_worse: 0.5,
        log_e_not_worse: 0.25,
        needed: 3.0,
        summary: format!("{name} in words"),
        segments: vec![],
        goal: None,
    }
}

/// What the guards say: two required ones and one that only rolls back; the merged evidence in parts of what it needs.
pub(crate) fn judgement(required: [Verdict; 2], other: Verdict, merged: f64, mismatch: bool) -> Judgement {
    Judgement {
        readings: vec![
            reading("errors", required[0], true),
            reading("latency", required[1], true),
            reading("repeats", other, false),
        ],
        log_e_rollback: merged * 3.0,
        needed_rollback: 3.0,
        sample_ratio_mismatch: mismatch,
        candidate_units: 10,
        baseline_units: 190,
    }
}

pub(crate) fn not_worse() -> Judgement {
    judgement([Verdict::NotWorse; 2], Verdict::Unknown, 0.1, false)
}

pub(crate) fn unknown() -> Judgement {
    judgement([Verdict::NotWorse, Verdict::Unknown], Verdict::Unknown, 0.1, false)
}

pub(crate) fn worse() -> Judgement {
    judgement([Verdict::Worse, Verdict::Unknown], Verdict::Unknown, 1.2, false)
}

/// Everything is ready, applied and quiet, and nothing is proven.
pub(crate) fn calm(now: Millis) -> Observation {
    Observation {
        now,
        applied: true,
        candidate: Readiness::Ready,
        serving: Readiness::Ready,
        target: Readiness::Ready,
        backup: Readiness::Ready,
        judgement: unknown(),
        breaker: None,
        quiet_ms: Some(1_000),
        last_candidate_request: None,
        candidate_requests: 7,
        candidate_errors: 1,
        target_requests: 0,
        target_errors: 0,
        target_busy: false,
        began: 0,
        counted_since: None,
    }
}

pub(crate) fn broken() -> Readiness {
    Readiness::Failed("it does not stay up".to_owned())
}

fn any_verdict() -> impl Strategy<Value = Verdict> {
    prop_oneof![5 => Just(Verdict::NotWorse), 2 => Just(Verdict::Unknown), 1 => Just(Verdict::Worse)]
}

fn any_judgement() -> impl Strategy<Value = Judgement> {
    let merged = prop_oneof![12 => 0.0..0.99, 1 => 1.0..3.0];
    let proven = (any_verdict(), any_verdict(), any_verdict(), merged, prop::bool::weighted(0.1))
        .prop_map(|(a, b, c, merged, mismatch)| judgement([a, b], c, merged, mismatch));
    prop_oneof![4 => Just(not_worse()), 6 => proven, 1 => Just(Judgement::none())]
}

fn any_readiness(ready: u32) -> impl Strategy<Value = Readiness> {
    prop_oneof![ready => Just(Readiness::Ready), 2 => Just(Readiness::Pending), 1 => Just(Readiness::Unknown), 1 => Just(broken())]
}

/// Anything that an agent might see, `now` apart.
pub(crate) fn any_observation() -> impl Strategy<Value = Observation> {
    let ready = (any_readiness(40), any_readiness(40), any_readiness(12), any_readiness(12));
    let rest = (
        prop::bool::weighted(0.85),
        prop::bool::weighted(0.03),
        prop::option::weighted(0.9, 0..2_000_i64),
        0..9_u64,
    );
    (ready, any_judgement(), rest).prop_map(
        |((candidate, serving, target, backup), judgement, (applied, open, quiet, n))| Observation {
            candidate,
            serving,
            target,
            backup,
            judgement,
            applied,
            breaker: open.then(|| "20 of 20 units met hard errors".to_owned()),
            quiet_ms: quiet,
            last_candidate_request: (n > 4).then_some(START),
            candidate_requests: n * 100,
            candidate_errors: n,
            target_requests: n * 10,
            target_errors: n / 2,
            target_busy: n % 3 == 0,
            counted_since: None,
            ..calm(0)
        },
    )
}

/// How far the clock goes: mostly a little, now and then past a deadline, and sometimes an hour back or forth.
pub(crate) fn any_delay() -> impl Strategy<Value = Millis> {
    prop_oneof![
        6 => 0..5_000_i64,
        8 => HOLD..2 * HOLD,
        1 => Just(DEADLINE + 2 * HOLD),
        1 => Just(PREPARE + 1),
        1 => Just(PROBATION + 1),
        1 => Just(-PROBATION),
    ]
}

pub(crate) fn any_kind() -> impl Strategy<Value = InstructionKind> {
    prop_oneof![
        2 => Just(InstructionKind::Pause),
        2 => Just(InstructionKind::Resume),
        1 => Just(InstructionKind::Abort),
        1 => Just(InstructionKind::Rollback),
        2 => Just(InstructionKind::Switch),
        2 => Just(InstructionKind::Drill),
    ]
}
