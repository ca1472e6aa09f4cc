//! How many events, units and seconds a verdict will take: what `plan` says before anything starts.
//!
//! Two numbers for the same question. *Oracle*: `ln(1/alpha) / KL(p(r) || p(r0))` events, a lower bound that no test beats.
//! *Expected*: the point where the mixture itself crosses `1/alpha` if the counts run exactly at their expectation. The
//! logarithm of a mixture is convex along that path, so it crosses once or never. The exact mean by dynamic programming is
//! within 15 % of it where the test decides within a few hundred events, the typical case; a single run scatters widely.

use crate::decision::log_needed;
use crate::disagreement;
use crate::merge;
use crate::rate::{self, Bound};
use crate::thinning::{self, Expected, Side};
use serde::{Deserialize, Serialize};

/// More units than this is "never".
const MOST: f64 = 1e15;

/// The traffic that is expected, and how the candidate would do.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Traffic {
    /// Units (or requests, where there are none) per second over all variants.
    pub units_per_second: f64,
    /// The candidate's share, between 0 and 1.
    pub share: f64,
    /// Share of the baseline's units that have the event.
    pub base_rate: f64,
    /// The candidate's rate as a multiple of it; 1 for a healthy candidate.
    pub true_ratio: f64,
}

impl Traffic {
    /// Whether anything can be foretold from these numbers.
    fn is_usable(&self) -> bool {
        self.units_per_second > 0.0
            && self.units_per_second.is_finite()
            && self.share > 0.0
            && self.share < 1.0
            && self.base_rate >= 0.0
            && self.true_ratio >= 0.0
            && self.base_rate.max(self.candidate_rate()) <= 1.0
    }

    fn candidate_rate(&self) -> f64 {
        self.base_rate * self.true_ratio
    }

    /// Events of both variants per unit of traffic.
    fn events_per_unit(&self) -> f64 {
        self.base_rate * (self.share * self.true_ratio + 1.0 - self.share)
    }

    fn segment(&self, units: f64) -> Expected {
        Expected {
            weight: self.share,
            candidate: units * self.share * self.candidate_rate(),
            baseline: units * (1.0 - self.share) * self.base_rate,
        }
    }
}

/// What a verdict takes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// Units over all variants.
    pub units: f64,
    /// Events of both variants among them.
    pub events: f64,
    /// Time at the expected traffic.
    pub seconds: f64,
}

/// What "not worse than `worse_ratio` times the baseline" takes, with the floor as the second way to it if there is one.
/// None: never, or not with numbers that make sense.
#[must_use]
pub fn not_worse(traffic: &Traffic, worse_ratio: f64, floor: Option<f64>, alpha: f64) -> Option<Forecast> {
    forecast(traffic, alpha, |units| {
        let ratio = thinning::log_e_expected(&[traffic.segment(units)], worse_ratio, Side::NotWorse);
        match floor {
            None => ratio,
            Some(floor) => {
                let own = units * traffic.share;
                let below = rate::log_e_expected(own * traffic.candidate_rate(), own, floor, Bound::Below);
                merge::mean(&[ratio, below]).unwrap_or(0.0)
            }
        }
    })
}

/// What "worse than `rollback_ratio` times the baseline" takes for a candidate that is.
#[must_use]
pub fn worse(traffic: &Traffic, rollback_ratio: f64, alpha: f64) -> Option<Forecast> {
    forecast(traffic, alpha, |units| {
        thinning::log_e_expected(&[traffic.segment(units)], rollback_ratio, Side::Worse)
    })
}

fn forecast(traffic: &Traffic, alpha: f64, log_e: impl Fn(f64) -> f64) -> Option<Forecast> {
    if !traffic.is_usable() {
        return None;
    }
    let units = crossing(alpha, log_e)?;
    Some(Forecast {
        units,
        events: units * traffic.events_per_unit(),
        seconds: units / traffic.units_per_second,
    })
}

/// Events of both variants until the ratio test at `share` proves `side` of `ratio`, if the true ratio is `true_ratio`.
/// None: never.
#[must_use]
pub fn events(share: f64, ratio: f64, true_ratio: f64, side: Side, alpha: f64) -> Option<f64> {
    let candidate = probability(share, true_ratio)?;
    crossing(alpha, |events| {
        let segment =
            Expected { weight: share, candidate: events * candidate, baseline: events * (1.0 - candidate) };
        thinning::log_e_expected(&[segment], ratio, side)
    })
}

/// Samples of [`disagreement`] until less than a share `max` of the answers is proven to differ, if none does. None: never.
#[must_use]
pub fn samples_agreeing(max: f64, alpha: f64) -> Option<f64> {
    crossing(alpha, |samples| disagreement::log_e_expected([0.0, samples, 0.0], max, Side::NotWorse))
}

/// Units of the candidate alone until its rate is proven below `floor`, if it is `true_rate`. None: never.
#[must_use]
pub fn units_below_floor(true_rate: f64, floor: f64, alpha: f64) -> Option<f64> {
    if !(0.0..=1.0).contains(&true_rate) {
        return None;
    }
    crossing(alpha, |units| rate::log_e_expected(units * true_rate, units, floor, Bound::Below))
}

/// The lower bound that no test beats: `ln(1/alpha) / KL(p(true_ratio) || p(ratio))` events of both variants. None: never.
#[must_use]
pub fn oracle_events(share: f64, ratio: f64, true_ratio: f64, alpha: f64) -> Option<f64> {
    let (truth, null) = (probability(share, true_ratio)?, probability(share, ratio)?);
    let part = |p: f64, q: f64| if p > 0.0 { p * (p / q).ln() } else { 0.0 };
    let divergence = part(truth, null) + part(1.0 - truth, 1.0 - null);
    let events = log_needed("alpha", alpha).ok()? / divergence;
    (divergence > 0.0 && events.is_finite()).then_some(events)
}

/// Requests over all variants in which that many events are expected: `events / (base_rate (w r + 1 - w))`.
#[must_use]
pub fn requests(events: f64, share: f64, true_ratio: f64, base_rate: f64) -> Option<f64> {
    let requests = events / (base_rate * (share * true_ratio + 1.0 - share));
    (requests.is_finite() && requests >= 0.0).then_some(requests)
}

/// `p_w(r)`, for shares and ratios that make sense.
fn probability(share: f64, ratio: f64) -> Option<f64> {
    (share > 0.0 && share < 1.0 && ratio >= 0.0 && ratio.is_finite())
        .then(|| thinning::candidate_probability(share, ratio))
}

/// The amount at which a convex function that is 0 at 0 reaches `ln(1/alpha)`.
pub(crate) fn crossing(alpha: f64, log_e: impl Fn(f64) -> f64) -> Option<f64> {
    let needed = log_needed("alpha", alpha).ok()?;
    let mut high = 1.0;
    while log_e(high) < needed {
        high *= 2.0;
        if high > MOST {
            return None;
        }
    }
    let mut low = 0.0;
    while high - low > 1e-9 * high {
        let middle = f64::midpoint(low, high);
        if log_e(middle) < needed { low = middle } else { high = middle }
    }
    Some(high)
}
