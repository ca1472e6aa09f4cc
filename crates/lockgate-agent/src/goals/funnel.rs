//! Units of both sides at each share, and whether they fit the shares.

use super::{Draw, NotCounted, UNITS};
use lockgate_core::goal::Sides;
use lockgate_core::route::WHOLE;
use lockgate_stats::{srm, thinning};
use std::collections::{BTreeMap, HashSet};

/// It is looked whether the units fit the shares each time that there are more of them by one part in so many.
const LOOKS: usize = 64;

/// Units, each once.
#[derive(Debug, Clone, Default)]
pub(super) struct Funnel {
    units: HashSet<u64>,
    counts: BTreeMap<u32, Sides>,
    /// With how many units it is looked again. It hangs on their number alone, so that whoever counts the same again finds the same.
    next_look: usize,
    peak: f64,
}

impl Funnel {
    /// Counts a unit where it is new; says why not, if not.
    pub(super) fn add(&mut self, draw: &Draw) -> Result<(), NotCounted> {
        if self.contains(draw.unit) {
            return Err(NotCounted::UnitCounted);
        }
        if self.is_full() {
            return Err(NotCounted::Saturated);
        }
        self.units.insert(draw.unit);
        self.counts.entry(draw.weight).or_default().add(draw.candidate);
        if self.units.len() >= self.next_look {
            self.peak = self.peak.max(self.mismatch());
            self.next_look = self.units.len() + 1 + self.units.len() / LOOKS;
        }
        Ok(())
    }

    pub(super) fn contains(&self, unit: u64) -> bool {
        self.units.contains(&unit)
    }

    pub(super) fn is_full(&self) -> bool {
        self.units.len() >= UNITS
    }

    pub(super) fn total(&self) -> Sides {
        self.counts.values().fold(Sides::default(), |sum, s| Sides {
            candidate: sum.candidate + s.candidate,
            baseline: sum.baseline + s.baseline,
        })
    }

    /// The most evidence there ever was that these units don't fit the shares: what once was no sample does not become one.
    pub(super) fn peak(&self) -> f64 {
        self.peak
    }

    fn mismatch(&self) -> f64 {
        let segments: Vec<thinning::Segment> = self
            .counts
            .iter()
            .map(|(weight, sides)| thinning::Segment {
                weight: f64::from(*weight) / f64::from(WHOLE),
                candidate_events: sides.candidate,
                baseline_events: sides.baseline,
            })
            .collect();
        srm::log_e_each(&segments)
    }
}
