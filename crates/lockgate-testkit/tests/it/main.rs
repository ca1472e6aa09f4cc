//! The scripts and their stories, and what one script alone can't show.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod calm;
mod kills;
mod scripts;

use lockgate_agent::judge::{self, judge};
use lockgate_gateway::assign::is_candidate;
use lockgate_stats::disagreement::Samples;
use lockgate_testkit::world::{Counts, Evidence, Parts, Weighed};

fn side(c: &Counts) -> judge::Counts {
    judge::Counts {
        drawn: c.drawn,
        units: c.units,
        requests: c.requests,
        first_bad: c.first_bad,
        // Simulated releases answer well or badly; they refuse nothing.
        refused: 0,
        errors: c.errors,
        slow_rollback: c.slow_rollback,
        slow_promote: c.slow_promote,
        slow_slo: c.slow_slo,
        repeats: c.repeats,
    }
}

fn weighed(all: &[Weighed]) -> Vec<judge::Weighed> {
    let each = all.iter().map(|w| judge::Weighed {
        weight: w.weight,
        candidate: side(&w.candidate),
        baseline: side(&w.baseline),
    });
    each.collect()
}

fn judged(seen: &Evidence) -> judge::Evidence {
    let shadow = seen.shadow.as_ref().map(|s| {
        let [more, same, less] = s.samples;
        judge::Shadow {
            is_now: s.is_now,
            weights: weighed(&s.weights),
            saturated: false,
            thresholds: s.thresholds,
            samples: Samples { more, same, less },
            differed: more,
            noise: less,
        }
    });
    judge::Evidence {
        weights: weighed(&seen.weights),
        saturated: false,
        compared: seen.compared,
        thresholds: seen.thresholds,
        shadow,
    }
}

/// The agent's judge and the gateway's assignment.
fn parts() -> Parts {
    Parts { judge: |plan, seen, peaks| judge(plan, &judged(seen), peaks), assign: is_candidate }
}
