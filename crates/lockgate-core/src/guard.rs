//! Guards: what is watched all through a rollout, and what they say.

use crate::goal::{GoalReading, GoalSpec};
use crate::id::GuardName;
use crate::plan::Step;
use serde::{Deserialize, Serialize};

/// What a guard watches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum GuardSpec {
    /// Bad answers (5xx, time-outs, lost connections, numbers that are not finite) beside the baseline's.
    Rate {
        /// What must be excluded to promote: 0.5 means half as many again.
        worse_by: f64,
        /// What must be exceeded to roll back.
        rollback_by: f64,
        /// A rate below which the candidate is not worse whatever the ratio says.
        floor: f64,
    },
    /// Latency beside the baseline's, and an absolute bound.
    Latency {
        /// At most one request in a hundred may take longer, in milliseconds.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        p99_ms: Option<f64>,
        /// What must be excluded to promote, as a share of the baseline's latency.
        worse_by: f64,
        /// What must be exceeded to roll back.
        rollback_by: f64,
        /// A slow-down by less than this is no harm, in milliseconds.
        floor_ms: f64,
        /// For how long after the candidate's first request slowness doesn't count, of either side, in milliseconds; the
        /// gateway's own time where it isn't set.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        warmup_ms: Option<u64>,
    },
    /// Answers that are always the same. Rolls back only: variety can't be proven by counting repeats.
    Constant {
        /// How many times as many repeated answers as the baseline must be exceeded to roll back.
        rollback_by: f64,
    },
    /// Answers to mirrored requests that differ from the baseline's, less what the baseline differs from itself by.
    Disagreement {
        /// The share of requests, 0 to 1, that must be excluded to go on, and exceeded to roll back.
        max: f64,
        /// How far apart numbers may be, as a share of the larger one, or of 1 where both are smaller.
        tolerance: f64,
    },
    /// An outcome that comes after the prediction, beside the baseline's.
    Goal(GoalSpec),
}

impl GuardSpec {
    /// Whether going on from a step needs this guard's *not worse*; `shadow` is whether that step only mirrors requests.
    #[must_use]
    pub fn is_required(&self, shadow: bool) -> bool {
        match self {
            Self::Rate { .. } | Self::Latency { .. } => true,
            // Outcomes come late: only a step that is there to wait for them needs them.
            Self::Constant { .. } | Self::Goal(_) => false,
            // Users get one answer: only mirrored requests have two.
            Self::Disagreement { .. } => shadow,
        }
    }

    /// Whether going on from `step` needs this guard's *not worse*.
    #[must_use]
    pub fn is_required_in(&self, step: &Step) -> bool {
        self.is_required(step.is_shadow()) || (step.ab && matches!(self, Self::Goal(_)))
    }
}

/// What a guard says. There is no fourth answer, and *unknown* never promotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The candidate is worse than the margin allows, at the stated error rate.
    Worse,
    /// It is proven not to be.
    NotWorse,
    /// Neither is proven yet.
    Unknown,
}

/// One guard's verdict with the numbers that it was made from, so that it can be made again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// The guard.
    pub guard: GuardName,
    /// What it says.
    pub verdict: Verdict,
    /// Whether a promotion needs its *not worse*.
    pub required: bool,
    /// Natural logarithm of the evidence that the candidate is worse.
    pub log_e_worse: f64,
    /// Natural logarithm of the evidence that it is not.
    pub log_e_not_worse: f64,
    /// What either has to reach: ln(1/alpha).
    pub needed: f64,
    /// One sentence with the counts.
    pub summary: String,
    /// Counts by weight: candidate's share (0 to 1), candidate's events, baseline's events.
    pub segments: Vec<SegmentCount>,
    /// What a goal's evidence was made from.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub goal: Option<Box<GoalReading>>,
}

/// Event counts of one guard at one weight.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SegmentCount {
    /// The candidate's share of the traffic, 0 to 1.
    pub weight: f64,
    /// Events of the candidate.
    pub candidate: u64,
    /// Events of the baseline.
    pub baseline: u64,
    /// Whether these are of mirrored requests, which went to both.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub shadow: bool,
}

/// What all guards together say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// Each guard's reading.
    pub readings: Vec<Reading>,
    /// Merged evidence that the candidate is worse, at its largest so far: the number that rolls back.
    pub log_e_rollback: f64,
    /// What it has to reach.
    pub needed_rollback: f64,
    /// Whether the shares of units don't fit the weights: the comparison is void then.
    pub sample_ratio_mismatch: bool,
    /// Candidate's units seen.
    pub candidate_units: u64,
    /// Baseline's units seen.
    pub baseline_units: u64,
}

impl Judgement {
    /// What says *nothing*: no readings, so nothing is proven.
    #[must_use]
    pub fn none() -> Self {
        Self {
            readings: Vec::new(),
            log_e_rollback: 0.0,
            needed_rollback: f64::MAX,
            sample_ratio_mismatch: false,
            candidate_units: 0,
            baseline_units: 0,
        }
    }

    /// The guard that speaks most clearly against the candidate, if the merged evidence rolls back. Only the merged
    /// evidence does: one guard by itself would raise the stated error rate with every guard that is added.
    #[must_use]
    pub fn worst(&self) -> Option<&Reading> {
        let merged = self.log_e_rollback.is_finite() && self.log_e_rollback >= self.needed_rollback;
        self.readings.iter().filter(|_| merged).max_by(|a, b| a.log_e_worse.total_cmp(&b.log_e_worse))
    }

    /// Whether every required guard has proven *not worse*, none is *worse*, and the comparison is sound. Without a single required guard
    /// nothing is proven.
    #[must_use]
    pub fn all_not_worse(&self) -> bool {
        let mut required = self.readings.iter().filter(|r| r.required).peekable();
        !self.sample_ratio_mismatch
            && required.peek().is_some()
            && required.all(|r| r.verdict == Verdict::NotWorse)
            && self.readings.iter().all(|r| r.verdict != Verdict::Worse)
    }

    /// The required guards that are still unknown.
    #[must_use]
    pub fn unknown(&self) -> Vec<GuardName> {
        self.readings
            .iter()
            .filter(|r| r.required && r.verdict != Verdict::NotWorse)
            .map(|r| r.guard.clone())
            .collect()
    }
}
