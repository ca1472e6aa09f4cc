"""Blue/green: a release that nobody meets but testers and its smoke test, a switch at once, and the way back; under traffic."""

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import Traffic, get, grown, post, wait_for
from test_killed import workers

RPS = 240
ROWS = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [0.1, 0.2, 0.3, 1.0]}]}
INFER = "/v2/models/toy/infer"
ENVIRONMENTS = """
[env.green]
after = "dev"
rollout = ["preview for 1s", "100%"]
smoke = { run = "python smoke.py", timeout = "60s" }
probation = "1h"
guards = { errors = { floor = "1%" }, latency = { remove = true } }

[env.hand]
like = "green"
after = "dev"
rollout = ["preview by hand", "100%"]
smoke = { remove = true }
deadline = "15s"
on = { inconclusive = "rollback" }

[env.closed]
like = "green"
after = "dev"
testers = "nobody"
vars = { SMOKE_TAKES = "600" }
smoke = { run = "python smoke.py", timeout = "2s" }
"""


@pytest.fixture(scope="module")
def place(template, tmp_path_factory):
    """A server and the agents of `green`, `hand` and `closed`, which serve `good`."""
    with grown(template, tmp_path_factory.mktemp("bg"), ENVIRONMENTS, ["green", "hand", "closed"]) as lockgate:
        first = promote(lockgate, "good", "green", "--wait", "--timeout", "90s")
        # A first release is tried out as well.
        assert [e["outcome"] for e in lockgate.rollout(first["id"]) if e["what"] == "smoked"] == ["pass"]
        hand = promote(lockgate, "good", "hand")["id"]
        ready(lockgate, hand)
        lockgate.ok("switch", hand)
        assert lockgate.run("watch", hand, "--timeout", "30s").returncode == 0
        yield lockgate


@pytest.fixture(scope="module")
def traffic(place):
    with Traffic(place.gateway("green"), RPS) as traffic:
        wait_for("traffic", lambda: len(traffic.since()) > 200)
        yield traffic


def promote(place, name, environment, *args, codes=(0,)):
    return place.json("promote", place.releases[name][7:19], "--env", environment, *args, codes=codes, timeout=200)


def ready(place, promotion):
    """Waits until a preview waits for a person."""
    return wait_for("a word to be waited for", lambda: (p := place.promotion(promotion))["needs_person"] and p)


def previewed(place, promotion):
    phase = lambda: (place.promotion(promotion)["live"] or {}).get("phase", "")  # noqa: E731
    return wait_for("the preview", lambda: "preview" in (p := phase()) and p)


def test_a_plan_says_who_decides_and_what_watches_afterwards(place):
    text = place.ok("plan", place.releases["good2"][7:19], "--env", "green", codes=(2,))
    assert "preview for 1 s, then 100%" in text
    assert "smoke test `python smoke.py` must pass within 1 min" in text
    assert "the smoke test alone decides it: no guard compares before" in text and "with the way back warm" in text
    assert "whoever has a preview token" in text
    text = place.ok("plan", place.releases["good2"][7:19], "--env", "hand", codes=(2,))
    assert "preview by hand, then 100%" in text and "there is no smoke test: only whoever switches by hand" in text


def test_the_switch_there_and_back_loses_no_request(place, traffic):
    begun = time.time()
    view = promote(place, "good2", "green", "--wait", "--timeout", "90s")
    assert view["stage_name"] == "probation" and view["smoke"]["outcome"] == "pass"
    assert "20 rows are right" in view["smoke"]["summary"]
    wait_for("users on green", lambda: len([a for a in traffic.since(begun) if a["variant"] == "candidate"]) > 100)
    events = place.rollout(view["id"])
    assert [(e["weight"], e["epoch"] > 0) for e in events if e["what"] == "step_entered"] == [(0, True), (10000, True)]
    # At once: after the first user of green none of blue's starts.
    answers = traffic.since(begun)
    release = {name: digest[7:19] for name, digest in place.releases.items()}
    green = [a["at"] for a in answers if a["release"] == release["good2"]]
    blue = [a["at"] for a in answers if a["release"] == release["good"]]
    assert max(blue) - min(green) < 0.2, max(blue) - min(green)
    assert "its smoke test passed in the preview; then all traffic switched" in place.ok("why", view["id"])
    back = time.time()
    place.ok("rollback", "green", "--model", "toy", "--reason", "to see it", "--wait")
    seal = next(e for e in place.rollout(view["id"]) if e["what"] == "rolled_back")
    assert seal["last_request_ms"] <= 250, seal
    wait_for("users on blue", lambda: len([a for a in traffic.since(back) if a["release"] == release["good"]]) > 100)
    assert traffic.bad(at=begun) == []


def test_a_wrong_release_ends_in_its_preview_and_no_user_has_met_it(place, traffic):
    begun = time.time()
    view = promote(place, "swapped", "green", "--wait", "--timeout", "90s", codes=(3,))
    assert view["stage_name"] == "rejected" and view["smoke"]["outcome"] == "fail"
    assert "the smoke test failed" in view["stage"]["reason"] and "instead of" in view["stage"]["reason"]
    # The test says its token, address and all, and nobody gets to see it.
    assert "([preview token])" in view["smoke"]["summary"], view["smoke"]
    log = wait_for("its log", lambda: "asks http" in (text := place.ok("logs", "promotion", view["id"])) and text)
    assert "/preview/[preview token]\n" in log, log
    said = json.dumps([view, place.audit()]) + log + place.ok("why", view["id"])
    assert "lgp1." not in said
    assert traffic.bad(at=begun) == []
    assert place.releases["swapped"][7:19] not in {a["release"] for a in traffic.since(begun)}
    text = place.ok("why", view["id"])
    assert "gave up before any traffic moved: the smoke test failed" in text
    # It is a test that failed, no fault under users: nothing is quarantined.
    assert "quarantine" not in place.ok("plan", place.releases["swapped"][7:19], "--env", "green", codes=(2,))


def test_testers_reach_green_by_address_header_and_cookie_and_are_in_no_count(place):
    gateway = place.gateway("hand")
    promotion = promote(place, "good2", "hand")["id"]
    ready(place, promotion)
    preview = place.json("preview", "--env", "hand", "--model", "toy", "--for", "5m")
    assert preview["address"].startswith(f"{gateway}/preview/lgp1.")
    token = preview["token"]
    green = place.releases["good2"][7:19]
    for url, headers in [
        (f"{preview['address']}{INFER}", {}),
        (f"{gateway}{INFER}", {"x-lockgate-preview": token}),
        (f"{gateway}{INFER}", {"Cookie": f"lockgate-preview={token}"}),
        (f"{gateway}{INFER}", {"x-lockgate-preview": token, "x-lockgate-release": green}),
    ]:
        status, got, _ = post(url, ROWS, headers)
        assert (status, got["x-lockgate-variant"], got["x-lockgate-release"]) == (200, "candidate", green)
    prediction = got["x-lockgate-prediction-id"]
    # Lists and statistics are those of green there, and of blue elsewhere.
    version = {at: json.loads(get(f"{at}/v1/models/toy")[2])["model_version_status"] for at in (preview["address"], gateway)}
    assert [len(v) for v in version.values()] == [1, 1] and len({v[0]["version"] for v in version.values()}) == 2, version
    stats = json.loads(get(f"{preview['address']}/v2/models/toy/stats")[2])["model_stats"]
    assert [s["inference_stats"]["success"]["count"] for s in stats] == [4], stats
    assert get(f"{gateway}/preview/{token[:-4]}AAAA/v2/health/ready")[0] == 401
    blue = post(f"{gateway}{INFER}", ROWS)
    assert blue[1]["x-lockgate-variant"] == "baseline"
    status, got, body = post(f"{gateway}{INFER}", ROWS, {"x-lockgate-release": "candidate"})
    assert status == 401 and b"lockgate preview --env hand --model toy" in body
    status, got, body = post(f"{gateway}{INFER}", ROWS, {"x-lockgate-preview": token[:-4] + "AAAA"})
    assert status == 401 and b"not one of this environment's" in body
    status, _, body = post(f"{place.gateway('green')}{INFER}", ROWS, {"x-lockgate-preview": token})
    assert status == 401, "another environment's agent has another key"
    row = place.json("trace", prediction)["prediction"]
    assert row["forced"] == "tester alice@example.com" and (row["assigned"], row["served"]) == ("candidate", "candidate")
    assert "forced" in place.ok("trace", prediction)
    # What a report of the agent said once it had the preview's table.
    sides = lambda: {s["role"]: s["requests"] for s in place.promotion(promotion)["sides"]}  # noqa: E731
    reported = wait_for("the candidate in a report", lambda: (s := sides()) and "candidate" in s and s)
    assert reported["candidate"] == 0, "testers are no users"
    metrics = get(f"{gateway}/metrics")[2].decode()
    assert re.search(r'lockgate_forced_requests_total\{[^}]*status="2xx"\} 4', metrics), metrics
    given = [e for e in place.audit() if e["action"] == "preview:token"]
    assert given and given[-1]["effect"] == "allow" and "for candidate of model toy" in given[-1]["reason"]
    # Nobody says yes in time: it ends, and never switches.
    assert place.run("watch", promotion, "--timeout", "30s").returncode in (1, 6)
    wait_for("the end", lambda: place.stage(promotion) == "rejected", 30)
    assert "past the preview's deadline" in place.promotion(promotion)["stage"]["reason"]
    assert place.serves("hand") == place.releases["good"]
    status, _, body = post(f"{preview['address']}{INFER}", ROWS)
    assert status == 404 and b"has no candidate here now" in body


STOCK = """
import sys
import numpy as np, tritonclient.grpc as grpc, tritonclient.http as http

address, gateway, token = sys.argv[1:]
rows = np.array([[1, 2, 3, 4]], np.float32)


def counted(client, headers):
    # What the one version that is told of has answered.
    more = {"as_json": True} if isinstance(client, grpc.InferenceServerClient) else {}
    (one,) = client.get_inference_statistics("toy", headers=headers, **more)["model_stats"]
    return int(one["inference_stats"]["success"].get("count", 0))


for lib, place, said in ((http, address, False), (http, gateway, True), (grpc, gateway, True)):
    # A dict of its own for each: the HTTP client writes into it.
    headers = {"x-lockgate-preview": token} if said else None
    client = lib.InferenceServerClient(place)
    assert client.is_server_ready(headers) and client.is_model_ready("toy", headers=headers)
    assert client.get_model_metadata("toy", headers=headers)
    given = lib.InferInput("x", [1, 4], "FP32")
    given.set_data_from_numpy(rows)
    before = counted(client, headers)
    assert client.infer("toy", [given], headers=headers).as_numpy("y")[0][0] == 30
    assert counted(client, headers) == before + 1, "a tester's own requests"
try:
    grpc.InferenceServerClient(gateway).infer("toy", [given], headers={"x-lockgate-release": "candidate"})
except grpc.InferenceServerException as error:
    assert error.status() == "StatusCode.UNAUTHENTICATED", error
else:
    raise SystemExit("no error")
"""


def test_stock_clients_see_green_at_the_preview_address_and_by_metadata(place):
    python = os.environ.get("OIP_TRITON")
    if not python:
        pytest.skip("OIP_TRITON names no Python with tritonclient (make e2e makes one)")
    promotion = promote(place, "good2", "hand")["id"]
    ready(place, promotion)
    preview = place.json("preview", "--env", "hand")
    bare = [preview[name].removeprefix("http://") for name in ("address", "gateway")]
    done = subprocess.run([python, "-c", STOCK, *bare, preview["token"]], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-3000:]
    forced = re.findall(r'lockgate_forced_requests_total\{.*status="2xx"\} (\d+)', get(f"{preview['gateway']}/metrics")[2].decode())
    assert sum(map(int, forced)) >= 3
    place.ok("abort", promotion, "--reason", "enough was seen")
    wait_for("the end", lambda: place.stage(promotion) == "rejected")


def test_a_switch_that_nobody_waits_for_is_refused(place):
    promotion = promote(place, "good2", "green")["id"]
    refused = place.run("switch", promotion)
    assert refused.returncode == 1 and "by hand" in refused.stderr, refused.stderr
    assert place.run("watch", promotion, "--timeout", "60s").returncode == 0
    place.ok("rollback", "green", "--model", "toy", "--reason", "for the next test", "--wait")


def test_a_smoke_test_that_takes_too_long_fails_and_leaves_nothing_running(place):
    view = promote(place, "good", "closed", "--wait", "--timeout", "90s", codes=(3,))
    assert "took longer than 2 s" in view["stage"]["reason"]
    left = [p for p in Path("/proc").glob("[0-9]*/cmdline") if b"smoke.py" in read(p)]
    assert left == []
    refused = place.run("preview", "--env", "closed", "--model", "toy")
    assert refused.returncode == 1 and "lets no testers in" in refused.stderr, refused.stderr


def test_a_failed_smoke_test_is_not_forgotten_by_a_restart_before_the_server_has_its_log(place):
    """The server hangs when the test ends, and the agent is killed: the end is on its disk, and the log follows later."""
    server, said = place.children["server"], place.state / "logs/agent-closed.log"
    before = said.read_text().count("smoked")
    promotion = promote(place, "good2", "closed")["id"]
    code = place.state / f"env/closed/work/{promotion}-smoke/checkout/smoke.py"
    wait_for("the test, which takes 2 s", code.exists)
    server.send_signal(signal.SIGSTOP)
    try:
        wait_for("its end on the agent's disk", lambda: said.read_text().count("smoked") > before, 20)
        place.end("agent-closed", signal.SIGKILL)
        place.start_agent("closed")
    finally:
        server.send_signal(signal.SIGCONT)
    wait_for("the end", lambda: place.stage(promotion) == "rejected")
    assert [e["outcome"] for e in place.rollout(promotion) if e["what"] == "smoked"] == ["fail"], "it ran once"
    wait_for("its log", lambda: "asks http" in place.ok("logs", "promotion", promotion))
    assert list((place.state / "env/closed/outbox").iterdir()) == []


def read(path):
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_an_agent_killed_in_the_preview_goes_on_with_it(place, traffic):
    begun = time.time()
    promotion = promote(place, "good2", "hand")["id"]
    ready(place, promotion)
    place.end("agent-hand", signal.SIGKILL)
    place.start_agent("hand")
    # Its deadline is a time on disk: it may have passed meanwhile, which ends it; it never switched.
    end = wait_for("an end or a wait", lambda: (p := place.promotion(promotion))["stage_name"] == "rejected" or p["needs_person"])
    assert end and place.serves("hand") == place.releases["good"]
    assert not [e for e in place.rollout(promotion) if e["what"] == "step_entered" and e["weight"] > 0]
    assert traffic.bad(at=begun) == []


def test_green_killed_in_its_preview_costs_no_user_a_request(place, traffic):
    begun = time.time()
    place.ok("status", codes=(0, 2, 4, 6))
    promotion = promote(place, "good2", "green")["id"]
    previewed(place, promotion)
    for pid, release in workers(place).items():
        if release == place.releases["good2"][7:]:
            os.kill(pid, signal.SIGKILL)
    assert place.run("watch", promotion, "--timeout", "90s").returncode in (0, 1, 3)
    assert traffic.bad(at=begun) == []
