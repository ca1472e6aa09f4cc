//! What agents fetch and report: idempotent, outbound from the agent, decided by what the server holds.

use crate::Control;
use crate::error::ControlError;
use crate::projection::{EnvironmentState, State};
use crate::states::{self, Act};
use lockgate_core::access::{Action, Target, authorize};
use lockgate_core::actor::{Actor, ActorKind};
use lockgate_core::clock::Millis;
use lockgate_core::entry::{self, Entry, Resource, ResourceKind, Source, StoredEntry};
use lockgate_core::event::{Event, PromotionEvent};
use lockgate_core::gate::{Envelope, PublicKey};
use lockgate_core::id::{EnvironmentName, GateName, ModelName, PrincipalId, PromotionId};
use lockgate_core::promotion::{Command, Promotion, Stage};
use lockgate_core::wire::{
    Answer, Ask, Desired, DesiredPromotion, Hello, Live, PROTOCOL, Query, Report, Reported, Task, Welcome,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;

/// After this long without a sign of life an agent counts as gone.
const GONE_MS: Millis = 10_000;

/// How long a person's question waits for an agent.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// What the server remembers of its agents between two requests. All of it can be lost: agents say it again.
#[derive(Debug, Default)]
pub(crate) struct Agents {
    live: Mutex<BTreeMap<EnvironmentName, Vec<Live>>>,
    queries: Mutex<Queries>,
    principals: Mutex<BTreeMap<(bool, String), PrincipalId>>,
}

#[derive(Debug, Default)]
struct Queries {
    next: u64,
    open: BTreeMap<u64, OpenQuery>,
}

/// A question that somebody waits for.
#[derive(Debug)]
struct OpenQuery {
    environment: EnvironmentName,
    ask: Ask,
    waiting: Option<oneshot::Sender<Option<serde_json::Value>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Agents {
    pub(crate) fn principal(&self, kind: ActorKind, name: &str) -> Option<PrincipalId> {
        lock(&self.principals).get(&(kind == ActorKind::Service, name.to_owned())).cloned()
    }

    pub(crate) fn remember(&self, kind: ActorKind, name: &str, id: PrincipalId) {
        lock(&self.principals).insert((kind == ActorKind::Service, name.to_owned()), id);
    }
}

impl Control {
    /// An agent says who it is. The server keeps the first key that it sees for an environment.
    ///
    /// # Errors
    /// Where the protocol, the environment or the key doesn't fit.
    pub async fn hello(&self, actor: &Actor, hello: &Hello) -> Result<Welcome, ControlError> {
        authorize(actor, Action::AgentEnroll, Target::Environment(&hello.environment))?;
        if hello.protocol != PROTOCOL {
            return Err(ControlError::invalid(format!(
                "this server speaks protocol {PROTOCOL}, the agent speaks {}",
                hello.protocol
            ))
            .with_hint("run the same version of lockgate on both sides"));
        }
        let project = self.project().await?;
        if project.environment(&hello.environment).is_none() {
            return Err(ControlError::not_found(format!(
                "lockgate.toml has no environment `{}`",
                hello.environment
            )));
        }
        match self.environment_key(&hello.environment).await? {
            Some(known) if known == hello.key => {}
            Some(known) => {
                return Err(ControlError::Refused(format!(
                    "environment `{}` is known by another key ({}), not by {}",
                    hello.environment,
                    known.id().short(),
                    hello.key.id().short()
                )));
            }
            None => self.enroll(actor, hello, project.name.clone()).await?,
        }
        let environment = hello.environment.clone();
        let reported = self
            .store
            .read(move |conn| {
                Box::pin(
                    async move { Ok::<_, ControlError>(conn.last_source_seq(environment.as_str()).await?) },
                )
            })
            .await?;
        Ok(Welcome { project: project.name.clone(), reported })
    }

    async fn enroll(
        &self,
        actor: &Actor,
        hello: &Hello,
        project: lockgate_core::id::ProjectName,
    ) -> Result<(), ControlError> {
        let (control, actor, environment, key) =
            (self.clone(), actor.clone(), hello.environment.clone(), hello.key.clone());
        self.write(move |tx| {
            Box::pin(async move {
                if tx.load_state("Environment", environment.as_str()).await?.is_some() {
                    return Ok(());
                }
                let resource = Resource {
                    kind: ResourceKind::Environment,
                    id: environment.to_string(),
                    project: Some(project),
                    environment: Some(environment),
                };
                let act = Act {
                    actor,
                    action: Action::AgentEnroll,
                    resource,
                    event: Event::AgentEnrolled { key },
                    reason: String::new(),
                    source: None,
                };
                control.record(tx, act).await.map(|_| ())
            })
        })
        .await
    }

    async fn environment_key(
        &self,
        environment: &EnvironmentName,
    ) -> Result<Option<PublicKey>, ControlError> {
        Ok(self
            .environment_states()
            .await?
            .into_iter()
            .find(|e| e.environment == *environment)
            .map(|e| e.key))
    }

    pub(crate) async fn environment_states(&self) -> Result<Vec<EnvironmentState>, ControlError> {
        let rows = self.rows("Environment").await?;
        rows.iter()
            .map(|row| match states::read("Environment", &row.state)? {
                State::Environment(state) => Ok(state),
                _ => Err(ControlError::Internal("an environment's state is of another kind".to_owned())),
            })
            .collect()
    }

    /// What an environment should be doing. Waits until there is something newer than `since`, at most `wait`.
    ///
    /// # Errors
    /// Where the actor is not that environment's agent.
    pub async fn desired(
        &self,
        actor: &Actor,
        environment: &EnvironmentName,
        since: u64,
        wait: Duration,
    ) -> Result<Desired, ControlError> {
        authorize(actor, Action::AgentFetch, Target::Environment(environment))?;
        let mut version = self.version.subscribe();
        if *version.borrow_and_update() == since {
            // A closed channel or the end of the wait both mean: answer what there is.
            let _ = tokio::time::timeout(wait, version.changed()).await;
        }
        // Read first, so that a change while the answer is put together makes the next question return at once.
        let version = *version.borrow_and_update();
        let promotions = self.promotions().await?;
        let here = promotions
            .iter()
            .filter(|p| p.plan.environment == *environment)
            .filter_map(|p| desired_promotion(p, &promotions))
            .collect();
        let queries = lock(&self.agents.queries)
            .open
            .iter()
            .filter(|(_, open)| open.environment == *environment)
            .map(|(id, open)| Query { id: *id, ask: open.ask.clone() })
            .collect();
        Ok(Desired { version, promotions: here, queries })
    }

    /// Takes an agent's journal entries in, each once.
    ///
    /// # Errors
    /// Where an entry is damaged, out of order, or claims what its agent may not claim.
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
        let (control, actor, environment) = (self.clone(), actor.clone(), environment.clone());
        let entries = report.entries.clone();
        let through = self
            .write(move |tx| {
                Box::pin(async move {
                    let mut touched = BTreeSet::new();
                    let mut last = tx.last_source_seq(environment.as_str()).await?;
                    for stored in &entries {
                        let expected = last.map_or(0, |l| l + 1);
                        if stored.seq < expected {
                            continue;
                        }
                        if stored.seq > expected {
                            return Err(ControlError::conflict(format!(
                                "entry {expected} of `{environment}` is missing before entry {}",
                                stored.seq
                            )));
                        }
                        let entry = checked(stored, &environment)?;
                        if let Some(id) =
                            control.take_in(tx, &actor, &environment, &key, stored, entry).await?
                        {
                            touched.insert(id);
                        }
                        last = Some(stored.seq);
                    }
                    for id in touched {
                        control.advance_in(tx, &id).await?;
                        control.settle_probation(tx, &id).await?;
                    }
                    Ok(last)
                })
            })
            .await?;
        self.changed();
        Ok(Reported { through })
    }

    /// Takes one checked journal entry in and says which promotion it touches.
    async fn take_in(
        &self,
        tx: &mut lockgate_store::Tx,
        actor: &Actor,
        environment: &EnvironmentName,
        key: &PublicKey,
        stored: &StoredEntry,
        entry: Entry,
    ) -> Result<Option<PromotionId>, ControlError> {
        let source =
            Source { agent: environment.clone(), seq: stored.seq, leaf: stored.leaf, ts: entry.ts.clone() };
        let Some(event) = entry.event else { return Ok(None) };
        let reason = entry.reason;
        let act = |resource, event, source| Act {
            actor: actor.clone(),
            action: Action::AgentReport,
            resource,
            event,
            reason,
            source: Some(source),
        };
        match event {
            Event::Promotion(inner) => {
                let id = PromotionId::new(entry.resource.id)?;
                let promotion = self.own_promotion(tx, environment, &id).await?;
                let PromotionEvent::EvidenceRecorded { gate, envelope, .. } = *inner else {
                    return Err(ControlError::Refused(
                        "an agent reports evidence, nothing else, about a promotion".to_owned(),
                    ));
                };
                let finding = envelope
                    .verify(key, environment, &promotion.plan.revision.release)
                    .map_err(|e| ControlError::Refused(e.to_string()))?;
                if finding.gate != gate || finding.promotion != id {
                    return Err(ControlError::Refused(format!(
                        "the evidence is not about gate `{gate}` of {id}"
                    )));
                }
                let finding_gate = gate.clone();
                let command = Command::Record {
                    gate,
                    outcome: finding.result,
                    summary: finding.summary,
                    plan_hash: finding.plan_hash,
                    envelope,
                };
                let resource = crate::promotion::resource(&id, &promotion.plan);
                // Evidence that comes too late (the promotion was taken back meanwhile) is kept on record, without effect.
                let event = match promotion.decide(&command, self.clock.now_ms()) {
                    Ok(mut events) if !events.is_empty() => Event::Promotion(Box::new(events.remove(0))),
                    _ => {
                        let why = format!("evidence for gate `{}` came too late to count", finding_gate);
                        self.record_note(tx, actor, Action::AgentReport, resource, &why, source).await?;
                        return Ok(None);
                    }
                };
                self.record(tx, act(resource, event, source)).await?;
                Ok(Some(id))
            }
            Event::Rollout(inner) => {
                let id = PromotionId::new(entry.resource.id)?;
                let promotion = self.own_promotion(tx, environment, &id).await?;
                let resource = crate::promotion::resource(&id, &promotion.plan);
                self.record(tx, act(resource, Event::Rollout(inner), source)).await?;
                Ok(Some(id))
            }
            Event::Worker(inner) => {
                let project = self.project_state().await?.map(|p| p.project);
                let resource = Resource {
                    kind: ResourceKind::Environment,
                    id: environment.to_string(),
                    project,
                    environment: Some(environment.clone()),
                };
                self.record(tx, act(resource, Event::Worker(inner), source)).await?;
                Ok(None)
            }
            Event::ConfigurationApplied { .. }
            | Event::AgentEnrolled { .. }
            | Event::ReleaseCreated { .. } => {
                Err(ControlError::Refused("an agent may not report that".to_owned()))
            }
        }
    }

    async fn own_promotion(
        &self,
        tx: &mut lockgate_store::Tx,
        environment: &EnvironmentName,
        id: &PromotionId,
    ) -> Result<Promotion, ControlError> {
        let promotion = states::promotion(tx, id).await?;
        if promotion.plan.environment == *environment {
            return Ok(promotion);
        }
        Err(ControlError::Refused(format!("promotion {id} is not into environment `{environment}`")))
    }

    /// Once a newer release serves, an older one's probation is over: it was replaced.
    async fn settle_probation(
        &self,
        tx: &mut lockgate_store::Tx,
        id: &PromotionId,
    ) -> Result<(), ControlError> {
        let all = states::promotions(tx).await?;
        let Some(newer) = all.iter().find(|p| p.id == *id && matches!(p.stage, Stage::Probation { .. }))
        else {
            return Ok(());
        };
        for older in all.iter().filter(|p| {
            p.id != *id
                && p.plan.environment == newer.plan.environment
                && p.plan.model == newer.plan.model
                && matches!(p.stage, Stage::Probation { .. })
        }) {
            let events = older.decide(&Command::Supersede { by: id.clone() }, self.clock.now_ms())?;
            self.record_all(tx, &Actor::system(), Action::PromotionAdvance, older, events, "").await?;
        }
        Ok(())
    }

    /// Notes what an agent sees.
    ///
    /// # Errors
    /// Where the actor is not that environment's agent.
    pub fn note_live(
        &self,
        actor: &Actor,
        environment: &EnvironmentName,
        live: Live,
    ) -> Result<(), ControlError> {
        authorize(actor, Action::AgentReport, Target::Environment(environment))?;
        let mut all = lock(&self.agents.live);
        let seen = all.entry(environment.clone()).or_default();
        seen.push(Live { at: self.clock.now_ms(), ..live });
        // Two views half a minute apart give a rate; more are of no use.
        let oldest = self.clock.now_ms() - 30_000;
        while seen.len() > 2 && seen[1].at < oldest {
            seen.remove(0);
        }
        Ok(())
    }

    /// What an environment's agent saw last.
    pub(crate) fn live_of(&self, environment: &EnvironmentName) -> Option<Live> {
        lock(&self.agents.live).get(environment)?.last().cloned()
    }

    /// Whether an environment's agent is there.
    pub(crate) fn is_connected(&self, environment: &EnvironmentName) -> bool {
        self.live_of(environment).is_some_and(|l| self.clock.now_ms() - l.at < GONE_MS)
    }

    /// Requests per second of a model over the last half minute, where there were any.
    pub(crate) fn measured_rate(&self, environment: &EnvironmentName, model: &ModelName) -> Option<f64> {
        let all = lock(&self.agents.live);
        let seen = all.get(environment)?;
        let (first, last) = (seen.first()?, seen.last()?);
        let count = |l: &Live| l.models.get(model).map(|m| m.sides.iter().map(|s| s.requests).sum::<u64>());
        let (before, after) = (count(first)?, count(last)?);
        let seconds = (last.at - first.at) as f64 / 1000.0;
        (seconds >= 1.0 && after > before).then(|| (after - before) as f64 / seconds)
    }

    /// Asks an environment's agent and waits for its answer.
    ///
    /// # Errors
    /// Where the agent isn't there or doesn't answer.
    pub(crate) async fn ask(
        &self,
        environment: &EnvironmentName,
        ask: Ask,
    ) -> Result<Option<serde_json::Value>, ControlError> {
        if !self.is_connected(environment) {
            return Err(ControlError::Unavailable(format!("the agent of `{environment}` is not connected")));
        }
        let (answer, answered) = oneshot::channel();
        let id = {
            let mut queries = lock(&self.agents.queries);
            queries.next += 1;
            let id = queries.next;
            queries
                .open
                .insert(id, OpenQuery { environment: environment.clone(), ask, waiting: Some(answer) });
            id
        };
        self.changed();
        let result = tokio::time::timeout(ANSWER_WITHIN, answered).await;
        lock(&self.agents.queries).open.remove(&id);
        match result {
            Ok(Ok(found)) => Ok(found),
            _ => {
                Err(ControlError::Unavailable(format!("the agent of `{environment}` did not answer in time")))
            }
        }
    }

    /// Takes an agent's answer in. An answer to a question that nobody waits for any more is dropped.
    ///
    /// # Errors
    /// Where the actor is not that environment's agent.
    pub fn answer(
        &self,
        actor: &Actor,
        environment: &EnvironmentName,
        answer: Answer,
    ) -> Result<(), ControlError> {
        authorize(actor, Action::AgentReport, Target::Environment(environment))?;
        let mut queries = lock(&self.agents.queries);
        let waiting = queries
            .open
            .get_mut(&answer.id)
            .filter(|open| open.environment == *environment)
            .and_then(|open| open.waiting.take());
        if let Some(waiting) = waiting {
            // Whoever asked may have given up meanwhile.
            let _ = waiting.send(answer.found);
        }
        Ok(())
    }
}

/// Reads a journal entry and checks that its text is what its hash says.
fn checked(stored: &StoredEntry, environment: &EnvironmentName) -> Result<Entry, ControlError> {
    if entry::leaf(&stored.text) != stored.leaf {
        return Err(ControlError::invalid(format!(
            "entry {} of `{environment}` does not match its hash",
            stored.seq
        )));
    }
    entry::read(stored.seq, &stored.text).map_err(|e| ControlError::invalid(e.to_string()))
}

/// What an agent is to do for `promotion`, if anything.
fn desired_promotion(promotion: &Promotion, all: &[Promotion]) -> Option<DesiredPromotion> {
    let task = match &promotion.stage {
        Stage::Gating => Task::Gates { gates: promotion.missing_gates() },
        Stage::Rolling { .. } => Task::Roll {
            evidence: envelopes(promotion),
            lineage: promotion
                .plan
                .lineage
                .iter()
                .filter_map(|l| {
                    Some((l.environment.clone(), envelopes(passed(all, promotion, &l.environment)?)))
                })
                .collect(),
        },
        Stage::Probation { .. } | Stage::Confirmed | Stage::RollingBack { .. }
            if !promotion.instructions.is_empty() =>
        {
            Task::Watch
        }
        _ => return None,
    };
    Some(DesiredPromotion {
        id: promotion.id.clone(),
        plan: promotion.plan.clone(),
        plan_hash: promotion.plan_hash,
        task,
        instructions: promotion.instructions.clone(),
    })
}

fn envelopes(promotion: &Promotion) -> BTreeMap<GateName, Envelope> {
    promotion.evidence.iter().map(|(gate, e)| (gate.clone(), e.envelope.clone())).collect()
}

/// The latest promotion of the same release through an earlier environment.
fn passed<'a>(
    all: &'a [Promotion],
    promotion: &Promotion,
    environment: &EnvironmentName,
) -> Option<&'a Promotion> {
    all.iter()
        .filter(|p| {
            p.plan.environment == *environment && p.plan.revision.release == promotion.plan.revision.release
        })
        .filter(|p| matches!(p.stage, Stage::Probation { .. } | Stage::Confirmed | Stage::Superseded { .. }))
        .max_by_key(|p| p.created)
}
