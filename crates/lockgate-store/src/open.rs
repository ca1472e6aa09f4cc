//! Opening: connections with the right settings, and the schema brought up to date.

use crate::conn::{Raw, query};
use crate::error::{StoreError, classify};
use crate::place::{Engine, Place};
use crate::sqlite::{Connection, Mode, WAIT};
use crate::steps;
use crate::tracking::{DATE_DELETED, DATE_FIRST};
use futures_util::future::BoxFuture;
use lockgate_core::clock::Millis;
use sqlx::migrate::MigrateError;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Pool, Postgres};
use std::str::FromStr;
use std::time::Duration;

fn options(place: &Place) -> Result<PgConnectOptions, StoreError> {
    PgConnectOptions::from_str(&place.url)
        .map_err(|e| StoreError::Address { given: place.name.to_string(), why: e.to_string() })
}

/// Settings of a connection to PostgreSQL that writes. `synchronous_commit` makes "acknowledged" durable.
fn writer_settings(job_timeout: Duration) -> String {
    format!(
        "SET synchronous_commit = on; SET statement_timeout = {}; SET idle_in_transaction_session_timeout = '60s';",
        job_timeout.as_millis().max(1)
    )
}

/// Connects for writing.
pub(crate) async fn writer(place: &Place, job_timeout: Duration) -> Result<Raw, StoreError> {
    if place.engine == Engine::Sqlite {
        return Ok(Raw::Sqlite(Box::new(Connection::open(place, Mode::Write)?)));
    }
    let options = options(place)?;
    let connecting = tokio::time::timeout(WAIT, PgConnection::connect_with(&options));
    let connection = connecting
        .await
        .map_err(|_| StoreError::Unavailable {
            place: place.name.to_string(),
            detail: format!("no answer within {WAIT:?}"),
        })?
        .map_err(|e| classify(place, e))?;
    let mut raw = Raw::Postgres(Box::new(connection));
    raw.batch(place, &writer_settings(job_timeout)).await?;
    Ok(raw)
}

/// Closes a connection in good order.
pub(crate) async fn close(raw: Raw, place: &Place) -> Result<(), StoreError> {
    match raw {
        Raw::Postgres(connection) => connection.close().await.map_err(|e| classify(place, e)),
        Raw::Sqlite(_) | Raw::Pooled(_) => Ok(()),
    }
}

/// The pool of PostgreSQL's connections that only read.
pub(crate) fn readers(place: &Place, size: u32) -> Result<Pool<Postgres>, StoreError> {
    let pool = PgPoolOptions::new()
        .max_connections(size.max(1))
        .acquire_timeout(WAIT)
        .test_before_acquire(true)
        .after_connect(move |connection, _| -> BoxFuture<'_, Result<(), sqlx::Error>> {
            let settings = AssertSqlSafe("SET default_transaction_read_only = on;".to_owned());
            Box::pin(async move { sqlx::raw_sql(settings).execute(connection).await.map(|_| ()) })
        })
        .connect_lazy_with(options(place)?);
    Ok(pool)
}

/// Brings the schema up to date; refuses one that is newer than this program.
pub(crate) async fn migrate(raw: &mut Raw, place: &Place) -> Result<(), StoreError> {
    match raw {
        Raw::Sqlite(connection) => steps::take(connection, place),
        Raw::Postgres(connection) => {
            let taken = steps::ALL.run_direct(None, &mut **connection, false).await;
            taken.map_err(|error| postgres_step(place, error))
        }
        Raw::Pooled(_) => Err(StoreError::OpenedReadOnly),
    }
}

/// Notes when the experiment was made that comes with the schema, and since when runs are deleted, where that isn't known yet.
pub(crate) async fn date(raw: &mut Raw, place: &Place, now: Millis) -> Result<(), StoreError> {
    for sql in [DATE_FIRST, DATE_DELETED] {
        raw.fetch(place, query(sql).bind(now), usize::MAX).await?;
    }
    Ok(())
}

fn postgres_step(place: &Place, error: MigrateError) -> StoreError {
    let known = steps::known_version();
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => classify(place, error),
        MigrateError::VersionMissing(found) if found > known => {
            StoreError::NewerSchema { place: place.name.to_string(), found, known }
        }
        error => StoreError::Schema { place: place.name.to_string(), detail: error.to_string() },
    }
}

pub(crate) const VERSION: &str = "SELECT MAX(version) FROM _sqlx_migrations";

/// The schema's version; 0 where there is none yet.
pub(crate) async fn version(raw: &mut Raw, place: &Place) -> Result<i64, StoreError> {
    match raw.fetch(place, query(VERSION), 1).await {
        Err(StoreError::Statement { .. }) => Ok(0),
        found => {
            Ok(found?.first().map(|row| row.at::<Option<i64>>(0)).transpose()?.flatten().unwrap_or_default())
        }
    }
}

/// Checks that a schema of this version is the one that this program knows.
pub(crate) fn check(found: i64, place: &Place) -> Result<(), StoreError> {
    let (place, known) = (place.name.to_string(), steps::known_version());
    match found.cmp(&known) {
        std::cmp::Ordering::Greater => Err(StoreError::NewerSchema { place, found, known }),
        std::cmp::Ordering::Less => Err(StoreError::OlderSchema { place, found, known }),
        std::cmp::Ordering::Equal => Ok(()),
    }
}
