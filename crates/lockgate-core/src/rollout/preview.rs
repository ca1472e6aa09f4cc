//! A preview step: the candidate is warm, and nobody but testers and the smoke test reach it.
//!
//! No user's request goes to it, so no guard can prove anything: the smoke test decides, and a person where the plan says so.
//! Whatever speaks against it ends the rollout without a way back, for there is nothing to go back from. There is no way on by a
//! time-out: what isn't known at the deadline holds, or ends the rollout.

use super::step::{NOT_APPLIED, harm};
use super::{Deployment, Observation, Readiness, Rollout, Status};
use crate::event::RolloutEvent;
use crate::gate::Outcome;
use crate::plan::{OnInconclusive, Switch};

impl Rollout {
    /// Whether it waits in a preview step for a person's word alone.
    pub(super) fn may_be_switched(&self) -> bool {
        self.preview() == Some(Switch::ByHand) && !self.switch && self.smoke_missing().is_none()
    }

    /// Why the preview can't go on for want of its smoke test, if it can't.
    fn smoke_missing(&self) -> Option<String> {
        self.plan.rollout.smoke.as_ref()?;
        match &self.smoke {
            None => Some("the smoke test has not ended yet".to_owned()),
            Some(smoke) if smoke.outcome == Outcome::Pass => None,
            Some(smoke) => Some(format!("the smoke test failed: {}", smoke.summary)),
        }
    }
}

impl Deployment {
    pub(super) fn preview(
        &self,
        active: &Rollout,
        index: usize,
        switch: Switch,
        status: &Status,
        seen: &Observation,
    ) -> Option<RolloutEvent> {
        let abort = |reason: String| Some(RolloutEvent::Aborted { reason });
        if let Some(cause) = harm(seen) {
            return abort(cause.summary());
        }
        let compared = self.serving.is_some() && self.failed_over.is_none();
        if let (true, Readiness::Failed(why)) = (compared, &seen.serving) {
            // It must be looked after at once, as while the release was prepared.
            return abort(format!("what serves now does not stay up: {why}"));
        }
        let missing = active.smoke_missing();
        if let (Some(why), Some(_)) = (&missing, &active.smoke) {
            return abort(why.clone());
        }
        let (since, held) = match status {
            Status::Settling => return seen.applied.then_some(RolloutEvent::StepSettled { step: index }),
            Status::Paused { .. } => return None,
            Status::Watching { since } => (*since, None),
            Status::Held { since, reason } => (*since, Some(reason.as_str())),
        };
        let plan = &active.plan.rollout;
        let step = plan.steps.get(index)?;
        let waited = seen.now - since;
        if waited < step.hold_ms {
            return None;
        }
        let hold = |reason: String, needs_person: bool| {
            (held != Some(reason.as_str())).then(|| RolloutEvent::Held {
                reason,
                needs_person,
                judgement: seen.judgement.clone(),
            })
        };
        let by_hand = switch == Switch::ByHand && !active.switch;
        let waits_for = missing.or_else(|| by_hand.then(|| "nobody has said that it may switch".to_owned()));
        if let Some(what) = waits_for {
            let late = waited > step.hold_ms.saturating_add(plan.deadline_ms);
            return match plan.on_inconclusive {
                OnInconclusive::Rollback if late => abort(format!("past the preview's deadline: {what}")),
                OnInconclusive::Hold if late => {
                    hold(format!("past the preview's deadline, {what}: a person must decide"), true)
                }
                _ if by_hand && active.smoke_missing().is_none() => {
                    hold("ready to switch: a person must say so".to_owned(), true)
                }
                _ => hold(what, false),
            };
        }
        if !seen.applied {
            return hold(NOT_APPLIED.to_owned(), false);
        }
        if seen.candidate != Readiness::Ready {
            return hold("its workers are not ready".to_owned(), false);
        }
        self.enter(active, index + 1, None)
    }
}
