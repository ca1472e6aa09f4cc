//! `run`: the pipeline's stages whose inputs changed, keyed by content, never by time stamps.
//!
//! A stage's key is the digest of its command, the contents of what it reads, its parameters' values and the Python
//! requirements. A finished stage is recorded under its key with the digests of what it wrote; those bytes are kept, so that
//! going back to an earlier state restores instead of running again.

mod outdated;

pub(crate) use outdated::{made_here, outdated};

use crate::cli;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::{Tone, span};
use anyhow::{Context as _, bail};
use lockgate_config::Project;
use lockgate_config::project::Stage;
use lockgate_core::clock::Millis;
use lockgate_core::digest::Digest;
use lockgate_core::release::Dataset;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Files that a release lists as data when a stage reads them.
const DATA: [&str; 8] = ["parquet", "csv", "jsonl", "feather", "arrow", "npz", "npy", "tsv"];

/// What a finished stage left.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Record {
    stage: String,
    key: Digest,
    parts: BTreeMap<String, String>,
    outs: BTreeMap<String, Digest>,
    seconds: f64,
    /// When it ended.
    #[serde(default)]
    ended: Millis,
}

/// One stage's outcome, for programs.
#[derive(Debug, Serialize)]
struct Outcome {
    stage: String,
    what: &'static str,
    why: String,
    seconds: f64,
}

struct Runner<'a> {
    ctx: &'a Context,
    project: &'a Project,
    dir: PathBuf,
    state: PathBuf,
    params: BTreeMap<String, String>,
    environment: Option<PathBuf>,
    server: String,
}

/// `run`
pub(crate) async fn run(ctx: &Context, args: &cli::Run) -> anyhow::Result<Exit> {
    let project = super::project::load(ctx)?;
    let stages = chosen(&project, &args.stages)?;
    let dir = ctx.project_dir()?;
    let state = ctx.state_dir()?.join("pipeline");
    std::fs::create_dir_all(state.join("bytes"))
        .with_context(|| format!("can't make {}", state.display()))?;
    std::fs::create_dir_all(state.join("logs")).with_context(|| format!("can't make {}", state.display()))?;
    let params = parameters(&args.param)?;
    let server = ctx.client()?.base().to_owned();
    let mut runner = Runner { ctx, project: &project, dir, state, params, environment: None, server };
    let mut outcomes = Vec::new();
    for stage in stages {
        let forced = args.force && (args.stages.is_empty() || args.stages.contains(&stage.name));
        let outcome =
            if args.explain { runner.explain(stage, forced)? } else { runner.stage(stage, forced).await? };
        outcomes.push(outcome);
    }
    let pending = args.explain && outcomes.iter().any(|o| o.what == "would run");
    ctx.out.show(&outcomes, || {
        let ran = outcomes.iter().filter(|o| o.what == "ran").count();
        match (args.explain, ran) {
            (true, _) => String::new(),
            (false, 0) => "nothing changed, so nothing was run\n".to_owned(),
            (false, n) => format!(
                "{n} of {} stages ran{}",
                outcomes.len(),
                crate::render::next(ctx.out, "lockgate release create MODEL")
            ),
        }
    })?;
    Ok(if pending { Exit::Pending } else { Exit::Done })
}

fn parameters(given: &[String]) -> anyhow::Result<BTreeMap<String, String>> {
    given
        .iter()
        .map(|text| {
            let (name, value) = text.split_once('=').with_context(|| format!("`{text}` is no NAME=VALUE"))?;
            Ok((name.to_owned(), value.to_owned()))
        })
        .collect()
}

/// The named stages with everything that they need, in order; all where none is named.
fn chosen<'a>(project: &'a Project, names: &[String]) -> anyhow::Result<Vec<&'a Stage>> {
    if project.pipeline.is_empty() {
        bail!(
            "lockgate.toml has no pipeline\n  hint: add a stage: [pipeline.train] run = \"python train.py\""
        );
    }
    let mut wanted: BTreeSet<&str> = BTreeSet::new();
    for name in names {
        if !project.pipeline.iter().any(|s| s.name == *name) {
            let all: Vec<&str> = project.pipeline.iter().map(|s| s.name.as_str()).collect();
            bail!("the pipeline has no stage `{name}`\n  hint: it has {}", all.join(", "));
        }
        wanted.insert(name);
    }
    // Stages stand in order, so one pass backwards finds everything that is needed.
    for stage in project.pipeline.iter().rev() {
        if wanted.contains(stage.name.as_str()) {
            wanted.extend(stage.after.iter().map(String::as_str));
        }
    }
    Ok(project.pipeline.iter().filter(|s| names.is_empty() || wanted.contains(s.name.as_str())).collect())
}

impl Runner<'_> {
    /// The stage's key and what it is made of.
    fn key(&self, stage: &Stage) -> anyhow::Result<(Digest, BTreeMap<String, String>)> {
        let mut parts = BTreeMap::from([("command".to_owned(), stage.run.clone())]);
        for dep in &stage.deps {
            let digest = digest_path(&self.dir.join(dep)).with_context(|| {
                format!("stage `{}` reads {dep}, which is not there\n  hint: correct its deps, or run the stage that writes it", stage.name)
            })?;
            parts.insert(format!("file {dep}"), digest.to_string());
        }
        for (name, value) in self.params_of(stage) {
            parts.insert(format!("parameter {name}"), value);
        }
        for (name, value) in &stage.env {
            parts.insert(format!("variable {name}"), value.clone());
        }
        if let Some(path) = &self.project.requirements {
            let digest = digest_path(&self.dir.join(path))
                .with_context(|| format!("the requirements file {path} is not there"))?;
            parts.insert("python requirements".to_owned(), digest.to_string());
        }
        Ok((Digest::of_json(&parts)?, parts))
    }

    /// Parameters: by `-p`, else by an environment variable of that name, else as the file says.
    fn params_of(&self, stage: &Stage) -> BTreeMap<String, String> {
        stage
            .params
            .iter()
            .filter_map(|(name, value)| {
                let given = self.params.get(name).cloned().or_else(|| std::env::var(name).ok());
                let said = match value {
                    serde_json::Value::Null => None,
                    serde_json::Value::String(text) => Some(text.clone()),
                    other => Some(other.to_string()),
                };
                given.or(said).map(|v| (name.clone(), v))
            })
            .collect()
    }

    fn record_path(&self, stage: &Stage, key: &Digest) -> PathBuf {
        self.state.join(format!("{}-{}.json", stage.name, &key.hex()[..16]))
    }

    fn recorded(&self, stage: &Stage, key: &Digest) -> Option<Record> {
        let text = std::fs::read_to_string(self.record_path(stage, key)).ok()?;
        serde_json::from_str::<Record>(&text).ok().filter(|r| r.key == *key)
    }

    /// Why a stage would run, compared with the last time it did.
    fn reason(&self, stage: &Stage, parts: &BTreeMap<String, String>) -> String {
        let last = std::fs::read_to_string(self.state.join(format!("{}.last", stage.name))).ok();
        let Some(last) = last.and_then(|text| serde_json::from_str::<Record>(&text).ok()) else {
            return "it has not run yet".to_owned();
        };
        let names: BTreeSet<&String> = parts.keys().chain(last.parts.keys()).collect();
        let changed: Vec<&str> =
            names.into_iter().filter(|n| parts.get(*n) != last.parts.get(*n)).map(String::as_str).collect();
        if changed.is_empty() {
            "what it wrote is gone".to_owned()
        } else {
            format!("{} changed", changed.join(", "))
        }
    }

    fn explain(&self, stage: &Stage, forced: bool) -> anyhow::Result<Outcome> {
        let outcome = |what, why: String| Outcome { stage: stage.name.clone(), what, why, seconds: 0.0 };
        let outcome = match self.key(stage) {
            Err(_) => outcome("would run", "what it reads is not there yet".to_owned()),
            Ok((key, parts)) => match self.recorded(stage, &key) {
                Some(_) if !forced => outcome("unchanged", "its inputs are as they were".to_owned()),
                _ if forced => outcome("would run", "you said so".to_owned()),
                _ => outcome("would run", self.reason(stage, &parts)),
            },
        };
        self.ctx.out.say(&format!("{}: {} ({})", outcome.stage, outcome.what, outcome.why));
        Ok(outcome)
    }

    async fn stage(&mut self, stage: &Stage, forced: bool) -> anyhow::Result<Outcome> {
        let begun = Instant::now();
        let (key, parts) = self.key(stage)?;
        let out = self.ctx.out;
        if let Some(record) = self.recorded(stage, &key).filter(|_| !forced)
            && let Some(restored) = self.restore(&record)?
        {
            let why = if restored > 0 {
                format!("restored {restored} files")
            } else {
                "its inputs are as they were".to_owned()
            };
            out.say(&format!("{}: {} ({why})", stage.name, out.mark(Tone::Faint, "unchanged")));
            return Ok(Outcome { stage: stage.name.clone(), what: "unchanged", why, seconds: 0.0 });
        }
        let why = if forced { "you said so".to_owned() } else { self.reason(stage, &parts) };
        if let (Some(path), None) = (&self.project.requirements, &self.environment) {
            let venvs = self.ctx.state_dir()?.join("venvs");
            let made =
                lockgate_agent::python::ensure(&venvs, &self.dir.join(path), &|text| out.say(text)).await?;
            self.environment = Some(made);
        }
        out.say(&format!("{}: {} ({why}): {}", stage.name, out.mark(Tone::Strong, "running"), stage.run));
        self.attempts(stage)?;
        let outs = self.keep(stage)?;
        let seconds = begun.elapsed().as_secs_f64();
        let ended = crate::world::system().0.now_ms();
        let record = Record { stage: stage.name.clone(), key, parts, outs, seconds, ended };
        let text = serde_json::to_vec_pretty(&record)?;
        lockgate_agent::write_private(&self.record_path(stage, &key), &text)?;
        lockgate_agent::write_private(&self.state.join(format!("{}.last", stage.name)), &text)?;
        out.say(&format!("{}: {} in {}", stage.name, out.mark(Tone::Good, "done"), span(seconds)));
        Ok(Outcome { stage: stage.name.clone(), what: "ran", why, seconds })
    }

    fn attempts(&self, stage: &Stage) -> anyhow::Result<()> {
        let mut left = stage.retries;
        loop {
            match self.execute(stage) {
                Ok(()) => return Ok(()),
                Err(error) if left == 0 => return Err(error),
                Err(error) => {
                    self.ctx.out.say(&format!("{}: {error}; trying again ({left} more)", stage.name));
                    left -= 1;
                }
            }
        }
    }

    fn execute(&self, stage: &Stage) -> anyhow::Result<()> {
        for path in &stage.outs {
            if let Some(parent) = self.dir.join(path).parent() {
                std::fs::create_dir_all(parent)
                    .with_context(|| format!("can't make {}", parent.display()))?;
            }
        }
        let log_path = self.state.join("logs").join(format!("{}.log", stage.name));
        let mut log = std::fs::File::create(&log_path)
            .with_context(|| format!("can't write {}", log_path.display()))?;
        let dev = self.project.environments.iter().find(|e| e.after.is_empty());
        // Training takes all cores that it finds; what serves on this machine comes first.
        let mut command = std::process::Command::new("nice");
        // Both streams go one way, so that the log keeps their order.
        command.args(["-n", "10", "sh", "-c"]).arg(format!("exec 2>&1\n{}", stage.run));
        command.current_dir(&self.dir).stdin(Stdio::null()).stdout(Stdio::piped());
        command
            .env("MLFLOW_TRACKING_URI", &self.server)
            .env("MLFLOW_DISABLE_TELEMETRY", "true")
            .env("PYTHONUNBUFFERED", "1");
        if let Some(dev) = dev {
            command.env("LOCKGATE_ENVIRONMENT", dev.name.as_str()).envs(&dev.vars);
        }
        command.envs(&stage.env).envs(self.params_of(stage));
        if let Some(environment) = &self.environment {
            lockgate_agent::python::activate(environment, |name, value| {
                command.env(name, value);
            });
            command.env_remove("PYTHONDONTWRITEBYTECODE");
        }
        let mut child =
            command.spawn().with_context(|| format!("stage `{}` can't be started", stage.name))?;
        let stream = child.stdout.take().context("the stage's output can't be read")?;
        let (out, name) = (self.ctx.out, stage.name.clone());
        let reader = std::thread::spawn(move || {
            for line in std::io::BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                let _ = writeln!(log, "{line}");
                out.say(&format!("{} {line}", out.mark(Tone::Faint, &format!("{name} |"))));
            }
        });
        let deadline = stage.timeout_ms.map(|ms| Instant::now() + Duration::from_millis(ms));
        let status = loop {
            if let Some(status) = child.try_wait().context("the stage can't be waited for")? {
                break Some(status);
            }
            if deadline.is_some_and(|d| Instant::now() > d) {
                // The shell's own children keep its output open, so they have to go, too.
                crate::processes::kill_tree(child.id());
                let _ = child.wait();
                break None;
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let _ = reader.join();
        let hint = format!("\n  hint: its log: lockgate logs stage {}", stage.name);
        match status {
            Some(status) if status.success() => Ok(()),
            Some(status) => bail!("stage `{}` failed: {status}{hint}", stage.name),
            None => bail!("stage `{}` took longer than its timeout{hint}", stage.name),
        }
    }

    /// Keeps what a stage wrote and says what it was.
    fn keep(&self, stage: &Stage) -> anyhow::Result<BTreeMap<String, Digest>> {
        let mut kept = BTreeMap::new();
        for out in &stage.outs {
            let path = self.dir.join(out);
            let files = files_below(&path);
            if files.is_empty() {
                bail!(
                    "stage `{}` ended well but did not write {out}\n  hint: correct its outs in lockgate.toml",
                    stage.name
                );
            }
            for file in files {
                let bytes =
                    std::fs::read(&file).with_context(|| format!("{} can't be read", file.display()))?;
                let digest = Digest::of(&bytes);
                let stored = self.state.join("bytes").join(digest.hex());
                if !stored.is_file() {
                    lockgate_agent::write_private(&stored, &bytes)?;
                }
                let name = file.strip_prefix(&self.dir).unwrap_or(&file).to_string_lossy().into_owned();
                kept.insert(name, digest);
            }
        }
        Ok(kept)
    }

    /// Puts what a stage wrote back where it differs. Nothing where some of its bytes are gone: then it must run again.
    fn restore(&self, record: &Record) -> anyhow::Result<Option<usize>> {
        let mut missing = Vec::new();
        for (name, digest) in &record.outs {
            let path = self.dir.join(name);
            if std::fs::read(&path).is_ok_and(|bytes| Digest::of(&bytes) == *digest) {
                continue;
            }
            match std::fs::read(self.state.join("bytes").join(digest.hex())) {
                Ok(bytes) if Digest::of(&bytes) == *digest => missing.push((path, bytes)),
                _ => return Ok(None),
            }
        }
        for (path, bytes) in &missing {
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)
                    .with_context(|| format!("can't make {}", parent.display()))?;
            }
            std::fs::write(path, bytes).with_context(|| format!("can't write {}", path.display()))?;
        }
        Ok(Some(missing.len()))
    }
}

/// The digest of a file, or of a folder's files with their names.
fn digest_path(path: &Path) -> anyhow::Result<Digest> {
    if path.is_dir() {
        let mut all = BTreeMap::new();
        for file in files_below(path) {
            let bytes = std::fs::read(&file).with_context(|| format!("{} can't be read", file.display()))?;
            all.insert(
                file.strip_prefix(path).unwrap_or(&file).to_string_lossy().into_owned(),
                Digest::of(&bytes),
            );
        }
        return Ok(Digest::of_json(&all)?);
    }
    let bytes = std::fs::read(path).with_context(|| format!("{} can't be read", path.display()))?;
    Ok(Digest::of(&bytes))
}

/// The file itself, or all files below a folder but what Python and tools leave there.
fn files_below(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let Ok(entries) = std::fs::read_dir(path) else { return Vec::new() };
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .map(|e| e.path())
        .filter(|p| {
            !p.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.') || n == "__pycache__")
        })
        .flat_map(|p| if p.is_dir() { files_below(&p) } else { vec![p] })
        .collect();
    found.sort();
    found
}

/// The data files that the pipeline's stages read: what a release lists as its data.
pub(crate) fn datasets(ctx: &Context) -> anyhow::Result<Vec<Dataset>> {
    let project = super::project::load(ctx)?;
    let dir = ctx.project_dir()?;
    let mut found: BTreeMap<String, Dataset> = BTreeMap::new();
    for dep in project.pipeline.iter().flat_map(|s| &s.deps) {
        for file in files_below(&dir.join(dep)) {
            let is_data = file.extension().and_then(|e| e.to_str()).is_some_and(|e| DATA.contains(&e));
            if is_data {
                let bytes =
                    std::fs::read(&file).with_context(|| format!("{} can't be read", file.display()))?;
                let name = file.strip_prefix(&dir).unwrap_or(&file).to_string_lossy().into_owned();
                found.insert(
                    name.clone(),
                    Dataset { name, size: bytes.len() as u64, sha256: Digest::of(&bytes) },
                );
            }
        }
    }
    Ok(found.into_values().collect())
}

/// The logs of all stages, as they ran last.
pub(crate) fn run_log(ctx: &Context) -> anyhow::Result<String> {
    let project = super::project::load(ctx)?;
    let mut text = String::new();
    for stage in &project.pipeline {
        if let Ok(log) = stage_log(ctx, &stage.name) {
            text.push_str(&format!("== stage {}\n{log}", stage.name));
        }
    }
    if text.is_empty() {
        bail!("no stage of the pipeline has run here yet\n  hint: lockgate run");
    }
    Ok(text)
}

/// The log of a stage's last run.
pub(crate) fn stage_log(ctx: &Context, stage: &str) -> anyhow::Result<String> {
    let path = ctx.state_dir()?.join("pipeline/logs").join(format!("{}.log", stage.replace('/', "_")));
    std::fs::read_to_string(&path)
        .with_context(|| format!("stage `{stage}` has no log yet: it has not run here"))
}
