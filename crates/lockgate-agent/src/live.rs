//! What is seen right now: the gateway's counts for the judge, and a view for people.

use crate::judge::{Counts, Evidence, Shadow, Weighed};
use crate::{Shared, inline, routing};
use lockgate_core::gate::Outcome;
use lockgate_core::guard::{GuardSpec, Judgement, Verdict};
use lockgate_core::id::{ModelName, PromotionId};
use lockgate_core::plan::{Plan, Revision, Switch};
use lockgate_core::rollout::{Deployment, Leg, Phase, Rollout, Status};
use lockgate_core::route::{Role, RouteTable, WHOLE};
use lockgate_core::wire::{Live, LiveModel, LiveRollout, LiveSide};
use lockgate_gateway::{
    Gateway, LatencyMargin, LatencyThresholds, RolloutStats, SegmentStats, ShadowStats, SideTotals,
};
use lockgate_stats::histogram::{Histogram, edge_at_or_above};
use std::collections::BTreeMap;

/// The baseline's quantiles are believed from this many requests on.
const BELIEVED: u64 = 200;

/// The gateway's counts as the judge wants them; `is_shadow` is whether the present step mirrors requests.
pub(crate) fn evidence(stats: &RolloutStats, compared: bool, is_shadow: bool) -> Evidence {
    let thresholds = |shadow| baseline_latency(stats, shadow).total() >= BELIEVED;
    let shadow = stats.shadow.map_or_else(
        || no_evidence(is_shadow).shadow,
        |s| {
            Some(Shadow {
                is_now: is_shadow,
                weights: weighed(stats, true),
                saturated: s.saturated,
                thresholds: thresholds(true),
                samples: s.samples,
                differed: s.differed,
                noise: s.noise,
            })
        },
    );
    Evidence {
        weights: weighed(stats, false),
        saturated: stats.saturated,
        compared,
        thresholds: thresholds(false),
        shadow,
    }
}

/// What the judge gets where nothing was counted yet.
pub(crate) fn no_evidence(is_shadow: bool) -> Evidence {
    let shadow = is_shadow.then(|| Shadow { is_now: true, ..Shadow::default() });
    Evidence { shadow, ..Evidence::default() }
}

fn weighed(stats: &RolloutStats, shadow: bool) -> Vec<Weighed> {
    let mut weights: BTreeMap<u32, Weighed> = BTreeMap::new();
    for segment in stats.segments.iter().filter(|s| s.shadow == shadow) {
        let slot = weights.entry(segment.weight).or_insert_with(|| Weighed {
            weight: share(segment.weight),
            candidate: Counts::default(),
            baseline: Counts::default(),
        });
        match segment.arm {
            Role::Candidate => slot.candidate = counts(segment),
            Role::Baseline => slot.baseline = counts(segment),
            Role::Backup => {}
        }
    }
    weights.into_values().collect()
}

/// Requests of users that were assigned to the candidate, or those that were mirrored to it, and bad answers among them.
#[must_use]
pub fn candidate_totals(stats: &RolloutStats, shadow: bool) -> (u64, u64) {
    let candidate = stats.segments.iter().filter(|s| s.arm == Role::Candidate && s.shadow == shadow);
    candidate.fold((0, 0), |(requests, bad), s| (requests + s.requests, bad + s.errors.total()))
}

/// What the gateway's own breaker saw, if it opened.
#[must_use]
pub fn breaker(stats: &RolloutStats) -> Option<String> {
    let ended_shadow = stats.shadow.is_some_and(|s| s.breaker_open);
    if !stats.breaker_open && !ended_shadow {
        return None;
    }
    let (requests, errors) = candidate_totals(stats, !stats.breaker_open);
    if requests == 0 {
        // It was opened by what the agent before this one had counted.
        return Some("the gateway's own breaker had opened before this agent took over".to_owned());
    }
    let what = if stats.breaker_open { "requests to" } else { "requests mirrored to" };
    Some(format!("the gateway's own breaker opened: {errors} of {requests} {what} the candidate failed"))
}

fn counts(s: &SegmentStats) -> Counts {
    Counts {
        drawn: s.units,
        units: s.exposed,
        errors: s.events.errors,
        refused: s.events.refused,
        requests: s.requests,
        first_bad: s.events.first_bad,
        unexamined: s.events.unexamined,
        slow_rollback: s.events.slow_rollback,
        slow_promote: s.events.slow_promote,
        slow_slo: s.events.slow_slo,
        repeats: s.events.repeats,
    }
}

fn share(weight: u32) -> f64 {
    f64::from(weight) / f64::from(WHOLE)
}

fn baseline_latency(stats: &RolloutStats, shadow: bool) -> Histogram {
    let mut all = Histogram::new();
    for segment in stats.segments.iter().filter(|s| s.arm == Role::Baseline && s.shadow == shadow) {
        all.merge(&segment.latency);
    }
    all
}

/// What counts as slow from now on: by the plan's latency guard and what the baseline did so far, in requests of the kind that
/// the present step is about.
pub(crate) fn thresholds(stats: &RolloutStats, plan: &Plan, is_shadow: bool) -> Option<LatencyThresholds> {
    let (p99_ms, worse_by, rollback_by, floor_ms, warmup_ms) =
        plan.rollout.guards.values().find_map(|g| match g {
            GuardSpec::Latency { p99_ms, worse_by, rollback_by, floor_ms, warmup_ms } => {
                Some((*p99_ms, *worse_by, *rollback_by, *floor_ms, *warmup_ms))
            }
            GuardSpec::Rate { .. }
            | GuardSpec::Constant { .. }
            | GuardSpec::Disagreement { .. }
            | GuardSpec::Goal(_) => None,
        })?;
    let micros = |ms: f64| (ms * 1000.0).clamp(0.0, 1e15) as u64;
    let latency = baseline_latency(stats, is_shadow);
    let quantile = |q: f64| match latency.quantile(q) {
        Some(us) if latency.total() >= BELIEVED => edge_at_or_above(us),
        _ => u64::MAX,
    };
    let margin = |by: f64| LatencyMargin { factor: 1.0 + by, floor_us: micros(floor_ms) };
    Some(LatencyThresholds {
        slo_us: p99_ms.map(micros),
        rollback: margin(rollback_by),
        promote: margin(worse_by),
        warmup_us: warmup_ms.map(|ms| ms.saturating_mul(1000)),
        baseline_quantiles_us: [quantile(0.5), quantile(0.9), quantile(0.99)],
    })
}

/// The view for people.
pub(crate) fn view(
    shared: &Shared,
    deployments: &BTreeMap<ModelName, Deployment>,
    judgements: &BTreeMap<ModelName, Judgement>,
    table: &RouteTable,
) -> Live {
    let models = deployments
        .iter()
        .map(|(name, deployment)| {
            let mirrors = deployment.traffic().shadow > 0;
            let stats = if mirrors { shared.gateway.stats(name) } else { None };
            let rollout = rollout(shared, deployment, stats.as_ref(), judgements.get(name));
            let mut sides = sides(shared, name, deployment);
            let serving = deployment.serving.as_ref().map(|s| s.revision.release);
            let is_routed = table.models.get(name).is_some_and(|route| route.inline);
            let own = sides.iter_mut().find(|s| s.role == Role::Baseline && Some(s.release) == serving);
            if let Some(side) = own {
                side.lane = inline::words(shared, deployment, is_routed);
            }
            let model = LiveModel { epoch: table.epoch, sides, rollout };
            (name.clone(), model)
        })
        .collect();
    Live {
        at: shared.clock.now_ms(),
        gateway: shared.gateway_url.clone(),
        isolation: shared.isolation.clone(),
        doing: shared.fleet.notes().into_iter().chain(deployments.values().filter_map(drill)).collect(),
        models,
    }
}

fn sides(shared: &Shared, model: &ModelName, deployment: &Deployment) -> Vec<LiveSide> {
    // In a drill, and with a hold-out, people see where users are; otherwise what serves, also on probation, where it is routed as
    // a candidate.
    let held_out = routing::plan(deployment).is_some_and(|plan| plan.rollout.holdout > 0);
    let drilled = deployment.drill.is_some();
    let traffic = if drilled || held_out { deployment.routed() } else { deployment.traffic() };
    let candidate_share = traffic.split.map_or(0.0, |(_, weight, _)| share(weight));
    let main_is_backup = traffic.main.zip(traffic.backup).is_some_and(|(m, b)| m.digest() == b.digest());
    let mut sides = Vec::new();
    let mut add = |role: Role, revision: &Revision, share: f64| {
        sides.push(side(&shared.gateway, shared, model, role, revision, share))
    };
    if let Some((revision, weight, _)) = traffic.split {
        add(Role::Candidate, revision, self::share(weight));
    }
    if let Some(main) = traffic.main {
        add(Role::Baseline, main, 1.0 - candidate_share);
    }
    let away = deployment.serving.as_ref().filter(|s| drilled && traffic.main != Some(&s.revision));
    if let Some(serving) = away {
        add(Role::Baseline, &serving.revision, 0.0);
    }
    if let Some(backup) = traffic.backup.filter(|_| !main_is_backup) {
        add(Role::Backup, backup, 0.0);
    }
    sides
}

fn side(
    gateway: &Gateway,
    shared: &Shared,
    model: &ModelName,
    role: Role,
    revision: &Revision,
    share: f64,
) -> LiveSide {
    let mut requests = 0;
    let mut errors = 0;
    let mut latency = Histogram::new();
    // On probation what serves is still counted as the candidate that it was.
    let counted = |t: &SideTotals| {
        t.release == revision.release
            && (t.role == role || (role == Role::Baseline && t.role == Role::Candidate))
    };
    for totals in gateway.totals(model).into_iter().filter(counted) {
        requests += totals.requests;
        errors += totals.errors.total();
        latency.merge(&totals.latency);
    }
    let ms = |q: f64| latency.quantile(q).map(|us| us as f64 / 1000.0);
    let workers = shared.fleet.count(revision);
    let trouble = match shared.fleet.readiness(revision) {
        lockgate_core::rollout::Readiness::Failed(why) => Some(why),
        _ => shared.fleet.trouble(revision),
    };
    let taken = shared.taking.of(&revision.digest());
    LiveSide {
        role,
        release: revision.release,
        model_version: revision.model_version,
        share,
        workers,
        requests,
        errors,
        p50_ms: ms(0.5),
        p99_ms: ms(0.99),
        trouble,
        lane: None,
        resident_bytes: taken.map(|t| t.resident),
        cpu_cores: taken.and_then(|t| t.cores),
    }
}

fn rollout(
    shared: &Shared,
    deployment: &Deployment,
    stats: Option<&RolloutStats>,
    judgement: Option<&Judgement>,
) -> Option<LiveRollout> {
    let (active, now) = (deployment.active.as_ref()?, shared.clock.now_ms());
    let steps = active.plan.rollout.steps.len();
    let (phase, weight, since) = match &active.phase {
        Phase::Preparing { .. } => {
            let doing = shared.fleet.note(&active.plan.revision.release);
            (doing.unwrap_or_else(|| "loading and warming the release".to_owned()), 0, None)
        }
        Phase::Step { index, status } => {
            let (weight, shadow) =
                active.plan.rollout.steps.get(*index).map_or((0, 0), |s| (s.weight, s.shadow));
            let (words, since) = match status {
                Status::Settling => ("gateways are applying it".to_owned(), None),
                Status::Watching { since } => ("watching".to_owned(), Some(*since)),
                Status::Held { since, reason } => (format!("held: {reason}"), Some(*since)),
                Status::Paused { .. } => ("paused by a person; guards go on".to_owned(), None),
            };
            let what = if active.preview().is_some() {
                preview(active)
            } else if shadow > 0 {
                let seen = stats.filter(|s| s.salt == active.promotion.as_str()).and_then(|s| s.shadow);
                mirrored(shadow, &seen.unwrap_or_default())
            } else {
                let test = active.plan.rollout.steps.get(*index).is_some_and(|s| s.ab);
                format!(
                    "{}{}% of the traffic",
                    if test { "A/B test with " } else { "" },
                    share(weight) * 100.0
                )
            };
            (format!("step {} of {steps}, {what}: {words}", index + 1), weight, since)
        }
        Phase::RollingBack { cause, .. } => (format!("going back: {}", cause.summary()), 0, None),
        Phase::FailingOver { summary } => (format!("failing over: {summary}"), 0, None),
    };
    let judgement = judgement.cloned().unwrap_or_else(Judgement::none);
    let seconds_to_verdict = since.and_then(|since| expected(&judgement, (now - since) as f64 / 1000.0));
    let promotion: PromotionId = active.promotion.clone();
    Some(LiveRollout { promotion, phase, share: share(weight), judgement, seconds_to_verdict })
}

/// A drill in words.
fn drill(deployment: &Deployment) -> Option<String> {
    let drill = deployment.drill.as_ref()?;
    let (model, target) = (&deployment.model, drill.target.model_version);
    Some(match drill.leg {
        Leg::Leaving | Leg::Away { .. } => {
            format!("drill of {model}: all traffic is v{target}'s for a moment")
        }
        Leg::Returning { .. } => format!("drill of {model}: traffic comes home from v{target}"),
    })
}

/// A preview step in words.
fn preview(active: &Rollout) -> String {
    let smoke = match (&active.plan.rollout.smoke, &active.smoke) {
        (None, _) => "no smoke test",
        (Some(_), Some(smoke)) if smoke.outcome == Outcome::Pass => "smoke test passed",
        (Some(_), Some(_)) => "smoke test FAILED",
        (Some(_), None) => "smoke test under way",
    };
    let hand = match (active.preview(), active.switch) {
        (Some(Switch::ByHand), false) => ", a person switches",
        (Some(Switch::ByHand), true) => ", a person has said that it may switch",
        _ => "",
    };
    format!("preview, no user yet ({smoke}{hand})")
}

/// A shadow step in words.
fn mirrored(share: u32, seen: &ShadowStats) -> String {
    let ShadowStats { mirrored, dropped, streaming, samples, differed, noise, .. } = seen;
    let mut words = format!("shadow {}% (mirrored {mirrored}, dropped {dropped}", self::share(share) * 100.0);
    if *streaming > 0 {
        words.push_str(&format!(", too large {streaming}"));
    }
    if samples.total() > 0 {
        words.push_str(&format!(", disagreements {differed} of {} sampled, noise {noise}", samples.total()));
    }
    words.push(')');
    words
}

/// How long until the slowest required guard has what it needs, if evidence goes on growing as it did.
fn expected(judgement: &Judgement, seconds: f64) -> Option<f64> {
    let mut longest: f64 = 0.0;
    for reading in judgement.readings.iter().filter(|r| r.required && r.verdict != Verdict::NotWorse) {
        let progress = reading.log_e_not_worse / reading.needed;
        // Too little evidence, or evidence to the contrary, foretells nothing.
        if !(progress.is_finite() && progress > 0.05) {
            return None;
        }
        longest = longest.max(seconds * (1.0 - progress) / progress);
    }
    (longest > 0.0).then_some(longest)
}
