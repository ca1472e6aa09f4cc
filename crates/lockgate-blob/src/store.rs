//! [`BlobStore`]: opening, reading, verifying.

use crate::blocks::Blocks;
use crate::bucket::{Bucket, Intent};
use crate::error::{BlobError, failed};
use crate::incoming;
use crate::place::BlobPlace;
use crate::reading;
use futures_util::{StreamExt as _, TryStreamExt as _};
use lockgate_core::digest::Digest;
use sha2::{Digest as _, Sha256};
use std::fs::{DirBuilder, File};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many bytes are in memory at a time while a file is checked.
const CHUNK: usize = 256 * 1024;

/// A handle to the bytes. Clones share it.
#[derive(Debug, Clone)]
pub struct BlobStore {
    folders: Arc<Folders>,
}

#[derive(Debug)]
struct Folders {
    blobs: PathBuf,
    incoming: PathBuf,
    /// Where the bytes rest, if not in `blobs`.
    bucket: Option<Bucket>,
    /// Two tasks that make the same folder would get into each other's way.
    materialising: Mutex<()>,
}

/// One blob's bytes as they lie there. See [`BlobStore::read_verified`] for checked ones.
#[derive(Debug)]
pub struct BlobReader {
    size: u64,
    source: Source,
}

#[derive(Debug)]
enum Source {
    File(File),
    Bucket(Bucket, Digest),
}

impl BlobReader {
    /// How many bytes there are.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The bytes in blocks: from one on, and so many.
    ///
    /// # Errors
    /// Where a bucket can't be read, or holds something else by now.
    pub async fn blocks(self, from: u64, length: u64) -> Result<Blocks, BlobError> {
        match self.source {
            Source::File(file) => Ok(reading::of_file(file, from, length).boxed()),
            Source::Bucket(bucket, digest) => bucket.read(&digest, self.size, from, length).await,
        }
    }
}

/// Runs file work where it blocks nobody.
pub(crate) async fn blocking<T, F>(work: F) -> Result<T, BlobError>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, BlobError> + Send + 'static,
{
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(BlobError::Ending))
}

/// Creates a folder for this user only, durably.
pub(crate) fn create_folder(folder: &Path) -> Result<(), BlobError> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => folder.parent().map_or(Ok(()), incoming::sync_folder),
        Err(error) if error.kind() == ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        Err(error) => Err(failed("create the folder", folder)(error)),
    }
}

impl BlobStore {
    /// Opens the store in `folder`, which is created where there is none. What a crash left unfinished is deleted.
    ///
    /// # Errors
    /// Where the folder can't be created, read or written.
    pub async fn open(folder: impl AsRef<Path>) -> Result<Self, BlobError> {
        Self::open_over(folder.as_ref(), None).await
    }

    /// Opens the store in a place. What is on its way into a bucket is in `scratch` meanwhile.
    ///
    /// # Errors
    /// Where the folder can't be created, read or written, or the bucket can't be written.
    pub async fn open_at(place: &BlobPlace, scratch: &Path) -> Result<Self, BlobError> {
        match place {
            BlobPlace::Folder(folder) => Self::open(folder).await,
            BlobPlace::Bucket(name) => {
                let bucket = Bucket::open(name, Intent::Write).await?;
                Self::open_over(scratch, Some(bucket)).await
            }
        }
    }

    /// Opens the store in a place, and leaves it as it is; none where there is no such folder.
    ///
    /// # Errors
    /// Where it can't be read.
    pub async fn existing_at(place: &BlobPlace) -> Result<Option<Self>, BlobError> {
        Self::existing_over(place, None).await
    }

    /// The same, where it is known which folder takes what is under way into a bucket.
    ///
    /// # Errors
    /// Where it can't be read.
    pub async fn existing_over(place: &BlobPlace, scratch: Option<&Path>) -> Result<Option<Self>, BlobError> {
        match place {
            BlobPlace::Folder(folder) => Self::existing(folder).await,
            BlobPlace::Bucket(name) => {
                let bucket = Bucket::open(name, Intent::Read).await?;
                // Nothing is written, so the folder is never looked at.
                Ok(Some(Self::at(scratch.unwrap_or(Path::new("/nonexistent")), Some(bucket))))
            }
        }
    }

    pub(crate) async fn open_over(folder: &Path, bucket: Option<Bucket>) -> Result<Self, BlobError> {
        let folder = folder.to_owned();
        blocking(move || {
            let folder = std::path::absolute(&folder).map_err(failed("open", &folder))?;
            if let Some(above) = folder.parent() {
                DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(above)
                    .map_err(failed("create the folder", above))?;
            }
            create_folder(&folder)?;
            let store = Self::at(&folder, bucket);
            create_folder(&store.folders.blobs)?;
            create_folder(&store.folders.incoming)?;
            incoming::clean(&store.folders.incoming)?;
            Ok(store)
        })
        .await
    }

    /// A handle to the store in an absolute folder, which is not looked at.
    pub(crate) fn at(folder: &Path, bucket: Option<Bucket>) -> Self {
        let folders = Folders {
            bucket,
            blobs: folder.join("blobs"),
            incoming: folder.join("incoming"),
            materialising: Mutex::new(()),
        };
        Self { folders: Arc::new(folders) }
    }

    /// Where the bytes rest, if not in a folder.
    pub(crate) fn bucket(&self) -> Option<&Bucket> {
        self.folders.bucket.as_ref()
    }

    /// The folder that holds all bytes as files.
    pub(crate) fn files(&self) -> Result<(), BlobError> {
        self.bucket().map_or(Ok(()), |bucket| Err(BlobError::NotFiles { bucket: bucket.to_string() }))
    }

    /// Where the bytes lie.
    pub(crate) fn root(&self) -> &Path {
        &self.folders.blobs
    }

    /// Where files under way lie.
    pub(crate) fn incoming(&self) -> &Path {
        &self.folders.incoming
    }

    /// Keeps other folders from being made meanwhile.
    pub(crate) fn materialising(&self) -> MutexGuard<'_, ()> {
        self.folders.materialising.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a digest's bytes lie: made from hexadecimal digits alone.
    pub(crate) fn path(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        let (head, tail) = hex.split_at(2);
        self.folders.blobs.join(head).join(tail)
    }

    /// Whether these bytes are there.
    ///
    /// # Errors
    /// Where the store can't be read.
    pub async fn exists(&self, digest: &Digest) -> Result<bool, BlobError> {
        self.size(digest).await.map(|size| size.is_some())
    }

    /// How many bytes there are under this digest; nothing where there are none.
    ///
    /// # Errors
    /// Where the store can't be read.
    pub async fn size(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        if let Some(bucket) = self.bucket() {
            return bucket.size(digest).await;
        }
        let path = self.path(digest);
        match tokio::fs::metadata(&path).await {
            Ok(found) => Ok(Some(found.len())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", &path)(error)),
        }
    }

    /// Opens the bytes for reading, without checking them.
    ///
    /// # Errors
    /// Where they are not there or can't be read.
    pub async fn reader(&self, digest: &Digest) -> Result<BlobReader, BlobError> {
        if let Some(bucket) = self.bucket() {
            let size = bucket.size(digest).await?.ok_or(BlobError::NotFound(*digest))?;
            return Ok(BlobReader { size, source: Source::Bucket(bucket.clone(), *digest) });
        }
        let (path, digest) = (self.path(digest), *digest);
        blocking(move || {
            let file = open_blob(&path, &digest)?;
            let size = file.metadata().map_err(failed("read", &path))?.len();
            Ok(BlobReader { size, source: Source::File(file) })
        })
        .await
    }

    /// Reads the bytes into memory, at most `limit` of them, and checks them.
    ///
    /// # Errors
    /// Where they are not there, too many or damaged.
    pub async fn read_verified(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, BlobError> {
        let reader = self.reader(digest).await?;
        if reader.size > limit {
            return Err(BlobError::TooLarge { limit });
        }
        let mut bytes = Vec::new();
        let size = reader.size;
        let mut blocks = reader.blocks(0, size).await?;
        while let Some(block) = blocks.try_next().await.map_err(self.unreadable(digest))? {
            bytes.extend_from_slice(&block);
        }
        match Digest::of(&bytes) {
            found if found == *digest => Ok(bytes),
            found => Err(BlobError::Damaged { digest: *digest, found }),
        }
    }

    fn unreadable(&self, digest: &Digest) -> impl Fn(std::io::Error) -> BlobError + use<> {
        match self.bucket() {
            Some(bucket) => failed("read", Path::new(&bucket.to_string())),
            None => failed("read", &self.path(digest)),
        }
    }

    /// Reads the bytes once and checks them; says how many there are.
    ///
    /// # Errors
    /// Where they are not there or damaged.
    pub async fn verify(&self, digest: &Digest) -> Result<u64, BlobError> {
        if self.bucket().is_some() {
            return self.verify_stream(digest).await;
        }
        let (path, digest) = (self.path(digest), *digest);
        blocking(move || verify_file(&path, &digest)).await
    }

    async fn verify_stream(&self, digest: &Digest) -> Result<u64, BlobError> {
        let reader = self.reader(digest).await?;
        let (mut hasher, size) = (Sha256::new(), reader.size);
        let mut blocks = reader.blocks(0, size).await?;
        while let Some(block) = blocks.try_next().await.map_err(self.unreadable(digest))? {
            hasher.update(&block);
        }
        same(digest, hasher, size)
    }
}

/// Opens a blob's file.
pub(crate) fn open_blob(path: &Path, digest: &Digest) -> Result<File, BlobError> {
    File::open(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => BlobError::NotFound(*digest),
        _ => failed("read", path)(error),
    })
}

/// Checks that a file holds the bytes with this digest; says how many.
pub(crate) fn verify_file(path: &Path, digest: &Digest) -> Result<u64, BlobError> {
    let mut file = open_blob(path, digest)?;
    let mut buffer = vec![0; CHUNK];
    let (mut hasher, mut size) = (Sha256::new(), 0_u64);
    loop {
        let read = file.read(&mut buffer).map_err(failed("read", path))?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
        size += read as u64;
    }
    same(digest, hasher, size)
}

fn same(digest: &Digest, hasher: Sha256, size: u64) -> Result<u64, BlobError> {
    match Digest::from_bytes(hasher.finalize().into()) {
        found if found == *digest => Ok(size),
        found => Err(BlobError::Damaged { digest: *digest, found }),
    }
}
