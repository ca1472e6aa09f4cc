"""Observing only: users get the answers of what serves, whatever a rollout would decide, and it says what that is."""

import time

import pytest
from conftest import Traffic, grown, wait_for

ENVIRONMENTS = """
[env.watched]
like = "shadowed"
after = "dev"
observe = true
"""
RPS = 240


@pytest.fixture(scope="module")
def place(template, tmp_path_factory):
    """A server and the agent of `watched`, which serves `good`: the first release, which has to."""
    with grown(template, tmp_path_factory.mktemp("ob"), ENVIRONMENTS, ["watched"]) as lockgate:
        lockgate.ok("promote", template.releases["good"][7:19], "--env", "watched", "--wait", "--timeout", "60s")
        yield lockgate


def test_a_plan_says_that_no_user_will_meet_it(place):
    text = place.ok("plan", place.releases["good2"][7:19], "--env", "watched", codes=(2,))
    assert "only: no user gets the release's answers; what would be decided is said and not done" in text, text


@pytest.mark.parametrize("name", ["good2", "swapped"])
def test_no_user_meets_a_release_and_the_verdict_is_told(place, name):
    with Traffic(place.gateway("watched"), RPS) as traffic:
        wait_for("traffic", lambda: len(traffic.since()) > 200)
        begun = time.time()
        done = place.run(
            "promote", place.releases[name][7:19], "--env", "watched", "--wait", "--timeout", "90s", timeout=120
        )
    met = {a["release"] for a in traffic.since(begun)}
    assert met == {place.releases["good"][7:19]} and traffic.bad() == [], met
    assert place.serves("watched") == place.releases["good"]
    if name == "good2":
        assert done.returncode == 1, done.stdout + done.stderr
        assert "observed only, and no user met it; it would have got 50% of the users now: " in done.stdout, done.stdout
        assert "errors not worse" in done.stdout and "disagreement not worse" in done.stdout
    else:
        assert done.returncode == 5, done.stdout + done.stderr
        assert "disagreement" in done.stdout and "observed only" not in done.stdout
