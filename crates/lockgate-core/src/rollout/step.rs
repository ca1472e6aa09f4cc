//! What follows from what is seen.

use super::due::meanwhile;
use super::{Deployment, Observation, Phase, QUIET_MS, Readiness, Rollout, Serving, Status};
use crate::clock::Millis;
use crate::event::{Cause, RolloutEvent, Seal};
use crate::guard::Judgement;
use crate::id::PromotionId;
use crate::plan::{OnInconclusive, Revision, Step};
use crate::route::WHOLE;

impl Deployment {
    /// The next event that follows from what is seen, at most one.
    #[must_use]
    pub fn step(&self, seen: &Observation) -> Option<(PromotionId, RolloutEvent)> {
        match &self.active {
            Some(active) => {
                let event = match &active.phase {
                    Phase::Preparing { since } => self.prepare(active, *since, seen),
                    Phase::Step { index, status } if active.preview().is_some() => {
                        self.preview(active, *index, status, seen)
                    }
                    Phase::Step { index, status } => self.watch(active, *index, status, seen),
                    Phase::RollingBack { target, decided, applied, .. } => {
                        self.go_back(target.as_ref(), *decided, *applied, seen)
                    }
                    Phase::FailingOver { summary } => match &seen.backup {
                        Readiness::Ready if seen.applied => Some(RolloutEvent::OnBackup),
                        Readiness::Failed(why) => {
                            Some(RolloutEvent::Stranded { summary: format!("{summary}; the backup: {why}") })
                        }
                        _ if self.backup.is_none() => {
                            Some(RolloutEvent::Stranded { summary: summary.clone() })
                        }
                        _ => None,
                    },
                };
                event.map(|e| (active.promotion.clone(), e))
            }
            None => {
                let serving = self.serving.as_ref()?;
                let event = match &self.drill {
                    Some(drill) => self.rehearse(drill, serving, seen),
                    None => self.keep(serving, seen),
                };
                event.map(|e| (serving.promotion.clone(), e))
            }
        }
    }

    fn prepare(&self, active: &Rollout, since: Millis, seen: &Observation) -> Option<RolloutEvent> {
        if let Readiness::Failed(why) = &seen.candidate {
            return Some(RolloutEvent::Aborted { reason: why.clone() });
        }
        let compared = self.serving.is_some() && self.failed_over.is_none();
        if let (true, Readiness::Failed(why)) = (compared, &seen.serving) {
            // What serves must be looked after at once, and it can't be while another release is on its way.
            return Some(RolloutEvent::Aborted {
                reason: format!("what serves now does not stay up: {why}"),
            });
        }
        let control = !compared || seen.serving == Readiness::Ready;
        let backup = active.plan.backup.is_none() || seen.backup == Readiness::Ready;
        if seen.candidate == Readiness::Ready && control && backup {
            return self.enter(active, 0, None);
        }
        (seen.now - since > active.plan.rollout.prepare_ms).then(|| {
            let late = [
                (seen.candidate != Readiness::Ready, "the release"),
                (!control, "what serves now"),
                (!backup, "the backup"),
            ];
            let late: Vec<&str> = late.iter().filter(|(late, _)| *late).map(|(_, what)| *what).collect();
            let seconds = active.plan.rollout.prepare_ms / 1000;
            RolloutEvent::Aborted {
                reason: format!("{} was not ready within {seconds} s", late.join(" and ")),
            }
        })
    }

    /// Enters a step. Where the environment only observes, a step that would give users the candidate's answers ends the rollout
    /// instead, with what was seen: but where nothing else could answer.
    pub(super) fn enter(
        &self,
        active: &Rollout,
        step: usize,
        judgement: Option<Judgement>,
    ) -> Option<RolloutEvent> {
        let next = active.plan.rollout.steps.get(step)?;
        if active.plan.rollout.observe && self.main().is_some() && !next.moves_nobody() {
            return Some(RolloutEvent::Aborted { reason: observed(next, judgement.as_ref()) });
        }
        Some(RolloutEvent::StepEntered {
            step,
            weight: next.weight,
            shadow: next.shadow,
            epoch: self.epoch + 1,
            judgement,
        })
    }

    fn watch(
        &self,
        active: &Rollout,
        index: usize,
        status: &Status,
        seen: &Observation,
    ) -> Option<RolloutEvent> {
        if let Some(cause) = harm(seen) {
            return Some(self.rollback(cause, None));
        }
        let Some(due) = active.due(index, status, seen) else { return meanwhile(index, status, seen) };
        let plan = &active.plan.rollout;
        if due.step.weight >= WHOLE {
            return match due.obstacle() {
                Some(obstacle) => due.hold(obstacle.to_owned()),
                None => Some(RolloutEvent::Promoted {
                    judgement: Some(seen.judgement.clone()),
                    probation_until: seen.now.saturating_add(plan.probation_ms),
                }),
            };
        }
        if seen.judgement.sample_ratio_mismatch {
            return due
                .hold("the shares of units don't fit the weights, so the comparison is void".to_owned());
        }
        if seen.judgement.all_not_worse() {
            if self.serving.is_some() && self.failed_over.is_none() && seen.serving != Readiness::Ready {
                return due.hold(
                    "what serves now is not ready, and to be no worse than that proves nothing".to_owned(),
                );
            }
            return match due.obstacle() {
                Some(obstacle) => due.hold(obstacle.to_owned()),
                None => self.enter(active, index + 1, Some(seen.judgement.clone())),
            };
        }
        let names: Vec<String> = seen.judgement.unknown().iter().map(ToString::to_string).collect();
        let names = if names.is_empty() { "any guard".to_owned() } else { names.join(", ") };
        match due.late() {
            None => due.hold(format!("not enough evidence yet from {names}")),
            Some(OnInconclusive::Hold) => due.hold_for_person(format!(
                "past the deadline without enough evidence from {names}: a person must decide"
            )),
            Some(OnInconclusive::Rollback) => {
                let summary = format!("past the deadline without enough evidence from {names}");
                Some(self.rollback(Cause::Inconclusive { summary }, None))
            }
        }
    }

    fn go_back(
        &self,
        target: Option<&Revision>,
        decided: Millis,
        applied: Option<Millis>,
        seen: &Observation,
    ) -> Option<RolloutEvent> {
        let Some(target) = target else {
            return Some(RolloutEvent::Stranded { summary: "there is nothing to go back to".to_owned() });
        };
        if let Readiness::Failed(why) = &seen.target {
            let is_backup = self.backup.as_ref().is_some_and(|b| b.digest() == target.digest());
            return Some(match &self.backup {
                Some(_) if !is_backup => {
                    RolloutEvent::FailoverDecided { summary: why.clone(), epoch: self.epoch + 1 }
                }
                _ => RolloutEvent::Stranded { summary: why.clone() },
            });
        }
        if applied.is_none() {
            return seen
                .applied
                .then(|| RolloutEvent::RollbackApplied { took_ms: (seen.now - decided).max(0) });
        }
        let quiet = seen.quiet_ms.is_some_and(|ms| ms >= QUIET_MS);
        (quiet && seen.applied && seen.target == Readiness::Ready).then(|| {
            RolloutEvent::RolledBack(Seal {
                last_request_ms: seen.last_candidate_request.map_or(0, |at| (at - decided).max(0)),
                verified_ms: (seen.now - decided).max(0),
                candidate_requests: seen.candidate_requests,
                candidate_errors: seen.candidate_errors,
                counted_since: seen.counted_since,
            })
        })
    }

    pub(super) fn keep(&self, serving: &Serving, seen: &Observation) -> Option<RolloutEvent> {
        if self.failed_over.is_some() {
            return None;
        }
        if let Readiness::Failed(why) = &seen.serving {
            let summary = format!("what serves does not stay up: {why}");
            return Some(if serving.previous.is_some() {
                self.rollback(Cause::Unhealthy { summary }, None)
            } else {
                RolloutEvent::FailoverDecided { summary, epoch: self.epoch + 1 }
            });
        }
        // On probation the way back stays armed, as long as there is one.
        if let Some(cause) = harm(seen).filter(|_| self.on_probation().is_some()) {
            return Some(self.rollback(cause, None));
        }
        let over = serving.probation_until.is_some_and(|until| seen.now >= until);
        (over && seen.serving == Readiness::Ready).then_some(RolloutEvent::Confirmed)
    }
}

/// What an environment that only observes says in the place of a step.
fn observed(next: &Step, judgement: Option<&Judgement>) -> String {
    let share = f64::from(next.weight) * 100.0 / f64::from(WHOLE);
    let proven: Vec<String> = judgement
        .into_iter()
        .flat_map(|j| j.readings.iter().filter(|r| r.required))
        .map(|r| format!("{} not worse ({})", r.guard, r.summary))
        .collect();
    let why = if proven.is_empty() { String::new() } else { format!(": {}", proven.join("; ")) };
    format!("observed only, and no user met it; it would have got {share}% of the users now{why}")
}

/// Why a rollout must go back at once, if it must: harm comes before every other rule.
pub(super) fn harm(seen: &Observation) -> Option<Cause> {
    if let Some(summary) = &seen.breaker {
        return Some(Cause::Breaker { summary: summary.clone() });
    }
    if let Readiness::Failed(summary) = &seen.candidate {
        return Some(Cause::Unhealthy { summary: summary.clone() });
    }
    let worst = seen.judgement.worst()?;
    let summary = format!("guard `{}`: {}", worst.guard, worst.summary);
    Some(Cause::Guard { judgement: seen.judgement.clone(), summary })
}
