//! Who may depend on whom.

use super::Findings;
use crate::workspace::{Graph, Kind};

/// What one crate may use of the others.
enum MayUse {
    /// These.
    Only(&'static [&'static str]),
    /// All but the development crates.
    AllShipped,
    /// Any. Such a crate itself serves development only: nothing shipped may depend on it.
    Development,
}

/// DESIGN.md section 4, column "may use (internal)". A dependency for tests alone isn't bound by it.
const TABLE: &[(&str, MayUse)] = &[
    ("lockgate-core", MayUse::Only(&[])),
    ("lockgate-stats", MayUse::Only(&[])),
    ("lockgate-wire", MayUse::Only(&[])),
    ("lockgate-config", MayUse::Only(&["lockgate-core"])),
    ("lockgate-store", MayUse::Only(&["lockgate-core"])),
    ("lockgate-blob", MayUse::Only(&["lockgate-core"])),
    (
        "lockgate-control",
        MayUse::Only(&[
            "lockgate-core",
            "lockgate-stats",
            "lockgate-config",
            "lockgate-store",
            "lockgate-blob",
        ]),
    ),
    (
        "lockgate-agent",
        MayUse::Only(&[
            "lockgate-core",
            "lockgate-stats",
            "lockgate-config",
            "lockgate-store",
            "lockgate-blob",
            "lockgate-gateway",
            "lockgate-runtime",
            "lockgate-wire",
        ]),
    ),
    ("lockgate-gateway", MayUse::Only(&["lockgate-core", "lockgate-stats", "lockgate-wire"])),
    ("lockgate-runtime", MayUse::Only(&["lockgate-core", "lockgate-wire"])),
    ("lockgate-api", MayUse::Only(&["lockgate-control", "lockgate-core"])),
    ("lockgate-mlflow", MayUse::Only(&["lockgate-control", "lockgate-core"])),
    ("lockgate", MayUse::AllShipped),
    ("lockgate-testkit", MayUse::Development),
    ("xtask", MayUse::Development),
];

/// "Never": crates that must be absent from all that is built into another, through any number of steps.
/// A name that ends in `*` stands for all names that begin so.
const NEVER: &[(&[&str], &[&str], &str)] = &[
    (
        &["lockgate-core", "lockgate-stats", "lockgate-wire"],
        &[
            "tokio*",
            "sqlx*",
            "rusqlite",
            "hyper*",
            "axum*",
            "reqwest",
            "object_store",
            "rand",
            "arrow*",
            "parquet",
        ],
        "it is pure: no runtime, no SQL, no HTTP, no files, no randomness",
    ),
    (
        &["lockgate-gateway", "lockgate-runtime"],
        &["lockgate-store", "lockgate-control", "lockgate-blob", "sqlx*", "rusqlite", "axum*"],
        "the data plane lives from its last routing table",
    ),
    (
        &["lockgate-api", "lockgate-mlflow"],
        &["lockgate-agent", "lockgate-gateway"],
        "it speaks for the control plane",
    ),
];

pub(super) fn check(graph: &Graph, findings: &mut Findings) {
    for member in &graph.members {
        match TABLE.iter().find(|(name, _)| name == member) {
            Some((_, may_use)) => check_member(graph, member, may_use, findings),
            None => findings.problems.push(format!(
                "crate {member} isn't in the table of crates/xtask/src/tidy/dependencies.rs; say there what it may use"
            )),
        }
    }
    for (crates, never, reason) in NEVER {
        for name in crates.iter().filter(|name| graph.members.contains(**name)) {
            for found in graph.shipped_with(name) {
                if never.iter().any(|pattern| matches(pattern, found)) {
                    findings
                        .problems
                        .push(format!("{name} is built with {found}, which it must never be: {reason}"));
                }
            }
        }
    }
}

fn check_member(graph: &Graph, member: &str, may_use: &MayUse, findings: &mut Findings) {
    let internal =
        graph.edges.get(member).into_iter().flatten().filter(|(name, _)| graph.members.contains(name));
    for (used, kind) in internal {
        let is_development =
            TABLE.iter().any(|(name, may)| name == used && matches!(may, MayUse::Development));
        let problem = match (may_use, kind) {
            _ if used == "lockgate" => Some("nothing depends on the binary"),
            (MayUse::Development, _) => None,
            (_, Kind::Shipped) if is_development => Some("that one is for tests: make it a dev-dependency"),
            (MayUse::Only(allowed), Kind::Shipped) if !allowed.contains(&used.as_str()) => {
                Some("DESIGN.md section 4 doesn't allow it")
            }
            _ => None,
        };
        if let Some(problem) = problem {
            findings.problems.push(format!("{member} depends on {used}: {problem}"));
        }
    }
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn graph(edges: &[(&str, &str, Kind)]) -> Graph {
        let mut graph = Graph::default();
        for (from, to, kind) in edges {
            graph.edges.entry((*from).to_owned()).or_default().insert(((*to).to_owned(), *kind));
            graph.edges.entry((*to).to_owned()).or_default();
        }
        graph.members = graph
            .edges
            .keys()
            .filter(|name| name.starts_with("lockgate") || *name == "xtask")
            .cloned()
            .collect();
        graph
    }

    fn problems(edges: &[(&str, &str, Kind)]) -> Vec<String> {
        let mut findings = Findings::default();
        check(&graph(edges), &mut findings);
        findings.problems
    }

    #[test]
    fn allows_what_the_table_allows() {
        let fine = [
            ("lockgate-store", "lockgate-core", Kind::Shipped),
            ("lockgate-store", "sqlx", Kind::Shipped),
            ("lockgate-gateway", "tokio", Kind::Shipped),
            ("lockgate", "lockgate-store", Kind::Shipped),
            ("lockgate", "lockgate-testkit", Kind::Development),
            ("lockgate-testkit", "lockgate-store", Kind::Shipped),
            ("lockgate-core", "tokio", Kind::Development),
        ];
        assert_eq!(problems(&fine), Vec::<String>::new());
    }

    #[test]
    fn refuses_each_kind_of_wrong_edge() {
        for (from, to, kind) in [
            ("lockgate-core", "lockgate-stats", Kind::Shipped),
            ("lockgate-gateway", "lockgate-store", Kind::Shipped),
            ("lockgate-runtime", "lockgate-blob", Kind::Shipped),
            ("lockgate-api", "lockgate-mlflow", Kind::Shipped),
            ("lockgate-mlflow", "lockgate-store", Kind::Shipped),
            ("lockgate-agent", "lockgate-control", Kind::Shipped),
            ("lockgate-control", "lockgate-testkit", Kind::Shipped),
            ("lockgate", "xtask", Kind::Shipped),
            ("lockgate-testkit", "lockgate", Kind::Development),
            ("lockgate-stats", "tokio-util", Kind::Shipped),
            ("lockgate-core", "sqlx-core", Kind::Shipped),
            ("lockgate-wire", "reqwest", Kind::Shipped),
            ("lockgate-new", "serde", Kind::Shipped),
        ] {
            let found = problems(&[(from, to, kind)]);
            assert!(!found.is_empty(), "{from} -> {to}");
            assert!(found.iter().all(|text| text.contains(from)), "{found:?}");
        }
    }

    #[test]
    fn sees_through_other_crates() {
        let found = problems(&[
            ("lockgate-core", "innocent", Kind::Shipped),
            ("innocent", "tokio", Kind::Shipped),
            ("lockgate-gateway", "lockgate-wire", Kind::Shipped),
        ]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("lockgate-core is built with tokio"));
    }

    #[test]
    fn the_table_names_crates_that_can_exist() {
        let names: BTreeSet<&str> = TABLE.iter().map(|(name, _)| *name).collect();
        assert_eq!(names.len(), TABLE.len(), "a crate is listed twice");
        for (_, may_use) in TABLE {
            if let MayUse::Only(used) = may_use {
                assert!(used.iter().all(|name| names.contains(name)), "{used:?}");
            }
        }
        assert!(NEVER.iter().flat_map(|(crates, ..)| *crates).all(|name| names.contains(name)));
    }
}
