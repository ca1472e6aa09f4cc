"""The way back and the way in under the worst of conditions: no server, no files, changed bytes, requests that take long."""

import itertools
import json
import os
import shutil
import signal
import struct
import subprocess
import threading
import time

import pytest
from conftest import ROOT, Apart, Traffic, get, rows, wait_for

ENDED = ("rolled-back", "probation", "confirmed")
TRITON = os.environ.get("OIP_TRITON")


def promote(lockgate, name, environment, *args, **kwargs):
    return lockgate.json("promote", lockgate.releases[name][7:19], "--env", environment, *args, **kwargs)["id"]


def step(lockgate, promotion):
    return lockgate.promotion(promotion)["stage"].get("rollout", {}).get("step")


def test_the_way_back_needs_no_server_no_registry_and_no_files(apart):
    apart.start_server()
    apart.start_agent("quick")
    promotion = promote(apart, "error", "quick")
    wait_for("the first step", lambda: step(apart, promotion) == 0)
    apart.end("server", signal.SIGKILL)
    # Everything that the last good release could be made of again is gone: the agent's own files, and the registry's.
    kept = apart.state / "server/blobs"
    aside = kept.rename(kept.with_name("aside"))
    for folder in ("blobs", "releases"):
        shutil.rmtree(apart.state / "env/quick" / folder)
    with Traffic(apart.gateway("quick")) as traffic:
        wait_for("bad answers", lambda: traffic.bad("candidate"))
        quiet = lambda: (last := traffic.since(time.time() - 2)) and {a["variant"] for a in last} == {"baseline"}  # noqa: E731
        wait_for("the way back", quiet, 20)
        assert [a for a in traffic.bad() if a["variant"] != "candidate"] == []
        later = time.time()
        wait_for("good answers", lambda: len(traffic.since(later)) > 200)
        assert traffic.bad(at=later) == []
    aside.rename(kept)
    apart.start_server()
    wait_for("its story at the server", lambda: apart.stage(promotion) == "rolled-back")
    assert [e["what"] for e in apart.rollout(promotion)].count("rollback_decided") == 1
    assert apart.serves("quick") == apart.releases["good"]


def flipped(path):
    """Makes a model's last weight 5 instead of 4: it would load, and answer wrongly."""
    data = path.read_bytes()
    old, new = struct.pack("<4f", 1, 2, 3, 4), struct.pack("<4f", 1, 2, 3, 5)
    if data.count(old) != 1:
        return False
    path.chmod(0o644)
    path.write_bytes(data.replace(old, new))
    return True


def test_bytes_that_were_changed_after_somebody_had_approved_them_are_never_loaded(template, tmp_path):
    apart = Apart(template.folder, template.copy(tmp_path / "s"), ["approved"])
    apart.releases = template.releases
    try:
        apart.start_server()
        promotion = promote(apart, "good2", "approved", codes=(4,), user="carol@example.com")
        apart.ok("approve", promotion, user="bob@example.com")
        assert sum(flipped(p) for p in (apart.state / "server/blobs").rglob("*") if p.is_file()) > 1
        apart.start_agent("approved")
        with Traffic(apart.gateway("approved"), rps=40) as traffic:
            wait_for("the agent's look at it", lambda: apart.rollout(promotion))
            time.sleep(3)
            assert {a["status"] for a in traffic.since()} <= {404, 503}
        assert not [e for e in apart.rollout(promotion) if e["what"] == "step_entered"]
        assert apart.json("history", "approved") == []
        assert "was announced" in apart.ok("logs", "agent", "approved")
        apart.verified()
    finally:
        apart.stop()


class Slow:
    """Requests that take long, each in a thread of its own: so there are always some on their way."""

    def __init__(self, gateway, threads=6):
        self.url, self.over, self.answers = f"{gateway}/v2/models/toy/infer", threading.Event(), []
        self.threads = [threading.Thread(target=self.send, args=(i,), daemon=True) for i in range(threads)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        for thread in self.threads:
            thread.join(30)

    def send(self, first):
        for number in itertools.count(first, len(self.threads)):
            if self.over.is_set():
                return
            values = [v for i in range(64) for v in rows(number + i)]
            body = {"inputs": [{"name": "x", "shape": [64, 4], "datatype": "FP32", "data": values}]}
            head = {"Content-Type": "application/json", "X-Unit": f"slow-{os.getpid()}-{number}"}
            status, headers, _ = get(self.url, json.dumps(body).encode(), head)
            self.answers.append((status, headers.get("x-lockgate-variant")))


def test_long_requests_that_are_on_their_way_when_traffic_flips_are_all_answered(apart):
    apart.start_server()
    apart.start_agent("quick")
    with Slow(apart.gateway("quick")) as slow:
        for _ in range(3):
            promotion = promote(apart, "slow", "quick")
            seen = len(slow.answers)
            of_candidate = lambda: [v for _, v in slow.answers[seen:] if v == "candidate"][5:]  # noqa: B023, E731
            wait_for("answers of the candidate", of_candidate)
            # Where it was quick enough to be promoted, it goes back from there.
            apart.run("abort", promotion, "--reason", "a flip under way")
            wait_for("an end", lambda: apart.stage(promotion) in ENDED)  # noqa: B023
            if apart.stage(promotion) != "rolled-back":
                apart.ok("rollback", promotion, "--reason", "a flip under way")
                wait_for("the way back", lambda: apart.stage(promotion) == "rolled-back")  # noqa: B023
    assert len(slow.answers) > 30
    assert {status for status, _ in slow.answers} == {200}, slow.answers
    assert apart.serves("quick") == apart.releases["good"]


@pytest.mark.skipif(not TRITON, reason="OIP_TRITON names no Python with tritonclient (make e2e makes it)")
def test_messages_of_a_grpc_stream_are_all_answered_while_traffic_flips(apart):
    apart.start_server()
    apart.start_agent("quick")
    command = [TRITON, ROOT / "tests/clients/grpc_stream.py", apart.gateway("quick")]
    client = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert client.stdout.readline().strip() == "ready"
        for name in ("good2", "good", "good2"):
            promotion = promote(apart, name, "quick")
            wait_for("all the traffic", lambda: apart.stage(promotion) == "confirmed")  # noqa: B023
        found = json.loads(client.communicate("\n", timeout=60)[0])
    finally:
        client.kill()
    assert found["asked"] == found["answered"] > 200, found
    assert found["errors"] == [] and found["wrong"] == 0, found


def test_a_share_of_nothing_is_no_request_and_a_share_of_all_is_every_request(apart):
    """Before its first step a candidate has no request; once it has everything, what served before has none."""
    apart.start_server()
    apart.start_agent("quick")
    with Traffic(apart.gateway("quick")) as traffic:
        wait_for("answers", lambda: len(traffic.since()) > 200)
        assert {a["variant"] for a in traffic.since()} == {"baseline"}
        promotion = promote(apart, "good2", "quick")
        wait_for("all the traffic", lambda: apart.stage(promotion) in ("probation", "confirmed"))
        later = time.time() + 0.5
        wait_for("answers", lambda: len(traffic.since(later)) > 400)
        assert {a["release"] for a in traffic.since(later)} == {apart.releases["good2"][7:19]}
        assert traffic.bad() == []
