//! What an environment served, and when: from the log, so that it can't be forgotten or changed.

use crate::Control;
use crate::error::ControlError;
use crate::places;
use crate::projection::source_time;
use crate::view::{HistoryRow, HistoryShare};
use crate::why::{PAGE, rollout_sentence};
use lockgate_core::access::{Action, Target, authorize};
use lockgate_core::actor::Actor;
use lockgate_core::clock::Millis;
use lockgate_core::entry::Entry;
use lockgate_core::event::{Event, RolloutEvent};
use lockgate_core::id::{EnvironmentName, ModelName, PromotionId};
use lockgate_core::plan::{Plan, Revision};
use lockgate_core::route::WHOLE;
use std::collections::BTreeMap;

/// One model's traffic as the log tells it.
#[derive(Debug, Default)]
struct Story {
    plans: BTreeMap<PromotionId, Plan>,
    serving: Option<Revision>,
    previous: Option<Revision>,
}

impl Story {
    /// Follows an event; says what serves from then on, where that changed.
    fn follow(&mut self, id: &PromotionId, event: &RolloutEvent) -> Option<Vec<HistoryShare>> {
        let plan = self.plans.get(id).cloned();
        match event {
            RolloutEvent::Started { plan } => {
                self.plans.insert(id.clone(), (**plan).clone());
                None
            }
            RolloutEvent::StepEntered { weight, .. } => {
                let plan = plan?;
                let control = self.serving.clone().or(plan.backup.clone());
                let share = f64::from(*weight) / f64::from(WHOLE);
                let mut shares = Vec::new();
                if share > 0.0 {
                    shares.push(part(&plan.revision, share));
                }
                if let Some(control) = control.filter(|_| share < 1.0) {
                    shares.push(part(&control, 1.0 - share));
                }
                Some(shares)
            }
            RolloutEvent::Promoted { .. } => {
                let plan = plan?;
                self.previous = self.serving.replace(plan.revision.clone());
                Some(vec![part(&plan.revision, 1.0)])
            }
            RolloutEvent::RollbackDecided { target, .. } => {
                let served = plan.is_some_and(|p| {
                    self.serving.as_ref().is_some_and(|s| s.digest() == p.revision.digest())
                });
                if served {
                    self.serving = self.previous.take();
                }
                Some(target.iter().map(|t| part(t, 1.0)).collect())
            }
            RolloutEvent::FailoverDecided { .. } => Some(plan?.backup.iter().map(|b| part(b, 1.0)).collect()),
            RolloutEvent::Stranded { .. } => Some(Vec::new()),
            RolloutEvent::DrillStarted { target, .. } => Some(vec![part(target, 1.0)]),
            RolloutEvent::DrillTurned { .. } => Some(self.serving.iter().map(|s| part(s, 1.0)).collect()),
            RolloutEvent::Confirmed | RolloutEvent::RolledBack { .. } | RolloutEvent::OnBackup => None,
            RolloutEvent::Aborted { .. }
            | RolloutEvent::StepSettled { .. }
            | RolloutEvent::Held { .. }
            | RolloutEvent::Paused { .. }
            | RolloutEvent::Resumed { .. }
            | RolloutEvent::Smoked(_)
            | RolloutEvent::SwitchAllowed { .. }
            | RolloutEvent::RollbackApplied { .. }
            | RolloutEvent::DrillRefused { .. }
            | RolloutEvent::DrillApplied { .. }
            | RolloutEvent::DrillEnded { .. } => None,
        }
    }
}

fn part(revision: &Revision, share: f64) -> HistoryShare {
    HistoryShare { release: revision.release, model_version: revision.model_version, share }
}

impl Control {
    /// What `environment` served: every change in order, or, with `at`, what each model served then.
    ///
    /// # Errors
    /// Where there is no such environment.
    pub async fn history(
        &self,
        actor: &Actor,
        environment: &EnvironmentName,
        model: Option<&ModelName>,
        at: Option<Millis>,
    ) -> Result<Vec<HistoryRow>, ControlError> {
        authorize(actor, Action::Read, Target::Environment(environment))?;
        places::known(&self.project().await?, environment)?;
        if at.is_some_and(|at| at > self.clock.now_ms()) {
            return Err(ControlError::invalid("that time has not come yet: the history ends now"));
        }
        let (name, project) = (environment.to_string(), self.project().await?.name.to_string());
        let entries = self
            .store
            .read(move |conn| {
                Box::pin(async move {
                    let mut all: Vec<Entry> = Vec::new();
                    loop {
                        let from = all.last().map_or(0, |e| e.seq + 1);
                        let page = conn.entries_in(&project, Some(&name), from, PAGE).await?;
                        if page.is_empty() {
                            return Ok::<_, ControlError>(all);
                        }
                        all.extend(page);
                    }
                })
            })
            .await?;
        let mut stories: BTreeMap<ModelName, Story> = BTreeMap::new();
        let mut models: BTreeMap<PromotionId, ModelName> = BTreeMap::new();
        let mut rows: Vec<HistoryRow> = Vec::new();
        for entry in &entries {
            let Some(Event::Rollout(event)) = &entry.event else { continue };
            let Ok(id) = PromotionId::new(entry.resource.id.clone()) else { continue };
            if let RolloutEvent::Started { plan } = &**event {
                models.insert(id.clone(), plan.model.clone());
            }
            let Some(of) = models.get(&id) else { continue };
            let Some(serving) = stories.entry(of.clone()).or_default().follow(&id, event) else { continue };
            if model.is_some_and(|m| m != of) {
                continue;
            }
            rows.push(HistoryRow {
                at: source_time(entry),
                environment: environment.clone(),
                model: of.clone(),
                serving,
                what: rollout_sentence(event),
                promotion: id,
                seq: entry.seq,
            });
        }
        Ok(match at {
            None => rows,
            Some(at) => {
                let mut then: BTreeMap<ModelName, HistoryRow> = BTreeMap::new();
                for row in rows.into_iter().filter(|r| r.at <= at) {
                    then.insert(row.model.clone(), row);
                }
                then.into_values().collect()
            }
        })
    }
}
