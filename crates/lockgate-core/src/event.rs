//! Everything that can happen to governed state. The log of these events is the source of truth.

use crate::clock::Millis;
use crate::digest::Digest;
use crate::gate::{Envelope, Outcome, PublicKey};
use crate::guard::Judgement;
use crate::id::{CommandId, EnvironmentName, GateName, ModelName, PrincipalId, PromotionId};
use crate::plan::{ApprovalRule, Plan, Revision};
use crate::release::Manifest;
use crate::rollout::{Away, Drilled};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Event {
    /// A project's configuration was applied.
    ConfigurationApplied {
        /// SHA-256 of text and settings.
        digest: Digest,
        /// The text of `lockgate.toml`.
        toml: String,
        /// Settings over it, by environment variable or `--set`: `key=value`.
        #[serde(default)]
        settings: Vec<String>,
        /// Who must say yes from now on, by environment. Another rule than the text's where whoever applied it may not
        /// change the rule.
        #[serde(default)]
        approvals: BTreeMap<EnvironmentName, ApprovalRule>,
    },
    /// An environment's agent made itself known with its key.
    AgentEnrolled {
        /// Its public key.
        key: PublicKey,
    },
    /// A release was made.
    ReleaseCreated {
        /// The release's digest.
        digest: Digest,
        /// Its manifest.
        manifest: Box<Manifest>,
        /// Authors of its commits and of its run.
        authors: BTreeSet<PrincipalId>,
    },
    /// Something happened to a promotion.
    Promotion(Box<PromotionEvent>),
    /// Something happened to a rollout (written by an agent).
    Rollout(Box<RolloutEvent>),
    /// Something happened to a worker (written by an agent).
    Worker(WorkerEvent),
}

/// What can happen to a promotion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum PromotionEvent {
    /// It was asked for and planned.
    Planned {
        /// The plan.
        plan: Box<Plan>,
        /// Its hash.
        plan_hash: Digest,
    },
    /// A gate left evidence.
    EvidenceRecorded {
        /// The gate.
        gate: GateName,
        /// How it ended.
        outcome: Outcome,
        /// The finding's sentence.
        summary: String,
        /// The signed statement.
        envelope: Envelope,
    },
    /// Every gate has passed.
    GatesPassed,
    /// A person said yes.
    Approved {
        /// Who.
        by: PrincipalId,
        /// The plan that was approved.
        plan_hash: Digest,
        /// Digest over the evidence that was seen.
        evidence: Digest,
    },
    /// It has every approval that it needs.
    ApprovalsComplete,
    /// Its turn has come: the agent may roll it out.
    Released,
    /// It ended without entering: a gate failed or a person said no.
    Rejected {
        /// Why.
        reason: String,
    },
    /// It ended because nothing decided it in time.
    Expired {
        /// What was still missing.
        missing: String,
    },
    /// A newer promotion took its place.
    Superseded {
        /// The newer one.
        by: PromotionId,
    },
    /// Its release serves again, with no way back of its own but the backup: what replaced it went back.
    ServesAgain {
        /// The promotion that went back.
        after: PromotionId,
    },
    /// Its requester took it back.
    Cancelled,
    /// A person told the rollout to do something.
    Instructed {
        /// The instruction.
        instruction: Instruction,
    },
}

/// What a person can tell a rollout to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InstructionKind {
    /// Stay at this step; guards go on and may still roll back.
    Pause,
    /// Go on.
    Resume,
    /// Go back to the baseline.
    Abort,
    /// Go back to what served before, even after the release was confirmed.
    Rollback,
    /// Go on from a preview step that waits for a person.
    Switch,
    /// Send all traffic to the way back for a moment and home again, to see that it works.
    Drill,
}

impl InstructionKind {
    /// The word that people use for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Abort => "abort",
            Self::Rollback => "rollback",
            Self::Switch => "switch",
            Self::Drill => "drill",
        }
    }
}

/// One instruction of a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instruction {
    /// Its id: carried out once.
    pub id: CommandId,
    /// What to do.
    pub kind: InstructionKind,
    /// Who said so.
    pub by: PrincipalId,
    /// Why.
    pub reason: String,
}

/// What was seen at the end of a rollback.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    /// Milliseconds from the decision to the last request that went to the candidate; 0 where none did.
    pub last_request_ms: i64,
    /// Milliseconds from the decision until it was verified.
    pub verified_ms: i64,
    /// Requests that the candidate answered over the whole rollout.
    pub candidate_requests: u64,
    /// Bad answers among them.
    pub candidate_errors: u64,
    /// Since when these were counted, where the agent was started again meanwhile: what went before is not in them.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub counted_since: Option<Millis>,
}

/// How a smoke test ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Smoked {
    /// Only a pass lets the preview go on.
    pub outcome: Outcome,
    /// Its last words.
    pub summary: String,
    /// Digest of what it wrote. The server gets that later than the event; it never has it where the agent could not keep it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub log: Option<Digest>,
}

/// Why a rollout goes back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum Cause {
    /// A guard said *worse*.
    Guard {
        /// What all guards said at that moment.
        judgement: Judgement,
        /// The guard that spoke most clearly.
        summary: String,
    },
    /// The gateway's own breaker opened.
    Breaker {
        /// What it saw.
        summary: String,
    },
    /// A person said so.
    Person {
        /// Who.
        by: PrincipalId,
        /// Their words.
        reason: String,
    },
    /// The evidence did not suffice by the deadline and the configuration says to go back then.
    Inconclusive {
        /// What was missing.
        summary: String,
    },
    /// The candidate's workers don't come up any more.
    Unhealthy {
        /// What was seen.
        summary: String,
    },
}

impl Cause {
    /// The cause as one sentence.
    #[must_use]
    pub fn summary(&self) -> String {
        match self {
            Self::Guard { summary, .. }
            | Self::Breaker { summary }
            | Self::Inconclusive { summary }
            | Self::Unhealthy { summary } => summary.clone(),
            Self::Person { reason, .. } if reason.is_empty() => "a person asked for it".to_owned(),
            Self::Person { reason, .. } => format!("a person asked for it: {reason}"),
        }
    }
}

/// What can happen to a rollout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum RolloutEvent {
    /// The agent took the promotion on, after it verified all evidence with its own keys.
    Started {
        /// The plan.
        plan: Box<Plan>,
    },
    /// The candidate can't run here, or its preview ended badly; no traffic had moved.
    Aborted {
        /// Why.
        reason: String,
    },
    /// The candidate is loaded, warm and verified; the first or next step begins.
    StepEntered {
        /// Which step, from 0.
        step: usize,
        /// The share of users who get the candidate's answers.
        weight: u32,
        /// The share of requests that are mirrored to it instead.
        #[serde(skip_serializing_if = "crate::plan::is_none_of_it", default)]
        shadow: u32,
        /// The model's routing epoch from here on.
        epoch: u64,
        /// What the guards said before it; nothing before the first step.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        judgement: Option<Judgement>,
    },
    /// Every gateway has applied the step's share.
    StepSettled {
        /// Which step.
        step: usize,
    },
    /// The step can't go on by itself.
    Held {
        /// Why.
        reason: String,
        /// Whether that never passes by itself.
        #[serde(skip_serializing_if = "std::ops::Not::not", default)]
        needs_person: bool,
        /// What the guards said.
        judgement: Judgement,
    },
    /// The smoke test has ended.
    Smoked(Smoked),
    /// A person let a preview step that waits for one go on.
    SwitchAllowed {
        /// The instruction.
        instruction: Instruction,
    },
    /// A person stopped the forward move.
    Paused {
        /// The instruction.
        instruction: Instruction,
    },
    /// A person let it go on.
    Resumed {
        /// The instruction.
        instruction: Instruction,
    },
    /// All traffic is served by the release, which is now on probation.
    Promoted {
        /// What the guards said at the end.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        judgement: Option<Judgement>,
        /// When probation ends.
        probation_until: Millis,
    },
    /// Probation ended well.
    Confirmed,
    /// It was decided to go back. Written before anything else is done.
    RollbackDecided {
        /// Why.
        cause: Cause,
        /// Where to.
        target: Option<Revision>,
        /// The model's routing epoch from here on.
        epoch: u64,
        /// The person's instruction that caused it, so that it is carried out once.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        instruction: Option<CommandId>,
    },
    /// Every gateway has applied the table without the candidate.
    RollbackApplied {
        /// Milliseconds since the decision.
        took_ms: i64,
    },
    /// The candidate's share was seen to be zero, and the target answers.
    RolledBack(Seal),
    /// The target is broken too: the backup takes over.
    FailoverDecided {
        /// What was seen.
        summary: String,
        /// The model's routing epoch from here on.
        epoch: u64,
    },
    /// The backup serves.
    OnBackup,
    /// Nothing can serve. Requests are answered by 503.
    Stranded {
        /// What was seen.
        summary: String,
    },
    /// A person asked for a drill: all traffic goes to the way back for a moment.
    DrillStarted {
        /// The way back.
        target: Revision,
        /// The model's routing epoch from here on.
        epoch: u64,
        /// Requests that the way back had answered until then, since the agent's start, and badly.
        before: (u64, u64),
        /// The instruction.
        instruction: Instruction,
    },
    /// A person asked for a drill, and there can be none now.
    DrillRefused {
        /// Why.
        reason: String,
        /// The instruction.
        instruction: Instruction,
    },
    /// Every gateway sends everything to the way back.
    DrillApplied {
        /// Milliseconds since the decision.
        took_ms: i64,
    },
    /// Enough was seen, or something failed: traffic goes home.
    DrillTurned {
        /// What was seen; none where it didn't come so far.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        away: Option<Away>,
        /// Why it failed, where it did.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        failed: Option<String>,
        /// The model's routing epoch from here on.
        epoch: u64,
    },
    /// Every gateway sends everything home.
    DrillEnded {
        /// How it went.
        drilled: Drilled,
    },
}

/// What can happen to a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum WorkerEvent {
    /// It ended without being told to.
    Lost {
        /// The model that it served.
        model: ModelName,
        /// The release that it ran.
        release: Digest,
        /// Which of the release's workers.
        worker: u32,
        /// How it ended.
        how: String,
    },
    /// It serves again.
    Back {
        /// The model that it serves.
        model: ModelName,
        /// The release that it runs.
        release: Digest,
        /// Which of the release's workers.
        worker: u32,
        /// Milliseconds since it was lost.
        after_ms: i64,
    },
}
