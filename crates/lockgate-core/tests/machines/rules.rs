//! The rules that every step of a deployment must keep, written down without looking at how the machine keeps them.

use lockgate_core::digest::Digest;
use lockgate_core::event::{Cause, RolloutEvent};
use lockgate_core::gate::Outcome;
use lockgate_core::guard::{Judgement, Verdict};
use lockgate_core::id::PromotionId;
use lockgate_core::plan::{Revision, Switch};
use lockgate_core::rollout::{Deployment, Leg, Observation, Phase, Readiness, Status};
use lockgate_core::route::WHOLE;
use std::collections::{BTreeMap, BTreeSet};

/// What was seen so far.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    /// Automatic rollbacks by promotion.
    automatic: BTreeMap<PromotionId, u32>,
    /// Releases that were sent back: no traffic ever again.
    condemned: BTreeSet<Digest>,
    /// What must follow at once.
    harm: bool,
}

/// Who gets how much of the traffic.
pub(crate) fn shares(deployment: &Deployment) -> BTreeMap<Digest, u32> {
    let traffic = deployment.traffic();
    let mut shares = BTreeMap::new();
    let split = traffic.split.map_or(0, |(_, weight, _)| weight);
    assert!(split <= WHOLE, "a share of {split}");
    if let Some((candidate, weight, _)) = traffic.split {
        let kinds = [weight > 0, traffic.shadow > 0, traffic.preview];
        assert_eq!(kinds.iter().filter(|k| **k).count(), 1, "either users, mirrored requests or a preview");
        assert!(traffic.shadow <= WHOLE && (traffic.shadow == 0 || traffic.main.is_some()));
        if weight > 0 {
            *shares.entry(candidate.digest()).or_default() += weight;
        }
    }
    if let Some(main) = traffic.main.filter(|_| split < WHOLE) {
        *shares.entry(main.digest()).or_default() += WHOLE - split;
    }
    shares
}

fn proven(j: &Judgement) -> bool {
    let required: Vec<_> = j.readings.iter().filter(|r| r.required).collect();
    !required.is_empty()
        && required.iter().all(|r| r.verdict == Verdict::NotWorse)
        && !j.sample_ratio_mismatch
}

fn harmful(seen: &Observation) -> bool {
    let merged = seen.judgement.log_e_rollback >= seen.judgement.needed_rollback;
    seen.breaker.is_some()
        || matches!(seen.candidate, Readiness::Failed(_))
        || (merged && !seen.judgement.readings.is_empty())
}

fn phase(deployment: &Deployment) -> Option<&Phase> {
    deployment.active.as_ref().map(|a| &a.phase)
}

impl Rules {
    /// Harm comes before every other rule, in every status of a step, and nothing but going back follows from it.
    pub(crate) fn before_step(&mut self, deployment: &Deployment, seen: &Observation) {
        self.harm = matches!(phase(deployment), Some(Phase::Step { .. })) && harmful(seen);
        if self.harm {
            let next = deployment.step(seen).map(|(_, e)| e);
            let previewed = deployment.active.as_ref().is_some_and(|a| a.preview().is_some());
            let fits = match &next {
                Some(RolloutEvent::RollbackDecided { .. }) => !previewed,
                Some(RolloutEvent::Aborted { .. }) => previewed,
                _ => false,
            };
            assert!(fits, "harm, and then {next:?}");
        }
    }

    pub(crate) fn check(
        &mut self,
        before: &Deployment,
        (promotion, event): (&PromotionId, &RolloutEvent),
        after: &Deployment,
        seen: Option<&Observation>,
    ) {
        match event {
            RolloutEvent::StepEntered { step, weight, shadow, judgement, .. } => {
                forward(before, *step, (*weight, *shadow), judgement.as_ref(), seen.unwrap());
            }
            RolloutEvent::Promoted { .. } => promoted(before, seen.unwrap()),
            RolloutEvent::Confirmed => confirmed(before, seen.unwrap()),
            RolloutEvent::RollbackDecided { cause, target, .. } => {
                self.back(before, promotion, cause, target.as_ref())
            }
            RolloutEvent::RolledBack { .. } => verified(before, seen.unwrap()),
            RolloutEvent::Aborted { .. } => assert_eq!(shares(before), shares(after), "it had moved traffic"),
            RolloutEvent::DrillStarted { .. } => assert!(before.can_drill().is_ok()),
            RolloutEvent::DrillEnded { .. } => assert!(seen.unwrap().applied, "home, as was seen"),
            RolloutEvent::Started { .. } => assert!(!before.taken.contains(promotion), "taken on twice"),
            _ => {}
        }
        traffic(before, event, after);
        routed(after);
        inline(after);
        warm(after);
        drill(after);
        for digest in shares(after).keys() {
            assert!(
                !self.condemned.contains(digest),
                "a release that was sent back has traffic again, after {event:?}"
            );
        }
        if after.active.is_none() && matches!(event, RolloutEvent::OnBackup | RolloutEvent::Stranded { .. }) {
            assert!(after.failed_over.is_some(), "nobody would know that a person is needed");
        }
    }

    fn back(
        &mut self,
        before: &Deployment,
        promotion: &PromotionId,
        cause: &Cause,
        target: Option<&Revision>,
    ) {
        let own = before.active.as_ref().map(|a| &a.plan.revision);
        let own = own.or(before.serving.as_ref().map(|s| &s.revision)).unwrap().digest();
        assert_ne!(target.map(Revision::digest), Some(own), "back to itself");
        self.condemned.insert(own);
        if !matches!(cause, Cause::Person { .. }) {
            let count = self.automatic.entry(promotion.clone()).or_default();
            *count += 1;
            assert_eq!(*count, 1, "a second automatic rollback of {promotion} (I10)");
        }
    }
}

/// I5 and I6: a larger weight needs every required guard's *not worse*, the step's time, and gateways that have the step.
fn forward(
    before: &Deployment,
    step: usize,
    (weight, shadow): (u32, u32),
    judgement: Option<&Judgement>,
    seen: &Observation,
) {
    let active = before.active.as_ref().unwrap();
    let entered = &active.plan.rollout.steps[step];
    assert_eq!((entered.weight, entered.shadow), (weight, shadow));
    assert_eq!(seen.candidate, Readiness::Ready, "forward with a candidate that is not ready");
    match &active.phase {
        Phase::Preparing { .. } => {
            assert_eq!((step, judgement), (0, None));
            assert!(
                before.serving.is_none() || before.failed_over.is_some() || seen.serving == Readiness::Ready
            );
            assert!(
                active.plan.backup.is_none() || seen.backup == Readiness::Ready,
                "the backup was not proven"
            );
        }
        Phase::Step { index, status: Status::Watching { since } | Status::Held { since, .. } } => {
            assert_eq!(step, index + 1, "a step was left out");
            assert!(!harmful(seen), "forward in spite of harm");
            assert!(entered.place() > active.plan.rollout.steps[*index].place());
            if let Some(switch) = active.plan.rollout.steps[*index].preview {
                let passed = active.smoke.as_ref().map(|s| s.outcome) == Some(Outcome::Pass);
                assert!(passed || active.plan.rollout.smoke.is_none(), "no smoke test has passed");
                assert!(active.switch || switch == Switch::Automatic, "nobody said that it may switch");
                assert_eq!(judgement, None, "a preview proves nothing");
                let plan = &active.plan.rollout;
                let late = seen.now - since > plan.steps[*index].hold_ms + plan.deadline_ms;
                assert!(active.switch || !late, "it switched by itself past its deadline");
                assert!(seen.now - since >= active.plan.rollout.steps[*index].hold_ms && seen.applied);
                return;
            }
            assert!(proven(judgement.unwrap()), "a larger weight without proof");
            assert_eq!(judgement.unwrap(), &seen.judgement, "the numbers on record are those that decided");
            assert!(seen.now - since >= active.plan.rollout.steps[*index].hold_ms, "before the step's time");
            let compared = before.serving.is_some() && before.failed_over.is_none();
            assert!(
                !compared || seen.serving == Readiness::Ready,
                "no worse than something broken is no proof"
            );
            assert!(seen.applied, "some gateway does not have the present step yet");
        }
        other => panic!("forward from {other:?}"),
    }
}

fn promoted(before: &Deployment, seen: &Observation) {
    let active = before.active.as_ref().unwrap();
    let Phase::Step { index, status: Status::Watching { since } | Status::Held { since, .. } } =
        &active.phase
    else {
        panic!("promoted from {:?}", active.phase)
    };
    let step = &active.plan.rollout.steps[*index];
    assert_eq!(step.weight, WHOLE, "promoted before it had all traffic");
    assert!(
        seen.now - since >= step.hold_ms
            && seen.candidate == Readiness::Ready
            && seen.applied
            && !harmful(seen)
    );
}

fn confirmed(before: &Deployment, seen: &Observation) {
    let serving = before.serving.as_ref().unwrap();
    assert!(serving.probation_until.unwrap() <= seen.now && seen.serving == Readiness::Ready);
    assert!(before.active.is_none() && before.failed_over.is_none());
}

/// *Rolled back* means seen: applied everywhere, no request for a while, and the target answers.
fn verified(before: &Deployment, seen: &Observation) {
    assert!(matches!(phase(before), Some(Phase::RollingBack { applied: Some(_), .. })));
    assert!(seen.applied && seen.target == Readiness::Ready && seen.quiet_ms.unwrap() >= 250);
}

/// I2 and I3: shares add up to everything or nothing at all, and a change of shares has a larger epoch.
fn traffic(before: &Deployment, event: &RolloutEvent, after: &Deployment) {
    let (old, new) = (shares(before), shares(after));
    let sum: u32 = new.values().sum();
    assert!(sum == WHOLE || (sum == 0 && new.is_empty()), "shares add up to {sum} after {event:?}");
    assert!(after.epoch >= before.epoch, "the epoch fell");
    if old != new {
        assert!(
            after.epoch > before.epoch,
            "traffic changed without a new epoch after {event:?}: {old:?} to {new:?}"
        );
    }
    let stepping = matches!(phase(after), Some(Phase::Step { .. }));
    assert_eq!(after.traffic().split.is_some(), stepping, "a share outside of a step");
    if old.len() == 1 && new.is_empty() {
        let hopeless = after.backup.is_none() && after.serving.as_ref().is_none_or(|s| s.previous.is_none());
        assert!(hopeless, "nothing serves after {event:?}, though something could");
    }
}

/// A drill disturbs nothing else: it is alone, about what is confirmed, and between two releases that are warm.
fn drill(after: &Deployment) {
    let routed = after.routed();
    let Some(drill) = &after.drill else { return };
    let serving = after.serving.as_ref().unwrap();
    assert!(after.active.is_none() && after.failed_over.is_none() && serving.probation_until.is_none());
    assert!(after.wanted().iter().any(|w| w.digest() == drill.target.digest()), "the way back is not warm");
    let is_home = matches!(drill.leg, Leg::Returning { .. });
    let expected = if is_home { &serving.revision } else { &drill.target };
    assert!(routed.split.is_none() && routed.main.map(Revision::digest) == Some(expected.digest()));
}

/// Gateways are told what the state asks for, less the hold-out where the candidate would have all the traffic.
fn routed(after: &Deployment) {
    let (asked, told) = (after.traffic(), after.routed());
    let Some((candidate, weight, _)) = told.split else {
        assert!(after.drill.is_some() || asked == told);
        return;
    };
    let plan = after.active.as_ref().map(|a| &a.plan).or(after.serving.as_ref().map(|s| &s.plan)).unwrap();
    let whole = asked.split.is_none_or(|(_, weight, _)| weight == WHOLE);
    let holdout = if whole && told.main.is_some() { plan.rollout.holdout } else { 0 };
    assert_eq!(weight + holdout, asked.split.map_or(WHOLE, |(_, weight, _)| weight));
    assert!(holdout == 0 || told.main.map(Revision::digest) != Some(candidate.digest()));
}

/// What runs inside the gateway is what serves, alone: no side of a rollout, of its probation or of a drill.
fn inline(after: &Deployment) {
    let Some(revision) = after.inline() else { return };
    let told = after.routed();
    assert!(told.split.is_none() && told.shadow == 0 && !told.preview && after.active.is_none());
    assert!(after.drill.is_none() && after.on_probation().is_none());
    assert_eq!(told.main.map(Revision::digest), Some(revision.digest()));
    assert_eq!(shares(after), BTreeMap::from([(revision.digest(), WHOLE)]));
}

/// I4: what has traffic, what it would go back to and the backup are kept warm.
fn warm(after: &Deployment) {
    let wanted: BTreeSet<Digest> = after.wanted().into_iter().map(Revision::digest).collect();
    let previous = after.serving.iter().filter_map(|s| s.previous.as_ref()).map(Revision::digest);
    let needed = shares(after).into_keys().chain(previous).chain(after.backup.iter().map(Revision::digest));
    for digest in needed {
        assert!(wanted.contains(&digest), "not kept warm: {digest}");
    }
    if let Some(Phase::RollingBack { .. }) = phase(after) {
        let active = after.active.as_ref().unwrap();
        let serves = after.serving.as_ref().filter(|s| s.promotion == active.promotion);
        let own = serves.map_or(active.plan.revision.digest(), |s| s.revision.digest());
        assert_eq!(
            active.plan.revision.digest(),
            own,
            "the rollback would be verified on another release's requests"
        );
    }
}
