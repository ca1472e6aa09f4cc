//! Where tracking data comes from: one trait, a module for each kind of store.

pub(super) mod files;
pub(super) mod http;
pub(super) mod message;
pub(super) mod sqlite;

use super::{places, walk};
use anyhow::{Context as _, bail};
use async_trait::async_trait;
use lockgate_control::tracking::exchange::{Point, TraceLinkRecord, TraceRecord};
use lockgate_control::tracking::{Experiment, LoggedModel, RegisteredModel, Run};
use lockgate_store::foreign::ForeignVersion;
use std::path::{Path, PathBuf};
use tokio::io::AsyncRead;

/// How far a listing has come. What the parts mean is the source's own affair.
#[derive(Debug, Clone, Default)]
pub(super) struct Cursor {
    pub(super) number: i64,
    pub(super) offset: u64,
    pub(super) token: Option<String>,
    pub(super) done: bool,
}

/// Where the files at a URI are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Located {
    /// In a folder of this machine, which need not be there.
    Folder(PathBuf),
    /// In a folder of this machine that the source may not name: files of this machine would be sent that are none of its.
    Outside(PathBuf),
    /// Behind a server's `mlflow-artifacts:` URIs, at this path.
    Proxied(String),
    /// Where this program can't read.
    Elsewhere,
}

/// One file below a URI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct File {
    pub(super) path: String,
    pub(super) size: u64,
}

/// Something among files that can't be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Odd {
    pub(super) path: String,
    pub(super) why: String,
}

/// What is below a URI.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Listing {
    pub(super) files: Vec<File>,
    pub(super) odd: Vec<Odd>,
}

/// A file's bytes.
pub(super) type Bytes = Box<dyn AsyncRead + Send + Unpin>;

/// A trace without its spans, and where its files are.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct FoundTrace {
    pub(super) record: TraceRecord,
    pub(super) uri: String,
}

/// Spans, each as JSON.
pub(super) type Spans = Vec<String>;

/// A store of tracking data that can be read.
#[async_trait]
pub(super) trait Source: Send {
    /// Its name for people.
    fn name(&self) -> String;
    /// All experiments, also deleted ones.
    async fn experiments(&mut self) -> anyhow::Result<Vec<Experiment>>;
    /// The next runs of an experiment with all but the history of their metrics; none at the end.
    async fn runs(&mut self, of: &Experiment, at: &mut Cursor) -> anyhow::Result<Vec<Run>>;
    /// The next points of a run; none at the end.
    async fn points(&mut self, of: &Run, at: &mut Cursor) -> anyhow::Result<Vec<Point>>;
    /// The next logged models of an experiment; none at the end.
    async fn logged_models(&mut self, of: &Experiment, at: &mut Cursor) -> anyhow::Result<Vec<LoggedModel>>;
    /// The next traces of an experiment; none at the end.
    async fn traces(&mut self, of: &Experiment, at: &mut Cursor) -> anyhow::Result<Vec<FoundTrace>>;
    /// The next spans of a trace that has them in its database; none at the end.
    async fn spans(&mut self, of: &FoundTrace, at: &mut Cursor) -> anyhow::Result<Spans>;
    /// The next links of an experiment's traces, beside what these say themselves; none at the end.
    async fn trace_links(&mut self, of: &Experiment, at: &mut Cursor)
    -> anyhow::Result<Vec<TraceLinkRecord>>;
    /// What may not have been told in full: traces with what of them.
    fn cut(&mut self) -> Vec<(String, String)> {
        Vec::new()
    }
    /// All registered models, each with the number that its next version gets.
    async fn registered_models(&mut self) -> anyhow::Result<Vec<(RegisteredModel, i64)>>;
    /// The versions of a registered model, by number.
    async fn versions(&mut self, of: &RegisteredModel) -> anyhow::Result<Vec<ForeignVersion>>;
    /// What is there and is not read: names for people, with counts.
    async fn others(&mut self) -> anyhow::Result<Vec<(String, u64)>>;
    /// Things that are neither read nor counted, for people.
    fn unseen(&self) -> Option<&'static str> {
        None
    }
    /// Where the files at a URI are.
    fn locate(&self, uri: &str) -> Located;
    /// Whether it can read behind `mlflow-artifacts:` URIs.
    fn reads_proxied(&self) -> bool {
        false
    }
    /// The real folders that links among the files may lead into.
    fn roots(&self) -> &[PathBuf] {
        &[]
    }
    /// The folder that `mlflow-artifacts:` addresses were said to mean.
    fn given(&self) -> Option<&Path> {
        None
    }
    /// What is below a place, by path.
    async fn list(&mut self, at: &Located) -> anyhow::Result<Listing> {
        match at {
            Located::Folder(folder) => walk::files(folder, self.roots()),
            Located::Outside(_) | Located::Proxied(_) | Located::Elsewhere => Ok(Listing::default()),
        }
    }
    /// A file's bytes.
    async fn open(&mut self, at: &Located, path: &str) -> anyhow::Result<Bytes> {
        match at {
            Located::Folder(folder) => open_file(&folder.join(path)).await,
            Located::Outside(_) | Located::Proxied(_) | Located::Elsewhere => bail!("{path} can't be read"),
        }
    }
}

/// Opens a file of this machine.
pub(super) async fn open_file(path: &Path) -> anyhow::Result<Bytes> {
    let file = tokio::fs::File::open(path).await;
    Ok(Box::new(file.with_context(|| format!("{} can't be read", path.display()))?))
}

/// What was said to mean a folder, as it really is.
fn real(folder: Option<&Path>) -> anyhow::Result<Option<PathBuf>> {
    let real = |folder: &Path| {
        folder.canonicalize().with_context(|| format!("--artifacts: there is no folder {}", folder.display()))
    };
    folder.map(real).transpose()
}

/// Why an address is a database's that is not read directly. It may hold a password, which is not repeated.
fn no_source(given: &str) -> Option<String> {
    let (scheme, _) = given.split_once("://")?;
    let engine = scheme.split('+').next().unwrap_or_default();
    ["postgres", "postgresql", "mysql", "mssql", "mariadb"].contains(&engine).then(|| {
        format!(
            "a {engine} database is not read directly\n  hint: name the MLflow server that uses it, by its address http://HOST:PORT"
        )
    })
}

/// An address without what may be a password in it.
fn without_secret(given: &str) -> String {
    match given.split_once("://").zip(given.rsplit_once('@')) {
        Some(((scheme, _), (_, place))) => format!("{scheme}://…@{place}"),
        None => given.to_owned(),
    }
}

/// Opens what the command line names.
pub(super) async fn open(given: &str, artifacts: Option<&Path>) -> anyhow::Result<Box<dyn Source>> {
    if given.starts_with("http://") || given.starts_with("https://") {
        return Ok(Box::new(http::Http::stock(given, artifacts)?));
    }
    if let Some(why) = no_source(given) {
        bail!("{why}");
    }
    if let Some(path) = given.strip_prefix("sqlite:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        // SQLAlchemy's form: three slashes and a relative path, four and an absolute one.
        let path = path.strip_prefix('/').filter(|rest| !rest.is_empty()).unwrap_or(path);
        let absolute = format!("/{path}");
        let path = if Path::new(path).exists() || !Path::new(&absolute).exists() { path } else { &absolute };
        return Ok(Box::new(sqlite::Sqlite::open(path, artifacts).await?));
    }
    let path = places::local(given).with_context(|| {
        let given = without_secret(given);
        format!("`{given}` is no place of tracking data\n  hint: use http://HOST:PORT, sqlite:///FILE or a folder such as ./mlruns")
    })?;
    if path.is_file() {
        let path = path.to_str().context("the path is no UTF-8")?;
        return Ok(Box::new(sqlite::Sqlite::open(path, artifacts).await?));
    }
    Ok(Box::new(files::Files::open(&path, artifacts)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn passwords_in_addresses_are_not_repeated() {
        for given in ["postgresql://u:geheim@h/db", "mysql+pymysql://u:geheim@h/db", "mongodb://u:geheim@h/x"]
        {
            let said = format!("{:#}", open(given, None).await.err().unwrap());
            assert!(!said.contains("geheim") && said.contains("http://HOST:PORT"), "{said}");
        }
    }
}
