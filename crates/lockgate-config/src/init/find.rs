//! What is in a repository.

use super::dvc::{self, DvcStage};
use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::path::Path;

/// What was found. All paths are relative, with `/`.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) project: String,
    /// Folders with an `MLmodel` file.
    pub(super) mlmodels: Vec<String>,
    /// Flavours that they name.
    pub(super) flavors: BTreeSet<String>,
    /// The name under which code registers a model.
    pub(super) registered: Option<String>,
    pub(super) dvc: Option<Vec<DvcStage>>,
    /// Whether there are tests that `pytest` would find, and in which folder.
    pub(super) tests: Option<String>,
    pub(super) notebooks: Vec<String>,
    pub(super) requirements: Option<String>,
    /// Other files that name packages.
    pub(super) other_requirements: Vec<String>,
    pub(super) training: Vec<String>,
    pub(super) data: Vec<String>,
    /// Whether there was more than was looked at.
    pub(super) cut: bool,
}

const DEEPEST: usize = 5;
const MOST_FILES: usize = 20_000;
const LARGEST_READ: u64 = 256 * 1024;
const SKIPPED: [&str; 10] = [
    "node_modules",
    "target",
    "venv",
    "env",
    "__pycache__",
    "site-packages",
    "dist",
    "build",
    "lockgate-data",
    "mlruns.db",
];

/// Looks at the folder.
pub(super) fn find(dir: &Path) -> std::io::Result<Found> {
    let mut found = Found { project: project_name(dir), ..Found::default() };
    let mut files = Vec::new();
    walk(dir, "", 0, &mut files, &mut found.cut)?;
    files.sort();
    for path in &files {
        sort_in(dir, path, &mut found);
    }
    found.requirements = ["requirements.lock", "requirements.txt"]
        .into_iter()
        .map(str::to_owned)
        .chain(files.iter().filter(|f| f.starts_with("requirements") && f.ends_with(".txt")).cloned())
        .find(|name| files.contains(name));
    found.other_requirements = ["uv.lock", "pyproject.toml", "poetry.lock", "environment.yml", "conda.yaml"]
        .into_iter()
        .filter(|name| files.iter().any(|f| f == name))
        .map(str::to_owned)
        .collect();
    Ok(found)
}

/// The folder's name as a project's name.
fn project_name(dir: &Path) -> String {
    let full = dir.canonicalize().unwrap_or_else(|_| dir.to_path_buf());
    let name = full.file_name().map(|n| n.to_string_lossy().to_lowercase()).unwrap_or_default();
    let mut label: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    while label.contains("--") {
        label = label.replace("--", "-");
    }
    label.truncate(63);
    let label = label.trim_matches('-');
    if label.is_empty() { "my-project".to_owned() } else { label.to_owned() }
}

fn walk(
    dir: &Path,
    prefix: &str,
    depth: usize,
    files: &mut Vec<String>,
    cut: &mut bool,
) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let kind = entry.file_type()?;
        let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}/{name}") };
        if files.len() >= MOST_FILES {
            *cut = true;
            return Ok(());
        }
        if kind.is_dir() && !name.starts_with('.') && !SKIPPED.contains(&name.as_str()) {
            if depth >= DEEPEST {
                *cut = true;
            } else if walk(&entry.path(), &path, depth + 1, files, cut).is_err() {
                // A folder that can't be read is no reason to propose nothing.
                *cut = true;
            }
        } else if kind.is_file() {
            files.push(path);
        }
    }
    Ok(())
}

fn sort_in(dir: &Path, path: &str, found: &mut Found) {
    let name = path.rsplit('/').next().unwrap_or(path);
    let folder = path.strip_suffix(name).unwrap_or("").trim_end_matches('/');
    let in_tracking =
        path.starts_with("mlruns/") || path.contains("/mlruns/") || path.starts_with("mlartifacts/");
    if name == "MLmodel" {
        found.mlmodels.push(folder.to_owned());
        found.flavors.extend(flavors(&read(dir, path)));
    } else if in_tracking {
    } else if path == "dvc.yaml" {
        found.dvc = Some(dvc::stages(&read(dir, path)));
    } else if is_test(name) {
        let top = folder.split('/').next().unwrap_or_default();
        found.tests.get_or_insert_with(|| top.to_owned());
    } else if let Some(stem) = name.strip_suffix(".py") {
        let code = read(dir, path);
        found.registered = found.registered.take().or_else(|| registered_name(&code));
        if stem.starts_with("train") || stem.ends_with("_train") || stem == "fit" {
            found.training.push(path.to_owned());
        }
    } else if name.ends_with(".ipynb") {
        found.notebooks.push(path.to_owned());
    } else if [".parquet", ".csv", ".feather", ".arrow", ".jsonl"].iter().any(|end| name.ends_with(end)) {
        found.data.push(path.to_owned());
    }
}

fn is_test(name: &str) -> bool {
    name == "conftest.py"
        || (name.ends_with(".py") && (name.starts_with("test_") || name.ends_with("_test.py")))
}

/// The beginning of a file; empty where it can't be read as text.
fn read(dir: &Path, path: &str) -> String {
    let mut bytes = Vec::new();
    let outcome =
        fs::File::open(dir.join(path)).and_then(|file| file.take(LARGEST_READ).read_to_end(&mut bytes));
    if outcome.is_err() { String::new() } else { String::from_utf8_lossy(&bytes).into_owned() }
}

/// The flavours of an `MLmodel` file: the keys one level below `flavors:`.
fn flavors(text: &str) -> Vec<String> {
    let inside = text.lines().skip_while(|line| line.trim_end() != "flavors:").skip(1);
    inside
        .take_while(|line| line.starts_with(' ') || line.trim().is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.trim().strip_suffix(':'))
        .map(str::to_owned)
        .collect()
}

/// The name in `registered_model_name="…"` or `register_model(uri, "…")`.
fn registered_name(code: &str) -> Option<String> {
    let literal = |text: &str| {
        let text = text.trim_start();
        let quote = text.chars().next().filter(|c| matches!(c, '"' | '\''))?;
        let name = text.get(1..)?.split(quote).next()?;
        lockgate_core::id::ModelName::new(name).ok().map(String::from)
    };
    let mut by_keyword = code.split("registered_model_name").skip(1);
    let mut by_call = code.split("register_model(").skip(1);
    by_keyword
        .find_map(|rest| literal(rest.trim_start().strip_prefix('=')?))
        .or_else(|| by_call.find_map(|rest| literal(rest.split(')').next()?.split_once(',')?.1)))
}
