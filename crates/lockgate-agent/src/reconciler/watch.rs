//! What is seen of one model's deployment, and what the guards say about it.

use super::Reconciler;
use crate::judge::{Evidence, judge_with};
use crate::live;
use crate::reconciler::preparing::Preparing;
use lockgate_core::guard::{Judgement, Reading, Verdict};
use lockgate_core::id::{GuardName, ModelName, PromotionId};
use lockgate_core::plan::{Plan, Revision, Step};
use lockgate_core::rollout::{Deployment, Observation, Phase, Readiness};
use lockgate_core::route::WHOLE;
use lockgate_gateway::RolloutStats;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// How many requests each side must have had at a share before the share may grow.
const REQUESTS_AT_A_SHARE: u64 = 30;

/// How often the latency thresholds follow the baseline.
const THRESHOLDS_EVERY: Duration = Duration::from_secs(1);

impl Reconciler {
    fn readiness(&self, revision: Option<&Revision>) -> Readiness {
        let Some(revision) = revision else { return Readiness::Unknown };
        let preparing = self.preparing.lock().unwrap_or_else(PoisonError::into_inner);
        match preparing.get(&revision.digest()) {
            Some(Preparing::Failed(why)) => Readiness::Failed(why.clone()),
            _ => self.shared.fleet.readiness(revision),
        }
    }

    pub(super) fn observe(&mut self, model: &ModelName) -> Observation {
        let now = self.shared.clock.now_ms();
        let applied = self.is_applied();
        let judgement = self.judge(model);
        let deployment = self.deployments.get(model);
        let active = deployment.and_then(|d| d.active.as_ref());
        let target = active.and_then(|a| match &a.phase {
            Phase::RollingBack { target, .. } => target.as_ref(),
            _ => None,
        });
        let probation = deployment.and_then(Deployment::on_probation).map(|(serving, _)| serving);
        let candidate = active.map(|a| &a.plan.revision).or(probation.map(|s| &s.revision));
        let backup =
            active.and_then(|a| a.plan.backup.as_ref()).or(deployment.and_then(|d| d.backup.as_ref()));
        let counted = active.map(|a| &a.promotion).or(probation.map(|s| &s.promotion));
        let seen = counted.and_then(|promotion| self.stats(model, promotion));
        let (requests, errors) = seen.as_ref().map_or((0, 0), |s| live::candidate_totals(s, false));
        let breaker = seen.as_ref().and_then(live::breaker);
        let last_sent = candidate.and_then(|c| self.shared.gateway.last_sent(&c.digest()));
        let idle = candidate.is_none_or(|c| self.shared.gateway.inflight(&c.digest()) == 0);
        Observation {
            now,
            applied,
            candidate: self.readiness(active.map(|a| &a.plan.revision)),
            serving: self.readiness(deployment.and_then(|d| d.serving.as_ref()).map(|s| &s.revision)),
            target: self.readiness(target),
            backup: self.readiness(backup),
            judgement,
            breaker,
            quiet_ms: idle.then(|| last_sent.map_or(i64::MAX, millis)),
            last_candidate_request: last_sent.map(|ago| now - millis(ago)),
            candidate_requests: requests,
            candidate_errors: errors,
            counted_since: counted.filter(|p| !self.counted.contains(*p)).map(|_| self.began),
        }
    }

    /// The gateway's counts for one rollout; nothing where it counts for another one.
    fn stats(&self, model: &ModelName, promotion: &PromotionId) -> Option<RolloutStats> {
        self.shared.gateway.stats(model).filter(|s| s.salt == promotion.as_str())
    }

    /// What the guards say about the model's active rollout, or about what is on probation; nothing where neither is.
    fn judge(&mut self, model: &ModelName) -> Judgement {
        let Some(judged) = self.deployments.get(model).and_then(Judged::of) else {
            self.judgements.remove(model);
            return Judgement::none();
        };
        let Judged { promotion, plan, compared, step } = judged;
        let is_shadow = step.is_shadow();
        self.follow_latency(model, &plan, &promotion, is_shadow);
        let stats = self.stats(model, &promotion);
        let evidence =
            stats.map_or_else(|| live::no_evidence(is_shadow), |s| live::evidence(&s, compared, is_shadow));
        let goals = self.shared.outcomes.goals(&promotion, &plan.rollout, step.ab);
        let peaks = self.peaks.entry(promotion).or_default();
        let mut judgement = judge_with(&plan.rollout, &evidence, &goals, peaks);
        judgement.readings.extend(traffic(&evidence, &step));
        self.judgements.insert(model.clone(), judgement.clone());
        judgement
    }

    /// Sets the latency thresholds from what the baseline did so far: fixed before the requests that they will judge.
    fn follow_latency(&mut self, model: &ModelName, plan: &Plan, promotion: &PromotionId, is_shadow: bool) {
        let due = self.thresholds.get(model).is_none_or(|at| at.elapsed() >= THRESHOLDS_EVERY);
        if due {
            self.thresholds.insert(model.clone(), Instant::now());
            let stats = self.stats(model, promotion);
            if let Some(thresholds) = stats.and_then(|s| live::thresholds(&s, plan, is_shadow))
                && let Err(error) = self.shared.gateway.set_thresholds(model, thresholds)
            {
                tracing::error!(%error, "latency is judged by the thresholds before");
            }
        }
    }
}

/// Whose traffic is judged.
struct Judged {
    promotion: PromotionId,
    plan: Box<Plan>,
    /// Whether there is something to compare with.
    compared: bool,
    /// The present step.
    step: Step,
}

impl Judged {
    fn of(deployment: &Deployment) -> Option<Self> {
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

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}
