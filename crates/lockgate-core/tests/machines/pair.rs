//! Server and agent together: promotions of one place, one deployment, and reports that come late.

use crate::build::{
    any_delay, any_kind, any_observation, envelope, instruction, model, person, plan, promotion_id,
};
use crate::run::Run;
use lockgate_core::clock::Millis;
use lockgate_core::event::{InstructionKind, RolloutEvent, Smoked};
use lockgate_core::gate::Outcome;
use lockgate_core::id::PromotionId;
use lockgate_core::plan::Switch;
use lockgate_core::promotion::{Command, Promotion, Stage};
use lockgate_core::rollout::{Deployment, Observation, Phase};
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Debug, Clone)]
enum Act {
    /// Somebody asks for a new promotion; older ones that wait are superseded.
    Ask,
    /// The gates pass and people say yes.
    Clear,
    /// The agent hears from the server.
    Fetch,
    /// The agent sees something.
    See { after: Millis, seen: Box<Observation> },
    /// A person says something about the newest promotion but so many.
    Tell { age: u32, kind: InstructionKind },
    /// The agent's journal reaches the server, up to so many entries.
    Report { entries: usize },
}

fn any_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        2 => Just(Act::Ask),
        3 => Just(Act::Clear),
        4 => Just(Act::Fetch),
        10 => (any_delay(), any_observation()).prop_map(|(after, seen)| Act::See { after, seen: Box::new(seen) }),
        2 => (0..3_u32, any_kind()).prop_map(|(age, kind)| Act::Tell { age, kind }),
        5 => (1..6_usize).prop_map(|entries| Act::Report { entries }),
    ]
}

struct Pair {
    promotions: BTreeMap<PromotionId, Promotion>,
    run: Run,
    /// What the environment does, as far as it was reported.
    mirror: Deployment,
    reported: usize,
    asked: u32,
    told: u32,
}

impl Pair {
    fn new() -> Self {
        Self {
            promotions: BTreeMap::new(),
            run: Run::new(),
            mirror: Deployment::new(model()),
            reported: 0,
            asked: 0,
            told: 0,
        }
    }

    fn command(&mut self, id: &PromotionId, command: &Command) -> bool {
        let now = self.run.now;
        let promotion = self.promotions.get_mut(id).unwrap();
        let Ok(events) = promotion.decide(command, now) else { return false };
        events.iter().for_each(|event| promotion.apply(event, now));
        true
    }

    fn waiting(&self) -> Vec<PromotionId> {
        let waits =
            |p: &&Promotion| matches!(p.stage, Stage::Gating | Stage::AwaitingApproval | Stage::Queued);
        self.promotions.values().filter(waits).map(|p| p.id.clone()).collect()
    }

    fn ask(&mut self) {
        self.asked += 1;
        let id = promotion_id(self.asked);
        for older in self.waiting() {
            assert!(self.command(&older, &Command::Supersede { by: id.clone() }));
        }
        let plan = plan(self.asked, self.run.baseline(), true);
        let hash = plan.hash().unwrap();
        self.promotions.insert(id.clone(), Promotion::new(id, plan, hash, self.run.now));
    }

    fn clear(&mut self) {
        for id in self.waiting() {
            let promotion = &self.promotions[&id];
            let (plan_hash, gates) = (promotion.plan_hash, promotion.missing_gates());
            for gate in gates {
                let (summary, envelope) = (String::new(), envelope(gate.as_str()));
                self.command(
                    &id,
                    &Command::Record { gate, outcome: Outcome::Pass, summary, plan_hash, envelope },
                );
            }
            self.advance(&id);
            for who in ["ann", "bob"] {
                self.command(&id, &Command::Approve { by: person(who), human: true, plan_hash });
            }
            self.advance(&id);
            self.advance(&id);
        }
    }

    fn advance(&mut self, id: &PromotionId) {
        let slot_free = !self.promotions.values().any(|p| p.id != *id && p.stage.holds_slot());
        self.command(id, &Command::Advance { slot_free });
    }

    /// What the agent would be asked, and what it does about it.
    fn fetch(&mut self) {
        for promotion in self.promotions.values() {
            for instruction in &promotion.instructions {
                self.run.obey(&promotion.id, instruction);
            }
            if matches!(promotion.stage, Stage::Rolling { .. }) && self.run.deployment.can_take(&promotion.id)
            {
                let plan = Box::new(promotion.plan.clone());
                self.run.record(promotion.id.clone(), RolloutEvent::Started { plan }, None);
            }
        }
    }

    fn report(&mut self, entries: usize) {
        let through = self.run.journal.len().min(self.reported + entries);
        let news = self.run.journal[self.reported..through].to_vec();
        for (id, event, at) in news {
            let promotion = self.promotions.get_mut(&id).unwrap();
            if let Err(refused) = promotion.check_report(&self.mirror, &event) {
                panic!("{id}: an honest report was refused: {refused} ({event:?}, {:?})", promotion.stage);
            }
            promotion.follow(&event, at);
            self.mirror.apply(&id, &event, at);
            self.settle(&id);
        }
        self.reported = through;
    }

    /// What was replaced is superseded; what serves again does so in the server's eyes, too.
    fn settle(&mut self, after: &PromotionId) {
        let Some(serving) = self.mirror.serving.clone() else { return };
        let replaced: Vec<_> = self
            .promotions
            .values()
            .filter(|p| p.id != serving.promotion && matches!(p.stage, Stage::Probation { .. }))
            .map(|p| p.id.clone())
            .collect();
        for older in replaced {
            assert!(self.command(&older, &Command::Supersede { by: serving.promotion.clone() }));
        }
        let again = serving.probation_until.is_none()
            || !matches!(self.promotions[&serving.promotion].stage, Stage::Probation { .. });
        if again {
            assert!(self.command(&serving.promotion, &Command::ServeAgain { after: after.clone() }));
        }
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::Ask => self.ask(),
            Act::Clear => self.clear(),
            Act::Fetch => self.fetch(),
            Act::See { after, seen } => {
                self.run.see(&Observation { now: self.run.now + after, ..(**seen).clone() })
            }
            Act::Tell { age, kind } => {
                self.told += 1;
                let id = promotion_id(self.asked.saturating_sub(*age));
                if self.promotions.contains_key(&id) {
                    self.command(&id, &Command::Instruct(instruction(self.told, *kind, self.run.now)));
                }
            }
            Act::Report { entries } => self.report(*entries),
        }
    }

    /// I1: one on its way up. (What serves may break and go back meanwhile: the agent does one after the other.)
    fn check(&self) {
        let up = |p: &&Promotion| matches!(p.stage, Stage::Rolling { .. });
        let up: Vec<_> = self.promotions.values().filter(up).map(|p| &p.id).collect();
        assert!(up.len() <= 1, "{up:?} are on their way at once");
        self.check_forged();
    }

    /// An agent that makes things up gets no preview on: not without its smoke test, nor without a person's word.
    fn check_forged(&self) {
        let Some(active) = self.mirror.active.as_ref().filter(|a| a.preview().is_some()) else { return };
        let promotion = &self.promotions[&active.promotion];
        let (epoch, next) = (self.mirror.epoch + 1, &active.plan.rollout.steps[1]);
        let on = RolloutEvent::StepEntered {
            step: 1,
            weight: next.weight,
            shadow: next.shadow,
            epoch,
            judgement: None,
        };
        let passed = active.smoke.as_ref().is_some_and(|s| s.outcome == Outcome::Pass);
        let may = passed && (active.switch || active.preview() == Some(Switch::Automatic));
        assert_eq!(promotion.check_report(&self.mirror, &on).is_ok(), may, "{active:?}");
        let unsaid = RolloutEvent::SwitchAllowed {
            instruction: instruction(9999, InstructionKind::Switch, self.run.now),
        };
        assert!(promotion.check_report(&self.mirror, &unsaid).is_err(), "nobody said that");
        let smoked = Smoked { outcome: Outcome::Pass, summary: String::new(), log: None };
        let again = promotion.check_report(&self.mirror, &RolloutEvent::Smoked(smoked));
        assert_eq!(again.is_ok(), active.smoke.is_none(), "a smoke test ends once");
    }

    /// I14: once everything was reported the server's picture is the agent's.
    fn check_reported(&self) {
        for (id, promotion) in &self.promotions {
            let active = self.run.deployment.active.as_ref().filter(|a| a.promotion == *id).map(|a| &a.phase);
            let fits = match (&promotion.stage, active) {
                (Stage::Rolling { rollout }, Some(Phase::Step { index, .. })) => rollout.step == Some(*index),
                (Stage::Rolling { rollout }, Some(Phase::Preparing { .. })) => rollout.step.is_none(),
                (Stage::Rolling { rollout }, None) => {
                    rollout.step.is_none() && !self.run.deployment.taken.contains(id)
                }
                (Stage::RollingBack { .. }, Some(Phase::RollingBack { .. }))
                | (Stage::FailingOver, Some(Phase::FailingOver { .. })) => true,
                (stage, None) => !stage.holds_slot(),
                _ => false,
            };
            assert!(fits, "{id}: the server says {:?}, the agent has {active:?}", promotion.stage);
        }
        assert_eq!(self.mirror, self.run.deployment);
        // What serves can be told to go back, unless it has ended already and only stays because nothing else is there.
        if let Some(serving) = &self.mirror.serving {
            let stage = &self.promotions[&serving.promotion].stage;
            let serves = matches!(stage, Stage::Probation { .. } | Stage::Confirmed);
            let ended = self.mirror.failed_over.is_some() && self.mirror.way_back().is_none();
            let active = self.mirror.active.as_ref().is_some_and(|a| a.promotion == serving.promotion);
            assert!(serves || ended || active, "{} serves, the server says {stage:?}", serving.promotion);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn server_and_agent_never_disagree_for_longer_than_a_report_takes(acts in prop::collection::vec(any_act(), 1..120)) {
        let mut pair = Pair::new();
        for act in &acts {
            pair.act(act);
            pair.check();
        }
        pair.report(usize::MAX - pair.reported);
        pair.check_reported();
        pair.check();
    }

    /// A person who pauses stays obeyed until somebody resumes, whatever was said before.
    #[test]
    fn what_a_person_said_last_is_what_holds(before in prop::collection::vec(any::<bool>(), 0..6), pause in any::<bool>()) {
        let mut pair = Pair::new();
        [Act::Ask, Act::Clear, Act::Fetch].iter().for_each(|act| pair.act(act));
        pair.run.after(1, |_| {});
        pair.act(&Act::Report { entries: 9 });
        for say_pause in before.iter().chain([&pause]) {
            let kind = if *say_pause { InstructionKind::Pause } else { InstructionKind::Resume };
            pair.act(&Act::Tell { age: 0, kind });
            // Whoever waits for the promotion goes on waiting while a resume is on its way, and stops at a pause.
            let told = &pair.promotions[&promotion_id(pair.asked)];
            prop_assert!(!told.needs_person() || *say_pause);
            for _ in 0..3 {
                pair.act(&Act::Fetch);
                pair.act(&Act::Report { entries: 9 });
            }
        }
        let Some(Phase::Step { status, .. }) = pair.run.deployment.active.as_ref().map(|a| &a.phase) else { panic!() };
        let paused = matches!(status, lockgate_core::rollout::Status::Paused { .. });
        prop_assert_eq!(paused, pause, "said: {:?}, then {}", before, pause);
        let told = &pair.promotions[&promotion_id(pair.asked)];
        prop_assert_eq!(told.needs_person(), pause);
        prop_assert_eq!(told.pending().count(), 0);
    }
}
