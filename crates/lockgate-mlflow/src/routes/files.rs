//! `mlflow-artifacts/…`: the files themselves, streamed; and the browser's downloads.

use super::artifacts::files;
use crate::call::{Answer, Call, Caller, Scoped};
use crate::error::MlflowError;
use crate::wire;
use axum::body::Body;
use axum::extract::{Path, Request};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::TryStreamExt as _;
use lockgate_control::tracking::{Opened, Tracking};
use serde_json::json;
use tokio_util::io::{ReaderStream, StreamReader};

/// How many bytes of a download are in memory at a time.
const CHUNK: usize = 64 * 1024;

pub(super) fn routes() -> Router<Tracking> {
    Router::new()
        .route("/artifacts", get(list))
        .route("/artifacts/{*path}", get(download).put(upload).delete(remove))
        .route("/mpu/create/{*path}", post(no_parts))
        .route("/mpu/complete/{*path}", post(no_parts))
        .route("/mpu/abort/{*path}", post(no_parts))
        .route("/presigned/{*path}", get(no_parts))
}

pub(super) fn downloads() -> Router<Tracking> {
    Router::new().route("/get-artifact", get(of_run)).route("/model-versions/get-artifact", get(of_version))
}

async fn list(Call { tracking, actor, message }: Call) -> Answer {
    let found = tracking.list_artifacts(&actor, &message.text_or_empty("path")?).await?;
    Ok(Json(wire::page("files", files(&found, ""), None)))
}

async fn download(
    Scoped(tracking): Scoped,
    Path(path): Path<String>,
    Caller(actor): Caller,
) -> Result<Response, MlflowError> {
    Ok(file(tracking.open_artifact(&actor, &path).await?))
}

async fn upload(
    Scoped(tracking): Scoped,
    Path(path): Path<String>,
    Caller(actor): Caller,
    request: Request,
) -> Result<StatusCode, MlflowError> {
    let bytes = request.into_body().into_data_stream().map_err(std::io::Error::other);
    tracking.put_artifact(&actor, &path, StreamReader::new(bytes)).await?;
    Ok(StatusCode::OK)
}

async fn remove(Path(path): Path<String>, Call { tracking, actor, .. }: Call) -> Answer {
    tracking.delete_artifact(&actor, &path).await?;
    Ok(Json(json!({})))
}

/// Clients fall back to one plain request.
async fn no_parts(_: Caller) -> Answer {
    Err(MlflowError::not_implemented("Files are not transferred in parts here: use a plain PUT or GET"))
}

async fn of_run(Call { tracking, actor, message }: Call) -> Result<Response, MlflowError> {
    let run = tracking.run(&actor, &message.run_id()?).await?;
    let path = tracking.artifact_path(&run.artifact_uri, &message.required("path")?)?;
    Ok(file(tracking.open_artifact(&actor, &path).await?))
}

async fn of_version(Call { tracking, actor, message }: Call) -> Result<Response, MlflowError> {
    let (name, version) = (message.required("name")?, message.required("version")?);
    let version = tracking.model_version(&actor, &name, &version).await?;
    let path = tracking.artifact_path(&version.storage_location, &message.required("path")?)?;
    Ok(file(tracking.open_artifact(&actor, &path).await?))
}

/// A file as a download that no browser runs or shows.
fn file(opened: Opened) -> Response {
    let name: String = opened
        .name
        .chars()
        .map(|c| if c.is_ascii_graphic() && !matches!(c, '"' | '\\') { c } else { '_' })
        .collect();
    let disposition = HeaderValue::try_from(format!("attachment; filename=\"{name}\""))
        .unwrap_or(HeaderValue::from_static("attachment"));
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
        (header::CONTENT_LENGTH, HeaderValue::from(opened.size)),
        (header::CONTENT_DISPOSITION, disposition),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    (headers, Body::from_stream(ReaderStream::with_capacity(opened.reader, CHUNK))).into_response()
}
