//! What MLflow's own pages ask for beside what clients do, under `/ajax-api` alone. Its tests and tools ask for it as well.

use super::files::file;
use super::naming;
use crate::call::{BODY_LIMIT, Call, Caller, Scoped};
use crate::error::MlflowError;
use crate::message::Message;
use crate::wire;
use axum::body::Body;
use axum::extract::{Path, Query};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::TryStreamExt as _;
use lockgate_control::tracking::{Span, TraceData, Tracking, TrackingError};
use std::collections::BTreeMap;

/// For how many runs at once histories can be asked, and how many points one answer holds.
const RUNS: usize = 100;
const POINTS: usize = 25_000;
/// The largest file that a page sends.
const UPLOAD: usize = 10 << 20;
/// What the file of a trace's spans is called.
const SPANS: &str = "traces.json";

pub(super) fn routes() -> Router<Tracking> {
    Router::new()
        .route("/metrics/get-history-bulk", get(histories))
        .route("/upload-artifact", post(upload))
        .route("/logged-models/{id}/artifacts/files", get(of_model))
        .merge(third())
}

/// What is there in the third version as well.
pub(super) fn third() -> Router<Tracking> {
    Router::new().route("/get-trace-artifact", get(of_trace))
}

/// Points of one metric of several runs, run by run.
async fn histories(Call { tracking, actor, message }: Call) -> Result<Response, MlflowError> {
    let runs = message.texts("run_id")?;
    if runs.is_empty() {
        return Err(MlflowError::invalid("GetMetricHistoryBulk request must specify at least one run_id."));
    }
    if runs.len() > RUNS {
        return Err(MlflowError::invalid(format!(
            "GetMetricHistoryBulk request cannot specify more than {RUNS} run_ids. Received {} run_ids.",
            runs.len()
        )));
    }
    let key = message.text("metric_key")?;
    let key =
        key.ok_or_else(|| MlflowError::invalid("GetMetricHistoryBulk request must specify a metric_key."))?;
    let most = match message.int("max_results")? {
        None => POINTS,
        Some(most) => usize::try_from(most).map_err(|_| message.wrong("max_results"))?.min(POINTS),
    };
    let found = tracking.metric_histories(&actor, runs, &key, most).await?;
    let shown: Vec<_> = found.iter().map(wire::metric_of_run).collect();
    Ok(Json(BTreeMap::from([("metrics", shown)])).into_response())
}

fn must(message: &Message, names: &[&str], said: &str) -> Result<String, MlflowError> {
    for name in names {
        if let Some(text) = message.text(name)?.filter(|text| !text.is_empty()) {
            return Ok(text);
        }
    }
    Err(MlflowError::invalid(format!("Request must specify {said}.")))
}

/// A small file of a run. What is wrong with the request is told before its bytes are taken.
async fn upload(
    Scoped(tracking): Scoped,
    Caller(actor): Caller,
    Query(pairs): Query<Vec<(String, String)>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, MlflowError> {
    let message = Message::from_query(pairs);
    // Clients of 3.17 and of 3.18 know different words for it.
    let run = must(
        &message,
        &["run_id", "run_uuid"],
        "run_uuid. By its newer name: Request must specify run_id or run_uuid",
    )?;
    let path = must(&message, &["path"], "path")?;
    tracking.is_safe(&path)?;
    let data = received(body, &headers).await?;
    if data.is_empty() {
        return Err(MlflowError::invalid("Request must specify data."));
    }
    let run = tracking.run(&actor, &run).await?;
    if path.ends_with('/') {
        return Err(MlflowError::invalid("Invalid path: a file's name is missing"));
    }
    let path = tracking.artifact_path(&run.artifact_uri, &path)?;
    tracking.put_artifact(&actor, &path, futures_util::stream::once(async { Ok(data.into()) })).await?;
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], "").into_response())
}

/// The bytes of a small file. One that is too large is let pass by, up to a limit: a client that still sends reads no answer.
async fn received(body: Body, headers: &HeaderMap) -> Result<Vec<u8>, MlflowError> {
    let large = || MlflowError::invalid("Artifact size is too large. Max size is 10MB.");
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if length.and_then(|text| text.parse::<usize>().ok()).is_some_and(|length| length > BODY_LIMIT) {
        return Err(large());
    }
    let (mut chunks, mut data, mut seen) = (body.into_data_stream(), Vec::new(), 0_usize);
    let broken = |e| MlflowError::bad_request(format!("The body can't be received: {e}"));
    while let Some(chunk) = chunks.try_next().await.map_err(broken)? {
        seen = seen.saturating_add(chunk.len());
        if seen <= UPLOAD {
            data.extend_from_slice(&chunk);
        } else if seen > BODY_LIMIT {
            break;
        }
    }
    if seen > UPLOAD { Err(large()) } else { Ok(data) }
}

async fn of_model(
    Path(id): Path<String>,
    headers: HeaderMap,
    Call { tracking, actor, message }: Call,
) -> Result<Response, MlflowError> {
    let path = message.text_or_empty("artifact_file_path")?;
    if path.is_empty() {
        let said = "Request must include the \"artifact_file_path\" query parameter.";
        return Err(MlflowError::bad_request(said));
    }
    tracking.is_safe(&path)?;
    let model = tracking.logged_model(&actor, &id).await?;
    let path = tracking.artifact_path(&model.artifact_uri, &path)?;
    file(tracking.open_artifact(&actor, &path).await?, &headers).await
}

/// A trace's spans, or a file that was attached to it.
async fn of_trace(
    headers: HeaderMap,
    Call { tracking, actor, message }: Call,
) -> Result<Response, MlflowError> {
    let id = message.text_or_empty("request_id")?;
    if id.is_empty() {
        return Err(MlflowError::bad_request("Request must include the \"request_id\" query parameter."));
    }
    let path = message.text_or_empty("path")?;
    if !path.is_empty() {
        tracking.is_safe(&path)?;
        if !is_uuid(&path) {
            return Err(MlflowError::invalid(format!(
                "Invalid attachment path: '{}'. Attachment path must be a valid UUID.",
                path.escape_debug()
            )));
        }
        let location = tracking.trace_location(&actor, &id).await?;
        let path = tracking.artifact_path(&location, &format!("attachments/{path}"))?;
        return file(tracking.open_artifact(&actor, &path).await?, &headers).await;
    }
    match tracking.trace_data(&actor, &id).await? {
        TraceData::Spans(spans) => Ok(as_file(&spans)),
        TraceData::File(location) => {
            let path = tracking.artifact_path(&location, SPANS)?;
            let opened = tracking.open_artifact(&actor, &path).await.map_err(|error| match error {
                TrackingError::Missing(_) => {
                    MlflowError::not_found(format!("Trace data not found for path={SPANS}"))
                }
                error => error.into(),
            })?;
            file(opened, &headers).await
        }
    }
}

/// Spans as the clients' own files hold them.
fn as_file(spans: &[Span]) -> Response {
    let spans: Vec<&str> = spans.iter().map(|span| span.content.as_str()).collect();
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(naming::content_type(SPANS))),
        (header::CONTENT_DISPOSITION, naming::disposition(SPANS)),
    ];
    (StatusCode::OK, headers, format!("{{\"spans\":[{}]}}", spans.join(","))).into_response()
}

/// Whether this is a UUID in its usual form.
fn is_uuid(text: &str) -> bool {
    let lengths = text.split('-').map(str::len);
    let digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    lengths.eq([8, 4, 4, 4, 12]) && text.bytes().all(|b| b == b'-' || digit(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attachments_are_named_by_uuids() {
        assert!(is_uuid("a1b2c3d4-e5f6-4890-abcd-ef1234567890"));
        for other in
            ["", "x", "A1B2C3D4-e5f6-4890-abcd-ef1234567890", "a1b2c3d4e5f64890abcdef1234567890", "../x"]
        {
            assert!(!is_uuid(other), "{other}");
        }
    }
}
