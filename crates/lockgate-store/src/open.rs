//! Opening: connections with the right settings, and the schema brought up to date.

use crate::error::{StoreError, classify};
use crate::place::{Engine, Place};
use futures_util::future::BoxFuture;
use sqlx::any::{Any, AnyConnectOptions, AnyPoolOptions};
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::{AnyConnection, AssertSqlSafe, Connection, Pool, Row};
use std::str::FromStr;
use std::sync::Once;
use std::time::Duration;

static MIGRATOR: Migrator = sqlx::migrate!("./migrations");

/// Marks a SQLite file as ours: "Lock" in ASCII, see `PRAGMA application_id`.
const APPLICATION_ID: i64 = 0x4c6f_636b;

/// How long a connection waits for a lock of SQLite or for a free connection of the pool.
const WAIT: Duration = Duration::from_secs(10);

/// The newest schema version that this program knows.
pub(crate) fn known_version() -> i64 {
    MIGRATOR.iter().map(|migration| migration.version).max().unwrap_or_default()
}

fn install_drivers() {
    static ONCE: Once = Once::new();
    ONCE.call_once(sqlx::any::install_default_drivers);
}

/// A connection that reads, and may write to other files than the database.
pub(crate) async fn reader(place: &Place) -> Result<AnyConnection, StoreError> {
    let options = options(place, true)?;
    AnyConnection::connect_with(&options).await.map_err(|e| classify(place, e))
}

fn options(place: &Place, read_only: bool) -> Result<AnyConnectOptions, StoreError> {
    install_drivers();
    AnyConnectOptions::from_str(&place.url(read_only))
        .map_err(|e| StoreError::Address { given: place.name.to_string(), why: e.to_string() })
}

/// Settings of a connection that writes. `synchronous = FULL` and `synchronous_commit` make "acknowledged" durable.
fn writer_settings(engine: Engine, job_timeout: Duration) -> String {
    match engine {
        Engine::Sqlite => format!(
            "PRAGMA busy_timeout = {}; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA fullfsync = ON; \
             PRAGMA foreign_keys = ON; PRAGMA secure_delete = ON; PRAGMA wal_autocheckpoint = 4000; \
             PRAGMA cache_size = -32000;",
            WAIT.as_millis()
        ),
        Engine::Postgres => format!(
            "SET synchronous_commit = on; SET statement_timeout = {}; SET idle_in_transaction_session_timeout = '60s';",
            job_timeout.as_millis().max(1)
        ),
    }
}

fn reader_settings(engine: Engine) -> String {
    match engine {
        Engine::Sqlite => format!("PRAGMA busy_timeout = {}; PRAGMA query_only = ON;", WAIT.as_millis()),
        Engine::Postgres => "SET default_transaction_read_only = on;".to_owned(),
    }
}

/// Connects for writing.
pub(crate) async fn writer(place: &Place, job_timeout: Duration) -> Result<Box<AnyConnection>, StoreError> {
    let options = options(place, false)?;
    let connecting = tokio::time::timeout(WAIT, AnyConnection::connect_with(&options));
    let mut connection = connecting
        .await
        .map_err(|_| StoreError::Unavailable {
            place: place.name.to_string(),
            detail: format!("no answer within {WAIT:?}"),
        })?
        .map_err(|e| classify(place, e))?;
    let settings = AssertSqlSafe(writer_settings(place.engine, job_timeout));
    sqlx::raw_sql(settings).execute(&mut connection).await.map_err(|e| classify(place, e))?;
    Ok(Box::new(connection))
}

/// Connects to another program's SQLite file, for reading only.
pub(crate) async fn foreign(place: &Place) -> Result<Box<AnyConnection>, StoreError> {
    let options = options(place, true)?;
    let mut connection = AnyConnection::connect_with(&options).await.map_err(|e| classify(place, e))?;
    let settings = AssertSqlSafe(reader_settings(Engine::Sqlite));
    sqlx::raw_sql(settings).execute(&mut connection).await.map_err(|e| classify(place, e))?;
    Ok(Box::new(connection))
}

/// The pool of connections that only read.
pub(crate) fn readers(place: &Place, size: u32, read_only: bool) -> Result<Pool<Any>, StoreError> {
    let engine = place.engine;
    let pool = AnyPoolOptions::new()
        .max_connections(size.max(1))
        .acquire_timeout(WAIT)
        // A file doesn't go away between two reads; a server's connection may.
        .test_before_acquire(engine == Engine::Postgres)
        .after_connect(move |connection, _| -> BoxFuture<'_, Result<(), sqlx::Error>> {
            Box::pin(async move {
                sqlx::raw_sql(AssertSqlSafe(reader_settings(engine))).execute(connection).await.map(|_| ())
            })
        })
        // Opened read-only there is no writer that keeps the WAL index writable; otherwise `query_only` guards.
        .connect_lazy_with(options(place, read_only)?);
    Ok(pool)
}

async fn pragma(connection: &mut AnyConnection, place: &Place, sql: &'static str) -> Result<i64, StoreError> {
    let row = sqlx::query(sql).fetch_one(connection).await.map_err(|e| classify(place, e))?;
    row.try_get::<i64, _>(0).map_err(|e| classify(place, e))
}

/// Whether a SQLite file bears our mark.
pub(crate) async fn is_ours(connection: &mut AnyConnection, place: &Place) -> Result<bool, StoreError> {
    Ok(pragma(connection, place, "PRAGMA application_id").await? == APPLICATION_ID)
}

/// Refuses a SQLite file that another program made; marks a new one as ours.
async fn claim(connection: &mut AnyConnection, place: &Place) -> Result<(), StoreError> {
    if place.engine != Engine::Sqlite || is_ours(connection, place).await? {
        return Ok(());
    }
    if pragma(connection, place, "PRAGMA schema_version").await? != 0 {
        let why = "it is a SQLite database of another program".to_owned();
        return Err(StoreError::NotADatabase { place: place.name.to_string(), why });
    }
    let mark = AssertSqlSafe(format!("PRAGMA application_id = {APPLICATION_ID}"));
    sqlx::raw_sql(mark).execute(connection).await.map(|_| ()).map_err(|e| classify(place, e))
}

/// Brings the schema up to date; refuses one that is newer than this program.
pub(crate) async fn migrate(connection: &mut AnyConnection, place: &Place) -> Result<(), StoreError> {
    claim(connection, place).await?;
    let name = place.name.to_string();
    MIGRATOR.run_direct(None, connection, false).await.map_err(|error| match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => classify(place, error),
        MigrateError::VersionMissing(found) if found > known_version() => {
            StoreError::NewerSchema { place: name, found, known: known_version() }
        }
        error => StoreError::Schema { place: name, detail: error.to_string() },
    })
}

pub(crate) const VERSION: &str = "SELECT MAX(version) FROM _sqlx_migrations";

/// The schema's version; 0 where there is none yet.
pub(crate) async fn version(connection: &mut AnyConnection, place: &Place) -> Result<i64, StoreError> {
    let row = match sqlx::query(VERSION).fetch_one(connection).await.map_err(|e| classify(place, e)) {
        Err(StoreError::Statement { .. }) => return Ok(0),
        row => row?,
    };
    row.try_get::<Option<i64>, _>(0).map(Option::unwrap_or_default).map_err(|e| classify(place, e))
}

/// Checks the schema without changing anything.
pub(crate) async fn check(pool: &Pool<Any>, place: &Place) -> Result<(), StoreError> {
    let mut connection = pool.acquire().await.map_err(|e| classify(place, e))?;
    let row =
        sqlx::query(VERSION).fetch_one(&mut *connection).await.map_err(|e| match classify(place, e) {
            StoreError::Statement { place, .. } => {
                StoreError::NotADatabase { place, why: "it has no schema".to_owned() }
            }
            error => error,
        })?;
    let found = row.try_get::<Option<i64>, _>(0).map_err(|e| classify(place, e))?.unwrap_or_default();
    let (place, known) = (place.name.to_string(), known_version());
    match found.cmp(&known) {
        std::cmp::Ordering::Greater => Err(StoreError::NewerSchema { place, found, known }),
        std::cmp::Ordering::Less => Err(StoreError::OlderSchema { place, found, known }),
        std::cmp::Ordering::Equal => Ok(()),
    }
}

/// Brings an empty database to an earlier version, as an older program would have left it.
#[cfg(test)]
pub(crate) async fn migrate_to(place: &Place, version: i64) -> Box<AnyConnection> {
    let mut connection = writer(place, WAIT).await.unwrap();
    claim(&mut connection, place).await.unwrap();
    let migrations = MIGRATOR.iter().filter(|migration| migration.version <= version).cloned().collect();
    let older = Migrator { migrations, ..Migrator::DEFAULT };
    older.run_direct(None, &mut *connection, false).await.unwrap();
    connection
}
