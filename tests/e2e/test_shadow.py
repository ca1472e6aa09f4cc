"""Shadow steps under traffic: users get the old release's answers alone, and the new one is judged by what it would have said."""

import os
import re
import signal
import statistics
import time

import pytest
from conftest import Apart, Traffic, get, wait_for
from test_killed import workers

RPS = 240


@pytest.fixture(scope="module")
def shadowed(template, tmp_path_factory):
    """A server and the agent of `shadowed`, which serves `good`."""
    lockgate = Apart(template.folder, template.copy(tmp_path_factory.mktemp("sh") / "s"), ["shadowed"])
    lockgate.releases = template.releases
    lockgate.start_server()
    lockgate.start_agent("shadowed")
    lockgate.ok("promote", template.releases["good"][7:19], "--env", "shadowed", "--wait", "--timeout", "60s")
    yield lockgate
    lockgate.verified()
    lockgate.stop()


@pytest.fixture(scope="module")
def traffic(shadowed):
    with Traffic(shadowed.gateway("shadowed"), RPS) as traffic:
        wait_for("traffic", lambda: len(traffic.since()) > 200)
        yield traffic


def promote(shadowed, name, *args, codes=(0,)):
    return shadowed.json("promote", shadowed.releases[name][7:19], "--env", "shadowed", *args, codes=codes, timeout=120)


def mirrored(shadowed):
    """What the gateway's metrics say of the newest rollout's mirrored requests."""
    text = get(f"{shadowed.gateway('shadowed')}/metrics")[2].decode()
    return {k: int(v) for k, v in re.findall(r'lockgate_shadow_requests_total\{.*outcome="(\w+)"\} (\d+)', text)}


def in_shadow(shadowed, promotion):
    """Waits until requests are mirrored for this promotion."""
    phase = lambda: (shadowed.promotion(promotion)["live"] or {}).get("phase", "")  # noqa: E731
    return wait_for("mirrored requests", lambda: re.search(r"shadow 100% \(mirrored [1-9]", p := phase()) and p)


def test_a_plan_says_what_is_mirrored_and_how_long_that_takes(shadowed):
    view = shadowed.json("plan", shadowed.releases["good2"][7:19], "--env", "shadowed", "--rps", "100", codes=(2,))
    assert [s.get("shadow", 0) for s in view["plan"]["rollout"]["steps"]] == [10000, 0, 0]
    rows = {r["guard"]: r["seconds"] for r in view["forecast"]["rows"] if r.get("shadow")}
    assert set(rows) == {"errors", "latency", "disagreement"} and 1 < rows["disagreement"] < 30
    text = shadowed.ok("plan", shadowed.releases["good2"][7:19], "--env", "shadowed", "--rps", "100", codes=(2,))
    assert "shadow 100% for 5 s, then 50% for 1 s, then 100%" in text
    assert "shadow 100% share, guard disagreement" in text


def test_a_good_release_goes_from_the_shadow_to_users_where_it_is_proven_anew(shadowed, traffic):
    begun = time.time()
    promotion = promote(shadowed, "good2")["id"]
    in_shadow(shadowed, promotion)
    text = shadowed.ok("status", codes=(0, 2, 4, 6))
    assert "shadow 100%" in text and "mirrored" in text
    mine = lambda: [a for a in traffic.since(begun) if a["variant"] == "candidate"]  # noqa: E731
    wait_for("users", lambda: len(mine()) > 50, 60)
    entered = [e for e in shadowed.rollout(promotion) if e["what"] == "step_entered"]
    assert [(e["weight"], e.get("shadow", 0)) for e in entered[:2]] == [(0, 10000), (5000, 0)]
    required = {r["guard"]: r for r in entered[1]["judgement"]["readings"] if r["required"]}
    assert set(required) == {"errors", "latency", "disagreement", "traffic"}
    assert all(r["verdict"] == "not_worse" and "mirrored requests" in r["summary"] for r in required.values())
    readings = shadowed.promotion(promotion)["live"]["judgement"]["readings"]
    assert {r["guard"] for r in readings if r["required"]} == {"errors", "latency", "traffic"}
    # Every answer was right, and until the shadow was over none was the candidate's.
    assert traffic.bad(at=begun) == []
    assert mine()[0]["at"] - begun > 5
    assert "mirrored to it, and no user" in shadowed.ok("why", promotion)
    shadowed.ok("abort", promotion, "--reason", "for the next test")
    assert shadowed.run("watch", promotion, "--timeout", "30s").returncode == 5


def test_swapped_columns_are_sent_back_by_disagreement_before_a_single_user_saw_them(shadowed, traffic):
    begun = time.time()
    view = promote(shadowed, "swapped", "--wait", "--timeout", "60s", codes=(5,))
    cause = view["stage"]["cause"]
    assert cause["why"] == "guard" and "guard `disagreement`" in cause["summary"], cause["summary"]
    seal = next(e for e in shadowed.rollout(view["id"]) if e["what"] == "rolled_back")
    assert (seal["candidate_requests"], seal["candidate_errors"]) == (0, 0)
    assert traffic.bad(at=begun) == []
    assert {a["variant"] for a in traffic.since(begun)} == {"baseline"}
    assert "answers differ" in shadowed.ok("why", view["id"])
    assert shadowed.serves("shadowed") == shadowed.releases["good"]


def test_a_slow_candidate_is_found_out_and_slows_no_user(shadowed, traffic):
    traffic.rps = 80
    address, times = shadowed.gateway("shadowed"), {"before": [], "while": []}

    def measure(when, seconds):
        body = b'{"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [0.1, 0.2, 0.3, 1.0]}]}'
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            begun = time.monotonic()
            status, headers, _ = get(f"{address}/v2/models/toy/infer", body, {"Content-Type": "application/json"})
            times[when].append(time.monotonic() - begun)
            assert status == 200 and headers["x-lockgate-variant"] == "baseline"

    measure("before", 2)
    promotion = promote(shadowed, "slow")["id"]
    in_shadow(shadowed, promotion)
    measure("while", 2)
    before, during = (statistics.median(times[w]) for w in ("before", "while"))
    # Both share this machine's few cores; what must not happen is that users wait for the candidate.
    assert during < 5 * before + 0.02, (before, during)
    assert shadowed.run("watch", promotion, "--timeout", "90s").returncode == 5
    assert "guard `latency`" in shadowed.promotion(promotion)["stage"]["cause"]["summary"]
    assert [a for a in traffic.since() if a["variant"] not in ("baseline", "candidate")] == []
    traffic.rps = RPS


def test_a_candidate_killed_in_the_shadow_costs_no_user_a_request(shadowed, traffic):
    begun = time.time()
    promotion = promote(shadowed, "good2")["id"]
    in_shadow(shadowed, promotion)
    seen = mirrored(shadowed)["mirrored"]
    killed = [pid for pid, release in workers(shadowed).items() if release == shadowed.releases["good2"][7:]]
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    assert killed
    wait_for("an end, or mirroring that goes on", lambda: mirrored(shadowed)["mirrored"] > seen + 50 or in_end(shadowed, promotion))
    assert traffic.bad(at=begun) == []
    shadowed.run("abort", promotion, "--reason", "enough was seen")
    wait_for("the end", lambda: in_end(shadowed, promotion))
    assert traffic.bad(at=begun) == []


def in_end(shadowed, promotion):
    return shadowed.stage(promotion) in ("rolled-back", "probation", "confirmed")
