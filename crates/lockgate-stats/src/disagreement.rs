//! Do a candidate's answers differ from the baseline's more often than the baseline's differ from themselves?
//!
//! A sampled request is asked three times: the baseline answers the user, then the candidate answers, then the baseline
//! once more. With `D = [candidate differs] - [baseline differs from itself]`, which is -1, 0 or 1, the question is whether
//! `E[D]`, the disagreement net of the model's own noise, lies above or below a bound `m`. A model that answers at random
//! differs from itself as often as from its copy, and `E[D]` is 0.
//!
//! Evidence is a bet on each sample. Against "`E[D | past] <= m`", with `0 < l < 1/(1+m)`,
//!
//! `K_l = prod (1 + l (D - m)) = (1 + l(1-m))^more (1 - l m)^same (1 - l(1+m))^less`
//!
//! where `more`, `same` and `less` count the samples with D = 1, 0 and -1. Each factor is positive, for the smallest of them
//! is `1 - l(1+m)`, and its mean given the past is `1 + l (E[D | past] - m) <= 1`. So `K_l` is a supermartingale that begins
//! at 1, and so is a mixture of several with fixed weights: by Ville's inequality it ever reaches `1/alpha` with a probability
//! of at most `alpha`, however often one looks. Against "`E[D | past] >= m`" the same with `m - D`, `0 < l < 1/(1-m)`:
//! `(1 - l(1-m))^more (1 + l m)^same (1 + l(1+m))^less`. Both depend on the three counts alone, so counts of several gateways
//! may be added up, and the order doesn't matter.
//!
//! The grid is `l_k = 0.95 2^(-k/2) / largest loss`, `k = 0..15`, with weights proportional to `2^(-k/2)`: large bets decide
//! soonest where samples all say the same, the usual case; small ones where the model is noisy. Any grid is valid.
//!
//! Source: Waudby-Smith & Ramdas, Journal of the Royal Statistical Society B 2024 (bounded means by betting).

use crate::grid::log_sum_exp;
use crate::thinning::Side;
use serde::{Deserialize, Serialize};

/// Samples by their outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Samples {
    /// The candidate's answer differs, the baseline's second one doesn't.
    pub more: u64,
    /// Both differ, or neither.
    pub same: u64,
    /// The baseline's second answer differs, the candidate's doesn't.
    pub less: u64,
}

impl Samples {
    /// How many there are.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.more.saturating_add(self.same).saturating_add(self.less)
    }
}

/// Number of bets.
const BETS: i32 = 16;
/// The largest bet, as a share of what could be lost.
const BOLDEST: f64 = 0.95;

/// Evidence for `side` of the bound `max`, as a natural logarithm: that more than a share `max` of the answers differs, or
/// less. 0 without samples, and for a bound outside (0, 1): nothing is known then. Always finite.
#[must_use]
pub fn log_e(samples: Samples, max: f64, side: Side) -> f64 {
    let counts = [samples.more, samples.same, samples.less].map(|n| n as f64);
    log_e_expected(counts, max, side)
}

/// The formula of the module, for counts that may be expectations.
pub(crate) fn log_e_expected([more, same, less]: [f64; 3], max: f64, side: Side) -> f64 {
    if !(max > 0.0 && max < 1.0) || more + same + less <= 0.0 {
        return 0.0;
    }
    // What a bet of 1 wins or loses on each outcome.
    let (gains, loss) = match side {
        Side::Worse => ([1.0 - max, -max, -1.0 - max], 1.0 + max),
        Side::NotWorse => ([max - 1.0, max, 1.0 + max], 1.0 - max),
    };
    let part = |k: i32| (-f64::from(k) / 2.0).exp2();
    let sum: f64 = (0..BETS).map(part).sum();
    log_sum_exp((0..BETS).map(|k| {
        let bet = BOLDEST * part(k) / loss;
        let factors = gains.map(|gain| (bet * gain).ln_1p());
        (part(k) / sum).ln() + more * factors[0] + same * factors[1] + less * factors[2]
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same by hand: the products themselves.
    fn by_hand(more: i32, same: i32, less: i32, m: f64, worse: bool) -> f64 {
        let weights: Vec<f64> = (0..16).map(|k| 0.5_f64.powf(f64::from(k) / 2.0)).collect();
        let sum: f64 = weights.iter().sum();
        let e = |w: f64| {
            if worse {
                let l = 0.95 * w / (1.0 + m);
                (1.0 + l * (1.0 - m)).powi(more) * (1.0 - l * m).powi(same) * (1.0 - l * (1.0 + m)).powi(less)
            } else {
                let l = 0.95 * w / (1.0 - m);
                (1.0 - l * (1.0 - m)).powi(more) * (1.0 + l * m).powi(same) * (1.0 + l * (1.0 + m)).powi(less)
            }
        };
        weights.iter().map(|w| w / sum * e(*w)).sum::<f64>().ln()
    }

    fn samples(more: u64, same: u64, less: u64) -> Samples {
        Samples { more, same, less }
    }

    #[test]
    fn it_is_the_formula_and_one_sample_is_the_sum_of_the_grid() {
        for (more, same, less, m) in [(1, 0, 0, 0.03), (4, 20, 2, 0.03), (0, 150, 0, 0.03), (7, 3, 9, 0.4)] {
            for (side, worse) in [(Side::Worse, true), (Side::NotWorse, false)] {
                let (found, known) = (
                    log_e(samples(more, same, less), m, side),
                    by_hand(more as i32, same as i32, less as i32, m, worse),
                );
                assert!((found - known).abs() < 1e-12, "{more} {same} {less} {m} {side:?}: {found}, {known}");
            }
        }
        // With one sample the mixture is 1 + E[l] (D - m); E[l] (1 + m) = 0.95 (sum of w^2) / (sum of w), both geometric.
        let (squares, sum) =
            ((1.0 - 0.5_f64.powi(16)) / 0.5, (1.0 - 0.5_f64.powi(8)) / (1.0 - 0.5_f64.sqrt()));
        let mean_bet = 0.95 * squares / sum / 1.5;
        let found = log_e(samples(1, 0, 0), 0.5, Side::Worse).exp();
        assert!((found - (1.0 + mean_bet * 0.5)).abs() < 1e-12, "{found}");
    }

    #[test]
    fn it_says_what_anyone_would_say() {
        assert!(log_e(samples(8, 0, 0), 0.03, Side::Worse) > 20_f64.ln());
        assert!(log_e(samples(0, 160, 0), 0.03, Side::NotWorse) > 20_f64.ln());
        assert!(log_e(samples(0, 60, 0), 0.03, Side::NotWorse) < 20_f64.ln());
        assert!(
            log_e(samples(40, 200, 40), 0.03, Side::Worse) < 1.0,
            "noise on both sides is no disagreement"
        );
        assert!(
            log_e(samples(200, 1000, 200), 0.03, Side::NotWorse)
                < log_e(samples(0, 1400, 0), 0.03, Side::NotWorse)
        );
    }

    #[test]
    fn nothing_is_known_without_samples_or_with_a_bound_that_is_none() {
        assert_eq!(log_e(Samples::default(), 0.03, Side::Worse), 0.0);
        for max in [0.0, 1.0, -0.1, 2.0, f64::NAN, f64::INFINITY] {
            assert_eq!(log_e(samples(5, 5, 5), max, Side::Worse), 0.0);
            assert_eq!(log_e(samples(5, 5, 5), max, Side::NotWorse), 0.0);
        }
        for side in [Side::Worse, Side::NotWorse] {
            assert!(log_e(samples(u64::MAX, u64::MAX, u64::MAX), 0.5, side).is_finite());
        }
    }
}
