//! What can go wrong with tracking data. The kinds are those that MLflow's clients tell apart.

use crate::error::ControlError;
use lockgate_blob::BlobError;
use lockgate_core::access::Refused;
use lockgate_store::StoreError;

/// A use case that could not be carried out. The state is as it was.
#[derive(Debug, thiserror::Error)]
pub enum TrackingError {
    /// The request is wrong.
    #[error("{0}")]
    Invalid(String),
    /// There is no such thing.
    #[error("{0}")]
    Missing(String),
    /// There is one already.
    #[error("{0}")]
    Exists(String),
    /// The state doesn't allow it.
    #[error("{0}")]
    State(String),
    /// The actor may not do this.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The database failed.
    #[error(transparent)]
    Store(StoreError),
    /// The blob store failed.
    #[error(transparent)]
    Blob(BlobError),
}

impl TrackingError {
    /// A wrong request.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid(message.into())
    }

    /// A missing thing.
    pub fn missing(message: impl Into<String>) -> Self {
        Self::Missing(message.into())
    }
}

impl From<StoreError> for TrackingError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Invalid { .. } => Self::Invalid(error.to_string()),
            StoreError::Conflict { .. } => Self::Exists(error.to_string()),
            error => Self::Store(error),
        }
    }
}

impl From<ControlError> for TrackingError {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::Store(error) => error.into(),
            error => Self::State(error.to_string()),
        }
    }
}

impl From<BlobError> for TrackingError {
    fn from(error: BlobError) -> Self {
        match error {
            BlobError::Source { .. } | BlobError::Mismatch { .. } | BlobError::TooLarge { .. } => {
                Self::Invalid(error.to_string())
            }
            BlobError::NoUpload => Self::Missing(error.to_string()),
            BlobError::NoPart { .. } => Self::Invalid(error.to_string()),
            error => Self::Blob(error),
        }
    }
}

impl From<TrackingError> for ControlError {
    fn from(error: TrackingError) -> Self {
        match error {
            TrackingError::Invalid(message) => Self::invalid(message),
            TrackingError::Missing(message) => Self::not_found(message),
            TrackingError::Exists(message) | TrackingError::State(message) => Self::conflict(message),
            TrackingError::Refused(refused) => refused.into(),
            TrackingError::Store(error) => error.into(),
            TrackingError::Blob(error) => error.into(),
        }
    }
}
