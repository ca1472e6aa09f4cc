//! What routes take from a request. What axum would refuse in plain text is refused as an [`ApiError`].

use crate::ApiError;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A JSON body, there and back.
#[derive(Debug)]
pub(crate) struct Json<T>(pub(crate) T);

/// The query string.
#[derive(Debug)]
pub(crate) struct Query<T>(pub(crate) T);

/// Parts of the path.
#[derive(Debug)]
pub(crate) struct Path<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let route = request.uri().path().to_owned();
        match axum::Json::from_request(request, state).await {
            Ok(axum::Json(body)) => Ok(Self(body)),
            Err(error) => Err(body_refused(&error, &route)),
        }
    }
}

fn body_refused(error: &JsonRejection, route: &str) -> ApiError {
    let status = error.status();
    let refused =
        ApiError::new(status, code(status), format!("the body can't be read: {}", lower(&error.body_text())));
    match error {
        JsonRejection::MissingJsonContentType(_) => {
            refused.hint("send it with Content-Type: application/json")
        }
        _ if status == StatusCode::PAYLOAD_TOO_LARGE => {
            ApiError::new(status, code(status), format!("the body is larger than {route} takes"))
        }
        _ => refused,
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let read: Result<axum::extract::Query<T>, QueryRejection> =
            axum::extract::Query::from_request_parts(parts, state).await;
        let axum::extract::Query(query) = read.map_err(|error| {
            let status = error.status();
            ApiError::new(
                status,
                code(status),
                format!("the query string can't be read: {}", lower(&error.body_text())),
            )
        })?;
        Ok(Self(query))
    }
}

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let read: Result<axum::extract::Path<T>, PathRejection> =
            axum::extract::Path::from_request_parts(parts, state).await;
        let axum::extract::Path(path) = read.map_err(|error| {
            let status = error.status();
            ApiError::new(
                status,
                code(status),
                format!("the address {} can't be read: {}", parts.uri.path(), lower(&error.body_text())),
            )
        })?;
        Ok(Self(path))
    }
}

fn code(status: StatusCode) -> &'static str {
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => "too_large",
        StatusCode::UNSUPPORTED_MEDIA_TYPE => "unsupported_media_type",
        status if status.is_server_error() => "internal",
        _ => "invalid",
    }
}

/// axum's sentences begin with a capital; ours go on after a colon.
fn lower(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::body::Body;
    use axum::extract::DefaultBodyLimit;
    use axum::routing::post;
    use serde::Deserialize;
    use tower::ServiceExt as _;

    #[derive(Deserialize)]
    struct Wanted {
        limit: u64,
    }

    async fn handler(
        Path(number): Path<u64>,
        Query(query): Query<Wanted>,
        Json(body): Json<Wanted>,
    ) -> Json<u64> {
        Json(number + query.limit + body.limit)
    }

    async fn ask(method: &str, address: &str, kind: &str, body: &str) -> (StatusCode, serde_json::Value) {
        let app = Router::new()
            .route("/things/{number}", post(handler))
            .method_not_allowed_fallback(crate::wrong_method)
            .fallback(crate::no_such_route)
            .layer(DefaultBodyLimit::max(64));
        let request = Request::builder()
            .method(method)
            .uri(address)
            .header("content-type", kind)
            .body(Body::from(body.to_owned()))
            .unwrap();
        let response = app.oneshot(request).await.unwrap();
        let status = response.status();
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, serde_json::from_slice(&bytes).unwrap())
    }

    #[tokio::test]
    async fn every_refusal_is_an_error_of_ours_that_says_what_is_wrong() {
        let json = "application/json";
        let large = format!("{{\"limit\": {}1}}", " ".repeat(100));
        for (method, address, kind, body, status, code, words) in [
            ("POST", "/things/1?limit=1", json, "{", 400, "invalid", "line 1 column 1"),
            ("POST", "/things/1?limit=1", json, "{\"limit\": \"x\"}", 422, "invalid", "limit"),
            ("POST", "/things/1?limit=1", json, "{}", 422, "invalid", "missing field `limit`"),
            (
                "POST",
                "/things/1?limit=1",
                "text/plain",
                "{}",
                415,
                "unsupported_media_type",
                "application/json",
            ),
            ("POST", "/things/1?limit=1", json, large.as_str(), 413, "too_large", "/things/1"),
            ("POST", "/things/1?limit=x", json, "{\"limit\": 1}", 400, "invalid", "limit"),
            ("POST", "/things/x?limit=1", json, "{\"limit\": 1}", 400, "invalid", "`x`"),
            ("GET", "/things/1", json, "", 405, "method_not_allowed", "GET"),
            ("GET", "/api/v1/nothing", json, "", 404, "not_found", "/api/v1/nothing"),
        ] {
            let (got, answer) = ask(method, address, kind, body).await;
            let error = &answer["error"];
            assert_eq!(got.as_u16(), status, "{method} {address} {body}: {answer}");
            assert_eq!(error["code"], code, "{answer}");
            assert!(error["message"].as_str().unwrap().contains(words), "{answer}");
        }
        let (got, answer) = ask("POST", "/things/1?limit=2", json, "{\"limit\": 3}").await;
        assert_eq!((got.as_u16(), answer), (200, serde_json::json!(6)));
    }
}
