//! Randomness on the hot path: one generator per thread, seeded from the gateway's [`Entropy`]. For ids and for requests
//! without a unit.
//!
//! Whoever knows a prediction's id may say what came of it, so nobody must be able to compute one from others. ChaCha12 makes
//! them as nobody can who does not have the seed, at the price of some nanoseconds: four blocks at a time.

use chacha20::ChaCha12Rng;
use chacha20::rand_core::{Rng as _, SeedableRng as _};
use lockgate_core::clock::{Entropy, Millis};
use lockgate_core::id::ulid;
use std::cell::RefCell;

/// A thread's generator.
pub(crate) struct Random(RefCell<ChaCha12Rng>);

/// Bytes that were drawn before.
struct Drawn([u8; 16]);

impl Entropy for Drawn {
    fn fill(&self, buf: &mut [u8]) {
        for (slot, byte) in buf.iter_mut().zip(self.0) {
            *slot = byte;
        }
    }
}

impl Random {
    pub(crate) fn new(entropy: &dyn Entropy) -> Self {
        let mut seed = [0; 32];
        entropy.fill(&mut seed);
        Self(RefCell::new(ChaCha12Rng::from_seed(seed)))
    }

    pub(crate) fn next(&self) -> u64 {
        self.0.borrow_mut().next_u64()
    }

    /// A new prediction's id.
    pub(crate) fn ulid(&self, now: Millis) -> String {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.next().to_le_bytes());
        bytes[8..].copy_from_slice(&self.next().to_le_bytes());
        ulid(now, &Drawn(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::time::Instant;

    struct Same(u8);

    impl Entropy for Same {
        fn fill(&self, buf: &mut [u8]) {
            buf.fill(self.0);
        }
    }

    #[test]
    fn the_whole_seed_decides_and_it_alone() {
        let first = |seed: u8| Random::new(&Same(seed)).ulid(7);
        assert_eq!(first(1), first(1));
        assert_ne!(first(1), first(2));
        // RFC 8439's block function with 12 rounds and a key of zeros (Strombergson's vectors, TC1): the generator is what it says.
        let random = Random::new(&Same(0));
        let bytes: Vec<u8> = (0..2).flat_map(|_| random.next().to_le_bytes()).collect();
        assert_eq!(
            bytes,
            [0x9b, 0xf4, 0x9a, 0x6a, 0x07, 0x55, 0xf9, 0x53, 0x81, 0x1f, 0xce, 0x12, 0x5f, 0x26, 0x83, 0xd5]
        );
    }

    #[test]
    fn ids_are_all_different_and_cost_little() {
        let random = Random::new(&Same(3));
        let begun = Instant::now();
        let ids: HashSet<String> = (0..100_000).map(|_| random.ulid(1)).collect();
        assert_eq!(ids.len(), 100_000);
        // A hundredth of what a prediction costs, even unoptimised.
        assert!(begun.elapsed().as_micros() < 100_000 * 50, "{:?}", begun.elapsed());
    }
}
