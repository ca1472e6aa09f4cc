//! Workers that die, that can't start, that are stopped.

use crate::common::{Client, Release, release, socket};
use lockgate_core::schema::ColumnType::Double;
use lockgate_runtime::supervisor::{SupervisorError, WorkerState};
use lockgate_runtime::{Supervisor, WorkerSpec};
use std::process::Command;
use std::time::{Duration, Instant};

const ROW: &str = r#"{"inputs":[{"name":"x","shape":[1,1],"datatype":"FP32","data":[1]}]}"#;

fn log_model() -> Release {
    release("log.onnx", &[("x", Double)])
}

async fn refuses(release: &Release, more: &[(&str, &str)], want: &str) {
    let mut spec = release.spec(more);
    spec.crash_loop_after = 1;
    let supervisor = Supervisor::spawn(&spec, 1).unwrap();
    let error = supervisor.ready(Duration::from_secs(30)).await.unwrap_err();
    assert!(matches!(error, SupervisorError::CrashLoop { .. }));
    assert!(error.to_string().contains(want), "{error}");
}

#[tokio::test]
async fn a_killed_worker_is_noticed_and_comes_back_at_the_same_address() {
    let release = log_model();
    let supervisor = Supervisor::spawn(&release.spec(&[]), 2).unwrap();
    supervisor.ready(Duration::from_secs(30)).await.unwrap();
    let path = socket(&supervisor);
    assert_eq!(Client::connect(&path).await.infer(ROW).await.status, 200);
    let mut status = supervisor.status();
    let (first, second) = (status.borrow()[0].clone(), status.borrow()[1].clone());
    let killed = Instant::now();
    assert!(Command::new("kill").args(["-9", &first.pid.unwrap().to_string()]).status().unwrap().success());
    let gone = status.wait_for(|all| all[0].state != WorkerState::Ready).await.unwrap()[0].clone();
    assert!(killed.elapsed() < Duration::from_secs(2), "noticed after {:?}", killed.elapsed());
    if let WorkerState::Restarting { attempt, last_error } = &gone.state {
        assert_eq!(*attempt, 1);
        assert!(last_error.contains("signal: 9"), "{last_error}");
    }
    supervisor.ready(Duration::from_secs(30)).await.unwrap();
    let now = supervisor.status().borrow().clone();
    assert_eq!(now[0].restarts, 1);
    assert_ne!(now[0].pid, first.pid);
    assert_eq!(now[1], second, "the other worker is left alone");
    assert_eq!(Client::connect(&path).await.infer(ROW).await.status, 200);
    supervisor.stop(Duration::from_secs(5)).await;
    assert!(!path.exists());
}

#[tokio::test]
async fn a_worker_that_cannot_start_is_given_up_as_a_crash_loop_and_says_why() {
    let mut release = log_model();
    release.manifest.files[0].sha256 = lockgate_core::digest::Digest::of(b"another graph");
    release.save();
    let mut spec = release.spec(&[]);
    spec.crash_loop_after = 3;
    let supervisor = Supervisor::spawn(&spec, 1).unwrap();
    let error = supervisor.ready(Duration::from_secs(30)).await.unwrap_err().to_string();
    assert!(error.contains("died too often") && error.contains("not the one in the release"), "{error}");
    assert_eq!(supervisor.status().borrow()[0].restarts, 2);
    let log = std::fs::read_to_string(release.path("log/w-0.log")).unwrap();
    assert_eq!(log.matches("not the one in the release").count(), 3, "{log}");
    supervisor.stop(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn releases_that_must_not_run_are_refused_with_the_reason() {
    refuses(&release("external.onnx", &[]), &[], "not a file inside the model's folder").await;
    refuses(&release("log.onnx", &[("a", Double), ("b", Double)]), &[], "doesn't fit its graph").await;
    let release = log_model();
    std::fs::write(release.path("warm.json"), r#"{"dataframe_split":{"columns":["y"],"data":[[1]]}}"#)
        .unwrap();
    let warm = release.path("warm.json").to_string_lossy().into_owned();
    refuses(&release, &[("--warm-up", &warm)], "doesn't answer the warm-up rows").await;
    std::fs::write(release.path("warm.json"), r#"{"dataframe_split":{"columns":["x"],"data":[[1]]}}"#)
        .unwrap();
    release
        .serve(&[("--warm-up", &warm), ("--memory", "2000000000")])
        .await
        .stop(Duration::from_secs(5))
        .await;
    refuses(&release, &[("--memory", "1000000")], "").await;
}

#[tokio::test]
async fn a_worker_that_never_listens_is_killed_in_time() {
    let release = log_model();
    let spec = WorkerSpec {
        program: "/bin/sh".into(),
        args: vec!["-c".into(), "echo stuck >&2; exec sleep 600".into()],
        env: vec![("PATH".into(), "/usr/bin:/bin".into())],
        ready_within: Duration::from_millis(200),
        crash_loop_after: 2,
        ..release.spec(&[])
    };
    let supervisor = Supervisor::spawn(&spec, 1).unwrap();
    let early = supervisor.ready(Duration::from_millis(50)).await.unwrap_err();
    assert!(matches!(early, SupervisorError::NotReady { .. }), "{early}");
    let error = supervisor.ready(Duration::from_secs(10)).await.unwrap_err().to_string();
    assert!(error.contains("not ready within 0.2 s") && error.contains("stuck"), "{error}");
}

#[tokio::test]
async fn a_program_that_is_not_there_and_a_socket_path_that_is_too_long() {
    let release = log_model();
    let spec = WorkerSpec { program: "/nowhere/lockgate".into(), crash_loop_after: 2, ..release.spec(&[]) };
    let error =
        Supervisor::spawn(&spec, 1).unwrap().ready(Duration::from_secs(10)).await.unwrap_err().to_string();
    assert!(error.contains("can't start /nowhere/lockgate"), "{error}");
    let spec = WorkerSpec { socket_dir: release.path(&"x".repeat(120)), ..release.spec(&[]) };
    assert!(matches!(Supervisor::spawn(&spec, 1), Err(SupervisorError::SocketPath(_))));
}

#[tokio::test]
async fn workers_go_when_their_supervisor_goes() {
    let release = log_model();
    let supervisor = release.serve(&[]).await;
    let pid = supervisor.status().borrow()[0].pid.unwrap();
    drop(supervisor);
    let deadline = Instant::now() + Duration::from_secs(10);
    let alive = || std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| !s.contains(") Z "));
    while alive() {
        assert!(Instant::now() < deadline, "process {pid} still runs");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn signal(name: &str, pid: u32) {
    assert!(Command::new("kill").args([name, &pid.to_string()]).status().unwrap().success());
}

#[tokio::test]
async fn a_worker_that_hangs_is_killed_and_started_again_and_one_that_only_paused_is_not() {
    let release = log_model();
    let mut spec = release.spec(&[]);
    spec.health_every = Duration::from_millis(100);
    spec.health_timeout = Duration::from_millis(900);
    let supervisor = Supervisor::spawn(&spec, 2).unwrap();
    supervisor.ready(Duration::from_secs(30)).await.unwrap();
    let mut status = supervisor.status();
    let (first, second) = (status.borrow()[0].clone(), status.borrow()[1].clone());
    // It answers late once: no reason to kill it.
    signal("-STOP", second.pid.unwrap());
    tokio::time::sleep(Duration::from_millis(1200)).await;
    signal("-CONT", second.pid.unwrap());
    signal("-STOP", first.pid.unwrap());
    let hung = Instant::now();
    let gone = status.wait_for(|all| all[0].state != WorkerState::Ready).await.unwrap()[0].clone();
    assert!(hung.elapsed() < Duration::from_secs(10), "noticed after {:?}", hung.elapsed());
    let WorkerState::Restarting { last_error, .. } = &gone.state else { panic!("{gone:?}") };
    assert!(last_error.contains("did not answer its health check 3 times in a row"), "{last_error}");
    supervisor.ready(Duration::from_secs(30)).await.unwrap();
    let now = supervisor.status().borrow().clone();
    assert_eq!(now[0].restarts, 1);
    assert_ne!(now[0].pid, first.pid);
    assert_eq!(now[1], second, "the other worker is left alone");
    assert_eq!(Client::connect(&socket(&supervisor)).await.infer(ROW).await.status, 200);
}
