//! Taking rows away: a thing's own row first, what belongs to it in steps.

use super::survey::trace_root;
use super::{Kept, Report};
use crate::error::ControlError;
use lockgate_core::clock::Millis;
use lockgate_store::Store;
use lockgate_store::tracking::gc::{Doomed, Kind};

/// How many things are looked up at a time.
const PAGE: i64 = 256;
/// How many traces go in one transaction.
const TRACES: i64 = 200;
/// How many rows of their own go in one transaction.
const AT_ONCE: usize = 64;

impl Report {
    /// Counts what goes.
    pub(super) fn count(&mut self, doomed: &[Doomed]) {
        for one in doomed {
            *match one.kind {
                Kind::Run => &mut self.runs,
                Kind::Model => &mut self.logged_models,
                Kind::Experiment => &mut self.experiments,
                Kind::Version => &mut self.version_files,
            } += 1;
        }
    }
}

/// Takes away what was chosen, and gives what went. What somebody restored or registered meanwhile stays.
pub(super) async fn take(
    store: &Store,
    chosen: Vec<Doomed>,
    until: Millis,
    kept: &mut Vec<Kept>,
) -> Result<Vec<Doomed>, ControlError> {
    let mut gone = Vec::new();
    for some in chosen.chunks(AT_ONCE) {
        let some = some.to_vec();
        let taken = store.write(move |tx| {
            Box::pin(async move {
                let mut taken = Vec::new();
                for one in some {
                    let went = tx.doom(&one, until).await?;
                    taken.push((one, went));
                }
                Ok::<_, ControlError>(taken)
            })
        });
        for (one, went) in taken.await? {
            match went {
                true => gone.push(one),
                false => kept.push(Kept {
                    what: format!("{} {}", one.kind.as_str(), one.id),
                    why: "it was changed meanwhile".to_owned(),
                }),
            }
        }
        finish(store).await?;
    }
    Ok(gone)
}

/// Takes away what belongs to things whose own rows have gone, also those of an earlier call that broke off.
pub(super) async fn finish(store: &Store) -> Result<(), ControlError> {
    loop {
        let page = store.read(|conn| Box::pin(async move { conn.doomed(PAGE).await })).await?;
        if page.is_empty() {
            return Ok(());
        }
        for doomed in page {
            finish_one(store, doomed).await?;
        }
    }
}

async fn finish_one(store: &Store, doomed: Doomed) -> Result<(), ControlError> {
    loop {
        let one = doomed.clone();
        let done = store.write(move |tx| {
            Box::pin(async move {
                let mut left = tx.wear_down(&one).await?;
                if one.kind == Kind::Experiment {
                    left |= traces(tx, &one).await?;
                }
                if !left {
                    tx.forget_doomed(&one).await?;
                }
                Ok::<_, ControlError>(!left)
            })
        });
        if done.await? {
            return Ok(());
        }
    }
}

/// Takes some of an experiment's traces away; says whether any may be left.
async fn traces(tx: &mut lockgate_store::Tx, experiment: &Doomed) -> Result<bool, ControlError> {
    let number = experiment.id.parse::<i64>().unwrap_or(-1);
    let ids = tx.some_traces(number, TRACES).await?;
    let roots: Vec<String> = ids.iter().filter_map(|id| trace_root(&experiment.place, id)).collect();
    tx.delete_roots(&roots).await?;
    tx.delete_traces(&ids).await?;
    Ok(ids.len() as i64 >= TRACES)
}
