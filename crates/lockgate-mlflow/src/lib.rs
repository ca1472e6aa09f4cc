//! MLflow's REST interface, as far as the stock `mlflow` client needs it to log, search, register and load.
//!
//! | module | subject |
//! |---|---|
//! | `routes` | one function per endpoint |
//! | `call` | a request: who asks, and what |
//! | `message` | fields of requests, as protobuf's JSON writes them |
//! | `filter` | MLflow's grammar for conditions and orders |
//! | `page` | limits and page tokens |
//! | `wire` | answers |
//! | `otlp` | spans in OpenTelemetry's protocol |
//! | `time` | times in protobuf's JSON |
//! | [`fuzz`] | the entry for a fuzzer |
//! | `error` | errors in MLflow's shape |
//!
//! An unknown route is answered with 404 and no JSON: clients then fall back to what an older server offers. Prompts'
//! optimisation, gateways and the like are such routes.

mod call;
mod error;
mod filter;
pub mod fuzz;
mod message;
mod otlp;
mod page;
mod routes;
mod time;
mod wire;

pub use error::MlflowError;

use axum::Router;
use lockgate_control::tracking::Tracking;

/// MLflow's routes. The caller puts a layer around them that adds the [`lockgate_core::actor::Actor`] as an extension;
/// without one every route answers 401 but `/health`, `/version`, `server-info` and `mlflow-artifacts/signed/…`.
pub fn router(tracking: Tracking) -> Router {
    routes::all(tracking)
}
