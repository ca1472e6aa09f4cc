//! Bytes in blocks, written while the next ones come.
//!
//! No thread waits for a slow peer: each block is a piece of work of its own.

use crate::error::{BlobError, failed};
use crate::incoming::Incoming;
use crate::put::Blob;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use lockgate_core::digest::Digest;
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{self, Write};
use std::pin::pin;
use std::sync::Arc;
use tokio::io::AsyncRead;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio_util::io::ReaderStream;

/// How many bytes are read or written at a time.
pub(crate) const BLOCK: usize = 512 * 1024;
/// How many pieces are kept until they are written: each takes memory beside its bytes, and a sender may send them one by one.
const PIECES: usize = 512;
/// After how many bytes the disk begins to take what was written, so that there is less to wait for at the end.
const FLUSH: u64 = 32 << 20;

/// A reader's bytes in blocks.
pub fn blocks<R: AsyncRead>(reader: R) -> ReaderStream<R> {
    ReaderStream::with_capacity(reader, BLOCK)
}

/// Bytes in blocks. An error ends them; where they end without one, all are there.
pub type Blocks = futures_util::stream::BoxStream<'static, io::Result<Bytes>>;

/// Writes what comes into a file under way, hashing it; fails where it is more than `at_most`.
pub(crate) async fn write<S>(
    incoming: &Incoming,
    source: S,
    at_most: Option<u64>,
    durable: bool,
) -> Result<Blob, BlobError>
where
    S: Stream<Item = io::Result<Bytes>>,
{
    let mut source = pin!(source);
    let mut writer = Turn::Free(Box::new(Writer::new(incoming, durable)?));
    let (mut waiting, mut bytes, mut size) = (Vec::new(), 0, 0_u64);
    while let Some(came) = source.next().await {
        let came = came.map_err(|e| BlobError::Source { detail: e.to_string() })?;
        size = size.saturating_add(came.len() as u64);
        if let Some(limit) = at_most.filter(|limit| size > *limit) {
            return Err(BlobError::TooLarge { limit });
        }
        bytes += came.len();
        waiting.push(came);
        if bytes >= BLOCK || waiting.len() >= PIECES {
            let mut free = writer.free().await?;
            if free.is_flushed() {
                free.flushed().await?;
            }
            writer = free.take(std::mem::take(&mut waiting));
            bytes = 0;
        }
    }
    let free = writer.free().await?;
    free.take(waiting).free().await?.finish().await
}

/// The writer, here or at work.
enum Turn {
    Free(Box<Writer>),
    Busy(JoinHandle<Result<Box<Writer>, BlobError>>),
}

impl Turn {
    async fn free(self) -> Result<Box<Writer>, BlobError> {
        match self {
            Self::Free(writer) => Ok(writer),
            Self::Busy(work) => work.await.unwrap_or(Err(BlobError::Ending)),
        }
    }
}

struct Writer {
    file: Arc<File>,
    path: std::path::PathBuf,
    hasher: Sha256,
    size: u64,
    unflushed: u64,
    /// What the disk is taking. Its failure is told to whoever waits for it alone, so somebody must.
    flushing: Option<JoinHandle<io::Result<()>>>,
    durable: bool,
}

impl Writer {
    fn new(incoming: &Incoming, durable: bool) -> Result<Self, BlobError> {
        let (file, path) = (Arc::new(incoming.handle()?), incoming.path().to_owned());
        Ok(Self { file, path, hasher: Sha256::new(), size: 0, unflushed: 0, flushing: None, durable })
    }

    fn take(mut self: Box<Self>, blocks: Vec<Bytes>) -> Turn {
        Turn::Busy(spawn_blocking(move || {
            for block in blocks {
                self.hasher.update(&block);
                (&*self.file).write_all(&block).map_err(failed("write", &self.path))?;
                self.size += block.len() as u64;
                self.unflushed += block.len() as u64;
            }
            self.flush();
            Ok(self)
        }))
    }

    /// Lets the disk begin, unless it is still at it.
    fn flush(&mut self) {
        if self.durable && self.unflushed >= FLUSH && self.flushing.is_none() {
            let file = self.file.clone();
            self.flushing = Some(spawn_blocking(move || file.sync_data()));
            self.unflushed = 0;
        }
    }

    fn is_flushed(&self) -> bool {
        self.flushing.as_ref().is_some_and(JoinHandle::is_finished)
    }

    /// Waits for the disk, and says whether it did it.
    async fn flushed(&mut self) -> Result<(), BlobError> {
        match self.flushing.take() {
            None => Ok(()),
            Some(done) => done.await.map_err(|_| BlobError::Ending)?.map_err(failed("write", &self.path)),
        }
    }

    async fn finish(mut self: Box<Self>) -> Result<Blob, BlobError> {
        self.flushed().await?;
        Ok(Blob { digest: Digest::from_bytes(self.hasher.finalize().into()), size: self.size })
    }
}
