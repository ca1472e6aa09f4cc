//! Fixture 06b: the exact probability that the evidence ever reaches 1/alpha, by dynamic programming.

use crate::{assert_within, fixture};
use lockgate_stats::thinning::{self, Segment, Side};
use serde::Deserialize;

#[derive(Deserialize)]
struct Fixture {
    rows: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    w: f64,
    rho0: f64,
    rho_true: f64,
    alpha: f64,
    #[serde(rename = "N_events")]
    n_events: u64,
    #[serde(rename = "P_cross")]
    p_cross: f64,
    mean_events_at_cross: f64,
    by_n: Vec<(u64, f64)>,
}

/// P(crossed within n events) for n = 0, 1, …
fn crossed_by(row: &Row) -> Vec<f64> {
    let p = row.w * row.rho_true / (row.w * row.rho_true + 1.0 - row.w);
    let needed = -row.alpha.ln();
    let crosses = |candidate: u64, n: u64| {
        let segment = Segment { weight: row.w, candidate_events: candidate, baseline_events: n - candidate };
        thinning::log_e(&[segment], row.rho0, Side::Worse) >= needed
    };
    // alive[a]: probability of a candidate's events so far without having crossed. At a given n the evidence grows with a,
    // and the border only moves up, so one comparison or two per n find it.
    let mut alive = vec![1.0];
    let mut border = 1;
    let mut crossed = vec![0.0];
    for n in 1..=row.n_events {
        let mut next = vec![0.0; alive.len() + 1];
        for (a, mass) in alive.iter().enumerate() {
            next[a] += mass * (1.0 - p);
            next[a + 1] += mass * p;
        }
        while border <= n && !crosses(border, n) {
            border += 1;
        }
        let lost: f64 = next.split_off(next.len().min(border as usize)).iter().sum();
        crossed.push(crossed.last().unwrap() + lost);
        alive = next;
    }
    crossed
}

#[test]
fn probability_of_ever_crossing_is_exact() {
    let reference: Fixture = fixture("06b_thinning_exact_crossing");
    assert_eq!(reference.rows.len(), 16);
    let mut nulls = 0;
    for row in &reference.rows {
        let name = format!("w={} r0={} r={}", row.w, row.rho0, row.rho_true);
        let crossed = crossed_by(row);
        let ever = *crossed.last().unwrap();
        assert_within(ever, row.p_cross, 1e-6, &name);
        for &(n, probability) in &row.by_n {
            assert_within(crossed[n as usize], probability, 1e-6, &format!("{name} by {n}"));
        }
        let mean =
            crossed.windows(2).enumerate().map(|(i, p)| (i + 1) as f64 * (p[1] - p[0])).sum::<f64>() / ever;
        assert_within(mean, row.mean_events_at_cross, 1e-6, &format!("{name}: mean"));
        if row.rho_true <= row.rho0 {
            nulls += 1;
            assert!(ever <= row.alpha, "{name}: a false alarm in {ever} of runs");
        }
    }
    assert_eq!(nulls, 4);
}
