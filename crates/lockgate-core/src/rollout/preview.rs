//! A preview step: the candidate is warm, and nobody but testers and the smoke test reach it.
//!
//! No user's request goes to it, so no guard can prove anything: the smoke test decides, and a person where the plan says so.
//! Whatever speaks against it ends the rollout without a way back, for there is nothing to go back from. There is no way on by a
//! time-out: past the deadline nothing switches by itself any more, also what is known by then. It holds, or ends the rollout.

use super::due::meanwhile;
use super::step::harm;
use super::{Deployment, Observation, Readiness, Rollout, Status};
use crate::event::RolloutEvent;
use crate::gate::Outcome;
use crate::plan::{OnInconclusive, Switch};

impl Rollout {
    /// Whether a person may say that it goes on from its preview.
    pub(super) fn may_be_switched(&self) -> bool {
        self.preview().is_some() && !self.switch && self.smoke_missing().is_none()
    }

    /// Why the preview can't go on for want of its smoke test, if it can't.
    pub(crate) fn smoke_missing(&self) -> Option<String> {
        self.plan.rollout.smoke.as_ref()?;
        match &self.smoke {
            None => Some("the smoke test has not ended yet".to_owned()),
            Some(smoke) if smoke.outcome == Outcome::Pass => None,
            Some(smoke) => Some(format!("the smoke test failed: {}", smoke.summary)),
        }
    }

    /// Why the preview can't go on for want of a person's word, if it can't.
    pub(crate) fn word_missing(&self) -> Option<String> {
        let missing = self.preview() == Some(Switch::ByHand) && !self.switch;
        missing.then(|| "nobody has said that it may switch".to_owned())
    }
}

impl Deployment {
    pub(super) fn preview(
        &self,
        active: &Rollout,
        index: usize,
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
        let untried = active.smoke_missing();
        if let (Some(why), Some(_)) = (&untried, &active.smoke) {
            return abort(why.clone());
        }
        let Some(due) = active.due(index, status, seen) else { return meanwhile(index, status, seen) };
        let missing = untried.clone().or_else(|| active.word_missing());
        match (due.late().filter(|_| !active.switch), missing) {
            (Some(rule), missing) => {
                let what = missing.unwrap_or_else(|| "it had not switched by then".to_owned());
                match rule {
                    OnInconclusive::Rollback => abort(format!("past the preview's deadline: {what}")),
                    OnInconclusive::Hold => due.hold_for_person(format!(
                        "past the preview's deadline, {what}: a person must decide"
                    )),
                }
            }
            (None, Some(what)) if untried.is_some() => due.hold(what),
            (None, Some(_)) => due.hold_for_person("ready to switch: a person must say so".to_owned()),
            (None, None) => match due.obstacle() {
                Some(obstacle) => due.hold(obstacle.to_owned()),
                None => self.enter(active, index + 1, None),
            },
        }
    }
}
