//! Reading what MLflow's file store writes.

use super::*;

#[test]
fn names_that_look_like_numbers_stay_names() {
    let text = "run_id: 12345678901234567890e12345678901\nrun_name: 1e3\nstatus: 3\nend_time: null\nuser_id: 'null'\n\
                name: \"a\\u00fc\\n b\"\ntags: []\nstart_time: 1.5e12\n";
    let run: meta::Run = meta::parse(text).unwrap();
    assert_eq!(run.run_id.as_deref(), Some("12345678901234567890e12345678901"));
    assert_eq!((run.run_name.as_deref(), run.status.as_deref()), (Some("1e3"), Some("3")));
    assert_eq!((run.end_time, run.user_id.as_deref()), (None, Some("null")));
    assert_eq!(run.name.as_deref(), Some("aü\n b"));
    assert_eq!(meta::number(run.start_time.as_ref()), Some(1_500_000_000_000));
}

#[test]
fn links_carry_tags_and_steps() {
    let text = "destination_id: m-1\ndestination_type: MODEL_OUTPUT\nsource_id: m-1\nsource_type: RUN_OUTPUT\nstep: 7\ntags: {}\n";
    let link: meta::Link = meta::parse(text).unwrap();
    assert_eq!((link.step.as_deref(), link.tags.len()), (Some("7"), 0));
    let link: meta::Link =
        meta::parse("source_type: DATASET\ntags:\n  mlflow.data.context: train\n").unwrap();
    assert_eq!(link.tags["mlflow.data.context"].as_deref(), Some("train"));
}

#[test]
fn lines_of_every_age_are_points() {
    let point = |line: &str| points::point("m", line).unwrap();
    assert_eq!((point("10 1.5").step, point("10 1.5 -3\n").step), (0, -3));
    assert!(point("10 nan 1").value.is_nan());
    assert_eq!(point("10 -inf 1").value, f64::NEG_INFINITY);
    assert_eq!(point("10 1e-05 4 iris abc").step, 4);
    for bad in ["", "10", "x 1 2", "10 x 2", "10 1 x"] {
        assert!(points::point("m", bad).is_err(), "{bad}");
    }
    let of = |line: &str| points::model_point("m", line).unwrap();
    assert_eq!(of("10 1.5 2 run my iris abc").dataset, Some(("my iris".to_owned(), "abc".to_owned())));
    assert_eq!((of("10 1.5 2 run").run_id, of("10 1.5 2 run").dataset), ("run".to_owned(), None));
}

#[test]
fn points_are_read_a_page_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("deep")).unwrap();
    let lines: String = (0..7000).map(|step| format!("{step} 0.5 {step}\n")).collect();
    std::fs::write(folder.path().join("deep/a"), &lines).unwrap();
    std::fs::write(folder.path().join("b"), "1 2 3").unwrap();
    let mut at = Cursor::default();
    let mut found = Vec::new();
    loop {
        let page = points::next(folder.path(), &mut at).unwrap();
        if page.is_empty() {
            break;
        }
        assert!(page.len() <= 5000);
        found.extend(page);
    }
    assert_eq!(found.len(), 7001);
    assert_eq!(found.iter().filter(|point| point.key == "deep/a").count(), 7000);
}

#[test]
fn other_folders_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    assert!(Files::open(folder.path(), None).unwrap_err().to_string().contains("no file store"));
    assert!(Files::open(&folder.path().join("none"), None).is_err());
}

/// A file store with one experiment and one run, whose description is this.
fn store(run: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("7/0123456789abcdef0123456789abcdef");
    for part in ["params", "tags", "metrics", "artifacts"] {
        std::fs::create_dir_all(home.join(part)).unwrap();
    }
    let experiment = "artifact_location: x\nexperiment_id: '7'\nlifecycle_stage: active\nname: seven\n";
    std::fs::write(folder.path().join("7/meta.yaml"), experiment).unwrap();
    std::fs::write(home.join("meta.yaml"), run).unwrap();
    folder
}

const WHOLE: &str =
    "artifact_uri: /x/artifacts\nrun_id: 0123456789abcdef0123456789abcdef\nrun_name: a\nstatus: 3\n";

async fn runs(store: &tempfile::TempDir) -> (usize, Vec<(String, u64)>) {
    let mut files = Files::open(store.path(), None).unwrap();
    let experiments = files.experiments().await.unwrap();
    let mut count = 0;
    for experiment in &experiments {
        let mut at = Cursor::default();
        loop {
            let page = files.runs(experiment, &mut at).await.unwrap();
            if page.is_empty() {
                break;
            }
            count += page.len();
        }
    }
    (count, files.others().await.unwrap())
}

#[tokio::test]
async fn descriptions_that_are_empty_or_broken_off_are_told() {
    assert_eq!(runs(&store(WHOLE)).await, (1, vec![]));
    for (end, field) in [(0, "run_id"), (27, "run_id"), (WHOLE.len() - 10, "status")] {
        let (count, others) = runs(&store(&WHOLE[..end])).await;
        assert_eq!((count, others.len()), (0, 1), "{end}");
        assert!(others[0].0.contains(&format!("has no {field}")), "{others:?}");
    }
    let bare = store(WHOLE);
    std::fs::remove_file(bare.path().join("7/0123456789abcdef0123456789abcdef/meta.yaml")).unwrap();
    let (count, others) = runs(&bare).await;
    assert!(count == 0 && others[0].0.contains("without a meta.yaml"), "{others:?}");
    let store = store(WHOLE);
    std::fs::write(store.path().join("7/meta.yaml"), "").unwrap();
    let (count, others) = runs(&store).await;
    assert!(count == 0 && others[0].0.contains("experiments that can't be read"), "{others:?}");
}

#[cfg(unix)]
#[tokio::test]
async fn what_is_no_plain_file_is_a_run_that_is_told() {
    let store = store(WHOLE);
    let run = store.path().join("7/0123456789abcdef0123456789abcdef");
    std::os::unix::fs::symlink("/etc/passwd", run.join("params/secret")).unwrap();
    let (count, others) = runs(&store).await;
    assert!(count == 0 && others[0].0.contains("out of the store"), "{others:?}");
}

#[test]
fn artifacts_outside_of_the_store_are_not_read() {
    let place = tempfile::tempdir().unwrap();
    let outside = place.path().join("1/0123456789abcdef0123456789abcdef/artifacts");
    std::fs::create_dir_all(&outside).unwrap();
    let store = store(WHOLE);
    let uri = format!("file://{}", outside.display());
    let files = |given: Option<&Path>| Files::open(store.path(), given).unwrap();
    assert_eq!(files(None).locate(&uri), Located::Outside(outside.clone()));
    assert_eq!(files(Some(place.path())).locate(&uri), Located::Folder(outside));
}
