//! What `init` proposes for each kind of repository.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

use lockgate_config::init::{Proposal, propose};
use lockgate_config::{Project, parse};
use std::fs;
use std::path::Path;

fn repository(files: &[(&str, &str)]) -> (tempfile::TempDir, Proposal, Project) {
    let dir = tempfile::Builder::new().prefix("My_Repo").tempdir().unwrap();
    for (path, text) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let proposal = propose(dir.path()).unwrap();
    let project = parse(&proposal.text, "lockgate.toml").unwrap_or_else(|e| panic!("{e}\n{}", proposal.text));
    assert!(project.unsupported.is_empty() && project.warnings.is_empty(), "{:?}", project.warnings);
    assert!(proposal.text.lines().count() < 80, "short");
    assert_eq!(
        project.environments.iter().map(|e| e.name.as_str()).collect::<Vec<_>>(),
        ["dev", "staging", "production"]
    );
    (dir, proposal, project)
}

fn says(proposal: &Proposal, what: &str) -> bool {
    proposal.findings.iter().any(|f| f.contains(what))
}

#[test]
fn an_empty_folder_gets_a_frame() {
    let (_dir, proposal, project) = repository(&[]);
    assert!(project.name.as_str().starts_with("my-repo"), "{}", project.name);
    assert!(says(&proposal, "no MLflow model") && says(&proposal, "no tests"));
    assert!(project.pipeline.is_empty());
}

#[test]
fn an_mlflow_model_and_its_registered_name_are_found() {
    let mlmodel = "artifact_path: model\nflavors:\n  onnx:\n    onnx_version: 1.2\n  python_function:\n    env: x\nrun_id: a\n";
    let code =
        "import mlflow\nmlflow.sklearn.log_model(m, name='m',\n    registered_model_name = 'churn model')\n";
    let (_dir, proposal, project) = repository(&[("models/a/MLmodel", mlmodel), ("train_model.py", code)]);
    assert!(project.models.keys().any(|m| m.as_str() == "churn model"));
    assert!(says(&proposal, "onnx, python_function") && says(&proposal, "train_model.py"));
    assert_eq!(project.pipeline[0].run, "python train_model.py");
    let (_dir, proposal, project) = repository(&[("models/a/MLmodel", mlmodel)]);
    assert!(says(&proposal, "models/a") && project.models.len() == 1);
    let (_dir, _, project) = repository(&[("go.py", "mlflow.register_model(f'runs:/{x}/m', \"risk\")")]);
    assert!(project.models.keys().any(|m| m.as_str() == "risk"));
}

#[test]
fn a_dvc_pipeline_is_taken_over() {
    let dvc = "stages:\n  prepare_data:\n    cmd: python prepare.py\n    deps:\n      - data/raw.csv\n    outs:\n      - data/ready.csv\n  train:\n    cmd: python train.py --name \"x y\"\n    deps:\n      - data/ready.csv\n    outs:\n      - model.pkl\n  odd:\n    foreach: [1]\n    do:\n      cmd: x\n";
    let (_dir, proposal, project) = repository(&[("dvc.yaml", dvc), ("train.py", "")]);
    assert_eq!(
        project.pipeline.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(),
        ["prepare-data", "train"]
    );
    assert!(says(&proposal, "3 stages, of which 2") && says(&proposal, "`odd`"));
}

#[test]
fn tests_data_and_requirements_become_gates_datasets_and_python() {
    let (_dir, proposal, project) = repository(&[
        ("tests/test_model.py", "def test(): pass"),
        ("data/train.parquet", ""),
        ("data/holdout.parquet", ""),
        ("requirements-dev.txt", "x"),
        ("requirements.txt", "x"),
    ]);
    let staging = &project.environments[1];
    assert_eq!(staging.gates.keys().map(|g| g.as_str()).collect::<Vec<_>>(), ["schema", "tests"]);
    assert_eq!(staging.data["holdout"], "data/holdout.parquet");
    assert_eq!(project.requirements.as_deref(), Some("requirements.txt"));
    assert!(says(&proposal, "`tests`"));
}

#[test]
fn notebooks_and_lock_files_are_mentioned() {
    let (_dir, proposal, _) = repository(&[("explore.ipynb", "{}"), ("uv.lock", ""), ("pyproject.toml", "")]);
    assert!(says(&proposal, "notebooks") && says(&proposal, "uv.lock"));
    assert!(proposal.text.contains("jupyter execute"));
}

#[test]
fn odd_names_and_damaged_files_are_no_trouble() {
    let dvc = "stages:\n  a:\n    cmd: x\n    deps: [a]\n  \"b/c\":\n    cmd: y\n  self:\n    cmd: z\n    deps:\n    - out\n    outs:\n    - out\n";
    let (_dir, proposal, project) = repository(&[
        ("dvc.yaml", dvc),
        ("MLmodel", "\u{0}\u{1}"),
        ("data/te\"st\\ 1.csv", ""),
        ("odd 'name'/train it.py", "registered_model_name='a/b'"),
    ]);
    assert!(project.models.len() == 1 && project.pipeline.is_empty());
    assert!(says(&proposal, "doesn't fit together"));
    assert!(propose(Path::new("/nonexistent/folder")).is_err());
}

#[cfg(unix)]
#[test]
fn nothing_outside_the_folder_is_looked_at() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("test_secret.py"), "").unwrap();
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(outside.path(), dir.path().join("link")).unwrap();
    let proposal = propose(dir.path()).unwrap();
    assert!(says(&proposal, "no tests"));
}
