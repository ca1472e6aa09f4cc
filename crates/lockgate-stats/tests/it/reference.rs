//! Fixtures 05 (sample ratio), 06 (thinning) and 12 (latency).

use crate::{assert_close, fixture};
use lockgate_stats::thinning::{self, Segment, Side};
use lockgate_stats::{latency, srm};
use serde::Deserialize;

#[derive(Deserialize)]
struct SrmFixture {
    cases: Vec<SrmCase>,
    sequence_true_53_47: Vec<SrmStep>,
}

#[derive(Deserialize)]
struct SrmCase {
    counts: Vec<u64>,
    theta0: Vec<f64>,
    concentration: f64,
    log_e: f64,
}

#[derive(Deserialize)]
struct SrmStep {
    increment: Vec<u64>,
    log_e: f64,
    p_running: f64,
}

#[test]
fn sample_ratio_matches_the_reference() {
    let reference: SrmFixture = fixture("05_srm");
    assert_eq!(reference.cases.len(), 18);
    for case in &reference.cases {
        let ours = srm::log_e(&case.counts, &case.theta0, case.concentration).unwrap();
        assert_close(ours, case.log_e, &format!("{:?} c={}", case.counts, case.concentration));
    }
}

#[test]
fn sample_ratio_matches_the_reference_sequence() {
    let reference: SrmFixture = fixture("05_srm");
    let steps = &reference.sequence_true_53_47;
    assert_eq!(steps.len(), 12);
    // The file doesn't name its concentration; 1000 is what its first number takes.
    let (mut counts, mut p) = (vec![0; 2], 1.0_f64);
    for (number, step) in steps.iter().enumerate() {
        counts.iter_mut().zip(&step.increment).for_each(|(sum, more)| *sum += more);
        let ours = srm::log_e(&counts, &[0.5, 0.5], 1000.0).unwrap();
        p = p.min((-ours).exp());
        assert_close(ours, step.log_e, &format!("step {number}"));
        assert_close(p, step.p_running, &format!("step {number}: p"));
    }
}

#[derive(Deserialize)]
struct ThinningFixture {
    cases: Vec<ThinningCase>,
}

#[derive(Deserialize)]
struct ThinningCase {
    desc: String,
    segments: Vec<ThinningSegment>,
    rho0: f64,
    side: String,
    log_e: f64,
}

#[derive(Deserialize)]
struct ThinningSegment {
    w: f64,
    canary_events: u64,
    stable_events: u64,
}

#[test]
fn thinning_matches_the_reference() {
    let reference: ThinningFixture = fixture("06_thinning");
    assert_eq!(reference.cases.len(), 10);
    for case in &reference.cases {
        let segments: Vec<Segment> = case
            .segments
            .iter()
            .map(|s| Segment {
                weight: s.w,
                candidate_events: s.canary_events,
                baseline_events: s.stable_events,
            })
            .collect();
        let side = if case.side == "worse" { Side::Worse } else { Side::NotWorse };
        assert_close(thinning::log_e(&segments, case.rho0, side), case.log_e, &case.desc);
    }
}

#[derive(Deserialize)]
struct LatencyFixture {
    w: f64,
    rows: Vec<LatencyRow>,
    reject_at_alpha_0_05_minute: usize,
}

#[derive(Deserialize)]
struct LatencyRow {
    canary_exceed: Vec<u64>,
    stable_exceed: Vec<u64>,
    log_e_per_threshold: Vec<f64>,
    log_e_mean: f64,
}

#[test]
fn latency_matches_the_reference_minute_by_minute() {
    let reference: LatencyFixture = fixture("12_latency_exceedance");
    let empty = Segment { weight: reference.w, candidate_events: 0, baseline_events: 0 };
    let mut thresholds = vec![[empty]; 3];
    let mut rejected = None;
    for (minute, row) in reference.rows.iter().enumerate() {
        for (j, [segment]) in thresholds.iter_mut().enumerate() {
            segment.candidate_events += row.canary_exceed[j];
            segment.baseline_events += row.stable_exceed[j];
            let one = thinning::log_e(&[*segment], 1.0, Side::Worse);
            assert_close(one, row.log_e_per_threshold[j], &format!("minute {minute}, threshold {j}"));
        }
        let merged = latency::log_e(&thresholds, 1.0, Side::Worse).unwrap();
        assert_close(merged, row.log_e_mean, &format!("minute {minute}"));
        if merged >= 20f64.ln() {
            rejected.get_or_insert(minute + 1);
        }
    }
    assert_eq!(reference.rows.len(), 8);
    assert_eq!(rejected, Some(reference.reject_at_alpha_0_05_minute));
}
