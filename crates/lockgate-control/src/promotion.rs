//! Promotions: plan, request, approve, reject, take back, instruct.

use crate::Control;
use crate::error::ControlError;
use crate::planner::{self, Facts};
use crate::projection::ReleaseState;
use crate::states::{self, Act};
use crate::view::{Forecast, PlanView, PromotionRequest, PromotionView};
use lockgate_config::Project;
use lockgate_config::project::BackupRef;
use lockgate_core::access::{Action, Target, authorize};
use lockgate_core::actor::Actor;
use lockgate_core::digest::Digest;
use lockgate_core::entry::{Resource, ResourceKind};
use lockgate_core::event::{Cause, Event, Instruction, InstructionKind, PromotionEvent};
use lockgate_core::gate::GateSpec;
use lockgate_core::id::{CommandId, EnvironmentName, ModelName, PromotionId};
use lockgate_core::plan::{Plan, Revision};
use lockgate_core::promotion::{Command, Promotion, Stage};
use std::collections::BTreeSet;

/// What serves an environment's model, from the promotions: the latest one on probation or confirmed.
pub(crate) fn serving<'a>(
    promotions: impl IntoIterator<Item = &'a Promotion>,
    environment: &EnvironmentName,
    model: &ModelName,
) -> Option<&'a Promotion> {
    promotions
        .into_iter()
        .filter(|p| p.plan.environment == *environment && p.plan.model == *model)
        .filter(|p| matches!(p.stage, Stage::Probation { .. } | Stage::Confirmed))
        .max_by(|a, b| (a.since, &a.id).cmp(&(b.since, &b.id)))
}

/// The revision that a promotion deploys, with its promotion.
fn deployed(promotion: &Promotion) -> Revision {
    Revision { promotion: Some(promotion.id.clone()), ..promotion.plan.revision.clone() }
}

/// Why a release may not enter again by itself: it was rolled back for a fault of its own.
pub(crate) fn quarantined<'a>(
    promotions: impl IntoIterator<Item = &'a Promotion>,
    release: &Digest,
) -> Option<&'a Promotion> {
    promotions.into_iter().find(|p| {
        p.plan.revision.release == *release
            && match &p.stage {
                Stage::RolledBack { cause, .. } => !matches!(cause, Cause::Person { .. }),
                Stage::OnBackup | Stage::Stranded { .. } => true,
                _ => false,
            }
    })
}

impl Control {
    /// Plans a promotion without asking for it.
    ///
    /// # Errors
    /// Where there is no such release or environment, or the configuration can't be fulfilled.
    pub async fn plan(&self, actor: &Actor, request: &PromotionRequest) -> Result<PlanView, ControlError> {
        authorize(actor, Action::Read, Target::Environment(&request.environment))?;
        let project = self.project().await?;
        let (plan, release) = self.make_plan(actor, &project, request).await?;
        let promotions = self.promotions().await?;
        let plan_hash = plan.hash()?;
        let obstacles = self.obstacles(&project, &plan, &promotions, request);
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
        let promotions = self.promotions().await?;
        let model = &release.manifest.model;
        let resolved = project.environment(&request.environment);
        let backup = match resolved.as_ref().and_then(|r| r.backup.clone()) {
            None => None,
            Some(reference) => Some(self.backup_release(&reference, &request.environment).await?),
        };
        let serving_now = serving(&promotions, &request.environment, model).map(deployed);
        let elsewhere = project
            .environments
            .iter()
            .filter_map(|e| {
                Some((e.name.clone(), serving(&promotions, &e.name, model)?.plan.revision.release))
            })
            .collect();
        let principals = self.principals_by_name().await?;
        let facts = Facts {
            release: &release,
            serving: serving_now,
            elsewhere,
            backup: backup.as_ref(),
            principals: &principals,
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
        let (plan, _) = self.make_plan(actor, &project, request).await?;
        let plan_hash = plan.hash()?;
        if request.plan_hash.is_some_and(|seen| seen != plan_hash) {
            return Err(ControlError::conflict("the plan has changed since you looked at it")
                .with_hint("look at the new one with `lockgate plan`"));
        }
        let now = self.clock.now_ms();
        let id = PromotionId::generate(now, &*self.entropy);
        let reason = request
            .lift_quarantine
            .clone()
            .map(|why| format!("quarantine lifted: {why}"))
            .unwrap_or_default();
        let (control, request, actor) = (self.clone(), request.clone(), actor.clone());
        let made = id.clone();
        self.write(move |tx| {
            Box::pin(async move {
                let promotions = states::promotions(tx).await?;
                if let Some(obstacle) =
                    control.obstacles(&project, &plan, &promotions, &request).into_iter().next()
                {
                    return Err(ControlError::conflict(obstacle));
                }
                for older in promotions.iter().filter(|p| same_place(p, &plan)) {
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
        let promotions = self.promotions().await?;
        let here: Vec<&Promotion> = promotions
            .iter()
            .filter(|p| p.plan.environment == *environment && model.is_none_or(|m| p.plan.model == *m))
            .collect();
        let models: BTreeSet<&ModelName> = here.iter().map(|p| &p.plan.model).collect();
        if models.len() > 1 {
            let names: Vec<String> = models.iter().map(ToString::to_string).collect();
            return Err(ControlError::invalid(format!("environment `{environment}` serves several models"))
                .with_hint(format!("name one with --model: {}", names.join(", "))));
        }
        let rolling = here.iter().find(|p| matches!(p.stage, Stage::Rolling { .. }));
        let target =
            rolling.copied().or_else(|| models.first().and_then(|m| serving(&promotions, environment, m)));
        let target = target.ok_or_else(|| {
            ControlError::conflict(format!(
                "environment `{environment}` serves nothing that could be rolled back"
            ))
        })?;
        self.instruct(actor, &target.id, InstructionKind::Rollback, reason).await
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

    /// Why this plan can't be carried out now.
    fn obstacles(
        &self,
        project: &Project,
        plan: &Plan,
        promotions: &[Promotion],
        request: &PromotionRequest,
    ) -> Vec<String> {
        let mut found = Vec::new();
        let release = &plan.revision.release;
        if plan.baseline.as_ref().is_some_and(|b| b.digest() == plan.revision.digest()) {
            found.push(format!(
                "release {} serves `{}` already, with the same configuration",
                release.short(),
                plan.environment
            ));
        }
        if let Some(p) = quarantined(promotions, release).filter(|_| request.lift_quarantine.is_none()) {
            found.push(format!(
                "release {} was rolled back ({}) and is quarantined; lift it with --lift-quarantine \"why\"",
                release.short(),
                p.id
            ));
        }
        for before in project.environment(&plan.environment).map(|e| e.after.clone()).unwrap_or_default() {
            let passed = promotions.iter().any(|p| {
                p.plan.environment == before
                    && p.plan.revision.release == *release
                    && matches!(
                        p.stage,
                        Stage::Probation { .. } | Stage::Confirmed | Stage::Superseded { .. }
                    )
                    && p.missing_gates().is_empty()
            });
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
