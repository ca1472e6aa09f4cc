//! When a step has had its time, and what is said of one that can't go on yet. One rule for all kinds of steps.

use super::{Observation, Readiness, Rollout, Status};
use crate::clock::Millis;
use crate::event::RolloutEvent;
use crate::plan::{OnInconclusive, Step};

/// A step that every gateway has, that nobody has paused, and that has had its time.
pub(super) struct Due<'a> {
    pub(super) step: &'a Step,
    seen: &'a Observation,
    /// What was said last of why it waits.
    held: Option<&'a str>,
    waited: Millis,
    deadline_ms: Millis,
    rule: OnInconclusive,
}

impl Rollout {
    /// The present step, where it has had its time.
    pub(super) fn due<'a>(
        &'a self,
        index: usize,
        status: &'a Status,
        seen: &'a Observation,
    ) -> Option<Due<'a>> {
        let (since, held) = match status {
            Status::Settling | Status::Paused { .. } => return None,
            Status::Watching { since } => (*since, None),
            Status::Held { since, reason } => (*since, Some(reason.as_str())),
        };
        let plan = &self.plan.rollout;
        let (step, waited) = (plan.steps.get(index)?, seen.now - since);
        let due = Due { step, seen, held, waited, deadline_ms: plan.deadline_ms, rule: plan.on_inconclusive };
        (waited >= step.hold_ms).then_some(due)
    }
}

/// What follows of a step that has not had its time.
pub(super) fn meanwhile(step: usize, status: &Status, seen: &Observation) -> Option<RolloutEvent> {
    (*status == Status::Settling && seen.applied).then_some(RolloutEvent::StepSettled { step })
}

impl Due<'_> {
    /// What the plan says of a step that is past its deadline; none where it is not.
    pub(super) fn late(&self) -> Option<OnInconclusive> {
        (self.waited > self.step.hold_ms.saturating_add(self.deadline_ms)).then_some(self.rule)
    }

    /// Why it can't go on whatever is known of the candidate.
    pub(super) fn obstacle(&self) -> Option<&'static str> {
        match self.seen.candidate {
            Readiness::Ready if self.seen.applied => None,
            Readiness::Ready => Some("not every gateway has this step's share yet"),
            _ => Some("its workers are not ready"),
        }
    }

    /// It waits for something that may come by itself.
    pub(super) fn hold(&self, reason: String) -> Option<RolloutEvent> {
        self.held(reason, false)
    }

    /// It waits for a person.
    pub(super) fn hold_for_person(&self, reason: String) -> Option<RolloutEvent> {
        self.held(reason, true)
    }

    /// Said once for each reason.
    fn held(&self, reason: String, needs_person: bool) -> Option<RolloutEvent> {
        let judgement = || self.seen.judgement.clone();
        (self.held != Some(reason.as_str())).then(|| RolloutEvent::Held {
            reason,
            needs_person,
            judgement: judgement(),
        })
    }
}
