//! What can go wrong in a use case, with what to do about it.

use crate::projection::Inconsistent;
use lockgate_core::promotion::CantDo;

/// A use case that could not be carried out. The state is as it was.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The request is wrong.
    #[error("{message}")]
    Invalid {
        /// What is wrong.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
    /// There is no such thing.
    #[error("{message}")]
    NotFound {
        /// What is missing.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
    /// The actor may not do this.
    #[error("{0}")]
    Refused(String),
    /// The state doesn't allow it, or moved since it was looked at.
    #[error("{message}")]
    Conflict {
        /// Why.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
    /// An agent doesn't answer.
    #[error("{0}")]
    Unavailable(String),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] lockgate_store::StoreError),
    /// The blob store failed.
    #[error(transparent)]
    Blob(#[from] lockgate_blob::BlobError),
    /// The log and the tables contradict each other.
    #[error(transparent)]
    Inconsistent(#[from] Inconsistent),
    /// Something that the program's own rules exclude.
    #[error("internal error: {0}")]
    Internal(String),
}

impl ControlError {
    /// A wrong request.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid { message: message.into(), hint: None }
    }

    /// A missing thing.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::NotFound { message: message.into(), hint: None }
    }

    /// A state that doesn't allow it.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::Conflict { message: message.into(), hint: None }
    }

    /// The same with what to do.
    #[must_use]
    pub fn with_hint(self, text: impl Into<String>) -> Self {
        let new = Some(text.into());
        match self {
            Self::Invalid { message, .. } => Self::Invalid { message, hint: new },
            Self::NotFound { message, .. } => Self::NotFound { message, hint: new },
            Self::Conflict { message, .. } => Self::Conflict { message, hint: new },
            other => other,
        }
    }

    /// What to do, where something is known.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Invalid { hint, .. } | Self::NotFound { hint, .. } | Self::Conflict { hint, .. } => {
                hint.as_deref()
            }
            _ => None,
        }
    }
}

impl From<CantDo> for ControlError {
    fn from(error: CantDo) -> Self {
        match error {
            CantDo::Approver(why) => Self::Refused(why),
            other => Self::conflict(other.to_string()),
        }
    }
}

impl From<lockgate_core::access::Refused> for ControlError {
    fn from(refused: lockgate_core::access::Refused) -> Self {
        Self::Refused(refused.0)
    }
}

impl From<lockgate_core::digest::NotCanonical> for ControlError {
    fn from(error: lockgate_core::digest::NotCanonical) -> Self {
        Self::invalid(error.to_string())
    }
}

impl From<serde_json::Error> for ControlError {
    fn from(error: serde_json::Error) -> Self {
        Self::Internal(format!("a stored state can't be read: {error}"))
    }
}

impl From<lockgate_core::id::InvalidName> for ControlError {
    fn from(error: lockgate_core::id::InvalidName) -> Self {
        Self::invalid(error.to_string())
    }
}
