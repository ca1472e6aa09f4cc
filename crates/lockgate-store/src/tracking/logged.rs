//! What runs log: metrics, params and tags.

use super::types::{KeyValue, Metric};
use super::{CHUNK, places, rows_of, tuples};
use crate::conn::{Conn, Query, Row, Tx, int, query, query_dynamic, real, text};
use crate::error::{StoreError, no_nul};
use crate::statements::statements;
use std::collections::{BTreeMap, HashMap};

statements! {
    HISTORY = "SELECT run_id, key, value, is_nan, logged_at, step FROM metrics WHERE run_id = $1 AND key = $2 \
               AND EXISTS (SELECT 1 FROM runs r WHERE r.run_id = $1 AND r.workspace = $5) ORDER BY logged_at, step, is_nan, value LIMIT $3 OFFSET $4";
    SAMPLE = "SELECT run_id, key, value, is_nan, logged_at, step FROM (\
                SELECT run_id, key, value, is_nan, logged_at, step, place, total, \
                       MIN(place) OVER (PARTITION BY bucket) AS start FROM (\
                  SELECT run_id, key, value, is_nan, logged_at, step, \
                         NTILE(CAST($3 AS INTEGER)) OVER (ORDER BY step, logged_at, value, is_nan) AS bucket, \
                         ROW_NUMBER() OVER (ORDER BY step, logged_at, value, is_nan) AS place, \
                         COUNT(*) OVER () AS total \
                  FROM metrics WHERE run_id = $1 AND key = $2 AND step BETWEEN $4 AND $5 \
                  AND EXISTS (SELECT 1 FROM runs r WHERE r.run_id = $1 AND r.workspace = $6)) AS numbered) AS sampled \
              WHERE place = start OR place = total ORDER BY place";
    SET_TAG = "INSERT INTO run_tags (run_id, key, value) VALUES ($1, $2, $3) \
               ON CONFLICT (run_id, key) DO UPDATE SET value = excluded.value";
    DELETE_TAG = "DELETE FROM run_tags WHERE run_id = $1 AND key = $2";
    INSERT_PARAM = "INSERT INTO params (run_id, key, value) VALUES ($1, $2, $3)";
    MODEL_METRIC = "INSERT INTO logged_model_metrics (model_id, run_id, key, logged_at, step, value, is_nan, \
                    dataset_name, dataset_digest) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
                    ON CONFLICT DO NOTHING";
    INSERT_METRICS = "INSERT INTO metrics (run_id, key, logged_at, step, value, is_nan) \
                      VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING";
    RUN_POINTS = "SELECT run_id, key, value, is_nan, logged_at, step FROM metrics WHERE run_id = $1 AND \
                  (key, logged_at, step, value, is_nan) > ($2, $3, $4, $5, $6) \
                  ORDER BY key, logged_at, step, value, is_nan LIMIT $7";
    UPSERT_LATEST = "INSERT INTO latest_metrics (run_id, key, logged_at, step, value, is_nan, experiment_id) \
                     VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (run_id, key) DO UPDATE SET \
                     logged_at = excluded.logged_at, step = excluded.step, value = excluded.value, \
                     is_nan = excluded.is_nan WHERE (excluded.step, excluded.logged_at, excluded.value) > \
                     (latest_metrics.step, latest_metrics.logged_at, latest_metrics.value)";
}

fn metric(row: &Row) -> Result<Metric, StoreError> {
    Ok(Metric { run_id: Some(text(row, "run_id")?), ..point(row)? })
}

/// A point of a run that is known.
pub(super) fn point(row: &Row) -> Result<Metric, StoreError> {
    let value = if int(row, "is_nan")? == 0 { real(row, "value")? } else { f64::NAN };
    Ok(Metric {
        key: text(row, "key")?,
        value,
        logged_at: int(row, "logged_at")?,
        step: int(row, "step")?,
        dataset: None,
        model_id: None,
        run_id: None,
    })
}

/// A number as the engines store it: infinities as the largest finite numbers, as MLflow's own store does.
fn stored(value: f64) -> (f64, i64) {
    if value.is_nan() { (0.0, 1) } else { (value.clamp(f64::MIN, f64::MAX), 0) }
}

/// The newest point of every key: the largest by step, time and value.
fn newest(metrics: &[Metric]) -> Vec<&Metric> {
    let mut found: HashMap<&str, &Metric> = HashMap::new();
    for metric in metrics {
        let rank = |m: &Metric| (m.step, m.logged_at);
        found
            .entry(&metric.key)
            .and_modify(|best| {
                let later = rank(metric) > rank(best);
                if later || (rank(metric) == rank(best) && stored(metric.value).0 > stored(best.value).0) {
                    *best = metric;
                }
            })
            .or_insert(metric);
    }
    found.into_values().collect()
}

/// A statement for one row, for so many, whose values come after so many others.
fn points_text(sql: &str, before: usize, columns: usize, rows: usize) -> String {
    sql.replacen(&places(0, columns), &tuples(before, rows, columns), 1)
}

fn bind_points(
    mut statement: Query,
    columns: usize,
    (experiment, run): (i64, &str),
    points: &[&Metric],
) -> Query {
    for point in points {
        let (value, is_nan) = stored(point.value);
        statement = statement.bind(run.to_owned()).bind(point.key.clone()).bind(point.logged_at);
        statement = statement.bind(point.step).bind(value).bind(is_nan);
        if columns > 6 {
            statement = statement.bind(experiment);
        }
    }
    statement
}

impl Conn {
    /// The points of one metric, the oldest first.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn metric_history(
        &mut self,
        run: &str,
        key: &str,
        limit: i64,
        offset: i64,
    ) -> Result<Vec<Metric>, StoreError> {
        let statement = query(HISTORY).bind(run.to_owned()).bind(key.to_owned()).bind(limit).bind(offset);
        let statement = statement.bind(self.workspace().to_owned());
        self.fetch_all(statement).await?.iter().map(metric).collect()
    }

    /// At most so many points of one metric, spread evenly over all of its points within the steps, in the order of their
    /// steps; the first and the last are among them, and the last alone where there is room for one.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn metric_sample(
        &mut self,
        run: &str,
        key: &str,
        most: usize,
        (first, last): (i64, i64),
    ) -> Result<Vec<Metric>, StoreError> {
        let count = i64::try_from(most).unwrap_or(i64::MAX);
        let statement = query(SAMPLE).bind(run.to_owned()).bind(key.to_owned()).bind(count);
        let workspace = self.workspace().to_owned();
        let rows = self.fetch_all(statement.bind(first).bind(last).bind(workspace)).await?;
        let mut found: Vec<Metric> = rows.iter().map(metric).collect::<Result<_, _>>()?;
        // The last point need not be the first of its part: it then takes that one's place.
        if found.len() > most {
            found.remove(most - 1);
        }
        Ok(found)
    }

    /// At most `limit` points of a run, those that follow `after`; from the beginning where it is nothing. The order is the
    /// engine's own.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn run_points(
        &mut self,
        run: &str,
        after: Option<&Metric>,
        limit: i64,
    ) -> Result<Vec<Metric>, StoreError> {
        let statement = query(RUN_POINTS).bind(run.to_owned());
        let statement = match after {
            Some(last) => {
                let (value, is_nan) = stored(last.value);
                let statement = statement.bind(last.key.clone()).bind(last.logged_at).bind(last.step);
                statement.bind(value).bind(is_nan)
            }
            // No key is empty.
            None => statement.bind(String::new()).bind(0_i64).bind(0_i64).bind(0.0_f64).bind(0_i64),
        };
        self.fetch_all(statement.bind(limit)).await?.iter().map(metric).collect()
    }

    /// The values of these params of a run, where it has them.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn params_of(
        &mut self,
        run: &str,
        keys: &[&str],
    ) -> Result<BTreeMap<String, String>, StoreError> {
        let mut found = BTreeMap::new();
        for chunk in keys.chunks(CHUNK) {
            let among = places(1, chunk.len());
            let sql = format!("SELECT key, value FROM params WHERE run_id = $1 AND key IN {among}");
            let statement = query_dynamic(self.nameless(sql)).bind(run.to_owned());
            let statement = chunk.iter().fold(statement, |statement, key| statement.bind((*key).to_owned()));
            for row in self.fetch_all(statement).await? {
                found.insert(text(&row, "key")?, text(&row, "value")?);
            }
        }
        Ok(found)
    }

    /// The metrics of logged models.
    pub(super) async fn model_metrics(&mut self, models: &[String]) -> Result<Vec<Metric>, StoreError> {
        let head = "SELECT model_id, run_id, key, value, is_nan, logged_at, step, dataset_name, dataset_digest \
                    FROM logged_model_metrics WHERE model_id IN";
        rows_of(self, head, models)
            .await?
            .iter()
            .map(|row| {
                let dataset = (text(row, "dataset_name")?, text(row, "dataset_digest")?);
                Ok(Metric {
                    dataset: Some(dataset).filter(|(name, _)| !name.is_empty()),
                    model_id: Some(text(row, "model_id")?),
                    ..metric(row)?
                })
            })
            .collect()
    }
}

impl Tx {
    /// Adds points of a run of an experiment, also to the logged models that they name, which must be there; those that are
    /// there already are left as they are. Keeps the newest of each key.
    ///
    /// # Errors
    /// Where they can't be stored.
    pub async fn log_metrics(
        &mut self,
        experiment: i64,
        run: &str,
        metrics: &[Metric],
    ) -> Result<(), StoreError> {
        for metric in metrics {
            no_nul("a metric's key", &metric.key)?;
        }
        let (all, newest): (Vec<&Metric>, _) = (metrics.iter().collect(), newest(metrics));
        if self.is_sqlite() || all.len() > CHUNK {
            self.insert_points(INSERT_METRICS, 6, (experiment, run), &all).await?;
            self.insert_points(UPSERT_LATEST, 7, (experiment, run), &newest).await?;
        } else if !all.is_empty() {
            // One way to PostgreSQL and back costs as much as both statements.
            let points = points_text(INSERT_METRICS, 0, 6, all.len());
            let latest = points_text(UPSERT_LATEST, 6 * all.len(), 7, newest.len());
            let statement = query_dynamic(format!("WITH points AS ({points}) {latest}"));
            let statement = bind_points(statement, 6, (experiment, run), &all);
            self.execute(bind_points(statement, 7, (experiment, run), &newest)).await?;
        }
        for metric in metrics {
            if let Some(model) = &metric.model_id {
                self.log_model_metric(run, model, metric).await?;
            }
        }
        Ok(())
    }

    /// Adds points of a run of an experiment as they are, without a look at logged models; says how many were not there yet. Keeps the
    /// newest of each key.
    ///
    /// # Errors
    /// Where they can't be stored.
    pub async fn add_points(
        &mut self,
        experiment: i64,
        run: &str,
        points: &[Metric],
    ) -> Result<u64, StoreError> {
        for point in points {
            no_nul("a metric's key", &point.key)?;
        }
        let all: Vec<&Metric> = points.iter().collect();
        let added = self.insert_points(INSERT_METRICS, 6, (experiment, run), &all).await?;
        self.insert_points(UPSERT_LATEST, 7, (experiment, run), &newest(points)).await?;
        Ok(added)
    }

    /// Adds points of a logged model, each of the run that it names; says how many were not there yet.
    ///
    /// # Errors
    /// Where they can't be stored.
    pub async fn add_model_points(&mut self, model: &str, points: &[Metric]) -> Result<u64, StoreError> {
        let mut added = 0;
        for point in points {
            no_nul("a metric's key", &point.key)?;
            added += self.log_model_metric(point.run_id.as_deref().unwrap_or_default(), model, point).await?;
        }
        Ok(added)
    }

    async fn insert_points(
        &mut self,
        sql: &str,
        columns: usize,
        (experiment, run): (i64, &str),
        points: &[&Metric],
    ) -> Result<u64, StoreError> {
        let mut added = 0;
        for chunk in points.chunks(CHUNK) {
            let statement = query_dynamic(self.nameless(points_text(sql, 0, columns, chunk.len())));
            added += self.execute(bind_points(statement, columns, (experiment, run), chunk)).await?;
        }
        Ok(added)
    }

    async fn log_model_metric(&mut self, run: &str, model: &str, metric: &Metric) -> Result<u64, StoreError> {
        let (value, is_nan) = stored(metric.value);
        let (name, digest) = metric.dataset.clone().unwrap_or_default();
        no_nul("a dataset's name", &name)?;
        no_nul("a dataset's digest", &digest)?;
        let statement =
            query(MODEL_METRIC).bind(model.to_owned()).bind(run.to_owned()).bind(metric.key.clone());
        let statement = statement.bind(metric.logged_at).bind(metric.step).bind(value).bind(is_nan);
        self.execute(statement.bind(name).bind(digest)).await
    }

    /// Adds params that the run doesn't have, each key once.
    ///
    /// # Errors
    /// Where the run has one of them.
    pub async fn insert_params(&mut self, run: &str, params: &[&KeyValue]) -> Result<(), StoreError> {
        for param in params {
            no_nul("a param's key", &param.key)?;
            no_nul("a param's value", &param.value)?;
        }
        self.insert_pairs(INSERT_PARAM, run, params).await
    }

    /// Sets tags; of several with one key the last one counts.
    ///
    /// # Errors
    /// Where they can't be stored.
    pub async fn set_run_tags(&mut self, run: &str, tags: &[KeyValue]) -> Result<(), StoreError> {
        for tag in tags {
            no_nul("a tag's key", &tag.key)?;
            no_nul("a tag's value", &tag.value)?;
        }
        // One statement can't change a row twice.
        let last: BTreeMap<&str, &KeyValue> = tags.iter().map(|tag| (tag.key.as_str(), tag)).collect();
        let tags: Vec<&KeyValue> = last.into_values().collect();
        self.insert_pairs(SET_TAG, run, &tags).await
    }

    async fn insert_pairs(&mut self, sql: &str, run: &str, pairs: &[&KeyValue]) -> Result<(), StoreError> {
        for chunk in pairs.chunks(CHUNK) {
            let statement = query_dynamic(self.nameless(points_text(sql, 0, 3, chunk.len())));
            let bind = |statement: Query, pair: &&KeyValue| {
                statement.bind(run.to_owned()).bind(pair.key.clone()).bind(pair.value.clone())
            };
            self.execute(chunk.iter().fold(statement, bind)).await?;
        }
        Ok(())
    }

    /// Removes a tag; says whether there was one.
    ///
    /// # Errors
    /// Where the database can't be written.
    pub async fn delete_run_tag(&mut self, run: &str, key: &str) -> Result<bool, StoreError> {
        let statement = query(DELETE_TAG).bind(run.to_owned()).bind(key.to_owned());
        self.execute(statement).await.map(|rows| rows > 0)
    }
}
