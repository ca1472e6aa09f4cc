//! A SQLite file of MLflow's own store.

use super::{Cursor, Located, Source};
use crate::commands::import::{places, walk};
use async_trait::async_trait;
use lockgate_control::tracking::exchange::{Point, points};
use lockgate_control::tracking::{Experiment, LoggedModel, RegisteredModel, Run};
use lockgate_store::foreign::{Foreign, ForeignVersion};
use std::path::{Path, PathBuf};

/// How many runs or models are read at a time.
const PAGE: i64 = 100;
/// How many points are read at a time.
const POINTS: i64 = 5000;

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
