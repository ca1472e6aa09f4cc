//! The worker: an HTTP/1.1 server on a Unix socket (or TCP) for one release's model.
//!
//! It loads and warms the model first and listens after, so whoever can connect finds it ready.

mod answer;
mod body;
mod infer;
mod inline;
mod model;
mod python;
mod route;
mod serve;
mod tfs;
mod warm;

pub use answer::header;
pub use inline::{Inline, InlineOptions};

use crate::graph::GraphError;
use crate::session::LoadError;
use crate::shim::ShimError;
use lockgate_core::release::Manifest;
use lockgate_core::route::WorkerAddress;
use lockgate_wire::WireError;
use std::path::PathBuf;
use std::time::Duration;

/// How a worker runs.
#[derive(Debug, Clone)]
pub struct WorkerOptions {
    /// Where it listens. An old socket file at this path is replaced.
    pub listen: WorkerAddress,
    /// The folder with the release's files.
    pub model_dir: PathBuf,
    /// The release. The graph's file must have the digest that it lists.
    pub manifest: Manifest,
    /// The ONNX Runtime library.
    pub library: PathBuf,
    /// The Python of the release's own environment, for a release that runs in Python.
    pub python: Option<PathBuf>,
    /// The most rows of several requests in one call of a model that runs in Python; 1 calls it for each request alone.
    pub batch_rows: usize,
    /// How long such a call may take; with a longer one the worker says that it isn't well.
    pub call_limit: Duration,
    /// How many requests may run at the same time, each with its own copy of the model.
    pub instances: usize,
    /// How many requests may wait for a free instance; more are answered 429.
    pub queue: usize,
    /// The largest body in bytes.
    pub max_body: usize,
    /// A file with rows that the model must answer before the worker is ready: an Open Inference Protocol request or
    /// an MLflow body (`dataframe_split` and the like).
    pub warm_up: Option<PathBuf>,
    /// The most memory for data that the process may take (`RLIMIT_DATA`), in bytes.
    pub memory_limit: Option<u64>,
    /// Whether the end of standard input means that the parent is gone and the worker must stop.
    pub stop_with_stdin: bool,
    /// How long requests in flight may take to finish when the worker stops.
    pub grace: Duration,
}

impl WorkerOptions {
    /// Options with the usual limits: one instance, 256 waiting, 64 MiB bodies, 10 seconds of grace.
    #[must_use]
    pub fn new(listen: WorkerAddress, model_dir: PathBuf, manifest: Manifest, library: PathBuf) -> Self {
        Self {
            listen,
            model_dir,
            manifest,
            library,
            python: None,
            batch_rows: 256,
            call_limit: Duration::from_secs(60),
            instances: 1,
            queue: 256,
            max_body: 64 * 1024 * 1024,
            warm_up: None,
            memory_limit: None,
            stop_with_stdin: false,
            grace: Duration::from_secs(10),
        }
    }
}

/// Why a worker can't start or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The manifest breaks a rule.
    #[error(transparent)]
    Manifest(#[from] lockgate_core::release::InvalidManifest),
    /// The model can't be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The model can't be loaded in Python.
    #[error(transparent)]
    Shim(#[from] ShimError),
    /// The release runs in Python, and nothing says where its Python is.
    #[error("the release runs in Python; say with --python which one has its packages")]
    NoPython,
    /// The release brings a server of its own.
    #[error("the release is served by a server that it brings; its agent starts that instead of a worker")]
    Server,
    /// The release can't run in another process than a worker's.
    #[error("only a native (ONNX) release runs inside the gateway")]
    NotNative,
    /// The model's process is gone.
    #[error("{0}")]
    Lost(String),
    /// The graph names files that it may not read.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// A file is not the one that the manifest lists.
    #[error("the file `{path}` is not the one in the release: SHA-256 {found}, the manifest says {expected}")]
    Digest {
        /// The file.
        path: String,
        /// Its digest.
        found: String,
        /// The listed digest.
        expected: String,
    },
    /// The feature schema doesn't fit the graph.
    #[error("the release's feature schema doesn't fit its graph: {0}")]
    Schema(WireError),
    /// The warm-up rows are not answered.
    #[error("the model doesn't answer the warm-up rows of {}: {message}", .path.display())]
    WarmUp {
        /// The file with the rows.
        path: PathBuf,
        /// What went wrong.
        message: String,
    },
    /// An operation of the system failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
}

impl WorkerError {
    pub(super) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

/// Runs a worker until it is told to stop (SIGTERM, SIGINT, or the end of standard input where asked for).
///
/// # Errors
/// Where it can't start. Requests never end it.
pub fn run(options: &WorkerOptions) -> Result<(), WorkerError> {
    if let Some(limit) = options.memory_limit {
        let both = rustix::process::Rlimit { current: Some(limit), maximum: Some(limit) };
        rustix::process::setrlimit(rustix::process::Resource::Data, both)
            .map_err(|e| WorkerError::io("can't limit the memory")(e.into()))?;
    }
    let model = model::Model::load(options)?;
    if let Some(path) = &options.warm_up {
        warm::warm_up(&model, path)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(WorkerError::io("can't start the I/O loop"))?;
    tokio::task::LocalSet::new().block_on(&runtime, serve::serve(model, options))
}
