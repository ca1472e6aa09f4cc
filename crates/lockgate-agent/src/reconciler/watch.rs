//! What is seen of one model's deployment, and what the guards say about it.

use super::Reconciler;
use crate::live;
use crate::look::Judged;
use crate::reconciler::preparing::Preparing;
use lockgate_core::guard::Judgement;
use lockgate_core::id::{ModelName, PromotionId};
use lockgate_core::plan::Revision;
use lockgate_core::rollout::{Deployment, Observation, Phase, Readiness, WayBack};
use lockgate_core::route::Role;
use lockgate_gateway::RolloutStats;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

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
        let drill = deployment.and_then(|d| d.drill.as_ref()).filter(|_| active.is_none());
        let target = target.or(drill.map(|d| &d.target));
        let drilled = drill.and_then(|_| deployment?.serving.as_ref()).map(|s| &s.revision);
        let probation = deployment.and_then(Deployment::on_probation).map(|(serving, _)| serving);
        let candidate = active.map(|a| &a.plan.revision).or(probation.map(|s| &s.revision)).or(drilled);
        let target_busy = drill.is_some_and(|d| self.shared.gateway.inflight(&d.target.digest()) > 0);
        let backup =
            active.and_then(|a| a.plan.backup.as_ref()).or(deployment.and_then(|d| d.backup.as_ref()));
        let counted = active.map(|a| &a.promotion).or(probation.map(|s| &s.promotion));
        let seen = counted.and_then(|promotion| self.stats(model, promotion));
        let (requests, errors) = seen.as_ref().map_or((0, 0), |s| live::candidate_totals(s, false));
        let breaker = seen.as_ref().and_then(live::breaker);
        let last_sent = candidate.and_then(|c| self.shared.gateway.last_sent(&c.digest()));
        let idle = candidate.is_none_or(|c| self.shared.gateway.inflight(&c.digest()) == 0);
        let (target_requests, target_errors) = drill.map_or((0, 0), |d| self.answered(model, &d.target));
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
            target_requests,
            target_errors,
            target_busy,
            began: self.began,
            counted_since: counted.filter(|p| !self.counted.contains(*p)).map(|_| self.began),
        }
    }

    /// The gateway's counts for one rollout; nothing where it counts for another one.
    fn stats(&self, model: &ModelName, promotion: &PromotionId) -> Option<RolloutStats> {
        self.shared.gateway.stats(model).filter(|s| s.salt == promotion.as_str())
    }

    /// What is known of where a drill would go.
    pub(super) fn way_back(&self, model: &ModelName) -> WayBack {
        let target = self.deployments.get(model).and_then(Deployment::way_back);
        let answered = target.map_or((0, 0), |t| self.answered(model, t));
        WayBack { readiness: self.readiness(target), answered }
    }

    /// Requests that a revision's release has answered as no candidate since the start, and badly.
    fn answered(&self, model: &ModelName, revision: &Revision) -> (u64, u64) {
        let all = self.shared.gateway.totals(model);
        let own = all.iter().filter(|t| t.release == revision.release && t.role != Role::Candidate);
        own.fold((0, 0), |(requests, bad), t| (requests + t.requests, bad + t.errors.total()))
    }

    /// What the guards say about the model's active rollout, or about what is on probation; nothing where neither is.
    fn judge(&mut self, model: &ModelName) -> Judgement {
        let Some(judged) = self.deployments.get(model).and_then(Judged::of) else {
            self.judgements.remove(model);
            return Judgement::none();
        };
        let stats = self.stats(model, &judged.promotion);
        self.follow_latency(model, &judged, stats.as_ref());
        let goals = self.shared.outcomes.goals(&judged.promotion, judged.step.ab);
        let peaks = self.peaks.entry(judged.promotion.clone()).or_default();
        let judgement = judged.judge(stats.as_ref(), &goals, peaks);
        self.judgements.insert(model.clone(), judgement.clone());
        judgement
    }

    /// Sets the latency thresholds from what the baseline did so far: fixed before the requests that they will judge.
    fn follow_latency(&mut self, model: &ModelName, judged: &Judged, stats: Option<&RolloutStats>) {
        let due = self.thresholds.get(model).is_none_or(|at| at.elapsed() >= THRESHOLDS_EVERY);
        if due {
            self.thresholds.insert(model.clone(), Instant::now());
            if let Some(thresholds) = stats.and_then(|s| judged.thresholds(s))
                && let Err(error) = self.shared.gateway.set_thresholds(model, thresholds)
            {
                tracing::error!(%error, "latency is judged by the thresholds before");
            }
        }
    }
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}
