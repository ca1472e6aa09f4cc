//! One process of the tree: started, kept alive, replaced by a newer one.

use super::STOP_WITHIN;
use anyhow::{Context as _, bail};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinHandle};

/// How long a process may take until it answers.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// How long a program may take to say its version.
const SAY_WITHIN: Duration = Duration::from_secs(10);

/// How long an upgrade of one process may take: as long as agents wait for each other, and a little more.
const UPGRADE_WITHIN: Duration = Duration::from_secs(900);

/// The longest pause before a process that ended is started again.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What a process of the tree is for.
pub(super) struct Role {
    pub(super) name: String,
    pub(super) program: PathBuf,
    pub(super) args: Vec<String>,
    pub(super) health: String,
    pub(super) log: PathBuf,
    /// The socket that it serves, held here: connections wait while it is not there. Who has one can be taken over from.
    pub(super) listener: Option<TcpListener>,
}

/// A process, and the end of its standard input, which tells it that we are gone.
pub(super) struct Process {
    child: Child,
    tie: Option<UnixStream>,
}

impl Process {
    /// Tells it to end, and sees to it that it does.
    async fn end(mut self) {
        self.tie = None;
        if tokio::time::timeout(STOP_WITHIN, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }
}

impl Role {
    /// Starts its process, beside one that it takes over from where there is one.
    pub(super) fn start(&self, take_over: bool) -> anyhow::Result<Process> {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .with_context(|| format!("can't write {}", self.log.display()))?;
        let cannot = || format!("{} can't be started", self.name);
        let (tie, theirs) = UnixStream::pair().with_context(cannot)?;
        let mut command = std::process::Command::new(&self.program);
        command.args(&self.args).args(take_over.then_some("--take-over"));
        command.stdin(OwnedFd::from(theirs)).stdout(Stdio::null()).stderr(log);
        // A group of its own: Ctrl-C in the terminal reaches `up` alone, which then stops its children in order.
        command.process_group(0).env_remove("LOCKGATE_SERVER").env_remove("LOCKGATE_STATE");
        let child = Command::from(command).kill_on_drop(true).spawn().with_context(cannot)?;
        if let Some(listener) = &self.listener {
            lockgate_agent::descriptor::send(&tie, listener).with_context(cannot)?;
        }
        Ok(Process { child, tie: Some(tie) })
    }

    /// Whether its program, as its file is now, can be run at all.
    pub(super) async fn runs(&self) -> anyhow::Result<()> {
        let cannot = || format!("{} can't be run", self.program.display());
        let asked =
            Command::new(&self.program).arg("--version").stdin(Stdio::null()).kill_on_drop(true).output();
        let answer =
            tokio::time::timeout(SAY_WITHIN, asked).await.with_context(cannot)?.with_context(cannot)?;
        if !answer.status.success() || !answer.stdout.starts_with(b"lockgate ") {
            bail!("{}: `--version` ended with {}", cannot(), answer.status);
        }
        Ok(())
    }

    /// Waits until it answers.
    pub(super) async fn ready(&self, process: &mut Process) -> anyhow::Result<()> {
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(2)).build()?;
        let begun = Instant::now();
        loop {
            if http.get(&self.health).send().await.is_ok_and(|r| r.status().is_success()) {
                return Ok(());
            }
            if let Some(status) = process.child.try_wait()? {
                bail!("{} ended: {status}\n{}", self.name, last_lines(&self.log));
            }
            if begun.elapsed() > READY_WITHIN {
                bail!("{} does not answer at {}\n{}", self.name, self.health, last_lines(&self.log));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Keeps a process that runs alive from now on.
    pub(super) fn kept(self, process: Process) -> Kept {
        let name = self.name.clone();
        let (orders, received) = mpsc::channel(1);
        Kept { name, orders, task: tokio::spawn(keep(self, process, received)) }
    }
}

/// What is to be done with a process.
enum Order {
    Upgrade(oneshot::Sender<Result<(), String>>),
}

/// A process that is started again whenever it ends.
pub(super) struct Kept {
    pub(super) name: String,
    orders: mpsc::Sender<Order>,
    task: JoinHandle<()>,
}

impl Kept {
    /// Replaces it by the program as its file is now; says why it could not be.
    pub(super) async fn upgrade(&self) -> Result<(), String> {
        let (done, outcome) = oneshot::channel();
        let gone = || "it is not looked after any more".to_owned();
        self.orders.send(Order::Upgrade(done)).await.map_err(|_| gone())?;
        outcome.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Stops it for good.
    pub(super) async fn stop(self) -> Result<(), JoinError> {
        drop(self.orders);
        self.task.await
    }
}

/// Starts a process again whenever it ends, with growing pauses, until nobody is left who gives orders.
async fn keep(role: Role, process: Process, mut orders: mpsc::Receiver<Order>) {
    let mut process = Some(process);
    let mut pause = Duration::from_millis(50);
    loop {
        let begun = Instant::now();
        if let Some(mut running) = process.take() {
            tokio::select! {
                _ = running.child.wait() => {}
                order = orders.recv() => match order {
                    None => return running.end().await,
                    Some(Order::Upgrade(done)) => {
                        let (now, outcome) = upgrade(&role, running, &mut orders).await;
                        let _ = done.send(outcome.map_err(|e| format!("{e:#}")));
                        if now.is_some() {
                            process = now;
                            continue;
                        }
                    }
                }
            }
        }
        pause = if begun.elapsed() > LONGEST_PAUSE {
            Duration::from_millis(50)
        } else {
            (pause * 2).min(LONGEST_PAUSE)
        };
        tracing::warn!(role = role.name, ?pause, "ended; starting it again");
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            order = orders.recv() => match order {
                None => return,
                Some(Order::Upgrade(done)) => {
                    let words = "it dies again and again; it is started from the file as it is now";
                    let _ = done.send(Err(words.to_owned()));
                }
            }
        }
        match role.start(false) {
            Ok(again) => process = Some(again),
            Err(error) => tracing::error!(%error, "can't be started again"),
        }
    }
}

/// Replaces a process, and says which one runs then: none where it can't be started, or everything is to stop meanwhile.
async fn upgrade(
    role: &Role,
    mut old: Process,
    orders: &mut mpsc::Receiver<Order>,
) -> (Option<Process>, anyhow::Result<()>) {
    // Before anything is stopped.
    if let Err(error) = role.runs().await {
        return (Some(old), Err(error));
    }
    if role.listener.is_none() {
        old.end().await;
        return match role.start(false) {
            Ok(mut new) => {
                let ready = role.ready(&mut new).await;
                (Some(new), ready)
            }
            Err(error) => (None, Err(error)),
        };
    }
    let mut new = match role.start(true) {
        Ok(new) => new,
        Err(error) => return (Some(old), Err(error)),
    };
    // One that was taken over from ends by itself.
    tokio::select! {
        ended = old.child.wait() => {
            // Any other end is no hand-over: then the new one has to show that it serves.
            let is_replaced = ended.is_ok_and(|status| status.success());
            let ready = if is_replaced { Ok(()) } else { role.ready(&mut new).await };
            (Some(new), ready)
        }
        status = new.child.wait() => {
            let how = status.map_or_else(|e| e.to_string(), |s| s.to_string());
            let error = anyhow::anyhow!("the new one ended ({how}) and the old one goes on\n{}", last_lines(&role.log));
            (Some(old), Err(error))
        }
        order = orders.recv() => {
            if let Some(Order::Upgrade(second)) = order {
                let _ = second.send(Err("an upgrade is under way".to_owned()));
            }
            new.end().await;
            old.end().await;
            (None, Err(anyhow::anyhow!("everything was stopped meanwhile")))
        }
        () = tokio::time::sleep(UPGRADE_WITHIN) => {
            let _ = new.child.kill().await;
            let seconds = UPGRADE_WITHIN.as_secs();
            let error = anyhow::anyhow!("the new one was not done within {seconds} s and the old one goes on\n{}", last_lines(&role.log));
            (Some(old), Err(error))
        }
    }
}

/// The end of a log, for an error.
pub(super) fn last_lines(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(6).collect();
    let lines: Vec<String> = lines.into_iter().rev().map(|l| format!("  | {l}")).collect();
    format!("{}\n  hint: the whole log is {}", lines.join("\n"), path.display())
}
