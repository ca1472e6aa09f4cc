//! Latency by exceedance: "slower than x" is an event like any other, judged by [`crate::thinning`].
//!
//! The thresholds (the baseline's past p50, p90 and p99, or the SLO) must be fixed before the answers are counted. A margin
//! `d` is applied to the threshold: a candidate's answer counts as slow above `x (1 + d)`, a baseline's above `x`, and the
//! ratio is then 1. Take thresholds from [`crate::histogram::edge_at_or_above`], where a histogram's counts are exact.

use crate::StatsError;
use crate::merge;
use crate::thinning::{self, Segment, Side};

/// Evidence from the slow answers at each of several thresholds, as a natural logarithm.
///
/// For [`Side::Worse`] it is the mean over the thresholds: worse at any of them shows. For [`Side::NotWorse`] it is the
/// smallest: a better median doesn't buy a worse tail.
///
/// # Errors
/// [`StatsError::Empty`] without any threshold.
pub fn log_e<S: AsRef<[Segment]>>(thresholds: &[S], ratio: f64, side: Side) -> Result<f64, StatsError> {
    let log_es: Vec<f64> = thresholds.iter().map(|s| thinning::log_e(s.as_ref(), ratio, side)).collect();
    match side {
        Side::Worse => merge::mean(&log_es),
        Side::NotWorse => merge::smallest(&log_es),
    }
}
