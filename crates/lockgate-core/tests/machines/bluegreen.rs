//! Blue/green: histories of a preview.

use crate::build::{DEADLINE, HOLD, PROBATION, broken, plan, revision};
use crate::rules::shares;
use crate::run::Run;
use lockgate_core::event::{InstructionKind, RolloutEvent};
use lockgate_core::gate::Outcome;
use lockgate_core::id::PromotionId;
use lockgate_core::plan::{OnInconclusive, Step, Switch};
use lockgate_core::rollout::{Deployment, Phase};
use lockgate_core::route::WHOLE;

/// A deployment that serves release 1, with a preview of the next one entered and settled.
fn in_preview(switch: Switch, on_inconclusive: OnInconclusive) -> (Run, PromotionId) {
    let mut run = Run::new();
    run.offer(true, OnInconclusive::Hold).unwrap();
    (0..6).for_each(|_| run.after(HOLD, |seen| seen.judgement = crate::build::not_worse()));
    run.after(PROBATION, |_| {});
    assert!(all_on(&run.deployment, 1), "{:?}", run.deployment);
    // The plans by number begin with the fifth.
    run.offered = if switch == Switch::ByHand { 9 } else { 4 };
    run.smoke = None;
    let id = run.offer(true, on_inconclusive).unwrap();
    assert_eq!(plan(run.offered, None, true).rollout.steps[0].preview, Some(switch));
    run.after(1, |_| {});
    assert_eq!(step(&run), Some(0));
    (run, id)
}

fn step(run: &Run) -> Option<usize> {
    match run.deployment.active.as_ref().map(|a| &a.phase) {
        Some(Phase::Step { index, .. }) => Some(*index),
        _ => None,
    }
}

fn all_on(deployment: &Deployment, n: u32) -> bool {
    shares(deployment) == [(revision(n).digest(), WHOLE)].into()
}

#[test]
fn nobody_meets_the_candidate_before_its_smoke_test_has_passed_and_everybody_after() {
    let (mut run, id) = in_preview(Switch::Automatic, OnInconclusive::Hold);
    assert!(
        run.deployment.traffic().preview && run.deployment.active.as_ref().unwrap().smoke_due().is_some()
    );
    (0..40).for_each(|_| run.after(HOLD, |_| {}));
    assert!(all_on(&run.deployment, 1) && step(&run) == Some(0), "no time-out lets it go on");
    run.smoke = Some(Outcome::Pass);
    run.after(1, |_| {});
    assert!(all_on(&run.deployment, 5) && !run.deployment.traffic().preview);
    run.after(HOLD, |_| {});
    assert_eq!(run.events(&id).last().map(String::as_str), Some("promoted"));
    // The old side is warm, and one word leads back to it.
    let kept = run.deployment.serving.as_ref().unwrap().previous.as_ref().unwrap().digest();
    assert_eq!(kept, revision(1).digest());
    run.tell(&id, InstructionKind::Rollback);
    assert!(all_on(&run.deployment, 1), "{:?}", run.deployment);
}

#[test]
fn the_preview_lasts_as_long_as_it_says_even_if_the_smoke_test_is_quick() {
    let (mut run, _) = in_preview(Switch::Automatic, OnInconclusive::Hold);
    run.smoke = Some(Outcome::Pass);
    run.after(HOLD / 2, |_| {});
    assert!(all_on(&run.deployment, 1));
    run.after(HOLD, |seen| seen.applied = false);
    assert!(all_on(&run.deployment, 1), "a gateway does not know the candidate yet");
    run.after(1, |_| {});
    assert!(all_on(&run.deployment, 5));
}

#[test]
fn a_smoke_test_that_did_not_pass_ends_it_without_a_way_back() {
    for outcome in [Outcome::Fail, Outcome::Error] {
        let (mut run, id) = in_preview(Switch::Automatic, OnInconclusive::Hold);
        run.smoke = Some(outcome);
        run.after(1, |_| {});
        let events = run.events(&id);
        assert_eq!(events.last().map(String::as_str), Some("aborted"), "{events:?}");
        assert!(!events.iter().any(|e| e.starts_with("rol")), "nothing had moved: {events:?}");
        assert!(all_on(&run.deployment, 1) && run.deployment.active.is_none());
    }
}

#[test]
fn by_hand_waits_for_a_person_who_comes_after_the_smoke_test() {
    let (mut run, id) = in_preview(Switch::ByHand, OnInconclusive::Hold);
    run.tell(&id, InstructionKind::Switch);
    run.smoke = Some(Outcome::Pass);
    run.after(HOLD, |_| {});
    run.after(HOLD, |_| {});
    assert!(all_on(&run.deployment, 1), "nobody knew yet how the smoke test ends");
    let held = |run: &Run| match run.journal.iter().rev().find_map(|(_, e, _)| match e {
        RolloutEvent::Held { reason, needs_person, .. } => Some((reason.clone(), *needs_person)),
        _ => None,
    }) {
        Some((reason, needs_person)) => {
            assert!(needs_person);
            reason
        }
        None => String::new(),
    };
    assert!(held(&run).contains("ready to switch"), "{:?}", held(&run));
    run.tell(&id, InstructionKind::Switch);
    run.after(1, |_| {});
    assert!(all_on(&run.deployment, 10), "{:?}", run.events(&id));
    let switched = run.events(&id).iter().filter(|e| *e == "switch_allowed").count();
    assert_eq!(switched, 1);
}

#[test]
fn a_deadline_never_switches() {
    for (rule, ends) in [(OnInconclusive::Hold, false), (OnInconclusive::Rollback, true)] {
        let (mut run, id) = in_preview(Switch::ByHand, rule);
        run.smoke = Some(Outcome::Pass);
        (0..40).for_each(|_| run.after(HOLD, |_| {}));
        run.after(2 * DEADLINE, |_| {});
        assert!(all_on(&run.deployment, 1));
        assert_eq!(
            run.events(&id).last().map(String::as_str) == Some("aborted"),
            ends,
            "{:?}",
            run.events(&id)
        );
        // Late is not never, where it only holds.
        run.tell(&id, InstructionKind::Switch);
        run.after(1, |_| {});
        assert_eq!(all_on(&run.deployment, 10), !ends);
    }
}

#[test]
fn a_person_or_a_broken_side_ends_a_preview_and_a_pause_keeps_it() {
    let (mut run, id) = in_preview(Switch::Automatic, OnInconclusive::Hold);
    run.tell(&id, InstructionKind::Pause);
    run.smoke = Some(Outcome::Pass);
    (0..4).for_each(|_| run.after(HOLD, |_| {}));
    assert!(all_on(&run.deployment, 1), "it is paused");
    run.tell(&id, InstructionKind::Abort);
    assert!(run.deployment.active.is_none() && all_on(&run.deployment, 1));
    type Break = fn(&mut lockgate_core::rollout::Observation);
    let breaks: [Break; 2] = [|seen| seen.candidate = broken(), |seen| seen.serving = broken()];
    for break_it in breaks {
        let (mut run, id) = in_preview(Switch::Automatic, OnInconclusive::Hold);
        run.after(1, break_it);
        assert!(run.events(&id).iter().any(|e| e == "aborted"), "{:?}", run.events(&id));
    }
}

#[test]
fn a_preview_comes_first_and_stands_for_itself() {
    let plan = |steps: Vec<Step>| {
        let mut plan = plan(5, Some(revision(3)), false);
        plan.rollout.steps = steps;
        plan
    };
    let (look, live, shadow) = (Step::previewing(Switch::Automatic, 0), Step::live, Step::mirroring);
    for good in [
        vec![look.clone(), live(WHOLE, 0)],
        vec![look.clone(), shadow(WHOLE, 0), live(500, 0), live(WHOLE, 0)],
    ] {
        assert_eq!(plan(good).validate(), Ok(()));
    }
    let both = Step { weight: 1, ..look.clone() };
    for bad in [
        vec![look.clone()],
        vec![look.clone(), look.clone(), live(WHOLE, 0)],
        vec![live(500, 0), look.clone(), live(WHOLE, 0)],
        vec![both, live(WHOLE, 0)],
        // A smoke test without a preview.
        vec![live(WHOLE, 0)],
    ] {
        assert!(plan(bad.clone()).validate().is_err(), "{bad:?}");
    }
    // A first release has nothing to compare with, and can be tried out all the same.
    let mut first = plan(vec![look, live(WHOLE, 0)]);
    first.baseline = None;
    assert_eq!(first.validate(), Ok(()));
}

#[test]
fn plans_without_a_preview_are_written_as_before() {
    let text = serde_json::to_string(&plan(1, Some(revision(3)), true)).unwrap();
    for new in ["preview", "smoke", "testers"] {
        assert!(!text.contains(new), "{text}");
    }
    let with = plan(5, Some(revision(3)), true);
    let text = serde_json::to_string(&with).unwrap();
    assert_eq!(serde_json::from_str::<lockgate_core::plan::Plan>(&text).unwrap(), with);
}
