//! A SQLite file of MLflow's own store.

use super::{Cursor, FoundTrace, Located, Source, Spans, message};
use crate::commands::import::{places, walk};
use async_trait::async_trait;
use lockgate_control::tracking::exchange::{Point, TraceLinkRecord, TraceRecord, points};
use lockgate_control::tracking::{Experiment, LoggedModel, RegisteredModel, Run};
use lockgate_store::foreign::{Foreign, ForeignLink, ForeignVersion};
use std::path::{Path, PathBuf};

/// How many runs or models are read at a time.
const PAGE: i64 = 100;
/// How many points are read at a time.
const POINTS: i64 = 5000;
/// How many spans are read at a time: one may be large.
const SPANS: i64 = 20;

/// A SQLite file of MLflow's own store.
#[derive(Debug)]
pub(crate) struct Sqlite {
    store: Foreign,
    /// Where the server kept what it calls `mlflow-artifacts:`.
    artifacts: Option<PathBuf>,
    folder: PathBuf,
    /// Where its files may lie: beside it, and where they were said to be.
    roots: Vec<PathBuf>,
}

impl Sqlite {
    pub(crate) async fn open(path: &str, artifacts: Option<&Path>) -> anyhow::Result<Self> {
        let store = Foreign::open(path).await?;
        let folder = Path::new(store.path()).parent().map(Path::to_owned).unwrap_or_default();
        let artifacts = super::real(artifacts)?;
        let beside = ["mlruns", "mlartifacts"].map(|name| folder.join(name));
        let roots =
            beside.iter().filter_map(|one| one.canonicalize().ok()).chain(artifacts.clone()).collect();
        Ok(Self { store, artifacts, folder, roots })
    }
}

#[async_trait]
impl Source for Sqlite {
    fn name(&self) -> String {
        format!("sqlite:///{}", self.store.path())
    }

    async fn experiments(&mut self) -> anyhow::Result<Vec<Experiment>> {
        Ok(self.store.experiments().await?)
    }

    async fn runs(&mut self, of: &Experiment, at: &mut Cursor) -> anyhow::Result<Vec<Run>> {
        let (found, last) = self.store.runs(of.id, at.number, PAGE).await?;
        at.number = last;
        Ok(found)
    }

    async fn points(&mut self, of: &Run, at: &mut Cursor) -> anyhow::Result<Vec<Point>> {
        let (found, last) = self.store.points(&of.run_id, at.number, POINTS).await?;
        at.number = last;
        Ok(points(&found))
    }

    async fn logged_models(&mut self, of: &Experiment, at: &mut Cursor) -> anyhow::Result<Vec<LoggedModel>> {
        let (found, last) = self.store.logged_models(of.id, at.number, PAGE).await?;
        at.number = last;
        Ok(found)
    }

    async fn traces(&mut self, of: &Experiment, at: &mut Cursor) -> anyhow::Result<Vec<FoundTrace>> {
        let (found, last) = self.store.traces(of.id, at.number, PAGE).await?;
        at.number = last;
        // Its own tags say where its files are, which a record leaves out.
        let one = |trace: &lockgate_control::tracking::Trace| {
            let tags = trace.tags.iter().map(|tag| (tag.key.clone(), tag.value.clone())).collect();
            message::found(TraceRecord { tags, ..TraceRecord::of(trace) }, of)
        };
        Ok(found.iter().map(one).collect())
    }

    async fn spans(&mut self, of: &FoundTrace, at: &mut Cursor) -> anyhow::Result<Spans> {
        let (found, last) = self.store.spans(&of.record.trace_id, at.number, SPANS).await?;
        at.number = last;
        Ok(found.into_iter().map(|(_, content)| content).collect())
    }

    async fn trace_links(
        &mut self,
        of: &Experiment,
        at: &mut Cursor,
    ) -> anyhow::Result<Vec<TraceLinkRecord>> {
        let (found, last) = self.store.trace_links(of.id, at.number, PAGE).await?;
        at.number = last;
        let one = |link: ForeignLink| TraceLinkRecord {
            link: link.kind,
            target: link.target,
            trace_id: link.trace_id,
        };
        Ok(found.into_iter().map(one).collect())
    }

    async fn registered_models(&mut self) -> anyhow::Result<Vec<(RegisteredModel, i64)>> {
        Ok(self.store.registered_models().await?)
    }

    async fn versions(&mut self, of: &RegisteredModel) -> anyhow::Result<Vec<ForeignVersion>> {
        Ok(self.store.model_versions(&of.name).await?)
    }

    async fn others(&mut self) -> anyhow::Result<Vec<(String, u64)>> {
        Ok(self.store.others().await?)
    }

    fn locate(&self, uri: &str) -> Located {
        if let Some(path) = places::proxied(uri) {
            return match &self.artifacts {
                Some(root) => self.allowed(root.join(path)),
                None => Located::Proxied(path),
            };
        }
        let Some(path) = places::local(uri) else { return Located::Elsewhere };
        // A relative path meant the folder that the server ran in, which is often that of the database.
        if path.is_relative() && !path.exists() {
            return self.allowed(self.folder.join(path));
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

impl Sqlite {
    /// A database's files may be anywhere on its machine: where its own folders of runs and models are.
    fn allowed(&self, folder: PathBuf) -> Located {
        match walk::is_within(&folder, &self.roots, true) {
            true => Located::Folder(folder),
            false => Located::Outside(folder),
        }
    }
}
