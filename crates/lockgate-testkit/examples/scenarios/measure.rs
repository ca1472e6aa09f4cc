//! Many worlds of one case, and what came of them.

use crate::cases::{Case, Fault};
use crate::parts::parts;
use lockgate_core::clock::Millis;
use lockgate_core::event::RolloutEvent;
use lockgate_core::id::PromotionId;
use lockgate_testkit::story::tell_all;
use lockgate_testkit::world::World;

/// How often it is looked whether a world has come to its end.
const LOOK_EVERY: Millis = 1_000;

/// How one world ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    pub(crate) end: End,
    /// Bad answers of the candidate that users got.
    pub(crate) bad_answers: Option<u64>,
    /// From the first of them, or from its first step where none is seen to be bad, to the rollback that was seen, in
    /// milliseconds.
    pub(crate) reverted_ms: Option<Millis>,
    /// Requests that nobody answered.
    pub(crate) lost: u64,
}

/// Where the candidate stood at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    RolledBack,
    Promoted,
    Held,
}

/// Plays all worlds of a case, each with a seed of its own.
pub(crate) fn measure(case: &Case) -> Result<Vec<Run>, String> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let share = |of: u64| -> Result<Vec<Run>, String> {
        (of..case.runs).step_by(threads as usize).map(|seed| world(case, seed)).collect()
    };
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|of| scope.spawn(move || share(of))).collect();
        let mut runs = Vec::new();
        for one in all {
            runs.extend(one.join().map_err(|_| "a world panicked".to_owned())??);
        }
        Ok(runs)
    })
}

fn world(case: &Case, seed: u64) -> Result<Run, String> {
    let (story, world) = tell_all(&case.script, seed, parts());
    let mut world = world.map_err(|why| format!("{}: {why}\n{story}", case.what))?;
    let promotion = |world: &World| -> Result<PromotionId, String> {
        let last = world.journal()?.last().map(|line| line.promotion.clone());
        last.ok_or_else(|| format!("{}: nothing was promoted", case.what))
    };
    let candidate = promotion(&world)?;
    let mut end = End::Held;
    let mut gone = 0;
    while gone < case.horizon {
        world.run(LOOK_EVERY)?;
        gone += LOOK_EVERY;
        match world.stage(&candidate) {
            Some("rolled-back") => {
                end = End::RolledBack;
                break;
            }
            Some("confirmed") => {
                end = End::Promoted;
                break;
            }
            Some("probation") => end = End::Promoted,
            _ => {}
        }
    }
    let totals = world.totals("v2");
    let journal = world.journal()?;
    let seal = journal.iter().rfind(|l| matches!(l.event, RolloutEvent::RolledBack(_))).map(|l| l.at);
    let step = |e: &RolloutEvent| matches!(e, RolloutEvent::StepEntered { .. });
    let entered = journal.iter().find(|l| l.promotion == candidate && step(&l.event)).map(|l| l.at);
    let (bad_answers, first) = match case.fault {
        Fault::Errors => (Some(totals.bad_answers), totals.first_bad),
        Fault::Silent => (Some(totals.requests), entered),
        Fault::Slow => (None, entered),
    };
    Ok(Run {
        end,
        bad_answers,
        reverted_ms: seal.zip(first).map(|(seal, first)| seal - first),
        lost: world.unanswered(),
    })
}
