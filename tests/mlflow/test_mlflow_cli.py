"""The stock command line `mlflow experiments | runs | artifacts | doctor` against the server."""

import csv
import io
import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
from engines import sqlite_suffices

CLIENT = Path(sys.executable).with_name("mlflow")
# The whole package, with the server's parts.
WHOLE = os.environ.get("MLFLOW_STOCK")
pytestmark = sqlite_suffices("what a command asks for is asked for on each engine by the client's own tests")


@pytest.fixture(scope="module")
def forks():
    """A process each for the commands, from one that has imported MLflow: that takes longer than a command does."""
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(["mlflow.cli"])
    return forks


def command(arguments, environment, out, err):
    """The program `mlflow`, in a process of its own."""
    for path, number in ((out, 1), (err, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    os.environ.update(environment)
    sys.argv = ["mlflow", *arguments]
    from mlflow.cli import cli

    cli()


@pytest.fixture
def cli(server, forks, tmp_path):
    environment = {**os.environ, "MLFLOW_TRACKING_URI": server}

    def program(program, arguments):
        done = subprocess.run([program, *arguments], capture_output=True, text=True, env=environment, timeout=120)
        return done.returncode, done.stdout, done.stderr

    def fork(arguments):
        out, err = (tmp_path / f"command.{name}" for name in ("out", "err"))
        out.unlink(missing_ok=True), err.unlink(missing_ok=True)
        process = forks.Process(target=command, args=(arguments, environment, out, err))
        process.start()
        process.join(120)
        if process.is_alive():
            process.kill()
        return process.exitcode, out.read_text(), err.read_text()

    def run(*arguments, code=0, by=None):
        arguments = [str(argument) for argument in arguments]
        ended, out, err = program(by, arguments) if by else fork(arguments)
        assert ended == code, out + err
        return out if code == 0 else out + err

    return run


@pytest.fixture
def named(client, request):
    """A fresh experiment with one run."""
    experiment = client.create_experiment(f"cli.{request.node.name}")
    run = client.create_run(experiment, run_name="one")
    client.log_metric(run.info.run_id, "loss", 0.5)
    client.log_param(run.info.run_id, "depth", 3)
    client.log_text(run.info.run_id, "hello", "notes/a.txt")
    return experiment, run.info.run_id


def test_experiments_are_made_found_renamed_deleted_and_restored(cli, client):
    made = cli("experiments", "create", "--experiment-name", "cli")
    number = client.get_experiment_by_name("cli").experiment_id
    assert f"with id {number}" in made
    assert "already exists" in cli("experiments", "create", "-n", "cli", code=1)
    cli("experiments", "create", "-n", "cli at a place", "-l", "mlflow-artifacts:/elsewhere")
    assert client.get_experiment_by_name("cli at a place").artifact_location == "mlflow-artifacts:/elsewhere"
    found = cli("experiments", "search")
    assert number in found and "cli at a place" in found
    cli("experiments", "rename", "--experiment-id", number, "--new-name", "renamed")
    assert client.get_experiment(number).name == "renamed"
    cli("experiments", "delete", "-x", number)
    assert client.get_experiment(number).lifecycle_stage == "deleted"
    assert "renamed" not in cli("experiments", "search")
    assert "renamed" in cli("experiments", "search", "--view", "deleted_only")
    cli("experiments", "restore", "-x", number)
    assert client.get_experiment(number).lifecycle_stage == "active"
    assert "404404" in cli("experiments", "delete", "-x", "404404", code=1)


def has(cli, *words):
    return words[-1] in cli(words[0], "--help").split("Commands:")[-1]


def test_an_experiment_is_shown(cli, named):
    if not has(cli, "experiments", "get"):
        pytest.skip("MLflow 2 has no such command")
    experiment, _ = named
    shown = json.loads(cli("experiments", "get", "--experiment-id", experiment, "--output", "json"))
    assert shown["experiment_id"] == experiment
    assert experiment in cli("experiments", "get", "--experiment-name", shown["name"])


def test_the_runs_of_an_experiment_are_written_as_a_table(cli, named, tmp_path):
    experiment, run = named
    [row] = csv.DictReader(io.StringIO(cli("experiments", "csv", "-x", experiment)))
    assert (row["run_id"], row["metrics.loss"], row["params.depth"]) == (run, "0.5", "3")
    cli("experiments", "csv", "-x", experiment, "-o", tmp_path / "runs.csv")
    assert run in (tmp_path / "runs.csv").read_text()


def test_runs_are_listed_described_deleted_and_restored(cli, client, named):
    experiment, run = named
    assert run in cli("runs", "list", "--experiment-id", experiment)
    described = json.loads(cli("runs", "describe", "--run-id", run))
    assert described["info"]["run_id"] == run and described["data"]["metrics"] == {"loss": 0.5} and described["data"]["params"] == {"depth": "3"}
    cli("runs", "delete", "--run-id", run)
    assert client.get_run(run).info.lifecycle_stage == "deleted"
    assert run not in cli("runs", "list", "--experiment-id", experiment)
    assert run in cli("runs", "list", "--experiment-id", experiment, "--view", "deleted_only")
    cli("runs", "restore", "--run-id", run)
    assert client.get_run(run).info.lifecycle_stage == "active"
    assert "0" * 32 in cli("runs", "describe", "--run-id", "0" * 32, code=1)


def test_a_run_is_made(cli, client, named):
    if not has(cli, "runs", "create"):
        pytest.skip("MLflow 2 has no such command")
    experiment, _ = named
    said = cli("runs", "create", "--experiment-id", experiment, "--run-name", "made", "--tags", "a=b", "--status", "FAILED")
    # Behind the links to pages.
    made = json.loads(said[said.index("{") :])
    run = client.get_run(made["run_id"])
    assert (run.info.run_name, run.info.status, run.data.tags["a"]) == ("made", "FAILED", "b")


def test_traces_are_linked_to_a_run(cli, client, named):
    if not has(cli, "runs", "link-traces"):
        pytest.skip("MLflow 2 has no such command")
    experiment, run = named
    mlflow.set_experiment(experiment_id=experiment)
    with mlflow.start_span("question") as span:
        pass
    mlflow.flush_trace_async_logging()
    cli("runs", "link-traces", "--run-id", run, "--trace-id", span.trace_id)
    found = client.search_traces(locations=[experiment], run_id=run)
    assert [trace.info.trace_id for trace in found] == [span.trace_id]


def test_artifacts_are_logged_listed_and_downloaded(cli, named, tmp_path):
    _, run = named
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("b.txt", "c.txt"):
        (folder / name).write_text(name)
    cli("artifacts", "log-artifact", "--local-file", folder / "b.txt", "--run-id", run, "--artifact-path", "one")
    cli("artifacts", "log-artifacts", "--local-dir", folder, "--run-id", run, "--artifact-path", "all")
    listed = json.loads(cli("artifacts", "list", "--run-id", run))
    assert [(one["path"], one["is_dir"]) for one in listed] == [("all", True), ("notes", True), ("one", True)]
    listed = json.loads(cli("artifacts", "list", "--run-id", run, "--artifact-path", "all"))
    assert [(one["path"], one["file_size"]) for one in listed] == [("all/b.txt", 5), ("all/c.txt", 5)]
    cli("artifacts", "download", "--run-id", run, "--dst-path", tmp_path / "all of it")
    assert (tmp_path / "all of it/notes/a.txt").read_text() == "hello"
    cli("artifacts", "download", "--artifact-uri", f"runs:/{run}/all", "--dst-path", tmp_path / "by uri")
    assert (tmp_path / "by uri/all/c.txt").read_text() == "c.txt"
    got = cli("artifacts", "download", "--run-id", run, "--artifact-path", "one/b.txt").strip().splitlines()[-1]
    assert Path(got).read_text() == "b.txt"


def test_doctor_reaches_the_server(cli, server):
    assert f"Tracking URI: {server}" in cli("doctor", by=CLIENT)
    assert "MLFLOW_TRACKING_URI: ***" in cli("doctor", "--mask-envs")


def test_gc_is_not_for_a_server(cli, server):
    """Stock's own `mlflow gc` works on a database, never over HTTP: `lockgate db gc` takes its place."""
    if not WHOLE:
        pytest.skip("MLFLOW_STOCK names no stock server's mlflow")
    said = cli("gc", "--backend-store-uri", server, "--tracking-uri", server, code=1, by=WHOLE)
    assert "backend that allows hard-deleting runs" in said
