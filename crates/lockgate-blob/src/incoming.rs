//! Files under way. Each is locked while its writer lives, so that whoever opens the store can tell a crashed writer's
//! leftover from another process's work.

use crate::error::{BlobError, failed};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A file under way; dropping it deletes the file unless it was kept.
#[derive(Debug)]
pub(crate) struct Incoming {
    path: PathBuf,
    /// Keeps the lock.
    file: File,
    kept: bool,
}

impl Incoming {
    /// Creates an empty file in `folder`.
    pub(crate) fn create(folder: &Path) -> Result<Self, BlobError> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let path = folder.join(format!("{}-{number}", std::process::id()));
            let opened = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
            let file = match opened {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                opened => opened.map_err(failed("create", &path))?,
            };
            // Another process that is cleaning up may have come between creating and locking.
            let locked = file.try_lock().is_ok();
            let there = file.metadata().map_err(failed("inspect", &path))?.nlink() > 0;
            if locked && there {
                return Ok(Self { path, file, kept: false });
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A second handle to write by.
    pub(crate) fn handle(&self) -> Result<File, BlobError> {
        self.file.try_clone().map_err(failed("open", &self.path))
    }

    /// A handle to read what was written, from its beginning.
    pub(crate) fn again(&self) -> Result<File, BlobError> {
        File::open(&self.path).map_err(failed("read", &self.path))
    }

    /// Makes what was written durable and moves it to its place, replacing what is there.
    pub(crate) fn keep(mut self, target: &Path) -> Result<(), BlobError> {
        self.file.sync_all().map_err(failed("write", &self.path))?;
        std::fs::rename(&self.path, target).map_err(failed("write", target))?;
        self.kept = true;
        target.parent().map_or(Ok(()), sync_folder)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "can't delete an unfinished file; the next start will");
        }
    }
}

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), BlobError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("write", folder))
}

/// Deletes what crashed writers left behind.
pub(crate) fn clean(folder: &Path) -> Result<(), BlobError> {
    for item in std::fs::read_dir(folder).map_err(failed("read", folder))? {
        let path = item.map_err(failed("read", folder))?.path();
        let file = match OpenOptions::new().write(true).open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            opened => opened.map_err(failed("open", &path))?,
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => continue,
            Err(TryLockError::Error(error)) => return Err(failed("lock", &path)(error)),
        }
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed("delete", &path)(error)),
            _ => tracing::info!(path = %path.display(), "deleted an unfinished file of an earlier run"),
        }
    }
    Ok(())
}
