//! Workers that are lost, and back.

use super::Reconciler;
use crate::AgentError;
use crate::fleet::Seen;
use lockgate_core::digest::Digest;
use lockgate_core::entry::ResourceKind;
use lockgate_core::event::{Event, WorkerEvent};
use lockgate_core::id::ModelName;
use lockgate_core::rollout::Deployment;
use lockgate_runtime::supervisor::WorkerState;
use std::time::Instant;

impl Reconciler {
    /// Writes down when a worker is lost, and when it is back.
    pub(super) async fn notice_workers(&mut self) -> Result<(), AgentError> {
        let all = self.shared.fleet.seen();
        // A revision that comes back later has workers that were never restarted.
        self.workers.retain(|key, _| all.iter().any(|s| (s.release, s.worker) == *key));
        for seen in all {
            let Some(model) = self.model_of(&seen.release) else { continue };
            let Seen { release, worker, status, .. } = seen;
            let known = self.workers.entry((release, worker)).or_insert((0, None));
            let mut events = Vec::new();
            if status.restarts > known.0
                || (known.1.is_none()
                    && matches!(status.state, WorkerState::Restarting { .. } | WorkerState::Away { .. }))
            {
                if known.1.is_none() {
                    let how = match &status.state {
                        WorkerState::Restarting { last_error, .. }
                        | WorkerState::Away { last_error }
                        | WorkerState::CrashLoop { last_error } => last_error.clone(),
                        _ => "it ended and was started again".to_owned(),
                    };
                    events.push(WorkerEvent::Lost { model: model.clone(), release, worker, how });
                    known.1 = Some(Instant::now());
                }
                known.0 = status.restarts;
            }
            if status.state == WorkerState::Ready
                && let Some(since) = known.1.take()
            {
                let after_ms = i64::try_from(since.elapsed().as_millis()).unwrap_or(i64::MAX);
                events.push(WorkerEvent::Back { model, release, worker, after_ms });
            }
            for event in events {
                let id = self.shared.environment.to_string();
                self.shared.journal.note(ResourceKind::Environment, &id, Event::Worker(event)).await?;
                self.ends.reported.notify_one();
            }
        }
        Ok(())
    }

    fn model_of(&self, release: &Digest) -> Option<ModelName> {
        let runs = |d: &&Deployment| d.wanted().iter().any(|r| r.release == *release);
        self.deployments.values().find(runs).map(|d| d.model.clone())
    }
}
