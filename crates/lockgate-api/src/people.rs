//! Routes for people and programs.

use crate::ApiError;
use crate::extract::{Json, Path, Query};
use axum::Extension;
use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use futures_util::TryStreamExt as _;
use lockgate_control::preview::PreviewRequest;
use lockgate_control::view::{DrillView, NewRelease, PromotionRequest};
use lockgate_control::{Control, NewConfiguration};
use lockgate_core::access::{Action, Target, authorize};
use lockgate_core::actor::Actor;
use lockgate_core::digest::Digest;
use lockgate_core::event::InstructionKind;
use lockgate_core::id::{EnvironmentName, ModelName, PromotionId};
use lockgate_core::wire::PreviewToken;
use serde::{Deserialize, Serialize};

/// The largest JSON or TOML body. Blobs are streamed and have no limit but the disk's.
const BODY_LIMIT: usize = 4 << 20;

pub(crate) fn routes() -> Router<Control> {
    Router::new()
        .route("/api/v1/configuration", put(apply_configuration).get(configuration))
        .route("/api/v1/status", get(status))
        .route("/api/v1/releases", post(create_release).get(list_releases))
        .route("/api/v1/releases/{release}", get(show_release))
        .route("/api/v1/releases/{old}/diff/{new}", get(diff_releases))
        .route("/api/v1/plan", post(plan))
        .route("/api/v1/promotions", post(promote))
        .route("/api/v1/promotions/find", get(find))
        .route("/api/v1/promotions/{id}", get(show_promotion))
        .route("/api/v1/promotions/{id}/why", get(why))
        .route("/api/v1/promotions/{id}/approve", post(approve))
        .route("/api/v1/promotions/{id}/{verb}", post(decide))
        .route("/api/v1/environments/{environment}/rollback", post(rollback))
        .route("/api/v1/environments/{environment}/drill", get(drilled).post(drill))
        .route("/api/v1/environments/{environment}/preview", post(preview))
        .route("/api/v1/environments/{environment}/worker-log", get(worker_log))
        .route("/api/v1/history", get(history))
        .route("/api/v1/models/{model}/history", get(model_history))
        .route("/api/v1/webhooks/deliveries", get(deliveries))
        .route("/api/v1/predictions/{id}", get(trace))
        .route("/api/v1/audit", get(audit))
        .route("/api/v1/audit/verify", get(verify))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .route("/api/v1/blobs/{digest}", put(put_blob).get(get_blob).layer(DefaultBodyLimit::disable()))
}

type Answer<T> = Result<Json<T>, ApiError>;

async fn apply_configuration(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    Json(body): Json<NewConfiguration>,
) -> Answer<lockgate_control::Applied> {
    Ok(Json(control.apply_configuration(&actor, body).await?))
}

async fn configuration(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct Body {
        digest: Option<Digest>,
        toml: Option<String>,
    }
    let (digest, toml) = control.configuration(&actor).await?.unzip();
    Ok(Json(Body { digest, toml }).into_response())
}

async fn status(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
) -> Answer<lockgate_control::view::StatusView> {
    Ok(Json(control.status(&actor).await?))
}

async fn create_release(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    Json(body): Json<NewRelease>,
) -> Answer<lockgate_control::view::ReleaseView> {
    Ok(Json(control.create_release(&actor, body).await?))
}

async fn list_releases(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
) -> Answer<Vec<lockgate_control::view::ReleaseView>> {
    Ok(Json(control.list_releases(&actor).await?))
}

async fn show_release(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    Path(release): Path<String>,
) -> Answer<lockgate_control::view::ReleaseView> {
    Ok(Json(control.release(&actor, &release).await?))
}

async fn diff_releases(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    Path((old, new)): Path<(String, String)>,
) -> Answer<Vec<String>> {
    Ok(Json(control.diff_releases(&actor, &old, &new).await?))
}

async fn plan(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    Json(body): Json<PromotionRequest>,
) -> Answer<lockgate_control::view::PlanView> {
    Ok(Json(control.plan(&actor, &body).await?))
}

type PromotionAnswer = Answer<lockgate_control::view::PromotionView>;

async fn promote(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    Json(body): Json<PromotionRequest>,
) -> PromotionAnswer {
    Ok(Json(control.request_promotion(&actor, &body).await?))
}

#[derive(Deserialize)]
struct Find {
    id: Option<String>,
    environment: Option<EnvironmentName>,
}

async fn find(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    Query(query): Query<Find>,
) -> PromotionAnswer {
    Ok(Json(control.find_promotion(&actor, query.id.as_deref(), query.environment.as_ref()).await?))
}

async fn show_promotion(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    Path(id): Path<PromotionId>,
) -> PromotionAnswer {
    Ok(Json(control.show_promotion(&actor, &id).await?))
}

async fn why(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    Path(id): Path<PromotionId>,
) -> Answer<lockgate_control::view::WhyView> {
    Ok(Json(control.why(&actor, &id).await?))
}

#[derive(Deserialize)]
struct Approve {
    plan_hash: Digest,
}

async fn approve(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    Path(id): Path<PromotionId>,
    Json(body): Json<Approve>,
) -> PromotionAnswer {
    Ok(Json(control.approve(&actor, &id, body.plan_hash).await?))
}

#[derive(Deserialize)]
struct Decide {
    #[serde(default)]
    reason: String,
}

async fn decide(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    Path((id, verb)): Path<(PromotionId, String)>,
    Json(body): Json<Decide>,
) -> PromotionAnswer {
    let kind = match verb.as_str() {
        "reject" => return Ok(Json(control.reject(&actor, &id, &body.reason).await?)),
        "pause" => InstructionKind::Pause,
        "resume" => InstructionKind::Resume,
        "abort" => InstructionKind::Abort,
        "switch" => InstructionKind::Switch,
        other => return Err(ApiError::invalid(format!("`{other}` can't be done to a promotion"))),
    };
    Ok(Json(control.instruct(&actor, &id, kind, &body.reason).await?))
}

#[derive(Deserialize)]
struct Rollback {
    model: Option<ModelName>,
    #[serde(default)]
    reason: String,
}

async fn rollback(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    Path(environment): Path<EnvironmentName>,
    Json(body): Json<Rollback>,
) -> PromotionAnswer {
    Ok(Json(control.rollback(&actor, &environment, body.model.as_ref(), &body.reason).await?))
}

async fn drill(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    Path(environment): Path<EnvironmentName>,
    Json(body): Json<Rollback>,
) -> Answer<DrillView> {
    Ok(Json(control.drill(&actor, &environment, body.model.as_ref(), &body.reason).await?))
}

#[derive(Deserialize)]
struct OfModel {
    model: Option<ModelName>,
}

async fn drilled(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    Path(environment): Path<EnvironmentName>,
    Query(query): Query<OfModel>,
) -> Answer<DrillView> {
    Ok(Json(control.drilled(&actor, &environment, query.model.as_ref()).await?))
}

async fn preview(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    Path(environment): Path<EnvironmentName>,
    Json(body): Json<PreviewRequest>,
) -> Answer<PreviewToken> {
    Ok(Json(control.preview(&actor, &environment, body).await?))
}

#[derive(Deserialize)]
struct Tail {
    #[serde(default = "default_tail")]
    tail: u64,
}

fn default_tail() -> u64 {
    64 << 10
}

async fn worker_log(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    Path(environment): Path<EnvironmentName>,
    Query(query): Query<Tail>,
) -> Result<String, ApiError> {
    Ok(control.worker_log(&actor, &environment, query.tail).await?)
}

#[derive(Deserialize)]
struct History {
    environment: EnvironmentName,
    model: Option<ModelName>,
    at: Option<i64>,
}

async fn history(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    Query(query): Query<History>,
) -> Answer<Vec<lockgate_control::view::HistoryRow>> {
    Ok(Json(control.history(&actor, &query.environment, query.model.as_ref(), query.at).await?))
}

#[derive(Deserialize)]
struct Deliveries {
    limit: Option<u32>,
}

async fn deliveries(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    Query(query): Query<Deliveries>,
) -> Answer<Vec<lockgate_control::view::DeliveryView>> {
    Ok(Json(control.deliveries(&actor, query.limit.unwrap_or(100)).await?))
}

#[derive(Deserialize)]
struct ModelHistory {
    alias: Option<String>,
    at: Option<i64>,
}

async fn model_history(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    Path(model): Path<String>,
    Query(query): Query<ModelHistory>,
) -> Answer<Vec<lockgate_control::view::ModelMove>> {
    Ok(Json(control.model_history(&actor, &model, query.alias.as_deref(), query.at).await?))
}

#[derive(Deserialize)]
struct Trace {
    environment: Option<EnvironmentName>,
}

async fn trace(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    Path(id): Path<String>,
    Query(query): Query<Trace>,
) -> Answer<lockgate_control::view::TraceView> {
    Ok(Json(control.trace(&actor, &id, query.environment.as_ref()).await?))
}

#[derive(Deserialize)]
struct Page {
    /// The newest where it is not said.
    from: Option<u64>,
    #[serde(default = "default_limit")]
    limit: u64,
}

fn default_limit() -> u64 {
    1000
}

async fn audit(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    Query(query): Query<Page>,
) -> Result<Response, ApiError> {
    let lines = control.audit_lines(&actor, query.from, query.limit).await?;
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], lines).into_response())
}

async fn verify(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
) -> Answer<lockgate_control::view::AuditView> {
    Ok(Json(control.verify_audit(&actor).await?))
}

async fn put_blob(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    Path(digest): Path<Digest>,
    body: Body,
) -> Answer<Digest> {
    let allowed = authorize(&actor, Action::Track, Target::Server)
        .or_else(|_| authorize(&actor, Action::ReleaseCreate, Target::Server));
    allowed.map_err(|e| ApiError::forbidden(e.to_string()))?;
    control.put_blob(body.into_data_stream().map_err(std::io::Error::other), &digest).await?;
    Ok(Json(digest))
}

async fn get_blob(
    State(control): State<Control>,
    Extension(actor): Extension<Actor>,
    Path(digest): Path<Digest>,
) -> Result<Response, ApiError> {
    authorize(&actor, Action::Read, Target::Server).map_err(|e| ApiError::forbidden(e.to_string()))?;
    bytes(&control, &digest).await
}

/// A blob as an answer. The caller has asked for permission.
pub(crate) async fn bytes(control: &Control, digest: &Digest) -> Result<Response, ApiError> {
    let (reader, size) = control.get_blob(digest).await?;
    let body = Body::from_stream(reader.blocks(0, size).await.map_err(lockgate_control::ControlError::from)?);
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, size.to_string()),
    ];
    Ok((headers, body).into_response())
}
