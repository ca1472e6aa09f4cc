//! Group commit: one task runs every write, as many as wait in one transaction, and answers after the commit.
//!
//! Each job runs in a savepoint of its own, so that a failing one is rolled back alone; the first one needs none. There is no timer: a
//! transaction ends as soon as nobody waits. One slow `fsync` is thus shared by all writes that arrive during it.

use crate::conn::{DEFAULT_WORKSPACE, Raw, Tx};
use crate::error::StoreError;
use crate::lock::FileLock;
use crate::open;
use crate::place::{Engine, Place};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use lockgate_core::clock::Clock;
use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// How long the engine may take for a statement that begins or ends a transaction.
const CONTROL_LIMIT: Duration = Duration::from_secs(60);

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
    pub(crate) place: Place,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) queue: mpsc::Receiver<Message>,
    pub(crate) connection: Option<Raw>,
    pub(crate) batch: usize,
    pub(crate) job_timeout: Duration,
    /// Held until the last job is done.
    pub(crate) lock: Option<FileLock>,
}

impl Writer {
    /// Runs until the store is closed or its last handle is dropped.
    pub(crate) async fn run(mut self) {
        let mut closing = Vec::new();
        while let Some(message) = self.queue.recv().await {
            match message {
                Message::Job(job) => closing.extend(self.batch(job).await),
                Message::Close(done) => closing.push(done),
            }
            if !closing.is_empty() {
                // Whoever was let in is still served; nobody else is.
                self.queue.close();
            }
        }
        if let Some(connection) = self.connection.take()
            && let Err(error) = open::close(connection, &self.place).await
        {
            tracing::warn!(place = %self.place.name, %error, "the database's connection did not close cleanly");
        }
        drop(self.lock.take());
        for done in closing {
            let _unheard = done.send(());
        }
    }

    /// Runs one transaction and answers its jobs. Returns the wish to close that came in between.
    async fn batch(&mut self, first: Box<dyn Job>) -> Option<oneshot::Sender<()>> {
        let mut batch = Batch { done: Vec::new(), kept: 0, closing: None };
        let ended = self.transact(first, &mut batch).await;
        if let Err(error) = &ended {
            tracing::error!(place = %self.place.name, %error, jobs = batch.done.len(), "a transaction failed");
        }
        for job in batch.done {
            job.answer(ended.clone());
        }
        batch.closing
    }

    async fn transact(&mut self, first: Box<dyn Job>, batch: &mut Batch) -> Result<(), StoreError> {
        let mut next = Some(first);
        let begun = self.begin().await;
        let mut tx = match begun {
            Ok(tx) => tx,
            Err(error) => {
                // All that wait would meet the same error; don't let each of them wait for it in turn.
                while let Some(job) = next.take().or_else(|| self.next(batch)) {
                    batch.done.push(job);
                }
                return Err(error);
            }
        };
        while let Some(mut job) = next.take() {
            if job.wanted() {
                let ran = if batch.kept == 0 {
                    alone(&mut tx, &mut *job, self.job_timeout, self.place.engine).await
                } else {
                    step(&mut tx, &mut *job, self.job_timeout).await
                };
                batch.done.push(job);
                batch.kept += usize::from(ran?);
            }
            next = self.next(batch);
        }
        let end = if batch.kept > 0 { "COMMIT" } else { "ROLLBACK" };
        limited(&mut tx, end).await.map_err(|error| unconfirmed(error, &self.place))?;
        self.connection = Some(tx.into_raw());
        Ok(())
    }

    fn next(&mut self, batch: &mut Batch) -> Option<Box<dyn Job>> {
        if batch.done.len() >= self.batch || batch.closing.is_some() {
            return None;
        }
        match self.queue.try_recv().ok()? {
            Message::Job(job) => Some(job),
            Message::Close(done) => {
                batch.closing = Some(done);
                None
            }
        }
    }

    /// Begins a transaction; where an idle connection has died, on a new one.
    async fn begin(&mut self) -> Result<Tx, StoreError> {
        if let Some(connection) = self.connection.take() {
            let mut tx = Tx::new(connection, self.place.clone(), Arc::clone(&self.clock));
            match begin(&mut tx, self.place.engine).await {
                Ok(()) => return Ok(tx),
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

/// Runs a job while there is nothing in the transaction yet that others want kept: the transaction is its savepoint. An error
/// means that the whole transaction is lost.
async fn alone(tx: &mut Tx, job: &mut dyn Job, limit: Duration, engine: Engine) -> Result<bool, StoreError> {
    let keep = job.run(tx, limit).await;
    if !keep {
        match limited(tx, "ROLLBACK").await {
            // SQLite has rolled it back by itself: the job's own error says why.
            Err(StoreError::Statement { detail, .. })
                if engine == Engine::Sqlite && detail.contains("no transaction is active") => {}
            other => other?,
        }
        begin(tx, engine).await?;
    }
    Ok(keep)
}

/// Runs one job in its savepoint. An error means that the whole transaction is lost.
async fn step(tx: &mut Tx, job: &mut dyn Job, limit: Duration) -> Result<bool, StoreError> {
    limited(tx, "SAVEPOINT job").await?;
    let keep = job.run(tx, limit).await;
    if !keep {
        limited(tx, "ROLLBACK TO SAVEPOINT job").await?;
    }
    limited(tx, "RELEASE SAVEPOINT job").await?;
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
