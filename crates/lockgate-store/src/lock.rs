//! The lock that keeps a second server off a SQLite file for as long as the first one lives.

use crate::error::StoreError;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// The longest process id that is read from a lock file.
const PID_LIMIT: u64 = 20;

/// A held advisory lock on a SQLite database; dropping it (or dying) frees it. No server runs on the file meanwhile.
#[derive(Debug)]
pub struct FileLock {
    _file: File,
}

fn failed(what: &'static str, path: &Path) -> impl Fn(std::io::Error) -> StoreError {
    let path = path.display().to_string();
    move |error| match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            StoreError::ReadOnly { place: path.clone() }
        }
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            StoreError::DiskFull { place: path.clone(), detail: error.to_string() }
        }
        _ => StoreError::Files { what, path: path.clone(), detail: error.to_string() },
    }
}

impl FileLock {
    /// Takes the lock beside the database file, or says who holds it. Creates the folder and the file where they
    /// don't exist, for this user only.
    pub(crate) fn take(database: &Path) -> Result<Self, StoreError> {
        let lock = Self::hold(database)?;
        private(database).map_err(failed("open the database", database))?;
        Ok(lock)
    }

    /// Takes the lock beside the place of a database file, which may or may not be there.
    ///
    /// # Errors
    /// Where a server runs on it, or the folder can't be written.
    pub fn hold(database: &Path) -> Result<Self, StoreError> {
        if let Some(folder) = database.parent() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)
                .map_err(failed("create the folder", folder))?;
        }
        let mut name = database.as_os_str().to_owned();
        name.push(".lock");
        let path = Path::new(&name);
        let mut file = private(path).map_err(failed("open the lock file", path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::InUse {
                    path: database.display().to_string(),
                    by: holder(&mut file),
                });
            }
            Err(TryLockError::Error(error)) => return Err(failed("lock", path)(error)),
        }
        // The number is only for the other process's message: a full disk must not keep this one from starting.
        if let Err(error) = note_pid(&mut file) {
            tracing::warn!(path = %path.display(), %error, "can't note the process id in the lock file");
        }
        Ok(Self { _file: file })
    }
}

fn private(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn note_pid(file: &mut File) -> std::io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let read = Read::take(file, PID_LIMIT).read_to_string(&mut text);
    match (read, text.trim().parse::<u32>()) {
        (Ok(_), Ok(pid)) => format!("pid {pid}"),
        _ => "another process".to_owned(),
    }
}
