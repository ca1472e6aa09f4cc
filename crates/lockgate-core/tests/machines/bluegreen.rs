//! Blue/green: histories of a preview.

use crate::build::{DEADLINE, HOLD, PROBATION, broken, instruction, person, plan, revision};
use crate::rules::shares;
use crate::run::Run;
use lockgate_core::event::{Instruction, InstructionKind, PromotionEvent, RolloutEvent, Smoked};
use lockgate_core::gate::Outcome;
use lockgate_core::id::PromotionId;
use lockgate_core::plan::{OnInconclusive, Step, Switch};
use lockgate_core::promotion::Promotion;
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

/// What a person is asked to decide now.
fn asked(run: &Run) -> String {
    let held = run.journal.iter().rev().find_map(|(_, event, _)| match event {
        RolloutEvent::Held { reason, needs_person, .. } => Some((reason.clone(), *needs_person)),
        _ => None,
    });
    held.filter(|(_, needs_person)| *needs_person).map(|(reason, _)| reason).unwrap_or_default()
}

#[test]
fn nobody_meets_the_candidate_before_its_smoke_test_has_passed_and_everybody_after() {
    let (mut run, id) = in_preview(Switch::Automatic, OnInconclusive::Hold);
    assert!(
        run.deployment.traffic().preview && run.deployment.active.as_ref().unwrap().smoke_due().is_some()
    );
    (0..8).for_each(|_| run.after(HOLD, |_| {}));
    assert!(all_on(&run.deployment, 1) && step(&run) == Some(0), "no time lets it go on");
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
    assert!(asked(&run).contains("ready to switch"), "{:?}", asked(&run));
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
fn past_its_deadline_a_preview_does_not_switch_by_itself_though_its_smoke_test_passes() {
    for (rule, ends) in [(OnInconclusive::Hold, false), (OnInconclusive::Rollback, true)] {
        let (mut run, id) = in_preview(Switch::Automatic, rule);
        run.after(HOLD + DEADLINE, |_| {});
        assert!(run.deployment.active.is_some(), "not late yet: {:?}", run.events(&id));
        if !ends {
            run.after(1, |_| {});
            assert!(asked(&run).contains("the smoke test has not ended yet"), "{:?}", asked(&run));
            run.tell(&id, InstructionKind::Switch);
            assert!(!run.events(&id).contains(&"switch_allowed".to_owned()), "nothing is known yet");
        }
        run.smoke = Some(Outcome::Pass);
        (0..4).for_each(|_| run.after(HOLD, |_| {}));
        assert!(all_on(&run.deployment, 1));
        assert_eq!(run.deployment.active.is_none(), ends, "{:?}", run.events(&id));
        // A person may, where it only holds.
        assert_eq!(asked(&run).contains("it had not switched by then"), !ends, "{:?}", asked(&run));
        run.tell(&id, InstructionKind::Switch);
        run.after(1, |_| {});
        assert_eq!(all_on(&run.deployment, 5), !ends, "{:?}", run.events(&id));
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
fn a_hold_out_leaves_users_with_what_served_before_until_the_probation_is_over() {
    let mut run = Run::new();
    (0..2).for_each(|_| {
        run.offer(true, OnInconclusive::Hold).unwrap();
        (0..6).for_each(|_| run.after(HOLD, |seen| seen.judgement = crate::build::not_worse()));
        run.after(PROBATION, |_| {});
    });
    // The third plan holds a tenth of the users out.
    run.offer(true, OnInconclusive::Hold).unwrap();
    let weight = |run: &Run| run.deployment.routed().split.map(|(_, weight, _)| weight);
    let mut weights = Vec::new();
    for _ in 0..6 {
        run.after(HOLD, |seen| seen.judgement = crate::build::not_worse());
        weights.extend(weight(&run));
    }
    weights.dedup();
    assert_eq!(weights, [500, 2500, 9000], "in the last step, and on probation");
    assert!(run.deployment.on_probation().is_some());
    assert_eq!(run.deployment.routed().main.map(|r| r.digest()), Some(revision(2).digest()));
    run.after(PROBATION, |_| {});
    assert_eq!(weight(&run), None);
    assert!(all_on(&run.deployment, 3));
    let mut small = plan(1, Some(revision(3)), true);
    small.rollout.holdout = 7500;
    assert!(small.validate().is_err(), "more than half");
    small.rollout.holdout = 2000;
    assert_eq!(small.validate(), Ok(()));
    small.rollout.steps[1].weight = 9000;
    assert!(small.validate().is_err(), "90% leaves a tenth, and a fifth is held out");
}

/// What the server makes of an agent's reports about a preview.
#[test]
fn a_preview_goes_on_in_the_server_s_eyes_only_with_its_smoke_test_and_a_person_s_word() {
    for switch in [Switch::Automatic, Switch::ByHand] {
        let (run, id) = in_preview(switch, OnInconclusive::Hold);
        let mut mirror = run.deployment.clone();
        let plan = (*mirror.active.as_ref().unwrap().plan).clone();
        let hash = plan.hash().unwrap();
        let mut promotion = Promotion::new(id.clone(), plan, hash, run.now);
        promotion.apply(&PromotionEvent::Released, run.now);
        let (epoch, judgement) = (mirror.epoch, None);
        let step = |step, weight| RolloutEvent::StepEntered {
            step,
            weight,
            shadow: 0,
            epoch,
            judgement: judgement.clone(),
        };
        promotion.follow(&step(0, 0), run.now);
        let said = instruction(1, InstructionKind::Switch, run.now);
        let told =
            |instruction: &Instruction| RolloutEvent::SwitchAllowed { instruction: instruction.clone() };
        let check = |promotion: &Promotion, mirror: &Deployment, event: &RolloutEvent| {
            promotion.check_report(mirror, event).map_err(|refused| refused.to_string())
        };
        promotion.apply(&PromotionEvent::Instructed { instruction: said.clone() }, run.now);
        let untried = Err("the report can't be taken: the smoke test has not ended yet".to_owned());
        assert_eq!(check(&promotion, &mirror, &step(1, WHOLE)), untried);
        assert_eq!(check(&promotion, &mirror, &told(&said)), untried);
        for (outcome, passed) in [(Outcome::Fail, false), (Outcome::Error, false), (Outcome::Pass, true)] {
            let smoked = RolloutEvent::Smoked(Smoked { outcome, summary: String::new(), log: None });
            let mut mirror = mirror.clone();
            mirror.apply(&id, &smoked, run.now);
            let goes_on = check(&promotion, &mirror, &step(1, WHOLE)).is_ok();
            assert_eq!(goes_on, passed && switch == Switch::Automatic, "{outcome:?}");
            assert_eq!(check(&promotion, &mirror, &told(&said)).is_ok(), passed, "{outcome:?}");
            assert!(check(&promotion, &mirror, &smoked).is_err(), "it ended before");
            // Somebody else's word, or another one, is none.
            let forged = Instruction { by: person("mallory"), ..said.clone() };
            assert!(check(&promotion, &mirror, &told(&forged)).is_err());
            let paused = instruction(1, InstructionKind::Pause, run.now);
            assert!(check(&promotion, &mirror, &told(&paused)).is_err());
        }
        let smoked = Smoked { outcome: Outcome::Pass, summary: String::new(), log: None };
        mirror.apply(&id, &RolloutEvent::Smoked(smoked), run.now);
        mirror.apply(&id, &told(&said), run.now);
        assert_eq!(check(&promotion, &mirror, &step(1, WHOLE)), Ok(()));
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
    for new in ["preview", "smoke", "testers", "holdout"] {
        assert!(!text.contains(new), "{text}");
    }
    let with = plan(5, Some(revision(3)), true);
    let text = serde_json::to_string(&with).unwrap();
    assert_eq!(serde_json::from_str::<lockgate_core::plan::Plan>(&text).unwrap(), with);
}
