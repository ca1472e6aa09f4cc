"""Standing in the request path: an agent is replaced, killed and upgraded under load, and users don't notice."""

import http.client
import json
import os
import shutil
import signal
import socket
import time
from pathlib import Path

import pytest
from conftest import PROGRAM, Lockgate, Traffic, free_ports, get, wait_for
from test_killed import workers


def promoted(lockgate, environment, release):
    """Whether a promotion goes through: so somebody judges and writes."""
    done = lockgate.run("promote", release[7:19], "--env", environment, "--wait", "--timeout", "60s")
    return done.returncode == 0 or done.stdout + done.stderr


def test_an_agent_takes_over_from_another_without_a_lost_request(apart):
    apart.start_server()
    old = apart.start_agent("quick")
    with Traffic(apart.gateway("quick"), rps=400, threads=8) as traffic:
        wait_for("answers", lambda: traffic.since()[200:])
        for _ in range(3):
            began, count = time.time(), len(traffic.since())
            new = apart.start_agent("quick", more=["--take-over"], name="new")
            assert old.wait(60) == 0
            assert new.poll() is None
            apart.children["agent-quick"] = old = apart.children.pop("new")
            wait_for("answers of the new one", lambda: traffic.since()[count + 500 :])
            print(f"taken over in {time.time() - began:.1f} s with the last connections")
        assert traffic.bad() == [], traffic.bad()[:3]
        # The new one judges, writes and reports; the workers of those before have ended with them.
        assert promoted(apart, "quick", apart.releases["good2"]) is True
        assert traffic.bad() == [], traffic.bad()[:3]
    assert len(list((apart.state / "env/quick/run").glob("*/"))) == 1
    parents = {Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1] for pid in workers(apart)}
    assert parents == {str(old.pid)}


def test_one_that_can_not_serve_leaves_the_other_in_office(apart):
    apart.start_server()
    old = apart.start_agent("quick")
    log = apart.state / "logs/new.log"
    # Its workers can't load a model.
    bad = ["--take-over", "--onnxruntime", "/dev/null"]
    with Traffic(apart.gateway("quick")) as traffic:
        for how in (signal.SIGKILL, signal.SIGTERM, None):
            new = apart.start_agent("quick", more=bad, name="new")
            wait_for("its workers to fail", lambda: "the worker died" in log.read_text())
            # Meanwhile the old one serves, though it judges nothing.
            assert old.poll() is None
            if how:
                apart.end("new", how)
            else:
                assert apart.children.pop("new").wait(120) == 1
                assert "doesn't take over, and the one that runs goes on" in log.read_text()
            log.unlink()
            count = len(traffic.since())
            wait_for("answers", lambda: traffic.since()[count + 200 :])  # noqa: B023
            assert new.poll() is not None and old.poll() is None
        assert promoted(apart, "quick", apart.releases["good2"]) is True
        assert traffic.bad() == [], traffic.bad()[:3]
    assert not [e for e in apart.audit() if (e.get("event") or {}).get("what") == "failover_decided"]


class PastTheGateway(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=10)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


def test_what_serves_can_be_asked_past_the_gateway(apart):
    apart.start_server()
    apart.start_agent("quick")
    link = apart.state / "env/quick/serving/toy.sock"
    wait_for("a model to serve", lambda: get(f"{apart.gateway('quick')}/v2/health/ready")[0] == 200)
    for expected in ("good", "good2"):
        with Traffic(apart.gateway("quick")):
            assert expected == "good" or promoted(apart, "quick", apart.releases[expected]) is True
        connection = PastTheGateway(link)
        body = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}
        connection.request("POST", "/v2/models/toy/infer", json.dumps(body), {"Content-Type": "application/json"})
        reply = connection.getresponse()
        answer = reply.read()
        assert reply.status == 200 and json.loads(answer)["outputs"][0]["data"] == [30], answer
        asked = [words for pid in workers(apart) if os.readlink(link) in (words := Path(f"/proc/{pid}/cmdline").read_text())]
        assert len(asked) == 1 and f"/{apart.releases[expected][7:]}" in asked[0], asked


def test_without_being_told_so_no_agent_enters_where_another_one_lives(apart):
    apart.start_server()
    old = apart.start_agent("quick")
    apart.ports["quick"] += 1
    second = apart.start_agent("quick", wait=False, name="second")
    apart.ports["quick"] -= 1
    assert second.wait(30) == 1
    words = (apart.state / "logs/second.log").read_text()
    assert str(old.pid) in words and "Traceback" not in words, words
    wait_for("the first one to serve", lambda: get(f"{apart.gateway('quick')}/v2/health/ready")[0] == 200)


@pytest.fixture
def upgradable(template, tmp_path_factory):
    """`lockgate up` from a program file of its own; `good` serves production."""
    tmp_path = tmp_path_factory.mktemp("up")
    lockgate = Lockgate(template.folder, template.copy(tmp_path / "s"), free_ports(8))
    lockgate.releases = template.releases
    lockgate.program = tmp_path / "lockgate"
    shutil.copy(PROGRAM, lockgate.program)
    lockgate.ok("up", "--detach", "--port", str(lockgate.port))
    lockgate.ok("promote", template.releases["good"][7:19], "--env", "production", "--wait", "--timeout", "60s")
    yield lockgate
    lockgate.verified()
    lockgate.ok("up", "--stop")


def roles(lockgate):
    """The server's and the agents' processes, and what they are."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().decode().split("\0")
            if words[1:2] in (["server"], ["agent"]) and str(lockgate.state) in " ".join(words):
                found[int(path.name)] = (words[1], os.readlink(path / "exe"))
        except OSError:
            continue
    return found


def test_an_upgrade_replaces_server_and_agents_under_load(upgradable):
    before = roles(upgradable)
    assert "no `up`" in Lockgate(upgradable.folder, upgradable.state / "other", 1).run("up", "--upgrade").stderr
    # As a package manager does it: another file under the same name.
    fresh = upgradable.program.with_name("fresh")
    shutil.copy(PROGRAM, fresh)
    fresh.rename(upgradable.program)
    assert {exe for _, exe in roles(upgradable).values()} == {f"{upgradable.program} (deleted)"}
    with Traffic(upgradable.gateway("production"), rps=300) as traffic:
        wait_for("answers", lambda: traffic.since()[100:])
        said = upgradable.ok("up", "--upgrade")
        assert "upgraded" in said and "not upgraded" not in said, said
        count = len(traffic.since())
        wait_for("answers", lambda: traffic.since()[count + 200 :])
        assert traffic.bad() == [], traffic.bad()[:3]
        after = roles(upgradable)
        assert not set(before) & set(after), (before, after)
        assert sorted(after.values()) == sorted((role, str(upgradable.program)) for role, _ in before.values())
        assert promoted(upgradable, "production", upgradable.releases["good2"]) is True
        # A file that is no Lockgate replaces nothing.
        shutil.copy("/bin/false", fresh)
        fresh.rename(upgradable.program)
        upgradable.program = Path(PROGRAM)
        done = upgradable.run("up", "--upgrade")
        assert done.returncode == 1 and done.stdout.count("can't be run") == len(after), done.stdout
        assert set(roles(upgradable)) == set(after)
        assert traffic.bad() == [], traffic.bad()[:3]


def test_no_connection_is_refused_while_a_killed_agent_comes_back(upgradable):
    agents = {pid for pid, (role, _) in roles(upgradable).items() if role == "agent"}
    with Traffic(upgradable.gateway("production"), rps=300) as traffic:
        wait_for("answers", lambda: traffic.since()[100:])
        for pid in agents:
            os.kill(pid, signal.SIGKILL)
        count = len(traffic.since())
        wait_for("answers", lambda: len([a for a in traffic.since()[count:] if a["good"]]) > 300)
    bad = traffic.bad()
    # What was in flight on its connections, at most one on each; a second try is answered.
    assert len(bad) <= traffic.threads and not [a for a in bad if "refused" in a["why"]], bad
