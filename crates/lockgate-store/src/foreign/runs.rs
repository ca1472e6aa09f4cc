//! Experiments and runs of MLflow's store.

use super::tables::Kind::{Int, Real, Text};
use super::{Bind, Foreign};
use crate::conn::{Row, int, opt_int, opt_text, real, text};
use crate::error::StoreError;
use crate::tracking::{Dataset, DatasetInput, Experiment, KeyValue, Lifecycle, Metric, Run};

const EXPERIMENT: [(&str, super::tables::Kind); 6] = [
    ("experiment_id", Int),
    ("name", Text),
    ("artifact_location", Text),
    ("lifecycle_stage", Text),
    ("creation_time", Int),
    ("last_update_time", Int),
];
const RUN: [(&str, super::tables::Kind); 9] = [
    ("run_uuid", Text),
    ("experiment_id", Int),
    ("name", Text),
    ("user_id", Text),
    ("status", Text),
    ("start_time", Int),
    ("end_time", Int),
    ("artifact_uri", Text),
    ("lifecycle_stage", Text),
];
const POINT: [(&str, super::tables::Kind); 5] =
    [("key", Text), ("value", Real), ("timestamp", Int), ("step", Int), ("is_nan", Int)];

pub(super) fn word(row: &Row, name: &str) -> Result<String, StoreError> {
    Ok(opt_text(row, name)?.unwrap_or_default())
}

fn lifecycle(row: &Row) -> Result<Lifecycle, StoreError> {
    Ok(if word(row, "lifecycle_stage")? == "deleted" { Lifecycle::Deleted } else { Lifecycle::Active })
}

pub(super) fn pairs(rows: &[Row], key: &str, value: &str) -> Result<Vec<KeyValue>, StoreError> {
    rows.iter().map(|row| Ok(KeyValue { key: text(row, key)?, value: word(row, value)? })).collect()
}

fn point(row: &Row) -> Result<Metric, StoreError> {
    let nan = opt_int(row, "is_nan")?.unwrap_or_default() != 0;
    Ok(Metric {
        key: text(row, "key")?,
        value: if nan { f64::NAN } else { real(row, "value")? },
        logged_at: opt_int(row, "timestamp")?.unwrap_or_default(),
        step: opt_int(row, "step")?.unwrap_or_default(),
        dataset: None,
        model_id: None,
        run_id: None,
    })
}

impl Foreign {
    /// All experiments, also deleted ones, by number.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn experiments(&mut self) -> Result<Vec<Experiment>, StoreError> {
        let rest = format!("WHERE {} ORDER BY experiment_id", self.usual("experiments"));
        let mut found = Vec::new();
        for row in self.of("experiments", &EXPERIMENT, &rest, &[]).await? {
            let id = int(&row, "experiment_id")?;
            let columns = [("key", Text), ("value", Text)];
            let tags =
                self.of("experiment_tags", &columns, "WHERE experiment_id = $1", &[Bind::Int(id)]).await?;
            let created = opt_int(&row, "creation_time")?.unwrap_or_default();
            found.push(Experiment {
                id,
                name: text(&row, "name")?,
                artifact_location: word(&row, "artifact_location")?,
                lifecycle: lifecycle(&row)?,
                created,
                updated: opt_int(&row, "last_update_time")?.unwrap_or(created),
                tags: pairs(&tags, "key", "value")?,
            });
        }
        Ok(found)
    }

    /// At most `limit` runs of an experiment that follow the place `after`, with all they logged but the history of their
    /// metrics; and the place of the last one.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn runs(
        &mut self,
        experiment: i64,
        after: i64,
        limit: i64,
    ) -> Result<(Vec<Run>, i64), StoreError> {
        let sql = format!(
            "{} WHERE experiment_id = $1 AND runs.rowid > $2 ORDER BY runs.rowid LIMIT $3",
            self.select("runs", &RUN).replacen("SELECT ", "SELECT runs.rowid AS place, ", 1)
        );
        let rows = self.rows(sql, &[Bind::Int(experiment), Bind::Int(after), Bind::Int(limit)]).await?;
        let (mut found, mut last) = (Vec::new(), after);
        for row in rows {
            last = int(&row, "place")?;
            let run = self.run(&row).await?;
            found.push(run);
        }
        Ok((found, last))
    }

    async fn run(&mut self, row: &Row) -> Result<Run, StoreError> {
        let id = text(row, "run_uuid")?;
        let of_run = [Bind::Text(&id)];
        let columns = [("key", Text), ("value", Text)];
        let params = self.of("params", &columns, "WHERE run_uuid = $1", &of_run).await?;
        let tags = self.of("tags", &columns, "WHERE run_uuid = $1", &of_run).await?;
        let metrics = self.of("latest_metrics", &POINT, "WHERE run_uuid = $1", &of_run).await?;
        let tags = pairs(&tags, "key", "value")?;
        let tagged = || tags.iter().find(|tag| tag.key == "mlflow.runName").map(|tag| tag.value.clone());
        let name = Some(word(row, "name")?).filter(|name| !name.is_empty());
        Ok(Run {
            experiment_id: int(row, "experiment_id")?,
            name: name.or_else(tagged).unwrap_or_default(),
            user_id: word(row, "user_id")?,
            created_by: String::new(),
            status: word(row, "status")?,
            start_time: opt_int(row, "start_time")?.unwrap_or_default(),
            end_time: opt_int(row, "end_time")?,
            artifact_uri: word(row, "artifact_uri")?,
            lifecycle: lifecycle(row)?,
            metrics: metrics.iter().map(point).collect::<Result<_, _>>()?,
            params: pairs(&params, "key", "value")?,
            tags,
            datasets: self.datasets(&id).await?,
            model_inputs: self.links(&id, "RUN_INPUT").await?.into_iter().map(|(model, _)| model).collect(),
            model_outputs: self.links(&id, "RUN_OUTPUT").await?,
            run_id: id,
        })
    }

    async fn datasets(&mut self, run: &str) -> Result<Vec<DatasetInput>, StoreError> {
        if !self.has("inputs") || !self.has("datasets") {
            return Ok(Vec::new());
        }
        let columns = [
            ("dataset_source_type", Text),
            ("dataset_source", Text),
            ("dataset_schema", Text),
            ("dataset_profile", Text),
            ("name", Text),
            ("digest", Text),
        ];
        let sql = format!(
            "{}, inputs WHERE inputs.source_type = 'DATASET' AND inputs.destination_type = 'RUN' \
             AND inputs.source_id = datasets.dataset_uuid AND inputs.destination_id = $1",
            self.select("datasets", &columns).replacen(
                "SELECT ",
                "SELECT CAST(inputs.input_uuid AS TEXT) AS input_uuid, ",
                1
            )
        );
        let mut found = Vec::new();
        for row in self.rows(sql, &[Bind::Text(run)]).await? {
            let input = text(&row, "input_uuid")?;
            let columns = [("name", Text), ("value", Text)];
            let tags =
                self.of("input_tags", &columns, "WHERE input_uuid = $1", &[Bind::Text(&input)]).await?;
            let dataset = Dataset {
                name: text(&row, "name")?,
                digest: word(&row, "digest")?,
                source_type: word(&row, "dataset_source_type")?,
                source: word(&row, "dataset_source")?,
                schema: opt_text(&row, "dataset_schema")?,
                profile: opt_text(&row, "dataset_profile")?,
            };
            found.push(DatasetInput { dataset, tags: pairs(&tags, "name", "value")? });
        }
        Ok(found)
    }

    async fn links(&mut self, run: &str, kind: &str) -> Result<Vec<(String, i64)>, StoreError> {
        let columns = [("destination_id", Text), ("step", Int)];
        let rest = "WHERE source_type = $1 AND source_id = $2";
        let rows = self.of("inputs", &columns, rest, &[Bind::Text(kind), Bind::Text(run)]).await?;
        let one = |row: &Row| Ok((text(row, "destination_id")?, opt_int(row, "step")?.unwrap_or_default()));
        rows.iter().map(one).collect()
    }

    /// At most `limit` points of a run that follow the place `after`, and the place of the last one.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn points(
        &mut self,
        run: &str,
        after: i64,
        limit: i64,
    ) -> Result<(Vec<Metric>, i64), StoreError> {
        let sql = format!(
            "{} WHERE run_uuid = $1 AND metrics.rowid > $2 ORDER BY metrics.rowid LIMIT $3",
            self.select("metrics", &POINT).replacen("SELECT ", "SELECT metrics.rowid AS place, ", 1)
        );
        let rows = self.rows(sql, &[Bind::Text(run), Bind::Int(after), Bind::Int(limit)]).await?;
        let last = rows.last().map(|row| int(row, "place")).transpose()?.unwrap_or(after);
        Ok((rows.iter().map(point).collect::<Result<_, _>>()?, last))
    }
}
