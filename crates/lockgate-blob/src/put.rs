//! Writing: bytes are hashed on the way, synced, and only then get their name.

use crate::blocks;
use crate::error::{BlobError, failed};
use crate::incoming::Incoming;
use crate::store::{BlobStore, blocking, create_folder};
use bytes::Bytes;
use futures_util::Stream;
use lockgate_core::digest::Digest;
use std::io;
use std::os::unix::fs::PermissionsExt;

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
    pub async fn put_stream<S>(&self, source: S, expect: Expect) -> Result<Blob, BlobError>
    where
        S: Stream<Item = io::Result<Bytes>>,
    {
        let (incoming, blob) = self.receive(source, expect, self.bucket().is_none()).await?;
        self.settle(incoming, &blob).await?;
        Ok(blob)
    }

    /// Takes the bytes of a stream into a file under way, which is to be made durable in the end or not.
    pub(crate) async fn receive<S>(
        &self,
        source: S,
        expect: Expect,
        durable: bool,
    ) -> Result<(Incoming, Blob), BlobError>
    where
        S: Stream<Item = io::Result<Bytes>>,
    {
        let folder = self.incoming().to_owned();
        let incoming = blocking(move || Incoming::create(&folder)).await?;
        let blob = blocks::write(&incoming, source, expect.at_most, durable).await?;
        Ok((incoming, expect.check(blob)?))
    }

    /// Keeps bytes that are in memory. See [`BlobStore::put_stream`].
    ///
    /// # Errors
    /// Where they are not what was expected or can't be written; nothing is kept then.
    pub async fn put_bytes(&self, bytes: &[u8], expect: Expect) -> Result<Blob, BlobError> {
        // Checked first: the wrong bytes needn't touch the disk.
        expect.check_size(bytes.len() as u64)?;
        expect.check(Blob { digest: Digest::of(bytes), size: bytes.len() as u64 })?;
        self.put_stream(blocks::blocks(bytes), expect).await
    }

    /// Gives a file under way the name of its digest, durably.
    pub(crate) async fn settle(&self, incoming: Incoming, blob: &Blob) -> Result<(), BlobError> {
        if let Some(bucket) = self.bucket().cloned() {
            let blob = *blob;
            // Goes on when the caller has gone: what was begun in a bucket must end there.
            let kept = tokio::spawn(async move { bucket.put(&incoming, &blob).await });
            return kept.await.unwrap_or(Err(BlobError::Ending));
        }
        let (target, gate) = (self.path(&blob.digest), self.gate());
        blocking(move || {
            let _open = gate.pass()?;
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
