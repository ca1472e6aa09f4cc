//! What follows from what a person says, and where a rollback goes.

use super::{Deployment, Phase, Status, WayBack};
use crate::event::{Cause, Instruction, InstructionKind, RolloutEvent};
use crate::id::PromotionId;
use crate::plan::Revision;

impl Deployment {
    /// What follows from a person's instruction to `promotion`'s rollout; `way_back` is what is known of [`Self::way_back`].
    #[must_use]
    pub fn instruct(
        &self,
        promotion: &PromotionId,
        instruction: &Instruction,
        way_back: &WayBack,
    ) -> Option<(PromotionId, RolloutEvent)> {
        if instruction.kind == InstructionKind::Drill {
            let serving = self.serving.as_ref().filter(|s| s.promotion == *promotion)?;
            return self.begin_drill(instruction, way_back).map(|event| (serving.promotion.clone(), event));
        }
        let cause = || Cause::Person { by: instruction.by.clone(), reason: instruction.reason.clone() };
        if let Some(active) = &self.active {
            if active.promotion == *promotion {
                let event = match (instruction.kind, &active.phase) {
                    (InstructionKind::Pause, Phase::Step { status: Status::Paused { .. }, .. }) => None,
                    (InstructionKind::Pause, Phase::Step { .. }) => {
                        Some(RolloutEvent::Paused { instruction: instruction.clone() })
                    }
                    (InstructionKind::Resume, Phase::Step { status: Status::Paused { .. }, .. }) => {
                        Some(RolloutEvent::Resumed { instruction: instruction.clone() })
                    }
                    (InstructionKind::Abort | InstructionKind::Rollback, Phase::Preparing { .. }) => {
                        Some(RolloutEvent::Aborted { reason: cause().summary() })
                    }
                    (InstructionKind::Abort | InstructionKind::Rollback, _) if active.preview().is_some() => {
                        Some(RolloutEvent::Aborted { reason: cause().summary() })
                    }
                    (InstructionKind::Switch, _) if active.may_be_switched() => {
                        Some(RolloutEvent::SwitchAllowed { instruction: instruction.clone() })
                    }
                    (InstructionKind::Abort | InstructionKind::Rollback, Phase::Step { .. }) => {
                        Some(self.rollback(cause(), Some(instruction)))
                    }
                    _ => None,
                };
                return event.map(|e| (promotion.clone(), e));
            }
            // What serves is to go back while a newer release is on its way up: that one goes back first.
            let serves = self.serving.as_ref().is_some_and(|s| s.promotion == *promotion);
            if serves && matches!(instruction.kind, InstructionKind::Abort | InstructionKind::Rollback) {
                let event = match &active.phase {
                    Phase::Preparing { .. } | Phase::Step { .. }
                        if active.preview().is_some() || matches!(active.phase, Phase::Preparing { .. }) =>
                    {
                        Some(RolloutEvent::Aborted { reason: "its baseline is being rolled back".to_owned() })
                    }
                    Phase::Step { .. } => Some(self.rollback(cause(), None)),
                    _ => None,
                };
                return event.map(|e| (active.promotion.clone(), e));
            }
            return None;
        }
        let serving = self.serving.as_ref().filter(|s| s.promotion == *promotion)?;
        // An abort was said while it still rolled: it means the same. Going back to nothing at all would only be an outage.
        let back = matches!(instruction.kind, InstructionKind::Abort | InstructionKind::Rollback);
        (back && self.target().is_some())
            .then(|| (serving.promotion.clone(), self.rollback(cause(), Some(instruction))))
    }

    pub(super) fn rollback(&self, cause: Cause, instruction: Option<&Instruction>) -> RolloutEvent {
        let (target, instruction) = (self.target().cloned(), instruction.map(|i| i.id.clone()));
        RolloutEvent::RollbackDecided { cause, target, epoch: self.epoch + 1, instruction }
    }

    /// Where a rollback would go: a candidate's to what has the rest of the traffic, that of what serves to what served
    /// before. Never to the very revision that goes back, which may be the backup's, too.
    fn target(&self) -> Option<&Revision> {
        match &self.active {
            Some(active) => self.main().filter(|t| t.digest() != active.plan.revision.digest()),
            None => self.way_back(),
        }
    }
}
