//! Requests that wait for a shim, and how they are put together.
//!
//! Natural batching: whoever waits when a shim gets free goes in the same call, up to a number of rows. Nobody waits for others
//! to come, so a request alone is as fast as without.

use super::FrameError;
use super::batch;
use super::process::{CallError, Shim};
use crate::pool::Answer;
use crate::session::RunError;
use lockgate_wire::Tensor;
use std::collections::VecDeque;
use std::io;
use std::process::Child;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};

/// A call of so many bytes takes no further request.
const MAX_BYTES: usize = 64 << 20;

/// How long the end of a process is waited for whose socket is closed.
const FOR_ITS_END: Duration = Duration::from_millis(200);

/// How a queue treats its requests.
#[derive(Debug, Clone, Copy)]
pub struct QueueOptions {
    /// How many requests may wait.
    pub waiting: usize,
    /// The most rows of several requests in one call; 1 calls the model for each request alone.
    pub batch_rows: usize,
    /// A call that takes longer hangs.
    pub call_limit: Duration,
}

struct Job {
    tensors: Vec<Tensor>,
    rows: usize,
    reply: oneshot::Sender<Result<Answer, RunError>>,
}

/// Shims of one model behind one queue.
#[derive(Debug)]
pub struct Queue {
    shared: Arc<Shared>,
    lost: watch::Receiver<Option<String>>,
}

#[derive(Debug)]
struct Shared {
    options: QueueOptions,
    jobs: Mutex<VecDeque<Job>>,
    /// Told of each new job.
    more: Condvar,
    /// Whether the model answers every row by itself, as far as is known.
    by_row: AtomicBool,
    began: Instant,
    /// For each shim the millisecond in which its present call began, counted from 1; 0 while it has none.
    calls: Box<[AtomicU64]>,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job").field("rows", &self.rows).finish_non_exhaustive()
    }
}

impl Queue {
    /// Starts a thread for each shim, and one that waits for its end.
    ///
    /// # Errors
    /// Where a thread can't be started.
    pub fn new(shims: Vec<(Shim, Child)>, options: QueueOptions) -> io::Result<Self> {
        let (tell, lost) = watch::channel(None);
        let shared = Arc::new(Shared {
            options,
            jobs: Mutex::default(),
            more: Condvar::new(),
            // Until the model has shown it: otherwise somebody could get another one's rows.
            by_row: AtomicBool::new(false),
            began: Instant::now(),
            calls: shims.iter().map(|_| AtomicU64::new(0)).collect(),
        });
        for (index, (mut shim, mut child)) in shims.into_iter().enumerate() {
            let (own, tell_call, tell_end) = (Arc::clone(&shared), tell.clone(), tell.clone());
            let work = move || {
                let error = own.execute(&mut shim, index);
                // How the process ended says more than that its socket was closed.
                if !matches!(error, FrameError::Broken(_)) {
                    std::thread::sleep(FOR_ITS_END);
                }
                say_lost(&tell_call, format!("the model's Python process is lost: {error}"));
            };
            std::thread::Builder::new().name(format!("shim-{index}")).spawn(work)?;
            let wait = move || {
                let how = child.wait().map_or_else(|e| e.to_string(), |status| status.to_string());
                say_lost(&tell_end, format!("the model's Python process ended: {how}"));
            };
            std::thread::Builder::new().name(format!("shim-end-{index}")).spawn(wait)?;
        }
        Ok(Self { shared, lost })
    }

    fn submit(
        &self,
        tensors: Vec<Tensor>,
        rows: usize,
    ) -> Result<oneshot::Receiver<Result<Answer, RunError>>, RunError> {
        let (reply, answer) = oneshot::channel();
        let mut jobs = self.shared.lock();
        if jobs.len() >= self.shared.options.waiting.max(1) {
            return Err(RunError::Busy);
        }
        jobs.push_back(Job { tensors, rows, reply });
        drop(jobs);
        self.shared.more.notify_one();
        Ok(answer)
    }

    /// Runs the model.
    ///
    /// # Errors
    /// Where the queue is full, an input can't be given to the model, or the model fails.
    pub async fn run(&self, tensors: Vec<Tensor>, rows: usize) -> Result<Answer, RunError> {
        match self.submit(tensors, rows)?.await {
            Ok(answer) => answer,
            // The worker ends now. A connection that breaks lets the gateway ask elsewhere, or here again; an answer would not.
            Err(_) => std::future::pending().await,
        }
    }

    /// Runs the model and blocks this thread until it has answered.
    ///
    /// # Errors
    /// As [`Queue::run`]; and where the shim is lost.
    pub fn run_here(&self, tensors: Vec<Tensor>, rows: usize) -> Result<Answer, RunError> {
        let answer = self.submit(tensors, rows)?.blocking_recv();
        answer.unwrap_or_else(|_| {
            let why = self.lost.borrow().clone();
            Err(RunError::Model(why.unwrap_or_else(|| "its Python process is lost".to_owned())))
        })
    }

    /// Waits until a shim is lost, and says how.
    pub async fn lost(&self) -> String {
        let mut lost = self.lost.clone();
        let why = lost.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
        why.unwrap_or_else(|| "the model's Python process is lost".to_owned())
    }

    /// Whether a call takes longer than a call may.
    #[must_use]
    pub fn hangs(&self) -> bool {
        let limit = self.shared.options.call_limit;
        let now = self.shared.now();
        let began = self.shared.calls.iter().map(|c| c.load(Ordering::Relaxed)).filter(|c| *c > 0).min();
        let hangs = began.is_some_and(|began| Duration::from_millis(now.saturating_sub(began)) > limit);
        if hangs {
            tracing::error!(
                limit_s = limit.as_secs_f32(),
                "the model hangs: a call takes longer than it may"
            );
        }
        hangs
    }

    /// Asks for rows one by one, together, and together backwards. Where the answers are the same, and not the same for all
    /// rows, requests are put together from now on. Some models look at all rows of a call: they rank them, sort them, or scale
    /// them by their mean.
    ///
    /// # Errors
    /// Where the model fails.
    pub fn try_batching(&self, tensors: Vec<Tensor>, rows: usize) -> Result<(), RunError> {
        if self.shared.options.batch_rows < 2 {
            return Ok(());
        }
        let count = rows.min(8);
        let tried = batch::split(tensors, &[count, rows - count]).and_then(|mut p| p.drain(..).next());
        let alone = tried.as_ref().and_then(|t| batch::split(t.clone(), &vec![1; count]));
        let (Some(tried), Some(mut alone)) = (tried, alone) else { return Ok(()) };
        let own = alone.iter().map(|row| self.run_here(row.clone(), 1).map(|(answer, _)| answer));
        let mut own = own.collect::<Result<Vec<_>, _>>()?;
        let differ = own.iter().any(|answer| !own.first().is_some_and(|first| batch::agree(first, answer)));
        let mut same = differ && self.agrees(tried, &own)?;
        alone.reverse();
        own.reverse();
        if let (true, Some(backwards)) = (same, batch::join(&alone)) {
            same = self.agrees(backwards, &own)?;
        }
        self.shared.by_row.store(same, Ordering::Relaxed);
        Ok(())
    }

    /// Whether rows that are asked for together are answered as each of them was alone.
    fn agrees(&self, rows: Vec<Tensor>, own: &[Vec<Tensor>]) -> Result<bool, RunError> {
        let (together, _) = self.run_here(rows, own.len())?;
        let together = batch::split(together, &vec![1; own.len()]);
        Ok(together.is_some_and(|together| together.iter().zip(own).all(|(t, own)| batch::agree(t, own))))
    }

    /// Whether requests are put together.
    #[must_use]
    pub fn batches(&self) -> bool {
        self.shared.by_row.load(Ordering::Relaxed)
    }
}

/// Says that a shim is lost, unless something said why already.
fn say_lost(tell: &watch::Sender<Option<String>>, why: String) {
    tell.send_if_modified(|known| {
        let news = known.is_none();
        if news {
            *known = Some(why);
        }
        news
    });
}

impl Shared {
    /// A queue holds no state that a panic could have left half-changed.
    fn lock(&self) -> MutexGuard<'_, VecDeque<Job>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }

    fn not_by_row(&self) {
        if self.by_row.swap(false, Ordering::Relaxed) {
            tracing::warn!(
                "the model doesn't answer row by row; from now on each request is a call of its own"
            );
        }
    }

    /// Waits for the next requests: the first one, and those that can go in the same call.
    fn next(&self) -> Vec<Job> {
        let mut jobs = self.lock();
        loop {
            // The caller may have gone while the request waited.
            while jobs.front().is_some_and(|job| job.reply.is_closed()) {
                jobs.pop_front();
            }
            if let Some(first) = jobs.pop_front() {
                return self.with_others(first, &mut jobs);
            }
            jobs = self.more.wait(jobs).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn with_others(&self, first: Job, jobs: &mut VecDeque<Job>) -> Vec<Job> {
        let (mut rows, mut bytes) = (first.rows, batch::size(&first.tensors));
        let mut taken = vec![first];
        if !self.by_row.load(Ordering::Relaxed) {
            return taken;
        }
        let mut left = VecDeque::with_capacity(jobs.len());
        for job in jobs.drain(..) {
            if job.reply.is_closed() {
                continue;
            }
            let more = (rows + job.rows, bytes + batch::size(&job.tensors));
            let fits = more.0 <= self.options.batch_rows && more.1 <= MAX_BYTES;
            if fits && taken.first().is_some_and(|f| batch::alike(&f.tensors, &job.tensors)) {
                (rows, bytes) = more;
                taken.push(job);
            } else {
                left.push_back(job);
            }
        }
        *jobs = left;
        taken
    }

    /// Calls one shim until it is lost; says how.
    fn execute(&self, shim: &mut Shim, index: usize) -> FrameError {
        loop {
            let jobs = self.next();
            let mut calling = Calling { shared: self, shim, index };
            if let Err(error) = calling.serve(jobs) {
                return error;
            }
        }
    }
}

/// One shim while it serves.
struct Calling<'a> {
    shared: &'a Shared,
    shim: &'a mut Shim,
    index: usize,
}

impl Calling<'_> {
    fn serve(&mut self, jobs: Vec<Job>) -> Result<(), FrameError> {
        let rows: Vec<usize> = jobs.iter().map(|job| job.rows).collect();
        if let [_] = rows.as_slice() {
            return jobs.into_iter().try_for_each(|job| self.alone(job));
        }
        let requests: Vec<&[Tensor]> = jobs.iter().map(|job| job.tensors.as_slice()).collect();
        let pieces = match self.timed(&requests)? {
            Ok((outputs, took)) => match batch::split(outputs, &rows) {
                Some(pieces) => Some((pieces, took)),
                None => {
                    self.shared.not_by_row();
                    None
                }
            },
            // One bad row among them must fail nobody else.
            Err(_) => None,
        };
        let Some((pieces, took)) = pieces else {
            return jobs.into_iter().try_for_each(|job| self.alone(job));
        };
        for (job, outputs) in jobs.into_iter().zip(pieces) {
            let _ = job.reply.send(Ok((outputs, took)));
        }
        Ok(())
    }

    fn alone(&mut self, job: Job) -> Result<(), FrameError> {
        let answer = self.timed(&[&job.tensors])?;
        if answer.as_ref().is_ok_and(|(outputs, _)| !batch::has_rows(outputs, job.rows)) {
            self.shared.not_by_row();
        }
        let _ = job.reply.send(answer);
        Ok(())
    }

    fn timed(&mut self, requests: &[&[Tensor]]) -> Result<Result<Answer, RunError>, FrameError> {
        let began = Instant::now();
        let call = self.shared.calls.get(self.index);
        let note = |value| call.iter().for_each(|c| c.store(value, Ordering::Relaxed));
        note(self.shared.now());
        let answer = self.shim.call(requests);
        note(0);
        match answer {
            Ok(outputs) => Ok(Ok((outputs, began.elapsed()))),
            Err(CallError::Run(error)) => Ok(Err(error)),
            Err(CallError::Lost(error)) => Err(error),
        }
    }
}
