//! Reading single things of a file store back.

use super::{Cursor, experiment, points, registry, traces};
use crate::commands::import::sources::FoundTrace;
use anyhow::Context as _;
use lockgate_control::tracking::exchange::{History, LoggedModelRecord, RunDigests, run_record};
use lockgate_control::tracking::{Experiment, RegisteredModel};
use lockgate_store::foreign::ForeignVersion;
use std::path::Path;

/// Reads single things of a file store.
pub(crate) struct Reader;

impl Reader {
    /// The experiment in a folder.
    pub(crate) fn experiment(folder: &Path) -> anyhow::Result<Experiment> {
        experiment::experiment(folder)
    }

    /// The digests of a run of the experiment in a folder.
    pub(crate) fn run(of: &Path, number: i64, id: &str) -> anyhow::Result<RunDigests> {
        let folder = of.join(id);
        let run = experiment::run(&folder, of, number)?;
        let (mut history, mut at) = (History::default(), Cursor::default());
        loop {
            let page = points::next(&folder.join("metrics"), &mut at)?;
            if page.is_empty() {
                return Ok(RunDigests::of(&run_record(&run), history));
            }
            history.add(&page);
        }
    }

    /// The logged model in a folder.
    pub(crate) fn logged_model(folder: &Path, experiment: i64) -> anyhow::Result<LoggedModelRecord> {
        let found = experiment::logged_model(folder, experiment)?;
        Ok(LoggedModelRecord::of(&found.context("it reads as deleted")?))
    }

    /// The trace in a folder of an experiment's.
    pub(in crate::commands::import) fn trace(folder: &Path, of: &Experiment) -> anyhow::Result<FoundTrace> {
        traces::trace(folder, of)
    }

    /// The registered model in a folder.
    pub(crate) fn registered(folder: &Path) -> anyhow::Result<RegisteredModel> {
        Ok(registry::model(folder)?.0)
    }

    /// A version of the registered model in a folder.
    pub(crate) fn version(folder: &Path, number: i64) -> anyhow::Result<ForeignVersion> {
        let found = registry::version(&folder.join(format!("version-{number}")))?;
        found.with_context(|| format!("version {number} is not there"))
    }
}
