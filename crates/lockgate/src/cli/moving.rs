//! What can be said about moving tracking data in and out.

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `import …`
#[derive(Debug, Subcommand)]
pub(crate) enum Import {
    /// Take in what an MLflow server, database or folder holds, with its ids and times; said again, it goes on where it was
    Mlflow(ImportMlflow),
}

/// `import mlflow`
#[derive(Debug, Args)]
pub(crate) struct ImportMlflow {
    /// Where from: http://HOST:PORT of a server, sqlite:///FILE or the file, or a folder such as ./mlruns
    pub(crate) source: String,
    /// The folder of the files: what is behind `mlflow-artifacts:` addresses of a database (the server's --artifacts-destination), or what may be read of this machine's disk besides the store itself
    #[arg(long, value_name = "DIR")]
    pub(crate) artifacts: Option<PathBuf>,
    /// Say what would be taken, and what stands in the way, and write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// `export …`
#[derive(Debug, Subcommand)]
pub(crate) enum Export {
    /// Write a file store that MLflow opens (it wants MLFLOW_ALLOW_FILE_STORE=true); one that was broken off goes on when it is said again
    Mlflow(ExportMlflow),
}

/// `export mlflow`
#[derive(Debug, Args)]
pub(crate) struct ExportMlflow {
    /// The folder: an empty one, or that of an export that was broken off
    #[arg(value_name = "DIR")]
    pub(crate) folder: PathBuf,
}
