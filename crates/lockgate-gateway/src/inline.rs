//! Models that run inside the gateway: a lane beside a release's workers, for a release that is all that users reach.
//!
//! The lane stands where a request would be sent to a worker, so everything above it is the same: assignment, counts, records,
//! headers, limits. Whatever it can't do the workers do, which are kept ready: large bodies, requests that would take long, and
//! everything from the moment on at which the lane is found to be slow or broken. It doesn't come back from that by itself.

use crate::attempt::{Answer, Answered, Attempt, Outbound};
use crate::exchange::Exchanged;
use crate::reactor::Reactor;
use crate::table::Side;
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use http_body_util::{BodyExt as _, Full};
use hyper::header::CONTENT_ENCODING;
use hyper::{Method, Request, Response, StatusCode, Uri};
use lockgate_core::digest::Digest;
use lockgate_core::id::ModelName;
use std::collections::{BTreeMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Larger bodies go to the workers: reading one keeps a thread from everybody else's requests.
pub(crate) const BODY_MAX: usize = 64 << 10;

/// How long a request may keep its thread busy.
pub const SLOW: Duration = Duration::from_millis(1);

/// Of so many requests one in a hundred may take longer.
const WINDOW: u64 = 500;

/// What runs one release's model in the gateway's own threads.
pub trait Runner: Send + Sync + std::fmt::Debug {
    /// Answers a request as the release's worker would. None where the workers have to: it would take long, or no thread's copy
    /// of the model is free.
    fn answer(&self, request: Request<Full<Bytes>>) -> LocalBoxFuture<'_, Option<Ran>>;
}

/// What came of a request.
#[derive(Debug)]
pub struct Ran {
    /// The answer, with the headers that a worker's has.
    pub response: Response<Full<Bytes>>,
    /// How long it kept this thread busy.
    pub busy: Duration,
}

/// How a lane stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LaneState {
    /// Requests take it.
    Open,
    /// The workers answer, for this reason.
    Demoted(String),
}

/// One release's lane.
#[derive(Debug)]
pub(crate) struct Lane {
    model: ModelName,
    release: Digest,
    runner: Arc<dyn Runner>,
    watch: Watch,
    counts: Counts,
}

/// What became of requests.
#[derive(Debug, Default)]
struct Counts {
    answered: AtomicU64,
    passed: AtomicU64,
    failed: AtomicU64,
}

/// What became of one request.
pub(crate) enum Inside {
    /// The lane's answer, or its time is over.
    Ended(Attempt),
    /// The model failed: this is its answer, if nobody has a better one, and what was seen.
    Failed(Attempt, String),
    /// It is the workers'.
    Passed,
}

impl Lane {
    fn new(model: ModelName, release: Digest, runner: Arc<dyn Runner>) -> Self {
        Self { model, release, runner, watch: Watch::default(), counts: Counts::default() }
    }

    fn state(&self) -> LaneState {
        self.watch.demoted.get().map_or(LaneState::Open, |why| LaneState::Demoted(why.clone()))
    }

    /// The request as the runner gets it, where it is one for this lane.
    pub(crate) fn takes(&self, out: &Outbound) -> Option<Request<Full<Bytes>>> {
        let body = out.payload.bytes().filter(|body| body.len() <= BODY_MAX)?;
        // What is packed may be large.
        let packed = out.headers.contains_key(CONTENT_ENCODING);
        if packed || out.method != Method::POST || self.watch.demoted.get().is_some() {
            return None;
        }
        let mut request = Request::new(Full::new(body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from(out.path.clone());
        *request.headers_mut() = out.headers.clone();
        Some(request)
    }

    /// Runs a request for `timeout` at most.
    pub(crate) async fn ask(
        &self,
        reactor: &Reactor,
        side: &Arc<Side>,
        request: Request<Full<Bytes>>,
        timeout: Duration,
    ) -> Inside {
        let sent = reactor.counters.meters.send(&side.flow, Instant::now());
        let work = AssertUnwindSafe(self.runner.answer(request)).catch_unwind();
        let ran = match tokio::time::timeout(timeout, work).await {
            Err(_) => {
                self.demote(format!("a request took longer than {} ms", timeout.as_millis()));
                return Inside::Ended(Attempt::TimedOut);
            }
            Ok(Err(_)) => {
                self.counts.failed.fetch_add(1, Ordering::Relaxed);
                self.demote("the model's code panicked".to_owned());
                return Inside::Failed(Attempt::Broke, "the model's code panicked".to_owned());
            }
            Ok(Ok(None)) => {
                self.counts.passed.fetch_add(1, Ordering::Relaxed);
                return Inside::Passed;
            }
            Ok(Ok(Some(ran))) => ran,
        };
        if let Some(why) = self.watch.note(ran.busy) {
            self.demote(why);
        }
        let (parts, body) = ran.response.into_parts();
        let Ok(body) = body.collect().await.map(http_body_util::Collected::to_bytes);
        let status = parts.status;
        let exchanged = Exchanged { parts, body: Answer::Whole(body), unexamined: None };
        let answered = Attempt::Answered(Box::new(Answered::new(exchanged, side, sent)));
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            self.counts.failed.fetch_add(1, Ordering::Relaxed);
            return Inside::Failed(answered, "the model failed where a worker's did not".to_owned());
        }
        self.counts.answered.fetch_add(1, Ordering::Relaxed);
        Inside::Ended(answered)
    }

    /// Leaves everything to the workers from now on.
    pub(crate) fn demote(&self, why: String) {
        if self.watch.demoted.set(why.clone()).is_ok() {
            let (model, release) = (&self.model, self.release.short());
            tracing::warn!(%model, %release, why, "the model doesn't run inside the gateway any more: its workers answer");
        }
    }
}

/// Whether a lane is quick enough. Time is the thread's own: a busy machine makes no model slow.
#[derive(Debug, Default)]
struct Watch {
    calls: AtomicU64,
    /// Those among the latest [`WINDOW`] that took too long: the number of each, and its time.
    slow: Mutex<VecDeque<(u64, Duration)>>,
    demoted: OnceLock<String>,
}

impl Watch {
    /// Notes how long a request kept its thread; why the lane has to be left, where that is so: of the latest [`WINDOW`] requests
    /// more than one in a hundred took longer than [`SLOW`]. The first such requests suffice, as later ones can't make them good.
    fn note(&self, busy: Duration) -> Option<String> {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        if busy <= SLOW {
            return None;
        }
        let mut slow = self.slow.lock().unwrap_or_else(PoisonError::into_inner);
        slow.push_back((number, busy));
        slow.retain(|(at, _)| at + WINDOW > number);
        let least = slow.iter().map(|(_, busy)| *busy).min().unwrap_or_default();
        (slow.len() as u64 > WINDOW / 100)
            .then(|| format!("p99 {:.1} ms > {} ms", least.as_secs_f64() * 1e3, SLOW.as_millis()))
    }
}

/// The lanes of a gateway, by revision.
#[derive(Debug, Default)]
pub(crate) struct Lanes(Mutex<BTreeMap<Digest, Arc<Lane>>>);

/// What `/metrics` says of a lane.
#[derive(Debug)]
pub(crate) struct LaneTotals {
    pub(crate) model: ModelName,
    pub(crate) release: String,
    /// Requests by what became of them.
    pub(crate) counts: [(&'static str, u64); 3],
    pub(crate) is_demoted: bool,
}

impl Lanes {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Digest, Arc<Lane>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, revision: Digest, model: ModelName, release: Digest, runner: Arc<dyn Runner>) {
        self.lock().insert(revision, Arc::new(Lane::new(model, release, runner)));
    }

    pub(crate) fn keep(&self, wanted: &[Digest]) {
        let mut gone = Vec::new();
        let mut lanes = self.lock();
        lanes.retain(|revision, lane| {
            let stays = wanted.contains(revision);
            if !stays {
                gone.push(Arc::clone(lane));
            }
            stays
        });
        // A model takes its time to go, and readers of counts need not wait for it.
        drop(lanes);
        drop(gone);
    }

    pub(crate) fn find(&self, revision: &Digest) -> Option<Arc<Lane>> {
        self.lock().get(revision).cloned()
    }

    pub(crate) fn state(&self, revision: &Digest) -> Option<LaneState> {
        self.find(revision).map(|lane| lane.state())
    }

    pub(crate) fn totals(&self) -> Vec<LaneTotals> {
        let lanes: Vec<Arc<Lane>> = self.lock().values().cloned().collect();
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        lanes
            .iter()
            .map(|lane| LaneTotals {
                model: lane.model.clone(),
                release: lane.release.short(),
                counts: [
                    ("answered", read(&lane.counts.answered)),
                    ("passed", read(&lane.counts.passed)),
                    ("failed", read(&lane.counts.failed)),
                ],
                is_demoted: lane.state() != LaneState::Open,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Left at the very request at which more than 1 % of the latest 500 were slow, by a count that knows no shortcuts.
        #[test]
        fn a_lane_is_left_when_more_than_one_in_a_hundred_is_slow(
            gaps in proptest::collection::vec(0_usize..200, 1..40),
        ) {
            let watch = Watch::default();
            let calls: Vec<bool> = gaps.iter().flat_map(|gap| std::iter::repeat_n(false, *gap).chain([true])).collect();
            for (i, is_slow) in calls.iter().enumerate() {
                let from = (i + 1).saturating_sub(500);
                let slow = calls[from..=i].iter().filter(|slow| **slow).count();
                let busy = if *is_slow { SLOW * 2 } else { SLOW };
                let wanted = (*is_slow && slow > 5).then(|| "p99 2.0 ms > 1 ms".to_owned());
                prop_assert_eq!(watch.note(busy), wanted);
            }
        }
    }
}
