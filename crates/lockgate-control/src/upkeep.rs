//! A database checked as a whole, by whoever has its files: no server is asked.

use crate::audit::prove;
use crate::error::ControlError;
use lockgate_blob::{BlobError, BlobStore};
use lockgate_core::digest::Digest;
use lockgate_store::Store;
use lockgate_store::tracking::Artifact;
use serde::Serialize;
use std::collections::BTreeSet;

/// Settings that stay out of backups, and a server makes new ones: the key of signed URLs, and the name by which a database marks
/// artifacts as its own, for a database made of a backup is another one.
pub const OWN_SETTINGS: &[&str] = &[crate::tracking::URL_KEY, crate::tracking::gc::OWNER];

/// How many artifacts are looked at a time.
const PAGE: u32 = 512;

/// How many missing or damaged files are named; the others are counted.
const NAMED: usize = 20;

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What is wrong.
    pub what: String,
    /// Where.
    pub place: String,
    /// What to do about it.
    pub remedy: String,
}

/// What a check saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Checkup {
    /// The schema's version.
    pub schema: i64,
    /// Entries of the audit log.
    pub entries: u64,
    /// The chain's hash after the last one.
    pub head: Digest,
    /// Artifacts that name bytes.
    pub artifacts: u64,
    /// Different blobs among them.
    pub blobs: u64,
    /// How many bytes they are.
    pub bytes: u64,
    /// Whether the bytes were read and their digests compared.
    pub deep: bool,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

/// Checks the engine's own structures, the log's chain, what is derived from it, and that every artifact's bytes are
/// there with their size; where `deep` says so, with their digest.
///
/// # Errors
/// Where the database or the blob store can't be read. What is wrong in them is no error but a finding.
pub async fn check(store: &Store, blobs: Option<&BlobStore>, deep: bool) -> Result<Checkup, ControlError> {
    let mut found = Checkup {
        schema: store.schema_version().await?,
        entries: 0,
        head: lockgate_core::entry::GENESIS,
        artifacts: 0,
        blobs: 0,
        bytes: 0,
        deep,
        findings: Vec::new(),
    };
    for what in store.integrity().await? {
        let remedy = "keep a copy of the file and restore the last backup with `lockgate db restore`";
        found.add(format!("the database is damaged: {what}"), store.place(), remedy);
    }
    // What a damaged file answers means nothing.
    if found.findings.is_empty() {
        log(store, &mut found).await?;
        Files { blobs, deep, seen: BTreeSet::new(), left_out: 0 }.check(store, &mut found).await?;
    }
    Ok(found)
}

impl Checkup {
    fn add(&mut self, what: impl Into<String>, place: impl Into<String>, remedy: impl Into<String>) {
        self.findings.push(Finding { what: what.into(), place: place.into(), remedy: remedy.into() });
    }
}

async fn log(store: &Store, found: &mut Checkup) -> Result<(), ControlError> {
    let proof = prove(store).await?;
    (found.entries, found.head) = (proof.entries, proof.head);
    if let Some(problem) = proof.problem {
        let remedy = if proof.chain_ok {
            "the log itself is whole: find out who changed the tables, and restore the last backup that passes this check"
        } else {
            "somebody changed the log, or the disk did: keep a copy as evidence and restore the last backup that passes \
             this check"
        };
        found.add(problem, format!("the audit log in {}", store.place()), remedy);
    }
    Ok(())
}

/// The artifacts' bytes under check.
struct Files<'a> {
    blobs: Option<&'a BlobStore>,
    deep: bool,
    seen: BTreeSet<Digest>,
    left_out: u64,
}

impl Files<'_> {
    async fn check(mut self, store: &Store, found: &mut Checkup) -> Result<(), ControlError> {
        let mut last: Option<(String, Artifact)> = None;
        loop {
            let after = last.take();
            let page = store
                .read(move |conn| {
                    Box::pin(async move {
                        Ok::<_, ControlError>(conn.every_artifact(after.as_ref(), PAGE).await?)
                    })
                })
                .await?;
            let Some(end) = page.last() else { break };
            last = Some(end.clone());
            for (root, artifact) in &page {
                found.artifacts += 1;
                if let Some(finding) = self.file(root, artifact, found).await? {
                    self.note(finding, found);
                }
            }
        }
        if self.left_out > 0 {
            let what = format!("{} more artifacts have no sound bytes", self.left_out);
            found.add(what, "the blob store", "do the same for them");
        }
        Ok(())
    }

    fn note(&mut self, finding: Finding, found: &mut Checkup) {
        if found.findings.len() < NAMED {
            found.findings.push(finding);
        } else {
            self.left_out += 1;
        }
    }

    async fn file(
        &mut self,
        root: &str,
        artifact: &Artifact,
        found: &mut Checkup,
    ) -> Result<Option<Finding>, ControlError> {
        let digest = artifact.digest;
        let new = self.seen.insert(digest);
        let wrong = |what: String, remedy: &str| {
            Some(Finding {
                what,
                place: format!("artifact {root}/{}", artifact.path),
                remedy: remedy.to_owned(),
            })
        };
        let size = match self.blobs {
            Some(blobs) => blobs.size(&digest).await?,
            None => None,
        };
        let Some(size) = size else {
            return Ok(wrong(
                format!("its bytes are missing: there is no blob {digest}"),
                "restore the blobs folder from a backup (`lockgate db restore`), name it with --blobs, or log the file again",
            ));
        };
        if new {
            found.blobs += 1;
            found.bytes += size;
        }
        if size != artifact.size {
            return Ok(wrong(
                format!("blob {digest} has {size} bytes, not {}", artifact.size),
                "restore the blob from a backup, or log the file again",
            ));
        }
        match (self.deep && new, self.blobs) {
            (true, Some(blobs)) => match blobs.verify(&digest).await {
                Err(error @ BlobError::Damaged { .. }) => {
                    Ok(wrong(error.to_string(), "restore the blob from a backup, or log the file again"))
                }
                verified => Ok(verified.map(|_| None)?),
            },
            _ => Ok(None),
        }
    }
}
