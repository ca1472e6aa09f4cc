//! What clients ask about the server itself, without saying who they are.

use axum::routing::get;
use axum::{Json, Router};
use lockgate_control::tracking::Tracking;
use serde_json::{Value, json};

/// The version of MLflow whose interface this is. Clients take features for granted by it.
const VERSION: &str = "3.17.2";

/// For people who follow a link that a client printed.
const NO_PAGES: &str = "Lockgate. MLflow's clients use this address as MLFLOW_TRACKING_URI; there are no pages to look at here.\n\
                        Runs: mlflow.search_runs(). Releases and environments: lockgate status.\n";

pub(super) fn routes() -> Router<Tracking> {
    Router::new()
        .route("/", get(async || NO_PAGES))
        .route("/health", get(async || "OK"))
        .route("/version", get(async || VERSION))
}

pub(super) fn info() -> Router<Tracking> {
    Router::new().route("/server-info", get(server_info))
}

async fn server_info() -> Json<Value> {
    // Files come in parts from clients that insist (MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD and …_DOWNLOAD). It is not offered to
    // the others: in one piece they are three times faster, and MLflow 3.17's client fails on a `Path` in parts.
    Json(json!({
        "store_type": "SqlStore",
        "workspaces_enabled": true,
        "trace_archival_enabled": false,
        "multipart_uploads_enabled": false,
        "multipart_downloads_enabled": false,
        "artifact_serving_enabled": true,
        "artifacts_presigned_only": false,
        "presigned_upload_run_id_supported": false,
        "presigned_upload_model_id_supported": false,
        "model_artifact_presigned_downloads_supported": false,
        "features_enabled": {"gateway": false, "scheduled_issue_detection": false},
    }))
}
