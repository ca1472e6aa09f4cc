//! Logged models of MLflow's store.

use super::runs::{pairs, word};
use super::tables::Kind::{Int, Real, Text};
use super::{Bind, Foreign};
use crate::conn::{Row, int, opt_int, opt_text, text};
use crate::error::StoreError;
use crate::tracking::{Lifecycle, LoggedModel, Metric};

const MODEL: [(&str, super::tables::Kind); 9] = [
    ("model_id", Text),
    ("experiment_id", Int),
    ("name", Text),
    ("artifact_location", Text),
    ("creation_timestamp_ms", Int),
    ("last_updated_timestamp_ms", Int),
    ("status", Int),
    ("model_type", Text),
    ("source_run_id", Text),
];
const POINT: [(&str, super::tables::Kind); 7] = [
    ("metric_name", Text),
    ("metric_value", Real),
    ("metric_timestamp_ms", Int),
    ("metric_step", Int),
    ("run_id", Text),
    ("dataset_name", Text),
    ("dataset_digest", Text),
];

/// MLflow's names for the numbers of a logged model's status.
const STATUS: [&str; 4] = [
    "LOGGED_MODEL_STATUS_UNSPECIFIED",
    "LOGGED_MODEL_PENDING",
    "LOGGED_MODEL_READY",
    "LOGGED_MODEL_UPLOAD_FAILED",
];

fn point(row: &Row) -> Result<Metric, StoreError> {
    let value = row.get::<Option<f64>>("metric_value")?;
    let dataset = word(row, "dataset_name")?;
    let digest = word(row, "dataset_digest")?;
    Ok(Metric {
        key: text(row, "metric_name")?,
        value: value.unwrap_or(f64::NAN),
        logged_at: opt_int(row, "metric_timestamp_ms")?.unwrap_or_default(),
        step: opt_int(row, "metric_step")?.unwrap_or_default(),
        dataset: Some((dataset, digest)).filter(|(name, _)| !name.is_empty()),
        model_id: None,
        run_id: opt_text(row, "run_id")?,
    })
}

impl Foreign {
    /// At most `limit` logged models of an experiment that follow the place `after`, without deleted ones; and the place of
    /// the last one.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn logged_models(
        &mut self,
        experiment: i64,
        after: i64,
        limit: i64,
    ) -> Result<(Vec<LoggedModel>, i64), StoreError> {
        if !self.has("logged_models") {
            return Ok((Vec::new(), after));
        }
        let sql = format!(
            "{} WHERE experiment_id = $1 AND logged_models.rowid > $2 AND \
             COALESCE(lifecycle_stage, 'active') <> 'deleted' ORDER BY logged_models.rowid LIMIT $3",
            self.select("logged_models", &MODEL).replacen(
                "SELECT ",
                "SELECT logged_models.rowid AS place, ",
                1
            )
        );
        let rows = self.rows(sql, &[Bind::Int(experiment), Bind::Int(after), Bind::Int(limit)]).await?;
        let (mut found, mut last) = (Vec::new(), after);
        for row in rows {
            last = int(&row, "place")?;
            let model = self.logged_model(&row).await?;
            found.push(model);
        }
        Ok((found, last))
    }

    async fn logged_model(&mut self, row: &Row) -> Result<LoggedModel, StoreError> {
        let id = text(row, "model_id")?;
        let of_model = [Bind::Text(&id)];
        let columns = [("param_key", Text), ("param_value", Text)];
        let params = self.of("logged_model_params", &columns, "WHERE model_id = $1", &of_model).await?;
        let columns = [("tag_key", Text), ("tag_value", Text)];
        let tags = self.of("logged_model_tags", &columns, "WHERE model_id = $1", &of_model).await?;
        let points = self.of("logged_model_metrics", &POINT, "WHERE model_id = $1", &of_model).await?;
        let status = usize::try_from(opt_int(row, "status")?.unwrap_or_default()).unwrap_or_default();
        let created = opt_int(row, "creation_timestamp_ms")?.unwrap_or_default();
        Ok(LoggedModel {
            lifecycle: Lifecycle::Active,
            experiment_id: int(row, "experiment_id")?,
            name: word(row, "name")?,
            model_type: word(row, "model_type")?,
            source_run_id: word(row, "source_run_id")?,
            status: STATUS.get(status).copied().unwrap_or(STATUS[0]).to_owned(),
            artifact_uri: word(row, "artifact_location")?,
            created,
            updated: opt_int(row, "last_updated_timestamp_ms")?.unwrap_or(created),
            params: pairs(&params, "param_key", "param_value")?,
            tags: pairs(&tags, "tag_key", "tag_value")?,
            metrics: points.iter().map(point).collect::<Result<_, _>>()?,
            model_id: id,
        })
    }
}
