//! Taking an agent's journal in: each entry once and in order, what can't be followed as a note, a forked journal not at all.

use crate::Control;
use crate::error::ControlError;
use crate::states::{self, Act, Wanted};
use lockgate_core::access::{Action, Target, authorize};
use lockgate_core::actor::Actor;
use lockgate_core::clock::{parse_rfc3339, rfc3339};
use lockgate_core::entry::{self, Resource, ResourceKind, Source, StoredEntry};
use lockgate_core::event::{Event, PromotionEvent};
use lockgate_core::gate::PublicKey;
use lockgate_core::id::{EnvironmentName, PromotionId};
use lockgate_core::promotion::{Command, Promotion, Stage};
use lockgate_core::wire::{Mark, Report, Reported};
use lockgate_store::{Conn, Tx};
use std::collections::BTreeSet;

/// Who reports.
struct Reporter {
    actor: Actor,
    environment: EnvironmentName,
    key: PublicKey,
    /// The environment itself, where an entry is about nothing else.
    own: Resource,
}

/// What becomes of one entry of a journal.
enum Taken {
    /// It is carried out.
    Follow { resource: Resource, event: Event, reason: String, promotion: Option<Box<Promotion>> },
    /// It is kept on record, without effect.
    Note { resource: Resource, why: String },
}

/// A journal that is not the one that reported before.
fn forked(environment: &EnvironmentName, what: &str) -> ControlError {
    ControlError::conflict(format!(
        "the journal of `{environment}`'s agent is forked: {what}; nothing that it reports is taken"
    ))
    .with_hint("put the agent's own database back, with its newest entries: an older copy is no continuation")
}

impl Control {
    /// Checks that an agent's journal continues what the server has of it, and says through which entry it has it.
    pub(crate) async fn check_journal(
        &self,
        environment: &EnvironmentName,
        mark: Mark,
    ) -> Result<Option<u64>, ControlError> {
        let place = environment.clone();
        let checked = self
            .store
            .read(move |conn| {
                Box::pin(async move {
                    let last = conn.last_source_seq(place.as_str()).await?;
                    if let Some(last) = last.filter(|last| mark.length <= *last) {
                        let (had, has) = (last + 1, mark.length);
                        let what = format!("it has {has} entries, but {had} were reported before");
                        return Ok(Err(forked(&place, &what)));
                    }
                    if let Some(at) = mark.at {
                        let known = conn.source_leaf(place.as_str(), at.seq).await?;
                        if known.is_some_and(|known| known != at.leaf) {
                            let what =
                                format!("its entry {} is another one than was reported before", at.seq);
                            return Ok(Err(forked(&place, &what)));
                        }
                    }
                    Ok::<_, ControlError>(Ok(last))
                })
            })
            .await?;
        self.note_trouble(environment, checked.as_ref().err().map(ToString::to_string));
        checked
    }

    /// Takes an agent's journal entries in, each once.
    ///
    /// # Errors
    /// Where an entry is damaged or out of order, or the journal is not the one that reported before.
    pub async fn report(
        &self,
        actor: &Actor,
        environment: &EnvironmentName,
        report: &Report,
    ) -> Result<Reported, ControlError> {
        authorize(actor, Action::AgentReport, Target::Environment(environment))?;
        let key = self.environment_key(environment).await?.ok_or_else(|| {
            ControlError::conflict(format!("the agent of `{environment}` has not made itself known yet"))
        })?;
        let own = Resource {
            kind: ResourceKind::Environment,
            id: environment.to_string(),
            project: self.project_state().await?.map(|p| p.project),
            environment: Some(environment.clone()),
        };
        let reporter = Reporter { actor: actor.clone(), environment: environment.clone(), key, own };
        let control = self.clone();
        let entries = report.entries.clone();
        let result = self
            .write(move |tx| {
                Box::pin(async move {
                    let mut touched = BTreeSet::new();
                    let place = &reporter.environment;
                    let mut last = tx.last_source_seq(place.as_str()).await?;
                    for stored in &entries {
                        if is_new(tx, place, stored, last).await? {
                            touched.extend(control.take_in(tx, &reporter, stored).await?);
                            last = Some(stored.seq);
                        }
                    }
                    for id in touched {
                        control.advance_in(tx, &id).await?;
                    }
                    Ok(last)
                })
            })
            .await;
        match &result {
            Ok(_) => self.note_trouble(environment, None),
            Err(ControlError::Conflict { message, .. } | ControlError::Invalid { message, .. }) => {
                self.note_trouble(environment, Some(message.clone()));
            }
            Err(_) => {}
        }
        let through = result?;
        self.changed();
        Ok(Reported { through })
    }

    /// Takes one new entry in and says which promotion it touches.
    async fn take_in(
        &self,
        tx: &mut Tx,
        reporter: &Reporter,
        stored: &StoredEntry,
    ) -> Result<Option<PromotionId>, ControlError> {
        let (taken, ts) = self.understand(tx, reporter, stored).await?;
        let (actor, agent) = (&reporter.actor, reporter.environment.clone());
        let (seq, leaf) = (stored.seq, stored.leaf);
        let source = Source { agent, seq, leaf, ts: ts.unwrap_or_else(|| rfc3339(self.clock.now_ms())) };
        match taken {
            Taken::Note { resource, why } => {
                tracing::warn!(environment = %reporter.environment, seq, why, "an entry of the agent's journal has no effect");
                self.record_note(tx, actor, Action::AgentReport, resource, &why, source).await?;
                Ok(None)
            }
            Taken::Follow { resource, event, reason, promotion } => {
                let is_rollout = matches!(event, Event::Rollout(_));
                let action = Action::AgentReport;
                let source = Some(source);
                self.record(tx, Act { actor: actor.clone(), action, resource, event, reason, source })
                    .await?;
                if let Some(promotion) = promotion.as_ref().filter(|_| is_rollout) {
                    self.settle(tx, promotion).await?;
                }
                Ok(promotion.map(|p| p.id))
            }
        }
    }

    /// What becomes of an entry, and when the agent wrote it. Only the database may fail here: an entry that can't be
    /// followed must not stand in the way of those after it.
    async fn understand(
        &self,
        tx: &mut Tx,
        reporter: &Reporter,
        stored: &StoredEntry,
    ) -> Result<(Taken, Option<String>), ControlError> {
        let (own, environment) = (&reporter.own, &reporter.environment);
        let note = |resource: &Resource, why: String| Taken::Note { resource: resource.clone(), why };
        let entry = match entry::read(stored.seq, &stored.text) {
            Ok(entry) if entry.seq == stored.seq && parse_rfc3339(&entry.ts).is_ok() => entry,
            Ok(_) => return Ok((note(own, "its number or its time can't be right".to_owned()), None)),
            Err(error) => return Ok((note(own, error.to_string()), None)),
        };
        let ts = Some(entry.ts);
        let event = match entry.event {
            Some(event @ (Event::Promotion(_) | Event::Rollout(_))) => event,
            Some(event @ Event::Worker(_)) => {
                let reason = entry.reason;
                return Ok((Taken::Follow { resource: own.clone(), event, reason, promotion: None }, ts));
            }
            Some(_) => return Ok((note(own, "an agent may not report that".to_owned()), ts)),
            None => return Ok((note(own, "it says nothing that happened".to_owned()), ts)),
        };
        let promotion = match PromotionId::new(entry.resource.id.clone()) {
            Ok(id) => states::find_promotion(tx, &id).await?,
            Err(_) => None,
        };
        let Some(promotion) = promotion.filter(|p| p.plan.environment == *environment) else {
            let why = format!("there is no promotion {} into `{environment}`", entry.resource.id);
            return Ok((note(own, why), ts));
        };
        let resource = crate::promotion::resource(&promotion.id, &promotion.plan);
        let followed = match event {
            Event::Promotion(event) => self.evidence(environment, &reporter.key, &promotion, *event),
            Event::Rollout(event) => {
                let plan = &promotion.plan;
                let deployment = states::deployment(tx, &plan.environment, &plan.model).await?;
                promotion
                    .check_report(&deployment, &event)
                    .map(|()| Event::Rollout(event))
                    .map_err(|e| e.to_string())
            }
            other => Ok(other),
        };
        Ok(match followed {
            Err(why) => (note(&resource, why), ts),
            Ok(event) => {
                let promotion = Some(Box::new(promotion));
                (Taken::Follow { resource, event, reason: entry.reason, promotion }, ts)
            }
        })
    }

    /// The event that follows from a gate's evidence, if it is what it claims to be and still counts.
    fn evidence(
        &self,
        environment: &EnvironmentName,
        key: &PublicKey,
        promotion: &Promotion,
        event: PromotionEvent,
    ) -> Result<Event, String> {
        let PromotionEvent::EvidenceRecorded { gate, envelope, .. } = event else {
            return Err("an agent reports evidence, nothing else, about a promotion".to_owned());
        };
        let finding = envelope
            .verify(key, environment, &promotion.plan.revision.release)
            .map_err(|e| format!("the evidence for gate `{gate}` can't be trusted: {e}"))?;
        if finding.gate != gate || finding.promotion != promotion.id {
            return Err(format!("the evidence is not about gate `{gate}` of {}", promotion.id));
        }
        let command = Command::Record {
            gate: gate.clone(),
            outcome: finding.result,
            summary: finding.summary,
            plan_hash: finding.plan_hash,
            envelope,
        };
        match promotion.decide(&command, self.clock.now_ms()) {
            Ok(mut events) if !events.is_empty() => Ok(Event::Promotion(Box::new(events.remove(0)))),
            Ok(_) => Err(format!("the evidence for gate `{gate}` is there already")),
            Err(error) => Err(format!("evidence for gate `{gate}` came too late to count: {error}")),
        }
    }

    /// Brings the stages of a model's promotions in line with what serves now: what was replaced on probation is superseded;
    /// what serves again, because what replaced it went back, is what the environment serves.
    async fn settle(&self, tx: &mut Tx, after: &Promotion) -> Result<(), ControlError> {
        let (environment, model) = (&after.plan.environment, &after.plan.model);
        let deployment = states::deployment(tx, environment, model).await?;
        let Some(serving) = deployment.serving else { return Ok(()) };
        let wanted = Wanted { environment: Some(environment), model: Some(model), stages: &["probation"] };
        let (actor, action) = (Actor::system(), Action::PromotionAdvance);
        for older in states::promotions(tx, &wanted).await?.iter().filter(|p| p.id != serving.promotion) {
            let by = serving.promotion.clone();
            let events = older.decide(&Command::Supersede { by }, self.clock.now_ms())?;
            self.record_all(tx, &actor, action, older, events, "").await?;
        }
        let Some(now) = states::find_promotion(tx, &serving.promotion).await? else { return Ok(()) };
        let on_probation = matches!(now.stage, Stage::Probation { .. }) && serving.probation_until.is_some();
        if !on_probation {
            let events = now.decide(&Command::ServeAgain { after: after.id.clone() }, self.clock.now_ms())?;
            self.record_all(tx, &actor, action, &now, events, "").await?;
        }
        Ok(())
    }
}

/// Whether an entry is the one after `last`; an earlier one must be the very one that was taken before.
async fn is_new(
    conn: &mut Conn,
    environment: &EnvironmentName,
    stored: &StoredEntry,
    last: Option<u64>,
) -> Result<bool, ControlError> {
    let expected = last.map_or(0, |l| l + 1);
    if entry::leaf(&stored.text) != stored.leaf {
        return Err(ControlError::invalid(format!(
            "entry {} of `{environment}`'s journal does not match its hash",
            stored.seq
        )));
    }
    if stored.seq < expected {
        return match conn.source_leaf(environment.as_str(), stored.seq).await? {
            Some(known) if known != stored.leaf => {
                let what = format!("its entry {} is another one than was reported before", stored.seq);
                Err(forked(environment, &what))
            }
            _ => Ok(false),
        };
    }
    if stored.seq > expected {
        return Err(ControlError::conflict(format!(
            "entry {expected} of `{environment}`'s journal is missing before entry {}",
            stored.seq
        )));
    }
    Ok(true)
}
