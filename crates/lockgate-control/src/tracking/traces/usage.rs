//! Sums over the spans of a trace: tokens that language models used, and what they cost.

use super::super::Span;
use super::tree::Tree;
use std::collections::HashMap;

/// The tokens that are counted, in the order in which they are written. The first three are always written.
const TOKENS: [&str; 6] = [
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
    "cache_creation_input_tokens_above_1hr",
];
const ALWAYS: usize = 3;
const COSTS: [&str; 3] = ["input_cost", "output_cost", "total_cost"];

/// What a span says of itself.
#[derive(Debug, Clone)]
pub(super) struct Node<'a> {
    pub(super) id: &'a str,
    pub(super) parent: Option<&'a str>,
    pub(super) data: Option<&'a str>,
}

impl<'a> Node<'a> {
    pub(super) fn of(span: &'a Span, data: Option<&'a str>) -> Self {
        Self { id: &span.span_id, parent: span.parent_id.as_deref(), data }
    }
}

/// The objects that count: where a span sums up those below it, they don't count once more.
fn counted(nodes: &[Node<'_>]) -> Vec<Tree> {
    let data: HashMap<&str, Option<Tree>> =
        nodes.iter().map(|n| (n.id, n.data.and_then(Tree::parse))).collect();
    let parents: HashMap<&str, Option<&str>> = nodes.iter().map(|n| (n.id, n.parent)).collect();
    let above = |node: &Node<'_>| {
        let mut next = node.parent;
        // No chain is longer than there are spans and a parent that is not there; a circle would be.
        for _ in 0..=nodes.len() {
            let Some(id) = next else { return false };
            if data.get(id).is_some_and(Option::is_some) {
                return true;
            }
            next = parents.get(id).copied().flatten();
        }
        // A circle has no root, and MLflow's own server never gets there.
        true
    };
    let counts = |node: &&Node<'_>| data.get(node.id).is_some_and(Option::is_some) && !above(node);
    nodes.iter().filter(counts).filter_map(|node| data.get(node.id).cloned().flatten()).collect()
}

/// The tokens of a trace; none where no span says anything.
pub(super) fn tokens(nodes: &[Node<'_>]) -> Option<Tree> {
    let found = counted(nodes);
    let sum = |(i, key): (usize, &&'static str)| {
        let known: Vec<i64> = found.iter().filter_map(|one| one.get(key)?.as_count()).collect();
        let total = known.iter().fold(0_i64, |sum, n| sum.saturating_add(*n));
        (i < ALWAYS || !known.is_empty()).then(|| ((*key).to_owned(), Tree::Int(total)))
    };
    (!found.is_empty()).then(|| Tree::Map(TOKENS.iter().enumerate().filter_map(sum).collect()))
}

/// The cost of a trace; none where no span says anything.
pub(super) fn cost(nodes: &[Node<'_>]) -> Option<Tree> {
    let found = counted(nodes);
    let sum = |key: &&'static str| {
        let total = found.iter().filter_map(|one| one.get(key)?.as_number()).sum();
        ((*key).to_owned(), Tree::Real(total))
    };
    (!found.is_empty()).then(|| Tree::Map(COSTS.iter().map(sum).collect()))
}

/// Tokens as a client wrote them, over those that were known: only numbers of what is counted remain.
pub(super) fn merged_tokens(old: Option<&str>, new: &str) -> Option<String> {
    merged(&TOKENS, old, new, |tree| tree.as_count().map(Tree::Int))
}

/// The same for costs.
pub(super) fn merged_cost(old: Option<&str>, new: &str) -> Option<String> {
    merged(&COSTS, old, new, |tree| tree.as_number().map(Tree::Real))
}

fn merged(keys: &[&str], old: Option<&str>, new: &str, number: fn(&Tree) -> Option<Tree>) -> Option<String> {
    let (old, new) = (old.and_then(Tree::parse), Tree::parse(new));
    let of = |key: &&str| {
        let value = match new.as_ref().and_then(|tree| tree.get(key)) {
            Some(value) => number(value),
            None => old.as_ref().and_then(|tree| tree.get(key)).and_then(number),
        };
        value.map(|value| ((*key).to_owned(), value))
    };
    let pairs: Vec<(String, Tree)> = keys.iter().filter_map(of).collect();
    (!pairs.is_empty()).then(|| Tree::Map(pairs).dump())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node<'a>(id: &'a str, parent: Option<&'a str>, data: Option<&'a str>) -> Node<'a> {
        Node { id, parent, data }
    }

    #[test]
    fn what_a_parent_sums_up_is_not_counted_again() {
        let some = Some(r#"{"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}"#);
        let leaves = [node("a", None, None), node("b", Some("a"), some), node("c", Some("a"), some)];
        let total = r#"{"input_tokens": 6, "output_tokens": 8, "total_tokens": 14}"#;
        assert_eq!(tokens(&leaves).unwrap().dump(), total);
        let both = Some(total);
        let summed = [node("a", None, both), node("b", Some("a"), None), node("c", Some("b"), some)];
        assert_eq!(tokens(&summed).unwrap().dump(), total);
        assert_eq!(tokens(&[node("a", None, None)]), None);
        // The parent may not have arrived yet; a circle ends.
        assert_eq!(tokens(&[node("c", Some("gone"), both)]).unwrap().dump(), total);
        assert_eq!(tokens(&[node("a", Some("b"), None), node("b", Some("a"), some)]), None);
    }

    #[test]
    fn costs_are_floats() {
        let one = Some(r#"{"input_cost": 1, "output_cost": 0.5, "total_cost": 1.5}"#);
        let text = cost(&[node("a", None, one)]).unwrap().dump();
        assert_eq!(text, r#"{"input_cost": 1.0, "output_cost": 0.5, "total_cost": 1.5}"#);
    }

    #[test]
    fn only_known_counts_are_kept() {
        let new = r#"{"output_tokens": 5, "other": 1, "input_tokens": "x"}"#;
        let kept = merged_tokens(Some(r#"{"input_tokens": 1, "total_tokens": 2}"#), new);
        assert_eq!(kept.unwrap(), r#"{"output_tokens": 5, "total_tokens": 2}"#);
        assert_eq!(merged_tokens(None, "no JSON"), None);
    }
}
