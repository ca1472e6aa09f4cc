//! Counters since the start, by model, side and release: for `/metrics`, for people, and to see that a release is quiet.

use crate::examine::Unexamined;
use lockgate_core::digest::Digest;
use lockgate_core::id::ModelName;
use lockgate_core::route::Role;
use lockgate_stats::histogram::{self, Histogram};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How a request can fail by the fault of the variant that it was assigned to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorClass {
    /// It answered 5xx.
    Http5xx,
    /// It did not answer in time.
    Timeout,
    /// None of its workers could be reached, or the connection broke before there was an answer.
    Connect,
    /// Its answer holds NaN or infinite numbers.
    Nonfinite,
}

impl ErrorClass {
    /// The word for logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http5xx => "http_5xx",
            Self::Timeout => "timeout",
            Self::Connect => "connect",
            Self::Nonfinite => "nonfinite",
        }
    }
}

/// Requests that failed, by class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ErrorCounts {
    /// Answered 5xx.
    pub http_5xx: u64,
    /// Not answered in time.
    pub timeout: u64,
    /// Workers that could not be reached, or went away before they answered.
    pub connect: u64,
    /// Answers with NaN or infinite numbers.
    pub nonfinite: u64,
}

impl ErrorCounts {
    /// All classes together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.http_5xx + self.timeout + self.connect + self.nonfinite
    }
}

/// Everything that was assigned to one side of one model, by release, since the gateway's start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SideTotals {
    /// The side that the requests were assigned to.
    pub role: Role,
    /// The release on that side.
    pub release: Digest,
    /// Requests that were answered, or that the client gave up.
    pub requests: u64,
    /// Requests that are being worked on.
    pub inflight: u64,
    /// Answers by the first digit of their status, 1xx to 5xx, as the client saw them.
    pub by_class: [u64; 5],
    /// Failures of this side, whether or not another side made them good.
    pub errors: ErrorCounts,
    /// Answers that could not be looked at, in the order of [`Unexamined::ALL`].
    pub unexamined: [u64; 3],
    /// Attempts beyond the first.
    pub retries: u64,
    /// Requests that another side answered.
    pub failovers: u64,
    /// Latencies as the client saw them.
    pub latency: Histogram,
    /// Their sum in microseconds.
    pub latency_sum_us: u64,
}

#[derive(Debug, Default)]
pub(crate) struct ErrorMeter([AtomicU64; 4]);

impl ErrorMeter {
    pub(crate) fn add(&self, class: ErrorClass) {
        self.0[class as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> ErrorCounts {
        let [http_5xx, timeout, connect, nonfinite] =
            [0, 1, 2, 3].map(|i: usize| self.0[i].load(Ordering::Relaxed));
        ErrorCounts { http_5xx, timeout, connect, nonfinite }
    }
}

/// Answers that could not be looked at, by the reason.
#[derive(Debug, Default)]
pub(crate) struct UnexaminedMeter([AtomicU64; 3]);

impl UnexaminedMeter {
    pub(crate) fn add(&self, why: Unexamined) {
        self.0[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn read(&self) -> [u64; 3] {
        Unexamined::ALL.map(|why| self.0[why as usize].load(Ordering::Relaxed))
    }
}

/// A histogram that many threads write.
#[derive(Debug)]
pub(crate) struct LatencyMeter(Box<[AtomicU64]>);

impl Default for LatencyMeter {
    fn default() -> Self {
        Self((0..histogram::BUCKETS).map(|_| AtomicU64::new(0)).collect())
    }
}

impl LatencyMeter {
    pub(crate) fn record(&self, us: u64) {
        if let Some(count) = self.0.get(histogram::bucket(us)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn read(&self) -> Histogram {
        let counts = self.0.iter().map(|c| c.load(Ordering::Relaxed)).collect();
        Histogram::from_counts(counts).unwrap_or_default()
    }
}

/// The live side of [`SideTotals`].
#[derive(Debug, Default)]
pub(crate) struct SideMeter {
    pub(crate) inflight: AtomicU64,
    pub(crate) by_class: [AtomicU64; 5],
    pub(crate) errors: ErrorMeter,
    pub(crate) unexamined: UnexaminedMeter,
    pub(crate) retries: AtomicU64,
    pub(crate) failovers: AtomicU64,
    pub(crate) latency: LatencyMeter,
    pub(crate) latency_sum_us: AtomicU64,
    pub(crate) work: WorkMeter,
}

/// What the good answers were made of.
#[derive(Debug, Default)]
pub(crate) struct WorkMeter {
    rows: AtomicU64,
    /// How long the model ran, as the workers say it.
    model_us: AtomicU64,
    /// How long clients waited.
    waited_us: AtomicU64,
    /// When the latest one was asked for.
    last_ms: AtomicU64,
}

impl WorkMeter {
    /// Counts one good answer.
    pub(crate) fn add(&self, work: Work, waited_us: u64, at_ms: i64) {
        self.rows.fetch_add(work.rows, Ordering::Relaxed);
        self.model_us.fetch_add(work.model_us, Ordering::Relaxed);
        self.waited_us.fetch_add(waited_us, Ordering::Relaxed);
        self.last_ms.fetch_max(u64::try_from(at_ms).unwrap_or(0), Ordering::Relaxed);
    }
}

/// What a worker says of one good answer.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Work {
    pub(crate) rows: u64,
    pub(crate) model_us: u64,
}

/// All that one release answered, on whatever side it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Served {
    pub(crate) good: u64,
    pub(crate) good_us: u64,
    pub(crate) bad: u64,
    pub(crate) bad_us: u64,
    pub(crate) rows: u64,
    pub(crate) model_us: u64,
    pub(crate) last_ms: u64,
}

impl Served {
    fn add(&mut self, meter: &SideMeter) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let [_, good, ..] = &meter.by_class;
        let (good, all) = (read(good), meter.by_class.iter().map(read).sum::<u64>());
        let (good_us, all_us) = (read(&meter.work.waited_us), read(&meter.latency_sum_us));
        self.good += good;
        self.good_us += good_us;
        self.bad += all.saturating_sub(good);
        self.bad_us += all_us.saturating_sub(good_us);
        self.rows += read(&meter.work.rows);
        self.model_us += read(&meter.work.model_us);
        self.last_ms = self.last_ms.max(read(&meter.work.last_ms));
    }
}

impl SideMeter {
    /// Counts one finished request.
    pub(crate) fn finish(&self, status: u16, latency_us: u64) {
        let class = usize::from(status / 100).clamp(1, 5) - 1;
        self.by_class[class].fetch_add(1, Ordering::Relaxed);
        self.latency.record(latency_us);
        self.latency_sum_us.fetch_add(latency_us, Ordering::Relaxed);
    }

    fn read(&self, role: Role, release: Digest) -> SideTotals {
        let by_class: [u64; 5] = std::array::from_fn(|i| self.by_class[i].load(Ordering::Relaxed));
        SideTotals {
            role,
            release,
            requests: by_class.iter().sum(),
            inflight: self.inflight.load(Ordering::Relaxed),
            by_class,
            errors: self.errors.read(),
            unexamined: self.unexamined.read(),
            retries: self.retries.load(Ordering::Relaxed),
            failovers: self.failovers.load(Ordering::Relaxed),
            latency: self.latency.read(),
            latency_sum_us: self.latency_sum_us.load(Ordering::Relaxed),
        }
    }
}

/// What is being sent to one revision's workers, whatever their side.
#[derive(Debug, Default)]
pub(crate) struct RevisionMeter {
    inflight: AtomicU64,
    /// Microseconds since the gateway's start, plus one; 0 is never.
    last_sent: AtomicU64,
}

/// One request on its way to a revision.
#[derive(Debug)]
pub(crate) struct Sent(Arc<RevisionMeter>);

impl Drop for Sent {
    fn drop(&mut self) {
        self.0.inflight.fetch_sub(1, Ordering::Release);
    }
}

type SideMeters = BTreeMap<(Role, Digest), Arc<SideMeter>>;

/// All counters of one gateway. They stay when a release goes, so that totals never shrink.
#[derive(Debug)]
pub(crate) struct Meters {
    started: Instant,
    sides: Mutex<BTreeMap<ModelName, SideMeters>>,
    /// Testers' requests, by release.
    forced: Mutex<BTreeMap<(ModelName, Digest), Arc<SideMeter>>>,
    revisions: Mutex<BTreeMap<Digest, Arc<RevisionMeter>>>,
}

impl Meters {
    pub(crate) fn new(started: Instant) -> Self {
        Self { started, sides: Mutex::default(), forced: Mutex::default(), revisions: Mutex::default() }
    }

    pub(crate) fn micros(&self, now: Instant) -> u64 {
        micros(now.saturating_duration_since(self.started))
    }

    pub(crate) fn side(&self, model: &ModelName, role: Role, release: Digest) -> Arc<SideMeter> {
        let mut sides = self.sides.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(sides.entry(model.clone()).or_default().entry((role, release)).or_default())
    }

    /// The meter of testers' requests to a release.
    pub(crate) fn forced(&self, model: &ModelName, release: Digest) -> Arc<SideMeter> {
        let mut forced = self.forced.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(forced.entry((model.clone(), release)).or_default())
    }

    /// How many requests testers sent to each release, by status class.
    pub(crate) fn forced_totals(&self) -> Vec<(ModelName, Digest, [u64; 5])> {
        let forced = self.forced.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = |meter: &SideMeter| std::array::from_fn(|i| meter.by_class[i].load(Ordering::Relaxed));
        forced.iter().map(|((model, release), meter)| (model.clone(), *release, counts(meter))).collect()
    }

    pub(crate) fn revision(&self, revision: Digest) -> Arc<RevisionMeter> {
        Arc::clone(self.revisions.lock().unwrap_or_else(PoisonError::into_inner).entry(revision).or_default())
    }

    /// Notes that a request goes to a revision now.
    pub(crate) fn send(&self, revision: &Arc<RevisionMeter>, now: Instant) -> Sent {
        revision.inflight.fetch_add(1, Ordering::AcqRel);
        revision.last_sent.fetch_max(self.micros(now) + 1, Ordering::AcqRel);
        Sent(Arc::clone(revision))
    }

    pub(crate) fn inflight(&self, revision: &Digest) -> u64 {
        let revisions = self.revisions.lock().unwrap_or_else(PoisonError::into_inner);
        revisions.get(revision).map_or(0, |r| r.inflight.load(Ordering::Acquire))
    }

    pub(crate) fn last_sent(&self, revision: &Digest) -> Option<Instant> {
        let revisions = self.revisions.lock().unwrap_or_else(PoisonError::into_inner);
        let at = revisions.get(revision)?.last_sent.load(Ordering::Acquire);
        self.started.checked_add(Duration::from_micros(at.checked_sub(1)?))
    }

    pub(crate) fn totals(&self, model: &ModelName) -> Vec<SideTotals> {
        let sides = self.sides.lock().unwrap_or_else(PoisonError::into_inner);
        let of = sides.get(model);
        of.into_iter().flatten().map(|((role, release), meter)| meter.read(*role, *release)).collect()
    }

    /// What a release of a model answered its users so far, and what another meter counted beside.
    pub(crate) fn served(&self, model: &ModelName, release: Digest, beside: Option<&SideMeter>) -> Served {
        let sides = self.sides.lock().unwrap_or_else(PoisonError::into_inner);
        let of = sides.get(model).into_iter().flatten().filter(|((_, r), _)| *r == release);
        let mut sum = Served::default();
        of.map(|(_, meter)| &**meter).chain(beside).for_each(|meter| sum.add(meter));
        sum
    }

    pub(crate) fn models(&self) -> Vec<ModelName> {
        self.sides.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }
}

pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
