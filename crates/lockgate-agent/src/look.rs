//! What is judged, and by which counts. Pure: the reconciler hands in its gateway's counts, a simulation its own.

use crate::judge::{Evidence, Goals, judge_with};
use crate::live;
use lockgate_core::guard::{Judgement, Reading, Verdict};
use lockgate_core::id::{GuardName, PromotionId};
use lockgate_core::plan::{Plan, Step};
use lockgate_core::rollout::{Deployment, Phase};
use lockgate_core::route::WHOLE;
use lockgate_gateway::{LatencyThresholds, RolloutStats};
use lockgate_stats::decision::Peaks;

pub use live::{breaker, candidate_totals};

/// How many requests each side must have had at a share before the share may grow.
const REQUESTS_AT_A_SHARE: u64 = 30;

/// Whose traffic is judged.
#[derive(Debug)]
pub struct Judged {
    /// The promotion.
    pub promotion: PromotionId,
    pub(crate) plan: Box<Plan>,
    /// Whether there is something to compare with.
    compared: bool,
    /// The present step.
    pub(crate) step: Step,
}

impl Judged {
    /// A deployment's active rollout, or what is on probation; none where neither is.
    #[must_use]
    pub fn of(deployment: &Deployment) -> Option<Self> {
        if let Some(active) = &deployment.active {
            let Phase::Step { index, .. } = active.phase else { return None };
            if active.preview().is_some() {
                // No user meets the candidate: nothing can be said of it.
                return None;
            }
            let step = active.plan.rollout.steps.get(index).cloned();
            return Some(Self {
                promotion: active.promotion.clone(),
                plan: active.plan.clone(),
                compared: deployment.serving.is_some()
                    || deployment.backup.is_some()
                    || active.plan.backup.is_some(),
                step: step.unwrap_or_else(|| Step::live(WHOLE, 0)),
            });
        }
        let (serving, _) = deployment.on_probation()?;
        let (promotion, plan) = (serving.promotion.clone(), serving.plan.clone());
        Some(Self { promotion, plan, compared: true, step: Step::live(WHOLE, 0) })
    }

    /// What counts as slow from now on, by what the baseline did so far: fixed before the requests that it will judge.
    #[must_use]
    pub fn thresholds(&self, stats: &RolloutStats) -> Option<LatencyThresholds> {
        live::thresholds(stats, &self.plan, self.step.is_shadow())
    }

    /// What the guards say to these counts, and to what came of predictions. `peaks` are the largest evidence so far; they are
    /// updated.
    #[must_use]
    pub fn judge(&self, stats: Option<&RolloutStats>, goals: &Goals, peaks: &mut Peaks) -> Judgement {
        let is_shadow = self.step.is_shadow();
        let evidence = stats
            .map_or_else(|| live::no_evidence(is_shadow), |s| live::evidence(s, self.compared, is_shadow));
        let mut judgement = judge_with(&self.plan.rollout, &evidence, goals, peaks);
        judgement.readings.extend(traffic(&evidence, &self.step));
        judgement
    }
}

/// What was proven at one share says nothing of a larger one before there was traffic at it: a reading of its own, required
/// like the guards'. None with all the traffic, where no share is left to win.
fn traffic(evidence: &Evidence, step: &Step) -> Option<Reading> {
    if step.weight >= WHOLE || !evidence.compared {
        return None;
    }
    let (weights, what) = match &evidence.shadow {
        Some(shadow) if step.is_shadow() => (&shadow.weights, "mirrored requests"),
        _ => (&evidence.weights, "requests at this share"),
    };
    let weight = f64::from(step.weight.max(step.shadow)) / f64::from(WHOLE);
    let here = weights.iter().filter(|w| (w.weight - weight).abs() < 1e-9);
    let (candidate, baseline) =
        here.fold((0, 0), |(c, b), w| (c + w.candidate.requests, b + w.baseline.requests));
    let enough = candidate >= REQUESTS_AT_A_SHARE && baseline >= REQUESTS_AT_A_SHARE;
    Some(Reading {
        guard: GuardName::new("traffic").ok()?,
        verdict: if enough { Verdict::NotWorse } else { Verdict::Unknown },
        required: true,
        log_e_worse: 0.0,
        log_e_not_worse: 0.0,
        needed: 0.0,
        summary: format!(
            "{what}: {candidate}, baseline {baseline}; at least {REQUESTS_AT_A_SHARE} of each are needed"
        ),
        segments: Vec::new(),
        goal: None,
    })
}
