//! Requests: who asks, where each one goes, and who answers it. As in a gateway, a side that can't be reached is passed over.

use super::answers::{Answer, answer};
use super::counts::{Counting, Failure, Request};
use super::gateway::Routes;
use super::{TICK, World};
use crate::script::Behaviour;
use lockgate_core::clock::Millis;
use lockgate_core::digest::Digest;
use lockgate_core::route::WHOLE;

/// How often an agent looks, in milliseconds.
const AGENT_LOOKS: f64 = 50.0;

/// Who asks for predictions.
#[derive(Debug, Clone, Default)]
pub(crate) struct Demand {
    pub(crate) per_second: f64,
    pub(crate) users: Option<u64>,
    /// Nobody asks in the first part of each period.
    pub(crate) idle: Option<(Millis, Millis)>,
    /// Requests per second of one user whom the candidate always fails.
    pub(crate) heavy: f64,
    /// The chance that a request to the candidate is lost before it is counted.
    pub(crate) lost: f64,
    /// The chance that a client asks again when it got a bad answer.
    pub(crate) retries: f64,
    /// The chance of a bad answer that hits every release alike.
    pub(crate) incident: f64,
    /// Where that chance goes to in which time, and since when.
    pub(crate) drift: Option<Drift>,
}

/// A chance that changes steadily.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Drift {
    pub(crate) from: f64,
    pub(crate) to: f64,
    pub(crate) since: Millis,
    pub(crate) span: Millis,
}

impl Demand {
    fn common(&self, now: Millis) -> f64 {
        let Some(Drift { from, to, since, span }) = self.drift else { return self.incident };
        let done = ((now - since) as f64 / span as f64).clamp(0.0, 1.0);
        from + (to - from) * done
    }

    fn is_idle(&self, now: Millis) -> bool {
        self.idle.is_some_and(|(idle, period)| now.rem_euclid(period) < idle)
    }
}

/// What users met of one release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Requests that were assigned to it.
    pub requests: u64,
    /// Those among them that it failed, whoever answered them in the end.
    pub failed: u64,
    /// Bad answers of it that users got.
    pub bad_answers: u64,
    /// When users got the first one.
    pub first_bad: Option<Millis>,
}

/// Whose request it is.
#[derive(Debug, Clone, Copy)]
struct Unit {
    number: u64,
    named: bool,
    /// Whether the candidate always fails it.
    unlucky: bool,
}

impl World {
    /// One tick of requests.
    pub(crate) fn requests(&mut self) {
        let ticks = |per_second: f64| per_second * TICK as f64 / 1000.0;
        let asked = if self.demand.is_idle(self.now) { 0.0 } else { ticks(self.demand.per_second) };
        for _ in 0..self.whole(asked) {
            let number = match self.demand.users {
                Some(users) => self.random.next() % users,
                None => {
                    self.units += 1;
                    (1 << 32) + self.units
                }
            };
            let named = self.demand.users.is_some() || self.demand.retries > 0.0;
            let unit = Unit { number, named, unlucky: false };
            // Nobody asks for ever.
            for _ in 0..10 {
                if !self.request(unit) || !self.random.chance(self.demand.retries) {
                    break;
                }
            }
        }
        let split = self.gateways.first().and_then(|g| g.applied.routes.split.clone());
        if let Some((_, weight, salt)) = split.filter(|_| self.demand.heavy > 0.0) {
            let mut places = (1_u64 << 40)..;
            let number = places.find(|u| (self.parts.assign)(salt.as_bytes(), &u.to_le_bytes(), weight));
            let unit = Unit { number: number.unwrap_or_default(), named: true, unlucky: true };
            for _ in 0..self.whole(ticks(self.demand.heavy)) {
                self.request(unit);
            }
        }
    }

    /// A whole number whose mean is `expected`.
    fn whole(&self, expected: f64) -> u64 {
        expected as u64 + u64::from(self.random.chance(expected.fract()))
    }

    /// One request; gives back whether its answer was bad.
    fn request(&mut self, unit: Unit) -> bool {
        let gateway = (self.random.next() % self.gateways.len() as u64) as usize;
        let routes = self.gateways[gateway].applied.routes.clone();
        let open = self
            .counting
            .as_ref()
            .is_some_and(|(salt, c)| routes.split.as_ref().is_some_and(|(.., s)| s == salt) && c.is_open());
        let split = routes.split.clone().filter(|_| !open);
        let drawn = split.as_ref().filter(|(_, weight, salt)| {
            (self.parts.assign)(salt.as_bytes(), &unit.number.to_le_bytes(), *weight)
        });
        let Some(release) = drawn.map(|(release, ..)| *release).or(routes.main) else {
            // Before the first table there is nothing that could answer.
            self.unanswered += u64::from(self.gateways[gateway].applied.epoch > 0);
            return false;
        };
        let is_candidate = drawn.is_some();
        let mut given = self.answered(&release, &routes);
        if unit.unlucky && is_candidate {
            (given.own, given.is_bad) = (Some(Failure::Error), true);
        }
        self.note(release, &given);
        let is_bad = given.is_bad;
        let Some((candidate, weight, salt)) = split else { return is_bad };
        let is_counted = self.is_counted(routes.main, candidate);
        let shadow = routes.shadow;
        if shadow > 0 {
            if is_counted {
                self.mirror((candidate, &salt), shadow, unit, release, &given);
            }
            return is_bad;
        }
        self.check_sticky(unit.number, weight, &salt, is_candidate);
        let drawn = self.drawn.entry(weight).or_default();
        drawn.0 += 1;
        drawn.1 += u64::from(is_candidate);
        if is_counted && !(is_candidate && self.random.chance(self.demand.lost)) {
            self.count(weight, &salt, unit, (is_candidate, false), &given);
        }
        is_bad
    }

    /// What a request that is assigned to `release` gets: of it, or else of what serves, or else of the backup.
    fn answered(&mut self, release: &Digest, routes: &Routes) -> Given {
        let mut own = None;
        for side in [Some(*release), routes.main, routes.backup].into_iter().flatten() {
            let is_own = side == *release;
            if !is_own && own.is_none() {
                continue;
            }
            let Some(behaviour) = self.by_digest(&side).map(|r| r.behaviour.clone()) else { continue };
            if !self.is_up(&side) {
                own = own.or(Some(Failure::Unreachable));
                continue;
            }
            let answer = self.answer_of(&behaviour, side);
            // A side that says that it can't is asked no more where another one can.
            let others = [routes.main, routes.backup].into_iter().flatten().any(|s| s != side);
            if answer.is_unavailable && is_own && others {
                own = Some(Failure::Error);
                continue;
            }
            let failure = answer.failure.or(answer.is_unavailable.then_some(Failure::Error));
            let own = if is_own { failure } else { own };
            return Given { own, is_bad: failure.is_some(), by: Some(side), answer };
        }
        self.unanswered += 1;
        Given { own: Some(Failure::Unreachable), is_bad: true, by: None, answer: Answer::none() }
    }

    fn answer_of(&mut self, behaviour: &Behaviour, release: Digest) -> Answer {
        let first = *self.first_sent.entry(release).or_insert(self.now);
        self.last_sent.insert(release, self.now);
        answer(behaviour, self.demand.common(self.now), (self.now, first), &self.random)
    }

    /// Whether a release's workers can be reached.
    fn is_up(&self, release: &Digest) -> bool {
        self.by_digest(release).is_some_and(super::Release::is_up)
    }

    /// Whether a request is evidence: not while a side is known to be unable to serve. An agent that looks every 50 ms has not
    /// seen yet what happened in this tick, for a part of it.
    fn is_counted(&self, main: Option<Digest>, candidate: Digest) -> bool {
        let mut sides = main.into_iter().chain([candidate]);
        let is_new = sides.clone().all(|side| self.seen_up.contains(&side));
        sides.all(|side| self.is_up(&side)) || (is_new && self.random.chance(AGENT_LOOKS / TICK as f64))
    }

    fn note(&mut self, release: Digest, given: &Given) {
        let now = self.now;
        let total = self.totals.entry(release).or_default();
        total.requests += 1;
        total.failed += u64::from(given.own.is_some());
        if let Some(by) = given.by.filter(|_| given.is_bad) {
            let total = self.totals.entry(by).or_default();
            total.bad_answers += 1;
            total.first_bad.get_or_insert(now);
        }
    }

    /// Asks the candidate what a user asked, and for one in four the baseline once more. Nobody gets these answers.
    fn mirror(
        &mut self,
        (candidate, salt): (Digest, &str),
        share: u32,
        unit: Unit,
        baseline: Digest,
        given: &Given,
    ) {
        let behaviour = |of: &Digest| self.by_digest(of).map(|r| r.behaviour.clone());
        let (Some(behaviour), Some(usual)) = (behaviour(&candidate), behaviour(&baseline)) else { return };
        if !self.random.chance(f64::from(share) / f64::from(WHOLE)) {
            return;
        }
        let answer = self.answer_of(&behaviour, candidate);
        let noise = self.random.chance(usual.noise);
        let [differs, again] = [behaviour.differs.max(behaviour.noise), usual.noise]
            .map(|chance| self.random.chance(chance) || noise);
        let is_sampled = given.own.is_none() && self.random.chance(0.25);
        let failure = answer.failure.or(answer.is_unavailable.then_some(Failure::Error));
        let mirrored = Given { own: failure, is_bad: failure.is_some(), by: Some(candidate), answer };
        if let Some(counting) = self.counting_of(salt).filter(|_| is_sampled) {
            counting.compared(differs || mirrored.is_bad, again);
        }
        self.count(share, salt, unit, (false, true), given);
        self.count(share, salt, unit, (true, true), &mirrored);
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

    fn counting_of(&mut self, salt: &str) -> Option<&mut (dyn Counting + 'static)> {
        if self.counting.as_ref().is_none_or(|(known, _)| known != salt) {
            self.counting = Some((salt.to_owned(), (self.parts.counting)(salt)));
        }
        self.counting.as_mut().map(|(_, counting)| &mut **counting)
    }

    fn count(
        &mut self,
        weight: u32,
        salt: &str,
        unit: Unit,
        (is_candidate, is_mirrored): (bool, bool),
        given: &Given,
    ) {
        if self.are_counts_frozen {
            return;
        }
        let request = Request {
            weight,
            is_candidate,
            is_mirrored,
            // Mixed, as a gateway's hash of the unit is.
            unit: unit.number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29),
            named: unit.named,
            started_us: u64::try_from(self.now - super::BEGINNING).unwrap_or(0) * 1000,
            latency_us: given.answer.latency_us,
            failure: given.own,
            answer: given.own.is_none().then_some(given.answer.value),
        };
        if let Some(counting) = self.counting_of(salt) {
            counting.record(&request);
        }
    }
}

/// What a request got.
struct Given {
    /// How the side that it was assigned to failed it.
    own: Option<Failure>,
    /// Whether the user got a bad answer, or none.
    is_bad: bool,
    /// Who answered.
    by: Option<Digest>,
    answer: Answer,
}
