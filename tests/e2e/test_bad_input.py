"""Bad input gets a clear error, and nothing is lost."""

import json

import pytest
from conftest import post


def url(project):
    return f"{project.gateway('production')}/v2/models/tumour/infer"


def tensor(data, shape, datatype="FP32", name="features"):
    return {"inputs": [{"name": name, "shape": shape, "datatype": datatype, "data": data}]}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", ""),
        (b"{", ""),
        (b"[1, 2]", ""),
        (tensor([1.0], [1, 30]), "features"),
        (tensor([1.0, 2.0], [1, 2]), "features"),
        (tensor([1.0] * 30, [1, 30], name="other"), "other"),
        (tensor(["x"] * 30, [1, 30]), "features"),
        (tensor([1.0] * 30, [1, 30], datatype="FP99"), "FP99"),
    ],
)
def test_a_wrong_request_is_the_client_s_fault_and_says_why(project, serving, body, words):
    status, _, answer = post(url(project), body)
    assert status == 400, answer
    assert words in json.loads(answer)["error"]


def test_a_body_of_100_mb_is_refused(project, serving):
    status, _, _ = post(url(project), b"[" + b"1," * (50 << 20) + b"1]")
    assert status == 413


def test_an_unknown_model_is_not_found(project, serving):
    status, _, answer = post(url(project).replace("tumour", "unknown"), tensor([1.0] * 30, [1, 30]))
    assert status == 404
    assert "unknown" in json.loads(answer)["error"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["promote", "latest", "--env", "nowhere"], "nowhere"),
        (["promote", "ffffffffffff", "--env", "production"], "ffffffffffff"),
        (["release", "create", "nothing@candidate"], "nothing"),
        (["release", "show", "zz"], "zz"),
        (["history", "nowhere"], "nowhere"),
        (["trace", "01ARZ3NDEKTSV4RRFFQ69G5FAV"], "01ARZ3NDEKTSV4RRFFQ69G5FAV"),
        (["approve", "--env", "production"], "can't be approved"),
        (["run", "no-such-stage"], "no-such-stage"),
    ],
)
def test_a_wrong_command_says_what_is_wrong(project, serving, args, words):
    done = project.run(*args)
    assert done.returncode == 1
    assert words in done.stderr
    assert "panicked" not in done.stderr


def test_wrong_usage_has_its_own_code(project):
    assert project.run("promote").returncode == 64


def test_a_mistake_in_the_file_is_named_with_its_line(project, serving):
    path = project.folder / "lockgate.toml"
    text = path.read_text()
    path.write_text(text.replace("[env.production]", "[env.production]\nrolout = []"))
    try:
        done = project.run("check")
        assert done.returncode == 1
        assert "rolout" in done.stderr and "rollout" in done.stderr and "lockgate.toml:" in done.stderr
    finally:
        path.write_text(text)


def test_a_port_that_is_taken_is_said(project, serving, tmp_path):
    done = project.run("up", "--port", str(project.port), "--state", str(tmp_path / "other"))
    assert done.returncode != 0
