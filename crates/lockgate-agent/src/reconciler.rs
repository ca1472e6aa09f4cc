//! Desired against actual, every few milliseconds: one loop owns all deployments, looks, writes what follows into the journal,
//! and makes workers and routes so. A restart loses nothing but evidence: counts and what was proven from them begin anew.
//!
//! | module | subject |
//! |---|---|
//! | `watch` | what is seen, and what the guards say |
//! | `gating` | running gates |
//! | `preparing` | revisions on their way to workers, and away |
//! | `smoking` | running smoke tests |
//! | `workers` | workers lost and back |

mod gating;
mod preparing;
mod smoking;
mod watch;
mod workers;

use crate::{AgentError, Shared, crash, evidence, live, routing};
use gating::Gates;
use lockgate_core::clock::Millis;
use lockgate_core::digest::Digest;
use lockgate_core::event::RolloutEvent;
use lockgate_core::gate::Envelope;
use lockgate_core::guard::Judgement;
use lockgate_core::id::{EnvironmentName, GateName, ModelName, PromotionId};
use lockgate_core::plan::Revision;
use lockgate_core::rollout::{Deployment, Readiness};
use lockgate_core::route::{ModelRoute, RouteTable, WHOLE};
use lockgate_core::wire::{Desired, DesiredPromotion, Live, Task};
use lockgate_stats::decision::Peaks;
use preparing::Preparing;
use smoking::Smoking;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch as channel};
use tokio::task::{AbortHandle, JoinSet};

/// How often the loop looks. A guard's harm is acted on within this time.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// At most this many events follow one another in one look; more would be a loop without an end.
const EVENTS_A_LOOK: usize = 16;

/// How often what could not be done is tried again.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// What the loop remembers between two looks; all of it can be found again.
pub(crate) struct Reconciler {
    shared: Arc<Shared>,
    deployments: BTreeMap<ModelName, Deployment>,
    /// Ways back that were decided, are taken, and could not be written down yet.
    unwritten: BTreeMap<ModelName, (PromotionId, RolloutEvent)>,
    table: RouteTable,
    ends: Ends,
    gates: Arc<Mutex<Gates>>,
    /// Revisions on their way to a worker, with why one can't get there.
    preparing: Arc<Mutex<BTreeMap<Digest, Preparing>>>,
    smoking: Arc<Mutex<Smoking>>,
    /// Since when revisions that are not wanted any more have been finishing streams.
    draining: BTreeMap<Digest, Instant>,
    peaks: BTreeMap<PromotionId, Peaks>,
    judgements: BTreeMap<ModelName, Judgement>,
    workers: BTreeMap<(Digest, u32), (u64, Option<Instant>)>,
    thresholds: BTreeMap<ModelName, Instant>,
    /// Rollouts whose every request this process has counted.
    counted: BTreeSet<PromotionId>,
    /// When this process began to count.
    began: Millis,
}

/// What connects the loop with others.
pub(crate) struct Ends {
    /// What the server asks for.
    pub(crate) desired: channel::Receiver<Option<Desired>>,
    /// What is seen.
    pub(crate) live: channel::Sender<Option<Live>>,
    /// That there are entries to report.
    pub(crate) reported: Arc<Notify>,
    /// Whether everything serves, where an agent takes over from another.
    pub(crate) serving: Option<channel::Sender<Serving>>,
    /// Whether everything that was decided is written down, and no drill is under way.
    pub(crate) settled: channel::Sender<bool>,
    /// What runs beside the loop, and ends with it.
    pub(crate) jobs: Jobs,
}

/// Gates and preparations under way.
pub(crate) type Jobs = Arc<Mutex<JoinSet<()>>>;

/// How far an agent is that takes over from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Serving {
    /// Workers are being started.
    NotYet,
    /// Everything serves that has traffic.
    Yes,
    /// It will not, and why.
    Never(String),
}

impl Reconciler {
    pub(crate) async fn new(shared: Arc<Shared>, table: RouteTable, ends: Ends) -> Result<Self, AgentError> {
        let deployments = shared.journal.deployments().await?;
        let began = shared.clock.now_ms();
        Ok(Self {
            shared,
            deployments,
            unwritten: BTreeMap::new(),
            table,
            ends,
            gates: Arc::default(),
            preparing: Arc::default(),
            smoking: Arc::default(),
            draining: BTreeMap::new(),
            peaks: BTreeMap::new(),
            judgements: BTreeMap::new(),
            workers: BTreeMap::new(),
            thresholds: BTreeMap::new(),
            counted: BTreeSet::new(),
            began,
        })
    }

    /// Looks again and again until it is to stop.
    pub(crate) async fn run(mut self, mut stop: channel::Receiver<bool>) {
        // What an earlier life left.
        self.hand_over_logs();
        loop {
            self.look().await;
            self.ends.settled.send_if_modified(|settled| {
                // A drill is at its end in a moment; a successor that has to load everything first would leave users there.
                let drills = self.deployments.values().any(|d| d.drill.is_some());
                let now = self.unwritten.is_empty() && !drills;
                std::mem::replace(settled, now) != now
            });
            if tokio::time::timeout(LOOK_EVERY, stop.wait_for(|stop| *stop)).await.is_ok() {
                return;
            }
        }
    }

    /// Starts work beside the loop.
    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        let mut jobs = self.ends.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that have ended need not be kept.
        while jobs.try_join_next().is_some() {}
        jobs.spawn(work)
    }

    /// One look at everything. What fails for one model or promotion is said and tried again with the next look; it must not
    /// keep the others from being judged and served.
    async fn look(&mut self) {
        if let Some(serving) = self.ends.serving.clone() {
            return self.get_ready(&serving).await;
        }
        // Safety first: what runs is judged before anything new is taken on.
        let models: Vec<ModelName> = self.deployments.keys().cloned().collect();
        self.follow_outcomes();
        say("publish the routes", self.publish().await);
        for model in &models {
            say("follow a rollout", self.step(model).await);
            say("follow a smoke test", self.smoke(model).await);
        }
        let desired = self.ends.desired.borrow_and_update().clone();
        for promotion in desired.iter().flat_map(|d| &d.promotions) {
            say("do what the server asks", self.serve(promotion).await);
        }
        self.end_smoke_tests();
        self.prepare();
        self.bring_inside();
        say("publish the routes", self.publish().await);
        self.retire();
        say("write down which workers were lost", self.notice_workers().await);
        let view = live::view(&self.shared, &self.deployments, &self.judgements, &self.table);
        self.ends.live.send_replace(Some(view));
    }

    /// Starts what is to serve, and no more: until this agent is in office it judges, decides and writes nothing. What its
    /// workers lack may be its own fault.
    async fn get_ready(&mut self, serving: &channel::Sender<Serving>) {
        self.prepare();
        say("publish the routes", self.publish().await);
        if self.serves_all() {
            self.ends.serving = None;
            serving.send_replace(Serving::Yes);
        } else if let Some(why) = self.failed() {
            serving.send_replace(Serving::Never(why));
        }
    }

    /// Why something can't serve that has traffic.
    fn failed(&self) -> Option<String> {
        let revisions = self.deployments.values().flat_map(|d| {
            let traffic = d.routed();
            let candidate = traffic.split.filter(|(_, weight, _)| *weight > 0);
            traffic.main.into_iter().chain(candidate.map(|(revision, ..)| revision))
        });
        let preparing = self.preparing.lock().unwrap_or_else(PoisonError::into_inner);
        revisions.into_iter().find_map(|revision| {
            match (self.shared.fleet.readiness(revision), preparing.get(&revision.digest())) {
                (Readiness::Failed(why), _) => Some(why),
                (_, Some(Preparing::Failed(why))) => Some(why.clone()),
                _ => None,
            }
        })
    }

    /// Writes an event down and carries it out.
    async fn record(
        &mut self,
        model: &ModelName,
        promotion: &PromotionId,
        event: RolloutEvent,
    ) -> Result<(), AgentError> {
        let before =
            self.deployments.entry(model.clone()).or_insert_with(|| Deployment::new(model.clone())).clone();
        let what = kind(&event);
        tracing::info!(%model, %promotion, event = what, "rollout");
        self.crash("before-journal", &what);
        let after = self.shared.journal.rollout(&before, promotion, event.clone()).await?;
        self.crash("after-journal", &what);
        if matches!(event, RolloutEvent::StepEntered { step: 0, .. }) {
            self.counted.insert(promotion.clone());
        }
        self.deployments.insert(model.clone(), after);
        self.ends.reported.notify_one();
        Ok(())
    }

    fn crash(&self, place: &str, what: &str) {
        crash::point(&self.shared.home, &self.shared.environment, place, what);
    }

    /// Lets one deployment go as far as what is seen leads.
    async fn step(&mut self, model: &ModelName) -> Result<(), AgentError> {
        if let Some((promotion, event)) = self.unwritten.get(model).cloned() {
            self.decided(model, &promotion, event).await?;
        }
        for _ in 0..EVENTS_A_LOOK {
            let seen = self.observe(model);
            let Some((promotion, event)) = self.deployments.get(model).and_then(|d| d.step(&seen)) else {
                return Ok(());
            };
            let what = kind(&event);
            self.decided(model, &promotion, event).await?;
            self.publish().await?;
            self.crash("after-publish", &what);
        }
        Ok(())
    }

    /// Writes a decision down. A way back that can't be written (a full disk) is taken all the same, for users come first, and
    /// written with a later look; a move forward waits until it is.
    async fn decided(
        &mut self,
        model: &ModelName,
        promotion: &PromotionId,
        event: RolloutEvent,
    ) -> Result<(), AgentError> {
        let is_back = matches!(
            event,
            RolloutEvent::RollbackDecided { .. }
                | RolloutEvent::FailoverDecided { .. }
                | RolloutEvent::DrillTurned { .. }
        );
        let written = self.record(model, promotion, event.clone()).await;
        if written.is_ok() {
            self.unwritten.remove(model);
        } else if is_back {
            tracing::error!(%model, %promotion, "going back without a journal entry: it can't be written");
            self.unwritten.insert(model.clone(), (promotion.clone(), event));
            say("publish the way back", self.publish().await);
        }
        written
    }

    /// The routes that the deployments ask for, ways back that are not written yet among them.
    fn routes(&self) -> BTreeMap<ModelName, ModelRoute> {
        if self.unwritten.is_empty() {
            return routing::routes(&self.deployments, &self.shared);
        }
        let mut shown = self.deployments.clone();
        for (model, (promotion, event)) in &self.unwritten {
            if let Some(deployment) = shown.get_mut(model) {
                deployment.apply(promotion, event, self.shared.clock.now_ms());
            }
        }
        routing::routes(&shown, &self.shared)
    }

    /// Says which rollouts' outcomes are waited for: those under way, and those of what is on probation.
    fn follow_outcomes(&self) {
        let rollouts = self.deployments.values().flat_map(|d| {
            let active = d.active.iter().map(|a| (&a.promotion, &a.plan.rollout));
            active.chain(d.on_probation().map(|(serving, _)| (&serving.promotion, &serving.plan.rollout)))
        });
        self.shared.outcomes.follow(rollouts);
    }

    /// Does what the server asks about one promotion.
    async fn serve(&mut self, desired: &DesiredPromotion) -> Result<(), AgentError> {
        let model = desired.plan.model.clone();
        for instruction in &desired.instructions {
            let way_back = self.way_back(&model);
            let event =
                self.deployments.get(&model).and_then(|d| d.instruct(&desired.id, instruction, &way_back));
            if let Some((promotion, event)) = event {
                self.decided(&model, &promotion, event).await?;
                self.publish().await?;
            }
        }
        match &desired.task {
            Task::Gates { gates } => {
                for gate in gates {
                    self.start_gate(desired, gate);
                }
                Ok(())
            }
            Task::Roll { evidence, lineage } => self.take_on(desired, evidence, lineage).await,
            Task::Watch => Ok(()),
        }
    }

    async fn take_on(
        &mut self,
        desired: &DesiredPromotion,
        own: &BTreeMap<GateName, Envelope>,
        lineage: &BTreeMap<EnvironmentName, BTreeMap<GateName, Envelope>>,
    ) -> Result<(), AgentError> {
        let model = desired.plan.model.clone();
        let deployment =
            self.deployments.get(&model).cloned().unwrap_or_else(|| Deployment::new(model.clone()));
        if !deployment.can_take(&desired.id) {
            return Ok(());
        }
        let event = match verified(&self.shared, desired, own, lineage, &deployment) {
            Ok(()) => RolloutEvent::Started { plan: Box::new(desired.plan.clone()) },
            Err(why) => RolloutEvent::Aborted { reason: why },
        };
        self.peaks.remove(&desired.id);
        self.record(&model, &desired.id, event).await
    }

    /// Whether every gateway thread has applied what the present state asks for.
    fn is_applied(&self) -> bool {
        let wanted = self.routes();
        self.table.models == wanted && self.shared.gateway.applied_epoch() == self.table.epoch
    }

    /// Whether every model has workers here for every share of its traffic.
    fn serves_all(&self) -> bool {
        self.is_applied() && self.table.models.values().all(serves)
    }

    /// Publishes the table that the present state asks for, if it is another one.
    async fn publish(&mut self) -> Result<(), AgentError> {
        let models = self.routes();
        let stale = self.shared.gateway.applied_epoch() != self.table.epoch;
        if models == self.table.models && !stale {
            return Ok(());
        }
        let table = RouteTable { epoch: self.table.epoch + 1, models };
        if let Err(error) = routing::save(&self.shared.home, &table) {
            // It only saves a restart some time; the routes follow from the journal.
            tracing::error!(%error, "the routes can't be kept for the next start");
        }
        self.follow_outcomes();
        self.crash("before-publish", "table");
        self.table = table.clone();
        self.shared.gateway.publish(table).await?;
        Ok(())
    }
}

/// Whether every share of a model's traffic has workers.
fn serves(route: &ModelRoute) -> bool {
    let candidate = route.split.as_ref().filter(|split| split.weight > 0).map(|split| &split.candidate);
    let whole = route.split.as_ref().is_some_and(|split| split.weight == WHOLE);
    let baseline = route.baseline.as_ref().filter(|_| !whole);
    candidate.into_iter().chain(baseline).all(|variant| !variant.workers.is_empty())
}

/// Logs what failed; the next look tries again.
fn say(what: &str, outcome: Result<(), AgentError>) {
    if let Err(error) = outcome {
        tracing::error!(%error, "can't {what}; the next look tries again");
    }
}

/// The event's name, for the agent's own log.
fn kind(event: &RolloutEvent) -> String {
    serde_json::to_value(event).ok().and_then(|v| v["what"].as_str().map(str::to_owned)).unwrap_or_default()
}

/// Checks everything that a promotion rests on; the words say what doesn't fit.
fn verified(
    shared: &Shared,
    desired: &DesiredPromotion,
    own: &BTreeMap<GateName, Envelope>,
    lineage: &BTreeMap<EnvironmentName, BTreeMap<GateName, Envelope>>,
    deployment: &Deployment,
) -> Result<(), String> {
    let plan = &desired.plan;
    if plan.environment != shared.environment {
        return Err(format!("the plan is for environment `{}`", plan.environment));
    }
    plan.validate()?;
    evidence::verify(&shared.trust, plan, &desired.plan_hash, own, lineage).map_err(|e| e.to_string())?;
    let serves = deployment.serving.as_ref().map(|s| s.revision.digest());
    if plan.baseline.as_ref().map(Revision::digest) != serves {
        return Err(
            "the environment serves something else by now than when the plan was made; ask again".to_owned()
        );
    }
    Ok(())
}
