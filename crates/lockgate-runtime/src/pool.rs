//! Several sessions behind one queue.
//!
//! A request that is expected to take less than [`INLINE_NS`] runs in the caller's thread, if a session is free: two
//! thread switches would cost more than the model. All others go to executor threads, so that a slow model (or a
//! large batch) never holds up the worker's health checks.

use crate::session::{RunError, Session};
use lockgate_wire::Tensor;
use rustix::time::{ClockId, clock_gettime};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// What may run in the caller's thread, in nanoseconds.
pub const INLINE_NS: u64 = 300_000;

/// Outputs, and how long the model took for them.
pub type Answer = (Vec<Tensor>, Duration);

struct Job {
    tensors: Vec<Tensor>,
    rows: usize,
    reply: oneshot::Sender<Result<Answer, RunError>>,
}

/// Sessions of one graph, each run by one caller at a time.
#[derive(Debug)]
pub struct Pool {
    sessions: Arc<[Mutex<Session>]>,
    /// None where callers' threads are all that there is.
    queue: Option<SyncSender<Job>>,
    cost: Arc<Cost>,
}

/// What a row is expected to cost. Unknown until something has run.
#[derive(Debug)]
struct Cost {
    known: AtomicU64,
    /// The least that a row has cost so far.
    least: AtomicU64,
    /// Whether only the time counts in which the thread was busy: a machine that is busy with other things makes no row dear.
    own_time: bool,
}

impl Cost {
    fn new(own_time: bool) -> Self {
        Self { known: AtomicU64::new(u64::MAX), least: AtomicU64::new(u64::MAX), own_time }
    }

    fn expect(&self, rows: usize) -> u64 {
        self.known.load(Ordering::Relaxed).saturating_mul(rows as u64)
    }

    /// Rises at once, sinks slowly: a wrong "cheap" blocks others, a wrong "dear" costs two thread switches.
    fn learn(&self, rows: usize, took: Duration) {
        let sample = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX) / (rows.max(1) as u64);
        self.least.fetch_min(sample, Ordering::Relaxed);
        let known = self.known.load(Ordering::Relaxed);
        let next = if known == u64::MAX { sample } else { sample.max(known - known / 8 + sample / 8) };
        // One descheduled run must not send a small model to the threads for long.
        let next = if known == u64::MAX { next } else { next.min(known.saturating_mul(4).max(1000)) };
        self.known.store(next, Ordering::Relaxed);
    }

    /// Something was too dear to be run. Where nothing runs nothing is learned, so a wrong "dear" must fade: to the least that a
    /// row has really cost.
    fn fade(&self) {
        let known = self.known.load(Ordering::Relaxed);
        let least = self.least.load(Ordering::Relaxed);
        if known != u64::MAX {
            self.known.store((known - known / 16).max(least).min(known), Ordering::Relaxed);
        }
    }
}

impl Pool {
    /// Starts one executor thread for each session. At most `queue` requests wait.
    ///
    /// # Errors
    /// Where a thread can't be started.
    pub fn new(sessions: Vec<Session>, queue: usize) -> io::Result<Self> {
        let sessions: Arc<[Mutex<Session>]> = sessions.into_iter().map(Mutex::new).collect();
        let (sender, receiver) = sync_channel(queue.max(1));
        let receiver = Arc::new(Mutex::new(receiver));
        let cost = Arc::new(Cost::new(false));
        for index in 0..sessions.len() {
            let (sessions, receiver, cost) =
                (Arc::clone(&sessions), Arc::clone(&receiver), Arc::clone(&cost));
            let work = move || execute(&sessions, index, &receiver, &cost);
            std::thread::Builder::new().name(format!("model-{index}")).spawn(work)?;
        }
        Ok(Self { sessions, queue: Some(sender), cost })
    }

    /// Sessions that run in their callers' threads alone. What would take long, or finds no session free, runs elsewhere.
    #[must_use]
    pub fn without_threads(sessions: Vec<Session>) -> Self {
        let sessions = sessions.into_iter().map(Mutex::new).collect();
        Self { sessions, queue: None, cost: Arc::new(Cost::new(true)) }
    }

    /// Runs the model.
    ///
    /// # Errors
    /// Where the queue is full or there is none, an input can't be given to the model, or the model fails.
    pub async fn run(&self, tensors: Vec<Tensor>, rows: usize) -> Result<Answer, RunError> {
        // Without threads of its own the least that can be asked runs here, dear or not: whoever calls looks at the time.
        let is_least = self.queue.is_none() && rows <= 1;
        if (is_least || self.cost.expect(rows) <= INLINE_NS)
            && let Some(mut session) = self.free()
        {
            return timed(&mut session, tensors, rows, &self.cost);
        }
        let Some(queue) = &self.queue else {
            self.cost.fade();
            return Err(RunError::Elsewhere);
        };
        let (reply, answer) = oneshot::channel();
        queue.try_send(Job { tensors, rows, reply }).map_err(|e| match e {
            TrySendError::Full(_) => RunError::Busy,
            TrySendError::Disconnected(_) => stopped(),
        })?;
        answer.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// Runs the model in this thread, waiting for a session.
    ///
    /// # Errors
    /// As [`Pool::run`].
    pub fn run_here(&self, tensors: Vec<Tensor>, rows: usize) -> Result<Answer, RunError> {
        let first = self.sessions.first().ok_or_else(stopped)?;
        timed(&mut lock(first), tensors, rows, &self.cost)
    }

    /// Runs the model once in each session, in this thread. How many there are.
    ///
    /// # Errors
    /// As [`Pool::run`].
    pub fn run_all(&self, tensors: &[Tensor], rows: usize) -> Result<usize, RunError> {
        for session in &*self.sessions {
            timed(&mut lock(session), tensors.to_vec(), rows, &self.cost)?;
        }
        Ok(self.sessions.len())
    }

    fn free(&self) -> Option<MutexGuard<'_, Session>> {
        self.sessions.iter().find_map(|s| match s.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        })
    }
}

fn stopped() -> RunError {
    RunError::Model("its executor has stopped".to_owned())
}

/// A session holds no state of ours that a panic could have left half-changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn timed(session: &mut Session, tensors: Vec<Tensor>, rows: usize, cost: &Cost) -> Result<Answer, RunError> {
    let (start, before) = (Instant::now(), cost.own_time.then(thread_time));
    let outputs = session.run(tensors)?;
    let took = start.elapsed();
    cost.learn(rows, before.map_or(took, |before| thread_time().saturating_sub(before)));
    Ok((outputs, took))
}

/// How long this thread has been busy so far.
pub(crate) fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn execute(sessions: &[Mutex<Session>], index: usize, receiver: &Mutex<Receiver<Job>>, cost: &Cost) {
    loop {
        let job = lock(receiver).recv();
        let Ok(Job { tensors, rows, reply }) = job else { return };
        // The caller may have gone while the job waited.
        if reply.is_closed() {
            continue;
        }
        let Some(session) = sessions.get(index) else { return };
        let answer = timed(&mut lock(session), tensors, rows, cost);
        let _ = reply.send(answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cost_is_unknown_first_then_rises_quickly_and_sinks_slowly() {
        let cost = Cost::new(false);
        assert!(cost.expect(1) > INLINE_NS);
        cost.learn(10, Duration::from_micros(100));
        assert_eq!(cost.expect(1), 10_000);
        assert!(cost.expect(1000) > INLINE_NS);
        cost.learn(1, Duration::from_micros(30));
        assert_eq!(cost.expect(1), 30_000);
        cost.learn(1, Duration::from_micros(10));
        assert_eq!(cost.expect(1), 27_500);
        cost.learn(1, Duration::from_secs(1));
        assert_eq!(cost.expect(1), 110_000);
    }

    #[test]
    fn what_was_too_dear_once_is_tried_again_but_never_below_what_a_row_has_cost() {
        let cost = Cost::new(true);
        cost.fade();
        assert_eq!(cost.expect(1), u64::MAX, "nothing is known yet");
        cost.learn(1, Duration::from_micros(10));
        (0..3).for_each(|_| cost.learn(1, Duration::from_secs(1)));
        assert!(cost.expect(2) > INLINE_NS);
        let fades = (1..).find(|_| {
            cost.fade();
            cost.expect(2) <= INLINE_NS
        });
        assert_eq!(fades, Some(23));
        (0..1000).for_each(|_| cost.fade());
        assert_eq!(cost.expect(1), 10_000);
    }
}
