//! Gates: the project's, with an environment's overrides.

use super::Context;
use super::value::Reader;
use crate::check::Check;
use crate::diagnostic::{Path, Report};
use crate::keys::GATE;
use crate::merge::{is_removal, merge, names_as_map};
use crate::nearest::suggest;
use crate::project::{ResolvedEnvironment, Task};
use crate::shape::{Later, Shape};
use crate::tree::{Node, Table, Value};
use lockgate_core::gate::{GateSpec, Metric, Versus};
use lockgate_core::id::{EnvironmentName, GateName};
use std::collections::{BTreeMap, BTreeSet};

type Datasets = Option<BTreeMap<String, String>>;

/// Reads the gates of one environment. Every gate that is listed comes back, or is reported.
pub(crate) fn gates(
    env: &Node,
    path: &Path,
    data: &Datasets,
    context: &Context<'_>,
    report: &mut Report,
) -> BTreeMap<GateName, GateSpec> {
    let mut read = BTreeMap::new();
    let Some(listed) = env.get("gates").and_then(names_as_map) else { return read };
    for (name, over) in listed.entries() {
        let path = path.key("gates").key(name);
        if is_removal(over) {
            let help = "only an inherited gate can be removed; take the entry out".to_owned();
            report.error(
                &over.key_at,
                &path,
                format!("there is nothing to remove: gate `{name}` isn't inherited"),
                Some(help),
            );
            continue;
        }
        // A changed kind has been reported.
        if over.get("kind").is_some() {
            continue;
        }
        let declared = context.root.get("gate").and_then(Node::table);
        let Some(base) = declared.and_then(|gates| gates.get(name)) else {
            unknown(name, over, &path, declared, report);
            continue;
        };
        let mut mine = report.fresh();
        Check { report: &mut mine, removals: false }.shape(
            &Shape::Tagged(&GATE),
            base,
            &Path::of(&["gate", name]),
        );
        let base_is_fine = !mine.has_errors();
        let merged = merge(base, over);
        if base_is_fine {
            Check { report: &mut mine, removals: false }.shape(&Shape::Tagged(&GATE), &merged, &path);
        }
        let well_formed = !mine.has_errors();
        report.absorb(mine);
        if !well_formed {
            continue;
        }
        let later = merged
            .text_at("kind")
            .and_then(|kind| GATE.kind(kind))
            .is_some_and(|kind| kind.later != Later::Now);
        let known_errors = report.has_errors_under(&path);
        let mut reader = Reader { node: &merged, path: path.clone(), report };
        match (GateName::new(name), spec(&mut reader, data, context)) {
            (Ok(name), Some(spec)) => drop(read.insert(name, spec)),
            // The environment carries why it can't have this gate: a kind, or data, that comes later.
            _ if later || data.is_none() || known_errors || report.has_errors_under(&path) => {}
            _ => report.error(&over.key_at, &path, format!("gate `{name}` can't be read"), None),
        }
    }
    read
}

fn unknown(name: &str, over: &Node, path: &Path, declared: Option<&Table>, report: &mut Report) {
    let names: Vec<&str> = declared.into_iter().flatten().map(|(n, _)| n.as_str()).collect();
    let near =
        crate::nearest::nearest(name, names.iter().copied()).map(|near| format!("did you mean `{near}`?"));
    let help =
        near.unwrap_or_else(|| format!("declare it: [gate.{name}] with kind = \"command\" and run = \"…\""));
    report.error(&over.key_at, path, format!("there is no gate `{}`", name.escape_debug()), Some(help));
}

fn spec(reader: &mut Reader<'_, '_>, data: &Datasets, context: &Context<'_>) -> Option<GateSpec> {
    let node = reader.node;
    match node.text_at("kind")? {
        "command" => Some(GateSpec::Command {
            run: node.text_at("run")?.to_owned(),
            timeout_ms: u64::try_from(reader.positive_duration("timeout", 600_000)).ok()?,
        }),
        "data" => Some(GateSpec::Data { data: the_dataset(reader, data)? }),
        "metric" => metric(reader, data, context),
        "parity" => Some(GateSpec::Parity { atol: reader.number("atol").unwrap_or(1e-5) }),
        "benchmark" => Some(GateSpec::Benchmark {
            rps: reader.number("rps")?,
            p99_ms: reader.latency("p99"),
            duration_ms: u64::try_from(reader.positive_duration("duration", 10_000)).ok()?,
        }),
        "replay" => {
            let name = match node.text_at("data") {
                Some(_) => Some(the_dataset(reader, data)?),
                None => None,
            };
            Some(GateSpec::Replay { data: name, limit: reader.whole("limit").unwrap_or(1_000) })
        }
        _ => None,
    }
}

/// The dataset that a gate names, or the environment's only one.
fn the_dataset(reader: &mut Reader<'_, '_>, data: &Datasets) -> Option<String> {
    let datasets: Vec<&str> = data.as_ref()?.keys().map(String::as_str).collect();
    let table = reader.path.to_string();
    let table = table.split(".gates.").next().unwrap_or_default().to_owned();
    match (reader.node.text_at("data"), datasets.as_slice()) {
        (Some(name), all) if all.contains(&name) => Some(name.to_owned()),
        (Some(name), all) => {
            let near = suggest(name, "dataset", all);
            let help =
                near.unwrap_or_else(|| format!("add {name} = \"data/{name}.parquet\" to [{table}.data]"));
            let message = format!("dataset `{}` isn't declared in [{table}.data]", name.escape_debug());
            missing(reader, message, help);
            None
        }
        (None, [only]) => Some((*only).to_owned()),
        (None, []) => {
            let gate = reader.path.last().to_owned();
            let message = format!("gate `{gate}` needs a dataset, and there is none in [{table}.data]");
            missing(reader, message, format!("add [{table}.data] with holdout = \"data/holdout.parquet\""));
            None
        }
        (None, many) => {
            let gate = reader.path.last().to_owned();
            let list = many.iter().map(|d| format!("`{d}`")).collect::<Vec<_>>().join(", ");
            missing(
                reader,
                format!("gate `{gate}` doesn't say which dataset it reads in [{table}]"),
                format!("add `data`, one of {list}"),
            );
            None
        }
    }
}

/// Points at the environment's entry: the gate may be right for another environment.
fn missing(reader: &mut Reader<'_, '_>, message: String, help: String) {
    reader.report.error(&reader.node.key_at, &reader.path.key("data"), message, Some(help));
}

fn metric(reader: &mut Reader<'_, '_>, data: &Datasets, context: &Context<'_>) -> Option<GateSpec> {
    let node = reader.node;
    let word = node.text_at("metric")?;
    let metric = Metric::ALL.iter().find(|(_, name)| *name == word).map(|(metric, _)| *metric)?;
    check_task(metric, reader, context);
    let (min, max) = (reader.number("min"), reader.number("max"));
    if node.get("min").is_none() && node.get("max").is_none() && node.get("versus").is_none() {
        let help = if metric.larger_is_better() { "add min = …" } else { "add max = …" };
        let message =
            format!("gate `{}` can't fail: it has neither `min`, `max` nor `versus`", reader.path.last());
        reader.report.error(
            &node.key_at,
            &reader.path,
            message,
            Some(format!("{help}, or versus = {{ env = \"…\", max_loss = … }}")),
        );
    }
    if let (Some(low), Some(high)) = (min, max)
        && low > high
    {
        reader.wrong("min", format!("no value passes: `min` {low} is above `max` {high}"), None);
    }
    check_range(metric, min, max, reader);
    let versus = versus(reader, context);
    let data = the_dataset(reader, data)?;
    (node.get("versus").is_none() || versus.is_some()).then_some(GateSpec::Metric {
        metric,
        data,
        min,
        max,
        versus,
    })
}

/// A bound that no value can reach, or that every value reaches, is a mistake.
fn check_range(metric: Metric, min: Option<f64>, max: Option<f64>, reader: &mut Reader<'_, '_>) {
    let (low, high) = match metric {
        Metric::RocAuc | Metric::Ece | Metric::Brier | Metric::Accuracy | Metric::F1 => (0.0, 1.0),
        Metric::LogLoss | Metric::Rmse | Metric::Mae => (0.0, f64::INFINITY),
        Metric::R2 => (f64::NEG_INFINITY, 1.0),
    };
    let range = match (low.is_finite(), high.is_finite()) {
        (true, true) => format!("between {low} and {high}"),
        (true, false) => format!("at or above {low}"),
        _ => format!("at or below {high}"),
    };
    for (key, bound) in [("min", min), ("max", max)] {
        if bound.is_some_and(|b| b < low || b > high) {
            let help = format!("`{}` lies {range}; write 0.8, not 80", metric.name());
            reader.wrong(key, format!("`{key}` is out of the range of `{}`", metric.name()), Some(help));
        }
    }
}

/// A metric must fit at least one of the project's models.
fn check_task(metric: Metric, reader: &mut Reader<'_, '_>, context: &Context<'_>) {
    let fits = |task: Task| match metric {
        Metric::Accuracy => matches!(task, Task::Binary | Task::Multiclass | Task::Other),
        Metric::Rmse | Metric::Mae | Metric::R2 => matches!(task, Task::Regression | Task::Other),
        _ => matches!(task, Task::Binary | Task::Other),
    };
    if !context.models.is_empty() && !context.models.values().any(|model| fits(model.task)) {
        let tasks: BTreeSet<&str> = context.models.values().map(|m| m.task.as_str()).collect();
        let tasks = tasks.into_iter().collect::<Vec<_>>().join(", ");
        let message = format!("`{}` can't be computed for a model whose task is {tasks}", metric.name());
        reader.wrong("metric", message, Some("choose a metric of that task, or correct `task`".to_owned()));
    }
}

fn versus(reader: &mut Reader<'_, '_>, context: &Context<'_>) -> Option<Versus> {
    let node = reader.node.get("versus")?;
    let name = node.text_at("env")?;
    if !context.environments.contains(&name) {
        let at = node.get("env").map_or(&node.at, |n| &n.at);
        let message = format!("there is no environment `{}`", name.escape_debug());
        reader.report.error(
            at,
            &reader.path.key("versus").key("env"),
            message,
            suggest(name, "environment", &context.environments),
        );
        return None;
    }
    let max_loss = match &node.get("max_loss")?.value {
        Value::Number(number) => *number,
        Value::Integer(0) => 0.0,
        #[expect(clippy::cast_precision_loss, reason = "the check bounds it below 2^53")]
        Value::Integer(number) => *number as f64,
        _ => return None,
    };
    Some(Versus { environment: EnvironmentName::new(name).ok()?, max_loss, release: None })
}

/// Gates that no environment uses, and datasets that none declares.
pub(crate) fn check_use(context: &Context<'_>, environments: &[ResolvedEnvironment], report: &mut Report) {
    let mut used: BTreeSet<String> = BTreeSet::new();
    for (_, env) in context.root.get("env").map(Node::entries).unwrap_or_default() {
        let listed = env.get("gates").and_then(names_as_map);
        used.extend(listed.iter().filter_map(Node::table).flat_map(|t| t.keys().cloned()));
    }
    let apart = context
        .root
        .get("env")
        .map(Node::entries)
        .unwrap_or_default()
        .iter()
        .any(|(_, e)| e.text_at("data").is_some());
    let datasets: BTreeSet<&str> =
        environments.iter().flat_map(|e| e.data.keys()).map(String::as_str).collect();
    for (name, gate) in context.root.get("gate").map(Node::entries).unwrap_or_default() {
        if gate.key_at == crate::diagnostic::Origin::BuiltIn || used.contains(name) {
            continue;
        }
        let path = Path::of(&["gate", name]);
        if !report.has_errors() {
            let help = Some(format!("add it to the gates of an environment: gates = {{ {name} = {{}} }}"));
            let message = format!("no environment uses gate `{}`", name.escape_debug());
            report.warning(&gate.key_at, &path, message, help);
        }
        if let Some(data) =
            gate.get("data").filter(|d| !apart && d.text().is_some_and(|t| !datasets.contains(t)))
        {
            let text = data.text().unwrap_or_default();
            let all: Vec<&str> = datasets.iter().copied().collect();
            let help = suggest(text, "dataset", &all)
                .unwrap_or_else(|| "declare it under [env.NAME.data]".to_owned());
            report.error(
                &data.at,
                &path.key("data"),
                format!("no environment declares dataset `{}`", text.escape_debug()),
                Some(help),
            );
        }
    }
}
