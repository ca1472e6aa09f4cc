//! What must hold for any input: means under the null by enumeration, order, additivity, direction.

use crate::{assert_close, assert_within};
use lockgate_stats::disagreement::{self, Samples};
use lockgate_stats::histogram::{self, BUCKETS, Histogram, LIMIT_US};
use lockgate_stats::rate::{self, Bound};
use lockgate_stats::thinning::{self, Segment, Side};
use lockgate_stats::{latency, merge, srm};
use proptest::prelude::*;

fn binomial(n: u64, k: u64, p: f64) -> f64 {
    (0..k).fold(1.0, |ways, i| ways * (n - i) as f64 / (i + 1) as f64)
        * p.powi(k as i32)
        * (1.0 - p).powi((n - k) as i32)
}

fn one(weight: f64, candidate_events: u64, baseline_events: u64) -> [Segment; 1] {
    [Segment { weight, candidate_events, baseline_events }]
}

/// The mean of the e-value after `n` events, if the true ratio is `truth`.
fn mean_e(n: u64, weight: f64, ratio: f64, truth: f64, side: Side) -> f64 {
    let p = weight * truth / (weight * truth + 1.0 - weight);
    (0..=n).map(|a| binomial(n, a, p) * thinning::log_e(&one(weight, a, n - a), ratio, side).exp()).sum()
}

#[test]
fn thinning_has_a_mean_of_at_most_one_under_the_null() {
    for n in [1, 2, 5, 15] {
        for weight in [0.01, 0.1, 0.5, 0.9] {
            for ratio in [0.8, 1.0, 1.5] {
                for side in [Side::Worse, Side::NotWorse] {
                    let name = format!("n={n} w={weight} r={ratio} {side:?}");
                    assert_within(mean_e(n, weight, ratio, ratio, side), 1.0, 1e-9, &name);
                    let (inside, outside) = match side {
                        Side::Worse => (0.7, 1.6),
                        Side::NotWorse => (1.6, 0.7),
                    };
                    assert!(mean_e(n, weight, ratio, ratio * inside, side) < 1.0, "{name}, inside");
                    assert!(mean_e(n, weight, ratio, ratio * outside, side) > 1.0, "{name}, outside");
                }
            }
        }
    }
}

/// The mean of the e-value after `n` samples with these chances of a difference of either side.
fn mean_of_samples(n: u64, (more, less): (f64, f64), max: f64, side: Side) -> f64 {
    let mut mean = 0.0;
    for a in 0..=n {
        for b in 0..=n - a {
            let chance = binomial(n, a, more) * binomial(n - a, b, less / (1.0 - more));
            mean +=
                chance * disagreement::log_e(Samples { more: a, same: n - a - b, less: b }, max, side).exp();
        }
    }
    mean
}

#[test]
fn disagreement_has_a_mean_of_at_most_one_under_the_null() {
    for n in [1, 2, 6, 25] {
        for max in [0.01, 0.03, 0.2] {
            for noise in [0.0, 0.01, 0.3] {
                for side in [Side::Worse, Side::NotWorse] {
                    let name = format!("n={n} max={max} noise={noise} {side:?}");
                    let at = |net: f64| mean_of_samples(n, (net + noise, noise), max, side);
                    assert_within(at(max), 1.0, 1e-9, &name);
                    let (inside, outside) = match side {
                        Side::Worse => (0.5 * max, 2.0 * max),
                        Side::NotWorse => (2.0 * max, 0.5 * max),
                    };
                    assert!(at(inside) < 1.0 && at(outside) > 1.0, "{name}");
                }
            }
        }
    }
}

/// The share of runs in which the evidence ever reaches 1/alpha, looked at after every sample; seeded.
fn ever(runs: u64, samples: u64, (more, less): (f64, f64), max: f64, side: Side) -> f64 {
    let mut state = 0x1234_5678_9abc_def0_u64;
    let mut unit = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1_u64 << 53) as f64
    };
    let crossed = (0..runs).filter(|_| {
        let mut seen = Samples::default();
        (0..samples).any(|_| {
            match unit() {
                u if u < more => seen.more += 1,
                u if u < more + less => seen.less += 1,
                _ => seen.same += 1,
            }
            disagreement::log_e(seen, max, side) >= 20_f64.ln()
        })
    });
    crossed.count() as f64 / runs as f64
}

#[test]
fn disagreement_keeps_its_error_rate_under_a_look_at_every_sample() {
    // At the border of the null, the worst case, with noise and without: at most 5 % plus four standard errors of 400 runs.
    for noise in [0.0, 0.05, 0.2] {
        for side in [Side::Worse, Side::NotWorse] {
            let found = ever(400, 600, (0.03 + noise, noise), 0.03, side);
            assert!(found <= 0.05 + 0.044, "noise {noise} {side:?}: {found}");
        }
    }
    // And it finds what is there: a tenth of the answers changed, beside a noise of a tenth.
    assert!(ever(100, 1000, (0.2, 0.1), 0.03, Side::Worse) > 0.9);
    assert!(ever(100, 400, (0.0, 0.0), 0.03, Side::NotWorse) > 0.99);
}

#[test]
fn rate_has_a_mean_of_at_most_one_under_the_null() {
    for n in [1, 3, 20] {
        for bound in [0.005, 0.1, 0.6, 0.99] {
            for (side, inside) in [(Bound::Above, 0.5 * bound), (Bound::Below, 0.5 * (1.0 + bound))] {
                let mean = |p: f64| -> f64 {
                    (0..=n).map(|k| binomial(n, k, p) * rate::log_e(k, n, bound, side).exp()).sum()
                };
                assert_within(mean(bound), 1.0, 1e-9, &format!("n={n} bound={bound} {side:?}"));
                assert!(mean(inside) < 1.0, "n={n} bound={bound} {side:?}");
            }
        }
    }
}

#[test]
fn sample_ratio_has_a_mean_of_one_under_the_null() {
    let shares = [0.2, 0.8];
    for (n, concentration) in [(1, 100.0), (12, 1.0), (12, 100.0)] {
        let mean: f64 = (0..=n)
            .map(|k| binomial(n, k, 0.2) * srm::log_e(&[k, n - k], &shares, concentration).unwrap().exp())
            .sum();
        assert_within(mean, 1.0, 1e-9, &format!("n={n} c={concentration}"));
        let stepped: f64 =
            (0..=n).map(|k| binomial(n, k, 0.2) * srm::log_e_stepped(&one(0.2, k, n - k)).exp()).sum();
        assert_within(stepped, 1.0, 1e-9, &format!("stepped, n={n}"));
    }
}

#[test]
fn a_sample_ratio_of_several_segments_has_a_mean_of_one_under_the_null() {
    let mean: f64 = (0..=8)
        .flat_map(|a| (0..=5).map(move |b| (a, b)))
        .map(|(a, b)| {
            let units = [one(0.2, a, 8 - a), one(0.5, b, 5 - b)].concat();
            binomial(8, a, 0.2) * binomial(5, b, 0.5) * srm::log_e_each(&units).exp()
        })
        .sum();
    assert_within(mean, 1.0, 1e-9, "two segments");
}

#[test]
fn sides_mirror_each_other() {
    // Swapping the variants turns a ratio into its inverse.
    for (weight, a, b, ratio) in [(0.3, 17, 40, 1.4), (0.05, 0, 9, 0.7), (0.5, 80, 80, 1.0)] {
        let ours = thinning::log_e(&one(weight, a, b), ratio, Side::Worse);
        let mirrored = thinning::log_e(&one(1.0 - weight, b, a), 1.0 / ratio, Side::NotWorse);
        assert_close(ours, mirrored, "mirror");
    }
}

fn segments() -> impl Strategy<Value = Vec<Segment>> {
    let segment = (0.001..0.999_f64, 0..5_000_u64, 0..5_000_u64).prop_map(
        |(weight, candidate_events, baseline_events)| Segment { weight, candidate_events, baseline_events },
    );
    prop::collection::vec(segment, 0..6)
}

fn side() -> impl Strategy<Value = Side> {
    prop_oneof![Just(Side::Worse), Just(Side::NotWorse)]
}

proptest! {
    #[test]
    fn order_and_splitting_do_not_matter(segments in segments(), side in side(), ratio in 0.5..3.0_f64, cut in 0.0..1.0_f64) {
        let log_e = thinning::log_e(&segments, ratio, side);
        let split: Vec<Segment> = segments.iter().rev().flat_map(|s| {
            let (a, b) = ((s.candidate_events as f64 * cut) as u64, (s.baseline_events as f64 * cut) as u64);
            [
                Segment { candidate_events: a, baseline_events: b, ..*s },
                Segment { candidate_events: s.candidate_events - a, baseline_events: s.baseline_events - b, ..*s },
            ]
        }).collect();
        assert_close(thinning::log_e(&split, ratio, side), log_e, "split and reversed");
    }

    #[test]
    fn a_bad_event_is_evidence_for_worse(
        segments in segments(), ratio in 0.5..3.0_f64, weight in 0.01..0.99_f64, a in 0..2_000_u64, b in 0..2_000_u64,
    ) {
        let with = |a, b| {
            let mut all = segments.clone();
            all.extend(one(weight, a, b));
            [Side::Worse, Side::NotWorse].map(|side| thinning::log_e(&all, ratio, side))
        };
        let ([worse, not_worse], candidate, baseline) = (with(a, b), with(a + 1, b), with(a, b + 1));
        prop_assert!(candidate[0] > worse && candidate[1] < not_worse);
        prop_assert!(baseline[0] < worse && baseline[1] > not_worse);
    }

    #[test]
    fn a_larger_margin_is_harder_to_exceed(segments in segments(), ratio in 0.5..3.0_f64) {
        let at = |ratio, side| thinning::log_e(&segments, ratio, side);
        // Not monotone far away from the border, where both are tiny; where evidence speaks, it is.
        if at(ratio * 1.2, Side::Worse) > 0.0 {
            prop_assert!(at(ratio, Side::Worse) >= at(ratio * 1.2, Side::Worse));
        }
        if at(ratio, Side::NotWorse) > 0.0 {
            prop_assert!(at(ratio * 1.2, Side::NotWorse) >= at(ratio, Side::NotWorse));
        }
    }

    #[test]
    fn a_rate_knows_its_direction(events in 0..500_u64, good in 0..5_000_u64, bound in 0.001..0.9_f64) {
        let at = |events: u64, good: u64, side| rate::log_e(events, events + good, bound, side);
        prop_assert!(at(events + 1, good, Bound::Above) > at(events, good, Bound::Above));
        prop_assert!(at(events, good + 1, Bound::Above) < at(events, good, Bound::Above));
        prop_assert!(at(events + 1, good, Bound::Below) < at(events, good, Bound::Below));
        prop_assert!(at(events, good + 1, Bound::Below) > at(events, good, Bound::Below));
    }

    #[test]
    fn a_mean_lies_between_and_is_no_weaker_than_bonferroni(
        evidence in prop::collection::vec((-500.0..800.0_f64, 0.01..5.0_f64), 1..8),
    ) {
        let merged = merge::weighted_mean(&evidence).unwrap();
        let sum: f64 = evidence.iter().map(|(_, weight)| weight).sum();
        let least = evidence.iter().map(|(log_e, _)| *log_e).fold(f64::INFINITY, f64::min);
        let most = evidence.iter().map(|(log_e, _)| *log_e).fold(f64::NEG_INFINITY, f64::max);
        prop_assert!(merged >= least - 1e-9 && merged <= most + 1e-9);
        prop_assert!(evidence.iter().all(|(log_e, weight)| merged >= log_e + (weight / sum).ln() - 1e-9));
    }

    #[test]
    fn buckets_hold_their_values(us in prop_oneof![0..5_000_u64, any::<u64>(), 0..2 * LIMIT_US]) {
        let index = histogram::bucket(us);
        prop_assert!(index < BUCKETS);
        prop_assert!(histogram::lower_edge(index) <= us && us <= histogram::upper_edge(index));
        prop_assert!(histogram::edge_at_or_below(us) <= us && us <= histogram::edge_at_or_above(us));
        for edge in [histogram::edge_at_or_below(us), histogram::edge_at_or_above(us)] {
            prop_assert_eq!(histogram::edge_at_or_above(edge), edge);
        }
        if us < LIMIT_US {
            let width = histogram::upper_edge(index) - histogram::lower_edge(index);
            prop_assert!(width as f64 <= 0.02 * us as f64, "{} at {}", width, us);
        }
    }

    #[test]
    fn merged_histograms_are_the_histogram_of_all(
        left in prop::collection::vec(0..3_000_000_u64, 0..80),
        right in prop::collection::vec(0..3_000_000_u64, 1..80),
        threshold in 0..3_000_000_u64, q in 0.0..=1.0_f64,
    ) {
        let of = |values: &[u64]| {
            let mut histogram = Histogram::new();
            values.iter().for_each(|&us| histogram.record(us));
            histogram
        };
        let mut all: Vec<u64> = left.iter().chain(&right).copied().collect();
        let mut merged = of(&left);
        merged.merge(&of(&right));
        prop_assert_eq!(&merged, &of(&all));
        prop_assert_eq!(merged.total(), all.len() as u64);
        for edge in [histogram::edge_at_or_below(threshold), histogram::edge_at_or_above(threshold)] {
            prop_assert_eq!(merged.count_above(edge), all.iter().filter(|us| **us > edge).count() as u64);
        }
        all.sort_unstable();
        let rank = ((q * all.len() as f64).ceil() as usize).max(1);
        prop_assert_eq!(merged.quantile(q), Some(histogram::edge_at_or_above(all[rank - 1])));
        let text = serde_json::to_string(&merged).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Histogram>(&text).unwrap(), &merged);
    }
}

#[test]
fn buckets_are_contiguous_and_rise() {
    for index in 1..BUCKETS {
        assert_eq!(histogram::lower_edge(index), histogram::upper_edge(index - 1) + 1, "bucket {index}");
        assert_eq!(histogram::bucket(histogram::lower_edge(index)), index);
    }
    assert_eq!(histogram::bucket(u64::MAX), BUCKETS - 1);
    assert_eq!(histogram::bucket(LIMIT_US), BUCKETS - 1);
    assert_eq!(histogram::bucket(LIMIT_US - 1), BUCKETS - 2);
}

#[test]
fn a_better_median_does_not_buy_a_worse_tail() {
    let (faster, slower) = (one(0.5, 200, 900), one(0.5, 60, 12));
    let not_worse = latency::log_e(&[faster, slower], 1.2, Side::NotWorse).unwrap();
    let worse = latency::log_e(&[faster, slower], 1.2, Side::Worse).unwrap();
    assert!(not_worse < 0.0 && worse > 20f64.ln(), "{not_worse} {worse}");
}
