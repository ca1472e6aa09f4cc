//! Goals: what a release is for, told by outcomes that come after the prediction; and what they said.

use serde::{Deserialize, Serialize};

/// Which way a goal's outcome should go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// More is better.
    Up,
    /// Less is better.
    Down,
}

/// A goal: a bounded outcome whose mean is compared, unit by unit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GoalSpec {
    /// The name under which feedback brings the outcome.
    pub metric: String,
    /// Which way it should go.
    pub direction: Direction,
    /// What the candidate's gain over the baseline must be proven to exceed, as a share of the range; below 0 it is a loss that
    /// must be excluded.
    pub gain: f64,
    /// A loss that must be exceeded to roll back, as a share of the range.
    pub rollback_by: f64,
    /// The smallest outcome; what is below counts as this.
    pub least: f64,
    /// The largest outcome; what is above counts as this.
    pub most: f64,
    /// How long after its prediction an outcome counts, in milliseconds; none for ever.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub within_ms: Option<i64>,
    /// What a unit's outcome is that did not come in this time; none where such a unit has no outcome.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub missing: Option<f64>,
}

impl GoalSpec {
    /// Whether it asks for a gain, and not only that there is no loss.
    #[must_use]
    pub fn asks_for_gain(&self) -> bool {
        self.gain >= 0.0
    }

    /// An outcome as a share of the range, 0 to 1, of which more is better. None where it is no number.
    #[must_use]
    pub fn share(&self, outcome: f64) -> Option<f64> {
        let share = ((outcome - self.least) / (self.most - self.least)).clamp(0.0, 1.0);
        let share = if self.direction == Direction::Up { share } else { 1.0 - share };
        (!share.is_nan()).then_some(share)
    }
}

/// How many units there were on both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Sides {
    /// The candidate's.
    pub candidate: u64,
    /// The baseline's.
    pub baseline: u64,
}

impl Sides {
    /// Whether there are none.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// One more of a side.
    pub fn add(&mut self, is_candidate: bool) {
        let side = if is_candidate { &mut self.candidate } else { &mut self.baseline };
        *side += 1;
    }

    /// All of them.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.candidate + self.baseline
    }
}

/// What a goal's evidence was made from: enough to make it again, bit for bit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GoalReading {
    /// The gain that had to be exceeded to promote.
    pub gain: f64,
    /// The loss that had to be exceeded to roll back.
    pub rollback_by: f64,
    /// Units that were drawn into each side at shares at which there is something to compare.
    #[serde(alias = "answered")]
    pub assigned: Sides,
    /// Units that count: those whose outcome came, and those that failed.
    pub labelled: Sides,
    /// Units that got no good answer, and count as the worst outcome.
    #[serde(skip_serializing_if = "Sides::is_none", default)]
    pub failed: Sides,
    /// Mean outcomes as shares of the range, of which more is better.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub means: Option<(f64, f64)>,
    /// The candidate's mean less the baseline's, and the interval that holds at every look.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub difference: Option<(f64, f64, f64)>,
    /// Why the outcomes can't be compared, where they can't.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub void: Option<String>,
    /// The outcomes.
    pub counts: Vec<GoalCount>,
}

/// Outcomes at one share of the traffic and one centre (see `lockgate_stats::betting`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoalCount {
    /// The candidate's share in parts of [`crate::route::WHOLE`].
    pub weight: u32,
    /// The centre, in thousandths of the range.
    pub centre: u32,
    /// The candidate's units: outcome in thousandths of the range, and how many.
    pub candidate: Vec<(u32, u64)>,
    /// The baseline's.
    pub baseline: Vec<(u32, u64)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_of_the_versions_before_are_read() {
        let text = r#"{"gain":0.0,"rollback_by":0.0,"answered":{"candidate":3,"baseline":4},
            "labelled":{"candidate":1,"baseline":2},"counts":[]}"#;
        let reading: GoalReading = serde_json::from_str(text).unwrap();
        assert_eq!((reading.assigned.sum(), reading.failed), (7, Sides::default()));
        assert!(!serde_json::to_string(&reading).unwrap().contains("failed"));
    }

    #[test]
    fn outcomes_are_shares_of_their_range_and_more_is_better() {
        let up = GoalSpec {
            metric: "minutes".to_owned(),
            direction: Direction::Up,
            gain: 0.0,
            rollback_by: 0.0,
            least: 0.0,
            most: 60.0,
            within_ms: None,
            missing: None,
        };
        let down = GoalSpec { direction: Direction::Down, ..up.clone() };
        assert_eq!([15.0, 90.0, -1.0].map(|y| up.share(y)), [Some(0.25), Some(1.0), Some(0.0)]);
        assert_eq!(down.share(15.0), Some(0.75));
        assert_eq!(up.share(f64::NAN), None);
    }
}
