//! Promotions: plan, request, approve, reject, take back, instruct.

use crate::Control;
use crate::error::ControlError;
use crate::places;
use crate::planning::{Standing, obstacles};
use crate::quarantine;
use crate::states::{self, Act, Wanted};
use crate::view::{PromotionRequest, PromotionView};
use lockgate_core::access::{Action, Target, authorize};
use lockgate_core::actor::Actor;
use lockgate_core::digest::Digest;
use lockgate_core::entry::{Resource, ResourceKind};
use lockgate_core::event::{Event, Instruction, InstructionKind, PromotionEvent};
use lockgate_core::id::{CommandId, EnvironmentName, ModelName, PromotionId};
use lockgate_core::plan::Plan;
use lockgate_core::promotion::{Command, Promotion, Stage};
use lockgate_store::Conn;
use std::collections::BTreeSet;

impl Control {
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
        let now = self.clock.now_ms();
        let id = PromotionId::generate(now, &*self.entropy);
        let (control, request, actor) = (self.clone(), request.clone(), actor.clone());
        let made = id.clone();
        self.write(move |tx| {
            Box::pin(async move {
                let standing = Standing::read(tx, &plan, &release, now).await?;
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
            InstructionKind::Switch => Action::RolloutSwitch,
            InstructionKind::Drill => Action::RolloutDrill,
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
        places::known(&self.project().await?, environment)?;
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
        places::single(environment, models)?;
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
            let what = model.map_or_else(|| "nothing".to_owned(), |m| format!("no model `{m}`"));
            ControlError::conflict(format!(
                "environment `{environment}` serves {what} that could be rolled back"
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
            "there is nothing that {place} could go back to: it goes back by one release only, and has none before what serves \
             now, nor another backup"
        ))
        .with_hint(format!("promote the release that it should serve: lockgate history {} lists those that it had", plan.environment))),
        None => Err(ControlError::conflict(format!(
            "promotion {} does not serve {place} any more: its backup does",
            promotion.id
        ))),
    }
}

pub(crate) fn same_place(promotion: &Promotion, plan: &Plan) -> bool {
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
