"""Workspaces and environments: the stock client sees one of them at a time, and nothing of the others."""

import contextlib
import json

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


def asked(server, method, path, body=None, workspace=None, version="3.0"):
    headers = {"Content-Type": "application/json", **({"X-MLFLOW-WORKSPACE": workspace} if workspace else {})}
    data = None if body is None else json.dumps(body).encode()
    status, _, answer = http(method, f"{server}/api/{version}/mlflow/{path}", data, headers)
    return status, json.loads(answer or b"{}")


def test_a_trace_is_nothing_to_another_workspace(server, client, workspace):
    mlflow.set_experiment("traced here")
    experiment = client.get_experiment_by_name("traced here").experiment_id
    with mlflow.start_span("step") as span:
        span.set_inputs({"q": 1})
    trace = span.trace_id
    mlflow.flush_trace_async_logging()
    said = mlflow.log_feedback(trace_id=trace, name="good", value=True).assessment_id
    before = asked(server, "GET", f"traces/{trace}")
    assert before[0] == 200
    where = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment}}
    feedback = {"assessment_name": "bad", "source": {"source_type": "HUMAN", "source_id": "eve"}, "feedback": {"value": False}}
    hexed = trace.removeprefix("tr-")
    stolen = {"trace_info": {"trace_id": trace, "trace_location": where, "request_time": "2023-11-14T22:13:20Z", "state": "ERROR"}}

    def inside(method, path, body=None, version="3.0"):
        return asked(server, method, path, body, workspace, version)

    # Seen nowhere…
    assert inside("GET", f"traces/{trace}")[0] == 404
    assert inside("GET", f"traces/get?trace_id={trace}")[0] == 404
    assert inside("GET", f"traces/batchGet?trace_ids={trace}") == (200, {})
    assert inside("POST", "traces/batchGetInfos", {"trace_ids": [trace]}) == (200, {})
    assert inside("POST", "traces/search", {"locations": [where]}) == (200, {})
    assert inside("GET", f"traces/{trace}/assessments/{said}")[0] == 404
    # … and changed by nothing.
    assert inside("PATCH", f"traces/{trace}/tags", {"key": "a", "value": "b"})[0] == 404
    assert inside("DELETE", f"traces/{trace}/tags?key=mlflow.traceName")[0] == 404
    assert inside("DELETE", f"traces/{trace}/tags", {"key": "mlflow.traceName"})[0] == 404
    assert inside("POST", f"traces/{trace}/assessments", {"assessment": feedback})[0] == 404
    assert inside("PATCH", f"traces/{trace}/assessments/{said}", {"assessment": feedback, "update_mask": "feedback"})[0] == 404
    assert inside("DELETE", f"traces/{trace}/assessments/{said}")[0] == 200
    assert inside("POST", "traces/link-to-run", {"trace_ids": [trace], "run_id": "f" * 32}, "2.0")[0] == 404
    assert inside("POST", "traces/link-prompts", {"trace_id": trace, "prompt_versions": [{"name": "p", "version": "1"}]}, "2.0")[0] == 404
    doomed = {"experiment_id": experiment, "request_ids": [trace]}
    assert inside("POST", "traces/delete-traces", doomed, "2.0") == (200, {"traces_deleted": 0})
    doomed = {"experiment_id": experiment, "max_timestamp_millis": 1 << 45}
    assert inside("POST", "traces/delete-traces", doomed, "2.0") == (200, {"traces_deleted": 0})
    with pointed(server, workspace) as other:
        own = other.create_experiment("traced there")
    stolen["trace_info"]["trace_location"] = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": own}}
    assert inside("POST", "traces", {"trace": stolen})[0] == 400
    late = {"traceId": hexed, "spanId": "ab" * 8, "name": "late", "startTimeUnixNano": "1", "endTimeUnixNano": "2", "status": {"code": 2}}
    spans = json.dumps({"resourceSpans": [{"resource": {}, "scopeSpans": [{"spans": [late]}]}]}).encode()
    headers = {"Content-Type": "application/json", "X-MLFLOW-WORKSPACE": workspace, "x-mlflow-experiment-id": own}
    assert http("POST", f"{server}/v1/traces", spans, headers)[0] == 400
    assert asked(server, "GET", f"traces/{trace}") == before
    assert len(mlflow.get_trace(trace).data.spans) == 1
    # Files of a trace go with it, and with nothing else.
    path = f"{server}/api/2.0/mlflow-artifacts/artifacts/{experiment}/traces/{trace}/artifacts/traces.json"
    assert http("PUT", path, b"x")[0] == 200
    assert http("GET", path, headers={"X-MLFLOW-WORKSPACE": workspace})[0] == 404


def test_deleting_a_trace_leaves_the_files_that_its_tag_names(server, client, tmp_path):
    experiment = client.create_experiment("tagged away")
    run = log(client, experiment, tmp_path, 1.0)
    mlflow.set_experiment(experiment_id=experiment)
    with mlflow.start_span("step") as span:
        pass
    mlflow.flush_trace_async_logging()
    client.set_trace_tag(span.trace_id, "mlflow.artifactLocation", client.get_run(run).info.artifact_uri)
    assert client.delete_traces(experiment, trace_ids=[span.trace_id]) == 1
    assert [file.path for file in client.list_artifacts(run)] == ["note.txt"]
