//! Everything at a glance, and promotions as people see them.

use crate::Control;
use crate::error::ControlError;
use crate::people::{Names, named};
use crate::states::{self, Wanted};
use crate::terms;
use crate::tracking::Page;
use crate::view::{
    ApprovalView, DeliveryView, EnvironmentView, GateView, PendingView, PromotionView, StatusView,
};
use lockgate_core::access::{Action, Target, authorize};
use lockgate_core::actor::Actor;
use lockgate_core::id::{EnvironmentName, PromotionId};
use lockgate_core::promotion::{Promotion, Stage, Until};
use lockgate_store::StateRow;
use std::collections::BTreeMap;

impl Control {
    /// The newest messages to webhooks, the newest first.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn deliveries(&self, actor: &Actor, most: u32) -> Result<Vec<DeliveryView>, ControlError> {
        let all = Page { limit: i64::from(u32::MAX), offset: 0 };
        let names: BTreeMap<String, String> =
            self.tracking.webhooks(actor, all).await?.into_iter().map(|one| (one.id, one.name)).collect();
        let found = self.tracking.deliveries(actor, i64::from(most)).await?;
        Ok(found
            .into_iter()
            .map(|one| DeliveryView {
                id: format!("{}-{}", one.webhook_id, one.seq),
                webhook: names.get(&one.webhook_id).cloned().unwrap_or_default(),
                event: one.event,
                state: one.state.as_str().to_owned(),
                attempts: one.attempts,
                at: one.created,
                due: one.due,
                outcome: one.outcome,
            })
            .collect())
    }

    /// The rows of one kind of state.
    pub(crate) async fn rows(&self, kind: &'static str) -> Result<Vec<StateRow>, ControlError> {
        self.store.read(move |conn| Box::pin(async move { states::all(conn, kind).await })).await
    }

    /// All promotions.
    pub(crate) async fn promotions(&self) -> Result<Vec<Promotion>, ControlError> {
        let rows = self.rows("Promotion").await?;
        rows.iter().map(|r| serde_json::from_str(&r.state).map_err(ControlError::from)).collect()
    }

    pub(crate) async fn load_promotion(&self, id: &PromotionId) -> Result<Promotion, ControlError> {
        let id = id.clone();
        self.store.read(move |conn| Box::pin(async move { states::promotion(conn, &id).await })).await
    }

    /// One promotion, without asking who wants to know (its callers have).
    pub(crate) async fn promotion(&self, id: &PromotionId) -> Result<PromotionView, ControlError> {
        let promotion = self.load_promotion(id).await?;
        let siblings = self.siblings(&promotion).await?;
        Ok(self.view_promotion(&promotion, &self.names().await?, &siblings))
    }

    /// All promotions of the same model into the same environment.
    pub(crate) async fn siblings(&self, promotion: &Promotion) -> Result<Vec<Promotion>, ControlError> {
        let (place, model) = (promotion.plan.environment.clone(), promotion.plan.model.clone());
        self.store
            .read(move |conn| {
                Box::pin(async move {
                    let wanted = Wanted { environment: Some(&place), model: Some(&model), stages: &[] };
                    states::promotions(conn, &wanted).await
                })
            })
            .await
    }

    /// One promotion.
    ///
    /// # Errors
    /// Where there is none.
    pub async fn show_promotion(
        &self,
        actor: &Actor,
        id: &PromotionId,
    ) -> Result<PromotionView, ControlError> {
        authorize(actor, Action::Read, Target::Server)?;
        self.promotion(id).await
    }

    /// The promotion that a person means by an id or its end, an environment, or nothing: then the latest.
    ///
    /// # Errors
    /// Where none or several fit.
    pub async fn find_promotion(
        &self,
        actor: &Actor,
        id: Option<&str>,
        environment: Option<&EnvironmentName>,
    ) -> Result<PromotionView, ControlError> {
        authorize(actor, Action::Read, Target::Server)?;
        let wanted = id.map(|t| t.trim_start_matches("pr_").to_ascii_uppercase());
        let all = self.promotions().await?;
        let mut found: Vec<&Promotion> = all
            .iter()
            .filter(|p| environment.is_none_or(|e| p.plan.environment == *e))
            .filter(|p| wanted.as_ref().is_none_or(|w| !w.is_empty() && p.id.as_str().ends_with(w.as_str())))
            .collect();
        found.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        match (found.pop(), found.is_empty(), id) {
            (Some(one), _, None) | (Some(one), true, Some(_)) => {
                Ok(self.view_promotion(one, &self.names().await?, &all))
            }
            (Some(_), false, Some(text)) => {
                Err(ControlError::invalid(format!("several promotions end with {text}"))
                    .with_hint("give more of its end"))
            }
            (None, _, _) => {
                let what = id.map_or_else(|| "no promotion yet".to_owned(), |t| format!("no promotion {t}"));
                let place = environment.map_or_else(String::new, |e| format!(" into `{e}`"));
                Err(ControlError::not_found(format!("there is {what}{place}"))
                    .with_hint("`lockgate status` shows them"))
            }
        }
    }

    /// A promotion for people; `all` holds at least all promotions of the same place, to tell which terms changed.
    pub(crate) fn view_promotion(&self, p: &Promotion, names: &Names, all: &[Promotion]) -> PromotionView {
        let gates = p
            .plan
            .gates
            .iter()
            .map(|(gate, spec)| {
                let found = p.evidence.get(gate);
                GateView {
                    gate: gate.clone(),
                    kind: spec.kind().to_owned(),
                    outcome: found.map(|e| e.outcome),
                    summary: found.map_or_else(String::new, |e| e.summary.clone()),
                    log: found.and_then(|e| e.envelope.finding_unverified()).and_then(|f| f.log),
                }
            })
            .collect();
        let approvals = p.plan.approval.as_ref().map(|rule| ApprovalView {
            needed: rule.count,
            missing: p.approvals_missing(),
            from: if rule.groups.is_empty() { "anybody".to_owned() } else { rule.groups.join(", ") },
            by: p.approvals.iter().map(|a| named(names, &a.by)).collect(),
        });
        let model = self.live_of(&p.plan.environment).and_then(|mut l| l.models.remove(&p.plan.model));
        let moving = model.filter(|m| m.rollout.as_ref().is_some_and(|r| r.promotion == p.id));
        let (live, sides) = moving.map_or((None, Vec::new()), |m| (m.rollout, m.sides));
        PromotionView {
            id: p.id.clone(),
            project: p.plan.project.clone(),
            environment: p.plan.environment.clone(),
            model: p.plan.model.clone(),
            model_version: p.plan.revision.model_version,
            release: p.plan.revision.release,
            plan_hash: p.plan_hash,
            plan: p.plan.clone(),
            stage: p.stage.clone(),
            stage_name: p.stage.name().to_owned(),
            gates,
            approvals,
            requester: named(names, &p.plan.requester),
            authors: p.plan.authors.iter().map(|id| named(names, id)).collect(),
            created: p.created,
            since: p.since,
            live,
            sides,
            terms: terms::terms(&p.plan),
            changed_terms: terms::changed(&p.plan, all),
            smoke: p.smoke.clone(),
            pending: p
                .pending()
                .map(|i| PendingView { what: i.kind, by: named(names, &i.by), reason: i.reason.clone() })
                .collect(),
            needs_person: p.needs_person(),
            next: next(p),
        }
    }

    /// Everything at a glance.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn status(&self, actor: &Actor) -> Result<StatusView, ControlError> {
        authorize(actor, Action::Read, Target::Server)?;
        let now = self.clock.now_ms();
        if self.project_state().await?.is_none() {
            let next = "lockgate up".to_owned();
            return Ok(StatusView {
                project: None,
                now,
                environments: Vec::new(),
                promotions: Vec::new(),
                next,
            });
        }
        let project = self.project().await?;
        let environments: Vec<EnvironmentView> = project
            .environments
            .iter()
            .map(|e| {
                let live = self.live_of(&e.name);
                EnvironmentView {
                    after: e.after.clone(),
                    gateway: live.as_ref().map(|l| l.gateway.clone()),
                    agent_seen: live.as_ref().map(|l| l.at),
                    connected: self.is_connected(&e.name),
                    isolation: live.as_ref().map(|l| l.isolation.clone()),
                    trouble: self.trouble_of(&e.name),
                    doing: live.as_ref().map(|l| l.doing.clone()).unwrap_or_default(),
                    models: live.map(|l| l.models).unwrap_or_default(),
                    name: e.name.clone(),
                }
            })
            .collect();
        let names = self.names().await?;
        let all = self.promotions().await?;
        let mut shown: BTreeMap<(EnvironmentName, bool, String), &Promotion> = BTreeMap::new();
        for p in &all {
            let active = p.stage.is_active();
            let own = if active { p.id.to_string() } else { p.plan.model.to_string() };
            let slot = shown.entry((p.plan.environment.clone(), active, own)).or_insert(p);
            if p.created >= slot.created {
                *slot = p;
            }
        }
        let mut promotions: Vec<&Promotion> = shown.into_values().collect();
        promotions.sort_by_key(|p| std::cmp::Reverse(p.created));
        let next = promotions
            .iter()
            .find(|p| p.stage.is_active())
            .or(promotions.first())
            .map_or_else(|| "lockgate release create MODEL".to_owned(), |p| next(p));
        let promotions = promotions.into_iter().map(|p| self.view_promotion(p, &names, &all)).collect();
        Ok(StatusView { project: Some(project.name.clone()), now, environments, promotions, next })
    }

    /// The end of the logs of an environment's workers.
    ///
    /// # Errors
    /// Where its agent isn't there.
    pub async fn worker_log(
        &self,
        actor: &Actor,
        environment: &EnvironmentName,
        tail: u64,
    ) -> Result<String, ControlError> {
        authorize(actor, Action::Read, Target::Environment(environment))?;
        let ask = lockgate_core::wire::Ask::WorkerLog { model: None, tail: tail.min(1 << 20) };
        let found = self.ask(environment, ask).await?;
        Ok(found.and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default())
    }
}

/// The next sensible command for somebody who knows now why a promotion stands where it does.
pub(crate) fn next_after_why(p: &Promotion) -> String {
    let (short, place) = (short(p), &p.plan.environment);
    match &p.stage {
        Stage::Rolling { rollout } if p.pending().next().is_none() => {
            match rollout.held.as_ref().map(|held| held.until) {
                None => next(p),
                Some(Until::Changed) => {
                    format!("lockgate watch {short}   (or: lockgate abort {short} --reason WHY)")
                }
                Some(Until::Resumed) => format!("lockgate resume {short} --reason WHY"),
                Some(Until::Decided) if p.waits_for_switch() => {
                    format!("lockgate switch {short}   (or: lockgate abort {short} --reason WHY)")
                }
                Some(Until::Decided) => format!("lockgate abort {short} --reason WHY"),
            }
        }
        Stage::RolledBack { .. } => format!("lockgate history {place}"),
        Stage::OnBackup | Stage::Stranded { .. } => {
            format!("lockgate promote RELEASE --env {place} --wait   (one that is better)")
        }
        _ => next(p),
    }
}

/// The end of a promotion's id, by which people name it.
fn short(p: &Promotion) -> &str {
    p.id.as_str().get(23..).unwrap_or(p.id.as_str())
}

/// The next sensible command for a promotion.
fn next(p: &Promotion) -> String {
    let short = short(p);
    match &p.stage {
        Stage::AwaitingApproval => {
            format!("lockgate approve {short} --as SOMEBODY-ELSE   (look first: lockgate why {short})")
        }
        Stage::Gating | Stage::Queued | Stage::RollingBack { .. } | Stage::FailingOver => {
            format!("lockgate watch {short}")
        }
        Stage::Rolling { .. } if p.waits_for_switch() && p.pending().next().is_none() => {
            format!("lockgate switch {short}   (look first: lockgate preview --env {})", p.plan.environment)
        }
        Stage::Rolling { rollout } if rollout.held.is_some() && p.pending().next().is_none() => {
            format!("lockgate why {short}")
        }
        Stage::Rolling { .. } => format!("lockgate watch {short}"),
        Stage::Probation { .. } | Stage::Confirmed => format!("lockgate history {}", p.plan.environment),
        Stage::Rejected { .. } => format!("lockgate logs promotion {short}"),
        Stage::Expired { .. } | Stage::Superseded { .. } | Stage::Cancelled => "lockgate status".to_owned(),
        Stage::RolledBack { .. } | Stage::OnBackup | Stage::Stranded { .. } => {
            format!("lockgate why {short}")
        }
    }
}
