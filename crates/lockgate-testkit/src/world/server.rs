//! The server: promotions, who may ask for what, and what the agent reported.
//!
//! The machine is the real one. The rules around it (quarantine, one on its way at a time, superseding) are those of
//! `lockgate-control`, in a few lines. What serves follows from the agent's reports by the agent's own machine.

use super::place::{self, Place};
use super::{Line, Release};
use lockgate_core::clock::Millis;
use lockgate_core::digest::Digest;
use lockgate_core::event::{Cause, Instruction};
use lockgate_core::gate::{Envelope, Outcome};
use lockgate_core::id::{CommandId, PrincipalId, PromotionId};
use lockgate_core::promotion::{Command, Promotion, Stage};
use lockgate_core::rollout::Deployment;
use std::collections::BTreeMap;

#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) is_up: bool,
    pub(crate) promotions: BTreeMap<PromotionId, Promotion>,
    /// What the environment does, as far as it was reported.
    pub(crate) mirror: Deployment,
    pub(crate) reported: usize,
    /// How often people told a rollout something.
    pub(crate) told: u32,
}

impl Server {
    pub(crate) fn new() -> Self {
        Self {
            is_up: true,
            promotions: BTreeMap::new(),
            mirror: Deployment::new(place::model()),
            reported: 0,
            told: 0,
        }
    }

    /// Asks for a promotion; the text says why not.
    pub(crate) fn ask(
        &mut self,
        place: &Place,
        release: &Release,
        backup: Option<Digest>,
        by: &PrincipalId,
        now: Millis,
    ) -> Result<PromotionId, String> {
        let baseline = self.mirror.serving.as_ref().map(|s| s.revision.clone());
        if baseline.as_ref().is_some_and(|b| b.release == release.digest) {
            return Err(format!("release {} serves already", release.name));
        }
        if self.is_quarantined(&release.digest) {
            return Err(format!("release {} was rolled back and is quarantined", release.name));
        }
        if let Some(other) = self.promotions.values().find(|p| p.stage.holds_slot()) {
            return Err(format!(
                "promotion {} moves this model's traffic right now",
                place::short(&other.id)
            ));
        }
        let number = u32::try_from(self.promotions.len()).unwrap_or(u32::MAX) + 1;
        let id = place::promotion_id(number);
        let waiting: Vec<PromotionId> =
            self.promotions.values().filter(|p| is_waiting(&p.stage)).map(|p| p.id.clone()).collect();
        for older in waiting {
            self.command(&older, &Command::Supersede { by: id.clone() }, now)?;
        }
        let plan = place.plan(release, baseline, backup, by, now);
        plan.validate()?;
        let hash = plan.hash().map_err(|e| e.to_string())?;
        self.promotions.insert(id.clone(), Promotion::new(id.clone(), plan, hash, now));
        Ok(id)
    }

    /// A release that went back for a fault of its own doesn't come again by itself (I9).
    fn is_quarantined(&self, release: &Digest) -> bool {
        self.promotions.values().filter(|p| p.plan.revision.release == *release).any(|p| match &p.stage {
            Stage::RolledBack { cause, .. } => !matches!(cause, Cause::Person { .. }),
            Stage::OnBackup | Stage::Stranded { .. } => true,
            _ => false,
        })
    }

    /// Carries a command out; the text says why not.
    pub(crate) fn command(&mut self, id: &PromotionId, command: &Command, now: Millis) -> Result<(), String> {
        let promotion = self.promotions.get_mut(id).ok_or_else(|| format!("there is no promotion {id}"))?;
        let events = promotion.decide(command, now).map_err(|e| e.to_string())?;
        events.iter().for_each(|event| promotion.apply(event, now));
        Ok(())
    }

    /// A person tells a rollout something.
    pub(crate) fn instruct(
        &mut self,
        id: &PromotionId,
        mut instruction: Instruction,
        now: Millis,
    ) -> Result<(), String> {
        self.told += 1;
        let text = format!("cm_{:026}", self.told);
        instruction.id = CommandId::new(text).map_err(|e| format!("{e:?}"))?;
        self.command(id, &Command::Instruct(instruction), now)
    }

    /// The gates' evidence arrives.
    pub(crate) fn record_gates(
        &mut self,
        id: &PromotionId,
        outcome: Outcome,
        now: Millis,
    ) -> Result<(), String> {
        let Some(promotion) = self.promotions.get(id) else { return Ok(()) };
        let plan_hash = promotion.plan_hash;
        for gate in promotion.missing_gates() {
            let statement =
                serde_json::json!({ "payloadType": "simulated", "payload": gate, "signatures": [] });
            let envelope: Envelope = serde_json::from_value(statement).map_err(|e| e.to_string())?;
            let summary = format!("gate `{gate}` in the simulated world");
            self.command(id, &Command::Record { gate, outcome, summary, plan_hash, envelope }, now)?;
        }
        Ok(())
    }

    /// Every promotion goes as far as its conditions lead.
    pub(crate) fn advance(&mut self, now: Millis) {
        let ids: Vec<PromotionId> = self.promotions.keys().cloned().collect();
        for id in ids {
            let slot_free = !self.promotions.values().any(|p| p.id != id && p.stage.holds_slot());
            // Advancing is never refused; what can't go on stays.
            let _ = self.command(&id, &Command::Advance { slot_free }, now);
        }
    }

    /// Takes the lines after the last reported one in, each once.
    pub(crate) fn take_report(&mut self, news: &[Line], now: Millis) {
        for line in news {
            let Some(promotion) = self.promotions.get_mut(&line.promotion) else { continue };
            // What can't follow is kept as a note by the real server, without effect.
            if promotion.check_report(&self.mirror, &line.event).is_err() {
                continue;
            }
            promotion.follow(&line.event, line.at);
            self.mirror.apply(&line.promotion, &line.event, line.at);
            self.settle(&line.promotion, now);
        }
        self.reported += news.len();
    }

    /// Once a newer release serves, an older one's probation is over; once that one went back, the older one serves again.
    fn settle(&mut self, after: &PromotionId, now: Millis) {
        let on_probation = |p: &&Promotion| matches!(p.stage, Stage::Probation { .. });
        let serves = self.mirror.serving.as_ref().map(|s| s.promotion.clone());
        let replaced: Vec<PromotionId> =
            self.promotions.values().filter(on_probation).map(|p| p.id.clone()).collect();
        for older in replaced.into_iter().filter(|id| Some(id) != serves.as_ref()) {
            if let Some(by) = serves.clone() {
                // On probation it can be superseded, and that is where it stands.
                let _ = self.command(&older, &Command::Supersede { by }, now);
            }
        }
        let Some(serving) = &self.mirror.serving else { return };
        let (id, until) = (serving.promotion.clone(), serving.probation_until);
        let stage = self.promotions.get(&id).map(|p| &p.stage);
        if !matches!(stage, Some(Stage::Probation { .. })) || until.is_none() {
            // What neither was replaced nor waits for its probation's end needs nothing.
            let _ = self.command(&id, &Command::ServeAgain { after: after.clone() }, now);
        }
    }
}

fn is_waiting(stage: &Stage) -> bool {
    matches!(stage, Stage::Gating | Stage::AwaitingApproval | Stage::Queued)
}
