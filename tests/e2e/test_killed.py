"""`kill -9` at any moment, and a server that stays away: the end is the one of an undisturbed run, and everything is told once."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import Traffic, wait_for

ENDED = ("confirmed", "probation", "rolled-back", "rejected", "on-backup", "stranded")


def workers(apart):
    """The worker processes of this state folder: pid and release."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode().split("\0")
        except OSError:
            continue
        if "worker" in words[1:2] and str(apart.state) in " ".join(words):
            found[int(path.parent.name)] = Path(words[words.index("--model-dir") + 1]).name
    return found


def end_of(apart, promotion):
    """How a promotion ended, as far as it must be the same after every disturbance."""
    view = apart.promotion(promotion)
    events = [e for e in apart.rollout(promotion) if e["what"] != "held"]
    return {
        "stage": view["stage_name"],
        "serves": apart.serves("quick"),
        "events": [(e["what"], e.get("step"), e.get("epoch")) for e in events],
    }


def ended(apart, promotion, seconds=60):
    def look():
        view = apart.run("why", promotion, "--json")
        return view.returncode == 0 and apart.stage(promotion) in ENDED and (apart.stage(promotion) != "probation")

    wait_for("the promotion's end", look, seconds)
    return end_of(apart, promotion)


def expected(apart, name):
    """What an undisturbed run leaves."""
    good = apart.releases["good2" if name == "good2" else "good"]
    event = lambda what, step=None, epoch=None: (what, step, epoch)  # noqa: E731
    first = [event("started"), event("step_entered", 0, 2), event("step_settled", 0)]
    if name == "good2":
        rest = [event("step_entered", 1, 3), event("step_settled", 1), event("promoted"), event("confirmed")]
        return {"stage": "confirmed", "serves": good, "events": first + rest}
    rest = [event("rollback_decided", None, 3), event("rollback_applied"), event("rolled_back")]
    return {"stage": "rolled-back", "serves": good, "events": first + rest}


def promote(apart, name):
    return apart.json("promote", apart.releases[name][7:19], "--env", "quick")["id"]


@pytest.fixture
def running(apart):
    apart.start_server()
    apart.start_agent("quick")
    return apart


@pytest.mark.parametrize("name", ["good2", "error"])
def test_an_undisturbed_run_ends_as_the_disturbed_ones_must(running, name):
    with Traffic(running.gateway("quick")) as traffic:
        promotion = promote(running, name)
        assert ended(running, promotion) == expected(running, name)
        assert [a for a in traffic.bad() if a["variant"] != "candidate"] == []


def test_with_the_server_gone_the_agent_rolls_back_by_itself_and_tells_it_once(running):
    apart = running
    # Without traffic the candidate waits in its first step; the server dies before the first bad answer.
    promotion = promote(apart, "error")
    wait_for("the first step", lambda: apart.promotion(promotion)["stage"].get("rollout", {}).get("step") == 0)
    apart.end("server", signal.SIGKILL)
    assert apart.run("status").returncode == 1
    with Traffic(apart.gateway("quick")) as traffic:
        wait_for("bad answers", lambda: traffic.bad("candidate"))
        quiet = lambda: (last := traffic.since(time.time() - 2)) and {a["variant"] for a in last} == {"baseline"}  # noqa: E731
        wait_for("the way back without a server", quiet)
        assert [a for a in traffic.bad() if a["variant"] != "candidate"] == []
        bad, later = len(traffic.bad()), time.time()
        # It restarts from its own disk, too, still alone: the baseline serves and the candidate gets nothing.
        apart.end("agent-quick", signal.SIGKILL)
        apart.start_agent("quick")
        wait_for("answers again", lambda: [a for a in traffic.since(later) if a["good"]][200:])
        assert traffic.bad("candidate", at=later) == []
    apart.start_server()
    end = ended(apart, promotion)
    assert end == expected(apart, "error")
    assert next(e for e in apart.rollout(promotion) if e["what"] == "rolled_back")["candidate_errors"] == bad
    cause = apart.promotion(promotion)["stage"]["cause"]
    # Where most of the candidate's first twenty units happen to be bad ones, the gateway's own breaker comes first.
    assert cause["why"] == "breaker" or (cause["why"] == "guard" and "errors" in cause["summary"])
    before = apart.sources()
    # Told again after another restart of both, it is still there once.
    for name in ("server", "agent-quick"):
        apart.end(name, signal.SIGKILL)
    apart.start_server()
    apart.start_agent("quick")
    wait_for("the agent", lambda: next(e for e in apart.json("status")["environments"] if e["name"] == "quick")["connected"])
    assert apart.sources() == before
    assert end_of(apart, promotion) == end


def test_counts_that_an_agents_restart_cut_short_are_not_told_as_totals(running):
    apart = running
    for restarts in (0, 1):
        promotion = promote(apart, "good2")
        wait_for("the first step", lambda: apart.promotion(promotion)["stage"].get("rollout", {}).get("step") == 0)  # noqa: B023
        for _ in range(restarts):
            apart.end("agent-quick", signal.SIGKILL)
            apart.start_agent("quick")
        apart.ok("abort", promotion, "--reason", "a test")
        assert apart.run("watch", promotion, "--timeout", "60s").returncode == 5
        sealed = next(e for e in apart.rollout(promotion) if e["what"] == "rolled_back")
        assert ("counted_since" in sealed) == bool(restarts), sealed
        assert ("since the agent was started again" in apart.ok("why", promotion)) == bool(restarts)


@pytest.mark.parametrize("name", ["good2", "error"])
def test_a_rollout_survives_kill_9_of_server_agent_and_workers_under_traffic(running, name):
    apart = running
    with Traffic(apart.gateway("quick")) as traffic:
        promotion = promote(apart, name)
        for turn, victim in enumerate(["server", "agent-quick", "worker", "agent-quick", "server", "worker"]):
            time.sleep(0.15 * turn)
            if victim == "worker":
                # A candidate whose worker dies is held to account for it, a good one, too; so it is what serves that dies.
                for pid, release in workers(apart).items():
                    if release == apart.releases["good"][7:]:
                        os.kill(pid, signal.SIGKILL)
                continue
            apart.end(victim, signal.SIGKILL)
            apart.start_server() if victim == "server" else apart.start_agent("quick")
        assert ended(apart, promotion, 90) == expected(apart, name)
        later = time.time()
        wait_for("good answers", lambda: len(traffic.since(later)) > 200)
        assert traffic.bad(at=later) == []


def test_a_killed_worker_costs_no_request_and_comes_back(running):
    with Traffic(running.gateway("quick"), rps=120) as traffic:
        wait_for("answers", lambda: len(traffic.since()) > 100)
        (pid,) = workers(running)
        os.kill(pid, signal.SIGKILL)
        wait_for("another worker", lambda: workers(running) and pid not in workers(running))
        later = time.time()
        wait_for("answers again", lambda: [a for a in traffic.since(later) if a["good"]][100:])
        assert traffic.bad() == []
    worker = lambda: [e["event"]["what"] for e in running.audit() if (e.get("event") or {}).get("kind") == "worker"]  # noqa: E731
    wait_for("its story in the audit log", lambda: worker() == ["lost", "back"])


def test_when_the_server_is_killed_nothing_that_was_acknowledged_is_lost(running):
    acknowledged = []
    for turn in range(4):
        for reason in range(3):
            promotion = promote(running, "good2")
            running.ok("abort", promotion, "--reason", f"turn {turn}.{reason}")
            acknowledged.append((promotion, f"turn {turn}.{reason}"))
            wait_for("its end", lambda p=promotion: not running.promotion(p)["live"] and running.stage(p) in [*ENDED, "cancelled"])
        running.end("server", signal.SIGKILL)
        running.start_server()
    said = {(e["resource"]["id"], e.get("reason")) for e in running.audit()}
    assert set(acknowledged) <= said


POINTS = {
    "good2": [
        "before-journal:started",
        "after-journal:started",
        "before-journal:step_entered",
        "after-journal:step_entered",
        "before-publish:table",
        "after-publish:step_entered",
        "before-journal:step_settled",
        "before-journal:promoted",
        "after-journal:promoted",
        "after-journal:confirmed",
        "during:retire",
    ],
    "error": [
        "before-journal:rollback_decided",
        "after-journal:rollback_decided",
        "after-publish:rollback_decided",
        "before-journal:rollback_applied",
        "after-journal:rollback_applied",
        "before-journal:rolled_back",
        "after-journal:rolled_back",
    ],
}


@pytest.mark.parametrize(("name", "point"), [(name, point) for name, points in POINTS.items() for point in points])
def test_an_agent_killed_at_a_point_ends_as_if_nothing_had_been(apart, name, point):
    apart.start_server()
    agent = apart.start_agent("quick", wait=False, LOCKGATE_CRASH_AT=f"quick:{point}")
    with Traffic(apart.gateway("quick")):
        promotion = promote(apart, name)
        try:
            assert agent.wait(60) == -signal.SIGKILL
        except subprocess.TimeoutExpired:
            pytest.fail(f"the agent did not come to {point}")
        # It is started again as whoever keeps it running would: the same way.
        apart.start_agent("quick", LOCKGATE_CRASH_AT=f"quick:{point}")
        assert ended(apart, promotion) == expected(apart, name)
