//! Fixture 14, and what never promotes.

use crate::{assert_close, fixture};
use lockgate_stats::StatsError;
use lockgate_stats::decision::{
    Budget, GuardEvidence, HoldReason, Look, Overall, Peaks, Role, Verdict, decide,
};
use lockgate_stats::rate::{self, Bound};
use lockgate_stats::thinning::{self, Segment, Side};
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Deserialize)]
struct Fixture {
    metrics: BTreeMap<String, Metric>,
    alpha_rollback: f64,
    alpha_promote: f64,
    steps: Vec<Step>,
    bad_example: BadExample,
}

#[derive(Deserialize)]
struct Metric {
    rho_rollback: f64,
    rho_promote: f64,
    weight: f64,
}

#[derive(Deserialize)]
struct Step {
    weight: f64,
    new_counts: BTreeMap<String, (u64, u64)>,
    log_e_bad: BTreeMap<String, f64>,
    log_e_ok: BTreeMap<String, f64>,
    combined_e_bad: f64,
    verdict: String,
    verdict_if_oom_restarts_is_rollback_only: String,
}

#[derive(Deserialize)]
struct BadExample {
    segments: Vec<(f64, u64, u64)>,
    rho0: f64,
    log_e_bad: f64,
}

fn named(overall: Overall) -> &'static str {
    match overall {
        Overall::Rollback => "rollback",
        Overall::Hold(_) => "hold",
        Overall::Promote => "promote",
        Overall::Continue => "continue",
    }
}

fn look(guards: &[GuardEvidence]) -> Look<'_> {
    Look { guards, log_e_sample_ratio: 0.0, min_bake_over: true, peaks: Peaks::default() }
}

fn guard(log_e_worse: f64, log_e_not_worse: f64) -> GuardEvidence {
    GuardEvidence { weight: 1.0, role: Role::Required, log_e_worse, log_e_not_worse, log_e_below_floor: None }
}

fn overall(look: &Look<'_>) -> Overall {
    decide(look, &Budget::default()).unwrap().overall
}

#[test]
fn rollout_matches_the_reference_step_by_step() {
    let reference: Fixture = fixture("14_decision");
    let budget = Budget {
        alpha_rollback: reference.alpha_rollback,
        alpha_promote: reference.alpha_promote,
        ..Budget::default()
    };
    let mut segments: BTreeMap<&str, Vec<Segment>> = BTreeMap::new();
    let mut peaks = [Peaks::default(); 2];
    assert_eq!(reference.steps.len(), 4);
    for (number, step) in reference.steps.iter().enumerate() {
        let mut guards = Vec::new();
        for (name, metric) in &reference.metrics {
            let (candidate_events, baseline_events) = step.new_counts[name];
            let counted = segments.entry(name).or_default();
            counted.push(Segment { weight: step.weight, candidate_events, baseline_events });
            let log_e_worse = thinning::log_e(counted, metric.rho_rollback, Side::Worse);
            let log_e_not_worse = thinning::log_e(counted, metric.rho_promote, Side::NotWorse);
            assert_close(log_e_worse, step.log_e_bad[name], &format!("step {number}, {name}: worse"));
            assert_close(log_e_not_worse, step.log_e_ok[name], &format!("step {number}, {name}: not worse"));
            guards
                .push((name, GuardEvidence { weight: metric.weight, ..guard(log_e_worse, log_e_not_worse) }));
        }
        let verdicts = [&step.verdict, &step.verdict_if_oom_restarts_is_rollback_only];
        for (sparse_role, (peaks, expected)) in
            [Role::Required, Role::RollbackOnly].into_iter().zip(peaks.iter_mut().zip(verdicts))
        {
            let guards: Vec<GuardEvidence> = guards
                .iter()
                .map(|(name, guard)| match name.as_str() {
                    "oom_restarts" => GuardEvidence { role: sparse_role, ..*guard },
                    _ => *guard,
                })
                .collect();
            let decision = decide(&Look { peaks: *peaks, ..look(&guards) }, &budget).unwrap();
            assert_close(decision.log_e_worse.exp(), step.combined_e_bad, &format!("step {number}: merged"));
            assert_eq!(named(decision.overall), expected, "step {number}, sparse guard {sparse_role:?}");
            *peaks = decision.peaks;
        }
    }
}

#[test]
fn evidence_against_a_bad_candidate_matches_the_reference() {
    let BadExample { segments, rho0, log_e_bad } = fixture::<Fixture>("14_decision").bad_example;
    let segments: Vec<Segment> = segments
        .into_iter()
        .map(|(weight, candidate_events, baseline_events)| Segment {
            weight,
            candidate_events,
            baseline_events,
        })
        .collect();
    assert_close(thinning::log_e(&segments, rho0, Side::Worse), log_e_bad, "bad example");
}

#[test]
fn only_proof_promotes() {
    let proven = guard(-3.0, 3.0);
    assert_eq!(overall(&look(&[proven])), Overall::Promote);
    assert_eq!(overall(&look(&[])), Overall::Continue, "no guard");
    assert_eq!(overall(&Look { min_bake_over: false, ..look(&[proven]) }), Overall::Continue, "too early");
    let rollback_only = GuardEvidence { role: Role::RollbackOnly, ..proven };
    assert_eq!(overall(&look(&[rollback_only])), Overall::Continue, "no required guard");
    assert_eq!(overall(&look(&[proven, guard(-3.0, 2.9)])), Overall::Continue, "one is short");
    assert_eq!(overall(&look(&[proven, guard(0.0, 0.0)])), Overall::Continue, "one has no events");
}

#[test]
fn what_is_not_a_number_never_promotes_and_never_hides_harm() {
    let proven = guard(-3.0, 3.0);
    for unreadable in [
        guard(f64::NAN, 3.0),
        guard(f64::INFINITY, 3.0),
        guard(-3.0, f64::NAN),
        guard(-3.0, f64::INFINITY),
        GuardEvidence { log_e_below_floor: Some(f64::NAN), ..proven },
        GuardEvidence { log_e_below_floor: Some(f64::INFINITY), ..proven },
        GuardEvidence { role: Role::RollbackOnly, ..guard(f64::NAN, 3.0) },
    ] {
        let decision = decide(&look(&[proven, unreadable]), &Budget::default()).unwrap();
        assert_eq!(decision.overall, Overall::Continue, "{unreadable:?}");
        assert_eq!(decision.verdicts, [Verdict::NotWorse, Verdict::Unknown], "{unreadable:?}");
        assert!(decision.log_e_worse.is_finite());
        let harm = guard(20.0, -5.0);
        assert_eq!(overall(&look(&[harm, unreadable])), Overall::Rollback, "{unreadable:?}");
    }
    assert_eq!(overall(&Look { log_e_sample_ratio: f64::NAN, ..look(&[proven]) }), Overall::Continue);
    let all_unreadable = decide(&look(&[guard(f64::NAN, f64::NAN)]), &Budget::default()).unwrap();
    assert!(all_unreadable.log_e_worse.is_finite());
}

#[test]
fn harm_goes_before_a_hold_and_both_are_remembered() {
    let (harm, fine) = ([guard(3.1, -3.0)], [guard(-3.0, 9.0)]);
    let alarm = Look { log_e_sample_ratio: 7.0, ..look(&fine) };
    let held = decide(&alarm, &Budget::default()).unwrap();
    assert_eq!(held.overall, Overall::Hold(HoldReason::SampleRatio));
    assert_eq!(overall(&Look { guards: &harm, ..alarm }), Overall::Rollback);
    let later = Look { log_e_sample_ratio: -1.0, peaks: held.peaks, ..look(&fine) };
    assert_eq!(overall(&later), Overall::Hold(HoldReason::SampleRatio), "an alarm stays");

    let rolled_back = decide(&look(&harm), &Budget::default()).unwrap();
    assert_eq!(rolled_back.peaks.log_e_rollback, 3.1);
    let later = Look { peaks: rolled_back.peaks, ..look(&fine) };
    assert_eq!(overall(&later), Overall::Rollback, "harm that was proven stays proven");
}

#[test]
fn one_budget_covers_all_guards() {
    // By itself 3.1 would roll back; among twenty it is no proof, but it isn't promoted either.
    let mut guards = vec![guard(-3.0, 9.0); 19];
    guards.push(GuardEvidence { role: Role::RollbackOnly, ..guard(3.1, 0.0) });
    let decision = decide(&look(&guards), &Budget::default()).unwrap();
    assert_eq!(decision.overall, Overall::Continue);
    assert_eq!(decision.verdicts[19], Verdict::Worse);
}

#[test]
fn a_candidate_without_errors_is_not_worse_by_the_floor() {
    let evidence = |units| GuardEvidence {
        log_e_below_floor: Some(rate::log_e(0, units, 0.005, Bound::Below)),
        ..guard(0.0, 0.0)
    };
    assert_eq!(overall(&look(&[evidence(100)])), Overall::Continue);
    assert_eq!(overall(&look(&[evidence(2_000)])), Overall::Promote);
    let dirty = GuardEvidence {
        log_e_below_floor: Some(rate::log_e(12, 2_000, 0.005, Bound::Below)),
        ..guard(0.0, 0.0)
    };
    assert_eq!(overall(&look(&[dirty])), Overall::Continue);
}

/// "Not worse" is said falsely when the ratio is at least r1 *and* the rate is at least the floor. Both e-values then have a
/// mean of at most 1, and so has what they are merged to. Enumerated for units that come one after the other, each of which
/// is the candidate's by chance, at the border of both (events are thinned exactly only while units have one at most).
#[test]
fn ratio_and_floor_together_keep_the_budget() {
    let (floor, share, worse_ratio) = (0.03, 0.4, 1.5);
    // What one unit can be: candidate's good or bad, baseline's good or bad.
    let outcomes = [
        (share * (1.0 - floor), [1, 0, 0]),
        (share * floor, [1, 1, 0]),
        ((1.0 - share) * (1.0 - floor / worse_ratio), [0, 0, 0]),
        ((1.0 - share) * floor / worse_ratio, [0, 0, 1]),
    ];
    let mut states = BTreeMap::from([([0_u64; 3], 1.0)]);
    for _ in 0..12 {
        let mut next = BTreeMap::new();
        for (state, probability) in &states {
            for (chance, add) in outcomes {
                let [units, candidate, baseline] = [0, 1, 2].map(|i| state[i] + add[i]);
                *next.entry([units, candidate, baseline]).or_insert(0.0) += probability * chance;
            }
        }
        states = next;
    }
    let mean: f64 = states
        .iter()
        .map(|(&[units, candidate_events, baseline_events], probability)| {
            let segment = Segment { weight: share, candidate_events, baseline_events };
            let evidence = GuardEvidence {
                log_e_below_floor: Some(rate::log_e(candidate_events, units, floor, Bound::Below)),
                ..guard(0.0, thinning::log_e(&[segment], worse_ratio, Side::NotWorse))
            };
            probability * evidence.not_worse().unwrap().exp()
        })
        .sum();
    assert_close(mean, 1.0, "mean of the merged e-value at the border");
}

#[test]
fn bad_settings_are_errors() {
    let guards = [guard(-3.0, 9.0)];
    for alpha in [0.0, 1.0, -0.1, f64::NAN, f64::INFINITY] {
        for budget in [
            Budget { alpha_rollback: alpha, ..Budget::default() },
            Budget { alpha_promote: alpha, ..Budget::default() },
            Budget { alpha_sample_ratio: alpha, ..Budget::default() },
        ] {
            assert!(matches!(decide(&look(&guards), &budget), Err(StatsError::Alpha { .. })), "{alpha}");
        }
    }
    for weight in [-1.0, f64::NAN, f64::INFINITY, 0.0] {
        let guards = [GuardEvidence { weight, ..guards[0] }];
        let refused = decide(&look(&guards), &Budget::default());
        assert!(matches!(refused, Err(StatsError::Weight { .. })), "{weight}");
    }
    let peaks = Peaks { log_e_rollback: f64::NAN, log_e_sample_ratio: 0.0 };
    let refused = decide(&Look { peaks, ..look(&guards) }, &Budget::default());
    assert_eq!(refused, Err(StatsError::Peaks));
}
