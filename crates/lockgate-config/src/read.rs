//! The checked tree into core's types, with what only the whole file can tell.
//!
//! The structure (keys, types, forms of texts) has been reported by `check` before; what can't be read here is left out quietly
//! because of that, and [`project`] gives nothing back as long as there is an error.

mod environment;
mod gates;
mod graph;
mod guards;
mod isolation;
mod order;
mod pipeline;
mod serve;
mod value;

use crate::check::Check;
use crate::diagnostic::{Class, Diagnostics, Origin, Path, Report};
use crate::format::unit_header;
use crate::merge::merge;
use crate::project::{Model, Project, Statistics, Task};
use crate::tree::{Node, Value};
use lockgate_core::id::{ModelName, ProjectName};
use std::collections::{BTreeMap, BTreeSet};

/// A file that is larger is no configuration.
const LARGEST: usize = 1 << 20;

/// Parses a file and lays it on what is built in; `None` where nothing can be read.
pub(crate) fn document(text: &str, report: &mut Report) -> Option<Node> {
    let start = Origin::File { line: 1, column: 1 };
    if text.len() > LARGEST {
        let message = format!("the file has {} bytes; a lockgate.toml has at most {LARGEST}", text.len());
        report.error(
            &start,
            &Path::default(),
            message,
            Some("keep data in files of its own, and name them".to_owned()),
        );
        return None;
    }
    let file = crate::tree::parse(text, report)?;
    let mut built_in = crate::tree::parse(crate::keys::BUILT_IN, report)?;
    crate::tree::rebase(&mut built_in, &Origin::BuiltIn);
    // `merge` drops what the file removes of it.
    Some(merge(&built_in, &file))
}

/// What readers need to know of the rest of the file.
pub(crate) struct Context<'t> {
    pub(crate) root: &'t Node,
    pub(crate) environments: Vec<&'t str>,
    pub(crate) models: BTreeMap<ModelName, Model>,
    pub(crate) groups: BTreeMap<String, BTreeSet<String>>,
    pub(crate) statistics: Statistics,
}

/// Reads the whole file.
///
/// # Errors
/// Every mistake that was reported before or is found now.
pub(crate) fn project(root: &Node, mut report: Report) -> Result<Project, Diagnostics> {
    Check { report: &mut report, removals: false }.root(root);
    let context = Context {
        root,
        environments: root
            .get("env")
            .map(|n| n.entries().into_iter().map(|(name, _)| name).collect())
            .unwrap_or_default(),
        models: models(root, &mut report),
        groups: groups(root),
        statistics: statistics(root),
    };
    let environments = graph::environments(&context, &mut report);
    let pipeline = pipeline::stages(root, &mut report);
    gates::check_use(&context, &environments, &mut report);
    serve::check_gates(&context, &environments, &mut report);
    let name = root.text_at("project").and_then(|text| ProjectName::new(text).ok());
    let (Some(name), false) = (name, report.has_errors()) else {
        if !report.has_errors() {
            report.error(&root.at, &Path::of(&["project"]), "the project's name can't be read", None);
        }
        return Err(report.all());
    };
    Ok(Project {
        name,
        models: context.models,
        environments,
        pipeline,
        groups: context.groups,
        requirements: root
            .get("python")
            .and_then(|p| p.text_at("requirements"))
            .map(crate::format::normal_path),
        unsupported: report.sorted(&[Class::Refused, Class::Later]),
        warnings: report.sorted(&[Class::Warning]),
    })
}

fn models(root: &Node, report: &mut Report) -> BTreeMap<ModelName, Model> {
    let mut models = BTreeMap::new();
    for (name, node) in root.get("model").map(Node::entries).unwrap_or_default() {
        let word = node.text_at("task").unwrap_or_default();
        let task = Task::ALL.iter().find(|(_, w)| *w == word).map(|(task, _)| *task);
        if let (Ok(name), Some(task)) = (ModelName::new(name), task) {
            let text = |key| node.text_at(key).map(str::to_owned);
            let unit_header = node.text_at("unit").and_then(|unit| unit_header(unit).ok());
            let serve = serve::read(node, &name, report);
            models.insert(name, Model { task, target: text("target"), id: text("id"), unit_header, serve });
        }
    }
    models
}

fn groups(root: &Node) -> BTreeMap<String, BTreeSet<String>> {
    let members = |node: &Node| {
        // A person may be written with or without `person:`; it is the same person.
        let name = |item: &Node| item.text().map(|t| t.strip_prefix("person:").unwrap_or(t).to_owned());
        node.list().iter().filter_map(name).collect()
    };
    let entries = root.get("groups").map(Node::entries).unwrap_or_default();
    entries.into_iter().map(|(name, node)| (name.to_owned(), members(node))).collect()
}

fn statistics(root: &Node) -> Statistics {
    let defaults = Statistics::default();
    let alpha = |key, default| match root.get("statistics").and_then(|s| s.get(key)).map(|n| &n.value) {
        Some(Value::Number(number)) => *number,
        _ => default,
    };
    Statistics {
        alpha_rollback: alpha("alpha_rollback", defaults.alpha_rollback),
        alpha_promote: alpha("alpha_promote", defaults.alpha_promote),
        alpha_sample_ratio: alpha("alpha_sample_ratio", defaults.alpha_sample_ratio),
    }
}
