"""Drills: the way back is rehearsed under real traffic, and nobody notices but those who look."""

import re
import signal
import threading
import time

import pytest
from conftest import Traffic, get, grown, post, wait_for

ENVIRONMENTS = """
[env.calm]
after = "dev"
rollout = ["100%"]
probation = "1s"
guards = { errors = { floor = "1%" }, latency = { remove = true } }
"""
RPS = 300
ROWS = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [0.1, 0.2, 0.3, 1.0]}]}


@pytest.fixture(scope="module")
def place(template, tmp_path_factory):
    """A server and the agent of `calm`, which serves `good2`, confirmed, with `good` to go back to."""
    with grown(template, tmp_path_factory.mktemp("dr"), ENVIRONMENTS, ["calm"]) as lockgate:
        confirmed(lockgate, "good")
        yield lockgate


def confirmed(place, name):
    view = place.json("promote", place.releases[name][7:19], "--env", "calm", "--wait", "--timeout", "90s")
    wait_for("the end of its probation", lambda: place.stage(view["id"]) == "confirmed")
    return view["id"]


def refused(place, part):
    done = place.run("drill", "calm")
    assert done.returncode == 1 and part in done.stderr, done.stderr


def test_there_is_no_drill_without_a_way_back_on_probation_or_without_the_agent(place):
    refused(place, "nothing to go back to")
    assert "there is no environment `nowhere`" in place.run("drill", "nowhere").stderr
    assert "was never drilled" in place.run("drill", "calm", "--last").stderr
    text = place.ok("plan", place.releases["good2"][7:19], "--env", "calm", codes=(2,))
    assert "never drilled" in text, text
    confirmed(place, "good2")
    agent = place.children["agent-calm"]
    agent.send_signal(signal.SIGSTOP)
    wait_for("the server to miss it", lambda: not place.json("status")["environments"][-1]["connected"])
    refused(place, "its agent is not there")
    agent.send_signal(signal.SIGCONT)
    wait_for("it to be back", lambda: place.json("status")["environments"][-1]["connected"])


def test_all_traffic_goes_there_and_home_and_no_request_is_lost(place):
    gateway = place.gateway("calm")
    with Traffic(gateway, RPS) as traffic:
        wait_for("traffic", lambda: len(traffic.since()) > 200)
        begun = time.time()
        said = place.ok("drill", "calm", "--reason", "it is Friday")
        over = time.time()
        wait_for("more traffic", lambda: len(traffic.since(over)) > 100)
    assert re.search(r"drill of toy in calm: passed: all traffic went to v\d+ \(", said), said
    drilled = last(place)["last"]
    away = drilled["away"]
    assert away["requests"] > RPS / 2 and away["errors"] == 0 and "failed" not in drilled
    assert away["last_request_ms"] <= 250 and 250 <= away["verified_ms"] < 10_000 and drilled["home_ms"] < 2_000
    # What users saw: everything answered, a while of it by the release before, and the present one at both ends.
    assert traffic.bad() == []
    met = [a["release"] for a in traffic.since(begun)]
    old, new = place.releases["good"][7:19], place.releases["good2"][7:19]
    assert met[0] == met[-1] == new and met.count(old) >= away["requests"] * 0.9
    turns = sum(a != b for a, b in zip(met, met[1:]))
    assert turns < 60, "there and back, but for requests that overtake each other"
    # It is on record, and the registry and the history of what serves know what they should.
    promotion = next(p for p in place.json("status")["promotions"] if p["stage_name"] == "confirmed")["id"]
    story = place.ok("why", promotion)
    assert "a drill began" in story and "the drill passed" in story, story
    assert place.serves("calm") == place.releases["good2"]
    entry = [e for e in place.audit() if e["action"] == "rollout:drill"]
    assert entry and entry[-1]["effect"] == "allow" and entry[-1]["reason"] == "it is Friday"
    assert re.search(r"from v\d+ to v\d+, was drilled \d+ (second|minute)s? ago: verified after \d+ ms", plan(place)), plan(place)


def last(place):
    """What is known of drills; a failed one has exit code 1."""
    return place.json("drill", "calm", "--last", codes=(0, 1))


def plan(place):
    return place.ok("plan", place.releases["good"][7:19], "--env", "calm", codes=(2,))


def test_an_agent_killed_during_a_drill_ends_it_as_failed_and_users_are_home(place):
    before = last(place)["last"]["at"]
    with Traffic(place.gateway("calm"), RPS):
        asking = threading.Thread(target=place.run, args=("drill", "calm"))
        asking.start()
        wait_for("it to be under way", lambda: last(place)["under_way"], 20)
        place.end("agent-calm", signal.SIGKILL)
        place.start_agent("calm")
        done = wait_for(
            "its end",
            lambda: (d := last(place))["last"]["at"] != before and not d["under_way"] and d,
        )
    asking.join(100)
    assert "started again" in done["last"]["failed"], done
    again = place.run("drill", "calm", "--last")
    assert again.returncode == 1 and "FAILED: the agent was started again meanwhile" in again.stdout, again.stdout
    status, got, _ = post(f"{place.gateway('calm')}/v2/models/toy/infer", ROWS)
    assert status == 200 and got["x-lockgate-release"] == place.releases["good2"][7:19]


def test_what_workers_take_is_measured(place):
    wait_for("a reading", lambda: b"lockgate_worker_resident_bytes{" in get(f"{place.gateway('calm')}/metrics")[2])
    text = get(f"{place.gateway('calm')}/metrics")[2].decode()
    release = place.releases["good2"][7:19]
    labels = rf'\{{environment="calm",model="toy",release="{release}",revision="[0-9a-f]+",worker="0"\}}'

    def number(name):
        return float(re.search(rf"^{name}{labels} (\S+)$", text, re.M)[1])

    assert number("lockgate_worker_ready") == 1
    assert 5e6 < number("lockgate_worker_resident_bytes") < 1e9 and number("lockgate_worker_open_fds") > 3
    assert number("lockgate_worker_cpu_seconds_total") > 0
    assert float(re.search(r'^process_resident_memory_bytes\{environment="calm"\} (\S+)$', text, re.M)[1]) > 1e7
    sides = wait_for("a side with its memory", lambda: [
        s for e in place.json("status")["environments"] if e["name"] == "calm"
        for s in e["models"]["toy"]["sides"] if s.get("resident_bytes") and s.get("cpu_cores") is not None
    ])
    assert sides[0]["cpu_cores"] < 8
    assert "memory" in place.ok("status")
