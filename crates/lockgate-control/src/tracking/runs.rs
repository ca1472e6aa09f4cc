//! Runs: making, finding, changing, deleting and restoring them.

use super::logging::FEW;
use super::{
    KeyValue, Lifecycle, Run, RunUpdate, Search, Tracking, TrackingError, View, checks, experiments,
    may_read, may_track, places,
};
use lockgate_core::actor::Actor;
use lockgate_core::clock::Millis;
use lockgate_store::Conn;
use std::collections::BTreeMap;

/// The tag that equals a run's name.
pub(super) const NAME_TAG: &str = "mlflow.runName";

/// How a run goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunStatus {
    /// Under way.
    Running,
    /// Waiting.
    Scheduled,
    /// Done.
    Finished,
    /// Broken off by an error.
    Failed,
    /// Broken off by somebody.
    Killed,
}

impl RunStatus {
    /// All, as MLflow numbers them from 1.
    pub const ALL: [Self; 5] = [Self::Running, Self::Scheduled, Self::Finished, Self::Failed, Self::Killed];

    /// MLflow's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "RUNNING",
            Self::Scheduled => "SCHEDULED",
            Self::Finished => "FINISHED",
            Self::Failed => "FAILED",
            Self::Killed => "KILLED",
        }
    }
}

/// What a run is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewRun {
    /// Its experiment.
    pub experiment_id: String,
    /// Its name; made up where there is none.
    pub name: Option<String>,
    /// Who runs it, as the client says.
    pub user_id: String,
    /// When it starts; now where it is not said.
    pub start_time: Option<Millis>,
    /// Its tags.
    pub tags: Vec<KeyValue>,
}

/// The run's own row.
pub(super) async fn row(conn: &mut Conn, id: &str) -> Result<Run, TrackingError> {
    conn.run_row(id).await?.ok_or_else(|| missing(id))
}

/// The run's own row, where it is in use.
pub(super) async fn active(conn: &mut Conn, id: &str) -> Result<Run, TrackingError> {
    let run = row(conn, id).await?;
    if run.lifecycle == Lifecycle::Active {
        return Ok(run);
    }
    Err(TrackingError::invalid(format!(
        "The run {id} must be in the 'active' state. Current state is deleted."
    )))
}

fn missing(id: &str) -> TrackingError {
    TrackingError::missing(format!("Run with id={id} not found"))
}

/// The name that a run gets: its own, its tag's, or a made-up one.
fn name_of(new: &NewRun, made_up: impl FnOnce() -> String) -> Result<String, TrackingError> {
    let given = new.name.as_deref().filter(|name| !name.is_empty());
    let tag = new.tags.iter().find(|tag| tag.key == NAME_TAG).map(|tag| tag.value.as_str());
    match (given, tag) {
        (Some(name), Some(tag)) if name != tag => Err(TrackingError::invalid(format!(
            "Both 'run_name' argument and 'mlflow.runName' tag are specified, but with different values \
             (run_name='{name}', mlflow.runName='{tag}')."
        ))),
        (Some(name), _) | (None, Some(name)) => Ok(name.to_owned()),
        (None, None) => Ok(made_up()),
    }
}

impl Tracking {
    /// Makes a run.
    ///
    /// # Errors
    /// Where the experiment is not in use or a tag not allowed.
    pub async fn create_run(&self, actor: &Actor, new: NewRun) -> Result<Run, TrackingError> {
        may_track(actor)?;
        checks::experiment_id(&new.experiment_id)?;
        let name = name_of(&new, || self.new_name());
        let mut tags = checks::free_tags(new.tags)?;
        let (run_id, created_by) = (self.new_id(), actor.id.to_string());
        let start_time = new.start_time.unwrap_or_else(|| self.clock.now_ms());
        let (experiment_id, user_id) = (new.experiment_id, new.user_id);
        self.write_sized(tags.len() <= FEW, move |tx| {
            Box::pin(async move {
                let experiment = experiments::active(tx, &experiment_id).await?;
                let name = name?;
                if !tags.iter().any(|tag| tag.key == NAME_TAG) {
                    tags.push(KeyValue { key: NAME_TAG.to_owned(), value: name.clone() });
                }
                let mut run = Run {
                    artifact_uri: places::of_run(&experiment.artifact_location, &run_id),
                    run_id: run_id.clone(),
                    experiment_id: experiment.id,
                    name,
                    user_id,
                    created_by,
                    status: RunStatus::Running.as_str().to_owned(),
                    start_time,
                    end_time: None,
                    lifecycle: Lifecycle::Active,
                    metrics: Vec::new(),
                    params: Vec::new(),
                    tags: Vec::new(),
                    datasets: Vec::new(),
                    model_inputs: Vec::new(),
                    model_outputs: Vec::new(),
                };
                tx.insert_run(&run).await?;
                tx.set_run_tags(&run_id, &tags).await?;
                // Of several tags with one key the last one counts.
                let last: BTreeMap<String, String> =
                    tags.into_iter().map(|tag| (tag.key, tag.value)).collect();
                run.tags = last.into_iter().map(|(key, value)| KeyValue { key, value }).collect();
                Ok(run)
            })
        })
        .await
    }

    /// A run with everything it logged, also where it was deleted.
    ///
    /// # Errors
    /// Where there is none.
    pub async fn run(&self, actor: &Actor, id: &str) -> Result<Run, TrackingError> {
        may_read(actor)?;
        let id = id.to_owned();
        self.read(move |conn| Box::pin(async move { conn.run(&id).await?.ok_or_else(|| missing(&id)) })).await
    }

    /// Searches the runs of experiments.
    ///
    /// # Errors
    /// Where a condition is not about runs.
    pub async fn search_runs(
        &self,
        actor: &Actor,
        experiments: &[String],
        view: View,
        mut search: Search,
    ) -> Result<Vec<Run>, TrackingError> {
        may_read(actor)?;
        search.clauses.push(experiments::among(experiments)?);
        search.clauses.extend(view.clause());
        self.read(move |conn| Box::pin(async move { Ok(conn.search_runs(&search).await?) })).await
    }

    /// Changes a run's status, end or name; gives the run as it is then.
    ///
    /// # Errors
    /// Where there is no such run in use.
    pub async fn update_run(
        &self,
        actor: &Actor,
        id: &str,
        status: Option<RunStatus>,
        end_time: Option<Millis>,
        name: Option<String>,
    ) -> Result<Run, TrackingError> {
        may_track(actor)?;
        let name = name.filter(|name| !name.is_empty());
        let update = RunUpdate { status: status.map(|status| status.as_str().to_owned()), end_time, name };
        let id = id.to_owned();
        self.write_sized(true, move |tx| {
            Box::pin(async move {
                active(tx, &id).await?;
                let updated = tx.update_run(&id, &update).await?;
                if let Some(name) = update.name {
                    tx.set_run_tags(&id, &[KeyValue { key: NAME_TAG.to_owned(), value: name }]).await?;
                }
                updated.ok_or_else(|| missing(&id))
            })
        })
        .await
    }

    /// Deletes a run. It stays readable and can be restored; deleting it again changes nothing.
    ///
    /// # Errors
    /// Where there is none.
    pub async fn delete_run(&self, actor: &Actor, id: &str) -> Result<(), TrackingError> {
        self.set_run_lifecycle(actor, id, Lifecycle::Deleted).await
    }

    /// Restores a run.
    ///
    /// # Errors
    /// Where there is none.
    pub async fn restore_run(&self, actor: &Actor, id: &str) -> Result<(), TrackingError> {
        self.set_run_lifecycle(actor, id, Lifecycle::Active).await
    }

    async fn set_run_lifecycle(
        &self,
        actor: &Actor,
        id: &str,
        lifecycle: Lifecycle,
    ) -> Result<(), TrackingError> {
        may_track(actor)?;
        let (id, now) = (id.to_owned(), self.clock.now_ms());
        self.write(move |tx| {
            Box::pin(async move {
                row(tx, &id).await?;
                Ok(tx.set_run_lifecycle(&id, lifecycle, now).await?)
            })
        })
        .await
    }
}
