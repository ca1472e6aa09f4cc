//! Requests, and how a release answers them.

use crate::clock::Seeded;
use crate::script::Behaviour;
use lockgate_core::clock::Millis;

/// One answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answer {
    pub(crate) bad: bool,
    pub(crate) latency_us: u64,
    pub(crate) value: u64,
}

/// How a release answers now. `common` is the chance of a bad answer that hits every release alike.
pub(crate) fn answer(behaviour: &Behaviour, common: f64, now: Millis, random: &Seeded) -> Answer {
    // A flapping release is bad for the first part of each period only.
    let in_bad_part = behaviour.flap.is_none_or(|(bad, period)| now.rem_euclid(period) < bad);
    let errors = if in_bad_part { behaviour.errors } else { 0.0 };
    let own = random.chance(errors) | random.chance(behaviour.nan);
    let shared = random.chance(common);
    // Latencies are skewed: most are near the median, a few take several times as long.
    let skew = 0.6 - 0.6 * (1.0 - random.unit()).ln();
    let latency_us = (behaviour.latency_ms * 1000.0 * skew) as u64;
    let value = if behaviour.is_constant { 1 } else { random.next() | 2 };
    Answer { bad: own || shared || behaviour.is_down, latency_us, value }
}
