//! What clients ask about the server itself, without saying who they are.

use axum::routing::get;
use axum::{Json, Router};
use lockgate_control::tracking::Tracking;
use serde_json::{Value, json};

/// The version of MLflow whose interface this is. Clients take features for granted by it.
const VERSION: &str = "3.17.2";

pub(super) fn routes() -> Router<Tracking> {
    Router::new().route("/health", get(async || "OK")).route("/version", get(async || VERSION))
}

pub(super) fn info() -> Router<Tracking> {
    Router::new().route("/server-info", get(server_info))
}

async fn server_info() -> Json<Value> {
    Json(json!({
        "store_type": "SqlStore",
        "workspaces_enabled": false,
        "trace_archival_enabled": false,
        "multipart_uploads_enabled": true,
        "multipart_downloads_enabled": true,
        "artifact_serving_enabled": true,
        "artifacts_presigned_only": false,
        "presigned_upload_run_id_supported": false,
        "presigned_upload_model_id_supported": false,
        "model_artifact_presigned_downloads_supported": false,
        "features_enabled": {"gateway": false, "scheduled_issue_detection": false},
    }))
}
