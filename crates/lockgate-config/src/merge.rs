//! The one merge rule: maps deep, scalars and lists replace, `remove = true` drops what is inherited.

use crate::tree::{Node, Table, Value};

/// Lays `over` on `base`.
pub(crate) fn merge(base: &Node, over: &Node) -> Node {
    let (Value::Table(below), Value::Table(above)) = (&base.value, &over.value) else {
        return over.clone();
    };
    let mut merged: Table = below.clone();
    for (key, node) in above {
        match below.get(key) {
            // A `remove` that has nothing to drop stays in the tree, where the check finds it; so does one upon another.
            Some(inherited) if is_removal(node) && !is_removal(inherited) => {
                merged.remove(key);
            }
            Some(inherited) => {
                merged.insert(key.clone(), merge(inherited, node));
            }
            None => {
                merged.insert(key.clone(), node.clone());
            }
        }
    }
    Node { value: Value::Table(merged), at: over.at.clone(), key_at: over.key_at.clone() }
}

/// Whether the entry is `{ remove = true }` and nothing else.
pub(crate) fn is_removal(node: &Node) -> bool {
    node.table()
        .is_some_and(|t| t.len() == 1 && matches!(t.get("remove").map(|n| &n.value), Some(Value::Flag(true))))
}

/// Writes the list form of `gates` (`["tests"]`) as the map that it stands for.
pub(crate) fn names_as_map(node: &Node) -> Option<Node> {
    let Value::List(items) = &node.value else { return Some(node.clone()) };
    let mut map = Table::new();
    for item in items {
        let mut entry = item.clone();
        entry.value = Value::Table(Table::new());
        map.insert(item.text()?.to_owned(), entry);
    }
    Some(Node { value: Value::Table(map), at: node.at.clone(), key_at: node.key_at.clone() })
}

/// Lays an environment on the one that it is `like`. A list of gates replaces the inherited gates as every list does; a map
/// of gates is merged with them, however they were written.
pub(crate) fn merge_environments(base: &Node, over: &Node) -> Node {
    let mut base = base.clone();
    if over.get("gates").is_some_and(|gates| gates.table().is_some())
        && let Value::Table(table) = &mut base.value
        && let Some(map) = table.get("gates").and_then(names_as_map)
    {
        table.insert("gates".to_owned(), map);
    }
    merge(&base, over)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::Report;

    fn tree(text: &str) -> Node {
        let mut report = Report::new("t");
        let node = crate::tree::parse(text, &mut report).unwrap();
        assert!(!report.has_errors(), "{report:?}");
        node
    }

    #[test]
    fn maps_merge_deep_and_everything_else_replaces() {
        let base = tree("a = {b = 1, c = {d = 2}, e = {f = 3}}\nl = [1, 2]\ng = {x = 1}");
        let over = tree("a = {c = {k = 5}, e = {remove = true}, z = {remove = true}}\nl = [3]\ng = 7");
        let merged = merge(&base, &over);
        let a = merged.get("a").unwrap();
        assert!(a.get("b").is_some());
        assert!(a.get("c").unwrap().get("d").is_some() && a.get("c").unwrap().get("k").is_some());
        assert!(a.get("e").is_none(), "dropped");
        assert!(a.get("z").is_some(), "a removal of nothing is kept, to be reported");
        assert_eq!(merged.get("l").unwrap().list().len(), 1);
        assert!(matches!(merged.get("g").unwrap().value, Value::Integer(7)));
    }

    #[test]
    fn a_map_of_gates_extends_an_inherited_list_and_a_list_replaces_it() {
        let base = tree("gates = [\"a\", \"b\"]");
        let extended = merge_environments(&base, &tree("gates = {c = {}}"));
        assert_eq!(extended.get("gates").unwrap().table().unwrap().len(), 3);
        let replaced = merge_environments(&base, &tree("gates = [\"c\"]"));
        assert_eq!(replaced.get("gates").unwrap().list().len(), 1);
    }
}
