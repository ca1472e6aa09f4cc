//! What releases answered so far, in the form of Triton's statistics.

use crate::meter::Served;
use crate::reactor::Reactor;
use crate::table::{Route, Side};
use crate::testers::{self, Refused};
use hyper::StatusCode;
use hyper::header::HeaderMap;
use lockgate_wire::tensor::shown;
use serde_json::{Value, json};

/// One version of one model.
#[derive(Debug)]
pub(crate) struct ModelStatistics {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) served: Served,
}

impl ModelStatistics {
    /// The durations that are measured, by the protocol's names: how many, and nanoseconds in all. What a worker does not
    /// time by itself (its queue, the reading and writing) has no count.
    pub(crate) fn durations(&self) -> [(&'static str, u64, u64); 8] {
        let Served { good, good_us, bad, bad_us, model_us, .. } = self.served;
        let ns = |us: u64| us.saturating_mul(1000);
        [
            ("success", good, ns(good_us)),
            ("fail", bad, ns(bad_us)),
            ("queue", 0, 0),
            ("compute_input", 0, 0),
            ("compute_infer", good, ns(model_us)),
            ("compute_output", 0, 0),
            ("cache_hit", 0, 0),
            ("cache_miss", 0, 0),
        ]
    }
}

/// The statistics of one model, of all its versions or one, or of all models that are served; for a tester those of the side
/// that would answer, testers' requests among them.
///
/// # Errors
/// Where there is no such model or version, or whoever asks `from` there may not have the side.
pub(crate) fn of(
    reactor: &Reactor,
    from: &HeaderMap,
    which: Option<(&str, Option<u64>)>,
) -> Result<Vec<ModelStatistics>, Refused> {
    let Some((name, version)) = which else {
        if let Some(view) = testers::view(reactor, from)? {
            return Ok(vec![tested(reactor, &view.route, &view.side)]);
        }
        let names = reactor.model_names();
        return Ok(names
            .iter()
            .filter_map(|n| reactor.route(n))
            .flat_map(|r| versions(reactor, &r))
            .collect());
    };
    let missing = |message: String| (StatusCode::NOT_FOUND, message);
    let route = reactor.route(name);
    let route =
        route.ok_or_else(|| missing(format!("there is no model `{}` in this environment", shown(name))))?;
    if let Some(forced) = testers::asked(reactor, &route, from, version)? {
        return Ok(vec![tested(reactor, &route, &forced.side)]);
    }
    let mut found = versions(reactor, &route);
    if let Some(version) = version {
        found.retain(|s| s.version == version.to_string());
        if found.is_empty() {
            return Err(missing(format!("model `{}` has no version {version} here", shown(name))));
        }
    }
    Ok(found)
}

fn tested(reactor: &Reactor, route: &Route, side: &Side) -> ModelStatistics {
    let served = reactor.counters.meters.served(&route.model, side.release, Some(&side.forced));
    ModelStatistics { name: route.model.to_string(), version: side.model_version.to_string(), served }
}

fn versions(reactor: &Reactor, route: &Route) -> Vec<ModelStatistics> {
    let mut found: Vec<ModelStatistics> = Vec::new();
    for side in route.open_to_users() {
        let version = side.model_version.to_string();
        if !found.iter().any(|s| s.version == version) {
            let served = reactor.counters.meters.served(&route.model, side.release, None);
            found.push(ModelStatistics { name: route.model.to_string(), version, served });
        }
    }
    found
}

/// The body of `GET /v2/models/{model}/stats`.
pub(crate) fn to_json(found: &[ModelStatistics]) -> String {
    let one = |s: &ModelStatistics| {
        let durations =
            s.durations().map(|(name, count, ns)| (name.to_owned(), json!({"count": count, "ns": ns})));
        json!({
            "name": s.name,
            "version": s.version,
            "last_inference": s.served.last_ms,
            "inference_count": s.served.rows,
            "execution_count": s.served.good,
            "inference_stats": Value::Object(durations.into_iter().collect()),
            "batch_stats": [],
        })
    };
    json!({"model_stats": found.iter().map(one).collect::<Vec<_>>()}).to_string()
}
