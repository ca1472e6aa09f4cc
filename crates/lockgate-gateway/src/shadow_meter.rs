//! What mirrored requests are judged by: a rollout's counts of their own, and what came of comparing answers.

use crate::rollout::{RolloutStats, SegmentStats, SplitMeter};
use crate::shadow::Differs;
use lockgate_core::route::Role;
use lockgate_stats::disagreement::Samples;
use lockgate_wire::compare::Difference;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU64, Ordering};

/// What came of mirrored requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ShadowStats {
    /// Requests that were mirrored, and are counted for both arms.
    pub mirrored: u64,
    /// Requests that were to be mirrored, and were not because too many were on their way.
    pub dropped: u64,
    /// Requests that were to be mirrored, and were not because their body was too large to be held.
    pub streaming: u64,
    /// Answers that were compared, by what came of it.
    pub samples: Samples,
    /// Answers of the candidate that differed.
    pub differed: u64,
    /// Second answers of the baseline that differed from its first.
    pub noise: u64,
    /// How the candidate's answers differed.
    pub kinds: DifferenceCounts,
    /// Whether there were more units than can be told apart.
    pub saturated: bool,
    /// Whether the breaker ended the mirroring.
    pub breaker_open: bool,
}

/// Differences by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DifferenceCounts {
    /// No good answer.
    pub failed: u64,
    /// More, fewer or other values.
    pub shape: u64,
    /// Another class.
    pub class: u64,
    /// A number too far away.
    pub number: u64,
}

/// Live counts of mirrored requests.
#[derive(Debug)]
pub(crate) struct ShadowMeter {
    /// By share and arm. Its units are its own: what a unit met in a shadow is no event of a live step.
    pub(crate) split: SplitMeter,
    pub(crate) pairs: PairMeter,
    dropped: AtomicU64,
    streaming: AtomicU64,
}

impl ShadowMeter {
    pub(crate) fn new(split: SplitMeter) -> Self {
        Self { split, pairs: PairMeter::default(), dropped: AtomicU64::new(0), streaming: AtomicU64::new(0) }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.split.breaker.is_open()
    }

    pub(crate) fn dropped(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn streaming(&self) {
        self.streaming.fetch_add(1, Ordering::Relaxed);
    }

    /// None where nothing was ever to be mirrored.
    pub(crate) fn read(&self) -> Option<ShadowStats> {
        let RolloutStats { segments, saturated, breaker_open, .. } = self.split.read();
        self.stats(&segments, saturated, breaker_open)
    }

    fn stats(&self, segments: &[SegmentStats], saturated: bool, breaker_open: bool) -> Option<ShadowStats> {
        if segments.is_empty() {
            return None;
        }
        let candidate = segments.iter().filter(|s| s.arm == Role::Candidate);
        Some(ShadowStats {
            mirrored: candidate.map(|s| s.requests).sum(),
            dropped: self.dropped.load(Ordering::Relaxed),
            streaming: self.streaming.load(Ordering::Relaxed),
            saturated,
            breaker_open,
            ..self.pairs.read()
        })
    }

    /// Live traffic's counts together with these.
    pub(crate) fn add_to(&self, mut live: RolloutStats) -> RolloutStats {
        let RolloutStats { segments, saturated, breaker_open, .. } = self.split.read();
        live.shadow = self.stats(&segments, saturated, breaker_open);
        live.segments.extend(segments.into_iter().map(|s| SegmentStats { shadow: true, ..s }));
        live
    }
}

/// Compared answers: how often the candidate's differs from the baseline's first, and how often its second does.
#[derive(Debug, Default)]
pub(crate) struct PairMeter {
    /// Neither, the second, the candidate's, both.
    outcomes: [AtomicU64; 4],
    kinds: [AtomicU64; 4],
}

impl PairMeter {
    pub(crate) fn note(&self, candidate: Option<Differs>, second: Option<Differs>) {
        let outcome = 2 * usize::from(candidate.is_some()) + usize::from(second.is_some());
        self.outcomes[outcome].fetch_add(1, Ordering::Relaxed);
        let kind = match candidate {
            None => return,
            Some(Differs::Failed) => 0,
            Some(Differs::Says(Difference::Shape)) => 1,
            Some(Differs::Says(Difference::Class)) => 2,
            Some(Differs::Says(Difference::Number)) => 3,
        };
        self.kinds[kind].fetch_add(1, Ordering::Relaxed);
    }

    fn read(&self) -> ShadowStats {
        let get = |all: &[AtomicU64; 4]| [0, 1, 2, 3].map(|i: usize| all[i].load(Ordering::Relaxed));
        let [neither, less, more, both] = get(&self.outcomes);
        let [failed, shape, class, number] = get(&self.kinds);
        ShadowStats {
            samples: Samples { more, same: neither + both, less },
            differed: more + both,
            noise: less + both,
            kinds: DifferenceCounts { failed, shape, class, number },
            ..ShadowStats::default()
        }
    }
}
