//! What an agent may report about a rollout: only what can follow from its promotion and from what it reported before. Pure.

use crate::event::{InstructionKind, RolloutEvent};
use crate::plan::Step;
use crate::promotion::{CantDo, Promotion, Stage};
use crate::rollout::Deployment;
use crate::route::WHOLE;

impl Promotion {
    /// Checks that a rollout's event can follow: from this promotion's stage and plan, and from `deployment`, what the
    /// environment does for the model as far as it was reported.
    ///
    /// # Errors
    /// Where it can't, with the reason.
    pub fn check_report(&self, deployment: &Deployment, event: &RolloutEvent) -> Result<(), CantDo> {
        let refuse = |why: String| Err(CantDo::Report(why));
        if let RolloutEvent::Started { plan } = event
            && plan.hash().ok() != Some(self.plan_hash)
        {
            return refuse("it began by another plan than the promotion's".to_owned());
        }
        if !self.allows(event) {
            return refuse(format!("its event can't follow while the promotion is {}", self.stage.name()));
        }
        if !deployment.fits(&self.id, event) {
            return refuse("its event does not follow from what the agent reported before".to_owned());
        }
        self.preview_missing(deployment, event).map_or(Ok(()), refuse)
    }

    /// What a preview's event rests on that was not reported or said before, if anything.
    fn preview_missing(&self, deployment: &Deployment, event: &RolloutEvent) -> Option<String> {
        let active = deployment.active.as_ref().filter(|active| active.preview().is_some())?;
        match event {
            // Otherwise a test that failed would only have to be reported again.
            RolloutEvent::Smoked(_) => active
                .smoke
                .as_ref()
                .map(|_| "its smoke test had ended before, and the first end counts".to_owned()),
            RolloutEvent::SwitchAllowed { instruction } => {
                let is_said =
                    instruction.kind == InstructionKind::Switch && self.instructions.contains(instruction);
                let unsaid = (!is_said).then(|| "nobody has said here that it may switch".to_owned());
                active.smoke_missing().or(unsaid)
            }
            RolloutEvent::StepEntered { .. } => active.smoke_missing().or_else(|| active.word_missing()),
            _ => None,
        }
    }

    /// Whether the stage can lead to the event, by the promotion's own plan.
    fn allows(&self, event: &RolloutEvent) -> bool {
        let steps = &self.plan.rollout.steps;
        let step = match &self.stage {
            Stage::Rolling { rollout } => Some(rollout.step),
            _ => None,
        };
        let serves = matches!(self.stage, Stage::Probation { .. } | Stage::Confirmed);
        let going_back = matches!(self.stage, Stage::RollingBack { .. });
        let previews = step.flatten().and_then(|at| steps.get(at)).is_some_and(Step::is_preview);
        let mirrors = step.flatten().and_then(|at| steps.get(at)).is_some_and(Step::is_shadow);
        match event {
            RolloutEvent::Started { .. } => step == Some(None),
            RolloutEvent::Aborted { .. } => {
                step == Some(None) || previews || (mirrors && self.plan.rollout.observe)
            }
            RolloutEvent::Smoked(_) => previews && self.plan.rollout.smoke.is_some(),
            RolloutEvent::SwitchAllowed { .. } => previews,
            RolloutEvent::StepEntered { step: next, weight, shadow, .. } => {
                let due = step.map(|at| at.map_or(0, |at| at + 1));
                due == Some(*next)
                    && steps.get(*next).is_some_and(|s| (s.weight, s.shadow) == (*weight, *shadow))
            }
            RolloutEvent::StepSettled { step: settled } => step == Some(Some(*settled)),
            RolloutEvent::Held { .. } | RolloutEvent::Paused { .. } | RolloutEvent::Resumed { .. } => {
                step.flatten().is_some()
            }
            RolloutEvent::Promoted { .. } => {
                step.flatten().and_then(|at| steps.get(at)).is_some_and(|s| s.weight >= WHOLE)
            }
            RolloutEvent::Confirmed => matches!(self.stage, Stage::Probation { .. }),
            RolloutEvent::RollbackDecided { .. } => (step.flatten().is_some() && !previews) || serves,
            RolloutEvent::RollbackApplied { .. } | RolloutEvent::RolledBack { .. } => going_back,
            RolloutEvent::FailoverDecided { .. } => going_back || serves,
            RolloutEvent::DrillStarted { .. }
            | RolloutEvent::DrillApplied { .. }
            | RolloutEvent::DrillTurned { .. }
            | RolloutEvent::DrillEnded { .. } => self.stage == Stage::Confirmed,
            RolloutEvent::DrillRefused { .. } => true,
            RolloutEvent::OnBackup => self.stage == Stage::FailingOver,
            RolloutEvent::Stranded { .. } => going_back || self.stage == Stage::FailingOver,
        }
    }
}
