"""Hold-outs: some users stay with what served before until the probation is over, and each of them stays the same."""

import itertools
import os

import pytest
from conftest import Traffic, grown, post, wait_for

ENVIRONMENTS = """
[env.held]
like = "quick"
after = "dev"
probation = "1h"
holdout = "20%"

[env.brief]
like = "held"
after = "dev"
probation = "8s"
"""
RPS = 120
ROWS = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [0.1, 0.2, 0.3, 1.0]}]}
USERS = [f"user-{os.getpid()}-{number}" for number in range(400)]


@pytest.fixture(scope="module")
def place(template, tmp_path_factory):
    """A server and the agents of `held` and `brief`, which serve `good`."""
    with grown(template, tmp_path_factory.mktemp("ho"), ENVIRONMENTS, ["held", "brief"]) as lockgate:
        for name in lockgate.ports:
            first = promote(lockgate, "good", name)
            # Nobody can be left with what there was not: a first release is everybody's.
            assert set(met(lockgate, name).values()) == {short(lockgate, "good")}, first
        yield lockgate


def short(place, name):
    return place.releases[name][7:19]


def promote(place, name, environment):
    return place.json("promote", short(place, name), "--env", environment, "--wait", "--timeout", "90s", timeout=120)


def met(place, environment):
    """The release that answers each user."""
    answers = {user: post(f"{place.gateway(environment)}/v2/models/toy/infer", ROWS, {"X-Unit": user}) for user in USERS}
    assert {status for status, _, _ in answers.values()} == {200}
    return {user: headers["x-lockgate-release"] for user, (_, headers, _) in answers.items()}


def held_out(place, answered):
    """Who is left with the release before; everybody else has the new one."""
    assert set(answered.values()) == {short(place, "good"), short(place, "good2")}, set(answered.values())
    return {user for user, release in answered.items() if release == short(place, "good")}


def test_who_is_held_out_stays_so_and_a_rollback_meanwhile_takes_everybody_back(place):
    text = place.ok("plan", short(place, "good2"), "--env", "held", codes=(2,))
    assert "20%" in text, text
    with Traffic(place.gateway("held"), RPS) as traffic:
        view = promote(place, "good2", "held")
        assert view["stage_name"] == "probation" and place.serves("held") == place.releases["good2"]
        first = held_out(place, met(place, "held"))
        # A fifth of 400 users, give or take five standard deviations.
        assert 40 < len(first) < 120, len(first)
        # The same after other requests, on other connections, and after the agent that draws them was started anew.
        assert held_out(place, met(place, "held")) == first
    place.end("agent-held")
    place.start_agent("held")
    assert held_out(place, met(place, "held")) == first
    assert place.stage(view["id"]) == "probation"
    assert traffic.bad() == []

    place.ok("rollback", "held", "--model", "toy", "--reason", "to see it", "--wait")
    assert set(met(place, "held").values()) == {short(place, "good")}
    assert place.stage(view["id"]) == "rolled-back" and place.serves("held") == place.releases["good"]


def test_a_hold_out_ends_with_the_probation_and_nobody_changes_twice(place):
    seen = {user: [] for user in USERS[:60]}

    def ask():
        for user in seen:
            status, headers, _ = post(f"{place.gateway('brief')}/v2/models/toy/infer", ROWS, {"X-Unit": user})
            assert status == 200
            seen[user].append(headers["x-lockgate-release"])
        return {user for user, answers in seen.items() if answers[-1] == old}

    old, new = short(place, "good"), short(place, "good2")
    with Traffic(place.gateway("brief"), RPS) as traffic:
        promotion = place.json("promote", new, "--env", "brief")["id"]
        wait_for("the probation", lambda: ask() and place.stage(promotion) == "probation")
        held = ask()
        assert 0 < len(held) < 30, held
        wait_for("its end", lambda: ask() <= held and place.stage(promotion) == "confirmed")
        assert set(met(place, "brief").values()) == {new}
    assert traffic.bad() == []
    changes = [[release for release, _ in itertools.groupby(answers)] for answers in seen.values()]
    assert all(one in ([old], [new], [old, new]) for one in changes), changes
