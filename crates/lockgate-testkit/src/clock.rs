//! A clock that stands still until it is told, and randomness from a seed.

use lockgate_core::clock::{Clock, Entropy, Millis};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// A clock that goes only when it is told to.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// A clock that shows `now`.
    #[must_use]
    pub fn new(now: Millis) -> Self {
        Self(AtomicI64::new(now))
    }

    /// Lets it go on (or back) by `ms`.
    pub fn advance(&self, ms: Millis) {
        self.0.fetch_add(ms, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> Millis {
        self.0.load(Ordering::Relaxed)
    }
}

/// Random numbers from a seed (SplitMix64): the same ones every time. Not for secrets.
#[derive(Debug)]
pub struct Seeded(AtomicU64);

impl Seeded {
    /// Starts from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// The next 64 bits.
    pub fn next(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 up to, not including, 1.
    pub fn unit(&self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Whether something happens that has this chance.
    pub fn chance(&self, probability: f64) -> bool {
        self.unit() < probability
    }
}

impl Entropy for Seeded {
    fn fill(&self, buf: &mut [u8]) {
        for chunk in buf.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_goes_only_when_it_is_told() {
        let clock = ManualClock::new(5);
        assert_eq!(clock.now_ms(), 5);
        clock.advance(-2);
        assert_eq!(clock.now_ms(), 3);
    }

    #[test]
    fn a_seed_gives_the_same_numbers_every_time() {
        let (a, b) = (Seeded::new(7), Seeded::new(7));
        assert!((0..100).all(|_| a.next() == b.next()));
        let mean = (0..10_000).map(|_| a.unit()).sum::<f64>() / 10_000.0;
        assert!((mean - 0.5).abs() < 0.02, "{mean}");
        let mut bytes = [0; 11];
        a.fill(&mut bytes);
        assert_ne!(bytes, [0; 11]);
    }
}
