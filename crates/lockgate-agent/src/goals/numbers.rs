//! What goals say, as numbers and in words.

use super::funnel::Funnel;
use super::goal::Goal;
use crate::judge::GoalNumbers;
use lockgate_core::goal::{Direction, GoalCount, GoalReading, Sides};
use lockgate_core::plan::RolloutPlan;
use lockgate_stats::betting::{self, Difference, Levels, Segment};
use lockgate_stats::decision::log_needed;

/// Fewer outcomes than this share of the units are said to be few.
const FEW: f64 = 0.5;

impl Goal {
    pub(super) fn numbers(&self, assigned: &Funnel, plan: &RolloutPlan, stages: f64) -> GoalNumbers {
        let segments = self.tally.segments();
        let needed = log_needed("alpha_sample_ratio", plan.alpha_sample_ratio).unwrap_or(f64::MAX);
        let off = |funnel: &Funnel| funnel.peak() - stages.ln() >= needed;
        let void = if off(&self.labelled) {
            Some("outcomes come more often for one side than its share of the units explains")
        } else if off(assigned) {
            Some("one side has more of the units than its share explains")
        } else {
            None
        };
        let reading = self.reading(&segments, assigned.total(), void, plan);
        let saturated = assigned.is_full();
        let mut words = self.words(&reading);
        if saturated {
            words.push_str("; more units than can be told apart: new ones no longer count");
        }
        let (worse, better) = match void {
            Some(_) => (0.0, 0.0),
            None => evidence(&reading),
        };
        GoalNumbers { worse, not_worse: if saturated { 0.0 } else { better }, reading, words }
    }

    fn words(&self, reading: &GoalReading) -> String {
        let GoalReading { assigned, labelled, failed, means, difference, void, .. } = reading;
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
            side(labelled.candidate, assigned.candidate, means.map(|m| m.0)),
            side(labelled.baseline, assigned.baseline, means.map(|m| m.1)),
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
        if !failed.is_none() {
            words.push_str(&format!(
                "; {} of these got no good answer, which counts as the worst, baseline {}",
                failed.candidate, failed.baseline
            ));
        }
        if self.late > 0 {
            words.push_str(&format!("; {} came too late", self.late));
        }
        if let Some(void) = void {
            words.push_str(&format!("; void: {void}"));
        } else if spec.missing.is_none() {
            words.push_str(&few(*assigned, *labelled));
        }
        words
    }

    fn reading(
        &self,
        segments: &[Segment],
        assigned: Sides,
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
            gain: self.spec.gain,
            rollback_by: self.spec.rollback_by,
            assigned,
            labelled: self.labelled.total(),
            failed: self.failed,
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
}

/// A warning where many units have no outcome: those that have one may be unlike the others.
fn few(assigned: Sides, labelled: Sides) -> String {
    let (all, some) = (assigned.sum(), labelled.sum());
    if some == 0 || some as f64 >= FEW * all as f64 {
        return String::new();
    }
    format!("; only {:.0}% have an outcome, which may be unlike the others", some as f64 / all as f64 * 100.0)
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
