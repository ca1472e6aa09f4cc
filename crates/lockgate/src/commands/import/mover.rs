//! The move itself: experiments, then runs, logged models and traces with their files, then the registry. What is there already is
//! recognised and not sent again, so that a move which was broken off goes on where it was.

mod artifacts;
mod models;
mod registry;
mod runs;
mod traces;

use super::report::{Kind, Level, Report};
use super::sources::{Located, Source};
use super::target::Target;
use crate::output::Out;
use lockgate_control::tracking::Experiment;
use lockgate_control::tracking::exchange::{ExperimentRecord, Fate, Outcome, Record};
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

/// How often a line of progress is written.
const PROGRESS: Duration = Duration::from_secs(2);

/// A move in progress.
pub(super) struct Mover {
    source: Box<dyn Source>,
    target: Target,
    report: Report,
    dry: bool,
    out: Out,
    /// The number that each experiment of the source has at the target.
    numbers: HashMap<i64, i64>,
    /// Experiments that would be made.
    unmade: HashSet<i64>,
    /// All experiments as they were handed over, by their number at the source.
    handed: Vec<(i64, Record)>,
    /// Runs and logged models whose files are not all at the target.
    incomplete: HashSet<String>,
    /// Folders that were told to be missing.
    missing: HashSet<String>,
    /// How many runs and models were looked for in the folder that was named, and how many have a folder there.
    given: (u64, u64),
    told: Instant,
}

impl Mover {
    pub(super) fn new(out: Out, source: Box<dyn Source>, target: Target, dry: bool) -> Self {
        let report = Report::new(out, &source.name(), target.name(), dry);
        Self {
            source,
            target,
            report,
            dry,
            out,
            numbers: HashMap::new(),
            unmade: HashSet::new(),
            handed: Vec::new(),
            incomplete: HashSet::new(),
            missing: HashSet::new(),
            given: (0, 0),
            told: Instant::now(),
        }
    }

    /// Moves everything; gives what is to be told.
    pub(super) async fn run(mut self) -> anyhow::Result<Report> {
        let experiments = self.experiments().await?;
        for experiment in &experiments {
            match self.numbers.get(&experiment.id).copied() {
                Some(number) => {
                    self.runs(experiment, number).await?;
                    self.logged_models(experiment, number).await?;
                    self.traces(experiment, number).await?;
                }
                None => self.skip_experiment(experiment).await?,
            }
        }
        self.tell_given();
        self.registry().await?;
        self.report.unseen = self.source.unseen();
        for (what, count) in self.source.others().await? {
            self.report.of(Kind::Others).found += count;
            self.report.of(Kind::Others).skipped += count;
            self.report.tell(
                Level::Skipped,
                Kind::Others,
                what,
                format!("{count} of them: an import doesn't take these"),
            );
        }
        Ok(self.report)
    }

    /// Says how far it is, now and then.
    fn progress(&mut self, what: &str) {
        if self.told.elapsed() < PROGRESS {
            return;
        }
        self.told = Instant::now();
        let runs = self.report.of(Kind::Runs).found;
        let points = self.report.of(Kind::MetricPoints).found;
        let (traces, files) = (self.report.of(Kind::Traces).found, self.report.of(Kind::Artifacts).found);
        self.out
            .aside(&format!("{what}: {runs} runs, {points} points, {traces} traces, {files} files so far"));
    }

    /// Where the target is to say that artifacts lie: nothing means with itself.
    fn stays_at(&self, uri: &str) -> Option<String> {
        (self.source.locate(uri) == Located::Elsewhere && !uri.is_empty()).then(|| uri.to_owned())
    }

    async fn experiments(&mut self) -> anyhow::Result<Vec<Experiment>> {
        let experiments = self.source.experiments().await?;
        let new_id_from = experiments.iter().map(|one| one.id).max().unwrap_or_default().saturating_add(1);
        let records: Vec<Record> = experiments
            .iter()
            .map(|one| {
                Record::Experiment(ExperimentRecord {
                    id: one.id,
                    new_id_from,
                    name: one.name.clone(),
                    artifact_location: self.stays_at(&one.artifact_location),
                    lifecycle: one.lifecycle.as_str().to_owned(),
                    created: one.created,
                    updated: one.updated,
                    tags: one.tags.iter().map(|tag| (tag.key.clone(), tag.value.clone())).collect(),
                })
            })
            .collect();
        let outcomes = self.target.take(&records, self.dry).await?;
        for (experiment, outcome) in experiments.iter().zip(&outcomes) {
            self.count(Kind::Experiments, &experiment.name, outcome);
            let Some(number) = outcome.id else { continue };
            self.numbers.insert(experiment.id, number);
            if self.dry && outcome.fate == Fate::New && number != 0 {
                self.unmade.insert(experiment.id);
            }
            if number != experiment.id {
                let why = format!("its id {} is taken: it has {number} there", experiment.id);
                self.report.tell(Level::Note, Kind::Experiments, experiment.name.clone(), why);
            }
        }
        self.read_back(Kind::Experiments, &records, &outcomes).await?;
        self.handed = experiments.iter().map(|one| one.id).zip(records).collect();
        Ok(experiments)
    }

    /// Asks what would become of an experiment's records; where the experiment is not there, together with it.
    async fn tried(&self, of: &Experiment, records: Vec<Record>) -> anyhow::Result<Vec<Outcome>> {
        if records.is_empty() || !self.unmade.contains(&of.id) {
            return self.target.take(&records, true).await;
        }
        // All those before it as well: they decide which number it gets.
        let end = self.handed.iter().position(|(id, _)| *id == of.id).map_or(0, |place| place + 1);
        let mut all: Vec<Record> = self.handed[..end].iter().map(|(_, record)| record.clone()).collect();
        all.extend(records);
        let mut outcomes = self.target.take(&all, true).await?;
        Ok(outcomes.split_off(end))
    }

    /// Counts what became of something.
    fn count(&mut self, kind: Kind, what: &str, outcome: &Outcome) {
        let why = outcome.why.clone().unwrap_or_default();
        let counts = self.report.of(kind);
        counts.found += 1;
        match outcome.fate {
            Fate::New => counts.new += 1,
            Fate::Same => counts.same += 1,
            Fate::Conflict => self.report.skip(kind, what, why),
        }
    }

    /// Asks for records again: what is there must be the same now.
    async fn read_back(&mut self, kind: Kind, records: &[Record], before: &[Outcome]) -> anyhow::Result<()> {
        if self.dry {
            return Ok(());
        }
        let after = self.target.take(records, true).await?;
        for ((record, before), after) in records.iter().zip(before).zip(after) {
            match (before.fate, after.fate) {
                (Fate::Conflict, _) => {}
                (_, Fate::Same) => self.report.of(kind).compared += 1,
                _ => {
                    let why = after.why.unwrap_or_else(|| "it is not there".to_owned());
                    self.report.differ(kind, name(record), why);
                }
            }
        }
        Ok(())
    }

    /// Counts what belongs to an experiment that could not be taken.
    async fn skip_experiment(&mut self, experiment: &Experiment) -> anyhow::Result<()> {
        let why = || format!("its experiment `{}` is not taken", experiment.name);
        let mut at = super::sources::Cursor::default();
        loop {
            let page = self.source.runs(experiment, &mut at).await?;
            if page.is_empty() {
                break;
            }
            for run in page {
                self.report.of(Kind::Runs).found += 1;
                self.report.skip(Kind::Runs, run.run_id.clone(), why());
                self.incomplete.insert(run.run_id);
            }
        }
        let mut at = super::sources::Cursor::default();
        loop {
            let page = self.source.logged_models(experiment, &mut at).await?;
            if page.is_empty() {
                return self.skip_traces(experiment).await;
            }
            for model in page {
                self.report.of(Kind::LoggedModels).found += 1;
                self.report.skip(Kind::LoggedModels, model.model_id.clone(), why());
                self.incomplete.insert(model.model_id);
            }
        }
    }
}

/// A record's name for people.
fn name(record: &Record) -> String {
    match record {
        Record::Experiment(one) => one.name.clone(),
        Record::Run(one) => one.run_id.clone(),
        Record::Points(one) => one.run_id.clone(),
        Record::LoggedModel(one) => one.model_id.clone(),
        Record::RegisteredModel(one) => one.name.clone(),
        Record::Version(one) => format!("{} {}", one.name, one.version),
        Record::Alias(one) => format!("{}@{}", one.name, one.alias),
        Record::Trace(one) => one.trace_id.clone(),
        Record::Spans(one) => one.trace_id.clone(),
        Record::TraceLink(one) => format!("{} to {} {}", one.trace_id, one.link, one.target),
    }
}
