//! Environments as a graph: `like` gives keys, `after` gives the order.

use super::Context;
use super::environment::environment;
use super::order::order;
use crate::diagnostic::{Path, Report};
use crate::merge::merge_environments;
use crate::nearest::suggest;
use crate::project::ResolvedEnvironment;
use crate::tree::Node;
use lockgate_core::id::EnvironmentName;
use std::collections::BTreeMap;

/// Reads all environments, each after those that it comes after.
pub(crate) fn environments(context: &Context<'_>, report: &mut Report) -> Vec<ResolvedEnvironment> {
    let entries = context.root.get("env").map(Node::entries).unwrap_or_default();
    let merged: Vec<(&str, Node)> =
        entries.iter().map(|(name, _)| (*name, inherited(name, context, report))).collect();
    check_ports(&merged, context, report);
    check_names_in_mlflow(&merged, context, report);
    let after: Vec<Vec<usize>> =
        merged.iter().map(|(name, node)| predecessors(name, node, &merged, report)).collect();
    let ordered = order(&after).unwrap_or_else(|cycle| {
        let names: Vec<&str> =
            cycle.iter().chain(cycle.first()).filter_map(|i| merged.get(*i)).map(|(n, _)| *n).collect();
        if let Some((name, node)) = cycle.first().and_then(|i| merged.get(*i)) {
            let at = node.get("after").map_or(&node.key_at, |n| &n.at);
            let message = format!("environments wait for each other: {}", chain(&names, "after"));
            let help = "take one `after` out, so that a release can begin somewhere".to_owned();
            report.error(at, &Path::of(&["env", name, "after"]), message, Some(help));
        }
        (0..merged.len()).collect()
    });
    let mut read = Vec::new();
    for index in ordered {
        let (Some((name, node)), Some(before)) = (merged.get(index), after.get(index)) else { continue };
        let path = Path::of(&["env", name]);
        let before = before.iter().filter_map(|i| EnvironmentName::new(merged.get(*i)?.0).ok()).collect();
        match EnvironmentName::new(*name) {
            Ok(name) => read.push(environment(name, before, node, context, report)),
            Err(_) if report.has_errors_under(&path) => {}
            Err(error) => report.error(&node.key_at, &path, error.to_string(), None),
        }
    }
    read
}

fn chain(names: &[&str], word: &str) -> String {
    names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(&format!(" {word} "))
}

/// The environment with everything that it inherits.
fn inherited(name: &str, context: &Context<'_>, report: &mut Report) -> Node {
    let envs = context.root.get("env");
    let find = |name: &str| envs.and_then(|e| e.get(name));
    let mut layers: Vec<(&str, &Node)> = Vec::new();
    let mut next = find(name).map(|node| (name, node));
    while let Some((name, node)) = next {
        layers.push((name, node));
        let Some((like, at)) = node.get("like").and_then(|l| Some((l.text()?, &l.at))) else { break };
        let path = Path::of(&["env", name, "like"]);
        if let Some(start) = layers.iter().position(|(seen, _)| *seen == like) {
            like_cycle(layers.get(start..).unwrap_or_default(), report);
            break;
        }
        next = find(like).map(|node| (like, node));
        if next.is_none() {
            let message = format!("there is no environment `{}`", like.escape_debug());
            report.error(at, &path, message, suggest(like, "environment", &context.environments));
        }
    }
    let mut layers = layers.iter().rev().map(|(_, node)| (*node).clone());
    let first = layers.next().unwrap_or_else(|| context.root.clone());
    layers.fold(first, |base, over| merge_environments(&base, &over))
}

/// Every member of a cycle meets it: it is told once, from the one that stands first.
fn like_cycle(cycle: &[(&str, &Node)], report: &mut Report) {
    let first = (0..cycle.len()).min_by_key(|i| cycle.get(*i).map(|(_, node)| &node.key_at)).unwrap_or(0);
    let turned: Vec<_> = cycle.iter().cycle().skip(first).take(cycle.len() + 1).collect();
    let names: Vec<&str> = turned.iter().map(|(name, _)| *name).collect();
    if let Some((name, node)) = turned.first() {
        let at = node.get("like").map_or(&node.key_at, |like| &like.at);
        let message = format!("environments inherit from each other: {}", chain(&names, "like"));
        report.error(at, &Path::of(&["env", name, "like"]), message, Some("take one `like` out".to_owned()));
    }
}

fn predecessors(name: &str, node: &Node, all: &[(&str, Node)], report: &mut Report) -> Vec<usize> {
    let mut found = Vec::new();
    for item in node.get("after").map(Node::one_or_many).unwrap_or_default() {
        let Some(text) = item.text() else { continue };
        match all.iter().position(|(n, _)| *n == text) {
            Some(index) => found.push(index),
            None => {
                let names: Vec<&str> = all.iter().map(|(n, _)| *n).filter(|n| *n != name).collect();
                let message = format!("there is no environment `{}`", text.escape_debug());
                report.error(
                    &item.at,
                    &Path::of(&["env", name, "after"]),
                    message,
                    suggest(text, "environment", &names),
                );
            }
        }
    }
    found
}

fn check_ports(all: &[(&str, Node)], context: &Context<'_>, report: &mut Report) {
    let mut taken: BTreeMap<i64, &str> = BTreeMap::new();
    for (name, node) in all {
        let Some(entry) = node.get("port") else { continue };
        let crate::tree::Value::Integer(port) = entry.value else { continue };
        let Some(other) = taken.get(&port) else {
            taken.insert(port, name);
            continue;
        };
        // An inherited port stands in another environment: point at the `like` that brings it.
        let own = context.root.get("env").and_then(|e| e.get(name)?.get("port"));
        let at = own.or(node.get("like")).map_or(&entry.at, |n| &n.at);
        let message = format!("port {port} of environment `{name}` is already `{other}`'s");
        let help = format!("give [env.{name}] a port of its own");
        report.error(at, &Path::of(&["env", name, "port"]), message, Some(help));
    }
}

/// An alias and a stage of MLflow's registry can say of one environment only what serves there. The name of an environment is
/// its alias.
fn check_names_in_mlflow(all: &[(&str, Node)], context: &Context<'_>, report: &mut Report) {
    let mut taken: BTreeMap<(&str, String), &str> =
        all.iter().map(|(name, _)| (("alias", name.to_ascii_lowercase()), *name)).collect();
    for (name, node) in all {
        let own = |key: &str| context.root.get("env").and_then(|e| e.get(name)?.get(key)).is_some();
        let aliases =
            node.get("aliases").map(Node::list).unwrap_or_default().iter().map(|n| ("alias", "aliases", n));
        for (what, key, item) in aliases.chain(node.get("stage").map(|n| ("stage", "stage", n))) {
            let Some(text) = item.text() else { continue };
            let entry = (what, text.to_ascii_lowercase());
            let Some(other) = taken.insert(entry, name).filter(|other| other != name) else { continue };
            let at = if own(key) { &item.at } else { node.get("like").map_or(&item.at, |like| &like.at) };
            let message = format!("{what} `{text}` of environment `{name}` is already `{other}`'s");
            let help = format!("give [env.{name}] {key} of its own");
            report.error(at, &Path::of(&["env", name, key]), message, Some(help));
        }
    }
}
