//! Writing: bytes are hashed on the way, synced, and only then get their name.

use crate::error::{BlobError, failed};
use crate::incoming::Incoming;
use crate::store::{BlobStore, CHUNK, blocking, create_folder};
use lockgate_core::digest::Digest;
use sha2::{Digest as _, Sha256};
use std::os::unix::fs::PermissionsExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

/// What the bytes that come must be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Expect {
    /// Their digest, where it was announced.
    pub digest: Option<Digest>,
    /// How many they may be.
    pub at_most: Option<u64>,
}

impl Expect {
    /// Anything.
    #[must_use]
    pub fn anything() -> Self {
        Self::default()
    }

    /// The bytes with this digest.
    #[must_use]
    pub fn digest(digest: Digest) -> Self {
        Self { digest: Some(digest), at_most: None }
    }

    /// No more than `limit` bytes.
    #[must_use]
    pub fn at_most(self, limit: u64) -> Self {
        Self { at_most: Some(limit), ..self }
    }

    fn check(&self, blob: Blob) -> Result<Blob, BlobError> {
        match self.digest {
            Some(expected) if expected != blob.digest => {
                Err(BlobError::Mismatch { expected, found: blob.digest })
            }
            _ => Ok(blob),
        }
    }

    fn check_size(&self, size: u64) -> Result<(), BlobError> {
        match self.at_most {
            Some(limit) if size > limit => Err(BlobError::TooLarge { limit }),
            _ => Ok(()),
        }
    }
}

/// Bytes that are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blob {
    /// Their SHA-256.
    pub digest: Digest,
    /// How many they are.
    pub size: u64,
}

impl BlobStore {
    /// Keeps the bytes of a stream. When this returns they are durable. Bytes that are there already are replaced by
    /// themselves, which heals damage. Memory use doesn't depend on their number.
    ///
    /// # Errors
    /// Where they are not what was expected, the stream breaks or they can't be written; nothing is kept then.
    pub async fn put_stream<R>(&self, source: R, expect: Expect) -> Result<Blob, BlobError>
    where
        R: AsyncRead + Unpin,
    {
        let (incoming, blob) = self.receive(source, expect).await?;
        self.settle(incoming, &blob).await?;
        Ok(blob)
    }

    /// Takes the bytes of a stream into a file under way.
    pub(crate) async fn receive<R>(
        &self,
        mut source: R,
        expect: Expect,
    ) -> Result<(Incoming, Blob), BlobError>
    where
        R: AsyncRead + Unpin,
    {
        let folder = self.incoming().to_owned();
        let incoming = blocking(move || Incoming::create(&folder)).await?;
        let mut file = tokio::fs::File::from_std(incoming.handle()?);
        let (mut hasher, mut size) = (Sha256::new(), 0_u64);
        let mut buffer = vec![0; CHUNK];
        loop {
            let read =
                source.read(&mut buffer).await.map_err(|e| BlobError::Source { detail: e.to_string() })?;
            if read == 0 {
                break;
            }
            size = size.saturating_add(read as u64);
            expect.check_size(size)?;
            hasher.update(&buffer[..read]);
            file.write_all(&buffer[..read]).await.map_err(failed("write", incoming.path()))?;
        }
        file.flush().await.map_err(failed("write", incoming.path()))?;
        let blob = expect.check(Blob { digest: Digest::from_bytes(hasher.finalize().into()), size })?;
        Ok((incoming, blob))
    }

    /// Keeps bytes that are in memory. See [`BlobStore::put_stream`].
    ///
    /// # Errors
    /// Where they are not what was expected or can't be written; nothing is kept then.
    pub async fn put_bytes(&self, bytes: &[u8], expect: Expect) -> Result<Blob, BlobError> {
        // Checked first: the wrong bytes needn't touch the disk.
        expect.check_size(bytes.len() as u64)?;
        expect.check(Blob { digest: Digest::of(bytes), size: bytes.len() as u64 })?;
        self.put_stream(bytes, expect).await
    }

    /// Gives a file under way the name of its digest, durably.
    pub(crate) async fn settle(&self, incoming: Incoming, blob: &Blob) -> Result<(), BlobError> {
        if let Some(bucket) = self.bucket() {
            return bucket.put(&incoming, blob).await;
        }
        let target = self.path(&blob.digest);
        blocking(move || {
            let read_only = std::fs::Permissions::from_mode(0o444);
            incoming.handle()?.set_permissions(read_only).map_err(failed("write", incoming.path()))?;
            if let Some(folder) = target.parent() {
                create_folder(folder)?;
            }
            incoming.keep(&target)
        })
        .await
    }
}
