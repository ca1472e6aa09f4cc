//! Latencies as counts in fixed buckets that add up over gateways and seconds.
//!
//! Bucket edges are part of the format and never change: single microseconds below 128, then 64 buckets to each doubling (at
//! most 1.6 % wide) up to 2^30 µs (1073 s), then one for all that is slower. So counts at an edge are exact, and the tests of
//! [`crate::latency`] stay exact too. A gateway keeps an array of [`BUCKETS`] atomics and calls [`bucket`].

use crate::StatsError;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Buckets to a doubling, as a power of two.
const SUB_BITS: u32 = 6;
/// Below this, a bucket is one microsecond.
const LINEAR: u64 = 1 << (SUB_BITS + 1);
/// From this on, one bucket holds everything.
const LIMIT_BITS: u32 = 30;
/// Latencies from here on (1073 s) are all in the last bucket.
pub const LIMIT_US: u64 = 1 << LIMIT_BITS;
/// How many buckets there are.
pub const BUCKETS: usize = bucket(LIMIT_US) + 1;

/// The bucket of a latency in microseconds, below [`BUCKETS`]. A few instructions; no allocation.
#[must_use]
pub const fn bucket(us: u64) -> usize {
    if us < LINEAR {
        return us as usize;
    }
    let us = if us > LIMIT_US { LIMIT_US } else { us };
    let octave = us.ilog2();
    let shift = octave - SUB_BITS;
    // us >> shift lies in 64..128.
    (((octave - SUB_BITS) as u64) << SUB_BITS) as usize + (us >> shift) as usize
}

/// The smallest latency of a bucket. Buckets past the last have the last one's.
#[must_use]
pub const fn lower_edge(bucket: usize) -> u64 {
    if bucket < LINEAR as usize {
        return bucket as u64;
    }
    if bucket >= BUCKETS {
        return LIMIT_US;
    }
    let octave_steps = (bucket >> SUB_BITS) - 1;
    let sub = (bucket as u64 & ((1 << SUB_BITS) - 1)) | (1 << SUB_BITS);
    sub << octave_steps
}

/// The largest latency of a bucket; `u64::MAX` for the last one.
#[must_use]
pub const fn upper_edge(bucket: usize) -> u64 {
    if bucket + 1 >= BUCKETS { u64::MAX } else { lower_edge(bucket + 1) - 1 }
}

/// The nearest threshold that is not below `us` and at which [`Histogram::count_above`] is exact.
#[must_use]
pub const fn edge_at_or_above(us: u64) -> u64 {
    upper_edge(bucket(us))
}

/// The nearest threshold that is not above `us` and at which [`Histogram::count_above`] is exact.
#[must_use]
pub const fn edge_at_or_below(us: u64) -> u64 {
    let index = bucket(us);
    if upper_edge(index) == us || index == 0 { us } else { lower_edge(index) - 1 }
}

/// Counts by bucket. Serialises as `[[bucket, count], …]`, without the empty ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram {
    /// Always [`BUCKETS`] long.
    counts: Box<[u64]>,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS].into_boxed_slice() }
    }
}

impl Histogram {
    /// An empty histogram.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// From the counts of all buckets, as a gateway keeps them.
    ///
    /// # Errors
    /// Not exactly [`BUCKETS`] counts.
    pub fn from_counts(counts: Vec<u64>) -> Result<Self, StatsError> {
        if counts.len() == BUCKETS {
            return Ok(Self { counts: counts.into_boxed_slice() });
        }
        Err(StatsError::Histogram { reason: format!("{} buckets and not {BUCKETS}", counts.len()) })
    }

    /// Counts one latency.
    pub fn record(&mut self, us: u64) {
        if let Some(count) = self.counts.get_mut(bucket(us)) {
            *count = count.saturating_add(1);
        }
    }

    /// Adds another histogram's counts.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count = count.saturating_add(*more);
        }
    }

    /// Counts by bucket; [`lower_edge`] and [`upper_edge`] say which latencies.
    #[must_use]
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// How many latencies were counted.
    #[must_use]
    pub fn total(&self) -> u64 {
        saturating_sum(&self.counts)
    }

    /// How many were slower than `us`: exact for a threshold from [`edge_at_or_above`] or [`edge_at_or_below`], else as if
    /// the threshold were the next edge above. Thresholds past [`LIMIT_US`] can't be told apart and have nothing above.
    #[must_use]
    pub fn count_above(&self, us: u64) -> u64 {
        saturating_sum(self.counts.get(bucket(us) + 1..).unwrap_or_default())
    }

    /// The latency that a share `q` of all doesn't exceed, rounded up to its bucket's edge (at most 1.6 %). A quantile among
    /// those past [`LIMIT_US`] is given as [`LIMIT_US`]. None without latencies, or for a `q` outside 0 to 1.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<u64> {
        let total = self.total();
        if total == 0 || !(0.0..=1.0).contains(&q) {
            return None;
        }
        let rank = ((q * total as f64).ceil() as u64).clamp(1, total);
        let mut below = 0_u64;
        let index = self.counts.iter().position(|&count| {
            below = below.saturating_add(count);
            below >= rank
        })?;
        Some(upper_edge(index).min(LIMIT_US))
    }
}

fn saturating_sum(counts: &[u64]) -> u64 {
    counts.iter().fold(0, |sum, &count| sum.saturating_add(count))
}

impl Serialize for Histogram {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.counts.iter().enumerate().filter(|(_, count)| **count > 0))
    }
}

impl<'de> Deserialize<'de> for Histogram {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut histogram = Self::new();
        let mut next = 0;
        for (index, count) in Vec::<(usize, u64)>::deserialize(deserializer)? {
            if index < next {
                return Err(D::Error::custom(format_args!(
                    "histogram bucket {index} is out of order or given twice"
                )));
            }
            next = index.saturating_add(1);
            match histogram.counts.get_mut(index) {
                Some(slot) => *slot = count,
                None => {
                    return Err(D::Error::custom(format_args!(
                        "histogram bucket {index} doesn't exist; the last is {}",
                        BUCKETS - 1
                    )));
                }
            }
        }
        Ok(histogram)
    }
}
