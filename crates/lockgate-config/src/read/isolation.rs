//! Where an environment's models run.

use super::Context;
use super::value::Reader;
use crate::nearest::suggest;
use crate::tree::Node;
use lockgate_core::id::ModelName;
use lockgate_core::plan::Isolation;
use std::collections::BTreeSet;

/// The models that run inside the gateway. One that a server of the team's own serves can't; whether a release is native is seen
/// when a plan is made for it.
pub(super) fn inline(reader: &mut Reader<'_, '_>, context: &Context<'_>) -> BTreeSet<ModelName> {
    let Some(node) = reader.node.get("isolation") else { return BTreeSet::new() };
    let path = reader.path.key("isolation");
    let is_inline = |node: &Node| {
        let word = node.text();
        Isolation::ALL.iter().any(|(isolation, name)| *isolation == Isolation::Inline && word == Some(*name))
    };
    if is_inline(node) {
        let native = context.models.iter().filter(|(_, model)| model.serve.is_none());
        let found: BTreeSet<ModelName> = native.map(|(name, _)| name.clone()).collect();
        if found.is_empty()
            && let Some(name) = context.models.keys().next()
        {
            let help = Some("take it out; what a server runs stays with that server".to_owned());
            reader.report.error(&node.at, &path, served(name), help);
        }
        return found;
    }
    let mut found = BTreeSet::new();
    for (word, entry) in node.table().map(|_| node.entries()).unwrap_or_default() {
        let Ok(name) = ModelName::new(word) else { continue };
        match context.models.get(&name) {
            None => {
                let names: Vec<&str> = context.models.keys().map(ModelName::as_str).collect();
                let help = suggest(word, "model", &names);
                reader.report.error(
                    &entry.key_at,
                    &path.key(word),
                    format!("there is no [model.{word}]"),
                    help,
                );
            }
            Some(model) if is_inline(entry) && model.serve.is_some() => {
                let help = Some(format!("write {word} = \"process\", or take it out"));
                reader.report.error(&entry.at, &path.key(word), served(&name), help);
            }
            Some(_) if is_inline(entry) => drop(found.insert(name)),
            Some(_) => {}
        }
    }
    found
}

fn served(model: &ModelName) -> String {
    format!(
        "`{model}` has a server of its own ([model.{model}.serve]): only a native (ONNX) release can run inside the gateway"
    )
}
