//! The folder that is written: its own mark, and files that are there whole or not at all.

use crate::commands::import::places;
use anyhow::{Context as _, bail};
use lockgate_control::tracking::exchange::Pairs;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What tells an export's folder from others.
const MARK: &str = ".lockgate-export.json";
/// The ending of files that are being written.
pub(super) const PART: &str = ".lockgate-part";

#[derive(Debug, Serialize, Deserialize)]
struct Mark {
    server: String,
    finished: bool,
}

/// A file store that is being written.
#[derive(Debug)]
pub(super) struct Folder {
    root: PathBuf,
    server: String,
}

impl Folder {
    /// Begins an export, or goes on with one of the same server.
    pub(super) fn begin(given: &Path, server: &str) -> anyhow::Result<Self> {
        let root = std::path::absolute(given).with_context(|| format!("{} is no path", given.display()))?;
        std::fs::create_dir_all(&root).with_context(|| format!("{} can't be made", root.display()))?;
        let folder = Self { root, server: server.to_owned() };
        match std::fs::read_to_string(folder.root.join(MARK)) {
            Ok(text) => {
                let mark: Mark = serde_json::from_str(&text).context("the export's mark can't be read")?;
                if mark.finished || mark.server != server {
                    let what = if mark.finished {
                        "a finished export".to_owned()
                    } else {
                        format!("an export of {}", mark.server)
                    };
                    bail!("{} holds {what}\n  hint: name an empty folder", folder.root.display());
                }
            }
            Err(_) => {
                let mut entries = std::fs::read_dir(&folder.root)
                    .with_context(|| format!("{} can't be read", folder.root.display()))?;
                if entries.next().is_some() {
                    bail!("{} is not empty\n  hint: name an empty folder", folder.root.display());
                }
                folder.mark(false)?;
            }
        }
        for name in [".trash", "models"] {
            std::fs::create_dir_all(folder.root.join(name))?;
        }
        Ok(folder)
    }

    fn mark(&self, finished: bool) -> anyhow::Result<()> {
        let mark = Mark { server: self.server.clone(), finished };
        self.write(MARK, &serde_json::to_string(&mark)?)
    }

    /// Says that all of it is there.
    pub(super) fn finish(&self) -> anyhow::Result<()> {
        self.mark(true)
    }

    /// A path in it.
    pub(super) fn path(&self, below: &str) -> PathBuf {
        self.root.join(below)
    }

    /// A path in it as a URI.
    pub(super) fn uri(&self, below: &str) -> String {
        let path = self.root.join(below);
        let text = path.to_string_lossy();
        format!("file://{}", places::encoded(text.trim_end_matches('/')))
    }

    /// Writes a text whole or not at all.
    pub(super) fn write(&self, below: &str, text: &str) -> anyhow::Result<()> {
        let path = self.path(below);
        let failed = || format!("{} can't be written", path.display());
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).with_context(failed)?;
        }
        let mut part = path.clone().into_os_string();
        part.push(PART);
        std::fs::write(&part, text).with_context(failed)?;
        std::fs::rename(&part, &path).with_context(failed)
    }

    /// Writes tags or params, a file each; gives the names that can't be files here.
    pub(super) fn pairs(&self, below: &str, pairs: &Pairs) -> anyhow::Result<Vec<String>> {
        std::fs::create_dir_all(self.path(below))?;
        let mut refused = Vec::new();
        for (key, value) in pairs {
            let path = format!("{below}/{key}");
            if !is_name(key) || self.path(&path).is_dir() || self.write(&path, value).is_err() {
                refused.push(key.clone());
            }
        }
        Ok(refused)
    }

    /// Removes what an export that was broken off left of something.
    pub(super) fn clear(&self, below: &str, parts: &[&str]) -> anyhow::Result<()> {
        for part in parts {
            let path = self.path(below).join(part);
            if path.is_dir() {
                std::fs::remove_dir_all(&path)
                    .with_context(|| format!("{} can't be removed", path.display()))?;
            }
        }
        Ok(())
    }
}

/// Whether a name is a path that stays where it is put.
pub(super) fn is_name(name: &str) -> bool {
    lockgate_core::release::is_safe_path(name)
}

/// Whether an id is the name of one file or folder.
pub(super) fn is_part(id: &str) -> bool {
    is_name(id) && !id.contains('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_single_names() {
        assert!(is_part("m-1") && is_part("..a"));
        for bad in ["", ".", "..", "../../x", "a/b", "/etc", "a\\b"] {
            assert!(!is_part(bad), "{bad}");
        }
    }

    #[test]
    fn only_an_empty_folder_or_the_own_unfinished_export_is_written_to() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("new/store");
        let folder = Folder::begin(&root, "http://a").unwrap();
        assert!(Folder::begin(&root, "http://a").is_ok());
        assert!(Folder::begin(&root, "http://b").unwrap_err().to_string().contains("an export of http://a"));
        folder.finish().unwrap();
        assert!(Folder::begin(&root, "http://a").unwrap_err().to_string().contains("finished"));
        assert!(Folder::begin(place.path(), "http://a").unwrap_err().to_string().contains("not empty"));
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::begin(&place.path().join("store"), "http://a").unwrap();
        let pairs: Pairs =
            ["ok", "a/b", "../../up", "/abs", "a"].map(|key| (key.to_owned(), key.to_owned())).into();
        let mut refused = folder.pairs("0/tags", &pairs).unwrap();
        refused.sort();
        // `a` is written first, so that `a/b` finds a file in its way.
        assert_eq!(refused, ["../../up", "/abs", "a/b"]);
        assert!(!place.path().join("up").exists());
        assert_eq!(std::fs::read_to_string(folder.path("0/tags/ok")).unwrap(), "ok");
        assert!(folder.uri("a b").ends_with("/store/a%20b"));
    }
}
