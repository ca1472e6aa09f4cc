//! The agent: a disk, a loop, and a way to die at any of its points.

use super::counts::{Evidence, Judge, Meter};
use super::gateway::{Gateway, Routes, Table};
use super::{Line, Release};
use crate::script::KillPoint;
use lockgate_core::clock::Millis;
use lockgate_core::digest::Digest;
use lockgate_core::event::{Instruction, RolloutEvent};
use lockgate_core::guard::Judgement;
use lockgate_core::id::PromotionId;
use lockgate_core::plan::{Plan, Revision};
use lockgate_core::rollout::{Deployment, Observation, Phase, Readiness};
use lockgate_stats::decision::Peaks;
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
    pub(crate) meter: Option<&'a mut Meter>,
    pub(crate) releases: &'a BTreeMap<String, Release>,
    pub(crate) last_sent: &'a BTreeMap<Digest, Millis>,
    pub(crate) judge: Judge,
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
    peaks: (String, Peaks),
    judged: Option<(Millis, Judgement)>,
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
            peaks: Default::default(),
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
        (self.peaks, self.judged) = Default::default();
        self.wishes.clear();
        self.said.push("starts again from its disk".to_owned());
        Ok(())
    }

    /// One look.
    pub(crate) fn tick(&mut self, around: &mut Surroundings<'_>) -> Result<(), String> {
        if let Some(until) = self.dead_until {
            return if around.now >= until { self.come_back() } else { Ok(()) };
        }
        self.publish(around.now, around.gateways, usize::MAX);
        for _ in 0..EVENTS_A_LOOK {
            let seen = self.observe(around);
            let Some((promotion, event)) = self.deployment.step(&seen) else { break };
            self.record(&promotion, event, around)?;
            if !self.is_alive() {
                return Ok(());
            }
        }
        for wish in self.wishes.clone() {
            self.serve(&wish, around)?;
            if !self.is_alive() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn serve(&mut self, wish: &Wish, around: &mut Surroundings<'_>) -> Result<(), String> {
        for instruction in &wish.instructions {
            if let Some((promotion, event)) = self.deployment.instruct(&wish.id, instruction) {
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
        let judgement = self.judge(around);
        let active = self.deployment.active.as_ref();
        let serving = self.deployment.serving.as_ref();
        let target = active.and_then(|a| match &a.phase {
            Phase::RollingBack { target, .. } => target.as_ref(),
            _ => None,
        });
        let candidate = active.map(|a| &a.plan.revision);
        let backup = active.and_then(|a| a.plan.backup.as_ref()).or(self.deployment.backup.as_ref());
        let readiness = |revision: Option<&Revision>| readiness(revision, around.releases);
        let meter =
            around.meter.as_deref().filter(|m| active.is_some_and(|a| a.promotion.as_str() == m.salt));
        let (requests, errors) = meter.map_or((0, 0), |m| (m.candidate_requests, m.candidate_errors));
        let last_sent = candidate.and_then(|c| around.last_sent.get(&c.release));
        let routes = Routes::of(&self.deployment);
        Observation {
            now: around.now + self.offset,
            applied: self.table.routes == routes && around.gateways.iter().all(|g| g.applied == self.table),
            candidate: readiness(candidate),
            serving: readiness(serving.map(|s| &s.revision)),
            target: readiness(target),
            backup: readiness(backup),
            judgement,
            breaker: meter
                .filter(|m| m.is_open || m.shadow.as_ref().is_some_and(|s| s.is_open))
                .map(|_| format!("the gateway's own breaker opened: {errors} of {requests} requests to the candidate failed")),
            quiet_ms: Some(last_sent.map_or(i64::MAX, |at| around.now - at)),
            last_candidate_request: last_sent.map(|at| at + self.offset),
            candidate_requests: requests,
            candidate_errors: errors,
            counted_since: None,
        }
    }

    /// What the guards say, once a second.
    fn judge(&mut self, around: &mut Surroundings<'_>) -> Judgement {
        let Some(active) = self.deployment.active.as_ref().filter(|a| matches!(a.phase, Phase::Step { .. }))
        else {
            self.judged = None;
            return Judgement::none();
        };
        if let Some((at, judgement)) = &self.judged
            && around.now - at < 1_000
        {
            return judgement.clone();
        }
        let salt = active.promotion.as_str();
        let compared = self.deployment.serving.is_some()
            || self.deployment.backup.is_some()
            || active.plan.backup.is_some();
        let is_shadow = self.deployment.traffic().shadow > 0;
        let meter = around.meter.as_deref_mut().filter(|m| m.salt == salt);
        let evidence = meter.map_or_else(
            || Evidence::none(is_shadow),
            |m| {
                if is_shadow {
                    m.mirrored().follow_latency()
                } else {
                    m.follow_latency()
                }
                m.evidence(compared, is_shadow)
            },
        );
        if self.peaks.0 != salt {
            self.peaks = (salt.to_owned(), Peaks::default());
        }
        let judgement = (around.judge)(&active.plan.rollout, &evidence, &mut self.peaks.1);
        self.judged = Some((around.now, judgement.clone()));
        judgement
    }
}

fn readiness(revision: Option<&Revision>, releases: &BTreeMap<String, Release>) -> Readiness {
    let found = revision.and_then(|r| releases.values().find(|known| known.digest == r.release));
    match found {
        None => Readiness::Unknown,
        Some(release) if release.behaviour.is_down => {
            Readiness::Failed(format!("{}'s workers do not stay up", release.name))
        }
        Some(_) => Readiness::Ready,
    }
}
