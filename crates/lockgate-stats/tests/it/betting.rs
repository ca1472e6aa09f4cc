//! Betting on bounded means beside fixture 08; its laws; and how often it errs, by simulation.

use crate::{assert_close, assert_within, fixture};
use lockgate_stats::betting::{
    Difference, LEVELS, Segment, Tally, WHOLE, bets, estimate, interval, log_e, mixed, outcomes_needed,
};
use proptest::prelude::*;
use serde::Deserialize;

#[derive(Deserialize)]
struct Fixture {
    lo: f64,
    z: Vec<f64>,
    at: Vec<usize>,
    grid_log_e: Vec<f64>,
    grid_logs_final: Vec<f64>,
    merge_check: Halves,
}

#[derive(Deserialize)]
struct Halves {
    first_200: Vec<f64>,
    last_200: Vec<f64>,
}

fn single(z: &[f64]) -> Vec<(f64, f64)> {
    z.iter().map(|z| (*z, 1.0)).collect()
}

#[test]
fn it_is_the_reference_and_halves_add_up() {
    let known: Fixture = fixture("08_bounded_betting");
    assert_eq!(known.z.len(), 400);
    for (at, log_e) in known.at.iter().zip(&known.grid_log_e) {
        assert_close(mixed(&bets(&single(&known.z[..*at]), known.lo)), *log_e, &format!("after {at}"));
    }
    let (first, last) = (bets(&single(&known.z[..200]), known.lo), bets(&single(&known.z[200..]), known.lo));
    for k in 0..24 {
        assert_close(first[k], known.merge_check.first_200[k], "first half");
        assert_close(last[k], known.merge_check.last_200[k], "last half");
        assert_close(first[k] + last[k], known.grid_logs_final[k], "both");
    }
}

/// Numbers that look drawn; the same on every machine.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// How a simulated comparison ended, and after how many outcomes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    Above(u32),
    Below(u32),
    Open,
}

/// Units with outcomes 0 or 1, looked at every 25 until one of the two is proven at 5 %.
fn simulate(seed: u64, weight: u32, means: (f64, f64), margins: (f64, f64), most: u32) -> End {
    let (mut draw, mut tally) = (Draw(seed.wrapping_mul(7_919)), Tally::default());
    let needed = 20_f64.ln();
    for n in 1..=most {
        let is_candidate = draw.next() < f64::from(weight) / f64::from(WHOLE);
        let mean = if is_candidate { means.0 } else { means.1 };
        tally.add(weight, is_candidate, if draw.next() < mean { LEVELS } else { 0 });
        if n % 25 == 0 {
            let segments = tally.segments();
            if log_e(&segments, margins.0, Difference::Below) >= needed {
                return End::Below(n);
            }
            if log_e(&segments, margins.1, Difference::Above) >= needed {
                return End::Above(n);
            }
        }
    }
    End::Open
}

fn ends(runs: u64, weight: u32, means: (f64, f64), margins: (f64, f64), most: u32) -> (u64, u64, u32) {
    let all: Vec<End> = (0..runs).map(|seed| simulate(seed + 1, weight, means, margins, most)).collect();
    let mut above: Vec<u32> =
        all.iter().filter_map(|e| if let End::Above(n) = e { Some(*n) } else { None }).collect();
    let mut below: Vec<u32> =
        all.iter().filter_map(|e| if let End::Below(n) = e { Some(*n) } else { None }).collect();
    above.sort_unstable();
    below.sort_unstable();
    let longer = if above.len() > below.len() { &above } else { &below };
    let median = longer.get(longer.len() / 2).copied().unwrap_or(0);
    (above.len() as u64, below.len() as u64, median)
}

/// With no difference each verdict errs in at most 5 % of runs, at every share and base rate, though it is looked at 80 times.
#[test]
fn equal_arms_are_rarely_told_apart() {
    for (weight, mean) in [(5_000, 0.2), (5_000, 0.9), (1_000, 0.05), (2_500, 0.5)] {
        let (above, below, _) = ends(1_000, weight, (mean, mean), (0.0, 0.0), 2_000);
        println!("A/A at {weight}, mean {mean}: better {above}, worse {below} of 1000");
        assert!(above <= 50 && below <= 50, "at {weight} and {mean}: {above} better, {below} worse of 1000");
    }
}

/// What it finds, and how soon; the numbers stand in docs/ab-tests.md.
#[test]
fn differences_are_found() {
    for (name, means, margins, most, least) in [
        ("20 % to 25 %", (0.25, 0.20), (0.0, 0.0), 12_000, 95),
        ("20 % to 15 %", (0.15, 0.20), (0.0, 0.0), 12_000, 95),
        ("20 % to 30 %", (0.30, 0.20), (0.0, 0.0), 4_000, 99),
        ("90 % to 85 %", (0.85, 0.90), (0.0, 0.0), 8_000, 95),
        ("equal within 3 points", (0.20, 0.20), (0.0, -0.03), 20_000, 85),
    ] {
        let (above, below, median) = ends(100, 5_000, means, margins, most);
        println!("{name}: better {above}, worse {below} of 100, median {median} outcomes");
        let found = if means.0 < means.1 { below } else { above };
        assert!(found >= least, "{name}: {above} better, {below} worse, median {median}");
    }
}

#[test]
fn a_forecast_is_near_what_simulations_take() {
    for (means, expected) in [((0.25, 0.20), 0.5), ((0.30, 0.20), 0.5)] {
        let (_, _, median) = ends(60, 5_000, means, (0.0, 0.0), 12_000);
        let foretold =
            outcomes_needed(0.5, means.1, means.0 - means.1, 0.0, Difference::Above, 0.05).unwrap();
        assert_within(f64::from(median), foretold, expected, &format!("{means:?}"));
    }
    assert_eq!(outcomes_needed(0.5, 0.2, 0.0, 0.0, Difference::Above, 0.05), None, "nothing proves itself");
    assert_eq!(outcomes_needed(0.5, 0.2, 0.9, 0.0, Difference::Above, 0.05), None, "no mean is above 1");
}

fn tally(outcomes: &[(bool, u32)], weight: u32) -> Tally {
    let mut tally = Tally::default();
    outcomes.iter().for_each(|(candidate, level)| tally.add(weight, *candidate, *level));
    tally
}

/// The mean of the e-value over all that can happen in `n` units, where each arm's outcome is 0 or 1 with these chances.
fn mean_e(n: u32, weight: u32, (p, q): (f64, f64), margin: f64, side: Difference) -> f64 {
    let w = f64::from(weight) / f64::from(WHOLE);
    let cells = [
        (true, LEVELS, w * p),
        (true, 0, w * (1.0 - p)),
        (false, LEVELS, (1.0 - w) * q),
        (false, 0, (1.0 - w) * (1.0 - q)),
    ];
    (0..4_u32.pow(n))
        .map(|code| {
            let picked: Vec<_> = (0..n).map(|i| cells[(code / 4_u32.pow(i) % 4) as usize]).collect();
            let chance: f64 = picked.iter().map(|(_, _, chance)| chance).product();
            let outcomes: Vec<_> = picked.iter().map(|(arm, level, _)| (*arm, *level)).collect();
            chance * log_e(&tally(&outcomes, weight).segments(), margin, side).exp()
        })
        .sum()
}

#[test]
fn its_mean_is_one_at_the_margin_and_below_within() {
    for (weight, (p, q)) in [(5_000, (0.3, 0.3)), (1_000, (0.6, 0.5)), (9_000, (0.2, 0.4))] {
        for side in [Difference::Above, Difference::Below] {
            let at = p - q;
            assert_within(mean_e(5, weight, (p, q), at, side), 1.0, 1e-9, "at the margin");
            let within = if side == Difference::Above { at + 0.1 } else { at - 0.1 };
            assert!(mean_e(5, weight, (p, q), within, side) < 1.0);
        }
    }
}

#[test]
fn nothing_is_known_without_outcomes_or_with_margins_that_are_none() {
    for side in [Difference::Above, Difference::Below] {
        assert_eq!(log_e(&[], 0.0, side), 0.0);
        let some = tally(&[(true, 1000), (false, 0)], 5_000).segments();
        for margin in [1.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(log_e(&some, margin, side), 0.0);
        }
        for weight in [0, WHOLE, WHOLE + 1] {
            assert_eq!(log_e(&tally(&[(true, 1000), (false, 0)], weight).segments(), 0.0, side), 0.0);
        }
    }
    assert_eq!((estimate(&[]), interval(&[], 0.05)), (None, None));
    assert_eq!(interval(&tally(&[(true, 1000), (false, 0)], 5_000).segments(), 0.0), None);
    let huge = Segment {
        weight: 5_000,
        centre: 500,
        candidate: [(1000, u64::MAX / 4)].into(),
        baseline: [(0, u64::MAX / 4)].into(),
    };
    assert!(log_e(&[huge], 0.0, Difference::Above).is_finite());
}

proptest! {
    #[test]
    fn evidence_is_a_pure_function_of_counts(
        outcomes in prop::collection::vec((any::<bool>(), 0..=LEVELS), 0..200),
        weight in 1..WHOLE,
        margin in -0.9..0.9_f64,
    ) {
        let segments = tally(&outcomes, weight).segments();
        let again: Vec<Segment> = serde_json::from_str(&serde_json::to_string(&segments).unwrap()).unwrap();
        for side in [Difference::Above, Difference::Below] {
            let found = log_e(&segments, margin, side);
            prop_assert!(found.is_finite());
            // Bit for bit, after it was written down and read again.
            prop_assert_eq!(found.to_bits(), log_e(&again, margin, side).to_bits());
        }
        let sum: u64 = segments.iter().flat_map(|s| s.candidate.values().chain(s.baseline.values())).sum();
        prop_assert_eq!(sum, outcomes.len() as u64);
    }

    #[test]
    fn the_interval_holds_the_estimate_of_balanced_arms_and_its_edges_are_where_evidence_says(
        outcomes in prop::collection::vec((0..=LEVELS, 0..=LEVELS), 10..120),
    ) {
        let both: Vec<(bool, u32)> = outcomes.iter().flat_map(|(a, b)| [(true, *a), (false, *b)]).collect();
        let segments = tally(&both, 5_000).segments();
        let (low, high) = interval(&segments, 0.05).unwrap();
        let middle = estimate(&segments).unwrap();
        prop_assert!(low <= middle + 1e-9 && middle <= high + 1e-9, "{} {} {}", low, middle, high);
        let needed = 40_f64.ln();
        prop_assert!(log_e(&segments, low + 1e-6, Difference::Above) < needed);
        prop_assert!(log_e(&segments, high - 1e-6, Difference::Below) < needed);
    }

    #[test]
    fn better_outcomes_are_more_evidence_for_better(
        outcomes in prop::collection::vec((any::<bool>(), 0..LEVELS), 1..15),
        which in any::<prop::sample::Index>(),
    ) {
        // Before the first centre is moved: one segment.
        let mut raised = outcomes.clone();
        let at = which.index(outcomes.len());
        raised[at].1 = if raised[at].0 { LEVELS } else { 0 };
        let e = |o: &[(bool, u32)]| log_e(&tally(o, 3_000).segments(), 0.01, Difference::Above);
        prop_assert!(e(&raised) >= e(&outcomes) - 1e-12);
    }
}
