//! Workers whose model runs in Python; a script that speaks the shim's protocol stands in for it.

use crate::common::{Answer, Client, Release, release, socket};
use hyper::StatusCode;
use lockgate_core::digest::Digest;
use lockgate_core::release::{File, Runtime};
use lockgate_core::schema::ColumnType::{Double, String as Text};
use lockgate_runtime::supervisor::{Supervisor, WorkerSpec, WorkerState};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

/// A release whose model runs in Python.
fn python() -> Release {
    let mut release = release("logreg.onnx", &[("x", Double), ("what", Text)]);
    let mut files = Vec::new();
    for name in ["MLmodel", "requirements.txt"] {
        std::fs::write(release.path("model").join(name), name).unwrap();
        files.push(File { path: name.to_owned(), size: 1, sha256: Digest::of(name.as_bytes()) });
    }
    release.manifest.files = files;
    release.manifest.runtime = Runtime::Python {
        loader: "mlflow.sklearn".to_owned(),
        requirements: "requirements.txt".to_owned(),
        python: "3.11.7".to_owned(),
        flavor: Digest::of(b""),
    };
    release.save();
    release
}

fn spec(release: &Release, more: &[(&str, &str)]) -> WorkerSpec {
    let fake = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/fake_python");
    let mut all = vec![("--python", fake.to_str().unwrap())];
    all.extend(more);
    let mut spec = release.spec(&all);
    spec.own_folder = true;
    spec.env = vec![("PATH".into(), std::env::var_os("PATH").unwrap())];
    spec
}

/// Warms a worker up with rows of these values, all of which say the same.
async fn warmed(release: &Release, values: &[f64], what: &str, more: &[(&str, &str)]) -> Supervisor {
    let rows: Vec<(f64, &str)> = values.iter().map(|x| (*x, what)).collect();
    let file = release.path("rows.json");
    std::fs::write(&file, body(&rows)).unwrap();
    let mut all = vec![("--warm-up", file.to_str().unwrap())];
    all.extend(more);
    serve(release, &all).await
}

async fn serve(release: &Release, more: &[(&str, &str)]) -> Supervisor {
    let supervisor = Supervisor::spawn(&spec(release, more), 1).unwrap();
    supervisor.ready(Duration::from_secs(30)).await.unwrap();
    supervisor
}

fn body(rows: &[(f64, &str)]) -> String {
    let rows: Vec<Value> = rows.iter().map(|(x, what)| json!([x, what])).collect();
    json!({"dataframe_split": {"columns": ["x", "what"], "data": rows}}).to_string()
}

async fn ask(client: &mut Client, rows: &[(f64, &str)]) -> Answer {
    client.post("/invocations", body(rows)).await
}

/// The doubled values, and how many rows the call had that gave them.
fn doubled(answer: &Answer) -> (Vec<f64>, u64) {
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let json = answer.json();
    let list = json["predictions"].as_array().unwrap();
    (list.iter().map(|p| p["y"].as_f64().unwrap()).collect(), list[0]["rows"].as_u64().unwrap())
}

#[tokio::test]
async fn rows_are_answered_in_both_dialects_and_errors_say_whose_fault_they_are() {
    let release = python();
    let worker = serve(&release, &[]).await;
    let mut client = Client::connect(&socket(&worker)).await;
    assert_eq!(doubled(&ask(&mut client, &[(1.5, "go"), (2.0, "é")]).await), (vec![3.0, 4.0], 2));
    let inputs = json!({"inputs": [
        {"name": "x", "shape": [1], "datatype": "FP64", "data": [4]},
        {"name": "what", "shape": [1], "datatype": "BYTES", "data": ["go"]},
    ]});
    let answer = client.infer(inputs.to_string()).await;
    assert_eq!(answer.json()["outputs"][0]["data"], json!([8.0]), "{}", answer.text());
    for (what, status, words) in
        [("fail", 500, "the model failed: no fail of"), ("refuse", 400, "no refuse of")]
    {
        let answer = ask(&mut client, &[(1.0, what)]).await;
        assert_eq!(answer.status.as_u16(), status, "{}", answer.text());
        assert!(answer.text().contains(words) && !answer.text().contains("/etc"), "{}", answer.text());
    }
    let wrong =
        client.post("/invocations", r#"{"dataframe_split": {"columns": ["x"], "data": [[1]]}}"#).await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
    let metadata = client.get("/v2/models/delay").await.json();
    assert_eq!(metadata["platform"], "mlflow_pyfunc");
    assert_eq!(metadata["inputs"][1], json!({"name": "what", "datatype": "BYTES", "shape": [-1]}));
    let log = std::fs::read_to_string(release.path("log").join("w-0.log")).unwrap();
    assert!(log.contains("loaded by"), "what it prints is in the log: {log}");
    let [pid] = pythons(&release)[..] else { panic!("one Python") };
    worker.stop(Duration::from_secs(5)).await;
    ends(pid).await;
    assert!(!release.path("s/w").exists(), "nothing is left of it");
}

/// Requests that all wait while the model is busy with another one.
async fn together(worker: &Supervisor, whats: &[&'static str]) -> Vec<Answer> {
    let mut tasks = Vec::new();
    let path = socket(worker);
    let mut busy = Client::connect(&path).await;
    let slow = tokio::spawn(async move { ask(&mut busy, &[(0.0, "slow")]).await });
    tokio::time::sleep(Duration::from_millis(150)).await;
    for (i, what) in whats.iter().enumerate() {
        let (mut client, what) = (Client::connect(&path).await, *what);
        tasks.push(tokio::spawn(async move { ask(&mut client, &[(i as f64, what), (0.5, "go")]).await }));
    }
    slow.await.unwrap();
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(task.await.unwrap());
    }
    answers
}

#[tokio::test]
async fn what_waits_goes_in_one_call_and_a_bad_row_fails_nobody_else() {
    let release = python();
    let worker = warmed(&release, &[3.0, 1.0, 2.0], "warm", &[]).await;
    for (i, answer) in together(&worker, &["go"; 5]).await.iter().enumerate() {
        assert_eq!(doubled(answer), (vec![2.0 * i as f64, 1.0], 10));
    }
    let answers = together(&worker, &["go", "fail", "go", "refuse", "go"]).await;
    for (i, status) in [(1, 500), (3, 400)] {
        assert_eq!(answers[i].status.as_u16(), status);
    }
    for i in [0, 2, 4] {
        assert_eq!(doubled(&answers[i]), (vec![2.0 * i as f64, 1.0], 2), "each by itself");
    }
}

#[tokio::test]
async fn a_limit_of_rows_is_kept_and_one_row_means_alone() {
    let release = python();
    let worker = warmed(&release, &[1.0, 2.0], "warm", &[("--batch-rows", "4")]).await;
    let sizes: Vec<u64> = together(&worker, &["go"; 5]).await.iter().map(|a| doubled(a).1).collect();
    assert!(sizes.iter().all(|n| *n <= 4) && sizes.contains(&4), "{sizes:?}");
    let worker = warmed(&release, &[1.0, 2.0], "warm", &[("--batch-rows", "1")]).await;
    assert!(together(&worker, &["go"; 3]).await.iter().all(|a| doubled(a).1 == 2));
}

#[tokio::test]
async fn a_model_without_one_answer_a_row_is_asked_for_each_request_alone() {
    let release = python();
    let worker = warmed(&release, &[1.0, 2.0], "warm", &[]).await;
    for (i, answer) in together(&worker, &["go", "sum", "go"]).await.iter().enumerate() {
        let (values, rows) = doubled(answer);
        assert_eq!(rows, 2, "each by itself");
        assert_eq!(values, if i == 1 { vec![1.5] } else { vec![2.0 * i as f64, 1.0] });
    }
    assert!(together(&worker, &["go"; 3]).await.iter().all(|a| doubled(a).1 == 2), "from then on");
}

#[tokio::test]
async fn requests_go_together_only_where_warming_up_has_shown_that_each_row_is_answered_by_itself() {
    let release = python();
    let three = [3.0, 1.0, 2.0];
    // In order already: only backwards is it seen that the answers are sorted.
    for (values, what) in
        [(&three[..], "rank"), (&three, "sort"), (&[1.0, 2.0], "sort"), (&three, "same"), (&[1.0], "warm")]
    {
        let worker = warmed(&release, values, what, &[]).await;
        assert!(together(&worker, &["go"; 3]).await.iter().all(|a| doubled(a).1 == 2), "{what} {values:?}");
    }
    let worker = serve(&release, &[]).await;
    assert!(together(&worker, &["go"; 3]).await.iter().all(|a| doubled(a).1 == 2), "nothing was shown");
}

async fn wait_for(supervisor: &Supervisor, what: impl Fn(&WorkerState, u64) -> bool) {
    let mut status = supervisor.status();
    let found = status.wait_for(|all| what(&all[0].state, all[0].restarts));
    tokio::time::timeout(Duration::from_secs(30), found).await.unwrap().unwrap();
}

/// The processes that said their numbers in the log.
fn pythons(release: &Release) -> Vec<u32> {
    let log = std::fs::read_to_string(release.path("log").join("w-0.log")).unwrap();
    let found: Vec<u32> = log.lines().filter_map(|l| l.strip_prefix("loaded by ")?.parse().ok()).collect();
    assert!(!found.is_empty(), "{log}");
    found
}

async fn ends(pid: u32) {
    let began = Instant::now();
    while std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| !s.contains(") Z ")) {
        assert!(began.elapsed() < Duration::from_secs(5), "{pid} still runs");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_python_that_dies_is_started_again_and_a_request_breaks_off() {
    let release = python();
    let worker = serve(&release, &[]).await;
    let mut client = Client::connect(&socket(&worker)).await;
    let request = hyper::Request::post("/invocations").header("content-type", "application/json");
    let sent = client.send(request.body(body(&[(1.0, "die")]).into_bytes().into()).unwrap()).await;
    assert!(sent.is_err(), "so that a gateway asks elsewhere");
    wait_for(&worker, |state, restarts| restarts == 1 && *state == WorkerState::Ready).await;
    let mut client = Client::connect(&socket(&worker)).await;
    assert_eq!(doubled(&ask(&mut client, &[(1.0, "go")]).await).0, [2.0]);
}

#[tokio::test]
async fn a_crash_loop_says_how_python_ended() {
    let release = python();
    std::fs::write(release.path("rows.json"), body(&[(1.0, "die")])).unwrap();
    let mut spec = spec(&release, &[("--warm-up", release.path("rows.json").to_str().unwrap())]);
    spec.crash_loop_after = 2;
    let worker = Supervisor::spawn(&spec, 1).unwrap();
    let error = worker.ready(Duration::from_secs(30)).await.unwrap_err().to_string();
    assert!(error.contains("died too often") && error.contains("Python process"), "{error}");
}

#[tokio::test]
async fn what_is_no_frame_ends_the_worker() {
    let release = python();
    let worker = serve(&release, &[]).await;
    let mut client = Client::connect(&socket(&worker)).await;
    let request = hyper::Request::post("/invocations").header("content-type", "application/json");
    let _ = client.send(request.body(body(&[(1.0, "lie")]).into_bytes().into()).unwrap()).await;
    wait_for(&worker, |state, _| matches!(state, WorkerState::Restarting { last_error, .. } if last_error.contains("broke the protocol")))
        .await;
}

#[tokio::test]
async fn a_python_that_hangs_is_killed_by_the_health_checks() {
    let release = python();
    let mut spec = spec(&release, &[("--call-limit", "200")]);
    spec.health_every = Duration::from_millis(50);
    let worker = Supervisor::spawn(&spec, 1).unwrap();
    worker.ready(Duration::from_secs(30)).await.unwrap();
    let mut client = Client::connect(&socket(&worker)).await;
    let began = Instant::now();
    let request = hyper::Request::post("/invocations").header("content-type", "application/json");
    let hangs = client.send(request.body(body(&[(1.0, "hang")]).into_bytes().into()).unwrap());
    assert!(hangs.await.is_err());
    assert!(began.elapsed() > Duration::from_millis(200), "not before its time");
    wait_for(&worker, |state, restarts| restarts == 1 && *state == WorkerState::Ready).await;
    ends(pythons(&release)[0]).await;
}

#[tokio::test]
async fn files_that_are_not_the_release_s_and_a_release_without_python_are_refused() {
    let release = python();
    let mut spec = spec(&release, &[]);
    spec.crash_loop_after = 1;
    std::fs::write(release.path("model/requirements.txt"), "evil").unwrap();
    let refused = Supervisor::spawn(&spec, 1).unwrap().ready(Duration::from_secs(30)).await.unwrap_err();
    assert!(refused.to_string().contains("`requirements.txt` is not the one in the release"), "{refused}");
    std::fs::write(release.path("model/requirements.txt"), "requirements.txt").unwrap();
    let mut spec = release.spec(&[]);
    spec.crash_loop_after = 1;
    let refused = Supervisor::spawn(&spec, 1).unwrap().ready(Duration::from_secs(30)).await.unwrap_err();
    assert!(refused.to_string().contains("--python"), "{refused}");
}
