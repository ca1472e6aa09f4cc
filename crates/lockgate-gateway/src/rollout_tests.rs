use super::*;

const MARGIN: LatencyMargin = LatencyMargin { factor: 1.0, floor_us: 0 };

fn meter(thresholds: Option<LatencyThresholds>, warmup_ms: u64) -> SplitMeter {
    let thresholds = Arc::new(ArcSwapOption::from_pointee(thresholds));
    SplitMeter::new(
        "pr_1",
        thresholds,
        BreakerOptions { units: 20, limit: 0.5 },
        Duration::from_millis(warmup_ms),
    )
}

fn thresholds() -> LatencyThresholds {
    LatencyThresholds {
        slo_us: Some(5000),
        rollback: LatencyMargin { factor: 2.0, floor_us: 100 },
        promote: LatencyMargin { factor: 4.0, floor_us: 100 },
        baseline_quantiles_us: [100, 200, u64::MAX],
        warmup_us: None,
    }
}

fn failed() -> Outcome {
    Outcome { error: Some(ErrorClass::Http5xx), ..Outcome::default() }
}

impl SplitMeter {
    fn see(&self, weight: u32, arm: Role, unit: u64, outcome: Outcome) {
        let cell = self.cell(weight, arm);
        let first = self.start((arm, &cell), unit, true, 0);
        self.record((arm, &cell), Drawn { unit, named: true, first }, 10_000_000, outcome);
    }

    fn segment(&self, weight: u32, arm: Role) -> SegmentStats {
        self.read().segments.into_iter().find(|s| (s.weight, s.arm) == (weight, arm)).unwrap()
    }
}

#[test]
fn a_units_first_error_counts_once_over_arms_and_weights() {
    let meter = meter(None, 0);
    (0..5).for_each(|_| meter.see(500, Role::Baseline, 7, failed()));
    // A larger weight moves the unit to the candidate, where it fails again.
    (0..5).for_each(|_| meter.see(5000, Role::Candidate, 7, failed()));
    let (before, after) = (meter.segment(500, Role::Baseline), meter.segment(5000, Role::Candidate));
    assert_eq!((before.requests, before.units, before.exposed, before.events.errors), (5, 1, 1, 1));
    assert_eq!((after.requests, after.units, after.exposed, after.events.errors), (5, 0, 1, 0));
    assert_eq!((before.errors.http_5xx, after.errors.http_5xx), (5, 5), "requests are counted apart");
}

#[test]
fn kinds_count_apart_and_clients_mistakes_are_no_errors() {
    let meter = meter(None, 0);
    meter.see(500, Role::Baseline, 7, Outcome { client_error: true, ..Outcome::default() });
    meter.see(500, Role::Baseline, 7, Outcome { error: Some(ErrorClass::Nonfinite), ..Outcome::default() });
    meter.see(500, Role::Baseline, 8, Outcome { abandoned: true, ..Outcome::default() });
    let seen = meter.segment(500, Role::Baseline);
    assert_eq!((seen.events.errors, seen.events.refused, seen.client_errors, seen.abandoned), (1, 2, 1, 1));
    assert_eq!(seen.events.first_bad, 2, "unit 7's first request was refused, unit 8 gave up");
    assert_eq!((seen.errors.nonfinite, seen.errors.total(), seen.units), (1, 1, 2));
}

#[test]
fn a_candidate_is_slow_beyond_its_margin_and_a_baseline_beyond_the_quantile() {
    let meter = meter(Some(thresholds()), 0);
    let took = |us| Outcome { latency_us: us, ..Outcome::default() };
    // (us - 100) / 2 > 100 needs more than 300; (us - 100) / 4 > 100 more than 500.
    for (unit, us) in [(1, 300), (2, 301), (3, 500), (4, 501), (5, 5001)] {
        meter.see(500, Role::Candidate, unit, took(us));
    }
    for (unit, us) in [(11, 100), (12, 101), (13, 201)] {
        meter.see(500, Role::Baseline, unit, took(us));
    }
    let candidate = meter.segment(500, Role::Candidate).events;
    assert_eq!((candidate.slow_rollback, candidate.slow_promote), ([4, 2, 0], [2, 1, 0]));
    assert_eq!(candidate.slow_slo, 1);
    let baseline = meter.segment(500, Role::Baseline).events;
    assert_eq!((baseline.slow_rollback, baseline.slow_promote, baseline.slow_slo), ([2, 1, 0], [2, 1, 0], 0));
}

#[test]
fn no_latency_counts_in_the_warm_up_but_errors_do() {
    warms_up(meter(Some(thresholds()), 1000));
    // What a guard says goes before the gateway's own setting.
    let longer = LatencyThresholds { warmup_us: Some(1_000_000), ..thresholds() };
    warms_up(meter(Some(longer), 5_000));
}

/// The warm-up takes a second.
fn warms_up(meter: SplitMeter) {
    let cell = meter.cell(500, Role::Candidate);
    let slow = Outcome { latency_us: 9999, ..failed() };
    for (unit, at) in [(1, 5_000_000), (2, 5_999_999), (3, 6_000_000)] {
        let first = meter.start((Role::Candidate, &cell), unit, true, at);
        meter.record((Role::Candidate, &cell), Drawn { unit, named: true, first }, at, slow);
    }
    let baseline = meter.cell(500, Role::Baseline);
    for (unit, at) in [(4, 4_000_000), (5, 5_999_999), (6, 6_000_000)] {
        let first = meter.start((Role::Baseline, &baseline), unit, true, at);
        meter.record((Role::Baseline, &baseline), Drawn { unit, named: true, first }, at, slow);
    }
    for arm in [Role::Candidate, Role::Baseline] {
        let events = meter.segment(500, arm).events;
        assert_eq!((events.slow_slo, events.errors), (1, 3), "{arm:?}");
    }
}

#[test]
fn answers_that_repeat_are_seen_per_arm() {
    let meter = meter(None, 0);
    let said = |hash| Outcome { answer: Some(hash), ..Outcome::default() };
    for unit in 0..10 {
        meter.see(500, Role::Candidate, unit, said(42));
        meter.see(500, Role::Baseline, 100 + unit, said(100 + unit));
    }
    assert_eq!(meter.segment(500, Role::Candidate).events.repeats, 9);
    assert_eq!(meter.segment(500, Role::Baseline).events.repeats, 0);
}

#[test]
fn too_many_units_stop_the_count_of_both_arms_and_say_so() {
    let meter = meter(None, 0);
    let hash = |u: u64| crate::assign::unit_hash(&u.to_le_bytes());
    (0..units::CAPACITY as u64).for_each(|u| meter.see(500, Role::Baseline, hash(u), Outcome::default()));
    assert!(!meter.read().saturated);
    meter.see(500, Role::Baseline, hash(u64::MAX), Outcome::default());
    meter.see(500, Role::Candidate, hash(1), failed());
    let stats = meter.read();
    assert!(stats.saturated);
    assert_eq!(meter.segment(500, Role::Baseline).units, units::CAPACITY as u64);
    let candidate = meter.segment(500, Role::Candidate);
    assert_eq!((candidate.requests, candidate.exposed, candidate.events.errors), (1, 0, 0));
}

#[test]
fn thresholds_that_make_no_sense_are_refused() {
    let good = LatencyThresholds { rollback: MARGIN, promote: MARGIN, ..thresholds() };
    assert!(good.check().is_ok());
    for factor in [0.0, 0.99, f64::NAN, f64::INFINITY] {
        assert!(
            LatencyThresholds { promote: LatencyMargin { factor, floor_us: 0 }, ..good }.check().is_err(),
            "{factor}"
        );
    }
    assert!(LatencyThresholds { baseline_quantiles_us: [2, 1, 3], ..good }.check().is_err());
}

#[test]
fn stats_survive_json() {
    let meter = meter(None, 0);
    meter.see(500, Role::Candidate, 1, Outcome { latency_us: 1234, ..failed() });
    let stats = meter.read();
    let text = serde_json::to_string(&stats).unwrap();
    assert_eq!(serde_json::from_str::<RolloutStats>(&text).unwrap(), stats);
}

#[test]
fn a_unit_meets_the_bound_by_its_first_request_only() {
    let meter = meter(Some(thresholds()), 0);
    let took = |us| Outcome { latency_us: us, ..Outcome::default() };
    for unit in 0..10 {
        meter.see(500, Role::Candidate, unit, took(100));
        meter.see(500, Role::Candidate, unit, took(9000));
    }
    meter.see(500, Role::Candidate, 99, took(9000));
    assert_eq!(meter.segment(500, Role::Candidate).events.slow_slo, 1);
}

#[test]
fn units_are_counted_where_they_are_drawn_and_not_when_they_are_answered() {
    let meter = meter(None, 0);
    let cell = meter.cell(500, Role::Candidate);
    assert!(meter.start((Role::Candidate, &cell), 7, true, 0));
    assert!(!meter.start((Role::Candidate, &cell), 7, true, 0), "it was here before");
    let seen = meter.segment(500, Role::Candidate);
    assert_eq!((seen.units, seen.exposed, seen.requests), (1, 1, 0));
}
