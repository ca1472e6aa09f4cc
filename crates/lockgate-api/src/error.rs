//! Errors as answers: `{"error": {"code", "message", "hint"}}`.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use lockgate_control::ControlError;
use serde_json::json;

/// An error on its way to the client.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    hint: Option<String>,
}

impl ApiError {
    /// Any error.
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), hint: None }
    }

    /// The same with what to do.
    pub(crate) fn hint(self, text: impl Into<String>) -> Self {
        Self { hint: Some(text.into()), ..self }
    }

    /// A wrong request.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, code: "invalid", message: message.into(), hint: None }
    }

    /// Nobody knows who is asking.
    pub fn unauthenticated(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::UNAUTHORIZED,
            code: "unauthenticated",
            message: message.into(),
            hint: None,
        }
    }

    /// Known, but not allowed.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self { status: StatusCode::FORBIDDEN, code: "refused", message: message.into(), hint: None }
    }
}

impl From<ControlError> for ApiError {
    fn from(error: ControlError) -> Self {
        let (status, code) = match &error {
            ControlError::Invalid { .. } => (StatusCode::BAD_REQUEST, "invalid"),
            ControlError::NotFound { .. } => (StatusCode::NOT_FOUND, "not_found"),
            ControlError::Refused(_) => (StatusCode::FORBIDDEN, "refused"),
            ControlError::Conflict { .. } => (StatusCode::CONFLICT, "conflict"),
            ControlError::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
            ControlError::Store(_) | ControlError::Blob(_) => (StatusCode::SERVICE_UNAVAILABLE, "storage"),
            ControlError::Inconsistent(_) | ControlError::Internal(_) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "internal")
            }
        };
        if status.is_server_error() {
            tracing::error!(%error, "request failed");
        }
        let hint = error.hint().map(str::to_owned);
        Self { status, code, message: error.to_string(), hint }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut body = json!({"error": {"code": self.code, "message": self.message, "hint": self.hint}});
        if self.status == StatusCode::UNAUTHORIZED {
            // Who asks is asked before what: MLflow's clients are to understand the answer, too.
            body["error_code"] = json!("UNAUTHENTICATED");
            body["message"] = json!(self.message);
        }
        (self.status, Json(body)).into_response()
    }
}
