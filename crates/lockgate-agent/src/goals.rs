//! What a rollout's goals have seen: outcomes that came after the predictions, each unit once. Pure.
//!
//! *Intention to treat*: an outcome belongs to the side that its prediction was drawn into, at the share that there was, whoever
//! answered it in the end; and a unit that nobody answered counts as the worst outcome ([`unanswered`]). *Once per unit*: the
//! first outcome of a unit counts. *Where it can be compared*: shares between nothing and all. *Three stages*: units must fit the
//! share when they are drawn (the gateway counts that), as they are known of here and when their outcome comes. Outcomes that come
//! more often for one side than for the other are no sample of it, and then neither "better" nor "worse" follows from them, for
//! good. Where a goal says what a missing outcome counts as, every unit has one: it counts when its time is over, and not before,
//! for the outcomes that are told come sooner than those that are missing.
//!
//! What a book holds follows from what it was told, in its order, and from nothing else: whoever tells it the same again finds the
//! same, to the last bit. Time is told to it, too ([`GoalBook::advance`]), and must not go back.

mod funnel;
mod goal;
mod numbers;
mod unanswered;

pub use numbers::evidence;

use crate::judge::GoalNumbers;
use funnel::Funnel;
use goal::Goal;
use lockgate_core::clock::Millis;
use lockgate_core::guard::GuardSpec;
use lockgate_core::id::GuardName;
use lockgate_core::plan::RolloutPlan;
use lockgate_core::route::WHOLE;
use std::collections::BTreeMap;
use unanswered::Unanswered;

/// How many units can be told apart. From then on nothing new is counted, and so nothing new proven.
pub const UNITS: usize = 2_000_000;

/// A prediction that a rollout drew, as its goals see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draw {
    /// The candidate's share at that moment, in parts of [`WHOLE`].
    pub weight: u32,
    /// Whether it was drawn into the candidate's side.
    pub candidate: bool,
    /// Whether it got a good answer, from whichever side.
    pub answered: bool,
    /// A hash of its unit.
    pub unit: u64,
    /// When it was asked for.
    pub at: Millis,
}

impl Draw {
    fn is_compared(&self) -> bool {
        is_compared(self.weight)
    }
}

/// Whether there is anything to compare at a share: it leaves something to both sides.
#[must_use]
pub fn is_compared(weight: u32) -> bool {
    weight > 0 && weight < WHOLE
}

/// Why an outcome does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotCounted {
    /// All the traffic went to one side.
    NotCompared,
    /// It came too late.
    Late,
    /// An outcome of the same unit counts already.
    UnitCounted,
    /// The unit's time is over.
    UnitOver,
    /// The share has changed since the unit's first prediction.
    Moved,
    /// It is no number.
    NoNumber,
    /// There were too many units.
    Saturated,
}

impl NotCounted {
    /// The reason as words that go on after "it does not count:".
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::NotCompared => "all the traffic went to one side then, so it can't be compared",
            Self::Late => "it came later after the prediction than the goal's `within`",
            Self::UnitCounted => "its unit counts already, and each unit counts once",
            Self::UnitOver => {
                "its unit's time, the goal's `within` from its first prediction on, was over, and the unit counts already"
            }
            Self::Moved => {
                "the share has changed since its unit's first prediction, and the unit counts by what was said of predictions at that share"
            }
            Self::NoNumber => "the goal needs a number",
            Self::Saturated => {
                "there were more units in this rollout than can be told apart, and its unit is one too many"
            }
        }
    }
}

/// For how long a prediction is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needed {
    /// Not at all: nothing that is said of it can count.
    Never,
    /// Until its outcomes come too late to count.
    Within,
    /// For as long as the rollout is followed: without it a unit would be another's, or new.
    Always,
}

/// What the goals of one rollout have seen.
#[derive(Debug, Clone, Default)]
pub struct GoalBook {
    assigned: Funnel,
    unanswered: Unanswered,
    goals: BTreeMap<GuardName, Goal>,
    now: Millis,
}

impl GoalBook {
    /// An empty book for a plan's goals.
    #[must_use]
    pub fn new(plan: &RolloutPlan) -> Self {
        let goals = plan.guards.iter().filter_map(|(name, spec)| match spec {
            GuardSpec::Goal(spec) => Some((name.clone(), Goal::new(spec))),
            _ => None,
        });
        Self { goals: goals.collect(), ..Self::default() }
    }

    /// Whether there is any goal.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.goals.is_empty()
    }

    /// How long after its prediction an outcome can count for any goal; none where that is for ever.
    #[must_use]
    pub fn within_ms(&self) -> Option<Millis> {
        let each: Option<Vec<Millis>> = self.goals.values().map(|goal| goal.spec.within_ms).collect();
        each?.into_iter().max()
    }

    /// For how long a prediction that comes next is needed.
    #[must_use]
    pub fn needs(&self, draw: &Draw) -> Needed {
        let is_known = self.assigned.contains(draw.unit);
        if !draw.is_compared() || (!is_known && self.assigned.is_full()) {
            Needed::Never
        } else if !is_known || (draw.answered && self.unanswered.contains(draw.unit)) {
            Needed::Always
        } else {
            Needed::Within
        }
    }

    /// Notes a prediction that the rollout drew.
    pub fn drawn(&mut self, draw: &Draw) {
        if !draw.is_compared() {
            return;
        }
        // A unit that comes again counts no second time, and one too many shows where outcomes are counted.
        let is_first = self.assigned.add(draw).is_ok();
        self.unanswered.note(draw, is_first);
        if is_first {
            self.goals.values_mut().for_each(|goal| goal.begin(draw));
        }
    }

    /// Says what time it is: units whose time is over count, where a missing outcome counts. To be called before whatever happens
    /// then is told; the same time again changes nothing. Says whether there were any.
    pub fn advance(&mut self, now: Millis) -> bool {
        let Self { goals, unanswered, now: before, .. } = self;
        if now <= *before {
            return false;
        }
        *before = now;
        let matured: Vec<bool> = goals.values_mut().map(|goal| goal.mature(now, unanswered)).collect();
        matured.contains(&true)
    }

    /// Notes an outcome of a prediction that was noted. Nothing where no goal asks for this name; otherwise whether it counts for
    /// one.
    pub fn outcome(
        &mut self,
        draw: &Draw,
        name: &str,
        number: Option<f64>,
        at: Millis,
    ) -> Option<Result<(), NotCounted>> {
        let Self { goals, unanswered, assigned, .. } = self;
        let asked = goals.values_mut().filter(|goal| goal.spec.metric == name);
        let counted = asked.map(|goal| {
            if !draw.is_compared() {
                return Err(NotCounted::NotCompared);
            }
            if !assigned.contains(draw.unit) {
                return Err(NotCounted::Saturated);
            }
            goal.outcome(draw, number, at)?;
            // Where a missing outcome counts, those that failed count when their own time is over.
            if goal.spec.missing.is_none() {
                for failed in unanswered.behind(draw.unit) {
                    goal.fail(failed);
                }
            }
            Ok(())
        });
        counted.reduce(|a, b| if a.is_ok() { a } else { b })
    }

    /// What each goal says.
    #[must_use]
    pub fn numbers(&self, plan: &RolloutPlan) -> BTreeMap<GuardName, GoalNumbers> {
        let goals = self.goals.iter();
        goals.map(|(name, goal)| (name.clone(), goal.numbers(&self.assigned, plan, self.stages()))).collect()
    }

    /// The most evidence there ever was that units don't fit the shares, of each stage after the draw.
    #[must_use]
    pub fn mismatches(&self) -> Vec<f64> {
        let labelled = self.goals.values().map(|goal| goal.labelled.peak());
        std::iter::once(self.assigned.peak()).chain(labelled).collect()
    }

    /// In how many stages it is looked for a mismatch, the draw among them.
    fn stages(&self) -> f64 {
        2.0 + self.goals.len() as f64
    }
}

#[cfg(test)]
#[path = "goals_tests.rs"]
mod tests;
