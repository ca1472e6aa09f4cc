//! What a worker writes to standard error: into a file of bounded size, and the last lines kept for errors.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};

const TAIL: usize = 2000;

/// The last bytes that a worker wrote.
#[derive(Debug, Clone, Default)]
pub(super) struct Tail(Arc<Mutex<VecDeque<u8>>>);

impl Tail {
    fn push(&self, bytes: &[u8]) {
        let mut tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tail.extend(bytes);
        let excess = tail.len().saturating_sub(TAIL);
        tail.drain(..excess);
    }

    /// The last lines, as text.
    pub(super) fn text(&self) -> String {
        let tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes: Vec<u8> = tail.iter().copied().collect();
        String::from_utf8_lossy(&bytes).trim().to_owned()
    }
}

/// Copies until the worker closes its end. Half of `max` is this file's limit: one older file is kept beside it.
pub(super) async fn capture(mut from: impl AsyncRead + Unpin, path: PathBuf, max: u64, tail: Tail) {
    let mut file = open(&path).await.ok();
    let mut buffer = vec![0; 8192];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let bytes = buffer.get(..count).unwrap_or_default();
        tail.push(bytes);
        // A full disk must not stop the worker, whose pipe would fill up: what can't be written is dropped.
        if let Some((out, size)) = &mut file {
            if out.write_all(bytes).await.is_ok() {
                *size += count as u64;
            }
            let _ = out.flush().await;
            if *size > max / 2 {
                let _ = tokio::fs::rename(&path, older(&path)).await;
                file = open(&path).await.ok();
            }
        }
    }
}

async fn open(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().create(true).append(true).open(path).await?;
    let size = file.metadata().await?.len();
    Ok((file, size))
}

fn older(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_stay_small_and_the_tail_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.log");
        let tail = Tail::default();
        let text = "0123456789abcdef\n".repeat(10_000) + "the end";
        capture(text.as_bytes(), path.clone(), 40_000, tail.clone()).await;
        let size: u64 =
            std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
        assert!(size < 40_000 + 2 * 8192, "{size}");
        assert!(tail.text().ends_with("the end") && tail.text().len() <= TAIL);
    }
}
