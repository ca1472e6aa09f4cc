//! What can go wrong in an agent.

use std::path::{Path, PathBuf};

/// An agent's failure.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// A file or folder.
    #[error("can't {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The agent's key.
    #[error("the agent's key: {0}")]
    Key(String),
    /// The server can't be reached.
    #[error("the server does not answer: {0}")]
    Server(String),
    /// The server said no.
    #[error("the server refuses ({status}): {message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Its words.
        message: String,
    },
    /// The agent's own database.
    #[error(transparent)]
    Store(#[from] lockgate_store::StoreError),
    /// The agent's own blobs.
    #[error(transparent)]
    Blob(#[from] lockgate_blob::BlobError),
    /// The gateway.
    #[error(transparent)]
    Gateway(#[from] lockgate_gateway::GatewayError),
    /// Evidence or a release that proves nothing.
    #[error("{0}")]
    Untrusted(String),
    /// A worker.
    #[error("{0}")]
    Worker(String),
    /// A worker that can't answer now, and may in a moment.
    #[error("{0}")]
    Busy(String),
    /// A gate could not be carried out.
    #[error("{0}")]
    Gate(String),
    /// A stored state that can't be read.
    #[error("a stored state can't be read: {0}")]
    State(String),
}

impl AgentError {
    pub(crate) fn io(what: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io { what, path: path.to_owned(), source }
    }

    /// Whether trying again may help.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Server(_) | Self::Refused { status: 500..=599 | 429, .. })
    }

    /// Whether the machine is at fault and not what is being prepared: a full disk, too many open files, a worker that died.
    #[must_use]
    pub fn is_the_machine_s(&self) -> bool {
        matches!(self, Self::Io { .. } | Self::Blob(_) | Self::Store(_) | Self::Worker(_) | Self::Busy(_))
    }
}

impl From<serde_json::Error> for AgentError {
    fn from(error: serde_json::Error) -> Self {
        Self::State(error.to_string())
    }
}
