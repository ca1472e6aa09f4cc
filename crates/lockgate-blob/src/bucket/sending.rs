//! Bytes on their way into the bucket: small ones in one piece, large ones in parts.
//!
//! What is sent is what arrived: it is hashed again when it is read for sending, and nothing is completed that has another digest.

use super::Bucket;
use super::service::{failed, within};
use crate::error::BlobError;
use crate::incoming::Incoming;
use crate::put::Blob;
use lockgate_core::digest::Digest;
use object_store::{Error, MultipartUpload, ObjectStoreExt};
use sha2::{Digest as _, Sha256};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;

/// Larger objects are sent in parts of at least as many bytes. S3 wants 5 MiB or more.
pub(super) const PART: u64 = 8 << 20;
/// S3 takes at most 10,000 parts.
const PARTS: u64 = 9_000;
/// How many parts of one upload are under way at a time.
const AT_ONCE: usize = 4;
/// How many parts of all uploads may be in memory.
pub(super) const IN_MEMORY: usize = 16;

impl Bucket {
    /// Keeps the bytes of a file under way.
    pub(crate) async fn put(&self, incoming: &Incoming, blob: &Blob) -> Result<(), BlobError> {
        let mut file = tokio::fs::File::from_std(incoming.again()?);
        let key = self.object(&blob.digest);
        if blob.size <= PART {
            let _room = self.room(PART).await?;
            let bytes = block(&mut (&mut file).take(PART), PART).await.map_err(reading(incoming))?;
            same(blob, Digest::of(&bytes))?;
            let put = within(blob.size, self.service.put(&key, bytes.into())).await;
            return put.map(drop).map_err(failed("write into", &self.name));
        }
        let begun = within(0, self.service.put_multipart(&key)).await;
        let mut upload = begun.map_err(failed("write into", &self.name))?;
        if let Err(error) = self.send(&mut upload, file, incoming, blob).await {
            self.abort(upload);
            return Err(error);
        }
        match self.size(&blob.digest).await? {
            Some(size) if size == blob.size => Ok(()),
            found => Err(BlobError::WrongSize {
                digest: blob.digest,
                expected: blob.size,
                found: found.unwrap_or_default(),
            }),
        }
    }

    /// Deletes the parts of an upload that failed, after it has been told.
    fn abort(&self, mut upload: Box<dyn MultipartUpload>) {
        let bucket = self.name.clone();
        tokio::spawn(async move {
            if let Err(error) = within(0, upload.abort()).await {
                let error = failed("write into", &bucket)(error);
                tracing::warn!(%error, "parts of an upload that failed stay in the bucket; a rule of the bucket can expire them (AbortIncompleteMultipartUpload)");
            }
        });
    }

    async fn send(
        &self,
        upload: &mut Box<dyn MultipartUpload>,
        mut file: tokio::fs::File,
        incoming: &Incoming,
        blob: &Blob,
    ) -> Result<(), BlobError> {
        let part = PART.max(blob.size.div_ceil(PARTS));
        let broken = failed("write into", &self.name);
        let (mut hasher, mut under_way) = (Sha256::new(), JoinSet::<Result<(), Error>>::new());
        loop {
            if under_way.len() >= AT_ONCE
                && let Some(done) = under_way.join_next().await
            {
                done.map_err(|_| BlobError::Ending)?.map_err(&broken)?;
            }
            let room = self.room(part).await?;
            let bytes = block(&mut (&mut file).take(part), part).await.map_err(reading(incoming))?;
            if bytes.is_empty() {
                break;
            }
            hasher.update(&bytes);
            let size = bytes.len() as u64;
            let sending = upload.put_part(bytes.into());
            under_way.spawn(async move {
                let _until_sent = room;
                within(size, sending).await
            });
        }
        while let Some(done) = under_way.join_next().await {
            done.map_err(|_| BlobError::Ending)?.map_err(&broken)?;
        }
        same(blob, Digest::from_bytes(hasher.finalize().into()))?;
        within(0, upload.complete()).await.map(drop).map_err(broken)
    }

    /// Waits until there is room for a part in memory.
    async fn room(&self, part: u64) -> Result<OwnedSemaphorePermit, BlobError> {
        let parts = usize::try_from(part.div_ceil(PART)).unwrap_or(IN_MEMORY).min(IN_MEMORY);
        let permits = u32::try_from(parts).unwrap_or(1);
        self.memory.clone().acquire_many_owned(permits).await.map_err(|_| BlobError::Ending)
    }
}

fn same(blob: &Blob, found: Digest) -> Result<(), BlobError> {
    match found == blob.digest {
        true => Ok(()),
        false => Err(BlobError::Damaged { digest: blob.digest, found }),
    }
}

async fn block(source: &mut (impl AsyncRead + Unpin), size: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
    source.read_to_end(&mut bytes).await?;
    Ok(bytes)
}

fn reading(incoming: &Incoming) -> impl Fn(io::Error) -> BlobError + use<> {
    crate::error::failed("read", incoming.path())
}
