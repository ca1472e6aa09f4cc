//! How long a rollout will take at the traffic that is there, told before it starts.

use crate::view::{Forecast, ForecastRow};
use lockgate_core::goal::GoalSpec;
use lockgate_core::guard::GuardSpec;
use lockgate_core::plan::{OnInconclusive, Plan, Step};
use lockgate_core::route::WHOLE;
use lockgate_stats::betting::{Difference, outcomes_needed};
use lockgate_stats::forecast::{Traffic, not_worse, samples_agreeing};

/// The rate of bad answers that is assumed where none was measured yet.
const BASE_RATE: f64 = 0.001;

/// How often a healthy candidate's latency, made smaller by the margin, still exceeds the baseline's median: for
/// log-normal latency with a spread of 0.5, as in the house's simulations (specs/statistics-and-monitoring.md 5), and a
/// margin of 20 %, 36 % of requests instead of 50 %.
const SLOW_RATIO: f64 = 0.715;

/// One in so many mirrored requests is compared answer by answer.
const SAMPLED: f64 = 4.0;

/// By how much more than it must a candidate is supposed to gain, where a time is foretold.
const SUPPOSED: f64 = 0.05;

/// Slower than this and a person should be told of a faster way.
const PATIENCE: f64 = 600.0;

/// What `plan`'s rollout will take. `asked` is what a person expects, `measured` what the environment sees now, both in
/// requests per second; `seen` the requests and bad answers so far.
pub(crate) fn forecast(
    plan: &Plan,
    asked: Option<f64>,
    measured: Option<f64>,
    seen: Option<(u64, u64)>,
) -> Forecast {
    let (rate, basis) = match (asked, measured) {
        (Some(rate), _) => (rate, "as you said"),
        (None, Some(rate)) => (rate, "as measured now"),
        (None, None) => (0.0, "no traffic measured; say what you expect with --rps"),
    };
    let base = match seen {
        Some((requests, errors)) if requests >= 1000 => (errors as f64 / requests as f64).max(1e-6),
        _ => BASE_RATE,
    };
    let mut rows = Vec::new();
    let mut total = Some(0.0);
    for step in plan.rollout.steps.iter().filter(|s| s.is_judged()) {
        let (shadow, share) = (step.is_shadow(), share(step));
        let mut slowest = Some(step.hold_ms as f64 / 1000.0);
        for (guard, spec) in plan.rollout.guards.iter().filter(|(_, s)| s.is_required_in(step)) {
            let seconds = seconds(spec, rate, step, base, plan.rollout.alpha_promote);
            slowest = slowest.zip(seconds).map(|(a, b)| a.max(b));
            let outcomes = match spec {
                GuardSpec::Goal(goal) => outcomes(goal, share, SUPPOSED, plan.rollout.alpha_promote),
                _ => None,
            };
            rows.push(ForecastRow { share, shadow, guard: guard.clone(), seconds, outcomes });
        }
        total = total.zip(slowest).map(|(sum, s)| sum + s);
    }
    let mut advice = advice(plan, rate, base, total);
    advice.extend(plan.rollout.steps.iter().find(|s| s.ab).into_iter().flat_map(|s| goals(plan, share(s))));
    Forecast { rate, basis: basis.to_owned(), rows, total_seconds: total, advice }
}

/// The candidate's share of the traffic, or the share that is mirrored to it.
fn share(step: &Step) -> f64 {
    f64::from(step.weight.max(step.shadow)) / f64::from(WHOLE)
}

fn seconds(spec: &GuardSpec, rate: f64, step: &Step, base: f64, alpha: f64) -> Option<f64> {
    // A mirrored request counts for both sides: as two requests, of which each side gets one.
    let (units_per_second, share) =
        if step.is_shadow() { (2.0 * rate * share(step), 0.5) } else { (rate, share(step)) };
    let traffic = |base_rate, true_ratio| Traffic { units_per_second, share, base_rate, true_ratio };
    match spec {
        GuardSpec::Rate { worse_by, floor, .. } => {
            not_worse(&traffic(base, 1.0), 1.0 + worse_by, Some(*floor), alpha).map(|f| f.seconds)
        }
        // Three thresholds are merged by their mean, so the best of them needs three times the evidence.
        GuardSpec::Latency { .. } => {
            not_worse(&traffic(0.5, SLOW_RATIO), 1.0, None, alpha / 3.0).map(|f| f.seconds)
        }
        GuardSpec::Disagreement { max, .. } => {
            let samples = samples_agreeing(*max, alpha)?;
            let seconds = samples * SAMPLED / (rate * f64::from(step.shadow) / f64::from(WHOLE));
            seconds.is_finite().then_some(seconds)
        }
        GuardSpec::Goal(goal) => {
            let seconds = outcomes(goal, share, SUPPOSED, alpha)? / rate;
            seconds.is_finite().then_some(seconds)
        }
        GuardSpec::Constant { .. } => None,
    }
}

/// Outcomes of both sides that prove a goal whose gain is by so much larger than it must be; one that only excludes a loss, of
/// equal sides. For a baseline whose mean is in the middle, where outcomes scatter most.
fn outcomes(goal: &GoalSpec, share: f64, by: f64, alpha: f64) -> Option<f64> {
    let truth = if goal.asks_for_gain() { goal.gain + by } else { 0.0 };
    let needed = outcomes_needed(share, 0.5 - truth / 2.0, truth, goal.gain, Difference::Above, alpha)?;
    // More than two figures would promise too much.
    let unit = 10_f64.powf(needed.max(1.0).log10().floor() - 1.0).max(1.0);
    Some((needed / unit).ceil() * unit)
}

/// What a goal takes, in words.
fn goals(plan: &Plan, share: f64) -> Vec<String> {
    let goals = plan.rollout.guards.iter().filter_map(|(name, spec)| match spec {
        GuardSpec::Goal(goal) => Some((name, goal)),
        _ => None,
    });
    goals
        .map(|(name, goal)| {
            let need = |by: f64| {
                let count = outcomes(goal, share, by, plan.rollout.alpha_promote);
                count.map_or_else(|| "no number of".to_owned(), |n| format!("about {n:.0}"))
            };
            let points = |by: f64| format!("{:.0}", (goal.gain + by) * 100.0);
            let what = if goal.asks_for_gain() {
                format!(
                    "{} outcomes prove a gain of {} points, {} one of {}, {} one of {}",
                    need(0.1),
                    points(0.1),
                    need(SUPPOSED),
                    points(SUPPOSED),
                    need(0.02),
                    points(0.02)
                )
            } else {
                format!("{} outcomes prove a loss below {:.1} points, if there is none", need(0.0), -goal.gain * 100.0)
            };
            format!(
                "guard {name}: {what} (of both sides together; fewer where the mean is far from the middle). Its times suppose that \
                 every request is another unit's and gets an outcome"
            )
        })
        .collect()
}

/// How long the slowest guard takes in a step.
fn slowest(plan: &Plan, rate: f64, step: &Step, base: f64) -> Option<f64> {
    let guards = plan.rollout.guards.values().filter(|s| s.is_required(step.is_shadow()));
    guards
        .map(|s| seconds(s, rate, step, base, plan.rollout.alpha_promote))
        .try_fold(0.0_f64, |worst, s| s.map(|s| worst.max(s)))
}

fn advice(plan: &Plan, rate: f64, base: f64, total: Option<f64>) -> Vec<String> {
    let budget: f64 = plan
        .rollout
        .steps
        .iter()
        .filter(|s| s.is_judged())
        .map(|s| (s.hold_ms + plan.rollout.deadline_ms) as f64 / 1000.0)
        .sum();
    if !plan.rollout.steps.iter().any(Step::is_judged)
        || rate <= 0.0
        || total.is_some_and(|t| t <= PATIENCE.min(budget))
    {
        return Vec::new();
    }
    let outcome = match plan.rollout.on_inconclusive {
        OnInconclusive::Hold => "holds and asks a person",
        OnInconclusive::Rollback => "goes back",
    };
    let mut advice = vec![match total {
        Some(t) => format!(
            "at {rate:.1} requests/s the guards need about {:.0} min, and a step waits {:.0} min at most: it then {outcome}",
            t / 60.0,
            plan.rollout.deadline_ms as f64 / 60_000.0
        ),
        None => {
            format!("at {rate:.1} requests/s the guards can't decide: the rollout {outcome} at its deadline")
        }
    }];
    if let Some(half) = slowest(plan, rate, &Step::live(WHOLE / 2, 0), base)
        && plan.rollout.steps.first().map_or(0.0, share) < 0.5
    {
        advice.push(format!(
            "larger steps decide sooner: one step of 50% would take about {:.0} min",
            half / 60.0
        ));
    }
    advice.push(
        "a replay gate decides without waiting for traffic: record requests and replay them before the rollout"
            .to_owned(),
    );
    if !plan.rollout.steps.iter().any(Step::is_shadow)
        && let Some(whole) = slowest(plan, rate, &Step::mirroring(WHOLE, 0), base)
    {
        advice.push(format!(
            "a shadow step compares both releases on every request, and no user gets the new one's answers: [\"shadow 100% for \
             10m\", \"100%\"] would take about {:.0} min",
            whole / 60.0
        ));
    }
    advice
}
