//! One function per endpoint, under `/api` for clients and under `/ajax-api` for browsers.

mod artifacts;
mod assessments;
mod experiments;
mod files;
mod logging;
mod models;
mod naming;
mod otlp;
mod pages;
mod parts;
mod range;
mod registry;
mod runs;
mod server;
mod traces;
mod versions;
mod webhooks;
mod workspaces;

use axum::Router;
use lockgate_control::tracking::Tracking;

/// All routes, and all of them once more below `/env/NAME` and below `//`: addresses that end with a slash lead there.
pub(crate) fn all(tracking: Tracking) -> Router {
    let all = plain().with_state(tracking);
    all.clone().merge(workspaces::by_prefix(all.clone())).merge(workspaces::by_slashes(all))
}

fn plain() -> Router<Tracking> {
    let mlflow = experiments::routes()
        .merge(runs::routes())
        .merge(logging::routes())
        .merge(models::routes())
        .merge(registry::routes())
        .merge(versions::routes())
        .merge(webhooks::routes())
        .merge(artifacts::routes())
        .merge(traces::routes());
    let third =
        server::info().merge(workspaces::routes()).merge(traces::third()).merge(assessments::routes());
    let mut all = server::routes().merge(files::downloads()).merge(otlp::routes());
    all = all.nest("/ajax-api/2.0/mlflow", pages::routes()).nest("/ajax-api/3.0/mlflow", pages::third());
    for api in ["/api", "/ajax-api"] {
        all = all
            .nest(&format!("{api}/2.0/mlflow"), mlflow.clone())
            .nest(&format!("{api}/2.0/mlflow-artifacts"), files::routes().merge(parts::routes()))
            .nest(&format!("{api}/3.0/mlflow"), third.clone());
    }
    all
}
