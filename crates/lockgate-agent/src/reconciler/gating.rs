//! Gates: one at a time, each with a limit, and their evidence into the journal.

use super::{RETRY_EVERY, Reconciler};
use crate::{AgentError, Shared, gates};
use lockgate_core::entry::ResourceKind;
use lockgate_core::event::{Event, PromotionEvent};
use lockgate_core::gate::sign;
use lockgate_core::id::{GateName, PromotionId};
use lockgate_core::wire::DesiredPromotion;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long a gate may take beyond its promotion's own time for gates.
const GATE_GRACE: Duration = Duration::from_secs(60);

/// Whether a gate is running, and those whose evidence is in the journal already.
#[derive(Debug, Default)]
pub(super) struct Gates {
    running: bool,
    done: BTreeSet<(PromotionId, GateName)>,
}

/// Says that no gate runs any more, however the gate ended.
struct Running(Arc<Mutex<Gates>>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).running = false;
    }
}

impl Reconciler {
    /// Starts a gate, unless one is running.
    pub(super) fn start_gate(&self, desired: &DesiredPromotion, gate: &GateName) {
        let key = (desired.id.clone(), gate.clone());
        {
            let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
            // One gate at a time: a benchmark beside a test suite would measure the test suite. And none whose evidence is on
            // its way to the server.
            if gates.running || gates.done.contains(&key) {
                return;
            }
            gates.running = true;
        }
        let (shared, desired, gates, reported) =
            (self.shared.clone(), desired.clone(), self.gates.clone(), self.ends.reported.clone());
        self.spawn(async move {
            let _running = Running(gates.clone());
            let limit = Duration::from_millis(u64::try_from(desired.plan.gates_ms).unwrap_or(0)) + GATE_GRACE;
            let outcome = match tokio::time::timeout(limit, run_gate(&shared, &desired, &key.1)).await {
                Ok(outcome) => outcome,
                Err(_) => Err(AgentError::Gate(format!("it was not done within {} s", limit.as_secs()))),
            };
            if let Err(error) = &outcome {
                tracing::warn!(%error, gate = %key.1, "a gate could not be run; it will be tried again");
                tokio::time::sleep(RETRY_EVERY).await;
            }
            if outcome.is_ok() {
                gates.lock().unwrap_or_else(PoisonError::into_inner).done.insert(key);
                reported.notify_one();
            }
        });
    }
}

/// Runs one gate and writes its signed evidence into the journal.
async fn run_gate(shared: &Shared, desired: &DesiredPromotion, gate: &GateName) -> Result<(), AgentError> {
    let plan = &desired.plan;
    // What is signed below says that this plan was carried out here.
    let sound = plan.environment == shared.environment && plan.hash().is_ok_and(|h| h == desired.plan_hash);
    if !sound {
        let words = "the plan is for another environment, or not the one that its hash names";
        return Err(AgentError::Untrusted(words.to_owned()));
    }
    let spec =
        plan.gates.get(gate).ok_or_else(|| AgentError::Gate(format!("the plan has no gate `{gate}`")))?;
    let context = gates::Context::new(shared, plan, &format!("{}-{gate}", desired.id)).await?;
    let (finding, log) =
        gates::run(&context, gate, spec, &desired.id, desired.plan_hash, &shared.clock).await?;
    if let Some(digest) = &finding.log {
        shared.server.put_log(digest, log).await?;
    }
    let (outcome, summary) = (finding.result, finding.summary.clone());
    let envelope =
        sign(&shared.key, &plan.revision.release, finding).map_err(|e| AgentError::Gate(e.to_string()))?;
    let event = PromotionEvent::EvidenceRecorded { gate: gate.clone(), outcome, summary, envelope };
    shared
        .journal
        .note(ResourceKind::Promotion, desired.id.as_str(), Event::Promotion(Box::new(event)))
        .await?;
    context.clear();
    Ok(())
}
