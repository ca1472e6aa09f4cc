"""`isolation = "inline"`: a release that is all that users reach is run inside the gateway, with the answers that its workers give."""

import gzip
import itertools
import json
import os
import re
import shutil
import signal
import struct
import subprocess
from pathlib import Path

import pytest
from conftest import Lockgate, Traffic, free_ports, get, post, repository, wait_for

MODELS = ("toy", "slow", "sometimes", "fragile")


@pytest.fixture(scope="module")
def inline(tmp_path_factory):
    """`production` runs its models inside the gateway where it can; `workers` has the same `toy` in a worker alone."""
    base = tmp_path_factory.mktemp("in")
    folder = base / "inline"
    shutil.copytree(Path(__file__).parent / "projects/inline", folder, ignore=shutil.ignore_patterns("__pycache__"))
    repository(folder)
    lockgate = Lockgate(folder, base / "state", free_ports(8))
    lockgate.ok("up", "--detach", "--port", str(lockgate.port))
    lockgate.ok("run", timeout=300)
    lockgate.releases = {name: lockgate.json("release", "create", f"{name}@good")["digest"] for name in MODELS}
    lockgate.releases["next"] = lockgate.json("release", "create", "toy@next")["digest"]
    for name in MODELS:
        lockgate.ok("promote", lockgate.releases[name][7:19], "--env", "production", "--wait")
    lockgate.ok("promote", lockgate.releases["toy"][7:19], "--env", "workers", "--wait")
    wait_for("all to be confirmed and loaded", lambda: settled(lockgate), 60)
    yield lockgate
    lockgate.verified()
    lockgate.ok("up", "--stop")


def settled(lockgate):
    return all(found and "rollout" not in found and "being loaded" not in found for found in map(lambda m: lane(lockgate, m), MODELS))


def lane(lockgate, model, environment="production"):
    """The way of a model's requests, by `lockgate status`."""
    view = next(e for e in lockgate.json("status")["environments"] if e["name"] == environment)
    sides = [s for s in view["models"].get(model, {"sides": []})["sides"] if s["role"] == "baseline"]
    return sides[0].get("lane") if sides else None


def counted(lockgate, model, outcome="answered", release=None, environment="production"):
    """Requests that the gateway counted inside; none where it has no such line."""
    text = get(f"{lockgate.gateway(environment)}/metrics")[2].decode()
    name, release = "lockgate_inline_requests_total", (release or lockgate.releases.get(model))[7:19]
    line = rf'^{name}{{[^}}]*model="{model}",release="{release}",outcome="{outcome}"}} (\d+)$'
    found = re.search(line, text, re.MULTILINE)
    return int(found[1]) if found else None


def infer(lockgate, model, values, environment="production", **headers):
    tensor = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": values}
    return post(f"{lockgate.gateway(environment)}/v2/models/{model}/infer", {"inputs": [tensor]}, headers)


def exchanges():
    """Requests of every protocol, good and bad: path, body, headers."""
    tensor = {"name": "x", "shape": [2, 4], "datatype": "FP32", "data": [1, 2, 3, 4, 0.5, 0, 0, 0]}
    oip, tfs = "/v2/models/toy/infer", "/v1/models/toy:predict"
    data = struct.pack("<8f", *range(8))
    head = json.dumps(
        {
            "inputs": [{**tensor, "parameters": {"binary_data_size": len(data)}}],
            "outputs": [{"name": "y", "parameters": {"binary_data": True}}],
        }
    ).encode()
    head = head.replace(json.dumps(tensor["data"]).encode(), b"null").replace(b'"data": null, ', b"")
    rows = [[1, 2, 3, 4], [0, 0, 0, 1]]
    found = [
        (oip, {"id": "q", "inputs": [tensor]}, {}),
        (oip, head + data, {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}),
        (oip, data, {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": "0"}),
        ("/v2/models/toy/versions/1/infer", {"inputs": [tensor]}, {}),
        ("/models/toy/invocations", {"inputs": {"x": rows}}, {}),
        ("/models/toy/invocations", {"dataframe_split": {"data": 1}}, {}),
        (tfs, {"instances": rows}, {}),
        (tfs, {"inputs": rows}, {}),
        (tfs, {"instances": [[1]]}, {}),
        (oip, {"inputs": [{**tensor, "shape": [3, 4]}]}, {}),
        (oip, {"inputs": [tensor], "outputs": [{"name": "z"}]}, {}),
        (oip, b"{", {}),
        (oip, b"", {}),
        (oip, {"inputs": [tensor]}, {"Content-Type": "text/csv"}),
    ]
    many = {**tensor, "shape": [2000, 4], "data": [0.25] * 8000}
    found.append((oip, {"inputs": [many]}, {"Accept-Encoding": "gzip"}))
    return found


def test_its_answers_are_the_worker_s_byte_by_byte_in_every_protocol(inline):
    assert lane(inline, "toy") == "inline" and lane(inline, "toy", "workers") is None
    before, good = counted(inline, "toy"), 0
    of_one = {"date", "x-lockgate-prediction-id", "content-length", "transfer-encoding"}
    for path, body, headers in exchanges():
        inside, outside = (post(inline.gateway(e) + path, body, headers) for e in ("production", "workers"))
        told = [{k.lower(): v for k, v in answer[1].items() if k.lower() not in of_one} for answer in (inside, outside)]
        assert (inside[0], told[0], inside[2]) == (outside[0], told[1], outside[2]), (path, body)
        assert inside[0] != 0
        good += inside[0] == 200
    passed = counted(inline, "toy", "passed")
    # Every request of the list was answered inside, the bad ones too.
    assert counted(inline, "toy") - before == len(exchanges()) - passed and good >= 8
    assert counted(inline, "toy", environment="workers") is None
    # What was answered inside is recorded like everything else.
    status, headers, answer = infer(inline, "toy", [1, 2, 3, 4], **{"X-Request-Id": "r 1"})
    headers = {k.lower(): v for k, v in headers.items()}
    assert status == 200 and headers["x-request-id"] == "r 1" and headers["x-lockgate-variant"] == "baseline"
    record = inline.json("trace", headers["x-lockgate-prediction-id"])["prediction"]
    assert json.loads(record["response"]) == json.loads(answer) and record["status"] == 200, record


TRITON = """
import hashlib, sys
from urllib.parse import urlsplit
import numpy as np
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient

at, rows = urlsplit(sys.argv[1]).netloc, np.array([[1, 2, 3, 4]], np.float32)
for lib in (httpclient, grpcclient):
    client = lib.InferenceServerClient(at)
    for _ in range(20):
        tensor = lib.InferInput("x", [1, 4], "FP32")
        tensor.set_data_from_numpy(rows)
        result = client.infer("toy", [tensor], request_id="same")
        print(lib.__name__, result.as_numpy("y").tobytes().hex(), result.get_response())
"""


def test_a_stock_client_gets_the_same_over_http_and_grpc(inline):
    python = os.environ.get("OIP_TRITON")
    if not python:
        pytest.skip("OIP_TRITON names no Python with Triton's client (make e2e makes it)")
    before = counted(inline, "toy")
    found = {}
    for environment in ("production", "workers"):
        command = [python, "-c", TRITON, inline.gateway(environment)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr[-2000:]
        found[environment] = done.stdout
    assert found["production"] == found["workers"] and "0000f041" in found["production"]
    assert counted(inline, "toy") - before == 40


def test_what_is_large_or_packed_or_only_looked_at_goes_to_the_worker(inline):
    before = counted(inline, "toy")
    url = f"{inline.gateway('production')}/v2/models/toy/infer"
    tensor = {"name": "x", "shape": [4000, 4], "datatype": "FP32", "data": [0.123456] * 16000}
    assert post(url, {"inputs": [tensor]})[0] == 200
    packed = gzip.compress(json.dumps({"inputs": [{**tensor, "shape": [1, 4], "data": [1, 2, 3, 4]}]}).encode())
    assert post(url, packed, {"Content-Encoding": "gzip"})[0] == 200
    assert get(f"{inline.gateway('production')}/v2/models/toy/ready")[0] == 200
    assert counted(inline, "toy") == before


def workers(lockgate, environment, release):
    """The processes of a release's workers in an environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode().split("\0")
        except OSError:
            continue
        if "worker" in words[1:2] and f"{lockgate.state}/env/{environment}/" in " ".join(words) and release[7:] in " ".join(words):
            found.append(int(path.parent.name))
    return found


def test_a_worker_that_is_killed_costs_no_answer(inline):
    before = counted(inline, "toy")
    [pid] = workers(inline, "production", inline.releases["toy"])
    with Traffic(inline.gateway("production")) as traffic:
        wait_for("traffic", lambda: len(traffic.since()) > 100)
        os.kill(pid, signal.SIGKILL)
        wait_for("another worker", lambda: workers(inline, "production", inline.releases["toy"]) not in ([], [pid]), 30)
        wait_for("traffic", lambda: len(traffic.since()) > 400)
    assert traffic.bad() == []
    assert counted(inline, "toy") - before == len(traffic.since())
    assert lane(inline, "toy") == "inline"


def test_a_rollout_takes_the_way_through_workers_and_its_release_comes_inside_when_it_is_over(inline):
    candidate = inline.releases["next"]
    with Traffic(inline.gateway("production")) as traffic:
        wait_for("traffic", lambda: len(traffic.since()) > 50)
        promotion = inline.json("promote", candidate[7:19], "--env", "production")["id"]
        wait_for("the first request to the candidate", lambda: [a for a in traffic.since() if a["variant"] == "candidate"])
        # From before the candidate's first request until its probation is over nothing runs inside, neither side.
        inside, seen = counted(inline, "toy"), []
        while inline.stage(promotion) not in ("confirmed", "rolled-back"):
            seen.append((counted(inline, "toy", release=candidate), counted(inline, "toy"), lane(inline, "toy")))
        assert inline.stage(promotion) == "confirmed" and len(traffic.since()) > 500
        # The gateway's own counts are the proof. The server hears of the probation's end a little after the agent.
        during = list(itertools.takewhile(lambda look: look[0] is None, seen))
        assert during and all(count == inside for _, count, _ in during), seen
        # What `status` says is as old as the agent's last report: at both ends it may still, or already, be inside.
        ways = [way for way, _ in itertools.groupby(way for _, _, way in during if way)]
        middle = ways[ways[0] == "inline" : len(ways) - (ways[-1] == "inline")]
        assert middle and all("rollout" in way for way in middle), seen
        wait_for("the new release inside", lambda: lane(inline, "toy") == "inline", 30)
        wait_for("requests inside", lambda: counted(inline, "toy", release=candidate) > 100)
    assert traffic.bad() == []
    assert inline.serves("production") == candidate


def test_a_model_that_is_slow_from_the_start_stays_with_its_workers(inline):
    way = lane(inline, "slow")
    assert re.fullmatch(r"process \(measured when loaded: p99 \d+ µs > 200 µs\)", way), way
    assert infer(inline, "slow", [1, 2, 3, 4])[0] == 200 and counted(inline, "slow") is None
    assert f"baseline v1 runs {way}" in inline.ok("status")


def test_a_model_that_turns_out_slow_is_demoted_and_stays_so(inline):
    assert lane(inline, "sometimes") == "inline"
    for _ in range(20):
        assert infer(inline, "sometimes", [0.1, 2, 3, 4])[0] == 200
    assert counted(inline, "sometimes") == 20 and lane(inline, "sometimes") == "inline"
    answers = [infer(inline, "sometimes", [0.9, 2, 3, 4])[2] for _ in range(12)]
    assert all(json.loads(a)["outputs"][0]["data"][0] == pytest.approx(29.9) for a in answers)
    # More than 1 % of the last 500: the sixth that is slow. From then on its worker answers.
    assert counted(inline, "sometimes") == 26
    way = wait_for("the demotion in the status", lambda: (w := lane(inline, "sometimes")) != "inline" and w)
    assert re.fullmatch(r"process \(demoted: p99 \d+\.\d ms > 1 ms\)", way), way
    for _ in range(600):
        assert infer(inline, "sometimes", [0.1, 2, 3, 4])[0] == 200
    assert counted(inline, "sometimes") == 26 and lane(inline, "sometimes") == way
    text = get(f"{inline.gateway('production')}/metrics")[2].decode()
    release = inline.releases["sometimes"][7:19]
    assert re.search(rf'^lockgate_inline_demoted{{.*model="sometimes",release="{release}"}} 1$', text, re.MULTILINE)
    assert re.search(r'^lockgate_inline_demoted{.*model="toy".*} 0$', text, re.MULTILINE)
    logs = "".join(path.read_text() for path in (inline.state / "logs").glob("*production*.log"))
    assert "doesn't run inside the gateway any more" in logs


def test_a_request_that_fails_in_workers_too_is_no_reason_to_leave(inline):
    assert infer(inline, "fragile", [0.1, 2, 3, 4])[0] == 200
    for _ in range(3):
        status, _, answer = infer(inline, "fragile", [0.9, 2, 3, 4])
        assert status == 500 and "the model failed" in json.loads(answer)["error"]
    assert counted(inline, "fragile", "failed") == 3 and lane(inline, "fragile") == "inline"
    assert infer(inline, "fragile", [0.1, 2, 3, 4])[0] == 200 and counted(inline, "fragile") == 2
