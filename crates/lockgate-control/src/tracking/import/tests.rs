//! Records over a real store: once, and over nothing.

use crate::tracking::exchange::*;
use crate::tracking::tests::{Bench, bench};
use crate::tracking::{NewExperiment, NewRegisteredModel};
use std::collections::{BTreeMap, BTreeSet};

const RUN: &str = "0123456789abcdef0123456789abcdef";

fn pairs(list: &[(&str, &str)]) -> Pairs {
    list.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn experiment(id: i64, name: &str) -> ExperimentRecord {
    ExperimentRecord {
        id,
        new_id_from: 10,
        name: name.to_owned(),
        artifact_location: None,
        lifecycle: "active".to_owned(),
        created: 5,
        updated: 6,
        tags: pairs(&[("a", "ü")]),
    }
}

fn run(experiment_id: i64) -> RunRecord {
    RunRecord {
        run_id: RUN.to_owned(),
        experiment_id,
        name: "calm".to_owned(),
        user_id: "ana".to_owned(),
        status: "FAILED".to_owned(),
        start_time: 7,
        end_time: Some(8),
        lifecycle: "deleted".to_owned(),
        artifact_uri: None,
        params: pairs(&[("depth", "3")]),
        tags: pairs(&[("mlflow.runName", "calm")]),
        latest: points_of(&[(1.0, 2)]),
        datasets: vec![],
        model_inputs: BTreeSet::new(),
        model_outputs: BTreeMap::from([(format!("m-{RUN}"), 4)]),
    }
}

fn points_of(list: &[(f64, i64)]) -> Vec<Point> {
    list.iter()
        .map(|(value, step)| Point { key: "loss".to_owned(), value: *value, at: 9, step: *step })
        .collect()
}

fn history(list: &[(f64, i64)]) -> Record {
    Record::Points(PointsRecord { run_id: RUN.to_owned(), points: points_of(list) })
}

fn version(number: i64) -> VersionRecord {
    VersionRecord {
        name: "reg".to_owned(),
        version: number,
        description: None,
        user_id: String::new(),
        created: 11,
        updated: 12,
        source: "/elsewhere/1/artifacts/model".to_owned(),
        place: Some(OwnedPath { owner: RUN.to_owned(), path: "model".to_owned() }),
        stored: None,
        run_id: RUN.to_owned(),
        run_link: None,
        model_id: String::new(),
        current_stage: "None".to_owned(),
        tags: Pairs::new(),
    }
}

fn registered() -> Record {
    Record::RegisteredModel(RegisteredModelRecord {
        name: "reg".to_owned(),
        description: Some("d".to_owned()),
        created: 1,
        updated: 2,
        next_version: 7,
        tags: Pairs::new(),
    })
}

fn alias(version: i64) -> Record {
    Record::Alias(AliasRecord { name: "reg".to_owned(), alias: "champion".to_owned(), version })
}

impl Bench {
    async fn take(&self, records: Vec<Record>) -> Vec<Outcome> {
        self.tracking.import(&self.actor, records, false).await.unwrap()
    }

    async fn one(&self, record: Record) -> Outcome {
        self.take(vec![record]).await.remove(0)
    }
}

#[tokio::test]
async fn what_is_brought_twice_is_there_once() {
    let bench = bench().await;
    let all = || {
        vec![
            Record::Experiment(experiment(4, "brought")),
            Record::Run(Box::new(run(4))),
            history(&[(1.0, 2), (f64::NAN, 1), (f64::INFINITY, 0)]),
            registered(),
            Record::Version(Box::new(version(3))),
            alias(3),
        ]
    };
    let tried = bench.tracking.import(&bench.actor, all(), true).await.unwrap();
    let first = bench.take(all()).await;
    assert_eq!(tried, first);
    assert!(first.iter().all(|outcome| outcome.fate == Fate::New), "{first:?}");
    assert_eq!((first[0].id, first[2].count), (Some(4), Some(3)));
    let second = bench.take(all()).await;
    assert!(second.iter().all(|outcome| outcome.fate == Fate::Same), "{second:?}");
    let found = bench.tracking.run(&bench.actor, RUN).await.unwrap();
    assert_eq!((found.start_time, found.created_by.as_str()), (7, "u_ana"));
    assert_eq!((found.metrics[0].value, found.metrics[0].step), (1.0, 2));
    // A version's number is kept, and so are the numbers that were used before.
    let made = bench.tracking.import(&bench.actor, vec![Record::Version(Box::new(version(9)))], false);
    assert_eq!(made.await.unwrap()[0].fate, Fate::New);
    let new = crate::tracking::NewModelVersion {
        name: "reg".to_owned(),
        source: format!("runs:/{RUN}/model"),
        run_id: RUN.to_owned(),
        ..Default::default()
    };
    assert_eq!(bench.tracking.create_model_version(&bench.actor, new).await.unwrap().version, 10);
}

#[tokio::test]
async fn digests_say_what_differs() {
    let bench = bench().await;
    bench.take(vec![Record::Experiment(experiment(4, "brought")), Record::Run(Box::new(run(4)))]).await;
    bench.one(history(&[(f64::NAN, 1), (1.0, 2)])).await;
    let known =
        bench.tracking.known_runs(&bench.actor, vec![RUN.to_owned(), "none".to_owned()]).await.unwrap();
    assert_eq!(known[1].digests, None);
    let ours = known[0].digests.clone().unwrap();
    let brought = |points: &[(f64, i64)]| {
        let mut all = History::default();
        all.add(&points_of(points));
        RunDigests::of(&run(4), all)
    };
    assert!(brought(&[(1.0, 2), (f64::NAN, 1)]).differences(&ours).is_empty());
    assert_eq!(brought(&[(1.0, 2)]).differences(&ours), ["metric history"]);
    let mut other = run(4);
    other.params.insert("depth".to_owned(), "4".to_owned());
    assert_eq!(
        bench.one(Record::Run(Box::new(other))).await.why.unwrap(),
        "a run of this id is there already with another params"
    );
}

#[tokio::test]
async fn nothing_is_written_over() {
    let bench = bench().await;
    let new = NewExperiment { name: "mine".to_owned(), ..NewExperiment::default() };
    let mine = bench.tracking.create_experiment(&bench.actor, new).await.unwrap();
    // The name is another's: it is not touched.
    let outcome = bench.one(Record::Experiment(experiment(8, "mine"))).await;
    assert_eq!((outcome.fate, outcome.id), (Fate::Conflict, None));
    // The number is another's: a new one is given, the same one when it is brought again.
    for fate in [Fate::New, Fate::Same] {
        let outcome = bench.one(Record::Experiment(experiment(mine, "theirs"))).await;
        assert_eq!((outcome.fate, outcome.id), (fate, Some(10)));
    }
    let new = NewRegisteredModel { name: "reg".to_owned(), ..NewRegisteredModel::default() };
    bench.tracking.create_registered_model(&bench.actor, new).await.unwrap();
    assert_eq!(bench.one(registered()).await.fate, Fate::Conflict);
    bench.take(vec![Record::Experiment(experiment(4, "brought")), Record::Run(Box::new(run(4)))]).await;
    bench
        .take(vec![Record::Version(Box::new(version(1))), Record::Version(Box::new(version(2))), alias(1)])
        .await;
    let outcome = bench.one(alias(2)).await;
    assert!(outcome.why.unwrap().contains("version 1"));
}

#[tokio::test]
async fn the_default_experiment_is_taken_over_while_nobody_has_touched_it() {
    let bench = bench().await;
    let default = || Record::Experiment(experiment(0, "Default"));
    assert_eq!(bench.one(default()).await.fate, Fate::New);
    assert_eq!(bench.one(default()).await.fate, Fate::Same);
    let mut other = experiment(0, "Default");
    other.tags = Pairs::new();
    let outcome = bench.one(Record::Experiment(other)).await;
    assert_eq!((outcome.fate, outcome.id), (Fate::Conflict, Some(0)));
}

#[tokio::test]
async fn what_cant_be_kept_is_refused_whole() {
    let bench = bench().await;
    let mut nul = experiment(4, "nul");
    nul.tags = pairs(&[("a", "b\0c")]);
    assert!(bench.one(Record::Experiment(nul)).await.why.unwrap().contains("NUL"));
    let mut text = experiment(4, "text");
    text.tags = pairs(&[("a", "\\u0000")]);
    assert_eq!(bench.one(Record::Experiment(text)).await.fate, Fate::New);
    let mut odd = run(4);
    odd.run_id = "short".to_owned();
    assert_eq!(bench.one(Record::Run(Box::new(odd))).await.fate, Fate::Conflict);
    assert_eq!(bench.one(Record::Run(Box::new(run(77)))).await.fate, Fate::Conflict);
    for model in ["../../../x", "..", "a/b"] {
        let mut made = run(4);
        made.model_outputs.insert(model.to_owned(), 1);
        let mut used = run(4);
        used.model_inputs.insert(model.to_owned());
        for one in [made, used] {
            let why = bench.one(Record::Run(Box::new(one))).await.why.unwrap();
            assert!(why.contains("Invalid logged model ID"), "{why}");
        }
    }
    assert_eq!(bench.one(history(&[(1.0, 1)])).await.fate, Fate::Conflict);
}

#[tokio::test]
async fn a_version_whose_files_come_later_gets_its_list_then() {
    let bench = bench().await;
    let mut kept = run(4);
    kept.lifecycle = "active".to_owned();
    bench.take(vec![Record::Experiment(experiment(4, "brought")), Record::Run(Box::new(kept))]).await;
    bench.one(registered()).await;
    for fate in [Fate::New, Fate::Same] {
        let outcome = bench.one(Record::Version(Box::new(version(1)))).await;
        assert_eq!((outcome.fate, outcome.count), (fate, Some(0)));
        assert!(outcome.lacks.unwrap().contains("no files are here"));
    }
    let uri = bench.tracking.run(&bench.actor, RUN).await.unwrap().artifact_uri;
    let put = async |bytes: &'static [u8]| {
        let path = bench.tracking.artifact_path(&uri, "model/MLmodel").unwrap();
        bench.tracking.put_artifact(&bench.actor, &path, lockgate_blob::blocks(bytes)).await.unwrap();
    };
    put(b"first").await;
    let outcome = bench.one(Record::Version(Box::new(version(1)))).await;
    assert_eq!((outcome.fate, outcome.count, outcome.lacks), (Fate::Same, Some(1), None));
    // From now on it is what was imported, whatever becomes of the run's folder.
    put(b"other bytes").await;
    let found = bench.tracking.model_version(&bench.actor, "reg", "1").await.unwrap();
    let files = bench.tracking.known_files(&bench.actor, &found.storage_location).await.unwrap();
    assert_eq!((files.len(), files[0].size), (1, 5));
}

#[tokio::test]
async fn a_version_whose_files_are_nowhere_here_lacks_them_and_one_elsewhere_does_not() {
    let bench = bench().await;
    bench.one(registered()).await;
    let of = |number, source: &str| {
        let (source, place, run_id) = (source.to_owned(), None, String::new());
        Record::Version(Box::new(VersionRecord { source, place, run_id, ..version(number) }))
    };
    assert!(bench.one(of(1, "/gone/model")).await.lacks.unwrap().contains("its files are not here"));
    assert_eq!(bench.one(of(2, "s3://bucket/model")).await.lacks, None);
    let mut prompt = version(3);
    prompt.tags = pairs(&[("mlflow.prompt.is_prompt", "true")]);
    (prompt.place, prompt.source) = (None, "prompt-template".to_owned());
    assert_eq!(bench.one(Record::Version(Box::new(prompt))).await.lacks, None);
}

#[tokio::test]
async fn a_run_that_went_on_is_brought_forward_and_one_that_was_changed_here_is_not() {
    let bench = bench().await;
    let going =
        RunRecord { status: "RUNNING".to_owned(), end_time: None, lifecycle: "active".to_owned(), ..run(4) };
    bench
        .take(vec![Record::Experiment(experiment(4, "brought")), Record::Run(Box::new(going.clone()))])
        .await;
    let mut later = going.clone();
    (later.status, later.end_time) = ("FINISHED".to_owned(), Some(99));
    later.params.insert("late".to_owned(), "1".to_owned());
    later.tags.insert("note".to_owned(), "done".to_owned());
    let mut other = later.clone();
    other.params.insert("depth".to_owned(), "4".to_owned());
    assert_eq!(bench.one(Record::Run(Box::new(other))).await.fate, Fate::Conflict);
    for fate in [Fate::New, Fate::Same] {
        assert_eq!(bench.one(Record::Run(Box::new(later.clone()))).await.fate, fate);
    }
    let found = bench.tracking.run(&bench.actor, RUN).await.unwrap();
    assert_eq!((found.status.as_str(), found.end_time), ("FINISHED", Some(99)));
    assert_eq!((found.params.len(), found.tags.len()), (2, 2));
    // What has ended here is not begun again.
    assert_eq!(bench.one(Record::Run(Box::new(going))).await.fate, Fate::Conflict);
}
