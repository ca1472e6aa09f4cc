//! The server that takes things in.

use super::places;
use super::sources::Bytes;
use crate::client::Client;
use futures_util::TryStreamExt as _;
use lockgate_control::tracking::exchange::{KnownFile, KnownRun, Outcome, Record, RunDigests};
use lockgate_core::digest::Digest;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio_util::io::ReaderStream;

/// How many bytes of a file are in memory at a time.
const CHUNK: usize = 256 * 1024;

/// A Lockgate server.
#[derive(Debug)]
pub(super) struct Target {
    client: Client,
}

#[derive(Debug, Serialize)]
struct Batch<'a> {
    records: &'a [Record],
    dry: bool,
}

#[derive(Debug, Deserialize)]
struct Outcomes {
    outcomes: Vec<Outcome>,
}

impl Target {
    pub(super) fn new(client: Client) -> Self {
        Self { client }
    }

    pub(super) fn name(&self) -> &str {
        self.client.base()
    }

    /// Hands records over; or only asks what would become of them.
    pub(super) async fn take(&self, records: &[Record], dry: bool) -> anyhow::Result<Vec<Outcome>> {
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let answer: Outcomes = self.client.post("import/mlflow", &Batch { records, dry }).await?;
        anyhow::ensure!(answer.outcomes.len() == records.len(), "the server answered for other records");
        Ok(answer.outcomes)
    }

    /// The digests of the runs that are there.
    pub(super) async fn runs(&self, ids: &[&str]) -> anyhow::Result<HashMap<String, RunDigests>> {
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        let found: Vec<KnownRun> = self.client.post("import/mlflow/runs", &json!({"runs": ids})).await?;
        Ok(found
            .into_iter()
            .filter_map(|known| known.digests.map(|digests| (known.run_id, digests)))
            .collect())
    }

    /// The files below an artifact URI.
    pub(super) async fn files(&self, uri: &str) -> anyhow::Result<HashMap<String, KnownFile>> {
        let path = format!("import/mlflow/files?uri={}", crate::commands::encode(uri));
        let found: Vec<KnownFile> = self.client.get(&path).await?;
        Ok(found.into_iter().map(|file| (file.path.clone(), file)).collect())
    }

    /// Puts a file; gives the digest of what was read.
    pub(super) async fn put(&self, path: &str, bytes: Bytes) -> anyhow::Result<Digest> {
        let hasher = Arc::new(Mutex::new(Sha256::new()));
        let seen = hasher.clone();
        let stream = ReaderStream::with_capacity(bytes, CHUNK).inspect_ok(move |chunk| {
            seen.lock().unwrap_or_else(PoisonError::into_inner).update(chunk);
        });
        self.client.upload(&places::encoded(path), reqwest::Body::wrap_stream(stream)).await?;
        let hasher = hasher.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(Digest::from_bytes(hasher.finalize().into()))
    }
}

/// The digest of a file's bytes.
pub(super) async fn digest(bytes: Bytes) -> anyhow::Result<Digest> {
    let mut stream = ReaderStream::with_capacity(bytes, CHUNK);
    let mut hasher = Sha256::new();
    while let Some(chunk) = stream.try_next().await? {
        hasher.update(&chunk);
    }
    Ok(Digest::from_bytes(hasher.finalize().into()))
}
