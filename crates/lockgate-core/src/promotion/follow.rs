//! Carrying events out: the server's own, and what the agent reports about the rollout.

use super::{Approval, Evidence, Held, Promotion, RolloutView, Stage, Until};
use crate::clock::Millis;
use crate::event::{Cause, Instruction, InstructionKind, PromotionEvent, RolloutEvent};
use crate::rollout::DRILL_MS;

impl Promotion {
    /// Carries an event out.
    pub fn apply(&mut self, event: &PromotionEvent, now: Millis) {
        let next = match event {
            PromotionEvent::Planned { .. } => None,
            PromotionEvent::EvidenceRecorded { gate, outcome, summary, envelope } => {
                let evidence = Evidence {
                    outcome: *outcome,
                    summary: summary.clone(),
                    envelope: envelope.clone(),
                    at: now,
                };
                self.evidence.insert(gate.clone(), evidence);
                None
            }
            PromotionEvent::GatesPassed if self.plan.approval.is_some() => Some(Stage::AwaitingApproval),
            PromotionEvent::GatesPassed | PromotionEvent::ApprovalsComplete => Some(Stage::Queued),
            PromotionEvent::Approved { by, plan_hash, evidence } => {
                self.approvals.push(Approval {
                    by: by.clone(),
                    plan_hash: *plan_hash,
                    evidence: *evidence,
                    at: now,
                });
                None
            }
            PromotionEvent::Released => Some(Stage::Rolling { rollout: RolloutView::default() }),
            PromotionEvent::Rejected { reason } => Some(Stage::Rejected { reason: reason.clone() }),
            PromotionEvent::Expired { missing } => Some(Stage::Expired { missing: missing.clone() }),
            PromotionEvent::Superseded { by } => Some(Stage::Superseded { by: by.clone() }),
            PromotionEvent::ServesAgain { .. } => Some(Stage::Confirmed),
            PromotionEvent::Cancelled => Some(Stage::Cancelled),
            PromotionEvent::Instructed { instruction } => {
                // What was said last holds: an older one that the agent had no use for must not come up again.
                let forward = |k| matches!(k, InstructionKind::Pause | InstructionKind::Resume);
                let drill = |k| k == InstructionKind::Drill;
                self.instructions.retain(|i| {
                    !(forward(i.kind) && forward(instruction.kind)
                        || drill(i.kind) && drill(instruction.kind))
                });
                self.instructions.push(instruction.clone());
                None
            }
        };
        self.enter(next, now);
    }

    /// Follows what the agent reports about the rollout; `now` is the agent's time. Whether the event fits is asked before
    /// ([`Promotion::check_report`]).
    pub fn follow(&mut self, event: &RolloutEvent, now: Millis) {
        match event {
            RolloutEvent::StepEntered { .. } => self.moved = self.moved.or(Some(now)),
            RolloutEvent::Promoted { .. } => self.entered = self.entered.or(Some(now)),
            _ => {}
        }
        let next = match event {
            RolloutEvent::Started { .. } => None,
            RolloutEvent::Aborted { reason } => Some(Stage::Rejected { reason: reason.clone() }),
            RolloutEvent::StepEntered { step, weight, shadow, judgement, .. } => {
                self.instructions.retain(|i| i.kind != InstructionKind::Switch);
                Some(Stage::Rolling {
                    rollout: RolloutView {
                        step: Some(*step),
                        weight: *weight,
                        shadow: *shadow,
                        held: None,
                        judgement: judgement.clone(),
                    },
                })
            }
            RolloutEvent::Smoked(smoked) => {
                self.smoke = Some(smoked.clone());
                None
            }
            RolloutEvent::SwitchAllowed { instruction } => {
                self.done(instruction);
                self.with_rollout(|r| r.held = None)
            }
            RolloutEvent::StepSettled { .. } => None,
            RolloutEvent::Held { reason, needs_person, judgement } => {
                let until = if *needs_person { Until::Decided } else { Until::Changed };
                let held = Held { reason: reason.clone(), until };
                self.with_rollout(|r| (r.held, r.judgement) = (Some(held), Some(judgement.clone())))
            }
            RolloutEvent::Paused { instruction } => {
                self.done(instruction);
                let words = if instruction.reason.is_empty() { "" } else { ": " };
                let reason = format!("paused{words}{}", instruction.reason);
                self.with_rollout(|r| r.held = Some(Held { reason, until: Until::Resumed }))
            }
            RolloutEvent::Resumed { instruction } => {
                self.done(instruction);
                self.with_rollout(|r| r.held = None)
            }
            RolloutEvent::Promoted { probation_until, .. } => {
                Some(Stage::Probation { until: *probation_until })
            }
            RolloutEvent::Confirmed => Some(Stage::Confirmed),
            RolloutEvent::RollbackDecided { cause, instruction, .. } => {
                self.instructions.retain(|i| Some(&i.id) != instruction.as_ref());
                Some(Stage::RollingBack { cause: cause.clone() })
            }
            RolloutEvent::RollbackApplied { .. } => None,
            RolloutEvent::RolledBack(seal) => {
                let cause = match &self.stage {
                    Stage::RollingBack { cause } => cause.clone(),
                    _ => Cause::Unhealthy { summary: String::new() },
                };
                Some(Stage::RolledBack { cause, seal: *seal })
            }
            RolloutEvent::DrillStarted { instruction, .. }
            | RolloutEvent::DrillRefused { instruction, .. } => {
                self.done(instruction);
                None
            }
            RolloutEvent::DrillApplied { .. }
            | RolloutEvent::DrillTurned { .. }
            | RolloutEvent::DrillEnded { .. } => None,
            RolloutEvent::FailoverDecided { .. } => Some(Stage::FailingOver),
            RolloutEvent::OnBackup => Some(Stage::OnBackup),
            RolloutEvent::Stranded { summary } => Some(Stage::Stranded { summary: summary.clone() }),
        };
        self.enter(next, now);
    }

    /// What people asked of the rollout that the agent has not done yet, and will.
    pub fn pending(&self) -> impl Iterator<Item = &Instruction> {
        let held = match &self.stage {
            Stage::Rolling { rollout } => rollout.held.as_ref(),
            _ => None,
        };
        let paused = held.is_some_and(|h| h.until == Until::Resumed);
        self.instructions.iter().filter(move |i| match i.kind {
            InstructionKind::Pause => !paused,
            InstructionKind::Resume => paused,
            InstructionKind::Abort
            | InstructionKind::Rollback
            | InstructionKind::Switch
            | InstructionKind::Drill => true,
        })
    }

    /// The drill that was asked for, and that the agent has not begun and still may: nobody wants one at night that was asked for
    /// in the evening.
    #[must_use]
    pub fn asked_to_drill(&self, now: Millis) -> Option<&Instruction> {
        let fresh = |i: &&Instruction| i.kind == InstructionKind::Drill && now - i.id.made() <= DRILL_MS;
        self.pending().find(fresh)
    }

    /// Whether it stands still until a person says something, and nobody has yet.
    #[must_use]
    pub fn needs_person(&self) -> bool {
        match &self.stage {
            Stage::AwaitingApproval => true,
            Stage::Rolling { rollout } => {
                rollout.held.as_ref().is_some_and(|h| h.until != Until::Changed)
                    && self.pending().all(|i| i.kind == InstructionKind::Pause)
            }
            _ => false,
        }
    }

    fn done(&mut self, instruction: &Instruction) {
        self.instructions.retain(|i| i.id != instruction.id);
    }

    fn with_rollout(&self, change: impl FnOnce(&mut RolloutView)) -> Option<Stage> {
        let Stage::Rolling { rollout } = &self.stage else { return None };
        let mut rollout = rollout.clone();
        change(&mut rollout);
        Some(Stage::Rolling { rollout })
    }

    fn enter(&mut self, next: Option<Stage>, now: Millis) {
        let Some(next) = next else { return };
        if next.name() != self.stage.name() {
            self.since = now;
        }
        self.stage = next;
        if self.stage.is_terminal() {
            self.instructions.clear();
        }
    }
}
