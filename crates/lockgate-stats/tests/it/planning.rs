//! Fixture 13, the promotion page's numbers, and the expected path beside the exact means of fixture 06b.

use crate::{assert_close, assert_within, fixture};
use lockgate_stats::forecast::{self, Traffic};
use lockgate_stats::rate::{self, Bound};
use lockgate_stats::thinning::Side;
use serde::Deserialize;

#[derive(Deserialize)]
struct Fixture {
    planning: Vec<Planned>,
}

#[derive(Deserialize)]
struct Planned {
    w: f64,
    rho_true: f64,
    rho0: f64,
    alpha: f64,
    base_error: f64,
    oracle_events: f64,
    oracle_requests: f64,
}

#[test]
fn oracle_matches_the_reference() {
    let reference: Fixture = fixture("13_cuped_planning");
    assert_eq!(reference.planning.len(), 12);
    for row in &reference.planning {
        let name = format!("w={} r={}", row.w, row.rho_true);
        let events = forecast::oracle_events(row.w, row.rho0, row.rho_true, row.alpha).unwrap();
        assert_close(events, row.oracle_events, &name);
        let requests = forecast::requests(events, row.w, row.rho_true, row.base_error).unwrap();
        assert_close(requests, row.oracle_requests, &name);
        let expected = forecast::events(row.w, row.rho0, row.rho_true, Side::Worse, row.alpha).unwrap();
        assert!(expected > events, "{name}: nothing beats the oracle");
    }
}

#[test]
fn events_for_not_worse_are_those_of_the_promotion_page() {
    for (share, page) in [(0.05, 929.0), (0.1, 501.0), (0.5, 208.0)] {
        let ours = forecast::events(share, 1.5, 1.0, Side::NotWorse, 0.05).unwrap();
        assert_within(ours, page, 0.03, &format!("share {share}"));
    }
}

#[test]
fn events_for_worse_are_near_the_exact_mean() {
    // Mean events at crossing, fixture 06b (rows where practically every run has crossed).
    for (share, ratio, exact) in [
        (0.05, 2.0, 243.7),
        (0.05, 4.0, 49.4),
        (0.1, 2.0, 135.8),
        (0.5, 1.5, 185.5),
        (0.5, 2.0, 70.3),
        (0.5, 4.0, 23.5),
    ] {
        let ours = forecast::events(share, 1.0, ratio, Side::Worse, 0.05).unwrap();
        assert_within(ours, exact, 0.15, &format!("share {share}, ratio {ratio}"));
    }
}

#[test]
fn times_are_those_of_the_promotion_page() {
    let at = |rps, share| {
        let traffic = Traffic { units_per_second: rps, share, base_rate: 0.005, true_ratio: 1.0 };
        forecast::not_worse(&traffic, 1.5, None, 0.05).unwrap().seconds / 60.0
    };
    // The page's own simulation: 556, 54 (54 x 10 = 540) and 7 minutes; 114 and 15 minutes.
    for (ours, page) in
        [(at(5.0, 0.05), 556.0), (at(50.0, 0.05), 54.0), (at(5.0, 0.5), 114.0), (at(50.0, 0.5), 15.0)]
    {
        assert_within(ours, page, 0.20, "minutes");
    }
}

#[test]
fn floor_shortens_the_wait_of_a_clean_candidate() {
    let clean = Traffic { units_per_second: 50.0, share: 0.1, base_rate: 0.0002, true_ratio: 1.0 };
    let by_ratio = forecast::not_worse(&clean, 1.5, None, 0.05).unwrap();
    let with_floor = forecast::not_worse(&clean, 1.5, Some(0.005), 0.05).unwrap();
    assert!(with_floor.seconds < by_ratio.seconds / 10.0, "{with_floor:?} {by_ratio:?}");
    assert_within(with_floor.seconds * 50.0, with_floor.units, 1e-9, "units");
    let silent = Traffic { base_rate: 0.0, ..clean };
    assert_eq!(forecast::not_worse(&silent, 1.5, None, 0.05), None, "no events, no ratio");
    assert!(forecast::not_worse(&silent, 1.5, Some(0.005), 0.05).is_some());
}

#[test]
fn units_below_the_floor_are_enough_and_not_too_many() {
    let units = forecast::units_below_floor(0.0, 0.005, 0.05).unwrap().ceil() as u64;
    let needed = 20f64.ln();
    assert!(rate::log_e(0, units, 0.005, Bound::Below) >= needed);
    assert!(rate::log_e(0, units - 1, 0.005, Bound::Below) < needed);
    assert!((600..1500).contains(&units), "{units}: at least ln(20)/0.005 = 599");
    assert_eq!(forecast::units_below_floor(0.005, 0.005, 0.05), None);
    assert_eq!(forecast::units_below_floor(0.01, 0.005, 0.05), None);
}

#[test]
fn what_cannot_be_decided_is_never() {
    for (share, ratio, truth, side) in [
        (0.5, 1.0, 1.0, Side::Worse),
        (0.5, 1.5, 1.5, Side::NotWorse),
        (0.5, 1.5, 2.0, Side::NotWorse),
        (0.5, 1.2, 1.0, Side::Worse),
        (0.0, 1.0, 2.0, Side::Worse),
        (1.0, 1.0, 2.0, Side::Worse),
        (f64::NAN, 1.0, 2.0, Side::Worse),
        (0.5, f64::NAN, 2.0, Side::Worse),
        (0.5, 1.0, f64::NAN, Side::Worse),
    ] {
        assert_eq!(
            forecast::events(share, ratio, truth, side, 0.05),
            None,
            "{share} {ratio} {truth} {side:?}"
        );
    }
    let good = Traffic { units_per_second: 5.0, share: 0.5, base_rate: 0.01, true_ratio: 3.0 };
    assert!(forecast::worse(&good, 1.2, 0.05).is_some());
    for bad in [
        Traffic { units_per_second: 0.0, ..good },
        Traffic { units_per_second: f64::NAN, ..good },
        Traffic { share: 0.0, ..good },
        Traffic { base_rate: f64::NAN, ..good },
        Traffic { base_rate: 0.5, ..good },
        Traffic { true_ratio: -1.0, ..good },
    ] {
        assert_eq!(forecast::worse(&bad, 1.2, 0.05), None, "{bad:?}");
    }
    for alpha in [0.0, 1.0, f64::NAN] {
        assert_eq!(forecast::worse(&good, 1.2, alpha), None);
    }
    assert_eq!(forecast::requests(10.0, 0.5, 1.0, 0.0), None);
    assert_eq!(forecast::oracle_events(0.5, 1.5, 1.5, 0.05), None);
}
