//! Runs: their own rows, and reading them with all they logged.

use super::experiments::key_value;
use super::types::{Lifecycle, Run, RunUpdate};
use super::{entity, inputs, logged, rows_of};
use crate::conn::{Conn, Row, Tx, int, opt_int, parsed, query, text};
use crate::error::{StoreError, no_nul};
use crate::statements::statements;
use lockgate_core::clock::Millis;
use std::collections::HashMap;

statements! {
    BY_ID = "SELECT run_id, experiment_id, name, user_id, created_by, status, start_time, end_time, artifact_uri, \
             lifecycle FROM runs WHERE run_id = $1 AND workspace = $2";
    INSERT = "INSERT INTO runs (run_id, experiment_id, name, user_id, created_by, status, start_time, end_time, \
              artifact_uri, lifecycle, workspace) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";
    UPDATE = "UPDATE runs SET status = COALESCE($2, status), end_time = COALESCE($3, end_time), \
              name = COALESCE($4, name) WHERE run_id = $1 \
              RETURNING run_id, experiment_id, name, user_id, created_by, status, start_time, end_time, artifact_uri, lifecycle";
    SET_LIFECYCLE = "UPDATE runs SET lifecycle = $2, deleted_at = CASE WHEN $2 = 'deleted' THEN COALESCE(deleted_at, $3) END \
                     WHERE run_id = $1";
    SET_LIFECYCLE_OF_ALL = "UPDATE runs SET lifecycle = $2, \
                            deleted_at = CASE WHEN $2 = 'deleted' THEN COALESCE(deleted_at, $3) END \
                            WHERE experiment_id = $1";
}

fn run(row: &Row) -> Result<Run, StoreError> {
    Ok(Run {
        run_id: text(row, "run_id")?,
        experiment_id: int(row, "experiment_id")?,
        name: text(row, "name")?,
        user_id: text(row, "user_id")?,
        created_by: text(row, "created_by")?,
        status: text(row, "status")?,
        start_time: int(row, "start_time")?,
        end_time: opt_int(row, "end_time")?,
        artifact_uri: text(row, "artifact_uri")?,
        lifecycle: parsed(row, "lifecycle", "lifecycle stage")?,
        metrics: Vec::new(),
        params: Vec::new(),
        tags: Vec::new(),
        datasets: Vec::new(),
        model_inputs: Vec::new(),
        model_outputs: Vec::new(),
    })
}

impl Conn {
    /// The run's own row, without what it logged.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn run_row(&mut self, id: &str) -> Result<Option<Run>, StoreError> {
        let row =
            self.fetch_optional(query(BY_ID).bind(id.to_owned()).bind(self.workspace().to_owned())).await?;
        row.as_ref().map(run).transpose()
    }

    /// The run with everything it logged.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn run(&mut self, id: &str) -> Result<Option<Run>, StoreError> {
        let found = self.run_row(id).await?;
        Ok(self.filled(found.into_iter().collect()).await?.pop())
    }

    /// Searches runs.
    ///
    /// # Errors
    /// Where a condition is not about runs or the database can't be read.
    pub async fn search_runs(&mut self, search: &super::Search) -> Result<Vec<Run>, StoreError> {
        let rows = self.search(&entity::RUNS, search).await?;
        let found = rows.iter().map(run).collect::<Result<_, _>>()?;
        self.filled(found).await
    }

    async fn filled(&mut self, mut runs: Vec<Run>) -> Result<Vec<Run>, StoreError> {
        let ids: Vec<String> = runs.iter().map(|run| run.run_id.clone()).collect();
        let place: HashMap<String, usize> = ids.iter().enumerate().map(|(i, id)| (id.clone(), i)).collect();
        let of = |row: &Row| row.get::<&str>("run_id").map(|id| place.get(id).copied());
        let metrics =
            "SELECT run_id, key, value, is_nan, logged_at, step FROM latest_metrics WHERE run_id IN";
        for row in rows_of(self, metrics, &ids).await? {
            if let Some(i) = of(&row)? {
                runs[i].metrics.push(logged::point(&row)?);
            }
        }
        for row in rows_of(self, "SELECT run_id, key, value FROM params WHERE run_id IN", &ids).await? {
            if let Some(i) = of(&row)? {
                runs[i].params.push(key_value(&row)?);
            }
        }
        for row in rows_of(self, "SELECT run_id, key, value FROM run_tags WHERE run_id IN", &ids).await? {
            if let Some(i) = of(&row)? {
                runs[i].tags.push(key_value(&row)?);
            }
        }
        for (id, input) in inputs::datasets(self, &ids).await? {
            if let Some(i) = place.get(&id) {
                runs[*i].datasets.push(input);
            }
        }
        let models = "SELECT run_id, model_id, role, step FROM run_models WHERE run_id IN";
        for row in rows_of(self, models, &ids).await? {
            if let Some(i) = of(&row)? {
                let model = text(&row, "model_id")?;
                match text(&row, "role")?.as_str() {
                    "input" => runs[i].model_inputs.push(model),
                    _ => runs[i].model_outputs.push((model, int(&row, "step")?)),
                }
            }
        }
        Ok(runs)
    }
}

impl Tx {
    /// Makes a run; what it logged is not looked at.
    ///
    /// # Errors
    /// Where the id is in use.
    pub async fn insert_run(&mut self, new: &Run) -> Result<(), StoreError> {
        no_nul("a run's name", &new.name)?;
        no_nul("a user's name", &new.user_id)?;
        let statement = query(INSERT).bind(new.run_id.clone()).bind(new.experiment_id).bind(new.name.clone());
        let statement =
            statement.bind(new.user_id.clone()).bind(new.created_by.clone()).bind(new.status.clone());
        let statement = statement.bind(new.start_time).bind(new.end_time).bind(new.artifact_uri.clone());
        let workspace = self.workspace().to_owned();
        self.execute(statement.bind(new.lifecycle.as_str()).bind(workspace)).await.map(|_| ())
    }

    /// Changes a run's own row, and gives it as it is then.
    ///
    /// # Errors
    /// Where it can't be stored.
    pub async fn update_run(&mut self, id: &str, update: &RunUpdate) -> Result<Option<Run>, StoreError> {
        no_nul("a run's name", update.name.as_deref().unwrap_or_default())?;
        let statement = query(UPDATE).bind(id.to_owned()).bind(update.status.clone());
        let statement = statement.bind(update.end_time).bind(update.name.clone());
        self.fetch_optional(statement).await?.as_ref().map(run).transpose()
    }

    /// Deletes or restores a run.
    ///
    /// # Errors
    /// Where the database can't be written.
    pub async fn set_run_lifecycle(
        &mut self,
        id: &str,
        lifecycle: Lifecycle,
        now: Millis,
    ) -> Result<(), StoreError> {
        let statement = query(SET_LIFECYCLE).bind(id.to_owned()).bind(lifecycle.as_str());
        self.execute(statement.bind(now)).await.map(|_| ())
    }

    /// Deletes or restores all runs of an experiment.
    ///
    /// # Errors
    /// Where the database can't be written.
    pub async fn set_lifecycle_of_runs(
        &mut self,
        experiment: i64,
        lifecycle: Lifecycle,
        now: Millis,
    ) -> Result<(), StoreError> {
        let statement = query(SET_LIFECYCLE_OF_ALL).bind(experiment).bind(lifecycle.as_str());
        self.execute(statement.bind(now)).await.map(|_| ())
    }
}
