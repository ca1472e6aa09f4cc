//! A file's bytes in blocks: at once where the system has them in memory, else read by a thread of their own, one block ahead.

use crate::blocks::BLOCK;
use bytes::Bytes;
use futures_util::Stream;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::task::{JoinHandle, spawn_blocking};

/// A file's bytes: from one on, and so many.
pub(crate) fn of_file(
    file: File,
    from: u64,
    length: u64,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    blocks(Reading { file: Arc::new(file), from, left: length, ahead: None, spare: Spare::default() })
}

fn blocks(state: Reading) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    futures_util::stream::try_unfold(state, |mut state| async move {
        let block = match state.ahead.take() {
            None if state.left == 0 => return Ok(None),
            None => match state.at_hand() {
                Some(block) => block,
                None => done(state.ahead()).await?,
            },
            Some(ahead) => done(ahead).await?,
        };
        if block.filled == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        state.left = state.left.saturating_sub(block.filled as u64);
        state.from += block.filled as u64;
        // What was not in memory has to be waited for: the next block is read while this one is sent.
        if block.waited && state.left > 0 {
            state.ahead = Some(state.ahead());
        }
        Ok(Some((Bytes::from_owner(block), state)))
    })
}

async fn done(work: JoinHandle<io::Result<Block>>) -> io::Result<Block> {
    work.await.unwrap_or_else(|_| Err(io::Error::other("the program is ending")))
}

struct Reading {
    file: Arc<File>,
    from: u64,
    left: u64,
    ahead: Option<JoinHandle<io::Result<Block>>>,
    spare: Spare,
}

impl Reading {
    fn empty(&self) -> Block {
        let size = usize::try_from(self.left).unwrap_or(BLOCK).min(BLOCK);
        Block { bytes: self.spare.take(size), size, filled: 0, waited: false, spare: self.spare.clone() }
    }

    /// What the system has in memory. Nothing is waited for.
    fn at_hand(&self) -> Option<Block> {
        let mut block = self.empty();
        block.filled = at_hand(&self.file, &mut block.bytes[..block.size], self.from).ok()?;
        (block.filled > 0).then_some(block)
    }

    fn ahead(&self) -> JoinHandle<io::Result<Block>> {
        let (file, from, mut block) = (self.file.clone(), self.from, self.empty());
        spawn_blocking(move || {
            block.waited = true;
            while block.filled < block.size {
                let at = from + block.filled as u64;
                match file.read_at(&mut block.bytes[block.filled..block.size], at) {
                    Ok(0) => break,
                    Ok(read) => block.filled += read,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(block)
        })
    }
}

#[cfg(target_os = "linux")]
fn at_hand(file: &File, into: &mut [u8], from: u64) -> io::Result<usize> {
    let mut into = [io::IoSliceMut::new(into)];
    Ok(rustix::io::preadv2(file, &mut into, from, rustix::io::ReadWriteFlags::NOWAIT)?)
}

#[cfg(not(target_os = "linux"))]
fn at_hand(_: &File, _: &mut [u8], _: u64) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Some bytes of a file. Its memory is used again when they have been sent.
struct Block {
    bytes: Vec<u8>,
    size: usize,
    filled: usize,
    /// Whether the disk had to be asked.
    waited: bool,
    spare: Spare,
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.spare.put(std::mem::take(&mut self.bytes));
    }
}

/// Memory of one download that nobody uses at the moment: a block at the most.
#[derive(Clone, Default)]
struct Spare(Arc<Mutex<Option<Vec<u8>>>>);

impl Spare {
    fn take(&self, size: usize) -> Vec<u8> {
        let spare = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        spare.filter(|bytes| bytes.len() >= size).unwrap_or_else(|| vec![0; size])
    }

    fn put(&self, bytes: Vec<u8>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::TryStreamExt as _;
    use std::io::Write as _;

    async fn read(bytes: &[u8], from: u64, left: u64, waits: bool) -> io::Result<Vec<Bytes>> {
        let mut file = tempfile::tempfile()?;
        file.write_all(bytes)?;
        let mut state = Reading { file: Arc::new(file), from, left, ahead: None, spare: Spare::default() };
        if waits {
            state.ahead = Some(state.ahead());
        }
        blocks(state).try_collect().await
    }

    #[tokio::test]
    async fn bytes_at_hand_and_bytes_that_are_waited_for_are_the_same() {
        let bytes: Vec<u8> = (0..3 * BLOCK + 7).map(|i| (i % 251) as u8).collect();
        for waits in [false, true] {
            for (from, left) in [(0, bytes.len()), (5, 2 * BLOCK), (BLOCK, 1), (bytes.len() - 1, 1)] {
                let found = read(&bytes, from as u64, left as u64, waits).await.unwrap();
                assert_eq!(found.concat(), &bytes[from..from + left], "{from} {left} {waits}");
            }
        }
    }

    #[tokio::test]
    async fn a_file_that_ends_too_early_is_an_error() {
        for waits in [false, true] {
            let ended = read(b"abc", 1, 3, waits).await.unwrap_err();
            assert_eq!(ended.kind(), io::ErrorKind::UnexpectedEof);
        }
    }

    #[tokio::test]
    async fn memory_is_used_again() {
        let spare = Spare::default();
        spare.put(spare.take(10));
        let again = spare.take(10);
        assert!(again.len() == 10 && spare.0.lock().unwrap().is_none());
        assert_eq!(spare.take(11).len(), 11);
    }
}
