//! From the gateway's counts to verdicts: exactly the rule of specs/statistics-and-monitoring.md 2.1 and 2.5 to 2.7. Pure.
//!
//! One event per unit and guard counts, the first. Evidence that the candidate is worse is merged over all guards, and only
//! the merged evidence rolls back; a promotion needs every required guard by itself. What isn't known is *unknown*.
//!
//! Mirrored requests are evidence of their own. While a step mirrors, they alone are looked at; later they prove nothing for a
//! share of users any more (they were answered without anybody waiting), but harm that they showed is not forgotten: a
//! guard's evidence for *worse* is then the mean of both kinds', which is an e-value as both are.
//!
//! Each mirrored request counts for both arms, so the candidate's share is 0.5, and its two outcomes are not independent. The
//! thinning test stays valid: with the factors `f` for an event of the candidate and `g` for one of the baseline, the mean
//! factor of a pair is `1 + c (f-1) + b (g-1) + d (f-1)(g-1)`, where `c` and `b` are the arms' rates and `d` that of an event in
//! both. One factor is above 1 and one below, so the last term is never positive, and what remains is the mean for arms that
//! are independent. It is conservative by as much as the arms fail together.

use lockgate_core::goal::GoalReading;
use lockgate_core::guard::{GuardSpec, Judgement, Reading, SegmentCount, Verdict};
use lockgate_core::id::GuardName;
use lockgate_core::plan::RolloutPlan;
use lockgate_stats::decision::{
    Budget, GuardEvidence, Look, Overall, Peaks, Role, Verdict as Proven, decide, log_needed,
};
use lockgate_stats::disagreement::{self, Samples};
use lockgate_stats::rate::{self, Bound};
use lockgate_stats::thinning::{self, Segment, Side};
use lockgate_stats::{latency, merge, srm};
use std::collections::BTreeMap;

/// From how many units on a share's own rate is believed.
const KNOWN: u64 = 100;

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
    /// Units that got an answer that could not be looked at.
    pub unexamined: u64,
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
    /// The candidate's share, 0 to 1; of mirrored requests, the share that was mirrored.
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
    /// What mirrored requests said, where the rollout has a step that mirrors.
    pub shadow: Option<Shadow>,
}

/// What mirrored requests said.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Shadow {
    /// Whether the present step mirrors.
    pub is_now: bool,
    /// One entry for each share that was mirrored.
    pub weights: Vec<Weighed>,
    /// Whether the gateway had to stop counting units.
    pub saturated: bool,
    /// Whether the baseline's latency was known well enough to set thresholds by.
    pub thresholds: bool,
    /// Answers that were compared.
    pub samples: Samples,
    /// Answers of the candidate that differed.
    pub differed: u64,
    /// Second answers of the baseline that differed from its first.
    pub noise: u64,
}

/// Requests of one kind: users' or mirrored ones.
#[derive(Debug, Clone, Copy)]
struct Seen<'a> {
    weights: &'a [Weighed],
    compared: bool,
    thresholds: bool,
    /// Of mirrored requests, what else is known of them.
    shadow: Option<&'a Shadow>,
    /// Of users' requests, what mirrored ones told before.
    before: &'a [Weighed],
}

/// What outcomes said that came after their predictions.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Goals {
    /// Whether the present step waits for them.
    pub needed: bool,
    /// Each goal's numbers; none where nothing is known yet.
    pub numbers: BTreeMap<GuardName, GoalNumbers>,
    /// The most evidence there ever was that the units that were assigned, or whose outcome came, don't fit the shares.
    pub mismatches: Vec<f64>,
}

/// One goal's numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct GoalNumbers {
    /// Evidence that the candidate is worse by more than the margin.
    pub worse: f64,
    /// Evidence that its gain is as large as it must be.
    pub not_worse: f64,
    /// What both were made from.
    pub reading: GoalReading,
    /// One sentence with the counts.
    pub words: String,
}

/// One guard's numbers.
struct Numbers {
    worse: f64,
    not_worse: f64,
    below_floor: Option<f64>,
    segments: Vec<SegmentCount>,
    words: String,
}

impl Numbers {
    /// Of a goal.
    fn of(goal: Option<&GoalNumbers>) -> Self {
        let (worse, not_worse) = goal.map_or((0.0, 0.0), |g| (g.worse, g.not_worse));
        let words = goal.map_or_else(|| "no outcomes are known yet".to_owned(), |g| g.words.clone());
        Self { worse, not_worse, below_floor: None, segments: Vec::new(), words }
    }
}

impl Evidence {
    fn live(&self) -> Seen<'_> {
        let Self { weights, compared, thresholds, .. } = self;
        let before = self.shadow.as_ref().map_or(&[][..], |s| &s.weights);
        Seen { weights, compared: *compared, thresholds: *thresholds, shadow: None, before }
    }

    fn mirrored(&self) -> Option<Seen<'_>> {
        let shadow = self.shadow.as_ref()?;
        let Shadow { weights, thresholds, .. } = shadow;
        Some(Seen {
            weights,
            compared: self.compared,
            thresholds: *thresholds,
            shadow: Some(shadow),
            before: &[],
        })
    }

    fn is_shadow(&self) -> bool {
        self.shadow.as_ref().is_some_and(|s| s.is_now)
    }

    /// What the present step is about.
    fn now(&self) -> Seen<'_> {
        self.mirrored().filter(|_| self.is_shadow()).unwrap_or_else(|| self.live())
    }

    fn is_saturated(&self) -> bool {
        if self.is_shadow() { self.shadow.as_ref().is_some_and(|s| s.saturated) } else { self.saturated }
    }
}

impl Seen<'_> {
    /// The candidate's share of what counts. A mirrored request counts once for each arm.
    fn share(&self, weighed: &Weighed) -> f64 {
        if self.shadow.is_some() { 0.5 } else { weighed.weight }
    }

    fn segments(&self, of: impl Fn(&Counts) -> u64) -> Vec<Segment> {
        self.paired(|w| (of(&w.candidate), of(&w.baseline)))
    }

    /// The candidate's events and the baseline's.
    fn paired(&self, of: impl Fn(&Weighed) -> (u64, u64)) -> Vec<Segment> {
        let segment = |w: &Weighed| {
            let (candidate_events, baseline_events) = of(w);
            Segment { weight: self.share(w), candidate_events, baseline_events }
        };
        self.shared().map(segment).collect()
    }

    /// What there was where both sides could be met: in a preview only the baseline was.
    fn shared(&self) -> impl Iterator<Item = &Weighed> {
        self.weights.iter().filter(|w| self.share(w) > 0.0)
    }

    fn sum(&self, of: impl Fn(&Weighed) -> u64) -> u64 {
        self.weights.iter().map(of).sum()
    }
}

/// Judges a rollout by its requests alone. `peaks` are the largest evidence so far; they are updated.
#[must_use]
pub fn judge(plan: &RolloutPlan, evidence: &Evidence, peaks: &mut Peaks) -> Judgement {
    judge_with(plan, evidence, &Goals::default(), peaks)
}

/// Judges a rollout by its requests, and by what came of them.
#[must_use]
pub fn judge_with(plan: &RolloutPlan, evidence: &Evidence, goals: &Goals, peaks: &mut Peaks) -> Judgement {
    let budget = Budget {
        alpha_rollback: plan.alpha_rollback,
        alpha_promote: plan.alpha_promote,
        alpha_sample_ratio: plan.alpha_sample_ratio,
    };
    let weight = 1.0 / plan.guards.len().max(1) as f64;
    let numbers: Vec<(&GuardName, &GuardSpec, Numbers)> =
        plan.guards.iter().map(|(name, spec)| (name, spec, numbers(spec, name, evidence, goals))).collect();
    let is_shadow = evidence.is_shadow();
    let is_required = |spec: &GuardSpec| {
        spec.is_required(is_shadow) || (goals.needed && matches!(spec, GuardSpec::Goal(_)))
    };
    let guards: Vec<GuardEvidence> = numbers
        .iter()
        .map(|(_, spec, n)| GuardEvidence {
            weight,
            role: if is_required(spec) { Role::Required } else { Role::RollbackOnly },
            log_e_worse: n.worse,
            log_e_not_worse: n.not_worse,
            log_e_below_floor: n.below_floor,
        })
        .collect();
    // Mirrored requests go to both sides: there is no share that they could miss.
    let users = evidence.live();
    let ratio = if users.compared { srm::log_e_each(&users.segments(|c| c.drawn)) } else { 0.0 };
    // Units must fit the shares when they are drawn, when they are known of, and when their outcomes come. Where a goal's units
    // missed them once they have missed them for good, so these are peaks, whose mean is no e-value: each stage has its part of
    // the error rate instead.
    let stages = 1.0 + goals.mismatches.len() as f64;
    let ratio = goals.mismatches.iter().copied().fold(ratio, f64::max) - stages.ln();
    let look = Look { guards: &guards, log_e_sample_ratio: ratio, min_bake_over: true, peaks: *peaks };
    let now = evidence.now();
    let units = |of: fn(&Weighed) -> u64| now.sum(of);
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
                Proven::NotWorse if !evidence.is_saturated() => Verdict::NotWorse,
                Proven::NotWorse | Proven::Unknown => Verdict::Unknown,
            };
            Reading {
                guard: name.clone(),
                verdict,
                required: is_required(spec),
                log_e_worse: bounded(n.worse),
                log_e_not_worse: bounded(guard.not_worse().unwrap_or(0.0)),
                needed,
                summary: n.words,
                segments: n.segments,
                goal: goals.numbers.get(name).map(|g| Box::new(g.reading.clone())),
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

/// A guard's numbers: *not worse* is about what the present step is about, *worse* about everything that was seen.
fn numbers(spec: &GuardSpec, name: &GuardName, evidence: &Evidence, goals: &Goals) -> Numbers {
    if let GuardSpec::Goal(_) = spec {
        return Numbers::of(goals.numbers.get(name));
    }
    let mut now = of_one_kind(spec, evidence.now());
    let Some(mirrored) = evidence.mirrored() else { return now };
    let is_shadow = evidence.is_shadow();
    if let GuardSpec::Disagreement { .. } = spec {
        // It has no other evidence than this.
        return of_one_kind(spec, mirrored);
    }
    let other = of_one_kind(spec, if is_shadow { evidence.live() } else { mirrored });
    now.worse = merge::mean(&[now.worse, other.worse]).unwrap_or(0.0);
    if is_shadow {
        now.words = format!("mirrored requests: {}", now.words);
    }
    now
}

fn of_one_kind(spec: &GuardSpec, evidence: Seen<'_>) -> Numbers {
    match spec {
        GuardSpec::Rate { worse_by, rollback_by, floor } => {
            errors(evidence, 1.0 + worse_by, 1.0 + rollback_by, *floor)
        }
        GuardSpec::Latency { p99_ms, .. } => slow(evidence, p99_ms.is_some()),
        GuardSpec::Constant { rollback_by } => repeats(evidence, 1.0 + rollback_by),
        GuardSpec::Disagreement { max, .. } => disagreement(evidence, *max),
        GuardSpec::Goal(_) => Numbers::of(None),
    }
}

/// Answers to mirrored requests that differ, net of noise.
fn disagreement(evidence: Seen<'_>, max: f64) -> Numbers {
    let Some(Shadow { samples, differed, noise, .. }) = evidence.shadow else {
        let words = "only a step that mirrors requests has two answers to compare".to_owned();
        return Numbers { worse: 0.0, not_worse: 0.0, below_floor: None, segments: Vec::new(), words };
    };
    let words = format!(
        "mirrored requests: {differed} of {} compared answers differ, the baseline's own second answers {noise}",
        samples.total()
    );
    Numbers {
        worse: disagreement::log_e(*samples, max, Side::Worse),
        not_worse: disagreement::log_e(*samples, max, Side::NotWorse),
        below_floor: None,
        segments: vec![SegmentCount { weight: 0.5, candidate: *differed, baseline: *noise, shadow: true }],
        words,
    }
}

fn counts(evidence: Seen<'_>, of: impl Fn(&Counts) -> u64) -> Vec<SegmentCount> {
    evidence
        .shared()
        .map(|w| SegmentCount {
            weight: evidence.share(w),
            candidate: of(&w.candidate),
            baseline: of(&w.baseline),
            shadow: evidence.shadow.is_some(),
        })
        .collect()
}

fn errors(evidence: Seen<'_>, worse: f64, rollback: f64, floor: f64) -> Numbers {
    let (bad, units) = (evidence.sum(|w| w.candidate.errors), evidence.sum(|w| w.candidate.units));
    let (bad_b, units_b) = (evidence.sum(|w| w.baseline.errors), evidence.sum(|w| w.baseline.units));
    let (refused, refused_b) = (evidence.sum(|w| w.candidate.refused), evidence.sum(|w| w.baseline.refused));
    let mut words = format!("bad answers: {bad} of {units} units, baseline {bad_b} of {units_b}");
    if refused + refused_b > 0 {
        words.push_str(&format!("; refused or given up: {refused}, baseline {refused_b}"));
    }
    let (dark, dark_b) = (evidence.sum(|w| w.candidate.unexamined), evidence.sum(|w| w.baseline.unexamined));
    if dark + dark_b > 0 {
        words.push_str(&format!("; could not be looked at: {dark}, baseline {dark_b}"));
    }
    let below = |count| rate::log_e(count, units, floor, Bound::Below);
    if !evidence.compared {
        // Without a baseline there is only the absolute bound: more bad answers than the floor allows.
        let above = rate::log_e(bad, units, floor, Bound::Above);
        return Numbers {
            worse: above,
            not_worse: 0.0,
            below_floor: Some(below(bad + dark)),
            segments: counts(evidence, |c| c.errors),
            words,
        };
    }
    // Each kind of harm has its own evidence: their mean rolls back, and to promote neither may be worse.
    let kinds: [fn(&Counts) -> u64; 2] = [|c| c.errors, |c| c.refused];
    let harm = kinds.map(|of| thinning::log_e(&evidence.segments(of), rollback, Side::Worse));
    let whole = at_whole(evidence, worse, floor);
    let harm = [harm[0], harm[1]].into_iter().chain(whole).collect::<Vec<f64>>();
    // What nobody could look at is no harm and no proof: here each of the candidate's counts as bad, and none of the baseline's.
    let proof = |of: fn(&Weighed) -> (u64, u64)| {
        let ratio = thinning::log_e(&evidence.paired(of), worse, Side::NotWorse);
        // Either proof will do; the mean of two e-values is one, their maximum is none.
        merge::mean(&[ratio, below(evidence.sum(|w| of(w).0))]).unwrap_or(0.0)
    };
    let good = proof(|w| (w.candidate.errors + w.candidate.unexamined, w.baseline.errors));
    let taken = proof(|w| (w.candidate.refused, w.baseline.refused));
    Numbers {
        worse: merge::mean(&harm).unwrap_or(0.0),
        not_worse: good.min(taken),
        below_floor: None,
        segments: counts(evidence, |c| c.errors),
        words,
    }
}

/// With all the traffic on one side there is nothing to compare with any more: then the bound is absolute, fixed by what the
/// baseline did before. That is what it did in all, or what it did at the last share if that was worse: where errors rise for
/// everybody, the candidate is not to blame for how it was in the beginning. First requests alone count, for their rate does
/// not grow with how often a unit comes. None without such traffic.
fn at_whole(evidence: Seen<'_>, margin: f64, floor: f64) -> Option<f64> {
    let whole = || evidence.weights.iter().filter(|w| evidence.share(w) >= 1.0);
    let (bad, units) =
        whole().fold((0, 0), |(bad, units), w| (bad + w.candidate.first_bad, units + w.candidate.units));
    let all = || evidence.weights.iter().chain(evidence.before);
    let rate_of = |bad: u64, units: u64| if units == 0 { 0.0 } else { bad as f64 / units as f64 };
    let pooled = rate_of(all().map(|w| w.baseline.first_bad).sum(), all().map(|w| w.baseline.units).sum());
    let split = evidence.weights.iter().filter(|w| evidence.share(w) < 1.0 && w.baseline.units >= KNOWN);
    let last = split.max_by(|a, b| a.weight.total_cmp(&b.weight));
    let usual = last.map_or(pooled, |w| rate_of(w.baseline.first_bad, w.baseline.units).max(pooled));
    (units > 0)
        .then(|| rate::log_e(bad.min(units), units, (usual * margin).max(floor).min(0.999), Bound::Above))
}

/// Exceedance of the baseline's quantiles, the candidate's latency being made smaller by the margin first; and of the
/// absolute bound, which one unit in a hundred may exceed.
fn slow(evidence: Seen<'_>, bounded_by_slo: bool) -> Numbers {
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

fn repeats(evidence: Seen<'_>, rollback: f64) -> Numbers {
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
#[path = "judge_tests.rs"]
mod tests;
