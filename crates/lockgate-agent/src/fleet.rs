//! The workers of one environment: which revisions run, and whether they can serve. Where they run is this module's
//! secret: local processes now.

mod brought;
mod checks;
mod golden;
mod python;

use crate::AgentError;
use crate::releases::LocalRelease;
use checks::Checks;
pub(crate) use golden::golden;
use lockgate_core::digest::Digest;
use lockgate_core::id::ModelName;
use lockgate_core::plan::{Plan, Revision};
use lockgate_core::release::Runtime;
use lockgate_core::rollout::Readiness;
use lockgate_core::route::WorkerAddress;
use lockgate_core::server::Server;
use lockgate_runtime::supervisor::{WorkerState, WorkerStatus};
use lockgate_runtime::{Supervisor, WorkerSpec};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a worker may finish what is in flight.
const GRACE: Duration = Duration::from_secs(10);

/// How workers are started.
#[derive(Debug, Clone)]
pub(crate) struct FleetOptions {
    /// The agent's own folder.
    pub(crate) home: PathBuf,
    pub(crate) program: PathBuf,
    pub(crate) onnxruntime: PathBuf,
    pub(crate) sockets: PathBuf,
    pub(crate) logs: PathBuf,
    /// Where the gateway listens that asks them.
    pub(crate) gateway: SocketAddr,
}

/// The environment's workers.
#[derive(Debug)]
pub(crate) struct Fleet {
    options: FleetOptions,
    running: Mutex<BTreeMap<Digest, Running>>,
    /// Revisions whose workers are finishing what is in flight: their sockets are still theirs.
    stopping: Mutex<BTreeSet<Digest>>,
    borrowed: std::sync::atomic::AtomicU64,
    notes: python::Notes,
}

/// The workers of one revision.
#[derive(Debug)]
struct Running {
    supervisor: Supervisor,
    model: ModelName,
    release: Digest,
    /// What they speak, where they are servers that the team brings.
    server: Option<Server>,
    /// Whether they are started here and may listen on ports, which others could take while they are gone.
    has_ports: bool,
    /// Whether the golden set was answered rightly.
    checks: Checks,
}

/// A worker for a gate alone.
#[derive(Debug)]
pub(crate) struct Borrowed {
    supervisor: Supervisor,
    /// Which of its workers is ready.
    ready: usize,
}

impl Borrowed {
    pub(crate) fn address(&self) -> WorkerAddress {
        self.supervisor.addresses()[self.ready].clone()
    }

    pub(crate) async fn give_back(self) {
        self.supervisor.stop(GRACE).await;
    }
}

/// One worker's state, for noticing losses.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) model: ModelName,
    pub(crate) revision: Digest,
    pub(crate) release: Digest,
    pub(crate) worker: u32,
    pub(crate) status: WorkerStatus,
}

impl Fleet {
    pub(crate) fn new(options: FleetOptions) -> Self {
        Self {
            options,
            running: Mutex::default(),
            stopping: Mutex::default(),
            borrowed: std::sync::atomic::AtomicU64::new(0),
            notes: python::Notes::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Digest, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spec(
        &self,
        release: &LocalRelease,
        revision: &Revision,
        plan: &Plan,
        name: String,
    ) -> Result<WorkerSpec, AgentError> {
        let mut args: Vec<OsString> =
            vec!["worker".into(), "--model-dir".into(), release.files.clone().into()];
        args.extend(["--manifest".into(), release.manifest_path.clone().into()]);
        args.extend(["--onnxruntime".into(), self.options.onnxruntime.clone().into()]);
        let warm_up = warm_up_file(release)?;
        args.extend(warm_up.iter().flat_map(|rows| ["--warmup".into(), rows.into()]));
        args.extend(["--memory".into(), plan.rollout.memory_bytes.to_string().into()]);
        let o = &self.options;
        let mut spec = WorkerSpec::new(o.program.clone(), args, o.sockets.clone(), o.logs.clone(), name);
        spec.env = revision.vars.iter().map(|(k, v)| (k.into(), v.into())).collect();
        python::outfit(&mut spec, o, release, &plan.rollout, warm_up.as_deref())?;
        Ok(spec)
    }

    /// Starts workers, or whatever stands in their place, and says how long they may take to be ready.
    fn launch(
        &self,
        release: &LocalRelease,
        (revision, plan): (&Revision, &Plan),
        name: String,
        count: usize,
        adjust: impl FnOnce(&mut WorkerSpec),
    ) -> Result<(Supervisor, Duration), AgentError> {
        let mut spec = match &release.manifest.runtime {
            Runtime::Http(http) => return brought::watch(&self.options, http, revision, plan, name),
            Runtime::Process(process) => self.brought(process, release, (revision, plan), name, count)?,
            Runtime::Onnx { .. } | Runtime::Python { .. } => self.spec(release, revision, plan, name)?,
        };
        adjust(&mut spec);
        let supervisor = Supervisor::spawn(&spec, count).map_err(|e| AgentError::Worker(e.to_string()))?;
        Ok((supervisor, spec.ready_within))
    }

    /// Starts a revision's workers where they don't run yet.
    pub(crate) fn ensure(
        &self,
        revision: &Revision,
        plan: &Plan,
        release: &LocalRelease,
    ) -> Result<(), AgentError> {
        let key = revision.digest();
        let stopping = self.stopping.lock().unwrap_or_else(PoisonError::into_inner).contains(&key);
        if stopping || self.lock().contains_key(&key) {
            return Ok(());
        }
        let name = format!("w-{}", &key.hex()[..8]);
        let workers = usize::try_from(plan.rollout.workers).unwrap_or(1);
        let (supervisor, _) = self.launch(release, (revision, plan), name, workers, |_| {})?;
        let server = release.manifest.runtime.server().cloned();
        let has_ports = matches!(release.manifest.runtime, Runtime::Process(_));
        let elsewhere = matches!(release.manifest.runtime, Runtime::Http(_));
        let checks = Checks::new(supervisor.addresses().len(), elsewhere);
        let model = plan.model.clone();
        let release = revision.release;
        let running = Running { supervisor, model, release, server, has_ports, checks };
        self.lock().insert(key, running);
        Ok(())
    }

    /// Whether a revision can serve.
    pub(crate) fn readiness(&self, revision: &Revision) -> Readiness {
        let running = self.lock();
        let Some(found) = running.get(&revision.digest()) else { return Readiness::Pending };
        let status = found.supervisor.status();
        let all = status.borrow();
        if all.iter().all(|w| matches!(w.state, WorkerState::CrashLoop { .. } | WorkerState::Stopped)) {
            let why = all.iter().find_map(|w| match &w.state {
                WorkerState::CrashLoop { last_error } => Some(last_error.clone()),
                _ => None,
            });
            return Readiness::Failed(why.unwrap_or_else(|| "its workers were stopped".to_owned()));
        }
        if let Some(why) = found.checks.failed(&all) {
            return Readiness::Failed(why);
        }
        let serves = |(index, w): (usize, &WorkerStatus)| {
            w.state == WorkerState::Ready && found.checks.may_serve(index, w)
        };
        if all.iter().enumerate().any(serves) { Readiness::Ready } else { Readiness::Pending }
    }

    /// Where a revision's workers listen, ready or not: the gateway passes over those that don't answer, and finds them
    /// again when they do, without a new table. A server on a port of this machine is left out while it isn't ready: another
    /// program may have its port. So is somebody else's while it isn't ready, or has not answered its golden set rightly since
    /// it is: it may have another model now, or not the version that it is asked for.
    pub(crate) fn addresses(&self, revision: &Revision) -> Vec<WorkerAddress> {
        let running = self.lock();
        let Some(found) = running.get(&revision.digest()) else { return Vec::new() };
        let status = found.supervisor.status();
        let all = status.borrow();
        let kept = |(index, (address, worker)): &(usize, (&WorkerAddress, &WorkerStatus))| {
            let is_port = found.has_ports && matches!(address, WorkerAddress::Tcp(_));
            found.checks.may_serve(*index, worker) && (!is_port || worker.state == WorkerState::Ready)
        };
        let each = found.supervisor.addresses().iter().zip(all.iter()).enumerate();
        each.filter(kept).map(|(_, (address, _))| address.clone()).collect()
    }

    /// Whether a revision's workers were ready once and answered their golden set rightly.
    pub(crate) fn is_checked(&self, revision: &Revision) -> bool {
        self.lock().get(&revision.digest()).is_some_and(|found| found.checks.is_good())
    }

    /// What is wrong with some of a revision's addresses, where others may serve; none where nothing is.
    pub(crate) fn trouble(&self, revision: &Revision) -> Option<String> {
        let running = self.lock();
        let found = running.get(&revision.digest())?;
        let (status, addresses) = (found.supervisor.status(), found.supervisor.addresses());
        let all = status.borrow();
        let troubles = found.checks.troubles(&all).map(|(index, why)| match addresses.get(index) {
            Some(WorkerAddress::Tcp(address) | WorkerAddress::Unix(address)) => format!("{address}: {why}"),
            None => why.to_owned(),
        });
        let words = troubles.collect::<Vec<_>>().join("; ");
        (!words.is_empty()).then_some(words)
    }

    /// What a revision's workers speak, where they are servers that the team brings.
    pub(crate) fn server(&self, revision: &Revision) -> Option<Server> {
        self.lock().get(&revision.digest()).and_then(|found| found.server.clone())
    }

    /// How long a stream of a revision's servers may take; none where its workers stream nothing.
    pub(crate) fn stream_limit(&self, revision: &Digest) -> Option<Duration> {
        let running = self.lock();
        running.get(revision)?.server.as_ref().map(|server| Duration::from_millis(server.stream_ms))
    }

    /// The revisions that have workers.
    pub(crate) fn running(&self) -> Vec<Digest> {
        self.lock().keys().copied().collect()
    }

    /// How many workers of a revision are ready, and how many there should be.
    pub(crate) fn count(&self, revision: &Revision) -> (u32, u32) {
        let running = self.lock();
        let Some(found) = running.get(&revision.digest()) else { return (0, 0) };
        let status = found.supervisor.status();
        let all = status.borrow();
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        (number(all.iter().filter(|w| w.state == WorkerState::Ready).count()), number(all.len()))
    }

    /// Every worker's state.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        let running = self.lock();
        running
            .iter()
            .flat_map(|(revision, r)| {
                let all = r.supervisor.status().borrow().clone();
                (0..)
                    .zip(all)
                    .map(|(worker, status)| Seen {
                        model: r.model.clone(),
                        revision: *revision,
                        release: r.release,
                        worker,
                        status,
                    })
                    .collect::<Vec<_>>()
            })
            .collect()
    }

    /// Takes every revision that is not wanted any more out of service. What comes back is the work of stopping its workers,
    /// which lets requests in flight finish; nobody has to wait for it.
    pub(crate) fn retire(self: &Arc<Self>, wanted: &[Digest]) -> impl Future<Output = ()> + Send + use<> {
        let ended: Vec<(Digest, Running)> = {
            let mut running = self.lock();
            let keys: Vec<Digest> = running.keys().filter(|k| !wanted.contains(k)).copied().collect();
            keys.iter().filter_map(|k| running.remove(k).map(|r| (*k, r))).collect()
        };
        let mut stopping = self.stopping.lock().unwrap_or_else(PoisonError::into_inner);
        stopping.extend(ended.iter().map(|(key, _)| *key));
        drop(stopping);
        let fleet = Arc::clone(self);
        async move {
            for (key, one) in ended {
                one.supervisor.stop(GRACE).await;
                fleet.stopping.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
            }
        }
    }

    /// Removes the folder of its sockets, once its workers have ended.
    pub(crate) fn leave(&self) {
        if let Err(error) = std::fs::remove_dir_all(&self.options.sockets) {
            tracing::warn!(%error, "the folder of the sockets can't be removed");
        }
    }

    /// Starts a worker for a gate alone and waits until it is ready.
    pub(crate) async fn borrow(&self, release: &LocalRelease, plan: &Plan) -> Result<Borrowed, AgentError> {
        self.equip(release).await?;
        let number = self.borrowed.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("gate-{number}");
        // A gate is told of the first death; waiting for a crash loop would only take longer to say the same.
        let once = |spec: &mut WorkerSpec| spec.crash_loop_after = 1;
        let (supervisor, within) = self.launch(release, (&plan.revision, plan), name, 1, once)?;
        // There is more than one only where somebody else runs them, and not all need to be there.
        let ready = supervisor.any_ready(within).await;
        let ready = ready.map_err(|e| AgentError::Gate(format!("the release can't be loaded: {e}")))?;
        Ok(Borrowed { supervisor, ready })
    }

    /// The ends of the workers' logs.
    pub(crate) fn logs(&self, tail: u64) -> String {
        let mut text = String::new();
        let mut paths: Vec<PathBuf> =
            std::fs::read_dir(&self.options.logs).into_iter().flatten().flatten().map(|e| e.path()).collect();
        paths.sort();
        for path in
            paths.iter().filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("w-")))
        {
            let bytes = std::fs::read(path).unwrap_or_default();
            let from = bytes.len().saturating_sub(usize::try_from(tail).unwrap_or(usize::MAX));
            text.push_str(&format!("== {}\n{}", path.display(), String::from_utf8_lossy(&bytes[from..])));
        }
        text
    }
}

/// The golden set's rows as a file that a worker warms up with.
fn warm_up_file(release: &LocalRelease) -> Result<Option<PathBuf>, AgentError> {
    let Some(golden) = golden(release)? else { return Ok(None) };
    let path: PathBuf = Path::new(&release.manifest_path).with_extension("warmup.json");
    if !path.is_file() {
        crate::home::write_private(&path, &golden.request())?;
    }
    Ok(Some(path))
}
