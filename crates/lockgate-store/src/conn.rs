//! A connection within a transaction, as reads ([`Conn`]) and writes ([`Tx`]) see it.

use crate::error::StoreError;
use crate::place::{Engine, Place};
use crate::{postgres, sqlite};
use lockgate_core::clock::{Clock, Millis};
use sqlx::{PgConnection, Postgres, Transaction};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

pub(crate) use crate::query::{Query, query, query_dynamic};
pub(crate) use crate::row::{Row, count, int, opt_int, opt_text, parsed, real, signed, text};

/// Reads from one snapshot of the database.
pub struct Conn {
    raw: Raw,
    place: Place,
    failed: Option<StoreError>,
    /// Whose tracking data is seen and written.
    workspace: String,
}

/// The workspace of those that name none.
pub const DEFAULT_WORKSPACE: &str = "default";

/// An open connection.
pub(crate) enum Raw {
    Sqlite(Box<sqlite::Connection>),
    Postgres(Box<PgConnection>),
    /// One of PostgreSQL's pool; dropping it rolls back.
    Pooled(Transaction<'static, Postgres>),
}

impl Raw {
    /// Runs statements without values.
    pub(crate) async fn batch(&mut self, place: &Place, sql: &str) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(connection) => connection.batch(sql),
            Self::Postgres(connection) => postgres::batch(connection, place, sql.to_owned()).await,
            Self::Pooled(transaction) => postgres::batch(transaction, place, sql.to_owned()).await,
        }
    }

    pub(crate) async fn fetch(
        &mut self,
        place: &Place,
        query: Query,
        most: usize,
    ) -> Result<Vec<Row>, StoreError> {
        match self {
            Self::Sqlite(connection) => connection.rows(&query, most),
            Self::Postgres(connection) => postgres::fetch(connection, place, query).await,
            Self::Pooled(transaction) => postgres::fetch(transaction, place, query).await,
        }
    }
}

impl Conn {
    pub(crate) fn new(raw: Raw, place: Place) -> Self {
        Self { raw, place, failed: None, workspace: DEFAULT_WORKSPACE.to_owned() }
    }

    pub(crate) fn into_raw(self) -> Raw {
        self.raw
    }

    /// From here on tracking data is that of a workspace. Every job and every read begins in [`DEFAULT_WORKSPACE`].
    pub fn enter(&mut self, workspace: &str) {
        workspace.clone_into(&mut self.workspace);
    }

    /// The workspace whose tracking data is seen and written.
    #[must_use]
    pub fn workspace(&self) -> &str {
        &self.workspace
    }

    /// Whether the engine is SQLite, whose LIKE ignores case.
    pub(crate) fn is_sqlite(&self) -> bool {
        self.place.engine == Engine::Sqlite
    }

    /// Remembers a statement's error: on PostgreSQL a failed statement dooms the transaction, and on SQLite a full disk may
    /// have rolled it back, so that what follows would no longer be one unit.
    fn check<T>(&mut self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        result.inspect_err(|error| self.failed = Some(error.clone()))
    }

    fn sound(&self) -> Result<(), StoreError> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    /// A generated text whose places `$1`, `$2` and so on stand in their order. SQLite looks names of places up one by one,
    /// which takes long where there are hundreds: it gets nameless ones.
    pub(crate) fn nameless(&self, text: String) -> String {
        if !self.is_sqlite() {
            return text;
        }
        let mut parts = text.split('$');
        let mut out = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            out.push('?');
            out.push_str(part.trim_start_matches(|c: char| c.is_ascii_digit()));
        }
        out
    }

    /// Runs a statement; says how many rows it touched.
    pub(crate) async fn execute(&mut self, query: Query) -> Result<u64, StoreError> {
        self.sound()?;
        let result = match &mut self.raw {
            Raw::Sqlite(connection) => connection.execute(&query),
            Raw::Postgres(connection) => postgres::execute(connection, &self.place, query).await,
            Raw::Pooled(transaction) => postgres::execute(transaction, &self.place, query).await,
        };
        self.check(result)
    }

    async fn fetch(&mut self, query: Query, most: usize) -> Result<Vec<Row>, StoreError> {
        self.sound()?;
        let result = self.raw.fetch(&self.place, query, most).await;
        self.check(result)
    }

    /// Runs a query and collects its rows.
    pub(crate) async fn fetch_all(&mut self, query: Query) -> Result<Vec<Row>, StoreError> {
        self.fetch(query, usize::MAX).await
    }

    /// Runs a query for at most one row.
    pub(crate) async fn fetch_optional(&mut self, query: Query) -> Result<Option<Row>, StoreError> {
        Ok(self.fetch(query, 1).await?.pop())
    }

    /// Runs a query for exactly one row.
    pub(crate) async fn fetch_one(&mut self, query: Query) -> Result<Row, StoreError> {
        let found = self.fetch_optional(query).await?;
        let place = self.place.name.to_string();
        let missing = StoreError::Statement { place, detail: "no row where there must be one".to_owned() };
        self.check(found.ok_or(missing))
    }

    /// The integer in the first column of the first row.
    pub(crate) async fn scalar(&mut self, query: Query) -> Result<Option<i64>, StoreError> {
        self.fetch_optional(query).await?.map(|row| row.at(0)).transpose()
    }
}

/// Reads and writes within one job of the writer.
pub struct Tx {
    conn: Conn,
    clock: Arc<dyn Clock>,
}

impl Tx {
    pub(crate) fn new(raw: Raw, place: Place, clock: Arc<dyn Clock>) -> Self {
        Self { conn: Conn::new(raw, place), clock }
    }

    /// The time by the store's clock.
    #[must_use]
    pub fn now(&self) -> Millis {
        self.clock.now_ms()
    }

    /// The first error of a statement of this job, and forgets it.
    pub(crate) fn take_failure(&mut self) -> Option<StoreError> {
        self.conn.failed.take()
    }

    /// From now on SQLite's statements are given up after this time; without one never. PostgreSQL has its own limit.
    pub(crate) fn limit(&mut self, after: Option<Duration>) {
        if let Raw::Sqlite(connection) = &mut self.conn.raw {
            connection.limit(after);
        }
    }

    /// Whether a statement was given up since the limit was set.
    pub(crate) fn gave_up(&self) -> bool {
        matches!(&self.conn.raw, Raw::Sqlite(connection) if connection.gave_up())
    }

    /// Runs a statement that controls the transaction itself.
    pub(crate) async fn control(&mut self, sql: &'static str) -> Result<(), StoreError> {
        match &mut self.conn.raw {
            Raw::Sqlite(connection) => connection.control(sql),
            other => other.batch(&self.conn.place, sql).await,
        }
    }

    /// Gives the connection back.
    pub(crate) fn into_raw(self) -> Raw {
        self.conn.into_raw()
    }
}

impl Deref for Tx {
    type Target = Conn;
    fn deref(&self) -> &Conn {
        &self.conn
    }
}

impl DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut Conn {
        &mut self.conn
    }
}
