//! `mlflow-artifacts/…`: the files themselves, streamed; and the browser's downloads.

use super::artifacts::files;
use super::naming;
use super::range::{self, Wanted};
use crate::call::{Answer, Call, Caller, Scoped};
use crate::error::MlflowError;
use crate::wire;
use axum::body::Body;
use axum::extract::{Path, Request};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use futures_util::TryStreamExt as _;
use lockgate_control::tracking::{Opened, Tracking};
use serde_json::json;

pub(super) fn routes() -> Router<Tracking> {
    Router::new()
        .route("/artifacts", get(list))
        .route("/artifacts/{*path}", get(download).put(upload).delete(remove))
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
    headers: HeaderMap,
) -> Result<Response, MlflowError> {
    file(tracking.open_artifact(&actor, &path).await?, &headers).await
}

async fn upload(
    Scoped(tracking): Scoped,
    Path(path): Path<String>,
    Caller(actor): Caller,
    request: Request,
) -> Result<StatusCode, MlflowError> {
    let bytes = request.into_body().into_data_stream().map_err(std::io::Error::other);
    tracking.put_artifact(&actor, &path, bytes).await?;
    Ok(StatusCode::OK)
}

async fn remove(Path(path): Path<String>, Call { tracking, actor, .. }: Call) -> Answer {
    tracking.delete_artifact(&actor, &path).await?;
    Ok(Json(json!({})))
}

async fn of_run(
    headers: HeaderMap,
    Call { tracking, actor, message }: Call,
) -> Result<Response, MlflowError> {
    let path = message.text("path")?.ok_or_else(|| message.missing("path"))?;
    tracking.is_safe(&path)?;
    let run = tracking.run(&actor, &message.run_id()?).await?;
    let path = tracking.artifact_path(&run.artifact_uri, &path)?;
    file(tracking.open_artifact(&actor, &path).await?, &headers).await
}

async fn of_version(
    headers: HeaderMap,
    Call { tracking, actor, message }: Call,
) -> Result<Response, MlflowError> {
    let path = message.required("path")?;
    tracking.check_path(&path)?;
    let (name, version) = (message.required("name")?, message.required("version")?);
    let version = tracking.model_version(&actor, &name, &version).await?;
    let path = tracking.artifact_path(&version.storage_location, &path)?;
    file(tracking.open_artifact(&actor, &path).await?, &headers).await
}

/// A file, or the piece of it that is asked for, as a download that no browser runs or shows.
pub(super) async fn file(opened: Opened, asked: &HeaderMap) -> Result<Response, MlflowError> {
    // Bytes under a digest never change: what asks with it may put pieces together.
    let etag = format!("\"{}\"", opened.digest.hex());
    let mut headers = HeaderMap::from_iter([
        (header::CONTENT_TYPE, HeaderValue::from_static(naming::content_type(&opened.name))),
        (header::CONTENT_DISPOSITION, naming::disposition(&opened.name)),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::ACCEPT_RANGES, HeaderValue::from_static("bytes")),
    ]);
    headers.extend(HeaderValue::try_from(&etag).ok().map(|etag| (header::ETAG, etag)));
    let (status, from, length) = match range::wanted(asked, &etag, opened.size) {
        Wanted::All => (StatusCode::OK, 0, opened.size),
        Wanted::Piece { from, length } => (StatusCode::PARTIAL_CONTENT, from, length),
        Wanted::Nothing => (StatusCode::RANGE_NOT_SATISFIABLE, 0, 0),
    };
    headers.extend(range::content_range(status, from, length, opened.size));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    let body = Body::from_stream(opened.blocks(from, length).await?);
    Ok((status, headers, body).into_response())
}
