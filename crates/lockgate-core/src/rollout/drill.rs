//! A drill: all traffic goes to the way back for a moment and comes home, for real, so that nobody has to believe that it would.
//!
//! Only a confirmed release is drilled, while nothing else moves: on probation a drill would take its evidence away. Whatever goes
//! wrong ends it, and users go home first.

use super::{Deployment, Observation, QUIET_MS, Readiness, Serving};
use crate::clock::Millis;
use crate::event::{Instruction, RolloutEvent};
use crate::id::CommandId;
use crate::plan::Revision;
use serde::{Deserialize, Serialize};

/// How long a drill may take on its way, in milliseconds; then it goes home and has failed. One that was asked for so long ago is
/// not begun any more.
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
    /// Requests that the way back had answered until then, since the agent's start, and badly.
    pub before: (u64, u64),
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
    /// Milliseconds from the decision until no request had gone to it for a while.
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

/// What became of the newest instruction to drill: each is carried out or refused once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// The instruction.
    pub id: CommandId,
    /// Why there was no drill, where there was none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub refused: Option<String>,
}

/// What is known of a deployment's way back when a drill is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WayBack {
    /// Whether it can serve.
    pub readiness: Readiness,
    /// Requests that it has answered since the agent's start, and badly.
    pub answered: (u64, u64),
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
        if serving.plan.rollout.observe {
            return Err("the environment only observes, and a drill would move its users");
        }
        self.way_back().ok_or("there is nothing to go back to: no release before it, and no other backup")
    }

    /// What follows from a person's instruction to drill.
    pub(super) fn begin_drill(&self, instruction: &Instruction, way_back: &WayBack) -> Option<RolloutEvent> {
        if self.drill_told.as_ref().is_some_and(|told| instruction.id == told.id) {
            return None;
        }
        let target = self.can_drill().map_err(str::to_owned).and_then(|target| match &way_back.readiness {
            Readiness::Ready => Ok(target),
            Readiness::Failed(why) => Err(format!("the way back does not stay up: {why}")),
            Readiness::Pending | Readiness::Unknown => {
                Err("the way back's workers are not ready; try again when they are".to_owned())
            }
        });
        let instruction = instruction.clone();
        Some(match target {
            Ok(target) => RolloutEvent::DrillStarted {
                target: target.clone(),
                epoch: self.epoch + 1,
                before: way_back.answered,
                instruction,
            },
            Err(reason) => RolloutEvent::DrillRefused { reason, instruction },
        })
    }

    /// What follows while a drill is under way.
    pub(super) fn rehearse(
        &self,
        drill: &Drill,
        serving: &Serving,
        seen: &Observation,
    ) -> Option<RolloutEvent> {
        if let Readiness::Failed(_) = &seen.serving {
            // What it would go home to is broken: then this is no drill any more.
            return self.keep(serving, seen);
        }
        if let Leg::Returning { since, away, failed } = &drill.leg {
            let drilled = Drilled {
                at: drill.decided,
                target: drill.target.clone(),
                away: *away,
                home_ms: (seen.now - since).max(0),
                failed: failed.clone(),
            };
            return seen.applied.then_some(RolloutEvent::DrillEnded { drilled });
        }
        let limit = i64::try_from(serving.plan.rollout.timeout_ms).unwrap_or(DRILL_MS).min(DRILL_MS / 2);
        match drill.look(seen, limit) {
            Look::Wait => None,
            Look::Arrived { took_ms } => Some(RolloutEvent::DrillApplied { took_ms }),
            Look::Home { away, failed } => {
                Some(RolloutEvent::DrillTurned { away, failed, epoch: self.epoch + 1 })
            }
        }
    }
}

/// What follows from a look at a drill on its way there.
enum Look {
    Wait,
    /// Every gateway sends everything to the way back.
    Arrived {
        took_ms: i64,
    },
    /// It is time to go home.
    Home {
        away: Option<Away>,
        failed: Option<String>,
    },
}

impl Drill {
    fn look(&self, seen: &Observation, request_ms: i64) -> Look {
        let waited = seen.now - self.decided;
        let requests = seen.target_requests.saturating_sub(self.before.0);
        let errors = seen.target_errors.saturating_sub(self.before.1);
        let away = Some(Away {
            last_request_ms: seen.last_candidate_request.map_or(0, |at| (at - self.decided).max(0)),
            verified_ms: waited.max(0),
            requests,
            errors,
        });
        let home = |away, why: String| Look::Home { away, failed: Some(why) };
        if self.decided < seen.began {
            // Counts and connections of the process before are gone: nothing would be proven any more.
            return home(None, "the agent was started again meanwhile".to_owned());
        }
        match &seen.target {
            Readiness::Ready => {}
            Readiness::Failed(why) => return home(away, format!("the way back does not stay up: {why}")),
            Readiness::Pending | Readiness::Unknown => {
                return home(away, "the way back's workers were not ready any more".to_owned());
            }
        }
        let badly = || format!("the way back answered {errors} of {requests} requests badly");
        if errors >= BAD && errors * 2 >= requests {
            return home(away, badly());
        }
        // Before its beginning: the clock was set back, and nothing that is timed would ever come.
        if !(0..=DRILL_MS).contains(&waited) {
            let seconds = DRILL_MS / 1000;
            return home(away, format!("not all traffic was seen to have moved within {seconds} s"));
        }
        let Leg::Away { since } = &self.leg else {
            let took_ms = waited;
            return if seen.applied { Look::Arrived { took_ms } } else { Look::Wait };
        };
        let stayed = seen.now - since;
        // A request that is under way there may be one that never ends: it is given the time that it may take.
        let stay = DRILL_STAY_MS + if seen.target_busy { request_ms } else { 0 };
        // Long answers of what serves may still be under way: what counts is that no request goes there any more.
        let quiet = seen.last_candidate_request.is_none_or(|at| seen.now - at >= QUIET_MS);
        if !(quiet && seen.applied && stayed >= stay) {
            return Look::Wait;
        }
        if errors > 0 {
            return home(away, badly());
        }
        if seen.target_busy && requests == 0 {
            return home(
                away,
                format!("requests went to the way back, and none was answered within {stay} ms"),
            );
        }
        Look::Home { away, failed: None }
    }
}
