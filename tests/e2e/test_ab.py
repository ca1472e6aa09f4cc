"""A/B tests by outcomes that clients send afterwards: a better release wins, a worse one goes back, an equal one is held, and what
was acknowledged survives the agent's death."""

import json
import queue
import random
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest
from conftest import Apart, Traffic, get, post, repository, wait_for

RELEASES = ["good", "good2", "swapped", "constant"]
CONFIG = """project = "faults"

[model.toy]
task = "regression"
unit = "header:X-Unit"

[pipeline.train]
run = "python train.py"
deps = ["train.py"]
params = ["FAULT"]

[env.dev]

# What is right is known a moment after the answer.
[env.tested]
after = "dev"
rollout = ["a/b 50% for 1s", "100%"]
deadline = "4s"
probation = "1h"
guards = { latency = { remove = true }, errors = { floor = "20%" }, constant = { remove = true } }

# What is right is known long after.
[env.late]
after = "dev"
rollout = ["canary 50% for 1s", "100%"]
probation = "1h"
guards = { latency = { remove = true }, errors = { floor = "20%" }, constant = { remove = true } }

[guard.errors]
kind = "rate"
worse_by = "50%"
[guard.latency]
kind = "latency"
[guard.right]
kind = "goal"
metric = "right"
min_gain = "1%"
within = "10m"
"""


class Told(Traffic):
    """Traffic whose clients find out a moment later whether the answer was right, and say so, a few dozen at a time."""

    def __init__(self, gateway, rps=240, tell=True):
        super().__init__(gateway, rps)
        self.gateway, self.tell = gateway, tell
        self.known, self.acknowledged, self.refused = queue.Queue(), [], []

    def __enter__(self):
        super().__enter__()
        self.teller = threading.Thread(target=self.say, daemon=True)
        self.teller.start()
        return self

    def __exit__(self, *_):
        super().__exit__()
        self.teller.join(60)

    def note(self, number, values, reply, content):
        super().note(number, values, reply, content)
        if reply.status == 200:
            # Three in ten right answers help nobody: so no side is perfect.
            right = self.answers[-1]["good"] and random.random() < 0.7  # noqa: S311
            self.known.put((reply.getheader("x-lockgate-prediction-id"), reply.getheader("x-lockgate-variant"), int(right)))

    def say(self):
        while not self.over.wait(0.05):
            if self.tell:
                self.send_all()

    def send_all(self):
        while not self.known.empty():
            some = [self.known.get() for _ in range(min(50, self.known.qsize()))]
            status, _, body = post(f"{self.gateway}/feedback", [{"prediction_id": i, "right": r} for i, _, r in some])
            if status == 200:
                self.acknowledged += some
            elif status == 422:
                for one, line in zip(some, json.loads(body)["results"], strict=True):
                    (self.acknowledged if line["status"] in ("recorded", "known") else self.refused).append(one)
            else:
                # Not known whether it was kept: said again later, which changes nothing if it was.
                for one in some:
                    self.known.put(one)
                return


@pytest.fixture(scope="module")
def ab(tmp_path_factory):
    """A server and the agent of `tested`, which serves `swapped`."""
    base = tmp_path_factory.mktemp("ab")
    folder = base / "project"
    shutil.copytree(Path(__file__).parent / "projects/faults", folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "lockgate.toml").write_text(CONFIG)
    repository(folder)
    lockgate = Apart(folder, base / "s", ["tested", "late"])
    lockgate.start_server()
    lockgate.ok("run", "-p", f"FAULT={','.join(RELEASES)}", timeout=300)
    lockgate.releases = {f: lockgate.json("release", "create", f"toy@{f}")["digest"] for f in RELEASES}
    lockgate.start_agent("tested")
    promote(lockgate, "swapped", "--wait", "--timeout", "60s")
    yield lockgate
    lockgate.verified()
    lockgate.stop()


def promote(ab, name, *args, env="tested", codes=(0,)):
    return ab.json("promote", ab.releases[name][7:19], "--env", env, *args, codes=codes, timeout=180)


def goal(judgement):
    return next(r for r in judgement["readings"] if r["guard"] == "right")


def watched(ab, promotion):
    """The goal's live reading, once there is one."""
    live = ab.promotion(promotion)["live"]
    return goal(live["judgement"]) if live and live["judgement"]["readings"] else None


def labelled(reading):
    found = reading["goal"]["labelled"] if reading and reading.get("goal") else {"candidate": 0, "baseline": 0}
    return found["candidate"] + found["baseline"]


def outcomes(reading, side):
    return sum(n for count in reading["goal"]["counts"] for _, n in count[side])


def test_a_plan_says_what_the_test_is_about_and_how_much_it_takes(ab):
    text = ab.ok("plan", ab.releases["good"][7:19], "--env", "tested", "--rps", "100", codes=(2,))
    assert "a/b 50% for 1 s, then 100%" in text
    assert "an A/B step needs proof of a gain above 1 points" in text
    assert "outcomes prove a gain of 11 points" in text
    rows = ab.json("plan", ab.releases["good"][7:19], "--env", "tested", "--rps", "100", codes=(2,))["forecast"]["rows"]
    row = next(r for r in rows if r["guard"] == "right")
    assert 100 < row["outcomes"] < 100_000 and row["seconds"] == pytest.approx(row["outcomes"] / 100)


def test_feedback_is_answered_by_what_became_of_it(ab):
    gateway = ab.gateway("tested")
    ask = b'{"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [0.1, 0.2, 0.3, 1.0]}]}'
    status, headers, _ = get(f"{gateway}/v2/models/toy/infer", ask, {"Content-Type": "application/json"})
    assert status == 200
    mine = headers["x-lockgate-prediction-id"]
    say = lambda body: (lambda s, _, b: (s, json.loads(b)))(*post(f"{gateway}/feedback", body))  # noqa: E731
    assert say({"prediction_id": mine, "right": 1, "label": "cat"}) == (200, {"prediction_id": mine, "status": "recorded"})
    assert say({"prediction_id": mine, "right": True})[1]["status"] == "known"
    status, answer = say({"prediction_id": mine, "right": 0})
    assert status == 409 and "the first value stands" in answer["error"]
    status, answer = say({"prediction_id": "01M8AY7JZFMHB6BY6FXZAJM001", "right": 0})
    assert status == 404 and "no prediction with this id" in answer["error"]
    for wrong in ({"prediction_id": mine}, {"right": 1}, {"prediction_id": mine, "right": None}, [], 7, b"{"):
        status, answer = say(wrong)
        assert status == 400 and answer["error"], wrong
    status, answer = say([{"prediction_id": mine, "right": 1}, {"prediction_id": "01M8AY7JZFMHB6BY6FXZAJM001", "right": 1}])
    assert status == 422 and [r["status"] for r in answer["results"]] == ["known", "unknown"]
    assert get(f"{gateway}/feedback")[0] == 405
    # It stands beside the prediction, wherever that is looked up.
    row = ab.json("trace", mine)["prediction"]
    assert row["feedback"]["right"]["value"] == 1 and row["feedback"]["label"]["value"] == "cat"


def test_a_token_is_asked_for_where_the_environment_has_one(ab):
    file = ab.folder / "feedback-tokens"
    file.write_text("# which clients send since May\nthe-token-of-may-4711\n")
    ab.start_agent("late", more=("--feedback-token-file", str(file)))
    say = lambda headers: post(f"{ab.gateway('late')}/feedback", {"prediction_id": "01M8AY7JZFMHB6BY6FXZAJM001", "right": 1}, headers)  # noqa: E731
    for headers in ({}, {"Authorization": "Bearer the-token-of-april-4711"}, {"Authorization": "the-token-of-may-4711"}):
        status, _, body = say(headers)
        assert status == 401 and b"authorization: Bearer" in body, body
    assert say({"Authorization": "Bearer the-token-of-may-4711"})[0] == 404
    assert get(f"{ab.gateway('late')}/v2/health/live")[0] == 200
    ab.end("agent-late")
    # One that can't read its tokens starts for nobody, rather than for everybody.
    file.write_text("short")
    agent = ab.start_agent("late", wait=False, more=("--feedback-token-file", str(file)))
    assert agent.wait(30) != 0
    ab.children.pop("agent-late")


def test_a_better_release_wins(ab):
    with Told(ab.gateway("tested")) as traffic:
        wait_for("traffic", lambda: len(traffic.since()) > 100)
        view = promote(ab, "good")
        wait_for("outcomes", lambda: labelled(watched(ab, view["id"])) > 10)
        status = ab.ok("status", codes=(0, 2, 4, 6))
        assert "A/B test with 50% of the traffic" in status and "for better" in status, status
        assert ab.run("watch", view["id"], "--timeout", "90s").returncode == 0, ab.ok("why", view["id"])
        entered = [e for e in ab.rollout(view["id"]) if e["what"] == "step_entered"]
        reading = goal(entered[1]["judgement"])
        assert reading["required"] and reading["verdict"] == "not_worse"
        assert reading["log_e_not_worse"] >= reading["needed"]
        # The numbers that it was made from: as many as there were units, and no more than were told.
        found = reading["goal"]
        assert [outcomes(reading, s) for s in ("candidate", "baseline")] == [found["labelled"][s] for s in ("candidate", "baseline")]
        assert labelled(reading) <= len(traffic.acknowledged) + 50
        assert found["difference"][1] > 0.01 and found["means"][0] > 0.4
        assert "right better" in ab.ok("why", view["id"])
    # The few that may be refused are those of which the agent had not heard: none without a crash.
    assert traffic.refused == []
    assert ab.serves("tested") == ab.releases["good"]


def test_a_worse_release_goes_back(ab):
    with Told(ab.gateway("tested")) as traffic:
        wait_for("traffic", lambda: len(traffic.since()) > 100)
        view = promote(ab, "swapped", "--wait", "--timeout", "90s", codes=(5,))
        cause = view["stage"]["cause"]
        assert cause["why"] == "guard" and "guard `right`" in cause["summary"], cause["summary"]
        assert goal(cause["judgement"])["goal"]["difference"][2] < 0
        text = ab.ok("why", view["id"])
        assert "centre" in text and "merged evidence" in text
    assert ab.serves("tested") == ab.releases["good"]


def test_an_equal_release_is_held_and_what_was_acknowledged_survives_the_agents_death(ab):
    with Told(ab.gateway("tested"), 120) as traffic:
        wait_for("traffic", lambda: len(traffic.since()) > 50)
        promotion = promote(ab, "good2")["id"]
        wait_for("outcomes", lambda: labelled(watched(ab, promotion)) > 100)
        before = len([a for a in traffic.acknowledged if a[1]])
        counted = labelled(watched(ab, promotion))
        ab.end("agent-tested", signal.SIGKILL)
        ab.start_agent("tested")
        wait_for("the same outcomes again", lambda: labelled(watched(ab, promotion)) >= counted, 30)
        # Every one that was acknowledged is still there: to say it again changes nothing.
        some = traffic.acknowledged[:before][-200:]
        items = [{"prediction_id": i, "right": r} for i, _, r in some]
        status, _, body = wait_for("an answer", lambda: (a := post(f"{ab.gateway('tested')}/feedback", items))[0] == 200 and a)
        assert {r["status"] for r in json.loads(body)["results"]} == {"known"}, body
        wait_for("more outcomes", lambda: labelled(watched(ab, promotion)) > counted + 100)
        held = lambda: ab.promotion(promotion)["needs_person"]  # noqa: E731
        wait_for("the deadline", held, 60)
        assert ab.promotion(promotion)["stage_name"] == "rolling"
        assert "a person must decide" in ab.ok("why", promotion)
        assert watched(ab, promotion)["verdict"] == "unknown"
        ab.ok("abort", promotion, "--reason", "no better than what serves")
        assert ab.run("watch", promotion, "--timeout", "30s").returncode == 5


def test_outcomes_of_one_side_alone_hold(ab):
    with Told(ab.gateway("tested"), 240, tell=False) as traffic:
        wait_for("traffic", lambda: len(traffic.since()) > 100)
        promotion = promote(ab, "good2")["id"]
        end = time.monotonic() + 40
        while time.monotonic() < end:
            while not traffic.known.empty():
                prediction, variant, right = traffic.known.get()
                if variant == "candidate":
                    post(f"{traffic.gateway}/feedback", {"prediction_id": prediction, "right": right})
            reading = watched(ab, promotion)
            if reading and (reading.get("goal") or {}).get("void"):
                break
        reading = watched(ab, promotion)
        assert "outcomes come more often for one side" in reading["goal"]["void"], reading
        assert (reading["verdict"], reading["log_e_worse"], reading["log_e_not_worse"]) == ("unknown", 0, 0)
        wait_for("the hold", lambda: "comparison is void" in ab.ok("why", promotion))
        ab.ok("abort", promotion, "--reason", "enough was seen")
        assert ab.run("watch", promotion, "--timeout", "30s").returncode == 5


def test_outcomes_that_come_after_the_promotion_send_a_worse_release_back(ab):
    ab.start_agent("late")
    promote(ab, "good", "--wait", "--timeout", "60s", env="late")
    with Told(ab.gateway("late"), 240, tell=False) as traffic:
        wait_for("traffic", lambda: len(traffic.since()) > 100)
        view = promote(ab, "constant", "--wait", "--timeout", "60s", env="late")
        assert view["stage_name"] == "probation" and ab.serves("late") == ab.releases["constant"]
        # Nothing was known of it when it was promoted. Now the outcomes of the canary's time come in.
        traffic.tell = True
        wait_for("the way back", lambda: ab.stage(view["id"]) == "rolled-back", 60)
    cause = ab.promotion(view["id"])["stage"]["cause"]
    assert cause["why"] == "guard" and "guard `right`" in cause["summary"], cause["summary"]
    assert ab.serves("late") == ab.releases["good"]
    ab.end("agent-late")
