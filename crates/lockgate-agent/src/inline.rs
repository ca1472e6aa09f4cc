//! Releases inside the gateway: which ones are loaded there, and which way requests take, in words.
//!
//! Only what is all that users reach is ever loaded ([`Deployment::inline`]): a candidate's code doesn't come near the gateway. Its
//! workers stay as they are, and answer whenever the lane can't.

use crate::fleet::golden;
use crate::releases::LocalRelease;
use crate::{AgentError, Shared};
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use http_body_util::Full;
use hyper::Request;
use lockgate_core::digest::Digest;
use lockgate_core::id::ModelName;
use lockgate_core::plan::{Isolation, Revision};
use lockgate_core::rollout::{Deployment, Readiness};
use lockgate_gateway::{LaneState, Ran, Runner};
use lockgate_runtime::worker::{Inline, InlineOptions};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a model may keep a thread busy for one row, at the 99th percentile, to be taken into the gateway.
const QUICK: Duration = Duration::from_micros(200);

/// Revisions that were to be loaded, with what came of it. One stays until it is not wanted any more: what was found too slow
/// is not tried again before its next deployment.
#[derive(Debug)]
pub(crate) struct Inside {
    library: PathBuf,
    copies: usize,
    known: Mutex<BTreeMap<Digest, Standing>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Standing {
    Loading,
    Loaded,
    /// Its workers answer, and why.
    Refused(String),
}

/// A runtime's model as the gateway knows runners.
#[derive(Debug)]
struct Model(Inline);

impl Runner for Model {
    fn answer(&self, request: Request<Full<Bytes>>) -> LocalBoxFuture<'_, Option<Ran>> {
        async { self.0.answer(request).await.map(|(response, busy)| Ran { response, busy }) }.boxed_local()
    }
}

impl Inside {
    /// Models are loaded in so many `copies`, one for each of the gateway's threads.
    pub(crate) fn new(library: PathBuf, copies: usize) -> Self {
        Self { library, copies, known: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Digest, Standing>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the gateway may be told to run a revision itself.
pub(crate) fn is_offered(shared: &Shared, revision: &Revision) -> bool {
    let key = revision.digest();
    let loaded = shared.inside.lock().get(&key) == Some(&Standing::Loaded);
    loaded && shared.gateway.inline(&key) == Some(LaneState::Open)
}

/// Forgets what is not wanted any more.
pub(crate) fn keep(shared: &Shared, wanted: &[Digest]) {
    let mut known = shared.inside.lock();
    let before = known.len();
    known.retain(|key, _| wanted.contains(key));
    let kept: Vec<Digest> = known.keys().copied().collect();
    let changed = kept.len() != before;
    drop(known);
    if changed {
        shared.gateway.keep_inline(&kept);
    }
}

/// The revision that is to be loaded now, marked as under way: its workers have answered its golden set rightly.
pub(crate) fn due<'d>(shared: &Shared, deployment: &'d Deployment) -> Option<&'d Revision> {
    let revision = deployment.inline()?;
    let mut known = shared.inside.lock();
    let key = revision.digest();
    let proven = shared.fleet.readiness(revision) == Readiness::Ready && shared.fleet.is_checked(revision);
    if known.contains_key(&key) || !proven {
        return None;
    }
    known.insert(key, Standing::Loading);
    Some(revision)
}

/// Loads a revision's model into the gateway, where it is quick enough.
pub(crate) async fn load(shared: &Shared, model: &ModelName, revision: &Revision) {
    let standing = match bring(shared, model, revision).await {
        Ok(()) => Standing::Loaded,
        Err(why) => Standing::Refused(why),
    };
    let release = revision.release.short();
    match &standing {
        Standing::Refused(why) => {
            tracing::warn!(%model, release, why, "the model doesn't run inside the gateway: its workers answer");
        }
        _ => tracing::info!(%model, release, "the model runs inside the gateway"),
    }
    let mut known = shared.inside.lock();
    if let Some(own) = known.get_mut(&revision.digest()) {
        *own = standing;
    } else {
        // It is not wanted any more by now.
        shared.gateway.keep_inline(&known.keys().copied().collect::<Vec<_>>());
    }
}

async fn bring(shared: &Shared, model: &ModelName, revision: &Revision) -> Result<(), String> {
    let found = shared.releases.local(&revision.release).await.map_err(|e| e.to_string())?;
    let release = found.ok_or("the release's files are not here")?;
    let options = options(shared, &release).map_err(|e| e.to_string())?;
    let loaded = tokio::task::spawn_blocking(move || Inline::load(&options)).await;
    let loaded = loaded.map_err(|_| "loading it into the gateway broke off".to_owned())?;
    let (inline, p99) = loaded.map_err(|e| e.to_string())?;
    if p99 > QUICK {
        return Err(format!("measured when loaded: p99 {} µs > {} µs", p99.as_micros(), QUICK.as_micros()));
    }
    let runner = Arc::new(Model(inline));
    shared.gateway.bring_inline(revision.digest(), model.clone(), revision.release, runner);
    Ok(())
}

fn options(shared: &Shared, release: &LocalRelease) -> Result<InlineOptions, AgentError> {
    Ok(InlineOptions {
        model_dir: release.files.clone(),
        manifest: release.manifest.clone(),
        library: shared.inside.library.clone(),
        copies: shared.inside.copies,
        example: golden(release)?.map(|golden| golden.example()),
    })
}

/// Which way what serves is asked, where its plan asks for the way inside the gateway.
pub(crate) fn words(shared: &Shared, deployment: &Deployment, is_routed: bool) -> Option<String> {
    let serving = deployment.serving.as_ref()?;
    if serving.plan.rollout.isolation != Isolation::Inline {
        return None;
    }
    let process = |why: &str| Some(format!("process ({why})"));
    let Some(revision) = deployment.inline() else {
        return process("a rollout, a probation, a drill or a failover has a part in the traffic");
    };
    let key = revision.digest();
    let standing = shared.inside.lock().get(&key).cloned();
    match (standing, shared.gateway.inline(&key)) {
        (Some(Standing::Refused(why)), _) => process(&why),
        (_, Some(LaneState::Demoted(why))) => process(&format!("demoted: {why}")),
        (Some(Standing::Loaded), Some(LaneState::Open)) if is_routed => Some("inline".to_owned()),
        _ => process("the model is being loaded into the gateway"),
    }
}
