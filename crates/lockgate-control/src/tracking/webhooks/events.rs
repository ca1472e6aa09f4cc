//! What webhooks are told. The names and the shapes of those that MLflow has are MLflow's.

use super::super::sources::{self, PROMPT_TEXT};
use super::super::{KeyValue, ModelVersion, TrackingError};
use lockgate_core::clock::{Millis, rfc3339};
use lockgate_store::{DEFAULT_WORKSPACE, Tx};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

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
    pub(super) data: Fields,
}

const IS_PROMPT: &str = "mlflow.prompt.is_prompt";
const PROMPT_TYPE: &str = "_mlflow_prompt_type";

/// Fields in the order in which MLflow writes them.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Fields(Vec<(String, Field)>);

#[derive(Debug, Clone, PartialEq)]
enum Field {
    One(Value),
    Many(Fields),
}

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, field)| (name, field)))
    }
}

impl Serialize for Field {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::One(value) => value.serialize(serializer),
            Self::Many(fields) => fields.serialize(serializer),
        }
    }
}

impl From<Map<String, Value>> for Fields {
    fn from(map: Map<String, Value>) -> Self {
        Self(map.into_iter().map(|(name, value)| (name, Field::One(value))).collect())
    }
}

impl Fields {
    fn of(name: &str) -> Self {
        Self(Vec::new()).with("name", name)
    }

    fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.push((name.to_owned(), Field::One(value.into())));
        self
    }

    fn version(self, version: i64) -> Self {
        self.with("version", version.to_string())
    }

    /// Tags, without those that only say that it is a prompt.
    fn tags(mut self, tags: &[KeyValue], hidden: &[&str]) -> Self {
        let shown = tags.iter().filter(|tag| !hidden.contains(&tag.key.as_str()));
        let shown = shown.map(|tag| (tag.key.clone(), Field::One(tag.value.as_str().into()))).collect();
        self.0.push(("tags".to_owned(), Field::Many(Self(shown))));
        self
    }
}

impl Event {
    fn new(name: &'static str, data: Fields) -> Self {
        Self { name, data }
    }

    /// A registered model or a prompt was made.
    pub(crate) fn model_created(name: &str, all: &[KeyValue], description: Option<&str>) -> Self {
        let (event, hidden): (_, &[&str]) = match sources::is_prompt_tagged(all) {
            true => ("prompt.created", &[IS_PROMPT, PROMPT_TYPE]),
            false => ("registered_model.created", &[]),
        };
        let description = description.unwrap_or_default();
        Self::new(event, Fields::of(name).tags(all, hidden).with("description", description))
    }

    /// A version of one was made.
    pub(crate) fn version_created(version: &ModelVersion) -> Self {
        let description = version.description.as_deref().filter(|text| !text.is_empty());
        let fields = Fields::of(&version.name).version(version.version);
        if sources::is_prompt(version) {
            let text = version.tags.iter().find(|tag| tag.key == PROMPT_TEXT);
            let fields = fields
                .with("template", text.map(|tag| tag.value.as_str()))
                .tags(&version.tags, &[IS_PROMPT, PROMPT_TYPE, PROMPT_TEXT]);
            return Self::new("prompt_version.created", fields.with("description", description));
        }
        let run = Some(version.run_id.as_str()).filter(|id| !id.is_empty());
        let fields = fields.with("source", version.source.as_str()).with("run_id", run);
        Self::new("model_version.created", fields.tags(&version.tags, &[]).with("description", description))
    }

    /// A tag of a prompt was set, or taken away; MLflow tells nothing of a registered model's.
    pub(crate) fn model_tag(name: &str, all: &[KeyValue], key: &str, value: Option<&str>) -> Option<Self> {
        let fields = Fields::of(name).with("key", key);
        sources::is_prompt_tagged(all).then(|| match value {
            Some(value) => Self::new("prompt_tag.set", fields.with("value", value)),
            None => Self::new("prompt_tag.deleted", fields),
        })
    }

    /// A version's tag was set, or taken away.
    pub(crate) fn version_tag(version: &ModelVersion, key: &str, value: Option<&str>) -> Self {
        let event = match (sources::is_prompt(version), value.is_some()) {
            (true, true) => "prompt_version_tag.set",
            (true, false) => "prompt_version_tag.deleted",
            (false, true) => "model_version_tag.set",
            (false, false) => "model_version_tag.deleted",
        };
        let fields = Fields::of(&version.name).version(version.version).with("key", key);
        match value {
            Some(value) => Self::new(event, fields.with("value", value)),
            None => Self::new(event, fields),
        }
    }

    /// An alias was pointed to a version, or taken away.
    pub(crate) fn alias(name: &str, prompt: bool, alias: &str, version: Option<i64>) -> Self {
        let event = match (prompt, version.is_some()) {
            (true, true) => "prompt_alias.created",
            (true, false) => "prompt_alias.deleted",
            (false, true) => "model_version_alias.created",
            (false, false) => "model_version_alias.deleted",
        };
        let fields = Fields::of(name).with("alias", alias);
        match version {
            Some(version) => Self::new(event, fields.version(version)),
            None => Self::new(event, fields),
        }
    }

    /// A registered model was renamed.
    pub(crate) fn model_renamed(old: &str, new: &str) -> Self {
        Self::new("registered_model.renamed", Fields::of(new).with("old_name", old))
    }

    /// A registered model was deleted.
    pub(crate) fn model_deleted(name: &str) -> Self {
        Self::new("registered_model.deleted", Fields::of(name))
    }

    /// A version was deleted.
    pub(crate) fn version_deleted(name: &str, version: i64) -> Self {
        Self::new("model_version.deleted", Fields::of(name).version(version))
    }

    /// A version moved from one stage to another.
    pub(crate) fn stage_changed(name: &str, version: i64, from: &str, to: &str) -> Self {
        let fields = Fields::of(name).version(version).with("from_stage", from).with("to_stage", to);
        Self::new("model_version_stage.changed", fields)
    }

    /// A promotion's release serves all traffic.
    pub(crate) fn promoted(data: Map<String, Value>) -> Self {
        Self::new("promotion.completed", data.into())
    }

    /// A promotion's release was taken back.
    pub(crate) fn rolled_back(data: Map<String, Value>) -> Self {
        Self::new("promotion.rolled_back", data.into())
    }

    /// The message as it is delivered.
    pub(super) fn payload(&self, workspace: &str, at: Millis) -> String {
        let (entity, action) = self.name.split_once('.').unwrap_or((self.name, ""));
        // As Python writes it.
        let timestamp = rfc3339(at).replace('Z', "+00:00");
        let mut fields =
            Fields(Vec::new()).with("entity", entity).with("action", action).with("timestamp", timestamp);
        fields.0.push(("data".to_owned(), Field::Many(self.data.clone())));
        // As with MLflow's own server, who knows of no workspaces isn't told of one.
        if workspace != DEFAULT_WORKSPACE {
            fields = fields.with("workspace", workspace);
        }
        json_text(&fields)
    }
}

/// Maps with texts for keys always become JSON.
fn json_text(fields: &Fields) -> String {
    serde_json::to_string(fields).unwrap_or_default()
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

/// An example of an event, for a test of a webhook: MLflow's own examples.
pub(super) fn example(name: &'static str) -> Event {
    let (entity, action) = name.split_once('.').unwrap_or_default();
    let kind = if entity.starts_with("prompt") { "prompt" } else { "model" };
    let fields = Fields::of(&format!("example_{kind}"));
    let tags = [KeyValue { key: "example_key".to_owned(), value: "example_value".to_owned() }];
    let described = |fields: Fields, what: &str| {
        fields.tags(&tags, &[]).with("description", format!("An example {what}"))
    };
    let valued = |fields: Fields| match action {
        "set" => fields.with("key", "example_key").with("value", "example_value"),
        _ => fields.with("key", "example_key"),
    };
    let fields = match (entity, action) {
        ("registered_model", "created") => described(fields, "registered model"),
        ("prompt", "created") => described(fields, "prompt"),
        ("prompt_version", _) => {
            described(fields.version(1).with("template", "Hello {{name}}!"), "prompt version")
        }
        ("model_version", "created") => {
            let fields = fields.version(1).with("source", "models:/123").with("run_id", "abcd1234abcd5678");
            described(fields, "model version")
        }
        ("model_version_tag" | "prompt_version_tag", _) => valued(fields.version(1)),
        ("prompt_tag", _) => valued(fields),
        ("model_version_alias" | "prompt_alias", "created") => {
            fields.with("alias", "example_alias").version(1)
        }
        ("model_version_alias" | "prompt_alias", _) => fields.with("alias", "example_alias"),
        ("budget_policy", _) => budget(),
        ("registered_model", "renamed") => fields.with("old_name", "example_old_name"),
        ("registered_model", _) => fields,
        _ => fields.version(1),
    };
    Event { name, data: fields }
}

fn budget() -> Fields {
    Fields(Vec::new())
        .with("budget_policy_id", "bp-abc123")
        .with("budget_unit", "USD")
        .with("budget_amount", 100.0)
        .with("current_spend", 105.5)
        .with("duration_unit", "MONTHS")
        .with("duration_value", 1)
        .with("target_scope", "ENDPOINT")
        .with("workspace", "default")
        .with("target_value", "ep-abc123")
        .with("window_start", 1_704_067_200_000_i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_mlflows_fields_in_mlflows_order() {
        let at = 1_700_000_000_000;
        let tags = [
            KeyValue { key: "z".to_owned(), value: "1".to_owned() },
            KeyValue { key: "a".to_owned(), value: "2".to_owned() },
        ];
        assert_eq!(
            Event::model_created("m", &tags, None).payload(DEFAULT_WORKSPACE, at),
            r#"{"entity":"registered_model","action":"created","timestamp":"2023-11-14T22:13:20.000000+00:00","data":{"name":"m","tags":{"z":"1","a":"2"},"description":""}}"#
        );
        let inside = Event::alias("m", false, "best", Some(2)).payload("team", at);
        assert!(
            inside.ends_with(r#""data":{"name":"m","alias":"best","version":"2"},"workspace":"team"}"#),
            "{inside}"
        );
    }

    #[test]
    fn examples_are_mlflows() {
        let shown = |name| json_text(&example(name).data);
        for (name, expected) in [
            (
                "registered_model.created",
                r#"{"name":"example_model","tags":{"example_key":"example_value"},"description":"An example registered model"}"#,
            ),
            ("model_version_tag.deleted", r#"{"name":"example_model","version":"1","key":"example_key"}"#),
            ("model_version_alias.deleted", r#"{"name":"example_model","alias":"example_alias"}"#),
            ("prompt_alias.created", r#"{"name":"example_prompt","alias":"example_alias","version":"1"}"#),
            ("prompt_tag.set", r#"{"name":"example_prompt","key":"example_key","value":"example_value"}"#),
        ] {
            assert_eq!(shown(name), expected, "{name}");
        }
        assert!(shown("prompt_version.created").contains(r#""tags":{"example_key":"example_value"}"#));
        assert!(shown("budget_policy.exceeded").starts_with(r#"{"budget_policy_id":"bp-abc123""#));
    }
}
