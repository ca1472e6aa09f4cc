//! One variant's own rate beside a fixed bound: is it above, or below?
//!
//! A mixture of Bernoulli likelihood ratios over the shared grid: with `x` events in `n` units and the bound `p0`,
//! `log E = ln sum_k pi_k (p_k/p0)^x ((1-p_k)/(1-p0))^(n-x)`, where `p_k = p0 exp(theta_k)`, capped below 1, speaks against
//! "the rate is at most p0" and `p_k = p0 exp(-theta_k)` against "it is at least p0". Each factor's mean is linear in the
//! true rate and 1 at the bound, so this is an e-process for the whole one-sided null, also while the rate moves within it.

use crate::grid;
use serde::{Deserialize, Serialize};

/// What the evidence is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// For "the rate is above the bound".
    Above,
    /// For "the rate is below the bound".
    Below,
}

/// How much of the way from the bound to 1 an alternative may take: short of 1, so that one good unit never rules it out
/// for ever.
const CAP: f64 = 0.999;

/// Evidence for `side` from `events` in `units`, as a natural logarithm. 0 without units, and for a bound outside (0, 1):
/// nothing is known then. More events than units count as that many units, all of them bad. Always finite.
#[must_use]
pub fn log_e(events: u64, units: u64, bound: f64, side: Bound) -> f64 {
    log_e_expected(events as f64, units.max(events) as f64, bound, side)
}

/// The formula of the module, for counts that may be expectations.
pub(crate) fn log_e_expected(events: f64, units: f64, bound: f64, side: Bound) -> f64 {
    if !(bound > 0.0 && bound < 1.0) || units <= 0.0 {
        return 0.0;
    }
    let good = units - events;
    grid::log_mixture(|theta| {
        // p_k = bound + distance
        let distance = match side {
            Bound::Above => (bound * theta.exp_m1()).min((1.0 - bound) * CAP),
            Bound::Below => bound * (-theta).exp_m1(),
        };
        events * (distance / bound).ln_1p() + good * (-distance / (1.0 - bound)).ln_1p()
    })
}
