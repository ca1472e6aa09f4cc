//! Drills: there, seen, and home again, whatever happens meanwhile.

use crate::build::{HOLD, PROBATION, broken, not_worse, promotion_id, revision};
use crate::run::Run;
use lockgate_core::event::InstructionKind;
use lockgate_core::plan::{OnInconclusive, Revision};
use lockgate_core::rollout::{DRILL_MS, DRILL_STAY_MS, Drilled, Leg, Readiness};

/// A deployment that has promoted and confirmed two releases.
fn confirmed() -> Run {
    let mut run = Run::new();
    for _ in 0..2 {
        run.offer(true, OnInconclusive::Hold).unwrap();
        (0..6).for_each(|_| run.after(HOLD, |seen| seen.judgement = not_worse()));
        run.after(PROBATION, |_| {});
    }
    run
}

fn users(run: &Run) -> Revision {
    let routed = run.deployment.routed();
    assert!(routed.split.is_none());
    routed.main.unwrap().clone()
}

fn is_on(run: &Run, n: u32) -> bool {
    users(run).digest() == revision(n).digest()
}

fn begin() -> Run {
    let mut run = confirmed();
    run.tell(&promotion_id(2), InstructionKind::Drill);
    assert!(is_on(&run, 1) && run.deployment.drill.is_some());
    run
}

fn ended(run: &Run) -> &Drilled {
    assert!(is_on(run, 2) && run.deployment.drill.is_none());
    run.deployment.drilled.as_ref().unwrap()
}

#[test]
fn traffic_goes_there_is_seen_there_and_comes_home() {
    let mut run = begin();
    run.after(2, |seen| (seen.applied, seen.target_requests) = (false, 40));
    assert!(is_on(&run, 1));
    let decided = run.deployment.drill.as_ref().unwrap().decided;
    run.after(2, |seen| (seen.target_requests, seen.last_candidate_request) = (40, Some(decided + 3)));
    run.after(DRILL_STAY_MS - 1, |seen| seen.target_requests = 90);
    assert!(matches!(run.deployment.drill.as_ref().unwrap().leg, Leg::Away { .. }), "not long enough yet");
    run.after(10, |seen| seen.last_candidate_request = Some(seen.now - 20));
    assert!(is_on(&run, 1), "what serves still gets requests");
    run.after(10, |seen| {
        seen.target_requests = 140;
        // A long answer of what serves may go on.
        (seen.last_candidate_request, seen.quiet_ms) = (Some(decided + 5), None);
    });
    let drilled = ended(&run).clone();
    let away = drilled.away.unwrap();
    assert_eq!((away.requests, away.errors, away.last_request_ms), (140, 0, 5));
    assert_eq!((drilled.failed, drilled.target.digest()), (None, revision(1).digest()));
    // It is carried out once, however often the server's list comes.
    let again = crate::build::instruction(run.told, InstructionKind::Drill, decided);
    run.obey(&promotion_id(2), &again);
    assert!(run.deployment.drill.is_none());
    let names: Vec<String> =
        run.events(&promotion_id(2)).into_iter().filter(|e| e.starts_with("drill")).collect();
    assert_eq!(names, ["drill_started", "drill_applied", "drill_turned", "drill_ended"]);
    // Another release has another way back, which nobody has rehearsed.
    run.offer(true, OnInconclusive::Hold).unwrap();
    (0..6).for_each(|_| run.after(HOLD, |seen| seen.judgement = not_worse()));
    assert_eq!(run.deployment.drilled, None);
}

#[test]
fn whatever_goes_wrong_there_users_go_home_and_the_drill_has_failed() {
    let failed = |run: &Run, part: &str| {
        let why = ended(run).failed.clone().unwrap();
        assert!(why.contains(part), "{why}");
    };
    for (target, part) in [(broken(), "does not stay up"), (Readiness::Pending, "not ready any more")] {
        let mut run = begin();
        run.after(2, |seen| seen.target = target);
        failed(&run, part);
    }

    for arrived in [false, true] {
        let mut run = begin();
        run.after(2, |seen| seen.applied = arrived);
        run.after(2, |seen| (seen.applied, seen.target_requests, seen.target_errors) = (false, 4, 3));
        run.after(1, |_| {});
        failed(&run, "3 of 4 requests badly");
    }

    let mut run = begin();
    run.after(2, |_| {});
    run.after(DRILL_STAY_MS, |seen| (seen.target_requests, seen.target_errors) = (900, 1));
    failed(&run, "1 of 900");

    // It hangs: those who asked are still waiting when it would be time to go.
    let mut run = begin();
    run.after(2, |_| {});
    run.after(DRILL_STAY_MS, |seen| seen.target_busy = true);
    assert!(is_on(&run, 1), "their time is not over");
    run.after(DRILL_MS / 2, |seen| seen.target_busy = true);
    failed(&run, "none was answered");

    for (delay, applied) in [(DRILL_MS + 1, true), (-1, true), (DRILL_MS + 1, false)] {
        let mut run = begin();
        run.after(delay, |seen| seen.applied = applied);
        run.after(1, |_| {});
        failed(&run, "not all traffic was seen to have moved");
    }
}

#[test]
fn what_serves_breaks_meanwhile_and_then_it_is_no_drill_any_more() {
    let mut run = begin();
    run.broken.insert(revision(2).digest());
    run.after(1, |_| {});
    run.after(1_000, |_| {});
    assert!(is_on(&run, 1) && run.deployment.drill.is_none());
    assert!(run.events(&promotion_id(2)).iter().any(|e| e == "rolled_back"));
}

#[test]
fn an_agent_that_was_started_again_goes_home_at_once_and_a_person_may_end_it() {
    let mut run = begin();
    run.kill();
    run.after(1, |seen| seen.began = seen.now);
    assert!(ended(&run).failed.as_ref().unwrap().contains("started again"));
    let mut run = begin();
    run.tell(&promotion_id(2), InstructionKind::Rollback);
    assert!(is_on(&run, 1) && run.deployment.drill.is_none());
    run.after(1_000, |_| {});
    assert_eq!(run.deployment.serving.as_ref().unwrap().promotion, promotion_id(1));
}

#[test]
fn there_is_none_on_probation_in_a_rollout_or_without_a_way_back_that_is_ready() {
    let refused = |run: &Run| run.events(&promotion_id(2)).iter().filter(|e| *e == "drill_refused").count();
    let mut run = confirmed();
    run.offer(true, OnInconclusive::Hold).unwrap();
    run.tell(&promotion_id(2), InstructionKind::Drill);
    assert!(refused(&run) == 1 && run.deployment.drill.is_none(), "a rollout is under way");
    let mut run = confirmed();
    run.broken.insert(revision(1).digest());
    run.tell(&promotion_id(2), InstructionKind::Drill);
    assert!(refused(&run) == 1 && run.deployment.drill.is_none(), "the way back is broken");
    assert!(run.deployment.drill_told.as_ref().unwrap().refused.is_some());
    // A drill under way keeps the next release waiting, which is then taken on.
    let mut run = begin();
    assert_eq!(run.offer(true, OnInconclusive::Hold), None);
    run.after(1, |_| {});
    run.after(DRILL_STAY_MS, |_| {});
    assert!(run.offer(true, OnInconclusive::Hold).is_some());
    let mut first = Run::new();
    first.offer(false, OnInconclusive::Hold).unwrap();
    (0..6).for_each(|_| first.after(HOLD, |seen| seen.judgement = not_worse()));
    assert!(first.deployment.can_drill().unwrap_err().contains("probation"));
    first.after(PROBATION, |_| {});
    assert!(first.deployment.can_drill().unwrap_err().contains("nothing to go back to"));
}
