//! Single histories, each of which was or would be a fault.

use crate::build::{HOLD, PREPARE, PROBATION, broken, not_worse, promotion_id, revision, worse};
use crate::rules::shares;
use crate::run::Run;
use lockgate_core::event::{InstructionKind, RolloutEvent};
use lockgate_core::goal::{Direction, GoalSpec};
use lockgate_core::guard::GuardSpec;
use lockgate_core::id::PromotionId;
use lockgate_core::plan::{OnInconclusive, Step};
use lockgate_core::rollout::{Phase, Readiness};
use lockgate_core::route::WHOLE;

/// A deployment whose first release is confirmed and whose second one is at its first step, settled.
fn at_first_step(on_inconclusive: OnInconclusive) -> (Run, PromotionId) {
    let mut run = serving(1);
    let id = run.offer(true, on_inconclusive).unwrap();
    run.after(1, |_| {});
    assert_eq!(status(&run), Some(0));
    (run, id)
}

/// A deployment that has promoted and confirmed so many releases.
fn serving(releases: u32) -> Run {
    let mut run = Run::new();
    for _ in 0..releases {
        run.offer(true, OnInconclusive::Hold).unwrap();
        (0..6).for_each(|_| run.after(HOLD, |seen| seen.judgement = not_worse()));
        run.after(PROBATION, |_| {});
        assert!(run.deployment.serving.as_ref().unwrap().probation_until.is_none());
    }
    run
}

fn status(run: &Run) -> Option<usize> {
    match run.deployment.active.as_ref().map(|a| &a.phase) {
        Some(Phase::Step { index, .. }) => Some(*index),
        _ => None,
    }
}

fn all_on(run: &Run, n: u32) -> bool {
    shares(&run.deployment) == [(revision(n).digest(), WHOLE)].into()
}

#[test]
fn unknown_at_the_deadline_holds_or_goes_back_and_never_forward() {
    for (rule, back) in [(OnInconclusive::Hold, false), (OnInconclusive::Rollback, true)] {
        let (mut run, id) = at_first_step(rule);
        (0..40).for_each(|_| run.after(HOLD, |_| {}));
        assert_eq!(run.events(&id).iter().any(|e| e == "rolled_back"), back);
        assert!(!run.events(&id).iter().any(|e| e == "promoted"));
        assert_eq!(run.events(&id).iter().filter(|e| *e == "step_entered").count(), 1);
    }
}

#[test]
fn a_pause_before_the_gateways_have_the_step_does_not_spend_the_steps_time() {
    let mut run = serving(1);
    let id = run.offer(true, OnInconclusive::Rollback).unwrap();
    run.after(1, |seen| seen.applied = false);
    run.after(1, |seen| seen.applied = false);
    run.tell(&id, InstructionKind::Pause);
    run.tell(&id, InstructionKind::Resume);
    run.after(1, |seen| seen.judgement = not_worse());
    assert_eq!(status(&run), Some(0), "{:?}", run.events(&id));
    run.after(1, |_| {});
    assert_eq!(status(&run), Some(0), "it was not past any deadline either: {:?}", run.events(&id));
}

#[test]
fn a_pause_holds_the_forward_move_and_no_rollback() {
    let (mut run, id) = at_first_step(OnInconclusive::Hold);
    run.tell(&id, InstructionKind::Pause);
    (0..5).for_each(|_| run.after(HOLD, |seen| seen.judgement = not_worse()));
    assert_eq!(status(&run), Some(0));
    run.after(1, |seen| seen.judgement = worse());
    assert!(run.events(&id).iter().any(|e| e == "rolled_back"));
}

#[test]
fn a_gateway_that_lost_touch_stops_the_forward_move() {
    let (mut run, id) = at_first_step(OnInconclusive::Hold);
    let partitioned =
        |run: &mut Run| run.after(2 * HOLD, |seen| (seen.applied, seen.judgement) = (false, not_worse()));
    (0..3).for_each(|_| partitioned(&mut run));
    assert_eq!(status(&run), Some(0));
    assert_eq!(run.events(&id).iter().filter(|e| *e == "held").count(), 1, "it says so, once");
    run.after(1, |seen| seen.judgement = not_worse());
    assert_eq!(status(&run), Some(1), "and goes on when the gateway is back");
}

#[test]
fn to_be_no_worse_than_a_broken_baseline_is_no_proof() {
    let (mut run, id) = at_first_step(OnInconclusive::Hold);
    run.broken.insert(revision(1).digest());
    (0..9).for_each(|_| run.after(HOLD, |seen| seen.judgement = not_worse()));
    assert_eq!(status(&run), Some(0), "{:?}", run.events(&id));
    run.broken.clear();
    run.after(1, |seen| seen.judgement = not_worse());
    assert_eq!(status(&run), Some(1));
}

#[test]
fn a_person_may_abort_in_the_moment_in_which_it_is_promoted() {
    let (mut run, id) = at_first_step(OnInconclusive::Hold);
    (0..6).for_each(|_| run.after(HOLD, |seen| seen.judgement = not_worse()));
    assert!(all_on(&run, 2));
    run.tell(&id, InstructionKind::Abort);
    run.after(1_000, |_| {});
    assert!(all_on(&run, 1), "the word was given while it rolled; it is not lost");
}

#[test]
fn a_broken_baseline_ends_the_preparation_of_its_successor_at_once() {
    let mut run = serving(2);
    let id = run.offer(true, OnInconclusive::Hold).unwrap();
    run.broken.insert(revision(2).digest());
    run.after(1, |seen| seen.candidate = Readiness::Pending);
    assert_eq!(run.events(&id), ["started", "aborted"]);
    assert!(all_on(&run, 1), "what served before serves again, long before {PREPARE} ms are over");
}

#[test]
fn a_release_that_broke_in_probation_goes_back_once_and_then_to_the_backup() {
    let mut run = serving(2);
    run.broken.insert(revision(2).digest());
    run.after(1, |_| {});
    assert!(all_on(&run, 1) && run.deployment.active.is_none());
    run.broken.insert(revision(1).digest());
    run.after(1, |_| {});
    assert!(all_on(&run, 0), "no ping-pong: the backup");
    assert!(run.deployment.failed_over.is_some());
    (0..20).for_each(|_| run.after(HOLD, |_| {}));
    assert!(all_on(&run, 0), "and then a person decides");
}

#[test]
fn a_broken_target_fails_over_to_the_backup_and_a_new_release_is_measured_against_it() {
    let (mut run, _) = at_first_step(OnInconclusive::Hold);
    run.broken.insert(revision(1).digest());
    run.after(1, |seen| seen.judgement = worse());
    assert!(all_on(&run, 0) && run.deployment.failed_over.is_some());
    let repair = run.offer(true, OnInconclusive::Hold).unwrap();
    run.after(1, |_| {});
    let expected = [(revision(0).digest(), WHOLE - 500), (revision(3).digest(), 500)].into();
    assert_eq!(shares(&run.deployment), expected, "the rest is the backup's, not the broken release's");
    run.after(1, |seen| seen.judgement = worse());
    assert!(all_on(&run, 0), "and it goes back to the backup: {:?}", run.events(&repair));
}

#[test]
fn a_person_rolls_back_what_serves_after_a_failover_and_traffic_follows() {
    let mut run = serving(2);
    let newer = run.offer(true, OnInconclusive::Hold).unwrap();
    run.after(1, |_| {});
    run.after(1, |seen| (seen.judgement, seen.target) = (worse(), broken()));
    assert!(all_on(&run, 0) && run.events(&newer).iter().any(|e| e == "on_backup"));
    run.tell(&promotion_id(2), InstructionKind::Rollback);
    run.after(1_000, |_| {});
    run.after(1_000, |_| {});
    assert!(all_on(&run, 1), "what was reported as rolled back serves: {:?}", run.events(&promotion_id(2)));
}

#[test]
fn a_second_rollback_is_verified_on_the_release_that_goes_back() {
    let mut run = serving(2);
    run.tell(&promotion_id(2), InstructionKind::Rollback);
    run.after(1_000, |_| {});
    assert!(all_on(&run, 1));
    run.tell(&promotion_id(1), InstructionKind::Rollback);
    let active = run.deployment.active.as_ref().unwrap();
    assert_eq!(active.plan.revision.digest(), revision(1).digest(), "requests of this one must have ended");
    assert!(all_on(&run, 0));
}

#[test]
fn probation_survives_a_newer_release_that_goes_back() {
    let (mut run, _) = at_first_step(OnInconclusive::Hold);
    (0..6).for_each(|_| run.after(HOLD, |seen| seen.judgement = not_worse()));
    assert!(run.deployment.serving.as_ref().unwrap().probation_until.is_some());
    run.offer(true, OnInconclusive::Hold).unwrap();
    run.after(1, |_| {});
    assert_eq!(status(&run), Some(0), "probation does not hold the slot");
    // What was said about the candidate is said about nobody else once it has gone back.
    run.after(1, |seen| (seen.judgement, seen.quiet_ms) = (worse(), None));
    run.after(1_000, |_| {});
    assert!(all_on(&run, 2) && run.deployment.serving.as_ref().unwrap().probation_until.is_some());
    assert_eq!(
        run.deployment.serving.as_ref().unwrap().previous.as_ref().unwrap().digest(),
        revision(1).digest()
    );
}

#[test]
fn a_clock_that_jumps_moves_nothing_forward_without_proof() {
    for jump in [3_600_000, -3_600_000] {
        let (mut run, id) = at_first_step(OnInconclusive::Hold);
        run.after(jump, |_| {});
        assert_eq!(status(&run), Some(0), "{:?}", run.events(&id));
        run.after(1, |seen| seen.judgement = worse());
        assert!(all_on(&run, 1), "and harm is acted on whatever the clock says");
    }
}

#[test]
fn a_void_comparison_holds_even_past_the_deadline() {
    let (mut run, id) = at_first_step(OnInconclusive::Rollback);
    for _ in 0..40 {
        run.after(HOLD, |seen| {
            seen.judgement = not_worse();
            seen.judgement.sample_ratio_mismatch = true;
        });
    }
    assert_eq!(status(&run), Some(0), "neither forward nor back: {:?}", run.events(&id));
}

/// A deployment whose second release is on probation.
fn on_probation() -> Run {
    let (mut run, _) = at_first_step(OnInconclusive::Hold);
    (0..6).for_each(|_| run.after(HOLD, |seen| seen.judgement = not_worse()));
    assert_eq!(run.deployment.on_probation().map(|(s, _)| s.revision.digest()), Some(revision(2).digest()));
    run
}

#[test]
fn harm_on_probation_goes_back_and_after_it_nothing_does() {
    for breaker in [false, true] {
        let mut run = on_probation();
        run.after(1, |seen| {
            if breaker {
                seen.breaker = Some("most units met errors".to_owned());
            } else {
                seen.judgement = worse();
            }
        });
        (0..3).for_each(|_| run.after(HOLD, |_| {}));
        assert!(all_on(&run, 1), "{:?}", run.deployment);
    }
    let mut run = on_probation();
    run.after(PROBATION, |_| {});
    assert!(run.deployment.on_probation().is_none());
    run.after(1, |seen| seen.judgement = worse());
    assert!(all_on(&run, 2), "it is confirmed, and nobody compares it any more");
}

#[test]
fn harm_on_probation_without_a_way_back_is_no_outage() {
    let mut run = Run::new();
    run.offer(false, OnInconclusive::Hold).unwrap();
    (0..6).for_each(|_| run.after(HOLD, |seen| seen.judgement = not_worse()));
    assert!(run.deployment.serving.as_ref().unwrap().probation_until.is_some());
    run.after(1, |seen| seen.judgement = worse());
    assert!(all_on(&run, 1));
}

#[test]
fn a_shadow_step_moves_no_user_and_ends_by_proof_alone() {
    let mut run = serving(3);
    let id = run.offer(true, OnInconclusive::Hold).unwrap();
    run.after(1, |_| {});
    let mirrored = |run: &Run| (status(run), run.deployment.traffic().shadow, all_on(run, 3));
    assert_eq!(mirrored(&run), (Some(0), 2000, true), "{:?}", run.deployment.active);
    // Idle, it is not known to be any good, however long it takes.
    (0..40).for_each(|_| run.after(HOLD, |_| {}));
    assert_eq!(mirrored(&run), (Some(0), 2000, true));
    run.after(HOLD, |seen| seen.judgement = not_worse());
    assert_eq!(mirrored(&run), (Some(1), 0, false), "proven, it goes on to users: {:?}", run.events(&id));

    let mut run = serving(3);
    let id = run.offer(true, OnInconclusive::Hold).unwrap();
    run.after(1, |_| {});
    (0..3).for_each(|_| run.after(HOLD, |seen| seen.judgement = worse()));
    assert!(run.events(&id).iter().any(|e| e == "rolled_back"), "{:?}", run.events(&id));
    assert!(all_on(&run, 3) && run.deployment.traffic().shadow == 0);
}

#[test]
fn an_environment_that_only_observes_moves_nobody_and_says_what_it_would_have_done() {
    let observing = |releases: u32| {
        let mut run = serving(releases);
        let id = run.offer_with(true, |plan| plan.rollout.observe = true).unwrap();
        run.after(1, |_| {});
        (run, id)
    };
    // The fourth release mirrors first, the fifth is previewed.
    for releases in [3, 4] {
        let (mut run, id) = observing(releases);
        assert!(all_on(&run, releases), "{:?}", run.events(&id));
        (0..4).for_each(|_| {
            run.after(2 * HOLD, |seen| seen.judgement = not_worse());
            run.tell(&id, InstructionKind::Switch);
        });
        let (_, last, _) = run.journal.last().unwrap();
        let RolloutEvent::Aborted { reason } = last else { panic!("{last:?}") };
        assert!(reason.starts_with("observed only") && reason.contains("of the users now"), "{reason}");
        assert_eq!(reason.contains("errors not worse"), releases == 3, "{reason}");
        assert!(all_on(&run, releases) && run.deployment.active.is_none());
        assert!(!run.events(&id).iter().any(|e| e == "promoted"));
    }
    let (mut run, id) = observing(3);
    (0..3).for_each(|_| run.after(HOLD, |seen| seen.judgement = worse()));
    assert!(run.events(&id).iter().any(|e| e == "rolled_back") && all_on(&run, 3));
    // What has nothing to observe with is no plan, and the first release has to serve, for nothing else can.
    let mut plan = crate::build::plan(2, Some(revision(1)), true);
    plan.rollout.observe = true;
    assert!(plan.validate().unwrap_err().contains("only observes"));
    let mut first = Run::new();
    first.offered = 4;
    first.offer_with(false, |plan| plan.rollout.observe = true).unwrap();
    (0..4).for_each(|_| first.after(2 * HOLD, |seen| seen.judgement = not_worse()));
    assert!(all_on(&first, 5), "{:?}", first.deployment);
}

#[test]
fn a_plan_either_mirrors_or_moves_users_and_mirrors_first() {
    let plan = |steps: Vec<Step>| {
        let mut plan = crate::build::plan(4, Some(revision(3)), false);
        plan.rollout.steps = steps;
        plan
    };
    let (shadow, live) = (Step::mirroring, Step::live);
    assert_eq!(plan(vec![shadow(100, 0), shadow(WHOLE, 0), live(1, 0), live(WHOLE, 0)]).validate(), Ok(()));
    assert_eq!(plan(vec![shadow(WHOLE, 0), live(WHOLE, 0)]).validate(), Ok(()));
    for bad in [
        vec![live(1, 0), shadow(100, 0), live(WHOLE, 0)],
        vec![shadow(100, 0)],
        vec![shadow(100, 0), shadow(100, 0), live(WHOLE, 0)],
        vec![shadow(WHOLE + 1, 0), live(WHOLE, 0)],
        vec![Step { weight: 1, shadow: 1, ..Step::default() }, live(WHOLE, 0)],
        vec![live(0, 0), live(WHOLE, 0)],
    ] {
        assert!(plan(bad.clone()).validate().is_err(), "{bad:?}");
    }
    let mut alone = plan(vec![shadow(100, 0), live(WHOLE, 0)]);
    alone.baseline = None;
    assert!(alone.validate().is_err(), "nothing to compare with");
    // Disagreement can be proven in a shadow step and nowhere else.
    let only = |steps| {
        let mut plan = plan(steps);
        let guard = GuardSpec::Disagreement { max: 0.03, tolerance: 0.05 };
        plan.rollout.guards = [("disagreement".parse().unwrap(), guard)].into();
        plan
    };
    assert_eq!(only(vec![shadow(100, 0), live(WHOLE, 0)]).validate(), Ok(()));
    assert!(only(vec![shadow(100, 0), live(100, 0), live(WHOLE, 0)]).validate().is_err());
}

#[test]
fn an_ab_step_needs_a_goal_and_two_sides() {
    let goal = GuardSpec::Goal(GoalSpec {
        metric: "outcome".to_owned(),
        direction: Direction::Up,
        gain: 0.0,
        rollback_by: 0.0,
        least: 0.0,
        most: 1.0,
        within_ms: None,
        missing: None,
    });
    let plan = |steps: Vec<Step>, goals: bool| {
        let mut plan = crate::build::plan(1, Some(revision(9)), false);
        plan.rollout.steps = steps;
        if goals {
            plan.rollout.guards = [("conversion".parse().unwrap(), goal.clone())].into();
        }
        plan
    };
    let ab = |weight| vec![Step::ab(weight, 10), Step::live(WHOLE, 0)];
    assert_eq!(plan(ab(5000), true).validate(), Ok(()));
    assert!(plan(ab(5000), false).validate().is_err(), "no goal");
    // A goal alone lets no other step go on: its outcomes may come long after.
    assert!(
        plan(vec![Step::live(100, 0), Step::ab(5000, 10), Step::live(WHOLE, 0)], true).validate().is_err()
    );
    assert!(plan(vec![Step { ab: true, ..Step::live(WHOLE, 0) }], true).validate().is_err());
    assert!(
        plan(vec![Step { ab: true, ..Step::mirroring(100, 0) }, Step::live(WHOLE, 0)], true)
            .validate()
            .is_err()
    );
    let mut alone = plan(ab(5000), true);
    alone.baseline = None;
    assert!(alone.validate().is_err(), "nothing to compare with");
    assert!(goal.is_required_in(&Step::ab(5000, 0)) && !goal.is_required_in(&Step::live(5000, 0)));
    // As it was written down, it is read again, also inside an event.
    let text = serde_json::to_string(&plan(ab(5000), true)).unwrap();
    assert_eq!(serde_json::from_str::<lockgate_core::plan::Plan>(&text).unwrap(), plan(ab(5000), true));
}

#[test]
fn plans_without_shadow_steps_are_written_as_before() {
    let text = serde_json::to_string(&Step::live(500, 1000)).unwrap();
    assert_eq!(text, r#"{"weight":500,"hold_ms":1000}"#);
    assert_eq!(serde_json::from_str::<Step>(&text).unwrap(), Step::live(500, 1000));
    let shadow = Step::mirroring(2000, 1000);
    assert_eq!(serde_json::from_str::<Step>(&serde_json::to_string(&shadow).unwrap()).unwrap(), shadow);
}
