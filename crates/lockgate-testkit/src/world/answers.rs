//! How a release answers.

use super::counts::Failure;
use crate::clock::Seeded;
use crate::script::Behaviour;
use lockgate_core::clock::Millis;

/// One answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answer {
    pub(crate) failure: Option<Failure>,
    /// It says that it can't just now (503): another side is asked.
    pub(crate) is_unavailable: bool,
    pub(crate) latency_us: u64,
    pub(crate) value: u64,
}

impl Answer {
    /// What somebody gets whom nobody answers.
    pub(crate) fn none() -> Self {
        Self { failure: Some(Failure::Unreachable), is_unavailable: false, latency_us: 0, value: 0 }
    }
}

/// How a release answers now, and what it did first. `common` is the chance of a bad answer that hits every release alike.
pub(crate) fn answer(
    behaviour: &Behaviour,
    common: f64,
    (now, first): (Millis, Millis),
    random: &Seeded,
) -> Answer {
    // A flapping release is bad for the first part of each period only.
    let in_bad_part = behaviour.flap.is_none_or(|(bad, period)| now.rem_euclid(period) < bad);
    let errors = if in_bad_part { behaviour.errors } else { 0.0 };
    let failure = if random.chance(errors) | random.chance(common) {
        Some(Failure::Error)
    } else if random.chance(behaviour.nan) {
        Some(Failure::NotANumber)
    } else if random.chance(behaviour.refuses) {
        Some(Failure::Refused)
    } else {
        None
    };
    // Latencies are skewed: most are near the median, a few take several times as long.
    let skew = 0.6 - 0.6 * (1.0 - random.unit()).ln();
    let mut latency_ms = behaviour.latency_ms * skew;
    if let Some((share, ms)) = behaviour.slow
        && random.chance(share)
    {
        latency_ms += ms as f64;
    }
    if let Some((span, ms)) = behaviour.cold
        && now - first < span
    {
        latency_ms += ms as f64;
    }
    let value = if behaviour.is_constant { 1 } else { random.next() | 2 };
    let is_unavailable = random.chance(behaviour.unavailable);
    Answer { failure, is_unavailable, latency_us: (latency_ms * 1000.0) as u64, value }
}
