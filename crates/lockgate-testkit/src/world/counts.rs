//! What gateways count for the judge: units' first events, by weight and arm.

use lockgate_core::guard::{GuardSpec, Judgement};
use lockgate_core::plan::RolloutPlan;
use lockgate_core::route::WHOLE;
use lockgate_stats::decision::Peaks;
use lockgate_stats::histogram::{Histogram, edge_at_or_above};
use std::collections::{BTreeMap, HashMap, VecDeque};

/// What one arm did at one weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Units that were drawn into this arm at this weight.
    pub drawn: u64,
    /// Units that met this arm at this weight.
    pub units: u64,
    /// Requests, whatever their unit.
    pub requests: u64,
    /// Units that met a bad answer.
    pub errors: u64,
    /// Units whose first request here had a bad answer.
    pub first_bad: u64,
    /// Units that were slower than a quantile of the baseline beyond the margin for rolling back.
    pub slow_rollback: [u64; 3],
    /// Units that were slower than a quantile of the baseline beyond the margin for promoting.
    pub slow_promote: [u64; 3],
    /// Units that were slower than the bound.
    pub slow_slo: u64,
    /// Units that got the same answer as the one before.
    pub repeats: u64,
}

/// Both arms at one weight.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weighed {
    /// The candidate's share, 0 to 1.
    pub weight: f64,
    /// The candidate.
    pub candidate: Counts,
    /// What it is compared with.
    pub baseline: Counts,
}

/// What the judge looks at.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Evidence {
    /// One entry for each weight that there was.
    pub weights: Vec<Weighed>,
    /// Whether there is anything to compare with.
    pub compared: bool,
    /// Whether the baseline's latency is known.
    pub thresholds: bool,
    /// What mirrored requests said, where there were any.
    pub shadow: Option<Mirrored>,
}

/// What mirrored requests said.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Mirrored {
    /// Whether the present step mirrors.
    pub is_now: bool,
    /// One entry for each share that was mirrored.
    pub weights: Vec<Weighed>,
    /// Whether the baseline's latency is known.
    pub thresholds: bool,
    /// Compared answers: the candidate's alone differed, both or neither, the baseline's second alone.
    pub samples: [u64; 3],
}

impl Evidence {
    /// Before anything was counted.
    pub(crate) fn none(is_shadow: bool) -> Self {
        Self {
            shadow: is_shadow.then(|| Mirrored { is_now: true, ..Mirrored::default() }),
            ..Self::default()
        }
    }
}

/// From counts to verdicts; the peaks are kept between two looks.
pub type Judge = fn(&RolloutPlan, &Evidence, &mut Peaks) -> Judgement;

/// How many of an arm's latest units the gateways' own breaker looks at.
const WINDOW: usize = 20;

/// The baseline's quantiles are believed from this many requests on.
const BELIEVED: u64 = 200;

/// How one request went, for the arm that it was assigned to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outcome {
    pub(crate) unit: u64,
    pub(crate) candidate: bool,
    pub(crate) bad: bool,
    pub(crate) latency_us: u64,
    pub(crate) answer: u64,
}

/// The counts of one rollout.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    pub(crate) salt: String,
    seen: HashMap<u64, u16>,
    cells: BTreeMap<u32, [Counts; 2]>,
    latest: [u64; 2],
    windows: [VecDeque<(u64, bool)>; 2],
    baseline: Histogram,
    thresholds: [u64; 3],
    /// Whether the gateways took the candidate's traffic away by themselves.
    pub(crate) is_open: bool,
    pub(crate) candidate_requests: u64,
    pub(crate) candidate_errors: u64,
    /// The same for mirrored requests, with units of its own.
    pub(crate) shadow: Option<Box<Meter>>,
    pub(crate) samples: [u64; 3],
}

const SEEN: u16 = 1;
const ERROR: u16 = 1 << 3;
const REPEAT: u16 = 1 << 4;
const SLO: u16 = 1 << 5;
const SLOW_ROLLBACK: u16 = 1 << 6;
const SLOW_PROMOTE: u16 = 1 << 9;

impl Meter {
    pub(crate) fn new(salt: &str) -> Self {
        Self { salt: salt.to_owned(), thresholds: [u64::MAX; 3], ..Self::default() }
    }

    pub(crate) fn record(&mut self, weight: u32, plan: &RolloutPlan, one: Outcome) {
        let arm = usize::from(one.candidate);
        let mut kinds = SEEN | (1 << (1 + arm)) | self.slowness(plan, one);
        if one.bad {
            kinds |= ERROR;
        }
        if std::mem::replace(&mut self.latest[arm], one.answer) == one.answer {
            kinds |= REPEAT;
        }
        if one.candidate {
            self.candidate_requests += 1;
            self.candidate_errors += u64::from(one.bad);
        } else {
            self.baseline.record(one.latency_us);
        }
        let known = self.seen.entry(one.unit).or_default();
        let fresh = kinds & !*known;
        *known |= kinds;
        let cell = &mut self.cells.entry(weight).or_default()[arm];
        let is = |bit: u16| u64::from(fresh & bit != 0);
        cell.drawn += is(SEEN);
        cell.requests += 1;
        cell.units += is(1 << (1 + arm));
        cell.first_bad += is(1 << (1 + arm)) * u64::from(one.bad);
        cell.errors += is(ERROR);
        cell.repeats += is(REPEAT);
        cell.slow_slo += is(SLO);
        for j in 0..3 {
            cell.slow_rollback[j] += is(SLOW_ROLLBACK << j);
            cell.slow_promote[j] += is(SLOW_PROMOTE << j);
        }
        self.break_if_hopeless(arm, one);
    }

    fn slowness(&self, plan: &RolloutPlan, one: Outcome) -> u16 {
        let Some((bound, worse_by, rollback_by, floor)) = plan.guards.values().find_map(|g| match g {
            GuardSpec::Latency { p99_ms, worse_by, rollback_by, floor_ms } => {
                Some((*p99_ms, *worse_by, *rollback_by, *floor_ms))
            }
            GuardSpec::Rate { .. }
            | GuardSpec::Constant { .. }
            | GuardSpec::Disagreement { .. }
            | GuardSpec::Goal(_) => None,
        }) else {
            return 0;
        };
        let us = one.latency_us as f64;
        let beyond = |by: f64| if one.candidate { (us - floor * 1000.0).max(0.0) / (1.0 + by) } else { us };
        let mut kinds = if bound.is_some_and(|ms| us > ms * 1000.0) { SLO } else { 0 };
        for (j, x) in self.thresholds.iter().enumerate() {
            if beyond(rollback_by) > *x as f64 {
                kinds |= SLOW_ROLLBACK << j;
            }
            if beyond(worse_by) > *x as f64 {
                kinds |= SLOW_PROMOTE << j;
            }
        }
        kinds
    }

    fn break_if_hopeless(&mut self, arm: usize, one: Outcome) {
        let window = &mut self.windows[arm];
        window.retain(|(unit, _)| *unit != one.unit);
        window.push_back((one.unit, one.bad));
        if window.len() > WINDOW {
            window.pop_front();
        }
        let most = |w: &VecDeque<(u64, bool)>| w.iter().filter(|(_, bad)| *bad).count() * 2 > w.len();
        let [baseline, candidate] = &self.windows;
        self.is_open |= candidate.len() == WINDOW && most(candidate) && !most(baseline);
    }

    /// The thresholds follow the baseline: fixed before the requests that they will judge.
    pub(crate) fn follow_latency(&mut self) {
        if self.baseline.total() >= BELIEVED {
            let quantile = |q| self.baseline.quantile(q).map_or(u64::MAX, edge_at_or_above);
            self.thresholds = [quantile(0.5), quantile(0.9), quantile(0.99)];
        }
    }

    /// The meter of mirrored requests.
    pub(crate) fn mirrored(&mut self) -> &mut Meter {
        let Self { salt, shadow, .. } = self;
        shadow.get_or_insert_with(|| Box::new(Meter::new(salt)))
    }

    pub(crate) fn evidence(&self, compared: bool, is_shadow: bool) -> Evidence {
        let shadow = self.shadow.as_ref().map_or_else(
            || Evidence::none(is_shadow).shadow,
            |s| {
                Some(Mirrored {
                    is_now: is_shadow,
                    weights: s.weighed(),
                    thresholds: s.baseline.total() >= BELIEVED,
                    samples: s.samples,
                })
            },
        );
        let thresholds = self.baseline.total() >= BELIEVED;
        Evidence { weights: self.weighed(), compared, thresholds, shadow }
    }

    fn weighed(&self) -> Vec<Weighed> {
        self.cells
            .iter()
            .map(|(weight, [baseline, candidate])| Weighed {
                weight: f64::from(*weight) / f64::from(WHOLE),
                candidate: *candidate,
                baseline: *baseline,
            })
            .collect()
    }
}
