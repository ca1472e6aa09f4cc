"""Which request is refused, by which words; and the order and form of what is kept. As MLflow's own server answers."""

import json

import mlflow
import pytest

from conftest import http

JSON = {"Content-Type": "application/json"}
WRONG = "Invalid value {} for parameter '{}' supplied:  Hint: Value was of type '{}'."
MISSING = "Missing value for required parameter '{}'."
BOTH = "Both dataset_name and dataset_digest must be provided if one is provided"


def call(server, path, body=None, method="POST", headers=None):
    sent = None if body is None else json.dumps(body).encode()
    status, _, text = http(method, f"{server}/api/2.0/mlflow/{path}", sent, {**JSON, **(headers or {})})
    return status, json.loads(text) if text else None


@pytest.fixture
def run(server):
    return call(server, "runs/create", {"experiment_id": "0"})[1]["run"]["info"]["run_id"]


@pytest.fixture
def model(server):
    return call(server, "logged-models", {"experiment_id": "0", "name": "m"})[1]["model"]["info"]["model_id"]


METRIC = {"key": "k", "value": 1, "timestamp": 1}
REFUSED = [
    *[(f"runs/{path}", {}, MISSING.format("run_id")) for path in ("log-metric", "log-parameter", "set-tag", "log-batch", "log-inputs", "outputs")],
    ("runs/log-parameter", {"run_id": 31, "key": "param", "value": 41}, WRONG.format(31, "run_id", "int")),
    ("runs/set-tag", {"run_id": "RUN", "key": 31, "value": 41}, WRONG.format(31, "key", "int")),
    ("runs/log-metric", {"run_id": "RUN", "key": "k", "value": "x", "timestamp": "y"}, WRONG.format('"x"', "value", "str")),
    ("runs/log-metric", {"run_id": "RUN", **METRIC, "value": ""}, MISSING.format("value")),
    ("runs/log-metric", {"run_id": "RUN", **METRIC, "timestamp": ""}, WRONG.format('""', "timestamp", "str")),
    ("runs/log-metric", {"run_id": "RUN", **METRIC, "dataset_name": "d"}, BOTH),
    ("runs/log-metric", {"run_id": "RUN", **METRIC, "model_id": "m-none"}, "m-none"),
    ("runs/log-batch", {"run_id": "RUN", "metrics": [{**METRIC, "dataset_digest": "d"}]}, BOTH),
    ("runs/log-batch", {"run_id": "RUN", "metrics": [{**METRIC, "model_id": "m-none"}]}, "m-none"),
    ("runs/log-batch", {"run_id": "RUN", "metrics": [{**METRIC, "timestamp": ""}]}, MISSING.format("metrics[0].timestamp")),
    ("runs/log-batch", {"metrics": [{}]}, MISSING.format("run_id")),
    *[(f"runs/{path}", {"run_id": id}, f"Invalid value {json.dumps(id)} for parameter 'run_id' supplied.")
      for path in ("log-batch", "log-inputs") for id in ("*****", "a/bc" * 8, "..", "é", "-5", "a b", "../x")],
    ("runs/outputs", {"run_id": "RUN"}, MISSING.format("models")),
    ("runs/outputs", {"run_id": "RUN", "models": ""}, MISSING.format("models")),
    ("runs/outputs", {"run_id": "RUN", "models": "x"}, WRONG.format('"x"', "models", "str")),
    *[("runs/create", body, MISSING.format("experiment_id")) for body in ({}, {"experiment_id": ""}, {"experiment_id": None})],
    ("runs/create", {"experiment_id": "0", "run_name": 1, "start_time": "a"}, WRONG.format('"a"', "start_time", "str")),
    ("runs/update", {"run_id": "RUN", "status": 12}, WRONG.format(12, "status", "int")),
    ("logged-models/search", {}, MISSING.format("experiment_ids")),
    ("logged-models/search", {"experiment_ids": [1]}, WRONG.format("[1]", "experiment_ids", "list")),
    ("logged-models/MODEL/params", {"params": []}, MISSING.format("model_id")),
    ("runs/log-model", {"run_id": "RUN", "model_json": "{}"}, "Model json is missing mandatory fields"),
    ("runs/log-model", {"run_id": "RUN", "model_json": "x"}, "Malformed model info. \n x \n is not a valid JSON."),
]  # fmt: skip


def test_what_is_refused_is_told_in_mlflow_s_order_and_words(server, run, model):
    for path, body, words in REFUSED:
        body = {key: run if value == "RUN" else value for key, value in body.items()}
        status, answer = call(server, path.replace("MODEL", model), body)
        assert (status, answer["error_code"]) == (400, "INVALID_PARAMETER_VALUE"), (path, body, answer)
        assert words in answer["message"], (path, body, answer)
    for body, name in (({"status": 2}, "model_id"), ({"model_id": model}, "status"), ({"model_id": model, "status": ""}, "status")):
        status, answer = call(server, f"logged-models/{model}", body, "PATCH")
        assert status == 400 and MISSING.format(name) in answer["message"], (body, answer)
    data = call(server, f"runs/get?run_id={run}", method="GET")[1]["run"]["data"]
    assert "metrics" not in data and "params" not in data, "nothing of it was kept"


def test_what_mlflow_s_own_server_takes_is_taken(server, run, model):
    pairs = [(".", "v"), ("a;b", "v"), ("", "v"), ("long", "v" * 7000), ("k" * 260, "v"), *((f"k{i}", "v") for i in range(101))]
    body = {"model_id": model, "params": [{"key": key, "value": value} for key, value in pairs]}
    assert call(server, f"logged-models/{model}/params", body) == (200, {})
    found = call(server, f"logged-models/{model}", method="GET")[1]["model"]["data"]["params"]
    assert {one["key"]: one["value"] for one in found} == dict(pairs)
    for name in (" ", "x" * 501):
        assert call(server, "logged-models", {"experiment_id": "0", "name": name})[1]["model"]["info"]["name"] == name
    experiment = call(server, "experiments/create", {"name": " "})[1]["experiment_id"]
    assert call(server, "logged-models/search", {"experiment_ids": [experiment], "max_results": 100_000}) == (200, {})
    assert call(server, "runs/log-inputs", {"run_id": run, "datasets": [{"dataset": {"name": "only"}}]}) == (200, {})
    assert call(server, "runs/outputs", {"run_id": run, "models": []}) == (200, {})
    for most in ("abc", "1.5", "99999999999"):
        assert call(server, f"metrics/get-history?run_id={run}&metric_key=k&max_results={most}", method="GET") == (200, {})
    assert call(server, "runs/update", {"run_id": run, "end_time": 5})[1]["run_info"]["end_time"] == 5
    assert "end_time" not in call(server, "runs/update", {"run_id": run, "end_time": 0})[1]["run_info"]


def test_a_batch_that_is_encoded_twice_may_not_be_long(server, run):
    tags = [{"key": f"t{i}", "value": "v" * 10_000} for i in range(100)]
    body = {"run_id": run, "tags": tags}
    status, answer = call(server, "runs/log-batch", json.dumps(body))
    size = len(json.dumps(body))
    assert (status, answer["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert f"Batched logging API requests must be at most 1000000 bytes, got a request of size {size}" in answer["message"]
    assert call(server, "runs/log-batch", json.dumps({**body, "tags": tags[:99]}))[0] == 200
    assert call(server, "runs/log-batch", body)[0] == 200


def test_a_run_s_datasets_come_as_they_were_logged(client, experiment):
    import pandas

    # Contents in no order of their names.
    made = {name: mlflow.data.from_pandas(pandas.DataFrame({"x": [ord(name)]}), name=name) for name in "zyxakbc"}
    found = []
    for names in ("zyxakb", "kcx"):
        with mlflow.start_run() as run:
            mlflow.log_inputs([made[name] for name in names], ["train"] * len(names), [{"z": "1", "a": "2"}] * len(names))
        found.append(client.get_run(run.info.run_id).inputs.dataset_inputs)
    assert ["".join(one.dataset.name for one in inputs) for inputs in found] == ["zyxakb", "kcx"]
    assert [tag.key for tag in found[0][0].tags] == ["a", "mlflow.data.context", "z"]


def test_names_that_are_made_up_begin_as_mlflow_s_do(client, experiment):
    from mlflow.utils.name_utils import _GENERATOR_PREDICATES

    names = {client.create_run(experiment.experiment_id).info.run_name for _ in range(30)}
    assert len(names) > 20 and {name.split("-")[0] for name in names} <= set(_GENERATOR_PREDICATES)


def test_models_that_a_run_logged_are_kept_byte_for_byte(client, server, run):
    flavors = {"z": {"loader": "é😀", "config": {"x": 1}, "a": None}, "b": {}}
    first = {"run_id": run, "artifact_path": "model/a", "utc_time_created": "2026-01-01 00:00:00", "model_uuid": "u", "flavors": flavors}
    second = {**first, "model_uuid": None, "flavors": {"n": {"big": 1e30, "one": 1.0, "list": [1, []]}}}
    for model in (first, second):
        assert call(server, "runs/log-model", {"run_id": run, "model_json": json.dumps({**model, "signature": None})}) == (200, {})
    kept = {**first, "flavors": {"z": {"loader": "é😀", "a": None}, "b": {}}}
    assert client.get_run(run).data.tags["mlflow.log-model.history"] == json.dumps([kept, second])
    for i in range(40):
        call(server, "runs/log-model", {"run_id": run, "model_json": json.dumps({**first, "artifact_path": f"{i}" * 99})})
    history = client.get_run(run).data.tags["mlflow.log-model.history"]
    assert len(json.loads(history)) == 42, "however long it is"


def test_the_first_experiment_has_an_age(client):
    default = client.get_experiment("0")
    assert 0 < default.creation_time <= default.last_update_time
    assert "0" in [e.experiment_id for e in client.search_experiments(filter_string=f"creation_time <= {default.creation_time}")]


def test_workspaces_are_refused_in_mlflow_s_words(server):
    for method, name, body, words in [
        ("DELETE", "/default", None, "The 'default' workspace is reserved and cannot be deleted"),
        ("DELETE", "/default?mode=QQ", None, "The 'default' workspace is reserved and cannot be deleted"),
        ("DELETE", "/Bad_", None, "must match the pattern"),
        ("DELETE", "/none?mode=QQ", None, "Invalid deletion mode 'QQ'. Must be one of: SET_DEFAULT, CASCADE, RESTRICT"),
        ("POST", "", {"name": "ws-x", "default_artifact_root": "s3://b/x#f"}, "'default_artifact_root' URL can't include fragments or params."),
        ("POST", "", {"name": "ws-x", "default_artifact_root": "s3://b/../x"}, "Invalid artifact location"),
        ("POST", "", {"name": "ws-x", "default_artifact_root": "mlflow-artifacts:/versions/x"}, "reserved"),
    ]:
        text = body and json.dumps(body).encode()
        status, _, answer = http(method, f"{server}/api/3.0/mlflow/workspaces{name}", text, JSON)
        answer = json.loads(answer)
        assert (status, answer["error_code"]) == (400, "INVALID_PARAMETER_VALUE") and words in answer["message"], answer
    status, answer = call(server, "experiments/get?experiment_id=0", method="GET", headers={"X-MLFLOW-WORKSPACE": "Bad_"})
    assert (status, answer["error_code"]) == (400, "INVALID_PARAMETER_VALUE") and "must match the pattern" in answer["message"]
    default = json.loads(http("GET", f"{server}/api/3.0/mlflow/workspaces/default")[2])["workspace"]
    assert default["description"] == "Default workspace for legacy resources"
