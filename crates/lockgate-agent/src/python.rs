//! Python environments for gates and pipelines: made by `uv` from a requirements file, once for each content.

use crate::AgentError;
use crate::gates::confine::{Confinement, inherited_by_installer};
use crate::gates::program::{ended, prepare};
use lockgate_core::digest::Digest;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::process::Command;

/// The version of `uv` that is fetched where none is installed.
const UV: &str = "uv==0.9.30";

/// The file in an environment that says that it is whole.
const COMPLETE: &str = ".lockgate-complete";

/// What `uv` says where it can't reach a package registry.
const UNREACHABLE: [&str; 4] =
    ["error sending request", "dns error", "operation timed out", "Connection reset"];

/// How long `uv` may take to say which version it is, and an environment to be made.
const QUICK: Duration = Duration::from_secs(120);

/// How long packages may take to be fetched, built and installed.
const INSTALL: Duration = Duration::from_secs(1200);

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
    Wanted::of_code(requirements)?.make(dir, say, None).await
}

/// The same for a release's own requirements, whose packages may run code as they are built: they are installed in
/// `confinement`, with nothing more than the new environment and `uv`'s cache.
pub(crate) async fn ensure_confined(
    dir: &Path,
    requirements: &Path,
    confinement: &Confinement,
) -> Result<PathBuf, AgentError> {
    Wanted::of_code(requirements)?.make(dir, &|_| {}, Some(confinement)).await
}

/// An environment as something asks for it.
#[derive(Debug)]
pub(crate) struct Wanted {
    requirements: PathBuf,
    /// What is in it, whoever asks: environments are kept by it.
    content: Digest,
    /// The version of Python, `3.11`; any where it isn't said.
    python: Option<String>,
}

/// Environments are made one after another: two of the same content would be made in the same place.
static MAKING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

impl Wanted {
    fn of_code(requirements: &Path) -> Result<Self, AgentError> {
        let text = std::fs::read(requirements).map_err(|e| AgentError::io("read", requirements, e))?;
        Ok(Self { requirements: requirements.to_owned(), content: Digest::of(&text), python: None })
    }

    /// The environment of a release, whose packages are compiled as they are installed: nothing may write there later.
    pub(crate) fn of_release(requirements: &Path, version: &str) -> Result<Self, AgentError> {
        let text = std::fs::read(requirements).map_err(|e| AgentError::io("read", requirements, e))?;
        only_packages(&text)?;
        // MLflow writes one beside it, which the requirements may name.
        let constraints = std::fs::read(requirements.with_file_name("constraints.txt")).unwrap_or_default();
        let python = version.split('.').take(2).collect::<Vec<_>>().join(".");
        let content = Digest::of_parts(&[b"release", &text, &constraints, python.as_bytes()]);
        Ok(Self { requirements: requirements.to_owned(), content, python: Some(python) })
    }

    fn place(&self, dir: &Path) -> PathBuf {
        dir.join(&self.content.hex()[..16])
    }

    /// The environment below `dir`, where it is there.
    pub(crate) fn made(&self, dir: &Path) -> Option<PathBuf> {
        let environment = self.place(dir);
        environment.join(COMPLETE).is_file().then_some(environment)
    }

    /// Makes it below `dir` where it isn't there yet, in `confinement`.
    pub(crate) async fn ensure(&self, dir: &Path, confinement: &Confinement) -> Result<PathBuf, AgentError> {
        self.make(dir, &|_| {}, Some(confinement)).await
    }

    /// The same; `say` is told what takes time, and without `confinement` nothing holds the installer in.
    pub(crate) async fn make(
        &self,
        dir: &Path,
        say: &(dyn Fn(&str) + Sync),
        confinement: Option<&Confinement>,
    ) -> Result<PathBuf, AgentError> {
        let _alone = MAKING.lock().await;
        if let Some(environment) = self.made(dir) {
            return Ok(environment);
        }
        let environment = self.place(dir);
        std::fs::create_dir_all(dir).map_err(|e| AgentError::io("make the folder", dir, e))?;
        let uv = uv(dir, say).await?;
        say(&format!("making the Python environment for {}", self.requirements.display()));
        // What an interrupted attempt left is made anew.
        let mut venv = Command::new(&uv);
        venv.args(["venv", "--quiet", "--clear", "--no-project"]);
        venv.args(self.python.iter().flat_map(|version| ["--python", version])).arg(&environment);
        run(venv, "make a Python environment", QUICK, None).await.map_err(|e| self.without_python(e))?;
        let mut install = Command::new(&uv);
        install
            .args(["pip", "install", "--quiet", "--python"])
            .arg(environment.join("bin/python"))
            .arg("-r")
            .arg(&self.requirements);
        if self.python.is_some() {
            install.arg("--compile-bytecode");
        }
        if confinement.is_some() {
            // What builds a package is code of whoever wrote the requirements, and could change what others install after it.
            install.arg("--no-build");
            // A folder that it may read: `uv` looks there for its settings.
            install.current_dir(&environment);
        }
        let inside = confinement.map(|outer| installing(outer, &environment, &uv));
        run(install, "install the packages of the requirements file", INSTALL, inside.as_ref()).await?;
        let done = environment.join(COMPLETE);
        std::fs::write(&done, b"").map_err(|e| AgentError::io("write", &done, e))?;
        Ok(environment)
    }

    /// Says what to do where the machine lacks the Python that is wanted.
    fn without_python(&self, error: AgentError) -> AgentError {
        match (&self.python, error) {
            (Some(version), AgentError::Gate(words)) => AgentError::Gate(format!(
                "the model was made with Python {version}, and this machine has none that can be used; install it there \
                 (`uv python install {version}`), or log the model again with another. {words}"
            )),
            (_, error) => error,
        }
    }
}

/// Refuses requirements that lead to other files: what those hold is not part of the environment's name.
fn only_packages(requirements: &[u8]) -> Result<(), AgentError> {
    for line in String::from_utf8_lossy(requirements).lines().map(str::trim) {
        let words: Vec<&str> = line.split([' ', '=', '\t']).filter(|word| !word.is_empty()).collect();
        let own = matches!(words.as_slice(), ["-c" | "--constraint", "constraints.txt"]);
        let leads = line.starts_with(['-', '.', '/'])
            && !line.starts_with("--index-url")
            && !line.starts_with("--extra-index-url")
            || line.contains("file:")
            || line.contains("@ .")
            || line.contains("@ /");
        if leads && !own {
            return Err(AgentError::Gate(format!(
                "the release's requirements have the line `{line}`, which leads to something else than a package of a registry; \
                 log the model with packages by name and version (pip_requirements)"
            )));
        }
    }
    Ok(())
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

/// What the installation of packages may reach beside what its gate may: the new environment, `uv`, its cache and its settings.
fn installing(gate: &Confinement, environment: &Path, uv: &Path) -> Confinement {
    let mut inside = gate.clone().write(environment).python(&environment.join("bin/python"));
    // It may be one of the agent's own tools, in the agent's own folder.
    if uv.is_absolute() {
        inside = inside.read(uv);
    }
    let [config, home] = ["XDG_CONFIG_HOME", "HOME"].map(|v| std::env::var_os(v).map(PathBuf::from));
    let config = config.or_else(|| home.clone().map(|h| h.join(".config")));
    let settings = config.map(|c| c.join("uv")).into_iter().chain(home.map(|h| h.join(".netrc")));
    inside = settings.fold(inside, |i, path| i.read(&path));
    let Some(cache) = cache() else { return inside };
    // Where it can't be made, uv says so.
    let _ = std::fs::create_dir_all(&cache);
    inside.write(&cache)
}

/// Where `uv` keeps packages.
pub(crate) fn cache() -> Option<PathBuf> {
    let named = |variable: &str| std::env::var_os(variable).filter(|v| !v.is_empty()).map(PathBuf::from);
    named("UV_CACHE_DIR")
        .or_else(|| named("XDG_CACHE_HOME").map(|dir| dir.join("uv")))
        .or_else(|| named("HOME").map(|dir| dir.join(".cache/uv")))
}

async fn uv(dir: &Path, say: &(dyn Fn(&str) + Sync)) -> Result<PathBuf, AgentError> {
    let mut version = Command::new("uv");
    version.arg("--version");
    if run(version, "ask uv for its version", QUICK, None).await.is_ok() {
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
    run(
        venv,
        "make a Python environment (needs Python 3 with venv: apt-get install python3-venv)",
        QUICK,
        None,
    )
    .await?;
    let mut pip = Command::new(tools.join("bin/pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check", UV]);
    run(pip, "install uv", INSTALL, None).await?;
    Ok(uv)
}

async fn run(
    mut command: Command,
    what: &str,
    within: Duration,
    confinement: Option<&Confinement>,
) -> Result<(), AgentError> {
    if confinement.is_some() {
        command.env_clear().envs(inherited_by_installer());
    }
    command.env("UV_PYTHON_DOWNLOADS", "never").env("UV_NO_PROGRESS", "1");
    prepare(&mut command);
    let started = match confinement {
        Some(confinement) => confinement.spawn(command).await.map(|(child, _)| child),
        None => command.spawn(),
    };
    let child = started.map_err(|e| AgentError::Gate(format!("can't {what}: {e}")))?;
    let ended = ended(child, within).await.map_err(|e| AgentError::Gate(format!("can't {what}: {e}")))?;
    let Some(status) = ended.status else {
        let seconds = within.as_secs();
        return Err(AgentError::Gate(format!("can't {what}: it took longer than {seconds} s")));
    };
    if status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&ended.err);
    let last: Vec<&str> = said.trim().lines().rev().take(12).collect();
    let last: Vec<&str> = last.into_iter().rev().collect();
    let words = format!("can't {what}:\n{}", last.join("\n"));
    // A registry that can't be reached is not the fault of what is installed.
    Err(if UNREACHABLE.iter().any(|sign| said.contains(sign)) {
        AgentError::Worker(words)
    } else {
        AgentError::Gate(words)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_share_an_environment_where_packages_and_python_are_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("requirements.txt");
        std::fs::write(&file, "mlflow-skinny==3.17.2\n").unwrap();
        let place = |version: &str| Wanted::of_release(&file, version).unwrap().place(dir.path());
        let first = place("3.11.7");
        assert_eq!(first, place("3.11.9"), "one Python 3.11 is as good as another");
        assert_ne!(first, place("3.12.1"));
        assert_ne!(first, Wanted::of_code(&file).unwrap().place(dir.path()), "a gate's is another");
        assert_eq!(Wanted::of_release(&file, "3.11.7").unwrap().made(dir.path()), None);
        std::fs::write(dir.path().join("constraints.txt"), "numpy<2\n").unwrap();
        assert_ne!(first, place("3.11.7"));
        for line in [
            "-r more.txt",
            "-e .",
            "./wheels/x.whl",
            "--find-links wheels",
            "x @ file:///tmp/x.whl",
            "-c pins.txt",
        ] {
            std::fs::write(&file, format!("numpy==2.0\n{line}\n")).unwrap();
            let refused = Wanted::of_release(&file, "3.11.7").unwrap_err().to_string();
            assert!(refused.contains(line), "{refused}");
        }
        std::fs::write(&file, "numpy==2.0\n-c constraints.txt\n").unwrap();
        let wanted = Wanted::of_release(&file, "3.11.7").unwrap();
        let error = wanted.without_python(AgentError::Gate("no interpreter".to_owned())).to_string();
        assert!(
            error.contains("made with Python 3.11") && error.contains("uv python install 3.11"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn the_agent_s_own_uv_can_be_started_for_a_gate() {
        let home = tempfile::tempdir().unwrap();
        let tools = home.path().join("venvs/tools/bin");
        std::fs::create_dir_all(&tools).unwrap();
        let uv = tools.join("uv");
        std::fs::copy("/bin/true", &uv).unwrap();
        let gate = Confinement::new(&[home.path().to_owned()]);
        let inside = installing(&gate, &home.path().join("venvs/new"), &uv);
        run(Command::new(&uv), "install", QUICK, Some(&inside)).await.unwrap();
    }
}
