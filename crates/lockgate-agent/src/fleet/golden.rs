//! Asking a revision's workers for its golden set. A revision serves only after that was answered rightly.

use super::checks::Said;
use super::{Fleet, Running};
use crate::AgentError;
use crate::caller::Caller;
use crate::gates::{Golden, RowForm};
use crate::releases::LocalRelease;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use lockgate_core::gate::GateSpec;
use lockgate_core::plan::{Plan, Revision};
use lockgate_core::route::WorkerAddress;
use std::time::Instant;

/// The largest difference from the golden set with which a release may serve, where no parity gate says another one.
const GOLDEN_ATOL: f64 = 1e-4;

impl Fleet {
    /// Asks those of a revision's workers for its golden set that have to be asked now, and remembers what they said.
    pub(crate) async fn check(
        &self,
        revision: &Revision,
        plan: &Plan,
        release: &LocalRelease,
    ) -> Result<(), AgentError> {
        let key = revision.digest();
        let due = {
            let running = self.lock();
            let Some(found) = running.get(&key) else { return Ok(()) };
            let addresses = found.supervisor.addresses();
            let due = found.due().into_iter();
            due.filter_map(|(index, life)| Some((index, life, addresses.get(index)?.clone())))
                .collect::<Vec<_>>()
        };
        if due.is_empty() {
            return Ok(());
        }
        let (golden, atol) = (golden(release)?, atol(plan));
        let mut asked: FuturesUnordered<_> = due
            .iter()
            .map(async |(index, life, address)| {
                let said = match &golden {
                    Some(golden) => ask(golden, address, release, atol).await,
                    None => Ok(Said::Right),
                };
                (*index, *life, said)
            })
            .collect();
        let mut outcome = Ok(());
        while let Some((index, life, said)) = asked.next().await {
            let said = match said {
                Ok(said) => said,
                // Only a wrong answer is the release's fault; a worker that could not be asked is asked again.
                Err(error) => {
                    let why = error.to_string();
                    outcome = Err(error);
                    Said::Busy(why)
                }
            };
            if let Some(found) = self.lock().get_mut(&key) {
                found.checks.note(index, life, said, Instant::now());
            }
        }
        outcome
    }

    /// Whether some of a revision's workers have to be asked for its golden set, also where others serve.
    pub(crate) fn is_check_due(&self, revision: &Revision) -> bool {
        self.lock().get(&revision.digest()).is_some_and(|found| !found.due().is_empty())
    }
}

impl Running {
    fn due(&self) -> Vec<(usize, super::checks::Life)> {
        self.checks.due(&self.supervisor.status().borrow(), Instant::now())
    }
}

fn atol(plan: &Plan) -> f64 {
    let said = plan.gates.values().find_map(|g| match g {
        GateSpec::Parity { atol } => Some(*atol),
        _ => None,
    });
    said.unwrap_or(GOLDEN_ATOL)
}

/// The release's golden set, where it has one.
pub(crate) fn golden(release: &LocalRelease) -> Result<Option<Golden>, AgentError> {
    let Some(path) = crate::releases::golden_path(release) else { return Ok(None) };
    let bytes = std::fs::read(&path).map_err(|e| AgentError::io("read", &path, e))?;
    Golden::parse(&bytes, &release.manifest).map(Some).map_err(AgentError::Untrusted)
}

/// Whether the golden set is answered rightly.
async fn ask(
    golden: &Golden,
    address: &WorkerAddress,
    release: &LocalRelease,
    atol: f64,
) -> Result<Said, AgentError> {
    let asked = async {
        let mut caller = Caller::open(address, release.manifest.runtime.server()).await?;
        let form = RowForm::of(&mut caller, &release.manifest).await?;
        let body = form.request(&golden.columns, &golden.rows)?;
        let reply = caller.post_unless_busy(form.path(), body).await?;
        if let Some(why) = reply.wrong() {
            return Ok(Said::Wrong(format!("it answered its golden set with {why}")));
        }
        let scores = form.scores(&reply.body, golden.rows.len())?;
        let (worst, row) = golden.largest_difference(&scores);
        Ok(if worst <= atol {
            Said::Right
        } else {
            Said::Wrong(format!(
                "row {row} of its golden set is answered {worst:.3e} off, allowed {atol:.0e}"
            ))
        })
    };
    match asked.await {
        Err(AgentError::Busy(why)) => Ok(Said::Busy(why)),
        Err(AgentError::Gate(why)) => Ok(Said::Wrong(why)),
        other => other,
    }
}
