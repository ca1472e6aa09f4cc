"""The Open Inference Protocol's stock clients against a promoted release: tritonclient and kserve, HTTP and gRPC, on one port.

The clients run as scripts in environments of their own, because both register the same messages (tests/clients/oip_*.py).
"""

import gzip
import json
import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT, Lockgate, free_ports, get, post, repository

CLIENTS = {"triton": os.environ.get("OIP_TRITON"), "kserve": os.environ.get("OIP_KSERVE")}
X = {"name": "x", "shape": [1, 4], "datatype": "FP32"}


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    base = tmp_path_factory.mktemp("oip")
    folder = base / "kinds"
    shutil.copytree(Path(__file__).parent / "projects/kinds", folder, ignore=shutil.ignore_patterns("__pycache__"))
    repository(folder)
    lockgate = Lockgate(folder, base / "state", free_ports(4))
    lockgate.ok("up", "--detach", "--port", str(lockgate.port))
    lockgate.ok("run", timeout=300)
    for model in ("toy", "echo"):
        release = lockgate.json("release", "create", f"{model}@good")["digest"]
        lockgate.ok("promote", release[7:19], "--env", "dev", "--wait")
    yield lockgate
    lockgate.verified()
    lockgate.ok("up", "--stop")


@pytest.mark.parametrize("client", CLIENTS)
def test_a_stock_client_finds_everything_that_it_asks_for(kinds, client):
    python = CLIENTS[client]
    if not python:
        pytest.skip(f"OIP_{client.upper()} names no Python with this client (make e2e makes Triton's; KServe's takes 450 MB: make e2e KSERVE=1)")
    command = [python, ROOT / f"tests/clients/oip_{client}.py", kinds.gateway("dev")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    outcome = json.loads(done.stdout)
    assert len(outcome) >= {"triton": 25, "kserve": 9}[client]
    assert {name: error for name, error in outcome.items() if error} == {}


def binary(values, **more):
    """A request whose tensor follows the JSON, and its headers."""
    data = struct.pack(f"<{len(values)}f", *values)
    tensor = {**X, "parameters": {"binary_data_size": len(data)}}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}, **more}).encode()
    return head + data, {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}


def test_what_was_asked_in_bytes_is_recorded_in_words(kinds):
    url = f"{kinds.gateway('dev')}/v2/models/toy/infer"
    body, headers = binary([1, 2, 3, 4], id="in bytes")
    for content, more in ((body, {}), (gzip.compress(body), {"Content-Encoding": "gzip"})):
        status, told, answer = post(url, content, {**headers, **more})
        told = {name.lower(): value for name, value in told.items()}
        length = int(told["inference-header-content-length"])
        assert status == 200 and struct.unpack("<f", answer[length:]) == (30,)
        record = kinds.json("trace", told["x-lockgate-prediction-id"])["prediction"]
        assert json.loads(record["request"])["inputs"][0]["data"] == [1, 2, 3, 4], record
        assert json.loads(record["response"])["outputs"][0]["data"] == [30], record
    # A body that is one tensor without a name or a shape is stated, not guessed.
    raw = struct.pack("<8f", *range(8))
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": "0"}
    status, told, answer = post(url, raw, headers)
    assert status == 200 and struct.unpack("<2f", answer[-8:]) == (20, 60)
    record = kinds.json("trace", {n.lower(): v for n, v in told.items()}["x-lockgate-prediction-id"])["prediction"]
    assert "32 bytes" in json.loads(record["request"])["not_shown"], record


def test_no_bad_input_is_answered_5xx(kinds):
    url = f"{kinds.gateway('dev')}/v2/models/toy/infer"
    good, headers = binary([1, 2, 3, 4])
    length = headers["Inference-Header-Content-Length"]
    for change in (b"16", b"-16", b"1e99", b"99999999999999999999", b"17", b"15", b"null", b'"16"', b"[16]", b"16.5"):
        body = good.replace(b'_size": 16', b'_size": ' + change)
        headers["Inference-Header-Content-Length"] = str(len(body) - 16)
        assert post(url, body, headers)[0] == (200 if change == b"16" else 400), change
    for wrong in ("", "-1", "1.5", "x", length + "0", "18446744073709551616", "1, 2", str(int(length) - 1)):
        status, _, answer = post(url, good, {**headers, "Inference-Header-Content-Length": wrong})
        assert status == 400 and json.loads(answer)["error"], (wrong, status, answer)
    bomb = gzip.compress(b" " * (70 << 20))
    for body, encoding, want in ((bomb, "gzip", 413), (b"\xff" * 9, "deflate", 400), (b"{}", "gzip", 400), (b"{}", "br", 415)):
        status, _, answer = post(url, body, {"Content-Encoding": encoding})
        assert status == want and json.loads(answer)["error"], (encoding, status, answer)
    base = kinds.gateway("dev")
    for method, path, want in (
        ("POST", "/v2/repository/models/toy/load", 400),
        ("GET", "/v2/repository/index", 405),
        ("POST", "/v2/repository/models/toy/eat", 404),
        ("GET", "/v2/models/toy/versions/x/stats", 404),
        ("GET", "/v2/models/nobody/config", 404),
        ("POST", "/v2/models", 405),
    ):
        assert get(base + path, b"" if method == "POST" else None, method=method)[0] == want, path
    assert post(f"{base}/v2/repository/index", b"{")[0] == 400
    assert json.loads(get(f"{base}/v2/models")[2]) == {"models": ["echo", "toy"]}
