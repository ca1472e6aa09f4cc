//! A bucket of a service that speaks S3, as a place where bytes rest. Only this module knows of `object_store`.
//!
//! The service checks what it receives against the SHA-256 that each request is signed with, and keeps an object whole or not
//! at all. Credentials, region and address come from the environment by the names that AWS's own tools use.

mod sending;
mod service;
mod sweeping;

use crate::blocks::Blocks;
use crate::error::BlobError;
use crate::place::BucketName;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt};
use lockgate_core::digest::Digest;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path as Key;
use object_store::{Error, GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutPayload};
use service::{PATIENCE, failed, within};
use std::fmt::{self, Display};
use std::io;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// The object that says whose prefix this is.
const MARK: &str = "lockgate";
const MARK_BEGINS: &[u8] = b"Lockgate keeps artifacts here";
const MARK_TEXT: &[u8] =
    b"Lockgate keeps artifacts here, named by their SHA-256. Deleting one breaks what refers to it.\n";

/// The bucket, below its prefix.
#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    name: BucketName,
    service: Arc<AmazonS3>,
    /// How many parts may be in memory.
    memory: Arc<Semaphore>,
}

/// Whether whoever opens the bucket will write into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Intent {
    Read,
    Write,
}

impl Bucket {
    /// Reaches the bucket, and makes sure that it can be used as intended.
    pub(crate) async fn open(name: &BucketName, intent: Intent) -> Result<Self, BlobError> {
        let bucket = Self::connect(AmazonS3Builder::from_env(), name)?;
        tracing::info!(bucket = %name, "looking into the bucket; this takes up to half a minute where it can't be reached");
        bucket.probe(intent).await?;
        Ok(bucket)
    }

    pub(crate) fn connect(builder: AmazonS3Builder, name: &BucketName) -> Result<Self, BlobError> {
        let service = Arc::new(service::connect(builder, name)?);
        Ok(Self { name: name.clone(), service, memory: Arc::new(Semaphore::new(sending::IN_MEMORY)) })
    }

    /// Looks for the mark; writes it as well where the bucket is to be written.
    pub(crate) async fn probe(&self, intent: Intent) -> Result<(), BlobError> {
        let there = self.mark().await?;
        if let Some(found) = &there
            && !found.starts_with(MARK_BEGINS)
        {
            return Err(BlobError::Foreign { object: format!("{}{MARK}", self.name) });
        }
        if intent == Intent::Read {
            let missing =
                || Error::NotFound { path: String::new(), source: "there is no mark of Lockgate's".into() };
            return there.map(drop).ok_or_else(missing).map_err(failed("read", &self.name));
        }
        let key = self.key(MARK);
        let put = self.service.put(&key, PutPayload::from_static(MARK_TEXT));
        within(0, put).await.map_err(failed("write into", &self.name))?;
        match self.mark().await? {
            Some(found) if found == MARK_TEXT => Ok(()),
            _ => Err(BlobError::Foreign { object: format!("{}{MARK}", self.name) }),
        }
    }

    async fn mark(&self) -> Result<Option<Bytes>, BlobError> {
        let read = async { self.service.get(&self.key(MARK)).await?.bytes().await };
        match within(0, read).await {
            Ok(found) => Ok(Some(found)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(failed("read", &self.name)(error)),
        }
    }

    fn key(&self, name: &str) -> Key {
        Key::from(format!("{}{name}", self.name.prefix))
    }

    /// The same names as in a folder.
    fn object(&self, digest: &Digest) -> Key {
        let hex = digest.hex();
        let (head, tail) = hex.split_at(2);
        self.key(&format!("blobs/{head}/{tail}"))
    }

    /// How many bytes there are under a digest.
    pub(crate) async fn size(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        match within(0, self.service.head(&self.object(digest))).await {
            Ok(found) => Ok(Some(found.size)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(failed("read", &self.name)(error)),
        }
    }

    /// The bytes in blocks: from one on, and so many, of an object that has this size.
    pub(crate) async fn read(
        &self,
        digest: &Digest,
        size: u64,
        from: u64,
        length: u64,
    ) -> Result<Blocks, BlobError> {
        if length == 0 {
            return Ok(futures_util::stream::empty().boxed());
        }
        let range = Some(GetRange::Bounded(from..from.saturating_add(length)));
        let options = GetOptions { range, ..GetOptions::default() };
        let found = within(0, self.service.get_opts(&self.object(digest), options)).await;
        let found = found.map_err(|error| match error {
            Error::NotFound { .. } => BlobError::NotFound(*digest),
            error => failed("read", &self.name)(error),
        })?;
        if found.meta.size != size {
            return Err(BlobError::WrongSize { digest: *digest, expected: size, found: found.meta.size });
        }
        let (bucket, digest) = (self.name.to_string(), *digest);
        let blocks = whole(found.into_stream().map_err(io::Error::other), length);
        Ok(blocks
            .inspect_err(move |error| tracing::warn!(%bucket, %digest, %error, "a download broke off"))
            .boxed())
    }
}

impl Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name)
    }
}

/// Tells where fewer or more bytes come than were asked for, or none for too long.
fn whole<S>(stream: S, length: u64) -> impl Stream<Item = io::Result<Bytes>> + Send
where
    S: Stream<Item = io::Result<Bytes>> + Send + 'static,
{
    futures_util::stream::try_unfold((Box::pin(stream), length), |(mut stream, left)| async move {
        let next = tokio::time::timeout(PATIENCE, stream.try_next()).await;
        let next = next.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        match (next, left) {
            (None, 0) => Ok(None),
            (None, _) => Err(io::ErrorKind::UnexpectedEof.into()),
            (Some(block), left) => match left.checked_sub(block.len() as u64) {
                Some(left) => Ok(Some((block, (stream, left)))),
                None => Err(io::Error::other("more bytes came than were asked for")),
            },
        }
    })
}

#[cfg(test)]
mod tests;
