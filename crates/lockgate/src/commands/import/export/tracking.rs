//! Experiments, runs and logged models.

use super::folder::is_part;
use super::yaml::{Value, description};
use super::{Exporter, home};
use crate::commands::import::places;
use crate::commands::import::report::{Kind, Level};
use crate::commands::import::sources::files::Reader;
use crate::commands::import::sources::{Cursor, Source};
use lockgate_control::tracking::exchange::{
    DatasetRecord, History, LoggedModelRecord, Pairs, Point, RunDigests, RunRecord, run_record,
};
use lockgate_control::tracking::{Experiment, LoggedModel, Run, RunStatus};
use lockgate_core::digest::Digest;
use std::io::Write as _;

/// What MLflow calls a run that was started from a program on the spot.
const LOCAL: i64 = 4;

fn pairs(tags: &[lockgate_control::tracking::KeyValue]) -> Pairs {
    tags.iter().map(|tag| (tag.key.clone(), tag.value.clone())).collect()
}

/// A point as a file store writes it: the shortest form of the number that reads as itself.
fn line(point: &Point) -> String {
    let value = if point.value.is_nan() { "nan".to_owned() } else { format!("{:?}", point.value) };
    format!("{} {value} {}", point.at, point.step)
}

/// An id of its own for what has none here.
fn id_of(parts: &[&str]) -> String {
    let text: Vec<String> = parts.iter().map(|part| format!("{}:{part}", part.len())).collect();
    Digest::of(text.concat().as_bytes()).hex()[..32].to_owned()
}

impl Exporter {
    pub(super) fn experiment(&mut self, one: &Experiment) -> anyhow::Result<()> {
        let home = home(one);
        let was_there = self.folder.path(&home).join("meta.yaml").is_file();
        let location = match places::proxied(&one.artifact_location) {
            Some(_) => self.folder.uri(&one.id.to_string()),
            None => one.artifact_location.clone(),
        };
        let text = description(&[
            ("artifact_location", location.into()),
            ("creation_time", one.created.into()),
            ("experiment_id", one.id.to_string().into()),
            ("last_update_time", one.updated.into()),
            ("lifecycle_stage", one.lifecycle.as_str().into()),
            ("name", one.name.clone().into()),
        ]);
        let refused = self.folder.pairs(&format!("{home}/tags"), &pairs(&one.tags))?;
        self.refused(Kind::Experiments, &one.name, refused);
        self.folder.write(&format!("{home}/meta.yaml"), &text)?;
        let read = Reader::experiment(&self.folder.path(&home))?;
        let same = Experiment { artifact_location: String::new(), tags: vec![], ..read.clone() }
            == Experiment { artifact_location: String::new(), tags: vec![], ..one.clone() }
            && pairs(&read.tags) == pairs(&one.tags);
        self.compared(
            Kind::Experiments,
            &one.name,
            was_there,
            if same { &[] } else { &["description or tags"] },
        );
        Ok(())
    }

    /// Tells which names can't be files.
    pub(super) fn refused(&mut self, kind: Kind, what: &str, names: Vec<String>) {
        for name in names {
            let why = format!("`{}` can't be a file's name", name.escape_debug());
            self.report.tell(Level::Skipped, kind, what, why);
        }
    }

    pub(super) async fn runs(&mut self, of: &Experiment) -> anyhow::Result<()> {
        let mut at = Cursor::default();
        loop {
            let page = self.source.runs(of, &mut at).await?;
            if page.is_empty() {
                return Ok(());
            }
            for run in page {
                self.run_out(of, &run).await?;
                self.progress(&format!("experiment `{}`", of.name));
            }
        }
    }

    async fn run_out(&mut self, of: &Experiment, run: &Run) -> anyhow::Result<()> {
        let (home, id) = (home(of), &run.run_id);
        if !is_part(id) {
            self.unwritable(Kind::Runs, id, "its id can't be a folder's name");
            return Ok(());
        }
        let below = format!("{home}/{id}");
        let record = run_record(run);
        let was_there = self.folder.path(&below).join("meta.yaml").is_file();
        let ours = match was_there {
            true => self.history(run, &record, None).await?,
            false => {
                // Whatever an export that was broken off left of it.
                self.folder.clear(&below, &["metrics", "params", "tags", "inputs", "outputs"])?;
                let ours = self.history(run, &record, Some(&below)).await?;
                self.write_run(of, &below, run, &record)?;
                ours
            }
        };
        let theirs = Reader::run(&self.folder.path(&home), of.id, id)?;
        self.report.runs.source.add(id, Some(&ours.whole()));
        self.report.runs.target.add(id, Some(&theirs.whole()));
        self.compared(Kind::Runs, id, was_there, &ours.differences(&theirs));
        self.parts(&record, ours.points, was_there, theirs == ours);
        let to = format!("{below}/artifacts");
        std::fs::create_dir_all(self.folder.path(&to))?;
        self.artifacts(&run.artifact_uri, id, &to).await
    }

    fn parts(&mut self, record: &RunRecord, points: u64, was_there: bool, same: bool) {
        let parts = [
            (Kind::Params, record.params.len() as u64),
            (Kind::Tags, record.tags.len() as u64),
            (Kind::MetricPoints, points),
            (Kind::DatasetInputs, record.datasets.len() as u64),
        ];
        for (kind, count) in parts {
            let counts = self.report.of(kind);
            counts.found += count;
            *(if was_there { &mut counts.same } else { &mut counts.new }) += count;
            counts.compared += if same { count } else { 0 };
        }
    }

    /// Reads a run's history from the server; writes it where it is to go.
    async fn history(
        &mut self,
        run: &Run,
        record: &RunRecord,
        to: Option<&str>,
    ) -> anyhow::Result<RunDigests> {
        let (mut history, mut at) = (History::default(), Cursor::default());
        if let Some(below) = to {
            std::fs::create_dir_all(self.folder.path(&format!("{below}/metrics")))?;
        }
        loop {
            let points = self.source.points(run, &mut at).await?;
            if points.is_empty() {
                return Ok(RunDigests::of(record, history));
            }
            history.add(&points);
            if let Some(below) = to {
                self.write_points(&format!("{below}/metrics"), &points, line)?;
            }
        }
    }

    /// Appends points to their metrics' files.
    fn write_points(
        &mut self,
        below: &str,
        points: &[Point],
        line: impl Fn(&Point) -> String,
    ) -> anyhow::Result<()> {
        for chunk in points.chunk_by(|a, b| a.key == b.key) {
            let key = &chunk[0].key;
            let lines: String = chunk.iter().map(|point| line(point) + "\n").collect();
            let path = self.folder.path(below).join(key);
            if !super::folder::is_name(key) || append(&path, &lines).is_err() {
                self.refused(Kind::MetricPoints, below, vec![key.clone()]);
            }
        }
        Ok(())
    }

    fn write_run(
        &mut self,
        of: &Experiment,
        below: &str,
        run: &Run,
        record: &RunRecord,
    ) -> anyhow::Result<()> {
        for (name, pairs) in [("params", &record.params), ("tags", &record.tags)] {
            let refused = self.folder.pairs(&format!("{below}/{name}"), pairs)?;
            self.refused(Kind::Runs, &run.run_id, refused);
        }
        for dataset in &record.datasets {
            self.write_dataset(of, below, &run.run_id, dataset)?;
        }
        for model in &record.model_inputs {
            let text = link("MODEL", "RUN", model, None, &Pairs::new());
            let id = id_of(&[model, &run.run_id]);
            self.folder.write(&format!("{below}/inputs/{id}/meta.yaml"), &text)?;
        }
        for (model, step) in &record.model_outputs {
            if !is_part(model) {
                let why = format!("its output `{}` can't be a file's name", model.escape_debug());
                self.report.skip(Kind::Runs, run.run_id.clone(), why);
                continue;
            }
            let text = link("RUN_OUTPUT", "MODEL_OUTPUT", model, Some(*step), &Pairs::new());
            self.folder.write(&format!("{below}/outputs/{model}/meta.yaml"), &text)?;
        }
        let status = RunStatus::ALL.iter().position(|one| one.as_str() == run.status).unwrap_or_default();
        let uri = match places::proxied(&run.artifact_uri) {
            Some(_) => self.folder.uri(&format!("{}/{}/artifacts", of.id, run.run_id)),
            None => run.artifact_uri.clone(),
        };
        let text = description(&[
            ("artifact_uri", uri.into()),
            ("deleted_time", Value::Nothing),
            ("end_time", run.end_time.into()),
            ("entry_point_name", "".into()),
            ("experiment_id", of.id.to_string().into()),
            ("lifecycle_stage", run.lifecycle.as_str().into()),
            ("run_id", run.run_id.clone().into()),
            ("run_name", run.name.clone().into()),
            ("run_uuid", run.run_id.clone().into()),
            ("source_name", "".into()),
            ("source_type", LOCAL.into()),
            ("source_version", "".into()),
            ("start_time", run.start_time.into()),
            ("status", i64::try_from(status + 1).unwrap_or(1).into()),
            ("tags", Value::Empty),
            ("user_id", run.user_id.clone().into()),
        ]);
        self.folder.write(&format!("{below}/meta.yaml"), &text)
    }

    fn write_dataset(
        &self,
        of: &Experiment,
        below: &str,
        run: &str,
        one: &DatasetRecord,
    ) -> anyhow::Result<()> {
        let id = id_of(&[&one.name, &one.digest]);
        let place = format!("{}/datasets/{id}/meta.yaml", home(of));
        let text = description(&[
            ("digest", one.digest.clone().into()),
            ("name", one.name.clone().into()),
            ("profile", one.profile.clone().into()),
            ("schema", one.schema.clone().into()),
            ("source", one.source.clone().into()),
            ("source_type", one.source_type.clone().into()),
        ]);
        self.folder.write(&place, &text)?;
        let text = link("DATASET", "RUN", &id, None, &one.tags);
        self.folder.write(&format!("{below}/inputs/{}/meta.yaml", id_of(&[&id, run])), &text)
    }

    pub(super) async fn logged_models(&mut self, of: &Experiment) -> anyhow::Result<()> {
        let mut at = Cursor::default();
        loop {
            let page = self.source.logged_models(of, &mut at).await?;
            if page.is_empty() {
                return Ok(());
            }
            for model in page {
                self.logged_model(of, &model).await?;
                self.progress(&format!("models of `{}`", of.name));
            }
        }
    }

    async fn logged_model(&mut self, of: &Experiment, model: &LoggedModel) -> anyhow::Result<()> {
        if !is_part(&model.model_id) {
            self.unwritable(Kind::LoggedModels, &model.model_id, "its id can't be a folder's name");
            return Ok(());
        }
        let below = format!("{}/models/{}", home(of), model.model_id);
        let record = LoggedModelRecord::of(model);
        let was_there = self.folder.path(&below).join("meta.yaml").is_file();
        if !was_there {
            self.folder.clear(&below, &["metrics", "params", "tags"])?;
            self.write_model(of, &below, &record, &model.artifact_uri)?;
        }
        let read = Reader::logged_model(&self.folder.path(&below), of.id)?;
        let differences = record.differences(&read);
        self.compared(Kind::LoggedModels, &model.model_id, was_there, &differences);
        let to = format!("{below}/artifacts");
        std::fs::create_dir_all(self.folder.path(&to))?;
        self.artifacts(&model.artifact_uri, &model.model_id, &to).await
    }

    fn write_model(
        &mut self,
        of: &Experiment,
        below: &str,
        model: &LoggedModelRecord,
        uri: &str,
    ) -> anyhow::Result<()> {
        for (name, pairs) in [("params", &model.params), ("tags", &model.tags)] {
            let refused = self.folder.pairs(&format!("{below}/{name}"), pairs)?;
            self.refused(Kind::LoggedModels, &model.model_id, refused);
        }
        let metrics = format!("{below}/metrics");
        std::fs::create_dir_all(self.folder.path(&metrics))?;
        for one in &model.metrics {
            // MLflow tells the parts of a line by single spaces, and takes no line with another number of them.
            let plain = |text: &str| !text.is_empty() && !text.contains(char::is_whitespace);
            let named = one.dataset.as_ref().is_none_or(|(name, digest)| plain(name) && plain(digest));
            if !named || !plain(&one.run_id) {
                let why = format!(
                    "a point of its metric `{}` can't be written: a file store has no spaces in names of datasets, and no \
                     points without a run",
                    one.point.key.escape_debug()
                );
                self.report.skip(Kind::LoggedModels, model.model_id.clone(), why);
                continue;
            }
            let dataset = one.dataset.as_ref().map(|(name, digest)| format!(" {name} {digest}"));
            let more = format!(" {}{}", one.run_id, dataset.unwrap_or_default());
            self.write_points(&metrics, std::slice::from_ref(&one.point), |point| line(point) + &more)?;
        }
        let status = ["LOGGED_MODEL_PENDING", "LOGGED_MODEL_READY", "LOGGED_MODEL_UPLOAD_FAILED"]
            .iter()
            .position(|known| *known == model.status)
            .map_or(0, |place| i64::try_from(place + 1).unwrap_or_default());
        let place = format!("{}/models/{}/artifacts", of.id, model.model_id);
        let uri = places::proxied(uri).map_or_else(|| uri.to_owned(), |_| self.folder.uri(&place));
        let some = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        let text = description(&[
            ("artifact_location", uri.into()),
            ("creation_timestamp", model.created.into()),
            ("experiment_id", of.id.to_string().into()),
            ("last_updated_timestamp", model.updated.into()),
            ("lifecycle_stage", "active".into()),
            ("model_id", model.model_id.clone().into()),
            ("model_type", some(&model.model_type).into()),
            ("name", model.name.clone().into()),
            ("source_run_id", some(&model.source_run_id).into()),
            ("status", status.into()),
            ("status_message", Value::Nothing),
        ]);
        self.folder.write(&format!("{below}/meta.yaml"), &text)
    }
}

fn append(path: &std::path::Path, lines: &str) -> std::io::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::OpenOptions::new().create(true).append(true).open(path)?.write_all(lines.as_bytes())
}

fn link(from: &str, to: &str, id: &str, step: Option<i64>, tags: &Pairs) -> String {
    let tags = tags.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    let mut fields: Vec<(&str, Value)> = vec![
        ("destination_id", id.into()),
        ("destination_type", to.into()),
        ("source_id", id.into()),
        ("source_type", from.into()),
    ];
    if let Some(step) = step {
        fields.push(("step", step.into()));
    }
    fields.push(("tags", Value::Map(tags)));
    description(&fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_so_that_they_read_as_themselves() {
        for value in [0.1, 1e-320, f64::MAX, f64::MIN, -0.0, 1e300, 3.0] {
            let text = line(&Point { key: "m".to_owned(), value, at: 7, step: -1 });
            let parts: Vec<&str> = text.split(' ').collect();
            assert_eq!(parts[1].parse::<f64>().unwrap().to_bits(), value.to_bits(), "{text}");
            assert_eq!((parts[0], parts[2]), ("7", "-1"));
        }
        assert_eq!(line(&Point { key: "m".to_owned(), value: f64::NAN, at: 7, step: 0 }), "7 nan 0");
    }
}
