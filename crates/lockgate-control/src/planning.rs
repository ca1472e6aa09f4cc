//! Plans: what the planner needs is looked up, and what it made is put into words.

use crate::Control;
use crate::drill;
use crate::error::ControlError;
use crate::planner::{self, Facts};
use crate::projection::ReleaseState;
use crate::promotion::same_place;
use crate::quarantine;
use crate::served;
use crate::states::{self, Wanted};
use crate::terms;
use crate::view::{Forecast, PlanView, PromotionRequest};
use lockgate_config::Project;
use lockgate_config::project::BackupRef;
use lockgate_core::access::{Action, Target, authorize};
use lockgate_core::actor::Actor;
use lockgate_core::clock::Millis;
use lockgate_core::digest::Digest;
use lockgate_core::event::Cause;
use lockgate_core::gate::{GateSpec, Outcome};
use lockgate_core::id::{EnvironmentName, GateName, PromotionId};
use lockgate_core::plan::{Lineage, Plan, Revision, Step, Switch};
use lockgate_core::promotion::{Promotion, Stage};
use lockgate_store::Conn;

/// What a plan is judged by, as it stands now.
pub(crate) struct Standing {
    /// All promotions of the model.
    pub(crate) promotions: Vec<Promotion>,
    /// The promotion that left the release in quarantine, if one did.
    pub(crate) quarantine: Option<PromotionId>,
    /// What the environment serves.
    serving: Option<Revision>,
    /// When its way back was drilled last, in words.
    drilled: String,
    /// Why the release's own server can't serve by this plan.
    unserved: Vec<String>,
}

impl Standing {
    pub(crate) async fn read(
        conn: &mut Conn,
        plan: &Plan,
        release: &ReleaseState,
        now: Millis,
    ) -> Result<Self, ControlError> {
        let wanted = Wanted { model: Some(&plan.model), ..Wanted::default() };
        let deployment = states::deployment(conn, &plan.environment, &plan.model).await?;
        Ok(Self {
            promotions: states::promotions(conn, &wanted).await?,
            quarantine: quarantine::find(conn, release).await?,
            drilled: drill::last(&deployment, now),
            serving: deployment.serving.map(|s| s.revision),
            unserved: served::obstacles(plan, &release.manifest.runtime),
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
        let lift = quarantine::reason(request)?;
        let (planned, made, now) = (plan.clone(), release.clone(), self.clock.now_ms());
        let standing = self
            .store
            .read(move |conn| Box::pin(async move { Standing::read(conn, &planned, &made, now).await }))
            .await?;
        let mut obstacles = obstacles(&project, &plan, &standing);
        obstacles.extend(quarantine::obstacle(standing.quarantine.as_ref(), &release.digest, lift, actor));
        let forecast = self.forecast(&plan, request);
        let before = self.baseline_release(&plan).await?;
        let changes = changes(&plan, before.as_ref(), &release);
        let mut warnings = warnings(&plan, &forecast, &standing.promotions);
        let runtime = before.as_ref().map(|b| &b.manifest.runtime);
        warnings.extend(served::warnings(&plan.model, &release.manifest.runtime, runtime));
        let next = match obstacles.first() {
            None => format!(
                "lockgate promote {} --env {} --wait",
                plan.revision.release.short(),
                plan.environment
            ),
            Some(_) => "lockgate status".to_owned(),
        };
        Ok(PlanView {
            warnings,
            terms: terms::terms(&plan),
            changed_terms: terms::changed(&plan, &standing.promotions),
            rollback: rollback_words(&plan, &standing.drilled),
            plan,
            changes,
            obstacles,
            forecast: Some(forecast),
            next,
        })
    }

    pub(crate) async fn make_plan(
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

    /// The release that the environment serves by a plan.
    async fn baseline_release(&self, plan: &Plan) -> Result<Option<ReleaseState>, ControlError> {
        match &plan.baseline {
            None => Ok(None),
            Some(baseline) => self.find_release(&baseline.release.to_string()).await.map(Some),
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

fn changes(plan: &Plan, before: Option<&ReleaseState>, release: &ReleaseState) -> Vec<String> {
    let Some(before) = before else { return vec!["first release of this model here".to_owned()] };
    let mut changes = crate::release::differences(&before.manifest, &release.manifest);
    if plan.baseline.as_ref().is_some_and(|b| b.configuration != plan.revision.configuration) {
        changes.push("the environment's configuration changed".to_owned());
    }
    changes
}

/// Why this plan can't be carried out now.
pub(crate) fn obstacles(project: &Project, plan: &Plan, standing: &Standing) -> Vec<String> {
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
    let before = project.environment(&plan.environment).map(|e| e.after.clone()).unwrap_or_default();
    let passed = |place: &EnvironmentName| witness(promotions, place, release).is_some();
    let missing: Vec<_> =
        before.into_iter().filter(|place| !is_source(project, place) && !passed(place)).collect();
    found.extend(missing.iter().map(|place| {
        let short = release.short();
        format!("release {short} has not passed `{place}` yet: lockgate promote {short} --env {place} --wait")
    }));
    found.extend(standing.unserved.iter().cloned());
    // Of those that it passed some may have other gates by now.
    let gone_through = plan.lineage.iter().filter(|station| !missing.contains(&station.environment));
    found.extend(gone_through.flat_map(|station| lacking(promotions, release, station)));
    if let Some(p) = promotions.iter().find(|p| same_place(p, plan) && p.stage.holds_slot()) {
        found.push(format!(
            "promotion {} moves this model's traffic right now; wait for it or abort it",
            p.id
        ));
    }
    found
}

/// The promotion whose evidence speaks for a release in an earlier environment: the latest that passed there.
pub(crate) fn witness<'a>(
    promotions: &'a [Promotion],
    place: &EnvironmentName,
    release: &Digest,
) -> Option<&'a Promotion> {
    promotions
        .iter()
        .filter(|p| p.plan.environment == *place && p.plan.revision.release == *release && p.has_passed())
        .max_by_key(|p| p.created)
}

/// The gates of an earlier environment whose evidence about the release is missing, or answers another question than the gate
/// asks by now: the agent would ask for it.
fn lacking(promotions: &[Promotion], release: &Digest, station: &Lineage) -> Vec<String> {
    let Lineage { environment: place, gates } = station;
    let witness = witness(promotions, place, release);
    let answered = |gate: &GateName, spec: &GateSpec| {
        let evidence = witness.and_then(|p| p.evidence.get(gate)).filter(|e| e.outcome == Outcome::Pass);
        evidence.and_then(|e| e.envelope.finding_unverified()).is_some_and(|finding| finding.answers(spec))
    };
    let sentence = |gate: &GateName| {
        let short = release.short();
        format!(
            "release {short} has not passed gate `{gate}` of `{place}` as it is now: lockgate promote {short} --env {place} --wait"
        )
    };
    gates.iter().filter(|(gate, spec)| !answered(gate, spec)).map(|(gate, _)| sentence(gate)).collect()
}

/// Whether `environment` is where releases are made: the first one, without gates of its own. Nothing is promoted into it.
fn is_source(project: &Project, environment: &EnvironmentName) -> bool {
    project.environment(environment).is_none_or(|e| e.after.is_empty() && e.gates.is_empty())
}

fn rollback_words(plan: &Plan, drilled: &str) -> String {
    match (&plan.baseline, &plan.backup) {
        (Some(b), _) => {
            let release = b.release.short();
            format!("a change of routes to v{} ({release}), which stays warm; {drilled}", b.model_version)
        }
        (None, Some(b)) => format!(
            "first release: nothing to go back to but the backup v{} ({})",
            b.model_version,
            b.release.short()
        ),
        (None, None) => "first release and no backup: nothing to go back to".to_owned(),
    }
}

/// What a switch from a preview to all users rests on: no guard compares both releases before.
fn switch(plan: &Plan) -> Option<String> {
    let rollout = &plan.rollout;
    let preview = rollout.steps.iter().find_map(|step| step.preview)?;
    if rollout.steps.iter().any(Step::is_judged) || plan.control().is_none() {
        return None;
    }
    let parts = [
        (!plan.gates.is_empty(), "the gates"),
        (rollout.smoke.is_some(), "the smoke test"),
        (preview == Switch::ByHand, "a person"),
    ];
    let parts: Vec<&str> = parts.into_iter().filter(|(is, _)| *is).map(|(_, part)| part).collect();
    let decides = match parts.as_slice() {
        [] => "nothing is asked of the release before".to_owned(),
        [one] => format!("{one} alone decides it"),
        [first @ .., last] => format!("{} and {last} decide it", first.join(", ")),
    };
    let back = match rollout.probation_ms {
        0 => "nothing watches it afterwards, for it has no probation: set probation = \"1h\" or longer",
        _ => "guards and breaker watch it afterwards, on probation, with the way back warm",
    };
    let who = match rollout.holdout {
        0 => "all users".to_owned(),
        parts => format!("all users but {}%", f64::from(parts) / 100.0),
    };
    Some(format!("{who} switch at once, and {decides}: no guard compares before; {back}"))
}

fn warnings(plan: &Plan, forecast: &Forecast, promotions: &[Promotion]) -> Vec<String> {
    let mut found: Vec<String> = promotions
        .iter()
        .filter(|p| same_place(p, plan) && p.plan.revision.release == plan.revision.release)
        .filter_map(|p| match &p.stage {
            Stage::RolledBack { cause: cause @ Cause::Person { .. }, .. } => {
                Some(format!("it was rolled back here before ({}): {}", p.id, cause.summary()))
            }
            _ => None,
        })
        .collect();
    let steps = &plan.rollout.steps;
    found.extend(switch(plan));
    if steps.iter().any(Step::is_preview) && plan.rollout.smoke.is_none() {
        let by_hand = steps.iter().any(|s| s.preview == Some(Switch::ByHand));
        let who = if by_hand { "only whoever switches by hand has" } else { "nothing has" };
        found.push(format!("there is no smoke test: {who} tried the release out before users get it"));
    }
    if plan.rollout.unit_header.is_none() && steps.iter().any(|s| s.weight > 0 && s.is_judged()) {
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
