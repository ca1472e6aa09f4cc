//! `/api/v1/import/mlflow`: the records of another store, and what is here already.

use crate::ApiError;
use crate::extract::{Json, Query};
use axum::extract::{DefaultBodyLimit, State};
use axum::routing::{get, post};
use axum::{Extension, Router};
use lockgate_control::tracking::exchange::{KnownFile, KnownRun, KnownTrace, Outcome, Record};
use lockgate_control::{Control, ControlError};
use lockgate_core::actor::Actor;
use serde::{Deserialize, Serialize};

/// The largest batch. One dataset's profile alone may have 16 MiB.
const BATCH_LIMIT: usize = 256 << 20;

pub(crate) fn routes() -> Router<Control> {
    Router::new()
        .route("/api/v1/import/mlflow", post(take))
        .route("/api/v1/import/mlflow/runs", post(runs))
        .route("/api/v1/import/mlflow/traces", post(traces))
        .route("/api/v1/import/mlflow/files", get(files))
        .layer(DefaultBodyLimit::max(BATCH_LIMIT))
}

type Answer<T> = Result<Json<T>, ApiError>;

#[derive(Debug, Deserialize)]
struct Batch {
    records: Vec<Record>,
    /// Only say what would become of them.
    #[serde(default)]
    dry: bool,
}

#[derive(Debug, Serialize)]
struct Outcomes {
    outcomes: Vec<Outcome>,
}

async fn take(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    Json(batch): Json<Batch>,
) -> Answer<Outcomes> {
    let taken = control.tracking().import(&actor, batch.records, batch.dry).await;
    Ok(Json(Outcomes { outcomes: taken.map_err(ControlError::from)? }))
}

#[derive(Debug, Deserialize)]
struct Runs {
    runs: Vec<String>,
}

async fn runs(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    Json(body): Json<Runs>,
) -> Answer<Vec<KnownRun>> {
    let found = control.tracking().known_runs(&actor, body.runs).await;
    Ok(Json(found.map_err(ControlError::from)?))
}

#[derive(Debug, Deserialize)]
struct Traces {
    traces: Vec<String>,
    /// Tell the traces as well, not only their digests.
    #[serde(default)]
    whole: bool,
}

async fn traces(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    Json(body): Json<Traces>,
) -> Answer<Vec<KnownTrace>> {
    let found = control.tracking().known_traces(&actor, body.traces, body.whole).await;
    Ok(Json(found.map_err(ControlError::from)?))
}

#[derive(Debug, Deserialize)]
struct Below {
    uri: String,
}

async fn files(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    Query(below): Query<Below>,
) -> Answer<Vec<KnownFile>> {
    let found = control.tracking().known_files(&actor, &below.uri).await;
    Ok(Json(found.map_err(ControlError::from)?))
}
