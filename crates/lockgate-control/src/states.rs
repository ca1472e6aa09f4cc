//! The one place where governed state is read and changed: entry, state and query tables in one transaction.

use crate::Control;
use crate::error::ControlError;
use crate::projection::{self, State};
use crate::tracking::following::{self, Mover};
use crate::tracking::webhooks;
use lockgate_core::access::Action;
use lockgate_core::actor::{Actor, ActorKind};
use lockgate_core::clock::Millis;
use lockgate_core::digest::commitment;
use lockgate_core::entry::{Effect, Entry, Resource, Source};
use lockgate_core::event::{Event, PromotionEvent, RolloutEvent};
use lockgate_core::id::{EnvironmentName, ModelName, PromotionId, ulid};
use lockgate_core::promotion::{Command, Promotion, Stage};
use lockgate_core::rollout::Deployment;
use lockgate_store::people::Sealed;
use lockgate_store::{Conn, NewEntry, StateFilter, StateRow, States, Tx};
use serde_json::{Value, json};

/// The stages in which a promotion waits for evidence, people or its turn, some of them with a deadline.
pub(crate) const WAITING: [&str; 3] = ["gating", "awaiting-approval", "queued"];

/// The stages in which a promotion holds its environment's and model's slot ([`Stage::holds_slot`]).
const HOLDING: [&str; 3] = ["rolling", "rolling-back", "failing-over"];

/// One act that is carried out.
pub(crate) struct Act {
    pub(crate) actor: Actor,
    pub(crate) action: Action,
    pub(crate) resource: Resource,
    pub(crate) event: Event,
    pub(crate) reason: String,
    pub(crate) source: Option<Source>,
}

/// Reads a state of `kind` from its stored form.
pub(crate) fn read(kind: &str, text: &str) -> Result<State, ControlError> {
    Ok(match kind {
        "Project" => State::Project(serde_json::from_str(text)?),
        "Environment" => State::Environment(serde_json::from_str(text)?),
        "Release" => State::Release(serde_json::from_str(text)?),
        "Promotion" => State::Promotion(serde_json::from_str(text)?),
        "Deployment" => State::Deployment(serde_json::from_str(text)?),
        other => return Err(ControlError::Internal(format!("there is a state of unknown kind `{other}`"))),
    })
}

/// The stored form of a state: its row in the query tables.
pub(crate) fn row(
    kind: &'static str,
    id: &str,
    entry: &Entry,
    state: &State,
) -> Result<StateRow, ControlError> {
    let (model, stage, created, value): (String, &str, Millis, Value) = match state {
        State::Project(s) => (String::new(), "", 0, serde_json::to_value(s)?),
        State::Environment(s) => (String::new(), "", 0, serde_json::to_value(s)?),
        State::Release(s) => (s.manifest.model.to_string(), "", s.created, serde_json::to_value(s)?),
        State::Promotion(s) => {
            (s.plan.model.to_string(), s.stage.name(), s.created, serde_json::to_value(s)?)
        }
        State::Deployment(s) => (s.model.to_string(), "", 0, serde_json::to_value(s)?),
    };
    let text = |name: Option<String>| name.unwrap_or_default();
    Ok(StateRow {
        project: text(entry.resource.project.as_ref().map(ToString::to_string)),
        environment: text(entry.resource.environment.as_ref().map(ToString::to_string)),
        model,
        stage: stage.to_owned(),
        seq: entry.seq,
        created,
        ..StateRow::new(kind, id, &value)?
    })
}

/// Which promotions are wanted. Nothing in a field means any.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted<'a> {
    pub(crate) environment: Option<&'a EnvironmentName>,
    pub(crate) model: Option<&'a ModelName>,
    pub(crate) stages: &'a [&'a str],
}

/// One promotion, if there is one with this id.
pub(crate) async fn find_promotion(
    conn: &mut Conn,
    id: &PromotionId,
) -> Result<Option<Promotion>, ControlError> {
    let found = conn.load_state("Promotion", id.as_str()).await?;
    Ok(found.map(|row| serde_json::from_str(&row.state)).transpose()?)
}

/// One promotion.
pub(crate) async fn promotion(conn: &mut Conn, id: &PromotionId) -> Result<Promotion, ControlError> {
    let found = find_promotion(conn, id).await?;
    found.ok_or_else(|| ControlError::not_found(format!("there is no promotion {id}")))
}

/// Promotions, in the order in which they were asked for within each stage.
pub(crate) async fn promotions(conn: &mut Conn, wanted: &Wanted<'_>) -> Result<Vec<Promotion>, ControlError> {
    let stages: Vec<Option<String>> = match wanted.stages {
        [] => vec![None],
        some => some.iter().map(|s| Some((*s).to_owned())).collect(),
    };
    let mut found = Vec::new();
    for stage in stages {
        let filter = StateFilter {
            environment: wanted.environment.map(ToString::to_string),
            model: wanted.model.map(ToString::to_string),
            stage,
            ..StateFilter::kind("Promotion")
        };
        for row in pages(conn, filter).await? {
            found.push(serde_json::from_str(&row.state)?);
        }
    }
    Ok(found)
}

/// Whether no other promotion than `promotion` moves its environment's and model's traffic.
pub(crate) async fn is_slot_free(conn: &mut Conn, promotion: &Promotion) -> Result<bool, ControlError> {
    let wanted = Wanted {
        environment: Some(&promotion.plan.environment),
        model: Some(&promotion.plan.model),
        stages: &HOLDING,
    };
    Ok(promotions(conn, &wanted).await?.iter().all(|p| p.id == promotion.id))
}

/// The promotions that can go on at `now`: only those that wait are looked at, so that a long history costs nothing.
pub(crate) async fn due(conn: &mut Conn, now: Millis) -> Result<Vec<PromotionId>, ControlError> {
    let waiting = promotions(conn, &Wanted { stages: &WAITING, ..Wanted::default() }).await?;
    let mut due = Vec::new();
    for promotion in waiting {
        let slot_free = promotion.stage == Stage::Queued && is_slot_free(conn, &promotion).await?;
        if !promotion.decide(&Command::Advance { slot_free }, now)?.is_empty() {
            due.push(promotion.id);
        }
    }
    Ok(due)
}

/// What an environment does for a model, as far as its agent reported it.
pub(crate) async fn deployment(
    conn: &mut Conn,
    environment: &EnvironmentName,
    model: &ModelName,
) -> Result<Deployment, ControlError> {
    let found = conn.load_state("Deployment", &projection::deployment_id(environment, model)).await?;
    found.map_or_else(|| Ok(Deployment::new(model.clone())), |row| Ok(serde_json::from_str(&row.state)?))
}

/// What one environment or each of them does, for one model or each of them.
pub(crate) async fn deployments(
    conn: &mut Conn,
    environment: Option<&EnvironmentName>,
    model: Option<&ModelName>,
) -> Result<Vec<(EnvironmentName, Deployment)>, ControlError> {
    let filter = StateFilter {
        environment: environment.map(ToString::to_string),
        model: model.map(ToString::to_string),
        ..StateFilter::kind("Deployment")
    };
    let rows = pages(conn, filter).await?;
    rows.iter()
        .map(|row| Ok((EnvironmentName::new(row.environment.clone())?, serde_json::from_str(&row.state)?)))
        .collect()
}

/// Every state of a kind, page by page.
pub(crate) async fn all(conn: &mut Conn, kind: &str) -> Result<Vec<StateRow>, ControlError> {
    pages(conn, StateFilter::kind(kind)).await
}

async fn pages(conn: &mut Conn, mut filter: StateFilter) -> Result<Vec<StateRow>, ControlError> {
    let mut rows: Vec<StateRow> = Vec::new();
    loop {
        let page = conn.states(&filter).await?;
        let Some(last) = page.last() else { return Ok(rows) };
        filter.after = Some((last.created, last.id.clone()));
        rows.extend(page);
    }
}

/// One entry's fold over the states: what the write path does, for rebuilding and comparing.
pub(crate) fn apply(entry: &Entry, states: &mut States) -> Result<(), String> {
    let Some((kind, id)) = projection::key(entry) else { return Ok(()) };
    let before =
        states.load(kind, &id).map(|r| read(kind, &r.state)).transpose().map_err(|e| e.to_string())?;
    let Some(after) = projection::fold(entry, before).map_err(|e| e.to_string())? else { return Ok(()) };
    states.save(row(kind, &id, entry, &after).map_err(|e| e.to_string())?);
    if let Some((id, fold)) = projection::deployment(entry, &after) {
        let before = states.load("Deployment", &id).map(|r| serde_json::from_str(&r.state)).transpose();
        let state = State::Deployment(Box::new(fold(before.map_err(|e| e.to_string())?)));
        states.save(row("Deployment", &id, entry, &state).map_err(|e| e.to_string())?);
    }
    Ok(())
}

/// The same within the transaction that appends the entry.
async fn carry_out(tx: &mut Tx, entry: &Entry) -> Result<(), ControlError> {
    let Some((kind, id)) = projection::key(entry) else { return Ok(()) };
    let before = tx.load_state(kind, &id).await?.map(|row| read(kind, &row.state)).transpose()?;
    let Some(after) = projection::fold(entry, before)? else { return Ok(()) };
    tx.save_state(row(kind, &id, entry, &after)?).await?;
    if let State::Project(_) = &after {
        let mover = Mover { actor: &entry.actor, at: entry.at(), promotion: None };
        following::realign(tx, mover).await?;
    }
    if let State::Release(release) = &after {
        following::note_release(tx, release).await?;
    }
    if let Some((id, fold)) = projection::deployment(entry, &after) {
        let before = tx.load_state("Deployment", &id).await?;
        let before: Option<Deployment> = before.map(|row| serde_json::from_str(&row.state)).transpose()?;
        let version = |d: &Deployment| d.traffic().main.map(|revision| revision.model_version);
        let was = before.as_ref().and_then(version);
        let deployment = fold(before);
        let is = version(&deployment);
        let state = State::Deployment(Box::new(deployment));
        tx.save_state(row("Deployment", &id, entry, &state)?).await?;
        if let State::Promotion(promotion) = &after {
            tell(tx, entry, promotion).await?;
            if was != is {
                let (actor, at) = (&entry.actor, projection::source_time(entry));
                let mover = Mover { actor, at, promotion: Some(&promotion.id) };
                following::follow(tx, &promotion.plan.environment, &promotion.plan.model, mover).await?;
            }
        }
    }
    Ok(())
}

/// Tells webhooks how a promotion ended.
async fn tell(tx: &mut Tx, entry: &Entry, promotion: &Promotion) -> Result<(), ControlError> {
    let Some(Event::Rollout(event)) = &entry.event else { return Ok(()) };
    let plan = &promotion.plan;
    let data = serde_json::Map::from_iter([
        ("promotion".to_owned(), json!(promotion.id)),
        ("environment".to_owned(), json!(plan.environment)),
        ("name".to_owned(), json!(plan.model)),
        ("version".to_owned(), json!(plan.revision.model_version.to_string())),
        ("release".to_owned(), json!(plan.revision.release)),
    ]);
    let event = match &**event {
        RolloutEvent::Promoted { .. } => webhooks::Event::promoted(data),
        RolloutEvent::RolledBack(_) => webhooks::Event::rolled_back(data),
        _ => return Ok(()),
    };
    Ok(webhooks::notify(tx, &event).await?)
}

impl Control {
    /// Appends one entry. The actor's name isn't in it: a salted commitment is, and what opens it stands in a table of its
    /// own that can be erased.
    async fn append(&self, tx: &mut Tx, mut new: NewEntry) -> Result<Entry, ControlError> {
        let name = match new.actor.kind {
            ActorKind::User | ActorKind::Service => tx.principal_by_id(&new.actor.id).await?.map(|p| p.name),
            ActorKind::Agent | ActorKind::System => None,
        };
        let mut salt = [0; 32];
        self.entropy.fill(&mut salt);
        new.actor.sealed = name.as_deref().map(|name| commitment(&salt, name));
        let now = self.clock.now_ms();
        let entry = tx.append(new, &ulid(now, &*self.entropy), now).await?;
        if let Some(name) = name {
            let sealed = Sealed { salt: hex::encode(salt), value: Value::from(name).to_string() };
            tx.seal(entry.seq, &sealed).await?;
        }
        Ok(entry)
    }

    /// Appends an entry and carries its event out, in one transaction.
    pub(crate) async fn record(&self, tx: &mut Tx, act: Act) -> Result<Entry, ControlError> {
        let entry = NewEntry {
            actor: act.actor,
            action: act.action.as_str().to_owned(),
            effect: Effect::Allow,
            resource: act.resource,
            event: Some(act.event),
            reason: act.reason,
            source: act.source,
        };
        let entry = self.append(tx, entry).await?;
        carry_out(tx, &entry).await?;
        Ok(entry)
    }

    /// Records what follows for one promotion.
    pub(crate) async fn record_all(
        &self,
        tx: &mut Tx,
        actor: &Actor,
        action: Action,
        promotion: &Promotion,
        events: Vec<PromotionEvent>,
        reason: &str,
    ) -> Result<(), ControlError> {
        for event in events {
            let act = Act {
                actor: actor.clone(),
                action,
                resource: crate::promotion::resource(&promotion.id, &promotion.plan),
                event: Event::Promotion(Box::new(event)),
                reason: reason.to_owned(),
                source: None,
            };
            self.record(tx, act).await?;
        }
        Ok(())
    }

    /// Records what an agent reported and what changes nothing.
    pub(crate) async fn record_note(
        &self,
        tx: &mut Tx,
        actor: &Actor,
        action: Action,
        resource: Resource,
        why: &str,
        source: Source,
    ) -> Result<(), ControlError> {
        let new = NewEntry {
            actor: actor.clone(),
            action: action.as_str().to_owned(),
            effect: Effect::Deny,
            resource,
            event: None,
            reason: why.to_owned(),
            source: Some(source),
        };
        self.append(tx, new).await.map(|_| ())
    }

    /// Records something that was given out and that changes nothing.
    pub(crate) async fn record_access(
        &self,
        tx: &mut Tx,
        actor: &Actor,
        action: Action,
        resource: Resource,
        reason: &str,
    ) -> Result<(), ControlError> {
        let new = NewEntry {
            actor: actor.clone(),
            action: action.as_str().to_owned(),
            effect: Effect::Allow,
            resource,
            event: None,
            reason: reason.to_owned(),
            source: None,
        };
        self.append(tx, new).await.map(|_| ())
    }

    /// Records a refusal.
    pub(crate) async fn record_denial(
        &self,
        tx: &mut Tx,
        actor: &Actor,
        action: Action,
        promotion: &Promotion,
        why: &str,
    ) -> Result<(), ControlError> {
        let new = NewEntry {
            actor: actor.clone(),
            action: action.as_str().to_owned(),
            effect: Effect::Deny,
            resource: crate::promotion::resource(&promotion.id, &promotion.plan),
            event: None,
            reason: why.to_owned(),
            source: None,
        };
        self.append(tx, new).await.map(|_| ())
    }

    /// Moves a promotion on as far as its conditions allow.
    pub(crate) async fn advance_in(&self, tx: &mut Tx, id: &PromotionId) -> Result<(), ControlError> {
        // Gating, approval and queue are three moves; more can't follow one another without something new.
        for _ in 0..4 {
            let Some(promotion) = find_promotion(tx, id).await? else { return Ok(()) };
            let slot_free = promotion.stage == Stage::Queued && is_slot_free(tx, &promotion).await?;
            let events = promotion.decide(&Command::Advance { slot_free }, self.clock.now_ms())?;
            if events.is_empty() {
                return Ok(());
            }
            self.record_all(tx, &Actor::system(), Action::PromotionAdvance, &promotion, events, "").await?;
        }
        Ok(())
    }
}
