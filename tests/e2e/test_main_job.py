"""From a training script to a prediction that can be explained, by the commands that the quickstart tells."""

import json
from pathlib import Path

import mlflow
import pytest
from conftest import post
from mlflow import MlflowClient, MlflowException


def rows(project):
    release = project.json("release", "show", "latest")["manifest"]
    return [column["name"] for column in release["feature_schema"]["inputs"]]


def infer(project, values, unit="case-1"):
    body = {"inputs": [{"name": "features", "shape": [1, len(values)], "datatype": "FP32", "data": values}]}
    return post(f"{project.gateway('production')}/v2/models/tumour/infer", body, {"X-Case-Id": unit})


def test_stages_whose_inputs_did_not_change_are_not_run_again(project, released):
    assert "nothing changed" in project.ok("run")


def test_a_release_made_again_is_the_same_release(project, released):
    again = project.json("release", "create", "tumour@candidate")
    assert again["digest"] == released
    assert again["existed"] is True


def test_a_release_serves_after_its_gates(project, serving):
    status, headers, body = infer(project, [1.0] * len(rows(project)))
    assert status == 200, body
    assert 0.0 <= json.loads(body)["outputs"][0]["data"][0] <= 1.0
    lower = {name.lower(): value for name, value in headers.items()}
    assert serving[7:].startswith(lower["x-lockgate-release"])


def test_a_prediction_is_traced_to_release_run_code_and_data(project, serving):
    status, headers, _ = infer(project, [2.0] * len(rows(project)), unit="case-trace")
    assert status == 200
    prediction = {name.lower(): value for name, value in headers.items()}["x-lockgate-prediction-id"]
    trace = project.json("trace", prediction)
    assert trace["release"]["digest"] == serving
    assert len(trace["release"]["manifest"]["code"]["commit"]) == 40
    assert trace["run"]["params"]["C"] == "0.1"
    assert trace["prediction"]["unit"] == "case-trace"


def test_the_audit_log_verifies_and_tells_what_served(project, serving):
    audit = project.json("audit", "verify")
    assert audit["chain_ok"] and audit["tables_ok"], audit
    history = project.json("history", "production")
    assert history[-1]["serving"][0]["release"] == serving


def test_why_names_gates_and_people(project, serving):
    text = project.ok("why", "--env", "production")
    assert "gate" in text and "alice@example.com" in text


def test_what_serves_is_not_promoted_again(project, serving):
    done = project.run("promote", serving[7:19], "--env", "production")
    assert done.returncode == 1
    assert "serves `production` already" in done.stderr


def test_an_environment_can_not_open_another_one_s_bytes(project, serving):
    """A gate's program runs inside its agent's fence: it tries to read the other environment's key and the server's database."""
    isolation = next(e for e in project.json("status")["environments"] if e["name"] == "production")["isolation"]
    if "Landlock" not in isolation or "no Landlock" in isolation:
        pytest.skip(f"THE FENCE IS NOT TESTED: {isolation}")
    other, database = project.state / "env/dev/key.pem", project.state / "server/lockgate.db"
    assert other.is_file() and database.is_file()
    path = project.folder / "lockgate.toml"
    text = path.read_text()
    # A line of the gate's log for each file says whether it could be opened; the first proves that the gate can open any.
    look = f"for f in $LOCKGATE_MODEL_DIR/MLmodel {other} {database} {project.state}/env/dev"
    look += "; do if test -d $f; then ls $f; else head -c 1 $f; fi >/dev/null && echo open $f || echo shut $f; done; exit 1"
    gate = f"""[gate.peek]\nkind = "command"\nrun = '{look}'\n"""
    path.write_text(text.replace("quality = {} }", "quality = {}, peek = {} }") + gate)
    try:
        # The changed file is a part of the code, so this is another release.
        release = project.json("release", "create", "tumour@candidate")["digest"]
        assert release != serving
        done = project.run("promote", release[7:19], "--env", "production", "--wait", "--timeout", "60s")
        assert done.returncode == 3, done.stdout + done.stderr
        log = project.ok("logs", "gate", "peek")
    finally:
        path.write_text(text)
    tried = [line.split() for line in log.splitlines() if line.startswith(("open ", "shut "))]
    assert [how for how, _ in tried] == ["open", "shut", "shut", "shut"], log
    assert log.count("Permission denied") >= 3


def test_mlflow_says_what_production_serves_and_nobody_can_make_it_say_something_else(project, serving):
    client = MlflowClient(project.server)
    served = client.get_model_version_by_alias("tumour", "production")
    assert served.current_stage == "Production"
    # The newest release of this version, which needs not be the one that serves.
    release = project.json("release", "show", served.tags["lockgate.release"])["manifest"]
    assert (release["model"], release["model_version"]) == ("tumour", int(served.version))
    other = client.copy_model_version(f"models:/tumour/{served.version}", "tumour").version
    moves = [
        lambda: client.set_registered_model_alias("tumour", "production", other),
        lambda: client.transition_model_version_stage("tumour", other, "Production", archive_existing_versions=True),
    ]
    for move in moves:
        with pytest.raises(MlflowException, match=f"lockgate release create tumour:{other}") as refused:
            move()
        assert refused.value.error_code == "PERMISSION_DENIED"
    with pytest.raises(MlflowException, match="lockgate rollback production"):
        client.delete_registered_model_alias("tumour", "production")
    client.delete_model_version("tumour", other)
    assert client.get_model_version_by_alias("tumour", "production").version == served.version
    history = project.json("model", "history", "tumour", "--alias", "production")
    assert [(move["version"], move["by"]) for move in history] == [(int(served.version), "agent of production")]
    assert history[0]["promotion"] in project.ok("model", "history", "tumour")


def test_an_environment_is_a_place_for_mlflow_s_clients_whose_registry_holds_what_was_promoted_there(project, serving, tmp_path):
    inside = MlflowClient(f"{project.server}/env/production")
    served = inside.get_model_version_by_alias("tumour", "production")
    assert served.version == MlflowClient(project.server).get_model_version_by_alias("tumour", "production").version
    with pytest.raises(MlflowException, match="only promotions change it") as refused:
        inside.create_model_version("tumour", f"models:/tumour/{served.version}")
    assert refused.value.error_code == "PERMISSION_DENIED"
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"{project.server}/env/production")
    try:
        assert Path(mlflow.artifacts.download_artifacts("models:/tumour@production", dst_path=str(tmp_path))).is_dir()
        assert (tmp_path / "MLmodel").is_file()
    finally:
        mlflow.set_tracking_uri(before)
    assert inside.create_experiment("what production does by itself")
    assert MlflowClient(project.server).get_experiment_by_name("what production does by itself") is None
