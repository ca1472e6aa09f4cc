//! Which units were seen, and which kinds of events they have met already.
//!
//! Exact, by 64-bit hash: at the largest number of units two of them share a hash with a probability below one in a million.

use lockgate_core::route::Role;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// How many units can be told apart.
#[cfg(not(test))]
pub(crate) const CAPACITY: usize = 4_000_000;
#[cfg(test)]
pub(crate) const CAPACITY: usize = 4_000;

/// How many kinds of events there are: the bits below.
pub(crate) const KINDS: usize = 12;

pub(crate) const ERROR: u16 = 1;
pub(crate) const REFUSED: u16 = 1 << 1;
/// Three bits, for three quantiles.
pub(crate) const SLOW_ROLLBACK: u16 = 1 << 2;
/// Three bits, for three quantiles.
pub(crate) const SLOW_PROMOTE: u16 = 1 << 5;
pub(crate) const SLOW_SLO: u16 = 1 << 8;
pub(crate) const REPEAT: u16 = 1 << 9;
/// The unit's first request in an arm had no good answer.
pub(crate) const FIRST_BAD: u16 = 1 << 10;
/// An answer that could not be looked at.
pub(crate) const UNEXAMINED: u16 = 1 << 11;
/// The unit was seen at all.
pub(crate) const SEEN: u16 = 1 << 12;

/// The unit was seen in this arm.
pub(crate) fn exposed(arm: Role) -> u16 {
    if arm == Role::Candidate { 1 << 13 } else { 1 << 14 }
}

/// A mirrored request of the unit was asked of the baseline again.
pub(crate) const SAMPLED: u16 = 1 << 15;

const SHARDS: usize = 64;

/// Units are hashes already.
#[derive(Debug, Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxhash_rust::xxh3::xxh3_64(bytes);
    }
    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

type Shard = Mutex<HashMap<u64, u16, BuildHasherDefault<AsIs>>>;

#[derive(Debug)]
pub(crate) struct Units {
    shards: Box<[Shard]>,
    count: AtomicUsize,
    saturated: AtomicBool,
}

impl Default for Units {
    fn default() -> Self {
        let shards = (0..SHARDS).map(|_| Shard::default()).collect();
        Self { shards, count: AtomicUsize::new(0), saturated: AtomicBool::new(false) }
    }
}

impl Units {
    pub(crate) fn is_saturated(&self) -> bool {
        self.saturated.load(Ordering::Relaxed)
    }

    /// Notes what a unit met; gives back the bits that are new for it. None once there are too many units: then nothing counts
    /// any more, in either arm.
    pub(crate) fn note(&self, unit: u64, named: bool, arm: Role, kinds: u16) -> Option<u16> {
        let bits = kinds | SEEN | exposed(arm);
        if self.is_saturated() {
            return None;
        }
        if !named {
            return Some(bits);
        }
        // The low bits choose the place in the map, the top ones tell entries apart there; so the shard takes others.
        let shard = self.shards.get((unit >> 40) as usize % SHARDS)?;
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        match shard.entry(unit) {
            Entry::Occupied(mut known) => {
                let fresh = bits & !*known.get();
                *known.get_mut() |= bits;
                Some(fresh)
            }
            Entry::Vacant(slot) => {
                if self.count.fetch_add(1, Ordering::Relaxed) >= CAPACITY {
                    self.saturated.store(true, Ordering::Relaxed);
                    return None;
                }
                slot.insert(bits);
                Some(bits)
            }
        }
    }
}
