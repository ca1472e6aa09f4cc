//! The routing table of one environment: one immutable, versioned document that a gateway applies as a whole.

use crate::digest::Digest;
use crate::id::ModelName;
use crate::plan::Testers;
use crate::server::Server;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How many parts a share of traffic is counted in: a weight of 10,000 is all traffic.
pub const WHOLE: u32 = 10_000;

/// One versioned document. Epochs only grow; a gateway applies only a larger one.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RouteTable {
    /// Version of this table.
    pub epoch: u64,
    /// One route for each model that the environment serves.
    pub models: BTreeMap<ModelName, ModelRoute>,
}

/// Where a model's requests go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelRoute {
    /// What serves when nothing else is said.
    pub baseline: Option<Variant>,
    /// The other side of a rollout, with its share.
    pub split: Option<Split>,
    /// What answers when the assigned variant and the baseline can't.
    pub backup: Option<Variant>,
    /// Where a request says which unit it belongs to; without it every request is a unit of its own.
    pub unit: Option<UnitSource>,
    /// How long one attempt may take, in milliseconds.
    pub timeout_ms: u64,
    /// Who may say which side is to answer a request.
    #[serde(skip_serializing_if = "Testers::is_nobody", default)]
    pub testers: Testers,
    /// Whether the gateway may run the baseline's model itself, before it asks the workers. It says nothing of any other side, and
    /// a gateway refuses a table in which it stands beside a split: what is compared must run alike.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub inline: bool,
}

/// A candidate's share of a model's traffic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Split {
    /// The salt of the assignment: the promotion's id. A later promotion draws anew.
    pub salt: String,
    /// The candidate.
    pub candidate: Variant,
    /// The candidate's share in parts of [`WHOLE`]. 0 means no request.
    pub weight: u32,
    /// Whether requests are evidence now. They are not while a side can't serve: its failures would be no fault of the other
    /// side's, nor a proof of it.
    #[serde(default = "yes")]
    pub counted: bool,
    /// What is mirrored to the candidate; only where no user gets its answers.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub shadow: Option<Shadow>,
    /// Whether only testers and the smoke test reach the candidate: then it is no side that a user's request can find.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub preview: bool,
}

/// How requests are mirrored to a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Shadow {
    /// The share of requests in parts of [`WHOLE`].
    pub share: u32,
    /// How far apart two answers' numbers may be; none where answers are not compared.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tolerance: Option<f64>,
}

fn yes() -> bool {
    true
}

/// Which part of a request names its unit of randomisation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnitSource {
    /// A header, by its lower-case name.
    Header(String),
}

/// One side of a rollout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Variant {
    /// The release that it runs.
    pub release: Digest,
    /// The revision: release and resolved configuration.
    pub revision: Digest,
    /// The registered model's version, for people and for answers.
    pub model_version: u64,
    /// Its workers. Requests are spread over them; a broken one is passed over.
    pub workers: Vec<WorkerAddress>,
    /// What they speak, where they are servers that the team brings.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub server: Option<Server>,
}

/// Where a worker listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerAddress {
    /// A Unix socket's path.
    Unix(String),
    /// A TCP address, `host:port`.
    Tcp(String),
}

/// The side of a rollout that a request was assigned to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// What serves now.
    Baseline,
    /// What is being rolled out.
    Candidate,
    /// What answers when nothing else can.
    Backup,
}

impl Role {
    /// The word for people, logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Baseline => "baseline",
            Self::Candidate => "candidate",
            Self::Backup => "backup",
        }
    }
}
