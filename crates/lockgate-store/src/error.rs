//! What can go wrong, in words that say what to do, and the mapping from both engines' codes.

use crate::place::Place;
use lockgate_core::entry::ChainError;
use std::time::Duration;

/// Why the store did not do what it was asked to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The database's address can't be understood.
    #[error(
        "`{given}` is no database address: {why}; use `sqlite:///path/to/file.db`, a path or `postgres://user@host/database`"
    )]
    Address {
        /// The address without its password.
        given: String,
        /// What is wrong with it.
        why: String,
    },
    /// Another process has the database open for writing.
    #[error("{path} is already in use by {by}: stop that process first, or give this one another database")]
    InUse {
        /// The database file.
        path: String,
        /// `pid 123`, or words where it is not known.
        by: String,
    },
    /// The file is something else.
    #[error(
        "{place} is not a Lockgate database: {why}; give the path of another file, which Lockgate creates"
    )]
    NotADatabase {
        /// The database.
        place: String,
        /// What it is instead.
        why: String,
    },
    /// The file is no store of MLflow's.
    #[error("{place} can't be imported: {why}")]
    NotForeign {
        /// The file.
        place: String,
        /// What it is instead.
        why: String,
    },
    /// The file is damaged.
    #[error("{place} is damaged ({detail}): keep a copy of it and restore the last backup")]
    Corrupt {
        /// The database.
        place: String,
        /// The engine's words.
        detail: String,
    },
    /// A newer program has written it.
    #[error(
        "{place} has schema version {found}, but this program knows versions up to {known}: use a newer lockgate"
    )]
    NewerSchema {
        /// The database.
        place: String,
        /// Its version.
        found: i64,
        /// The newest version that this program knows.
        known: i64,
    },
    /// It must be brought up to date before it can be read.
    #[error(
        "{place} has schema version {found}, older than this program's {known}: open it for writing once, which updates it"
    )]
    OlderSchema {
        /// The database.
        place: String,
        /// Its version.
        found: i64,
        /// The version that this program needs.
        known: i64,
    },
    /// A schema step was changed after it had been applied.
    #[error(
        "{place} can't be updated: {detail}; use the lockgate release that wrote it, or restore a backup"
    )]
    Schema {
        /// The database.
        place: String,
        /// What differs.
        detail: String,
    },
    /// It can be read but not written.
    #[error("{place} is read-only: make the file and its folder writable for this user")]
    ReadOnly {
        /// The database.
        place: String,
    },
    /// Opened for reading only.
    #[error("this store was opened for reading only")]
    OpenedReadOnly,
    /// There is no space left for it.
    #[error(
        "no space is left to write {place} ({detail}): free some space, the store goes on by itself; nothing of this write was kept"
    )]
    DiskFull {
        /// The database.
        place: String,
        /// The engine's words.
        detail: String,
    },
    /// A file operation failed.
    #[error("can't {what} {path}: {detail}")]
    Files {
        /// What was to be done.
        what: &'static str,
        /// With which file.
        path: String,
        /// The system's words.
        detail: String,
    },
    /// The database can't be reached now.
    #[error(
        "{place} can't be reached ({detail}): check that it runs and that this user may connect; then try again"
    )]
    Unavailable {
        /// The database.
        place: String,
        /// The engine's words.
        detail: String,
    },
    /// Others hold it for too long.
    #[error("{place} is busy ({detail}): try again")]
    Busy {
        /// The database.
        place: String,
        /// The engine's words.
        detail: String,
    },
    /// Nobody knows whether the commit took place: the connection broke within it.
    #[error(
        "{place} did not confirm the commit ({detail}): read before you write it again, it may have been kept"
    )]
    Unconfirmed {
        /// The database.
        place: String,
        /// The engine's words.
        detail: String,
    },
    /// Something with this key is there already.
    #[error("it exists already: {detail}")]
    Conflict {
        /// What exists.
        detail: String,
    },
    /// A value can't be stored.
    #[error("{what} can't be stored: {why}")]
    Invalid {
        /// Which value.
        what: &'static str,
        /// Why not.
        why: String,
    },
    /// The log or another stored value does not read as what it should be.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// A stored value does not read as what it should be.
    #[error("column {column} holds {found}, which is no {expected}: run `lockgate audit verify`")]
    Value {
        /// Which column.
        column: String,
        /// What it holds.
        found: String,
        /// What it should hold.
        expected: &'static str,
    },
    /// An agent sent a different entry under a number that it had used before.
    #[error(
        "agent {agent} sent entry {seq} of its journal twice with different content: its journal was forked or restored; enrol it anew"
    )]
    Forked {
        /// The agent's environment.
        agent: String,
        /// The number.
        seq: u64,
    },
    /// The engine refused a statement.
    #[error("{place} refused a statement: {detail}")]
    Statement {
        /// The database.
        place: String,
        /// The engine's words.
        detail: String,
    },
    /// A job panicked; it was rolled back.
    #[error(
        "a write was given up because its code panicked: {what}; this is a defect of lockgate, please report it"
    )]
    Panicked {
        /// The panic's message.
        what: String,
    },
    /// A job took too long; it was rolled back.
    #[error("a write was given up after {after:?}; nothing of it was kept, try again")]
    TimedOut {
        /// How long it may take.
        after: Duration,
    },
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
}

/// PostgreSQL's TEXT can't hold the NUL character; refuse it on both engines alike.
pub(crate) fn no_nul(what: &'static str, text: &str) -> Result<(), StoreError> {
    if text.contains('\0') {
        return Err(StoreError::Invalid { what, why: "it holds the character NUL".to_owned() });
    }
    Ok(())
}

/// A text that an application met, not one that somebody chose: where it holds NUL, a sign for what can't be shown stands instead.
pub(crate) fn without_nul(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// Translates an error of PostgreSQL.
pub(crate) fn classify(place: &Place, error: sqlx::Error) -> StoreError {
    let name = place.name.to_string();
    match error {
        sqlx::Error::Database(database) => {
            let detail = database.message().to_owned();
            if database.is_unique_violation() {
                return StoreError::Conflict { detail };
            }
            let code = database.code().unwrap_or_default().into_owned();
            postgres(name, &code, detail)
        }
        sqlx::Error::PoolClosed => StoreError::Closed,
        error @ (sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::BeginFailed) => StoreError::Unavailable { place: name, detail: error.to_string() },
        error => StoreError::Statement { place: name, detail: error.to_string() },
    }
}

fn postgres(place: String, code: &str, detail: String) -> StoreError {
    match code {
        "53100" => StoreError::DiskFull { place, detail },
        "25006" => StoreError::ReadOnly { place },
        "XX001" | "XX002" => StoreError::Corrupt { place, detail },
        "40001" | "40P01" | "55P03" | "57014" => StoreError::Busy { place, detail },
        "3D000" => StoreError::Unavailable { place, detail: format!("{detail}; create it with createdb") },
        _ if matches!(code.get(..2), Some("08" | "28" | "53" | "57" | "58")) => {
            StoreError::Unavailable { place, detail }
        }
        _ => StoreError::Statement { place, detail },
    }
}
