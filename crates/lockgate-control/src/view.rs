//! What the control plane shows: the bodies of the native API, the same for CLI, UI and programs.

use crate::configuration::NewConfiguration;
use lockgate_core::clock::Millis;
use lockgate_core::digest::Digest;
use lockgate_core::event::InstructionKind;
use lockgate_core::gate::Outcome;
use lockgate_core::id::{EnvironmentName, GateName, GuardName, ModelName, ProjectName, PromotionId};
use lockgate_core::plan::Plan;
use lockgate_core::promotion::Stage;
use lockgate_core::release::Manifest;
use lockgate_core::rollout::Drilled;
use lockgate_core::wire::{LiveModel, LiveRollout, LiveSide};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A release.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReleaseView {
    /// Its digest.
    pub digest: Digest,
    /// Its manifest.
    pub manifest: Manifest,
    /// Its authors' names.
    pub authors: Vec<String>,
    /// When it was made.
    pub created: Millis,
    /// Where it is now: environment and stage of its latest promotion there.
    pub environments: BTreeMap<EnvironmentName, String>,
    /// Whether it existed before the call that returned this view.
    #[serde(default)]
    pub existed: bool,
}

/// One gate of a promotion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GateView {
    /// Its name.
    pub gate: GateName,
    /// Its kind.
    pub kind: String,
    /// How it ended; none while there is no evidence.
    pub outcome: Option<Outcome>,
    /// The finding's sentence.
    pub summary: String,
    /// Digest of the gate's log.
    pub log: Option<Digest>,
}

/// Approvals of a promotion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalView {
    /// How many people must say yes.
    pub needed: u32,
    /// How many are still missing.
    pub missing: u32,
    /// Whose yes counts, in words.
    pub from: String,
    /// Who said yes.
    pub by: Vec<String>,
}

/// A promotion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PromotionView {
    /// Its id.
    pub id: PromotionId,
    /// The project.
    pub project: ProjectName,
    /// The environment.
    pub environment: EnvironmentName,
    /// The model.
    pub model: ModelName,
    /// The registered model's version.
    pub model_version: u64,
    /// The release.
    pub release: Digest,
    /// The plan's hash.
    pub plan_hash: Digest,
    /// The plan.
    pub plan: Plan,
    /// Where it stands.
    pub stage: Stage,
    /// The stage's name.
    pub stage_name: String,
    /// Its gates.
    pub gates: Vec<GateView>,
    /// Its approvals, where it needs any.
    pub approvals: Option<ApprovalView>,
    /// Who asked for it.
    pub requester: String,
    /// The release's authors.
    pub authors: Vec<String>,
    /// When it was asked for.
    pub created: Millis,
    /// When the present stage began.
    pub since: Millis,
    /// What the agent sees right now, where it moves traffic.
    pub live: Option<LiveRollout>,
    /// The sides that the traffic goes to right now, where the agent moves it.
    pub sides: Vec<LiveSide>,
    /// The plan's terms.
    pub terms: Vec<Term>,
    /// In which terms the plan differs from the one by which what served before came here.
    pub changed_terms: Vec<String>,
    /// What people asked of its rollout that the agent has not done yet.
    pub pending: Vec<PendingView>,
    /// How its smoke test ended.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub smoke: Option<lockgate_core::event::Smoked>,
    /// Whether it stands still until a person says something, and nobody has yet.
    pub needs_person: bool,
    /// The next sensible command.
    pub next: String,
}

/// One term of a plan, in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Term {
    /// Its name, such as `rollout` or `gate quality`.
    pub name: String,
    /// What is agreed.
    pub text: String,
}

/// Something that a person asked of a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingView {
    /// What.
    pub what: InstructionKind,
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// How long one guard will need at one step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ForecastRow {
    /// The candidate's share, or the share that is mirrored to it, 0 to 1.
    pub share: f64,
    /// Whether requests are only mirrored.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub shadow: bool,
    /// The guard.
    pub guard: GuardName,
    /// Expected seconds to *not worse* if the release is as good as the baseline; none where it can't be foretold.
    pub seconds: Option<f64>,
    /// How many outcomes a goal needs for that, where it is one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub outcomes: Option<f64>,
}

/// What a plan foretells.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// Requests per second that it is based on.
    pub rate: f64,
    /// Where the rate comes from, in words.
    pub basis: String,
    /// Rows, one for each step below 100 % and guard.
    pub rows: Vec<ForecastRow>,
    /// Expected seconds for all steps together.
    pub total_seconds: Option<f64>,
    /// What could decide sooner, where this takes too long.
    pub advice: Vec<String>,
}

/// A plan with everything that a person needs to judge it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanView {
    /// The plan.
    pub plan: Plan,
    /// How the release differs from what serves now, one sentence a line.
    pub changes: Vec<String>,
    /// Why it can't be promoted now, one sentence a line; empty where it can.
    pub obstacles: Vec<String>,
    /// What to know beforehand.
    pub warnings: Vec<String>,
    /// Its terms.
    pub terms: Vec<Term>,
    /// In which terms it differs from the plan by which what serves now came here.
    pub changed_terms: Vec<String>,
    /// Where a rollback goes and what it needs, in words.
    pub rollback: String,
    /// What the rollout will take.
    pub forecast: Option<Forecast>,
    /// The next sensible command.
    pub next: String,
}

/// A model's drills in one environment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DrillView {
    /// The environment.
    pub environment: EnvironmentName,
    /// The model.
    pub model: ModelName,
    /// The promotion that brought what serves.
    pub promotion: PromotionId,
    /// Whether one was asked for, and the agent hasn't begun it.
    pub pending: bool,
    /// Whether one is under way.
    pub under_way: bool,
    /// Why there was none when it was asked for last.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub refused: Option<String>,
    /// How the last one went, in words; empty where there was none.
    pub words: String,
    /// How the last one went.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last: Option<Drilled>,
}

/// One environment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EnvironmentView {
    /// Its name.
    pub name: EnvironmentName,
    /// The environments before it.
    pub after: Vec<EnvironmentName>,
    /// Where its gateway listens.
    pub gateway: Option<String>,
    /// When its agent was last heard of.
    pub agent_seen: Option<Millis>,
    /// Whether its agent is there.
    pub connected: bool,
    /// How it is kept apart from the others.
    pub isolation: Option<String>,
    /// Why what its agent reports is not taken, where it isn't.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub trouble: Option<String>,
    /// What its agent does right now that takes long.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub doing: Vec<String>,
    /// What it runs, as its agent sees it.
    pub models: BTreeMap<ModelName, LiveModel>,
}

/// Everything at a glance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusView {
    /// The project, once one is configured.
    pub project: Option<ProjectName>,
    /// The server's time.
    pub now: Millis,
    /// Environments, in order.
    pub environments: Vec<EnvironmentView>,
    /// Active promotions and the latest ended one of each environment, newest first.
    pub promotions: Vec<PromotionView>,
    /// The next sensible command.
    pub next: String,
}

/// One line of a story.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TimelineView {
    /// When.
    pub at: Millis,
    /// Who.
    pub by: String,
    /// What happened, as a sentence.
    pub what: String,
    /// The audit entry.
    pub seq: u64,
}

/// Why a promotion stands where it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WhyView {
    /// The promotion.
    pub promotion: PromotionView,
    /// The answer, as a sentence.
    pub answer: String,
    /// What happened, in order.
    pub timeline: Vec<TimelineView>,
}

/// What an environment served from some time on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HistoryRow {
    /// From when on.
    pub at: Millis,
    /// The environment.
    pub environment: EnvironmentName,
    /// The model.
    pub model: ModelName,
    /// What served from then on: the share of each release, 0 to 1.
    pub serving: Vec<HistoryShare>,
    /// What happened.
    pub what: String,
    /// The promotion.
    pub promotion: PromotionId,
    /// The audit entry.
    pub seq: u64,
}

/// A message to a webhook, and how far it has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryView {
    /// The message's id, which its receiver sees, too.
    pub id: String,
    /// The webhook's name.
    pub webhook: String,
    /// What it tells.
    pub event: String,
    /// `pending`, `delivered` or `failed`.
    pub state: String,
    /// How often it was tried.
    pub attempts: u64,
    /// When it happened.
    pub at: Millis,
    /// When it is tried (again), or when it was settled.
    pub due: Millis,
    /// How the last attempt ended.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub outcome: Option<String>,
}

/// One move of an alias or of a version's stage in the registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelMove {
    /// When.
    pub at: Millis,
    /// What moved, and where to.
    #[serde(flatten)]
    pub pointer: Pointer,
    /// Who moved it.
    pub by: String,
    /// The promotion that moved it, where it says what an environment serves.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub promotion: Option<String>,
}

/// What points to a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Pointer {
    /// An alias.
    Alias {
        /// Its name.
        alias: String,
        /// The version that it points to since; nothing where it was taken away.
        version: Option<i64>,
    },
    /// A version's stage.
    Stage {
        /// The version.
        version: i64,
        /// The stage that it left.
        from: String,
        /// The stage that it is in since.
        to: String,
    },
}

/// One release's share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HistoryShare {
    /// The release.
    pub release: Digest,
    /// The registered model's version.
    pub model_version: u64,
    /// Its share, 0 to 1.
    pub share: f64,
}

/// How one prediction came about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TraceView {
    /// The prediction log's row.
    pub prediction: serde_json::Value,
    /// The environment that answered.
    pub environment: EnvironmentName,
    /// The release that answered.
    pub release: ReleaseView,
    /// The promotion that brought it, where one did.
    pub promotion: Option<PromotionView>,
    /// The run's parameters, metrics and tags.
    pub run: Option<serde_json::Value>,
}

/// What a verification of the audit log found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditView {
    /// Entries that were checked.
    pub entries: u64,
    /// The chain's hash after the last one.
    pub head: Digest,
    /// Whether the chain holds.
    pub chain_ok: bool,
    /// Whether the query tables, rebuilt from the log, are equal to those in use, and the names are those that the log
    /// committed to.
    pub tables_ok: bool,
    /// What is wrong, where something is.
    pub problem: Option<String>,
}

/// What `release create` needs to know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewRelease {
    /// The registered model.
    pub model: ModelName,
    /// A version number, or an alias.
    pub version: String,
    /// The code, where the release is made in a Git repository; its archive is uploaded before.
    #[serde(default)]
    pub code: Option<lockgate_core::release::Code>,
    /// The datasets that went in.
    #[serde(default)]
    pub data: Vec<lockgate_core::release::Dataset>,
    /// E-mail addresses or names of the commits' authors.
    #[serde(default)]
    pub authors: Vec<String>,
    /// What is to go on record beside it.
    #[serde(default)]
    pub reason: String,
    /// A graph that is to stand in for the model; its bytes are uploaded before.
    #[serde(default)]
    pub graph: Option<NewGraph>,
    /// Only say what the release would be, and make none.
    #[serde(default)]
    pub preview: bool,
}

/// A graph that is to stand in for a model in Python, and what showed that it may.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewGraph {
    /// Its size in bytes.
    pub size: u64,
    /// SHA-256 of its bytes.
    pub sha256: Digest,
    /// What was seen of it beside the model, which it names as its original.
    pub proof: lockgate_core::release::Optimised,
}

/// What `plan` and `promote` need to know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PromotionRequest {
    /// The release: its digest, or the beginning of its digest.
    pub release: String,
    /// The environment.
    pub environment: EnvironmentName,
    /// Expected requests per second, for the forecast; measured where the environment has traffic.
    #[serde(default)]
    pub rate: Option<f64>,
    /// Why a release that was rolled back may enter again.
    #[serde(default)]
    pub lift_quarantine: Option<String>,
    /// For a plan: the configuration to plan by, where it isn't the applied one.
    #[serde(default)]
    pub configuration: Option<NewConfiguration>,
}
