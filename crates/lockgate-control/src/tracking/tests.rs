//! The use cases over a real store and real blobs.

use super::*;
use lockgate_blob::blocks;
use lockgate_core::actor::{ActorKind, Via};
use lockgate_core::clock::Millis;
use lockgate_core::id::{EnvironmentName, PrincipalId};
use lockgate_store::StoreOptions;
use std::sync::atomic::{AtomicU64, Ordering};

const NOON: Millis = 1_795_521_600_000;

struct Noon;

impl Clock for Noon {
    fn now_ms(&self) -> Millis {
        NOON
    }
}

/// Counts, so that ids differ and tests repeat.
#[derive(Default)]
struct Counter(AtomicU64);

impl Entropy for Counter {
    fn fill(&self, buf: &mut [u8]) {
        let next = self.0.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        buf.fill(0);
        let length = buf.len().min(next.len());
        buf[..length].copy_from_slice(&next[next.len() - length..]);
    }
}

pub(super) struct Bench {
    pub(super) tracking: Tracking,
    pub(super) actor: Actor,
    _folder: tempfile::TempDir,
}

pub(super) async fn bench() -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("lockgate.db");
    let store = Store::open(database.to_str().unwrap(), StoreOptions::new(Arc::new(Noon))).await.unwrap();
    let blobs = BlobStore::open(folder.path().join("blobs")).await.unwrap();
    let tracking = Tracking::new(store, blobs, Arc::new(Noon), Arc::new(Counter::default()));
    let id = PrincipalId::new("u_ana").unwrap();
    let actor = Actor { kind: ActorKind::User, id, via: Via::Token, sealed: None };
    Bench { tracking, actor, _folder: folder }
}

fn pair(key: &str, value: &str) -> KeyValue {
    KeyValue { key: key.to_owned(), value: value.to_owned() }
}

fn point(key: &str, value: f64) -> Metric {
    Metric {
        key: key.to_owned(),
        value,
        logged_at: NOON,
        step: 0,
        dataset: None,
        model_id: None,
        run_id: None,
    }
}

impl Bench {
    async fn run(&self) -> Run {
        let new = NewRun { experiment_id: "0".to_owned(), user_id: "ana".to_owned(), ..NewRun::default() };
        self.tracking.create_run(&self.actor, new).await.unwrap()
    }

    async fn put(&self, uri: &str, path: &str, bytes: &[u8]) -> Result<(), TrackingError> {
        let path = self.tracking.artifact_path(uri, path).unwrap();
        self.tracking.put_artifact(&self.actor, &path, blocks(bytes)).await
    }

    /// A logged model of a run with two files.
    async fn model(&self, run: &Run) -> LoggedModel {
        let new = NewLoggedModel {
            experiment_id: "0".to_owned(),
            name: Some("model".to_owned()),
            source_run_id: run.run_id.clone(),
            params: vec![pair("depth", "3")],
            ..NewLoggedModel::default()
        };
        let model = self.tracking.create_logged_model(&self.actor, new).await.unwrap();
        self.put(&model.artifact_uri, "MLmodel", b"flavors: {}").await.unwrap();
        self.put(&model.artifact_uri, "data/model.onnx", b"graph").await.unwrap();
        self.tracking.finalize_logged_model(&self.actor, &model.model_id, ModelStatus::Ready).await.unwrap()
    }

    /// Registers a version of what has an id in its source.
    async fn register(&self, name: &str, source: &str) -> Result<ModelVersion, TrackingError> {
        let parts: Vec<&str> = source.split('/').collect();
        let id = |fits: fn(&str) -> bool| parts.iter().find(|part| fits(part)).map(|part| (*part).to_owned());
        let (model_id, run_id) = (id(places::is_model_id), id(places::is_run_id));
        let model = NewRegisteredModel { name: name.to_owned(), ..NewRegisteredModel::default() };
        match self.tracking.create_registered_model(&self.actor, model).await {
            Ok(_) | Err(TrackingError::Exists(_)) => {}
            Err(error) => return Err(error),
        }
        let new = NewModelVersion {
            name: name.to_owned(),
            source: source.to_owned(),
            run_id: run_id.unwrap_or_default(),
            model_id: model_id.unwrap_or_default(),
            ..NewModelVersion::default()
        };
        self.tracking.create_model_version(&self.actor, new).await
    }
}

#[tokio::test]
async fn a_version_resolves_by_number_alias_and_latest_from_every_source() {
    let bench = bench().await;
    let run = bench.run().await;
    let batch = Batch { params: vec![pair("rate", "0.1")], ..Batch::default() };
    bench.tracking.log_batch(&bench.actor, &run.run_id, batch).await.unwrap();
    let model = bench.model(&run).await;
    let sources = [
        format!("models:/{}", model.model_id),
        format!("runs:/{}/model", run.run_id),
        model.artifact_uri.clone(),
        "models:/m/1".to_owned(),
        "models:/m@prod".to_owned(),
        format!("http://host/api/2.0/mlflow-artifacts/artifacts/0/models/{}/artifacts", model.model_id),
    ];
    for (i, source) in (1..).zip(&sources) {
        let version = bench.register("m", source).await.unwrap();
        assert_eq!((version.version, version.run_id.as_str()), (i, run.run_id.as_str()), "{source}");
        assert_eq!(version.model_id, model.model_id, "{source}");
        bench.tracking.set_alias(&bench.actor, "m", "prod", &i.to_string()).await.unwrap();
        for wanted in [i.to_string().as_str(), "prod", "latest"] {
            let info = bench.tracking.resolve_model("m", wanted).await.unwrap();
            let paths: Vec<&str> = info.files.iter().map(|(path, _, _)| path.as_str()).collect();
            assert_eq!(paths, ["MLmodel", "data/model.onnx"], "{source} {wanted}");
            assert_eq!((info.version, info.user.as_deref()), (i as u64, Some("ana")));
            assert_eq!(info.params.len(), 2);
        }
    }
    let moves = bench.tracking.alias_history(&bench.actor, "m").await.unwrap();
    assert_eq!(moves.len(), sources.len());
    assert!(moves.iter().all(|one| one.actor == "u_ana"));
}

#[tokio::test]
async fn what_can_not_be_resolved_says_what_to_do() {
    let bench = bench().await;
    let error = bench.tracking.resolve_model("nothing", "1").await.unwrap_err();
    assert!(error.to_string().contains("nothing") && error.hint().is_some(), "{error}");
    bench.register("m", "s3://bucket/model").await.unwrap();
    let error = bench.tracking.resolve_model("m", "1").await.unwrap_err().to_string();
    assert!(error.contains("s3://bucket/model"), "{error}");
    let error = bench.tracking.resolve_model("m", "prod").await.unwrap_err();
    assert!(matches!(error, crate::ControlError::NotFound { .. }), "{error}");
}

#[tokio::test]
async fn a_version_is_read_at_its_run_as_long_as_that_has_the_same_files() {
    let bench = bench().await;
    let run = bench.run().await;
    let source = format!("runs:/{}/model", run.run_id);
    bench.put(&format!("{}/model", run.artifact_uri), "MLmodel", b"one").await.unwrap();
    bench.register("m", &source).await.unwrap();
    bench.register("copy", "models:/m/1").await.unwrap();
    let at = async |name| bench.tracking.model_version_location(&bench.actor, name, "1").await.unwrap();
    assert_eq!((at("m").await, at("copy").await), (source.clone(), source));
    bench.put(&format!("{}/model", run.artifact_uri), "MLmodel", b"two").await.unwrap();
    for name in ["m", "copy"] {
        assert!(at(name).await.starts_with("mlflow-artifacts:/versions/"), "{name}");
    }
}

#[tokio::test]
async fn a_version_of_a_run_that_is_not_here_has_no_files_and_can_not_be_released() {
    let bench = bench().await;
    let model = NewRegisteredModel { name: "m".to_owned(), ..NewRegisteredModel::default() };
    bench.tracking.create_registered_model(&bench.actor, model).await.unwrap();
    let new = NewModelVersion {
        name: "m".to_owned(),
        source: "runs:/run_id/model".to_owned(),
        run_id: "run_id".to_owned(),
        ..NewModelVersion::default()
    };
    bench.tracking.create_model_version(&bench.actor, new).await.unwrap();
    let at = bench.tracking.model_version_location(&bench.actor, "m", "1").await.unwrap();
    assert_eq!(at, "runs:/run_id/model");
    let error = bench.tracking.resolve_model("m", "1").await.unwrap_err().to_string();
    assert!(error.contains("no files here"), "{error}");
}

#[tokio::test]
async fn a_logged_model_names_its_versions_as_mlflow_does() {
    let bench = bench().await;
    let model = bench.model(&bench.run().await).await;
    for name in ["m", "mödel", "m"] {
        bench.register(name, &format!("models:/{}", model.model_id)).await.unwrap();
    }
    let found = bench.tracking.logged_model(&bench.actor, &model.model_id).await.unwrap();
    let tag = found.tags.iter().find(|tag| tag.key == "mlflow.modelVersions").unwrap();
    let expected =
        r#"[{"name": "m", "version": 1}, {"name": "m\u00f6del", "version": 1}, {"name": "m", "version": 2}]"#;
    assert_eq!(tag.value, expected);
}

#[tokio::test]
async fn a_registered_version_keeps_its_files_whatever_happens_to_their_source() {
    let bench = bench().await;
    let run = bench.run().await;
    let model = bench.model(&run).await;
    let version = bench.register("m", &format!("models:/{}", model.model_id)).await.unwrap();
    let before = bench.tracking.resolve_model("m", "1").await.unwrap();
    bench.put(&model.artifact_uri, "MLmodel", b"changed").await.unwrap();
    assert_eq!(bench.tracking.resolve_model("m", "1").await.unwrap(), before);
    bench.tracking.delete_logged_model(&bench.actor, &model.model_id).await.unwrap();
    assert_eq!(bench.tracking.resolve_model("m", "1").await.unwrap().files, before.files);
    let refused = bench.put(&version.storage_location, "MLmodel", b"forged").await.unwrap_err();
    assert!(matches!(refused, TrackingError::Invalid(_)), "{refused}");
    let path = bench.tracking.artifact_path(&version.storage_location, "").unwrap();
    assert!(bench.tracking.delete_artifact(&bench.actor, &path).await.is_err());
}

#[tokio::test]
async fn a_batch_with_a_changed_param_logs_nothing() {
    let bench = bench().await;
    let run = bench.run().await.run_id;
    let log = async |batch| bench.tracking.log_batch(&bench.actor, &run, batch).await;
    log(Batch { params: vec![pair("p", "1")], ..Batch::default() }).await.unwrap();
    let bad = Batch {
        metrics: vec![point("m", 1.0)],
        params: vec![pair("p", "2")],
        tags: vec![pair("t", "1")],
        ..Batch::default()
    };
    let error = log(bad).await.unwrap_err().to_string();
    assert!(
        error.contains("Params were already logged='[{'key': 'p', 'old_value': '1', 'new_value': '2'}]'"),
        "{error}"
    );
    let alone = Batch { params: vec![pair("p", "2")], alone: true, ..Batch::default() };
    let error = log(alone).await.unwrap_err().to_string();
    assert!(error.contains("Changing param values is not allowed. Param with key='p'"), "{error}");
    let twice = Batch { params: vec![pair("q", "1"), pair("q", "1")], ..Batch::default() };
    assert!(log(twice).await.unwrap_err().to_string().contains("Duplicate parameter keys"));
    let found = bench.tracking.run(&bench.actor, &run).await.unwrap();
    assert_eq!((found.metrics.len(), found.params.len(), found.tags.len()), (0, 1, 1));
}

#[tokio::test]
async fn a_summary_shows_numbers_that_are_not_finite() {
    let bench = bench().await;
    let run = bench.run().await.run_id;
    let metrics = vec![point("nan", f64::NAN), point("auc", 0.5)];
    bench.tracking.log_batch(&bench.actor, &run, Batch { metrics, ..Batch::default() }).await.unwrap();
    let summary = bench.tracking.run_summary(&run).await.unwrap().unwrap();
    assert_eq!(summary.metrics["nan"], serde_json::json!("NaN"));
    assert_eq!(summary.metrics["auc"], serde_json::json!(0.5));
    assert_eq!(bench.tracking.run_summary("none").await.unwrap(), None);
}

#[tokio::test]
async fn a_name_and_its_tag_are_one() {
    let bench = bench().await;
    let new = NewRun {
        experiment_id: "0".to_owned(),
        name: Some("a".to_owned()),
        tags: vec![pair("mlflow.runName", "b")],
        ..NewRun::default()
    };
    assert!(bench.tracking.create_run(&bench.actor, new).await.is_err());
    let run = bench.run().await;
    assert_eq!(run.tags, [pair("mlflow.runName", &run.name)]);
    let batch = Batch { tags: vec![pair("mlflow.runName", "new")], ..Batch::default() };
    bench.tracking.log_batch(&bench.actor, &run.run_id, batch).await.unwrap();
    assert_eq!(bench.tracking.run(&bench.actor, &run.run_id).await.unwrap().name, "new");
}

#[tokio::test]
async fn bytes_that_break_off_leave_nothing_behind() {
    let bench = bench().await;
    let run = bench.run().await;
    let path = bench.tracking.artifact_path(&run.artifact_uri, "a.bin").unwrap();
    let broken = broken_off();
    let error = bench.tracking.put_artifact(&bench.actor, &path, broken).await.unwrap_err();
    assert!(matches!(error, TrackingError::Invalid(_)), "{error}");
    assert!(matches!(
        bench.tracking.open_artifact(&bench.actor, &path).await,
        Err(TrackingError::Missing(_))
    ));
}

/// Some bytes, then an error.
fn broken_off() -> impl futures_util::Stream<Item = std::io::Result<bytes::Bytes>> + Send {
    futures_util::stream::iter([Ok(bytes::Bytes::from("some")), Err(std::io::Error::other("gone"))])
}

#[tokio::test]
async fn an_agent_has_no_business_with_tracking() {
    let bench = bench().await;
    let run = bench.run().await;
    let agent = Actor::agent(&EnvironmentName::new("production").unwrap());
    assert!(matches!(bench.tracking.run(&agent, &run.run_id).await, Err(TrackingError::Refused(_))));
    let refused = bench.tracking.log_batch(&agent, &run.run_id, Batch::default()).await.unwrap_err();
    assert!(matches!(refused, TrackingError::Refused(_)), "{refused}");
    let path = bench.tracking.artifact_path(&run.artifact_uri, "a").unwrap();
    assert!(matches!(
        bench.tracking.put_artifact(&agent, &path, blocks(&b"x"[..])).await,
        Err(TrackingError::Refused(_))
    ));
}
