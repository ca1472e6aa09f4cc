//! `artifacts/list` and a logged model's directories: artifacts by their owner.

use crate::call::{Answer, Call};
use crate::wire::put_list;
use axum::extract::Path;
use axum::routing::get;
use axum::{Json, Router};
use lockgate_control::tracking::{Listed, Tracking};
use serde_json::{Map, Value, json};

pub(super) fn routes() -> Router<Tracking> {
    Router::new()
        .route("/artifacts/list", get(of_run))
        .route("/logged-models/{id}/artifacts/directories", get(of_model))
}

/// A folder's items; their paths begin with `below`.
pub(super) fn files(list: &[Listed], below: &str) -> Vec<Value> {
    let path = |item: &Listed| match below.trim_end_matches('/') {
        "" => item.name.clone(),
        below => format!("{below}/{}", item.name),
    };
    let show = |item: &Listed| match item.size {
        Some(size) => json!({"path": path(item), "is_dir": false, "file_size": size}),
        None => json!({"path": path(item), "is_dir": true}),
    };
    list.iter().map(show).collect()
}

async fn of_run(call: Call) -> Answer {
    let run = call.tracking.run(&call.actor, &call.message.run_id()?).await?;
    listing(&call, "files", &run.artifact_uri, &call.message.text_or_empty("path")?).await
}

async fn of_model(Path(id): Path<String>, call: Call) -> Answer {
    let model = call.tracking.logged_model(&call.actor, &id).await?;
    let below = call.message.text_or_empty("artifact_directory_path")?;
    listing(&call, "files", &model.artifact_uri, &below).await
}

async fn listing(call: &Call, name: &str, uri: &str, below: &str) -> Answer {
    let path = call.tracking.artifact_path(uri, below)?;
    let list = call.tracking.list_artifacts(&call.actor, &path).await?;
    let mut object = Map::new();
    object.insert("root_uri".to_owned(), json!(uri));
    put_list(&mut object, name, files(&list, below));
    Ok(Json(Value::Object(object)))
}
