"""Rollouts of other models with other faults, under traffic and without: the right verdict, *unknown* included."""

import json
import subprocess
import time

import pytest
from conftest import PROGRAM, Traffic, wait_for

RPS = 360


@pytest.fixture(scope="module")
def traffic(faults):
    """Some hundred requests a second into production, for the whole module's rollouts that need them."""
    with Traffic(faults.gateway("production"), RPS) as traffic:
        wait_for("traffic", lambda: len(traffic.since()) > 200)
        yield traffic


def promote(faults, name, *args, environment="production", codes=(0,), **kwargs):
    release = faults.releases[name][7:19]
    return faults.json("promote", release, "--env", environment, *args, codes=codes, timeout=200, **kwargs)


def test_a_plan_for_five_requests_a_second_says_that_it_can_not_decide_and_proposes_routes(faults):
    view = faults.json("plan", faults.releases["good2"][7:19], "--env", "production", "--rps", "5", codes=(2,))
    forecast = view["forecast"]
    assert forecast["rate"] == 5 and (forecast["total_seconds"] is None or forecast["total_seconds"] > 600)
    advice = " ".join(forecast["advice"])
    assert "5.0 requests/s" in advice and "replay" in advice and "shadow" in advice and "larger steps" in advice
    quick = faults.json("plan", faults.releases["good2"][7:19], "--env", "production", "--rps", "500", codes=(2,))
    assert quick["forecast"]["total_seconds"] < 600 and quick["forecast"]["advice"] == []


def test_without_traffic_nothing_is_known_and_the_rollout_is_held_and_people_pause_resume_and_abort_it(faults):
    promotion = promote(faults, "good2")["id"]
    held = wait_for("holding", lambda: (p := faults.promotion(promotion))["stage"].get("rollout", {}).get("held") and p)
    assert "errors" in held["stage"]["rollout"]["held"]["reason"]
    done = faults.run("watch", promotion, "--timeout", "2s")
    assert done.returncode == 6, done.stdout + done.stderr

    faults.ok("pause", promotion, "--reason", "lunch")
    wait_for("the pause", lambda: "paused" in (faults.promotion(promotion)["live"] or {}).get("phase", ""))
    faults.ok("resume", promotion, "--reason", "back again")
    wait_for("going on", lambda: "paused" not in (faults.promotion(promotion)["live"] or {}).get("phase", "paused"))
    faults.ok("abort", promotion, "--reason", "nobody comes")
    assert faults.run("watch", promotion, "--timeout", "30s").returncode == 5
    ended = faults.promotion(promotion)
    assert ended["stage_name"] == "rolled-back" and ended["stage"]["cause"]["why"] == "person"
    assert faults.serves("production") == faults.releases["good"]

    said = {(e["action"], e.get("reason")) for e in faults.audit() if e["resource"]["id"] == promotion}
    assert {("rollout:pause", "lunch"), ("rollout:resume", "back again"), ("rollout:abort", "nobody comes")} <= said
    text = faults.ok("why", promotion)
    assert "nobody comes" in text and "alice@example.com" in text
    events = [e["what"] for e in faults.rollout(promotion) if e["what"] != "held"]
    assert events == [
        "started", "step_entered", "step_settled", "paused", "resumed", "rollback_decided", "rollback_applied", "rolled_back"
    ]  # fmt: skip


def test_a_good_release_is_promoted_by_evidence_and_every_answer_is_right(faults, traffic):
    begun = time.time()
    view = promote(faults, "good2", "--wait", "--timeout", "180s")
    assert view["stage_name"] in ("confirmed", "probation")
    assert faults.serves("production") == faults.releases["good2"]
    # From the second step on each was entered because every required guard said *not worse*.
    entered = [e for e in faults.rollout(view["id"]) if e["what"] == "step_entered"]
    assert [e["weight"] for e in entered] == [2500, 5000, 10000]
    for event in entered[1:]:
        required = [r for r in event["judgement"]["readings"] if r["required"]]
        assert {r["guard"] for r in required} >= {"errors", "latency"}
        assert all(r["verdict"] == "not_worse" for r in required)
    assert traffic.bad(at=begun) == []
    assert {a["variant"] for a in traffic.since(begun)} == {"baseline", "candidate"}


def test_what_was_promoted_is_rolled_back_by_hand_and_no_request_fails(faults, traffic):
    begun = time.time()
    view = faults.json("rollback", "production", "--reason", "a customer called", "--wait")
    assert view["stage_name"] == "rolled-back"
    assert faults.serves("production") == faults.releases["good"]
    assert "a customer called" in faults.ok("why", view["id"])
    later = time.time()
    wait_for("later answers", lambda: len(traffic.since(later)) > 50)
    assert {faults.releases["good"][7:].startswith(a["release"]) for a in traffic.since(later)} == {True}
    assert traffic.bad(at=begun) == []


@pytest.mark.parametrize(
    ("fault", "guard"), [("nan", "errors"), ("error", "errors"), ("constant", "constant"), ("slow", "latency"), ("broken", None)]
)
def test_a_faulty_release_is_rolled_back_by_the_right_guard_and_nobody_else_notices(faults, traffic, fault, guard):
    begun = time.time()
    traffic.rps = 120 if fault == "slow" else RPS
    view = promote(faults, fault, "--wait", "--timeout", "180s", codes=(5,))
    stage = view["stage"]
    assert view["stage_name"] == "rolled-back"
    # Where most of the candidate's first twenty units happen to be bad ones, the gateway's own breaker comes first.
    by_breaker = guard == "errors" and stage["cause"]["why"] == "breaker"
    if guard and not by_breaker:
        assert stage["cause"]["why"] == "guard" and f"guard `{guard}`" in stage["cause"]["summary"], stage["cause"]["summary"]
    else:
        assert stage["cause"]["why"] in ("breaker", "guard")
    assert faults.serves("production") == faults.releases["good"]
    later = time.time()
    wait_for("later answers", lambda: len(traffic.since(later)) > 50)
    # Whoever got a bad answer got it from the candidate itself; the way back cost nobody one.
    bad = traffic.bad(at=begun)
    assert [a for a in bad if a["variant"] != "candidate"] == []
    assert traffic.bad(at=later) == []
    if fault == "slow":
        assert bad == []
    sealed = next(e for e in faults.rollout(view["id"]) if e["what"] == "rolled_back")
    if fault in ("nan", "error", "broken"):
        assert len(bad) == sealed["candidate_errors"] > 0
    assert sealed["last_request_ms"] <= 100
    assert guard is None or by_breaker or guard in faults.ok("why", view["id"])


def test_a_release_that_was_rolled_back_is_quarantined_until_somebody_lifts_it_with_a_reason(faults):
    release = faults.releases["broken"][7:19]
    done = faults.run("promote", release, "--env", "production")
    assert done.returncode == 1 and "quarantine" in done.stderr
    view = promote(faults, "broken", "--lift-quarantine", "the data were wrong, not the model")
    faults.ok("abort", view["id"], "--reason", "only a test")
    faults.run("watch", view["id"], "--timeout", "30s")
    assert any("the data were wrong, not the model" in e.get("reason", "") for e in faults.audit())
    # Going back by hand is no fault of the release.
    view = faults.json("plan", faults.releases["good2"][7:19], "--env", "production", codes=(2,))
    assert view["obstacles"] == []


def test_its_author_may_not_approve_a_release_and_somebody_else_may(faults):
    view = promote(faults, "good", environment="approved", codes=(4,), user="carol@example.com")
    assert faults.run("status").returncode == 4
    done = faults.run("approve", view["id"])
    assert done.returncode == 1 and "author" in done.stderr, done.stderr
    done = faults.run("approve", view["id"], user="carol@example.com")
    assert done.returncode == 1
    done = faults.run("approve", view["id"], user="mallory@example.com")
    assert done.returncode == 1
    done = faults.run("approve", view["id"], "--plan", "0123456789", user="bob@example.com")
    assert done.returncode == 1
    assert faults.promotion(view["id"])["stage_name"] == "awaiting-approval"
    faults.ok("approve", view["id"], user="bob@example.com")
    assert faults.run("watch", view["id"], "--timeout", "60s").returncode == 0
    assert faults.serves("approved") == faults.releases["good"]
    denied = [e for e in faults.audit() if e["resource"]["id"] == view["id"] and e["effect"] == "deny"]
    assert len(denied) >= 3 and all(e["action"] == "promotion:approve" for e in denied)


def test_a_newer_promotion_supersedes_one_that_waits_and_is_refused_while_one_rolls(faults):
    older = promote(faults, "good2", environment="approved", codes=(4,))
    newer = promote(faults, "constant", "--lift-quarantine", "a test", environment="approved", codes=(4,))
    assert faults.stage(older["id"]) == "superseded"
    assert faults.run("approve", older["id"], user="bob@example.com").returncode == 1
    faults.ok("reject", newer["id"], "--reason", "it always says the same", user="bob@example.com")
    assert faults.run("watch", newer["id"], "--timeout", "10s").returncode == 1

    rolling = promote(faults, "good2")
    wait_for("a step", lambda: faults.promotion(rolling["id"])["stage"].get("rollout", {}).get("step") is not None)
    done = faults.run("promote", faults.releases["good2"][7:19], "--env", "production")
    assert done.returncode == 1 and rolling["id"] in done.stderr
    faults.ok("abort", rolling["id"], "--reason", "enough")
    assert faults.run("watch", rolling["id"], "--timeout", "30s").returncode == 5


def test_of_promotions_that_race_for_one_environment_exactly_one_proceeds(faults):
    command = [PROGRAM, "promote", "--project", str(faults.folder), "--state", str(faults.state), "--json", "--env", "approved"]
    racers = [
        subprocess.Popen([*command, faults.releases["good2"][7:19], "--as", who], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for who in ["alice@example.com", "bob@example.com", "carol@example.com"]
    ]
    views = [json.loads(out) for out, _ in (r.communicate(timeout=60) for r in racers) if out]
    stages = sorted(faults.stage(v["id"]) for v in views)
    assert len(views) == 3 and stages == ["awaiting-approval", "superseded", "superseded"]
    last = next(v["id"] for v in views if faults.stage(v["id"]) == "awaiting-approval")
    faults.ok("abort", last, "--reason", "only a race")
    assert faults.stage(last) == "cancelled"
