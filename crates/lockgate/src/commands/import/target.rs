//! The server that takes things in.

use super::places;
use super::sources::Bytes;
use crate::client::{Client, Refusal};
use futures_util::TryStreamExt as _;
use lockgate_control::tracking::exchange::{
    Fate, KnownFile, KnownRun, KnownTrace, Outcome, Record, RunDigests,
};
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

/// How many bytes of records go into one request, which the server limits to a little more.
const MOST: u64 = 250 << 20;

/// Counts bytes that are written to it.
struct Counter(u64);

impl std::io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// How large records are as they are sent.
fn size(records: &[Record]) -> u64 {
    let mut counter = Counter(0);
    // What can't be written as JSON fails when it is sent, with its reason.
    match serde_json::to_writer(&mut counter, records) {
        Ok(()) => counter.0,
        Err(_) => 0,
    }
}

fn too_large(size: u64) -> Outcome {
    let why = format!("it has {size} bytes; at most {MOST} can be sent");
    Outcome { why: Some(why), fate: Fate::Conflict, ..Outcome::would_be_new() }
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

    /// Hands records over; or only asks what would become of them. One that is too large for a request is a conflict.
    pub(super) async fn take(&self, records: &[Record], dry: bool) -> anyhow::Result<Vec<Outcome>> {
        let (mut outcomes, mut open) = (Vec::with_capacity(records.len()), vec![records]);
        while let Some(some) = open.pop() {
            match size(some) {
                _ if some.is_empty() => {}
                size if size <= MOST => outcomes.extend(self.ask(some, dry).await?),
                size if some.len() == 1 => outcomes.push(too_large(size)),
                _ => {
                    let (first, second) = some.split_at(some.len() / 2);
                    open.extend([second, first]);
                }
            }
        }
        Ok(outcomes)
    }

    async fn ask(&self, records: &[Record], dry: bool) -> anyhow::Result<Vec<Outcome>> {
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

    /// What is there of these traces; where `whole`, the traces themselves as well.
    pub(super) async fn traces(
        &self,
        ids: &[&str],
        whole: bool,
    ) -> anyhow::Result<HashMap<String, KnownTrace>> {
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        let body = json!({"traces": ids, "whole": whole});
        let found: Vec<KnownTrace> = self.client.post("import/mlflow/traces", &body).await?;
        let known = found.into_iter().filter(|known| known.digests.is_some());
        Ok(known.map(|known| (known.trace_id.clone(), known)).collect())
    }

    /// The files below an artifact URI.
    pub(super) async fn files(&self, uri: &str) -> anyhow::Result<HashMap<String, KnownFile>> {
        let path = format!("import/mlflow/files?uri={}", crate::commands::encode(uri));
        let found: Vec<KnownFile> = self.client.get(&path).await?;
        Ok(found.into_iter().map(|file| (file.path.clone(), file)).collect())
    }

    /// Puts a file; gives the digest of what was read.
    pub(super) async fn put(&self, path: &str, bytes: Bytes) -> anyhow::Result<Digest> {
        // An address with such parts in it is another one by the time that it is asked for.
        if !lockgate_core::release::is_safe_path(path) {
            let message = format!("`{}` is no safe path", path.escape_debug());
            return Err(Refusal { status: 400, message, hint: None }.into());
        }
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
