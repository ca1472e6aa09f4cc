use super::*;
use crate::judge::{Evidence, Goals, judge_with};
use lockgate_core::guard::{Judgement, Verdict};
use lockgate_core::plan::{OnInconclusive, Step};
use lockgate_stats::decision::Peaks;

fn goal(gain: f64) -> GoalSpec {
    GoalSpec {
        metric: "outcome".to_owned(),
        direction: Direction::Up,
        gain,
        rollback_by: 0.0,
        least: 0.0,
        most: 1.0,
        within_ms: Some(1_000),
        missing: None,
    }
}

fn plan(goal: GoalSpec) -> RolloutPlan {
    RolloutPlan {
        steps: vec![Step::ab(5_000, 0), Step::live(WHOLE, 0)],
        guards: [(GuardName::new("conversion").unwrap(), GuardSpec::Goal(goal))].into(),
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
        testers: lockgate_core::plan::Testers::Nobody,
        observe: false,
    }
}

fn draw(unit: u64, candidate: bool) -> Draw {
    Draw { weight: 5_000, candidate, answered: true, unit, at: 0 }
}

/// Units in turn on both sides: each side's outcome is 1 for so many of a hundred.
fn book(plan: &RolloutPlan, units: u64, (candidate, baseline): (u64, u64)) -> GoalBook {
    let mut book = GoalBook::new(plan);
    for n in 0..units {
        for (unit, is_candidate, good) in [(2 * n, true, candidate), (2 * n + 1, false, baseline)] {
            let one = draw(unit, is_candidate);
            book.drawn(&one);
            // Spread, so that no order is seen in it.
            let outcome = if n * 37 % 100 < good { 1.0 } else { 0.0 };
            assert_eq!(book.outcome(&one, "outcome", Some(outcome), 10), Some(Ok(())));
        }
    }
    book
}

fn judged(plan: &RolloutPlan, book: &GoalBook, needed: bool) -> Judgement {
    let goals = Goals { needed, numbers: book.numbers(plan), mismatches: book.mismatches() };
    let evidence = Evidence { compared: true, ..Evidence::default() };
    judge_with(plan, &evidence, &goals, &mut Peaks::default())
}

#[test]
fn better_promotes_worse_rolls_back_and_neither_is_unknown() {
    let plan = plan(goal(0.0));
    let better = judged(&plan, &book(&plan, 1_000, (30, 20)), true);
    assert!(better.all_not_worse() && better.worst().is_none(), "{better:#?}");
    let worse = judged(&plan, &book(&plan, 1_000, (20, 30)), true);
    assert!(worse.worst().is_some() && !worse.all_not_worse(), "{worse:#?}");
    let equal = judged(&plan, &book(&plan, 1_000, (25, 25)), true);
    assert!(equal.worst().is_none() && !equal.all_not_worse());
    assert_eq!(equal.unknown(), [GuardName::new("conversion").unwrap()]);
    let nothing = judged(&plan, &GoalBook::new(&plan), true);
    assert!(nothing.worst().is_none() && !nothing.all_not_worse());
}

#[test]
fn without_the_step_that_waits_for_them_outcomes_only_roll_back() {
    let plan = plan(goal(0.0));
    let better = judged(&plan, &book(&plan, 1_000, (30, 20)), false);
    assert!(
        !better.all_not_worse() && better.unknown().is_empty(),
        "nothing is required, so nothing is proven"
    );
    assert!(judged(&plan, &book(&plan, 1_000, (20, 30)), false).worst().is_some());
}

#[test]
fn a_loss_that_is_excluded_suffices_where_that_is_asked() {
    let plan = plan(goal(-0.1));
    assert!(judged(&plan, &book(&plan, 1_000, (25, 25)), true).all_not_worse());
    assert!(!judged(&plan, &book(&plan, 1_000, (15, 25)), true).all_not_worse());
}

#[test]
fn each_unit_counts_once_in_time_and_where_its_own_side_answered() {
    let plan = plan(goal(0.0));
    let mut book = GoalBook::new(&plan);
    let one = draw(7, true);
    book.drawn(&one);
    let mut say = |draw: &Draw, name, number, at| book.outcome(draw, name, number, at);
    assert_eq!(say(&one, "clicks", Some(1.0), 10), None, "no goal asks for it");
    assert_eq!(say(&one, "outcome", None, 10), Some(Err(NotCounted::NoNumber)));
    assert_eq!(say(&one, "outcome", Some(1.0), 1_001), Some(Err(NotCounted::Late)));
    assert_eq!(say(&one, "outcome", Some(1.0), 1_000), Some(Ok(())));
    let again = Draw { candidate: false, ..one };
    assert_eq!(say(&again, "outcome", Some(1.0), 10), Some(Err(NotCounted::UnitCounted)));
    let unanswered = Draw { unit: 8, answered: false, ..one };
    assert_eq!(say(&unanswered, "outcome", Some(1.0), 10), Some(Err(NotCounted::NotAnswered)));
    for weight in [0, WHOLE] {
        let alone = Draw { unit: 8, weight, ..one };
        assert_eq!(say(&alone, "outcome", Some(1.0), 10), Some(Err(NotCounted::NotCompared)));
    }
    let numbers = &book.numbers(&plan)[&GuardName::new("conversion").unwrap()];
    assert_eq!(numbers.reading.labelled, Sides { candidate: 1, baseline: 0 });
    assert!(numbers.words.contains("1 came too late"), "{}", numbers.words);
}

#[test]
fn outcomes_of_one_side_alone_are_no_comparison_and_hold() {
    let plan = plan(goal(0.0));
    let mut book = GoalBook::new(&plan);
    for unit in 0..2_000 {
        let one = draw(unit, unit % 2 == 0);
        book.drawn(&one);
        // Only what the candidate let through has an outcome, and a bad one.
        if one.candidate {
            book.outcome(&one, "outcome", Some(0.0), 10);
        } else if unit % 10 == 1 {
            book.outcome(&one, "outcome", Some(1.0), 10);
        }
    }
    let found = judged(&plan, &book, true);
    assert!(found.sample_ratio_mismatch && found.worst().is_none() && !found.all_not_worse(), "{found:#?}");
    let reading = &found.readings[0];
    assert_eq!((reading.verdict, reading.log_e_worse), (Verdict::Unknown, 0.0));
    assert!(reading.summary.contains("void: outcomes come more often for one side"), "{}", reading.summary);
}

#[test]
fn few_outcomes_are_said_to_be_few() {
    let plan = plan(goal(0.0));
    let mut book = GoalBook::new(&plan);
    for unit in 0..400 {
        let one = draw(unit, unit % 2 == 0);
        book.drawn(&one);
        if unit % 20 < 2 {
            book.outcome(&one, "outcome", Some(1.0), 10);
        }
    }
    let words = &judged(&plan, &book, true).readings[0].summary;
    assert!(words.contains("only 10% have an outcome"), "{words}");
}

#[test]
fn a_decision_is_made_again_bit_for_bit_from_what_was_written_down() {
    let plan = plan(goal(0.01));
    let judgement = judged(&plan, &book(&plan, 777, (31, 22)), true);
    let event = lockgate_core::event::RolloutEvent::Held {
        reason: "for the test".to_owned(),
        needs_person: false,
        judgement,
    };
    let text = serde_json::to_string(&event).unwrap();
    let lockgate_core::event::RolloutEvent::Held { judgement, .. } = serde_json::from_str(&text).unwrap()
    else {
        panic!("another event: {text}");
    };
    let reading = &judgement.readings[0];
    let (worse, better) = evidence(reading.goal.as_ref().unwrap());
    assert_eq!(worse.to_bits(), reading.log_e_worse.to_bits());
    assert_eq!(better.to_bits(), reading.log_e_not_worse.to_bits());
    assert!(better > 0.0 && worse < 0.0);
}

#[test]
fn less_is_better_where_that_is_said_and_ranges_are_shares() {
    let down = GoalSpec { direction: Direction::Down, most: 60.0, ..goal(0.0) };
    let plan = plan(down);
    let mut book = GoalBook::new(&plan);
    for unit in 0..2_000_u64 {
        let one = draw(unit, unit % 2 == 0);
        book.drawn(&one);
        let minutes = if one.candidate { 12.0 } else { 24.0 } + (unit % 7) as f64;
        book.outcome(&one, "outcome", Some(minutes), 10);
    }
    let found = judged(&plan, &book, true);
    assert!(found.all_not_worse(), "{found:#?}");
    let words = &found.readings[0].summary;
    assert!(words.contains("mean 14.99") && words.contains("mean 26.99"), "{words}");
    assert!(words.contains("difference +20.0 points"), "{words}");
}

#[test]
fn where_what_is_missing_is_an_outcome_each_unit_counts_when_its_time_is_over() {
    let plan = plan(GoalSpec { missing: Some(0.0), ..goal(0.0) });
    let name = GuardName::new("conversion").unwrap();
    let mut book = GoalBook::new(&plan);
    for unit in 0..2_000_u64 {
        let one = Draw { at: i64::try_from(unit).unwrap() / 100, ..draw(unit, unit % 2 == 0) };
        book.drawn(&one);
        // Only clicks are told: three times as many of the candidate's.
        let clicks = if one.candidate { unit % 10 < 6 } else { unit % 10 == 1 };
        if clicks {
            assert_eq!(book.outcome(&one, "outcome", Some(1.0), one.at + 5), Some(Ok(())));
            assert_eq!(
                book.outcome(&one, "outcome", Some(1.0), one.at + 6),
                Some(Err(NotCounted::UnitCounted))
            );
        }
    }
    assert!(!book.mature(1_000), "no unit's time is over");
    assert_eq!(book.numbers(&plan)[&name].reading.labelled, Sides::default());
    assert!(book.mature(1_001));
    assert_eq!(book.numbers(&plan)[&name].reading.labelled, Sides { candidate: 50, baseline: 50 });
    book.mature(5_000);
    let late = Draw { at: 0, ..draw(0, true) };
    assert_eq!(book.outcome(&late, "outcome", Some(1.0), 5_000), Some(Err(NotCounted::UnitCounted)));
    let found = judged(&plan, &book, true);
    assert!(found.all_not_worse() && !found.sample_ratio_mismatch, "{found:#?}");
    let means = found.readings[0].goal.as_ref().unwrap().means.unwrap();
    assert!((means.0 - 0.6).abs() < 1e-9 && (means.1 - 0.2).abs() < 1e-9, "{means:?}");
}
