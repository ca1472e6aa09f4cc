//! The audit entry: one link of the hash chain. Its form is final; a new version is read by upcasting.
//!
//! Format: canonical JSON (RFC 8785). Leaf: SHA-256(0x00 ‖ canonical JSON), as in RFC 6962 section 2.1, used by the chain
//! and, later, by the Merkle tree. Chain: SHA-256(0x01 ‖ previous chain hash ‖ leaf); 32 zero bytes stand before the first.

use crate::actor::Actor;
use crate::clock::{Millis, parse_rfc3339};
use crate::digest::{Digest, NotCanonical, canonical_json};
use crate::event::Event;
use crate::id::{EnvironmentName, ProjectName};
use serde::{Deserialize, Serialize};

/// The version of the entry's form that this program writes.
pub const VERSION: u32 = 1;

/// Whether the act was carried out or refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Carried out.
    Allow,
    /// Refused; the state is as it was.
    Deny,
}

/// What was acted on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resource {
    /// The noun, for example `Promotion`.
    #[serde(rename = "type")]
    pub kind: ResourceKind,
    /// Its id or name.
    pub id: String,
    /// The project.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub project: Option<ProjectName>,
    /// The environment.
    #[serde(rename = "env", skip_serializing_if = "Option::is_none", default)]
    pub environment: Option<EnvironmentName>,
}

/// The nouns that governed state consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ResourceKind {
    /// The whole installation.
    Server,
    /// A project and its configuration.
    Project,
    /// An environment and its agent.
    Environment,
    /// A release.
    Release,
    /// A promotion.
    Promotion,
    /// What an environment runs for one model (agent).
    Deployment,
    /// A rollout (agent); its id is the promotion's.
    Rollout,
    /// Tracking data and registered models, which are not governed.
    Tracking,
}

/// Where an entry came from, when an agent wrote it first in its own journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The agent's environment.
    pub agent: EnvironmentName,
    /// Its sequence number in the agent's journal.
    pub seq: u64,
    /// Its leaf in the agent's journal.
    pub leaf: Digest,
    /// When the agent wrote it.
    pub ts: String,
}

/// One audit entry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Version of this form.
    pub v: u32,
    /// Position in this log, from 0, without gaps.
    pub seq: u64,
    /// A ULID.
    pub id: String,
    /// When it was written, RFC 3339, UTC.
    pub ts: String,
    /// Who acted.
    pub actor: Actor,
    /// The action as the one door knows it, for example `promotion:approve`.
    pub action: String,
    /// Carried out or refused.
    pub effect: Effect,
    /// What it was done to.
    pub resource: Resource,
    /// What changed; nothing where the act was refused.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub event: Option<Event>,
    /// Why: a person's words or the refusal's.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub reason: String,
    /// The agent's journal entry that this one repeats.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub source: Option<Source>,
}

impl Entry {
    /// The entry's time in milliseconds, 0 where it can't be read.
    #[must_use]
    pub fn at(&self) -> Millis {
        parse_rfc3339(&self.ts).unwrap_or_default()
    }

    /// The entry's canonical JSON.
    ///
    /// # Errors
    /// Where a number in it is not finite.
    pub fn canonical(&self) -> Result<String, NotCanonical> {
        canonical_json(self)
    }
}

/// The leaf hash of an entry's canonical JSON.
#[must_use]
pub fn leaf(canonical: &str) -> Digest {
    Digest::of_parts(&[&[0], canonical.as_bytes()])
}

/// The chain's hash before the first entry.
pub const GENESIS: Digest = Digest::from_bytes([0; 32]);

/// The chain's hash after an entry with this leaf.
#[must_use]
pub fn link(previous: &Digest, leaf: &Digest) -> Digest {
    Digest::of_parts(&[&[1], previous.as_bytes(), leaf.as_bytes()])
}

/// A broken chain: where and how.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// The numbers have a gap or a repetition.
    #[error("entry {found} stands where entry {expected} should: an entry was removed or added")]
    Gap {
        /// The number that should come.
        expected: u64,
        /// The number that came.
        found: u64,
    },
    /// The text doesn't hash to the recorded leaf.
    #[error("entry {0} was changed: its text does not match its recorded hash")]
    Leaf(u64),
    /// The leaf doesn't continue the chain.
    #[error("the chain breaks at entry {0}: it does not follow from the entry before it")]
    Link(u64),
    /// The text is no entry of a version that this program knows.
    #[error("entry {seq} can't be read: {what}")]
    Unreadable {
        /// Its number.
        seq: u64,
        /// What is wrong.
        what: String,
    },
}

/// One stored entry: its canonical text beside the recorded hashes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredEntry {
    /// Position in the log.
    pub seq: u64,
    /// Canonical JSON.
    pub text: String,
    /// Recorded leaf hash.
    pub leaf: Digest,
    /// Recorded chain hash.
    pub chain: Digest,
}

/// Reads an entry of any version that was ever released.
///
/// # Errors
/// Where the text is no entry or its version is newer than this program.
pub fn read(seq: u64, text: &str) -> Result<Entry, ChainError> {
    let unreadable = |what: String| ChainError::Unreadable { seq, what };
    let value: serde_json::Value = serde_json::from_str(text).map_err(|e| unreadable(e.to_string()))?;
    match value.get("v").and_then(serde_json::Value::as_u64) {
        Some(1) => serde_json::from_value(value).map_err(|e| unreadable(e.to_string())),
        Some(v) => {
            Err(unreadable(format!("it has version {v}; this program knows versions up to {VERSION}")))
        }
        None => Err(unreadable("it has no version".to_owned())),
    }
}

/// Verifies entries one after the other.
#[derive(Debug, Clone)]
pub struct Verifier {
    next: u64,
    chain: Digest,
}

impl Default for Verifier {
    fn default() -> Self {
        Self { next: 0, chain: GENESIS }
    }
}

impl Verifier {
    /// Checks the next entry and returns it.
    ///
    /// # Errors
    /// Where the entry doesn't follow from those before it.
    pub fn check(&mut self, stored: &StoredEntry) -> Result<Entry, ChainError> {
        if stored.seq != self.next {
            return Err(ChainError::Gap { expected: self.next, found: stored.seq });
        }
        if leaf(&stored.text) != stored.leaf {
            return Err(ChainError::Leaf(stored.seq));
        }
        let chain = link(&self.chain, &stored.leaf);
        if chain != stored.chain {
            return Err(ChainError::Link(stored.seq));
        }
        let entry = read(stored.seq, &stored.text)?;
        if entry.seq != stored.seq {
            return Err(ChainError::Gap { expected: stored.seq, found: entry.seq });
        }
        self.next += 1;
        self.chain = chain;
        Ok(entry)
    }

    /// How many entries were checked.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.next
    }

    /// The chain's hash after the last checked entry.
    #[must_use]
    pub fn head(&self) -> Digest {
        self.chain
    }
}
