//! The counting of one rollout without sockets around it: a gateway's own, fed by hand. For simulations, so that what is
//! proven of the judge is proven of the numbers that it really gets.

use crate::ErrorClass;
use crate::options::BreakerOptions;
use crate::rollout::{Drawn, LatencyThresholds, Outcome, RolloutStats, SplitMeter};
use crate::shadow::{self, Differs};
use crate::shadow_meter::ShadowMeter;
use arc_swap::ArcSwapOption;
use lockgate_core::route::Role;
use lockgate_wire::compare::Difference;
use std::sync::Arc;
use std::time::Duration;

/// One request that took part in a rollout.
#[derive(Debug, Clone, Copy)]
pub struct Counted {
    /// The candidate's share in parts of [`WHOLE`](lockgate_core::route::WHOLE); of a mirrored request, the share that is mirrored.
    pub weight: u32,
    /// The side that it was assigned to, whatever answered it.
    pub arm: Role,
    /// Its unit's hash.
    pub unit: u64,
    /// Whether the request names its unit, which may come again then.
    pub named: bool,
    /// When it began, in microseconds since some beginning.
    pub started_us: u64,
    /// How long it took.
    pub latency_us: u64,
    /// How the assigned side failed, if it did.
    pub error: Option<ErrorClass>,
    /// Whether that side refused it (4xx).
    pub refused: bool,
    /// Hash of the answer, where the assigned side gave a good one.
    pub answer: Option<u64>,
}

/// The counts of one rollout.
#[derive(Debug)]
pub struct Ledger {
    live: SplitMeter,
    shadow: ShadowMeter,
    thresholds: Arc<ArcSwapOption<LatencyThresholds>>,
}

impl Ledger {
    /// Empty counts of the rollout with this salt.
    #[must_use]
    pub fn new(salt: &str, breaker: BreakerOptions, warmup: Duration) -> Self {
        let thresholds = Arc::new(ArcSwapOption::empty());
        let new = || SplitMeter::new(salt, Arc::clone(&thresholds), breaker, warmup);
        let (live, shadow) = (new(), ShadowMeter::new(new()));
        Self { live, shadow, thresholds }
    }

    /// Counts a user's request.
    pub fn record(&self, one: &Counted) {
        count(&self.live, one, one.unit);
    }

    /// Counts one arm of a mirrored request: each counts for both.
    pub fn record_mirrored(&self, one: &Counted) {
        count(&self.shadow.split, one, shadow::unit_in(one.unit, one.arm));
    }

    /// Counts two compared answers: whether the candidate's differs from the baseline's, and whether the baseline's second one
    /// does.
    pub fn compared(&self, candidate: bool, second: bool) {
        let as_number = |differs: bool| differs.then_some(Differs::Says(Difference::Number));
        self.shadow.pairs.note(as_number(candidate), as_number(second));
    }

    /// What is slow from now on.
    pub fn set_thresholds(&self, thresholds: LatencyThresholds) {
        self.thresholds.store(Some(Arc::new(thresholds)));
    }

    /// Whether the breaker has taken the candidate's traffic away.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.live.breaker.is_open()
    }

    /// The counts so far, as a gateway tells them.
    #[must_use]
    pub fn stats(&self) -> RolloutStats {
        self.shadow.add_to(self.live.read())
    }
}

fn count(meter: &SplitMeter, one: &Counted, unit: u64) {
    let Counted { weight, arm, named, started_us, latency_us, error, refused, answer, .. } = *one;
    let cell = meter.cell(weight, arm);
    let first = meter.start((arm, &cell), unit, named, started_us);
    let outcome = Outcome { latency_us, error, client_error: refused, answer, ..Outcome::default() };
    // Whether this opened the breaker is told by its state.
    let _ = meter.record((arm, &cell), Drawn { unit, named, first }, started_us, outcome);
}
