//! What agents fetch, and how they are asked: idempotent, outbound from the agent, decided by what the server holds.

use crate::Control;
use crate::error::ControlError;
use crate::planning::witness;
use crate::projection::{EnvironmentState, State};
use crate::states::{self, Act, Wanted};
use lockgate_core::access::{Action, Target, authorize};
use lockgate_core::actor::{Actor, ActorKind};
use lockgate_core::clock::Millis;
use lockgate_core::entry::{Resource, ResourceKind};
use lockgate_core::event::{Event, InstructionKind};
use lockgate_core::gate::{Envelope, PublicKey};
use lockgate_core::id::{EnvironmentName, GateName, ModelName, PrincipalId};
use lockgate_core::promotion::{Promotion, Stage};
use lockgate_core::wire::{
    Answer, Ask, Desired, DesiredPromotion, Hello, Live, PROTOCOL, Query, Task, Welcome,
};
use lockgate_store::Conn;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;

/// After this long without a sign of life an agent counts as gone.
const GONE_MS: Millis = 10_000;

/// The stages of a promotion for which an agent has something to do, whatever serves.
const CONCERNS: [&str; 4] = ["gating", "rolling", "rolling-back", "probation"];

/// How long a person's question waits for an agent.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// What the server remembers of its agents between two requests. All of it can be lost: agents say it again.
#[derive(Debug, Default)]
pub(crate) struct Agents {
    live: Mutex<BTreeMap<EnvironmentName, Vec<Live>>>,
    queries: Mutex<Queries>,
    principals: Mutex<BTreeMap<(bool, String), PrincipalId>>,
    trouble: Mutex<BTreeMap<EnvironmentName, String>>,
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
                let why = format!(
                    "environment `{}` is known by another key ({}), not by {}",
                    hello.environment,
                    known.id().short(),
                    hello.key.id().short()
                );
                self.note_trouble(&hello.environment, Some(why.clone()));
                return Err(ControlError::Refused(why));
            }
            None => self.enroll(actor, hello, project.name.clone()).await?,
        }
        let reported = self.check_journal(&hello.environment, hello.journal).await?;
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

    pub(crate) async fn environment_key(
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
            let mut ending = self.ending.subscribe();
            // A closed channel and the end of the wait, of the server too, mean: answer what there is.
            tokio::select! {
                _ = tokio::time::timeout(wait, version.changed()) => {}
                _ = ending.wait_for(|ending| *ending) => {}
            }
        }
        // Read first, so that a change while the answer is put together makes the next question return at once.
        let version = *version.borrow_and_update();
        let (place, now) = (environment.clone(), self.clock.now_ms());
        let here = self
            .store
            .read(move |conn| Box::pin(async move { desired_promotions(conn, &place, now).await }))
            .await?;
        let queries = lock(&self.agents.queries)
            .open
            .iter()
            .filter(|(_, open)| open.environment == *environment)
            .map(|(id, open)| Query { id: *id, ask: open.ask.clone() })
            .collect();
        Ok(Desired { version, promotions: here, queries })
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

    /// Notes why what an environment's agent says can't be taken; nothing once it can.
    pub(crate) fn note_trouble(&self, environment: &EnvironmentName, why: Option<String>) {
        let mut all = lock(&self.agents.trouble);
        match why {
            Some(why) => all.insert(environment.clone(), why),
            None => all.remove(environment),
        };
    }

    /// Why what an environment's agent says is not taken, where it isn't.
    pub(crate) fn trouble_of(&self, environment: &EnvironmentName) -> Option<String> {
        lock(&self.agents.trouble).get(environment).cloned()
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

/// The promotions that an environment's agent has something to do for: those on their way, and what serves.
async fn desired_promotions(
    conn: &mut Conn,
    environment: &EnvironmentName,
    now: Millis,
) -> Result<Vec<DesiredPromotion>, ControlError> {
    let wanted = Wanted { environment: Some(environment), stages: &CONCERNS, ..Wanted::default() };
    let mut here = states::promotions(conn, &wanted).await?;
    for (_, deployment) in states::deployments(conn, Some(environment), None).await? {
        let Some(serving) = deployment.serving else { continue };
        if !here.iter().any(|p| p.id == serving.promotion) {
            here.extend(states::find_promotion(conn, &serving.promotion).await?);
        }
    }
    let mut desired = Vec::new();
    for mut promotion in here {
        // Judged by the clock that stamped it: a drill happens now or not at all.
        let fresh = promotion.asked_to_drill(now).map(|drill| drill.id.clone());
        promotion.instructions.retain(|i| i.kind != InstructionKind::Drill || Some(&i.id) == fresh.as_ref());
        let task = match &promotion.stage {
            Stage::Gating => Task::Gates { gates: promotion.missing_gates() },
            Stage::Rolling { .. } => {
                Task::Roll { evidence: envelopes(&promotion), lineage: lineage(conn, &promotion).await? }
            }
            Stage::Probation { .. } | Stage::Confirmed | Stage::RollingBack { .. }
                if !promotion.instructions.is_empty() =>
            {
                Task::Watch
            }
            _ => continue,
        };
        desired.push(DesiredPromotion {
            id: promotion.id,
            plan: promotion.plan,
            plan_hash: promotion.plan_hash,
            task,
            instructions: promotion.instructions,
        });
    }
    Ok(desired)
}

fn envelopes(promotion: &Promotion) -> BTreeMap<GateName, Envelope> {
    promotion.evidence.iter().map(|(gate, e)| (gate.clone(), e.envelope.clone())).collect()
}

/// What earlier environments left about the same release: the evidence of the latest promotion that passed in each of them.
async fn lineage(
    conn: &mut Conn,
    promotion: &Promotion,
) -> Result<BTreeMap<EnvironmentName, BTreeMap<GateName, Envelope>>, ControlError> {
    let plan = &promotion.plan;
    let mut found = BTreeMap::new();
    for before in &plan.lineage {
        let wanted =
            Wanted { environment: Some(&before.environment), model: Some(&plan.model), ..Wanted::default() };
        let all = states::promotions(conn, &wanted).await?;
        if let Some(latest) = witness(&all, &before.environment, &plan.revision.release) {
            found.insert(before.environment.clone(), envelopes(latest));
        }
    }
    Ok(found)
}
