//! `workspaces`, and the URL prefix that names an environment.

use crate::call::{Answer, Call, Prefix};
use crate::error::MlflowError;
use crate::wire::put;
use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get};
use axum::{Json, Router};
use lockgate_control::tracking::{DEFAULT_WORKSPACE, Tracking, Workspace, WorkspaceChange};
use lockgate_core::actor::Actor;
use serde_json::{Map, Value, json};
use tower::ServiceExt as _;

pub(super) fn routes() -> Router<Tracking> {
    Router::new()
        .route("/workspaces", get(list).post(create))
        .route("/workspaces/{name}", get(one).patch(update).delete(remove))
}

/// `/env/NAME/…`: all routes once more, for the data of one environment.
pub(super) fn by_prefix(all: Router) -> Router {
    Router::new().route("/env/{environment}/{*rest}", any(enter)).with_state(all)
}

/// `//…`: all routes once more.
pub(super) fn by_slashes(all: Router) -> Router {
    Router::new().route("//{*rest}", any(drop_slash)).with_state(all)
}

async fn enter(
    State(all): State<Router>,
    Path((environment, _)): Path<(String, String)>,
    request: Request,
) -> Response {
    // The rest is taken from the URL as it is: its parts are decoded once, by their own routes.
    pass_on(all, request, |text| text.splitn(4, '/').nth(3).unwrap_or_default(), Some(Prefix(environment)))
        .await
}

async fn drop_slash(State(all): State<Router>, request: Request) -> Response {
    pass_on(all, request, |text| text.trim_start_matches('/'), None).await
}

/// Hands a request on under what is left of its URL.
async fn pass_on(all: Router, request: Request, rest: fn(&str) -> &str, prefix: Option<Prefix>) -> Response {
    let (mut parts, body) = request.into_parts();
    let text = parts.uri.path_and_query().map_or("", |found| found.as_str());
    let rest = rest(text);
    let Ok(uri) = Uri::try_from(format!("/{rest}")) else { return StatusCode::NOT_FOUND.into_response() };
    parts.uri = uri;
    // What the outer routes found in the path must not be taken for the inner ones'.
    let actor = parts.extensions.remove::<Actor>();
    parts.extensions.clear();
    if let Some(actor) = actor {
        parts.extensions.insert(actor);
    }
    if let Some(prefix) = prefix {
        parts.extensions.insert(prefix);
    }
    let answer = all.oneshot(Request::from_parts(parts, body)).await;
    answer.unwrap_or_else(|never| match never {})
}

fn shown(workspace: &Workspace) -> Value {
    let mut object = Map::new();
    object.insert("name".to_owned(), json!(workspace.name));
    put(&mut object, "description", workspace.description.as_deref());
    put(&mut object, "default_artifact_root", workspace.artifact_root.as_deref());
    Value::Object(object)
}

fn change(call: &Call) -> Result<WorkspaceChange, MlflowError> {
    Ok(WorkspaceChange {
        description: call.message.text("description")?,
        artifact_root: call.message.text("default_artifact_root")?,
    })
}

async fn list(Call { tracking, actor, .. }: Call) -> Answer {
    let all: Vec<Value> = tracking.workspaces(&actor).await?.iter().map(shown).collect();
    Ok(Json(json!({"workspaces": all})))
}

async fn create(call: Call) -> Result<(StatusCode, Json<Value>), MlflowError> {
    let name = call.message.required("name")?;
    let made = call.tracking.create_workspace(&call.actor, &name, change(&call)?).await?;
    Ok((StatusCode::CREATED, Json(json!({"workspace": shown(&made)}))))
}

async fn one(Path(name): Path<String>, Call { tracking, actor, .. }: Call) -> Answer {
    let found = tracking.workspace(&actor, &name).await?;
    Ok(Json(json!({"workspace": shown(&found)})))
}

async fn update(Path(name): Path<String>, call: Call) -> Answer {
    let found = call.tracking.update_workspace(&call.actor, &name, change(&call)?).await?;
    Ok(Json(json!({"workspace": shown(&found)})))
}

async fn remove(
    Path(name): Path<String>,
    Call { tracking, actor, message }: Call,
) -> Result<StatusCode, MlflowError> {
    match message.text("mode")?.as_deref() {
        // There is no deleting it, however.
        _ if name == DEFAULT_WORKSPACE => {}
        None | Some("RESTRICT") => {}
        Some(mode @ ("CASCADE" | "SET_DEFAULT")) => {
            return Err(MlflowError::not_implemented(format!(
                "Workspaces are deleted when they are empty; mode {mode} is not there"
            )));
        }
        Some(mode) => {
            return Err(MlflowError::invalid(format!(
                "Invalid deletion mode '{mode}'. Must be one of: SET_DEFAULT, CASCADE, RESTRICT"
            )));
        }
    }
    tracking.delete_workspace(&actor, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}
