//! Group commit: one task runs every write, as many as wait in one transaction, and answers after the commit.
//!
//! Each job runs in a savepoint of its own, so that a failing one is rolled back alone; the first one needs none. There is no timer: a
//! transaction ends as soon as nobody waits. One slow `fsync` is thus shared by all writes that arrive during it.
//!
//! On SQLite a brief write that finds nobody else writing, and a disk that is quick, is done by its caller on the spot: two
//! changes of threads would cost as much as the rest.

use crate::conn::{DEFAULT_WORKSPACE, Raw, Tx};
use crate::error::StoreError;
use crate::lock::FileLock;
use crate::open;
use crate::place::{Engine, Place};
use crate::sqlite::WAIT;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use lockgate_core::clock::Clock;
use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, mpsc, oneshot};

/// How long the engine may take for a statement that begins or ends a transaction.
const CONTROL_LIMIT: Duration = Duration::from_secs(60);

/// How long a commit may take where callers write by themselves: meanwhile they keep a thread from serving others.
const QUICK: Duration = Duration::from_micros(500);

/// The unit of [`Hand::shared`].
const SHARE: usize = 64;

/// What the writer is asked to do.
pub(crate) enum Message {
    Job(Box<dyn Job>),
    Close(oneshot::Sender<()>),
}

/// One write.
pub(crate) trait Job: Send {
    /// Whether anybody still waits for it.
    fn wanted(&self) -> bool;
    /// Runs it; says whether its work is to be kept.
    fn run<'a>(&'a mut self, tx: &'a mut Tx, default_limit: Duration) -> BoxFuture<'a, bool>;
    /// Tells the caller how it ended. An error of the transaction is the error of each of its jobs.
    fn answer(self: Box<Self>, transaction: Result<(), StoreError>);
}

/// A caller's closure, its outcome and the way to tell it.
pub(crate) struct Work<F, T, E> {
    pub(crate) work: Option<F>,
    pub(crate) outcome: Option<Result<T, E>>,
    pub(crate) limit: Option<Duration>,
    pub(crate) reply: oneshot::Sender<Result<T, E>>,
}

impl<F, T, E> Job for Work<F, T, E>
where
    F: for<'a> FnOnce(&'a mut Tx) -> BoxFuture<'a, Result<T, E>> + Send,
    T: Send,
    E: From<StoreError> + Send,
{
    fn wanted(&self) -> bool {
        !self.reply.is_closed()
    }

    fn run<'a>(&'a mut self, tx: &'a mut Tx, default_limit: Duration) -> BoxFuture<'a, bool> {
        let limit = self.limit.unwrap_or(default_limit);
        Box::pin(async move {
            let Some(work) = self.work.take() else { return false };
            tx.enter(DEFAULT_WORKSPACE);
            tx.limit(Some(limit));
            let attempt = AssertUnwindSafe(async { work(&mut *tx).await }).catch_unwind();
            let outcome = match tokio::time::timeout(limit, attempt).await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(panic)) => Err(StoreError::Panicked { what: message(&*panic) }.into()),
                Err(_) => Err(StoreError::TimedOut { after: limit }.into()),
            };
            let failure = tx.take_failure();
            // A closure that swallows a statement's error must not have the rest of its work kept.
            let outcome = match (outcome, failure) {
                (_, Some(_)) if tx.gave_up() => Err(StoreError::TimedOut { after: limit }.into()),
                (Ok(_), Some(error)) => Err(error.into()),
                (outcome, _) => outcome,
            };
            tx.limit(None);
            let keep = outcome.is_ok();
            self.outcome = Some(outcome);
            keep
        })
    }

    fn answer(self: Box<Self>, transaction: Result<(), StoreError>) {
        let answer = match (transaction, self.outcome) {
            (Err(error), _) => Err(error.into()),
            (Ok(()), Some(outcome)) => outcome,
            (Ok(()), None) => Err(StoreError::Closed.into()),
        };
        // Nobody is there to hear it any more: it is done (or not) all the same.
        let _unheard = self.reply.send(answer);
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

/// The task that writes.
pub(crate) struct Writer {
    pub(crate) hand: Arc<Mutex<Hand>>,
    pub(crate) queue: mpsc::Receiver<Message>,
    pub(crate) batch: usize,
    /// Held until the last job is done.
    pub(crate) lock: Option<FileLock>,
}

/// The connection that writes. Whoever has it writes.
pub(crate) struct Hand {
    place: Place,
    clock: Arc<dyn Clock>,
    connection: Option<Raw>,
    job_timeout: Duration,
    /// A transaction that was begun already.
    begun: Option<Tx>,
    /// How long commits take of late.
    commit: Duration,
    /// How many jobs share a transaction of late, times [`SHARE`].
    shared: usize,
    /// Set whenever something was kept.
    pub(crate) written: Arc<AtomicBool>,
    closed: bool,
}

impl Writer {
    /// Runs until the store is closed or its last handle is dropped.
    pub(crate) async fn run(mut self) {
        let mut closing = Vec::new();
        while let Some(message) = self.queue.recv().await {
            match message {
                Message::Job(job) => {
                    let mut hand = self.hand.lock().await;
                    let limit = self.batch;
                    let mut batch = Batch { done: Vec::new(), kept: 0, closing: None };
                    hand.batch(job, &mut batch, |batch| next(&mut self.queue, limit, batch)).await;
                    closing.extend(batch.closing);
                }
                Message::Close(done) => closing.push(done),
            }
            if !closing.is_empty() {
                // Whoever was let in is still served; nobody else is.
                self.queue.close();
            }
        }
        let mut hand = self.hand.lock().await;
        hand.closed = true;
        if let Some(connection) = hand.connection.take()
            && let Err(error) = open::close(connection, &hand.place).await
        {
            tracing::warn!(place = %hand.place.name, %error, "the database's connection did not close cleanly");
        }
        drop(self.lock.take());
        for done in closing {
            let _unheard = done.send(());
        }
    }
}

/// What waits in the queue, as far as it goes into the same transaction.
fn next(queue: &mut mpsc::Receiver<Message>, limit: usize, batch: &mut Batch) -> Option<Box<dyn Job>> {
    if batch.done.len() >= limit || batch.closing.is_some() {
        return None;
    }
    match queue.try_recv().ok()? {
        Message::Job(job) => Some(job),
        Message::Close(done) => {
            batch.closing = Some(done);
            None
        }
    }
}

impl Hand {
    pub(crate) fn new(place: Place, clock: Arc<dyn Clock>, connection: Raw, job_timeout: Duration) -> Self {
        Self {
            place,
            clock,
            connection: Some(connection),
            job_timeout,
            begun: None,
            commit: Duration::ZERO,
            shared: SHARE,
            written: Arc::new(AtomicBool::new(true)),
            closed: false,
        }
    }

    /// Whether callers may write by themselves: not where that would keep others from sharing a flush.
    pub(crate) fn is_free(&self) -> bool {
        self.place.engine == Engine::Sqlite
            && !self.closed
            && self.commit < QUICK
            && self.shared < SHARE + SHARE / 4
    }

    /// Runs a job of the caller's own, on the spot; gives it back where another program has the file's lock. Jobs of SQLite never
    /// wait; one that does all the same is not kept.
    pub(crate) fn write(&mut self, job: Box<dyn Job>) -> Option<Box<dyn Job>> {
        let Some(Raw::Sqlite(mut connection)) = self.connection.take() else { return Some(job) };
        let begun = connection
            .wait_for_locks(Duration::ZERO)
            .and_then(|()| connection.control(Engine::Sqlite.begin_write()));
        let patient = connection.wait_for_locks(WAIT);
        if begun.and(patient).is_err() {
            // It is rolled back with its connection, where it began all the same.
            if connection.is_idle() {
                self.connection = Some(Raw::Sqlite(connection));
            }
            return Some(job);
        }
        self.begun = Some(Tx::new(Raw::Sqlite(connection), self.place.clone(), Arc::clone(&self.clock)));
        let mut batch = Batch { done: Vec::new(), kept: 0, closing: None };
        if self.batch(job, &mut batch, |_| None).now_or_never().is_none() {
            // Its connection went with it, and the transaction with that.
            tracing::error!(place = %self.place.name, "a write waits for something else than the database");
        }
        None
    }

    /// Runs one transaction and answers its jobs.
    async fn batch(
        &mut self,
        first: Box<dyn Job>,
        batch: &mut Batch,
        next: impl FnMut(&mut Batch) -> Option<Box<dyn Job>> + Send,
    ) {
        let ended = self.transact(first, batch, next).await;
        if let Err(error) = &ended {
            tracing::error!(place = %self.place.name, %error, jobs = batch.done.len(), "a transaction failed");
        }
        for job in batch.done.drain(..) {
            job.answer(ended.clone());
        }
    }

    async fn transact(
        &mut self,
        first: Box<dyn Job>,
        batch: &mut Batch,
        mut more: impl FnMut(&mut Batch) -> Option<Box<dyn Job>> + Send,
    ) -> Result<(), StoreError> {
        let mut next = Some(first);
        let begun = self.begin().await;
        let mut tx = match begun {
            Ok(tx) => tx,
            Err(error) => {
                // All that wait would meet the same error; don't let each of them wait for it in turn.
                while let Some(job) = next.take().or_else(|| more(batch)) {
                    batch.done.push(job);
                }
                return Err(error);
            }
        };
        let (mut open, mut savepoint) = (true, Savepoint::None);
        while let Some(mut job) = next.take() {
            if job.wanted() {
                let ran = if batch.kept == 0 {
                    alone(&mut tx, &mut open, &mut *job, self.job_timeout, self.place.engine).await
                } else {
                    step(&mut tx, &mut savepoint, &mut *job, self.job_timeout, self.place.engine).await
                };
                batch.done.push(job);
                batch.kept += usize::from(ran?);
            }
            next = more(batch);
        }
        let begun = Instant::now();
        if open {
            let end = if batch.kept > 0 { "COMMIT" } else { "ROLLBACK" };
            limited(&mut tx, end).await.map_err(|error| unconfirmed(error, &self.place))?;
        }
        if batch.kept > 0 {
            self.written.store(true, Ordering::Relaxed);
            // The last ones count most.
            self.commit = (self.commit * 3 + begun.elapsed()) / 4;
            self.shared = (self.shared * 7 + batch.done.len() * SHARE).div_ceil(8);
        }
        self.connection = Some(tx.into_raw());
        Ok(())
    }

    /// Begins a transaction; where an idle connection has died, on a new one.
    async fn begin(&mut self) -> Result<Tx, StoreError> {
        if let Some(tx) = self.begun.take() {
            return Ok(tx);
        }
        if let Some(connection) = self.connection.take() {
            let mut tx = Tx::new(connection, self.place.clone(), Arc::clone(&self.clock));
            match begin(&mut tx, self.place.engine).await {
                Ok(()) => return Ok(tx),
                // Another connection would have to wait as long.
                Err(error @ StoreError::Busy { .. }) => {
                    self.connection = Some(tx.into_raw());
                    return Err(error);
                }
                Err(error) => tracing::warn!(place = %self.place.name, %error, "connecting again"),
            }
        }
        let connection = open::writer(&self.place, self.job_timeout).await?;
        let mut tx = Tx::new(connection, self.place.clone(), Arc::clone(&self.clock));
        begin(&mut tx, self.place.engine).await?;
        Ok(tx)
    }
}

/// The jobs of one transaction.
struct Batch {
    done: Vec<Box<dyn Job>>,
    kept: usize,
    closing: Option<oneshot::Sender<()>>,
}

/// Runs a job while there is nothing in the transaction yet that others want kept: the transaction is its savepoint, and is open
/// afterwards where the job is kept. An error means that the whole transaction is lost.
async fn alone(
    tx: &mut Tx,
    open: &mut bool,
    job: &mut dyn Job,
    limit: Duration,
    engine: Engine,
) -> Result<bool, StoreError> {
    if !*open {
        begin(tx, engine).await?;
    }
    let keep = job.run(tx, limit).await;
    *open = keep;
    if !keep {
        match limited(tx, "ROLLBACK").await {
            // SQLite has rolled it back by itself: the job's own error says why.
            Err(StoreError::Statement { detail, .. })
                if engine == Engine::Sqlite && detail.contains("no transaction is active") => {}
            other => other?,
        }
    }
    Ok(keep)
}

/// The savepoint of the jobs in a transaction after the first that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Savepoint {
    /// There is none.
    None,
    /// Nothing was done since it.
    Clean,
    /// What was done since it is kept.
    Done,
}

/// Runs one job in its savepoint. An error means that the whole transaction is lost. A savepoint is released with the next one,
/// or with the transaction: each way to PostgreSQL and back costs as much as a statement.
async fn step(
    tx: &mut Tx,
    savepoint: &mut Savepoint,
    job: &mut dyn Job,
    limit: Duration,
    engine: Engine,
) -> Result<bool, StoreError> {
    match (*savepoint, engine) {
        (Savepoint::Clean, _) => {}
        (Savepoint::None, _) => limited(tx, "SAVEPOINT job").await?,
        (Savepoint::Done, Engine::Postgres) => limited(tx, "RELEASE SAVEPOINT job; SAVEPOINT job").await?,
        (Savepoint::Done, Engine::Sqlite) => {
            limited(tx, "RELEASE SAVEPOINT job").await?;
            limited(tx, "SAVEPOINT job").await?;
        }
    }
    let keep = job.run(tx, limit).await;
    if !keep {
        limited(tx, "ROLLBACK TO SAVEPOINT job").await?;
    }
    *savepoint = if keep { Savepoint::Done } else { Savepoint::Clean };
    Ok(keep)
}

async fn begin(tx: &mut Tx, engine: Engine) -> Result<(), StoreError> {
    limited(tx, engine.begin_write()).await
}

async fn limited(tx: &mut Tx, sql: &'static str) -> Result<(), StoreError> {
    match tokio::time::timeout(CONTROL_LIMIT, tx.control(sql)).await {
        Ok(result) => result,
        Err(_) => Err(StoreError::TimedOut { after: CONTROL_LIMIT }),
    }
}

/// A commit that broke off may have taken place.
fn unconfirmed(error: StoreError, place: &Place) -> StoreError {
    match error {
        StoreError::Unavailable { .. } | StoreError::TimedOut { .. } => {
            StoreError::Unconfirmed { place: place.name.to_string(), detail: error.to_string() }
        }
        error => error,
    }
}
