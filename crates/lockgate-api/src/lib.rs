//! The native REST API under `/api/v1`, the agents' door under `/agent/v1`, and who is asking.
//!
//! | module | subject |
//! |---|---|
//! | [`identity`] | who is asking, and whether the browser may |
//! | [`browser`] | what browsers may do |
//! | `error` | errors as answers |
//! | `extract` | what routes take from a request |
//! | `people` | routes for people and programs |
//! | `agents` | routes for agents |
//! | `import` | records of other stores |

mod agents;
pub mod browser;
mod error;
mod extract;
pub mod identity;
mod import;
mod people;

pub use error::ApiError;

use axum::Router;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use lockgate_control::Control;

/// The native API's routes. The caller puts [`identity::identify`] around them.
pub fn router(control: Control) -> Router {
    let routes = people::routes().merge(agents::routes()).merge(import::routes());
    routes.method_not_allowed_fallback(wrong_method).with_state(control)
}

/// The answer where there is no route. The caller makes it the fallback of everything that the server serves. Outside our
/// own API it is empty: MLflow's client takes a 404 without JSON for an older server, and does without the route.
pub async fn no_such_route(uri: Uri) -> Response {
    let path = uri.path();
    if !["/api/v1", "/agent/v1"].iter().any(|ours| path.starts_with(ours)) {
        return StatusCode::NOT_FOUND.into_response();
    }
    ApiError::new(StatusCode::NOT_FOUND, "not_found", format!("this server has no {path}"))
        .hint("is the client of the same version? the API lies under /api/v1")
        .into_response()
}

async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    let what = format!("{} can't be asked with {method}", uri.path());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", what)
}
