//! The `command` gate: a program in a clean checkout of the release's code. Its exit code is the verdict.
//!
//! That code is not trusted yet, which is why there is a gate: it runs [confined](super::confine), as do the installation of the
//! packages that it asks for and the unpacking of its archive.

use super::confine::{self, Confinement};
use super::program::{ended, prepare};
use super::{Checked, Context};
use crate::AgentError;
use lockgate_core::gate::{Input, Outcome};
use lockgate_core::plan::Smoke;
use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::process::Command;

/// The largest archive of code that is unpacked.
const ARCHIVE_LIMIT: u64 = 1 << 30;

/// How long unpacking may take.
const UNPACK: Duration = Duration::from_secs(300);

/// How a smoke test reaches the release.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Preview<'a> {
    /// Everything below this address goes to the release.
    pub(crate) address: &'a str,
    /// The same as a header's value, for protocols without paths.
    pub(crate) token: &'a str,
    /// The gateway itself.
    pub(crate) gateway: &'a str,
}

pub(super) async fn run(context: &Context<'_>, run: &str, timeout_ms: u64) -> Result<Checked, AgentError> {
    program(context, run, timeout_ms, Vec::new()).await
}

/// Runs a smoke test as a gate's program is run.
pub(super) async fn smoke(
    context: &Context<'_>,
    smoke: &Smoke,
    preview: Preview<'_>,
) -> Result<Checked, AgentError> {
    let own = [
        ("LOCKGATE_PREVIEW_URL", preview.address),
        ("LOCKGATE_PREVIEW_TOKEN", preview.token),
        ("LOCKGATE_GATEWAY", preview.gateway),
        ("LOCKGATE_MODEL", context.plan.model.as_str()),
    ];
    let own = own.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    program(context, &smoke.run, smoke.timeout_ms, own).await
}

async fn program(
    context: &Context<'_>,
    run: &str,
    timeout_ms: u64,
    more: Vec<(String, String)>,
) -> Result<Checked, AgentError> {
    let code = context.release.manifest.code.as_ref().ok_or_else(|| {
        AgentError::Gate("the release has no code to run this in; make it in a Git repository".to_owned())
    })?;
    context.fetch(&code.archive).await?;
    let archive = context.releases.blobs().read_verified(&code.archive, ARCHIVE_LIMIT).await?;
    let place = Place::new(&context.venvs, &context.work, &context.release.files)?;
    place.unpack(&archive).await?;
    let environment = match &context.plan.python {
        Some(requirements) => Some(place.python(requirements).await?),
        None => None,
    };
    let vars = context.plan.revision.vars.iter().map(|(k, v)| (k.clone(), v.clone()));
    let own = [
        ("LOCKGATE_ENVIRONMENT".to_owned(), context.plan.environment.to_string()),
        ("LOCKGATE_RELEASE".to_owned(), context.plan.revision.release.to_string()),
    ];
    let within = Duration::from_millis(timeout_ms);
    let vars = vars.chain(own).chain(more);
    let (outcome, summary, log) = place.run(run, environment.as_deref(), vars, within).await?;
    let inputs = vec![Input { name: "code".to_owned(), digest: code.archive }];
    Ok(Checked { outcome, summary, measured: BTreeMap::new(), inputs, log: log.into_bytes() })
}

/// Where one gate's program runs.
struct Place {
    /// Its home, which nothing else uses; the checkout lies in it.
    work: PathBuf,
    checkout: PathBuf,
    venvs: PathBuf,
    files: PathBuf,
    _tmp: Tmp,
    confinement: Confinement,
}

impl Place {
    fn new(venvs: &Path, work: &Path, files: &Path) -> Result<Self, AgentError> {
        // What an earlier run left there is not to be trusted: a link in it could lead anywhere.
        if let Err(e) = std::fs::remove_dir_all(work)
            && e.kind() != std::io::ErrorKind::NotFound
        {
            return Err(AgentError::io("empty the folder", work, e));
        }
        let checkout = work.join("checkout");
        std::fs::create_dir_all(&checkout).map_err(|e| AgentError::io("make the folder", &checkout, e))?;
        let tmp = Tmp::new(work)?;
        let mut hidden = crate::fence::hidden().to_vec();
        hidden.extend(venvs.parent().map(Path::to_owned));
        let confinement = Confinement::new(&hidden).write(work).tmp(&tmp.0);
        let [work, venvs, files] = [work, venvs, files].map(Path::to_owned);
        Ok(Self { work, checkout, venvs, files, _tmp: tmp, confinement })
    }

    /// Lays out the release's code.
    async fn unpack(&self, archive: &[u8]) -> Result<(), AgentError> {
        let file = self.work.join("code.tar");
        tokio::fs::write(&file, archive).await.map_err(|e| AgentError::io("write", &file, e))?;
        let mut tar = Command::new("tar");
        tar.args(["--extract", "--no-same-owner", "--no-same-permissions", "--file"])
            .arg(&file)
            .arg("--directory")
            .arg(&self.checkout)
            .env_clear()
            .envs(confine::inherited());
        prepare(&mut tar);
        let broken = |why: String| AgentError::Gate(format!("the code can't be unpacked: {why}"));
        let (child, _) = self.confinement.spawn(tar).await.map_err(|e| broken(e.to_string()))?;
        let ended = ended(child, UNPACK).await.map_err(|e| broken(e.to_string()))?;
        match ended.status {
            Some(status) if status.success() => Ok(()),
            Some(_) => Err(broken(String::from_utf8_lossy(&ended.err).trim().to_owned())),
            None => Err(broken(format!("`tar` took longer than {} s", UNPACK.as_secs()))),
        }
    }

    /// Makes the Python environment that the code asks for, where it isn't there yet.
    async fn python(&self, requirements: &str) -> Result<PathBuf, AgentError> {
        let file = self.checkout.join(requirements);
        // A link could lead out of the checkout, to what the agent may read and the release may not.
        let real = file.canonicalize().map_err(|e| AgentError::Gate(format!("`{requirements}`: {e}")))?;
        let checkout =
            self.checkout.canonicalize().map_err(|e| AgentError::io("resolve", &self.checkout, e))?;
        if !real.starts_with(&checkout) {
            return Err(AgentError::Gate(format!("`{requirements}` leads out of the release's code")));
        }
        crate::python::ensure_confined(&self.venvs, &real, &self.confinement).await
    }

    /// Runs the program; says what follows from how it ended, and what it wrote.
    async fn run(
        &self,
        run: &str,
        python: Option<&Path>,
        vars: impl Iterator<Item = (String, String)>,
        within: Duration,
    ) -> Result<(Outcome, String, String), AgentError> {
        // A test suite takes all cores that it finds; the environment's own traffic comes first.
        let mut command = Command::new("nice");
        command.args(["-n", "10", "sh", "-c"]).arg(run).current_dir(&self.checkout);
        command.env_clear().envs(confine::inherited()).env("HOME", &self.work);
        let mut inside = self.confinement.clone().read(&self.files);
        if let Some(environment) = python {
            crate::python::activate(environment, |name, value| {
                command.env(name, value);
            });
            // Compiled files beside the environment would be one release's influence on the next one's tests.
            command.env("PYTHONPYCACHEPREFIX", self.work.join("pycache"));
            inside = inside.read(environment).python(&environment.join("bin/python"));
            inside = crate::python::cache().iter().fold(inside, |i, cache| i.read(cache));
        }
        command.envs(vars).env("LOCKGATE_MODEL_DIR", &self.files);
        prepare(&mut command);
        let started = inside.spawn(command).await;
        let (child, held) =
            started.map_err(|e| AgentError::Gate(format!("`{run}` can't be started: {e}")))?;
        let ended = ended(child, within).await;
        let ended = ended.map_err(|e| AgentError::Gate(format!("`{run}` can't be waited for: {e}")))?;
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        let said = format!("{}{}", text(&ended.out), text(&ended.err));
        let last = said.trim_end().lines().last().unwrap_or_default().trim();
        let (outcome, summary) = match ended.status {
            None => (Outcome::Fail, format!("`{run}` took longer than {} s", within.as_secs())),
            Some(status) => match status.code() {
                Some(0) => (Outcome::Pass, format!("`{run}` ended well: {last}")),
                Some(code) => (Outcome::Fail, format!("`{run}` ended with code {code}: {last}")),
                None => (Outcome::Error, format!("`{run}` was killed: {status}")),
            },
        };
        Ok((outcome, summary, format!("$ {run}\n{}{said}", held.remark())))
    }
}

/// A folder for what is needed for a moment: with a short path, as sockets lie in there too. Gone with the gate.
struct Tmp(PathBuf);

impl Tmp {
    fn new(work: &Path) -> Result<Self, AgentError> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let make = |path: PathBuf| {
            let made = std::fs::DirBuilder::new().mode(0o700).create(&path);
            made.map(|()| Self(path.clone())).map_err(|e| AgentError::io("make the folder", &path, e))
        };
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("lockgate-{}-{number}", std::process::id());
        // A fence may keep the agent itself from making new folders there.
        make(std::env::temp_dir().join(name)).or_else(|_| make(work.join("tmp")))
    }
}

impl Drop for Tmp {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An agent's folder with its secrets, and one gate's place in it.
    fn place(dir: &Path) -> Place {
        let home = dir.canonicalize().unwrap().join("env/production");
        let files = home.join("releases/r");
        for sub in ["work/pr_1-tests", "trust", "releases/r", "venvs"] {
            std::fs::create_dir_all(home.join(sub)).unwrap();
        }
        for name in ["key.pem", "token", "agent.db", "trust/dev.pem", "releases/r/model.onnx"] {
            std::fs::write(home.join(name), format!("content of {name}")).unwrap();
        }
        Place::new(&home.join("venvs"), &home.join("work/pr_1-tests"), &files).unwrap()
    }

    async fn run(place: &Place, text: &str) -> (Outcome, String) {
        let within = Duration::from_secs(60);
        let (outcome, _, log) = place.run(text, None, std::iter::empty(), within).await.unwrap();
        (outcome, log)
    }

    fn has_landlock() -> bool {
        !confine::words().contains("all that it can")
    }

    #[tokio::test]
    async fn a_gate_reads_its_code_and_model_but_not_its_agent_s_key_token_and_database() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path());
        let home = place.venvs.parent().unwrap().to_owned();
        let fine = "echo 1 > made && cat made $LOCKGATE_MODEL_DIR/model.onnx && echo 2 > $HOME/two \
            && echo 3 > $TMPDIR/three && echo $$ > /dev/null && ls /usr/bin > /dev/null && env";
        let (outcome, log) = run(&place, fine).await;
        assert_eq!(outcome, Outcome::Pass, "{log}");
        assert!(log.contains("content of releases/r/model.onnx"), "{log}");
        assert!(!log.contains("CARGO"), "only what is listed is inherited: {log}");
        if !has_landlock() {
            assert!(log.contains("no Landlock"), "{log}");
            return;
        }
        let mut tries = vec!["cat $HOME/../../key.pem".to_owned(), format!("ls {}", home.display())];
        tries.extend(
            ["key.pem", "token", "agent.db", "trust/dev.pem"]
                .map(|n| format!("cat {}", home.join(n).display())),
        );
        tries.push("ln -s ../../../key.pem link && cat link".to_owned());
        tries.push("ln $HOME/../../token $HOME/hard".to_owned());
        tries.push("echo poison > $LOCKGATE_MODEL_DIR/model.onnx".to_owned());
        tries.push(format!("cat /proc/{}/environ", std::process::id()));
        // Only root could try.
        tries.push("mknod disk b 254 0".to_owned());
        for text in tries {
            let (outcome, log) = run(&place, &text).await;
            assert_eq!(outcome, Outcome::Fail, "{log}");
            let refused = ["Permission denied", "Operation not permitted", "Invalid cross-device link"];
            assert!(refused.iter().any(|r| log.contains(r)), "{log}");
            assert!(!log.contains("content of"), "{log}");
        }
        // The agent itself is as free as before.
        assert_eq!(std::fs::read_to_string(home.join("key.pem")).unwrap(), "content of key.pem");
    }

    #[tokio::test]
    async fn a_gate_can_t_stop_its_agent() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path());
        if confine::words().contains("(Landlock)") {
            let (outcome, log) = run(&place, &format!("kill -0 {}", std::process::id())).await;
            // Landlock knows signals since Linux 6.12.
            let says_so = log.contains("in only in part");
            assert!(outcome == Outcome::Fail || says_so, "{log}");
        }
    }

    #[tokio::test]
    async fn what_a_gate_starts_in_the_background_neither_holds_it_up_nor_outlives_it() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path());
        let begun = std::time::Instant::now();
        let (outcome, log) = run(&place, "sleep 300 & echo $! > pid; echo done").await;
        assert_eq!(outcome, Outcome::Pass, "{log}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        let pid = std::fs::read_to_string(place.checkout.join("pid")).unwrap();
        let lives = || {
            std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).is_ok_and(|s| !s.contains(") Z "))
        };
        while lives() {
            assert!(begun.elapsed() < Duration::from_secs(10), "{pid} still runs");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn links_that_an_earlier_run_left_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let first = place(dir.path());
        let home = first.venvs.parent().unwrap().to_owned();
        let (outcome, log) = run(&first, "ln -s ../../key.pem $HOME/code.tar").await;
        assert_eq!(outcome, Outcome::Pass, "{log}");
        let again = Place::new(&first.venvs, &first.work, &first.files).unwrap();
        let _ = again.unpack(b"no archive").await;
        assert_eq!(std::fs::read_to_string(home.join("key.pem")).unwrap(), "content of key.pem");
        std::os::unix::fs::symlink("../../../token", again.checkout.join("requirements.txt")).unwrap();
        let error = again.python("requirements.txt").await.unwrap_err().to_string();
        assert!(error.contains("leads out of the release's code"), "{error}");
    }

    #[tokio::test]
    async fn tests_run_in_a_python_environment_that_they_can_t_change() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path());
        let python = place.venvs.join("plain");
        let made =
            std::process::Command::new("python3").args(["-m", "venv", "--without-pip"]).arg(&python).status();
        if !has_landlock() || !made.is_ok_and(|s| s.success()) {
            return;
        }
        let test = r"
import multiprocessing, os, sqlite3, sys, tempfile, unittest
class It(unittest.TestCase):
    def test_it(self):
        with multiprocessing.Manager() as manager, tempfile.NamedTemporaryFile():
            self.assertEqual(list(manager.list([1])), [1])
        for path in ['~/../../key.pem', '~/../../token', '~/../../trust/dev.pem']:
            with self.assertRaises(PermissionError):
                open(os.path.expanduser(path))
        with self.assertRaises(PermissionError):
            open(sys.prefix + '/lib/new.py', 'w')
";
        std::fs::write(place.checkout.join("test_it.py"), test).unwrap();
        let run = "python -m unittest -q && python -c 'import sys; print(sys.prefix)' && ls $HOME/pycache";
        let within = Duration::from_secs(120);
        let (outcome, _, log) = place.run(run, Some(&python), std::iter::empty(), within).await.unwrap();
        assert_eq!(outcome, Outcome::Pass, "{log}");
        assert!(log.contains("venvs/plain"), "{log}");
    }

    /// Needs `uv`, and no network: the package would bring its own builder along.
    #[tokio::test]
    async fn a_package_is_not_built_for_a_gate() {
        let uv = std::process::Command::new("uv").arg("--version").output();
        if !has_landlock() || !uv.is_ok_and(|o| o.status.success()) {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path());
        let package = place.checkout.join("package");
        std::fs::create_dir(&package).unwrap();
        let project = "[project]\nname = 'thief'\nversion = '1'\n\
             [build-system]\nrequires = []\nbuild-backend = 'thief'\nbackend-path = ['.']\n";
        std::fs::write(package.join("pyproject.toml"), project).unwrap();
        let ran = package.join("ran");
        std::fs::write(package.join("thief.py"), format!("open({:?}, 'w')", ran.display().to_string()))
            .unwrap();
        let wanted = format!("thief @ file://{}\n", package.display());
        std::fs::write(place.checkout.join("requirements.txt"), wanted).unwrap();
        let refused = place.python("requirements.txt").await.unwrap_err().to_string();
        assert!(refused.contains("Building source distributions is disabled"), "{refused}");
        assert!(!ran.exists());
    }
}
