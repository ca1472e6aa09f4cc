//! The files of a run or a logged model.

use super::Mover;
use crate::commands::import::report::{Kind, Level};
use crate::commands::import::sources::{File, Located};
use crate::commands::import::target;
use lockgate_control::tracking::exchange::KnownFile;
use lockgate_core::digest::Digest;
use std::path::Path;

/// Where files are to lie at the target.
pub(super) struct Place {
    owner: String,
    path: String,
}

impl Place {
    pub(super) fn of_run(experiment: i64, run: &str) -> Self {
        Self { owner: run.to_owned(), path: format!("{experiment}/{run}/artifacts") }
    }

    pub(super) fn of_model(experiment: i64, model: &str) -> Self {
        Self { owner: model.to_owned(), path: format!("{experiment}/models/{model}/artifacts") }
    }

    fn uri(&self) -> String {
        format!("mlflow-artifacts:/{}", self.path)
    }
}

impl Mover {
    /// Brings the files at a URI of the source.
    pub(super) async fn artifacts(&mut self, uri: &str, stays: bool, to: &Place) -> anyhow::Result<()> {
        if stays {
            self.report.of(Kind::Artifacts).left += 1;
            let why = format!("they lie at {uri}, where this program can't read; the address is kept");
            self.report.tell(Level::Left, Kind::Artifacts, format!("those of {}", to.owner), why);
            return Ok(());
        }
        let from = self.source.locate(uri);
        if let Some(why) = self.unreadable(&from, uri) {
            self.incomplete.insert(to.owner.clone());
            if self.missing.insert(why.clone()) {
                self.report.skip(Kind::Artifacts, format!("those of {} and maybe of others", to.owner), why);
            }
            return Ok(());
        }
        let files = self.source.list(&from).await?;
        if files.is_empty() {
            return Ok(());
        }
        let known = self.target.files(&to.uri()).await?;
        let mut taken: Vec<(File, Digest)> = Vec::new();
        for file in files {
            self.report.of(Kind::Artifacts).found += 1;
            self.report.of(Kind::ArtifactBytes).found += file.size;
            if let Some(digest) = self.artifact(&from, &file, known.get(&file.path), to).await? {
                taken.push((file, digest));
            }
            self.progress(&format!("files of {}", to.owner));
        }
        if !self.dry {
            self.compare_files(&taken, to).await?;
        }
        Ok(())
    }

    /// Why there is nothing to be read at a place that should be readable.
    fn unreadable(&self, from: &Located, uri: &str) -> Option<String> {
        match from {
            Located::Proxied(_) if self.source.reads_proxied() => None,
            Located::Proxied(_) => Some(
                "they lie with the server that served this database: name its folder (--artifacts-destination) with --artifacts DIR, and import again".to_owned(),
            ),
            // A folder is made with the first file: that of one run may well be missing, but not that of all.
            Located::Folder(folder) => {
                let root = root_of(folder);
                (!root.exists()).then(|| {
                    format!("there is no folder {} on this machine (of {uri}): bring it here, and import again", root.display())
                })
            }
            Located::Elsewhere => None,
        }
    }

    /// Brings one file; gives its digest where it is at the target then.
    async fn artifact(
        &mut self,
        from: &Located,
        file: &File,
        known: Option<&KnownFile>,
        to: &Place,
    ) -> anyhow::Result<Option<Digest>> {
        let what = format!("{}/{}", to.owner, file.path);
        if let Some(known) = known {
            if known.size == file.size {
                let digest = target::digest(self.source.open(from, &file.path).await?).await?;
                if digest == known.digest {
                    self.report.of(Kind::Artifacts).same += 1;
                    self.report.of(Kind::ArtifactBytes).same += file.size;
                    return Ok(Some(digest));
                }
            }
            self.incomplete.insert(to.owner.clone());
            self.report.skip(Kind::Artifacts, what, "another file is there at this path");
            return Ok(None);
        }
        if !self.dry {
            let bytes = self.source.open(from, &file.path).await?;
            match self.target.put(&format!("{}/{}", to.path, file.path), bytes).await {
                Ok(digest) => {
                    self.report.of(Kind::Artifacts).new += 1;
                    self.report.of(Kind::ArtifactBytes).new += file.size;
                    return Ok(Some(digest));
                }
                // The server's no is about this file; that nobody answers is about all of them.
                Err(error) if error.downcast_ref::<crate::client::Refusal>().is_some() => {
                    self.incomplete.insert(to.owner.clone());
                    self.report.skip(Kind::Artifacts, what, error.to_string());
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
        }
        self.report.of(Kind::Artifacts).new += 1;
        self.report.of(Kind::ArtifactBytes).new += file.size;
        Ok(None)
    }

    async fn compare_files(&mut self, taken: &[(File, Digest)], to: &Place) -> anyhow::Result<()> {
        let known = self.target.files(&to.uri()).await?;
        for (file, digest) in taken {
            let what = format!("{}/{}", to.owner, file.path);
            let theirs = known.get(&file.path).map(|known| known.digest);
            self.report.artifacts.source.add(&what, Some(digest));
            self.report.artifacts.target.add(&what, theirs.as_ref());
            if theirs == Some(*digest) {
                self.report.of(Kind::Artifacts).compared += 1;
                self.report.of(Kind::ArtifactBytes).compared += file.size;
            } else {
                self.incomplete.insert(to.owner.clone());
                self.report.differ(Kind::Artifacts, what, "other bytes were read back");
            }
        }
        Ok(())
    }
}

/// The folder that all artifacts of a store lie in: above experiment, run (or `models` and model) and `artifacts`.
fn root_of(folder: &Path) -> &Path {
    let of_model = folder.ancestors().nth(2).is_some_and(|above| above.ends_with("models"));
    folder.ancestors().nth(if of_model { 4 } else { 3 }).unwrap_or(folder)
}
