//! What was deleted, and taking it away for good.
//!
//! A thing's own row goes first, in one transaction with a note in `doomed`: from then on nobody sees or restores it. What
//! belongs to it goes in steps, each a transaction of bounded size; the note goes last. What a crash left half done is
//! found by its note.

use super::{CHUNK, places, rows_of};
use crate::conn::{Conn, Row, Tx, int, opt_int, parsed, query, query_dynamic, text};
use crate::error::StoreError;
use crate::statements::statements;
use lockgate_core::clock::Millis;
use lockgate_core::digest::Digest;

statements! {
    DATE_DELETED = "UPDATE runs SET deleted_at = $1 WHERE lifecycle = 'deleted' AND deleted_at IS NULL";
    RUNS = "SELECT run_id AS id, workspace, experiment_id, artifact_uri AS place, lifecycle, deleted_at AS since FROM runs \
            WHERE lifecycle = 'deleted' AND run_id > $1 ORDER BY run_id LIMIT $2";
    RUN = "SELECT run_id AS id, workspace, experiment_id, artifact_uri AS place, lifecycle, deleted_at AS since FROM runs \
           WHERE run_id = $1";
    RUNS_OF = "SELECT run_id AS id, workspace, experiment_id, artifact_uri AS place, lifecycle, deleted_at AS since FROM runs \
               WHERE experiment_id = $1 AND run_id > $2 ORDER BY run_id LIMIT $3";
    MODELS = "SELECT model_id AS id, workspace, experiment_id, artifact_uri AS place, lifecycle, updated AS since \
              FROM logged_models WHERE lifecycle = 'deleted' AND model_id > $1 ORDER BY model_id LIMIT $2";
    MODEL = "SELECT model_id AS id, workspace, experiment_id, artifact_uri AS place, lifecycle, updated AS since \
             FROM logged_models WHERE model_id = $1";
    MODELS_OF = "SELECT model_id AS id, workspace, experiment_id, artifact_uri AS place, lifecycle, updated AS since \
                 FROM logged_models WHERE experiment_id = $1 AND model_id > $2 ORDER BY model_id LIMIT $3";
    EXPERIMENTS = "SELECT CAST(id AS TEXT) AS id, workspace, id AS experiment_id, artifact_location AS place, lifecycle, \
                   updated AS since FROM experiments WHERE lifecycle = 'deleted' ORDER BY experiments.id";
    EXPERIMENT = "SELECT CAST(id AS TEXT) AS id, workspace, id AS experiment_id, artifact_location AS place, lifecycle, \
                  updated AS since FROM experiments WHERE experiments.id = $1";
    TRACES_IN = "SELECT trace_id FROM traces WHERE experiment_id = $1 AND trace_id > $2 ORDER BY trace_id LIMIT $3";
    VERSIONS = "SELECT name, version, run_id, model_id, source, storage_location FROM model_versions \
                WHERE (name, version) > ($1, $2) ORDER BY name, version LIMIT $3";
    VERSION_ROOTS = "SELECT root, MAX(updated) AS updated FROM artifacts WHERE root > $1 AND substr(root, 1, 9) = 'versions/' \
                     GROUP BY root ORDER BY root LIMIT $2";
    STATES = "SELECT kind, id, state FROM aggregates WHERE (kind, id) > ($1, $2) ORDER BY kind, id LIMIT $3";
    SETTINGS = "SELECT key, value FROM settings";
    SEALED = "SELECT entry_seq, value FROM sealed WHERE entry_seq > $1 ORDER BY entry_seq LIMIT $2";
    DOOM = "INSERT INTO doomed (kind, id, place) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
    DOOMED = "SELECT kind, id, place FROM doomed ORDER BY kind, id LIMIT $1";
    SPARE = "DELETE FROM doomed WHERE kind = $1 AND id = $2";
    TAKE_RUN = "DELETE FROM runs WHERE run_id = $1 AND lifecycle = 'deleted' AND COALESCE(deleted_at, $2) <= $2 \
                AND NOT EXISTS (SELECT 1 FROM model_versions v WHERE v.run_id = $1)";
    TAKE_MODEL = "DELETE FROM logged_models WHERE model_id = $1 AND ((lifecycle = 'deleted' AND updated <= $2) \
                  OR EXISTS (SELECT 1 FROM experiments e WHERE e.id = logged_models.experiment_id \
                             AND e.lifecycle = 'deleted' AND e.updated <= $2)) \
                  AND NOT EXISTS (SELECT 1 FROM model_versions v WHERE v.model_id = $1)";
    TAKE_EXPERIMENT = "DELETE FROM experiments WHERE id = $1 AND id <> 0 AND lifecycle = 'deleted' AND updated <= $2 \
                       AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.experiment_id = $1) \
                       AND NOT EXISTS (SELECT 1 FROM logged_models m WHERE m.experiment_id = $1)";
    LAST_EXPERIMENT = "INSERT INTO settings (key, value) VALUES ('last_experiment_id', CAST($1 AS TEXT)) \
                       ON CONFLICT (key) DO UPDATE SET value = excluded.value \
                       WHERE CAST(excluded.value AS BIGINT) > CAST(settings.value AS BIGINT)";
    ROOT_IN_USE = "SELECT COUNT(*) FROM model_versions WHERE storage_location LIKE $1 OR source LIKE $1";
    METRICS = "DELETE FROM metrics WHERE (run_id, key, logged_at, step, value, is_nan) IN \
               (SELECT run_id, key, logged_at, step, value, is_nan FROM metrics WHERE run_id = $1 LIMIT $2)";
    LATEST = "DELETE FROM latest_metrics WHERE (run_id, key) IN \
              (SELECT run_id, key FROM latest_metrics WHERE run_id = $1 LIMIT $2)";
    PARAMS = "DELETE FROM params WHERE (run_id, key) IN (SELECT run_id, key FROM params WHERE run_id = $1 LIMIT $2)";
    TAGS = "DELETE FROM run_tags WHERE (run_id, key) IN (SELECT run_id, key FROM run_tags WHERE run_id = $1 LIMIT $2)";
    INPUTS = "DELETE FROM run_inputs WHERE (run_id, dataset_id) IN \
              (SELECT run_id, dataset_id FROM run_inputs WHERE run_id = $1 LIMIT $2)";
    INPUT_TAGS = "DELETE FROM input_tags WHERE (run_id, dataset_id, key) IN \
                  (SELECT run_id, dataset_id, key FROM input_tags WHERE run_id = $1 LIMIT $2)";
    RUN_MODELS = "DELETE FROM run_models WHERE (run_id, model_id, role) IN \
                  (SELECT run_id, model_id, role FROM run_models WHERE run_id = $1 LIMIT $2)";
    RUN_LINKS = "DELETE FROM trace_links WHERE kind = 'run' AND (target, trace_id) IN \
                 (SELECT target, trace_id FROM trace_links WHERE kind = 'run' AND target = $1 LIMIT $2)";
    MODEL_PARAMS = "DELETE FROM logged_model_params WHERE (model_id, key) IN \
                    (SELECT model_id, key FROM logged_model_params WHERE model_id = $1 LIMIT $2)";
    MODEL_TAGS = "DELETE FROM logged_model_tags WHERE (model_id, key) IN \
                  (SELECT model_id, key FROM logged_model_tags WHERE model_id = $1 LIMIT $2)";
    MODEL_METRICS = "DELETE FROM logged_model_metrics WHERE (model_id, key, logged_at, step, run_id) IN \
                     (SELECT model_id, key, logged_at, step, run_id FROM logged_model_metrics WHERE model_id = $1 LIMIT $2)";
    MODEL_USES = "DELETE FROM run_models WHERE (run_id, model_id, role) IN \
                  (SELECT run_id, model_id, role FROM run_models WHERE model_id = $1 LIMIT $2)";
    EXPERIMENT_TAGS = "DELETE FROM experiment_tags WHERE CAST(experiment_id AS TEXT) = $1 AND key IN \
                       (SELECT key FROM experiment_tags WHERE CAST(experiment_id AS TEXT) = $1 LIMIT $2)";
    DATASETS = "DELETE FROM datasets WHERE id IN (SELECT d.id FROM datasets d WHERE CAST(d.experiment_id AS TEXT) = $1 LIMIT $2)";
    TRACES = "SELECT trace_id FROM traces WHERE experiment_id = $1 LIMIT $2";
    FILES = "DELETE FROM artifacts WHERE (root, path) IN (SELECT root, path FROM artifacts WHERE root = $1 LIMIT $2)";
}

/// How many rows one transaction takes away at the most, of each table.
pub const STEP: i64 = 2000;

/// What can be taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A run.
    Run,
    /// A logged model.
    Model,
    /// An experiment.
    Experiment,
    /// The list of files of a registered version that is no more.
    Version,
}

impl Kind {
    /// The text form.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Model => "model",
            Self::Experiment => "experiment",
            Self::Version => "version",
        }
    }

    /// The statements that take away what belongs to it, some rows at a time.
    const fn parts(self) -> &'static [&'static str] {
        match self {
            Self::Run => &[METRICS, LATEST, PARAMS, TAGS, INPUTS, INPUT_TAGS, RUN_MODELS, RUN_LINKS],
            Self::Model => &[MODEL_PARAMS, MODEL_TAGS, MODEL_METRICS, MODEL_USES],
            Self::Experiment => &[EXPERIMENT_TAGS, DATASETS],
            Self::Version => &[],
        }
    }
}

impl std::str::FromStr for Kind {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let all = [Self::Run, Self::Model, Self::Experiment, Self::Version];
        all.into_iter().find(|known| known.as_str() == text).ok_or(())
    }
}

/// Something that was deleted, or could be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deleted {
    /// Its id.
    pub id: String,
    /// Its workspace.
    pub workspace: String,
    /// Its experiment.
    pub experiment_id: i64,
    /// Where its artifacts lie.
    pub place: String,
    /// Whether it was deleted.
    pub lifecycle: super::Lifecycle,
    /// Since when; nothing where that is not known.
    pub since: Option<Millis>,
}

/// What a registered version says of where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionOrigin {
    /// The key of its model.
    pub name: String,
    /// Its number.
    pub version: i64,
    /// All texts that may name a run, a logged model or a list of files.
    pub texts: [String; 4],
}

/// What is being taken away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doomed {
    /// What it is.
    pub kind: Kind,
    /// Its id.
    pub id: String,
    /// Where its artifacts lie: a root; of an experiment the URI of its location.
    pub place: String,
}

fn deleted(row: &Row) -> Result<Deleted, StoreError> {
    Ok(Deleted {
        id: text(row, "id")?,
        workspace: text(row, "workspace")?,
        experiment_id: int(row, "experiment_id")?,
        place: text(row, "place")?,
        lifecycle: parsed(row, "lifecycle", "lifecycle stage")?,
        since: opt_int(row, "since")?,
    })
}

impl Conn {
    /// What of a kind was deleted, of all workspaces: those behind the last one of an earlier call.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn deleted(&mut self, kind: Kind, after: &str, limit: i64) -> Result<Vec<Deleted>, StoreError> {
        let statement = match kind {
            Kind::Run => query(RUNS).bind(after.to_owned()).bind(limit),
            Kind::Model => query(MODELS).bind(after.to_owned()).bind(limit),
            // All at once.
            Kind::Experiment if after.is_empty() => query(EXPERIMENTS),
            Kind::Experiment | Kind::Version => return Ok(Vec::new()),
        };
        self.fetch_all(statement).await?.iter().map(deleted).collect()
    }

    /// The run, logged model or experiment of this id, of whatever workspace and deleted or not.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn deletable(&mut self, kind: Kind, id: &str) -> Result<Option<Deleted>, StoreError> {
        let statement = match (kind, id.parse::<i64>()) {
            (Kind::Run, _) => query(RUN).bind(id.to_owned()),
            (Kind::Model, _) => query(MODEL).bind(id.to_owned()),
            (Kind::Experiment, Ok(number)) => query(EXPERIMENT).bind(number),
            (Kind::Experiment, Err(_)) | (Kind::Version, _) => return Ok(None),
        };
        self.fetch_optional(statement).await?.as_ref().map(deleted).transpose()
    }

    /// The runs or logged models of an experiment, deleted or not: those behind the last one of an earlier call.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn members(
        &mut self,
        kind: Kind,
        experiment: i64,
        after: &str,
        limit: i64,
    ) -> Result<Vec<Deleted>, StoreError> {
        let sql = if kind == Kind::Run { RUNS_OF } else { MODELS_OF };
        let statement = query(sql).bind(experiment).bind(after.to_owned()).bind(limit);
        self.fetch_all(statement).await?.iter().map(deleted).collect()
    }

    /// The ids of an experiment's traces, of whatever workspace: those behind the last one of an earlier call.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn traces_in(
        &mut self,
        experiment: i64,
        after: &str,
        limit: i64,
    ) -> Result<Vec<String>, StoreError> {
        let rows =
            self.fetch_all(query(TRACES_IN).bind(experiment).bind(after.to_owned()).bind(limit)).await?;
        rows.iter().map(|row| text(row, "trace_id")).collect()
    }

    /// Where registered versions of all workspaces come from: those behind the last one of an earlier call.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn version_origins(
        &mut self,
        after: (&str, i64),
        limit: i64,
    ) -> Result<Vec<VersionOrigin>, StoreError> {
        let statement = query(VERSIONS).bind(after.0.to_owned()).bind(after.1).bind(limit);
        let rows = self.fetch_all(statement).await?;
        rows.iter()
            .map(|row| {
                Ok(VersionOrigin {
                    name: text(row, "name")?,
                    version: int(row, "version")?,
                    texts: [
                        text(row, "run_id")?,
                        text(row, "model_id")?,
                        text(row, "source")?,
                        text(row, "storage_location")?,
                    ],
                })
            })
            .collect()
    }

    /// The roots of registered versions' files, with the time of the newest: those behind the last one of an earlier call.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn version_roots(
        &mut self,
        after: &str,
        limit: i64,
    ) -> Result<Vec<(String, Millis)>, StoreError> {
        let rows = self.fetch_all(query(VERSION_ROOTS).bind(after.to_owned()).bind(limit)).await?;
        rows.iter().map(|row| Ok((text(row, "root")?, int(row, "updated")?))).collect()
    }

    /// Every text of governed state apart from the log: of promotions and releases, of settings, and what opens commitments.
    /// `seen` is told each.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn governed_texts(&mut self, mut seen: impl FnMut(&str)) -> Result<(), StoreError> {
        let mut last = (String::new(), String::new());
        loop {
            let statement = query(STATES).bind(last.0.clone()).bind(last.1.clone()).bind(STEP);
            let rows = self.fetch_all(statement).await?;
            let Some(end) = rows.last() else { break };
            last = (text(end, "kind")?, text(end, "id")?);
            for row in &rows {
                seen(&text(row, "id")?);
                seen(&text(row, "state")?);
            }
        }
        for row in self.fetch_all(query(SETTINGS)).await? {
            seen(&text(&row, "value")?);
        }
        let mut last = -1;
        loop {
            let rows = self.fetch_all(query(SEALED).bind(last).bind(STEP)).await?;
            let Some(end) = rows.last() else { return Ok(()) };
            last = int(end, "entry_seq")?;
            for row in &rows {
                seen(&text(row, "value")?);
            }
        }
    }

    /// Those of the digests that files name.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn digests_in_use(&mut self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        let texts: Vec<String> = digests.iter().map(Digest::to_string).collect();
        let head = "SELECT DISTINCT digest FROM artifacts WHERE digest IN";
        rows_of(self, head, &texts).await?.iter().map(|row| parsed(row, "digest", "digest")).collect()
    }

    /// What is being taken away.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn doomed(&mut self, limit: i64) -> Result<Vec<Doomed>, StoreError> {
        let rows = self.fetch_all(query(DOOMED).bind(limit)).await?;
        rows.iter()
            .map(|row| {
                Ok(Doomed {
                    kind: parsed(row, "kind", "kind")?,
                    id: text(row, "id")?,
                    place: text(row, "place")?,
                })
            })
            .collect()
    }

    /// The ids of some traces of an experiment, of whatever workspace.
    ///
    /// # Errors
    /// Where the database can't be read.
    pub async fn some_traces(&mut self, experiment: i64, most: i64) -> Result<Vec<String>, StoreError> {
        let rows = self.fetch_all(query(TRACES).bind(experiment).bind(most)).await?;
        rows.iter().map(|row| text(row, "trace_id")).collect()
    }
}

impl Tx {
    /// Takes the row of something away that is deleted since `until` or before and that no version names; what belongs to it is to
    /// follow. Says whether it did.
    ///
    /// # Errors
    /// Where the database can't be written.
    pub async fn doom(&mut self, doomed: &Doomed, until: Millis) -> Result<bool, StoreError> {
        let Doomed { kind, id, place } = doomed;
        let taken = match (kind, id.parse::<i64>()) {
            (Kind::Run, _) => self.execute(query(TAKE_RUN).bind(id.clone()).bind(until)).await? > 0,
            (Kind::Model, _) => self.execute(query(TAKE_MODEL).bind(id.clone()).bind(until)).await? > 0,
            (Kind::Experiment, Ok(number)) => {
                let taken = self.execute(query(TAKE_EXPERIMENT).bind(number).bind(until)).await? > 0;
                if taken {
                    self.execute(query(LAST_EXPERIMENT).bind(number)).await?;
                }
                taken
            }
            (Kind::Experiment, Err(_)) => false,
            // Between two percent signs; a root has neither one nor an underscore.
            (Kind::Version, _) => {
                self.scalar(query(ROOT_IN_USE).bind(format!("%{place}%"))).await?.unwrap_or_default() == 0
            }
        };
        if taken {
            self.execute(query(DOOM).bind(kind.as_str()).bind(id.clone()).bind(place.clone())).await?;
        }
        Ok(taken)
    }

    /// Takes away some of the rows that belong to what is doomed, but for an experiment's traces; says whether any may be left.
    ///
    /// # Errors
    /// Where the database can't be written.
    pub async fn wear_down(&mut self, doomed: &Doomed) -> Result<bool, StoreError> {
        let mut left = false;
        for sql in doomed.kind.parts() {
            let rows = self.execute(query(sql).bind(doomed.id.clone()).bind(STEP)).await?;
            left |= rows >= STEP.unsigned_abs();
        }
        if doomed.kind != Kind::Experiment && !doomed.place.is_empty() {
            let rows = self.execute(query(FILES).bind(doomed.place.clone()).bind(STEP)).await?;
            left |= rows >= STEP.unsigned_abs();
        }
        Ok(left)
    }

    /// Takes all files of some roots away.
    ///
    /// # Errors
    /// Where the database can't be written.
    pub async fn delete_roots(&mut self, roots: &[String]) -> Result<(), StoreError> {
        for chunk in roots.chunks(CHUNK) {
            let sql = format!("DELETE FROM artifacts WHERE root IN {}", places(0, chunk.len()));
            let statement = query_dynamic(self.nameless(sql));
            let statement = chunk.iter().fold(statement, |statement, root| statement.bind(root.clone()));
            self.execute(statement).await?;
        }
        Ok(())
    }

    /// Forgets what has been taken away with all that belonged to it.
    ///
    /// # Errors
    /// Where the database can't be written.
    pub async fn forget_doomed(&mut self, doomed: &Doomed) -> Result<(), StoreError> {
        let statement = query(SPARE).bind(doomed.kind.as_str()).bind(doomed.id.clone());
        self.execute(statement).await.map(|_| ())
    }
}
