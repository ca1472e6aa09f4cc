//! The datasets and logged models that a run used or made.

use super::experiments::key_value;
use super::rows_of;
use super::types::{Dataset, DatasetInput, DatasetSummary, Run};
use crate::conn::{Conn, Tx, int, opt_text, query, text};
use crate::error::{StoreError, no_nul};
use crate::statements::statements;
use std::collections::HashMap;

statements! {
    SUMMARIES = "SELECT DISTINCT d.name, d.digest, t.value AS context FROM datasets d \
              JOIN experiments e ON e.id = d.experiment_id AND e.workspace = $3 JOIN run_inputs i ON i.dataset_id = d.id \
              LEFT JOIN input_tags t ON t.run_id = i.run_id AND t.dataset_id = d.id AND t.key = 'mlflow.data.context' \
              WHERE d.experiment_id = $1 ORDER BY d.name, d.digest, context LIMIT $2";
    FIND = "SELECT id FROM datasets WHERE experiment_id = $1 AND name = $2 AND digest = $3";
    INSERT = "INSERT INTO datasets (id, experiment_id, name, digest, source_type, source, schema_text, profile_text) \
              VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    USE = "INSERT INTO run_inputs (run_id, dataset_id, place) SELECT $1, $2, COALESCE(MAX(place), 0) + 1 \
           FROM run_inputs WHERE run_id = $1 ON CONFLICT DO NOTHING";
    TAG = "INSERT INTO input_tags (run_id, dataset_id, key, value) VALUES ($1, $2, $3, $4) \
           ON CONFLICT (run_id, dataset_id, key) DO UPDATE SET value = excluded.value";
    MODEL = "INSERT INTO run_models (run_id, model_id, role, step) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (run_id, model_id, role) DO UPDATE SET step = excluded.step";
}

/// How many datasets are summed up at once.
const SUMMARIES_AT_MOST: i64 = 1000;

/// The datasets of runs, each with the run's id; a run's in the order in which they were logged, and their tags by key.
pub(super) async fn datasets(
    conn: &mut Conn,
    runs: &[String],
) -> Result<Vec<(String, DatasetInput)>, StoreError> {
    let head = "SELECT i.run_id, i.place, d.id, d.name, d.digest, d.source_type, d.source, d.schema_text, d.profile_text \
                FROM run_inputs i JOIN datasets d ON d.id = i.dataset_id WHERE i.run_id IN";
    let mut found = Vec::new();
    let mut place = HashMap::new();
    let mut rows = Vec::new();
    for row in rows_of(conn, head, runs).await? {
        // What was logged before places were noted goes by its name.
        rows.push((int(&row, "place")?, text(&row, "name")?, text(&row, "digest")?, row));
    }
    rows.sort_by(|(a, b, c, _), (x, y, z, _)| (a, b, c).cmp(&(x, y, z)));
    for (_, name, digest, row) in rows {
        let run = text(&row, "run_id")?;
        place.insert((run.clone(), text(&row, "id")?), found.len());
        let dataset = Dataset {
            name,
            digest,
            source_type: text(&row, "source_type")?,
            source: text(&row, "source")?,
            schema: opt_text(&row, "schema_text")?,
            profile: opt_text(&row, "profile_text")?,
        };
        found.push((run, DatasetInput { dataset, tags: Vec::new() }));
    }
    if found.is_empty() {
        return Ok(found);
    }
    let tags = "SELECT run_id, dataset_id, key, value FROM input_tags WHERE run_id IN";
    for row in rows_of(conn, tags, runs).await? {
        if let Some(i) = place.get(&(text(&row, "run_id")?, text(&row, "dataset_id")?)) {
            found[*i].1.tags.push(key_value(&row)?);
        }
    }
    for (_, input) in &mut found {
        input.tags.sort_by(|a, b| a.key.cmp(&b.key));
    }
    Ok(found)
}

impl Conn {
    /// The datasets of experiments, each once for every context; as with MLflow's own server up to [`SUMMARIES_AT_MOST`].
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn dataset_summaries(
        &mut self,
        experiments: &[i64],
    ) -> Result<Vec<DatasetSummary>, StoreError> {
        let workspace = self.workspace().to_owned();
        let mut found = Vec::new();
        for experiment in experiments {
            let left = SUMMARIES_AT_MOST - i64::try_from(found.len()).unwrap_or(SUMMARIES_AT_MOST);
            for row in
                self.fetch_all(query(SUMMARIES).bind(*experiment).bind(left).bind(workspace.clone())).await?
            {
                found.push(DatasetSummary {
                    experiment_id: *experiment,
                    name: text(&row, "name")?,
                    digest: text(&row, "digest")?,
                    context: opt_text(&row, "context")?,
                });
            }
        }
        Ok(found)
    }
}

impl Tx {
    /// Notes that a run used a dataset, which becomes known as `new_id` where there is none of this name and digest.
    ///
    /// # Errors
    /// Where it can't be stored.
    pub async fn log_dataset(
        &mut self,
        run: &Run,
        new_id: &str,
        input: &DatasetInput,
    ) -> Result<(), StoreError> {
        let dataset = &input.dataset;
        for part in [&dataset.name, &dataset.digest, &dataset.source_type, &dataset.source] {
            no_nul("a dataset", part)?;
        }
        for part in [&dataset.schema, &dataset.profile].into_iter().flatten() {
            no_nul("a dataset", part)?;
        }
        let find =
            query(FIND).bind(run.experiment_id).bind(dataset.name.clone()).bind(dataset.digest.clone());
        let id = match self.fetch_optional(find).await? {
            Some(row) => text(&row, "id")?,
            None => {
                let statement = query(INSERT).bind(new_id.to_owned()).bind(run.experiment_id);
                let statement = statement.bind(dataset.name.clone()).bind(dataset.digest.clone());
                let statement = statement.bind(dataset.source_type.clone()).bind(dataset.source.clone());
                self.execute(statement.bind(dataset.schema.clone()).bind(dataset.profile.clone())).await?;
                new_id.to_owned()
            }
        };
        // Said again it is no news, and its tags stay, as with MLflow's own server.
        if self.execute(query(USE).bind(run.run_id.clone()).bind(id.clone())).await? == 0 {
            return Ok(());
        }
        for tag in &input.tags {
            no_nul("a tag's key", &tag.key)?;
            no_nul("a tag's value", &tag.value)?;
            let statement = query(TAG).bind(run.run_id.clone()).bind(id.clone());
            self.execute(statement.bind(tag.key.clone()).bind(tag.value.clone())).await?;
        }
        Ok(())
    }

    /// Notes that a run used a logged model.
    ///
    /// # Errors
    /// Where it can't be stored.
    pub async fn log_model_input(&mut self, run: &str, model: &str) -> Result<(), StoreError> {
        let statement = query(MODEL).bind(run.to_owned()).bind(model.to_owned()).bind("input").bind(0_i64);
        self.execute(statement).await.map(|_| ())
    }

    /// Notes that a run made a logged model at a step.
    ///
    /// # Errors
    /// Where it can't be stored.
    pub async fn log_model_output(&mut self, run: &str, model: &str, step: i64) -> Result<(), StoreError> {
        let statement = query(MODEL).bind(run.to_owned()).bind(model.to_owned()).bind("output").bind(step);
        self.execute(statement).await.map(|_| ())
    }
}
