//! Python environments for gates and pipelines: made by `uv` from a requirements file, once for each content.

use crate::AgentError;
use lockgate_core::digest::Digest;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use tokio::process::Command;

/// The version of `uv` that is fetched where none is installed.
const UV: &str = "uv==0.9.30";

/// Makes the environment for `requirements` below `dir` where it isn't there yet, and returns its folder. `say` is told what
/// takes time.
///
/// # Errors
/// Where Python is missing or a package can't be had, with the installer's last words.
pub async fn ensure(
    dir: &Path,
    requirements: &Path,
    say: &(dyn Fn(&str) + Sync),
) -> Result<PathBuf, AgentError> {
    let text = tokio::fs::read(requirements).await.map_err(|e| AgentError::io("read", requirements, e))?;
    let environment = dir.join(&Digest::of(&text).hex()[..16]);
    let done = environment.join(".lockgate-complete");
    if done.is_file() {
        return Ok(environment);
    }
    std::fs::create_dir_all(dir).map_err(|e| AgentError::io("make the folder", dir, e))?;
    let uv = uv(dir, say).await?;
    say(&format!("making the Python environment for {}", requirements.display()));
    // What an interrupted attempt left is made anew.
    let mut venv = Command::new(&uv);
    venv.args(["venv", "--quiet", "--clear", "--no-project"]).arg(&environment);
    run(venv, "make a Python environment").await?;
    let mut install = Command::new(&uv);
    install
        .args(["pip", "install", "--quiet", "--python"])
        .arg(environment.join("bin/python"))
        .arg("-r")
        .arg(requirements);
    run(install, "install the packages of the requirements file").await?;
    std::fs::write(&done, b"").map_err(|e| AgentError::io("write", &done, e))?;
    Ok(environment)
}

/// Names the variables that make a program use the environment. Python keeps its compiled files beside the environment, not
/// in the checkout: they would be new, untracked files there, and without them every start takes seconds longer.
pub fn activate(environment: &Path, mut set: impl FnMut(&str, &OsStr)) {
    let old = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::iter::once(environment.join("bin")).chain(std::env::split_paths(&old));
    set("PATH", &std::env::join_paths(dirs).unwrap_or(old));
    set("VIRTUAL_ENV", environment.as_os_str());
    set("PYTHONPYCACHEPREFIX", environment.join("pycache").as_os_str());
}

async fn uv(dir: &Path, say: &(dyn Fn(&str) + Sync)) -> Result<PathBuf, AgentError> {
    if Command::new("uv").arg("--version").output().await.is_ok_and(|o| o.status.success()) {
        return Ok(PathBuf::from("uv"));
    }
    let tools = dir.join("tools");
    let uv = tools.join("bin/uv");
    if uv.is_file() {
        return Ok(uv);
    }
    say("installing uv, which makes Python environments");
    let mut venv = Command::new("python3");
    venv.args(["-m", "venv"]).arg(&tools);
    run(venv, "make a Python environment (needs Python 3 with venv: apt-get install python3-venv)").await?;
    let mut pip = Command::new(tools.join("bin/pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check", UV]);
    run(pip, "install uv").await?;
    Ok(uv)
}

async fn run(mut command: Command, what: &str) -> Result<(), AgentError> {
    command.env("UV_PYTHON_DOWNLOADS", "never").env("UV_NO_PROGRESS", "1").stdin(std::process::Stdio::null());
    let output = command.output().await.map_err(|e| AgentError::Gate(format!("can't {what}: {e}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last: Vec<&str> = said.trim().lines().rev().take(12).collect();
    let last: Vec<&str> = last.into_iter().rev().collect();
    Err(AgentError::Gate(format!("can't {what}:\n{}", last.join("\n"))))
}
