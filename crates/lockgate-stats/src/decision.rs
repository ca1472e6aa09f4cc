//! From evidence to a verdict: roll back, hold, promote or go on.
//!
//! ```text
//! roll back  if the largest merged evidence so far, sum_j w_j E_worse_j, reached 1/alpha_rollback   (harm first)
//! hold       if the sample ratio alarm reached 1/alpha_sample_ratio: the comparison is void
//! promote    if the minimum time is over and every required guard's E_not_worse is at 1/alpha_promote now
//! continue   otherwise
//! ```
//!
//! The merged value is a weighted mean, so one budget covers all guards, and it is its own maximum that is remembered, not
//! the guards' maxima. A promotion needs every required guard, each at the full budget (intersection-union). A guard on
//! rare events can never prove "not worse" and must be [`Role::RollbackOnly`].
//!
//! *Floor*: a candidate with hardly any errors would stay unknown for ever under a ratio. So "not worse" may also be shown by
//! the candidate's own rate lying below a floor. What is refuted then is "at least r1 times the baseline's rate *and* at
//! least the floor", under which both e-values are valid, and so is their mean: that mean is what has to reach
//! `1/alpha_promote`. Taking either at the full level would double the stated error.
//!
//! Evidence that isn't a number counts as none, makes its guard unknown, and blocks a promotion whatever the guard's role.

use crate::{StatsError, merge};
use serde::{Deserialize, Serialize};

/// What a guard is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// A promotion needs its *not worse*.
    Required,
    /// It can only roll back.
    RollbackOnly,
}

/// What one guard has seen, as natural logarithms of e-values.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct GuardEvidence {
    /// Its weight in the merged evidence; weights need not add up to 1.
    pub weight: f64,
    /// What it is for.
    pub role: Role,
    /// Evidence that the candidate is worse.
    pub log_e_worse: f64,
    /// Evidence that it is not.
    pub log_e_not_worse: f64,
    /// Evidence that the candidate's own rate is below the floor, if the guard has one: [`crate::rate::log_e`].
    pub log_e_below_floor: Option<f64>,
}

impl GuardEvidence {
    /// The evidence for "not worse" that counts: merged with the floor's, if there is one. None if it isn't a number.
    #[must_use]
    pub fn not_worse(&self) -> Option<f64> {
        match self.log_e_below_floor {
            None => self.log_e_not_worse.is_finite().then_some(self.log_e_not_worse),
            Some(floor) => merge::mean(&[self.log_e_not_worse, floor]).ok(),
        }
    }

    /// The evidence for "worse". None if it isn't a number.
    fn worse(&self) -> Option<f64> {
        (!self.log_e_worse.is_nan() && self.log_e_worse < f64::INFINITY).then_some(self.log_e_worse)
    }
}

/// Error budgets: how often, at most, a decision of each kind may be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Budget {
    /// Rolling back a candidate that is within all margins.
    pub alpha_rollback: f64,
    /// Promoting a candidate that is worse by a margin.
    pub alpha_promote: f64,
    /// Holding though the weights are kept.
    pub alpha_sample_ratio: f64,
}

impl Default for Budget {
    fn default() -> Self {
        Self { alpha_rollback: 0.05, alpha_promote: 0.05, alpha_sample_ratio: 0.001 }
    }
}

/// The largest evidence so far; keep it between looks. Begins at 0.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Peaks {
    /// Of the merged evidence for "worse".
    pub log_e_rollback: f64,
    /// Of the sample ratio test.
    pub log_e_sample_ratio: f64,
}

/// Everything that one look needs.
#[derive(Debug, Clone, Copy)]
pub struct Look<'a> {
    /// Every guard's evidence since the rollout began.
    pub guards: &'a [GuardEvidence],
    /// Evidence that the units don't fit the weights: [`crate::srm`]. 0 where nothing is compared.
    pub log_e_sample_ratio: f64,
    /// Whether the step's minimum time is over.
    pub min_bake_over: bool,
    /// What the last look returned.
    pub peaks: Peaks,
}

/// What one guard says. There is no fourth answer, and unknown never promotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Its own evidence for "worse" is at `1/alpha_rollback`. Only the merged evidence rolls back.
    Worse,
    /// Its evidence for "not worse" is at `1/alpha_promote`.
    NotWorse,
    /// Neither.
    Unknown,
}

/// Why a rollout is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldReason {
    /// The units that each variant got don't fit the weights.
    SampleRatio,
}

/// What all guards say together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overall {
    /// Harm is proven.
    Rollback,
    /// The comparison is void; a person has to look.
    Hold(HoldReason),
    /// Every required guard has proven "not worse".
    Promote,
    /// Nothing is proven yet. Whoever runs out of time holds or rolls back, and never promotes.
    Continue,
}

/// A look's outcome, with the numbers that it was made from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// What to do.
    pub overall: Overall,
    /// Each guard's verdict, in the order given.
    pub verdicts: Vec<Verdict>,
    /// Merged evidence for "worse", now.
    pub log_e_worse: f64,
    /// To be kept for the next look.
    pub peaks: Peaks,
}

/// Judges one look.
///
/// # Errors
/// A budget outside (0, 1), a weight that is negative or not finite, weights that are all zero, or remembered peaks that
/// aren't numbers. The caller must treat an error as "hold".
pub fn decide(look: &Look<'_>, budget: &Budget) -> Result<Decision, StatsError> {
    let needed_rollback = log_needed("alpha_rollback", budget.alpha_rollback)?;
    let needed_promote = log_needed("alpha_promote", budget.alpha_promote)?;
    let needed_sample_ratio = log_needed("alpha_sample_ratio", budget.alpha_sample_ratio)?;
    if look.peaks.log_e_rollback.is_nan() || look.peaks.log_e_sample_ratio.is_nan() {
        return Err(StatsError::Peaks);
    }
    let log_e_worse = merged(look.guards)?;
    // f64::max passes over a NaN; what is not a number blocks the promotion below.
    let peaks = Peaks {
        log_e_rollback: look.peaks.log_e_rollback.max(log_e_worse),
        log_e_sample_ratio: look.peaks.log_e_sample_ratio.max(look.log_e_sample_ratio),
    };
    let verdicts: Vec<Verdict> =
        look.guards.iter().map(|guard| verdict(guard, needed_rollback, needed_promote)).collect();
    let readable = !look.log_e_sample_ratio.is_nan() && look.guards.iter().all(|g| g.worse().is_some());
    let overall = if peaks.log_e_rollback >= needed_rollback {
        Overall::Rollback
    } else if peaks.log_e_sample_ratio >= needed_sample_ratio {
        Overall::Hold(HoldReason::SampleRatio)
    } else if look.min_bake_over && readable && is_proven(look.guards, &verdicts) {
        Overall::Promote
    } else {
        Overall::Continue
    };
    Ok(Decision { overall, verdicts, log_e_worse, peaks })
}

/// `ln(1/alpha)`: what evidence has to reach.
///
/// # Errors
/// An `alpha` outside (0, 1); `name` is for the message.
pub fn log_needed(name: &'static str, alpha: f64) -> Result<f64, StatsError> {
    if alpha > 0.0 && alpha < 1.0 { Ok(-alpha.ln()) } else { Err(StatsError::Alpha { name, value: alpha }) }
}

/// The weighted mean of all guards' evidence for "worse"; unreadable evidence counts as an e-value of 0. 0 without guards.
fn merged(guards: &[GuardEvidence]) -> Result<f64, StatsError> {
    if guards.is_empty() {
        return Ok(0.0);
    }
    let evidence: Vec<(f64, f64)> =
        guards.iter().map(|guard| (guard.worse().unwrap_or(f64::NEG_INFINITY), guard.weight)).collect();
    // Finite, also if no guard could be read: the least number serialises, minus infinity doesn't.
    merge::weighted_mean(&evidence).map(|log_e| log_e.max(f64::MIN))
}

fn verdict(guard: &GuardEvidence, needed_rollback: f64, needed_promote: f64) -> Verdict {
    match (guard.worse(), guard.not_worse()) {
        (Some(worse), _) if worse >= needed_rollback => Verdict::Worse,
        (Some(_), Some(not_worse)) if not_worse >= needed_promote => Verdict::NotWorse,
        _ => Verdict::Unknown,
    }
}

/// Every required guard is not worse, there is one at least, and no guard is worse.
fn is_proven(guards: &[GuardEvidence], verdicts: &[Verdict]) -> bool {
    let mut required =
        guards.iter().zip(verdicts).filter(|(guard, _)| guard.role == Role::Required).peekable();
    required.peek().is_some()
        && required.all(|(_, verdict)| *verdict == Verdict::NotWorse)
        && !verdicts.contains(&Verdict::Worse)
}
