//! Requests, and how a release answers them.

use super::counts::{Meter, Outcome};
use super::{TICK, World};
use crate::clock::Seeded;
use crate::script::Behaviour;
use lockgate_core::clock::Millis;
use lockgate_core::digest::Digest;
use lockgate_core::route::WHOLE;

/// Who asks for predictions.
#[derive(Debug, Clone, Default)]
pub(crate) struct Demand {
    pub(crate) per_second: f64,
    pub(crate) users: Option<u64>,
    /// Requests per second of one user whom the candidate always fails.
    pub(crate) heavy: f64,
    /// The chance that a request to the candidate is lost before it is counted.
    pub(crate) lost: f64,
    /// The chance of a bad answer that hits every release alike.
    pub(crate) incident: f64,
}

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

impl World {
    /// One tick of requests.
    pub(crate) fn requests(&mut self) {
        let ticks = |per_second: f64| per_second * TICK as f64 / 1000.0;
        for _ in 0..self.whole(ticks(self.demand.per_second)) {
            let unit = match self.demand.users {
                Some(users) => self.random.next() % users,
                None => {
                    self.units += 1;
                    (1 << 32) + self.units
                }
            };
            self.request(unit, false);
        }
        let split = self.gateways.first().and_then(|g| g.applied.routes.split.clone());
        if let Some((_, weight, salt)) = split.filter(|_| self.demand.heavy > 0.0) {
            let mut places = (1_u64 << 40)..;
            let unit = places.find(|u| (self.parts.assign)(salt.as_bytes(), &u.to_le_bytes(), weight));
            for _ in 0..self.whole(ticks(self.demand.heavy)) {
                self.request(unit.unwrap_or_default(), true);
            }
        }
    }

    /// A whole number whose mean is `expected`.
    fn whole(&self, expected: f64) -> u64 {
        expected as u64 + u64::from(self.random.chance(expected.fract()))
    }

    fn request(&mut self, unit: u64, always_bad: bool) {
        let gateway = (self.random.next() % self.gateways.len() as u64) as usize;
        let routes = &self.gateways[gateway].applied.routes;
        let split = routes.split.as_ref();
        let drawn = split
            .filter(|(_, weight, salt)| (self.parts.assign)(salt.as_bytes(), &unit.to_le_bytes(), *weight));
        let Some(release) = drawn.map(|(release, ..)| *release).or(routes.main) else {
            // Before the first table there is nothing that could answer.
            self.unanswered += u64::from(self.gateways[gateway].applied.epoch > 0);
            return;
        };
        let (split, is_candidate, has_backup) = (split.cloned(), drawn.is_some(), routes.backup.is_some());
        let Some(behaviour) = self.by_digest(&release).map(|r| r.behaviour.clone()) else { return };
        let mut given = answer(&behaviour, self.demand.incident, self.now, &self.random);
        given.bad |= always_bad && is_candidate;
        let total = self.totals.entry(release).or_default();
        total.0 += 1;
        total.1 += u64::from(given.bad);
        self.unanswered += u64::from(given.bad && !has_backup && behaviour.is_down);
        self.last_sent.insert(release, self.now);
        let Some((candidate, weight, salt)) = split else { return };
        if self.gateways[gateway].applied.routes.shadow > 0 {
            self.mirror((candidate, &salt), gateway, unit, &behaviour, given);
            return;
        }
        self.check_sticky(unit, weight, &salt, is_candidate);
        if is_candidate && self.random.chance(self.demand.lost) {
            return;
        }
        let outcome = Outcome {
            unit,
            candidate: is_candidate,
            bad: given.bad,
            latency_us: given.latency_us,
            answer: given.value,
        };
        self.count(weight, &salt, outcome, false);
    }

    /// Asks the candidate what a user asked, and for one in four the baseline once more. Nobody gets these answers.
    fn mirror(
        &mut self,
        (candidate, salt): (Digest, &str),
        gateway: usize,
        unit: u64,
        baseline: &Behaviour,
        given: Answer,
    ) {
        let share = self.gateways[gateway].applied.routes.shadow;
        let Some(behaviour) = self.by_digest(&candidate).map(|r| r.behaviour.clone()) else { return };
        if !self.random.chance(f64::from(share) / f64::from(WHOLE)) {
            return;
        }
        let mirrored = answer(&behaviour, self.demand.incident, self.now, &self.random);
        self.last_sent.insert(candidate, self.now);
        let usual = self.random.chance(baseline.noise);
        let [differs, again] = [behaviour.differs.max(behaviour.noise), baseline.noise]
            .map(|chance| self.random.chance(chance) || usual);
        let is_sampled = !given.bad && self.random.chance(0.25);
        let Some(meter) = self.meter_of(salt).map(Meter::mirrored) else { return };
        if is_sampled {
            let place = 1 + usize::from(again) - usize::from(differs || mirrored.bad);
            meter.samples[place] += 1;
        }
        for (candidate, given) in [(false, given), (true, mirrored)] {
            let unit = unit ^ (u64::from(candidate) << 63);
            let Answer { bad, latency_us, value } = given;
            self.count(share, salt, Outcome { unit, candidate, bad, latency_us, answer: value }, true);
        }
    }

    /// A user who got the candidate keeps it while the weight doesn't fall (I12).
    fn check_sticky(&mut self, unit: u64, weight: u32, salt: &str, is_candidate: bool) {
        if self.demand.users.is_none() {
            return;
        }
        let before = self.assigned.insert(unit, (salt.to_owned(), weight, is_candidate));
        let moved = before.is_some_and(|(s, w, was)| s == salt && w <= weight && was && !is_candidate);
        self.moved_back += u64::from(moved);
    }

    fn meter_of(&mut self, salt: &str) -> Option<&mut Meter> {
        if self.meter.as_ref().is_none_or(|m| m.salt != salt) {
            self.meter = Some(Meter::new(salt));
        }
        self.meter.as_mut()
    }

    fn count(&mut self, weight: u32, salt: &str, outcome: Outcome, is_shadow: bool) {
        let active = self.agent.deployment.active.as_ref().filter(|a| a.promotion.as_str() == salt);
        let Some(plan) = active.map(|a| a.plan.rollout.clone()) else { return };
        let Some(meter) = self.meter_of(salt) else { return };
        let meter = if is_shadow { meter.mirrored() } else { meter };
        meter.record(weight, &plan, outcome);
    }
}
