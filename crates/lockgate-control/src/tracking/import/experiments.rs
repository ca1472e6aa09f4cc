//! Experiments: the number is kept where it is free.

use super::new;
use crate::tracking::exchange::{ExperimentRecord, Outcome, map_of, pairs_of};
use crate::tracking::{Experiment, Lifecycle, TrackingError, checks, places};
use lockgate_store::Tx;

/// The experiment that every store has.
const DEFAULT: i64 = 0;

fn row(tx: &Tx, record: &ExperimentRecord, id: i64) -> Result<Experiment, TrackingError> {
    let location = record.artifact_location.clone();
    Ok(Experiment {
        id,
        name: record.name.clone(),
        artifact_location: location.unwrap_or_else(|| places::of_experiment(tx.workspace(), None, id)),
        lifecycle: lifecycle(&record.lifecycle)?,
        created: record.created,
        updated: record.updated,
        tags: pairs_of(&record.tags),
    })
}

pub(super) fn lifecycle(text: &str) -> Result<Lifecycle, TrackingError> {
    text.parse().map_err(|()| TrackingError::invalid(format!("`{text}` is no lifecycle stage")))
}

/// Nobody has touched it since it was made with the server.
fn is_pristine(found: &Experiment) -> bool {
    found.id == DEFAULT && found.updated == 0 && found.tags.is_empty()
}

fn compared(found: &Experiment, record: &ExperimentRecord) -> Outcome {
    let mut differ = Vec::new();
    if found.lifecycle.as_str() != record.lifecycle {
        differ.push("lifecycle stage");
    }
    if map_of(&found.tags) != record.tags {
        differ.push("tags");
    }
    if record.artifact_location.as_ref().is_some_and(|given| *given != found.artifact_location) {
        differ.push("artifact location");
    }
    Outcome { id: Some(found.id), ..Outcome::compared("it", &differ) }
}

pub(super) async fn take(tx: &mut Tx, record: &ExperimentRecord) -> Result<Outcome, TrackingError> {
    checks::experiment_name(&record.name)?;
    let holder = tx.experiment(record.id).await?;
    if let Some(named) = tx.experiment_named(&record.name).await? {
        let touched = record.updated != 0 || !record.tags.is_empty();
        if is_pristine(&named) && record.id == DEFAULT && touched {
            let row = row(tx, record, DEFAULT)?;
            tx.adopt_experiment(&row).await?;
            return Ok(Outcome { id: Some(DEFAULT), ..new() });
        }
        // Made at the same time under the same name: it came from there, whatever its number here.
        if named.created == record.created || (named.id == DEFAULT && record.id == DEFAULT) {
            return Ok(compared(&named, record));
        }
        return Ok(Outcome::conflict(format!(
            "an experiment of this name is there already, made at another time; its id is {}",
            named.id
        )));
    }
    let id = match holder {
        None if !tx.is_experiment_id_used(record.id).await? => record.id,
        Some(found) if is_pristine(&found) => {
            let row = row(tx, record, found.id)?;
            tx.adopt_experiment(&row).await?;
            return Ok(Outcome { id: Some(found.id), ..new() });
        }
        _ => tx.next_experiment_id().await?.max(record.new_id_from),
    };
    let row = row(tx, record, id)?;
    tx.insert_experiment(&row).await?;
    tx.adopt_experiment(&row).await?;
    Ok(Outcome { id: Some(id), ..new() })
}
