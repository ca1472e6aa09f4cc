//! A bucket of a service that speaks S3, as a place where bytes rest. Only this module knows of `object_store`.
//!
//! The service checks what it receives against the SHA-256 that each request is signed with, and keeps an object whole or not
//! at all. Credentials, region and address come from the environment by the names that AWS's own tools use.

use crate::blocks::Blocks;
use crate::error::BlobError;
use crate::incoming::Incoming;
use crate::place::BucketName;
use crate::put::Blob;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt};
use lockgate_core::digest::Digest;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path as Key;
use object_store::{
    BackoffConfig, ClientOptions, Error, GetOptions, GetRange, MultipartUpload, ObjectStore, ObjectStoreExt,
    PutPayload, RetryConfig,
};
use std::fmt::{self, Display};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::task::JoinSet;

/// Larger objects are sent in parts of at least as many bytes. S3 wants 5 MiB or more.
const PART: u64 = 8 << 20;
/// S3 takes at most 10,000 parts.
const PARTS: u64 = 9_000;
/// How many parts are under way at a time.
const AT_ONCE: usize = 4;
/// How long a request may go without a byte.
const SILENCE: Duration = Duration::from_secs(30);
/// How long an operation is tried: whoever waits for it should be told before they give up themselves.
const PATIENCE: Duration = Duration::from_secs(45);
/// Written when the store is opened, so that a bucket that can't be written is noticed then.
const MARK: &str = "lockgate";
const MARK_TEXT: &[u8] =
    b"Lockgate keeps artifacts here, named by their SHA-256. Deleting one breaks what refers to it.\n";

/// The bucket, below its prefix.
#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    name: BucketName,
    service: Arc<AmazonS3>,
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
        bucket.probe(intent).await?;
        Ok(bucket)
    }

    pub(crate) fn connect(builder: AmazonS3Builder, name: &BucketName) -> Result<Self, BlobError> {
        let options = ClientOptions::new()
            .with_connect_timeout(Duration::from_secs(5))
            // The whole of a large object takes as long as it takes.
            .with_timeout_disabled()
            .with_read_timeout(SILENCE)
            // Only an address that says so itself goes without TLS.
            .with_allow_http(true);
        let retry =
            RetryConfig { backoff: BackoffConfig::default(), max_retries: 5, retry_timeout: PATIENCE };
        let built = builder
            .with_bucket_name(&name.bucket)
            .with_client_options(options)
            .with_retry(retry)
            .build()
            .map_err(|error| failed("use", name)(&error))?;
        Ok(Self { name: name.clone(), service: Arc::new(built) })
    }

    pub(crate) async fn probe(&self, intent: Intent) -> Result<(), BlobError> {
        let mark = self.key(MARK);
        match intent {
            Intent::Write => {
                let put = self.service.put(&mark, PutPayload::from_static(MARK_TEXT)).await;
                put.map(drop).map_err(|error| failed("write into", &self.name)(&error))
            }
            Intent::Read => match self.service.get(&mark).await {
                Ok(_) => Ok(()),
                Err(error) => Err(failed("read", &self.name)(&error)),
            },
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
        match self.service.head(&self.object(digest)).await {
            Ok(found) => Ok(Some(found.size)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(failed("read", &self.name)(&error)),
        }
    }

    /// The bytes in blocks, from one on, and so many; asked for when they are first wanted.
    pub(crate) fn read(&self, digest: &Digest, from: u64, length: u64) -> Blocks {
        let (service, key) = (self.service.clone(), self.object(digest));
        if length == 0 {
            return futures_util::stream::empty().boxed();
        }
        let opened = async move {
            let range = Some(GetRange::Bounded(from..from.saturating_add(length)));
            let options = GetOptions { range, ..GetOptions::default() };
            service.get_opts(&key, options).await.map(|found| found.into_stream())
        };
        let stream = futures_util::stream::once(opened).try_flatten().map_err(io::Error::other);
        whole(stream, length).boxed()
    }

    /// Keeps the bytes of a file under way.
    pub(crate) async fn put(&self, incoming: &Incoming, blob: &Blob) -> Result<(), BlobError> {
        let file = tokio::fs::File::from_std(incoming.again()?);
        let key = self.object(&blob.digest);
        if blob.size <= PART {
            let bytes = block(&mut file.take(PART), PART).await.map_err(reading(incoming))?;
            let put = self.service.put(&key, bytes.into()).await;
            return put.map(drop).map_err(|error| failed("write into", &self.name)(&error));
        }
        let upload = self.service.put_multipart(&key).await;
        let mut upload = upload.map_err(|error| failed("write into", &self.name)(&error))?;
        let sent = self.send(&mut upload, file, incoming, blob.size).await;
        if sent.is_err()
            && let Err(error) = upload.abort().await
        {
            tracing::warn!(bucket = %self.name, %error, "parts of an upload that failed stay in the bucket; let it expire them (AbortIncompleteMultipartUpload)");
        }
        sent
    }

    async fn send(
        &self,
        upload: &mut Box<dyn MultipartUpload>,
        mut file: tokio::fs::File,
        incoming: &Incoming,
        size: u64,
    ) -> Result<(), BlobError> {
        let part = PART.max(size.div_ceil(PARTS));
        let broken = |error: Error| failed("write into", &self.name)(&error);
        let mut under_way = JoinSet::<Result<(), Error>>::new();
        loop {
            let bytes = block(&mut (&mut file).take(part), part).await.map_err(reading(incoming))?;
            if bytes.is_empty() {
                break;
            }
            if under_way.len() >= AT_ONCE
                && let Some(done) = under_way.join_next().await
            {
                done.map_err(|_| BlobError::Ending)?.map_err(broken)?;
            }
            under_way.spawn(upload.put_part(bytes.into()));
        }
        while let Some(done) = under_way.join_next().await {
            done.map_err(|_| BlobError::Ending)?.map_err(broken)?;
        }
        upload.complete().await.map(drop).map_err(broken)
    }
}

impl Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name)
    }
}

/// Tells where fewer or more bytes come than were asked for.
fn whole<S>(stream: S, length: u64) -> impl Stream<Item = io::Result<Bytes>> + Send
where
    S: Stream<Item = io::Result<Bytes>> + Send + 'static,
{
    futures_util::stream::try_unfold((Box::pin(stream), length), |(mut stream, left)| async move {
        match (stream.try_next().await?, left) {
            (None, 0) => Ok(None),
            (None, _) => Err(io::ErrorKind::UnexpectedEof.into()),
            (Some(block), left) => match left.checked_sub(block.len() as u64) {
                Some(left) => Ok(Some((block, (stream, left)))),
                None => Err(io::Error::other("more bytes came than were asked for")),
            },
        }
    })
}

async fn block(source: &mut (impl AsyncRead + Unpin), size: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
    source.read_to_end(&mut bytes).await?;
    Ok(bytes)
}

fn reading(incoming: &Incoming) -> impl Fn(io::Error) -> BlobError + use<> {
    crate::error::failed("read", incoming.path())
}

/// Translates the service's error, with what to do about it.
fn failed<'a>(what: &'static str, name: &'a BucketName) -> impl Fn(&Error) -> BlobError + 'a {
    move |error| {
        let hint = match error {
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
                "allow this user s3:GetObject, s3:PutObject, s3:ListBucket and s3:AbortMultipartUpload there; credentials come from AWS_ACCESS_KEY_ID and its like"
            }
            Error::NotFound { .. } => "nothing is kept there: create the bucket, or correct the name",
            _ => "is the service there? AWS_ENDPOINT_URL_S3 and AWS_REGION say where",
        };
        BlobError::Bucket { what, bucket: name.to_string(), detail: causes(error), hint }
    }
}

/// An error with what caused it, without saying anything twice.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let more = next.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = next.source();
    }
    text
}

#[cfg(test)]
mod tests;
