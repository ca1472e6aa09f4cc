"""What goes over the wire, without the client's help."""

import json

import pytest

from conftest import http

FILES = "/api/2.0/mlflow-artifacts/artifacts"
JSON = {"Content-Type": "application/json"}


def call(server, path, body=None):
    """Posts a body, or gets what is there."""
    method, data = ("GET", None) if body is None else ("POST", json.dumps(body).encode())
    status, _, text = http(method, f"{server}/api/2.0/mlflow/{path}", data, JSON)
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


RELATIVE = "If supplying a source as an http, https, local file path, ftp, objectstore, or mlflow-artifacts uri, an absolute path must"
RUN_ID = "The run_id request parameter must identify the resource that contains the source."
MODEL_ID = "The model_id request parameter must identify the resource that contains the source."
LOCAL = "To use a local path as a model version source, the run_id request parameter has to be specified"
SOURCES = [
    # source, request, what a refusal says; none where the version is made
    ("runs:/run_id/model", {"run_id": "run_id"}, None),
    ("runs:/run_id/model", {"run_id": "run_id_1"}, RUN_ID),
    ("runs:/<R>/m", {}, RUN_ID),
    ("runs:/<R>/m", {"run_id": "<R>"}, None),
    ("runs:/<R>/m", {"model_id": "<M>"}, MODEL_ID),
    ("runs:/<R>/a%2f..%2fb", {"run_id": "<R>"}, RELATIVE),
    ("mlflow-artifacts:/0/<R>/artifacts/d", {}, RUN_ID),
    ("mlflow-artifacts:/0/<R>/artifacts/d", {"run_id": "<R>"}, None),
    ("mlflow-artifacts:/0/<R>/artifacts/d", {"run_id": "<other>"}, RUN_ID),
    ("mlflow-artifacts:/0/models/<M>/artifacts", {"model_id": "<M>"}, None),
    ("<server>/api/2.0/mlflow-artifacts/artifacts/0/<R>/artifacts/d", {}, RUN_ID),
    ("models:/<M>", {}, MODEL_ID),
    ("models:/<M>", {"model_id": "<M>"}, None),
    ("models:/m-123", {"model_id": "m-123"}, "Unable to fetch model from model URI source artifact location"),
    ("s3://x/y", {"model_id": "m-nope"}, "Logged model with ID 'm-nope' not found."),
    ("models:/sourced/1", {"run_id": "nope"}, "request parameters must match the referenced model version"),
    ("models:/sourced/latest", {}, None),
    ("models:/a-prompt/1", {}, "Prompt versions cannot be used as model version sources"),
    ("mlflow-artifacts://host:9000/models/..%2f..%2fartifacts", {"run_id": "<R>"}, RELATIVE),
    ("mlflow-artifacts://host:9000/models/artifact%00", {"run_id": "<R>"}, RELATIVE),
    ("https://host/api/2.0/mlflow-artifacts/artifacts/../../../", {"run_id": "<R>"}, RELATIVE),
    ("s3://b/%2e%2e/x", {}, RELATIVE),
    ("s3://b/x%00", {}, RELATIVE),
    ("mlflow-artifacts:", {}, RELATIVE),
    ("s3://bucket", {}, RELATIVE),
    ("s3:", {}, RELATIVE),
    ("hdfs://h/x", {}, "'source' cannot use the 'hdfs' scheme"),
    ("abfss://c@a/x", {}, "'source' cannot use the 'abfss' scheme"),
    ("https://example.org/x", {}, "'source' cannot use the 'https' scheme"),
    ("/etc/passwd", {"run_id": "<R>"}, LOCAL),
    ("file:///etc/passwd", {}, LOCAL),
    ("<files>", {"run_id": "<L>"}, None),
    ("file://<files>/model", {"run_id": "<L>"}, None),
    ("<files>/.", {"run_id": "<L>"}, None),
    ("<files>/../../x", {"run_id": "<L>"}, LOCAL),
    ("<files>/%2e%2e/x", {"run_id": "<L>"}, LOCAL),
    ("<files>", {"run_id": "<R>"}, LOCAL),
    *[(source, {"tags": [{"key": "mlflow.prompt.is_prompt", "value": "true"}]}, f"Invalid prompt source: '{source}'")
      for source in ("file:///etc/passwd", "/etc/passwd", "s3://x", "models:/model/1")],
]  # fmt: skip


def test_sources_belong_to_what_the_request_names(server, run, tmp_path):
    local = call(server, "experiments/create", {"name": f"local {tmp_path}", "artifact_location": f"file://{tmp_path}"})[1]["experiment_id"]
    local = call(server, "runs/create", {"experiment_id": local})[1]["run"]["info"]
    model = call(server, "logged-models", {"experiment_id": "0", "name": "m", "source_run_id": run["run_id"]})[1]["model"]["info"]["model_id"]
    names = {
        "<R>": run["run_id"], "<M>": model, "<L>": local["run_id"], "<files>": local["artifact_uri"].removeprefix("file://"), "<server>": server,
        "<other>": call(server, "runs/create", {"experiment_id": "0"})[1]["run"]["info"]["run_id"],
    }  # fmt: skip
    call(server, "registered-models/create", {"name": "sourced"})
    call(server, "model-versions/create", {"name": "sourced", "source": "s3://x/y", "model_id": model})
    prompt = {"tags": [{"key": "mlflow.prompt.is_prompt", "value": "true"}]}
    call(server, "registered-models/create", {"name": "a-prompt", **prompt})
    call(server, "model-versions/create", {"name": "a-prompt", "source": "dummy-source", **prompt})
    for source, request, words in SOURCES:
        body = json.dumps({"name": "sourced", "source": source, **request})
        for name, value in names.items():
            body = body.replace(name, value)
        status, answer = call(server, "model-versions/create", json.loads(body))
        assert (status == 200) == (words is None) and (words or "").replace("<R>", run["run_id"]) in answer.get("message", ""), (body, answer)
        assert status in (200, 400) or (status == 404 and "m-nope" in words), (body, answer)
    # The run is the logged model's, an alias is resolved, and the logged model knows its versions.
    read = lambda number: call(server, f"model-versions/get?name=sourced&version={number}")[1]["model_version"]  # noqa: E731
    assert read(1)["run_id"] == run["run_id"]
    call(server, "registered-models/alias", {"name": "sourced", "alias": "123", "version": "1"})
    assert call(server, "registered-models/alias?name=sourced&alias=123")[1]["model_version"]["version"] == "1"
    copy = call(server, "model-versions/create", {"name": "sourced", "source": "models:/sourced@123"})[1]["model_version"]
    assert copy["source"] == "models:/sourced/1"
    tags = call(server, f"logged-models/{model}")[1]["model"]["info"]["tags"]
    assert json.loads(tags[0]["value"])[0] == {"name": "sourced", "version": 1} and tags[0]["value"].startswith('[{"name": "sourced", "version": 1}, ')
    made = call(server, "model-versions/create", {"name": "sourced", "source": "runs:/run_id/m", "run_id": "run_id"})[1]["model_version"]
    uri = call(server, f"model-versions/get-download-uri?name=sourced&version={made['version']}")[1]["artifact_uri"]
    assert uri == "runs:/run_id/m"


def test_models_and_prompts_share_their_names(server):
    prompt = {"tags": [{"key": "mlflow.prompt.is_prompt", "value": "true"}]}
    for body, words in [
        ({"name": "shared-model"}, None),
        ({"name": "shared-prompt", **prompt}, None),
        ({"name": "shared-model", **prompt}, "Tried to create a prompt with name 'shared-model', but the name is already taken by a registered model."),
        ({"name": "shared-prompt"}, "Tried to create a registered model with name 'shared-prompt', but the name is already taken by a prompt. MLflow does not allow"),
        ({"name": "shared-prompt", **prompt}, "Prompt (name=shared-prompt) already exists"),
        ({"name": "shared-model"}, "Registered Model (name=shared-model) already exists"),
    ]:  # fmt: skip
        status, answer = call(server, "registered-models/create", body)
        assert (status == 200) == (words is None) and (words or "") in answer.get("message", ""), (body, answer)
    text = {"key": "mlflow.prompt.text", "value": "x" * 100_001}
    body = {"name": "shared-prompt", "source": "dummy-source", "tags": [*prompt["tags"], text]}
    status, answer = call(server, "model-versions/create", body)
    assert (status, answer["message"]) == (400, "Prompt text exceeds max length of 100000 characters.")
    # A prompt's version is no model's, whoever made it.
    call(server, "model-versions/create", {"name": "shared-prompt", "source": "dummy-source", **prompt})
    call(server, "model-versions/create", {"name": "shared-prompt", "source": "s3://bucket/x"})
    assert call(server, "model-versions/search?filter=name%3D%27shared-prompt%27")[1].get("model_versions", []) == []


def test_a_path_is_looked_at_before_the_version(server):
    for query in ("name=model&version=1&path=../path", "name=model&version=1"):
        status, _, text = http("GET", f"{server}/model-versions/get-artifact?{query}")
        assert status == 400 and ("../" not in query or b"Invalid path" in text), text


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
