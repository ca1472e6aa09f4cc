//! What one environment does for one model: the deployment, and the rollout that moves its traffic. Pure.
//!
//! [`Deployment::step`] looks at the state and an [`Observation`] and says the next event, at most one; the agent writes it
//! to its journal, applies it and asks again. Traffic is never commanded: it follows from the state ([`Deployment::traffic`])
//! and a reconciler makes it so. So an agent that is killed anywhere goes on from its journal.
//!
//! | module | subject |
//! |---|---|
//! | `step` | what follows from what is seen |
//! | `preview` | the same of a preview step, in which no user meets the candidate |
//! | `drill` | rehearsing the way back |
//! | `due` | when a step has had its time |
//! | `instruct` | what follows from what a person says; where a rollback goes |
//! | `apply` | carrying an event out |
//!
//! ```text
//! Preparing ─ready─▶ Step 0 ─▶ … ─▶ Step n (100 %) ─hold over─▶ serving, on probation ─▶ confirmed
//!   └ fails ▶ aborted   │ worse, breaker, person, too late            │ unhealthy, person
//!            (in a preview step: ▶ aborted)                           │
//!                       └──────────▶ RollingBack ─applied, quiet─▶ rolled back
//!                                        └ target broken ▶ FailingOver ─▶ on backup │ stranded
//! ```

mod apply;
mod drill;
mod due;
mod instruct;
mod preview;
mod step;

pub use drill::{Away, DRILL_MS, DRILL_STAY_MS, Drill, Drilled, Leg, Told, WayBack};

use crate::clock::Millis;
use crate::event::{Cause, RolloutEvent, Smoked};
use crate::guard::Judgement;
use crate::id::{ModelName, PromotionId};
use crate::plan::{Isolation, Plan, Revision, Smoke, Switch};
use crate::route::WHOLE;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// How long the candidate must have been without a request before a rollback counts as seen, in milliseconds. Longer than
/// a gateway's slowest hand-over between threads; short enough that a person sees the seal at once.
pub const QUIET_MS: i64 = 250;

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
    /// The drill under way.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub drill: Option<Drill>,
    /// What became of the newest instruction to drill.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub drill_told: Option<Told>,
    /// How the last drill of what serves ended.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub drilled: Option<Drilled>,
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
    /// How its smoke test ended.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub smoke: Option<Smoked>,
    /// Whether a person has let its preview go on.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub switch: bool,
}

impl Rollout {
    /// A rollout that begins.
    fn new(promotion: PromotionId, plan: Box<Plan>, phase: Phase) -> Self {
        Self { promotion, plan, phase, smoke: None, switch: false }
    }

    /// The present step, in which only testers and the smoke test reach the candidate: how it ends.
    #[must_use]
    pub fn preview(&self) -> Option<Switch> {
        let Phase::Step { index, .. } = &self.phase else { return None };
        self.plan.rollout.steps.get(*index)?.preview
    }

    /// The smoke test that is to be run now: in a preview step that every gateway has, once.
    #[must_use]
    pub fn smoke_due(&self) -> Option<&Smoke> {
        let runs = match &self.phase {
            Phase::Step { status, .. } => !matches!(status, Status::Settling),
            _ => false,
        };
        let due = runs && self.preview().is_some() && self.smoke.is_none();
        self.plan.rollout.smoke.as_ref().filter(|_| due)
    }

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
    /// The candidate has a share of the traffic, or is asked a share of the requests for comparison only.
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
    /// Where a rollback or a drill under way goes.
    pub target: Readiness,
    /// The backup.
    pub backup: Readiness,
    /// What the guards say about the active rollout.
    pub judgement: Judgement,
    /// What the gateway's own breaker saw, if it opened.
    pub breaker: Option<String>,
    /// How long the candidate has been without a request, in milliseconds, with none in flight; none where one is.
    pub quiet_ms: Option<i64>,
    /// When the last request went to the candidate (in a drill: to what serves), if any did.
    pub last_candidate_request: Option<Millis>,
    /// Requests that the candidate has answered in this rollout.
    pub candidate_requests: u64,
    /// Bad answers among them.
    pub candidate_errors: u64,
    /// Requests that a drill's way back has answered since the agent's start.
    pub target_requests: u64,
    /// Bad answers among them.
    pub target_errors: u64,
    /// Whether requests are under way to it.
    pub target_busy: bool,
    /// When the agent was started.
    pub began: Millis,
    /// Since when they are counted, where the agent was started again during the rollout.
    pub counted_since: Option<Millis>,
}

/// How a model's traffic should flow.
#[derive(Debug, Clone, PartialEq)]
pub struct Traffic<'a> {
    /// What serves everything that isn't split off.
    pub main: Option<&'a Revision>,
    /// The candidate, its share in parts of [`WHOLE`] and the salt of the assignment.
    pub split: Option<(&'a Revision, u32, &'a PromotionId)>,
    /// The share of requests that are mirrored to the candidate, in parts of [`WHOLE`]; its own share is 0 then.
    pub shadow: u32,
    /// Whether nobody but testers and the smoke test reach the candidate; its share is 0 then, too.
    pub preview: bool,
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
            drill: None,
            drill_told: None,
            drilled: None,
            taken: BTreeSet::new(),
        }
    }

    /// How traffic should flow in this state.
    #[must_use]
    pub fn traffic(&self) -> Traffic<'_> {
        let backup = self.backup.as_ref();
        let all = |main| Traffic { main, split: None, shadow: 0, preview: false, backup };
        match self.active.as_ref().map(|a| (a, &a.phase)) {
            Some((active, Phase::Step { index, .. })) => {
                let (weight, shadow) =
                    active.plan.rollout.steps.get(*index).map_or((0, 0), |s| (s.weight, s.shadow));
                Traffic {
                    main: self.main(),
                    split: Some((&active.plan.revision, weight, &active.promotion)),
                    shadow,
                    preview: active.preview().is_some(),
                    backup,
                }
            }
            Some((_, Phase::RollingBack { target, .. })) => all(target.as_ref()),
            Some((_, Phase::FailingOver { .. })) => all(backup.or(self.main())),
            Some((_, Phase::Preparing { .. })) | None => all(self.main()),
        }
    }

    /// How a gateway is told of it. On probation the release keeps its place as the candidate with all the traffic: so it goes
    /// on being counted, the breaker stays armed, and what it would go back to answers where its workers can't. Where the plan
    /// holds users out, it has all but these from its last step to the end of its probation. A drill is a matter of routes alone:
    /// everything else goes on as if there were none.
    #[must_use]
    pub fn routed(&self) -> Traffic<'_> {
        let mut traffic = self.traffic();
        if let Some(Drill { target, leg: Leg::Leaving | Leg::Away { .. }, .. }) = &self.drill {
            return Traffic { main: Some(target), ..traffic };
        }
        if let Some((serving, way_back)) = self.on_probation() {
            traffic.main = Some(way_back);
            traffic.split = Some((&serving.revision, WHOLE, &serving.promotion));
        }
        let plan = self.active.as_ref().map(|a| &a.plan).or(self.serving.as_ref().map(|s| &s.plan));
        if let (Some((_, weight, _)), Some(plan), Some(_)) = (&mut traffic.split, plan, traffic.main)
            && *weight == WHOLE
        {
            *weight = WHOLE.saturating_sub(plan.rollout.holdout);
        }
        traffic
    }

    /// The revision that may run inside the gateway: what serves, where its plan asks for that, and nothing else has a part in
    /// the model's traffic: no rollout from its preparation on, no probation, no drill, no failover. So a candidate never runs
    /// there, and no two releases are compared of which one does.
    #[must_use]
    pub fn inline(&self) -> Option<&Revision> {
        let quiet = self.active.is_none() && self.drill.is_none() && self.failed_over.is_none();
        let serving = self.serving.as_ref().filter(|s| quiet && s.probation_until.is_none())?;
        (serving.plan.rollout.isolation == Isolation::Inline).then_some(&serving.revision)
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

    /// Whether `promotion` may be taken on now: never twice, one at a time, and not during a drill.
    #[must_use]
    pub fn can_take(&self, promotion: &PromotionId) -> bool {
        self.active.is_none() && self.drill.is_none() && !self.taken.contains(promotion)
    }

    /// Where what serves would go back to, once no rollout is under way. Nothing where that would only be an outage.
    #[must_use]
    pub fn way_back(&self) -> Option<&Revision> {
        let serving = self.serving.as_ref()?;
        let target = serving.previous.as_ref().or(self.backup.as_ref());
        target.filter(|t| t.digest() != serving.revision.digest())
    }

    /// What serves on probation, and what it would go back to. It still takes part in its rollout, as the candidate with all
    /// the traffic: counted, judged, and with the way back armed. None where nothing is on probation, or has no way back.
    #[must_use]
    pub fn on_probation(&self) -> Option<(&Serving, &Revision)> {
        let idle = self.active.is_none() && self.failed_over.is_none();
        let serving = self.serving.as_ref().filter(|s| idle && s.probation_until.is_some())?;
        Some((serving, self.way_back()?))
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
            RolloutEvent::DrillStarted { target, .. } => {
                serves && self.can_drill().is_ok_and(|way_back| way_back == target)
            }
            RolloutEvent::DrillRefused { .. } => {
                self.serving.as_ref().is_some_and(|s| s.promotion == *promotion)
            }
            RolloutEvent::DrillApplied { .. } => serves && self.drills(|leg| matches!(leg, Leg::Leaving)),
            RolloutEvent::DrillTurned { .. } => {
                serves && self.drills(|leg| !matches!(leg, Leg::Returning { .. }))
            }
            RolloutEvent::DrillEnded { .. } => {
                serves && self.drills(|leg| matches!(leg, Leg::Returning { .. }))
            }
            _ => own,
        }
    }

    fn drills(&self, stands: impl Fn(&Leg) -> bool) -> bool {
        self.drill.as_ref().is_some_and(|drill| stands(&drill.leg))
    }
}
