//! Registered models and their versions.

use super::{pairs, put, put_list};
use lockgate_control::tracking::{ModelVersion, RegisteredModel};
use serde_json::{Map, Value, json};

/// A version. It is always ready: its files are there before it is.
pub(crate) fn version(version: &ModelVersion) -> Value {
    let mut object = Map::new();
    object.insert("name".to_owned(), json!(version.name));
    object.insert("version".to_owned(), json!(version.version.to_string()));
    object.insert("creation_timestamp".to_owned(), json!(version.created));
    object.insert("last_updated_timestamp".to_owned(), json!(version.updated));
    put(&mut object, "user_id", Some(version.user_id.as_str()).filter(|id| !id.is_empty()));
    object.insert("current_stage".to_owned(), json!(version.stage));
    object.insert("description".to_owned(), json!(version.description.as_deref().unwrap_or_default()));
    object.insert("source".to_owned(), json!(version.source));
    object.insert("run_id".to_owned(), json!(version.run_id));
    object.insert("run_link".to_owned(), json!(version.run_link.as_deref().unwrap_or_default()));
    object.insert("status".to_owned(), json!("READY"));
    put(&mut object, "model_id", Some(version.model_id.as_str()).filter(|id| !id.is_empty()));
    put_list(&mut object, "tags", pairs(&version.tags));
    put_list(&mut object, "aliases", version.aliases.iter().map(|alias| json!(alias)).collect());
    Value::Object(object)
}

/// A registered model.
pub(crate) fn model(model: &RegisteredModel) -> Value {
    let mut object = Map::new();
    object.insert("name".to_owned(), json!(model.name));
    object.insert("creation_timestamp".to_owned(), json!(model.created));
    object.insert("last_updated_timestamp".to_owned(), json!(model.updated));
    // Unlike a version's, an empty description is left out.
    put(&mut object, "description", model.description.as_deref().filter(|text| !text.is_empty()));
    put_list(&mut object, "latest_versions", model.latest.iter().map(version).collect());
    put_list(&mut object, "tags", pairs(&model.tags));
    let alias = |(alias, version): &(String, i64)| json!({"alias": alias, "version": version.to_string()});
    put_list(&mut object, "aliases", model.aliases.iter().map(alias).collect());
    Value::Object(object)
}
