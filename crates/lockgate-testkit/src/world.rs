//! A whole installation in memory: one server, one agent, its gateways, their traffic. It goes on by [`World::run`] only.

mod agent;
mod counts;
mod gateway;
mod place;
mod server;
mod traffic;
mod words;

pub use counts::{Counts, Evidence, Judge, Weighed};

use crate::clock::Seeded;
use crate::script::{Behaviour, Environment, GateResult, KillPoint};
use agent::{Agent, Surroundings, Wish};
use counts::{Meter, Outcome};
use gateway::Gateway;
use lockgate_core::clock::Millis;
use lockgate_core::digest::Digest;
use lockgate_core::event::{Instruction, InstructionKind, RolloutEvent};
use lockgate_core::gate::Outcome as GateOutcome;
use lockgate_core::id::{CommandId, PrincipalId, PromotionId};
use lockgate_core::promotion::{Command, Stage};
use place::Place;
use serde::{Deserialize, Serialize};
use server::Server;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// How far one tick goes.
const TICK: Millis = 250;

/// How long the simulated gates run.
const GATES_TAKE: Millis = 5_000;

/// When the world begins: 2026-11-24T00:00:00Z.
const BEGINNING: Millis = 1_795_478_400_000;

/// Whether a unit belongs to the candidate: salt, unit, weight in parts of 10,000.
pub type Assign = fn(&[u8], &[u8], u32) -> bool;

/// The real parts that the world is built around; handed in, so that this crate builds without the data plane.
#[derive(Debug, Clone, Copy)]
pub struct Parts {
    /// From counts to verdicts.
    pub judge: Judge,
    /// From units to arms.
    pub assign: Assign,
}

/// One line of the agent's journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Whose rollout.
    pub promotion: PromotionId,
    /// What happened.
    pub event: RolloutEvent,
    /// When, by the agent's clock.
    pub at: Millis,
}

/// A release that the script made.
#[derive(Debug, Clone)]
pub(crate) struct Release {
    pub(crate) name: String,
    pub(crate) digest: Digest,
    pub(crate) version: u64,
    pub(crate) authors: BTreeSet<PrincipalId>,
    pub(crate) gates: GateResult,
    pub(crate) behaviour: Behaviour,
}

/// Who asks for predictions.
#[derive(Debug, Clone, Default)]
struct Demand {
    per_second: f64,
    users: Option<u64>,
    /// Requests per second of one user whom the candidate always fails.
    heavy: f64,
    /// The chance that a request to the candidate is lost before it is counted.
    lost: f64,
    /// The chance of a bad answer that hits every release alike.
    incident: f64,
}

/// The world.
#[derive(Debug)]
pub struct World {
    now: Millis,
    parts: Parts,
    random: Seeded,
    place: Place,
    releases: BTreeMap<String, Release>,
    server: Server,
    agent: Agent,
    gateways: Vec<Gateway>,
    meter: Option<Meter>,
    demand: Demand,
    units: u64,
    /// Requests and bad answers by release, and when the last one was sent.
    totals: BTreeMap<Digest, (u64, u64)>,
    last_sent: BTreeMap<Digest, Millis>,
    unanswered: u64,
    /// The last salt, weight and arm of every user who comes again.
    assigned: HashMap<u64, (String, u32, bool)>,
    moved_back: u64,
    stages: BTreeMap<PromotionId, String>,
    told: Vec<String>,
}

impl World {
    /// A world with one environment, in which nothing serves yet.
    ///
    /// # Errors
    /// Where the environment makes no sense.
    pub fn new(environment: Environment, seed: u64, parts: Parts) -> Result<Self, String> {
        let place = Place::new(environment);
        let gateways = (0..place.gateways()).map(|_| Gateway::default()).collect();
        Ok(Self {
            now: BEGINNING,
            parts,
            random: Seeded::new(seed),
            place,
            releases: BTreeMap::new(),
            server: Server::new(),
            agent: Agent::new()?,
            gateways,
            meter: None,
            demand: Demand::default(),
            units: 0,
            totals: BTreeMap::new(),
            last_sent: BTreeMap::new(),
            unanswered: 0,
            assigned: HashMap::new(),
            moved_back: 0,
            stages: BTreeMap::new(),
            told: Vec::new(),
        })
    }

    /// Makes a release. The same `bytes` make the same release again.
    pub(crate) fn release(
        &mut self,
        name: &str,
        bytes: &str,
        author: PrincipalId,
        gates: GateResult,
        behaviour: Behaviour,
    ) {
        let version = self.releases.len() as u64 + 1;
        let (name, digest) = (name.to_owned(), Digest::of(bytes.as_bytes()));
        let release =
            Release { name: name.clone(), digest, version, authors: [author].into(), gates, behaviour };
        self.releases.insert(name, release);
    }

    pub(crate) fn behaviour(&mut self, name: &str) -> Result<&mut Behaviour, String> {
        let found = self.releases.get_mut(name).ok_or_else(|| format!("there is no release {name}"))?;
        Ok(&mut found.behaviour)
    }

    pub(crate) fn demand(&mut self, per_second: f64, users: Option<u64>) {
        (self.demand.per_second, self.demand.users) = (per_second, users);
    }

    pub(crate) fn heavy(&mut self, per_second: f64) {
        self.demand.heavy = per_second;
    }

    pub(crate) fn lose(&mut self, chance: f64) {
        self.demand.lost = chance;
    }

    pub(crate) fn incident(&mut self, chance: f64) {
        self.demand.incident = chance;
    }

    pub(crate) fn gateway(&mut self, number: usize) -> Result<&mut Gateway, String> {
        let found = number.checked_sub(1).and_then(|n| self.gateways.get_mut(n));
        found.ok_or_else(|| format!("there is no gateway {number}"))
    }

    pub(crate) fn set_server(&mut self, is_up: bool) {
        self.server.is_up = is_up;
    }

    pub(crate) fn kill(&mut self, point: KillPoint) {
        if point == KillPoint::Now {
            self.agent.die(self.now);
        } else {
            self.agent.armed = Some(point);
        }
    }

    pub(crate) fn jump(&mut self, by: Millis) {
        self.agent.offset += by;
    }

    pub(crate) fn ask(&mut self, name: &str, by: &PrincipalId) -> Result<PromotionId, String> {
        let release = self.releases.get(name).ok_or_else(|| format!("there is no release {name}"))?;
        let backup = match self.place.backup() {
            Some(name) => {
                Some(self.releases.get(name).ok_or_else(|| format!("there is no release {name}"))?.digest)
            }
            None => None,
        };
        self.server.ask(&self.place, release, backup, by, self.now)
    }

    /// Carries a command out; `stale` takes the plan as somebody saw it before.
    pub(crate) fn approve(
        &mut self,
        id: &PromotionId,
        by: PrincipalId,
        human: bool,
        stale: bool,
    ) -> Result<(), String> {
        let promotion =
            self.server.promotions.get(id).ok_or_else(|| format!("there is no promotion {id}"))?;
        let plan_hash = if stale { Digest::of(b"the plan as it was") } else { promotion.plan_hash };
        self.command(id, &Command::Approve { by, human, plan_hash })
    }

    pub(crate) fn command(&mut self, id: &PromotionId, command: &Command) -> Result<(), String> {
        self.server.command(id, command, self.now)
    }

    pub(crate) fn tell(
        &mut self,
        id: &PromotionId,
        kind: InstructionKind,
        by: PrincipalId,
        reason: &str,
    ) -> Result<(), String> {
        let first = CommandId::new(format!("cm_{:026}", 0)).map_err(|e| format!("{e:?}"))?;
        let instruction = Instruction { id: first, kind, by, reason: reason.to_owned() };
        self.server.instruct(id, instruction, self.now)
    }

    /// Lets the world go on.
    ///
    /// # Errors
    /// Where a state can't be stored or read again.
    pub fn run(&mut self, span: Millis) -> Result<(), String> {
        for _ in 0..span / TICK {
            self.tick()?;
        }
        Ok(())
    }

    fn tick(&mut self) -> Result<(), String> {
        self.now += TICK;
        let now = self.now;
        self.gateways.iter_mut().for_each(|g| g.tick(now));
        self.requests();
        if self.server.is_up {
            self.run_gates()?;
            self.server.advance(now);
            if self.agent.is_alive() {
                self.agent.wishes = self.wishes();
            }
        }
        let mut around = Surroundings {
            now,
            gateways: &mut self.gateways,
            meter: self.meter.as_mut(),
            releases: &self.releases,
            last_sent: &self.last_sent,
            judge: self.parts.judge,
        };
        self.agent.tick(&mut around)?;
        if self.server.is_up && self.agent.is_alive() {
            let news = self.agent.journal(self.server.reported)?;
            self.server.take_report(&news, now);
        }
        self.tell_news();
        Ok(())
    }

    fn run_gates(&mut self) -> Result<(), String> {
        let due: Vec<(PromotionId, GateResult)> = self
            .server
            .promotions
            .values()
            .filter(|p| p.stage == Stage::Gating && self.now - p.since >= GATES_TAKE)
            .filter_map(|p| Some((p.id.clone(), self.by_digest(&p.plan.revision.release)?.gates)))
            .collect();
        for (id, result) in due {
            let outcome = match result {
                GateResult::Pass => GateOutcome::Pass,
                GateResult::Fail => GateOutcome::Fail,
                GateResult::Error => GateOutcome::Error,
                GateResult::Silent => continue,
            };
            self.server.record_gates(&id, outcome, self.now)?;
        }
        Ok(())
    }

    fn by_digest(&self, digest: &Digest) -> Option<&Release> {
        self.releases.values().find(|r| r.digest == *digest)
    }

    fn wishes(&self) -> Vec<Wish> {
        let concerns = |s: &Stage| {
            matches!(
                s,
                Stage::Rolling { .. }
                    | Stage::RollingBack { .. }
                    | Stage::Probation { .. }
                    | Stage::Confirmed
            )
        };
        self.server
            .promotions
            .values()
            .filter(|p| concerns(&p.stage))
            .map(|p| Wish {
                id: p.id.clone(),
                plan: p.plan.clone(),
                is_rolling: matches!(p.stage, Stage::Rolling { .. }),
                instructions: p.instructions.clone(),
            })
            .collect()
    }

    fn requests(&mut self) {
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
        let mut answer = traffic::answer(&behaviour, self.demand.incident, self.now, &self.random);
        answer.bad |= always_bad && is_candidate;
        let total = self.totals.entry(release).or_default();
        total.0 += 1;
        total.1 += u64::from(answer.bad);
        self.unanswered += u64::from(answer.bad && !has_backup && behaviour.is_down);
        self.last_sent.insert(release, self.now);
        let Some((_, weight, salt)) = split else { return };
        self.check_sticky(unit, weight, &salt, is_candidate);
        if is_candidate && self.random.chance(self.demand.lost) {
            return;
        }
        let outcome = Outcome {
            unit,
            candidate: is_candidate,
            bad: answer.bad,
            latency_us: answer.latency_us,
            answer: answer.value,
        };
        self.count(weight, &salt, outcome);
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

    fn count(&mut self, weight: u32, salt: &str, outcome: Outcome) {
        let active = self.agent.deployment.active.as_ref().filter(|a| a.promotion.as_str() == salt);
        let Some(plan) = active.map(|a| &a.plan.rollout) else { return };
        if self.meter.as_ref().is_none_or(|m| m.salt != salt) {
            self.meter = Some(Meter::new(salt));
        }
        if let Some(meter) = &mut self.meter {
            meter.record(weight, plan, outcome);
        }
    }

    fn tell_news(&mut self) {
        let said: Vec<String> = self.agent.said.drain(..).collect();
        for words in said {
            self.told.push(format!("{} agent   {words}", self.clock()));
        }
        if !self.server.is_up {
            return;
        }
        for (id, promotion) in &self.server.promotions {
            let words = words::of_stage(&promotion.stage);
            if self.stages.insert(id.clone(), words.clone()).is_none_or(|before| before != words) {
                self.told.push(format!("{} server  {} is {words}", clock(self.now), place::short(id)));
            }
        }
    }

    /// How long the world has gone on, as `h:mm:ss`.
    pub(crate) fn clock(&self) -> String {
        clock(self.now)
    }

    /// What happened since this was asked last.
    pub fn news(&mut self) -> Vec<String> {
        std::mem::take(&mut self.told)
    }

    /// Every line of the agent's journal.
    ///
    /// # Errors
    /// Where it can't be read.
    pub fn journal(&self) -> Result<Vec<Line>, String> {
        self.agent.journal(0)
    }

    /// The stage of a promotion, by its word.
    #[must_use]
    pub fn stage(&self, id: &PromotionId) -> Option<&'static str> {
        self.server.promotions.get(id).map(|p| p.stage.name())
    }

    /// Requests and bad answers of a release so far.
    #[must_use]
    pub fn totals(&self, name: &str) -> (u64, u64) {
        self.releases.get(name).and_then(|r| self.totals.get(&r.digest)).copied().unwrap_or_default()
    }

    /// How many users were moved from a candidate back to the baseline though its share did not fall.
    #[must_use]
    pub fn moved_back(&self) -> u64 {
        self.moved_back
    }

    /// Requests that got no answer from anybody.
    #[must_use]
    pub fn unanswered(&self) -> u64 {
        self.unanswered
    }

    /// Whether the server's picture of the environment is the agent's, once everything was reported.
    #[must_use]
    pub fn is_mirrored(&self) -> bool {
        self.server.mirror == self.agent.deployment
    }

    /// What each gateway does, as one line.
    #[must_use]
    pub fn routes(&self) -> String {
        let each: Vec<String> = self.gateways.iter().map(|g| self.routes_of(g)).collect();
        if each.windows(2).all(|w| w[0] == w[1]) {
            return each.first().cloned().unwrap_or_default();
        }
        let numbered = each.iter().enumerate().map(|(n, words)| format!("gateway {}: {words}", n + 1));
        numbered.collect::<Vec<_>>().join(" | ")
    }

    fn routes_of(&self, gateway: &Gateway) -> String {
        let routes = &gateway.applied.routes;
        let main = routes.main.map_or("nothing", |d| words::name(&d, &self.releases));
        match &routes.split {
            Some((candidate, weight, _)) => {
                format!("{main}, {} to {}", words::percent(*weight), words::name(candidate, &self.releases))
            }
            None => main.to_owned(),
        }
    }
}

fn clock(now: Millis) -> String {
    let seconds = (now - BEGINNING) / 1000;
    format!("{:>3}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// A promotion as scripts name it: `p1` is the first one.
///
/// # Errors
/// Where it is not such a name.
pub(crate) fn promotion(name: &str) -> Result<PromotionId, String> {
    let number = name.strip_prefix('p').and_then(|n| n.parse().ok());
    number.map(place::promotion_id).ok_or_else(|| format!("`{name}` is no promotion: write p1, p2, …"))
}

/// A promotion's name in scripts.
pub(crate) fn short(id: &PromotionId) -> String {
    place::short(id)
}
