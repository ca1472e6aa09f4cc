//! Units that got no good answer, and when they count.
//!
//! They are none of those whose outcome somebody tells, and left out they would make a side that fails its bad cases look good. So
//! they count as the worst outcome. Not at once: outcomes of the units that were answered come later, and failures alone would be
//! no sample. Each waits *behind* the unit that was answered next after it, of whichever side, and counts when that one's outcome
//! does. So failures come as late, and as often, as outcomes come at all.

use super::Draw;
use std::collections::{HashMap, HashSet};

/// Units without a good answer so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Unanswered {
    units: HashSet<u64>,
    /// Those after which nothing was answered yet.
    last: Vec<Draw>,
    behind: HashMap<u64, Vec<Draw>>,
}

impl Unanswered {
    /// Notes a prediction, and whether it is its unit's first.
    pub(super) fn note(&mut self, draw: &Draw, is_first: bool) {
        if !draw.answered {
            if is_first {
                self.units.insert(draw.unit);
                self.last.push(*draw);
            }
            return;
        }
        // It was answered in the end: its outcome can come.
        self.units.remove(&draw.unit);
        if is_first && !self.last.is_empty() {
            self.behind.insert(draw.unit, std::mem::take(&mut self.last));
        }
    }

    pub(super) fn contains(&self, unit: u64) -> bool {
        self.units.contains(&unit)
    }

    /// Those that wait behind a unit.
    pub(super) fn behind(&self, unit: u64) -> impl Iterator<Item = &Draw> {
        self.behind.get(&unit).into_iter().flatten().filter(|draw| self.contains(draw.unit))
    }
}
