//! Files of a backup: durable before they get their names.

use anyhow::Context as _;
use std::fs::File;
use std::path::{Path, PathBuf};

/// The files that belong to a SQLite database beside it, by their endings.
pub(super) const COMPANIONS: [&str; 2] = ["-wal", "-shm"];

/// The path with something behind its name.
pub(super) fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// Makes a file's or a folder's content durable.
pub(super) fn sync(path: &Path) -> anyhow::Result<()> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .with_context(|| format!("{} can't be synced", path.display()))
}

/// Makes a name in a folder durable.
pub(super) fn sync_name(path: &Path) -> anyhow::Result<()> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => sync(folder),
        _ => sync(Path::new(".")),
    }
}

/// Gives a file or folder its final name, durably.
pub(super) fn rename(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::rename(from, to)
        .with_context(|| format!("{} can't be renamed to {}", from.display(), to.display()))?;
    sync_name(to)
}

/// Deletes a file or folder where there is one.
pub(super) fn remove(path: &Path) -> anyhow::Result<()> {
    let removed = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("{} can't be deleted", path.display()))
        }
        _ => Ok(()),
    }
}
