//! One goal: which outcomes count for it.

use super::funnel::Funnel;
use super::unanswered::Unanswered;
use super::{Draw, NotCounted};
use lockgate_core::clock::Millis;
use lockgate_core::goal::{GoalSpec, Sides};
use lockgate_stats::betting::{LEVELS, Tally};
use std::collections::{BTreeMap, HashMap};

#[derive(Debug, Clone)]
pub(super) struct Goal {
    pub(super) spec: GoalSpec,
    /// Units that count.
    pub(super) labelled: Funnel,
    pub(super) tally: Tally,
    /// Units that count because nobody answered them.
    pub(super) failed: Sides,
    pub(super) late: u64,
    /// Units whose time is not over, by when it began, with what was told of them: where a missing outcome counts.
    open: BTreeMap<(Millis, u64), (Draw, Option<f64>)>,
    began: HashMap<u64, Millis>,
}

impl Goal {
    pub(super) fn new(spec: &GoalSpec) -> Self {
        Self {
            spec: spec.clone(),
            labelled: Funnel::default(),
            tally: Tally::default(),
            failed: Sides::default(),
            late: 0,
            open: BTreeMap::new(),
            began: HashMap::new(),
        }
    }

    /// Notes a unit's first prediction.
    pub(super) fn begin(&mut self, draw: &Draw) {
        if self.spec.missing.is_some() {
            self.began.insert(draw.unit, draw.at);
            self.open.insert((draw.at, draw.unit), (*draw, None));
        }
    }

    /// Counts the units whose time is over, where a missing outcome counts; says whether there were any.
    pub(super) fn mature(&mut self, now: Millis, unanswered: &Unanswered) -> bool {
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
            any |= match told {
                Some(told) => self.count(&draw, told).is_ok(),
                None if unanswered.contains(draw.unit) => self.fail(&draw),
                None => self.count(&draw, missing).is_ok(),
            };
        }
        any
    }

    /// Counts a unit that nobody answered as the worst outcome, unless it counts already; says whether it did.
    pub(super) fn fail(&mut self, draw: &Draw) -> bool {
        let counted = self.count(draw, 0.0).is_ok();
        if counted {
            self.failed.add(draw.candidate);
        }
        counted
    }

    pub(super) fn outcome(&mut self, draw: &Draw, number: Option<f64>, at: Millis) -> Result<(), NotCounted> {
        let share = number.and_then(|n| self.spec.share(n)).ok_or(NotCounted::NoNumber)?;
        if self.spec.within_ms.is_some_and(|within| at.saturating_sub(draw.at) > within) {
            self.late += 1;
            return Err(NotCounted::Late);
        }
        if self.spec.missing.is_some() { self.tell(draw, share) } else { self.count(draw, share) }
    }

    /// Notes an outcome of a unit that counts when its time is over.
    fn tell(&mut self, draw: &Draw, share: f64) -> Result<(), NotCounted> {
        let began = self.began.get(&draw.unit).ok_or(NotCounted::UnitOver)?;
        match self.open.get_mut(&(*began, draw.unit)) {
            // The share has moved the unit since, perhaps to the other side: it counts by what it met first, so the outcome of what
            // it met later is none of that. This holds for units that stayed where they were as well, or those that moved would
            // be at a loss.
            Some((first, _)) if (first.weight, first.candidate) != (draw.weight, draw.candidate) => {
                Err(NotCounted::Moved)
            }
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
}
