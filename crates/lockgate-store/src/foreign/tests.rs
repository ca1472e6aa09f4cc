//! Reading databases of several ages.

use super::Foreign;
use crate::tracking::Lifecycle;

async fn database(folder: &tempfile::TempDir, sql: &'static str) -> String {
    let path = folder.path().join("mlflow.db").to_str().unwrap().to_owned();
    rusqlite::Connection::open(&path).unwrap().execute_batch(sql).unwrap();
    path
}

/// What the first releases of MLflow 1.x had.
const OLD: &str = "
    CREATE TABLE experiments (experiment_id INTEGER PRIMARY KEY, name VARCHAR(256), artifact_location VARCHAR(256),
        lifecycle_stage VARCHAR(32));
    CREATE TABLE runs (run_uuid VARCHAR(32) PRIMARY KEY, name VARCHAR(250), user_id VARCHAR(256), status VARCHAR(20),
        start_time BIGINT, end_time BIGINT, lifecycle_stage VARCHAR(20), artifact_uri VARCHAR(200), experiment_id INTEGER);
    CREATE TABLE metrics (key VARCHAR(250), value FLOAT, timestamp BIGINT, run_uuid VARCHAR(32), step BIGINT,
        is_nan BOOLEAN);
    CREATE TABLE tags (key VARCHAR(250), value VARCHAR(250), run_uuid VARCHAR(32));
    INSERT INTO experiments VALUES (3, 'old', '/tmp/3', 'deleted');
    INSERT INTO runs VALUES ('a', '', 'ana', 'FINISHED', 1, NULL, 'active', '/tmp/3/a/artifacts', 3);
    INSERT INTO runs VALUES ('b', 'named', NULL, 'FAILED', 2, 3, 'deleted', '/tmp/3/b/artifacts', 3);
    INSERT INTO tags VALUES ('mlflow.runName', 'by tag', 'a');
    INSERT INTO metrics VALUES ('m', 1.5, 10, 'a', 0, 0), ('m', 0, 11, 'a', 1, 1), ('n', 2, 12, 'a', 0, 0);
";

#[tokio::test]
async fn an_old_database_is_read_as_far_as_it_goes() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Foreign::open(&database(&folder, OLD).await).await.unwrap();
    let experiments = store.experiments().await.unwrap();
    assert_eq!((experiments[0].id, experiments[0].lifecycle), (3, Lifecycle::Deleted));
    let (first, place) = store.runs(3, 0, 1).await.unwrap();
    assert_eq!((first[0].run_id.as_str(), first[0].name.as_str()), ("a", "by tag"));
    let (second, place) = store.runs(3, place, 9).await.unwrap();
    assert_eq!((second[0].lifecycle, second[0].end_time), (Lifecycle::Deleted, Some(3)));
    assert!(store.runs(3, place, 9).await.unwrap().0.is_empty());
    let (points, place) = store.points("a", 0, 2).await.unwrap();
    assert_eq!((points[0].value, points[1].value.is_nan()), (1.5, true));
    assert_eq!(store.points("a", place, 2).await.unwrap().0[0].key, "n");
    assert!(store.logged_models(3, 0, 9).await.unwrap().0.is_empty());
    assert!(store.registered_models().await.unwrap().is_empty());
    assert!(store.others().await.unwrap().is_empty());
}

#[tokio::test]
async fn deleted_versions_leave_their_numbers_behind() {
    let folder = tempfile::tempdir().unwrap();
    let sql = "
        CREATE TABLE experiments (experiment_id INTEGER); CREATE TABLE runs (run_uuid TEXT);
        CREATE TABLE trace_info (request_id TEXT); INSERT INTO trace_info VALUES ('t');
        CREATE TABLE trace_tags (key TEXT); INSERT INTO trace_tags VALUES ('of the trace');
        CREATE TABLE scorers (name TEXT); INSERT INTO scorers VALUES ('s');
        CREATE TABLE entity_associations (source_type TEXT, source_id TEXT, destination_type TEXT, destination_id TEXT);
        INSERT INTO entity_associations VALUES ('trace', 't', 'run', 'r'), ('run', 'r', 'model', 'm');
        CREATE TABLE workspaces (name TEXT); INSERT INTO workspaces VALUES ('default');
        CREATE TABLE alembic_version (v TEXT); INSERT INTO alembic_version VALUES ('x');
        CREATE TABLE secrets (id TEXT); CREATE TABLE [of tomorrow] (id TEXT); INSERT INTO [of tomorrow] VALUES ('a'), ('b');
        CREATE TABLE registered_models (name VARCHAR(256), creation_time BIGINT, last_updated_time BIGINT, description TEXT);
        CREATE TABLE model_versions (name VARCHAR(256), version INTEGER, current_stage VARCHAR(20), source TEXT);
        INSERT INTO registered_models VALUES ('m', 1, 2, NULL);
        INSERT INTO model_versions VALUES ('m', 3, 'Deleted_Internal', NULL), ('m', 2, 'Production', 's3://b/x');
    ";
    let mut store = Foreign::open(&database(&folder, sql).await).await.unwrap();
    let models = store.registered_models().await.unwrap();
    assert_eq!(models[0].1, 4);
    let versions = store.model_versions("m").await.unwrap();
    assert_eq!(versions.len(), 1);
    assert_eq!((versions[0].version.version, versions[0].version.stage.as_str()), (2, "Production"));
    assert_eq!(versions[0].version.storage_location, "s3://b/x");
    assert_eq!(
        store.others().await.unwrap(),
        [
            ("scorers".to_owned(), 1),
            ("rows of table `of tomorrow`".to_owned(), 2),
            ("links between other things".to_owned(), 1)
        ]
    );
}

#[tokio::test]
async fn traces_are_read_with_what_belongs_to_them() {
    let folder = tempfile::tempdir().unwrap();
    // Without the columns that newer releases added.
    let sql = "
        CREATE TABLE experiments (experiment_id INTEGER); CREATE TABLE runs (run_uuid TEXT);
        CREATE TABLE trace_info (request_id TEXT, experiment_id INTEGER, timestamp_ms BIGINT, execution_time_ms BIGINT,
            status TEXT);
        INSERT INTO trace_info VALUES ('a', 3, 5, NULL, 'OK'), ('b', 3, 6, 7, 'ERROR'), ('c', 4, 6, 7, 'OK');
        CREATE TABLE trace_tags (key TEXT, value TEXT, request_id TEXT);
        INSERT INTO trace_tags VALUES ('k', 'v', 'a'), ('k', NULL, 'b');
        CREATE TABLE assessments (assessment_id TEXT, trace_id TEXT, name TEXT, assessment_type TEXT, value TEXT,
            created_timestamp BIGINT, last_updated_timestamp BIGINT, valid BOOLEAN);
        INSERT INTO assessments VALUES ('x', 'a', 'n', 'feedback', '3', 8, 9, 0);
        CREATE TABLE spans (trace_id TEXT, span_id TEXT, content TEXT);
        INSERT INTO spans VALUES ('a', '1', 'one'), ('b', '2', 'two'), ('a', '3', 'three');
        CREATE TABLE entity_associations (source_type TEXT, source_id TEXT, destination_type TEXT, destination_id TEXT);
        INSERT INTO entity_associations VALUES ('trace', 'a', 'run', 'r'), ('trace', 'b', 'prompt_version', 'p/1'),
            ('trace', 'c', 'run', 'r'), ('trace', 'a', 'experiment', '3');
    ";
    let mut store = Foreign::open(&database(&folder, sql).await).await.unwrap();
    let (first, place) = store.traces(3, 0, 1).await.unwrap();
    assert_eq!((first[0].trace_id.as_str(), first[0].started, first[0].duration), ("a", 5, None));
    assert_eq!(first[0].tag("k"), Some("v"));
    let said = &first[0].assessments[0];
    assert_eq!((said.value.as_str(), said.valid, said.created, said.updated), ("3", false, 8, 9));
    let (second, place) = store.traces(3, place, 9).await.unwrap();
    assert_eq!((second.len(), second[0].state.as_str(), second[0].tag("k")), (1, "ERROR", Some("")));
    assert!(store.traces(3, place, 9).await.unwrap().0.is_empty());
    let (spans, place) = store.spans("a", 0, 1).await.unwrap();
    assert_eq!(spans, [("1".to_owned(), "one".to_owned())]);
    assert_eq!(store.spans("a", place, 9).await.unwrap().0, [("3".to_owned(), "three".to_owned())]);
    let (links, _) = store.trace_links(3, 0, 9).await.unwrap();
    let links: Vec<_> = links.iter().map(|one| (&*one.kind, &*one.target, &*one.trace_id)).collect();
    assert_eq!(links, [("run", "r", "a"), ("prompt", "p/1", "b")]);
}

#[tokio::test]
async fn what_newer_releases_keep_in_columns_is_told_as_tags_and_metadata() {
    let folder = tempfile::tempdir().unwrap();
    let sql = "
        CREATE TABLE experiments (experiment_id INTEGER); CREATE TABLE runs (run_uuid TEXT);
        CREATE TABLE trace_info (request_id TEXT, experiment_id INTEGER, timestamp_ms BIGINT, status TEXT, trace_name TEXT,
            session_id TEXT, input_tokens BIGINT, output_tokens BIGINT, input_cost FLOAT, total_cost FLOAT);
        INSERT INTO trace_info VALUES ('a', 3, 5, 'OK', 'named', 's', 3, NULL, 0.5, 1), ('b', 3, 5, 'OK', NULL, NULL, NULL,
            NULL, NULL, NULL);
        CREATE TABLE trace_tags (key TEXT, value TEXT, request_id TEXT);
        INSERT INTO trace_tags VALUES ('mlflow.traceName', 'of the row', 'a');
    ";
    let mut store = Foreign::open(&database(&folder, sql).await).await.unwrap();
    let (found, _) = store.traces(3, 0, 9).await.unwrap();
    assert_eq!((found[0].tag("mlflow.traceName"), found[0].tags.len()), (Some("named"), 1));
    assert_eq!(found[0].metadata("mlflow.trace.session"), Some("s"));
    assert_eq!(found[0].metadata("mlflow.trace.tokenUsage"), Some(r#"{"input_tokens": 3}"#));
    let cost = r#"{"input_cost": 0.5, "total_cost": 1.0}"#;
    assert_eq!(found[0].metadata("mlflow.trace.cost"), Some(cost));
    assert!(found[1].tags.is_empty() && found[1].metadata.is_empty());
}

#[tokio::test]
async fn other_databases_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = database(&folder, "CREATE TABLE x (y TEXT)").await;
    assert!(Foreign::open(&path).await.unwrap_err().to_string().contains("no table of experiments"));
    let ours = tempfile::tempdir().unwrap();
    let sql =
        "CREATE TABLE experiments (id TEXT); CREATE TABLE runs (id TEXT); PRAGMA application_id = 0x4c6f636b";
    let refused = Foreign::open(&database(&ours, sql).await).await.unwrap_err().to_string();
    assert!(refused.contains("Lockgate's own") && refused.contains("lockgate db backup"), "{refused}");
    let none = folder.path().join("none.db");
    assert!(Foreign::open(none.to_str().unwrap()).await.is_err());
    assert!(!none.exists());
}
