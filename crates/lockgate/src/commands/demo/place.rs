//! The demo's folders: only what carries its marker is ever emptied.

use anyhow::{Context as _, bail};
use std::io::ErrorKind;
use std::path::Path;

include!(concat!(env!("OUT_DIR"), "/example.rs"));

/// The file that makes a folder the demo's own.
pub(super) const MARKER: &str = ".lockgate-demo";

/// What a second demo throws away of the first one's state. What was downloaded (Python packages, ONNX Runtime) stays.
const STATE: [&str; 5] = ["server", "env", "pipeline", "logs", "up.json"];

/// Makes a folder the demo's own, or finds that it is.
pub(super) fn claim(dir: &Path) -> anyhow::Result<()> {
    if is_ours(dir)? {
        return Ok(());
    }
    std::fs::create_dir_all(dir).with_context(|| format!("can't make {}", dir.display()))?;
    let marker = dir.join(MARKER);
    std::fs::write(&marker, "`lockgate demo` made this folder and empties it when it runs again.\n")
        .with_context(|| format!("can't write {}", marker.display()))
}

/// Whether a folder carries the marker; one that is not there, or is empty, can become the demo's.
///
/// Errors where it holds anything else: that is somebody's work.
pub(super) fn is_ours(dir: &Path) -> anyhow::Result<bool> {
    if dir.join(MARKER).is_file() {
        return Ok(true);
    }
    match std::fs::read_dir(dir).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(false),
        Ok(false) => bail!(
            "{} is there and was not made by `lockgate demo`, so it is left alone\n  hint: name another folder with --dir, or remove this one if it is of no use",
            dir.display()
        ),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e).with_context(|| format!("{} can't be read", dir.display())),
    }
}

/// Empties the project's folder of everything but the marker, which goes never, so that a demo that is killed half-way can
/// be told again.
pub(super) fn empty_project(dir: &Path) -> anyhow::Result<()> {
    owned(dir)?;
    let entries = std::fs::read_dir(dir).with_context(|| format!("{} can't be read", dir.display()))?;
    for entry in entries {
        let path = entry.with_context(|| format!("{} can't be read", dir.display()))?.path();
        if path.file_name().is_some_and(|name| name != MARKER) {
            remove(&path)?;
        }
    }
    Ok(())
}

/// Removes the state of the last demo.
pub(super) fn empty_state(dir: &Path) -> anyhow::Result<()> {
    owned(dir)?;
    STATE.iter().try_for_each(|name| remove(&dir.join(name)))
}

fn owned(dir: &Path) -> anyhow::Result<()> {
    if is_ours(dir)? { Ok(()) } else { bail!("{} is not the demo's folder", dir.display()) }
}

fn remove(path: &Path) -> anyhow::Result<()> {
    // A link is removed, never what it points to.
    let gone = match path.symlink_metadata() {
        Ok(about) if about.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(e) => Err(e),
    };
    match gone {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            Err(e).with_context(|| format!("can't remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Writes the example's files and makes a Git repository of them.
pub(super) fn unpack(dir: &Path, author: &str) -> anyhow::Result<()> {
    for (name, bytes) in FILES {
        let path = dir.join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).with_context(|| format!("can't make {}", parent.display()))?;
        }
        std::fs::write(&path, bytes).with_context(|| format!("can't write {}", path.display()))?;
    }
    git(dir, &["init", "--quiet", "--initial-branch=main"])?;
    // The marker is the demo's and no part of the project.
    let exclude = dir.join(".git/info/exclude");
    std::fs::create_dir_all(dir.join(".git/info"))
        .and_then(|()| std::fs::write(&exclude, format!("/{MARKER}\n")))
        .with_context(|| format!("can't write {}", exclude.display()))?;
    git(dir, &["config", "user.email", author])?;
    git(dir, &["config", "user.name", "Alice"])?;
    git(dir, &["add", "--all"])?;
    git(dir, &["commit", "--quiet", "--message", "The flight-delays example"])
}

fn git(dir: &Path, args: &[&str]) -> anyhow::Result<()> {
    let status = std::process::Command::new("git")
        .arg("-C")
        .arg(dir)
        .args(args)
        .status()
        .context("`git` can't be started\n  hint: install it, for example with `apt-get install git`")?;
    if status.success() { Ok(()) } else { bail!("`git {}` failed", args.join(" ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_in_the_binary_without_what_runs_leave_behind() {
        let names: Vec<&str> = FILES.iter().map(|(name, _)| *name).collect();
        assert!(names.contains(&"lockgate.toml"), "{names:?}");
        assert!(names.contains(&"requirements.lock"));
        assert!(names.contains(&".gitignore"));
        assert!(!names.iter().any(|n| n.contains("__pycache__") || n.starts_with("data/")), "{names:?}");
    }

    #[test]
    fn the_example_parses() {
        let (_, text) = FILES.iter().find(|(name, _)| *name == "lockgate.toml").unwrap();
        let project = lockgate_config::parse(&String::from_utf8_lossy(text), "lockgate.toml").unwrap();
        assert_eq!(project.environments.len(), 4);
        assert!(project.unsupported.is_empty(), "{:?}", project.unsupported);
    }

    #[test]
    fn a_folder_of_somebody_else_is_left_alone() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("work");
        std::fs::create_dir_all(dir.join("server")).unwrap();
        std::fs::write(dir.join("lockgate.toml"), "project = \"mine\"\n").unwrap();
        for refused in [claim(&dir), empty_project(&dir), empty_state(&dir)] {
            assert!(refused.unwrap_err().to_string().contains("not made by `lockgate demo`"));
        }
        assert!(dir.join("lockgate.toml").is_file() && dir.join("server").is_dir());
        assert!(!dir.join(MARKER).exists());
    }

    #[test]
    fn a_folder_without_the_marker_is_not_emptied_even_if_there_is_nothing_in_it() {
        let base = tempfile::tempdir().unwrap();
        assert!(empty_project(base.path()).is_err());
        assert!(empty_state(&base.path().join("nowhere")).is_err());
    }

    #[test]
    fn the_demos_own_folders_are_emptied_and_stay_its_own() {
        let base = tempfile::tempdir().unwrap();
        let (dir, state) = (base.path().join("project"), base.path().join("state"));
        let elsewhere = base.path().join("elsewhere");
        std::fs::create_dir(&elsewhere).unwrap();
        std::fs::write(elsewhere.join("kept"), "").unwrap();
        claim(&dir).unwrap();
        claim(&state).unwrap();
        std::fs::create_dir_all(dir.join("data")).unwrap();
        std::os::unix::fs::symlink(&elsewhere, dir.join("link")).unwrap();
        std::fs::create_dir_all(state.join("server")).unwrap();
        std::fs::create_dir_all(state.join("venvs")).unwrap();
        empty_project(&dir).unwrap();
        empty_state(&state).unwrap();
        let left = |dir: &Path| {
            let mut names: Vec<String> = std::fs::read_dir(dir)
                .unwrap()
                .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
                .collect();
            names.sort();
            names
        };
        assert_eq!(left(&dir), [MARKER]);
        assert_eq!(left(&state), [MARKER, "venvs"]);
        assert!(elsewhere.join("kept").is_file());
        claim(&dir).unwrap();
    }

    #[test]
    fn the_unpacked_project_is_clean_to_git() {
        let base = tempfile::tempdir().unwrap();
        claim(base.path()).unwrap();
        unpack(base.path(), "alice@example.com").unwrap();
        std::fs::create_dir_all(base.path().join("data")).unwrap();
        std::fs::create_dir_all(base.path().join("pipeline/__pycache__")).unwrap();
        std::fs::write(base.path().join("data/train.parquet"), "rows").unwrap();
        std::fs::write(base.path().join("pipeline/__pycache__/x.pyc"), "code").unwrap();
        let output = std::process::Command::new("git")
            .args(["-C", &base.path().to_string_lossy(), "status", "--porcelain"])
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    }
}
