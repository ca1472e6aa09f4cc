//! The files of a run or a logged model.

use super::Mover;
use crate::client::{Refusal, Unanswered};
use crate::commands::import::places;
use crate::commands::import::report::{Kind, Level};
use crate::commands::import::sources::{Bytes, File, Listing, Located};
use crate::commands::import::target;
use lockgate_control::tracking::exchange::KnownFile;
use lockgate_core::digest::Digest;
use std::path::Path;

/// What the file of a trace's spans is called.
pub(super) const SPANS: &str = "traces.json";

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

    pub(super) fn of_trace(experiment: i64, trace: &str) -> Self {
        Self { owner: trace.to_owned(), path: format!("{experiment}/traces/{trace}/artifacts") }
    }

    fn uri(&self) -> String {
        format!("mlflow-artifacts:/{}", self.path)
    }
}

impl Mover {
    /// Brings the files at a URI of the source; says whether a trace's spans are among them.
    pub(super) async fn artifacts(&mut self, uri: &str, stays: bool, to: &Place) -> anyhow::Result<bool> {
        if stays {
            self.report.of(Kind::Artifacts).left += 1;
            let why = format!("they lie at {uri}, where this program can't read; the address is kept");
            self.report.tell(Level::Left, Kind::Artifacts, format!("those of {}", to.owner), why);
            return Ok(false);
        }
        let from = self.source.locate(uri);
        if let Some(why) = self.unreadable(&from, uri) {
            self.incomplete.insert(to.owner.clone());
            if self.missing.insert(why.clone()) {
                self.report.skip(Kind::Artifacts, format!("those of {} and maybe of others", to.owner), why);
            }
            return Ok(false);
        }
        let Listing { files, odd } = self.source.list(&from).await?;
        self.note_given(uri, &from);
        for one in odd {
            self.incomplete.insert(to.owner.clone());
            self.report.of(Kind::Artifacts).found += 1;
            self.report.skip(Kind::Artifacts, format!("{}/{}", to.owner, one.path), one.why);
        }
        if files.is_empty() {
            return Ok(false);
        }
        let has_spans = files.iter().any(|file| file.path == SPANS);
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
        Ok(has_spans)
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
            Located::Outside(folder) => {
                let folder = match folder.to_str().and_then(places::parts_of) {
                    Some(_) => root_of(folder),
                    None => folder,
                };
                Some(format!(
                    "they lie in {0} of the machine where the store was in use: if that is this one and these files are \
                     meant, name the folder with --artifacts {0}, and import again",
                    folder.display()
                ))
            }
            Located::Elsewhere => None,
        }
    }

    /// Remembers whether the folder that was named for `mlflow-artifacts:` addresses has anything of this store.
    fn note_given(&mut self, uri: &str, from: &Located) {
        if self.source.given().is_none() || places::proxied(uri).is_none() {
            return;
        }
        self.given.0 += 1;
        self.given.1 += u64::from(matches!(from, Located::Folder(folder) if folder.is_dir()));
    }

    /// Tells that the folder which was named is another's.
    pub(super) fn tell_given(&mut self) {
        let Some(folder) = self.source.given().map(|folder| folder.display().to_string()) else { return };
        if let (asked, 0) = self.given
            && asked > 0
        {
            let why = "none of the runs and models has a folder there: is it what the server had as \
                       --artifacts-destination? Name that one, and import again";
            self.report.skip(Kind::Artifacts, format!("--artifacts {folder}"), why);
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
        if let Some(known) = known {
            if known.size == file.size {
                let Some(bytes) = self.opened(from, file, to).await? else { return Ok(None) };
                let digest = target::digest(bytes).await?;
                if digest == known.digest {
                    self.report.of(Kind::Artifacts).same += 1;
                    self.report.of(Kind::ArtifactBytes).same += file.size;
                    return Ok(Some(digest));
                }
            }
            self.leave_out(file, to, "another file is there at this path");
            return Ok(None);
        }
        let mut found = None;
        if !self.dry {
            let Some(bytes) = self.opened(from, file, to).await? else { return Ok(None) };
            match self.target.put(&format!("{}/{}", to.path, file.path), bytes).await {
                Ok(digest) => found = Some(digest),
                // The server's no is about this file; that nobody answers is about all of them.
                Err(error) if error.downcast_ref::<Refusal>().is_some() => {
                    self.leave_out(file, to, error.to_string());
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
        }
        self.report.of(Kind::Artifacts).new += 1;
        self.report.of(Kind::ArtifactBytes).new += file.size;
        Ok(found)
    }

    /// A file's bytes; none, and it is told, where it can't be read.
    async fn opened(&mut self, from: &Located, file: &File, to: &Place) -> anyhow::Result<Option<Bytes>> {
        match self.source.open(from, &file.path).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.downcast_ref::<Unanswered>().is_some() => Err(error),
            // It is gone meanwhile, or not for whoever imports.
            Err(error) => {
                self.leave_out(file, to, format!("{error:#}"));
                Ok(None)
            }
        }
    }

    fn leave_out(&mut self, file: &File, to: &Place, why: impl Into<String>) {
        self.incomplete.insert(to.owner.clone());
        self.report.skip(Kind::Artifacts, format!("{}/{}", to.owner, file.path), why);
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

/// The folder that all artifacts of a store lie in: above experiment, run (or `models` and model, or `traces` and trace)
/// and `artifacts`.
fn root_of(folder: &Path) -> &Path {
    let above = folder.ancestors().nth(2);
    let between = above.is_some_and(|above| above.ends_with("models") || above.ends_with("traces"));
    folder.ancestors().nth(if between { 4 } else { 3 }).unwrap_or(folder)
}
