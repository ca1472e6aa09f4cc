//! `webhooks`. Events that MLflow's clients don't know stand in a field of their own, `lockgate_events`, which they ignore.

use crate::call::{Answer, Call};
use crate::error::MlflowError;
use crate::message::Message;
use crate::page::{Limit, Part};
use crate::wire::{self, put, put_list};
use axum::extract::Path;
use axum::routing::{get, post};
use axum::{Json, Router};
use lockgate_control::tracking::{OWN_EVENTS, STOCK_EVENTS, Tracking, Webhook, WebhookChange};
use serde_json::{Map, Value, json};

/// MLflow's names, in the order of their numbers.
const ENTITIES: [&str; 10] = [
    "REGISTERED_MODEL",
    "MODEL_VERSION",
    "MODEL_VERSION_TAG",
    "MODEL_VERSION_ALIAS",
    "PROMPT",
    "PROMPT_VERSION",
    "PROMPT_TAG",
    "PROMPT_VERSION_TAG",
    "PROMPT_ALIAS",
    "BUDGET_POLICY",
];
const ACTIONS: [&str; 5] = ["CREATED", "UPDATED", "DELETED", "SET", "EXCEEDED"];
/// Budgets belong to MLflow's gateway for language models, which isn't here.
const NEVER: &str = "budget_policy.exceeded";
const STATUSES: [&str; 2] = ["ACTIVE", "DISABLED"];

pub(super) fn routes() -> Router<Tracking> {
    Router::new()
        .route("/webhooks", get(list).post(create))
        .route("/webhooks/{id}", get(one).patch(update).delete(remove))
        .route("/webhooks/{id}/test", post(test))
}

fn shown(webhook: &Webhook) -> Value {
    let (own, stock): (Vec<&String>, Vec<&String>) =
        webhook.events.iter().partition(|event| OWN_EVENTS.contains(&event.as_str()));
    // MLflow's client can't read a webhook without events: one that wants none of MLflow's shows one that never happens.
    let never = NEVER.to_owned();
    let stock = if stock.is_empty() { vec![&never] } else { stock };
    let event = |event: &&String| {
        let (entity, action) = event.split_once('.').unwrap_or((event, ""));
        json!({"entity": entity.to_ascii_uppercase(), "action": action.to_ascii_uppercase()})
    };
    let mut object = Map::new();
    object.insert("webhook_id".to_owned(), json!(webhook.id));
    object.insert("name".to_owned(), json!(webhook.name));
    object.insert("url".to_owned(), json!(webhook.url));
    put_list(&mut object, "events", stock.iter().map(event).collect());
    put_list(&mut object, "lockgate_events", own.iter().map(|event| json!(event)).collect());
    put(&mut object, "description", webhook.description.as_deref());
    object.insert("status".to_owned(), json!(webhook.status));
    object.insert("creation_timestamp".to_owned(), json!(webhook.created));
    object.insert("last_updated_timestamp".to_owned(), json!(webhook.updated));
    Value::Object(object)
}

fn read_event(event: &Message) -> Result<String, MlflowError> {
    let entity = event.choice("entity", &ENTITIES, |name| name)?.ok_or_else(|| event.wrong("entity"))?;
    let action = event.choice("action", &ACTIONS, |name| name)?.ok_or_else(|| event.wrong("action"))?;
    let name = format!("{entity}.{action}").to_ascii_lowercase();
    if STOCK_EVENTS.contains(&name.as_str()) {
        return Ok(name);
    }
    let (entity, action) = (entity.to_ascii_lowercase(), action.to_ascii_lowercase());
    let mut valid: Vec<String> = STOCK_EVENTS
        .iter()
        .filter_map(|event| event.split_once('.').filter(|(of, _)| *of == entity))
        .map(|(_, action)| format!("'{action}'"))
        .collect();
    valid.sort();
    Err(MlflowError::invalid(format!(
        "Invalid action '{action}' for entity '{entity}'. Valid actions are: [{}]",
        valid.join(", ")
    )))
}

fn change(message: &Message) -> Result<WebhookChange, MlflowError> {
    let events = message.messages("events")?.iter().map(read_event).collect::<Result<Vec<_>, _>>()?;
    let own = message.texts("lockgate_events")?;
    Ok(WebhookChange {
        name: message.text("name")?.filter(|text| !text.is_empty()),
        url: message.text("url")?.filter(|text| !text.is_empty()),
        description: message.text("description")?,
        secret: message.text("secret")?,
        active: message.choice("status", &STATUSES, |name| name)?.map(|status| status == STATUSES[0]),
        events: Some(events).filter(|events| !events.is_empty()),
        // Unlike MLflow's own list, an empty one that is there takes all away.
        own_events: Some(own).filter(|_| message.is_set("lockgate_events")),
    })
}

async fn create(Call { tracking, actor, message }: Call) -> Answer {
    for name in ["name", "url"] {
        message.required(name)?;
    }
    if !message.is_set("events") && !message.is_set("lockgate_events") {
        return Err(message.missing("events"));
    }
    let made = tracking.create_webhook(&actor, change(&message)?).await?;
    Ok(Json(json!({"webhook": shown(&made)})))
}

async fn list(Call { tracking, actor, message }: Call) -> Answer {
    // None asked for means as many as usual, also where that is said by a zero.
    let most = message.int("max_results")?.filter(|most| *most != 0).unwrap_or(100);
    if !(1..=1000).contains(&most) {
        return Err(MlflowError::invalid("max_results must be between 1 and 1000."));
    }
    let part = Part::read(&message.with("max_results", most), 100, Limit::stored(1000))?;
    let mut found = tracking.webhooks(&actor, part.page()).await?;
    let token = part.cut(&mut found);
    Ok(Json(wire::page("webhooks", found.iter().map(shown).collect(), token)))
}

async fn one(Path(id): Path<String>, Call { tracking, actor, .. }: Call) -> Answer {
    let found = tracking.webhook(&actor, &id).await?;
    Ok(Json(json!({"webhook": shown(&found)})))
}

async fn update(Path(id): Path<String>, Call { tracking, actor, message }: Call) -> Answer {
    let found = tracking.update_webhook(&actor, &id, change(&message)?).await?;
    Ok(Json(json!({"webhook": shown(&found)})))
}

async fn remove(Path(id): Path<String>, Call { tracking, actor, .. }: Call) -> Answer {
    tracking.delete_webhook(&actor, &id).await?;
    Ok(Json(json!({})))
}

async fn test(Path(id): Path<String>, Call { tracking, actor, message }: Call) -> Answer {
    let event = message.message("event")?.as_ref().map(read_event).transpose()?;
    let result = tracking.test_webhook(&actor, &id, event.as_deref()).await?;
    let mut object = Map::new();
    object.insert("success".to_owned(), json!(result.success));
    if let Some(status) = result.status {
        object.insert("response_status".to_owned(), json!(status));
    }
    put(&mut object, "response_body", result.body.as_deref());
    put(&mut object, "error_message", result.error.as_deref());
    Ok(Json(json!({"result": object})))
}
