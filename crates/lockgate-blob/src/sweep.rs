//! Taking bytes away that nothing refers to, beside those who put some.
//!
//! In a folder nobody gives a file its name while another is looked at and taken away: bytes that are put again look young
//! and stay, or come after the old ones have gone. In a bucket each object is looked at right before it goes.

use crate::copy::names;
use crate::error::{BlobError, failed};
use crate::store::{BlobStore, blocking};
use lockgate_core::clock::Millis;
use lockgate_core::digest::Digest;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// How many files go while nobody may put one.
const AT_ONCE: usize = 64;

/// Bytes that lie there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resting {
    /// Their digest.
    pub digest: Digest,
    /// How many they are.
    pub size: u64,
    /// When they were put last.
    pub modified: Millis,
}

/// Held by whoever takes bytes away or along, so that there is one at a time.
#[derive(Debug)]
pub struct Alone(Option<File>);

impl Alone {
    /// Whether the folder could be locked: a bucket, or a folder that this user may only read, can't.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.0.is_some()
    }
}

/// What those who put files pass through together, and whoever takes some away alone.
#[derive(Debug)]
pub(crate) struct Gate(PathBuf);

impl Gate {
    fn open(&self) -> Result<File, BlobError> {
        lock_file(&self.0)
    }

    /// Until this is dropped nothing is taken away.
    pub(crate) fn pass(&self) -> Result<File, BlobError> {
        let file = self.open()?;
        file.lock_shared().map_err(failed("lock", &self.0))?;
        Ok(file)
    }

    /// Until this is dropped nobody puts anything.
    pub(crate) fn close(&self) -> Result<File, BlobError> {
        let file = self.open()?;
        file.lock().map_err(failed("lock", &self.0))?;
        Ok(file)
    }
}

fn lock_file(path: &Path) -> Result<File, BlobError> {
    let opened =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    opened.map_err(failed("lock", path))
}

impl BlobStore {
    pub(crate) fn gate(&self) -> Gate {
        Gate(self.root().with_file_name("put.lock"))
    }

    /// Keeps others from taking bytes away or along meanwhile. In a bucket there is no such lock.
    ///
    /// # Errors
    /// Where somebody does so at this moment.
    pub async fn alone(&self) -> Result<Alone, BlobError> {
        if self.bucket().is_some() {
            return Ok(Alone(None));
        }
        let path = self.root().with_file_name("gc.lock");
        blocking(move || {
            let file = match lock_file(&path) {
                Err(BlobError::Denied { .. }) => return Ok(Alone(None)),
                file => file?,
            };
            match file.try_lock() {
                Ok(()) => Ok(Alone(Some(file))),
                Err(TryLockError::WouldBlock) => {
                    Err(BlobError::InHand { folder: path.with_file_name("").display().to_string() })
                }
                Err(TryLockError::Error(error)) => Err(failed("lock", &path)(error)),
            }
        })
        .await
    }

    /// The bytes whose digests begin with these eight bits. What else lies there is not ours.
    ///
    /// # Errors
    /// Where the place can't be read.
    pub async fn resting(&self, begins: u8) -> Result<Vec<Resting>, BlobError> {
        if let Some(bucket) = self.bucket() {
            return bucket.resting(begins).await;
        }
        let store = self.clone();
        blocking(move || {
            let shard = format!("{begins:02x}");
            let mut found = Vec::new();
            for tail in names(&store.root().join(&shard))? {
                let Ok(digest) = format!("sha256:{shard}{tail}").parse::<Digest>() else { continue };
                found.extend(look(&store.path(&digest), digest)?);
            }
            Ok(found)
        })
        .await
    }

    /// Takes bytes away that were put last before a moment; gives those that went.
    ///
    /// # Errors
    /// Where the place can't be read or written.
    pub async fn take_away(&self, digests: Vec<Digest>, before: Millis) -> Result<Vec<Resting>, BlobError> {
        if let Some(bucket) = self.bucket() {
            return bucket.take_away(digests, before).await;
        }
        let (store, gate) = (self.clone(), self.gate());
        blocking(move || {
            let mut gone = Vec::new();
            for some in digests.chunks(AT_ONCE) {
                let _closed = gate.close()?;
                for digest in some {
                    gone.extend(take_one(&store.path(digest), *digest, before)?);
                }
            }
            Ok(gone)
        })
        .await
    }
}

fn look(path: &Path, digest: Digest) -> Result<Option<Resting>, BlobError> {
    let found = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        found => found.map_err(failed("read", path))?,
    };
    let modified = found.modified().map_err(failed("read", path))?;
    let since = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
    let modified = Millis::try_from(since.as_millis()).unwrap_or(Millis::MAX);
    Ok(found.is_file().then_some(Resting { digest, size: found.len(), modified }))
}

fn take_one(path: &Path, digest: Digest, before: Millis) -> Result<Option<Resting>, BlobError> {
    let Some(found) = look(path, digest)?.filter(|found| found.modified < before) else { return Ok(None) };
    // Not synced: what a crash brings back goes the next time.
    std::fs::remove_file(path).map_err(failed("delete", path))?;
    Ok(Some(found))
}
