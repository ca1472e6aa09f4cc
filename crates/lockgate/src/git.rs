//! What Lockgate asks of Git, through the `git` that is there.

use anyhow::{Context as _, bail};
use std::path::Path;
use std::process::Command;

fn git(dir: &Path, args: &[&str]) -> anyhow::Result<Vec<u8>> {
    let output = Command::new("git")
        .arg("-C")
        .arg(dir)
        .args(args)
        .output()
        .context("`git` can't be started\n  hint: install it, for example with `apt-get install git`")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`git {}` failed in {}: {}", args.join(" "), dir.display(), said.trim());
    }
    Ok(output.stdout)
}

fn text(dir: &Path, args: &[&str]) -> anyhow::Result<String> {
    git(dir, args).map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned())
}

/// One value of Git's configuration.
pub(crate) fn config(dir: &Path, key: &str) -> Option<String> {
    text(dir, &["config", "--get", key]).ok().filter(|value| !value.is_empty())
}

/// The state of a repository's tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tree {
    /// The commit.
    pub(crate) commit: String,
    /// What differs from it, where something does.
    pub(crate) patch: Option<Vec<u8>>,
    /// The tracked files as they are, as a tar archive.
    pub(crate) archive: Vec<u8>,
    /// The e-mail addresses of the authors of the commits, and of the person here where there is a patch.
    pub(crate) authors: Vec<String>,
}

/// Whether `dir` is in a Git repository with at least one commit.
pub(crate) fn is_repository(dir: &Path) -> bool {
    text(dir, &["rev-parse", "--verify", "HEAD"]).is_ok()
}

/// Reads the tree at `dir`. Files that Git doesn't track are no part of it.
///
/// The archive is of the files as they are, so that a gate sees what trained the model, dirty or not: `git stash create`
/// names a commit of the present state without touching it.
pub(crate) fn tree(dir: &Path) -> anyhow::Result<Tree> {
    let commit = text(dir, &["rev-parse", "HEAD"])?;
    let patch = git(dir, &["diff", "HEAD", "--binary"])?;
    let patch = (!patch.is_empty()).then_some(patch);
    let state = match &patch {
        Some(_) => text(dir, &["stash", "create"])?,
        None => String::new(),
    };
    let archive = git(dir, &["archive", "--format=tar", if state.is_empty() { &commit } else { &state }])?;
    let mut authors: Vec<String> =
        text(dir, &["log", "-n", "1", "--format=%ae%n%(trailers:key=Co-authored-by,valueonly)", "HEAD"])?
            .lines()
            .filter_map(|line| {
                let line = line.trim();
                let inner =
                    line.rsplit_once('<').and_then(|(_, rest)| rest.split_once('>')).map(|(mail, _)| mail);
                Some(inner.unwrap_or(line).to_owned()).filter(|mail| !mail.is_empty())
            })
            .collect();
    if patch.is_some() {
        authors.extend(config(dir, "user.email"));
    }
    authors.sort();
    authors.dedup();
    Ok(Tree { commit, patch, archive, authors })
}
