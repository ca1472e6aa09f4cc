//! Running a program to its end, and nothing of it any longer.

use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};

/// How much of a program's output is kept: its end is what tells.
const LOG_LIMIT: usize = 1 << 20;

/// How long the output is read on after the program's end: something that it started may still hold the pipes.
const READ_ON: Duration = Duration::from_secs(5);

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// None where it took too long and was killed.
    pub(crate) status: Option<ExitStatus>,
    pub(crate) out: Vec<u8>,
    pub(crate) err: Vec<u8>,
}

/// A program's process group, which is killed when this is dropped.
struct Group(Option<rustix::process::Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}

/// Sets a command up for [`ended`]: no input, outputs that can be read, a process group of its own.
pub(crate) fn prepare(command: &mut Command) {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
}

/// Waits for the end of a program that was started as [`prepare`] says. Whatever it leaves running in its group is killed, at
/// its end, after `within`, and where nobody waits any more.
///
/// # Errors
/// Where it can't be waited for.
pub(crate) async fn ended(mut child: Child, within: Duration) -> std::io::Result<Ended> {
    let group = Group(child.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed())));
    let (out, err) = (Tail::default(), Tail::default());
    let mut reading = tokio::task::JoinSet::new();
    reading.spawn(out.clone().read(child.stdout.take()));
    reading.spawn(err.clone().read(child.stderr.take()));
    let status = tokio::time::timeout(within, child.wait()).await;
    drop(group);
    let status = match status {
        Ok(status) => Some(status?),
        Err(_) => {
            let _ = child.wait().await;
            None
        }
    };
    let _ = tokio::time::timeout(READ_ON, async { while reading.join_next().await.is_some() {} }).await;
    Ok(Ended { status, out: out.take(), err: err.take() })
}

/// The last part of what was read so far.
#[derive(Debug, Clone, Default)]
struct Tail(Arc<Mutex<Vec<u8>>>);

impl Tail {
    async fn read(self, stream: Option<impl tokio::io::AsyncRead + Unpin>) {
        let Some(mut stream) = stream else { return };
        let mut buffer = vec![0; 16 << 10];
        while let Ok(n @ 1..) = stream.read(&mut buffer).await {
            let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            kept.extend_from_slice(&buffer[..n]);
            if kept.len() > 2 * LOG_LIMIT {
                let excess = kept.len() - LOG_LIMIT;
                kept.drain(..excess);
            }
        }
    }

    fn take(&self) -> Vec<u8> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let from = kept.len().saturating_sub(LOG_LIMIT);
        kept.split_off(from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn shell(text: &str) -> Child {
        let mut command = Command::new("sh");
        command.args(["-c", text]);
        prepare(&mut command);
        command.spawn().unwrap()
    }

    fn lives(pid: &[u8]) -> bool {
        let pid = String::from_utf8_lossy(pid);
        std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).is_ok_and(|s| !s.contains(") Z "))
    }

    async fn dies(pid: &[u8]) {
        let begun = Instant::now();
        while lives(pid) {
            assert!(begun.elapsed() < Duration::from_secs(5), "{pid:?} still runs");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn what_a_program_leaves_running_neither_holds_its_end_up_nor_outlives_it() {
        let begun = Instant::now();
        let ended = ended(shell("sleep 300 & echo $!"), Duration::from_secs(60)).await.unwrap();
        assert!(ended.status.unwrap().success());
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
        dies(&ended.out).await;
    }

    #[tokio::test]
    async fn a_process_that_left_the_group_and_holds_the_pipes_is_not_waited_for() {
        let begun = Instant::now();
        let ended = ended(shell("setsid sleep 20 & echo well"), Duration::from_secs(60)).await.unwrap();
        assert!(ended.status.unwrap().success());
        assert_eq!(ended.out, b"well\n");
        assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn time_runs_out_for_the_whole_group() {
        let ended = ended(shell("sleep 300 & echo $!; wait"), Duration::from_millis(300)).await.unwrap();
        assert!(ended.status.is_none());
        dies(&ended.out).await;
    }

    #[tokio::test]
    async fn where_nobody_waits_any_more_the_group_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        let child = shell(&format!("sleep 300 & echo $! > {}; wait", file.display()));
        let waiting = ended(child, Duration::from_secs(60));
        let _ = tokio::time::timeout(Duration::from_millis(500), waiting).await;
        dies(&std::fs::read(&file).unwrap()).await;
    }
}
