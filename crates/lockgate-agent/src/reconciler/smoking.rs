//! Smoke tests: one for each preview, and how it ended into the journal. One that was cut off by a restart is run again.

use super::{RETRY_EVERY, Reconciler};
use crate::{AgentError, Shared, gates, preview};
use lockgate_core::event::{RolloutEvent, Smoked};
use lockgate_core::gate::Outcome;
use lockgate_core::id::{ModelName, PromotionId};
use lockgate_core::plan::{Plan, Smoke};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::task::AbortHandle;

/// How long everything around a smoke test may take: fetching its code, its Python environment.
const AROUND: Duration = Duration::from_secs(600);

/// Smoke tests by promotion.
pub(super) type Smoking = BTreeMap<PromotionId, Test>;

/// One of them.
#[derive(Debug)]
pub(super) enum Test {
    /// It is under way.
    Running(AbortHandle),
    /// Its end is to be written down.
    Ended(Smoked),
}

impl Reconciler {
    /// Ends the tests that nothing depends on any more, with all that they started.
    pub(super) fn end_smoke_tests(&self) {
        let active = self.deployments.values().filter_map(|d| d.active.as_ref());
        let due: Vec<&PromotionId> =
            active.filter(|a| a.smoke_due().is_some()).map(|a| &a.promotion).collect();
        self.smoking.lock().unwrap_or_else(PoisonError::into_inner).retain(|promotion, test| {
            let wanted = due.contains(&promotion);
            if let (false, Test::Running(task)) = (wanted, test) {
                task.abort();
            }
            wanted
        });
    }

    /// Starts the smoke tests that are due, and writes down how others ended.
    pub(super) async fn smoke(&mut self, model: &ModelName) -> Result<(), AgentError> {
        let active = self.deployments.get(model).and_then(|d| d.active.as_ref());
        let Some((active, smoke)) = active.and_then(|a| Some((a, a.smoke_due()?.clone()))) else {
            return Ok(());
        };
        let (promotion, plan) = (active.promotion.clone(), active.plan.clone());
        let ended = {
            let smoking = self.smoking.lock().unwrap_or_else(PoisonError::into_inner);
            match smoking.get(&promotion) {
                // Whatever ended without a word is begun again.
                Some(Test::Running(task)) if !task.is_finished() => return Ok(()),
                Some(Test::Running(_)) | None => None,
                Some(Test::Ended(smoked)) => Some(smoked.clone()),
            }
        };
        if let Some(smoked) = ended {
            // First the end, and then what it wrote: a server that is slow to take that must not make anybody forget it.
            self.record(model, &promotion, RolloutEvent::Smoked(smoked)).await?;
            self.hand_over_logs();
            return Ok(());
        }
        let (shared, smoking, of) = (self.shared.clone(), Arc::clone(&self.smoking), promotion.clone());
        // Held until the test is entered, so that its end can't come before.
        let mut all = self.smoking.lock().unwrap_or_else(PoisonError::into_inner);
        let task = self.spawn(async move {
            let limit = Duration::from_millis(smoke.timeout_ms).saturating_add(AROUND);
            let outcome = tokio::time::timeout(limit, run(&shared, &plan, &smoke, &of)).await;
            let smoked = match outcome {
                Ok(Ok(smoked)) => smoked,
                Ok(Err(error)) => {
                    tracing::warn!(%error, promotion = %of, "a smoke test could not be run; it will be tried again");
                    tokio::time::sleep(RETRY_EVERY).await;
                    return;
                }
                Err(_) => {
                    let summary = format!("it was not done within {} s", limit.as_secs());
                    Smoked { outcome: Outcome::Error, summary, log: None }
                }
            };
            smoking.lock().unwrap_or_else(PoisonError::into_inner).insert(of, Test::Ended(smoked));
        });
        all.insert(promotion, Test::Running(task));
        Ok(())
    }
}

impl Reconciler {
    /// Hands over to the server what smoke tests wrote, beside the loop, until it has all.
    pub(super) fn hand_over_logs(&self) {
        let shared = self.shared.clone();
        self.spawn(async move {
            while let Err(error) = shared.outbox.send(&shared.server).await {
                tracing::debug!(%error, "what a smoke test wrote can't be handed over yet");
                tokio::time::sleep(RETRY_EVERY).await;
            }
        });
    }
}

async fn run(
    shared: &Shared,
    plan: &Plan,
    smoke: &Smoke,
    promotion: &PromotionId,
) -> Result<Smoked, AgentError> {
    let context = gates::Context::new(shared, plan, &format!("{promotion}-smoke")).await?;
    let (token, address) = preview::for_smoke(shared, plan, smoke.timeout_ms)?;
    let reach = gates::Preview { address: &address, token: &token, gateway: &shared.gateway_url };
    let (outcome, summary, log) = gates::smoke(&context, smoke, reach).await?;
    // The test's own word counts, also where what it wrote can't be kept.
    let kept = shared.outbox.keep(&log);
    if let Err(error) = &kept {
        tracing::warn!(%error, "what the smoke test wrote is lost");
    }
    context.clear();
    Ok(Smoked { outcome, summary, log: kept.ok() })
}
