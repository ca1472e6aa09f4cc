//! Who acts: a person, a machine or the system itself.

use crate::id::PrincipalId;
use serde::{Deserialize, Serialize};

/// What kind of principal acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActorKind {
    /// A human being.
    User,
    /// A machine account (CI, a script).
    Service,
    /// An environment's agent.
    Agent,
    /// The server's own reconcilers.
    System,
}

/// How an actor proved who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Via {
    /// Loopback without login, as `lockgate up` offers on a laptop: the name is claimed, not proven.
    Loopback,
    /// A bearer token.
    Token,
    /// The server itself.
    Internal,
}

/// The acting principal as the audit entry records it: an opaque id, never a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// The kind of principal.
    #[serde(rename = "type")]
    pub kind: ActorKind,
    /// The opaque id.
    pub id: PrincipalId,
    /// How it proved who it is.
    pub via: Via,
    /// Salted commitment to the name: base64 of HMAC-SHA256(salt, canonical JSON of the name). The salt and the name
    /// live in a table of their own that can be erased.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sealed: Option<String>,
}

impl Actor {
    /// The server itself.
    #[must_use]
    pub fn system() -> Self {
        Self { kind: ActorKind::System, id: known("system"), via: Via::Internal, sealed: None }
    }

    /// The agent of one environment.
    #[must_use]
    pub fn agent(environment: &crate::id::EnvironmentName) -> Self {
        Self {
            kind: ActorKind::Agent,
            id: known(&format!("agent_{environment}")),
            via: Via::Token,
            sealed: None,
        }
    }

    /// Whether a human being acts.
    #[must_use]
    pub fn is_human(&self) -> bool {
        self.kind == ActorKind::User
    }
}

fn known(text: &str) -> PrincipalId {
    match PrincipalId::new(text) {
        Ok(id) => id,
        Err(_) => unreachable!("environment names are a subset of principal ids"),
    }
}
