//! What webhooks are told. The names and the shapes of those that MLflow has are MLflow's.

use super::super::{KeyValue, ModelVersion, TrackingError, sources};
use lockgate_core::clock::{Millis, rfc3339};
use lockgate_store::Tx;
use serde_json::{Map, Value, json};

/// The events that MLflow's clients know.
pub const STOCK: [&str; 15] = [
    "registered_model.created",
    "model_version.created",
    "model_version_tag.set",
    "model_version_tag.deleted",
    "model_version_alias.created",
    "model_version_alias.deleted",
    "prompt.created",
    "prompt_version.created",
    "prompt_tag.set",
    "prompt_tag.deleted",
    "prompt_version_tag.set",
    "prompt_version_tag.deleted",
    "prompt_alias.created",
    "prompt_alias.deleted",
    // Budgets belong to MLflow's gateway for language models; there are none here, so nothing tells of them.
    "budget_policy.exceeded",
];

/// The events that MLflow lacks.
pub const OWN: [&str; 6] = [
    "registered_model.renamed",
    "registered_model.deleted",
    "model_version.deleted",
    "model_version_stage.changed",
    "promotion.completed",
    "promotion.rolled_back",
];

/// Something that happened in the registry, or to what was promoted from it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Event {
    pub(super) name: &'static str,
    pub(super) data: Value,
}

const IS_PROMPT: &str = "mlflow.prompt.is_prompt";
const PROMPT_TYPE: &str = "_mlflow_prompt_type";
const PROMPT_TEXT: &str = "mlflow.prompt.text";

fn is_prompt(tags: &[KeyValue]) -> bool {
    tags.iter().any(|tag| tag.key == IS_PROMPT && tag.value.eq_ignore_ascii_case("true"))
}

/// Tags as an object, without those that only say that it is a prompt.
fn tags(tags: &[KeyValue], hidden: &[&str]) -> Value {
    let shown = tags.iter().filter(|tag| !hidden.contains(&tag.key.as_str()));
    Value::Object(shown.map(|tag| (tag.key.clone(), json!(tag.value))).collect::<Map<_, _>>())
}

impl Event {
    fn new(name: &'static str, data: Value) -> Self {
        Self { name, data }
    }

    /// A registered model or a prompt was made.
    pub(crate) fn model_created(name: &str, all: &[KeyValue], description: Option<&str>) -> Self {
        if is_prompt(all) {
            let tags = tags(all, &[IS_PROMPT, PROMPT_TYPE]);
            let data = json!({"name": name, "tags": tags, "description": description.unwrap_or_default()});
            return Self::new("prompt.created", data);
        }
        let data =
            json!({"name": name, "tags": tags(all, &[]), "description": description.unwrap_or_default()});
        Self::new("registered_model.created", data)
    }

    /// A version of one was made.
    pub(crate) fn version_created(version: &ModelVersion) -> Self {
        let number = version.version.to_string();
        let description = version.description.as_deref().filter(|text| !text.is_empty());
        if sources::is_prompt(version) {
            let text = version.tags.iter().find(|tag| tag.key == PROMPT_TEXT);
            let tags = tags(&version.tags, &[IS_PROMPT, PROMPT_TYPE, PROMPT_TEXT]);
            let template = text.map(|tag| tag.value.as_str()).unwrap_or_default();
            let data = json!({
                "name": version.name, "version": number, "template": template, "tags": tags,
                "description": description,
            });
            return Self::new("prompt_version.created", data);
        }
        let run = Some(version.run_id.as_str()).filter(|id| !id.is_empty());
        let data = json!({
            "name": version.name, "version": number, "source": version.source, "run_id": run,
            "tags": tags(&version.tags, &[]), "description": description,
        });
        Self::new("model_version.created", data)
    }

    /// A tag of a prompt was set, or taken away; MLflow tells nothing of a registered model's.
    pub(crate) fn model_tag(name: &str, all: &[KeyValue], key: &str, value: Option<&str>) -> Option<Self> {
        is_prompt(all).then(|| match value {
            Some(value) => Self::new("prompt_tag.set", json!({"name": name, "key": key, "value": value})),
            None => Self::new("prompt_tag.deleted", json!({"name": name, "key": key})),
        })
    }

    /// A version's tag was set, or taken away.
    pub(crate) fn version_tag(version: &ModelVersion, key: &str, value: Option<&str>) -> Self {
        let (name, number) = (&version.name, version.version.to_string());
        let event = match (sources::is_prompt(version), value.is_some()) {
            (true, true) => "prompt_version_tag.set",
            (true, false) => "prompt_version_tag.deleted",
            (false, true) => "model_version_tag.set",
            (false, false) => "model_version_tag.deleted",
        };
        let mut data = json!({"name": name, "version": number, "key": key});
        if let Some(value) = value {
            data["value"] = json!(value);
        }
        Self::new(event, data)
    }

    /// An alias was pointed to a version, or taken away.
    pub(crate) fn alias(name: &str, prompt: bool, alias: &str, version: Option<i64>) -> Self {
        let event = match (prompt, version.is_some()) {
            (true, true) => "prompt_alias.created",
            (true, false) => "prompt_alias.deleted",
            (false, true) => "model_version_alias.created",
            (false, false) => "model_version_alias.deleted",
        };
        let mut data = json!({"name": name, "alias": alias});
        if let Some(version) = version {
            data["version"] = json!(version.to_string());
        }
        Self::new(event, data)
    }

    /// A registered model was renamed.
    pub(crate) fn model_renamed(old: &str, new: &str) -> Self {
        Self::new("registered_model.renamed", json!({"name": new, "old_name": old}))
    }

    /// A registered model was deleted.
    pub(crate) fn model_deleted(name: &str) -> Self {
        Self::new("registered_model.deleted", json!({"name": name}))
    }

    /// A version was deleted.
    pub(crate) fn version_deleted(name: &str, version: i64) -> Self {
        Self::new("model_version.deleted", json!({"name": name, "version": version.to_string()}))
    }

    /// A version moved from one stage to another.
    pub(crate) fn stage_changed(name: &str, version: i64, from: &str, to: &str) -> Self {
        let version = version.to_string();
        Self::new(
            "model_version_stage.changed",
            json!({"name": name, "version": version, "from_stage": from, "to_stage": to}),
        )
    }

    /// A promotion's release serves all traffic.
    pub(crate) fn promoted(data: Value) -> Self {
        Self::new("promotion.completed", data)
    }

    /// A promotion's release was taken back.
    pub(crate) fn rolled_back(data: Value) -> Self {
        Self::new("promotion.rolled_back", data)
    }

    /// The message as it is delivered.
    pub(super) fn payload(&self, workspace: &str, at: Millis) -> String {
        let (entity, action) = self.name.split_once('.').unwrap_or((self.name, ""));
        // As Python writes it.
        let timestamp = rfc3339(at).replace('Z', "+00:00");
        json!({
            "entity": entity, "action": action, "timestamp": timestamp, "data": self.data, "workspace": workspace,
        })
        .to_string()
    }
}

/// Puts an event into the outbox of every webhook of the workspace that wants it: it is told if, and only if, the
/// transaction is kept.
pub(crate) async fn notify(tx: &mut Tx, event: &Event) -> Result<(), TrackingError> {
    let wanting = tx.webhooks_wanting(event.name).await?;
    if wanting.is_empty() {
        return Ok(());
    }
    let now = tx.now();
    let payload = event.payload(tx.workspace(), now);
    for webhook in wanting {
        tx.enqueue_delivery(&webhook, event.name, &payload, now).await?;
    }
    Ok(())
}

/// An example of an event, for a test of a webhook.
pub(super) fn example(name: &'static str) -> Event {
    let data = match name.split_once('.').unwrap_or_default() {
        ("registered_model" | "prompt", "created") => {
            json!({"name": "example_model", "tags": {"example_key": "example_value"}, "description": "An example"})
        }
        ("prompt_version", _) => json!({
            "name": "example_prompt", "version": "1", "template": "Hello {{name}}!", "tags": {}, "description": null,
        }),
        ("model_version", "created") => json!({
            "name": "example_model", "version": "1", "source": "models:/123", "run_id": "abcd1234abcd5678",
            "tags": {"example_key": "example_value"}, "description": "An example",
        }),
        ("model_version_tag" | "prompt_version_tag", _) => {
            json!({"name": "example_model", "version": "1", "key": "example_key", "value": "example_value"})
        }
        ("prompt_tag", _) => {
            json!({"name": "example_prompt", "key": "example_key", "value": "example_value"})
        }
        ("model_version_alias" | "prompt_alias", _) => {
            json!({"name": "example_model", "alias": "example_alias", "version": "1"})
        }
        _ => json!({"name": "example_model", "version": "1"}),
    };
    Event { name, data }
}
