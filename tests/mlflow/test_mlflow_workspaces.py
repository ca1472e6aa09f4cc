"""Workspaces and environments: the stock client sees one of them at a time, and nothing of the others."""

import contextlib

import mlflow
import pytest
from conftest import http
from mlflow import MlflowClient, MlflowException


@contextlib.contextmanager
def pointed(uri, workspace=None, monkeypatch=None):
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    try:
        with pytest.MonkeyPatch.context() as patch:
            if workspace:
                patch.setenv("MLFLOW_WORKSPACE", workspace)
            yield MlflowClient(uri)
    finally:
        mlflow.set_tracking_uri(before)


def make(server, name):
    status, _, body = http("POST", f"{server}/api/3.0/mlflow/workspaces", b'{"name": "%s"}' % name.encode(), {"Content-Type": "application/json"})
    assert status == 201, body


@pytest.fixture
def workspace(server, request):
    name = request.node.name.replace("_", "-").replace("[", "-").replace("]", "")[-40:].strip("-")
    make(server, name)
    return name


def log(client, experiment, tmp_path, value):
    run = client.create_run(experiment)
    client.log_metric(run.info.run_id, "m", value)
    (tmp_path / "note.txt").write_text(f"value {value}")
    client.log_artifact(run.info.run_id, str(tmp_path / "note.txt"))
    return run.info.run_id


@pytest.mark.parametrize("way", ["header", "prefix"])
def test_the_same_names_mean_other_things_in_another_workspace(server, client, workspace, way, tmp_path):
    uri, name = (server, workspace) if way == "header" else (f"{server}/env/{workspace}", None)
    experiment = f"shared name {way}"
    outer = client.create_experiment(experiment)
    run = log(client, outer, tmp_path, 1.0)
    client.create_registered_model(f"model-{way}")
    client.create_model_version(f"model-{way}", "s3://bucket/one")
    with pointed(uri, name) as inside:
        assert inside.get_experiment_by_name(experiment) is None
        inner = inside.create_experiment(experiment)
        assert inner != outer
        own = log(inside, inner, tmp_path, 2.0)
        assert [r.info.run_id for r in inside.search_runs([inner, outer])] == [own]
        assert inside.get_run(own).info.artifact_uri.startswith(f"mlflow-artifacts:/workspaces/{workspace}/")
        assert inside.get_metric_history(run, "m") == []
        for call in (lambda: inside.get_run(run), lambda: inside.log_metric(run, "m", 3.0), lambda: inside.set_tag(run, "a", "b")):
            with pytest.raises(MlflowException, match="not found"):
                call()
        assert inside.search_registered_models() == []
        inside.create_registered_model(f"model-{way}")
        assert int(inside.create_model_version(f"model-{way}", "s3://bucket/two").version) == 1
        inside.set_registered_model_alias(f"model-{way}", "best", 1)
        assert inside.get_model_version_by_alias(f"model-{way}", "best").source == "s3://bucket/two"
        inside.rename_registered_model(f"model-{way}", f"other-{way}")
        assert [m.name for m in inside.search_registered_models(f"name = 'other-{way}'")] == [f"other-{way}"]
        path = mlflow.artifacts.download_artifacts(run_id=own, artifact_path="note.txt", dst_path=str(tmp_path / way))
        assert open(path).read() == "value 2.0"
        with pytest.raises(MlflowException):
            mlflow.artifacts.download_artifacts(run_id=run, artifact_path="note.txt", dst_path=str(tmp_path / "no"))
    # And from outside nothing of it is seen.
    with pytest.raises(MlflowException, match="not found"):
        client.get_run(own)
    assert [r.info.run_id for r in client.search_runs([inner, outer])] == [run]
    assert client.get_model_version(f"model-{way}", 1).source == "s3://bucket/one"
    path = own_path(server, own, inner, workspace)
    assert http("GET", path)[0] == 404
    assert http("GET", path, headers={"X-MLFLOW-WORKSPACE": workspace})[2] == b"value 2.0"


def own_path(server, run, experiment, workspace):
    return f"{server}/api/2.0/mlflow-artifacts/artifacts/workspaces/{workspace}/{experiment}/{run}/artifacts/note.txt"


def test_workspaces_are_made_listed_described_and_taken_away(server):
    base, json = f"{server}/api/3.0/mlflow/workspaces", {"Content-Type": "application/json"}
    make(server, "team-a")
    assert http("POST", base, b'{"name": "team-a"}', json)[0] == 400
    assert http("POST", base, b'{"name": "Team A"}', json)[0] == 400
    assert http("POST", base, b'{"name": "default"}', json)[0] == 400
    assert http("PATCH", f"{base}/team-a", b'{"description": "ours"}', json)[0] == 200
    listed = http("GET", base)[2]
    assert b'"team-a"' in listed and b'"ours"' in listed and b'"default"' in listed
    with pointed(server, "team-a") as inside:
        inside.create_experiment("something")
    assert http("DELETE", f"{base}/team-a")[0] == 400, "something is in it"
    assert http("DELETE", f"{base}/default")[0] == 400
    make(server, "team-b")
    assert http("DELETE", f"{base}/team-b")[0] == 204
    assert http("GET", f"{base}/team-b")[0] == 404


def test_a_workspace_that_there_is_not_is_refused_wherever_it_is_named(server):
    url = f"{server}/api/2.0/mlflow/experiments/search?max_results=5"
    status, _, body = http("GET", url, headers={"X-MLFLOW-WORKSPACE": "nowhere"})
    assert (status, b"RESOURCE_DOES_NOT_EXIST" in body) == (404, True)
    status, _, body = http("GET", url.replace("/api/", "/env/nowhere/api/"))
    assert (status, b"Workspace 'nowhere' not found" in body) == (404, True)
    status, _, body = http("GET", url.replace("/api/", "/env/default/api/"), headers={"X-MLFLOW-WORKSPACE": "team"})
    assert (status, b"leave one of them out" in body) == (400, True)
    assert http("GET", f"{server}/env/default/version")[2] == http("GET", f"{server}/version")[2]
    assert http("GET", f"{server}/env/default/no/such/route")[0] == 404


def test_an_artifact_s_odd_name_survives_the_prefix(server, workspace, tmp_path):
    with pointed(f"{server}/env/{workspace}") as inside:
        run = inside.create_run(inside.create_experiment("names")).info.run_id
        odd = tmp_path / "ü 100%.txt"
        odd.write_text("odd")
        inside.log_artifact(run, str(odd), "a b")
        assert [f.path for f in inside.list_artifacts(run, "a b")] == [f"a b/{odd.name}"]
        path = mlflow.artifacts.download_artifacts(run_id=run, artifact_path=f"a b/{odd.name}", dst_path=str(tmp_path / "d"))
        assert open(path).read() == "odd"
