//! Experiments, runs, logged models, the model registry and artifacts: tracking data, with MLflow's rules.
//!
//! | module | subject |
//! |---|---|
//! | [`error`] | what can go wrong |
//! | `checks`, `python` | MLflow's limits and rules for names; values as its messages show them |
//! | `experiments`, `runs`, `logging` | experiments; runs; what runs log |
//! | `models` | MLflow's logged models |
//! | `registry`, `versions`, `aliases` | registered models, their versions and aliases |
//! | `sources` | where a version's files come from |
//! | `artifacts`, `places` | files below runs and models; the paths and URIs that name them |
//! | `traces` | traces, their spans, and what was said about them |
//! | `resolve` | what the rest of the control plane asks about models and runs |
//! | `names` | made-up names for runs and models without one |
//!
//! These are ordinary rows, written in one transaction a call. Every call passes [`authorize`] first. The searches'
//! conditions are the store's; the grammar that they are written in belongs to the API that reads it.
//!
//! A registered version keeps a list of files of its own, made when it is registered: what is logged to its run or
//! logged model afterwards doesn't change it. The bytes are not copied.

mod aliases;
mod artifacts;
mod checks;
pub mod error;
mod experiments;
mod logging;
mod models;
mod names;
mod places;
mod python;
mod registry;
mod resolve;
mod runs;
mod sources;
#[cfg(test)]
mod tests;
mod traces;
mod versions;

pub use artifacts::{Listed, Opened};
pub use error::TrackingError;
pub use experiments::NewExperiment;
pub use lockgate_store::tracking::{
    AliasMove, Artifact, Assessment, Clause, Comparator, Dataset, DatasetInput, DatasetSummary, Experiment,
    Field, KeyValue, Lifecycle, LoggedModel, Metric, ModelVersion, Operand, Order, Page, RegisteredModel,
    Run, RunUpdate, Search, Span, Trace,
};
pub use logging::{Batch, Inputs};
pub use models::{ModelStatus, NewLoggedModel};
pub use registry::NewRegisteredModel;
pub use resolve::{ModelVersionInfo, RunSummary};
pub use runs::{NewRun, RunStatus};
pub use traces::tree::Tree;
pub use traces::{
    AssessmentUpdate, NewAssessment, NewSpan, NewTrace, SpanEvent, SpanGroup, SpanLink, SpanStatus,
    TraceState,
};
pub use versions::NewModelVersion;

use futures_util::future::BoxFuture;
use lockgate_blob::BlobStore;
use lockgate_core::access::{Action, Target, authorize};
use lockgate_core::actor::Actor;
use lockgate_core::clock::{Clock, Entropy};
use lockgate_store::{Conn, Store, Tx};
use std::sync::Arc;

/// Which of the things that can be deleted are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// Those in use.
    Active,
    /// Those that were deleted.
    Deleted,
    /// Both.
    All,
}

impl View {
    /// The condition for it, where it needs one.
    fn clause(self) -> Option<Clause> {
        let lifecycle = match self {
            Self::Active => Lifecycle::Active,
            Self::Deleted => Lifecycle::Deleted,
            Self::All => return None,
        };
        Some(Clause {
            field: Field::Attribute("lifecycle"),
            comparator: Comparator::Eq,
            operand: Operand::Text(lifecycle.as_str().to_owned()),
        })
    }
}

/// Tracking data and the model registry. Cheap to clone.
#[derive(Clone)]
pub struct Tracking {
    store: Store,
    blobs: BlobStore,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

impl std::fmt::Debug for Tracking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tracking").finish_non_exhaustive()
    }
}

impl Tracking {
    /// Puts the use cases over a database and a blob store.
    #[must_use]
    pub fn new(store: Store, blobs: BlobStore, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        Self { store, blobs, clock, entropy }
    }

    /// 32 random hexadecimal digits: the form of MLflow's ids.
    fn new_id(&self) -> String {
        let mut bytes = [0; 16];
        self.entropy.fill(&mut bytes);
        hex::encode(bytes)
    }

    /// Runs one durable transaction.
    async fn write<T, F>(&self, job: F) -> Result<T, TrackingError>
    where
        T: Send + 'static,
        F: for<'a> FnOnce(&'a mut Tx) -> BoxFuture<'a, Result<T, TrackingError>> + Send + 'static,
    {
        self.store.write(job).await
    }

    /// Reads from one snapshot.
    async fn read<T, F>(&self, job: F) -> Result<T, TrackingError>
    where
        T: Send + 'static,
        F: for<'a> FnOnce(&'a mut Conn) -> BoxFuture<'a, Result<T, TrackingError>> + Send + 'static,
    {
        self.store.read(job).await
    }
}

/// May the actor look at tracking data?
fn may_read(actor: &Actor) -> Result<(), TrackingError> {
    Ok(authorize(actor, Action::Read, Target::Server)?)
}

/// May the actor write tracking data?
fn may_track(actor: &Actor) -> Result<(), TrackingError> {
    Ok(authorize(actor, Action::Track, Target::Server)?)
}
