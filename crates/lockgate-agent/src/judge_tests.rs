use super::*;
use crate::testing;
use lockgate_core::plan::Step;

fn plan() -> RolloutPlan {
    let latency = GuardSpec::Latency {
        p99_ms: Some(50.0),
        worse_by: 0.2,
        rollback_by: 0.05,
        floor_ms: 1.0,
        warmup_ms: None,
    };
    testing::plan(
        vec![Step::live(2500, 0), Step::live(10_000, 0)],
        [
            ("errors", GuardSpec::Rate { worse_by: 0.5, rollback_by: 0.2, floor: 0.005 }),
            ("latency", latency),
            ("constant", GuardSpec::Constant { rollback_by: 2.0 }),
        ],
    )
}

fn seen(candidate: Counts, baseline: Counts) -> Evidence {
    Evidence {
        weights: vec![Weighed { weight: 0.25, candidate, baseline }],
        saturated: false,
        compared: true,
        thresholds: true,
        shadow: None,
    }
}

fn healthy(units: u64) -> Counts {
    Counts {
        drawn: units,
        units,
        slow_rollback: [units / 2, units / 10, units / 100],
        slow_promote: [units / 3, units / 20, 0],
        ..Counts::default()
    }
}

#[test]
fn nothing_seen_is_unknown() {
    for evidence in [Evidence::default(), seen(Counts::default(), Counts::default())] {
        let j = judge(&plan(), &evidence, &mut Peaks::default());
        assert!(j.worst().is_none());
        assert!(!j.all_not_worse());
        assert!(j.readings.iter().all(|r| r.verdict == Verdict::Unknown), "{:?}", j.readings);
    }
}

#[test]
fn answers_that_nobody_could_look_at_are_no_harm_and_no_proof() {
    let usual = Counts { slow_promote: [4500, 900, 90], ..healthy(9000) };
    let errors = |candidate: Counts, baseline: Counts| {
        let j = judge(&plan(), &seen(candidate, baseline), &mut Peaks::default());
        let found = j.readings.iter().find(|r| r.guard.as_str() == "errors").unwrap();
        (found.verdict, found.summary.clone())
    };
    let dark = Counts { unexamined: 3000, ..healthy(3000) };
    let (verdict, summary) = errors(dark, Counts { unexamined: 9000, ..usual });
    assert_eq!(verdict, Verdict::Unknown, "{summary}");
    assert!(summary.contains("could not be looked at: 3000, baseline 9000"), "{summary}");
    // A few of them keep nobody back.
    assert_eq!(errors(Counts { unexamined: 3, ..healthy(3000) }, usual).0, Verdict::NotWorse);
    assert_eq!(errors(healthy(3000), Counts { unexamined: 9000, ..usual }).0, Verdict::NotWorse);
}

#[test]
fn a_healthy_candidate_is_proven_not_worse() {
    let j = judge(
        &plan(),
        &seen(healthy(3000), Counts { slow_promote: [4500, 900, 90], ..healthy(9000) }),
        &mut Peaks::default(),
    );
    assert!(j.all_not_worse(), "{:#?}", j.readings);
    assert!(j.worst().is_none());
}

#[test]
fn bad_answers_roll_back_and_say_so() {
    let mut candidate = healthy(300);
    candidate.errors = 30;
    let j = judge(&plan(), &seen(candidate, healthy(900)), &mut Peaks::default());
    assert_eq!(j.worst().unwrap().guard.as_str(), "errors");
    assert!(!j.all_not_worse());
}

#[test]
fn a_slow_candidate_rolls_back() {
    let mut candidate = healthy(300);
    candidate.slow_rollback = [290, 250, 200];
    let j = judge(&plan(), &seen(candidate, healthy(900)), &mut Peaks::default());
    assert_eq!(j.worst().unwrap().guard.as_str(), "latency");
}

#[test]
fn answers_that_are_always_the_same_roll_back() {
    let mut candidate = healthy(300);
    candidate.repeats = 299;
    let mut baseline = healthy(900);
    baseline.repeats = 9;
    let j = judge(&plan(), &seen(candidate, baseline), &mut Peaks::default());
    assert_eq!(j.worst().unwrap().guard.as_str(), "constant");
}

#[test]
fn unequal_shares_make_the_comparison_void() {
    let j = judge(
        &plan(),
        &seen(healthy(9000), Counts { slow_promote: [4500, 900, 90], ..healthy(9000) }),
        &mut Peaks::default(),
    );
    assert!(j.sample_ratio_mismatch);
    assert!(!j.all_not_worse());
}

#[test]
fn a_saturated_count_proves_nothing_new() {
    let mut evidence = seen(healthy(3000), Counts { slow_promote: [4500, 900, 90], ..healthy(9000) });
    evidence.saturated = true;
    assert!(!judge(&plan(), &evidence, &mut Peaks::default()).all_not_worse());
}

#[test]
fn a_peak_is_remembered() {
    let mut candidate = healthy(300);
    candidate.errors = 30;
    let mut peaks = Peaks::default();
    let _ = judge(&plan(), &seen(candidate, healthy(900)), &mut peaks);
    let later = judge(&plan(), &seen(healthy(3000), healthy(9000)), &mut peaks);
    assert!(later.log_e_rollback >= later.needed_rollback, "evidence that once sufficed is not forgotten");
}

#[test]
fn a_candidate_that_refuses_everything_quickly_is_worse() {
    let refused = Counts { refused: 400, first_bad: 400, ..healthy(400) };
    let refused = Counts { slow_rollback: [0; QUANTILES], slow_promote: [0; QUANTILES], ..refused };
    let j = judge(&plan(), &seen(refused, healthy(1200)), &mut Peaks::default());
    assert!(j.worst().is_some(), "{:#?}", j.readings);
    assert!(!j.all_not_worse());
}

#[test]
fn refusals_that_both_sides_give_are_no_harm() {
    let usual = |units: u64| Counts { refused: units / 10, ..healthy(units) };
    let j = judge(&plan(), &seen(usual(4000), usual(12_000)), &mut Peaks::default());
    assert!(j.worst().is_none());
    let errors = j.readings.iter().find(|r| r.guard.as_str() == "errors").unwrap();
    assert_eq!(errors.verdict, Verdict::NotWorse, "{errors:#?}");
}

#[test]
fn with_all_the_traffic_it_is_judged_by_what_the_baseline_did_before() {
    let at_whole = |candidate: Counts| {
        let mut evidence = seen(healthy(2000), healthy(6000));
        evidence.weights.push(Weighed { weight: 1.0, candidate, baseline: Counts::default() });
        judge(&plan(), &evidence, &mut Peaks::default())
    };
    assert!(at_whole(healthy(3000)).worst().is_none());
    let broken = Counts { errors: 300, first_bad: 300, ..healthy(1000) };
    let j = at_whole(broken);
    assert_eq!(j.worst().map(|r| r.guard.as_str()), Some("errors"), "{:#?}", j.readings);
}

/// S4: the share grows while errors rise for both alike. Judged by the whole rollout's mean, the candidate would go back as soon
/// as it has everything.
#[test]
fn with_all_the_traffic_errors_that_rose_for_both_are_not_the_candidates() {
    let bad = |errors: u64, units: u64| Counts { errors, first_bad: errors, ..healthy(units) };
    let weighed = |weight, candidate, baseline| Weighed { weight, candidate, baseline };
    let at_whole = |candidate: Counts| {
        let weights = vec![
            weighed(0.05, bad(10, 5_000), bad(190, 95_000)),
            weighed(0.5, bad(540, 20_000), bad(540, 20_000)),
            weighed(1.0, candidate, Counts::default()),
        ];
        judge(&plan(), &Evidence { weights, ..seen(bad(0, 0), bad(0, 0)) }, &mut Peaks::default())
    };
    assert!(at_whole(bad(330, 10_000)).worst().is_none());
    assert_eq!(at_whole(bad(800, 10_000)).worst().map(|r| r.guard.as_str()), Some("errors"));
}

fn with_disagreement() -> RolloutPlan {
    let mut plan = plan();
    let guard = GuardSpec::Disagreement { max: 0.03, tolerance: 0.05 };
    plan.guards.insert(GuardName::new("disagreement").unwrap(), guard);
    plan
}

fn mirrored(candidate: Counts, baseline: Counts, samples: Samples) -> Evidence {
    let (differed, noise) = (samples.more, samples.less);
    let weights = vec![Weighed { weight: 0.2, candidate, baseline }];
    let shadow =
        Shadow { is_now: true, weights, thresholds: true, samples, differed, noise, saturated: false };
    Evidence { compared: true, shadow: Some(shadow), ..Evidence::default() }
}

fn agreeing(samples: u64) -> Samples {
    Samples { more: 0, same: samples, less: 0 }
}

#[test]
fn a_healthy_shadow_is_proven_and_its_readings_say_what_they_are_about() {
    let usual = Counts { slow_promote: [1500, 300, 30], ..healthy(3000) };
    let evidence = mirrored(healthy(3000), usual, agreeing(400));
    let j = judge(&with_disagreement(), &evidence, &mut Peaks::default());
    assert!(j.all_not_worse() && j.worst().is_none(), "{:#?}", j.readings);
    assert!(j.readings.iter().all(|r| r.summary.starts_with("mirrored requests: ")), "{:#?}", j.readings);
    assert_eq!((j.candidate_units, j.baseline_units), (3000, 3000));
    // Units that were drawn unevenly would be a mismatch of live traffic; mirrored ones are no draw.
    assert!(!j.sample_ratio_mismatch);
    // With too few compared answers it is not proven yet.
    let early = mirrored(healthy(3000), usual, agreeing(60));
    let j = judge(&with_disagreement(), &early, &mut Peaks::default());
    assert_eq!(j.unknown(), [GuardName::new("disagreement").unwrap()]);
}

#[test]
fn an_idle_shadow_proves_nothing() {
    let evidence = mirrored(Counts::default(), Counts::default(), Samples::default());
    let j = judge(&with_disagreement(), &evidence, &mut Peaks::default());
    assert!(!j.all_not_worse() && j.worst().is_none());
    assert_eq!(j.unknown().len(), 3);
}

#[test]
fn answers_that_differ_roll_back_and_noise_does_not() {
    let other = Samples { more: 20, same: 0, less: 0 };
    let evidence = mirrored(healthy(100), healthy(100), other);
    let j = judge(&with_disagreement(), &evidence, &mut Peaks::default());
    assert_eq!(j.worst().unwrap().guard.as_str(), "disagreement", "{:#?}", j.readings);
    let noisy = Samples { more: 40, same: 80, less: 40 };
    let evidence = mirrored(healthy(700), healthy(700), noisy);
    assert!(judge(&with_disagreement(), &evidence, &mut Peaks::default()).worst().is_none());
}

#[test]
fn after_a_switch_it_is_judged_by_what_the_baseline_did_in_the_preview() {
    // Two in a hundred are bad answers, on either side: four times what the guard's floor allows.
    let usual = Counts { errors: 60, first_bad: 60, ..healthy(3000) };
    let switched = |before: Option<Counts>, candidate: Counts| {
        let mut evidence = seen(Counts::default(), Counts::default());
        let preview = |baseline| Weighed { weight: 0.0, candidate: Counts::default(), baseline };
        evidence.weights = before.map(preview).into_iter().collect();
        evidence.weights.push(Weighed { weight: 1.0, candidate, baseline: Counts::default() });
        judge(&plan(), &evidence, &mut Peaks::default())
    };
    let j = switched(Some(usual), usual);
    assert!(j.worst().is_none() && !j.sample_ratio_mismatch, "{:#?}", j.readings);
    assert!(switched(None, usual).worst().is_some(), "without a preview nothing says that this is usual");
    let broken = Counts { errors: 600, first_bad: 600, ..healthy(3000) };
    assert_eq!(switched(Some(usual), broken).worst().map(|r| r.guard.as_str()), Some("errors"));
    // What the baseline did alone proves nothing of the candidate.
    assert!(
        switched(Some(healthy(100_000)), Counts::default())
            .readings
            .iter()
            .all(|r| r.verdict == Verdict::Unknown)
    );
}

#[test]
fn what_a_shadow_proved_is_no_proof_for_users_and_its_harm_is_remembered() {
    let usual = Counts { slow_promote: [1500, 300, 30], ..healthy(3000) };
    let mut evidence = mirrored(healthy(3000), usual, agreeing(400));
    evidence.shadow.as_mut().unwrap().is_now = false;
    let j = judge(&with_disagreement(), &evidence, &mut Peaks::default());
    assert_eq!(j.unknown().len(), 2, "errors and latency begin anew: {:#?}", j.readings);
    let disagreement = j.readings.iter().find(|r| r.guard.as_str() == "disagreement").unwrap();
    assert!(!disagreement.required, "users have one answer");
    let bad = Counts { errors: 60, ..healthy(300) };
    evidence.shadow.as_mut().unwrap().weights[0].candidate = bad;
    let j = judge(&with_disagreement(), &evidence, &mut Peaks::default());
    assert_eq!(j.worst().unwrap().guard.as_str(), "errors");
}

#[test]
fn straight_from_the_shadow_to_all_it_is_judged_by_what_the_baseline_did_in_the_shadow() {
    let usual = Counts { errors: 60, first_bad: 60, ..healthy(3000) };
    let mut evidence = mirrored(usual, usual, agreeing(400));
    evidence.shadow.as_mut().unwrap().is_now = false;
    let at_whole = |candidate: Counts| {
        let weights = vec![Weighed { weight: 1.0, candidate, baseline: Counts::default() }];
        judge(&with_disagreement(), &Evidence { weights, ..evidence.clone() }, &mut Peaks::default())
    };
    assert!(at_whole(usual).worst().is_none(), "{:#?}", at_whole(usual).readings);
    let broken = Counts { errors: 600, first_bad: 600, ..healthy(3000) };
    assert_eq!(at_whole(broken).worst().unwrap().guard.as_str(), "errors");
}
