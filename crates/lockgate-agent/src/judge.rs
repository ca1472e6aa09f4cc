//! From the gateway's counts to verdicts: exactly the rule of specs/statistics-and-monitoring.md 2.1 and 2.5 to 2.7. Pure.
//!
//! One event per unit and guard counts, the first. Evidence that the candidate is worse is merged over all guards, and only
//! the merged evidence rolls back; a promotion needs every required guard by itself. What isn't known is *unknown*.

use lockgate_core::guard::{GuardSpec, Judgement, Reading, SegmentCount, Verdict};
use lockgate_core::id::GuardName;
use lockgate_core::plan::RolloutPlan;
use lockgate_stats::decision::{
    Budget, GuardEvidence, Look, Overall, Peaks, Role, Verdict as Proven, decide, log_needed,
};
use lockgate_stats::rate::{self, Bound};
use lockgate_stats::thinning::{self, Segment, Side};
use lockgate_stats::{latency, merge, srm};

/// How many quantiles of the baseline's latency are watched.
pub const QUANTILES: usize = 3;

/// What one side did at one weight.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Counts {
    /// Units that were drawn into this side at this weight: they must fit the weight.
    pub drawn: u64,
    /// Units that met this side at this weight: the denominator of rates.
    pub units: u64,
    /// Requests, whatever their unit.
    pub requests: u64,
    /// Units that met a bad answer.
    pub errors: u64,
    /// Units that were refused, or gave up waiting.
    pub refused: u64,
    /// Units whose first request had no good answer.
    pub first_bad: u64,
    /// Units that were slower than a quantile of the baseline beyond the margin for rolling back.
    pub slow_rollback: [u64; QUANTILES],
    /// Units that were slower than a quantile of the baseline beyond the margin for promoting.
    pub slow_promote: [u64; QUANTILES],
    /// Units that were slower than the absolute bound.
    pub slow_slo: u64,
    /// Units that got the same answer as the one before.
    pub repeats: u64,
}

/// Both sides at one weight.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weighed {
    /// The candidate's share, 0 to 1.
    pub weight: f64,
    /// The candidate.
    pub candidate: Counts,
    /// What it is compared with.
    pub baseline: Counts,
}

/// What the judge looks at.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Evidence {
    /// One entry for each weight that there was.
    pub weights: Vec<Weighed>,
    /// Whether the gateway had to stop counting units: then nothing new can be proven.
    pub saturated: bool,
    /// Whether there is a baseline to compare with.
    pub compared: bool,
    /// Whether the baseline's latency was known well enough to set thresholds by.
    pub thresholds: bool,
}

/// One guard's numbers.
struct Numbers {
    worse: f64,
    not_worse: f64,
    below_floor: Option<f64>,
    segments: Vec<SegmentCount>,
    words: String,
}

impl Evidence {
    fn segments(&self, of: impl Fn(&Counts) -> u64) -> Vec<Segment> {
        self.weights
            .iter()
            .map(|w| Segment {
                weight: w.weight,
                candidate_events: of(&w.candidate),
                baseline_events: of(&w.baseline),
            })
            .collect()
    }

    fn sum(&self, of: impl Fn(&Weighed) -> u64) -> u64 {
        self.weights.iter().map(of).sum()
    }
}

/// Judges a rollout. `peaks` are the largest evidence so far; they are updated.
#[must_use]
pub fn judge(plan: &RolloutPlan, evidence: &Evidence, peaks: &mut Peaks) -> Judgement {
    let budget = Budget {
        alpha_rollback: plan.alpha_rollback,
        alpha_promote: plan.alpha_promote,
        alpha_sample_ratio: plan.alpha_sample_ratio,
    };
    let weight = 1.0 / plan.guards.len().max(1) as f64;
    let numbers: Vec<(&GuardName, &GuardSpec, Numbers)> =
        plan.guards.iter().map(|(name, spec)| (name, spec, numbers(spec, evidence))).collect();
    let guards: Vec<GuardEvidence> = numbers
        .iter()
        .map(|(_, spec, n)| GuardEvidence {
            weight,
            role: if spec.is_required() { Role::Required } else { Role::RollbackOnly },
            log_e_worse: n.worse,
            log_e_not_worse: n.not_worse,
            log_e_below_floor: n.below_floor,
        })
        .collect();
    let ratio = if evidence.compared { srm::log_e_stepped(&evidence.segments(|c| c.drawn)) } else { 0.0 };
    let look = Look { guards: &guards, log_e_sample_ratio: ratio, min_bake_over: true, peaks: *peaks };
    let units = |of: fn(&Weighed) -> u64| evidence.sum(of);
    let (candidate_units, baseline_units) = (units(|w| w.candidate.units), units(|w| w.baseline.units));
    let (Ok(decision), Ok(needed_rollback), Ok(needed)) = (
        decide(&look, &budget),
        log_needed("alpha_rollback", plan.alpha_rollback),
        log_needed("alpha_promote", plan.alpha_promote),
    ) else {
        // Error rates or weights that make no sense were refused when the plan was made; if they get here, nothing is proven.
        return Judgement { candidate_units, baseline_units, ..Judgement::none() };
    };
    *peaks = decision.peaks;
    // Also where harm was found first: the comparison is void all the same.
    let mismatch = matches!(decision.overall, Overall::Hold(_))
        || log_needed("alpha_sample_ratio", plan.alpha_sample_ratio)
            .is_ok_and(|needed| decision.peaks.log_e_sample_ratio >= needed);
    let readings = numbers
        .into_iter()
        .zip(&decision.verdicts)
        .zip(&guards)
        .map(|(((name, spec, n), proven), guard)| {
            let verdict = match proven {
                Proven::Worse => Verdict::Worse,
                Proven::NotWorse if !evidence.saturated => Verdict::NotWorse,
                Proven::NotWorse | Proven::Unknown => Verdict::Unknown,
            };
            Reading {
                guard: name.clone(),
                verdict,
                required: spec.is_required(),
                log_e_worse: bounded(n.worse),
                log_e_not_worse: bounded(guard.not_worse().unwrap_or(0.0)),
                needed,
                summary: n.words,
                segments: n.segments,
            }
        })
        .collect();
    Judgement {
        readings,
        log_e_rollback: bounded(decision.peaks.log_e_rollback),
        needed_rollback,
        sample_ratio_mismatch: mismatch,
        candidate_units,
        baseline_units,
    }
}

/// A number that JSON can carry; what is none proves nothing.
fn bounded(log_e: f64) -> f64 {
    if log_e.is_nan() { 0.0 } else { log_e.clamp(-1e9, 1e9) }
}

fn numbers(spec: &GuardSpec, evidence: &Evidence) -> Numbers {
    match spec {
        GuardSpec::Rate { worse_by, rollback_by, floor } => {
            errors(evidence, 1.0 + worse_by, 1.0 + rollback_by, *floor)
        }
        GuardSpec::Latency { p99_ms, .. } => slow(evidence, p99_ms.is_some()),
        GuardSpec::Constant { rollback_by } => repeats(evidence, 1.0 + rollback_by),
    }
}

fn counts(evidence: &Evidence, of: impl Fn(&Counts) -> u64) -> Vec<SegmentCount> {
    evidence
        .weights
        .iter()
        .map(|w| SegmentCount { weight: w.weight, candidate: of(&w.candidate), baseline: of(&w.baseline) })
        .collect()
}

fn errors(evidence: &Evidence, worse: f64, rollback: f64, floor: f64) -> Numbers {
    let (bad, units) = (evidence.sum(|w| w.candidate.errors), evidence.sum(|w| w.candidate.units));
    let (bad_b, units_b) = (evidence.sum(|w| w.baseline.errors), evidence.sum(|w| w.baseline.units));
    let (refused, refused_b) = (evidence.sum(|w| w.candidate.refused), evidence.sum(|w| w.baseline.refused));
    let mut words = format!("bad answers: {bad} of {units} units, baseline {bad_b} of {units_b}");
    if refused + refused_b > 0 {
        words.push_str(&format!("; refused or given up: {refused}, baseline {refused_b}"));
    }
    let below = |count| rate::log_e(count, units, floor, Bound::Below);
    if !evidence.compared {
        // Without a baseline there is only the absolute bound: more bad answers than the floor allows.
        let above = rate::log_e(bad, units, floor, Bound::Above);
        return Numbers {
            worse: above,
            not_worse: 0.0,
            below_floor: Some(below(bad)),
            segments: counts(evidence, |c| c.errors),
            words,
        };
    }
    // Each kind of harm has its own evidence: their mean rolls back, and to promote neither may be worse.
    let kinds: [fn(&Counts) -> u64; 2] = [|c| c.errors, |c| c.refused];
    let harm = kinds.map(|of| thinning::log_e(&evidence.segments(of), rollback, Side::Worse));
    let whole = at_whole(evidence, worse, floor);
    let harm = [harm[0], harm[1]].into_iter().chain(whole).collect::<Vec<f64>>();
    let fine = kinds.map(|of| {
        let ratio = thinning::log_e(&evidence.segments(of), worse, Side::NotWorse);
        // Either proof will do; the mean of two e-values is one, their maximum is none.
        merge::mean(&[ratio, below(evidence.sum(|w| of(&w.candidate)))]).unwrap_or(0.0)
    });
    Numbers {
        worse: merge::mean(&harm).unwrap_or(0.0),
        not_worse: fine[0].min(fine[1]),
        below_floor: None,
        segments: counts(evidence, |c| c.errors),
        words,
    }
}

/// With all the traffic on one side there is nothing to compare with any more: then the bound is absolute, fixed by what the
/// baseline did before. First requests alone count, for their rate does not grow with how often a unit comes. None without
/// such traffic.
fn at_whole(evidence: &Evidence, margin: f64, floor: f64) -> Option<f64> {
    let whole = || evidence.weights.iter().filter(|w| w.weight >= 1.0);
    let (bad, units) =
        whole().fold((0, 0), |(bad, units), w| (bad + w.candidate.first_bad, units + w.candidate.units));
    let before = (evidence.sum(|w| w.baseline.first_bad), evidence.sum(|w| w.baseline.units));
    let usual = if before.1 == 0 { 0.0 } else { before.0 as f64 / before.1 as f64 };
    (units > 0)
        .then(|| rate::log_e(bad.min(units), units, (usual * margin).max(floor).min(0.999), Bound::Above))
}

/// Exceedance of the baseline's quantiles, the candidate's latency being made smaller by the margin first; and of the
/// absolute bound, which one unit in a hundred may exceed.
fn slow(evidence: &Evidence, bounded_by_slo: bool) -> Numbers {
    let (slow, units) = (evidence.sum(|w| w.candidate.slow_slo), evidence.sum(|w| w.candidate.units));
    let slo = if bounded_by_slo { Some(rate::log_e(slow, units, 0.01, Bound::Above)) } else { None };
    let mut words = Vec::new();
    if bounded_by_slo {
        words.push(format!("over the bound: {slow} of {units} units"));
    }
    let middle = QUANTILES / 2;
    let ratio = if evidence.compared && evidence.thresholds {
        let a: u64 = evidence.sum(|w| w.candidate.slow_rollback[middle]);
        let b: u64 = evidence.sum(|w| w.baseline.slow_rollback[middle]);
        words.push(format!("slower than the baseline's p90: {a} units beyond the margin, baseline {b}"));
        let by = |of: fn(&Counts, usize) -> u64, side| {
            let each: Vec<Vec<Segment>> = (0..QUANTILES).map(|j| evidence.segments(|c| of(c, j))).collect();
            latency::log_e(&each, 1.0, side).unwrap_or(0.0)
        };
        Some((by(|c, j| c.slow_rollback[j], Side::Worse), by(|c, j| c.slow_promote[j], Side::NotWorse)))
    } else {
        None
    };
    let (worse, not_worse) = match (ratio, slo) {
        (Some((worse, fine)), Some(slo)) => (merge::mean(&[worse, slo]).unwrap_or(0.0), fine),
        (Some((worse, fine)), None) => (worse, fine),
        (None, slo) => {
            words.push("the baseline's latency is not known yet".to_owned());
            (slo.unwrap_or(0.0), 0.0)
        }
    };
    let segments = counts(evidence, |c| c.slow_rollback[middle]);
    Numbers { worse, not_worse, below_floor: None, segments, words: words.join("; ") }
}

fn repeats(evidence: &Evidence, rollback: f64) -> Numbers {
    let (again, units) = (evidence.sum(|w| w.candidate.repeats), evidence.sum(|w| w.candidate.units));
    let again_b = evidence.sum(|w| w.baseline.repeats);
    let words = format!("same answer as before: {again} of {units} units, baseline {again_b}");
    let worse = if evidence.compared {
        thinning::log_e(&evidence.segments(|c| c.repeats), rollback, Side::Worse)
    } else {
        0.0
    };
    Numbers { worse, not_worse: 0.0, below_floor: None, segments: counts(evidence, |c| c.repeats), words }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockgate_core::plan::{OnInconclusive, Step};

    fn plan() -> RolloutPlan {
        let name = |n: &str| GuardName::new(n).unwrap();
        RolloutPlan {
            steps: vec![Step { weight: 2500, hold_ms: 0 }, Step { weight: 10_000, hold_ms: 0 }],
            guards: [
                (name("errors"), GuardSpec::Rate { worse_by: 0.5, rollback_by: 0.2, floor: 0.005 }),
                (
                    name("latency"),
                    GuardSpec::Latency {
                        p99_ms: Some(50.0),
                        worse_by: 0.2,
                        rollback_by: 0.05,
                        floor_ms: 1.0,
                    },
                ),
                (name("constant"), GuardSpec::Constant { rollback_by: 2.0 }),
            ]
            .into(),
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
        }
    }

    fn seen(candidate: Counts, baseline: Counts) -> Evidence {
        Evidence {
            weights: vec![Weighed { weight: 0.25, candidate, baseline }],
            saturated: false,
            compared: true,
            thresholds: true,
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
        assert!(
            later.log_e_rollback >= later.needed_rollback,
            "evidence that once sufficed is not forgotten"
        );
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
}
