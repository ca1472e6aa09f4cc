//! The one place where governed state is read and changed: entry, state and query tables in one transaction.

use crate::Control;
use crate::error::ControlError;
use crate::projection::{self, State};
use lockgate_core::access::Action;
use lockgate_core::actor::{Actor, ActorKind};
use lockgate_core::clock::Millis;
use lockgate_core::digest::commitment;
use lockgate_core::entry::{Effect, Entry, Resource, Source};
use lockgate_core::event::{Event, PromotionEvent};
use lockgate_core::id::{PromotionId, ulid};
use lockgate_core::promotion::{Command, Promotion};
use lockgate_store::people::Sealed;
use lockgate_store::{Conn, NewEntry, StateFilter, StateRow, States, Tx};
use serde_json::Value;

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

/// One promotion, inside a transaction.
pub(crate) async fn promotion(tx: &mut Tx, id: &PromotionId) -> Result<Promotion, ControlError> {
    let found = tx.load_state("Promotion", id.as_str()).await?;
    let text = found.ok_or_else(|| ControlError::not_found(format!("there is no promotion {id}")))?;
    Ok(serde_json::from_str(&text.state)?)
}

/// All promotions, inside a transaction.
pub(crate) async fn promotions(tx: &mut Tx) -> Result<Vec<Promotion>, ControlError> {
    let rows = all(tx, "Promotion").await?;
    rows.iter().map(|r| serde_json::from_str(&r.state).map_err(ControlError::from)).collect()
}

/// Every state of a kind, page by page.
pub(crate) async fn all(conn: &mut Conn, kind: &str) -> Result<Vec<StateRow>, ControlError> {
    let mut filter = StateFilter::kind(kind);
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
    if let Some(after) = projection::fold(entry, before).map_err(|e| e.to_string())? {
        states.save(row(kind, &id, entry, &after).map_err(|e| e.to_string())?);
    }
    Ok(())
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
        if let Some((kind, id)) = projection::key(&entry) {
            let before = tx.load_state(kind, &id).await?;
            let before = before.map(|row| read(kind, &row.state)).transpose()?;
            if let Some(after) = projection::fold(&entry, before)? {
                tx.save_state(row(kind, &id, &entry, &after)?).await?;
            }
        }
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
            let all = promotions(tx).await?;
            let Some(promotion) = all.iter().find(|p| p.id == *id) else { return Ok(()) };
            let slot_free = !all.iter().any(|p| {
                p.id != *id
                    && p.plan.environment == promotion.plan.environment
                    && p.plan.model == promotion.plan.model
                    && p.stage.holds_slot()
            });
            let events = promotion.decide(&Command::Advance { slot_free }, self.clock.now_ms())?;
            if events.is_empty() {
                return Ok(());
            }
            self.record_all(tx, &Actor::system(), Action::PromotionAdvance, promotion, events, "").await?;
        }
        Ok(())
    }
}
