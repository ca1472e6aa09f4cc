//! Runs with their metrics, a page at a time.

use super::Mover;
use crate::commands::import::report::{Counts, Kind};
use crate::commands::import::sources::Cursor;
use lockgate_control::tracking::exchange::{
    Fate, History, Point, PointsRecord, Record, RunDigests, RunRecord, run_record,
};
use lockgate_control::tracking::{Experiment, Run};

/// How many points, or things of about that weight, go into one request.
const BATCH: usize = 5000;

/// One run of a page on its way.
struct Moving {
    run: Run,
    record: RunRecord,
    /// What it is at the source.
    ours: RunDigests,
    conflict: Option<String>,
}

/// Records that wait to be sent, each with the place of its run or trace in the page; and what the server said no to.
#[derive(Default)]
pub(super) struct Sending {
    records: Vec<Record>,
    owners: Vec<usize>,
    pub(super) weight: usize,
    pub(super) conflicts: Vec<(usize, String)>,
}

impl Sending {
    pub(super) fn push(&mut self, owner: usize, record: Record, weight: usize) {
        self.records.push(record);
        self.owners.push(owner);
        self.weight += weight;
    }
}

/// How much a run weighs in a request, in points of about a hundred bytes. Descriptions of datasets may be large.
fn weight(run: &RunRecord) -> usize {
    let texts = run.params.values().chain(run.tags.values()).map(String::len);
    let datasets = run.datasets.iter().flat_map(|one| [&one.schema, &one.profile]).flatten().map(String::len);
    10 + texts.chain(datasets).sum::<usize>() / 100
}

impl Mover {
    pub(super) async fn runs(&mut self, of: &Experiment, number: i64) -> anyhow::Result<()> {
        let mut at = Cursor::default();
        loop {
            let page = self.source.runs(of, &mut at).await?;
            if page.is_empty() {
                return Ok(());
            }
            self.page(of, number, page).await?;
            self.progress(&format!("experiment `{}`", of.name));
        }
    }

    async fn page(&mut self, of: &Experiment, number: i64, page: Vec<Run>) -> anyhow::Result<()> {
        let ids: Vec<&str> = page.iter().map(|run| run.run_id.as_str()).collect();
        let known = self.target.runs(&ids).await?;
        let (mut moving, mut sending) = (Vec::new(), Sending::default());
        for run in page {
            let there = known.get(&run.run_id);
            let one = self.one(run, number, there, moving.len(), &mut sending).await?;
            moving.push(one);
        }
        self.send(&mut sending).await?;
        if self.dry {
            let places: Vec<usize> =
                (0..moving.len()).filter(|i| !known.contains_key(&moving[*i].run.run_id)).collect();
            let records = places.iter().map(|i| Record::Run(Box::new(moving[*i].record.clone()))).collect();
            for (place, outcome) in places.iter().zip(self.tried(of, records).await?) {
                if outcome.fate == Fate::Conflict {
                    sending.conflicts.push((*place, outcome.why.unwrap_or_default()));
                }
            }
        }
        for (place, why) in sending.conflicts {
            let one: &mut Moving = &mut moving[place];
            if one.conflict.is_none() {
                one.conflict = Some(why);
                self.report.of(Kind::Runs).new -= 1;
                self.parts(one, |counts| &mut counts.new, u64::wrapping_sub);
            }
        }
        if !self.dry {
            self.compare(&moving).await?;
        }
        for one in moving {
            self.files(one, number).await?;
        }
        Ok(())
    }

    /// Brings one run, as far as it is not there: what is new is put among what is sent.
    async fn one(
        &mut self,
        run: Run,
        number: i64,
        there: Option<&RunDigests>,
        place: usize,
        sending: &mut Sending,
    ) -> anyhow::Result<Moving> {
        let artifact_uri = self.stays_at(&run.artifact_uri);
        let record = RunRecord { experiment_id: number, artifact_uri, ..run_record(&run) };
        let sent = there.is_none() && !self.dry;
        if sent {
            let weight = weight(&record);
            sending.push(place, Record::Run(Box::new(record.clone())), weight);
        }
        let ours = self.history(&run, &record, sent.then_some((&mut *sending, place))).await?;
        let mut one = Moving { run, record, ours, conflict: None };
        self.report.of(Kind::Runs).found += 1;
        self.parts(&one, |counts| &mut counts.found, u64::wrapping_add);
        if there.is_some_and(|there| there.differences(&one.ours).is_empty()) {
            self.report.of(Kind::Runs).same += 1;
            self.parts(&one, |counts| &mut counts.same, u64::wrapping_add);
            return Ok(one);
        }
        if there.is_some() {
            one.conflict = self.complete(&one).await?;
        }
        if one.conflict.is_none() {
            self.report.of(Kind::Runs).new += 1;
            self.parts(&one, |counts| &mut counts.new, u64::wrapping_add);
        }
        Ok(one)
    }

    async fn files(&mut self, one: Moving, number: i64) -> anyhow::Result<()> {
        if let Some(why) = one.conflict {
            self.report.skip(Kind::Runs, one.run.run_id.clone(), why);
            self.incomplete.insert(one.run.run_id);
            return Ok(());
        }
        let to = super::artifacts::Place::of_run(number, &one.run.run_id);
        self.artifacts(&one.run.artifact_uri, one.record.artifact_uri.is_some(), &to).await.map(|_| ())
    }

    /// Reads a run's history to the end; puts it among what is sent, where the run is new.
    async fn history(
        &mut self,
        run: &Run,
        record: &RunRecord,
        mut to: Option<(&mut Sending, usize)>,
    ) -> anyhow::Result<RunDigests> {
        let (mut history, mut at) = (History::default(), Cursor::default());
        loop {
            if let Some((sending, _)) = &mut to
                && sending.weight >= BATCH
            {
                self.send(sending).await?;
            }
            let points = self.source.points(run, &mut at).await?;
            if points.is_empty() {
                return Ok(RunDigests::of(record, history));
            }
            history.add(&points);
            if let Some((sending, place)) = &mut to {
                sending.push(*place, of_points(&run.run_id, &points), points.len());
            }
        }
    }

    pub(super) async fn send(&mut self, sending: &mut Sending) -> anyhow::Result<()> {
        let (records, owners) = (std::mem::take(&mut sending.records), std::mem::take(&mut sending.owners));
        sending.weight = 0;
        let outcomes = self.target.take(&records, false).await?;
        for (owner, outcome) in owners.into_iter().zip(outcomes) {
            if outcome.fate == Fate::Conflict {
                sending.conflicts.push((owner, outcome.why.unwrap_or_default()));
            }
        }
        Ok(())
    }

    /// A run that is there but not the same: its points are added where only those are missing, as after a move that was
    /// broken off. Otherwise says why it is left alone.
    async fn complete(&mut self, one: &Moving) -> anyhow::Result<Option<String>> {
        let outcome = self.target.take(&[Record::Run(Box::new(one.record.clone()))], true).await?.remove(0);
        if outcome.fate == Fate::Conflict {
            return Ok(Some(outcome.why.unwrap_or_default()));
        }
        // It went on at the source since it was taken.
        if outcome.fate == Fate::New && !self.dry {
            let outcome =
                self.target.take(&[Record::Run(Box::new(one.record.clone()))], false).await?.remove(0);
            if outcome.fate == Fate::Conflict {
                return Ok(Some(outcome.why.unwrap_or_default()));
            }
        }
        let mut at = Cursor::default();
        while !self.dry {
            let points = self.source.points(&one.run, &mut at).await?;
            if points.is_empty() {
                break;
            }
            let outcome = self.target.take(&[of_points(&one.run.run_id, &points)], false).await?.remove(0);
            if outcome.fate == Fate::Conflict {
                return Ok(Some(outcome.why.unwrap_or_default()));
            }
        }
        Ok(None)
    }

    /// Reads the page's runs back and compares them.
    async fn compare(&mut self, moving: &[Moving]) -> anyhow::Result<()> {
        let taken: Vec<&Moving> = moving.iter().filter(|one| one.conflict.is_none()).collect();
        let ids: Vec<&str> = taken.iter().map(|one| one.run.run_id.as_str()).collect();
        let known = self.target.runs(&ids).await?;
        for one in taken {
            let id = &one.run.run_id;
            let theirs = known.get(id);
            self.report.runs.source.add(id, Some(&one.ours.whole()));
            self.report.runs.target.add(id, theirs.map(RunDigests::whole).as_ref());
            match theirs.map(|theirs| one.ours.differences(theirs)) {
                Some(differences) if differences.is_empty() => {
                    self.report.of(Kind::Runs).compared += 1;
                    self.parts(one, |counts| &mut counts.compared, u64::wrapping_add);
                }
                Some(differences) => {
                    let why = format!("its {} differ", differences.join(", "));
                    self.report.differ(Kind::Runs, id.clone(), why);
                }
                None => self.report.differ(Kind::Runs, id.clone(), "it is not there"),
            }
        }
        Ok(())
    }

    /// Counts what a run consists of.
    fn parts(
        &mut self,
        one: &Moving,
        of: impl Fn(&mut Counts) -> &mut u64,
        change: impl Fn(u64, u64) -> u64,
    ) {
        let parts = [
            (Kind::Params, one.record.params.len() as u64),
            (Kind::Tags, one.record.tags.len() as u64),
            (Kind::MetricPoints, one.ours.points),
            (Kind::DatasetInputs, one.record.datasets.len() as u64),
        ];
        for (kind, count) in parts {
            let counted = of(self.report.of(kind));
            *counted = change(*counted, count);
        }
    }
}

fn of_points(run: &str, points: &[Point]) -> Record {
    Record::Points(PointsRecord { run_id: run.to_owned(), points: points.to_vec() })
}
