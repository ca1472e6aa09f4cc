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
    /// Take away for good what was deleted long ago, and bytes that nothing refers to; also while a server runs
    Gc {
        #[command(flatten)]
        place: DbPlace,
        #[command(flatten)]
        what: GcOptions,
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

/// What goes
#[derive(Debug, Args)]
pub(crate) struct GcOptions {
    /// How long it must be deleted, such as 30d12h [default: 30d; no time for what is named by its id]
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) older_than: Option<i64>,
    /// Only these runs, separated by commas
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    pub(crate) run_ids: Vec<String>,
    /// Only these experiments, with their runs
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    pub(crate) experiment_ids: Vec<String>,
    /// Only these logged models
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    pub(crate) logged_model_ids: Vec<String>,
    /// Only experiments, runs and logged models of this workspace
    #[arg(long)]
    pub(crate) workspace: Option<String>,
    /// Bytes that nothing refers to go when they are this old; an hour at least where a server may run
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "1d")]
    pub(crate) grace: i64,
    /// Say what would go, and leave it
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Reads a time as `mlflow gc` does: days, hours, minutes and seconds, in this order, each with or without a fraction.
fn time(text: &str) -> Result<i64, String> {
    let wrong =
        || format!("`{text}` is no time: write days, hours, minutes and seconds, such as 30d12h or 1.5h");
    let (mut rest, mut total) = (text, 0.0);
    for (unit, millis) in [('d', 86_400_000.0), ('h', 3_600_000.0), ('m', 60_000.0), ('s', 1_000.0)] {
        let Some((number, behind)) = rest.split_once(unit) else { continue };
        if !number.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
            return Err(wrong());
        }
        total += number.parse::<f64>().map_err(|_| wrong())? * millis;
        rest = behind;
    }
    // Ten thousand years.
    match rest.is_empty() && !text.is_empty() && total <= 315_576_000_000_000.0 {
        true => Ok(total as i64),
        false => Err(wrong()),
    }
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

#[cfg(test)]
mod tests {
    use super::time;

    #[test]
    fn times_are_read_as_mlflow_reads_them() {
        for (text, millis) in [
            ("30d", 2_592_000_000),
            ("30d12h", 2_635_200_000),
            ("1.5h", 5_400_000),
            ("2m4s", 124_000),
            ("0d", 0),
        ] {
            assert_eq!(time(text), Ok(millis), "{text}");
        }
        for text in ["", "5", "d", "-1d", "1s2m", "1x", "1d2", "1..5h", "999999999999999d"] {
            assert!(time(text).is_err(), "{text}");
        }
    }
}
