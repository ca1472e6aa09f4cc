//! Files: fetched, checked on the way, and only then put in their place.

use super::Exporter;
use super::folder::{PART, is_name};
use crate::commands::import::places;
use crate::commands::import::report::Kind;
use crate::commands::import::sources::{Located, Source, open_file};
use crate::commands::import::target;
use anyhow::Context as _;
use lockgate_control::tracking::exchange::KnownFile;
use lockgate_core::digest::Digest;
use std::path::{Path, PathBuf};

impl Exporter {
    /// Fetches the files at a URI of the server.
    pub(super) async fn artifacts(&mut self, uri: &str, owner: &str, to: &str) -> anyhow::Result<()> {
        let Some(root) = places::proxied(uri) else {
            self.left(&format!("those of {owner}"), uri);
            return Ok(());
        };
        let known = self.server.files(uri).await?;
        let mut files: Vec<&KnownFile> = known.values().collect();
        files.sort_by(|a, b| a.path.cmp(&b.path));
        for file in files {
            let what = format!("{owner}/{}", file.path);
            if !is_name(&file.path) {
                self.unwritable(Kind::Artifacts, &what, "its path can't be a file's");
                continue;
            }
            let path = self.folder.path(to).join(&file.path);
            let was_there = path.is_file() && digest_of(&path).await? == file.digest;
            if !was_there {
                let bytes = self.source.open(&Located::Proxied(root.clone()), &file.path).await?;
                save(&path, bytes).await?;
            }
            let found = if was_there { file.digest } else { digest_of(&path).await? };
            self.report.artifacts.source.add(&what, Some(&file.digest));
            self.report.artifacts.target.add(&what, Some(&found));
            let same = found == file.digest;
            self.compared(Kind::Artifacts, &what, was_there, if same { &[] } else { &["bytes"] });
            let bytes = self.report.of(Kind::ArtifactBytes);
            bytes.found += file.size;
            *(if was_there { &mut bytes.same } else { &mut bytes.new }) += file.size;
            bytes.compared += if same { file.size } else { 0 };
            self.progress(&format!("files of {owner}"));
        }
        Ok(())
    }
}

async fn digest_of(path: &Path) -> anyhow::Result<Digest> {
    target::digest(open_file(path).await?).await
}

async fn save(path: &Path, mut bytes: crate::commands::import::sources::Bytes) -> anyhow::Result<()> {
    let failed = || format!("{} can't be written", path.display());
    if let Some(parent) = path.parent() {
        tokio::fs::create_dir_all(parent).await.with_context(failed)?;
    }
    let mut part = path.to_owned().into_os_string();
    part.push(PART);
    let part = PathBuf::from(part);
    let mut file = tokio::fs::File::create(&part).await.with_context(failed)?;
    tokio::io::copy(&mut bytes, &mut file).await.with_context(failed)?;
    file.sync_all().await.with_context(failed)?;
    tokio::fs::rename(&part, path).await.with_context(failed)
}
