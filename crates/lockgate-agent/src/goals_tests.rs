use super::*;
use crate::judge::{Evidence, Goals, judge_with};
use crate::testing;
use lockgate_core::goal::{Direction, GoalSpec, Sides};
use lockgate_core::guard::{Judgement, Verdict};
use lockgate_stats::decision::Peaks;

fn goal(gain: f64) -> GoalSpec {
    GoalSpec { gain, within_ms: Some(1_000), ..testing::goal() }
}

fn plan(goal: GoalSpec) -> RolloutPlan {
    testing::ab(goal)
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
fn each_unit_counts_once_in_time_and_for_its_own_side() {
    let plan = plan(goal(0.0));
    let mut book = GoalBook::new(&plan);
    let one = draw(7, true);
    book.drawn(&one);
    // Nobody answered it, and still its outcome is its side's.
    let unanswered = Draw { unit: 8, answered: false, ..one };
    book.drawn(&unanswered);
    let mut say = |draw: &Draw, name, number, at| book.outcome(draw, name, number, at);
    assert_eq!(say(&one, "clicks", Some(1.0), 10), None, "no goal asks for it");
    assert_eq!(say(&one, "outcome", None, 10), Some(Err(NotCounted::NoNumber)));
    assert_eq!(say(&one, "outcome", Some(1.0), 1_001), Some(Err(NotCounted::Late)));
    assert_eq!(say(&one, "outcome", Some(1.0), 1_000), Some(Ok(())));
    let again = Draw { candidate: false, ..one };
    assert_eq!(say(&again, "outcome", Some(1.0), 10), Some(Err(NotCounted::UnitCounted)));
    assert_eq!(say(&unanswered, "outcome", Some(1.0), 10), Some(Ok(())));
    for weight in [0, WHOLE] {
        let alone = Draw { unit: 8, weight, ..one };
        assert_eq!(say(&alone, "outcome", Some(1.0), 10), Some(Err(NotCounted::NotCompared)));
    }
    let numbers = &book.numbers(&plan)[&GuardName::new("conversion").unwrap()];
    assert_eq!(numbers.reading.labelled, Sides { candidate: 2, baseline: 0 });
    assert_eq!(numbers.reading.failed, Sides::default());
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
    assert!(!book.advance(1_000), "no unit's time is over");
    assert_eq!(book.numbers(&plan)[&name].reading.labelled, Sides::default());
    assert!(book.advance(1_001));
    assert_eq!(book.numbers(&plan)[&name].reading.labelled, Sides { candidate: 50, baseline: 50 });
    book.advance(5_000);
    let late = Draw { at: 0, ..draw(0, true) };
    assert_eq!(book.outcome(&late, "outcome", Some(1.0), 5_000), Some(Err(NotCounted::Late)));
    // In its own time, but its unit's is over: that began with the unit's first prediction.
    let again = Draw { at: 4_500, ..late };
    book.drawn(&again);
    assert_eq!(book.outcome(&again, "outcome", Some(1.0), 5_000), Some(Err(NotCounted::UnitOver)));
    let found = judged(&plan, &book, true);
    assert!(found.all_not_worse() && !found.sample_ratio_mismatch, "{found:#?}");
    let means = found.readings[0].goal.as_ref().unwrap().means.unwrap();
    assert!((means.0 - 0.6).abs() < 1e-9 && (means.1 - 0.2).abs() < 1e-9, "{means:?}");
}

/// What a goal says of a book.
fn reading(plan: &RolloutPlan, book: &GoalBook) -> lockgate_core::goal::GoalReading {
    book.numbers(plan)[&GuardName::new("conversion").unwrap()].reading.clone()
}

#[test]
fn a_side_that_fails_its_bad_cases_does_not_look_good() {
    let plan = plan(goal(0.0));
    let mut book = GoalBook::new(&plan);
    // Three in ten cases are bad ones, for whoever has them. The candidate fails exactly these, and nobody tells an outcome of
    // what was not answered.
    let draws: Vec<(Draw, bool)> = (0..4_000)
        .map(|unit| {
            let (one, is_bad) = (draw(unit, unit % 2 == 0), unit / 2 * 37 % 100 < 30);
            (Draw { answered: !(one.candidate && is_bad), ..one }, is_bad)
        })
        .collect();
    draws.iter().for_each(|(one, _)| book.drawn(one));
    assert_eq!(reading(&plan, &book).labelled.sum(), 0, "failures come as late as outcomes do");
    for (one, is_bad) in draws.iter().filter(|(one, _)| one.answered) {
        assert_eq!(book.outcome(one, "outcome", Some(if *is_bad { 0.0 } else { 1.0 }), 10), Some(Ok(())));
    }
    let found = judged(&plan, &book, true);
    assert!(!found.all_not_worse() && found.worst().is_none(), "{found:#?}");
    assert!(!found.sample_ratio_mismatch, "failures are no outcomes that are missing");
    let goal = reading(&plan, &book);
    // All but those behind which nothing was answered.
    assert!(goal.failed.candidate >= 590 && goal.failed.baseline == 0, "{:?}", goal.failed);
    let (candidate, baseline) = goal.means.unwrap();
    assert!((candidate - baseline).abs() < 0.01, "{candidate} and {baseline}");
    assert!(found.readings[0].summary.contains("got no good answer, which counts as the worst"));
}

#[test]
fn failures_count_as_often_as_outcomes_come() {
    let plan = plan(goal(0.0));
    let mut book = GoalBook::new(&plan);
    // Both sides fail one in five; one in four of the others is told of.
    for unit in 0..8_000 {
        let one = Draw { answered: unit / 2 % 5 != 0, ..draw(unit, unit % 2 == 0) };
        book.drawn(&one);
        if one.answered && unit.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 62 == 0 {
            book.outcome(&one, "outcome", Some(1.0), 10);
        }
    }
    let goal = reading(&plan, &book);
    let (failed, told) = (goal.failed.sum() as f64, (goal.labelled.sum() - goal.failed.sum()) as f64);
    assert!((failed / told - 0.25).abs() < 0.03, "{failed} and {told}");
    assert_eq!(goal.void, None);
}

#[test]
fn a_unit_that_was_answered_in_the_end_is_no_failure() {
    let plan = plan(goal(0.0));
    let mut book = GoalBook::new(&plan);
    let failed = |unit| Draw { answered: false, ..draw(unit, true) };
    book.drawn(&failed(1));
    book.drawn(&failed(2));
    let behind = draw(3, false);
    book.drawn(&behind);
    // The first one's client tries again.
    let again = Draw { at: 5, ..draw(1, true) };
    assert_eq!(book.needs(&again), Needed::Always);
    book.drawn(&again);
    assert_eq!(book.needs(&again), Needed::Within);
    assert_eq!(book.outcome(&behind, "outcome", Some(1.0), 10), Some(Ok(())));
    assert_eq!(reading(&plan, &book).failed, Sides { candidate: 1, baseline: 0 });
    assert_eq!(book.outcome(&again, "outcome", Some(1.0), 10), Some(Ok(())));
    assert_eq!(book.outcome(&failed(2), "outcome", Some(1.0), 10), Some(Err(NotCounted::UnitCounted)));
}

#[test]
fn a_failure_is_the_worst_also_where_nothing_said_is_good() {
    // Fewer complaints are better, and no complaint is none.
    let plan = plan(GoalSpec { direction: Direction::Down, missing: Some(0.0), ..goal(0.0) });
    let mut book = GoalBook::new(&plan);
    book.drawn(&draw(1, true));
    book.drawn(&Draw { answered: false, ..draw(2, false) });
    assert!(book.advance(1_001));
    let goal = reading(&plan, &book);
    assert_eq!((goal.means, goal.failed), (Some((1.0, 0.0)), Sides { candidate: 0, baseline: 1 }));
}

#[test]
fn outcomes_of_what_a_unit_met_after_the_share_moved_it_are_not_its_first_sides() {
    let plan = plan(GoalSpec { missing: Some(0.0), ..goal(0.0) });
    let mut book = GoalBook::new(&plan);
    let before = Draw { weight: 1_000, ..draw(1, false) };
    let moved = Draw { at: 100, ..draw(1, true) };
    let (stayed, stays) = (Draw { unit: 2, ..before }, Draw { unit: 2, candidate: false, ..moved });
    [before, stayed, moved, stays].iter().for_each(|one| book.drawn(one));
    // Neither of who moved nor of who stayed: all that was said of predictions at the first share counts, and nothing else.
    for later in [moved, stays] {
        assert_eq!(book.outcome(&later, "outcome", Some(1.0), 200), Some(Err(NotCounted::Moved)));
    }
    assert_eq!(book.outcome(&stayed, "outcome", Some(1.0), 200), Some(Ok(())));
    book.advance(1_001);
    let goal = reading(&plan, &book);
    assert_eq!(goal.labelled, Sides { candidate: 0, baseline: 2 });
    let counts: Vec<(u32, Vec<(u32, u64)>)> =
        goal.counts.iter().map(|c| (c.weight, c.baseline.clone())).collect();
    assert_eq!(counts, [(1_000, vec![(0, 1), (1_000, 1)])]);
}

#[test]
fn what_was_void_once_stays_void_and_a_misfit_here_does_not_make_good_for_one_there() {
    let plan = plan(goal(0.0));
    let mut book = GoalBook::new(&plan);
    let draws: Vec<Draw> = (0..600).map(|unit| draw(unit, unit % 2 == 0)).collect();
    draws.iter().for_each(|one| book.drawn(one));
    let tell = |book: &mut GoalBook, candidate: bool| {
        for one in draws.iter().filter(|one| one.candidate == candidate) {
            assert_eq!(book.outcome(one, "outcome", Some(1.0), 10), Some(Ok(())));
        }
    };
    tell(&mut book, true);
    assert!(reading(&plan, &book).void.is_some());
    tell(&mut book, false);
    assert!(
        reading(&plan, &book).void.is_some(),
        "as many of both in the end, but it was no sample on the way"
    );
    assert!(judged(&plan, &book, true).sample_ratio_mismatch);

    let mut book = GoalBook::new(&plan);
    for (weight, of_ten, part) in [(1_000, 1, [10, 5]), (5_000, 5, [5, 10])] {
        for n in 0..6_000_u64 {
            let one = Draw { weight, ..draw(n + u64::from(weight) * 10_000, n % 10 < of_ten) };
            book.drawn(&one);
            // At the first share the candidate's outcomes come twice as often, at the second half as often.
            if n / 10 % 10 < if one.candidate { part[0] } else { part[1] } {
                book.outcome(&one, "outcome", Some(1.0), 10);
            }
        }
    }
    let goal = reading(&plan, &book);
    assert!(goal.void.is_some(), "{goal:?}");
}

mod again {
    //! A book that is made again from what was kept is the same, whatever happened in between.

    use super::*;
    use proptest::prelude::*;

    const WITHIN: i64 = 50;

    #[derive(Debug, Clone)]
    enum Step {
        /// Time goes on.
        Tick(i64),
        /// A prediction of a unit ends, which began so long ago.
        Draw { unit: u64, ago: i64, answered: bool },
        /// Something is said of one of the predictions so far.
        Say { of: usize, good: bool },
        /// The share grows.
        Grow,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0..30_i64).prop_map(Step::Tick),
            6 => (0..12_u64, 0..70_i64, any::<bool>()).prop_map(|(unit, ago, answered)| Step::Draw { unit, ago, answered }),
            4 => (any::<usize>(), any::<bool>()).prop_map(|(of, good)| Step::Say { of, good }),
            1 => Just(Step::Grow),
        ]
    }

    /// What was written down.
    enum Kept {
        Drawn { draw: Draw, noted: i64, needed: Needed },
        Said { draw: Draw, value: f64, at: i64 },
    }

    proptest! {
        #[test]
        fn what_is_made_again_is_the_same(missing in prop::option::of(0..2_u8), steps in prop::collection::vec(step(), 0..120)) {
            let spec = GoalSpec { missing: missing.map(f64::from), within_ms: Some(WITHIN), ..goal(0.0) };
            let plan = plan(spec);
            let (mut live, mut kept) = (GoalBook::new(&plan), Vec::new());
            let (mut now, mut weight) = (1_000_i64, 1_000_u32);
            let mut draws: Vec<Draw> = Vec::new();
            for step in steps {
                // As the keeper does: the time first, then what happened.
                live.advance(now);
                match step {
                    Step::Tick(by) => now += by,
                    Step::Grow => weight = (weight * 2).min(8_000),
                    Step::Draw { unit, ago, answered } => {
                        let draw = Draw { weight, candidate: unit * 800 < u64::from(weight), answered, unit, at: now - ago };
                        let needed = live.needs(&draw);
                        live.drawn(&draw);
                        draws.push(draw);
                        kept.push(Kept::Drawn { draw, noted: now, needed });
                    }
                    Step::Say { of, good } => {
                        let Some(draw) = (!draws.is_empty()).then(|| draws[of % draws.len()]) else { continue };
                        let value = if good { 1.0 } else { 0.0 };
                        live.outcome(&draw, "outcome", Some(value), now);
                        kept.push(Kept::Said { draw, value, at: now });
                    }
                }
            }
            live.advance(now);
            let said: Vec<Draw> = kept.iter().filter_map(|k| match k { Kept::Said { draw, .. } => Some(*draw), Kept::Drawn { .. } => None }).collect();
            let mut again = GoalBook::new(&plan);
            for one in &kept {
                match one {
                    // What was forgotten, as its time is over and nothing was said of it.
                    Kept::Drawn { draw, needed: Needed::Within, .. } if draw.at < now - WITHIN && !said.contains(draw) => {}
                    Kept::Drawn { needed: Needed::Never, .. } => {}
                    Kept::Drawn { draw, noted, .. } => {
                        again.advance(*noted);
                        again.drawn(draw);
                    }
                    Kept::Said { draw, value, at } => {
                        again.advance(*at);
                        again.outcome(draw, "outcome", Some(*value), *at);
                    }
                }
            }
            again.advance(now);
            prop_assert_eq!(live.numbers(&plan), again.numbers(&plan));
            let bits = |book: &GoalBook| book.mismatches().iter().map(|e| e.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(&live), bits(&again));
        }
    }
}
