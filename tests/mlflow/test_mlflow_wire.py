"""What goes over the wire, without the client's help."""

import json

import pytest

from conftest import http

FILES = "/api/2.0/mlflow-artifacts/artifacts"
JSON = {"Content-Type": "application/json"}


def call(server, path, body):
    status, _, text = http("POST", f"{server}/api/2.0/mlflow/{path}", json.dumps(body).encode(), JSON)
    return status, json.loads(text)


@pytest.fixture
def run(server):
    return call(server, "runs/create", {"experiment_id": "0"})[1]["run"]["info"]


def test_the_server_says_what_it_is(server):
    assert http("GET", server + "/health")[2] == b"OK"
    assert http("GET", server + "/version")[2] == b"3.17.2"
    info = json.loads(http("GET", server + "/api/3.0/mlflow/server-info")[2])
    assert info["artifact_serving_enabled"] is True and info["workspaces_enabled"] is True


def test_an_unknown_route_is_no_json(server):
    for path in ("/api/2.0/mlflow/nothing", "/api/3.0/mlflow/traces/metrics", "/api/2.0/mlflow/traces", "/v1/metrics"):
        status, _, body = http("POST", server + path, b"{}", JSON)
        assert (status, body) == (404, b"")


def test_a_missing_artifact_is_a_missing_resource(server, run):
    root = f"{FILES}/0/{run['run_id']}/artifacts"
    status, _, body = http("GET", f"{server}{root}/model/MLmodel")
    assert (status, json.loads(body)["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")
    assert http("PUT", f"{server}{root}/a/b.txt", b"bytes")[::2] == (200, b"")
    status, headers, body = http("GET", f"{server}{root}/a/b.txt")
    assert (status, body, headers["content-length"]) == (200, b"bytes", "5")
    assert headers["x-content-type-options"] == "nosniff" and "attachment" in headers["content-disposition"]
    assert http("GET", f"{server}{root}/a")[0] == 400
    assert http("PUT", f"{server}{root}/a", b"")[0] == 400
    assert http("PUT", f"{server}{root}/a/b.txt/c", b"")[0] == 400
    listed = json.loads(http("GET", f"{server}{FILES}?path=0/{run['run_id']}/artifacts/a")[2])
    assert listed == {"files": [{"path": "b.txt", "is_dir": False, "file_size": 5}]}
    assert json.loads(http("GET", f"{server}{FILES}?path=0/{run['run_id']}/artifacts/none")[2]) == {}
    assert http("DELETE", f"{server}{root}/a")[0] == 200
    assert http("GET", f"{server}{root}/a/b.txt")[0] == 404


def test_a_path_leads_nowhere_else(server, run):
    root = f"{server}{FILES}/0/{run['run_id']}/artifacts"
    for path in ("%2e%2e/x", "a/%2e%2e/%2e%2e/b", "%252e%252e/x", "%2f%2e%2e/x", "a%5cb", "a%00", "a%23b"):
        status, _, body = http("PUT", f"{root}/{path}", b"x")
        assert (status, json.loads(body)["error_code"]) == (400, "INVALID_PARAMETER_VALUE"), path
    for path in ("0/x/y", "f" * 32 + "/artifacts/x", f"1/{run['run_id']}/artifacts/x"):
        assert http("PUT", f"{server}{FILES}/{path}", b"x")[0] in (400, 404), path


def test_fields_are_read_as_protobuf_reads_them(server, run):
    id = run["run_id"]
    metric = {"key": "m", "value": "NaN", "timestamp": "12", "step": "3"}
    assert call(server, "runs/log-metric", {"runId": id, **metric}) == (200, {})
    got = json.loads(http("GET", f"{server}/ajax-api/2.0/mlflow/runs/get?run_id={id}")[2])
    (found,) = got["run"]["data"]["metrics"]
    assert (found["value"], found["timestamp"], found["step"]) == ("NaN", 12, 3)
    status, error = call(server, "experiments/create", {"name": 12})
    assert status == 400 and "Invalid value 12 for parameter 'name' supplied:  Hint: Value was of type 'int'." in error["message"]
    status, error = call(server, "experiments/create", {})
    assert error["message"].startswith("Missing value for required parameter 'name'.")
    assert call(server, "experiments/search", {})[0] == 400
    points = [{"key": "m", "value": 1, "timestamp": 0, "step": i} for i in range(1001)]
    status, error = call(server, "runs/log-batch", {"run_id": id, "metrics": points})
    assert status == 400 and "at most 1000 metrics" in error["message"]
    status, _, body = http("POST", f"{server}/api/2.0/mlflow/runs/search", b"{}", {"Content-Type": "text/plain"})
    assert (status, json.loads(body)["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert call(server, "runs/update", {"run_id": id, "status": "FINISHED", "end_time": 99})[1]["run_info"]["status"] == "FINISHED"
    assert call(server, "runs/update", {"run_id": id, "status": "WEIRD"})[0] == 200


def test_sources_outside_of_a_run_are_refused(server, run):
    call(server, "registered-models/create", {"name": "sources"})
    for source in ("/etc", "file:///etc", "../x", f"runs:/{run['run_id']}/../x", "models:/sources", "C:/x", "models:/sources/9",
                   "mlflow-artifacts:/0/x", "s3://bucket/../x"):
        status, error = call(server, "model-versions/create", {"name": "sources", "source": source})
        assert status in (400, 404), (source, error)
    other = call(server, "runs/create", {"experiment_id": "0"})[1]["run"]["info"]["run_id"]
    body = {"name": "sources", "source": f"runs:/{run['run_id']}/m", "run_id": other}
    assert call(server, "model-versions/create", body)[0] == 400
    status, answer = call(server, "model-versions/create", {"name": "sources", "source": "s3://bucket/x"})
    assert (status, answer["model_version"]["version"]) == (200, "1")


def test_a_big_file_streams_through(server, run):
    chunk = bytes(range(256)) * 4096
    big = chunk * 48
    root = f"{server}{FILES}/0/{run['run_id']}/artifacts"
    assert http("PUT", f"{root}/big.bin", big)[0] == 200
    assert http("GET", f"{root}/big.bin")[2] == big


def test_a_logged_model_s_status_that_does_not_exist_is_refused(server):
    model = call(server, "logged-models", {"experiment_id": "0", "name": "model"})[1]["model"]["info"]
    address = f"{server}/api/2.0/mlflow/logged-models/{model['model_id']}"
    status, _, text = http("PATCH", address, json.dumps({"model_id": model["model_id"], "status": "nonsense"}).encode(), JSON)
    assert (status, json.loads(text)["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    status, _, text = http("GET", address)
    assert json.loads(text)["model"]["info"]["status"] == "LOGGED_MODEL_PENDING"


def test_datasets_are_summed_up_under_both_addresses_once_for_every_use(server, run):
    for context in ("train", "eval", "train"):
        other = call(server, "runs/create", {"experiment_id": "0"})[1]["run"]["info"]["run_id"]
        dataset = {"name": "rows", "digest": "d1", "source_type": "local", "source": "here"}
        tags = [{"key": "mlflow.data.context", "value": context}]
        body = {"run_id": other, "datasets": [{"dataset": dataset, "tags": tags}]}
        assert call(server, "runs/log-inputs", body)[0] == 200
    expected = [{"experiment_id": "0", "name": "rows", "digest": "d1", "context": context} for context in ("eval", "train")]
    for api in ("api", "ajax-api"):
        address = f"{server}/{api}/2.0/mlflow/experiments/search-datasets"
        status, _, text = http("POST", address, b'{"experiment_ids": ["0"]}', JSON)
        assert status == 200
        assert [d for d in json.loads(text)["dataset_summaries"] if d["name"] == "rows"] == expected
    ids = [str(i) for i in range(21)]
    assert call(server, "experiments/search-datasets", {"experiment_ids": ids})[0] == 400
