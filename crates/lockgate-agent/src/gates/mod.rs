//! Gates: each looks at one release in this environment and leaves signed evidence.
//!
//! A gate that can't be carried out is an *error*, never a pass. Faults that may pass by themselves (the server doesn't
//! answer) leave no evidence; the gate is run again.

mod benchmark;
mod command;
pub(crate) mod confine;
mod data;
pub(crate) mod dataset;
mod form;
mod metric;
mod parity;
pub(crate) mod program;
mod replay;
mod rows;

pub(crate) use command::Preview;
pub(crate) use form::{RowForm, model_path};
pub(crate) use parity::Golden;

use crate::fleet::Fleet;
use crate::releases::{LocalRelease, Releases};
use crate::server::Server;
use crate::{AgentError, Shared};
use lockgate_core::clock::{Clock, Millis};
use lockgate_core::digest::Digest;
use lockgate_core::gate::{Finding, GateSpec, Input, Outcome};
use lockgate_core::id::{GateName, PromotionId};
use lockgate_core::plan::{Plan, Smoke};
use lockgate_core::preview::redacted;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Everything that a gate may use.
pub(crate) struct Context<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) release: LocalRelease,
    pub(crate) releases: &'a Releases,
    pub(crate) server: &'a Server,
    pub(crate) fleet: &'a Fleet,
    /// A folder for this gate alone.
    pub(crate) work: PathBuf,
    /// Where Python environments are kept.
    pub(crate) venvs: PathBuf,
    /// Where the paths of datasets start from.
    pub(crate) data: &'a Path,
    /// This environment's prediction log.
    pub(crate) predictions: PathBuf,
}

impl<'a> Context<'a> {
    /// Of a plan's release, with an own folder of this name.
    pub(crate) async fn new(shared: &'a Shared, plan: &'a Plan, folder: &str) -> Result<Self, AgentError> {
        let work = shared.home.path("work").join(folder);
        std::fs::create_dir_all(&work).map_err(|e| AgentError::io("make the folder", &work, e))?;
        Ok(Self {
            plan,
            release: shared.releases.fetch(&shared.server, &plan.revision.release).await?,
            releases: &shared.releases,
            server: &shared.server,
            fleet: &shared.fleet,
            work,
            venvs: shared.home.path("venvs"),
            data: &shared.data,
            predictions: shared.home.path("predictions"),
        })
    }

    /// Its folder has served.
    pub(crate) fn clear(&self) {
        let _ = std::fs::remove_dir_all(&self.work);
    }
}

impl Context<'_> {
    async fn fetch(&self, digest: &Digest) -> Result<(), AgentError> {
        self.releases.fetch_blob(self.server, digest).await
    }
}

/// What a gate found, before it is signed.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) outcome: Outcome,
    pub(crate) summary: String,
    pub(crate) measured: BTreeMap<String, f64>,
    pub(crate) inputs: Vec<Input>,
    pub(crate) log: Vec<u8>,
}

/// Runs one gate to its end. An error comes back as evidence of an error, unless trying again may help.
pub(crate) async fn run(
    context: &Context<'_>,
    name: &GateName,
    spec: &GateSpec,
    promotion: &PromotionId,
    plan_hash: Digest,
    clock: &Arc<dyn Clock>,
) -> Result<(Finding, Vec<u8>), AgentError> {
    let started = clock.now_ms();
    let checked = match check(context, spec).await {
        Ok(checked) => checked,
        Err(error) if error.is_passing() => return Err(error),
        Err(error) => Checked {
            outcome: Outcome::Error,
            summary: error.to_string(),
            measured: BTreeMap::new(),
            inputs: Vec::new(),
            log: format!("{error}\n").into_bytes(),
        },
    };
    Ok(finding(context, name, spec, promotion, plan_hash, checked, (started, clock.now_ms())))
}

/// Runs the smoke test of a release that is warm and has no users yet. An error is one that trying again may heal; everything
/// else is an outcome. What it says is kept and shown, so nothing in it leads to the release any more.
pub(crate) async fn smoke(
    context: &Context<'_>,
    smoke: &Smoke,
    preview: Preview<'_>,
) -> Result<(Outcome, String, Vec<u8>), AgentError> {
    let (outcome, summary, log) = match command::smoke(context, smoke, preview).await {
        Ok(checked) => (checked.outcome, checked.summary, checked.log),
        Err(error) if error.is_passing() || error.is_the_machine_s() => return Err(error),
        Err(error) => (Outcome::Error, error.to_string(), format!("{error}\n").into_bytes()),
    };
    let shown = |text: &str| redacted(text, preview.token);
    Ok((outcome, shown(&summary), shown(&String::from_utf8_lossy(&log)).into_bytes()))
}

async fn check(context: &Context<'_>, spec: &GateSpec) -> Result<Checked, AgentError> {
    match spec {
        GateSpec::Command { run, timeout_ms } => command::run(context, run, *timeout_ms).await,
        GateSpec::Data { data } => data::run(context, data).await,
        GateSpec::Metric { .. } => rows::metric(context, spec).await,
        GateSpec::Parity { atol } => parity::run(context, *atol).await,
        GateSpec::Benchmark { rps, p99_ms, duration_ms } => {
            benchmark::run(context, *rps, *p99_ms, *duration_ms).await
        }
        GateSpec::Replay { data, limit } => replay::run(context, data.as_deref(), *limit).await,
    }
}

fn finding(
    context: &Context<'_>,
    name: &GateName,
    spec: &GateSpec,
    promotion: &PromotionId,
    plan_hash: Digest,
    mut checked: Checked,
    (started, finished): (Millis, Millis),
) -> (Finding, Vec<u8>) {
    // A number that is not finite can't be signed, and proves nothing.
    let broken: Vec<String> =
        checked.measured.iter().filter(|(_, v)| !v.is_finite()).map(|(k, _)| k.clone()).collect();
    checked.measured.retain(|_, v| v.is_finite());
    if !broken.is_empty() && checked.outcome == Outcome::Pass {
        checked.outcome = Outcome::Error;
        checked.summary = format!("{} is not a finite number", broken.join(", "));
    }
    // Without it the finding answers no question, and counts for nothing.
    checked.inputs.extend(spec.as_input());
    let finding = Finding {
        gate: name.clone(),
        kind: spec.kind().to_owned(),
        environment: context.plan.environment.clone(),
        promotion: promotion.clone(),
        plan_hash,
        result: checked.outcome,
        summary: checked.summary,
        measured: checked.measured,
        inputs: checked.inputs,
        log: Some(Digest::of(&checked.log)),
        started,
        finished,
    };
    (finding, checked.log)
}
