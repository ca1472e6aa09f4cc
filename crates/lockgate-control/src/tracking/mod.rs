//! Experiments, runs, logged models, the model registry and artifacts: tracking data, with MLflow's rules.
//!
//! | module | subject |
//! |---|---|
//! | [`error`] | what can go wrong |
//! | `checks`, `python` | MLflow's limits and rules for names; values as its messages show them |
//! | `experiments`, `runs`, `logging` | experiments; runs; what runs log |
//! | `models` | MLflow's logged models |
//! | `registry`, `versions`, `aliases`, `stages` | registered models, their versions, aliases and stages |
//! | `webhooks` | telling others what happens |
//! | `workspaces` | experiments and registries apart from each other; each environment has its own |
//! | `governed`, `following` | aliases and stages that say what an environment serves: checked; moved |
//! | `lineage`, `sources`, `uris` | what a version may be registered from; where its files come from; URIs in parts |
//! | `uploads`, `signatures` | files in parts; URLs that need no sign-in |
//! | `artifacts`, `places`, `locations` | files below runs and models; the paths and URIs that name them |
//! | [`exchange`], `import` | records that stores exchange; taking them in |
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
pub mod exchange;
mod experiments;
pub(crate) mod following;
pub mod gc;
mod governed;
mod import;
mod lineage;
mod locations;
mod logging;
mod models;
mod names;
mod places;
mod python;
mod registry;
mod resolve;
mod runs;
mod signatures;
mod sources;
mod stages;
#[cfg(test)]
mod tests;
mod traces;
mod uploads;
mod uris;
mod versions;
pub(crate) mod webhooks;
mod workspaces;

pub use artifacts::{Listed, Opened};
pub use error::TrackingError;
pub use experiments::NewExperiment;
pub use lockgate_store::DEFAULT_WORKSPACE;
pub use lockgate_store::tracking::{
    AliasMove, Artifact, Assessment, Clause, Comparator, Dataset, DatasetInput, DatasetSummary, Delivery,
    DeliveryState, Experiment, Field, KeyValue, Lifecycle, LoggedModel, MeasuredOn, Metric, ModelVersion,
    Operand, Order, Page, RegisteredModel, Run, RunUpdate, Search, Span, StageMove, Trace, Webhook,
    Workspace,
};
pub use logging::{Batch, Inputs};
pub use models::{ModelStatus, NewLoggedModel};
pub use python::{ascii as python_ascii, float as python_float};
pub use registry::NewRegisteredModel;
pub use resolve::{ModelVersionInfo, RunSummary};
pub use runs::{NewRun, RunStatus};
pub use signatures::{SETTING as URL_KEY, Signed};
pub use stages::VersionStage;
pub use traces::tree::Tree;
pub use traces::{
    AssessmentUpdate, NewAssessment, NewSpan, NewTrace, SpanEvent, SpanGroup, SpanLink, SpanStatus,
    TraceData, TraceState,
};
pub use uploads::{BegunUpload, SignedDownload};
pub use versions::NewModelVersion;
pub use webhooks::{Answer, Courier, OWN_EVENTS, Parcel, STOCK_EVENTS, WebhookChange, WebhookTest};
pub use workspaces::WorkspaceChange;

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
    /// Whose experiments and models these are.
    workspace: Arc<str>,
    /// Who brings messages to webhooks, where somebody does.
    courier: Option<Arc<dyn Courier>>,
    signing: Arc<tokio::sync::OnceCell<signatures::Key>>,
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
        let (workspace, signing) = (DEFAULT_WORKSPACE.into(), Arc::default());
        Self { store, blobs, clock, entropy, workspace, courier: None, signing }
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
        let workspace = self.workspace.clone();
        self.store
            .write(move |tx| {
                tx.enter(&workspace);
                job(tx)
            })
            .await
    }

    /// The same, done on the spot where it writes but a few rows (`brief`).
    async fn write_sized<T, F>(&self, brief: bool, job: F) -> Result<T, TrackingError>
    where
        T: Send + 'static,
        F: for<'a> FnOnce(&'a mut Tx) -> BoxFuture<'a, Result<T, TrackingError>> + Send + 'static,
    {
        if !brief {
            return self.write(job).await;
        }
        let workspace = self.workspace.clone();
        self.store
            .write_brief(move |tx| {
                tx.enter(&workspace);
                job(tx)
            })
            .await
    }

    /// Reads from one snapshot.
    async fn read<T, F>(&self, job: F) -> Result<T, TrackingError>
    where
        T: Send + 'static,
        F: for<'a> FnOnce(&'a mut Conn) -> BoxFuture<'a, Result<T, TrackingError>> + Send + 'static,
    {
        let workspace = self.workspace.clone();
        self.store
            .read(move |conn| {
                conn.enter(&workspace);
                job(conn)
            })
            .await
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
