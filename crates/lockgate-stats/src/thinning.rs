//! The thinning e-process (K1): events of two variants that share one stream of traffic.
//!
//! A request goes to the candidate with a known probability `w`. Looking at events only (errors, slow answers), an event
//! is the candidate's with probability `p_w(r) = w r / (w r + 1 - w)`, where `r` is the ratio of the two event rates,
//! whatever the rate does over the day: incidents that hit both variants cancel out. With `a` events of the candidate and
//! `b` of the baseline at each weight, and the ratio `r0` at the border of the null hypothesis,
//!
//! `log E = ln sum_k pi_k prod_s (p_s(r_k)/p_s(r0))^a_s ((1-p_s(r_k))/(1-p_s(r0)))^b_s`
//!
//! with `r_k = r0 exp(theta_k)` against "the ratio is at most r0", or `r0 exp(-theta_k)` against "it is at least r0".
//! Each factor's mean is linear in the true probability and 1 at the border, so the product is an e-process for the whole
//! one-sided null, also while the ratio moves within it (Lindon & Malek 2022 for the point null).
//!
//! Count one event per unit (user, session) at most, the first: clustered errors break the binomial.

use crate::grid;
use serde::{Deserialize, Serialize};

/// What the evidence is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// For "the candidate's rate is more than `ratio` times the baseline's".
    Worse,
    /// For "it is less than `ratio` times the baseline's".
    NotWorse,
}

/// Events counted while the candidate had one share of the traffic.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Segment {
    /// The candidate's share of the traffic. A share of 0 or 1 (or one that isn't a number between) says nothing about a
    /// difference, and is skipped.
    pub weight: f64,
    /// Events of the candidate.
    pub candidate_events: u64,
    /// Events of the baseline.
    pub baseline_events: u64,
}

/// Ratios beyond these are no margins that anyone means.
const RATIOS: std::ops::RangeInclusive<f64> = 1e-6..=1e6;

/// Whether a ratio can be tested at all: from a millionth to a million.
#[must_use]
pub fn is_ratio(ratio: f64) -> bool {
    RATIOS.contains(&ratio)
}

/// Evidence for `side`, as a natural logarithm. 0 without events, and for a ratio that [`is_ratio`] refuses: nothing is
/// known then. Always finite. The order of segments doesn't matter, and segments of one weight may be added up.
#[must_use]
pub fn log_e(segments: &[Segment], ratio: f64, side: Side) -> f64 {
    let exact: Vec<Expected> = segments.iter().map(Expected::from).collect();
    log_e_expected(&exact, ratio, side)
}

/// A segment whose counts may be expectations, for forecasts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected {
    pub(crate) weight: f64,
    pub(crate) candidate: f64,
    pub(crate) baseline: f64,
}

impl From<&Segment> for Expected {
    fn from(segment: &Segment) -> Self {
        Self {
            weight: segment.weight,
            candidate: segment.candidate_events as f64,
            baseline: segment.baseline_events as f64,
        }
    }
}

/// The formula of the module.
pub(crate) fn log_e_expected(segments: &[Expected], ratio: f64, side: Side) -> f64 {
    let informative = |s: &&Expected| s.weight > 0.0 && s.weight < 1.0 && s.candidate + s.baseline > 0.0;
    if !is_ratio(ratio) || !segments.iter().any(|s| informative(&s)) {
        return 0.0;
    }
    grid::log_mixture(|theta| {
        let theta = match side {
            Side::Worse => theta,
            Side::NotWorse => -theta,
        };
        segments.iter().filter(informative).map(|s| log_likelihood_ratio(s, ratio, theta)).sum()
    })
}

/// `a ln(p_k/p_0) + b ln((1-p_k)/(1-p_0))` for `r_k = ratio exp(theta)`. With `d = ln((w r_k + 1 - w)/(w r_0 + 1 - w))`
/// the two logarithms are `theta - d` and `-d`.
fn log_likelihood_ratio(s: &Expected, ratio: f64, theta: f64) -> f64 {
    let scale = s.weight * ratio + (1.0 - s.weight);
    let d = (s.weight * ratio * theta.exp_m1() / scale).ln_1p();
    s.candidate * (theta - d) - s.baseline * d
}

/// The probability that an event is the candidate's: `w r / (w r + 1 - w)`.
pub(crate) fn candidate_probability(weight: f64, ratio: f64) -> f64 {
    weight * ratio / (weight * ratio + (1.0 - weight))
}
