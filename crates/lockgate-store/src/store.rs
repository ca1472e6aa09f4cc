//! [`Store`]: one database, many readers, one writer.

use crate::conn::{Conn, Raw, Tx, query};
use crate::error::{StoreError, classify};
use crate::lock::FileLock;
use crate::open;
use crate::place::{Engine, Place};
use crate::sqlite::{self, Mode};
use crate::statistics;
use crate::writer::{Hand, Job, Message, Work, Writer};
use futures_util::future::BoxFuture;
use lockgate_core::clock::Clock;
use sqlx::{Pool, Postgres};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{Mutex, mpsc, oneshot};

/// What a store is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading and writing; on SQLite by one process at a time.
    ReadWrite,
    /// Reading and writing beside a server that runs on the same file. The schema must be up to date.
    Beside,
    /// Reading only, beside whoever writes.
    ReadOnly,
    /// Reading only, also what an older program wrote. Only what every schema has can be read: the log.
    Inspect,
}

/// How a store is opened.
#[derive(Clone)]
pub struct StoreOptions {
    /// Where [`Tx::now`] takes the time from.
    pub clock: Arc<dyn Clock>,
    /// What it is opened for.
    pub access: Access,
    /// How many reads run at the same time.
    pub readers: u32,
    /// How many writes may wait before a caller has to wait for a place in the queue.
    pub queue: usize,
    /// How many writes share one transaction at the most.
    pub batch: usize,
    /// How long one write may take before it is rolled back.
    pub job_timeout: Duration,
}

impl StoreOptions {
    /// Reading and writing, with limits that suit one server.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            access: Access::ReadWrite,
            readers: 8,
            queue: 1024,
            batch: 256,
            job_timeout: Duration::from_secs(10),
        }
    }
}

/// A handle to the database. Clones share it.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    place: Place,
    readers: Readers,
    /// None where the store was opened for reading only.
    writer: Option<ToWriter>,
}

/// The ways to write.
struct ToWriter {
    queue: mpsc::Sender<Message>,
    hand: Arc<Mutex<Hand>>,
}

/// Those that only read.
enum Readers {
    Sqlite(Arc<sqlite::Pool>),
    Postgres(Pool<Postgres>),
}

impl Readers {
    fn new(place: &Place, size: u32, mode: Mode) -> Result<Self, StoreError> {
        match place.engine {
            Engine::Sqlite => Ok(Self::Sqlite(sqlite::Pool::new(place, size, mode))),
            Engine::Postgres => open::readers(place, size).map(Self::Postgres),
        }
    }
}

impl Store {
    /// Opens the database at `url`: `sqlite:///path`, a path, or `postgres://…`. A SQLite file is created with its
    /// folder where there is none; the schema is brought up to date.
    ///
    /// # Errors
    /// Where the database is in use, damaged, something else, newer than this program, or can't be reached or written.
    pub async fn open(url: &str, options: StoreOptions) -> Result<Self, StoreError> {
        let place = Place::parse(url)?;
        if matches!(options.access, Access::ReadOnly | Access::Inspect) {
            let readers = Readers::new(&place, options.readers, Mode::ReadOnly)?;
            let store = Self { inner: Arc::new(Inner { place, readers, writer: None }) };
            match store.check().await {
                Err(StoreError::OlderSchema { .. }) if options.access == Access::Inspect => {}
                checked => checked?,
            }
            return Ok(store);
        }
        let alone = options.access == Access::ReadWrite;
        let lock = place.path.as_deref().filter(|_| alone).map(FileLock::take).transpose()?;
        let mut connection = open::writer(&place, options.job_timeout).await?;
        if alone {
            open::migrate(&mut connection, &place).await?;
            open::date(&mut connection, &place, options.clock.now_ms()).await?;
        }
        let readers = Readers::new(&place, options.readers, Mode::Query)?;
        let (sender, queue) = mpsc::channel(options.queue.max(1));
        let hand = Hand::new(place.clone(), options.clock, connection, options.job_timeout);
        if let Readers::Postgres(pool) = &readers {
            tokio::spawn(statistics::keep(pool.clone(), place.clone(), Arc::downgrade(&hand.written)));
        }
        let hand = Arc::new(Mutex::new(hand));
        start(Writer { hand: Arc::clone(&hand), queue, batch: options.batch.max(1), lock }, &place)?;
        let writer = Some(ToWriter { queue: sender, hand });
        let store = Self { inner: Arc::new(Inner { place, readers, writer }) };
        store.check().await?;
        Ok(store)
    }

    async fn check(&self) -> Result<(), StoreError> {
        let version =
            self.read(|conn| Box::pin(async move { conn.fetch_one(query(open::VERSION)).await })).await;
        let place = &self.inner.place;
        let version = version.map_err(|error| match error {
            StoreError::Statement { place, .. } => {
                StoreError::NotADatabase { place, why: "it has no schema".to_owned() }
            }
            error => error,
        })?;
        open::check(version.at::<Option<i64>>(0)?.unwrap_or_default(), place)
    }

    /// Runs `work` as one unit: all of it is kept, durably, when this returns `Ok`, and nothing of it otherwise (except
    /// after [`StoreError::Unconfirmed`]). A write whose caller went away before its turn is not run.
    ///
    /// A failed statement fails the whole job, also where `work` goes on.
    ///
    /// # Errors
    /// The error of `work`, or the store's where it can't be carried out.
    pub async fn write<F, T, E>(&self, work: F) -> Result<T, E>
    where
        F: for<'a> FnOnce(&'a mut Tx) -> BoxFuture<'a, Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.write_within(None, false, work).await
    }

    /// Like [`Store::write`], for work that takes well under a millisecond: on SQLite it is done on the spot where nobody else
    /// writes. It must wait for nothing but the database.
    ///
    /// # Errors
    /// The error of `work`, or the store's where it can't be carried out.
    pub async fn write_brief<F, T, E>(&self, work: F) -> Result<T, E>
    where
        F: for<'a> FnOnce(&'a mut Tx) -> BoxFuture<'a, Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.write_within(None, true, work).await
    }

    /// Like [`Store::write`], with a time limit of its own.
    pub(crate) async fn write_within<F, T, E>(
        &self,
        limit: Option<Duration>,
        brief: bool,
        work: F,
    ) -> Result<T, E>
    where
        F: for<'a> FnOnce(&'a mut Tx) -> BoxFuture<'a, Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let Some(writer) = &self.inner.writer else { return Err(StoreError::OpenedReadOnly.into()) };
        let (reply, answer) = oneshot::channel();
        let mut left = None;
        let mut job: Option<Box<dyn Job>> =
            Some(Box::new(Work { work: Some(work), outcome: None, limit, reply }));
        if brief
            && writer.queue.capacity() == writer.queue.max_capacity()
            && let Ok(mut hand) = writer.hand.try_lock()
            && hand.is_free()
            && let Some(job) = job.take()
        {
            // Where somebody else has the lock of the file it waits its turn.
            left = hand.write(job);
        }
        if let Some(job) = job.or(left) {
            writer.queue.send(Message::Job(job)).await.map_err(|_| StoreError::Closed)?;
        }
        answer.await.unwrap_or_else(|_| Err(StoreError::Closed.into()))
    }

    /// Reads from one snapshot of what is committed. Never waits for the writer.
    ///
    /// # Errors
    /// The error of `work`, or the store's.
    pub async fn read<F, T, E>(&self, work: F) -> Result<T, E>
    where
        F: for<'a> FnOnce(&'a mut Conn) -> BoxFuture<'a, Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let place = self.inner.place.clone();
        match &self.inner.readers {
            Readers::Postgres(pool) => read_postgres(pool, place, work).await,
            Readers::Sqlite(pool) => {
                let (turn, pool, runtime) = (pool.turn().await?, Arc::clone(pool), Handle::current());
                let leaving = Leaving::default();
                let left = Arc::clone(&leaving.0);
                let reading = tokio::task::spawn_blocking(move || {
                    let _turn = turn;
                    read_sqlite(&runtime, &pool, place, left, work)
                });
                match reading.await {
                    Ok(result) => result,
                    Err(ended) if ended.is_panic() => std::panic::resume_unwind(ended.into_panic()),
                    Err(_) => Err(StoreError::Closed.into()),
                }
            }
        }
    }

    pub(crate) fn engine(&self) -> Engine {
        self.inner.place.engine
    }

    /// The database's place for people: a path, or an address without user and password.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.inner.place.name
    }

    /// Finishes what waits, closes every connection and frees the file. Later calls fail with [`StoreError::Closed`].
    pub async fn close(&self) {
        match &self.inner.readers {
            Readers::Sqlite(pool) => pool.close().await,
            Readers::Postgres(pool) => pool.close().await,
        }
        if let Some(writer) = &self.inner.writer {
            let (done, closed) = oneshot::channel();
            if writer.queue.send(Message::Close(done)).await.is_ok() {
                // An error means that the writer has ended already.
                let _ended = closed.await;
            }
        }
    }
}

/// Starts the writer: on SQLite, whose calls block, on a thread of its own.
fn start(writer: Writer, place: &Place) -> Result<(), StoreError> {
    if place.engine == Engine::Postgres {
        tokio::spawn(writer.run());
        return Ok(());
    }
    let runtime = Handle::current();
    let thread = std::thread::Builder::new().name("lockgate-writer".to_owned());
    let started = thread.spawn(move || runtime.block_on(writer.run()));
    started.map(drop).map_err(|error| StoreError::Unavailable {
        place: place.name.to_string(),
        detail: format!("can't start the writer's thread: {error}"),
    })
}

/// Says that somebody has gone, by being dropped.
#[derive(Default)]
struct Leaving(Arc<AtomicBool>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn read_sqlite<F, T, E>(
    runtime: &Handle,
    pool: &sqlite::Pool,
    place: Place,
    left: Arc<AtomicBool>,
    work: F,
) -> Result<T, E>
where
    F: for<'a> FnOnce(&'a mut Conn) -> BoxFuture<'a, Result<T, E>>,
    E: From<StoreError>,
{
    let mut connection = pool.take()?;
    connection.watch(Some(left));
    connection.control(place.engine.begin_read())?;
    let mut conn = Conn::new(Raw::Sqlite(Box::new(connection)), place);
    let result = runtime.block_on(work(&mut conn));
    if let Raw::Sqlite(mut connection) = conn.into_raw() {
        connection.watch(None);
        // The answer is there already; a connection that can't end its read is thrown away.
        match connection.control("ROLLBACK") {
            Ok(()) => pool.give_back(*connection),
            Err(error) => tracing::debug!(%error, "a read did not end cleanly"),
        }
    }
    result
}

async fn read_postgres<F, T, E>(pool: &Pool<Postgres>, place: Place, work: F) -> Result<T, E>
where
    F: for<'a> FnOnce(&'a mut Conn) -> BoxFuture<'a, Result<T, E>>,
    E: From<StoreError>,
{
    let begun = pool.begin_with(place.engine.begin_read()).await;
    let transaction = begun.map_err(|e| classify(&place, e))?;
    let mut conn = Conn::new(Raw::Pooled(transaction), place.clone());
    let result = work(&mut conn).await;
    if let Raw::Pooled(transaction) = conn.into_raw()
        && let Err(error) = transaction.rollback().await
    {
        // The answer is there already; a connection that can't end its read is thrown away by the pool.
        tracing::debug!(place = %place.name, %error, "a read did not end cleanly");
    }
    result
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("place", &self.inner.place.name).finish_non_exhaustive()
    }
}
