//! A request: who asks, and what.

use crate::error::MlflowError;
use crate::message::Message;
use axum::Json;
use axum::body::to_bytes;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, header};
use lockgate_control::tracking::Tracking;
use lockgate_core::actor::Actor;
use serde_json::Value;

/// The largest message. A dataset's profile alone may have 16 MB.
pub(crate) const BODY_LIMIT: usize = 64 << 20;

/// An endpoint's answer.
pub(crate) type Answer = Result<Json<Value>, MlflowError>;

/// A request with its message.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) tracking: Tracking,
    pub(crate) actor: Actor,
    pub(crate) message: Message,
}

/// Who asks.
#[derive(Debug)]
pub(crate) struct Caller(pub(crate) Actor);

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = MlflowError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, MlflowError> {
        let actor = parts.extensions.get::<Actor>().cloned();
        actor
            .map(Self)
            .ok_or_else(|| MlflowError::unauthenticated("Say who you are: set MLFLOW_TRACKING_TOKEN"))
    }
}

/// The header in which clients name a workspace.
const WORKSPACE: &str = "x-mlflow-workspace";

/// The environment that a URL's prefix names.
#[derive(Debug, Clone)]
pub(crate) struct Prefix(pub(crate) String);

/// Tracking data as the request may see it: of the workspace that its header or its URL names.
#[derive(Debug)]
pub(crate) struct Scoped(pub(crate) Tracking);

impl FromRequestParts<Tracking> for Scoped {
    type Rejection = MlflowError;

    async fn from_request_parts(parts: &mut Parts, tracking: &Tracking) -> Result<Self, MlflowError> {
        let header = match parts.headers.get(WORKSPACE).map(|value| value.to_str().map(str::trim)) {
            None | Some(Ok("")) => None,
            Some(Ok(name)) => Some(name),
            Some(Err(_)) => return Err(MlflowError::invalid("The workspace's name is no text")),
        };
        let prefix = parts.extensions.get::<Prefix>().map(|prefix| prefix.0.as_str());
        let name = match (header, prefix) {
            (None, None) => return Ok(Self(tracking.clone())),
            (Some(header), Some(prefix)) if header != prefix => {
                return Err(MlflowError::invalid(format!(
                    "The URL says environment '{prefix}', but MLFLOW_WORKSPACE says '{header}': leave one of them out"
                )));
            }
            (Some(name), _) | (None, Some(name)) => name,
        };
        Ok(Self(tracking.within(name).await?))
    }
}

impl FromRequest<Tracking> for Call {
    type Rejection = MlflowError;

    async fn from_request(request: Request, tracking: &Tracking) -> Result<Self, MlflowError> {
        let (mut parts, body) = request.into_parts();
        let Caller(actor) = Caller::from_request_parts(&mut parts, tracking).await?;
        let Scoped(tracking) = Scoped::from_request_parts(&mut parts, tracking).await?;
        let bytes = to_bytes(body, BODY_LIMIT)
            .await
            .map_err(|e| MlflowError::bad_request(format!("The body can't be received: {e}")))?;
        let message = if bytes.is_empty() || parts.method == Method::GET {
            let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri)
                .map_err(|e| MlflowError::bad_request(format!("The query string can't be read: {e}")))?;
            Message::from_query(pairs)
        } else {
            is_json(&parts.headers)?;
            Message::from_body(&bytes)?
        };
        Ok(Self { tracking, actor, message })
    }
}

/// A body must say that it is JSON: a form of a foreign web page can't.
fn is_json(headers: &HeaderMap) -> Result<(), MlflowError> {
    let Some(kind) = headers.get(header::CONTENT_TYPE) else {
        return Err(MlflowError::invalid("Bad Request. Content-Type header is missing."));
    };
    let kind = kind.to_str().unwrap_or_default();
    if kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json")) {
        return Ok(());
    }
    Err(MlflowError::invalid("Bad Request. Content-Type must be one of ['application/json']."))
}
