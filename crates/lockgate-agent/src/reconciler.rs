//! Desired against actual, every few milliseconds: one loop owns all deployments, looks, writes what follows into the journal,
//! and makes workers and routes so. It keeps nothing that a restart would lose.

use crate::fleet::Seen;
use crate::gates;
use crate::judge::{Evidence, judge};
use crate::{AgentError, Shared, crash, evidence, live, routing};
use lockgate_core::digest::Digest;
use lockgate_core::entry::ResourceKind;
use lockgate_core::event::{Event, PromotionEvent, RolloutEvent, WorkerEvent};
use lockgate_core::gate::sign;
use lockgate_core::guard::{Judgement, Reading, Verdict};
use lockgate_core::id::{GateName, GuardName, ModelName, PromotionId};
use lockgate_core::plan::{Plan, Revision};
use lockgate_core::rollout::{Deployment, Observation, Phase, Readiness};
use lockgate_core::route::{ModelRoute, RouteTable, WHOLE};
use lockgate_core::wire::{Desired, DesiredPromotion, Live, Task};
use lockgate_gateway::RolloutStats;
use lockgate_runtime::supervisor::WorkerState;
use lockgate_stats::decision::Peaks;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};

/// How often the loop looks. A guard's harm is acted on within this time.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// At most this many events follow one another in one look; more would be a loop without an end.
const EVENTS_A_LOOK: usize = 16;

/// How many requests each side must have had at a share before the share may grow.
const REQUESTS_AT_A_SHARE: u64 = 30;

/// How long a gate may take beyond its promotion's own time for gates.
const GATE_GRACE: Duration = Duration::from_secs(60);

/// How often the latency thresholds follow the baseline.
const THRESHOLDS_EVERY: Duration = Duration::from_secs(1);

/// How often a revision that could not be fetched is tried again.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// What the loop remembers between two looks; all of it can be found again.
pub(crate) struct Reconciler {
    shared: Arc<Shared>,
    deployments: BTreeMap<ModelName, Deployment>,
    /// Ways back that could not be written down yet.
    emergency: BTreeMap<ModelName, Deployment>,
    table: RouteTable,
    desired: watch::Receiver<Option<Desired>>,
    live: watch::Sender<Option<Live>>,
    reported: Arc<Notify>,
    /// The gate that is running, and those whose evidence is in the journal already.
    gates: Arc<Mutex<Gates>>,
    /// Revisions on their way to a worker, with why one can't get there.
    preparing: Arc<Mutex<BTreeMap<Digest, Preparing>>>,
    peaks: BTreeMap<PromotionId, Peaks>,
    judgements: BTreeMap<ModelName, Judgement>,
    workers: BTreeMap<(Digest, u32), (u64, Option<Instant>)>,
    thresholds: BTreeMap<ModelName, Instant>,
}

#[derive(Debug, Default)]
struct Gates {
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

#[derive(Debug)]
enum Preparing {
    Working,
    Waiting { until: Instant },
    Failed(String),
}

impl Reconciler {
    pub(crate) async fn new(
        shared: Arc<Shared>,
        table: RouteTable,
        desired: watch::Receiver<Option<Desired>>,
        live: watch::Sender<Option<Live>>,
        reported: Arc<Notify>,
    ) -> Result<Self, AgentError> {
        let deployments = shared.journal.deployments().await?;
        Ok(Self {
            shared,
            deployments,
            emergency: BTreeMap::new(),
            table,
            desired,
            live,
            reported,
            gates: Arc::default(),
            preparing: Arc::default(),
            peaks: BTreeMap::new(),
            judgements: BTreeMap::new(),
            workers: BTreeMap::new(),
            thresholds: BTreeMap::new(),
        })
    }

    /// Looks again and again until the task is ended.
    pub(crate) async fn run(mut self) {
        loop {
            if let Err(error) = self.look().await {
                tracing::error!(%error, "this look failed; the next one tries again");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn look(&mut self) -> Result<(), AgentError> {
        // Safety first: what runs is judged before anything new is taken on.
        let models: Vec<ModelName> = self.deployments.keys().cloned().collect();
        self.publish_or_log().await;
        for model in &models {
            // One model's trouble must not leave the others without a judge.
            if let Err(error) = self.step(model).await {
                tracing::error!(%error, %model, "this look failed; the next one tries again");
            }
        }
        let desired = self.desired.borrow_and_update().clone();
        if let Some(desired) = desired {
            for promotion in &desired.promotions {
                self.serve(promotion).await?;
            }
        }
        self.prepare();
        self.publish().await?;
        self.retire();
        self.notice_workers().await?;
        self.live.send_replace(Some(live::view(
            &self.shared,
            &self.deployments,
            &self.judgements,
            &self.table,
        )));
        Ok(())
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
        let after = self.shared.journal.rollout(&before, promotion, event).await?;
        self.crash("after-journal", &what);
        self.deployments.insert(model.clone(), after);
        self.reported.notify_one();
        Ok(())
    }

    fn crash(&self, place: &str, what: &str) {
        crash::point(&self.shared.home, &self.shared.environment, place, what);
    }

    /// Lets one deployment go as far as what is seen leads.
    async fn step(&mut self, model: &ModelName) -> Result<(), AgentError> {
        for _ in 0..EVENTS_A_LOOK {
            let seen = self.observe(model);
            let Some((promotion, event)) = self.deployments.get(model).and_then(|d| d.step(&seen)) else {
                return Ok(());
            };
            let routes_change = matches!(
                event,
                RolloutEvent::StepEntered { .. }
                    | RolloutEvent::RollbackDecided { .. }
                    | RolloutEvent::FailoverDecided { .. }
            );
            let what = kind(&event);
            if let Err(error) = self.record(model, &promotion, event.clone()).await {
                self.save_users(model, &promotion, &event).await;
                return Err(error);
            }
            self.emergency.remove(model);
            if routes_change {
                self.publish().await?;
                self.crash("after-publish", &what);
            }
        }
        Ok(())
    }

    /// A way back that can't be written down (a full disk) is taken all the same: users come first. The decision is made and
    /// written again with every look, until it can be.
    async fn save_users(&mut self, model: &ModelName, promotion: &PromotionId, event: &RolloutEvent) {
        if !matches!(event, RolloutEvent::RollbackDecided { .. } | RolloutEvent::FailoverDecided { .. }) {
            return;
        }
        let Some(mut after) = self.deployments.get(model).cloned() else { return };
        tracing::error!(%model, %promotion, "going back without a journal entry: it can't be written");
        after.apply(promotion, event, self.shared.clock.now_ms());
        self.emergency.insert(model.clone(), after);
        self.publish_or_log().await;
    }

    async fn publish_or_log(&mut self) {
        if let Err(error) = self.publish().await {
            tracing::error!(%error, "the routes can't be published; the gateway goes on with those before");
        }
    }

    /// The routes that the deployments ask for; where a way back could not be written down, those of the way back.
    fn routes(&self) -> BTreeMap<ModelName, ModelRoute> {
        if self.emergency.is_empty() {
            return routing::routes(&self.deployments, &self.shared.fleet);
        }
        let mut shown = self.deployments.clone();
        shown.extend(self.emergency.clone());
        routing::routes(&shown, &self.shared.fleet)
    }

    fn readiness(&self, revision: Option<&Revision>) -> Readiness {
        let Some(revision) = revision else { return Readiness::Unknown };
        let preparing = self.preparing.lock().unwrap_or_else(PoisonError::into_inner);
        match preparing.get(&revision.digest()) {
            Some(Preparing::Failed(why)) => Readiness::Failed(why.clone()),
            _ => self.shared.fleet.readiness(revision),
        }
    }

    fn observe(&mut self, model: &ModelName) -> Observation {
        let now = self.shared.clock.now_ms();
        let applied = self.is_applied();
        let judgement = self.judge(model);
        let deployment = self.deployments.get(model);
        let active = deployment.and_then(|d| d.active.as_ref());
        let target = active.and_then(|a| match &a.phase {
            Phase::RollingBack { target, .. } => target.as_ref(),
            _ => None,
        });
        let probation = deployment.filter(|d| d.active.is_none()).and_then(|d| d.serving.as_ref());
        let probation = probation.filter(|s| s.probation_until.is_some());
        let candidate = active.map(|a| &a.plan.revision).or(probation.map(|s| &s.revision));
        let backup =
            active.and_then(|a| a.plan.backup.as_ref()).or(deployment.and_then(|d| d.backup.as_ref()));
        let counted = active.map(|a| &a.promotion).or(probation.map(|s| &s.promotion));
        let seen = counted.and_then(|promotion| self.stats(model, promotion));
        let (requests, errors) = seen.as_ref().map_or((0, 0), live::candidate_totals);
        let breaker = seen.as_ref().filter(|s| s.breaker_open).map(|_| {
            format!(
                "the gateway's own breaker opened: {errors} of {requests} requests to the candidate failed"
            )
        });
        let last_sent = candidate.and_then(|c| self.shared.gateway.last_sent(&c.digest()));
        let idle = candidate.is_none_or(|c| self.shared.gateway.inflight(&c.digest()) == 0);
        Observation {
            now,
            applied,
            candidate: self.readiness(active.map(|a| &a.plan.revision)),
            serving: self.readiness(deployment.and_then(|d| d.serving.as_ref()).map(|s| &s.revision)),
            target: self.readiness(target),
            backup: self.readiness(backup),
            judgement,
            breaker,
            quiet_ms: idle.then(|| last_sent.map_or(i64::MAX, millis)),
            last_candidate_request: last_sent.map(|ago| now - millis(ago)),
            candidate_requests: requests,
            candidate_errors: errors,
        }
    }

    /// The gateway's counts for one rollout; nothing where it counts for another one.
    fn stats(&self, model: &ModelName, promotion: &PromotionId) -> Option<RolloutStats> {
        self.shared.gateway.stats(model).filter(|s| s.salt == promotion.as_str())
    }

    /// What the guards say about the model's active rollout, or about what is on probation; nothing where neither is.
    fn judge(&mut self, model: &ModelName) -> Judgement {
        let Some(judged) = self.deployments.get(model).and_then(Judged::of) else {
            self.judgements.remove(model);
            return Judgement::none();
        };
        let Judged { promotion, plan, compared, weight } = judged;
        self.follow_latency(model, &plan, &promotion);
        let stats = self.stats(model, &promotion);
        let evidence = stats.map_or_else(Evidence::default, |s| live::evidence(&s, compared));
        let peaks = self.peaks.entry(promotion).or_default();
        let mut judgement = judge(&plan.rollout, &evidence, peaks);
        judgement.readings.extend(traffic(&evidence, weight));
        self.judgements.insert(model.clone(), judgement.clone());
        judgement
    }

    /// Sets the latency thresholds from what the baseline did so far: fixed before the requests that they will judge.
    fn follow_latency(&mut self, model: &ModelName, plan: &Plan, promotion: &PromotionId) {
        let due = self.thresholds.get(model).is_none_or(|at| at.elapsed() >= THRESHOLDS_EVERY);
        if due {
            self.thresholds.insert(model.clone(), Instant::now());
            if let Some(thresholds) = self.stats(model, promotion).and_then(|s| live::thresholds(&s, plan))
                && let Err(error) = self.shared.gateway.set_thresholds(model, thresholds)
            {
                tracing::error!(%error, "latency is judged by the thresholds before");
            }
        }
    }

    /// Does what the server asks about one promotion.
    async fn serve(&mut self, desired: &DesiredPromotion) -> Result<(), AgentError> {
        let model = desired.plan.model.clone();
        for instruction in &desired.instructions {
            let event = self.deployments.get(&model).and_then(|d| d.instruct(&desired.id, instruction));
            if let Some((promotion, event)) = event {
                self.record(&model, &promotion, event).await?;
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
        own: &BTreeMap<GateName, lockgate_core::gate::Envelope>,
        lineage: &BTreeMap<
            lockgate_core::id::EnvironmentName,
            BTreeMap<GateName, lockgate_core::gate::Envelope>,
        >,
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

    fn start_gate(&self, desired: &DesiredPromotion, gate: &GateName) {
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
            (self.shared.clone(), desired.clone(), self.gates.clone(), self.reported.clone());
        tokio::spawn(async move {
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

    /// Starts fetching and loading whatever is wanted and not there.
    fn prepare(&mut self) {
        for deployment in self.deployments.values() {
            let Some(plan) = routing::plan(deployment) else { continue };
            for revision in deployment.wanted() {
                let key = revision.digest();
                let mut preparing = self.preparing.lock().unwrap_or_else(PoisonError::into_inner);
                match preparing.get(&key) {
                    Some(Preparing::Working | Preparing::Failed(_)) => continue,
                    Some(Preparing::Waiting { until }) if Instant::now() < *until => continue,
                    _ if self.shared.fleet.readiness(revision) == Readiness::Ready => continue,
                    _ => {}
                }
                preparing.insert(key, Preparing::Working);
                let (shared, revision, plan, states) =
                    (self.shared.clone(), revision.clone(), plan.clone(), self.preparing.clone());
                tokio::spawn(async move {
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

    /// Stops what is not wanted any more.
    fn retire(&mut self) {
        let wanted: Vec<Digest> = self
            .deployments
            .values()
            .flat_map(|d| d.wanted().into_iter().map(Revision::digest).collect::<Vec<_>>())
            .collect();
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

    /// Whether every gateway thread has applied what the present state asks for.
    fn is_applied(&self) -> bool {
        let wanted = self.routes();
        self.table.models == wanted && self.shared.gateway.applied_epoch() == self.table.epoch
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
        self.crash("before-publish", "table");
        self.table = table.clone();
        self.shared.gateway.publish(table).await?;
        Ok(())
    }

    /// Writes down when a worker is lost, and when it is back.
    async fn notice_workers(&mut self) -> Result<(), AgentError> {
        for seen in self.shared.fleet.seen() {
            let Some(model) = self.model_of(&seen.release) else { continue };
            let Seen { release, worker, status } = seen;
            let known = self.workers.entry((release, worker)).or_insert((0, None));
            let mut events = Vec::new();
            if status.restarts > known.0
                || (known.1.is_none() && matches!(status.state, WorkerState::Restarting { .. }))
            {
                if known.1.is_none() {
                    let how = match &status.state {
                        WorkerState::Restarting { last_error, .. }
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
                self.reported.notify_one();
            }
        }
        Ok(())
    }

    fn model_of(&self, release: &Digest) -> Option<ModelName> {
        let runs = |d: &&Deployment| d.wanted().iter().any(|r| r.release == *release);
        self.deployments.values().find(runs).map(|d| d.model.clone())
    }
}

/// Whose traffic is judged.
struct Judged {
    promotion: PromotionId,
    plan: Box<Plan>,
    /// Whether there is something to compare with.
    compared: bool,
    /// The candidate's share, 0 to 1.
    weight: f64,
}

impl Judged {
    fn of(deployment: &Deployment) -> Option<Self> {
        if let Some(active) = &deployment.active {
            let Phase::Step { index, .. } = active.phase else { return None };
            let parts = active.plan.rollout.steps.get(index).map_or(WHOLE, |s| s.weight);
            return Some(Self {
                promotion: active.promotion.clone(),
                plan: active.plan.clone(),
                compared: deployment.serving.is_some()
                    || deployment.backup.is_some()
                    || active.plan.backup.is_some(),
                weight: f64::from(parts) / f64::from(WHOLE),
            });
        }
        let serving =
            deployment.serving.as_ref().filter(|s| s.probation_until.is_some() && s.previous.is_some())?;
        let (promotion, plan) = (serving.promotion.clone(), serving.plan.clone());
        Some(Self { promotion, plan, compared: true, weight: 1.0 })
    }
}

/// What was proven at one share says nothing of a larger one before there was traffic at it: a reading of its own, required
/// like the guards'. None with all the traffic, where no share is left to win.
fn traffic(evidence: &Evidence, weight: f64) -> Option<Reading> {
    if weight >= 1.0 || !evidence.compared {
        return None;
    }
    let here = evidence.weights.iter().filter(|w| (w.weight - weight).abs() < 1e-9);
    let (candidate, baseline) =
        here.fold((0, 0), |(c, b), w| (c + w.candidate.requests, b + w.baseline.requests));
    let enough = candidate >= REQUESTS_AT_A_SHARE && baseline >= REQUESTS_AT_A_SHARE;
    Some(Reading {
        guard: GuardName::new("traffic").ok()?,
        verdict: if enough { Verdict::NotWorse } else { Verdict::Unknown },
        required: true,
        log_e_worse: 0.0,
        log_e_not_worse: 0.0,
        needed: 0.0,
        summary: format!(
            "requests at this share: {candidate}, baseline {baseline}; at least {REQUESTS_AT_A_SHARE} of each are needed"
        ),
        segments: Vec::new(),
    })
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

/// The event's name, for the agent's own log.
fn kind(event: &RolloutEvent) -> String {
    serde_json::to_value(event).ok().and_then(|v| v["what"].as_str().map(str::to_owned)).unwrap_or_default()
}

/// Checks everything that a promotion rests on; the words say what doesn't fit.
fn verified(
    shared: &Shared,
    desired: &DesiredPromotion,
    own: &BTreeMap<GateName, lockgate_core::gate::Envelope>,
    lineage: &BTreeMap<lockgate_core::id::EnvironmentName, BTreeMap<GateName, lockgate_core::gate::Envelope>>,
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

/// Fetches a revision's release, starts its workers, and asks them for their golden set.
async fn bring_up(shared: &Shared, revision: &Revision, plan: &Plan) -> Result<(), AgentError> {
    let release = shared.releases.fetch(&shared.server, &revision.release).await?;
    shared.fleet.ensure(revision, plan, &release)?;
    shared.fleet.check(revision, plan, &release).await
}

/// Runs one gate and writes its signed evidence into the journal.
async fn run_gate(shared: &Shared, desired: &DesiredPromotion, gate: &GateName) -> Result<(), AgentError> {
    let plan = &desired.plan;
    let spec =
        plan.gates.get(gate).ok_or_else(|| AgentError::Gate(format!("the plan has no gate `{gate}`")))?;
    let work = shared.home.path("work").join(format!("{}-{gate}", desired.id));
    std::fs::create_dir_all(&work).map_err(|e| AgentError::io("make the folder", &work, e))?;
    let predictions = shared.home.path("predictions");
    let context = gates::Context {
        plan,
        release: shared.releases.fetch(&shared.server, &plan.revision.release).await?,
        releases: &shared.releases,
        server: &shared.server,
        fleet: &shared.fleet,
        work: work.clone(),
        venvs: shared.home.path("venvs"),
        data: &shared.data,
        predictions: &predictions,
    };
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
    let _ = std::fs::remove_dir_all(&work);
    Ok(())
}
