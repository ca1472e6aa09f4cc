//! What server and agent say to each other: versioned, idempotent, always called by the agent.

use crate::clock::Millis;
use crate::digest::Digest;
use crate::entry::StoredEntry;
use crate::event::Instruction;
use crate::gate::{Envelope, PublicKey};
use crate::guard::Judgement;
use crate::id::{EnvironmentName, GateName, ModelName, PrincipalId, ProjectName, PromotionId};
use crate::plan::Plan;
use crate::route::Role;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The version of this protocol. A server refuses an agent of another one with a sentence.
pub const PROTOCOL: u32 = 3;

/// What an agent says first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// The environment that it is.
    pub environment: EnvironmentName,
    /// Its public key; the server keeps the first one that it sees.
    pub key: PublicKey,
    /// Where its gateway listens, for people.
    pub gateway: String,
    /// Its journal: the server takes only a continuation of what it has.
    #[serde(default)]
    pub journal: Mark,
}

/// How long a journal is, and one entry of it by which its continuation is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Mark {
    /// How many entries it has.
    pub length: u64,
    /// The last entry that the server has, as far as the agent knows; else the journal's own last one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub at: Option<Position>,
}

/// One entry of a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Its number.
    pub seq: u64,
    /// Its leaf.
    pub leaf: Digest,
}

/// The server's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The project.
    pub project: ProjectName,
    /// The last sequence number of this agent's journal that the server has; none where it has nothing.
    pub reported: Option<u64>,
}

/// What one environment should be doing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Desired {
    /// Grows with every change; the next question waits until it is larger.
    pub version: u64,
    /// The promotions that concern this environment's agent now.
    pub promotions: Vec<DesiredPromotion>,
    /// Questions that people asked.
    pub queries: Vec<Query>,
}

/// One promotion as the agent sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DesiredPromotion {
    /// Its id.
    pub id: PromotionId,
    /// Its plan.
    pub plan: Plan,
    /// The plan's hash.
    pub plan_hash: Digest,
    /// What to do.
    pub task: Task,
    /// What people told the rollout.
    pub instructions: Vec<Instruction>,
}

/// What an agent is to do for a promotion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "task", rename_all = "snake_case")]
pub enum Task {
    /// Run these gates.
    Gates {
        /// The gates without evidence.
        gates: Vec<GateName>,
    },
    /// Move traffic, after verifying all of this.
    Roll {
        /// This environment's evidence.
        evidence: BTreeMap<GateName, Envelope>,
        /// Earlier environments' evidence about the same release.
        lineage: BTreeMap<EnvironmentName, BTreeMap<GateName, Envelope>>,
    },
    /// Only follow instructions.
    Watch,
}

/// A question that only the agent can answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    /// Its number, to answer by.
    pub id: u64,
    /// What is asked.
    pub ask: Ask,
}

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Ask {
    /// The prediction log's row.
    Prediction {
        /// The prediction's id.
        id: String,
    },
    /// The end of a worker's log.
    WorkerLog {
        /// The model; none for all.
        model: Option<ModelName>,
        /// How many bytes at the most.
        tail: u64,
    },
    /// A preview token, signed with the agent's own key.
    Preview {
        /// The model; the only one that is served if it isn't named.
        model: Option<ModelName>,
        /// Which side it leads to where a request doesn't say.
        side: String,
        /// Whom it is for.
        by: PrincipalId,
        /// How long it is good for, in milliseconds.
        for_ms: i64,
    },
}

/// An agent's answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The question's number.
    pub id: u64,
    /// What was found; none where nothing was.
    pub found: Option<serde_json::Value>,
}

/// A preview token with the address that it makes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreviewToken {
    /// The environment.
    pub environment: EnvironmentName,
    /// The model.
    pub model: ModelName,
    /// Which side it leads to where a request doesn't say.
    pub side: String,
    /// The token.
    pub token: String,
    /// The gateway, as the tester sees it: every request below it goes to that side.
    pub address: String,
    /// The gateway itself.
    pub gateway: String,
    /// When it ends.
    pub expires: Millis,
}

/// An agent's answer to [`Ask::Preview`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Previewed {
    /// Here it is.
    Token(PreviewToken),
    /// There is none, and why.
    Refused(String),
}

/// Journal entries that the server doesn't have yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// In order, without gaps.
    pub entries: Vec<StoredEntry>,
}

/// Which entries the server has now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reported {
    /// The last sequence number.
    pub through: Option<u64>,
}

/// What an agent sees right now: shown to people, never decided from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Live {
    /// When it was seen.
    pub at: Millis,
    /// Where the gateway listens.
    pub gateway: String,
    /// How the environment is kept apart from the others, in words.
    pub isolation: String,
    /// What it does right now that takes long, in words.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub doing: Vec<String>,
    /// Each model.
    pub models: BTreeMap<ModelName, LiveModel>,
}

/// One model in one environment right now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LiveModel {
    /// The routing epoch that every gateway has applied.
    pub epoch: u64,
    /// Each side that has workers or traffic.
    pub sides: Vec<LiveSide>,
    /// The promotion whose traffic is being moved.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rollout: Option<LiveRollout>,
}

/// One side right now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LiveSide {
    /// Which side.
    pub role: Role,
    /// The release.
    pub release: Digest,
    /// The registered model's version.
    pub model_version: u64,
    /// Its share of the traffic, 0 to 1.
    pub share: f64,
    /// Workers that are ready, and how many there should be.
    pub workers: (u32, u32),
    /// Requests since the agent started, or since the rollout began.
    pub requests: u64,
    /// Bad answers among them.
    pub errors: u64,
    /// Median latency in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub p50_ms: Option<f64>,
    /// 99th percentile of latency in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub p99_ms: Option<f64>,
    /// What ails it, where something does.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub trouble: Option<String>,
    /// Resident memory of its workers together, in bytes, where they are processes of the agent's machine.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub resident_bytes: Option<u64>,
    /// Which way its requests take, where its environment asks for the way through the gateway: `inline`, or `process` and why.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lane: Option<String>,
    /// Cores that its workers keep busy, in the last few seconds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cpu_cores: Option<f64>,
}

/// A rollout right now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LiveRollout {
    /// The promotion.
    pub promotion: PromotionId,
    /// What it is doing, in words.
    pub phase: String,
    /// The candidate's share, 0 to 1.
    pub share: f64,
    /// What the guards say.
    pub judgement: Judgement,
    /// Expected seconds until every required guard has decided, where it can be foretold.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub seconds_to_verdict: Option<f64>,
}
