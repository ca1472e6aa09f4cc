//! The counters as Prometheus text (exposition format 0.0.4).

use crate::examine::Unexamined;
use crate::gateway::Core;
use crate::meter::{ErrorClass, SideTotals};
use crate::readings;
use crate::table::Table;
use lockgate_core::id::ModelName;
use lockgate_core::route::{Role, WHOLE};
use lockgate_stats::histogram::{self, Histogram};
use std::fmt::Write as _;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

/// Upper edges of the latency buckets, in microseconds.
const EDGES_US: [u64; 14] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    10_000_000,
];

const CLASSES: [ErrorClass; 4] =
    [ErrorClass::Http5xx, ErrorClass::Timeout, ErrorClass::Connect, ErrorClass::Nonfinite];

/// All metrics of a gateway.
pub(crate) fn text(core: &Core, table: &Table) -> String {
    let mut out = Text::new(&core.options.environment);
    let totals: Vec<(ModelName, Vec<SideTotals>)> = {
        let meters = &core.counters.meters;
        meters.models().into_iter().map(|m| (m.clone(), meters.totals(&m))).collect()
    };
    sides(&mut out, &totals);
    latencies(&mut out, &totals);
    shares(&mut out, table);
    shadows(&mut out, core);
    forced(&mut out, core);
    lanes(&mut out, core);
    let plain = [
        ("lockgate_gateway_epoch", "gauge", "Epoch of the routing table in use.", table.epoch),
        (
            "lockgate_gateway_connections",
            "gauge",
            "Open client connections.",
            core.connections.load(Ordering::Acquire) as u64,
        ),
        (
            "lockgate_gateway_connections_refused_total",
            "counter",
            "Connections closed because there were too many.",
            core.refused.load(Ordering::Relaxed),
        ),
        (
            "lockgate_prediction_log_dropped_total",
            "counter",
            "Prediction records dropped because the log was full.",
            core.dropped.load(Ordering::Relaxed),
        ),
    ];
    for (name, kind, help, value) in plain {
        out.head(name, kind, help);
        out.line(name, &[], value);
    }
    readings::write(&mut out, &core.readings.lock().unwrap_or_else(PoisonError::into_inner));
    out.into_string()
}

fn forced(out: &mut Text, core: &Core) {
    let name = "lockgate_forced_requests_total";
    out.head(name, "counter", "Predictions that testers sent to one release; they are in no other count.");
    for (model, release, by_class) in core.counters.meters.forced_totals() {
        let release = release.short();
        for (count, class) in
            by_class.iter().zip(["1xx", "2xx", "3xx", "4xx", "5xx"]).filter(|(n, _)| **n > 0)
        {
            out.line(name, &[("model", model.as_str()), ("release", &release), ("status", class)], count);
        }
    }
}

fn lanes(out: &mut Text, core: &Core) {
    let all = core.counters.lanes.totals();
    if all.is_empty() {
        return;
    }
    let name = "lockgate_inline_requests_total";
    out.head(
        name,
        "counter",
        "Predictions of models inside the gateway: answered there, passed on to the workers, or failed there.",
    );
    for lane in &all {
        for (outcome, count) in lane.counts {
            let labels = [("model", lane.model.as_str()), ("release", &lane.release), ("outcome", outcome)];
            out.line(name, &labels, count);
        }
    }
    let name = "lockgate_inline_demoted";
    out.head(name, "gauge", "Whether a model was taken out of the gateway for good, as slow or broken.");
    for lane in &all {
        let labels = [("model", lane.model.as_str()), ("release", lane.release.as_str())];
        out.line(name, &labels, u8::from(lane.is_demoted));
    }
}

/// The text as it grows.
pub(crate) struct Text {
    text: String,
    environment: String,
}

impl Text {
    pub(crate) fn new(environment: &str) -> Self {
        Self { text: String::with_capacity(8192), environment: environment.to_owned() }
    }

    pub(crate) fn into_string(self) -> String {
        self.text
    }

    pub(crate) fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    pub(crate) fn line(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let _ = write!(self.text, "{name}{{environment=\"{}\"", escaped(&self.environment));
        for (label, value) in labels {
            let _ = write!(self.text, ",{label}=\"{}\"", escaped(value));
        }
        let _ = writeln!(self.text, "}} {value}");
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

type Count = (&'static str, &'static str, &'static str, fn(&SideTotals) -> u64);

const COUNTS: [Count; 3] = [
    ("lockgate_requests_inflight", "gauge", "Predictions being worked on.", |t| t.inflight),
    ("lockgate_retries_total", "counter", "Attempts beyond the first.", |t| t.retries),
    ("lockgate_failovers_total", "counter", "Predictions that another side answered.", |t| t.failovers),
];

fn sides(out: &mut Text, totals: &[(ModelName, Vec<SideTotals>)]) {
    let all = || totals.iter().flat_map(|(model, sides)| sides.iter().map(move |t| (model, t)));
    out.head("lockgate_requests_total", "counter", "Predictions by the side that they were assigned to.");
    for (model, t) in all() {
        let release = t.release.short();
        for (count, class) in t.by_class.iter().zip(["1xx", "2xx", "3xx", "4xx", "5xx"]) {
            let labels = [
                ("model", model.as_str()),
                ("variant", t.role.as_str()),
                ("release", &release),
                ("status", class),
            ];
            if *count > 0 {
                out.line("lockgate_requests_total", &labels, count);
            }
        }
    }
    out.head(
        "lockgate_errors_total",
        "counter",
        "Failures of the assigned side, made good elsewhere or not.",
    );
    for (model, t) in all() {
        let release = t.release.short();
        for class in CLASSES {
            let value = match class {
                ErrorClass::Http5xx => t.errors.http_5xx,
                ErrorClass::Timeout => t.errors.timeout,
                ErrorClass::Connect => t.errors.connect,
                ErrorClass::Nonfinite => t.errors.nonfinite,
            };
            let labels = [
                ("model", model.as_str()),
                ("variant", t.role.as_str()),
                ("release", &release),
                ("class", class.as_str()),
            ];
            out.line("lockgate_errors_total", &labels, value);
        }
    }
    unexamined(out, totals);
    for (name, kind, help, value) in COUNTS {
        out.head(name, kind, help);
        for (model, t) in all() {
            let release = t.release.short();
            let labels = [("model", model.as_str()), ("variant", t.role.as_str()), ("release", &release)];
            out.line(name, &labels, value(t));
        }
    }
}

/// Only servers that a team brings have such answers, so there are no lines of zeros for all others.
fn unexamined(out: &mut Text, totals: &[(ModelName, Vec<SideTotals>)]) {
    let name = "lockgate_unexamined_answers_total";
    out.head(name, "counter", "Answers of servers that a team brings that could not be looked at.");
    for (model, t) in totals.iter().flat_map(|(model, sides)| sides.iter().map(move |t| (model, t))) {
        let release = t.release.short();
        for (why, count) in Unexamined::ALL.into_iter().zip(t.unexamined).filter(|(_, count)| *count > 0) {
            let labels = [
                ("model", model.as_str()),
                ("variant", t.role.as_str()),
                ("release", release.as_str()),
                ("reason", why.as_str()),
            ];
            out.line(name, &labels, count);
        }
    }
}

fn latencies(out: &mut Text, totals: &[(ModelName, Vec<SideTotals>)]) {
    let name = "lockgate_request_duration_seconds";
    out.head(name, "histogram", "From the complete request to the complete answer.");
    for (model, t) in totals.iter().flat_map(|(model, sides)| sides.iter().map(move |t| (model, t))) {
        let release = t.release.short();
        let labels = [("model", model.as_str()), ("variant", t.role.as_str()), ("release", release.as_str())];
        let total = t.latency.total();
        for edge in EDGES_US {
            let seconds = (edge as f64 / 1e6).to_string();
            let with_edge = [labels[0], labels[1], labels[2], ("le", seconds.as_str())];
            out.line(&format!("{name}_bucket"), &with_edge, total - above(&t.latency, edge));
        }
        let with_edge = [labels[0], labels[1], labels[2], ("le", "+Inf")];
        out.line(&format!("{name}_bucket"), &with_edge, total);
        out.line(&format!("{name}_sum"), &labels, t.latency_sum_us as f64 / 1e6);
        out.line(&format!("{name}_count"), &labels, total);
    }
}

fn shadows(out: &mut Text, core: &Core) {
    let all = core.counters.shadows();
    let name = "lockgate_shadow_requests_total";
    out.head(name, "counter", "Requests to be mirrored in a model's newest rollout, by what became of them.");
    for (model, s) in &all {
        let fates = [("mirrored", s.mirrored), ("dropped", s.dropped), ("streaming", s.streaming)];
        for (fate, value) in fates {
            out.line(name, &[("model", model.as_str()), ("outcome", fate)], value);
        }
    }
    let name = "lockgate_shadow_answers_total";
    out.head(
        name,
        "counter",
        "Compared answers to mirrored requests: all, those that differed, and the baseline's own noise.",
    );
    for (model, s) in &all {
        let found = [("compared", s.samples.total()), ("differed", s.differed), ("noise", s.noise)];
        for (outcome, value) in found {
            out.line(name, &[("model", model.as_str()), ("outcome", outcome)], value);
        }
    }
}

/// How many took longer than the nearest edge of ours to a bucket's edge.
fn above(latency: &Histogram, edge: u64) -> u64 {
    latency.count_above(histogram::edge_at_or_above(edge))
}

fn shares(out: &mut Text, table: &Table) {
    let name = "lockgate_traffic_share";
    out.head(name, "gauge", "Share of a model's traffic that a side is assigned, 0 to 1.");
    let mut models: Vec<_> = table.models.values().collect();
    models.sort_by(|a, b| a.model.cmp(&b.model));
    for route in models {
        let weight = route.split.as_ref().map_or(0, |s| s.weight);
        for side in route.sides() {
            let parts = match side.role {
                Role::Candidate => weight,
                Role::Baseline => WHOLE - weight,
                Role::Backup if route.baseline.is_none() => WHOLE - weight,
                Role::Backup => 0,
            };
            let release = side.release.short();
            let labels = [
                ("model", route.model.as_str()),
                ("variant", side.role.as_str()),
                ("release", release.as_str()),
            ];
            out.line(name, &labels, f64::from(parts) / f64::from(WHOLE));
        }
    }
}
