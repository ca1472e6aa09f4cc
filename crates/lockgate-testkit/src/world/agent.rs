//! The agent: a disk, a loop, and a way to die at any of its points.

use super::counts::{Counting, Seen};
use super::gateway::{Gateway, Routes, Table};
use super::{Line, Release};
use crate::script::KillPoint;
use lockgate_core::clock::Millis;
use lockgate_core::digest::Digest;
use lockgate_core::event::{Instruction, RolloutEvent};
use lockgate_core::guard::Judgement;
use lockgate_core::id::PromotionId;
use lockgate_core::plan::{Plan, Revision};
use lockgate_core::rollout::{Deployment, Observation, Phase, Readiness, WayBack};
use std::collections::BTreeMap;

/// How long a dead agent stays dead.
const RESTART_AFTER: Millis = 5_000;

/// At most this many events follow one another in one look.
const EVENTS_A_LOOK: usize = 16;

/// What the agent heard from the server last.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    pub(crate) id: PromotionId,
    pub(crate) plan: Plan,
    pub(crate) is_rolling: bool,
    pub(crate) instructions: Vec<Instruction>,
}

/// What outlives the agent's process.
#[derive(Debug, Default)]
struct Disk {
    deployment: String,
    journal: Vec<String>,
    table: Table,
}

/// What the agent can see and reach.
pub(crate) struct Surroundings<'a> {
    pub(crate) now: Millis,
    pub(crate) gateways: &'a mut [Gateway],
    /// The newest rollout's salt and counts, where they can be read.
    pub(crate) counting: Option<&'a mut (String, Box<dyn Counting>)>,
    /// Empty counts.
    pub(crate) nothing: fn(&str) -> Box<dyn Counting>,
    pub(crate) releases: &'a BTreeMap<String, Release>,
    pub(crate) last_sent: &'a BTreeMap<Digest, Millis>,
}

#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) deployment: Deployment,
    disk: Disk,
    table: Table,
    dead_until: Option<Millis>,
    /// The point at which it dies next.
    pub(crate) armed: Option<KillPoint>,
    /// How wrong its clock is.
    pub(crate) offset: Millis,
    pub(crate) wishes: Vec<Wish>,
    /// By what they were made, so that they are made anew only when something changed.
    pub(crate) heard: (u32, Vec<(Millis, &'static str)>),
    /// When what was looked at last, and what was seen.
    judged: Option<(Millis, (PromotionId, Option<usize>), Seen)>,
    /// What it would print.
    pub(crate) said: Vec<String>,
}

impl Agent {
    pub(crate) fn new() -> Result<Self, String> {
        let deployment = Deployment::new(super::place::model());
        let disk = Disk {
            deployment: serde_json::to_string(&deployment).map_err(|e| e.to_string())?,
            ..Disk::default()
        };
        Ok(Self {
            deployment,
            disk,
            table: Table::default(),
            dead_until: None,
            armed: None,
            offset: 0,
            wishes: Vec::new(),
            heard: Default::default(),
            judged: None,
            said: Vec::new(),
        })
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.dead_until.is_none()
    }

    /// The journal as it stands on the disk, from this line on.
    pub(crate) fn journal(&self, from: usize) -> Result<Vec<Line>, String> {
        self.disk
            .journal
            .iter()
            .skip(from)
            .map(|line| serde_json::from_str(line).map_err(|e| e.to_string()))
            .collect()
    }

    /// The process is gone; the disk stays.
    pub(crate) fn die(&mut self, now: Millis) {
        self.said.push("is killed".to_owned());
        self.dead_until = Some(now + RESTART_AFTER);
        self.armed = None;
    }

    fn come_back(&mut self) -> Result<(), String> {
        self.deployment = serde_json::from_str(&self.disk.deployment).map_err(|e| e.to_string())?;
        self.table = self.disk.table.clone();
        self.dead_until = None;
        self.judged = None;
        (self.wishes, self.heard) = Default::default();
        self.said.push("starts again from its disk".to_owned());
        Ok(())
    }

    /// One look. Gives back whether the process has just begun.
    pub(crate) fn tick(&mut self, around: &mut Surroundings<'_>) -> Result<bool, String> {
        if let Some(until) = self.dead_until {
            let is_over = around.now >= until;
            return if is_over { self.come_back().map(|()| true) } else { Ok(false) };
        }
        self.publish(around.now, around.gateways, usize::MAX);
        for _ in 0..EVENTS_A_LOOK {
            let seen = self.observe(around);
            let Some((promotion, event)) = self.deployment.step(&seen) else { break };
            self.record(&promotion, event, around)?;
            if !self.is_alive() {
                return Ok(false);
            }
        }
        let wishes = std::mem::take(&mut self.wishes);
        for wish in &wishes {
            self.serve(wish, around)?;
            if !self.is_alive() {
                return Ok(false);
            }
        }
        self.wishes = wishes;
        Ok(false)
    }

    fn serve(&mut self, wish: &Wish, around: &mut Surroundings<'_>) -> Result<(), String> {
        let target = self.deployment.way_back();
        let way_back = WayBack { readiness: readiness(target, around.releases), answered: (0, 0) };
        for instruction in &wish.instructions {
            if let Some((promotion, event)) = self.deployment.instruct(&wish.id, instruction, &way_back) {
                self.record(&promotion, event, around)?;
            }
        }
        if !self.is_alive() || !wish.is_rolling || !self.deployment.can_take(&wish.id) {
            return Ok(());
        }
        let serves = self.deployment.serving.as_ref().map(|s| s.revision.digest());
        let event = if wish.plan.baseline.as_ref().map(Revision::digest) == serves {
            RolloutEvent::Started { plan: Box::new(wish.plan.clone()) }
        } else {
            let reason =
                "the environment serves something else by now than when the plan was made".to_owned();
            RolloutEvent::Aborted { reason }
        };
        self.record(&wish.id, event, around)
    }

    /// To the disk first, then in memory, then to the gateways; dead wherever it was armed.
    fn record(
        &mut self,
        promotion: &PromotionId,
        event: RolloutEvent,
        around: &mut Surroundings<'_>,
    ) -> Result<(), String> {
        if self.armed.is_some_and(|point| point.is_before(&event)) {
            self.die(around.now);
            return Ok(());
        }
        let at = around.now + self.offset;
        self.deployment.apply(promotion, &event, at);
        self.disk.deployment = serde_json::to_string(&self.deployment).map_err(|e| e.to_string())?;
        let line = Line { promotion: promotion.clone(), event, at };
        self.disk.journal.push(serde_json::to_string(&line).map_err(|e| e.to_string())?);
        if let Some(words) = super::words::of_event(&line, around.releases) {
            self.said.push(words);
        }
        match self.armed.and_then(|point| point.reached_after(&line.event)) {
            Some(gateways) => {
                self.publish(around.now, around.gateways, gateways);
                self.die(around.now);
            }
            None => self.publish(around.now, around.gateways, usize::MAX),
        }
        Ok(())
    }

    /// Makes routes follow from the state, at the first so many gateways.
    fn publish(&mut self, now: Millis, gateways: &mut [Gateway], reach: usize) {
        let routes = Routes::of(&self.deployment);
        if routes != self.table.routes && reach > 0 {
            self.table = Table { epoch: self.table.epoch + 1, routes };
            self.disk.table = self.table.clone();
        }
        gateways.iter_mut().take(reach).for_each(|g| g.send(now, &self.table));
    }

    fn observe(&mut self, around: &mut Surroundings<'_>) -> Observation {
        let seen = self.look(around);
        let active = self.deployment.active.as_ref();
        let serving = self.deployment.serving.as_ref();
        let target = active.and_then(|a| match &a.phase {
            Phase::RollingBack { target, .. } => target.as_ref(),
            _ => None,
        });
        let drill = self.deployment.drill.as_ref();
        let target = target.or(drill.map(|d| &d.target));
        let probation = self.deployment.on_probation().map(|(serving, _)| &serving.revision);
        let candidate = active.map(|a| &a.plan.revision);
        let backup = active.and_then(|a| a.plan.backup.as_ref()).or(self.deployment.backup.as_ref());
        let readiness = |revision: Option<&Revision>| readiness(revision, around.releases);
        let drilled = drill.and(serving).map(|s| &s.revision);
        let last_sent = candidate.or(probation).or(drilled).and_then(|c| around.last_sent.get(&c.release));
        let routes = Routes::of(&self.deployment);
        Observation {
            now: around.now + self.offset,
            applied: self.table.routes == routes && around.gateways.iter().all(|g| g.applied == self.table),
            candidate: readiness(candidate),
            serving: readiness(serving.map(|s| &s.revision)),
            target: readiness(target),
            backup: readiness(backup),
            judgement: seen.judgement,
            breaker: seen.breaker,
            quiet_ms: Some(last_sent.map_or(i64::MAX, |at| around.now - at)),
            last_candidate_request: last_sent.map(|at| at + self.offset),
            candidate_requests: seen.requests,
            candidate_errors: seen.errors,
            target_requests: 0,
            target_errors: 0,
            target_busy: false,
            began: 0,
            counted_since: None,
        }
    }

    /// What the counts of the active rollout say, or of what is on probation. They are judged once a second, and at once where
    /// another step is.
    fn look(&mut self, around: &mut Surroundings<'_>) -> Seen {
        let active = self.deployment.active.as_ref();
        let step = active.and_then(|a| match a.phase {
            Phase::Step { index, .. } => Some(index),
            _ => None,
        });
        let probation = self.deployment.on_probation().map(|(serving, _)| &serving.promotion);
        let Some(promotion) = active.map(|a| &a.promotion).or(probation) else {
            self.judged = None;
            return Seen { judgement: Judgement::none(), breaker: None, requests: 0, errors: 0 };
        };
        let what = (promotion.clone(), step);
        let counting = around.counting.as_deref_mut().filter(|(salt, _)| salt == promotion.as_str());
        let is_open = counting.as_ref().is_some_and(|(_, counting)| counting.is_open());
        let fresh = |(at, of, _): &&(Millis, _, Seen)| *of == what && around.now - at < 1_000;
        let known = self.judged.as_ref().filter(fresh).filter(|_| step.is_some() && !is_open);
        if let Some((.., seen)) = known {
            return seen.clone();
        }
        let seen = match counting {
            Some((_, counting)) => counting.look(&self.deployment),
            None => (around.nothing)(promotion.as_str()).look(&self.deployment),
        };
        self.judged = Some((around.now, what, seen.clone()));
        seen
    }
}

fn readiness(revision: Option<&Revision>, releases: &BTreeMap<String, Release>) -> Readiness {
    let found = revision.and_then(|r| releases.values().find(|known| known.digest == r.release));
    match found {
        None => Readiness::Unknown,
        Some(release) if release.behaviour.is_down => {
            Readiness::Failed(format!("{}'s workers do not stay up", release.name))
        }
        Some(release) if release.behaviour.is_restarting => Readiness::Pending,
        Some(_) => Readiness::Ready,
    }
}
