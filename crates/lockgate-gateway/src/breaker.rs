//! The local breaker: did most of the candidate's latest units meet hard errors, and the baseline's not? Then the gateway
//! sends the candidate's share to the baseline by itself, at once, and tells the agent, which adopts it.

use crate::options::BreakerOptions;
use lockgate_core::id::ModelName;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// A rollout whose breaker is open, so that a gateway that takes another one's place opens its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenBreaker {
    /// The model.
    pub model: ModelName,
    /// The split's salt: the promotion.
    pub salt: String,
    /// Whether it is the one of mirrored requests.
    pub mirrored: bool,
}

/// The latest different units of one arm.
#[derive(Debug, Default)]
pub(crate) struct Window {
    latest: Mutex<VecDeque<(u64, bool)>>,
    /// Whether the window is full of good units: then another good one changes nothing.
    healthy: AtomicBool,
}

impl Window {
    /// Notes how a unit's request went; gives back how many bad units there are of how many.
    pub(crate) fn note(&self, unit: u64, bad: bool, size: usize) -> Option<(usize, usize)> {
        if !bad && self.healthy.load(Ordering::Relaxed) {
            return None;
        }
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = latest.iter().position(|(u, _)| *u == unit) {
            // One unit that asks again and again is one unit: its latest answer counts.
            latest.remove(known);
        }
        latest.push_back((unit, bad));
        while latest.len() > size {
            latest.pop_front();
        }
        let count = latest.iter().filter(|(_, bad)| *bad).count();
        self.healthy.store(count == 0 && latest.len() == size, Ordering::Relaxed);
        Some((count, latest.len()))
    }

    fn count(&self) -> (usize, usize) {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        (latest.iter().filter(|(_, bad)| *bad).count(), latest.len())
    }
}

/// One split's breaker.
#[derive(Debug)]
pub(crate) struct Breaker {
    options: BreakerOptions,
    candidate: Window,
    baseline: Window,
    open: AtomicBool,
}

impl Breaker {
    pub(crate) fn new(options: BreakerOptions) -> Self {
        Self {
            options,
            candidate: Window::default(),
            baseline: Window::default(),
            open: AtomicBool::new(false),
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// Opens it: what it would have to see was seen elsewhere.
    pub(crate) fn trip(&self) {
        self.open.store(true, Ordering::Release);
    }

    /// Notes how a unit fared. Gives back the candidate's (bad, units) once: when this opened the breaker.
    pub(crate) fn note(&self, is_candidate: bool, unit: u64, bad: bool) -> Option<(usize, usize)> {
        let size = self.options.units;
        if !is_candidate {
            self.baseline.note(unit, bad, size);
            return None;
        }
        let (count, units) = self.candidate.note(unit, bad, size)?;
        if units < size || !self.exceeds(count, units) || !bad {
            return None;
        }
        let (baseline_bad, baseline_units) = self.baseline.count();
        if baseline_units > 0 && self.exceeds(baseline_bad, baseline_units) {
            return None;
        }
        (!self.open.swap(true, Ordering::AcqRel)).then_some((count, units))
    }

    fn exceeds(&self, bad: usize, units: usize) -> bool {
        bad as f64 > self.options.limit * units as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker() -> Breaker {
        Breaker::new(BreakerOptions { units: 20, limit: 0.5 })
    }

    #[test]
    fn it_opens_once_when_most_units_of_the_candidate_alone_fail() {
        let breaker = breaker();
        (0..20).for_each(|u| assert_eq!(breaker.note(false, u, u % 4 == 0), None));
        (0..19)
            .for_each(|u| assert_eq!(breaker.note(true, u, true), None, "fewer than 20 units prove nothing"));
        assert_eq!(breaker.note(true, 19, true), Some((20, 20)));
        assert!(breaker.is_open());
        assert_eq!(breaker.note(true, 20, true), None, "it opens once");
    }

    #[test]
    fn half_of_the_units_are_not_most() {
        let breaker = breaker();
        (0..1000).for_each(|u| assert_eq!(breaker.note(true, u, u % 2 == 0), None));
        assert!(!breaker.is_open());
    }

    #[test]
    fn a_fault_that_both_arms_share_does_not_open_it() {
        let breaker = breaker();
        (0..100).for_each(|u| {
            assert_eq!(breaker.note(false, u, true), None);
            assert_eq!(breaker.note(true, 1000 + u, true), None);
        });
        assert!(!breaker.is_open());
    }

    #[test]
    fn one_unit_that_asks_again_and_again_does_not_open_it() {
        let breaker = breaker();
        (0..20).for_each(|u| assert_eq!(breaker.note(true, u, false), None));
        (0..1000).for_each(|_| assert_eq!(breaker.note(true, 7, true), None));
        assert!(!breaker.is_open());
    }

    #[test]
    fn it_notices_a_fault_that_starts_later() {
        let breaker = breaker();
        (0..1000).for_each(|u| assert_eq!(breaker.note(true, u, false), None));
        let opened = (1000..1020).position(|u| breaker.note(true, u, true).is_some());
        assert_eq!(opened, Some(10), "the eleventh bad of the last twenty");
    }
}
