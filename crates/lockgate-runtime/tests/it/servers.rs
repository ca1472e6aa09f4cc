//! Servers that a team brings: started for each worker, or watched where somebody else runs them.

use lockgate_core::route::WorkerAddress;
use lockgate_runtime::supervisor::{Expect, Health, Place, SupervisorError, WorkerState, WorkerStatus};
use lockgate_runtime::{Supervisor, WorkerSpec};
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::watch::Receiver;

/// Answers `/health` on a port, and takes a moment to go when it is told to.
const SERVER: &str = r#"
import http.server, os, signal, sys, threading, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        there = 404 if os.path.exists("unloaded") else 200
        self.send_response(there if self.path == "/health" and not os.path.exists("ill") else 503)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
def go(*_):
    time.sleep(0.3)
    open("gone", "w").close()
    os._exit(0)
signal.signal(signal.SIGTERM, go)
def leave():
    while not os.path.exists("leave"):
        time.sleep(0.02)
    server.shutdown()
threading.Thread(target=leave, daemon=True).start()
print("here I am", flush=True)
server.serve_forever()
server.server_close()
time.sleep(60)
"#;

async fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

fn spec(dir: &Path, port: u16, run: &str) -> WorkerSpec {
    std::fs::write(dir.join("server.py"), SERVER).unwrap();
    let name = "s".to_owned();
    let mut spec = WorkerSpec::new("/bin/sh".into(), vec![], dir.join("sockets"), dir.join("log"), name);
    let env = vec![("PATH".into(), std::env::var_os("PATH").unwrap())];
    let address = WorkerAddress::Tcp(format!("127.0.0.1:{port}"));
    spec.places = vec![Place { address, run: run.replace("PORT", &port.to_string()), env }];
    spec.current_dir = Some(dir.to_owned());
    spec.health = Health { path: "/health".to_owned(), expect: Expect::Ok };
    spec.health_every = Duration::from_millis(100);
    spec.health_timeout = Duration::from_secs(2);
    spec.crash_loop_after = 2;
    spec
}

async fn see(status: &mut Receiver<Vec<WorkerStatus>>, good: impl Fn(&WorkerState) -> bool) {
    let seen = tokio::time::timeout(Duration::from_secs(20), status.wait_for(|all| good(&all[0].state)));
    let seen = seen.await.is_ok_and(|seen| seen.is_ok());
    let now = status.borrow().clone();
    assert!(seen, "{now:?}");
}

#[tokio::test]
async fn a_server_is_ready_when_it_says_so_is_started_again_when_it_is_ill_and_may_finish_when_it_is_stopped()
{
    let dir = tempfile::tempdir().unwrap();
    let spec = spec(dir.path(), free_port().await, "python3 server.py PORT");
    let supervisor = Supervisor::spawn(&spec, 1).unwrap();
    supervisor.ready(Duration::from_secs(20)).await.unwrap();
    let log = std::fs::read_to_string(dir.path().join("log/s-0.log")).unwrap();
    assert!(log.contains("here I am"), "what it prints is its log: {log:?}");
    let mut status = supervisor.status();
    std::fs::write(dir.path().join("ill"), "").unwrap();
    see(&mut status, |s| matches!(s, WorkerState::Restarting { last_error, .. } if last_error.contains("was answered 503"))).await;
    std::fs::remove_file(dir.path().join("ill")).unwrap();
    see(&mut status, |s| *s == WorkerState::Ready).await;
    supervisor.stop(Duration::from_secs(10)).await;
    assert!(dir.path().join("gone").exists(), "it was killed before it could finish");
}

#[tokio::test]
async fn a_server_that_dies_or_is_never_well_is_given_up_with_what_it_said() {
    let dir = tempfile::tempdir().unwrap();
    for (run, words) in [
        ("echo out of memory; exit 3", "out of memory"),
        ("python3 server.py PORT", "GET /never was answered 503"),
    ] {
        let mut spec = spec(dir.path(), free_port().await, run);
        spec.health.path = "/never".to_owned();
        spec.ready_within = Duration::from_secs(3);
        let supervisor = Supervisor::spawn(&spec, 1).unwrap();
        let error = supervisor.ready(Duration::from_secs(30)).await.unwrap_err();
        assert!(
            matches!(&error, SupervisorError::CrashLoop { last_error, .. } if last_error.contains(words)),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_port_that_another_program_has_makes_no_server_ready() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port().await;
    let thief = spec(dir.path(), port, "python3 server.py PORT");
    let thief = Supervisor::spawn(&thief, 1).unwrap();
    thief.ready(Duration::from_secs(20)).await.unwrap();
    let robbed = Supervisor::spawn(&spec(dir.path(), port, "sleep 60"), 1).unwrap();
    let error = robbed.ready(Duration::from_secs(20)).await.unwrap_err().to_string();
    assert!(error.contains("another program listens on 127.0.0.1"), "{error}");
    thief.stop(Duration::from_secs(5)).await;
}

/// Answers whatever is asked on a port, as soon as it is free.
async fn thief(port: u16) {
    let listener = loop {
        match TcpListener::bind(("127.0.0.1", port)).await {
            Ok(listener) => break listener,
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 1024];
            let _ = stream.read(&mut buffer).await;
            let _ =
                stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await;
        });
    }
}

#[tokio::test]
async fn a_port_that_is_taken_later_makes_its_server_no_longer_ready() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port().await;
    let supervisor = Supervisor::spawn(&spec(dir.path(), port, "python3 server.py PORT"), 1).unwrap();
    supervisor.ready(Duration::from_secs(20)).await.unwrap();
    // The process lives on, and somebody else answers its health check.
    let other = tokio::spawn(thief(port));
    std::fs::write(dir.path().join("leave"), "").unwrap();
    let taken = |s: &WorkerState| matches!(s, WorkerState::Restarting { last_error, .. } if last_error.contains("another program listens"));
    see(&mut supervisor.status(), taken).await;
    other.abort();
}

#[tokio::test]
async fn a_server_elsewhere_that_lost_its_model_is_away_at_once_and_each_return_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port().await;
    let mut spec = spec(dir.path(), port, "python3 server.py PORT");
    spec.health_every = Duration::from_secs(1);
    let server = Supervisor::spawn(&spec, 1).unwrap();
    server.ready(Duration::from_secs(20)).await.unwrap();
    let nobody = WorkerAddress::Tcp(format!("127.0.0.1:{}", free_port().await));
    let own = WorkerAddress::Tcp(format!("127.0.0.1:{port}"));
    let watched = Supervisor::watch(&spec, vec![own.clone(), nobody.clone()]);
    assert_eq!(watched.any_ready(Duration::from_secs(10)).await.unwrap(), 0);
    let alone = Supervisor::watch(&spec, vec![nobody]);
    let error = alone.any_ready(Duration::from_millis(100)).await.unwrap_err();
    assert!(error.to_string().contains("no connections"), "{error}");
    let mut status = watched.status();
    let first = status.borrow()[0].returns;
    std::fs::write(dir.path().join("unloaded"), "").unwrap();
    let gone = std::time::Instant::now();
    see(&mut status, |s| matches!(s, WorkerState::Away { last_error } if last_error.contains("404"))).await;
    // Three answers in a row would take longer.
    assert!(gone.elapsed() < Duration::from_millis(1900), "{:?}", gone.elapsed());
    std::fs::remove_file(dir.path().join("unloaded")).unwrap();
    see(&mut status, |s| *s == WorkerState::Ready).await;
    assert_eq!((status.borrow()[0].returns, status.borrow()[0].doubts), (first + 1, 0));
    // It falters, and is well again before it is given up.
    std::fs::write(dir.path().join("ill"), "").unwrap();
    tokio::time::sleep(Duration::from_millis(1300)).await;
    std::fs::remove_file(dir.path().join("ill")).unwrap();
    let doubted = tokio::time::timeout(
        Duration::from_secs(10),
        status.wait_for(|all| all[0].doubts > 0 || all[0].returns > first + 1),
    );
    assert!(doubted.await.is_ok_and(|seen| seen.is_ok()));
    // The gateway is no server, whatever it answers.
    spec.not_at = Some(format!("0.0.0.0:{port}").parse().unwrap());
    let looped = Supervisor::watch(&spec, vec![own]);
    see(
        &mut looped.status(),
        |s| matches!(s, WorkerState::Away { last_error } if last_error.contains("own gateway")),
    )
    .await;
}

#[tokio::test]
async fn somebody_else_s_server_is_watched_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port().await;
    let spec = spec(dir.path(), port, "python3 server.py PORT");
    let watched = Supervisor::watch(&spec, vec![WorkerAddress::Tcp(format!("127.0.0.1:{port}"))]);
    let mut status = watched.status();
    see(
        &mut status,
        |s| matches!(s, WorkerState::Away { last_error } if last_error.contains("no connections")),
    )
    .await;
    let server = Supervisor::spawn(&spec, 1).unwrap();
    see(&mut status, |s| *s == WorkerState::Ready).await;
    std::fs::write(dir.path().join("ill"), "").unwrap();
    see(&mut status, |s| matches!(s, WorkerState::Away { .. })).await;
    watched.stop(Duration::from_secs(1)).await;
    drop(server);
}
