//! How often requests may be tried again: a share of recent requests, and a floor, so that a variant that fails everything
//! isn't asked twice as much for it, while a worker's sudden death can be made good for all that it was working on.
//!
//! Only attempts that reached a worker count: a refused connection costs nobody anything.

use std::cell::Cell;
use std::time::Instant;

const SHARE: f64 = 0.2;
const FLOOR_PER_SECOND: f64 = 50.0;
const CAP: f64 = 1000.0;
const START: f64 = 256.0;

#[derive(Debug)]
pub(crate) struct Budget {
    tokens: Cell<f64>,
    refilled: Cell<Instant>,
}

impl Budget {
    pub(crate) fn new(now: Instant) -> Self {
        Self { tokens: Cell::new(START), refilled: Cell::new(now) }
    }

    /// Counts a request.
    pub(crate) fn request(&self) {
        self.tokens.set((self.tokens.get() + SHARE).min(CAP));
    }

    /// Takes one retry, if there is one.
    pub(crate) fn retry(&self, now: Instant) -> bool {
        let seconds = now.saturating_duration_since(self.refilled.get()).as_secs_f64();
        self.refilled.set(now);
        let tokens = (self.tokens.get() + seconds * FLOOR_PER_SECOND).min(CAP);
        let granted = tokens >= 1.0;
        self.tokens.set(if granted { tokens - 1.0 } else { tokens });
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn retries_are_a_share_of_requests_above_a_floor() {
        let start = Instant::now();
        let budget = Budget::new(start);
        let drained = (0..10_000).take_while(|_| budget.retry(start)).count();
        assert_eq!(drained, START as usize);
        (0..100).for_each(|_| budget.request());
        assert!(matches!((0..100).filter(|_| budget.retry(start)).count(), 19 | 20));
        let later = start + Duration::from_secs(1);
        assert_eq!((0..100).filter(|_| budget.retry(later)).count(), FLOOR_PER_SECOND as usize);
        (0..1_000_000).for_each(|_| budget.request());
        assert_eq!((0..10_000).filter(|_| budget.retry(later)).count(), CAP as usize);
    }
}
