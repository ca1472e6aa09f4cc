//! Guards: what is built in, the project's, an environment's overrides.

use super::Context;
use super::value::Reader;
use crate::check::Check;
use crate::diagnostic::{Path, Report};
use crate::keys::GUARD;
use crate::merge::{is_removal, merge};
use crate::shape::{Later, Shape};
use crate::tree::{Node, Value};
use lockgate_core::goal::{Direction, GoalSpec};
use lockgate_core::guard::GuardSpec;
use lockgate_core::id::GuardName;
use std::collections::BTreeMap;

/// Reads the guards of one environment: all that there are, with its overrides.
pub(crate) fn guards(
    env: &Node,
    path: &Path,
    context: &Context<'_>,
    report: &mut Report,
) -> BTreeMap<GuardName, GuardSpec> {
    let mut read = BTreeMap::new();
    let Some(all) = context.root.get("guard") else { return read };
    let merged = match env.get("guards").filter(|g| g.table().is_some()) {
        Some(over) => {
            check_names(all, over, path, report);
            merge(all, over)
        }
        None => all.clone(),
    };
    for (name, node) in merged.entries() {
        let base = all.get(name);
        let path = path.key("guards").key(name);
        // A name that isn't declared, a removal of it, or a changed kind has been reported.
        let new_kind = env.get("guards").and_then(|g| g.get(name)?.get("kind")).is_some();
        if base.is_none() || is_removal(node) || new_kind {
            continue;
        }
        let mut mine = report.fresh();
        if let Some(base) = base {
            Check { report: &mut mine, removals: false }.shape(
                &Shape::Tagged(&GUARD),
                base,
                &Path::of(&["guard", name]),
            );
        }
        if !mine.has_errors() {
            Check { report: &mut mine, removals: false }.shape(&Shape::Tagged(&GUARD), node, &path);
        }
        let well_formed = !mine.has_errors();
        report.absorb(mine);
        if !well_formed {
            continue;
        }
        let later = node
            .text_at("kind")
            .and_then(|kind| GUARD.kind(kind))
            .is_some_and(|kind| kind.later != Later::Now);
        let mut reader = Reader { node, path: path.clone(), report };
        match (GuardName::new(name), spec(&mut reader)) {
            (Ok(name), Some(spec)) => drop(read.insert(name, spec)),
            _ if later || report.has_errors_under(&path) => {}
            _ => report.error(&node.key_at, &path, format!("guard `{name}` can't be read"), None),
        }
    }
    read
}

fn check_names(all: &Node, over: &Node, path: &Path, report: &mut Report) {
    let names: Vec<&str> = all.entries().iter().map(|(name, _)| *name).collect();
    for (name, node) in over.entries() {
        if !names.contains(&name) {
            let near = crate::nearest::nearest(name, names.iter().copied())
                .map(|near| format!("did you mean `{near}`?"));
            let help = near.unwrap_or_else(|| format!("declare it: [guard.{name}] with its kind"));
            let message = format!("there is no guard `{}`", name.escape_debug());
            report.error(&node.key_at, &path.key("guards").key(name), message, Some(help));
        }
    }
}

fn spec(reader: &mut Reader<'_, '_>) -> Option<GuardSpec> {
    match reader.node.text_at("kind")? {
        "rate" => {
            let (worse_by, rollback_by) = margins(reader, 0.5, 0.4);
            let floor = reader.share("floor").unwrap_or(0.005);
            if floor > 1.0 {
                reader.wrong("floor", "a rate can't be above 100%", None);
            }
            Some(GuardSpec::Rate { worse_by, rollback_by, floor })
        }
        "latency" => {
            let (worse_by, rollback_by) = margins(reader, 0.2, 0.25);
            let floor_ms = match reader.node.text_at("floor") {
                Some(text) => crate::format::fraction_ms(text).ok()?,
                None => 1.0,
            };
            let warmup_ms = reader.duration("warmup").and_then(|ms| u64::try_from(ms).ok());
            let p99_ms = reader.latency("p99");
            Some(GuardSpec::Latency { p99_ms, worse_by, rollback_by, floor_ms, warmup_ms })
        }
        "constant" => Some(GuardSpec::Constant {
            rollback_by: match &reader.node.get("rollback_by").map(|n| &n.value) {
                None => 2.0,
                Some(Value::Integer(_) | Value::Number(_)) => reader.number("rollback_by")?,
                Some(_) => return None,
            },
        }),
        "disagreement" => {
            let max = reader.share("max")?;
            if !(max > 0.0 && max < 1.0) {
                let help = "write the share of answers that may differ, for example \"3%\"";
                reader.wrong("max", "it must lie above 0% and below 100%", Some(help.to_owned()));
            }
            Some(GuardSpec::Disagreement { max, tolerance: reader.share("tolerance").unwrap_or(0.05) })
        }
        "goal" => Some(GuardSpec::Goal(goal(reader))),
        _ => None,
    }
}

/// A goal. A gain is asked for, unless it says which loss would do.
fn goal(reader: &mut Reader<'_, '_>) -> GoalSpec {
    let (gain, loss) = (reader.share("min_gain"), reader.share("max_loss"));
    let rollback_by = reader.share("rollback_by").unwrap_or(0.0);
    let (least, most) = (reader.number("min").unwrap_or(0.0), reader.number("max").unwrap_or(1.0));
    if gain.is_some() && loss.is_some() {
        let help =
            "`min_gain` asks for proof that it is better, `max_loss` for proof that it is not worse by more";
        reader.wrong("max_loss", "a goal has `min_gain` or `max_loss`, not both", Some(help.to_owned()));
    }
    if loss.is_some_and(|loss| loss <= 0.0) {
        let help = "no loss at all can't be proven: write the loss that you would accept, or `min_gain`";
        reader.wrong("max_loss", "`max_loss` must be above 0%", Some(help.to_owned()));
    }
    for (key, value) in [("min_gain", gain), ("max_loss", loss), ("rollback_by", Some(rollback_by))] {
        if value.is_some_and(|value| !(0.0..1.0).contains(&value)) {
            reader.wrong(key, format!("`{key}` is a share of the outcome's range, below 100%"), None);
        }
    }
    if loss.is_some_and(|loss| rollback_by > loss) {
        let message = "`rollback_by` is above `max_loss`: some harm would neither pass nor roll back";
        reader.wrong("rollback_by", message, Some("lower it, or leave it out".to_owned()));
    }
    if least >= most {
        reader.wrong("max", "`max` must be above `min`", None);
    }
    let within_ms = reader.node.get("within").is_some().then(|| reader.positive_duration("within", 0));
    let missing = reader.number("missing");
    if missing.is_some() && within_ms.is_none() {
        let help = "add within = \"1h\": when an outcome that has not come is missing";
        reader.wrong("missing", "`missing` needs `within`", Some(help.to_owned()));
    }
    GoalSpec {
        metric: reader.node.text_at("metric").unwrap_or("outcome").to_owned(),
        direction: match reader.node.text_at("direction") {
            Some("down") => Direction::Down,
            _ => Direction::Up,
        },
        gain: loss.map_or(gain.unwrap_or(0.0), |loss| -loss),
        rollback_by,
        least,
        most,
        within_ms,
        missing,
    }
}

/// `worse_by` and `rollback_by`, which is a part of it unless it is written. What is worse than a promotion allows must be able
/// to roll back, so the second can't be the larger one.
fn margins(reader: &mut Reader<'_, '_>, default: f64, part: f64) -> (f64, f64) {
    let worse_by = reader.share("worse_by").unwrap_or(default);
    let rollback_by = reader.share("rollback_by").unwrap_or(part * worse_by);
    for (key, value) in [("worse_by", worse_by), ("rollback_by", rollback_by)] {
        if value <= 0.0 && reader.node.get(key).is_some() {
            reader.must_be_positive(key);
        }
    }
    if rollback_by > worse_by {
        let help = format!("lower it to at most {}%, or leave it out", worse_by * 100.0);
        reader.wrong(
            "rollback_by",
            "`rollback_by` is above `worse_by`: some harm would neither pass nor roll back",
            Some(help),
        );
    }
    (worse_by, rollback_by)
}
