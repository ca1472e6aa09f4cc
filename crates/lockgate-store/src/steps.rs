//! The steps that bring a schema up to date, in `migrations/`.
//!
//! Which ones were taken stands in a table of sqlx's form on both engines. On PostgreSQL sqlx takes them, on SQLite this module.

use crate::error::StoreError;
use crate::place::Place;
use crate::query::query;
use crate::sqlite::Connection;
use sqlx::migrate::{Migration, Migrator};
use std::collections::HashMap;

/// All steps that this program knows.
pub(crate) static ALL: Migrator = sqlx::migrate!("./migrations");

/// Marks a SQLite file as ours: "Lock" in ASCII, see `PRAGMA application_id`.
const APPLICATION_ID: i64 = 0x4c6f_636b;

/// Lines of a step that begin so are SQLite's alone; to PostgreSQL they are comments.
const SQLITE_ONLY: &str = "--sqlite: ";

const TABLE: &str = "CREATE TABLE IF NOT EXISTS _sqlx_migrations (version BIGINT PRIMARY KEY, description TEXT NOT NULL, \
                     installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, success BOOLEAN NOT NULL, \
                     checksum BLOB NOT NULL, execution_time BIGINT NOT NULL)";
const TAKEN: &str = "SELECT version, hex(checksum) AS checksum FROM _sqlx_migrations";
const TAKE: &str = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                    VALUES ($1, $2, TRUE, unhex($3), 0)";

/// The newest schema version that this program knows.
pub(crate) fn known_version() -> i64 {
    ALL.iter().map(|step| step.version).max().unwrap_or_default()
}

fn number(connection: &mut Connection, sql: &'static str) -> Result<i64, StoreError> {
    let found = connection.rows(&query(sql), 1)?;
    found.first().map_or(Ok(0), |row| row.at(0))
}

/// Whether a SQLite file bears our mark.
pub(crate) fn is_ours(connection: &mut Connection) -> Result<bool, StoreError> {
    Ok(number(connection, "PRAGMA application_id")? == APPLICATION_ID)
}

/// Refuses a SQLite file that another program made.
pub(crate) fn refuse_foreign(connection: &mut Connection, place: &Place) -> Result<(), StoreError> {
    if !is_ours(connection)? && number(connection, "PRAGMA schema_version")? != 0 {
        let why = "it is a SQLite database of another program".to_owned();
        return Err(StoreError::NotADatabase { place: place.name.to_string(), why });
    }
    Ok(())
}

/// Marks a new SQLite file as ours.
fn claim(connection: &mut Connection) -> Result<(), StoreError> {
    if is_ours(connection)? {
        return Ok(());
    }
    connection.batch(&format!("PRAGMA application_id = {APPLICATION_ID}"))
}

/// Takes the steps that were not taken yet.
pub(crate) fn take(connection: &mut Connection, place: &Place) -> Result<(), StoreError> {
    take_until(connection, place, i64::MAX)
}

fn take_until(connection: &mut Connection, place: &Place, last: i64) -> Result<(), StoreError> {
    claim(connection)?;
    connection.batch(TABLE)?;
    let mut taken = HashMap::new();
    for row in connection.rows(&query(TAKEN), usize::MAX)? {
        taken.insert(row.get::<i64>("version")?, row.get::<String>("checksum")?);
    }
    let wrong = |detail: String| StoreError::Schema { place: place.name.to_string(), detail };
    let known = known_version();
    if let Some(found) = taken.keys().copied().find(|version| !ALL.version_exists(*version)) {
        if found > known {
            return Err(StoreError::NewerSchema { place: place.name.to_string(), found, known });
        }
        return Err(wrong(format!("step {found} was taken, but this program does not know it")));
    }
    for step in ALL.iter().filter(|step| step.version <= last) {
        match taken.get(&step.version) {
            Some(checksum) if *checksum == hex::encode_upper(&*step.checksum) => {}
            Some(_) => {
                return Err(wrong(format!("step {} was taken in another form", step.version)));
            }
            None => take_one(connection, step)?,
        }
    }
    Ok(())
}

fn take_one(connection: &mut Connection, step: &Migration) -> Result<(), StoreError> {
    connection.batch("BEGIN IMMEDIATE")?;
    let taken = connection.batch(&step.sql.as_str().replace(SQLITE_ONLY, "")).and_then(|()| {
        let note = query(TAKE).bind(step.version).bind(step.description.to_string());
        connection.execute(&note.bind(hex::encode_upper(&*step.checksum)))
    });
    if let Err(error) = taken {
        // Where the engine has rolled back by itself there is nothing left to roll back.
        let _ended = connection.batch("ROLLBACK");
        return Err(error);
    }
    connection.batch("COMMIT")
}

/// Brings an empty database to an earlier version, as an older program would have left it.
#[cfg(test)]
pub(crate) async fn migrate_to(place: &Place, version: i64) -> crate::conn::Raw {
    use crate::conn::Raw;
    let mut raw = crate::open::writer(place, std::time::Duration::from_secs(10)).await.unwrap();
    match &mut raw {
        Raw::Sqlite(connection) => take_until(connection, place, version).unwrap(),
        Raw::Postgres(connection) => {
            let migrations = ALL.iter().filter(|step| step.version <= version).cloned().collect();
            let older = Migrator { migrations, ..Migrator::DEFAULT };
            older.run_direct(None, &mut **connection, false).await.unwrap();
        }
        Raw::Pooled(_) => unreachable!(),
    }
    raw
}
