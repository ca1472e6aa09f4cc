//! Releases in the agent's own folder: fetched once, verified, laid out for workers.

use crate::AgentError;
use crate::server::Server;
use futures_util::TryStreamExt as _;
use lockgate_blob::{BlobError, BlobStore, Expect, FileToPlace, How};
use lockgate_core::digest::Digest;
use lockgate_core::release::Manifest;
use std::path::{Path, PathBuf};

/// The releases that this agent has.
#[derive(Clone)]
pub(crate) struct Releases {
    blobs: BlobStore,
    dir: PathBuf,
}

/// A release that is here, whole and verified.
#[derive(Debug, Clone)]
pub(crate) struct LocalRelease {
    pub(crate) manifest: Manifest,
    /// The folder with its files.
    pub(crate) files: PathBuf,
    /// The manifest as a file.
    pub(crate) manifest_path: PathBuf,
}

impl Releases {
    pub(crate) fn new(blobs: BlobStore, dir: PathBuf) -> Self {
        Self { blobs, dir }
    }

    pub(crate) fn blobs(&self) -> &BlobStore {
        &self.blobs
    }

    /// The release, from this agent's own disk; none where it isn't here whole.
    pub(crate) async fn local(&self, release: &Digest) -> Result<Option<LocalRelease>, AgentError> {
        let manifest_path = self.dir.join(format!("{}.json", release.hex()));
        let text = match tokio::fs::read(&manifest_path).await {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(AgentError::io("read", &manifest_path, e)),
        };
        let manifest: Manifest = serde_json::from_slice(&text)?;
        check(&manifest, release)?;
        for file in &manifest.files {
            if !self.blobs.exists(&file.sha256).await? {
                return Ok(None);
            }
        }
        let files = self.lay_out(&manifest, release).await?;
        Ok(Some(LocalRelease { manifest, files, manifest_path }))
    }

    /// The release, fetched from the server where it isn't here yet, or lies here damaged. Every byte is checked against the
    /// manifest's digests, and the manifest against the release's.
    pub(crate) async fn fetch(&self, server: &Server, release: &Digest) -> Result<LocalRelease, AgentError> {
        match self.local(release).await {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => {}
            Err(AgentError::Blob(error @ (BlobError::Damaged { .. } | BlobError::Occupied { .. }))) => {
                tracing::warn!(%error, %release, "a release lies here damaged; it is fetched again");
            }
            Err(error) => return Err(error),
        }
        let manifest = server.manifest(release).await?;
        check(&manifest, release)?;
        for file in &manifest.files {
            if self.blobs.verify(&file.sha256).await.is_err() {
                self.download(server, &file.sha256).await?;
            }
        }
        let manifest_path = self.dir.join(format!("{}.json", release.hex()));
        let text =
            lockgate_core::digest::canonical_json(&manifest).map_err(|e| AgentError::State(e.to_string()))?;
        crate::home::write_private(&manifest_path, text.as_bytes())?;
        let files = match self.lay_out(&manifest, release).await {
            Err(AgentError::Blob(BlobError::Occupied { folder })) => {
                tokio::fs::remove_dir_all(&folder)
                    .await
                    .map_err(|e| AgentError::io("delete", Path::new(&folder), e))?;
                self.lay_out(&manifest, release).await?
            }
            other => other?,
        };
        Ok(LocalRelease { manifest, files, manifest_path })
    }

    /// One blob, fetched where it isn't here yet.
    pub(crate) async fn fetch_blob(&self, server: &Server, digest: &Digest) -> Result<(), AgentError> {
        if self.blobs.exists(digest).await? {
            return Ok(());
        }
        self.download(server, digest).await
    }

    async fn download(&self, server: &Server, digest: &Digest) -> Result<(), AgentError> {
        let response = server.blob(digest).await?;
        let stream = response.bytes_stream().map_err(std::io::Error::other);
        self.blobs.put_stream(stream, Expect::digest(*digest)).await?;
        Ok(())
    }

    async fn lay_out(&self, manifest: &Manifest, release: &Digest) -> Result<PathBuf, AgentError> {
        let folder = self.dir.join(release.hex());
        let files: Vec<FileToPlace> =
            manifest.files.iter().map(|f| FileToPlace { path: f.path.clone(), digest: f.sha256 }).collect();
        self.blobs.materialise(&files, &folder, How::Link).await?;
        Ok(folder)
    }
}

fn check(manifest: &Manifest, release: &Digest) -> Result<(), AgentError> {
    manifest.validate().map_err(|e| AgentError::Untrusted(e.to_string()))?;
    match manifest.digest() {
        Ok(found) if found == *release => Ok(()),
        _ => Err(AgentError::Untrusted(format!(
            "the manifest of release {} does not match its digest",
            release.short()
        ))),
    }
}

/// The golden set's path among a release's files.
pub(crate) fn golden_path(release: &LocalRelease) -> Option<PathBuf> {
    release.manifest.golden.as_ref().map(|g| Path::new(&release.files).join(g))
}
