//! What a rollout is judged by: counts per weight and arm, for the requests that were assigned by drawing, and for them alone.
//!
//! *Intention to treat*: a request counts for the arm that it was assigned to, whatever answered it in the end. *Once per
//! unit*: a unit's first event of a kind counts, over both arms and all weights; so a unit that fails on either side can't
//! count against the candidate just because a larger weight moved it there.

use crate::breaker::Breaker;
use crate::meter::{ErrorClass, ErrorCounts, ErrorMeter, LatencyMeter};
use crate::options::BreakerOptions;
use crate::shadow_meter::ShadowStats;
use crate::units::{self, Units};
use arc_swap::ArcSwapOption;
use lockgate_core::route::Role;
use lockgate_stats::histogram::Histogram;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Counts of one rollout so far. Adding up two gateways' counts, segment by segment, gives the counts of both.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RolloutStats {
    /// The split's salt: the promotion.
    pub salt: String,
    /// One entry for each weight and arm that there was.
    pub segments: Vec<SegmentStats>,
    /// Whether there were more units than can be told apart. From then on neither units nor events were counted: nothing
    /// new can be proven.
    pub saturated: bool,
    /// Whether the gateway's own breaker is open.
    pub breaker_open: bool,
    /// What came of mirrored requests, where there were any; their counts are segments of their own.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub shadow: Option<ShadowStats>,
}

/// Counts of one arm at one weight.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SegmentStats {
    /// The candidate's share in parts of 10,000; of mirrored requests, the share that was mirrored.
    pub weight: u32,
    /// Whether these are mirrored requests, each of which counts for both arms.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub shadow: bool,
    /// Baseline or candidate.
    pub arm: Role,
    /// Requests that were assigned by drawing.
    pub requests: u64,
    /// Units that were seen here first, over both arms and all weights: they must fit the weight (sample ratio).
    pub units: u64,
    /// Units that were seen in this arm first at this weight, whether or not they came over from the other arm: the
    /// denominator of rates.
    pub exposed: u64,
    /// Requests that failed by the client's own fault (4xx). No errors of the arm.
    pub client_errors: u64,
    /// Requests that the client gave up before there was an answer.
    pub abandoned: u64,
    /// Requests that failed, by class.
    pub errors: ErrorCounts,
    /// Units' first events.
    pub events: Events,
    /// Latencies of all these requests.
    pub latency: Histogram,
}

/// How many units met a kind of event here first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Events {
    /// An error of any class.
    pub errors: u64,
    /// No answer that was of use, and no error of ours: refused (4xx), or the client gave up waiting. A candidate that
    /// refuses what the baseline takes, or hangs longer than clients wait, shows here.
    pub refused: u64,
    /// Slower than a quantile of the baseline beyond the margin for rolling back.
    pub slow_rollback: [u64; 3],
    /// Slower than a quantile of the baseline beyond the margin for promoting.
    pub slow_promote: [u64; 3],
    /// Slower than the bound.
    pub slow_slo: u64,
    /// The same answer as the arm's answer before.
    pub repeats: u64,
    /// No good answer (an error or refused) to the unit's first request in this arm: a share of all units that does not grow
    /// with how often they come.
    pub first_bad: u64,
    /// An answer of a server that a team brings that could not be looked at: no harm, and no proof of a good answer.
    #[serde(default)]
    pub unexamined: u64,
}

/// What is slow. A change holds for later requests only; counts go on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LatencyThresholds {
    /// The absolute bound, if there is one.
    pub slo_us: Option<u64>,
    /// How much slower a candidate must be to speak for rolling back.
    pub rollback: LatencyMargin,
    /// How much slower a candidate must not be to be promoted.
    pub promote: LatencyMargin,
    /// The baseline's p50, p90 and p99 so far, best at a histogram's edge; `u64::MAX` where one isn't known.
    pub baseline_quantiles_us: [u64; 3],
    /// For how long after the candidate's first request nothing is slow; the gateway's own setting where it isn't said.
    pub warmup_us: Option<u64>,
}

/// A candidate's latency counts as `max(0, latency - floor_us) / factor`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LatencyMargin {
    /// At least 1.
    pub factor: f64,
    /// Microseconds that are forgiven in any case.
    pub floor_us: u64,
}

impl LatencyMargin {
    fn apply(self, us: u64) -> f64 {
        us.saturating_sub(self.floor_us) as f64 / self.factor
    }
}

impl LatencyThresholds {
    pub(crate) fn check(&self) -> Result<(), String> {
        for (name, margin) in [("rollback", self.rollback), ("promote", self.promote)] {
            if !margin.factor.is_finite() || margin.factor < 1.0 {
                return Err(format!(
                    "the {name} margin's factor is {} but must be at least 1",
                    margin.factor
                ));
            }
        }
        let [p50, p90, p99] = self.baseline_quantiles_us;
        if p50 > p90 || p90 > p99 {
            return Err(format!("the baseline's quantiles {p50}, {p90}, {p99} µs must not fall"));
        }
        Ok(())
    }

    /// The kinds of slowness that a latency is, as bits of [`units`].
    fn slow(&self, us: u64, arm: Role) -> u16 {
        let of = |margin: LatencyMargin| if arm == Role::Candidate { margin.apply(us) } else { us as f64 };
        let (rollback, promote) = (of(self.rollback), of(self.promote));
        let mut kinds = 0;
        for (j, x) in self.baseline_quantiles_us.into_iter().enumerate() {
            if rollback > x as f64 {
                kinds |= units::SLOW_ROLLBACK << j;
            }
            if promote > x as f64 {
                kinds |= units::SLOW_PROMOTE << j;
            }
        }
        if self.slo_us.is_some_and(|slo| us > slo) {
            kinds |= units::SLOW_SLO;
        }
        kinds
    }
}

/// How a request was drawn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Drawn {
    pub(crate) unit: u64,
    pub(crate) named: bool,
    /// Whether it is the unit's first in its arm.
    pub(crate) first: bool,
}

/// How a request went.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Outcome {
    pub(crate) latency_us: u64,
    pub(crate) error: Option<ErrorClass>,
    pub(crate) client_error: bool,
    pub(crate) abandoned: bool,
    /// Hash of the answer, where the assigned arm gave one.
    pub(crate) answer: Option<u64>,
    /// Whether the assigned arm's answer could not be looked at.
    pub(crate) unexamined: bool,
}

/// Live counts of one arm at one weight.
#[derive(Debug, Default)]
pub(crate) struct Cell {
    requests: AtomicU64,
    units: AtomicU64,
    exposed: AtomicU64,
    client_errors: AtomicU64,
    abandoned: AtomicU64,
    errors: ErrorMeter,
    /// By bit of [`units`].
    events: [AtomicU64; units::KINDS],
    latency: LatencyMeter,
}

impl Cell {
    fn read(&self, weight: u32, arm: Role) -> SegmentStats {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let event = |bit: u16| get(&self.events[bit.trailing_zeros() as usize]);
        let three = |first: u16| [event(first), event(first << 1), event(first << 2)];
        SegmentStats {
            weight,
            shadow: false,
            arm,
            requests: get(&self.requests),
            units: get(&self.units),
            exposed: get(&self.exposed),
            client_errors: get(&self.client_errors),
            abandoned: get(&self.abandoned),
            errors: self.errors.read(),
            events: Events {
                errors: event(units::ERROR),
                refused: event(units::REFUSED),
                slow_rollback: three(units::SLOW_ROLLBACK),
                slow_promote: three(units::SLOW_PROMOTE),
                slow_slo: event(units::SLOW_SLO),
                repeats: event(units::REPEAT),
                first_bad: event(units::FIRST_BAD),
                unexamined: event(units::UNEXAMINED),
            },
            latency: self.latency.read(),
        }
    }
}

/// Live counts of one split.
#[derive(Debug)]
pub(crate) struct SplitMeter {
    pub(crate) salt: String,
    pub(crate) breaker: Breaker,
    warmup_us: u64,
    /// Since the gateway's start; `u64::MAX` before the candidate's first request.
    first_candidate_us: AtomicU64,
    thresholds: Arc<ArcSwapOption<LatencyThresholds>>,
    cells: Mutex<BTreeMap<(u32, Role), Arc<Cell>>>,
    units: Units,
    /// The latest answer's hash of either arm; 0 is none.
    latest: [AtomicU64; 2],
}

impl SplitMeter {
    pub(crate) fn new(
        salt: &str,
        thresholds: Arc<ArcSwapOption<LatencyThresholds>>,
        breaker: BreakerOptions,
        warmup: Duration,
    ) -> Self {
        Self {
            salt: salt.to_owned(),
            breaker: Breaker::new(breaker),
            warmup_us: crate::meter::micros(warmup),
            first_candidate_us: AtomicU64::new(u64::MAX),
            thresholds,
            cells: Mutex::default(),
            units: Units::default(),
            latest: Default::default(),
        }
    }

    pub(crate) fn cell(&self, weight: u32, arm: Role) -> Arc<Cell> {
        Arc::clone(
            self.cells.lock().unwrap_or_else(PoisonError::into_inner).entry((weight, arm)).or_default(),
        )
    }

    /// Counts a unit where it was drawn, before anything is known of the answer: counted at the end, the slower arm's units
    /// would seem to be missing. Gives back whether it is the unit's first request in this arm. The candidate's warm-up
    /// begins with its first.
    pub(crate) fn start(&self, (arm, cell): (Role, &Cell), unit: u64, named: bool, now_us: u64) -> bool {
        if arm == Role::Candidate && self.first_candidate_us.load(Ordering::Relaxed) == u64::MAX {
            self.first_candidate_us.fetch_min(now_us, Ordering::Relaxed);
        }
        let Some(fresh) = self.units.note(unit, named, arm, 0) else { return false };
        if fresh & units::SEEN != 0 {
            cell.units.fetch_add(1, Ordering::Relaxed);
        }
        let first = fresh & units::exposed(arm) != 0;
        if first {
            cell.exposed.fetch_add(1, Ordering::Relaxed);
        }
        first
    }

    fn is_warm(&self, now_us: u64, thresholds: &LatencyThresholds) -> bool {
        let first = self.first_candidate_us.load(Ordering::Relaxed);
        now_us >= first.saturating_add(thresholds.warmup_us.unwrap_or(self.warmup_us))
    }

    /// Counts one request when it ends. A `named` unit may come again; others are units of their own. Gives back the
    /// candidate's (bad, units) if this opened the breaker.
    pub(crate) fn record(
        &self,
        (arm, cell): (Role, &Cell),
        Drawn { unit, named, first }: Drawn,
        started_us: u64,
        outcome: Outcome,
    ) -> Option<(usize, usize)> {
        let add = |count: &AtomicU64| count.fetch_add(1, Ordering::Relaxed);
        add(&cell.requests);
        cell.latency.record(outcome.latency_us);
        let mut kinds = 0;
        if let Some(class) = outcome.error {
            cell.errors.add(class);
            kinds |= units::ERROR;
        }
        if outcome.client_error {
            add(&cell.client_errors);
            kinds |= units::REFUSED;
        }
        if outcome.abandoned {
            add(&cell.abandoned);
            kinds |= units::REFUSED;
        }
        if first && kinds != 0 {
            kinds |= units::FIRST_BAD;
        }
        if outcome.unexamined {
            kinds |= units::UNEXAMINED;
        }
        if let Some(hash) = outcome.answer
            && self.latest[usize::from(arm == Role::Candidate)].swap(hash.max(1), Ordering::Relaxed)
                == hash.max(1)
        {
            kinds |= units::REPEAT;
        }
        if let Some(thresholds) = self.thresholds.load().as_deref().filter(|t| self.is_warm(started_us, t)) {
            kinds |= thresholds.slow(outcome.latency_us, arm);
            if !first {
                // The bound is a share of requests; a unit that asks a hundred times would meet it sooner or later.
                kinds &= !units::SLOW_SLO;
            }
        }
        if let Some(fresh) = self.units.note(unit, named, arm, kinds) {
            (0..units::KINDS).filter(|i| fresh & (1 << i) != 0).for_each(|i| {
                add(&cell.events[i]);
            });
        }
        self.breaker.note(arm == Role::Candidate, unit, outcome.error.is_some())
    }

    pub(crate) fn read(&self) -> RolloutStats {
        let cells: Vec<_> = {
            let cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
            cells.iter().map(|(key, cell)| (*key, Arc::clone(cell))).collect()
        };
        RolloutStats {
            salt: self.salt.clone(),
            segments: cells.into_iter().map(|((weight, arm), cell)| cell.read(weight, arm)).collect(),
            saturated: self.units.is_saturated(),
            breaker_open: self.breaker.is_open(),
            shadow: None,
        }
    }

    /// Notes what else a unit met; gives back the bits that are new for it.
    pub(crate) fn note(&self, unit: u64, named: bool, arm: Role, kinds: u16) -> Option<u16> {
        self.units.note(unit, named, arm, kinds)
    }
}

#[cfg(test)]
#[path = "rollout_tests.rs"]
mod tests;
