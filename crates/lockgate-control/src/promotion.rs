//! Promotions: plan, request, approve, reject, take back, instruct.

use crate::Control;
use crate::error::ControlError;
use crate::planner::{self, Facts};
use crate::projection::ReleaseState;
use crate::quarantine;
use crate::states::{self, Act, Wanted};
use crate::view::{Forecast, PlanView, PromotionRequest, PromotionView};
use lockgate_config::Project;
use lockgate_config::project::BackupRef;
use lockgate_core::access::{Action, Target, authorize};
use lockgate_core::actor::Actor;
use lockgate_core::digest::Digest;
use lockgate_core::entry::{Resource, ResourceKind};
use lockgate_core::event::{Event, Instruction, InstructionKind, PromotionEvent};
use lockgate_core::gate::GateSpec;
use lockgate_core::id::{CommandId, EnvironmentName, ModelName, PromotionId};
use lockgate_core::plan::{Plan, Revision};
use lockgate_core::promotion::{Command, Promotion, Stage};
use lockgate_store::Conn;
use std::collections::BTreeSet;

/// What a plan is judged by, as it stands now.
struct Standing {
    /// All promotions of the model.
    promotions: Vec<Promotion>,
    /// The promotion that left the release in quarantine, if one did.
    quarantine: Option<PromotionId>,
    /// What the environment serves.
    serving: Option<Revision>,
}

impl Standing {
    async fn read(conn: &mut Conn, plan: &Plan, release: &ReleaseState) -> Result<Self, ControlError> {
        let wanted = Wanted { model: Some(&plan.model), ..Wanted::default() };
        let deployment = states::deployment(conn, &plan.environment, &plan.model).await?;
        Ok(Self {
            promotions: states::promotions(conn, &wanted).await?,
            quarantine: quarantine::find(conn, release).await?,
            serving: deployment.serving.map(|s| s.revision),
        })
    }
}

impl Control {
    /// Plans a promotion without asking for it.
    ///
    /// # Errors
    /// Where there is no such release or environment, or the configuration can't be fulfilled.
    pub async fn plan(&self, actor: &Actor, request: &PromotionRequest) -> Result<PlanView, ControlError> {
        authorize(actor, Action::Read, Target::Environment(&request.environment))?;
        // A plan is only looked at: a configuration that comes with the question is not applied.
        let project = match &request.configuration {
            Some(new) => new.project()?,
            None => self.project().await?,
        };
        let (plan, release) = self.make_plan(actor, &project, request).await?;
        let plan_hash = plan.hash()?;
        let lift = quarantine::reason(request)?;
        let (planned, made) = (plan.clone(), release.clone());
        let standing = self
            .store
            .read(move |conn| Box::pin(async move { Standing::read(conn, &planned, &made).await }))
            .await?;
        let mut obstacles = obstacles(&project, &plan, &standing);
        obstacles.extend(quarantine::obstacle(standing.quarantine.as_ref(), &release.digest, lift, actor));
        let forecast = self.forecast(&plan, request);
        let changes = self.changes(&plan, &release).await?;
        let next = match obstacles.first() {
            None => format!(
                "lockgate promote {} --env {} --wait",
                plan.revision.release.short(),
                plan.environment
            ),
            Some(_) => "lockgate status".to_owned(),
        };
        Ok(PlanView {
            warnings: warnings(&plan, &forecast),
            approval: approval_words(&plan),
            rollback: rollback_words(&plan),
            plan,
            plan_hash,
            changes,
            obstacles,
            forecast: Some(forecast),
            next,
        })
    }

    async fn make_plan(
        &self,
        actor: &Actor,
        project: &Project,
        request: &PromotionRequest,
    ) -> Result<(Plan, ReleaseState), ControlError> {
        let release = self.find_release(&request.release).await?;
        let unsupported = project.unsupported_for(&request.environment);
        if let Some(first) = unsupported.first() {
            return Err(ControlError::invalid(first.to_string())
                .with_hint("remove it, or wait for the version that brings it"));
        }
        let model = &release.manifest.model;
        let resolved = project.environment(&request.environment);
        let backup = match resolved.as_ref().and_then(|r| r.backup.clone()) {
            None => None,
            Some(reference) => Some(self.backup_release(&reference, &request.environment).await?),
        };
        let of = model.clone();
        let deployments = self
            .store
            .read(move |conn| Box::pin(async move { states::deployments(conn, None, Some(&of)).await }))
            .await?;
        let serving_now = deployments
            .iter()
            .find(|(environment, _)| *environment == request.environment)
            .and_then(|(_, d)| Some(d.serving.as_ref()?.revision.clone()));
        let elsewhere = deployments
            .iter()
            .filter_map(|(environment, d)| Some((environment.clone(), d.traffic().main?.release)))
            .collect();
        let kept = self.project_state().await?.and_then(|s| s.approvals.get(&request.environment).cloned());
        let approval = match (kept, &resolved) {
            (None, Some(resolved)) => {
                planner::approval(project, resolved, &self.principals_by_name().await?)?
            }
            (kept, _) => kept,
        };
        let facts = Facts {
            release: &release,
            serving: serving_now,
            elsewhere,
            backup: backup.as_ref(),
            approval,
            requester: actor.id.clone(),
            now: self.clock.now_ms(),
        };
        let plan = planner::plan(project, &request.environment, facts)?;
        Ok((plan, release))
    }

    /// The release that a backup names: of a digest, or the newest release of a model's version or alias.
    async fn backup_release(
        &self,
        reference: &BackupRef,
        environment: &EnvironmentName,
    ) -> Result<ReleaseState, ControlError> {
        let (model, version) = match reference {
            BackupRef::Release(digest) => return self.find_release(&digest.to_string()).await,
            BackupRef::Version { model, version } => (model, version.to_string()),
            BackupRef::Alias { model, alias } => (model, alias.clone()),
        };
        let resolved = self.resolve_version(model, &version).await?;
        let mut found: Vec<ReleaseState> = self
            .releases()
            .await?
            .into_iter()
            .filter(|r| r.manifest.model == *model && r.manifest.model_version == resolved)
            .collect();
        found.sort_by_key(|r| r.created);
        found.pop().ok_or_else(|| {
            ControlError::conflict(format!(
                "environment `{environment}` has `{model}` version {resolved} as its backup, and no release was made of it"
            ))
            .with_hint(format!("lockgate release create {model}:{resolved}"))
        })
    }

    /// Asks for a promotion.
    ///
    /// # Errors
    /// Where it can't be planned, or something stands in its way.
    pub async fn request_promotion(
        &self,
        actor: &Actor,
        request: &PromotionRequest,
    ) -> Result<PromotionView, ControlError> {
        authorize(actor, Action::PromotionRequest, Target::Environment(&request.environment))?;
        let project = self.project().await?;
        quarantine::reason(request)?;
        let (plan, release) = self.make_plan(actor, &project, request).await?;
        let plan_hash = plan.hash()?;
        if request.plan_hash.is_some_and(|seen| seen != plan_hash) {
            return Err(ControlError::conflict("the plan has changed since you looked at it")
                .with_hint("look at the new one with `lockgate plan`"));
        }
        let now = self.clock.now_ms();
        let id = PromotionId::generate(now, &*self.entropy);
        let (control, request, actor) = (self.clone(), request.clone(), actor.clone());
        let made = id.clone();
        self.write(move |tx| {
            Box::pin(async move {
                let standing = Standing::read(tx, &plan, &release).await?;
                let lift = quarantine::reason(&request)?;
                let quarantined = standing.quarantine.as_ref();
                if let Some(obstacle) = quarantine::obstacle(quarantined, &release.digest, lift, &actor) {
                    return Err(match lift {
                        Some(_) => ControlError::Refused(obstacle),
                        None => ControlError::conflict(obstacle),
                    });
                }
                if let Some(obstacle) = obstacles(&project, &plan, &standing).into_iter().next() {
                    return Err(ControlError::conflict(obstacle));
                }
                let lifted = lift.filter(|_| quarantined.is_some());
                let reason = lifted.map(|why| format!("quarantine lifted: {why}")).unwrap_or_default();
                for older in standing.promotions.iter().filter(|p| same_place(p, &plan)) {
                    if matches!(older.stage, Stage::Gating | Stage::AwaitingApproval | Stage::Queued) {
                        let events = older.decide(&Command::Supersede { by: made.clone() }, now)?;
                        control
                            .record_all(tx, &Actor::system(), Action::PromotionAdvance, older, events, "")
                            .await?;
                    }
                }
                let event = PromotionEvent::Planned { plan: Box::new(plan.clone()), plan_hash };
                let act = Act {
                    actor,
                    action: Action::PromotionRequest,
                    resource: resource(&made, &plan),
                    event: Event::Promotion(Box::new(event)),
                    reason,
                    source: None,
                };
                control.record(tx, act).await?;
                control.advance_in(tx, &made).await
            })
        })
        .await?;
        self.changed();
        self.promotion(&id).await
    }

    /// Says yes.
    ///
    /// # Errors
    /// Where the person may not, or the plan is another one by now.
    pub async fn approve(
        &self,
        actor: &Actor,
        id: &PromotionId,
        plan_hash: Digest,
    ) -> Result<PromotionView, ControlError> {
        let command = Command::Approve { by: actor.id.clone(), human: actor.is_human(), plan_hash };
        self.command(actor, Action::PromotionApprove, id, command, "").await
    }

    /// Says no.
    ///
    /// # Errors
    /// Where traffic has moved already.
    pub async fn reject(
        &self,
        actor: &Actor,
        id: &PromotionId,
        reason: &str,
    ) -> Result<PromotionView, ControlError> {
        let name = self.name_of(&actor.id).await?;
        let said = if reason.is_empty() {
            format!("rejected by {name}")
        } else {
            format!("rejected by {name}: {reason}")
        };
        let command = Command::Reject { by: actor.id.clone(), reason: said };
        self.command(actor, Action::PromotionReject, id, command, reason).await
    }

    /// Tells the rollout something.
    ///
    /// # Errors
    /// Where the promotion's stage doesn't allow it.
    pub async fn instruct(
        &self,
        actor: &Actor,
        id: &PromotionId,
        kind: InstructionKind,
        reason: &str,
    ) -> Result<PromotionView, ControlError> {
        let action = match kind {
            InstructionKind::Pause => Action::RolloutPause,
            InstructionKind::Resume => Action::RolloutResume,
            InstructionKind::Abort => Action::RolloutAbort,
            InstructionKind::Rollback => Action::RolloutRollback,
        };
        let found = self.load_promotion(id).await?;
        if kind == InstructionKind::Abort
            && matches!(found.stage, Stage::Gating | Stage::AwaitingApproval | Stage::Queued)
        {
            return self.command(actor, Action::PromotionCancel, id, Command::Cancel, reason).await;
        }
        let instruction = Instruction {
            id: CommandId::generate(self.clock.now_ms(), &*self.entropy),
            kind,
            by: actor.id.clone(),
            reason: reason.to_owned(),
        };
        self.command(actor, action, id, Command::Instruct(instruction), reason).await
    }

    /// Sends an environment's traffic back to what served before.
    ///
    /// # Errors
    /// Where nothing is there to roll back, or several models are and none is named.
    pub async fn rollback(
        &self,
        actor: &Actor,
        environment: &EnvironmentName,
        model: Option<&ModelName>,
        reason: &str,
    ) -> Result<PromotionView, ControlError> {
        let (place, of) = (environment.clone(), model.cloned());
        let (rolling, deployments) = self
            .store
            .read(move |conn| {
                Box::pin(async move {
                    let wanted =
                        Wanted { environment: Some(&place), model: of.as_ref(), stages: &["rolling"] };
                    let rolling = states::promotions(conn, &wanted).await?;
                    let all = states::deployments(conn, Some(&place), of.as_ref()).await?;
                    Ok::<_, ControlError>((rolling, all))
                })
            })
            .await?;
        let busy = deployments.iter().map(|(_, d)| d).filter(|d| d.serving.is_some() || d.active.is_some());
        let models: BTreeSet<&ModelName> =
            busy.clone().map(|d| &d.model).chain(rolling.iter().map(|p| &p.plan.model)).collect();
        if models.len() > 1 {
            let names: Vec<String> = models.iter().map(ToString::to_string).collect();
            return Err(ControlError::invalid(format!("environment `{environment}` serves several models"))
                .with_hint(format!("name one with --model: {}", names.join(", "))));
        }
        // Whatever is on its way up goes back; else what serves, as the agent reported it.
        let deployment = busy.clone().next();
        let going_back = deployment.and_then(|d| d.active.as_ref()).filter(|a| a.is_going_back());
        if let Some(active) = going_back {
            return Err(ControlError::conflict(format!(
                "promotion {} is on its way back already; wait until that is done",
                active.promotion
            )));
        }
        let serving = deployment.and_then(|d| d.serving.as_ref());
        let target = rolling.first().map(|p| &p.id).or(serving.map(|s| &s.promotion)).ok_or_else(|| {
            ControlError::conflict(format!(
                "environment `{environment}` serves nothing that could be rolled back"
            ))
        })?;
        self.instruct(actor, target, InstructionKind::Rollback, reason).await
    }

    async fn command(
        &self,
        actor: &Actor,
        action: Action,
        id: &PromotionId,
        command: Command,
        reason: &str,
    ) -> Result<PromotionView, ControlError> {
        let found = self.load_promotion(id).await?;
        let refused = match authorize(actor, action, Target::Environment(&found.plan.environment)) {
            Err(refused) => Some(ControlError::from(refused)),
            Ok(()) => None,
        };
        let (control, actor, id2, reason) = (self.clone(), actor.clone(), id.clone(), reason.to_owned());
        self.write(move |tx| {
            Box::pin(async move {
                let promotion = states::promotion(tx, &id2).await?;
                if let (None, Command::Instruct(instruction)) = (&refused, &command) {
                    can_obey(tx, &promotion, instruction.kind).await?;
                }
                let decided = match refused {
                    Some(refused) => Err(refused),
                    None => promotion.decide(&command, control.clock.now_ms()).map_err(ControlError::from),
                };
                match decided {
                    Ok(events) => {
                        control.record_all(tx, &actor, action, &promotion, events, &reason).await?;
                        control.advance_in(tx, &id2).await?;
                        Ok(Ok(()))
                    }
                    // A refusal is recorded, too; the state stays as it is.
                    Err(error @ ControlError::Refused(_)) => {
                        control.record_denial(tx, &actor, action, &promotion, &error.to_string()).await?;
                        Ok(Err(error))
                    }
                    Err(error) => Err(error),
                }
            })
        })
        .await??;
        self.changed();
        self.promotion(id).await
    }

    async fn changes(&self, plan: &Plan, release: &ReleaseState) -> Result<Vec<String>, ControlError> {
        match &plan.baseline {
            None => Ok(vec!["first release of this model here".to_owned()]),
            Some(baseline) => {
                let old = self.find_release(&baseline.release.to_string()).await?;
                let mut changes = crate::release::differences(&old.manifest, &release.manifest);
                if baseline.configuration != plan.revision.configuration {
                    changes.push("the environment's configuration changed".to_owned());
                }
                Ok(changes)
            }
        }
    }

    fn forecast(&self, plan: &Plan, request: &PromotionRequest) -> Forecast {
        let seen = self.live_of(&plan.environment).and_then(|live| {
            let model = live.models.get(&plan.model)?;
            let requests: u64 = model.sides.iter().map(|s| s.requests).sum();
            let errors: u64 = model.sides.iter().map(|s| s.errors).sum();
            Some((requests, errors))
        });
        crate::forecast::forecast(
            plan,
            request.rate,
            self.measured_rate(&plan.environment, &plan.model),
            seen,
        )
    }
}

/// Why this plan can't be carried out now.
fn obstacles(project: &Project, plan: &Plan, standing: &Standing) -> Vec<String> {
    let mut found = Vec::new();
    let promotions = &standing.promotions;
    let release = &plan.revision.release;
    let digest = |revision: &Option<Revision>| revision.as_ref().map(Revision::digest);
    if digest(&plan.baseline) != digest(&standing.serving) {
        found.push(format!("`{}` serves something else since a moment ago; ask again", plan.environment));
    }
    if plan.baseline.as_ref().is_some_and(|b| b.digest() == plan.revision.digest()) {
        found.push(format!(
            "release {} serves `{}` already, with the same configuration",
            release.short(),
            plan.environment
        ));
    }
    for before in project.environment(&plan.environment).map(|e| e.after.clone()).unwrap_or_default() {
        let passed = promotions
            .iter()
            .any(|p| p.plan.environment == before && p.plan.revision.release == *release && p.has_passed());
        if !passed && !is_source(project, &before) {
            found.push(format!(
                "release {} has not passed `{before}` yet: lockgate promote {} --env {before} --wait",
                release.short(),
                release.short()
            ));
        }
    }
    if let Some(p) = promotions.iter().find(|p| same_place(p, plan) && p.stage.holds_slot()) {
        found.push(format!(
            "promotion {} moves this model's traffic right now; wait for it or abort it",
            p.id
        ));
    }
    found
}

/// Whether an agent could do what it is told: only what serves can go back, and only to something.
async fn can_obey(conn: &mut Conn, promotion: &Promotion, kind: InstructionKind) -> Result<(), ControlError> {
    let serves = matches!(promotion.stage, Stage::Probation { .. } | Stage::Confirmed);
    if kind != InstructionKind::Rollback || !serves {
        return Ok(());
    }
    let plan = &promotion.plan;
    let deployment = states::deployment(conn, &plan.environment, &plan.model).await?;
    let place = format!("`{}`", plan.environment);
    match &deployment.serving {
        Some(serving) if serving.promotion != promotion.id => Err(ControlError::conflict(format!(
            "promotion {} does not serve {place} any more: {} does",
            promotion.id, serving.promotion
        ))
        .with_hint(format!("lockgate rollback {}", plan.environment))),
        Some(_) if deployment.way_back().is_some() => Ok(()),
        Some(_) => Err(ControlError::conflict(format!(
            "there is nothing that {place} could go back to: no release that served before, and no other backup"
        ))
        .with_hint("promote a release that is better")),
        None => Err(ControlError::conflict(format!(
            "promotion {} does not serve {place} any more: its backup does",
            promotion.id
        ))),
    }
}

/// Whether `environment` is where releases are made: the first one, without gates of its own. Nothing is promoted into it.
fn is_source(project: &Project, environment: &EnvironmentName) -> bool {
    project.environment(environment).is_none_or(|e| e.after.is_empty() && e.gates.is_empty())
}

fn same_place(promotion: &Promotion, plan: &Plan) -> bool {
    promotion.plan.environment == plan.environment && promotion.plan.model == plan.model
}

/// The audit resource of a promotion.
pub(crate) fn resource(id: &PromotionId, plan: &Plan) -> Resource {
    Resource {
        kind: ResourceKind::Promotion,
        id: id.to_string(),
        project: Some(plan.project.clone()),
        environment: Some(plan.environment.clone()),
    }
}

fn approval_words(plan: &Plan) -> String {
    match &plan.approval {
        None => "nobody's".to_owned(),
        Some(rule) => {
            let who = if rule.groups.is_empty() { "anybody".to_owned() } else { rule.groups.join(", ") };
            let not = if rule.not_author {
                ", but not from the release's authors or whoever asks for it"
            } else {
                ""
            };
            format!("{} from {who}{not}", rule.count)
        }
    }
}

fn rollback_words(plan: &Plan) -> String {
    match (&plan.baseline, &plan.backup) {
        (Some(b), _) => {
            format!("a change of routes to v{} ({}), which stays warm", b.model_version, b.release.short())
        }
        (None, Some(b)) => format!(
            "first release: nothing to go back to but the backup v{} ({})",
            b.model_version,
            b.release.short()
        ),
        (None, None) => "first release and no backup: nothing to go back to".to_owned(),
    }
}

fn warnings(plan: &Plan, forecast: &Forecast) -> Vec<String> {
    let mut found = Vec::new();
    if plan.rollout.unit_header.is_none() && plan.rollout.steps.len() > 1 {
        found.push("the model has no `unit`: assignment is random per request, not sticky".to_owned());
    }
    if plan.control().is_none() {
        found.push(
            "there is nothing to compare with: all traffic moves at once, watched by absolute bounds only"
                .to_owned(),
        );
    }
    for (name, spec) in &plan.gates {
        if let GateSpec::Metric { versus: Some(versus), .. } = spec
            && versus.release.is_none()
        {
            let place = &versus.environment;
            found.push(format!(
                "gate `{name}` has nothing to compare with: `{place}` serves no release of this model yet"
            ));
        }
    }
    if forecast.rows.iter().any(|r| r.seconds.is_none()) {
        found.push(
            "some guards can't be foretold without traffic: the rollout will hold until there is some"
                .to_owned(),
        );
    }
    found
}
