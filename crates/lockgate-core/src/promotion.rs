//! The promotion's state machine: `decide` says what follows from a command, `apply` carries an event out. Both are pure.
//!
//! | module | subject |
//! |---|---|
//! | `decide` | commands, and what follows from them |
//! | `follow` | carrying events out: the server's own, and what the agent reports |
//!
//! ```text
//! Gating ──all pass──▶ AwaitingApproval ──quorum──▶ Queued ──slot free──▶ Rolling ──▶ Probation ──▶ Confirmed
//!   │ any fail ▶ Rejected      │ no ▶ Rejected        │ newer ▶ Superseded  │            │
//!   └ too late ▶ Expired       └ too late ▶ Expired   └ taken back ▶ Cancelled└─ RollingBack ─▶ RolledBack │ FailingOver …
//! ```

mod decide;
mod follow;

pub use decide::{CantDo, Command};

use crate::clock::Millis;
use crate::digest::Digest;
use crate::event::{Cause, Instruction, Seal, Smoked};
use crate::gate::{Envelope, Outcome};
use crate::guard::Judgement;
use crate::id::{GateName, PrincipalId, PromotionId};
use crate::plan::{Plan, Switch};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Where a promotion stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "snake_case")]
pub enum Stage {
    /// Its gates are being run.
    Gating,
    /// It waits for people.
    AwaitingApproval,
    /// It waits for its turn.
    Queued,
    /// The agent prepares the release or moves traffic.
    Rolling {
        /// The rollout as far as the agent reported it.
        rollout: RolloutView,
    },
    /// The release serves all traffic and is still watched.
    Probation {
        /// When probation ends.
        until: Millis,
    },
    /// The release is what the environment serves.
    Confirmed,
    /// It never entered.
    Rejected {
        /// Why.
        reason: String,
    },
    /// Nothing decided it in time.
    Expired {
        /// What was missing.
        missing: String,
    },
    /// A newer promotion took its place.
    Superseded {
        /// The newer one.
        by: PromotionId,
    },
    /// It was taken back.
    Cancelled,
    /// Traffic is going back.
    RollingBack {
        /// Why.
        cause: Cause,
    },
    /// Traffic went back, as was seen.
    RolledBack {
        /// Why.
        cause: Cause,
        /// What was seen.
        #[serde(flatten)]
        seal: Seal,
    },
    /// The target of the rollback is broken too.
    FailingOver,
    /// The backup serves; a person is needed.
    OnBackup,
    /// Nothing can serve; a person is needed.
    Stranded {
        /// What was seen.
        summary: String,
    },
}

impl Stage {
    /// The word for people, tables and metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Gating => "gating",
            Self::AwaitingApproval => "awaiting-approval",
            Self::Queued => "queued",
            Self::Rolling { .. } => "rolling",
            Self::Probation { .. } => "probation",
            Self::Confirmed => "confirmed",
            Self::Rejected { .. } => "rejected",
            Self::Expired { .. } => "expired",
            Self::Superseded { .. } => "superseded",
            Self::Cancelled => "cancelled",
            Self::RollingBack { .. } => "rolling-back",
            Self::RolledBack { .. } => "rolled-back",
            Self::FailingOver => "failing-over",
            Self::OnBackup => "on-backup",
            Self::Stranded { .. } => "stranded",
        }
    }

    /// Whether the promotion still waits for something before its release serves all traffic, or is on its way back.
    #[must_use]
    pub fn is_active(&self) -> bool {
        matches!(
            self,
            Self::Gating
                | Self::AwaitingApproval
                | Self::Queued
                | Self::Rolling { .. }
                | Self::RollingBack { .. }
                | Self::FailingOver
        )
    }

    /// Whether it holds the environment's and model's one slot for moving traffic (I1). Probation doesn't.
    #[must_use]
    pub fn holds_slot(&self) -> bool {
        matches!(self, Self::Rolling { .. } | Self::RollingBack { .. } | Self::FailingOver)
    }

    /// Whether nothing can follow any more. (What was replaced may serve again, if what replaced it goes back.)
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        matches!(
            self,
            Self::Rejected { .. }
                | Self::Expired { .. }
                | Self::Superseded { .. }
                | Self::Cancelled
                | Self::RolledBack { .. }
                | Self::OnBackup
                | Self::Stranded { .. }
        )
    }
}

/// A rollout as the server knows it from the agent's reports.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RolloutView {
    /// The step, from 0; none while the release is being prepared.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub step: Option<usize>,
    /// The candidate's share in parts of [`crate::route::WHOLE`].
    pub weight: u32,
    /// The share of requests that are mirrored to it instead, in parts of [`crate::route::WHOLE`].
    #[serde(skip_serializing_if = "crate::plan::is_none_of_it", default)]
    pub shadow: u32,
    /// Why it doesn't move, where it doesn't.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub held: Option<Held>,
    /// What the guards said last.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub judgement: Option<Judgement>,
}

/// Why a rollout stands still.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// In words.
    pub reason: String,
    /// What ends it.
    pub until: Until,
}

/// What ends a standstill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Until {
    /// It passes by itself: more evidence comes in, workers become ready.
    Changed,
    /// A person paused it, and lets it go on.
    Resumed,
    /// The evidence did not come in time: a person decides.
    Decided,
}

/// What one gate left.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// How it ended.
    pub outcome: Outcome,
    /// The finding's sentence.
    pub summary: String,
    /// The signed statement.
    pub envelope: Envelope,
    /// When it arrived.
    pub at: Millis,
}

/// One person's yes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// Who.
    pub by: PrincipalId,
    /// The plan that was approved.
    pub plan_hash: Digest,
    /// Digest over the evidence that was seen.
    pub evidence: Digest,
    /// When.
    pub at: Millis,
}

/// One promotion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Promotion {
    /// Its id.
    pub id: PromotionId,
    /// What it will do.
    pub plan: Plan,
    /// The plan's hash: evidence and approvals are bound to it.
    pub plan_hash: Digest,
    /// Where it stands.
    #[serde(flatten)]
    pub stage: Stage,
    /// What its gates left.
    pub evidence: BTreeMap<GateName, Evidence>,
    /// Who said yes.
    pub approvals: Vec<Approval>,
    /// What people told the rollout, until the agent has done it.
    pub instructions: Vec<Instruction>,
    /// How its smoke test ended, by the agent's report.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub smoke: Option<Smoked>,
    /// When it was asked for.
    pub created: Millis,
    /// When the present stage began.
    pub since: Millis,
    /// When its release first had a share of the traffic, by the agent's clock.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub moved: Option<Millis>,
    /// When its release entered: first served all traffic, by the agent's clock.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub entered: Option<Millis>,
}

impl Promotion {
    /// A new promotion.
    #[must_use]
    pub fn new(id: PromotionId, plan: Plan, plan_hash: Digest, now: Millis) -> Self {
        Self {
            id,
            plan,
            plan_hash,
            stage: Stage::Gating,
            evidence: BTreeMap::new(),
            approvals: Vec::new(),
            instructions: Vec::new(),
            smoke: None,
            created: now,
            since: now,
            moved: None,
            entered: None,
        }
    }

    /// Whether its release has entered the environment through every gate and did not have to go back since: what a later
    /// environment asks for. A promotion that was replaced before it rolled has proven nothing.
    #[must_use]
    pub fn has_passed(&self) -> bool {
        let stands =
            matches!(self.stage, Stage::Probation { .. } | Stage::Confirmed | Stage::Superseded { .. });
        stands && self.entered.is_some() && self.missing_gates().is_empty()
    }

    /// The gates that have no evidence yet.
    #[must_use]
    pub fn missing_gates(&self) -> Vec<GateName> {
        self.plan.gates.keys().filter(|g| !self.evidence.contains_key(*g)).cloned().collect()
    }

    /// Digest over all evidence: what an approval is bound to beside the plan.
    #[must_use]
    pub fn evidence_digest(&self) -> Digest {
        let parts: Vec<Digest> = self.evidence.values().map(|e| e.envelope.digest()).collect();
        let bytes: Vec<&[u8]> = parts.iter().map(|d| d.as_bytes().as_slice()).collect();
        Digest::of_parts(&bytes)
    }

    /// The present step, where it is one that only testers and the smoke test see: how it ends.
    #[must_use]
    pub fn preview(&self) -> Option<Switch> {
        let Stage::Rolling { rollout } = &self.stage else { return None };
        self.plan.rollout.steps.get(rollout.step?)?.preview
    }

    /// Whether it waits in a preview step for a person to let it go on.
    #[must_use]
    pub fn waits_for_switch(&self) -> bool {
        let Stage::Rolling { rollout } = &self.stage else { return false };
        let tried = self.plan.rollout.smoke.is_none()
            || self.smoke.as_ref().is_some_and(|smoke| smoke.outcome == Outcome::Pass);
        let held = rollout.held.as_ref().is_some_and(|h| h.until == Until::Decided);
        self.preview().is_some() && tried && held
    }

    /// How many more people must say yes.
    #[must_use]
    pub fn approvals_missing(&self) -> u32 {
        let valid: BTreeSet<&PrincipalId> = self
            .approvals
            .iter()
            .filter(|a| a.plan_hash == self.plan_hash && a.evidence == self.evidence_digest())
            .map(|a| &a.by)
            .collect();
        let have = u32::try_from(valid.len()).unwrap_or(u32::MAX);
        self.plan.approval.as_ref().map_or(0, |rule| rule.count.saturating_sub(have))
    }
}
