//! Traces of a file store.

use super::{name, pairs, yaml};
use crate::commands::import::sources::{FoundTrace, message};
use crate::commands::import::walk;
use anyhow::{Context as _, bail};
use lockgate_control::tracking::Experiment;
use lockgate_control::tracking::exchange::Pairs;
use std::path::Path;

/// The description of a trace.
pub(super) const FILE: &str = "trace_info.yaml";
/// The folder of an experiment's traces.
pub(super) const FOLDER: &str = "traces";

fn map(folder: &Path) -> anyhow::Result<Pairs> {
    Ok(pairs(folder)?.into_iter().map(|pair| (pair.key, pair.value)).collect())
}

/// The trace in a folder.
pub(super) fn trace(folder: &Path, of: &Experiment) -> anyhow::Result<FoundTrace> {
    let path = folder.join(FILE);
    let found = message::trace(&yaml::read(&path)?, of)
        .with_context(|| format!("{} is no description of a trace", path.display()))?;
    let FoundTrace { mut record, .. } = found;
    if record.trace_id != name(folder) {
        bail!("{} describes a trace of another id, `{}`", path.display(), record.trace_id.escape_debug());
    }
    record.tags = map(&folder.join("tags"))?;
    record.metadata.extend(map(&folder.join("request_metadata"))?);
    record.metadata.extend(map(&folder.join("trace_metadata"))?);
    // Those in the description are as they were when the trace began.
    record.assessments.clear();
    let said = folder.join("assessments");
    for file in walk::plain(&said)?.into_iter().filter(|file| file.path.ends_with(".yaml")) {
        let path = said.join(&file.path);
        let one = message::assessment(&yaml::read(&path)?)
            .with_context(|| format!("{} is no assessment", path.display()))?;
        if path.file_stem().and_then(|stem| stem.to_str()) != Some(one.id.as_str()) {
            bail!("{} is an assessment of another id, `{}`", path.display(), one.id.escape_debug());
        }
        record.assessments.push(one);
    }
    Ok(message::found(record, of))
}
