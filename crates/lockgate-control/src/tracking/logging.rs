//! What runs log: metrics, params, tags, datasets and models.

use super::runs::{self, NAME_TAG};
use super::{
    DatasetInput, DatasetSummary, KeyValue, Lifecycle, Metric, RunUpdate, Tracking, TrackingError, checks,
    may_read, may_track, places, python,
};
use lockgate_core::actor::Actor;
use lockgate_store::Tx;

/// So many things are written on the spot.
pub(super) const FEW: usize = 50;

/// What is logged at once: all of it or nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    /// Points of metrics.
    pub metrics: Vec<Metric>,
    /// Params, which can be set once.
    pub params: Vec<KeyValue>,
    /// Tags.
    pub tags: Vec<KeyValue>,
    /// Whether it is a request for one thing, which has no place in a list then.
    pub alone: bool,
}

/// What a run used or made.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Inputs {
    /// Datasets that it used.
    pub datasets: Vec<DatasetInput>,
    /// Logged models that it used.
    pub models: Vec<String>,
}

/// A param is written once; the same value again is no change.
async fn set_params(tx: &mut Tx, run: &str, params: &[KeyValue], alone: bool) -> Result<(), TrackingError> {
    let keys: Vec<&str> = params.iter().map(|param| param.key.as_str()).collect();
    let mut known = tx.params_of(run, &keys).await?;
    let (mut fresh, mut changed) = (Vec::new(), Vec::new());
    for param in params {
        match known.remove(&param.key) {
            None => fresh.push(param),
            Some(old) if old == param.value => {}
            Some(old) => changed.push((param, old)),
        }
    }
    match changed.as_slice() {
        [] => Ok(tx.insert_params(run, &fresh).await?),
        [(param, old)] if alone => Err(TrackingError::invalid(format!(
            "Changing param values is not allowed. Param with key='{}' was already logged with value='{old}' for run \
             ID='{run}'. Attempted logging new value '{}'.",
            param.key, param.value
        ))),
        several => {
            let one = |(param, old): &(&KeyValue, String)| {
                let (key, old, new) =
                    (python::text(&param.key), python::text(old), python::text(&param.value));
                format!("{{'key': {key}, 'old_value': {old}, 'new_value': {new}}}")
            };
            let all: Vec<String> = several.iter().map(one).collect();
            Err(TrackingError::invalid(format!(
                "Changing param values is not allowed. Params were already logged='[{}]' for run ID='{run}'.",
                all.join(", ")
            )))
        }
    }
}

/// Metrics are those of models that there are.
async fn known_models(tx: &mut Tx, metrics: &[Metric]) -> Result<(), TrackingError> {
    let mut ids: Vec<&str> = metrics.iter().filter_map(|metric| metric.model_id.as_deref()).collect();
    ids.sort_unstable();
    ids.dedup();
    for id in ids {
        if tx.logged_model_lifecycle(id).await? != Some(Lifecycle::Active) {
            return Err(TrackingError::invalid(format!(
                "A metric names logged model '{id}', but there is none of that ID."
            )));
        }
    }
    Ok(())
}

async fn set_tags(tx: &mut Tx, run: &str, mut tags: Vec<KeyValue>) -> Result<(), TrackingError> {
    // A run keeps its name rather than have none.
    tags.retain(|tag| tag.key != NAME_TAG || !tag.value.is_empty());
    if let Some(name) = tags.iter().rfind(|tag| tag.key == NAME_TAG).map(|tag| tag.value.clone()) {
        tx.update_run(run, &RunUpdate { name: Some(name), ..RunUpdate::default() }).await?;
    }
    Ok(tx.set_run_tags(run, &tags).await?)
}

impl Tracking {
    /// Logs metrics, params and tags. Logging the same again changes nothing.
    ///
    /// # Errors
    /// Where the run is not in use, something is not allowed, or a param has another value; nothing is logged then.
    pub async fn log_batch(&self, actor: &Actor, run: &str, batch: Batch) -> Result<(), TrackingError> {
        may_track(actor)?;
        let Batch { metrics, params, tags, alone } = batch;
        if !alone {
            checks::run_id(run)?;
        }
        checks::metrics(&metrics, alone)?;
        checks::batch(metrics.len() + params.len() + tags.len())?;
        let (params, tags) = (checks::logged_params(params, alone)?, checks::logged_tags(tags, alone)?);
        checks::no_duplicates(&params)?;
        let run = run.to_owned();
        self.write_sized(metrics.len() + params.len() + tags.len() <= FEW, move |tx| {
            Box::pin(async move {
                let experiment = runs::active(tx, &run).await?.experiment_id;
                known_models(tx, &metrics).await?;
                set_params(tx, &run, &params, alone).await?;
                tx.log_metrics(experiment, &run, &metrics).await?;
                set_tags(tx, &run, tags).await
            })
        })
        .await
    }

    /// Sets a run's tag to what `change` makes of its value. It may be of any length.
    ///
    /// # Errors
    /// Where the run is not in use.
    pub async fn change_run_tag(
        &self,
        actor: &Actor,
        run: &str,
        key: &str,
        change: impl FnOnce(Option<String>) -> String + Send + 'static,
    ) -> Result<(), TrackingError> {
        may_track(actor)?;
        let (run, key) = (run.to_owned(), key.to_owned());
        self.write(move |tx| {
            Box::pin(async move {
                runs::active(tx, &run).await?;
                let tags = tx.run(&run).await?.map(|run| run.tags).unwrap_or_default();
                let old = tags.into_iter().find(|tag| tag.key == key).map(|tag| tag.value);
                Ok(tx.set_run_tags(&run, &[KeyValue { key, value: change(old) }]).await?)
            })
        })
        .await
    }

    /// Removes a run's tag.
    ///
    /// # Errors
    /// Where there is none or the run is not in use.
    pub async fn delete_run_tag(&self, actor: &Actor, run: &str, key: &str) -> Result<(), TrackingError> {
        may_track(actor)?;
        let (run, key) = (run.to_owned(), key.to_owned());
        self.write(move |tx| {
            Box::pin(async move {
                runs::active(tx, &run).await?;
                if tx.delete_run_tag(&run, &key).await? {
                    return Ok(());
                }
                Err(TrackingError::missing(format!("No tag with name: {key} in run with id {run}")))
            })
        })
        .await
    }

    /// The points of one metric, the oldest first; none where there is no such run, as by MLflow's own server.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn metric_history(
        &self,
        actor: &Actor,
        run: &str,
        key: &str,
        limit: i64,
        offset: i64,
    ) -> Result<Vec<Metric>, TrackingError> {
        may_read(actor)?;
        let (run, key) = (run.to_owned(), key.to_owned());
        self.read(move |conn| {
            Box::pin(async move { Ok(conn.metric_history(&run, &key, limit, offset).await?) })
        })
        .await
    }

    /// The first points of one metric of these runs: run by run, each one's oldest first. Runs that are not there have none.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn metric_histories(
        &self,
        actor: &Actor,
        mut runs: Vec<String>,
        key: &str,
        most: usize,
    ) -> Result<Vec<Metric>, TrackingError> {
        may_read(actor)?;
        let key = key.to_owned();
        runs.sort_unstable();
        runs.dedup();
        self.read(move |conn| {
            Box::pin(async move {
                let mut found = Vec::new();
                for run in &runs {
                    let left = i64::try_from(most - found.len()).unwrap_or(i64::MAX);
                    if left == 0 {
                        break;
                    }
                    found.extend(conn.metric_history(run, &key, left, 0).await?);
                }
                Ok(found)
            })
        })
        .await
    }

    /// At most `most` points of one metric for each run, spread evenly over those within `steps`; see
    /// [`Conn::metric_sample`](lockgate_store::Conn::metric_sample).
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn metric_samples(
        &self,
        actor: &Actor,
        runs: Vec<String>,
        key: &str,
        most: usize,
        steps: (i64, i64),
    ) -> Result<Vec<Metric>, TrackingError> {
        may_read(actor)?;
        let key = key.to_owned();
        self.read(move |conn| {
            Box::pin(async move {
                let mut found = Vec::new();
                for run in &runs {
                    found.extend(conn.metric_sample(run, &key, most, steps).await?);
                }
                Ok(found)
            })
        })
        .await
    }

    /// The datasets that runs of these experiments used.
    ///
    /// # Errors
    /// Where an id is no number.
    pub async fn dataset_summaries(
        &self,
        actor: &Actor,
        experiments: &[String],
    ) -> Result<Vec<DatasetSummary>, TrackingError> {
        may_read(actor)?;
        let ids: Vec<i64> =
            experiments.iter().map(|id| checks::experiment_id(id)).collect::<Result<_, _>>()?;
        self.read(move |conn| Box::pin(async move { Ok(conn.dataset_summaries(&ids).await?) })).await
    }

    /// Notes which datasets and logged models a run used.
    ///
    /// # Errors
    /// Where the run is not in use or a dataset not allowed.
    pub async fn log_inputs(&self, actor: &Actor, run: &str, inputs: Inputs) -> Result<(), TrackingError> {
        may_track(actor)?;
        checks::run_id(run)?;
        inputs.datasets.iter().try_for_each(checks::dataset)?;
        inputs.models.iter().try_for_each(|model| places::linked_model(model))?;
        let ids: Vec<String> = inputs.datasets.iter().map(|_| self.new_id()).collect();
        let run = run.to_owned();
        self.write(move |tx| {
            Box::pin(async move {
                let run = runs::active(tx, &run).await?;
                for (id, input) in ids.iter().zip(&inputs.datasets) {
                    tx.log_dataset(&run, id, input).await?;
                }
                for model in &inputs.models {
                    tx.log_model_input(&run.run_id, model).await?;
                }
                Ok(())
            })
        })
        .await
    }

    /// Notes which logged models a run made at which step.
    ///
    /// # Errors
    /// Where the run is not in use, or an id leads elsewhere.
    pub async fn log_outputs(
        &self,
        actor: &Actor,
        run: &str,
        models: Vec<(String, i64)>,
    ) -> Result<(), TrackingError> {
        may_track(actor)?;
        models.iter().try_for_each(|(model, _)| places::linked_model(model))?;
        let run = run.to_owned();
        self.write(move |tx| {
            Box::pin(async move {
                runs::active(tx, &run).await?;
                for (model, step) in &models {
                    tx.log_model_output(&run, model, *step).await?;
                }
                Ok(())
            })
        })
        .await
    }
}
