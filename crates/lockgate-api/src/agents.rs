//! Routes for agents. Agents call; nothing calls them.

use crate::ApiError;
use crate::extract::{Json, Path, Query};
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, State};
use axum::response::Response;
use axum::routing::{get, post, put};
use axum::{Extension, Router};
use futures_util::TryStreamExt as _;
use lockgate_control::Control;
use lockgate_core::access::{Action, Target, authorize};
use lockgate_core::actor::Actor;
use lockgate_core::digest::Digest;
use lockgate_core::id::EnvironmentName;
use lockgate_core::release::Manifest;
use lockgate_core::wire::{Answer, Desired, Hello, Live, Report, Reported, Welcome};
use serde::Deserialize;
use std::time::Duration;

/// The longest that a question for the desired state may wait.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// The largest report: a few hundred entries with plans and envelopes.
const REPORT_LIMIT: usize = 64 << 20;

pub(crate) fn routes() -> Router<Control> {
    Router::new()
        .route("/agent/v1/hello", post(hello))
        .route("/agent/v1/environments/{environment}/desired", get(desired))
        .route("/agent/v1/environments/{environment}/reports", post(report))
        .route("/agent/v1/environments/{environment}/live", put(live))
        .route("/agent/v1/environments/{environment}/answers", post(answer))
        .route("/agent/v1/environments/{environment}/blobs/{digest}", put(put_log))
        .route("/agent/v1/releases/{digest}", get(manifest))
        .route("/agent/v1/blobs/{digest}", get(blob))
        .layer(DefaultBodyLimit::max(REPORT_LIMIT))
}

async fn hello(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    Json(body): Json<Hello>,
) -> Result<Json<Welcome>, ApiError> {
    Ok(Json(control.hello(&actor, &body).await?))
}

#[derive(Deserialize)]
struct Since {
    #[serde(default)]
    since: u64,
    #[serde(default)]
    wait_ms: u64,
}

async fn desired(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    Path(environment): Path<EnvironmentName>,
    Query(query): Query<Since>,
) -> Result<Json<Desired>, ApiError> {
    let wait = Duration::from_millis(query.wait_ms).min(LONGEST_WAIT);
    Ok(Json(control.desired(&actor, &environment, query.since, wait).await?))
}

async fn report(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    Path(environment): Path<EnvironmentName>,
    Json(body): Json<Report>,
) -> Result<Json<Reported>, ApiError> {
    Ok(Json(control.report(&actor, &environment, &body).await?))
}

async fn live(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    Path(environment): Path<EnvironmentName>,
    Json(body): Json<Live>,
) -> Result<Json<()>, ApiError> {
    Ok(Json(control.note_live(&actor, &environment, body)?))
}

async fn answer(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    Path(environment): Path<EnvironmentName>,
    Json(body): Json<Answer>,
) -> Result<Json<()>, ApiError> {
    Ok(Json(control.answer(&actor, &environment, body)?))
}

async fn manifest(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    Path(digest): Path<Digest>,
) -> Result<Json<Manifest>, ApiError> {
    Ok(Json(control.agent_release(&actor, &digest).await?))
}

async fn blob(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    Path(digest): Path<Digest>,
) -> Result<Response, ApiError> {
    control.agent_may_fetch(&actor, &digest).await?;
    crate::people::bytes(&control, &digest).await
}

/// Gate logs: an agent uploads what its evidence names.
async fn put_log(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    Path((environment, digest)): Path<(EnvironmentName, Digest)>,
    body: Body,
) -> Result<Json<Digest>, ApiError> {
    authorize(&actor, Action::AgentReport, Target::Environment(&environment))
        .map_err(|e| ApiError::forbidden(e.to_string()))?;
    control.put_blob(body.into_data_stream().map_err(std::io::Error::other), &digest).await?;
    Ok(Json(digest))
}
