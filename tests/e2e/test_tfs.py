"""TensorFlow Serving's REST API, KServe's V1 protocol, OpenAI's list of models and SageMaker's paths, over a promoted release."""

import json

import pytest
from conftest import get, post

ROW = [0.5 * i for i in range(30)]


def ask(project, path, body=None, **options):
    url = f"{project.gateway('production')}{path}"
    status, headers, answer = post(url, body) if body is not None else get(url, **options)
    return status, json.loads(answer), headers


def oip(project, rows):
    body = {"inputs": [{"name": "features", "shape": [len(rows), 30], "datatype": "FP32", "data": sum(rows, [])}]}
    status, answer, _ = ask(project, "/v2/models/tumour/infer", body)
    assert status == 200, answer
    return {output["name"]: output for output in answer["outputs"]}


def test_rows_and_columns_are_answered_in_their_own_form(project, serving):
    rows = [ROW, ROW[::-1]]
    expected = oip(project, rows)
    status, answer, headers = ask(project, "/v1/models/tumour:predict", {"instances": rows})
    assert status == 200 and list(answer) == ["predictions"], answer
    status, columns, _ = ask(project, "/v1/models/tumour/labels/production:predict", {"inputs": rows, "signature_name": "serving_default"})
    assert status == 200 and list(columns) == ["outputs"], columns
    if len(expected) == 1:
        (only,) = expected.values()
        assert answer["predictions"] == columns["outputs"]
        assert len(answer["predictions"]) == only["shape"][0]
    else:
        assert [set(row) for row in answer["predictions"]] == [set(expected)] * 2
        assert set(columns["outputs"]) == set(expected)
        for name, output in expected.items():
            assert [row[name] for row in answer["predictions"]] == columns["outputs"][name]
            assert len(columns["outputs"][name]) == output["shape"][0]
    prediction = {k.lower(): v for k, v in headers.items()}["x-lockgate-prediction-id"]
    assert project.json("trace", prediction)["release"]["digest"] == serving


def test_versions_labels_metadata_and_lists(project, serving):
    status, answer, _ = ask(project, "/v1/models/tumour")
    (version,) = answer["model_version_status"]
    assert (status, version["state"], version["status"]["error_code"]) == (200, "AVAILABLE", "OK")
    assert (answer["name"], answer["ready"]) == ("tumour", True)
    number = version["version"]
    assert ask(project, f"/v1/models/tumour/versions/{number}")[0] == 200
    assert ask(project, f"/v1/models/tumour/versions/{number}:predict", {"instances": [ROW]})[0] == 200
    status, answer, _ = ask(project, "/v1/models/tumour/metadata")
    signature = answer["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert (status, answer["model_spec"]["version"]) == (200, number)
    assert signature["inputs"]["features"]["dtype"] == "DT_FLOAT"
    assert [dim["size"] for dim in signature["inputs"]["features"]["tensor_shape"]["dim"]] == ["-1", "30"]
    status, answer, _ = ask(project, "/v1/models")
    assert (status, answer["models"], [model["id"] for model in answer["data"]]) == (200, ["tumour"], ["tumour"])


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/v1/models/unknown:predict", {"instances": [ROW]}, 404, "unknown"),
        ("/v1/models/tumour/versions/99:predict", {"instances": [ROW]}, 404, "no version 99"),
        ("/v1/models/tumour/labels/staging:predict", {"instances": [ROW]}, 404, "label is `production`"),
        ("/v1/models/tumour:explain", {"instances": [ROW]}, 404, "nothing at"),
        ("/v1/models/tumour:predict", b"{", 400, ""),
        ("/v1/models/tumour:predict", {}, 400, "neither `instances` nor `inputs`"),
        ("/v1/models/tumour:predict", {"instances": [ROW[:29]]}, 400, "29"),
        ("/v1/models/tumour:predict", {"instances": [["x"] * 30]}, 400, "text"),
        ("/v1/models/tumour:predict", {"signature_name": "other", "instances": [ROW]}, 400, "signature_name"),
        ("/v1/models/unknown", None, 404, "unknown"),
        ("/v1/models/tumour/versions/99", None, 404, "no version 99"),
        ("/v1/models/tumour:predict", None, 405, "POST only"),
    ],
)
def test_what_is_wrong_is_said_in_its_own_form(project, serving, path, body, status, words):
    found, answer, _ = ask(project, path, body)
    assert (found, list(answer)) == (status, ["error"]), answer
    assert words in answer["error"]


def test_sagemaker_s_paths(project, serving):
    split = {"inputs": [ROW]}
    expected = ask(project, "/invocations", split)
    assert ask(project, "/models/tumour/invoke", split)[:2] == expected[:2]
    url = f"{project.gateway('production')}/invocations"
    named = post(url, split, {"X-Amzn-SageMaker-Target-Model": "tumour"})
    assert (named[0], json.loads(named[2])) == expected[:2]
    assert post(url, split, {"X-Amzn-SageMaker-Target-Model": "other"})[0] == 404
    assert ask(project, "/models")[:2] == (200, {"models": [{"modelName": "tumour", "modelUrl": "/models/tumour"}]})
    assert ask(project, "/models/tumour")[0] == 200
    assert ask(project, "/models/other")[0] == 404
    for status, answer, _ in (ask(project, "/models", {"model_name": "x", "url": "s3://x"}), ask(project, "/models/tumour", method="DELETE")):
        assert status == 403 and "promotions" in answer["message"]
    assert get(f"{project.gateway('production')}/ping")[0] == 200
