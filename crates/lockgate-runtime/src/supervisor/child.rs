//! The keeper of one worker.

use super::backoff::{Backoff, Next};
use super::health;
use super::log::{Tail, capture};
use super::{WorkerSpec, WorkerState, WorkerStatus};
use rustix::process::{Pid, Signal, kill_process_group};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tokio::net::UnixStream;
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How often a starting worker is asked whether it listens.
const POLL: Duration = Duration::from_millis(5);

/// How long the rest of a dead worker's output is waited for.
const DRAIN: Duration = Duration::from_millis(500);

pub(super) struct Keeper {
    spec: WorkerSpec,
    index: usize,
    socket: PathBuf,
    report: watch::Sender<Vec<WorkerStatus>>,
    stop: watch::Receiver<Option<Duration>>,
    /// Since when the worker that lives now can serve.
    ready_since: Option<Instant>,
}

/// A worker's process group, which is killed when this is dropped: what a worker starts ends with it, whatever it is doing.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // Mostly nobody is left in it.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// How one life of a worker ended.
enum End {
    Stopped,
    Died(String),
}

impl Keeper {
    pub(super) fn new(
        spec: WorkerSpec,
        index: usize,
        socket: PathBuf,
        report: watch::Sender<Vec<WorkerStatus>>,
        stop: watch::Receiver<Option<Duration>>,
    ) -> Self {
        Self { spec, index, socket, report, stop, ready_since: None }
    }

    /// Keeps the worker alive until it is stopped or given up.
    pub(super) async fn keep(mut self) {
        let mut backoff = Backoff::default();
        loop {
            self.ready_since = None;
            let last_error = match self.live().await {
                End::Stopped => return self.say(WorkerState::Stopped, None),
                End::Died(how) => how,
            };
            let (attempt, pause) =
                match backoff.died(self.ready_since.map(|since| since.elapsed()), &self.spec) {
                    Next::Again { attempt, pause } => (attempt, pause),
                    Next::GiveUp => {
                        tracing::error!(
                            worker = self.spec.name,
                            index = self.index,
                            last_error,
                            "gave up: crash loop"
                        );
                        let _ = std::fs::remove_file(&self.socket);
                        self.say(WorkerState::CrashLoop { last_error }, None);
                        // The state stays until somebody stops it.
                        told(&mut self.stop).await;
                        return self.say(WorkerState::Stopped, None);
                    }
                };
            tracing::warn!(
                worker = self.spec.name,
                index = self.index,
                attempt,
                last_error,
                "the worker died"
            );
            self.say(WorkerState::Restarting { attempt, last_error }, None);
            if tokio::time::timeout(pause, told(&mut self.stop)).await.is_ok() {
                return self.say(WorkerState::Stopped, None);
            }
            self.report.send_modify(|all| {
                if let Some(own) = all.get_mut(self.index) {
                    own.restarts += 1;
                }
            });
        }
    }

    fn say(&self, state: WorkerState, pid: Option<u32>) {
        self.report.send_modify(|all| {
            if let Some(own) = all.get_mut(self.index) {
                own.state = state;
                own.pid = pid;
            }
        });
    }

    /// One life: start, wait until ready, wait for the end.
    async fn live(&mut self) -> End {
        // An old socket would look like a worker that is ready.
        let _ = std::fs::remove_file(&self.socket);
        let mut child = match self.start().await {
            Ok(child) => child,
            Err(error) => return End::Died(format!("can't start {}: {error}", self.spec.program.display())),
        };
        let _group = Group(child.id().and_then(|id| Pid::from_raw(id.cast_signed())));
        self.say(WorkerState::Starting, child.id());
        let tail = Tail::default();
        let path = self.spec.log_dir.join(format!("{}-{}.log", self.spec.name, self.index));
        let copying =
            child.stderr.take().map(|e| tokio::spawn(capture(e, path, self.spec.max_log, tail.clone())));
        // Held open until the worker has to stop; `Child::wait` would close it.
        let stdin = child.stdin.take();
        let mut stop = self.stop.clone();
        let ready = tokio::select! {
            status = child.wait() => return died(status, &tail, copying).await,
            () = told(&mut stop) => return self.end(child, stdin).await,
            ready = tokio::time::timeout(self.spec.ready_within, self.answers()) => ready,
        };
        if ready.is_err() {
            let _ = child.kill().await;
            let seconds = self.spec.ready_within.as_secs_f32();
            return End::Died(format!(
                "it was not ready within {seconds} s. Its last output: {}",
                tail.text()
            ));
        }
        self.ready_since = Some(Instant::now());
        self.say(WorkerState::Ready, child.id());
        tokio::select! {
            status = child.wait() => return died(status, &tail, copying).await,
            () = told(&mut stop) => return self.end(child, stdin).await,
            () = health::lost(&self.socket, &self.spec) => {}
        }
        let _ = child.kill().await;
        let how = format!("it did not answer its health check {} times in a row", self.spec.health_misses);
        let text = tail.text();
        End::Died(if text.is_empty() { how } else { format!("{how}. Its last output: {text}") })
    }

    async fn start(&self) -> std::io::Result<Child> {
        let mut command = Command::new(&self.spec.program);
        command
            .args(&self.spec.args)
            .arg("--socket")
            .arg(&self.socket)
            .env_clear()
            .envs(self.spec.env.iter().map(|(k, v)| (k, v)))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        match &self.spec.start {
            Some(start) => start.start(command).await,
            None => command.spawn(),
        }
    }

    /// A worker listens only after it has loaded and warmed its model: to connect is to know that it is ready.
    async fn answers(&self) {
        while UnixStream::connect(&self.socket).await.is_err() {
            tokio::time::sleep(POLL).await;
        }
    }

    /// Closes the worker's standard input, which tells it to finish and go; kills it when the grace has passed.
    async fn end(&self, mut child: Child, stdin: Option<ChildStdin>) -> End {
        let grace = self.stop.borrow().unwrap_or_default();
        drop(stdin);
        if tokio::time::timeout(grace, child.wait()).await.is_err() {
            let _ = child.kill().await;
            let _ = std::fs::remove_file(&self.socket);
        }
        End::Stopped
    }
}

/// Waits until the workers have to stop (or nobody is left who could say so).
async fn told(stop: &mut watch::Receiver<Option<Duration>>) {
    let _ = stop.wait_for(Option::is_some).await;
}

async fn died(status: std::io::Result<ExitStatus>, tail: &Tail, copying: Option<JoinHandle<()>>) -> End {
    if let Some(copying) = copying {
        let _ = tokio::time::timeout(DRAIN, copying).await;
    }
    let how = status.map_or_else(|e| e.to_string(), |s| s.to_string());
    let text = tail.text();
    End::Died(if text.is_empty() { how } else { format!("{how}. Its last output: {text}") })
}
