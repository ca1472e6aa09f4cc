//! Several e-values into one.
//!
//! A weighted mean of e-values is an e-value under any dependence, and never weaker than a weighted Bonferroni correction
//! (Vovk & Wang 2021): it speaks against "all of these hypotheses hold". The minimum speaks against "at least one of
//! these holds". What is remembered between looks is the maximum of the merged value, not the merge of maxima.

use crate::{StatsError, grid};

/// `ln(sum w_j E_j / sum w_j)` of pairs `(log E_j, w_j)`.
///
/// # Errors
/// Nothing given; an e-value that is NaN or infinite (minus infinity, an e-value of 0, is fine); a weight that is
/// negative or not finite; weights that are all zero.
pub fn weighted_mean(evidence: &[(f64, f64)]) -> Result<f64, StatsError> {
    if evidence.is_empty() {
        return Err(StatsError::Empty);
    }
    for (index, &(log_e, weight)) in evidence.iter().enumerate() {
        if log_e.is_nan() || log_e == f64::INFINITY {
            return Err(StatsError::Evidence { index, value: log_e });
        }
        if !weight.is_finite() || weight < 0.0 {
            return Err(StatsError::Weight { index, value: weight });
        }
    }
    // Divided by the largest first: a sum of huge weights is not infinite then.
    let largest = evidence.iter().fold(0.0, |most: f64, &(_, weight)| most.max(weight));
    if largest == 0.0 {
        return Err(StatsError::Weight { index: 0, value: 0.0 });
    }
    let sum: f64 = evidence.iter().map(|&(_, weight)| weight / largest).sum();
    let terms = evidence.iter().filter(|(_, weight)| *weight > 0.0);
    Ok(grid::log_sum_exp(terms.map(|&(log_e, weight)| log_e + (weight / largest).ln())) - sum.ln())
}

/// `ln(sum E_j / n)`: the mean with equal weights.
///
/// # Errors
/// As [`weighted_mean`].
pub fn mean(log_es: &[f64]) -> Result<f64, StatsError> {
    let weighted: Vec<(f64, f64)> = log_es.iter().map(|&log_e| (log_e, 1.0)).collect();
    weighted_mean(&weighted)
}

/// The smallest: evidence that *none* of the hypotheses holds.
///
/// # Errors
/// Nothing given; an e-value that is NaN or infinite.
pub fn smallest(log_es: &[f64]) -> Result<f64, StatsError> {
    let mut least = f64::INFINITY;
    for (index, &log_e) in log_es.iter().enumerate() {
        if log_e.is_nan() || log_e == f64::INFINITY {
            return Err(StatsError::Evidence { index, value: log_e });
        }
        least = least.min(log_e);
    }
    if log_es.is_empty() { Err(StatsError::Empty) } else { Ok(least) }
}
