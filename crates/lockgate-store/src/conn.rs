//! A connection within a transaction, as reads ([`Conn`]) and writes ([`Tx`]) see it.

use crate::error::{StoreError, classify};
use crate::place::{Engine, Place};
use lockgate_core::clock::{Clock, Millis};
use sqlx::any::{Any, AnyArguments, AnyRow};
use sqlx::{AnyConnection, AssertSqlSafe, ColumnIndex, Decode, Execute as _, Row, Transaction, Type};
use std::fmt::Display;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// A statement with its values.
pub(crate) type Query<'q> = sqlx::query::Query<'q, Any, AnyArguments>;

/// A fixed statement.
pub(crate) fn query(sql: &'static str) -> Query<'static> {
    sqlx::query(sql)
}

/// A statement whose text was put together by this crate: values never go into the text, always through `bind`.
pub(crate) fn query_dynamic(sql: String) -> Query<'static> {
    sqlx::query(AssertSqlSafe(sql))
}

/// Reads from one snapshot of the database.
pub struct Conn {
    raw: Raw,
    place: Place,
    failed: Option<StoreError>,
    /// How the transaction is to begin, where it has not begun yet: with its first read, which saves a round trip.
    begin: Option<&'static str>,
    /// Whose tracking data is seen and written.
    workspace: String,
}

/// The workspace of those that name none.
pub const DEFAULT_WORKSPACE: &str = "default";

enum Raw {
    /// The writer's connection; the writer begins and ends its transactions.
    Writer(Box<AnyConnection>),
    /// A pooled connection; dropping it rolls back.
    Reader(Transaction<'static, Any>),
}

impl Conn {
    pub(crate) fn reader(transaction: Transaction<'static, Any>, place: Place) -> Self {
        let (raw, workspace) = (Raw::Reader(transaction), DEFAULT_WORKSPACE.to_owned());
        Self { raw, place, failed: None, begin: None, workspace }
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

    fn raw(&mut self) -> &mut AnyConnection {
        match &mut self.raw {
            Raw::Writer(connection) => connection,
            Raw::Reader(transaction) => transaction,
        }
    }

    /// Runs a statement unless one has failed before: on PostgreSQL a failed statement dooms the transaction, and
    /// on SQLite a full disk may have rolled it back, so that what follows would no longer be one unit.
    fn check<T>(&mut self, result: Result<T, sqlx::Error>) -> Result<T, StoreError> {
        result.map_err(|error| {
            let error = classify(&self.place, error);
            self.failed = Some(error.clone());
            error
        })
    }

    fn sound(&self) -> Result<(), StoreError> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    /// A read with what begins the transaction before it, where that has not begun yet.
    fn begun<'q>(&mut self, mut query: Query<'q>) -> Result<Query<'q>, StoreError> {
        let Some(begin) = self.begin else { return Ok(query) };
        let arguments = query.take_arguments().map_err(sqlx::Error::Encode);
        let arguments = self.check(arguments)?.unwrap_or_default();
        self.begin = None;
        let text = format!("{begin}; {}", query.sql().as_str());
        Ok(sqlx::query_with(AssertSqlSafe(text), arguments))
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
    pub(crate) async fn execute(&mut self, query: Query<'_>) -> Result<u64, StoreError> {
        self.sound()?;
        if let Some(begin) = self.begin.take() {
            // Not together: SQLite would count what an earlier statement changed.
            let begun = sqlx::raw_sql(begin).execute(self.raw()).await;
            self.check(begun)?;
        }
        let result = query.execute(self.raw()).await;
        self.check(result).map(|done| done.rows_affected())
    }

    /// Runs a query and collects its rows.
    pub(crate) async fn fetch_all(&mut self, query: Query<'_>) -> Result<Vec<AnyRow>, StoreError> {
        self.sound()?;
        let query = self.begun(query)?;
        let result = query.fetch_all(self.raw()).await;
        self.check(result)
    }

    /// Runs a query for at most one row.
    pub(crate) async fn fetch_optional(&mut self, query: Query<'_>) -> Result<Option<AnyRow>, StoreError> {
        self.sound()?;
        if self.begin.is_some() {
            // The driver looks for the one row in the first of several statements only.
            return Ok(self.fetch_all(query).await?.into_iter().next());
        }
        let result = query.fetch_optional(self.raw()).await;
        self.check(result)
    }

    /// Runs a query for exactly one row.
    pub(crate) async fn fetch_one(&mut self, query: Query<'_>) -> Result<AnyRow, StoreError> {
        self.sound()?;
        if self.begin.is_some() {
            let first = self.fetch_all(query).await?.into_iter().next();
            return self.check(first.ok_or(sqlx::Error::RowNotFound));
        }
        let result = query.fetch_one(self.raw()).await;
        self.check(result)
    }

    /// The integer in the first column of the first row.
    pub(crate) async fn scalar(&mut self, query: Query<'_>) -> Result<Option<i64>, StoreError> {
        match self.fetch_optional(query).await? {
            Some(row) => column(&row, 0, "integer"),
            None => Ok(None),
        }
    }

    /// Ends a read.
    pub(crate) async fn finish(self) -> Result<(), StoreError> {
        match self.raw {
            Raw::Reader(transaction) => transaction.rollback().await.map_err(|e| classify(&self.place, e)),
            Raw::Writer(_) => Ok(()),
        }
    }
}

/// Reads and writes within one job of the writer.
pub struct Tx {
    conn: Conn,
    clock: Arc<dyn Clock>,
}

impl Tx {
    pub(crate) fn new(connection: Box<AnyConnection>, place: Place, clock: Arc<dyn Clock>) -> Self {
        let (raw, workspace) = (Raw::Writer(connection), DEFAULT_WORKSPACE.to_owned());
        Self { conn: Conn { raw, place, failed: None, begin: None, workspace }, clock }
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

    /// Lets the transaction begin with its first statement.
    pub(crate) fn begin_later(&mut self, sql: &'static str) {
        self.conn.begin = Some(sql);
    }

    /// Whether no statement has run yet since [`Tx::begin_later`].
    pub(crate) fn is_untouched(&self) -> bool {
        self.conn.begin.is_some()
    }

    /// Runs a statement that controls the transaction itself.
    pub(crate) async fn control(&mut self, sql: &'static str) -> Result<(), StoreError> {
        let result = sqlx::raw_sql(sql).execute(self.conn.raw()).await;
        result.map(|_| ()).map_err(|e| classify(&self.conn.place, e))
    }

    /// Gives the connection back.
    pub(crate) fn into_connection(self) -> Option<Box<AnyConnection>> {
        match self.conn.raw {
            Raw::Writer(connection) => Some(connection),
            Raw::Reader(_) => None,
        }
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

fn column<'r, T, I>(row: &'r AnyRow, index: I, expected: &'static str) -> Result<T, StoreError>
where
    T: Decode<'r, Any> + Type<Any>,
    I: ColumnIndex<AnyRow> + Display + Copy,
{
    row.try_get(index).map_err(|error| StoreError::Value {
        column: index.to_string(),
        found: error.to_string(),
        expected,
    })
}

macro_rules! columns {
    ($($(#[$doc:meta])* $name:ident, $type:ty, $expected:literal;)+) => {$(
        $(#[$doc])*
        pub(crate) fn $name(row: &AnyRow, name: &str) -> Result<$type, StoreError> {
            column(row, name, $expected)
        }
    )+};
}

columns! {
    /// A TEXT column.
    text, String, "text";
    /// A BIGINT column.
    int, i64, "integer";
    /// A TEXT column that may be NULL.
    opt_text, Option<String>, "text or nothing";
    /// A BIGINT column that may be NULL.
    opt_int, Option<i64>, "integer or nothing";
    /// A DOUBLE PRECISION column.
    real, f64, "number";
}

/// A BIGINT column that counts: never negative.
pub(crate) fn count(row: &AnyRow, name: &str) -> Result<u64, StoreError> {
    let found = int(row, name)?;
    u64::try_from(found).map_err(|_| StoreError::Value {
        column: name.to_owned(),
        found: found.to_string(),
        expected: "number from 0",
    })
}

/// A TEXT column that is parsed.
pub(crate) fn parsed<T: std::str::FromStr>(
    row: &AnyRow,
    name: &str,
    expected: &'static str,
) -> Result<T, StoreError> {
    let found = text(row, name)?;
    found.parse().map_err(|_| StoreError::Value { column: name.to_owned(), found: found.clone(), expected })
}

/// A number as the engines store it.
pub(crate) fn signed(what: &'static str, number: u64) -> Result<i64, StoreError> {
    i64::try_from(number).map_err(|_| StoreError::Invalid { what, why: format!("{number} is too large") })
}
