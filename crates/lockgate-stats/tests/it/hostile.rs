//! Nothing, too much and nonsense: always an error or a finite "nothing known", never a proof.

use crate::{assert_close, assert_within};
use lockgate_stats::histogram::{BUCKETS, Histogram, LIMIT_US};
use lockgate_stats::rate::{self, Bound};
use lockgate_stats::thinning::{self, Segment, Side};
use lockgate_stats::{StatsError, latency, merge, srm};

const NOT_NUMBERS: [f64; 3] = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY];

fn segment(weight: f64, candidate_events: u64, baseline_events: u64) -> Segment {
    Segment { weight, candidate_events, baseline_events }
}

#[test]
fn nothing_is_nothing_known() {
    for side in [Side::Worse, Side::NotWorse] {
        assert_eq!(thinning::log_e(&[], 1.0, side), 0.0);
        assert_eq!(thinning::log_e(&[segment(0.1, 0, 0)], 1.0, side), 0.0);
        assert_eq!(latency::log_e::<[Segment; 0]>(&[], 1.0, side), Err(StatsError::Empty));
        assert_eq!(latency::log_e(&[[]], 1.0, side), Ok(0.0));
    }
    for side in [Bound::Above, Bound::Below] {
        assert_eq!(rate::log_e(0, 0, 0.01, side), 0.0);
    }
    assert_eq!(srm::log_e_stepped(&[]), 0.0);
    assert_within(srm::log_e_each(&[]), 0.0, 1e-12, "no segments");
    assert_within(srm::log_e(&[0, 0], &[0.1, 0.9], 100.0).unwrap(), 0.0, 1e-12, "no units");
    assert_eq!(merge::mean(&[]), Err(StatsError::Empty));
    assert_eq!(merge::smallest(&[]), Err(StatsError::Empty));
    assert_eq!(Histogram::new().quantile(0.5), None);
    assert_eq!(Histogram::new().count_above(0), 0);
}

#[test]
fn segments_that_say_nothing_are_skipped() {
    let real = segment(0.1, 30, 90);
    for side in [Side::Worse, Side::NotWorse] {
        let alone = thinning::log_e(&[real], 1.2, side);
        for weight in [0.0, 1.0, -0.5, 1.5, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let beside =
                thinning::log_e(&[segment(weight, 1_000, 0), real, segment(weight, 0, 1_000)], 1.2, side);
            assert_eq!(beside, alone, "weight {weight}");
            assert_eq!(thinning::log_e(&[segment(weight, 5, 5)], 1.2, side), 0.0, "weight {weight} alone");
        }
        for ratio in NOT_NUMBERS.into_iter().chain([0.0, -1.0, 1e300, 1e-300]) {
            assert_eq!(thinning::log_e(&[real], ratio, side), 0.0, "ratio {ratio}");
        }
    }
}

#[test]
fn huge_counts_stay_finite_and_right() {
    let huge = 1_000_000_000_000;
    for (a, b) in [(huge, huge), (u64::MAX, 0), (0, u64::MAX), (u64::MAX, u64::MAX)] {
        for weight in [1e-300, 1e-12, 0.5, 1.0 - 1e-15] {
            for side in [Side::Worse, Side::NotWorse] {
                for ratio in [1e-6, 1.0, 1e6] {
                    assert!(
                        thinning::log_e(&[segment(weight, a, b)], ratio, side).is_finite(),
                        "{a} {b} {weight}"
                    );
                }
            }
            assert!(srm::log_e_stepped(&[segment(weight, a, b)]).is_finite());
            assert!(srm::log_e_each(&[segment(weight, a, b), segment(0.5, b, a)]).is_finite());
        }
        for side in [Bound::Above, Bound::Below] {
            for bound in [1e-300, 0.005, 0.5, 1.0 - 1e-15] {
                assert!(rate::log_e(a, b, bound, side).is_finite(), "{a} {b} {bound}");
            }
        }
        for concentration in [1e-300, 1.0, 1e12] {
            assert!(srm::log_e(&[a, b], &[1e-9, 1.0], concentration).unwrap().is_finite(), "{concentration}");
        }
    }
    // Twice the rate, a billion times over, is proof; a ratio of 1 refutes 1.5.
    assert!(thinning::log_e(&[segment(0.5, 2 * huge, huge)], 1.2, Side::Worse) > 1e9);
    assert!(thinning::log_e(&[segment(0.5, huge, huge)], 1.5, Side::NotWorse) > 1e9);
    assert!(thinning::log_e(&[segment(0.5, huge, huge)], 1.0, Side::Worse) < 0.0);
    // Perfect halves of 10^12: (ln(1 + n/c) - 2 ln(1 + n/c))/2 and terms that vanish, computed without cancellation.
    let balanced = srm::log_e(&[huge / 2, huge / 2], &[0.5, 0.5], 100.0).unwrap();
    assert_within(balanced, -0.5 * (1e10_f64 + 1.0).ln() - 0.002_5, 1e-5, "balanced");
    assert!(srm::log_e(&[huge / 2 + huge / 10_000, huge / 2], &[0.5, 0.5], 100.0).unwrap() > 100.0);
}

#[test]
fn nonsense_for_a_rate_proves_nothing() {
    for bound in NOT_NUMBERS.into_iter().chain([0.0, 1.0, -0.1, 1.1]) {
        for side in [Bound::Above, Bound::Below] {
            assert_eq!(rate::log_e(5, 10, bound, side), 0.0, "{bound}");
        }
    }
    // More events than units: all of them bad.
    assert_eq!(rate::log_e(9, 3, 0.01, Bound::Below), rate::log_e(9, 9, 0.01, Bound::Below));
    assert!(rate::log_e(9, 0, 0.01, Bound::Below) < 0.0);
    assert!(rate::log_e(9, 0, 0.01, Bound::Above) > 20f64.ln());
}

#[test]
fn nonsense_for_a_sample_ratio_is_refused() {
    assert!(matches!(srm::log_e(&[1], &[1.0], 100.0), Err(StatsError::Variants { .. })));
    assert!(matches!(srm::log_e(&[1, 2, 3], &[0.5, 0.5], 100.0), Err(StatsError::Variants { .. })));
    for bad in NOT_NUMBERS.into_iter().chain([0.0, -1.0]) {
        assert!(
            matches!(srm::log_e(&[1, 2], &[bad, 0.5], 100.0), Err(StatsError::NotPositive { .. })),
            "{bad}"
        );
        assert!(
            matches!(srm::log_e(&[1, 2], &[0.5, 0.5], bad), Err(StatsError::NotPositive { .. })),
            "{bad}"
        );
    }
    assert!(srm::log_e(&[1, 2], &[f64::MAX, f64::MAX], 100.0).is_err(), "sum overflows");
    // Shares need not add up to 1.
    let scaled = srm::log_e(&[40, 60], &[50.0, 50.0], 100.0).unwrap();
    assert_close(scaled, srm::log_e(&[40, 60], &[0.5, 0.5], 100.0).unwrap(), "scaled shares");
}

#[test]
fn misfits_that_cancel_each_other_are_seen_segment_by_segment() {
    // Too much at one share and too little at the other: in sum nothing is missing.
    let crossed = [segment(0.1, 1_300, 8_700), segment(0.5, 4_700, 5_300)];
    assert!(srm::log_e_stepped(&crossed) < 1_000f64.ln());
    assert!(srm::log_e_each(&crossed) > 1_000f64.ln());
    let fair = [segment(0.1, 1_000, 9_000), segment(0.5, 5_020, 4_980)];
    assert!(srm::log_e_each(&fair) < 0.0);
    // What all segments show together is seen too, though none shows it alone.
    let many: Vec<Segment> = (0..20).map(|_| segment(0.5, 560, 500)).collect();
    assert!(many.iter().all(|one| srm::log_e_each(std::slice::from_ref(one)) < 2.0));
    assert!(srm::log_e_each(&many) > 1_000f64.ln());
}

#[test]
fn stepped_sample_ratio_sees_both_directions() {
    let fair = [segment(0.05, 500, 9_500), segment(0.5, 5_020, 4_980)];
    assert!(srm::log_e_stepped(&fair) < 0.0);
    for wrong in [
        [segment(0.05, 600, 9_400), segment(0.5, 5_400, 4_600)],
        [segment(0.05, 400, 9_600), segment(0.5, 4_600, 5_400)],
    ] {
        assert!(srm::log_e_stepped(&wrong) > 1_000f64.ln());
    }
}

#[test]
fn merging_refuses_what_is_no_evidence() {
    for bad in [f64::NAN, f64::INFINITY] {
        assert!(matches!(merge::mean(&[1.0, bad]), Err(StatsError::Evidence { index: 1, .. })));
        assert!(matches!(merge::smallest(&[1.0, bad]), Err(StatsError::Evidence { index: 1, .. })));
        assert!(matches!(merge::weighted_mean(&[(1.0, bad)]), Err(StatsError::Weight { index: 0, .. })));
    }
    assert!(matches!(
        merge::weighted_mean(&[(1.0, 1.0), (1.0, -1.0)]),
        Err(StatsError::Weight { index: 1, .. })
    ));
    assert!(matches!(merge::weighted_mean(&[(1.0, 0.0)]), Err(StatsError::Weight { .. })));
    assert_eq!(merge::mean(&[f64::NEG_INFINITY]), Ok(f64::NEG_INFINITY));
    assert_close(merge::mean(&[f64::NEG_INFINITY, 2.0]).unwrap(), 2.0 - 2f64.ln(), "an e-value of 0");
    assert_close(merge::weighted_mean(&[(1e6, f64::MAX), (1e6, f64::MAX)]).unwrap(), 1e6, "huge weights");
    assert_eq!(merge::smallest(&[3.0, -2.0]), Ok(-2.0));
}

#[test]
fn histograms_refuse_what_is_not_theirs() {
    assert!(Histogram::from_counts(vec![0; BUCKETS - 1]).is_err());
    assert!(Histogram::from_counts(vec![0; BUCKETS + 1]).is_err());
    let texts = [
        format!("[[{BUCKETS},1]]"),
        "[[3,1],[3,1]]".to_owned(),
        "[[4,1],[3,1]]".to_owned(),
        "[[18446744073709551615,1],[0,1]]".to_owned(),
        "[[-1,1]]".to_owned(),
        "[[1,1.5]]".to_owned(),
    ];
    for text in texts {
        assert!(serde_json::from_str::<Histogram>(&text).is_err(), "{text}");
    }
    let mut counts = vec![0; BUCKETS];
    counts[7] = u64::MAX;
    let mut full = Histogram::from_counts(counts).unwrap();
    full.record(7);
    full.merge(&full.clone());
    assert_eq!(full.total(), u64::MAX);
    assert_eq!(full.quantile(1.0), Some(7));
    for q in [f64::NAN, -0.1, 1.1] {
        assert_eq!(full.quantile(q), None);
    }
    let mut slow = Histogram::new();
    slow.record(u64::MAX);
    assert_eq!(slow.quantile(0.5), Some(LIMIT_US));
    assert_eq!((slow.count_above(LIMIT_US - 1), slow.count_above(LIMIT_US)), (1, 0));
}
