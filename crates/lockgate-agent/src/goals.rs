//! What a rollout's goals have seen: outcomes that came after the predictions, each unit once. Pure.
//!
//! *Attribution*: an outcome belongs to the side that its prediction was drawn into, at the share that there was, and counts only
//! where that side itself answered well. *Once per unit*: the first outcome of a unit counts. *Where it can be compared*: shares
//! between nothing and all. *Three stages*: units must fit the share when they are drawn (the gateway counts that), when they
//! are answered and when their outcome comes. Outcomes that come more often for one side than for the other are no sample of it, and
//! then neither "better" nor "worse" follows from them. Where a goal says what a missing outcome counts as, every answered unit has one:
//! it counts when its time is over, and not before, for the outcomes that are told come sooner than those that are missing.

use crate::judge::GoalNumbers;
use lockgate_core::clock::Millis;
use lockgate_core::goal::{Direction, GoalCount, GoalReading, GoalSpec, Sides};
use lockgate_core::guard::GuardSpec;
use lockgate_core::id::GuardName;
use lockgate_core::plan::RolloutPlan;
use lockgate_core::route::WHOLE;
use lockgate_stats::betting::{self, Difference, LEVELS, Levels, Segment, Tally};
use lockgate_stats::decision::log_needed;
use lockgate_stats::{srm, thinning};
use std::collections::{BTreeMap, HashMap, HashSet};

/// How many units can be told apart. From then on nothing new is counted, and so nothing new proven.
pub const UNITS: usize = 2_000_000;

/// Fewer outcomes than this share of the answered units are said to be few.
const FEW: f64 = 0.5;

/// A prediction that a rollout drew, as its goals see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draw {
    /// The candidate's share at that moment, in parts of [`WHOLE`].
    pub weight: u32,
    /// Whether it was drawn into the candidate's side.
    pub candidate: bool,
    /// Whether that side answered it well.
    pub answered: bool,
    /// A hash of its unit.
    pub unit: u64,
    /// When it was asked for.
    pub at: Millis,
}

impl Draw {
    fn is_compared(&self) -> bool {
        self.answered && self.weight > 0 && self.weight < WHOLE
    }
}

/// Why an outcome does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotCounted {
    /// The side that it was drawn into gave no good answer.
    NotAnswered,
    /// All the traffic went to one side.
    NotCompared,
    /// It came too late.
    Late,
    /// An outcome of the same unit counts already.
    UnitCounted,
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
            Self::NotAnswered => "the side that this prediction was drawn into did not answer it well",
            Self::NotCompared => "all the traffic went to one side then, so it can't be compared",
            Self::Late => "it came later after the prediction than the goal's `within`",
            Self::UnitCounted => "an outcome of the same unit counts already, and each unit counts once",
            Self::NoNumber => "the goal needs a number",
            Self::Saturated => "there are more units than can be told apart",
        }
    }
}

/// Units of both sides at each share.
#[derive(Debug, Clone, Default)]
struct Funnel {
    units: HashSet<u64>,
    counts: BTreeMap<u32, Sides>,
}

impl Funnel {
    /// Counts a unit where it is new; says why not, if not.
    fn add(&mut self, draw: &Draw) -> Result<(), NotCounted> {
        if self.units.contains(&draw.unit) {
            return Err(NotCounted::UnitCounted);
        }
        if self.units.len() >= UNITS {
            return Err(NotCounted::Saturated);
        }
        self.units.insert(draw.unit);
        let sides = self.counts.entry(draw.weight).or_default();
        let side = if draw.candidate { &mut sides.candidate } else { &mut sides.baseline };
        *side += 1;
        Ok(())
    }

    fn total(&self) -> Sides {
        self.counts.values().fold(Sides::default(), |sum, s| Sides {
            candidate: sum.candidate + s.candidate,
            baseline: sum.baseline + s.baseline,
        })
    }

    /// Evidence that these units don't fit the shares.
    fn mismatch(&self) -> f64 {
        let segments: Vec<thinning::Segment> = self
            .counts
            .iter()
            .map(|(weight, sides)| thinning::Segment {
                weight: f64::from(*weight) / f64::from(WHOLE),
                candidate_events: sides.candidate,
                baseline_events: sides.baseline,
            })
            .collect();
        srm::log_e_stepped(&segments)
    }
}

#[derive(Debug, Clone)]
struct Goal {
    spec: GoalSpec,
    labelled: Funnel,
    tally: Tally,
    late: u64,
    /// Units whose time is not over, by when it began, with what was told of them: where a missing outcome counts.
    open: BTreeMap<(Millis, u64), (Draw, Option<f64>)>,
    began: HashMap<u64, Millis>,
}

/// What the goals of one rollout have seen.
#[derive(Debug, Clone, Default)]
pub struct GoalBook {
    answered: Funnel,
    goals: BTreeMap<GuardName, Goal>,
}

impl GoalBook {
    /// An empty book for a plan's goals.
    #[must_use]
    pub fn new(plan: &RolloutPlan) -> Self {
        let goals = plan.guards.iter().filter_map(|(name, spec)| match spec {
            GuardSpec::Goal(spec) => Some((name.clone(), Goal::new(spec))),
            _ => None,
        });
        Self { answered: Funnel::default(), goals: goals.collect() }
    }

    /// Whether there is any goal.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.goals.is_empty()
    }

    /// Notes a prediction that the rollout drew.
    pub fn drawn(&mut self, draw: &Draw) {
        if draw.is_compared() {
            // A unit that comes again counts no second time, and one too many shows where outcomes are counted.
            let _ = self.answered.add(draw);
            self.goals.values_mut().for_each(|goal| goal.wait_for(draw));
        }
    }

    /// Counts the units whose time is over, where a missing outcome counts; says whether there were any.
    pub fn mature(&mut self, now: Millis) -> bool {
        let matured: Vec<bool> = self.goals.values_mut().map(|goal| goal.mature(now)).collect();
        matured.contains(&true)
    }

    /// Notes an outcome. Nothing where no goal asks for this name; otherwise whether it counts for one.
    pub fn outcome(
        &mut self,
        draw: &Draw,
        name: &str,
        number: Option<f64>,
        at: Millis,
    ) -> Option<Result<(), NotCounted>> {
        let asked = self.goals.values_mut().filter(|goal| goal.spec.metric == name);
        asked.map(|goal| goal.outcome(draw, number, at)).reduce(|a, b| if a.is_ok() { a } else { b })
    }

    /// What each goal says.
    #[must_use]
    pub fn numbers(&self, plan: &RolloutPlan) -> BTreeMap<GuardName, GoalNumbers> {
        let goals = self.goals.iter();
        goals.map(|(name, goal)| (name.clone(), goal.numbers(&self.answered, plan, self.stages()))).collect()
    }

    /// Evidence that units don't fit the shares, of each stage after the draw.
    #[must_use]
    pub fn mismatches(&self) -> Vec<f64> {
        let labelled = self.goals.values().map(|goal| goal.labelled.mismatch());
        std::iter::once(self.answered.mismatch()).chain(labelled).collect()
    }

    /// In how many stages it is looked for a mismatch, the draw among them.
    fn stages(&self) -> f64 {
        2.0 + self.goals.len() as f64
    }
}

impl Goal {
    fn new(spec: &GoalSpec) -> Self {
        Self {
            spec: spec.clone(),
            labelled: Funnel::default(),
            tally: Tally::default(),
            late: 0,
            open: BTreeMap::new(),
            began: HashMap::new(),
        }
    }

    fn wait_for(&mut self, draw: &Draw) {
        let known = self.began.contains_key(&draw.unit) || self.labelled.units.contains(&draw.unit);
        if self.spec.missing.is_some() && !known && self.labelled.units.len() + self.began.len() < UNITS {
            self.began.insert(draw.unit, draw.at);
            self.open.insert((draw.at, draw.unit), (*draw, None));
        }
    }

    fn mature(&mut self, now: Millis) -> bool {
        let (Some(missing), Some(within)) =
            (self.spec.missing.and_then(|m| self.spec.share(m)), self.spec.within_ms)
        else {
            return false;
        };
        let mut any = false;
        while let Some(first) = self.open.first_entry()
            && now.saturating_sub(first.key().0) > within
        {
            let (draw, told) = first.remove();
            self.began.remove(&draw.unit);
            any |= self.count(&draw, told.unwrap_or(missing)).is_ok();
        }
        any
    }

    /// Notes an outcome of a unit whose time is not over.
    fn tell(&mut self, draw: &Draw, share: f64, at: Millis) -> Result<(), NotCounted> {
        let Some(began) = self.began.get(&draw.unit) else {
            return Err(NotCounted::UnitCounted);
        };
        if self.spec.within_ms.is_some_and(|within| at.saturating_sub(*began) > within) {
            self.late += 1;
            return Err(NotCounted::Late);
        }
        match self.open.get_mut(&(*began, draw.unit)) {
            Some((_, told)) if told.is_none() => {
                *told = Some(share);
                Ok(())
            }
            _ => Err(NotCounted::UnitCounted),
        }
    }

    fn count(&mut self, draw: &Draw, share: f64) -> Result<(), NotCounted> {
        self.labelled.add(draw)?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of 0 to 1")]
        let level = (share * f64::from(LEVELS)).round() as u32;
        self.tally.add(draw.weight, draw.candidate, level);
        Ok(())
    }

    fn outcome(&mut self, draw: &Draw, number: Option<f64>, at: Millis) -> Result<(), NotCounted> {
        if !draw.answered {
            return Err(NotCounted::NotAnswered);
        }
        if !draw.is_compared() {
            return Err(NotCounted::NotCompared);
        }
        let share = number.and_then(|n| self.spec.share(n)).ok_or(NotCounted::NoNumber)?;
        if self.spec.missing.is_some() {
            return self.tell(draw, share, at);
        }
        if self.spec.within_ms.is_some_and(|within| at.saturating_sub(draw.at) > within) {
            self.late += 1;
            return Err(NotCounted::Late);
        }
        self.count(draw, share)
    }

    fn numbers(&self, answered: &Funnel, plan: &RolloutPlan, stages: f64) -> GoalNumbers {
        let segments = self.tally.segments();
        let needed = log_needed("alpha_sample_ratio", plan.alpha_sample_ratio).unwrap_or(f64::MAX);
        let off = |funnel: &Funnel| funnel.mismatch() - stages.ln() >= needed;
        let void = if off(&self.labelled) {
            Some("outcomes come more often for one side than its share of the units explains")
        } else if off(answered) {
            Some("one side answers fewer of its units than the other")
        } else {
            None
        };
        let reading = reading(&self.spec, &segments, answered.total(), self.labelled.total(), void, plan);
        let words = self.words(&reading);
        let saturated = self.labelled.units.len() >= UNITS;
        let (worse, better) = match void {
            Some(_) => (0.0, 0.0),
            None => evidence(&reading),
        };
        GoalNumbers { worse, not_worse: if saturated { 0.0 } else { better }, reading, words }
    }

    fn words(&self, reading: &GoalReading) -> String {
        let GoalReading { answered, labelled, means, difference, void, .. } = reading;
        let spec = &self.spec;
        let mean = |share: f64| {
            let share = if spec.direction == Direction::Up { share } else { 1.0 - share };
            if (spec.least, spec.most) == (0.0, 1.0) {
                format!("{:.1}%", share * 100.0)
            } else {
                format!("{:.4}", spec.least + share * (spec.most - spec.least))
            }
        };
        let side = |of: u64, all: u64, m: Option<f64>| {
            format!("{of} of {all} units{}", m.map_or_else(String::new, |m| format!(", mean {}", mean(m))))
        };
        let mut words = format!(
            "`{}` of {}; baseline {}",
            spec.metric,
            side(labelled.candidate, answered.candidate, means.map(|m| m.0)),
            side(labelled.baseline, answered.baseline, means.map(|m| m.1)),
        );
        if let Some((d, low, high)) = difference {
            let points = |share: f64| format!("{:+.1}", share * 100.0);
            let sign = if spec.direction == Direction::Up { "" } else { ", plus is better" };
            words.push_str(&format!(
                "; difference {} points ({} to {} at every look{sign})",
                points(*d),
                points(*low),
                points(*high)
            ));
        }
        if self.late > 0 {
            words.push_str(&format!("; {} came too late", self.late));
        }
        if let Some(void) = void {
            words.push_str(&format!("; void: {void}"));
        } else if spec.missing.is_none() {
            words.push_str(&few(*answered, *labelled));
        }
        words
    }
}

/// A warning where many units have no outcome: those that have one may be unlike the others.
fn few(answered: Sides, labelled: Sides) -> String {
    let (all, some) = (answered.candidate + answered.baseline, labelled.candidate + labelled.baseline);
    if some == 0 || some as f64 >= FEW * all as f64 {
        return String::new();
    }
    format!("; only {:.0}% have an outcome, which may be unlike the others", some as f64 / all as f64 * 100.0)
}

fn reading(
    spec: &GoalSpec,
    segments: &[Segment],
    answered: Sides,
    labelled: Sides,
    void: Option<&str>,
    plan: &RolloutPlan,
) -> GoalReading {
    let sum = |arm: fn(&Segment) -> &Levels| {
        let mut all = Levels::new();
        for (level, n) in segments.iter().flat_map(arm) {
            *all.entry(*level).or_insert(0) += n;
        }
        betting::mean(&all)
    };
    let pairs = |levels: &Levels| levels.iter().map(|(level, n)| (*level, *n)).collect();
    let difference = betting::estimate(segments)
        .zip(betting::interval(segments, plan.alpha_promote))
        .map(|(d, (low, high))| (d, low, high));
    GoalReading {
        gain: spec.gain,
        rollback_by: spec.rollback_by,
        answered,
        labelled,
        means: sum(|s| &s.candidate).zip(sum(|s| &s.baseline)),
        difference,
        void: void.map(str::to_owned),
        counts: segments
            .iter()
            .map(|s| GoalCount {
                weight: s.weight,
                centre: s.centre,
                candidate: pairs(&s.candidate),
                baseline: pairs(&s.baseline),
            })
            .collect(),
    }
}

/// The evidence for worse and for good enough, made from what a reading holds: whoever has the reading makes the same.
#[must_use]
pub fn evidence(reading: &GoalReading) -> (f64, f64) {
    let segments: Vec<Segment> = reading
        .counts
        .iter()
        .map(|count| Segment {
            weight: count.weight,
            centre: count.centre,
            candidate: count.candidate.iter().copied().collect(),
            baseline: count.baseline.iter().copied().collect(),
        })
        .collect();
    let worse = betting::log_e(&segments, -reading.rollback_by, Difference::Below);
    (worse, betting::log_e(&segments, reading.gain, Difference::Above))
}

#[cfg(test)]
#[path = "goals_tests.rs"]
mod tests;
