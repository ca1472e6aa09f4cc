//! The keeper of one worker.

use super::backoff::{Backoff, Next};
use super::health::{self, Heard, Probe};
use super::log::{Tail, capture};
use super::port::Port;
use super::{Place, WorkerSpec, WorkerState, WorkerStatus};
use lockgate_core::route::WorkerAddress;
use rustix::process::{Pid, Signal, kill_process_group};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How often a starting worker is asked whether it listens.
const POLL: Duration = Duration::from_millis(5);

/// The same for a server that a team brings, which is asked a question each time.
const POLL_SERVER: Duration = Duration::from_millis(100);

/// How long the rest of a dead worker's output is waited for.
const DRAIN: Duration = Duration::from_millis(500);

pub(super) struct Keeper {
    spec: WorkerSpec,
    index: usize,
    address: WorkerAddress,
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
        address: WorkerAddress,
        report: watch::Sender<Vec<WorkerStatus>>,
        stop: watch::Receiver<Option<Duration>>,
    ) -> Self {
        Self { spec, index, address, report, stop, ready_since: None }
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
                        self.clear();
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
        self.clear();
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
        let mut said = String::new();
        let ready = tokio::select! {
            status = child.wait() => return died(status, &tail, copying).await,
            () = told(&mut stop) => return self.end(child, stdin).await,
            ready = tokio::time::timeout(self.spec.ready_within, self.answers(&mut said)) => ready,
        };
        if ready.is_err() {
            let _ = child.kill().await;
            let seconds = self.spec.ready_within.as_secs_f32();
            return End::Died(format!(
                "it was not ready within {seconds} s{said}. Its last output: {}",
                tail.text()
            ));
        }
        let mut port = self.port(&child);
        if let Err(why) = listens(&mut port).await {
            let _ = child.kill().await;
            return End::Died(why);
        }
        self.ready_since = Some(Instant::now());
        self.say(WorkerState::Ready, child.id());
        tokio::select! {
            status = child.wait() => return died(status, &tail, copying).await,
            () = told(&mut stop) => return self.end(child, stdin).await,
            how = self.lost(&mut port) => said = how,
        }
        let _ = child.kill().await;
        let (how, text) = (said, tail.text());
        End::Died(if text.is_empty() { how } else { format!("{how}. Its last output: {text}") })
    }

    /// Removes the socket of an earlier life.
    fn clear(&self) {
        if let WorkerAddress::Unix(path) = &self.address {
            let _ = std::fs::remove_file(path);
        }
    }

    /// The server that a team brings, where this worker is one.
    fn place(&self) -> Option<&Place> {
        self.spec.places.get(self.index)
    }

    async fn start(&self) -> std::io::Result<Child> {
        let mut command = match self.place() {
            None => self.own(),
            Some(place) => self.brought(place),
        };
        command.stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
        if let Some(dir) = &self.spec.current_dir {
            command.current_dir(dir);
        }
        match &self.spec.start {
            Some(start) => start.start(command).await,
            None => command.spawn(),
        }
    }

    fn own(&self) -> Command {
        let mut command = Command::new(&self.spec.program);
        command.args(&self.spec.args);
        if let WorkerAddress::Unix(path) = &self.address {
            command.arg("--socket").arg(path);
        }
        command.env_clear().envs(self.spec.env.iter().map(|(k, v)| (k, v))).stdin(Stdio::piped());
        command
    }

    /// A shell that starts the server, whose whole output is its log. Beside it waits one that ends the whole group when this
    /// process is gone, and with it the pipe's other end: nobody would know any more of a server that goes on.
    fn brought(&self, place: &Place) -> Command {
        // A limit that can't be set must not be left out quietly.
        let limit = |bytes: u64| format!("ulimit -d {} || exit 1\n", bytes.div_ceil(1024));
        let limit = self.spec.memory_limit.map_or_else(String::new, limit);
        let script = format!(
            "exec 3<&0 </dev/null >&2\n{{ read -r _ <&3; kill -s KILL 0; }} &\nexec 3<&-\ntrap : TERM\n{limit}{}",
            place.run
        );
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(script).stdin(Stdio::piped());
        command.env_clear().envs(place.env.iter().map(|(k, v)| (k, v)));
        command
    }

    /// Waits until the worker is ready. One of ours listens only after it has loaded and warmed its model: to connect is to know
    /// it. A server that a team brings says it by its health check; what it says until then is kept.
    async fn answers(&self, said: &mut String) {
        match (&self.address, self.place()) {
            (WorkerAddress::Unix(path), None) => {
                while tokio::net::UnixStream::connect(path).await.is_err() {
                    tokio::time::sleep(POLL).await;
                }
            }
            _ => {
                while let Err(why) = health::once(&self.address, &self.spec).await {
                    *said = format!(" ({why})");
                    tokio::time::sleep(POLL_SERVER).await;
                }
            }
        }
    }

    /// The port that is this child's, where it has one.
    fn port(&self, child: &Child) -> Option<Port> {
        let (WorkerAddress::Tcp(address), Some(pid)) = (&self.address, child.id()) else { return None };
        Port::new(address, pid)
    }

    /// Returns when the worker does not answer any more, or somebody else does in its place; in words.
    async fn lost(&self, port: &mut Option<Port>) -> String {
        let mut probe = Probe::new(&self.address, &self.spec);
        loop {
            match probe.next().await {
                Heard::Well { .. } => {
                    if let Err(why) = listens(port).await {
                        return why;
                    }
                }
                Heard::Missed | Heard::Refused if !probe.is_lost() => {}
                Heard::Missed | Heard::Refused => {
                    let (misses, last) = (self.spec.health_misses, probe.last);
                    return format!("it did not answer its health check {misses} times in a row ({last})");
                }
            }
        }
    }

    /// Tells the worker to finish and go, and kills it when the grace has passed. One of ours is told by the end of its standard
    /// input, a server that a team brings by the signal for that.
    async fn end(&self, mut child: Child, stdin: Option<ChildStdin>) -> End {
        let grace = self.stop.borrow().unwrap_or_default();
        let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let _held = match (self.place(), group) {
            (Some(_), Some(group)) => {
                let _ = kill_process_group(group, Signal::TERM);
                stdin
            }
            _ => {
                drop(stdin);
                None
            }
        };
        if tokio::time::timeout(grace, child.wait()).await.is_err() {
            let _ = child.kill().await;
            self.clear();
        }
        End::Stopped
    }
}

/// Whether what answers is the child, and not some other program that has taken its port.
async fn listens(port: &mut Option<Port>) -> Result<(), String> {
    let Some(mut looked) = port.take() else { return Ok(()) };
    let look = tokio::task::spawn_blocking(move || {
        let own = looked.is_its_own();
        (looked, own)
    });
    // Where it can't be looked at, nothing is known.
    let Ok((looked, own)) = look.await else { return Ok(()) };
    let address = looked.address();
    *port = Some(looked);
    if own == Some(false) { Err(format!("another program listens on {address}")) } else { Ok(()) }
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
