//! Turning a model that runs in Python into a graph, where the graph can be shown to answer alike.
//!
//! The converters are Python's, and so is the model: both run in an environment of the model's own requirements, inside the
//! fence that holds models in. What comes out is a graph with what was seen of it beside the model, or the reason why there is none.

mod rows;

pub use rows::Rows;

use crate::AgentError;
use crate::gates::confine::{Confinement, inherited};
use crate::gates::program::{ended, prepare};
use crate::python::Wanted;
use lockgate_core::release::{Manifest, Optimised, Runtime};
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::process::Command;

/// The converters, beside the model's own packages.
const TOOLS: &str = "skl2onnx==1.20.0\nonnxmltools==1.16.0\nonnx==1.23.2\nonnxruntime==1.32.0\nprotobuf<7\n";

/// What runs there. The shim is read for what it says of a model's inputs and answers, so that what is compared is what is served.
const FILES: [(&str, &str); 8] = [
    ("main.py", include_str!("../../../../python/optimise/main.py")),
    ("boosted.py", include_str!("../../../../python/optimise/boosted.py")),
    ("comparison.py", include_str!("../../../../python/optimise/comparison.py")),
    ("graph.py", include_str!("../../../../python/optimise/graph.py")),
    ("original.py", include_str!("../../../../python/optimise/original.py")),
    ("rows.py", include_str!("../../../../python/optimise/rows.py")),
    ("source.py", include_str!("../../../../python/optimise/source.py")),
    ("shim.py", include_str!("../../../../python/shim.py")),
];

/// How long converting and comparing may take.
const LIMIT: Duration = Duration::from_secs(900);

/// Libraries that would start a thread for each core.
const THREADS: [&str; 4] =
    ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"];

/// What is to be converted, and where.
#[derive(Debug)]
pub struct Job<'a> {
    /// What the release would be without a graph.
    pub manifest: &'a Manifest,
    /// The folder with its files.
    pub files: &'a Path,
    /// A folder that nobody else uses; what is needed for a moment lies there.
    pub work: &'a Path,
    /// Where Python environments are kept.
    pub venvs: &'a Path,
    /// What the model's code may not read.
    pub hidden: &'a [PathBuf],
    /// The largest difference between two numbers, absolute and relative.
    pub tolerance: f64,
    /// The rows to compare on.
    pub rows: &'a [Rows],
}

/// What came of it.
#[derive(Debug)]
pub enum Outcome {
    /// A graph that answers alike.
    Graph {
        /// Its bytes.
        bytes: Vec<u8>,
        /// What was seen of it beside the model.
        proof: Box<Optimised>,
    },
    /// The model stays in Python, and why.
    Stays(String),
}

/// What the converter says.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Said {
    Equal {
        rows: BTreeMap<String, u64>,
        refused: u64,
        largest: f64,
        numbers: String,
        versions: BTreeMap<String, String>,
    },
    Stays {
        why: String,
    },
}

/// Converts a model and compares the graph with it. `say` is told what takes time.
///
/// # Errors
/// Where a folder can't be written, a program not be started, or a package registry not be reached. A model that can't be
/// converted is no error.
pub async fn optimise(job: &Job<'_>, say: &(dyn Fn(&str) + Sync)) -> Result<Outcome, AgentError> {
    let Runtime::Python { requirements, python, .. } = &job.manifest.runtime else {
        return Ok(Outcome::Stays(format!(
            "it is no model in Python: it is served by {}",
            job.manifest.runtime.words()
        )));
    };
    let tmp = job.work.join("tmp");
    std::fs::create_dir_all(&tmp).map_err(|e| AgentError::io("make the folder", &tmp, e))?;
    lay_out(job, requirements)?;
    let wanted = match Wanted::of_release(&job.work.join("requirements.txt"), python) {
        Err(AgentError::Gate(why)) => return Ok(Outcome::Stays(why)),
        other => other?,
    };
    let outer = Confinement::new(job.hidden).read(job.work);
    let environment = match wanted.make(job.venvs, say, Some(&outer)).await {
        // The converters and the model's own packages may not fit each other.
        Err(AgentError::Gate(why)) => return Ok(Outcome::Stays(why)),
        other => other?,
    };
    say("converting the model, and comparing what it answers");
    let said = run(job, &environment, outer.read(job.files), &tmp).await?;
    Ok(match said {
        Said::Stays { why } => Outcome::Stays(why),
        Said::Equal { rows, refused, largest, numbers, versions } => {
            let path = job.work.join("model.onnx");
            let bytes = std::fs::read(&path).map_err(|e| AgentError::io("read", &path, e))?;
            let used = job.rows.iter().filter(|r| rows.contains_key(&r.source));
            let data = used.map(|r| (r.source.clone(), r.digest)).collect();
            let original = job.manifest.runtime.clone();
            let tolerance = job.tolerance;
            let proof = Optimised { original, tolerance, largest, rows, refused, numbers, data, versions };
            Outcome::Graph { bytes, proof: Box::new(proof) }
        }
    })
}

/// The programs, what they are to do, and the requirements.
fn lay_out(job: &Job<'_>, requirements: &str) -> Result<(), AgentError> {
    let write = |name: &str, bytes: &[u8]| {
        let path = job.work.join(name);
        std::fs::write(&path, bytes).map_err(|e| AgentError::io("write", &path, e))
    };
    for (name, text) in FILES {
        write(name, text.as_bytes())?;
    }
    let from = job.files.join(requirements);
    let own = std::fs::read_to_string(&from).map_err(|e| AgentError::io("read", &from, e))?;
    write("requirements.txt", format!("{}\n{TOOLS}", own.trim_end()).as_bytes())?;
    if let Ok(constraints) = std::fs::read(from.with_file_name("constraints.txt")) {
        write("constraints.txt", &constraints)?;
    }
    let order = json!({
        "model": job.files,
        "shim": job.work.join("shim.py"),
        "tolerance": job.tolerance,
        "columns": job.manifest.feature_schema.inputs,
        "rows": job.rows,
    });
    write("job.json", order.to_string().as_bytes())
}

/// Runs the converter in its fence.
async fn run(job: &Job<'_>, environment: &Path, outer: Confinement, tmp: &Path) -> Result<Said, AgentError> {
    let python = environment.join("bin/python");
    let mut command = Command::new(&python);
    command.args(["-I", "-B"]).arg(job.work.join("main.py")).arg(job.work).current_dir(job.work);
    command.env_clear().envs(inherited()).env("HOME", job.work).env("MLFLOW_DISABLE_TELEMETRY", "true");
    command.envs(THREADS.map(|name| (name, "1")));
    prepare(&mut command);
    let mut inside = outer.read(environment).python(&python).write(job.work).tmp(tmp).without_tcp();
    inside = crate::python::cache().iter().fold(inside, |i, cache| i.read(cache));
    let failed = |e: std::io::Error| AgentError::Gate(format!("can't run the converter: {e}"));
    let (child, held) = inside.spawn(command).await.map_err(failed)?;
    let ended = ended(child, LIMIT).await.map_err(failed)?;
    let stays = |why: String| Ok(Said::Stays { why: format!("{why}{}", last_words(&ended.err)) });
    let Some(status) = ended.status else {
        return stays(format!("the converter took longer than {} s", LIMIT.as_secs()));
    };
    if !held.remark().is_empty() {
        tracing::warn!("the converter: {}", held.remark().trim());
    }
    match std::fs::read(job.work.join("result.json")) {
        Ok(text) if status.success() => Ok(serde_json::from_slice(&text)?),
        // It may have been killed for its memory, or by a fault in a library.
        _ => stays(format!("the converter ended without a result ({status})")),
    }
}

fn last_words(err: &[u8]) -> String {
    let text = String::from_utf8_lossy(err);
    let last = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
    if last.is_empty() {
        String::new()
    } else {
        format!(": {}", last.trim().chars().take(300).collect::<String>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_converters_two_answers_are_told_apart() {
        let read = |text: &str| serde_json::from_str::<Said>(text);
        let equal = r#"{"rows": {"golden set": 3}, "refused": 0, "largest": 1e-9, "numbers": "as doubles", "versions": {}}"#;
        assert!(matches!(read(equal).unwrap(), Said::Equal { rows, .. } if rows["golden set"] == 3));
        assert!(matches!(read(r#"{"why": "no"}"#).unwrap(), Said::Stays { why } if why == "no"));
        assert!(read(r#"{"rows": {"golden set": 3}}"#).is_err(), "half an answer is none");
        assert_eq!(last_words(b"Traceback\nSegmentation fault\n\n"), ": Segmentation fault");
        assert_eq!(last_words(b""), "");
    }
}
