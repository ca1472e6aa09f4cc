//! Carrying an event out. Every event has an effect in every state, or none: nothing here can fail.

use super::{Deployment, Drill, Leg, Phase, Rollout, Serving, Status, Told};
use crate::clock::Millis;
use crate::event::RolloutEvent;
use crate::id::PromotionId;
use crate::plan::Revision;

impl Deployment {
    /// Carries an event of `promotion`'s rollout out.
    pub fn apply(&mut self, promotion: &PromotionId, event: &RolloutEvent, now: Millis) {
        match event {
            RolloutEvent::Started { plan } => {
                self.taken.insert(promotion.clone());
                let phase = Phase::Preparing { since: now };
                self.active = Some(Rollout::new(promotion.clone(), plan.clone(), phase));
            }
            RolloutEvent::Aborted { .. } => {
                self.taken.insert(promotion.clone());
                self.active = self.active.take().filter(|a| a.promotion != *promotion);
            }
            RolloutEvent::StepEntered { step, epoch, .. } => {
                self.epoch = *epoch;
                let planned = self.active.as_ref().and_then(|a| a.plan.backup.clone());
                self.backup = planned.or_else(|| self.backup.take());
                self.set_phase(Phase::Step { index: *step, status: Status::Settling });
            }
            RolloutEvent::StepSettled { .. } => self.set_status(now, |_| Status::Watching { since: now }),
            RolloutEvent::Held { reason, .. } => {
                self.set_status(now, |since| Status::Held { since, reason: reason.clone() });
            }
            RolloutEvent::Paused { .. } => self.set_status(now, |since| Status::Paused { since }),
            RolloutEvent::Resumed { .. } => self.set_status(now, |since| Status::Watching { since }),
            RolloutEvent::Smoked(smoked) => {
                if let Some(active) = &mut self.active {
                    active.smoke = Some(smoked.clone());
                }
            }
            RolloutEvent::SwitchAllowed { .. } => {
                if let Some(active) = &mut self.active {
                    active.switch = true;
                }
            }
            RolloutEvent::Promoted { probation_until, .. } => self.promote(*probation_until),
            RolloutEvent::Confirmed => {
                if let Some(serving) = &mut self.serving {
                    serving.probation_until = None;
                }
            }
            RolloutEvent::RollbackDecided { cause, target, epoch, .. } => {
                self.epoch = *epoch;
                self.drill = None;
                let phase = Phase::RollingBack {
                    cause: cause.clone(),
                    target: target.clone(),
                    decided: now,
                    applied: None,
                };
                self.begin_or_set(promotion, phase);
            }
            RolloutEvent::RollbackApplied { .. } => {
                if let Some(Rollout { phase: Phase::RollingBack { applied, .. }, .. }) = &mut self.active {
                    *applied = Some(now);
                }
            }
            RolloutEvent::RolledBack { .. } => self.end_rollback(),
            RolloutEvent::FailoverDecided { summary, epoch } => {
                self.epoch = *epoch;
                self.drill = None;
                self.begin_or_set(promotion, Phase::FailingOver { summary: summary.clone() });
            }
            RolloutEvent::OnBackup => self.fail_over("the backup had to take over"),
            RolloutEvent::Stranded { summary } => self.fail_over(summary),
            RolloutEvent::DrillStarted { target, epoch, before, instruction } => {
                self.epoch = *epoch;
                self.drill_told = Some(Told { id: instruction.id.clone(), refused: None });
                let before = *before;
                self.drill = Some(Drill { target: target.clone(), decided: now, before, leg: Leg::Leaving });
            }
            RolloutEvent::DrillRefused { reason, instruction } => {
                self.drill_told = Some(Told { id: instruction.id.clone(), refused: Some(reason.clone()) });
            }
            RolloutEvent::DrillApplied { .. } => self.set_leg(Leg::Away { since: now }),
            RolloutEvent::DrillTurned { away, failed, epoch } => {
                self.epoch = *epoch;
                self.set_leg(Leg::Returning { since: now, away: *away, failed: failed.clone() });
            }
            RolloutEvent::DrillEnded { drilled } => {
                self.drill = None;
                self.drilled = Some(drilled.clone());
            }
        }
    }

    fn promote(&mut self, probation_until: Millis) {
        let Some(active) = self.active.take() else { return };
        // What was broken is nothing to go back to: the backup is.
        let previous = self.serving.take().filter(|_| self.failed_over.is_none()).map(|s| s.revision);
        self.failed_over = None;
        // Another release, and another way back: what was rehearsed is not theirs.
        self.drilled = None;
        self.serving = Some(Serving {
            revision: Revision { promotion: Some(active.promotion.clone()), ..active.plan.revision.clone() },
            promotion: active.promotion,
            plan: active.plan,
            probation_until: Some(probation_until),
            previous,
        });
    }

    fn end_rollback(&mut self) {
        let Some(active) = self.active.take() else { return };
        let Phase::RollingBack { target, .. } = active.phase else { return };
        let served = self.serving.as_ref().is_some_and(|s| s.promotion == active.promotion);
        if !served {
            return;
        }
        // What served went back, and so traffic goes where it went, even after a failover.
        self.failed_over = None;
        self.drilled = None;
        self.serving = target.and_then(|revision| Serving::again(revision, active.plan));
    }

    fn fail_over(&mut self, why: &str) {
        let Some(active) = self.active.take() else { return };
        self.drilled = None;
        self.failed_over = Some(why.to_owned());
        let Some(serving) = self.serving.take_if(|s| s.promotion == active.promotion) else { return };
        // What served has ended. It only stays where there is nothing else that traffic could go to.
        self.serving = match (&serving.previous, &self.backup) {
            (Some(previous), _) => Serving::again(previous.clone(), active.plan),
            (None, Some(_)) => None,
            (None, None) => Some(serving),
        };
    }

    fn begin_or_set(&mut self, promotion: &PromotionId, phase: Phase) {
        match (&mut self.active, &self.serving) {
            (Some(active), _) => active.phase = phase,
            (None, Some(serving)) => {
                self.active = Some(Rollout::new(promotion.clone(), serving.plan.clone(), phase));
            }
            (None, None) => {}
        }
    }

    fn set_leg(&mut self, leg: Leg) {
        if let Some(drill) = &mut self.drill {
            drill.leg = leg;
        }
    }

    fn set_phase(&mut self, phase: Phase) {
        if let Some(active) = &mut self.active {
            active.phase = phase;
        }
    }

    fn set_status(&mut self, now: Millis, change: impl FnOnce(Millis) -> Status) {
        if let Some(Rollout { phase: Phase::Step { status, .. }, .. }) = &mut self.active {
            let since = match status {
                // Paused before every gateway had the share: the step's time can't have begun before now.
                Status::Settling => now,
                Status::Watching { since } | Status::Held { since, .. } | Status::Paused { since } => *since,
            };
            *status = change(since);
        }
    }
}
