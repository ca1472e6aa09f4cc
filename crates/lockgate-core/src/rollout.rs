//! What one environment does for one model: the deployment, and the rollout that moves its traffic. Pure.
//!
//! [`Deployment::step`] looks at the state and an [`Observation`] and says the next event, at most one; the agent writes it
//! to its journal, applies it and asks again. Traffic is never commanded: it follows from the state ([`Deployment::traffic`])
//! and a reconciler makes it so. So an agent that is killed anywhere goes on from its journal.
//!
//! ```text
//! Preparing ─ready─▶ Step 0 ─▶ … ─▶ Step n (100 %) ─hold over─▶ serving, on probation ─▶ confirmed
//!   └ fails ▶ aborted   │ worse, breaker, person, too late            │ unhealthy, person
//!                       └──────────▶ RollingBack ─applied, quiet─▶ rolled back
//!                                        └ target broken ▶ FailingOver ─▶ on backup │ stranded
//! ```

use crate::clock::Millis;
use crate::event::{Cause, Instruction, InstructionKind, RolloutEvent};
use crate::guard::Judgement;
use crate::id::{ModelName, PromotionId};
use crate::plan::{OnInconclusive, Plan, Revision};
use crate::route::WHOLE;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// How long the candidate must have been without a request before a rollback counts as seen, in milliseconds. Longer than
/// a gateway's slowest hand-over between threads; short enough that a person sees the seal at once.
pub const QUIET_MS: i64 = 250;

/// Why a step waits though its guards are content.
const NOT_APPLIED: &str = "not every gateway has this step's share yet";

/// What one environment runs for one model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Deployment {
    /// The model.
    pub model: ModelName,
    /// Grows with every change of traffic.
    pub epoch: u64,
    /// What serves.
    pub serving: Option<Serving>,
    /// What answers when nothing else can.
    pub backup: Option<Revision>,
    /// The rollout under way, forward or back.
    pub active: Option<Rollout>,
    /// Why the backup serves, where it had to take over; or why nothing serves.
    pub failed_over: Option<String>,
    /// Promotions that were taken on once; never again.
    pub taken: BTreeSet<PromotionId>,
}

/// What serves, and where it would go back to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Serving {
    /// The revision.
    pub revision: Revision,
    /// The promotion that brought it.
    pub promotion: PromotionId,
    /// Its plan.
    pub plan: Box<Plan>,
    /// When probation ends; none once it is confirmed.
    pub probation_until: Option<Millis>,
    /// What served before: kept warm, so that going back is a change of routes.
    pub previous: Option<Revision>,
}

impl Serving {
    /// What serves again because a later release went back. It has nothing further to go back to but the backup (I10).
    /// `plan` is the later release's: the settings that hold now, for this revision.
    fn again(revision: Revision, mut plan: Box<Plan>) -> Option<Self> {
        let promotion = revision.promotion.clone()?;
        plan.revision = revision.clone();
        plan.baseline = None;
        Some(Self { revision, promotion, plan, probation_until: None, previous: None })
    }
}

/// One rollout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    /// The promotion.
    pub promotion: PromotionId,
    /// Its plan.
    pub plan: Box<Plan>,
    /// Where it stands.
    pub phase: Phase,
}

impl Rollout {
    /// Whether traffic is going back or to the backup.
    #[must_use]
    pub fn is_going_back(&self) -> bool {
        matches!(self.phase, Phase::RollingBack { .. } | Phase::FailingOver { .. })
    }
}

/// Where a rollout stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum Phase {
    /// The candidate is being fetched, verified, loaded and warmed.
    Preparing {
        /// Since when.
        since: Millis,
    },
    /// The candidate has a share of the traffic.
    Step {
        /// Which step, from 0.
        index: usize,
        /// What the step is doing.
        status: Status,
    },
    /// Traffic is going back.
    RollingBack {
        /// Why.
        cause: Cause,
        /// Where to.
        target: Option<Revision>,
        /// When it was decided.
        decided: Millis,
        /// When every gateway had applied it.
        applied: Option<Millis>,
    },
    /// The backup is taking over.
    FailingOver {
        /// What was seen.
        summary: String,
    },
}

/// What a step is doing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Status {
    /// Gateways are applying the new share.
    Settling,
    /// Guards are collecting evidence.
    Watching {
        /// Since when.
        since: Millis,
    },
    /// It can't go on by itself yet.
    Held {
        /// Since when the step is being watched.
        since: Millis,
        /// Why.
        reason: String,
    },
    /// A person stopped the forward move.
    Paused {
        /// Since when the step is being watched.
        since: Millis,
    },
}

/// Whether a revision's workers can serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// There is no such revision, or nothing is known.
    Unknown,
    /// They are being started.
    Pending,
    /// At least one of them is ready, verified and warm.
    Ready,
    /// They can't be started, or don't stay up.
    Failed(String),
}

/// What the agent sees now.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// The time.
    pub now: Millis,
    /// Whether every gateway has applied the traffic that the present state asks for.
    pub applied: bool,
    /// The active rollout's candidate.
    pub candidate: Readiness,
    /// What serves.
    pub serving: Readiness,
    /// Where a rollback under way goes.
    pub target: Readiness,
    /// The backup.
    pub backup: Readiness,
    /// What the guards say about the active rollout.
    pub judgement: Judgement,
    /// What the gateway's own breaker saw, if it opened.
    pub breaker: Option<String>,
    /// How long the candidate has been without a request, in milliseconds, with none in flight; none where one is.
    pub quiet_ms: Option<i64>,
    /// When the last request went to the candidate, if any did.
    pub last_candidate_request: Option<Millis>,
    /// Requests that the candidate has answered in this rollout.
    pub candidate_requests: u64,
    /// Bad answers among them.
    pub candidate_errors: u64,
}

/// How a model's traffic should flow.
#[derive(Debug, Clone, PartialEq)]
pub struct Traffic<'a> {
    /// What serves everything that isn't split off.
    pub main: Option<&'a Revision>,
    /// The candidate, its share in parts of [`WHOLE`] and the salt of the assignment.
    pub split: Option<(&'a Revision, u32, &'a PromotionId)>,
    /// What answers when neither can.
    pub backup: Option<&'a Revision>,
}

impl Deployment {
    /// A deployment that serves nothing yet.
    #[must_use]
    pub fn new(model: ModelName) -> Self {
        Self {
            model,
            epoch: 0,
            serving: None,
            backup: None,
            active: None,
            failed_over: None,
            taken: BTreeSet::new(),
        }
    }

    /// How traffic should flow in this state.
    #[must_use]
    pub fn traffic(&self) -> Traffic<'_> {
        let backup = self.backup.as_ref();
        let all = |main| Traffic { main, split: None, backup };
        match self.active.as_ref().map(|a| (a, &a.phase)) {
            Some((active, Phase::Step { index, .. })) => {
                let weight = active.plan.rollout.steps.get(*index).map_or(0, |s| s.weight);
                Traffic {
                    main: self.main(),
                    split: Some((&active.plan.revision, weight, &active.promotion)),
                    backup,
                }
            }
            Some((_, Phase::RollingBack { target, .. })) => all(target.as_ref()),
            Some((_, Phase::FailingOver { .. })) => all(backup.or(self.main())),
            Some((_, Phase::Preparing { .. })) | None => all(self.main()),
        }
    }

    /// What serves everything that isn't split off. After a failover that is the backup, for what served is broken; without
    /// a backup it is still better than no route at all, for it may recover.
    fn main(&self) -> Option<&Revision> {
        let (serving, backup) = (self.serving.as_ref().map(|s| &s.revision), self.backup.as_ref());
        if self.failed_over.is_some() { backup.or(serving) } else { serving.or(backup) }
    }

    /// The revisions whose workers must be warm in this state: what serves, what it would go back to, the backup and the
    /// candidate (I4).
    #[must_use]
    pub fn wanted(&self) -> Vec<&Revision> {
        let mut wanted: Vec<&Revision> = Vec::new();
        let serving = self.serving.iter().flat_map(|s| std::iter::once(&s.revision).chain(&s.previous));
        let target = self.active.iter().filter_map(|a| match &a.phase {
            Phase::RollingBack { target, .. } => target.as_ref(),
            _ => None,
        });
        let active = self.active.iter().map(|a| &a.plan.revision).chain(target);
        let planned = self.active.iter().filter_map(|a| a.plan.backup.as_ref());
        for revision in serving.chain(active).chain(planned).chain(&self.backup) {
            if !wanted.iter().any(|w| w.digest() == revision.digest()) {
                wanted.push(revision);
            }
        }
        wanted
    }

    /// Whether `promotion` may be taken on now: never twice, one at a time.
    #[must_use]
    pub fn can_take(&self, promotion: &PromotionId) -> bool {
        self.active.is_none() && !self.taken.contains(promotion)
    }

    /// What follows from a person's instruction to `promotion`'s rollout.
    #[must_use]
    pub fn instruct(
        &self,
        promotion: &PromotionId,
        instruction: &Instruction,
    ) -> Option<(PromotionId, RolloutEvent)> {
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
                    Phase::Preparing { .. } => {
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

    fn rollback(&self, cause: Cause, instruction: Option<&Instruction>) -> RolloutEvent {
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

    /// Where what serves would go back to, once no rollout is under way. Nothing where that would only be an outage.
    #[must_use]
    pub fn way_back(&self) -> Option<&Revision> {
        let serving = self.serving.as_ref()?;
        let target = serving.previous.as_ref().or(self.backup.as_ref());
        target.filter(|t| t.digest() != serving.revision.digest())
    }

    /// Whether `event` of `promotion`'s rollout can follow from this state: about what is under way, or about what serves.
    #[must_use]
    pub fn fits(&self, promotion: &PromotionId, event: &RolloutEvent) -> bool {
        let active = self.active.as_ref();
        let own = active.is_some_and(|a| a.promotion == *promotion);
        let serves = active.is_none() && self.serving.as_ref().is_some_and(|s| s.promotion == *promotion);
        match event {
            RolloutEvent::Started { .. } => self.can_take(promotion),
            RolloutEvent::Aborted { .. } => own || self.can_take(promotion),
            RolloutEvent::Confirmed => serves,
            RolloutEvent::RollbackDecided { .. } | RolloutEvent::FailoverDecided { .. } => own || serves,
            _ => own,
        }
    }

    /// The next event that follows from what is seen, at most one.
    #[must_use]
    pub fn step(&self, seen: &Observation) -> Option<(PromotionId, RolloutEvent)> {
        match &self.active {
            Some(active) => {
                let event = match &active.phase {
                    Phase::Preparing { since } => self.prepare(active, *since, seen),
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
                self.keep(serving, seen).map(|e| (serving.promotion.clone(), e))
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
            let weight = active.plan.rollout.steps.first().map_or(WHOLE, |s| s.weight);
            return Some(RolloutEvent::StepEntered {
                step: 0,
                weight,
                epoch: self.epoch + 1,
                judgement: None,
            });
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
        let hold = |reason: String| {
            (held != Some(reason.as_str()))
                .then(|| RolloutEvent::Held { reason, judgement: seen.judgement.clone() })
        };
        if step.weight >= WHOLE {
            return match seen.candidate {
                Readiness::Ready if seen.applied => Some(RolloutEvent::Promoted {
                    judgement: Some(seen.judgement.clone()),
                    probation_until: seen.now.saturating_add(plan.probation_ms),
                }),
                Readiness::Ready => hold(NOT_APPLIED.to_owned()),
                _ => hold("its workers are not ready".to_owned()),
            };
        }
        if seen.judgement.sample_ratio_mismatch {
            return hold("the shares of units don't fit the weights, so the comparison is void".to_owned());
        }
        if seen.judgement.all_not_worse() {
            let next = plan.steps.get(index + 1)?;
            if self.serving.is_some() && self.failed_over.is_none() && seen.serving != Readiness::Ready {
                return hold(
                    "what serves now is not ready, and to be no worse than that proves nothing".to_owned(),
                );
            }
            if !seen.applied {
                return hold(NOT_APPLIED.to_owned());
            }
            if seen.candidate != Readiness::Ready {
                return hold("its workers are not ready".to_owned());
            }
            return Some(RolloutEvent::StepEntered {
                step: index + 1,
                weight: next.weight,
                epoch: self.epoch + 1,
                judgement: Some(seen.judgement.clone()),
            });
        }
        let names: Vec<String> = seen.judgement.unknown().iter().map(ToString::to_string).collect();
        let names = if names.is_empty() { "any guard".to_owned() } else { names.join(", ") };
        if waited <= step.hold_ms.saturating_add(plan.deadline_ms) {
            return hold(format!("not enough evidence yet from {names}"));
        }
        match plan.on_inconclusive {
            OnInconclusive::Hold => {
                hold(format!("past the deadline without enough evidence from {names}: a person must decide"))
            }
            OnInconclusive::Rollback => {
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
        (quiet && seen.applied && seen.target == Readiness::Ready).then(|| RolloutEvent::RolledBack {
            last_request_ms: seen.last_candidate_request.map_or(0, |at| (at - decided).max(0)),
            verified_ms: (seen.now - decided).max(0),
            candidate_requests: seen.candidate_requests,
            candidate_errors: seen.candidate_errors,
        })
    }

    fn keep(&self, serving: &Serving, seen: &Observation) -> Option<RolloutEvent> {
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
        let armed =
            serving.probation_until.is_some() && (serving.previous.is_some() || self.backup.is_some());
        if let Some(cause) = harm(seen).filter(|_| armed) {
            return Some(self.rollback(cause, None));
        }
        let over = serving.probation_until.is_some_and(|until| seen.now >= until);
        (over && seen.serving == Readiness::Ready).then_some(RolloutEvent::Confirmed)
    }

    /// Carries an event of `promotion`'s rollout out.
    pub fn apply(&mut self, promotion: &PromotionId, event: &RolloutEvent, now: Millis) {
        match event {
            RolloutEvent::Started { plan } => {
                self.taken.insert(promotion.clone());
                let phase = Phase::Preparing { since: now };
                self.active = Some(Rollout { promotion: promotion.clone(), plan: plan.clone(), phase });
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
            RolloutEvent::Promoted { probation_until, .. } => self.promote(*probation_until),
            RolloutEvent::Confirmed => {
                if let Some(serving) = &mut self.serving {
                    serving.probation_until = None;
                }
            }
            RolloutEvent::RollbackDecided { cause, target, epoch, .. } => {
                self.epoch = *epoch;
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
                self.begin_or_set(promotion, Phase::FailingOver { summary: summary.clone() });
            }
            RolloutEvent::OnBackup => self.fail_over("the backup had to take over"),
            RolloutEvent::Stranded { summary } => self.fail_over(summary),
        }
    }

    fn promote(&mut self, probation_until: Millis) {
        let Some(active) = self.active.take() else { return };
        // What was broken is nothing to go back to: the backup is.
        let previous = self.serving.take().filter(|_| self.failed_over.is_none()).map(|s| s.revision);
        self.failed_over = None;
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
        self.serving = target.and_then(|revision| Serving::again(revision, active.plan));
    }

    fn fail_over(&mut self, why: &str) {
        let Some(active) = self.active.take() else { return };
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
                self.active =
                    Some(Rollout { promotion: promotion.clone(), plan: serving.plan.clone(), phase });
            }
            (None, None) => {}
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

/// Why a rollout must go back at once, if it must: harm comes before every other rule.
fn harm(seen: &Observation) -> Option<Cause> {
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
