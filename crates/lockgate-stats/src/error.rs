//! What can be wrong with the numbers that were handed in.

use thiserror::Error;

/// Numbers from which no verdict can be made. None of these ever means "pass".
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum StatsError {
    /// Nothing to merge.
    #[error("no evidence was given; at least one e-value is needed")]
    Empty,
    /// An e-value that is NaN or infinitely large.
    #[error("e-value number {index} is {value}; it must be a number below infinity")]
    Evidence {
        /// Position in the input, from 0.
        index: usize,
        /// What was there, as a logarithm.
        value: f64,
    },
    /// A weight that is negative or not finite, or weights that are all zero.
    #[error("weight number {index} is {value}; weights must be finite, not negative, and not all zero")]
    Weight {
        /// Position in the input, from 0.
        index: usize,
        /// What was there.
        value: f64,
    },
    /// An error budget outside (0, 1).
    #[error("the error budget `{name}` is {value}; it must lie between 0 and 1, both excluded")]
    Alpha {
        /// Which budget.
        name: &'static str,
        /// What was there.
        value: f64,
    },
    /// The largest evidence so far isn't a number: what came before was lost.
    #[error(
        "the evidence remembered from earlier looks is not a number; recompute it from the stored counts"
    )]
    Peaks,
    /// Counts and shares don't belong together.
    #[error("{counts} counts but {shares} shares; give one share per variant, and at least two")]
    Variants {
        /// Number of counts.
        counts: usize,
        /// Number of shares.
        shares: usize,
    },
    /// A share that isn't above zero, or a concentration that isn't.
    #[error("{what} is {value}; it must be a finite number above zero")]
    NotPositive {
        /// Which number.
        what: &'static str,
        /// What was there.
        value: f64,
    },
    /// A histogram from elsewhere that doesn't have our buckets.
    #[error("not a latency histogram: {reason}")]
    Histogram {
        /// What is wrong with it.
        reason: String,
    },
}
