//! `db`: what can be said about a server's database.

use clap::{Args, Subcommand};
use lockgate_blob::BlobPlace;
use std::path::PathBuf;

/// `db …`
#[derive(Debug, Subcommand)]
pub(crate) enum Db {
    /// Check the database, its audit log and the artifacts' files; exit code 1 where something is wrong
    Check {
        #[command(flatten)]
        place: DbPlace,
        /// Read every artifact's bytes and compare their digests
        #[arg(long)]
        deep: bool,
    },
    /// Bring the schema forward to what this program knows, as a server does when it starts
    Migrate {
        #[command(flatten)]
        place: DbPlace,
    },
    /// Copy the database, also while a server runs
    Backup {
        /// The file to write; with --with-blobs a folder
        to: PathBuf,
        #[command(flatten)]
        place: DbPlace,
        /// Take the artifacts' files along: as links where that is possible, as copies elsewhere
        #[arg(long)]
        with_blobs: bool,
    },
    /// Put a backup in the place of a database; no server may run on it
    Restore {
        /// The backup: a file, or a folder that was made with --with-blobs
        from: PathBuf,
        #[command(flatten)]
        place: DbPlace,
        /// Restore over a database that is there, which is kept aside
        #[arg(long)]
        force: bool,
    },
}

/// Which database
#[derive(Debug, Args)]
pub(crate) struct DbPlace {
    /// The server's folder
    #[arg(long, value_name = "DIR", required_unless_present = "database")]
    pub(crate) home: Option<PathBuf>,
    /// Database URL [default: SQLite in the home folder]
    #[arg(long, env = "LOCKGATE_DATABASE", hide_env_values = true)]
    pub(crate) database: Option<String>,
    /// Where artifacts rest: a folder, or s3://BUCKET/PREFIX [default: `blobs` in the home folder]
    #[arg(long, env = "LOCKGATE_BLOBS", value_name = "PLACE")]
    pub(crate) blobs: Option<BlobPlace>,
}
