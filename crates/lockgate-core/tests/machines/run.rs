//! One deployment with its journal, driven step by step; every step is checked.

use crate::build::{
    START, any_delay, any_kind, any_observation, broken, instruction, model, plan, promotion_id,
};
use crate::rules::Rules;
use lockgate_core::clock::Millis;
use lockgate_core::digest::Digest;
use lockgate_core::event::{Instruction, InstructionKind, RolloutEvent, Smoked};
use lockgate_core::gate::Outcome;
use lockgate_core::id::PromotionId;
use lockgate_core::plan::{OnInconclusive, Plan, Revision};
use lockgate_core::rollout::{Deployment, Observation, Phase, Readiness, WayBack};
use proptest::prelude::*;
use std::collections::BTreeSet;

/// What can happen to an agent.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// A new promotion is there to be taken on.
    Offer { backup: bool, rollback_late: bool },
    /// Time passes, and this is seen.
    See { after: Millis, seen: Box<Observation> },
    /// A person says something to the promotion that is so many promotions old.
    Tell { age: u32, kind: InstructionKind },
    /// The agent is killed and starts again from its disk.
    Kill,
    /// From now on smoke tests end like this, or never.
    Smoke(Option<Outcome>),
}

pub(crate) fn any_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        2 => (prop::bool::weighted(0.7), any::<bool>()).prop_map(|(backup, rollback_late)| Act::Offer { backup, rollback_late }),
        12 => (any_delay(), any_observation()).prop_map(|(after, seen)| Act::See { after, seen: Box::new(seen) }),
        2 => (0..3_u32, any_kind()).prop_map(|(age, kind)| Act::Tell { age, kind }),
        1 => Just(Act::Kill),
        1 => prop_oneof![
            3 => Just(Some(Outcome::Pass)),
            1 => Just(Some(Outcome::Fail)),
            1 => Just(Some(Outcome::Error)),
            1 => Just(None),
        ].prop_map(Act::Smoke),
    ]
}

/// One line of the journal.
pub(crate) type Line = (PromotionId, RolloutEvent, Millis);

/// A deployment and everything that has happened to it.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) deployment: Deployment,
    pub(crate) journal: Vec<Line>,
    pub(crate) now: Millis,
    pub(crate) offered: u32,
    pub(crate) told: u32,
    rules: Rules,
    /// Whether the next kill really happens, to compare with a life without.
    pub(crate) mortal: bool,
    /// Releases whose workers don't stay up, whatever part they play.
    pub(crate) broken: BTreeSet<Digest>,
    /// How smoke tests end.
    pub(crate) smoke: Option<Outcome>,
}

impl Run {
    pub(crate) fn new() -> Self {
        Self {
            deployment: Deployment::new(model()),
            journal: Vec::new(),
            now: START,
            offered: 0,
            told: 0,
            rules: Rules::default(),
            mortal: true,
            broken: BTreeSet::new(),
            smoke: Some(Outcome::Pass),
        }
    }

    /// What serves, as a plan names its baseline.
    pub(crate) fn baseline(&self) -> Option<Revision> {
        self.deployment.serving.as_ref().map(|s| s.revision.clone())
    }

    pub(crate) fn record(&mut self, promotion: PromotionId, event: RolloutEvent, seen: Option<&Observation>) {
        let before = self.deployment.clone();
        self.deployment.apply(&promotion, &event, self.now);
        self.rules.check(&before, (&promotion, &event), &self.deployment, seen);
        self.journal.push((promotion, event, self.now));
    }

    pub(crate) fn offer(&mut self, backup: bool, on_inconclusive: OnInconclusive) -> Option<PromotionId> {
        self.offer_with(backup, |plan| plan.rollout.on_inconclusive = on_inconclusive)
    }

    pub(crate) fn offer_with(&mut self, backup: bool, change: impl FnOnce(&mut Plan)) -> Option<PromotionId> {
        let next = self.offered + 1;
        let id = promotion_id(next);
        if !self.deployment.can_take(&id) {
            return None;
        }
        self.offered = next;
        let mut plan = plan(next, self.baseline(), backup);
        change(&mut plan);
        plan.validate().unwrap();
        self.record(id.clone(), RolloutEvent::Started { plan: Box::new(plan) }, None);
        Some(id)
    }

    /// Sees this again and again until nothing follows any more, as the agent does.
    pub(crate) fn see(&mut self, seen: &Observation) {
        self.now = seen.now;
        for _ in 0..16 {
            self.smoke();
            let seen = &self.with_broken(seen.clone());
            self.rules.before_step(&self.deployment, seen);
            let Some((promotion, event)) = self.deployment.step(seen) else { return };
            self.record(promotion, event, Some(seen));
        }
        panic!("one look never ends: {:#?}", self.journal.iter().rev().take(4).collect::<Vec<_>>());
    }

    /// The agent runs the smoke test that is due.
    fn smoke(&mut self) {
        let Some(active) = self.deployment.active.as_ref().filter(|a| a.smoke_due().is_some()) else {
            return;
        };
        if let Some(outcome) = self.smoke {
            let smoked = Smoked { outcome, summary: "it said so".to_owned(), log: None };
            self.record(active.promotion.clone(), RolloutEvent::Smoked(smoked), None);
        }
    }

    fn with_broken(&self, mut seen: Observation) -> Observation {
        let (active, serving) = (self.deployment.active.as_ref(), self.deployment.serving.as_ref());
        let target = active.and_then(|a| match &a.phase {
            Phase::RollingBack { target, .. } => target.as_ref(),
            _ => None,
        });
        let target = target.or(self.deployment.drill.as_ref().map(|d| &d.target));
        let is_broken = |r: Option<&Revision>| r.is_some_and(|r| self.broken.contains(&r.digest()));
        for (found, part) in [
            (is_broken(active.map(|a| &a.plan.revision)), &mut seen.candidate),
            (is_broken(serving.map(|s| &s.revision)), &mut seen.serving),
            (is_broken(target), &mut seen.target),
            (is_broken(self.deployment.backup.as_ref()), &mut seen.backup),
        ] {
            if found {
                *part = broken();
            }
        }
        seen
    }

    /// Time passes, everything is calm but for what `change` makes of it.
    pub(crate) fn after(&mut self, delay: Millis, change: impl FnOnce(&mut Observation)) {
        let mut seen = crate::build::calm(self.now + delay);
        change(&mut seen);
        self.see(&seen);
    }

    pub(crate) fn tell(&mut self, promotion: &PromotionId, kind: InstructionKind) -> Instruction {
        self.told += 1;
        let instruction = instruction(self.told, kind, self.now);
        self.obey(promotion, &instruction);
        instruction
    }

    fn way_back(&self) -> WayBack {
        let target = self.deployment.way_back().map(Revision::digest);
        let readiness =
            if target.is_some_and(|t| self.broken.contains(&t)) { broken() } else { Readiness::Ready };
        WayBack { readiness, answered: (0, 0) }
    }

    /// Does what an instruction says. The same one may come again: the agent keeps the server's list until there is another.
    pub(crate) fn obey(&mut self, promotion: &PromotionId, instruction: &Instruction) {
        if let Some((promotion, event)) = self.deployment.instruct(promotion, instruction, &self.way_back()) {
            self.record(promotion, event, None);
        }
    }

    pub(crate) fn kill(&mut self) {
        if self.mortal {
            let disk = serde_json::to_string(&self.deployment).unwrap();
            self.deployment = serde_json::from_str(&disk).unwrap();
        }
    }

    pub(crate) fn act(&mut self, act: &Act) {
        match act {
            Act::Offer { backup, rollback_late } => {
                let late = if *rollback_late { OnInconclusive::Rollback } else { OnInconclusive::Hold };
                self.offer(*backup, late);
            }
            Act::See { after, seen } => {
                let seen = Observation { now: self.now + after, ..(**seen).clone() };
                self.see(&seen);
            }
            Act::Tell { age, kind } => {
                self.tell(&promotion_id(self.offered.saturating_sub(*age)), *kind);
            }
            Act::Kill => self.kill(),
            Act::Smoke(outcome) => self.smoke = *outcome,
        }
    }

    /// The names of all events of a promotion, in order.
    pub(crate) fn events(&self, promotion: &PromotionId) -> Vec<String> {
        let of = |e: &RolloutEvent| serde_json::to_value(e).unwrap()["what"].as_str().unwrap().to_owned();
        self.journal.iter().filter(|(p, ..)| p == promotion).map(|(_, e, _)| of(e)).collect()
    }
}
