//! Revisions on their way to their workers, and away from them.

use super::{LOOK_EVERY, RETRY_EVERY, Reconciler};
use crate::{AgentError, Shared, inline, routing};
use lockgate_core::digest::Digest;
use lockgate_core::plan::{Plan, Revision};
use lockgate_core::rollout::Readiness;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// Where a revision is on its way.
#[derive(Debug)]
pub(super) enum Preparing {
    Working,
    Waiting { until: Instant },
    Failed(String),
}

impl Reconciler {
    /// Starts fetching and loading whatever is wanted and not there.
    pub(super) fn prepare(&mut self) {
        for deployment in self.deployments.values() {
            let Some(plan) = routing::plan(deployment) else { continue };
            for revision in deployment.wanted() {
                let key = revision.digest();
                let mut preparing = self.preparing.lock().unwrap_or_else(PoisonError::into_inner);
                match preparing.get(&key) {
                    Some(Preparing::Working | Preparing::Failed(_)) => continue,
                    Some(Preparing::Waiting { until }) if Instant::now() < *until => continue,
                    _ if self.is_settled(revision) => continue,
                    _ => {}
                }
                preparing.insert(key, Preparing::Working);
                let (shared, revision, plan, states) =
                    (self.shared.clone(), revision.clone(), plan.clone(), self.preparing.clone());
                self.spawn(async move {
                    let outcome = bring_up(&shared, &revision, &plan).await;
                    let next = match outcome {
                        Ok(()) => Preparing::Waiting { until: Instant::now() + LOOK_EVERY },
                        Err(error) if error.is_passing() || error.is_the_machine_s() => {
                            tracing::warn!(%error, release = %revision.release, "can't be prepared yet");
                            Preparing::Waiting { until: Instant::now() + RETRY_EVERY }
                        }
                        Err(error) => {
                            tracing::error!(%error, release = %revision.release, "can't be prepared");
                            Preparing::Failed(error.to_string())
                        }
                    };
                    states.lock().unwrap_or_else(PoisonError::into_inner).insert(key, next);
                });
            }
        }
    }

    /// Whether a revision can serve, and none of its addresses has to prove itself.
    fn is_settled(&self, revision: &Revision) -> bool {
        let fleet = &self.shared.fleet;
        fleet.readiness(revision) == Readiness::Ready && !fleet.is_check_due(revision)
    }

    /// Loads what may run inside the gateway, and lets go of what is not wanted any more.
    pub(super) fn bring_inside(&mut self) {
        let wanted: Vec<Digest> =
            self.deployments.values().flat_map(|d| d.wanted().into_iter().map(Revision::digest)).collect();
        inline::keep(&self.shared, &wanted);
        for (model, deployment) in &self.deployments {
            let Some(revision) = inline::due(&self.shared, deployment) else { continue };
            let (shared, model, revision) = (self.shared.clone(), model.clone(), revision.clone());
            self.spawn(async move { inline::load(&shared, &model, &revision).await });
        }
    }

    /// Stops what is not wanted any more.
    pub(super) fn retire(&mut self) {
        let mut wanted: Vec<Digest> = self
            .deployments
            .values()
            .flat_map(|d| d.wanted().into_iter().map(Revision::digest).collect::<Vec<_>>())
            .collect();
        wanted.extend(self.still_answering(&wanted));
        let idle = {
            let mut preparing = self.preparing.lock().unwrap_or_else(PoisonError::into_inner);
            preparing.retain(|key, state| wanted.contains(key) || matches!(state, Preparing::Working));
            !preparing.values().any(|s| matches!(s, Preparing::Working))
        };
        if idle {
            let stopped = self.shared.fleet.retire(&wanted);
            self.crash("during", "retire");
            tokio::spawn(stopped);
        }
    }
}

/// How long something that is not wanted any more may go on answering streams, beyond its server's own limit for one.
const DRAIN_GRACE: Duration = Duration::from_secs(5);

impl Reconciler {
    /// Revisions that are not wanted any more and have streams under way: their users get them to their ends.
    fn still_answering(&mut self, wanted: &[Digest]) -> Vec<Digest> {
        let fleet = &self.shared.fleet;
        let gateway = &self.shared.gateway;
        let unwanted: Vec<Digest> = fleet.running().into_iter().filter(|key| !wanted.contains(key)).collect();
        self.draining.retain(|key, _| unwanted.contains(key));
        let mut kept = Vec::new();
        for key in unwanted.into_iter().filter(|key| gateway.inflight(key) > 0) {
            let limit = fleet.stream_limit(&key).map_or(Duration::ZERO, |limit| limit + DRAIN_GRACE);
            if self.draining.entry(key).or_insert_with(Instant::now).elapsed() < limit {
                kept.push(key);
            }
        }
        kept
    }
}

/// Fetches a revision's release, makes its Python environment where it needs one, starts its workers, and asks them for their golden set.
async fn bring_up(shared: &Shared, revision: &Revision, plan: &Plan) -> Result<(), AgentError> {
    let release = shared.releases.fetch(&shared.server, &revision.release).await?;
    shared.fleet.equip(&release).await?;
    shared.fleet.ensure(revision, plan, &release)?;
    shared.fleet.check(revision, plan, &release).await
}
