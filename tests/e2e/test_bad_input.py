"""Bad input gets a clear error, and nothing is lost."""

import json
import socket
from urllib.parse import urlsplit

import pytest
from conftest import Lockgate, get, post


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
        (tensor([1.0], [1, 30]), "inputs[0].data"),
        (tensor([1.0, 2.0], [1, 2]), "features"),
        (tensor([1.0] * 30, [1, 30], name="other"), "other"),
        (tensor(["x"] * 30, [1, 30]), "inputs[0].data"),
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
    other = Lockgate(project.folder, tmp_path / "other", project.port)
    for detach in ([], ["--detach"]):
        done = other.run("up", "--port", str(project.port), *detach)
        assert done.returncode == 1 and str(project.port) in done.stderr and "hint" in done.stderr
    # And what runs already is not started twice.
    done = project.run("up", "--detach", "--port", str(project.port + 100))
    assert done.returncode == 1 and "running already" in done.stderr


def raw(value):
    data = f"{value}{', 1.0' * 29}"
    return f'{{"inputs": [{{"name": "features", "shape": [1, 30], "datatype": "FP32", "data": [{data}]}}]}}'.encode()


def test_a_number_that_is_too_large_is_refused(project, serving):
    status, _, answer = post(url(project), raw("1e999"))
    assert status == 400 and "inputs[0]" in json.loads(answer)["error"], answer


def test_not_a_number_never_becomes_a_good_answer(project, serving):
    metric = f'{project.gateway("production")}/metrics'
    count = lambda: sum(float(line.split()[-1]) for line in get(metric)[2].decode().splitlines() if "nonfinite" in line)  # noqa: E731
    before = count()
    status, _, answer = post(url(project), raw("NaN"))
    assert status == 400 or (b"[NaN]" in answer and count() == before + 1), answer


def send(project, text, wait=5.0):
    """Bytes on a connection of their own, and whatever comes back until the other side ends or `wait` is over."""
    address = urlsplit(project.gateway("production"))
    with socket.create_connection((address.hostname, address.port), timeout=wait) as sock:
        sock.sendall(text)
        got = b""
        try:
            while part := sock.recv(65536):
                got += part
        except TimeoutError:
            pass
        return got


HEAD = b"POST /v2/models/tumour/infer HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


def test_half_a_request_harms_nobody_and_the_next_one_is_answered(project, serving):
    for half in (b"POST /v2/mod", HEAD, HEAD + b"Content-Length: 1000\r\n\r\n{", HEAD + b"Transfer-Encoding: chunked\r\n\r\nff\r\n{"):
        send(project, half, 0.2)
    rubbish = send(project, b"\x16\x03\x01 not http\r\n\r\n", 2)
    assert rubbish == b"" or rubbish.startswith(b"HTTP/1.1 400"), rubbish
    body = b'{"inputs": []'
    answer = send(project, HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    assert answer.startswith(b"HTTP/1.1 400") and b"error" in answer
    status, _, answer = post(url(project), tensor([1.0] * 30, [1, 30]))
    assert status == 200, answer


def test_a_path_that_tries_to_leave_its_folder_is_not_found(project, serving):
    for path in ("/v2/models/..%2f..%2fkey.pem/infer", "/../../key.pem", "/v2/models//infer", "/v2/models/tumour/versions/99/infer"):
        status, _, answer = get(project.gateway("production") + path, b"{}", {"Content-Type": "application/json"})
        assert status in (400, 404, 405), (path, status, answer)


def test_rows_that_are_no_rows_are_refused_before_anything_is_sent(project, serving, tmp_path):
    for rows, words in [("{", "JSON"), (f"@{tmp_path}/none.json", "none.json"), ("[[1.0, 2.0]]", "")]:
        done = project.run("predict", "--env", "production", rows)
        assert done.returncode == 1 and words in done.stdout + done.stderr and "panicked" not in done.stderr


def test_files_that_are_missing_are_named(project, serving, tmp_path):
    path = project.folder / "lockgate.toml"
    text = path.read_text()
    for old, new, words in [
        ('requirements = "requirements.lock"', 'requirements = "nothing.lock"', "nothing.lock"),
        ('run = "python train.py"', 'run = "python nothing.py"', "nothing.py"),
        ('deps = ["train.py"', 'deps = ["nothing.py"', "nothing.py"),
    ]:
        path.write_text(text.replace(old, new))
        try:
            done = project.run("run", "--force")
            assert done.returncode == 1 and words in done.stderr + done.stdout, done.stderr
        finally:
            path.write_text(text)
    done = Lockgate(tmp_path, tmp_path / "none", 9).run("check")
    assert done.returncode == 1 and "there is no lockgate.toml" in done.stderr and "lockgate init" in done.stderr
    done = Lockgate(project.folder, tmp_path / "none", 9).run("status", "--server", "http://127.0.0.1:9")
    assert done.returncode == 1 and "no server answers" in done.stderr


def test_a_dataset_that_is_missing_fails_its_gate_and_nothing_moves(project, serving):
    path = project.folder / "lockgate.toml"
    text = path.read_text()
    path.write_text(text.replace('holdout = "data/holdout.parquet"', 'holdout = "data/nothing.parquet"'))
    try:
        release = project.json("release", "create", "tumour@candidate")["digest"]
        done = project.run("promote", release[7:19], "--env", "production", "--wait", "--timeout", "60s")
        assert done.returncode == 3 and "nothing.parquet" in project.ok("why", "--env", "production")
        assert project.serves("production") == serving
    finally:
        path.write_text(text)
