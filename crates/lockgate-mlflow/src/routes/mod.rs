//! One function per endpoint, under `/api` for clients and under `/ajax-api` for browsers.

mod artifacts;
mod assessments;
mod experiments;
mod files;
mod logging;
mod models;
mod otlp;
mod registry;
mod runs;
mod server;
mod traces;
mod versions;

use axum::Router;
use lockgate_control::tracking::Tracking;

/// All routes.
pub(crate) fn all() -> Router<Tracking> {
    let mlflow = experiments::routes()
        .merge(runs::routes())
        .merge(logging::routes())
        .merge(models::routes())
        .merge(registry::routes())
        .merge(versions::routes())
        .merge(artifacts::routes())
        .merge(traces::routes());
    let mut all = server::routes().merge(files::downloads()).merge(otlp::routes());
    for api in ["/api", "/ajax-api"] {
        all = all
            .nest(&format!("{api}/2.0/mlflow"), mlflow.clone())
            .nest(&format!("{api}/2.0/mlflow-artifacts"), files::routes())
            .nest(
                &format!("{api}/3.0/mlflow"),
                server::info().merge(traces::third()).merge(assessments::routes()),
            );
    }
    all
}
