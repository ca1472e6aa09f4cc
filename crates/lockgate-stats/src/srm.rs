//! Sample ratio mismatch: do the units that each variant got fit the weights?
//!
//! Dirichlet-multinomial e-process (Lindon & Malek 2022): with shares `th_i`, counts `S_i`, `n = sum S_i`, `a_i = c th_i`,
//! `log E = lnG(c) - lnG(c+n) + sum[lnG(a_i+S_i) - lnG(a_i)] - sum S_i ln th_i`.
//!
//! Computed as `X sum th_i f(d_i) + (ln(X/c) - sum ln(x_i/a_i))/2 + sum[s(x_i) - s(a_i)] - [s(X) - s(c)]`, where
//! `x_i = a_i + S_i`, `X = c + n`, `d_i = x_i/(X th_i) - 1`, `f(d) = (1+d) ln(1+d) - d` and `s` is the error of Stirling's
//! formula: the same number without the cancellation of huge logarithms, so that it holds at 10^12 units too.

use crate::StatsError;
use crate::merge;
use crate::thinning::{self, Segment, Side};

/// A concentration that suits small imbalances at thousands of units.
pub const CONCENTRATION: f64 = 100.0;

/// Evidence that the counts don't come from the shares (which need not add up to 1), as a natural logarithm.
///
/// # Errors
/// Fewer than two variants, not as many shares as counts, a share or a concentration that isn't a finite number above 0.
pub fn log_e(counts: &[u64], shares: &[f64], concentration: f64) -> Result<f64, StatsError> {
    if counts.len() != shares.len() || counts.len() < 2 {
        return Err(StatsError::Variants { counts: counts.len(), shares: shares.len() });
    }
    let positive = |what, value: f64| {
        if value.is_finite() && value > 0.0 { Ok(()) } else { Err(StatsError::NotPositive { what, value }) }
    };
    positive("the concentration", concentration)?;
    for &share in shares {
        positive("a share", share)?;
    }
    let whole: f64 = shares.iter().sum();
    positive("the sum of the shares", whole)?;
    let units: f64 = counts.iter().map(|&count| count as f64).sum();
    let total = concentration + units;
    let mut log_e =
        0.5 * (total.ln() - concentration.ln()) - stirling_error(total) + stirling_error(concentration);
    for (&count, &share) in counts.iter().zip(shares) {
        let share = share / whole;
        let prior = concentration * share;
        positive("a share of the concentration", prior)?;
        let posterior = prior + count as f64;
        let deviation = (count as f64 - units * share) / (total * share);
        log_e += total * share * relative_entropy(deviation) - 0.5 * (posterior.ln() - prior.ln())
            + stirling_error(posterior)
            - stirling_error(prior);
    }
    Ok(log_e)
}

/// Evidence that the units don't fit weights that changed on the way: two-sided thinning at ratio 1 over *all* units, each
/// segment's events being its units. Always finite; 0 without units. One misfit is looked for in all segments: where the
/// candidate got too much in one and too little in another, [`log_e_each`] sees more.
#[must_use]
pub fn log_e_stepped(units: &[Segment]) -> f64 {
    let sides = [Side::Worse, Side::NotWorse].map(|side| thinning::log_e(units, 1.0, side));
    // Two finite numbers always have a mean; without one nothing is known.
    merge::mean(&sides).unwrap_or(0.0)
}

/// Evidence that the units don't fit weights that changed on the way, in whichever direction each segment misses its own: two
/// misfits that cancel each other are two. Half of it is [`log_e_stepped`] of all segments; the `k`-th alone gets
/// `1/(2k(k+1))`, and what is left is for segments that are yet to come, whose evidence is 1. So the shares are known before
/// anything is seen, however many segments there will be, and the mean is an e-process as each of its parts is. Segments come in
/// the order in which they began. Always finite; 0 without units.
#[must_use]
pub fn log_e_each(units: &[Segment]) -> f64 {
    let mut parts = vec![(log_e_stepped(units), 0.5)];
    let mut left = 0.5;
    for (k, segment) in (1_u32..).map(f64::from).zip(units) {
        let share = 0.5 / (k * (k + 1.0));
        parts.push((log_e_stepped(std::slice::from_ref(segment)), share));
        left -= share;
    }
    parts.push((0.0, left.max(0.0)));
    merge::weighted_mean(&parts).unwrap_or(0.0)
}

/// `(1+d) ln(1+d) - d` for `d >= -1`, by its series near 0.
fn relative_entropy(d: f64) -> f64 {
    if d <= -1.0 {
        return 1.0;
    }
    if d.abs() > 0.03 {
        return (1.0 + d) * d.ln_1p() - d;
    }
    // sum_{k>=2} (-d)^k / (k (k-1)), summed from the small end
    (2..=12).rev().map(|k: i32| (-d).powi(k) / f64::from(k * (k - 1))).sum()
}

/// `ln_gamma(x) - ((x - 1/2) ln x - x + ln(2 pi)/2)` for `x > 0`, good to 1e-14.
fn stirling_error(x: f64) -> f64 {
    // Below 16 climb by ln_gamma(x) = ln_gamma(x + 1) - ln x, each step of which changes the error by this much.
    let mut climbed = 0.0;
    let mut x = x;
    while x < 16.0 {
        climbed += (x + 0.5) * (1.0 / x).min(f64::MAX).ln_1p() - 1.0;
        x += 1.0;
    }
    let square = 1.0 / (x * x);
    let series = 1.0 / 12.0 - square * (1.0 / 360.0 - square * (1.0 / 1260.0 - square * (1.0 / 1680.0)));
    climbed + series / x
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ln_gamma(x: f64) -> f64 {
        (x - 0.5) * x.ln() - x + 0.5 * std::f64::consts::TAU.ln() + stirling_error(x)
    }

    #[test]
    fn ln_gamma_at_known_points() {
        let half = std::f64::consts::PI.sqrt().ln();
        for (x, known) in [
            (0.5, half),
            (1.0, 0.0),
            (2.0, 0.0),
            (5.0, 24f64.ln()),
            (11.0, 3_628_800f64.ln()),
            (21.0, 2_432_902_008_176_640_000f64.ln()),
            (1e-9, 20.723_265_836_369_2),
        ] {
            assert!((ln_gamma(x) - known).abs() < 1e-12, "{x}: {} and not {known}", ln_gamma(x));
        }
    }

    #[test]
    fn entropy_series_meets_the_closed_form() {
        for d in [0.029_999, 0.030_001, -0.029_999, -0.030_001] {
            let closed = (1.0_f64 + d) * (1.0 + d).ln() - d;
            assert!((relative_entropy(d) - closed).abs() < 1e-16 + 1e-12 * closed);
        }
        assert!((relative_entropy(-1.0) - 1.0).abs() < 1e-15);
        assert_eq!(relative_entropy(0.0), 0.0);
    }
}
