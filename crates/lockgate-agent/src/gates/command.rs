//! The `command` gate: a program in a clean checkout of the release's code. Its exit code is the verdict.

use super::{Checked, Context};
use crate::AgentError;
use lockgate_core::gate::{Input, Outcome};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;

/// The largest archive of code that is unpacked.
const ARCHIVE_LIMIT: u64 = 1 << 30;

/// How much of a program's output is kept: its end is what tells.
const LOG_LIMIT: usize = 1 << 20;

pub(super) async fn run(context: &Context<'_>, run: &str, timeout_ms: u64) -> Result<Checked, AgentError> {
    let code = context.release.manifest.code.as_ref().ok_or_else(|| {
        AgentError::Gate("the release has no code to run this in; make it in a Git repository".to_owned())
    })?;
    let folder = context.work.join("checkout");
    checkout(context, &code.archive, &folder).await?;
    // A test suite takes all cores that it finds; the environment's own traffic comes first.
    let mut command = Command::new("nice");
    command.args(["-n", "10", "sh", "-c"]).arg(run).current_dir(&folder);
    if let Some(requirements) = &context.plan.python {
        let environment = crate::python::ensure(&context.venvs, &folder.join(requirements), &|_| {}).await?;
        crate::python::activate(&environment, |name, value| {
            command.env(name, value);
        });
    }
    command
        .envs(&context.plan.revision.vars)
        .env("LOCKGATE_ENVIRONMENT", context.plan.environment.as_str())
        .env("LOCKGATE_RELEASE", context.plan.revision.release.to_string())
        .env("LOCKGATE_MODEL_DIR", &context.release.files)
        .env_remove("PYTHONDONTWRITEBYTECODE")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let mut child =
        command.spawn().map_err(|e| AgentError::Gate(format!("`{run}` can't be started: {e}")))?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let reading = tokio::spawn(async move { tokio::join!(tail(out), tail(err)) });
    let ended = tokio::time::timeout(Duration::from_millis(timeout_ms), child.wait()).await;
    if ended.is_err() {
        kill_group(&child);
        let _ = child.wait().await;
    }
    let (out, err) = reading.await.unwrap_or_default();
    let log = format!("$ {run}\n{}{}", String::from_utf8_lossy(&out), String::from_utf8_lossy(&err));
    let inputs = vec![Input { name: "code".to_owned(), digest: code.archive }];
    let last = log.trim_end().lines().last().unwrap_or_default().trim().to_owned();
    let (outcome, summary) = match ended {
        Err(_) => (Outcome::Fail, format!("`{run}` took longer than {} s", timeout_ms / 1000)),
        Ok(Err(e)) => return Err(AgentError::Gate(format!("`{run}` can't be waited for: {e}"))),
        Ok(Ok(status)) => match status.code() {
            Some(0) => (Outcome::Pass, format!("`{run}` ended well: {last}")),
            Some(code) => (Outcome::Fail, format!("`{run}` ended with code {code}: {last}")),
            None => (Outcome::Error, format!("`{run}` was killed: {status}")),
        },
    };
    Ok(Checked { outcome, summary, measured: BTreeMap::new(), inputs, log: log.into_bytes() })
}

/// Lays out the release's code.
async fn checkout(
    context: &Context<'_>,
    archive: &lockgate_core::digest::Digest,
    folder: &Path,
) -> Result<(), AgentError> {
    context.fetch(archive).await?;
    let bytes = context.releases.blobs().read_verified(archive, ARCHIVE_LIMIT).await?;
    let _ = tokio::fs::remove_dir_all(folder).await;
    tokio::fs::create_dir_all(folder).await.map_err(|e| AgentError::io("make the folder", folder, e))?;
    let tar: PathBuf = context.work.join("code.tar");
    tokio::fs::write(&tar, &bytes).await.map_err(|e| AgentError::io("write", &tar, e))?;
    let output = Command::new("tar")
        .args(["--extract", "--no-same-owner", "--no-same-permissions", "--file"])
        .arg(&tar)
        .arg("--directory")
        .arg(folder)
        .output()
        .await
        .map_err(|e| AgentError::Gate(format!("`tar` can't be started: {e}")))?;
    if output.status.success() {
        return Ok(());
    }
    Err(AgentError::Gate(format!(
        "the code can't be unpacked: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    )))
}

/// Reads to the end and keeps the last part.
async fn tail(stream: Option<impl tokio::io::AsyncRead + Unpin>) -> Vec<u8> {
    let mut kept = Vec::new();
    let Some(mut stream) = stream else { return kept };
    let mut buffer = vec![0; 16 << 10];
    while let Ok(n) = stream.read(&mut buffer).await {
        if n == 0 {
            break;
        }
        kept.extend_from_slice(&buffer[..n]);
        if kept.len() > 2 * LOG_LIMIT {
            kept.drain(..kept.len() - LOG_LIMIT);
        }
    }
    let from = kept.len().saturating_sub(LOG_LIMIT);
    kept.split_off(from)
}

/// Kills a program with everything that it started.
fn kill_group(child: &tokio::process::Child) {
    let pid = child.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed()));
    if let Some(pid) = pid {
        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
    }
}
