//! The pipeline's stages, ordered by who writes what others read.

use super::environment::texts;
use super::order::order;
use crate::diagnostic::{Path, Report, quoted};
use crate::format::{duration_ms, normal_path};
use crate::project::Stage;
use crate::tree::{Node, Value};
use std::collections::BTreeMap;

/// Reads all stages; each one comes after those whose outputs it needs.
pub(crate) fn stages(root: &Node, report: &mut Report) -> Vec<Stage> {
    let entries = root.get("pipeline").map(Node::entries).unwrap_or_default();
    let stages: Vec<Stage> = entries.iter().map(|(name, node)| stage(name, node)).collect();
    check_outputs(&entries, &stages, report);
    let needs: Vec<Vec<usize>> = (0..stages.len()).map(|i| needed(i, &stages, &entries, report)).collect();
    let ordered = order(&needs).unwrap_or_else(|cycle| {
        let names: Vec<String> = cycle
            .iter()
            .chain(cycle.first())
            .filter_map(|i| stages.get(*i))
            .map(|s| format!("`{}`", s.name))
            .collect();
        if let Some((name, node)) = cycle.first().and_then(|i| entries.get(*i)) {
            let message = format!("stages wait for each other: {}", names.join(" needs "));
            let help = "take one of the `deps` out, or split the stage".to_owned();
            report.error(&node.key_at, &Path::of(&["pipeline", name]), message, Some(help));
        }
        (0..stages.len()).collect()
    });
    let with_needs = |i: usize| {
        let mut stage = stages.get(i)?.clone();
        stage.after = needs.get(i)?.iter().filter_map(|n| Some(stages.get(*n)?.name.clone())).collect();
        Some(stage)
    };
    ordered.into_iter().filter_map(with_needs).collect()
}

fn stage(name: &str, node: &Node) -> Stage {
    let paths = |key| {
        node.get(key)
            .map(Node::list)
            .unwrap_or_default()
            .iter()
            .filter_map(Node::text)
            .map(normal_path)
            .collect()
    };
    let retries = match node.get("retries").map(|n| &n.value) {
        Some(Value::Integer(number)) => u32::try_from(*number).unwrap_or(0),
        _ => 0,
    };
    Stage {
        name: name.to_owned(),
        run: node.text_at("run").unwrap_or_default().to_owned(),
        deps: paths("deps"),
        outs: paths("outs"),
        params: params(node.get("params")),
        env: texts(node.get("env")),
        timeout_ms: node
            .text_at("timeout")
            .and_then(|t| u64::try_from(duration_ms(t).ok()?).ok())
            .filter(|ms| *ms > 0),
        retries,
        after: Vec::new(),
    }
}

fn params(node: Option<&Node>) -> BTreeMap<String, serde_json::Value> {
    let value = |node: &Node| match &node.value {
        Value::Text(text) => Some(serde_json::Value::from(text.as_str())),
        Value::Integer(number) => Some(serde_json::Value::from(*number)),
        Value::Number(number) => Some(serde_json::Value::from(*number)),
        Value::Flag(flag) => Some(serde_json::Value::from(*flag)),
        _ => None,
    };
    let names = node.map(Node::list).unwrap_or_default().iter().filter_map(Node::text);
    let named = names.map(|name| (name.to_owned(), serde_json::Value::Null));
    let entries = node.and_then(Node::table).into_iter().flatten();
    named.chain(entries.filter_map(|(name, node)| Some((name.clone(), value(node)?)))).collect()
}

/// Whether one path is the other, or lies in it.
fn overlap(a: &str, b: &str) -> bool {
    let inside =
        |a: &str, b: &str| a.strip_prefix(b).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    inside(a, b) || inside(b, a)
}

fn check_outputs(entries: &[(&str, &Node)], stages: &[Stage], report: &mut Report) {
    for (i, ((name, node), stage)) in entries.iter().zip(stages).enumerate() {
        if node.text_at("timeout").and_then(|t| duration_ms(t).ok()) == Some(0) {
            let at = node.get("timeout").map_or(&node.key_at, |n| &n.at);
            let help = Some("write more, or leave it out".to_owned());
            let path = Path::of(&["pipeline", name, "timeout"]);
            report.error(at, &path, "`timeout` must be more than zero", help);
        }
        for (j, out) in stage.outs.iter().enumerate() {
            let other = stages.iter().take(i).find(|other| other.outs.iter().any(|o| overlap(o, out)));
            if let Some(other) = other {
                let at = place(node, "outs", j);
                let message = format!("stages `{}` and `{name}` both write {}", other.name, quoted(out));
                let help = "let each stage write files of its own".to_owned();
                report.error(at, &Path::of(&["pipeline", name, "outs"]).item(j), message, Some(help));
            }
        }
    }
}

fn place<'t>(node: &'t Node, key: &str, index: usize) -> &'t crate::diagnostic::Origin {
    let list = node.get(key);
    list.and_then(|l| l.list().get(index)).or(list).map_or(&node.key_at, |n| &n.at)
}

/// The stages whose outputs stage `i` reads.
fn needed(i: usize, stages: &[Stage], entries: &[(&str, &Node)], report: &mut Report) -> Vec<usize> {
    let (Some(stage), Some((name, node))) = (stages.get(i), entries.get(i)) else { return Vec::new() };
    let mut found = Vec::new();
    for (j, dep) in stage.deps.iter().enumerate() {
        for (other_index, other) in stages.iter().enumerate() {
            if !other.outs.iter().any(|out| overlap(out, dep)) {
                continue;
            }
            if other_index == i {
                let message = format!("stage `{name}` reads what it writes: {}", quoted(dep));
                let help = "it would never be up to date; take it out of `deps` or of `outs`".to_owned();
                report.error(
                    place(node, "deps", j),
                    &Path::of(&["pipeline", name, "deps"]).item(j),
                    message,
                    Some(help),
                );
            } else if !found.contains(&other_index) {
                found.push(other_index);
            }
        }
    }
    found
}
