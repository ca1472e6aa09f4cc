//! Runs with what they logged, and the points of their metrics.

use super::{Importer, experiments, new};
use crate::tracking::exchange::convert::{dataset_input, metric};
use crate::tracking::exchange::{Fate, Outcome, Pairs, PointsRecord, RunRecord, pairs_of, run_record};
use crate::tracking::{KeyValue, Run, RunStatus, RunUpdate, Tracking, TrackingError, places};
use lockgate_store::Tx;

fn row(tx: &Tx, record: &RunRecord, by: &Importer) -> Result<Run, TrackingError> {
    let here =
        || places::of_run(&places::of_experiment(tx.workspace(), None, record.experiment_id), &record.run_id);
    if !RunStatus::ALL.iter().any(|known| known.as_str() == record.status) {
        return Err(TrackingError::invalid(format!("`{}` is no status of a run", record.status)));
    }
    Ok(Run {
        run_id: record.run_id.clone(),
        experiment_id: record.experiment_id,
        name: record.name.clone(),
        user_id: record.user_id.clone(),
        created_by: by.id.clone(),
        status: record.status.clone(),
        start_time: record.start_time,
        end_time: record.end_time,
        artifact_uri: record.artifact_uri.clone().unwrap_or_else(here),
        lifecycle: experiments::lifecycle(&record.lifecycle)?,
        metrics: Vec::new(),
        params: pairs_of(&record.params),
        tags: pairs_of(&record.tags),
        datasets: record.datasets.iter().map(dataset_input).collect(),
        model_inputs: record.model_inputs.iter().cloned().collect(),
        model_outputs: record.model_outputs.iter().map(|(id, step)| (id.clone(), *step)).collect(),
    })
}

/// What differs between a run here and one that is brought; metrics come later and are not looked at.
fn differences(found: &Run, record: &RunRecord) -> Vec<&'static str> {
    let ours = run_record(found);
    let mut datasets = record.datasets.clone();
    datasets.sort();
    let pairs = [
        ("experiment", ours.experiment_id == record.experiment_id),
        ("name", ours.name == record.name),
        ("user", ours.user_id == record.user_id),
        ("status", ours.status == record.status),
        ("start", ours.start_time == record.start_time),
        ("end", ours.end_time == record.end_time),
        ("lifecycle stage", ours.lifecycle == record.lifecycle),
        ("params", ours.params == record.params),
        ("tags", ours.tags == record.tags),
        ("datasets", ours.datasets == datasets),
        ("models", ours.model_inputs == record.model_inputs && ours.model_outputs == record.model_outputs),
        ("artifact location", record.artifact_uri.as_ref().is_none_or(|given| *given == found.artifact_uri)),
    ];
    pairs.into_iter().filter(|(_, same)| !same).map(|(name, _)| name).collect()
}

pub(super) async fn take(
    tracking: &Tracking,
    tx: &mut Tx,
    by: &Importer,
    record: &RunRecord,
) -> Result<Outcome, TrackingError> {
    if !places::is_run_id(&record.run_id) {
        return Ok(Outcome::conflict("its id is none of MLflow's: 32 hexadecimal digits are expected"));
    }
    record
        .model_inputs
        .iter()
        .chain(record.model_outputs.keys())
        .try_for_each(|id| places::linked_model(id))?;
    if let Some(found) = tx.run(&record.run_id).await? {
        let differ = differences(&found, record);
        if !differ.is_empty() && has_gone_on(&found, record) {
            return go_on(tracking, tx, &row(tx, record, by)?).await;
        }
        return Ok(Outcome::compared("a run of this id", &differ));
    }
    if tx.is_run_id_used(&record.run_id).await? {
        return Ok(Outcome::conflict("a run of another workspace has this id"));
    }
    if tx.experiment_row(record.experiment_id).await?.is_none() {
        return Ok(Outcome::conflict(format!("there is no experiment {} here", record.experiment_id)));
    }
    let run = row(tx, record, by)?;
    tx.insert_run(&run).await?;
    tx.insert_params(&run.run_id, &run.params.iter().collect::<Vec<_>>()).await?;
    add(tracking, tx, &run).await?;
    Ok(new())
}

/// Whether a run that was going on when it was taken has only gone on since: nobody ended it here, and all that is here is
/// there as well.
fn has_gone_on(found: &Run, record: &RunRecord) -> bool {
    let ours = run_record(found);
    let within =
        |ours: &Pairs, theirs: &Pairs| ours.iter().all(|(key, value)| theirs.get(key) == Some(value));
    found.status == RunStatus::Running.as_str()
        && found.end_time.is_none()
        && (ours.experiment_id, &ours.name, &ours.user_id)
            == (record.experiment_id, &record.name, &record.user_id)
        && (ours.start_time, &ours.lifecycle) == (record.start_time, &record.lifecycle)
        && record.artifact_uri.as_ref().is_none_or(|given| *given == found.artifact_uri)
        && within(&ours.params, &record.params)
        && within(&ours.tags, &record.tags)
        && ours.datasets.iter().all(|one| record.datasets.contains(one))
        && ours.model_inputs.is_subset(&record.model_inputs)
        && ours.model_outputs.iter().all(|(id, step)| record.model_outputs.get(id) == Some(step))
}

/// Adds what a run has got since it was taken.
async fn go_on(tracking: &Tracking, tx: &mut Tx, run: &Run) -> Result<Outcome, TrackingError> {
    let (status, end_time) = (Some(run.status.clone()), run.end_time);
    tx.update_run(&run.run_id, &RunUpdate { status, end_time, name: None }).await?;
    let keys: Vec<&str> = run.params.iter().map(|param| param.key.as_str()).collect();
    let known = tx.params_of(&run.run_id, &keys).await?;
    let fresh: Vec<&KeyValue> = run.params.iter().filter(|param| !known.contains_key(&param.key)).collect();
    tx.insert_params(&run.run_id, &fresh).await?;
    add(tracking, tx, run).await?;
    Ok(new())
}

/// Adds what may be added twice.
async fn add(tracking: &Tracking, tx: &mut Tx, run: &Run) -> Result<(), TrackingError> {
    tx.set_run_tags(&run.run_id, &run.tags).await?;
    for input in &run.datasets {
        tx.log_dataset(run, &tracking.new_id(), input).await?;
    }
    for model in &run.model_inputs {
        tx.log_model_input(&run.run_id, model).await?;
    }
    for (model, step) in &run.model_outputs {
        tx.log_model_output(&run.run_id, model, *step).await?;
    }
    Ok(())
}

pub(super) async fn take_points(tx: &mut Tx, record: &PointsRecord) -> Result<Outcome, TrackingError> {
    let Some(run) = tx.run_row(&record.run_id).await? else {
        return Ok(Outcome::conflict("there is no such run here"));
    };
    if record.points.iter().any(|point| point.key.is_empty()) {
        return Ok(Outcome::conflict("a metric has no name"));
    }
    let points: Vec<_> = record.points.iter().map(|point| metric(point, &record.run_id)).collect();
    let added = tx.add_points(run.experiment_id, &record.run_id, &points).await?;
    let fate = if added > 0 { Fate::New } else { Fate::Same };
    Ok(Outcome { count: Some(added), ..Outcome::new(fate) })
}
