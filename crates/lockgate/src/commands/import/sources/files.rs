//! MLflow's file store: a folder such as `./mlruns`.

mod experiment;
mod meta;
mod points;
mod reader;
mod registry;
mod traces;
mod yaml;

pub(crate) use reader::Reader;

use super::{Cursor, FoundTrace, Located, Source, Spans};
use crate::commands::import::{places, walk};
use anyhow::{Context as _, bail};
use async_trait::async_trait;
use lockgate_control::tracking::exchange::{Point, TraceLinkRecord};
use lockgate_control::tracking::{Experiment, KeyValue, LoggedModel, RegisteredModel, Run};
use lockgate_store::foreign::ForeignVersion;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// How many runs or models are read at a time.
const PAGE: usize = 100;
/// The folder of deleted experiments.
const TRASH: &str = ".trash";
/// The folder of the model registry, and of an experiment's logged models.
const MODELS: &str = "models";

/// A file store.
#[derive(Debug)]
pub(crate) struct Files {
    root: PathBuf,
    /// Where the server kept what it calls `mlflow-artifacts:`.
    artifacts: Option<PathBuf>,
    /// Where its files may lie.
    roots: Vec<PathBuf>,
    /// The folder of each experiment.
    folders: HashMap<i64, PathBuf>,
    /// What could not be read, for the report.
    broken: Vec<String>,
    /// The folder that is being read a page at a time, with those in it.
    listed: Option<(PathBuf, Vec<PathBuf>)>,
}

/// The folders in a folder, by name.
pub(super) fn folders(of: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if !of.is_dir() {
        return Ok(Vec::new());
    }
    let unreadable = || format!("the folder {} can't be read", of.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(of).with_context(unreadable)? {
        let path = entry.with_context(unreadable)?.path();
        if path.is_dir() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

/// The files of a folder as pairs of path and content.
fn pairs(folder: &Path) -> anyhow::Result<Vec<KeyValue>> {
    let read = |path: String| {
        let full = folder.join(&path);
        let value =
            std::fs::read_to_string(&full).with_context(|| format!("{} can't be read", full.display()))?;
        Ok(KeyValue { key: path, value })
    };
    walk::plain(folder)?.into_iter().map(|file| read(file.path)).collect()
}

impl Files {
    pub(crate) fn open(root: &Path, artifacts: Option<&Path>) -> anyhow::Result<Self> {
        if !root.is_dir() {
            bail!("there is no folder {}", root.display());
        }
        let root = std::path::absolute(root).with_context(|| format!("{} is no path", root.display()))?;
        let artifacts = super::real(artifacts)?;
        let roots = root.canonicalize().ok().into_iter().chain(artifacts.clone()).collect();
        let store =
            Self { root, artifacts, roots, folders: HashMap::new(), broken: Vec::new(), listed: None };
        let known = |folder: &PathBuf| folder.join(meta::FILE).is_file() || name(folder) == MODELS;
        let mut all = folders(&store.root)?;
        all.extend(folders(&store.root.join(TRASH))?);
        if !all.iter().any(known) {
            bail!(
                "{} is no file store of MLflow: none of its folders has a {}\n  hint: it is usually called mlruns",
                store.root.display(),
                meta::FILE
            );
        }
        Ok(store)
    }

    /// Where a store's files lie: in it, or where they were said to be.
    fn allowed(&self, folder: PathBuf) -> Located {
        match walk::is_within(&folder, &self.roots, false) {
            true => Located::Folder(folder),
            false => Located::Outside(folder),
        }
    }

    /// What could be read; the rest is told at the end.
    fn readable<T>(&mut self, what: &str, read: Vec<anyhow::Result<T>>) -> Vec<T> {
        let mut found = Vec::new();
        for one in read {
            match one {
                Ok(one) => found.push(one),
                Err(error) => self.broken.push(format!("{what} that can't be read: {error:#}")),
            }
        }
        found
    }

    fn folder(&self, of: &Experiment) -> anyhow::Result<&Path> {
        let found =
            self.folders.get(&of.id).with_context(|| format!("experiment {} has no folder", of.id))?;
        Ok(found)
    }

    /// Folders with a description, some at a time: the place of the next one is in the cursor.
    fn page(&mut self, folder: &Path, file: &str, at: &mut Cursor) -> anyhow::Result<Vec<PathBuf>> {
        if at.number == 0 || self.listed.as_ref().is_none_or(|(listed, _)| listed != folder) {
            let (all, bare): (Vec<_>, Vec<_>) =
                folders(folder)?.into_iter().partition(|one| one.join(file).is_file());
            let owners = bare.iter().filter(|one| places::is_id(name(one)));
            self.broken.extend(owners.map(|one| format!("folders without a {file}: {}", one.display())));
            self.listed = Some((folder.to_owned(), all));
        }
        let all = self.listed.as_ref().map(|(_, all)| all.as_slice()).unwrap_or_default();
        let begin = usize::try_from(at.number).unwrap_or(usize::MAX).min(all.len());
        let end = (begin + PAGE).min(all.len());
        at.number = i64::try_from(end).unwrap_or(i64::MAX);
        Ok(all[begin..end].to_vec())
    }
}

#[async_trait]
impl Source for Files {
    fn name(&self) -> String {
        format!("file://{}", self.root.display())
    }

    async fn experiments(&mut self) -> anyhow::Result<Vec<Experiment>> {
        let mut found = Vec::new();
        let mut all = folders(&self.root)?;
        // Hidden folders, the bin among them, and the registry are no experiments.
        all.retain(|folder| !name(folder).starts_with('.'));
        all.retain(|folder| name(folder) != MODELS || folder.join(meta::FILE).is_file());
        all.extend(folders(&self.root.join(TRASH))?);
        for folder in all {
            if !folder.join(meta::FILE).is_file() {
                self.broken.push(format!("folders without a {}: {}", meta::FILE, folder.display()));
                continue;
            }
            let read = vec![experiment::experiment(&folder)];
            for experiment in self.readable("experiments", read) {
                self.folders.insert(experiment.id, folder.clone());
                found.push(experiment);
            }
        }
        found.sort_by_key(|experiment| experiment.id);
        Ok(found)
    }

    async fn runs(&mut self, of: &Experiment, at: &mut Cursor) -> anyhow::Result<Vec<Run>> {
        let folder = self.folder(of)?.to_owned();
        loop {
            let page = self.page(&folder, meta::FILE, at)?;
            if page.is_empty() {
                return Ok(Vec::new());
            }
            let read = page.iter().map(|run| experiment::run(run, &folder, of.id));
            let found = self.readable("runs", read.collect());
            // A page of unreadable ones is not the end.
            if !found.is_empty() {
                return Ok(found);
            }
        }
    }

    async fn points(&mut self, of: &Run, at: &mut Cursor) -> anyhow::Result<Vec<Point>> {
        let folder = self.folders.get(&of.experiment_id).context("the experiment has no folder")?;
        points::next(&folder.join(&of.run_id).join("metrics"), at)
    }

    async fn logged_models(&mut self, of: &Experiment, at: &mut Cursor) -> anyhow::Result<Vec<LoggedModel>> {
        let folder = self.folder(of)?.join(MODELS);
        loop {
            let page = self.page(&folder, meta::FILE, at)?;
            if page.is_empty() {
                return Ok(Vec::new());
            }
            let mut found = Vec::new();
            let read = page.iter().map(|model| experiment::logged_model(model, of.id)).collect();
            for model in self.readable("logged models", read) {
                match model {
                    Some(model) => found.push(model),
                    None => self.broken.push("deleted logged models".to_owned()),
                }
            }
            // A page of deleted ones is not the end.
            if !found.is_empty() {
                return Ok(found);
            }
        }
    }

    async fn traces(&mut self, of: &Experiment, at: &mut Cursor) -> anyhow::Result<Vec<FoundTrace>> {
        let folder = self.folder(of)?.join(traces::FOLDER);
        loop {
            let page = self.page(&folder, traces::FILE, at)?;
            if page.is_empty() {
                return Ok(Vec::new());
            }
            let read = page.iter().map(|one| traces::trace(one, of)).collect();
            let found = self.readable("traces", read);
            if !found.is_empty() {
                return Ok(found);
            }
        }
    }

    async fn spans(&mut self, of: &FoundTrace, _at: &mut Cursor) -> anyhow::Result<Spans> {
        bail!("trace {} has no spans in a database here", of.record.trace_id)
    }

    async fn trace_links(
        &mut self,
        _of: &Experiment,
        _at: &mut Cursor,
    ) -> anyhow::Result<Vec<TraceLinkRecord>> {
        Ok(Vec::new())
    }

    async fn registered_models(&mut self) -> anyhow::Result<Vec<(RegisteredModel, i64)>> {
        let all = folders(&self.root.join(MODELS))?;
        let described = all.iter().filter(|folder| folder.join(meta::FILE).is_file());
        let read = described.map(|one| registry::model(one)).collect();
        Ok(self.readable("registered models", read))
    }

    async fn versions(&mut self, of: &RegisteredModel) -> anyhow::Result<Vec<ForeignVersion>> {
        let folder = self.root.join(MODELS).join(&of.name);
        let mut read = Vec::new();
        for place in folders(&folder)? {
            read.extend(registry::version(&place).transpose());
        }
        let mut found = self.readable("model versions", read);
        found.sort_by_key(|one| one.version.version);
        Ok(found)
    }

    async fn others(&mut self) -> anyhow::Result<Vec<(String, u64)>> {
        let mut counts: std::collections::BTreeMap<String, u64> = std::collections::BTreeMap::new();
        for what in &self.broken {
            *counts.entry(what.clone()).or_default() += 1;
        }
        Ok(counts.into_iter().collect())
    }

    fn locate(&self, uri: &str) -> Located {
        let Some(path) = places::local(uri) else {
            return match (places::proxied(uri), &self.artifacts) {
                (Some(path), Some(root)) => self.allowed(root.join(path)),
                (Some(path), None) => Located::Proxied(path),
                (None, _) => Located::Elsewhere,
            };
        };
        if path.is_dir() && walk::is_within(&path, &self.roots, false) {
            return Located::Folder(path);
        }
        // The store was moved, or its experiment deleted: the files lie beside what describes them.
        let Some(owned) = places::owner(uri) else { return self.allowed(path) };
        let above = match owned.owner.get(..2) {
            Some("m-") => &[MODELS][..],
            Some("tr") => &[traces::FOLDER],
            // Traces of MLflow 2 have ids like those of runs.
            _ => &["", traces::FOLDER],
        };
        for folder in self.folders.values() {
            for home in
                above.iter().map(|above| folder.join(above).join(&owned.owner)).filter(|home| home.is_dir())
            {
                let place = home.join("artifacts");
                // Not beside it either: then it is another place that is meant.
                if path.is_dir() && !place.is_dir() {
                    continue;
                }
                return self.allowed(if owned.path.is_empty() { place } else { place.join(owned.path) });
            }
        }
        self.allowed(path)
    }

    fn roots(&self) -> &[PathBuf] {
        &self.roots
    }

    fn given(&self) -> Option<&Path> {
        self.artifacts.as_deref()
    }
}

#[cfg(test)]
mod tests;
