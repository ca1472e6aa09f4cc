//! Start workers as child processes, watch them, start them again.
//!
//! Each worker has one address for as long as the supervisor lives. A worker that dies is noticed at once and started
//! again after a growing pause, and so is one that doesn't answer for its health any more; one that dies quickly too often is given up as a crash loop, which is said and stays
//! so: the same release with the same settings would die again.

mod backoff;
mod child;
mod elsewhere;
mod health;
mod log;
mod port;
pub mod usage;

pub use health::Expect;
use lockgate_core::route::WorkerAddress;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Another way to start a worker than to spawn its command: inside a fence.
pub trait Start: std::fmt::Debug + Send + Sync {
    /// Starts the command.
    fn start(&self, command: Command) -> Pin<Box<dyn Future<Output = std::io::Result<Child>> + Send + '_>>;
}

/// How a worker is asked whether it is well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// The path that is asked.
    pub path: String,
    /// What a good answer says.
    pub expect: Expect,
}

/// One of the servers that a team brings in the place of a worker: how it is started, and where it listens then.
#[derive(Debug, Clone)]
pub struct Place {
    /// Where it listens.
    pub address: WorkerAddress,
    /// Its command line, for a shell.
    pub run: String,
    /// Its environment.
    pub env: Vec<(OsString, OsString)>,
}

/// What to start, and how patient to be.
#[derive(Debug, Clone)]
pub struct WorkerSpec {
    /// The program; usually this one.
    pub program: PathBuf,
    /// Its arguments (`worker --model-dir … --manifest …`). `--socket <path>` is appended. The worker must stop when its
    /// standard input ends.
    pub args: Vec<OsString>,
    /// The environment; nothing else is inherited, so that a model sees none of the parent's secrets.
    pub env: Vec<(OsString, OsString)>,
    /// The folder for sockets. Its path must be short (a socket's path has at most 107 bytes).
    pub socket_dir: PathBuf,
    /// The folder for logs.
    pub log_dir: PathBuf,
    /// What socket and log files are called.
    pub name: String,
    /// Whether the sockets lie in a folder of that name, which nothing else uses.
    pub own_folder: bool,
    /// Servers that a team brings, started instead of the program: one for each worker. They are ready when they answer their
    /// health check, and told to stop by a signal.
    pub places: Vec<Place>,
    /// The folder in which they are started.
    pub current_dir: Option<PathBuf>,
    /// The most memory for data that they may take, in bytes.
    pub memory_limit: Option<u64>,
    /// How workers are started; by spawning them where it isn't said.
    pub start: Option<Arc<dyn Start>>,
    /// How a worker is asked whether it is well.
    pub health: Health,
    /// Where no server may be: the gateway that would ask it.
    pub not_at: Option<SocketAddr>,
    /// How long a worker may take to become ready.
    pub ready_within: Duration,
    /// The pause after the first death; it doubles with each one that follows.
    pub pause: Duration,
    /// The longest pause.
    pub max_pause: Duration,
    /// A worker that lives shorter than this died quickly.
    pub quick: Duration,
    /// How many quick deaths in a row make a crash loop.
    pub crash_loop_after: u32,
    /// How often a worker that is ready is asked for its health.
    pub health_every: Duration,
    /// How long it may take to answer that.
    pub health_timeout: Duration,
    /// After so many answers in a row that didn't come, it hangs: it is killed and started again.
    pub health_misses: u32,
    /// How large the log of one worker may become; the older half goes.
    pub max_log: u64,
}

impl WorkerSpec {
    /// A spec with the usual patience: ready within 60 s, pauses of 100 ms to 30 s, five deaths within 30 s each;
    /// a worker that is silent for about 9 s hangs.
    #[must_use]
    pub fn new(
        program: PathBuf,
        args: Vec<OsString>,
        socket_dir: PathBuf,
        log_dir: PathBuf,
        name: String,
    ) -> Self {
        Self {
            program,
            args,
            env: Vec::new(),
            socket_dir,
            log_dir,
            name,
            own_folder: false,
            places: Vec::new(),
            current_dir: None,
            memory_limit: None,
            start: None,
            health: Health { path: "/v2/health/ready".to_owned(), expect: Expect::Ok },
            not_at: None,
            ready_within: Duration::from_secs(60),
            pause: Duration::from_millis(100),
            max_pause: Duration::from_secs(30),
            quick: Duration::from_secs(30),
            crash_loop_after: 5,
            health_every: Duration::from_secs(1),
            health_timeout: Duration::from_secs(3),
            health_misses: 3,
            max_log: 4 * 1024 * 1024,
        }
    }

    /// The folder in which the sockets lie.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        if self.own_folder { self.socket_dir.join(&self.name) } else { self.socket_dir.clone() }
    }

    fn socket(&self, index: usize) -> PathBuf {
        let own = self.own_folder;
        self.folder().join(if own { format!("{index}.sock") } else { format!("{}-{index}.sock", self.name) })
    }
}

/// What a worker is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkerState {
    /// It is loading its model.
    Starting,
    /// It answers.
    Ready,
    /// It died and will be started again.
    Restarting {
        /// How many deaths in a row.
        attempt: u32,
        /// How the last one happened, with the last lines that it wrote.
        last_error: String,
    },
    /// It died too often and was given up.
    CrashLoop {
        /// How the last death happened, with the last lines that it wrote.
        last_error: String,
    },
    /// It is somebody else's, and doesn't answer.
    Away {
        /// What it said, or why it said nothing.
        last_error: String,
    },
    /// It was stopped.
    Stopped,
}

/// One worker, as seen from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerStatus {
    /// What it is doing.
    pub state: WorkerState,
    /// Its process, while there is one.
    pub pid: Option<u32>,
    /// How often it was started again.
    pub restarts: u64,
    /// Of somebody else's, how often it was found ready after it was not: it may be another one each time.
    pub returns: u64,
    /// Of somebody else's, how often it failed to answer for a moment: it may be another one since.
    pub doubts: u64,
}

/// Why workers can't be supervised, or aren't ready.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    /// A folder can't be made.
    #[error("can't create {}: {source}", .path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A socket's path would be too long for the system.
    #[error("the socket path {} has more than 107 bytes; use a shorter folder for sockets", .0.display())]
    SocketPath(PathBuf),
    /// A worker died too often.
    #[error("worker {index} died too often: {last_error}")]
    CrashLoop {
        /// Which.
        index: usize,
        /// How.
        last_error: String,
    },
    /// Time ran out.
    #[error("worker {index} is not ready in time: {state}")]
    NotReady {
        /// Which.
        index: usize,
        /// What it is doing.
        state: String,
    },
    /// The workers were stopped.
    #[error("the workers were stopped")]
    Stopped,
}

/// A number of workers for one release, kept alive until [`Supervisor::stop`]. Dropping it kills them.
#[derive(Debug)]
pub struct Supervisor {
    addresses: Vec<WorkerAddress>,
    status: watch::Receiver<Vec<WorkerStatus>>,
    stop: watch::Sender<Option<Duration>>,
    tasks: Vec<JoinHandle<()>>,
    /// The folder that nothing else uses, where there is one.
    own: Option<PathBuf>,
}

impl Supervisor {
    /// Starts `count` workers (at least one) and returns at once; needs a tokio runtime.
    ///
    /// # Errors
    /// Where a folder can't be made or a socket's path is too long.
    pub fn spawn(spec: &WorkerSpec, count: usize) -> Result<Self, SupervisorError> {
        for path in [spec.folder(), spec.log_dir.clone()] {
            std::fs::create_dir_all(&path).map_err(|source| SupervisorError::Folder { path, source })?;
        }
        let addresses: Vec<WorkerAddress> = match spec.places.as_slice() {
            [] => {
                let socket = |i| WorkerAddress::Unix(spec.socket(i).to_string_lossy().into_owned());
                (0..count.max(1)).map(socket).collect()
            }
            places => places.iter().map(|p| p.address.clone()).collect(),
        };
        let too_long = |a: &&WorkerAddress| matches!(a, WorkerAddress::Unix(path) if path.len() > 107);
        if let Some(WorkerAddress::Unix(long)) = addresses.iter().find(too_long) {
            return Err(SupervisorError::SocketPath(long.into()));
        }
        let own = spec.own_folder.then(|| spec.folder());
        Ok(Self::tasks(addresses, own, |index, address, report, stop| {
            tokio::spawn(child::Keeper::new(spec.clone(), index, address, report, stop).keep())
        }))
    }

    /// Watches servers that somebody else runs; needs a tokio runtime.
    #[must_use]
    pub fn watch(spec: &WorkerSpec, addresses: Vec<WorkerAddress>) -> Self {
        Self::tasks(addresses, None, |index, address, report, stop| {
            let watcher = elsewhere::Watcher { spec: spec.clone(), index, address, report, stop };
            tokio::spawn(watcher.watch())
        })
    }

    /// One task for each address.
    fn tasks(
        addresses: Vec<WorkerAddress>,
        own: Option<PathBuf>,
        task: impl Fn(
            usize,
            WorkerAddress,
            watch::Sender<Vec<WorkerStatus>>,
            watch::Receiver<Option<Duration>>,
        ) -> JoinHandle<()>,
    ) -> Self {
        let first =
            WorkerStatus { state: WorkerState::Starting, pid: None, restarts: 0, returns: 0, doubts: 0 };
        let (report, status) = watch::channel(vec![first; addresses.len()]);
        let (stop, _) = watch::channel(None);
        let each = addresses.iter().cloned().enumerate();
        let tasks = each.map(|(i, address)| task(i, address, report.clone(), stop.subscribe())).collect();
        Self { addresses, status, stop, tasks, own }
    }

    /// Where the workers listen, in order; the same for as long as the supervisor lives.
    #[must_use]
    pub fn addresses(&self) -> &[WorkerAddress] {
        &self.addresses
    }

    /// What the workers are doing, now and from now on.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Vec<WorkerStatus>> {
        self.status.clone()
    }

    /// Waits until all workers are ready.
    ///
    /// # Errors
    /// Where one is given up, all are stopped, or `within` has passed.
    pub async fn ready(&self, within: Duration) -> Result<(), SupervisorError> {
        let mut status = self.status.clone();
        let outcome = tokio::time::timeout(within, status.wait_for(|all| judge(all).is_some())).await;
        match outcome {
            Ok(Ok(all)) => judge(&all).unwrap_or(Err(SupervisorError::Stopped)),
            Ok(Err(_)) => Err(SupervisorError::Stopped),
            Err(_) => {
                let all = self.status.borrow();
                let late = all.iter().enumerate().find(|(_, w)| w.state != WorkerState::Ready);
                late.map_or(Ok(()), |(index, w)| {
                    Err(SupervisorError::NotReady { index, state: format!("{:?}", w.state) })
                })
            }
        }
    }

    /// Waits until at least one worker is ready, and says which.
    ///
    /// # Errors
    /// Where all are given up or stopped, or `within` has passed.
    pub async fn any_ready(&self, within: Duration) -> Result<usize, SupervisorError> {
        let mut status = self.status.clone();
        let is_ready = |w: &WorkerStatus| w.state == WorkerState::Ready;
        let open = |all: &Vec<WorkerStatus>| all.iter().any(is_ready) || matches!(judge(all), Some(Err(_)));
        let _ = tokio::time::timeout(within, status.wait_for(open)).await;
        let all = self.status.borrow();
        match (all.iter().position(is_ready), judge(&all)) {
            (Some(index), _) => Ok(index),
            (None, Some(Err(error))) => Err(error),
            (None, _) => {
                let state = all.iter().map(|w| format!("{:?}", w.state)).collect::<Vec<_>>().join(", ");
                Err(SupervisorError::NotReady { index: 0, state })
            }
        }
    }

    /// Stops all workers: each may finish what is in flight within `grace`, then it is killed.
    pub async fn stop(mut self, grace: Duration) {
        let _ = self.stop.send(Some(grace));
        for task in std::mem::take(&mut self.tasks) {
            let _ = task.await;
        }
        if let Some(own) = &self.own {
            let _ = std::fs::remove_dir_all(own);
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        // The children have `kill_on_drop`: with their keeper's task goes the process.
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// `None` while it is still open.
fn judge(all: &[WorkerStatus]) -> Option<Result<(), SupervisorError>> {
    for (index, worker) in all.iter().enumerate() {
        match &worker.state {
            WorkerState::CrashLoop { last_error } => {
                return Some(Err(SupervisorError::CrashLoop { index, last_error: last_error.clone() }));
            }
            WorkerState::Stopped => return Some(Err(SupervisorError::Stopped)),
            _ => {}
        }
    }
    all.iter().all(|w| w.state == WorkerState::Ready).then_some(Ok(()))
}
