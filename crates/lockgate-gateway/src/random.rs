//! Randomness on the hot path: one generator per thread, seeded from the gateway's [`Entropy`]. For ids and for requests
//! without a unit; nothing secret hangs on it.

use lockgate_core::clock::{Entropy, Millis};
use lockgate_core::id::ulid;
use std::cell::Cell;

/// SplitMix64 (Steele, Lea & Flood, OOPSLA 2014).
#[derive(Debug)]
pub(crate) struct Random(Cell<u64>);

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
        let mut seed = [0; 8];
        entropy.fill(&mut seed);
        Self(Cell::new(u64::from_le_bytes(seed)))
    }

    pub(crate) fn next(&self) -> u64 {
        let state = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.set(state);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A new prediction's id.
    pub(crate) fn ulid(&self, now: Millis) -> String {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.next().to_le_bytes());
        bytes[8..].copy_from_slice(&self.next().to_le_bytes());
        ulid(now, &Drawn(bytes))
    }
}
