//! The grid of alternatives that all mixtures share, and sums of logarithms.

use std::sync::OnceLock;

/// Number of alternatives.
const POINTS: usize = 64;
/// Smallest and largest log ratio on the grid.
const FIRST: f64 = 0.02;
const LAST: f64 = 5.0;
/// Scale of the half-Cauchy weights.
const SCALE: f64 = 0.3;

/// One alternative: how far it is from the null, and the logarithm of its weight.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Point {
    /// Distance from the null as a logarithm of a ratio, above zero.
    pub(crate) theta: f64,
    /// `ln pi`.
    pub(crate) log_weight: f64,
}

/// `theta = geomspace(0.02, 5, 64)`, weights proportional to `theta / (1 + (theta/0.3)^2)`. Any grid gives a valid test;
/// this one has good power at changes of about 20 %.
pub(crate) fn points() -> &'static [Point; POINTS] {
    static GRID: OnceLock<[Point; POINTS]> = OnceLock::new();
    GRID.get_or_init(|| {
        let step = (LAST / FIRST).ln() / (POINTS - 1) as f64;
        let mut grid = [Point { theta: 0.0, log_weight: 0.0 }; POINTS];
        let mut sum = 0.0;
        for (k, point) in grid.iter_mut().enumerate() {
            point.theta = FIRST * (step * k as f64).exp();
            let weight = point.theta / (1.0 + (point.theta / SCALE).powi(2));
            point.log_weight = weight.ln();
            sum += weight;
        }
        for point in &mut grid {
            point.log_weight -= sum.ln();
        }
        grid
    })
}

/// `ln sum_k pi_k exp(log_ratio(theta_k))`.
pub(crate) fn log_mixture(log_ratio: impl Fn(f64) -> f64) -> f64 {
    log_sum_exp(points().iter().map(|point| point.log_weight + log_ratio(point.theta)))
}

/// `ln sum exp(x)`, without overflow; minus infinity for nothing.
pub(crate) fn log_sum_exp(terms: impl Iterator<Item = f64> + Clone) -> f64 {
    let largest = terms.clone().fold(f64::NEG_INFINITY, f64::max);
    if largest == f64::NEG_INFINITY {
        return largest;
    }
    largest + terms.map(|term| (term - largest).exp()).sum::<f64>().ln()
}
