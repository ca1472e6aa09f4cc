//! `/v1/traces`: spans, as OpenTelemetry's exporters and MLflow's own client send them.

use crate::call::{BODY_LIMIT, Caller, Scoped};
use crate::error::MlflowError;
use crate::otlp::{Form, Refusal, decompressed, groups};
use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use lockgate_control::tracking::{SpanGroup, Tracking};
use serde_json::json;
use tokio::sync::Semaphore;

const EXPERIMENT: &str = "x-mlflow-experiment-id";
const RUN: &str = "x-mlflow-run-id";

/// So many requests are unpacked at a time.
static UNPACKING: Semaphore = Semaphore::const_new(2);

pub(super) fn routes() -> Router<Tracking> {
    Router::new().route("/v1/traces", post(export))
}

/// Exporters know `detail`, not MLflow's errors.
fn refused(Refusal { status, reason }: Refusal) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
    (status, Json(json!({"detail": reason}))).into_response()
}

fn one(headers: &HeaderMap, name: impl header::AsHeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// What came, and where it belongs.
struct Export {
    experiment: String,
    run: Option<String>,
    form: Form,
    groups: Vec<SpanGroup>,
}

async fn read(request: Request) -> Result<Export, Refusal> {
    let (parts, body) = request.into_parts();
    let headers = &parts.headers;
    let experiment = one(headers, EXPERIMENT).map(str::to_owned);
    let missing = || Refusal { status: 422, reason: format!("The header {EXPERIMENT} is missing") };
    let experiment = experiment.ok_or_else(missing)?;
    let form = Form::of(one(headers, header::CONTENT_TYPE))?;
    let broken = |e| Refusal { status: 400, reason: format!("The body can't be received: {e}") };
    let bytes = to_bytes(body, BODY_LIMIT).await.map_err(broken)?;
    let run = one(headers, RUN).map(str::to_owned);
    let encoding = one(headers, header::CONTENT_ENCODING).map(str::to_owned);
    // Unpacking takes memory and time: a few at once, and on a thread that others don't wait for.
    let busy = |_| Refusal { status: 503, reason: "The server is stopping".to_owned() };
    let _turn = UNPACKING.acquire().await.map_err(busy)?;
    let read = tokio::task::spawn_blocking(move || {
        decompressed(bytes.into(), encoding.as_deref()).and_then(|bytes| groups(&bytes, form))
    });
    let broken = |e| Refusal { status: 400, reason: format!("The body can't be read: {e}") };
    Ok(Export { experiment, run, form, groups: read.await.map_err(broken)?? })
}

async fn export(
    Scoped(tracking): Scoped,
    Caller(actor): Caller,
    request: Request,
) -> Result<Response, MlflowError> {
    let Export { experiment, run, form, groups } = match read(request).await {
        Ok(read) => read,
        Err(refusal) => return Ok(refused(refusal)),
    };
    tracking.log_spans(&actor, &experiment, run, groups).await?;
    // An empty message, in the form of the request: all was taken.
    if form == Form::Json {
        return Ok(Json(json!({})).into_response());
    }
    Ok(([(header::CONTENT_TYPE, "application/x-protobuf")], "").into_response())
}
