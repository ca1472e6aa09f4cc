//! A whole installation in memory: one server, one agent, its gateways, their traffic. It goes on by [`World::run`] only.

mod agent;
mod answers;
mod counts;
mod gateway;
mod place;
mod server;
mod traffic;
mod words;

pub use counts::{Counting, Failure, Request, Seen};
pub use traffic::Totals;

use crate::clock::Seeded;
use crate::script::{Behaviour, Environment, GateResult, KillPoint};
use agent::{Agent, Surroundings, Wish};
use gateway::Gateway;
use lockgate_core::clock::Millis;
use lockgate_core::digest::Digest;
use lockgate_core::event::{Instruction, InstructionKind, RolloutEvent};
use lockgate_core::gate::Outcome as GateOutcome;
use lockgate_core::id::{CommandId, PrincipalId, PromotionId};
use lockgate_core::promotion::{Command, Stage};
use lockgate_core::route::WHOLE;
use place::Place;
use serde::{Deserialize, Serialize};
use server::Server;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use traffic::{Demand, Drift};

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
    /// From units to arms.
    pub assign: Assign,
    /// Empty counts for the rollout with this salt.
    pub counting: fn(&str) -> Box<dyn Counting>,
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

impl Release {
    /// Whether its workers can be reached.
    pub(crate) fn is_up(&self) -> bool {
        !self.behaviour.is_down && !self.behaviour.is_restarting
    }
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
    /// The newest rollout's counts.
    counting: Option<(String, Box<dyn Counting>)>,
    /// Workers that were there when the agent looked last.
    seen_up: BTreeSet<Digest>,
    /// Whether the agent can read counts, and whether they stand still.
    are_counts_lost: bool,
    are_counts_frozen: bool,
    demand: Demand,
    units: u64,
    totals: BTreeMap<Digest, Totals>,
    /// When a release got its first request, and its last.
    first_sent: BTreeMap<Digest, Millis>,
    last_sent: BTreeMap<Digest, Millis>,
    /// Requests, and the candidate's among them, by its share.
    drawn: BTreeMap<u32, (u64, u64)>,
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
            counting: None,
            seen_up: BTreeSet::new(),
            are_counts_lost: false,
            are_counts_frozen: false,
            demand: Demand::default(),
            units: 0,
            totals: BTreeMap::new(),
            first_sent: BTreeMap::new(),
            last_sent: BTreeMap::new(),
            drawn: BTreeMap::new(),
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

    pub(crate) fn demand(&mut self) -> &mut Demand {
        &mut self.demand
    }

    /// The chance of a bad answer that hits every release alike; with a time, it goes there steadily.
    pub(crate) fn incident(&mut self, chance: f64, span: Option<Millis>) {
        let from = self.demand.incident;
        self.demand.incident = chance;
        self.demand.drift = span.map(|span| Drift { from, to: chance, since: self.now, span });
    }

    /// Whether the agent can read counts, and whether they stand still.
    pub(crate) fn set_counts(&mut self, lost: bool, frozen: bool) {
        (self.are_counts_lost, self.are_counts_frozen) = (lost, frozen);
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
        self.overload();
        self.requests();
        if self.server.is_up {
            self.run_gates()?;
            self.server.advance(now);
            let promotions = self.server.promotions.values();
            let said: (u32, Vec<(Millis, &'static str)>) =
                (self.server.told, promotions.map(|p| (p.since, p.stage.name())).collect());
            if self.agent.is_alive() && self.agent.heard != said {
                (self.agent.wishes, self.agent.heard) = (self.wishes(), said);
            }
        }
        let mut around = Surroundings {
            now,
            gateways: &mut self.gateways,
            counting: self.counting.as_mut().filter(|_| !self.are_counts_lost),
            nothing: self.parts.counting,
            releases: &self.releases,
            last_sent: &self.last_sent,
        };
        if self.agent.tick(&mut around)? {
            // A gateway's counts are gone with the process that it lives in.
            self.counting = None;
        }
        let up = self.releases.values().filter(|r| r.is_up());
        self.seen_up = up.map(|r| r.digest).collect();
        if self.server.is_up && self.agent.is_alive() {
            let news = self.agent.journal(self.server.reported)?;
            self.server.take_report(&news, now);
        }
        self.tell_news();
        Ok(())
    }

    /// What can't bear its share of the traffic breaks, and stays broken.
    fn overload(&mut self) {
        let splits = self.gateways.iter().filter_map(|g| g.applied.routes.split.as_ref());
        let loads: Vec<(Digest, f64)> =
            splits.map(|(release, weight, _)| (*release, f64::from(*weight) / f64::from(WHOLE))).collect();
        for release in self.releases.values_mut() {
            let most = release.behaviour.breaks_at;
            release.behaviour.is_down |=
                loads.iter().any(|(d, load)| *d == release.digest && most.is_some_and(|most| *load > most));
        }
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

    /// What users met of a release so far.
    #[must_use]
    pub fn totals(&self, name: &str) -> Totals {
        self.releases.get(name).and_then(|r| self.totals.get(&r.digest)).copied().unwrap_or_default()
    }

    /// Whether every share was kept within four standard deviations, where each request is a unit of its own.
    #[must_use]
    pub fn is_fair(&self) -> bool {
        self.drawn.iter().all(|(weight, (requests, candidate))| {
            let (n, share) = (*requests as f64, f64::from(*weight) / f64::from(WHOLE));
            (*candidate as f64 - n * share).abs() <= 4.0 * (n * share * (1.0 - share)).sqrt()
        })
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
