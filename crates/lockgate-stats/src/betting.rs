//! Is the mean of a bounded outcome larger, or smaller, for the candidate's units than for the baseline's? (K2: betting)
//!
//! An outcome `Y` lies between 0 and 1. A unit is the candidate's (`A = 1`) with a known chance `w`, which nobody chose for what
//! its outcome would be. Then, for any number `c` that was fixed before the outcome was seen,
//!
//! `z = (Y - c) (A/w - (1-A)/(1-w)) - m`
//!
//! is on average the difference of the two means less the margin `m`, and never below `lo = -max(c/w, (1-c)/(1-w)) - m`. Against
//! "the difference is at most `m`", `E = mean_k prod (1 + l_k z_i)` with `l_k = 0.5 2^(-k/2) / |lo|`, `k = 0..23`: every factor is
//! positive and its mean given the past at most 1, so by Ville's inequality `E` ever reaches `1/alpha` with a chance of at most
//! `alpha`. Against "at least `m`" the same with `-z`. There is no assumption about how outcomes are distributed, and nothing is
//! asymptotic.
//!
//! `c`, the *centre*, only takes noise out: best is the mean of all outcomes. A [`Tally`] moves it there whenever the number of
//! outcomes has doubled, and counts by weight and centre, so that what it holds is whole numbers: they may be added up in any
//! order, and evidence is made from them again bit for bit. Outcomes are counted in thousandths of their range.
//!
//! Source: Waudby-Smith & Ramdas, Journal of the Royal Statistical Society B 2024; the fixed grid is fixture 08.

use crate::decision::log_needed;
use crate::forecast;
use crate::grid::log_sum_exp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How many steps an outcome's range is counted in.
pub const LEVELS: u32 = 1000;

/// Weights are counted in parts of this.
pub const WHOLE: u32 = 10_000;

/// Number of bets.
const BETS: i32 = 24;

/// The boldest bet, as a share of what could be lost.
const BOLDEST: f64 = 0.5;

/// How often an interval's edge is narrowed down: to half a millionth.
const NARROWED: u32 = 22;

/// The centre is looked for from this many outcomes on.
const FIRST_CENTRE: u64 = 16;

/// What evidence is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Difference {
    /// The candidate's mean less the baseline's is above the margin.
    Above,
    /// It is below the margin.
    Below,
}

/// One arm's outcomes: how many there are at each level.
pub type Levels = BTreeMap<u32, u64>;

/// Outcomes that were counted while the candidate had one share and the centre was one number.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Segment {
    /// The candidate's share of the units, in parts of [`WHOLE`].
    pub weight: u32,
    /// The centre, a level.
    pub centre: u32,
    /// The candidate's outcomes.
    pub candidate: Levels,
    /// The baseline's.
    pub baseline: Levels,
}

impl Segment {
    /// Whether it says anything of a difference.
    fn is_informative(&self) -> bool {
        self.weight > 0 && self.weight < WHOLE && self.centre <= LEVELS
    }

    fn expected(&self) -> Expected {
        let share = |level: u32| f64::from(level.min(LEVELS)) / f64::from(LEVELS);
        let of = |levels: &Levels| levels.iter().map(|(level, n)| (share(*level), *n as f64)).collect();
        Expected {
            weight: f64::from(self.weight) / f64::from(WHOLE),
            centre: share(self.centre),
            candidate: of(&self.candidate),
            baseline: of(&self.baseline),
        }
    }
}

/// A segment whose counts may be expectations: outcomes between 0 and 1, and how many.
struct Expected {
    weight: f64,
    centre: f64,
    candidate: Vec<(f64, f64)>,
    baseline: Vec<(f64, f64)>,
}

/// Outcomes as they come, one for each unit.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tally {
    segments: BTreeMap<(u32, u32), Segment>,
    outcomes: u64,
    sum: u64,
    centre: Option<u32>,
}

impl Tally {
    /// Counts a unit's outcome, in [`LEVELS`]; `weight` is the share that the candidate had when the unit was drawn, in parts of
    /// [`WHOLE`]. The centre follows from the outcomes before.
    pub fn add(&mut self, weight: u32, is_candidate: bool, level: u32) {
        let level = level.min(LEVELS);
        let centre = self.centre.unwrap_or(LEVELS / 2);
        let segment = self.segments.entry((weight, centre)).or_default();
        (segment.weight, segment.centre) = (weight, centre);
        let arm = if is_candidate { &mut segment.candidate } else { &mut segment.baseline };
        *arm.entry(level).or_insert(0) += 1;
        self.outcomes += 1;
        self.sum += u64::from(level);
        if self.outcomes >= FIRST_CENTRE && self.outcomes.is_power_of_two() {
            self.centre = u32::try_from((self.sum + self.outcomes / 2) / self.outcomes).ok();
        }
    }

    /// The counts, by weight and centre.
    #[must_use]
    pub fn segments(&self) -> Vec<Segment> {
        self.segments.values().cloned().collect()
    }

    /// How many outcomes there are.
    #[must_use]
    pub fn outcomes(&self) -> u64 {
        self.outcomes
    }
}

/// Evidence from values `z`, each with how often it came, none below `lo < 0`, against "their mean is at most 0": one logarithm
/// for each bet. They may be added up; [`mixed`] makes the evidence of them.
#[must_use]
pub fn bets(values: &[(f64, f64)], lo: f64) -> Vec<f64> {
    (0..BETS)
        .map(|k| {
            let bet = BOLDEST * (-f64::from(k) / 2.0).exp2() / lo.abs();
            values.iter().map(|(z, n)| n * (bet * z).ln_1p()).sum()
        })
        .collect()
}

/// The evidence of all bets together, as a natural logarithm.
#[must_use]
pub fn mixed(bets: &[f64]) -> f64 {
    if bets.is_empty() {
        return 0.0;
    }
    log_sum_exp(bets.iter().copied()) - (bets.len() as f64).ln()
}

/// Evidence that the candidate's mean less the baseline's is on this `side` of `margin`, as a natural logarithm. 0 without
/// outcomes, and for a margin outside (-1, 1): nothing is known then. Always finite.
#[must_use]
pub fn log_e(segments: &[Segment], margin: f64, side: Difference) -> f64 {
    let all: Vec<Expected> = segments.iter().filter(|s| s.is_informative()).map(Segment::expected).collect();
    log_e_expected(&all, margin, side)
}

fn log_e_expected(segments: &[Expected], margin: f64, side: Difference) -> f64 {
    let any = segments.iter().any(|s| !s.candidate.is_empty() || !s.baseline.is_empty());
    if !(margin > -1.0 && margin < 1.0 && any) {
        return 0.0;
    }
    let mut sums = vec![0.0; BETS as usize];
    for s in segments {
        let (w, c) = (s.weight, s.centre);
        let (sign, lo) = match side {
            Difference::Above => (1.0, -(c / w).max((1.0 - c) / (1.0 - w)) - margin),
            Difference::Below => (-1.0, -((1.0 - c) / w).max(c / (1.0 - w)) + margin),
        };
        let candidate = s.candidate.iter().map(|(y, n)| (sign * ((y - c) / w - margin), *n));
        let baseline = s.baseline.iter().map(|(y, n)| (sign * (-(y - c) / (1.0 - w) - margin), *n));
        let values: Vec<(f64, f64)> = candidate.chain(baseline).collect();
        for (sum, bet) in sums.iter_mut().zip(bets(&values, lo)) {
            *sum += bet;
        }
    }
    mixed(&sums)
}

/// The differences that are not ruled out, each side at `alpha / 2`: an interval that holds at every look at once with a chance
/// of `1 - alpha`. None without outcomes, or for an `alpha` that is none.
#[must_use]
pub fn interval(segments: &[Segment], alpha: f64) -> Option<(f64, f64)> {
    let needed = log_needed("alpha", alpha / 2.0).ok()?;
    estimate(segments)?;
    // Evidence for "above" falls with the margin, and that for "below" grows: every bet's does.
    let edge = |side, ruled_out: fn(f64) -> f64| {
        let (mut out, mut inside) = (-1.0, 1.0);
        for _ in 0..NARROWED {
            let middle = f64::midpoint(out, inside);
            if log_e(segments, ruled_out(middle), side) >= needed { out = middle } else { inside = middle }
        }
        ruled_out(out)
    };
    Some((edge(Difference::Above, |m| m), edge(Difference::Below, |m| -m)))
}

/// The candidate's mean less the baseline's, of units at equal shares: each weight by its outcomes. None where no weight has both.
#[must_use]
pub fn estimate(segments: &[Segment]) -> Option<f64> {
    let mut weights: BTreeMap<u32, (Levels, Levels)> = BTreeMap::new();
    for s in segments.iter().filter(|s| s.is_informative()) {
        let (candidate, baseline) = weights.entry(s.weight).or_default();
        s.candidate.iter().for_each(|(level, n)| *candidate.entry(*level).or_insert(0) += n);
        s.baseline.iter().for_each(|(level, n)| *baseline.entry(*level).or_insert(0) += n);
    }
    let (mut sum, mut all) = (0.0, 0.0);
    for (candidate, baseline) in weights.values() {
        if let (Some(a), Some(b)) = (mean(candidate), mean(baseline)) {
            let n = (count(candidate) + count(baseline)) as f64;
            sum += (a - b) * n;
            all += n;
        }
    }
    (all > 0.0).then(|| sum / all)
}

/// How many outcomes there are.
#[must_use]
pub fn count(levels: &Levels) -> u64 {
    levels.values().sum()
}

/// Their mean, between 0 and 1. None without any.
#[must_use]
pub fn mean(levels: &Levels) -> Option<f64> {
    let n = count(levels);
    let sum: f64 = levels.iter().map(|(level, n)| f64::from((*level).min(LEVELS)) * *n as f64).sum();
    (n > 0).then(|| sum / (n as f64 * f64::from(LEVELS)))
}

/// Outcomes of both arms together until the evidence for `side` of `margin` reaches `1/alpha`, if the baseline's mean is `mean`,
/// the candidate's larger by `truth`, and outcomes are 0 or 1. None: never, or not with numbers that make sense.
#[must_use]
pub fn outcomes_needed(
    share: f64,
    mean: f64,
    truth: f64,
    margin: f64,
    side: Difference,
    alpha: f64,
) -> Option<f64> {
    let (a, b) = (mean + truth, mean);
    if !(share > 0.0 && share < 1.0 && (0.0..=1.0).contains(&a) && (0.0..=1.0).contains(&b)) {
        return None;
    }
    forecast::crossing(alpha, |n| {
        let arm = |units: f64, mean: f64| vec![(0.0, units * (1.0 - mean)), (1.0, units * mean)];
        let expected = Expected {
            weight: share,
            centre: share * a + (1.0 - share) * b,
            candidate: arm(n * share, a),
            baseline: arm(n * (1.0 - share), b),
        };
        log_e_expected(&[expected], margin, side)
    })
}
