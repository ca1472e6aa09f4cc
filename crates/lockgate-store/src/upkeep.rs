//! Upkeep: bringing the schema forward, the engine's own check, and snapshots of a SQLite file.

use crate::conn::{query, text};
use crate::error::StoreError;
use crate::lock::FileLock;
use crate::open;
use crate::place::{Engine, Place};
use crate::sqlite::{Connection, Mode};
use crate::store::Store;
use std::path::Path;
use std::time::Duration;

/// How long one step of the schema may take.
const STEP_LIMIT: Duration = Duration::from_secs(3600);

/// SQLite's own check; PostgreSQL has none that any user may run.
const INTEGRITY: &str = "PRAGMA integrity_check(20)";

const FORGET: &str = "DELETE FROM settings WHERE key = $1";

/// From which schema version to which a database was brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migrated {
    /// What it was; 0 where there was nothing.
    pub from: i64,
    /// What it is.
    pub to: i64,
}

/// Brings the schema of an existing database forward to what this program knows.
///
/// # Errors
/// Where there is no such file, a server has it open, it is newer than this program, or it can't be written.
pub async fn migrate(url: &str) -> Result<Migrated, StoreError> {
    let place = Place::parse(url)?;
    let _lock = match place.path.as_deref() {
        Some(path) if !path.exists() => {
            let detail = "there is no such file; a server makes one when it starts".to_owned();
            return Err(StoreError::Unavailable { place: place.name.to_string(), detail });
        }
        path => path.map(FileLock::take).transpose()?,
    };
    let mut connection = open::writer(&place, STEP_LIMIT).await?;
    let from = open::version(&mut connection, &place).await?;
    open::migrate(&mut connection, &place).await?;
    let to = open::version(&mut connection, &place).await?;
    open::close(connection, &place).await?;
    Ok(Migrated { from, to })
}

/// Writes what a SQLite database holds at this moment into a new file, beside a running server; without the settings whose
/// keys are named.
///
/// # Errors
/// Where the database can't be read, is no SQLite file, or the new file can't be written.
pub async fn snapshot(url: &str, target: &Path, without: &[&str]) -> Result<(), StoreError> {
    let place = Place::parse(url)?;
    if place.engine != Engine::Sqlite {
        let why = "only a SQLite file can be copied this way".to_owned();
        return Err(StoreError::Address { given: place.name.to_string(), why });
    }
    let name = target.to_str().ok_or_else(|| StoreError::Files {
        what: "write",
        path: target.display().to_string(),
        detail: "the path is no UTF-8".to_owned(),
    })?;
    let mut connection = Connection::open(&place, Mode::ReadOnly)?;
    connection.execute(&query("VACUUM INTO $1").bind(name.to_owned()))?;
    drop(connection);
    forget(&Place::parse(name)?, without)
}

/// Brings what was committed last from the files beside a SQLite database into it, where nobody has it open.
///
/// # Errors
/// Where the database can't be read or written.
pub async fn settle(url: &str) -> Result<(), StoreError> {
    Connection::open(&Place::parse(url)?, Mode::Write)?.batch("PRAGMA wal_checkpoint(TRUNCATE)")
}

/// Removes settings from a file that no server has open, with the bytes that they took.
fn forget(place: &Place, settings: &[&str]) -> Result<(), StoreError> {
    if settings.is_empty() {
        return Ok(());
    }
    let mut connection = Connection::open(place, Mode::Write)?;
    for key in settings {
        connection.execute(&query(FORGET).bind((*key).to_owned()))?;
    }
    // One file, which can be read from a folder that can't be written.
    match connection.journal_mode("PRAGMA journal_mode = DELETE")?.as_str() {
        "delete" => Ok(()),
        other => Err(StoreError::Files {
            what: "finish",
            path: place.name.to_string(),
            detail: format!("its journal is still `{other}`"),
        }),
    }
}

impl Store {
    /// What SQLite's own check finds damaged, in its words; nothing on PostgreSQL, which keeps checksums itself.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn integrity(&self) -> Result<Vec<String>, StoreError> {
        if self.engine() != Engine::Sqlite {
            return Ok(Vec::new());
        }
        let checked = self.read(|conn| Box::pin(async move { conn.fetch_all(query(INTEGRITY)).await })).await;
        let rows = match checked {
            Err(StoreError::Corrupt { detail, .. }) => return Ok(vec![detail]),
            rows => rows?,
        };
        let found: Vec<String> =
            rows.iter().map(|row| text(row, "integrity_check")).collect::<Result<_, _>>()?;
        Ok(found.into_iter().filter(|line| line != "ok").collect())
    }

    /// The schema's version.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn schema_version(&self) -> Result<i64, StoreError> {
        self.read(|conn| Box::pin(async move { conn.scalar(query(open::VERSION)).await }))
            .await
            .map(Option::unwrap_or_default)
    }
}
