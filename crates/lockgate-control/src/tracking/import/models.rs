//! Logged models.

use super::new;
use crate::tracking::exchange::convert::metric;
use crate::tracking::exchange::{LoggedModelRecord, Outcome, pairs_of};
use crate::tracking::{Lifecycle, LoggedModel, Metric, TrackingError, places};
use lockgate_store::Tx;

fn differences(found: &LoggedModel, record: &LoggedModelRecord) -> Vec<&'static str> {
    let mut differ = LoggedModelRecord::of(found).differences(record);
    if record.artifact_uri.as_ref().is_some_and(|given| *given != found.artifact_uri) {
        differ.push("artifact location");
    }
    differ
}

pub(super) async fn take(tx: &mut Tx, record: &LoggedModelRecord) -> Result<Outcome, TrackingError> {
    if !places::is_model_id(&record.model_id) {
        return Ok(Outcome::conflict(
            "its id is none of MLflow's: m- and 32 hexadecimal digits are expected",
        ));
    }
    if let Some(found) = tx.logged_model(&record.model_id).await? {
        return Ok(Outcome::compared("a logged model of this id", &differences(&found, record)));
    }
    if tx.logged_model_lifecycle(&record.model_id).await?.is_some() {
        return Ok(Outcome::conflict("the logged model of this id was deleted here"));
    }
    if tx.experiment_row(record.experiment_id).await?.is_none() {
        return Ok(Outcome::conflict(format!("there is no experiment {} here", record.experiment_id)));
    }
    if tx.is_model_id_used(&record.model_id).await? {
        return Ok(Outcome::conflict("a logged model of another workspace has this id"));
    }
    let location = places::of_experiment(tx.workspace(), None, record.experiment_id);
    let here = places::of_logged_model(&location, &record.model_id);
    tx.insert_logged_model(&LoggedModel {
        model_id: record.model_id.clone(),
        experiment_id: record.experiment_id,
        name: record.name.clone(),
        model_type: record.model_type.clone(),
        source_run_id: record.source_run_id.clone(),
        status: record.status.clone(),
        artifact_uri: record.artifact_uri.clone().unwrap_or(here),
        lifecycle: Lifecycle::Active,
        created: record.created,
        updated: record.updated,
        params: pairs_of(&record.params),
        tags: pairs_of(&record.tags),
        metrics: Vec::new(),
    })
    .await?;
    let points: Vec<Metric> = record
        .metrics
        .iter()
        .map(|one| Metric { dataset: one.dataset.clone(), ..metric(&one.point, &one.run_id) })
        .collect();
    tx.add_model_points(&record.model_id, &points).await?;
    Ok(new())
}
