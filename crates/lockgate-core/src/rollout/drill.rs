//! A drill: all traffic goes to the way back for a moment and comes home, for real, so that nobody has to believe that it would.
//!
//! Only a confirmed release is drilled, while nothing else moves: on probation a drill would take its evidence away. Whatever goes
//! wrong ends it, and users go home first.

use super::{Deployment, Observation, QUIET_MS, Readiness, Serving};
use crate::clock::Millis;
use crate::event::{Instruction, RolloutEvent};
use crate::plan::Revision;
use serde::{Deserialize, Serialize};

/// How long a drill may take on its way, in milliseconds; then it goes home and has failed.
pub const DRILL_MS: i64 = 30_000;

/// How long the way back serves everything before traffic goes home, in milliseconds: long enough to see requests answered.
pub const DRILL_STAY_MS: i64 = 1_000;

/// So many bad answers of the way back, and half of what it answered, send users home at once.
const BAD: u64 = 3;

/// A drill under way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Drill {
    /// Where traffic goes.
    pub target: Revision,
    /// When it was begun.
    pub decided: Millis,
    /// Where it stands.
    pub leg: Leg,
}

/// Where a drill stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "leg", rename_all = "snake_case")]
pub enum Leg {
    /// Gateways are being told to send everything to the way back.
    Leaving,
    /// Every gateway does.
    Away {
        /// Since when.
        since: Millis,
        /// Requests that the way back had answered until then, and badly.
        before: (u64, u64),
    },
    /// Traffic goes home.
    Returning {
        /// Since when.
        since: Millis,
        /// What was seen.
        away: Option<Away>,
        /// Why it failed, where it did.
        failed: Option<String>,
    },
}

/// What was seen while everything went to the way back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Away {
    /// Milliseconds from the decision to the last request that went to what serves; 0 where none did.
    pub last_request_ms: i64,
    /// Milliseconds from the decision until no request went to it any more for a while.
    pub verified_ms: i64,
    /// Requests that the way back answered.
    pub requests: u64,
    /// Bad answers among them.
    pub errors: u64,
}

/// How a drill ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Drilled {
    /// When it was begun.
    pub at: Millis,
    /// Where traffic went.
    pub target: Revision,
    /// What was seen there; none where it didn't come so far.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub away: Option<Away>,
    /// Milliseconds until every gateway sent everything home again.
    pub home_ms: i64,
    /// Why it failed, where it did.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub failed: Option<String>,
}

impl Deployment {
    /// Where a drill would send traffic.
    ///
    /// # Errors
    /// Why there can be none now, as a sentence.
    pub fn can_drill(&self) -> Result<&Revision, &'static str> {
        let Some(serving) = &self.serving else {
            return Err("nothing was promoted here that could be drilled");
        };
        if self.failed_over.is_some() {
            return Err("it has failed over, so there is nothing to rehearse");
        }
        if self.active.is_some() {
            return Err("a rollout moves its traffic right now; wait for it or abort it");
        }
        if self.drill.is_some() {
            return Err("a drill is under way already");
        }
        if serving.probation_until.is_some() {
            return Err(
                "it is on probation: a drill would take away its evidence; wait until it is confirmed",
            );
        }
        self.way_back().ok_or("there is nothing to go back to: no release before it, and no other backup")
    }

    /// What follows from a person's instruction to drill. Ids grow with time, so an older one has been looked at.
    pub(super) fn begin_drill(&self, instruction: &Instruction, now: Millis) -> Option<RolloutEvent> {
        if self.drill_told.as_ref().is_some_and(|told| instruction.id <= *told) {
            return None;
        }
        // Nobody wants a drill at night that was asked for in the evening, when the agent could not be reached.
        let is_late = now - instruction.id.made() > DRILL_MS;
        let late = "it was asked for too long ago, and the agent has heard of it only now";
        Some(match self.can_drill().and_then(|target| if is_late { Err(late) } else { Ok(target) }) {
            Ok(target) => RolloutEvent::DrillStarted {
                target: target.clone(),
                epoch: self.epoch + 1,
                instruction: instruction.clone(),
            },
            Err(why) => {
                RolloutEvent::DrillRefused { reason: why.to_owned(), instruction: instruction.clone() }
            }
        })
    }

    /// What follows while a drill is under way.
    pub(super) fn rehearse(
        &self,
        drill: &Drill,
        serving: &Serving,
        seen: &Observation,
    ) -> Option<RolloutEvent> {
        let turn = |away: Option<Away>, failed: Option<String>| {
            Some(RolloutEvent::DrillTurned { away, failed, epoch: self.epoch + 1 })
        };
        if let Readiness::Failed(_) = &seen.serving {
            // What it would go home to is broken: then this is no drill any more.
            return self.keep(serving, seen);
        }
        let waited = seen.now - drill.decided;
        let (since, before) = match &drill.leg {
            Leg::Returning { since, away, failed } => {
                return seen.applied.then(|| RolloutEvent::DrillEnded {
                    drilled: Drilled {
                        at: drill.decided,
                        target: drill.target.clone(),
                        away: *away,
                        home_ms: (seen.now - since).max(0),
                        failed: failed.clone(),
                    },
                });
            }
            Leg::Leaving => (None, (seen.target_requests, seen.target_errors)),
            Leg::Away { since, before } => (Some(*since), *before),
        };
        let requests = seen.target_requests.saturating_sub(before.0);
        let errors = seen.target_errors.saturating_sub(before.1);
        let away = Away {
            last_request_ms: seen.last_candidate_request.map_or(0, |at| (at - drill.decided).max(0)),
            verified_ms: waited.max(0),
            requests,
            errors,
        };
        if let Readiness::Failed(why) = &seen.target {
            return turn(None, Some(format!("the way back does not stay up: {why}")));
        }
        if errors >= BAD && errors * 2 >= requests {
            let why = format!("the way back answered {errors} of {requests} requests badly");
            return turn(Some(away), Some(why));
        }
        // Before its beginning: the clock was set back, and nothing that is timed would ever come.
        if !(0..=DRILL_MS).contains(&waited) {
            let seconds = DRILL_MS / 1000;
            return turn(None, Some(format!("traffic was not seen to have moved within {seconds} s")));
        }
        let Some(since) = since else {
            return (seen.applied && seen.target == Readiness::Ready).then_some(RolloutEvent::DrillApplied {
                took_ms: waited.max(0),
                requests: before.0,
                errors: before.1,
            });
        };
        let quiet = seen.quiet_ms.is_some_and(|ms| ms >= QUIET_MS);
        if quiet && seen.applied && seen.target == Readiness::Ready && seen.now - since >= DRILL_STAY_MS {
            let failed =
                (errors > 0).then(|| format!("the way back answered {errors} of {requests} requests badly"));
            return turn(Some(away), failed);
        }
        None
    }
}
