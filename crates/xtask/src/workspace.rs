//! What cargo knows about the workspace.

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The workspace's folder. Fixed when xtask is built, which cargo does anew if the folder is moved.
pub(crate) fn root() -> Result<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = own.ancestors().nth(2).context("xtask doesn't lie in <workspace>/crates/xtask")?;
    Ok(root.to_path_buf())
}

/// The cargo that runs us, or the one on the path. What cargo told us of our own package is not passed on: crates whose build
/// looks at it (ring), and all that need them, would be built once for a cargo below us and once for one beside us.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        let told = |start| name.to_str().is_some_and(|name| name.starts_with(start));
        if told("CARGO_PKG_") || told("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}

/// Why one crate needs another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// To be built or to run.
    Shipped,
    /// For tests, examples and benches.
    Development,
}

/// Which package depends on which, by name, over all packages that cargo resolved.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    /// Packages of this workspace.
    pub(crate) members: BTreeSet<String>,
    /// By package: what it depends on.
    pub(crate) edges: BTreeMap<String, BTreeSet<(String, Kind)>>,
}

impl Graph {
    /// What `package` needs to be built and run, itself included, through any number of steps.
    pub(crate) fn shipped_with(&self, package: &str) -> BTreeSet<&str> {
        let mut seen = BTreeSet::new();
        let mut open: Vec<&str> =
            self.edges.get_key_value(package).map(|(name, _)| name.as_str()).into_iter().collect();
        while let Some(name) = open.pop() {
            if seen.insert(name) {
                let next = self.edges.get(name).into_iter().flatten();
                open.extend(next.filter(|(_, kind)| *kind == Kind::Shipped).map(|(name, _)| name.as_str()));
            }
        }
        seen
    }
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_members: BTreeSet<String>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<DependencyKind>,
}

#[derive(Deserialize)]
struct DependencyKind {
    kind: Option<String>,
}

/// Asks `cargo metadata`, for the platform that we run on.
pub(crate) fn graph(root: &Path) -> Result<Graph> {
    let mut command = cargo();
    command.args(["metadata", "--format-version", "1", "--locked", "--filter-platform"]).arg(host()?);
    let output = command.current_dir(root).output().context("cannot run cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata failed:\n{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    parse(&output.stdout)
}

fn parse(json: &[u8]) -> Result<Graph> {
    let metadata: Metadata = serde_json::from_slice(json).context("cargo metadata says something new")?;
    let names: BTreeMap<&str, &str> =
        metadata.packages.iter().map(|p| (p.id.as_str(), p.name.as_str())).collect();
    let name =
        |id: &str| names.get(id).map(|name| (*name).to_owned()).with_context(|| format!("{id} has no name"));
    let mut graph = Graph::default();
    for id in &metadata.workspace_members {
        graph.members.insert(name(id)?);
    }
    for node in &metadata.resolve.nodes {
        let edges = graph.edges.entry(name(&node.id)?).or_default();
        for dependency in &node.deps {
            for kind in &dependency.dep_kinds {
                let development = kind.kind.as_deref() == Some("dev");
                let kind = if development { Kind::Development } else { Kind::Shipped };
                edges.insert((name(&dependency.pkg)?, kind));
            }
        }
    }
    Ok(graph)
}

fn host() -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("-vV").output().context("cannot run rustc -vV")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc -vV names no host")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_cargos_answer() {
        let json = br#"{
            "packages": [{"id": "a 1", "name": "a"}, {"id": "b 1", "name": "b"}, {"id": "c 1", "name": "c"}],
            "workspace_members": ["a 1"],
            "resolve": {"nodes": [
                {"id": "a 1", "deps": [{"pkg": "b 1", "dep_kinds": [{"kind": null}, {"kind": "dev"}]}]},
                {"id": "b 1", "deps": [{"pkg": "c 1", "dep_kinds": [{"kind": "dev"}]}]},
                {"id": "c 1", "deps": []}
            ]}
        }"#;
        let graph = parse(json).unwrap();
        assert_eq!(graph.members, BTreeSet::from(["a".to_owned()]));
        assert_eq!(graph.edges["a"].len(), 2);
        assert_eq!(graph.shipped_with("a"), BTreeSet::from(["a", "b"]));
        assert!(parse(b"{}").is_err());
    }
}
