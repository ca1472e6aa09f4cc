//! The plan: everything that a promotion will do, fixed and hashed before anybody approves it.

use crate::clock::Millis;
use crate::digest::{Digest, NotCanonical};
use crate::gate::GateSpec;
use crate::guard::GuardSpec;
use crate::id::{EnvironmentName, GateName, GuardName, ModelName, PrincipalId, ProjectName, PromotionId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A release with the resolved configuration that it runs under: what is really deployed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// The release.
    pub release: Digest,
    /// Digest of the environment's resolved configuration for it.
    pub configuration: Digest,
    /// The registered model's version, for people.
    pub model_version: u64,
    /// The promotion that brought it; none for a backup that the configuration names.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub promotion: Option<PromotionId>,
    /// The environment's variables for it.
    pub vars: BTreeMap<String, String>,
}

impl Revision {
    /// The revision's identity: SHA-256 over both digests.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of_parts(&[self.release.as_bytes(), self.configuration.as_bytes()])
    }
}

/// One step of a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Step {
    /// The candidate's share in parts of [`crate::route::WHOLE`]. 0 in a step that only mirrors requests.
    pub weight: u32,
    /// The share of requests that are mirrored to the candidate while users get the baseline's answers alone, in parts of
    /// [`crate::route::WHOLE`]. 0 in a step in which users get the candidate's answers.
    #[serde(skip_serializing_if = "is_none_of_it", default)]
    pub shadow: u32,
    /// The shortest time to stay, in milliseconds.
    pub hold_ms: i64,
    /// Whether it is an A/B test, which goes on only when every goal is met.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub ab: bool,
    /// That only testers and the smoke test reach the candidate in this step, and how it ends.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub preview: Option<Switch>,
}

/// How a preview step ends, once its time is over and its smoke test has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Switch {
    /// By itself.
    Automatic,
    /// When a person says so. Never without.
    ByHand,
}

/// A program that tries a candidate out at its preview address, before any user meets it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Smoke {
    /// The command line.
    pub run: String,
    /// How long it may take, in milliseconds.
    pub timeout_ms: u64,
}

/// Where a release's model runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// In worker processes.
    #[default]
    Process,
    /// In worker processes, and inside the gateway too while it is all that users reach. For reviewed native models.
    Inline,
}

impl Isolation {
    /// Every choice with its name in `lockgate.toml`.
    pub const ALL: [(Self, &'static str); 2] = [(Self::Process, "process"), (Self::Inline, "inline")];

    /// Whether it is the default, which is left out of what is written: plans without inline models keep their hashes.
    #[must_use]
    pub fn is_process(&self) -> bool {
        *self == Self::Process
    }
}

/// Who may say which release is to answer a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Testers {
    /// Nobody.
    #[default]
    Nobody,
    /// Whoever has a token that the environment's agent signed.
    Token,
    /// Whoever reaches the gateway.
    Anybody,
}

impl Testers {
    /// Every choice with its name in `lockgate.toml`.
    pub const ALL: [(Self, &'static str); 3] =
        [(Self::Nobody, "nobody"), (Self::Token, "token"), (Self::Anybody, "anybody")];

    /// Whether it is the default, which is left out of what is written: plans without testers keep their hashes.
    #[must_use]
    pub fn is_nobody(&self) -> bool {
        *self == Self::Nobody
    }
}

impl Step {
    /// A step in which `weight` parts of the users get the candidate's answers.
    #[must_use]
    pub fn live(weight: u32, hold_ms: i64) -> Self {
        Self { weight, hold_ms, ..Self::default() }
    }

    /// A step in which `weight` parts of the users get the candidate's answers, until their outcomes have decided.
    #[must_use]
    pub fn ab(weight: u32, hold_ms: i64) -> Self {
        Self { ab: true, ..Self::live(weight, hold_ms) }
    }

    /// A step in which `share` parts of the requests are mirrored to the candidate, whose answers nobody gets.
    #[must_use]
    pub fn mirroring(share: u32, hold_ms: i64) -> Self {
        Self { shadow: share, hold_ms, ..Self::default() }
    }

    /// A step in which nobody but testers and the smoke test reach the candidate.
    #[must_use]
    pub fn previewing(switch: Switch, hold_ms: i64) -> Self {
        Self { preview: Some(switch), hold_ms, ..Self::default() }
    }

    /// Whether it only mirrors requests.
    #[must_use]
    pub fn is_shadow(&self) -> bool {
        self.shadow > 0
    }

    /// Whether only testers and the smoke test reach the candidate.
    #[must_use]
    pub fn is_preview(&self) -> bool {
        self.preview.is_some()
    }

    /// Whether no user gets the candidate's answers in it.
    #[must_use]
    pub fn moves_nobody(&self) -> bool {
        self.is_preview() || self.is_shadow()
    }

    /// Whether what follows it must be proven by guards: it has a share of users or requests, and not all of them.
    #[must_use]
    pub fn is_judged(&self) -> bool {
        !self.is_preview() && self.weight < crate::route::WHOLE
    }

    /// Where it stands in the order of steps: a preview first, then shadow steps, and each kind by its share.
    #[must_use]
    pub fn place(&self) -> (u8, u32) {
        let kind = match (self.preview, self.shadow) {
            (Some(_), _) => 0,
            (None, 1..) => 1,
            (None, 0) => 2,
        };
        (kind, self.weight.max(self.shadow))
    }
}

/// Whether a share is left out of what is written: plans without shadow steps keep their hashes.
pub(crate) fn is_none_of_it(share: &u32) -> bool {
    *share == 0
}

/// What to do when the evidence doesn't suffice by the deadline. There is no *promote*.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnInconclusive {
    /// Stay where it is and ask a person.
    Hold,
    /// Go back.
    Rollback,
}

/// Who must say yes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalRule {
    /// How many distinct people.
    pub count: u32,
    /// The people who may; empty means anybody.
    pub from: BTreeSet<PrincipalId>,
    /// The groups' names, for people.
    pub groups: Vec<String>,
    /// Whether the release's authors and the requester are excluded.
    pub not_author: bool,
    /// How long the promotion waits, in milliseconds.
    pub ttl_ms: i64,
}

/// Evidence that an earlier environment must have left.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lineage {
    /// The earlier environment.
    pub environment: EnvironmentName,
    /// Its gates: what each asks.
    pub gates: BTreeMap<GateName, GateSpec>,
}

/// How a rollout runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RolloutPlan {
    /// The steps; the last one has all the traffic.
    pub steps: Vec<Step>,
    /// What is watched.
    pub guards: BTreeMap<GuardName, GuardSpec>,
    /// The lower-case header that names a request's unit.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub unit_header: Option<String>,
    /// Chance of a false rollback over the whole rollout.
    pub alpha_rollback: f64,
    /// Chance, for each guard, of a false *not worse*.
    pub alpha_promote: f64,
    /// Chance of a false sample-ratio alarm.
    pub alpha_sample_ratio: f64,
    /// How long a step waits for its verdicts beyond its hold, in milliseconds.
    pub deadline_ms: i64,
    /// What happens then.
    pub on_inconclusive: OnInconclusive,
    /// How long all traffic is served before the release counts as confirmed, in milliseconds.
    pub probation_ms: i64,
    /// How long loading and warming may take, in milliseconds.
    pub prepare_ms: i64,
    /// Worker processes for each release.
    pub workers: u32,
    /// How long one attempt of a request may take, in milliseconds.
    pub timeout_ms: u64,
    /// Memory limit of one worker in bytes; 0 means none.
    pub memory_bytes: u64,
    /// The most rows of several requests in one call of a model that runs in Python, where it is said; 1 means none together.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub batch_rows: Option<u32>,
    /// What tries the candidate out in the preview step.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub smoke: Option<Smoke>,
    /// Who may say which release is to answer a request.
    #[serde(skip_serializing_if = "Testers::is_nobody", default)]
    pub testers: Testers,
    /// Whether users only ever get the answers of what serves: what would be decided is said and not done.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub observe: bool,
    /// The share of users who stay with what served before until the probation is over, in parts of
    /// [`crate::route::WHOLE`]: so that there is something to compare with, whatever happens to everybody.
    #[serde(skip_serializing_if = "is_none_of_it", default)]
    pub holdout: u32,
    /// Where the model runs once it is all that users reach.
    #[serde(skip_serializing_if = "Isolation::is_process", default)]
    pub isolation: Isolation,
}

/// What a promotion will do. Its hash is what people approve.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The project.
    pub project: ProjectName,
    /// The environment to enter.
    pub environment: EnvironmentName,
    /// The model.
    pub model: ModelName,
    /// What will be deployed.
    pub revision: Revision,
    /// What the environment served when the plan was made: the other side of the comparison, and where a rollback goes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub baseline: Option<Revision>,
    /// What answers when neither can.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub backup: Option<Revision>,
    /// What earlier environments must have proven.
    pub lineage: Vec<Lineage>,
    /// What this environment must prove.
    pub gates: BTreeMap<GateName, GateSpec>,
    /// Who must say yes, if anybody.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub approval: Option<ApprovalRule>,
    /// How traffic moves.
    pub rollout: RolloutPlan,
    /// The environment's datasets: name and path in the project.
    pub data: BTreeMap<String, String>,
    /// Path of the requirements for the project's Python, where it has one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub python: Option<String>,
    /// The task of the model (`binary`, `multiclass`, `regression`, `other`).
    pub task: String,
    /// The label's column.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub target: Option<String>,
    /// Who made the release: authors of its commits and of its run.
    pub authors: BTreeSet<PrincipalId>,
    /// Who asked for the promotion.
    pub requester: PrincipalId,
    /// How long all gates together may take, in milliseconds.
    pub gates_ms: i64,
    /// When the plan was made.
    pub made: Millis,
}

impl Plan {
    /// The plan's hash.
    ///
    /// # Errors
    /// Where a number in it is not finite.
    pub fn hash(&self) -> Result<Digest, NotCanonical> {
        Digest::of_json(self)
    }

    /// What the candidate is compared with and rolled back to: the baseline, or the backup for a first release.
    #[must_use]
    pub fn control(&self) -> Option<&Revision> {
        self.baseline.as_ref().or(self.backup.as_ref())
    }

    /// Checks the plan's own rules.
    ///
    /// # Errors
    /// The first rule that it breaks, as a sentence.
    pub fn validate(&self) -> Result<(), String> {
        let steps = &self.rollout.steps;
        if steps.last().map(|s| s.weight) != Some(crate::route::WHOLE) {
            return Err("the last step of a rollout must be 100%".to_owned());
        }
        if steps.windows(2).any(|w| w[0].place() >= w[1].place()) {
            return Err(
                "the steps of a rollout must grow; a preview comes first, then shadow steps".to_owned()
            );
        }
        let shareless = |s: &Step| !s.is_preview() && s.place().1 == 0;
        if steps.iter().any(|s| shareless(s) || s.shadow > crate::route::WHOLE || s.hold_ms < 0) {
            return Err("a step of a rollout needs a share above 0% and a time of at least 0s".to_owned());
        }
        let kinds = |s: &Step| [s.is_preview(), s.is_shadow(), s.weight > 0];
        if steps.iter().any(|s| kinds(s).into_iter().filter(|is| *is).count() > 1) {
            return Err(
                "a step either previews, mirrors requests or moves users, not two of these".to_owned()
            );
        }
        let most = crate::route::WHOLE.saturating_sub(self.rollout.holdout);
        if most < crate::route::WHOLE / 2 {
            return Err("a hold-out is half of the users at most".to_owned());
        }
        if steps.iter().any(|s| s.weight > most && s.weight < crate::route::WHOLE) {
            return Err("a step leaves fewer users to what served before than the hold-out".to_owned());
        }
        if self.rollout.smoke.is_some() && !steps.iter().any(Step::is_preview) {
            return Err("a smoke test needs a preview step to run in".to_owned());
        }
        if self.rollout.observe && self.control().is_some() && !steps.iter().any(Step::moves_nobody) {
            return Err("an environment that only observes needs a shadow step or a preview to see anything"
                .to_owned());
        }
        if steps.iter().any(Step::is_shadow) && self.control().is_none() {
            return Err("a shadow step needs something to compare with".to_owned());
        }
        let alphas =
            [self.rollout.alpha_rollback, self.rollout.alpha_promote, self.rollout.alpha_sample_ratio];
        if alphas.iter().any(|a| !(*a > 0.0 && *a < 1.0)) {
            return Err("an error rate must lie between 0 and 1".to_owned());
        }
        if self.rollout.workers == 0 {
            return Err("an environment needs at least one worker".to_owned());
        }
        let goals = || self.rollout.guards.values().filter(|g| matches!(g, GuardSpec::Goal(_)));
        if steps
            .iter()
            .any(|s| s.ab && (s.is_shadow() || s.weight >= crate::route::WHOLE || goals().count() == 0))
        {
            return Err("an A/B step needs two sides, and a guard of kind `goal`".to_owned());
        }
        if steps.iter().any(|s| s.ab) && self.control().is_none() {
            return Err("an A/B step needs something to compare with".to_owned());
        }
        let provable = |step: &Step| self.rollout.guards.values().any(|g| g.is_required_in(step));
        if self.control().is_some() && !steps.iter().filter(|s| s.is_judged()).all(provable) {
            return Err("a rollout in steps needs at least one guard that can prove `not worse`".to_owned());
        }
        Ok(())
    }
}
