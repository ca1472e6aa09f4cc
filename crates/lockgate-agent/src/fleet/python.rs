//! Releases that run in Python: each in an environment of its own packages, inside a fence.
//!
//! A model may be any code: unpickling it runs it. So its worker, and the Python that the worker starts, read their release, their
//! environment and the system, and neither the agent's key, token and database nor other releases.

use super::{Fleet, FleetOptions};
use crate::AgentError;
use crate::gates::confine::{Confinement, Held, inherited};
use crate::releases::LocalRelease;
use lockgate_core::digest::Digest;
use lockgate_core::plan::RolloutPlan;
use lockgate_core::release::Runtime;
use lockgate_runtime::WorkerSpec;
use lockgate_runtime::supervisor::Start;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};

/// How long a worker may take to import what the model needs, and to load it.
const READY: Duration = Duration::from_secs(300);

/// The shortest limit for a call of the model: gates ask for many rows at a time.
const CALL: Duration = Duration::from_secs(30);

/// What takes long right now, by release.
pub(super) type Notes = Mutex<Vec<(Digest, String, Instant)>>;

/// A note that is gone with this.
struct Noted<'a>(&'a Notes, Digest);

impl Drop for Noted<'_> {
    fn drop(&mut self) {
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = notes.iter().position(|n| n.0 == self.1) {
            notes.remove(at);
        }
    }
}

/// The requirements file and the version of Python of a release that needs one.
fn needs(release: &LocalRelease) -> Option<(PathBuf, &str)> {
    match &release.manifest.runtime {
        Runtime::Onnx { .. } | Runtime::Http(_) => None,
        Runtime::Python { requirements, python, .. } => Some((release.files.join(requirements), python)),
        Runtime::Process(process) => {
            let requirements = process.requirements.as_ref().map(|r| release.files.join(r));
            requirements.zip(process.python.as_deref())
        }
    }
}

/// What nothing that comes with a release may read: the agent's own folder, and its secrets elsewhere.
pub(super) fn fence(options: &FleetOptions) -> Confinement {
    let mut hidden = crate::fence::hidden().to_vec();
    hidden.push(options.home.clone());
    Confinement::new(&hidden)
}

impl Fleet {
    /// Makes the Python environment that a release needs, where it isn't there yet.
    ///
    /// # Errors
    /// Where its packages can't be installed, with the installer's last words.
    pub(crate) async fn equip(&self, release: &LocalRelease) -> Result<(), AgentError> {
        let Some((requirements, version)) = needs(release) else { return Ok(()) };
        let venvs = self.options.home.join("venvs");
        let wanted = crate::python::Wanted::of_release(&requirements, version)?;
        if wanted.made(&venvs).is_some() {
            return Ok(());
        }
        let digest = release.manifest.digest().map_err(|e| AgentError::State(e.to_string()))?;
        let words = format!("installing the Python packages of release {}", digest.short());
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).push((digest, words, Instant::now()));
        let _noted = Noted(&self.notes, digest);
        let inside = fence(&self.options).read(&release.files);
        wanted.ensure(&venvs, &inside).await.map(|_| ())
    }

    /// What takes long for a release right now, and for how long it has.
    pub(crate) fn note(&self, release: &Digest) -> Option<String> {
        let notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        notes.iter().find(|n| n.0 == *release).map(in_words)
    }

    /// The same for all releases.
    pub(crate) fn notes(&self) -> Vec<String> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).iter().map(in_words).collect()
    }
}

fn in_words((_, words, since): &(Digest, String, Instant)) -> String {
    format!("{words}, for {} s so far", since.elapsed().as_secs())
}

/// The Python environment of a release that needs one.
pub(super) fn environment(
    options: &FleetOptions,
    release: &LocalRelease,
) -> Result<Option<PathBuf>, AgentError> {
    let Some((requirements, version)) = needs(release) else { return Ok(None) };
    let wanted = crate::python::Wanted::of_release(&requirements, version)?;
    let made = wanted.made(&options.home.join("venvs")).ok_or_else(|| {
        AgentError::Worker("the release's Python environment is not there; it is made again".to_owned())
    });
    made.map(Some)
}

/// A folder of a worker's own, and one in it for what it needs for a moment: beside other workers' sockets it could take their
/// places.
pub(super) fn own_folder(spec: &mut WorkerSpec) -> Result<(PathBuf, PathBuf), AgentError> {
    spec.own_folder = true;
    let own = spec.folder();
    // What an earlier model left there is none of this one's business.
    let _ = std::fs::remove_dir_all(&own);
    let tmp = own.join("tmp");
    std::fs::create_dir_all(&tmp).map_err(|e| AgentError::io("make the folder", &tmp, e))?;
    Ok((own, tmp))
}

/// Starts workers inside a fence.
pub(super) fn fenced(inside: Confinement) -> Arc<dyn Start> {
    Arc::new(Fenced(inside))
}

/// Lets a worker run a release in its own Python, where it needs one.
pub(super) fn outfit(
    spec: &mut WorkerSpec,
    options: &FleetOptions,
    release: &LocalRelease,
    rollout: &RolloutPlan,
    warm_up: Option<&Path>,
) -> Result<(), AgentError> {
    let Some(environment) = environment(options, release)? else { return Ok(()) };
    let python = environment.join("bin/python");
    let limit = CALL.max(Duration::from_millis(rollout.timeout_ms.saturating_mul(5)));
    spec.args.extend(["--python".into(), python.clone().into()]);
    spec.args.extend(["--call-limit".into(), limit.as_millis().to_string().into()]);
    let batch = rollout.batch_rows.map(|rows| ["--batch-rows".into(), rows.to_string().into()]);
    spec.args.extend(batch.into_iter().flatten());
    spec.ready_within = READY;
    let (own, tmp) = own_folder(spec)?;
    let mut env: Vec<(OsString, OsString)> = inherited().collect();
    env.extend([("HOME".into(), own.clone().into()), ("MLFLOW_DISABLE_TELEMETRY".into(), "true".into())]);
    env.append(&mut spec.env);
    spec.env = env;
    let mut inside = fence(options)
        .read(&spec.program)
        .read(&release.files)
        .read(&release.manifest_path)
        .read(&environment)
        .python(&python)
        .write(&own)
        .tmp(&tmp)
        .without_tcp();
    inside = warm_up.iter().fold(inside, |i, rows| i.read(rows));
    inside = crate::python::cache().iter().fold(inside, |i, cache| i.read(cache));
    spec.start = Some(fenced(inside));
    Ok(())
}

/// Starts programs inside a fence.
#[derive(Debug)]
struct Fenced(Confinement);

impl Start for Fenced {
    fn start(&self, command: Command) -> Pin<Box<dyn Future<Output = std::io::Result<Child>> + Send + '_>> {
        static SAID: AtomicBool = AtomicBool::new(false);
        Box::pin(async move {
            let (child, held) = self.0.spawn(command).await?;
            if held != Held::Whole && !SAID.swap(true, Ordering::Relaxed) {
                tracing::warn!("a release's own program: {}", held.remark().trim());
            }
            Ok(child)
        })
    }
}
