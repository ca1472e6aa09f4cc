//! SQLite: connections that run their statements on the calling thread, and a pool of those that only read.
//!
//! Calls block: they belong on a thread of their own. A statement costs a few microseconds then, of which none is spent on
//! passing rows from thread to thread.

use crate::error::StoreError;
use crate::pattern;
use crate::place::Place;
use crate::query::{Query, Value, query};
use crate::row::{Answer, Row};
use crate::steps;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{CachedStatement, ErrorCode, OpenFlags, ToSql};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many statements a connection keeps prepared.
const PREPARED: usize = 256;
/// After how many of SQLite's own instructions it is looked whether a statement may go on: about a millisecond.
const CHECK_EVERY: i32 = 100_000;
/// How long a connection waits for a lock of SQLite, and a read for a connection.
pub(crate) const WAIT: Duration = Duration::from_secs(10);

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null(_) => ValueRef::Null,
            Self::Int(number) => ValueRef::Integer(*number),
            Self::Real(number) => ValueRef::Real(*number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
        }))
    }
}

/// What a connection may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Read and write.
    Write,
    /// Read the file, which another connection of this program writes.
    Query,
    /// Read a file that this program doesn't write.
    ReadOnly,
}

/// A connection.
pub(crate) struct Connection {
    raw: rusqlite::Connection,
    place: Place,
    limit: Arc<Limit>,
}

/// Until when statements may run, shared with the handler that ends them.
struct Limit {
    since: Instant,
    /// Microseconds after `since`; 0 where there is no limit.
    until: AtomicU64,
    reached: AtomicBool,
    /// Set when whoever waited for the answer has gone.
    left: Mutex<Option<Arc<AtomicBool>>>,
}

impl Limit {
    fn is_over(&self) -> bool {
        let until = self.until.load(Ordering::Relaxed);
        let over = until > 0 && self.since.elapsed().as_micros() > u128::from(until);
        if over {
            self.reached.store(true, Ordering::Relaxed);
        }
        over || self.is_left()
    }

    fn is_left(&self) -> bool {
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.as_ref().is_some_and(|left| left.load(Ordering::Relaxed))
    }
}

impl Connection {
    /// Opens a file that exists.
    pub(crate) fn open(place: &Place, mode: Mode) -> Result<Self, StoreError> {
        let access = match mode {
            Mode::ReadOnly => OpenFlags::SQLITE_OPEN_READ_ONLY,
            Mode::Write | Mode::Query => OpenFlags::SQLITE_OPEN_READ_WRITE,
        };
        let path = place.path.as_deref().unwrap_or_else(|| Path::new(""));
        let raw = rusqlite::Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX);
        let raw = raw.map_err(|error| classify(place, &error))?;
        raw.set_prepared_statement_cache_capacity(PREPARED);
        let limit = Limit {
            since: Instant::now(),
            until: AtomicU64::new(0),
            reached: AtomicBool::new(false),
            left: Mutex::default(),
        };
        let mut connection = Self { raw, place: place.clone(), limit: Arc::new(limit) };
        connection.wait_for_locks(WAIT)?;
        if mode == Mode::Write {
            // Before anything of it is changed.
            steps::refuse_foreign(&mut connection, place)?;
        }
        connection.batch(settings(mode))?;
        if mode == Mode::Write && connection.journal_mode("PRAGMA journal_mode")? != "wal" {
            let detail = "its file system doesn't do write-ahead logging: use a local one".to_owned();
            return Err(StoreError::Unavailable { place: place.name.to_string(), detail });
        }
        pattern::register(&connection.raw).map_err(|error| connection.error(&error))?;
        if mode != Mode::ReadOnly {
            let limit = Arc::clone(&connection.limit);
            let handled = connection.raw.progress_handler(CHECK_EVERY, Some(move || limit.is_over()));
            handled.map_err(|error| connection.error(&error))?;
        }
        Ok(connection)
    }

    /// How long statements wait for the locks of others.
    pub(crate) fn wait_for_locks(&mut self, wait: Duration) -> Result<(), StoreError> {
        self.raw.busy_timeout(wait).map_err(|error| self.error(&error))
    }

    /// From now on statements are given up as soon as this says that nobody waits for the answer.
    pub(crate) fn watch(&mut self, left: Option<Arc<AtomicBool>>) {
        *self.limit.left.lock().unwrap_or_else(PoisonError::into_inner) = left;
    }

    /// Whether no transaction is open.
    pub(crate) fn is_idle(&self) -> bool {
        self.raw.is_autocommit()
    }

    /// Reads or sets the journal's mode; says what it is then.
    pub(crate) fn journal_mode(&mut self, sql: &'static str) -> Result<String, StoreError> {
        self.rows(&query(sql), 1)?.first().map_or(Ok(String::new()), |row| row.at(0))
    }

    /// From now on statements are given up after this time; without one never.
    pub(crate) fn limit(&mut self, after: Option<Duration>) {
        let until = after.map_or(0, |after| (self.limit.since.elapsed() + after).as_micros().max(1));
        self.limit.until.store(u64::try_from(until).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.limit.reached.store(false, Ordering::Relaxed);
    }

    /// Whether a statement was given up since the limit was set.
    pub(crate) fn gave_up(&self) -> bool {
        self.limit.reached.load(Ordering::Relaxed)
    }

    /// Runs statements without values.
    pub(crate) fn batch(&mut self, sql: &str) -> Result<(), StoreError> {
        self.raw.execute_batch(sql).map_err(|error| self.error(&error))
    }

    /// Runs a statement without values that is run often.
    pub(crate) fn control(&mut self, sql: &'static str) -> Result<(), StoreError> {
        self.try_rows(&query(sql), usize::MAX).map(drop).map_err(|error| self.error(&error))
    }

    /// Runs a statement; says how many rows it touched.
    pub(crate) fn execute(&mut self, query: &Query) -> Result<u64, StoreError> {
        self.rows(query, usize::MAX)?;
        Ok(self.raw.changes())
    }

    /// At most so many rows of a statement's answer.
    pub(crate) fn rows(&mut self, query: &Query, most: usize) -> Result<Vec<Row>, StoreError> {
        if self.limit.is_over() {
            // A job of many small statements ends, too.
            let detail = "it took too long".to_owned();
            return Err(StoreError::Statement { place: self.place.name.to_string(), detail });
        }
        self.try_rows(query, most).map_err(|error| self.error(&error))
    }

    /// Checks that a statement can be run.
    #[cfg(test)]
    pub(crate) fn prepare(&mut self, sql: &str) -> Result<(), StoreError> {
        self.raw.prepare(sql).map(drop).map_err(|error| self.error(&error))
    }

    fn try_rows(&mut self, query: &Query, most: usize) -> rusqlite::Result<Vec<Row>> {
        let mut statement = self.raw.prepare_cached(&query.sql)?;
        bind(&mut statement, &query.values)?;
        let mut answer = Answer::new(statement.column_names().into_iter().map(str::to_owned).collect());
        let mut rows = statement.raw_query();
        let mut left = most;
        while left > 0
            && let Some(row) = rows.next()?
        {
            left -= 1;
            for column in 0..answer.width() {
                read(row.get_ref(column)?, column, &mut answer)?;
            }
        }
        Ok(answer.rows())
    }

    fn error(&self, error: &rusqlite::Error) -> StoreError {
        classify(&self.place, error)
    }
}

/// Binds values to `$1`, `$2` and so on by their numbers, to `?` in their order.
fn bind(statement: &mut CachedStatement<'_>, values: &[Value]) -> rusqlite::Result<()> {
    let mut nameless = 0;
    for index in 1..=statement.parameter_count() {
        let number = statement.parameter_name(index).and_then(|name| name.get(1..)?.parse::<usize>().ok());
        let number = number.unwrap_or_else(|| {
            nameless += 1;
            nameless
        });
        let given = values.get(number.wrapping_sub(1));
        statement.raw_bind_parameter(
            index,
            given.ok_or(rusqlite::Error::InvalidParameterCount(values.len(), number))?,
        )?;
    }
    Ok(())
}

fn read(value: ValueRef<'_>, column: usize, answer: &mut Answer) -> rusqlite::Result<()> {
    match value {
        ValueRef::Null => answer.null(),
        ValueRef::Integer(number) => answer.int(number),
        ValueRef::Real(number) => answer.real(number),
        ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => answer.text(text),
            Err(error) => return Err(rusqlite::Error::Utf8Error(column, error)),
        },
        ValueRef::Blob(_) => {
            let kind = rusqlite::types::Type::Blob;
            return Err(rusqlite::Error::InvalidColumnType(column, "bytes".to_owned(), kind));
        }
    }
    Ok(())
}

/// `synchronous = FULL` makes "acknowledged" durable.
fn settings(mode: Mode) -> &'static str {
    match mode {
        Mode::Write => {
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA fullfsync = ON; PRAGMA foreign_keys = ON; \
             PRAGMA secure_delete = ON; PRAGMA wal_autocheckpoint = 4000; PRAGMA journal_size_limit = 67108864; \
             PRAGMA cache_size = -32000;"
        }
        Mode::Query => "PRAGMA query_only = ON; PRAGMA cache_size = -32000;",
        Mode::ReadOnly => "",
    }
}

/// Translates an error.
fn classify(place: &Place, error: &rusqlite::Error) -> StoreError {
    let place = place.name.to_string();
    let rusqlite::Error::SqliteFailure(failure, message) = error else {
        return StoreError::Statement { place, detail: error.to_string() };
    };
    let code = failure.extended_code;
    let detail = message.clone().unwrap_or_else(|| failure.to_string());
    // The low byte is SQLite's primary result code, see sqlite.org/rescode.html.
    match (failure.code, code) {
        (ErrorCode::ConstraintViolation, 1555 | 2067) => StoreError::Conflict { detail },
        (ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked, _) => StoreError::Busy { place, detail },
        (ErrorCode::ReadOnly, _) => StoreError::ReadOnly { place },
        (ErrorCode::DatabaseCorrupt, _) => StoreError::Corrupt { place, detail },
        (ErrorCode::NotADatabase, _) => {
            StoreError::NotADatabase { place, why: "it is no SQLite file".to_owned() }
        }
        (ErrorCode::DiskFull, _) => StoreError::DiskFull { place, detail },
        // A failed write or truncate: quota, file-size limit, or a dying disk. A failed sync is not among them: what was written
        // may be there all the same.
        (ErrorCode::SystemIoFailure, code) if matches!(code >> 8, 3 | 6 | 19) => {
            StoreError::DiskFull { place, detail: format!("{detail}, code {code}") }
        }
        (ErrorCode::SystemIoFailure, code) => {
            StoreError::Unavailable { place, detail: format!("{detail}, code {code}") }
        }
        (
            ErrorCode::CannotOpen | ErrorCode::AuthorizationForStatementDenied | ErrorCode::PermissionDenied,
            _,
        ) => StoreError::Unavailable { place, detail },
        _ => StoreError::Statement { place, detail },
    }
}

/// Connections that only read.
pub(crate) struct Pool {
    place: Place,
    mode: Mode,
    idle: Mutex<Vec<Connection>>,
    places: Arc<Semaphore>,
    size: u32,
}

impl Pool {
    pub(crate) fn new(place: &Place, size: u32, mode: Mode) -> Arc<Self> {
        let size = size.max(1);
        let places = Arc::new(Semaphore::new(usize::try_from(size).unwrap_or(1)));
        Arc::new(Self { place: place.clone(), mode, idle: Mutex::default(), places, size })
    }

    /// Waits until one more may read.
    pub(crate) async fn turn(&self) -> Result<OwnedSemaphorePermit, StoreError> {
        match tokio::time::timeout(WAIT, Arc::clone(&self.places).acquire_owned()).await {
            Ok(Ok(turn)) => Ok(turn),
            Ok(Err(_closed)) => Err(StoreError::Closed),
            Err(_) => {
                let detail = format!("no read ended within {WAIT:?}");
                Err(StoreError::Unavailable { place: self.place.name.to_string(), detail })
            }
        }
    }

    /// A connection, to be given back.
    pub(crate) fn take(&self) -> Result<Connection, StoreError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.map_or_else(|| Connection::open(&self.place, self.mode), Ok)
    }

    pub(crate) fn give_back(&self, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.places.is_closed() {
            idle.push(connection);
        }
    }

    /// Waits for those that read, as long as they may take; then lets nobody read any more, and closes what is idle.
    pub(crate) async fn close(&self) {
        let _all = tokio::time::timeout(WAIT, self.places.acquire_many(self.size)).await;
        self.places.close();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
